"""Has a video a track of sound? Read from its container's list of tracks; neither sound nor frame is decoded.

Only a list that was read to its end tells that there is none: a track may stand behind whatever is not read.
"""

from collections.abc import Iterator
from struct import error as TooShort  # noqa: N812 - that is what it means here

from toolkit.dialects import boxes
from toolkit.dialects.base64_text import Base64Text

_GLANCE = 3 * 1024
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT, _TRACKS, _ENTRY, _TYPE, _CLUSTER = (
    b"\x18\x53\x80\x67",
    b"\x16\x54\xae\x6b",
    b"\xae",
    b"\x83",
    b"\x1f\x43\xb6\x75",
)
_TRACK_HEAD = 1_024
"""Bytes of a track of a movie that have its handler."""

_MOST_ELEMENTS = 16
"""Of a segment before its frames, of its list of tracks, and of a track before its type."""

_VIDEO, _WITH_SOUND = 1, (2, 3)
"""Matroska's types of tracks: video; audio, and both in one."""


def has_sound(blob: Base64Text) -> bool | None:
    """Tell whether a video has a track of sound; None where that cannot be told.

    Read are MP4 and QuickTime (ISO/IEC 14496-12), Matroska and WebM (RFC 9559, RFC 8794).
    """
    head = blob.head(_GLANCE)
    try:
        if head.startswith(_EBML):
            return _of_matroska(blob.head(), blob.size)
        if head[4:8] == b"ftyp":
            return _of_movie(blob)
    except (TooShort, IndexError):
        return None
    return True if b"\x01vorbis" in head or b"OpusHead" in head else None


def _of_movie(blob: Base64Text) -> bool | None:
    movie = boxes.find(blob, 0, blob.size, b"moov")
    if movie is None:
        return None
    at, end = movie
    handlers: list[bytes] = []
    for name, start, stop in boxes.boxes(blob, at, end):
        at = stop
        if name == b"trak":
            head = boxes.read(blob, start, min(stop - start, _TRACK_HEAD))
            handlers.append(boxes.content_of(head, b"mdia", b"hdlr")[8:12])
    if b"soun" in handlers:
        return True
    return False if at == end and b"vide" in handlers and b"" not in handlers else None


def _of_matroska(head: bytes, size: int) -> bool | None:
    """Tell it from the head of a file of `size` bytes, before the first cluster of frames."""
    segment = _element(head, 0, size, _SEGMENT)
    tracks = segment and _element(head, *segment, _TRACKS)
    if not tracks or tracks[1] > len(head):
        return None
    at, end = tracks
    types: list[int] = []
    for name, start, stop in _elements(head, at, end):
        at = stop
        if name == _ENTRY:
            kind = _element(head, start, stop, _TYPE)
            if kind is None:
                return None
            types.append(int.from_bytes(head[slice(*kind)], "big"))
    if any(kind in _WITH_SOUND for kind in types):
        return True
    return False if at == end and _VIDEO in types else None


def _element(head: bytes, at: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    """Return where the content of the first element of an id begins and ends, or None."""
    for name, start, stop in _elements(head, at, end):
        if name == wanted:
            return start, stop
        if name == _CLUSTER:
            return None
    return None


def _elements(head: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield id, beginning and end of the content of the elements between two places, as far as the head goes.

    An id and a size are as long as the zeros tell that their first byte begins with; one of unknown size ends nowhere.
    """
    for _ in range(_MOST_ELEMENTS):
        if at >= min(end, len(head)) or not head[at]:
            return
        name = head[at : at + 9 - head[at].bit_length()]
        at += len(name)
        if not head[at]:
            return
        start = at + 9 - head[at].bit_length()
        unknown = (1 << 7 * (start - at)) - 1
        size = int.from_bytes(head[at:start], "big") & unknown
        stop = end if size == unknown else start + size
        if stop > end:
            return
        yield name, start, stop
        at = stop
