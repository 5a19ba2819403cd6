"""The boxes of an MP4 or QuickTime file, one in another; ISO/IEC 14496-12. None of their content is read."""

from collections.abc import Iterator
from struct import unpack_from

from toolkit.dialects.base64_text import Base64Text

_MOST = 64
"""Of a file, a movie, a track or its media: headers, a few tracks, notes."""


def find(blob: Base64Text, at: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    """Return where the content of the first box of a name begins and ends, between two places; None: there is none."""
    return next(((start, stop) for name, start, stop in boxes(blob, at, end) if name == wanted), None)


def boxes(blob: Base64Text, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, beginning and end of the content of the boxes between two places.

    The last one ends before `end` if there are too many, or one is damaged.
    """
    for _ in range(_MOST):
        head = read(blob, at, 16)
        if at + 8 > end or len(head) < 8:
            return
        length, name = unpack_from(">I4s", head)
        start = at + 8
        if length == 1:
            (length,) = unpack_from(">Q", head, 8)
            start += 8
        stop = end if length == 0 else at + length
        if not start <= stop <= end:
            return
        yield name, start, stop
        at = stop


def read(blob: Base64Text, at: int, most: int) -> bytes:
    """Return up to `most` bytes from a place on."""
    skipped = at % 3
    return blob.piece(at - skipped, skipped + most + 2)[skipped : skipped + most]
