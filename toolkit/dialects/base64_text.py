"""Base64 as a request carries it, decoded piece by piece, and no further than is asked for."""

from binascii import a2b_base64

LONGEST_HEAD = 192 * 1024
"""Bytes that are decoded of one blob in search of what its container says; real headers are far shorter."""

_TO_STANDARD = str.maketrans("-_", "+/")


class Base64Text:
    """A blob as text.

    Args:
        text: base64 from `start` on, with or without its padding.
        start: where in the text it begins; what stands before, such as the head of a `data:` URL, is none of it.
        url_safe: whether the reader at the other end takes the URL-safe alphabet too, as Protocol Buffers' JSON does.
            Others pass over its two signs or refuse them, so what follows would not be what they see.
    """

    def __init__(self, text: str, start: int = 0, *, url_safe: bool = False) -> None:
        self._text = text
        self._start = start
        self._url_safe = url_safe

    @property
    def size(self) -> int:
        """Bytes that it decodes to."""
        return (len(self._text) - self._start - self._text[-2:].count("=")) * 3 // 4

    def head(self, most: int = LONGEST_HEAD) -> bytes:
        """Return the first bytes, up to `most`; none if they are no base64."""
        return self.piece(0, most)

    def piece(self, start: int, most: int) -> bytes:
        """Return up to `most` bytes from about `start` on (three bytes are four signs); none if they are no base64."""
        begin, end = (self._start + at // 3 * 4 for at in (start, start + most))
        piece = self._text[begin:end]
        if self._url_safe:
            piece = piece.translate(_TO_STANDARD)
        if end >= len(self._text):
            piece = piece.rstrip("=")
            piece += "=" * (-len(piece) % 4)
        try:
            return a2b_base64(piece, strict_mode=True)
        except ValueError:
            return b""
