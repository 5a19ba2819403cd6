"""The boxes of an MP4 or QuickTime file, one in another; ISO/IEC 14496-12. None of their content is read."""

from collections.abc import Iterator
from struct import unpack_from

from toolkit.dialects.base64_text import Base64Text

_MOST = 32
"""Of a file, a movie, a track or its media: headers, a few tracks, notes."""

_HEAD = 16
_WINDOW = 256
"""Bytes that are decoded at once: the heads of boxes that hold little stand close together."""


def find(blob: Base64Text, at: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    """Return where the content of the first box of a name begins and ends, between two places; None: there is none."""
    return next(((start, stop) for name, start, stop in boxes(blob, at, end) if name == wanted), None)


def boxes(blob: Base64Text, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, beginning and end of the content of the boxes between two places.

    The last one ends before `end` if there are too many, or one is damaged.

    Raises:
        struct.error: the file ends in the head of one.
    """
    begin, window = at, b""
    for _ in range(_MOST):
        if at + 8 > end:
            return
        if at + _HEAD > begin + len(window):
            begin, window = at, read(blob, at, _WINDOW)
        length, name = unpack_from(">I4s", window, at - begin)
        start = at + 8
        if length == 1:
            (length,) = unpack_from(">Q", window, start - begin)
            start += 8
        stop = end if length == 0 else at + length
        if not start <= stop <= end:
            return
        yield name, start, stop
        at = stop


def content_of(box: bytes, *path: bytes) -> bytes:
    """Return the content of a box below the content of another one, by the names on the way; empty if it is not there.

    Args:
        box: the content, or its beginning.
        path: the first box of this name, in it the first of the next one.
    """
    for wanted in path:
        at = 0
        while True:
            if at + 8 > len(box):
                return b""
            length, name = unpack_from(">I4s", box, at)
            if length < 8:
                return b""
            if name == wanted:
                box = box[at + 8 : at + length]
                break
            at += length
    return box


def read(blob: Base64Text, at: int, most: int) -> bytes:
    """Return up to `most` bytes from a place on."""
    skipped = at % 3
    return blob.piece(at - skipped, skipped + most + 2)[skipped : skipped + most]
