"""How large is a picture? Read from its container's header; no pixel is decoded.

Each reader takes a picture of its own kind and returns width and height in pixels, or None where the header does not
say, or where there are several pictures in one.
"""

import re
from collections.abc import Callable
from itertools import islice
from struct import error as TooShort  # noqa: N812 - that is what it means here
from struct import unpack_from

from toolkit.dialects.base64_text import LONGEST_HEAD, Base64Text

Size = tuple[int, int]

_GLANCE = 3 * 1024
_MOST_SEGMENTS = 48
"""Of a JPEG, or sub-blocks of a GIF, before its frame: colour profile, thumbnail and notes are two dozen at most."""

# libjpeg, too, passes over what stands between two segments, and over fill bytes.
_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END = 0xDA, 0xD9

_GIF_CONTROL = b"\x21\xf9\x04"
_GIF_FRAME, _GIF_EXTENSION = 0x2C, 0x21
_HEIF_SIZE = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_HEIF_SEQUENCES = frozenset({b"msf1", b"hevc", b"hevx", b"avis"})
_MOST_BOXES = 8
_MOST_ITEMS = 1_000
"""Of a HEIF file: a photograph has a few dozen tiles."""


def size_of(reader: Callable[[Base64Text], Size | None], blob: Base64Text) -> Size | None:
    """Return what a reader finds; None for whatever it cannot read."""
    try:
        size = reader(blob)
    except (TooShort, IndexError):
        return None
    return size if size is not None and min(size) > 0 else None


def png(blob: Base64Text) -> Size | None:
    """W3C, "Portable Network Graphics": the first chunk is IHDR."""
    name, width, height = unpack_from(">4sII", blob.head(_GLANCE), 12)
    return (width, height) if name == b"IHDR" else None


def jpeg(blob: Base64Text) -> Size | None:
    """ITU-T T.81, annex B: the frame header comes before the first scan."""
    found = _jpeg_frame(blob.head(_GLANCE))
    return _jpeg_frame(blob.head(LONGEST_HEAD)) if found is None and blob.size > _GLANCE else found


def _jpeg_frame(head: bytes) -> Size | None:
    width = height = 0
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(head, at)
        if found is None:
            return None
        marker, at = found[1][0], found.end()
        if marker in (_START_OF_SCAN, _END):
            return width, height
        if marker in _STANDALONE:
            continue
        (length,) = unpack_from(">H", head, at) if at + 2 <= len(head) else (0,)
        if marker in _FRAMES and at + 7 <= len(head):
            # Decoders differ on which of two frames they obey, so the larger one counts.
            rows, columns = unpack_from(">HH", head, at + 3)
            width, height = max(width, columns), max(height, rows)
        at += max(length, 2)
    return None


def gif(blob: Base64Text) -> Size | None:
    """CompuServe, "GIF89a": decoders make the screen as large as its first frame."""
    head = blob.head(LONGEST_HEAD)
    if head.count(_GIF_CONTROL) > 1 or b"NETSCAPE2.0" in head:
        return None
    width, height, flags = unpack_from("<HHB", head, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    extended = False
    for _ in range(_MOST_SEGMENTS):
        if extended:  # in sub-blocks, of which an empty one is the last
            extended = head[at] > 0
            at += head[at] + 1
        elif head[at] == _GIF_EXTENSION:
            extended = True
            at += 2
        elif head[at] == _GIF_FRAME:
            left, top, frame_width, frame_height = unpack_from("<HHHH", head, at + 1)
            return max(width, left + frame_width), max(height, top + frame_height)
        else:
            return None
    return None


def webp(blob: Base64Text) -> Size | None:
    """Google, "WebP Container Specification"."""
    head = blob.head(_GLANCE)
    kind = head[12:16]
    if kind == b"VP8X":
        animated = head[20] & 2
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return None if animated else (width, height)
    if kind == b"VP8L" and head[20] == 0x2F:
        (bits,) = unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def heif(blob: Base64Text) -> Size | None:
    """ISO/IEC 23008-12 (HEIC, AVIF): the largest size among the properties of its items."""
    head = blob.head(LONGEST_HEAD)
    if head[8:12] in _HEIF_SEQUENCES:
        return None
    at = 0
    for _ in range(_MOST_BOXES):
        length, name = unpack_from(">I4s", head, at)
        if name == b"meta" and at + length <= len(head):
            sizes = [found.groups() for found in islice(_HEIF_SIZE.finditer(head, at, at + length), _MOST_ITEMS)]
            width, height = (max((int.from_bytes(size[side]) for size in sizes), default=0) for side in (0, 1))
            return width, height
        if length < 8:
            return None
        at += length
    return None
