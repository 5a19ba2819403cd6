"""How long is a recording? Read from its container's header; no sound and no frame is decoded.

Each reader takes a recording of its own kind and returns milliseconds, 0 where the header does not say.
"""

import re
from collections.abc import Callable
from struct import error as TooShort  # noqa: N812 - that is what it means here
from struct import unpack_from

from toolkit.dialects import boxes
from toolkit.dialects.base64_text import Base64Text

_GLANCE = 3 * 1024
_LARGEST_PAGE = 66 * 1024
"""Bytes; an Ogg page has at most 65,307. RFC 3533."""

_MP3_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]", re.DOTALL)
_MP3_KBITS = (
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_MP3_RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), 3: (44_100, 48_000, 32_000)}


def length_of(reader: Callable[[Base64Text], int], blob: Base64Text) -> int:
    """Return what a reader finds, in milliseconds; 0 for whatever it cannot read."""
    try:
        return max(reader(blob), 0)
    except (TooShort, IndexError, ZeroDivisionError):
        return 0


def wav(blob: Base64Text) -> int:
    """Microsoft, "Multimedia Programming Interface": bytes a second are in the chunk `fmt `."""
    head = blob.head(_GLANCE)
    (rate,) = unpack_from("<I", head, head.index(b"fmt ") + 16) if b"fmt " in head else (0,)
    return int(blob.size * 1000 // rate)


def mp3(blob: Base64Text) -> int:
    """ISO/IEC 11172-3: by the count of frames if there is one (a tag `Xing` or `Info`), else by the bit rate."""
    head = blob.head(_GLANCE)
    start = 0
    if head.startswith(b"ID3"):
        start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
        head = blob.piece(start, _GLANCE)
    found = _MP3_FRAME.search(head)
    if found is None:
        return 0
    version, index = head[found.start() + 1] >> 3 & 3, head[found.start() + 2]
    rate = _MP3_RATES[version][index >> 2 & 3]
    samples = 1152 if version == 3 else 576
    for tag in (b"Xing", b"Info"):
        at = head.find(tag, found.start())
        if at >= 0 and head[at + 7] & 1:
            (frames,) = unpack_from(">I", head, at + 8)
            return int(frames * samples * 1000 // rate)
    return (blob.size - start) * 8 // _MP3_KBITS[version == 3][(index >> 4) - 1]


def ogg(blob: Base64Text) -> int:
    """RFC 3533: the last page's position, in samples; of Opus always 48,000 a second (RFC 7845)."""
    head = blob.head(_GLANCE)
    at = head.find(b"\x01vorbis")
    (rate,) = unpack_from("<I", head, at + 12) if at >= 0 else (48_000,)
    tail = blob.piece(max(blob.size - _LARGEST_PAGE, 0), _LARGEST_PAGE + 6)
    (position,) = unpack_from("<q", tail, tail.rindex(b"OggS") + 6) if b"OggS" in tail else (0,)
    return int(position * 1000 // rate)


def mp4(blob: Base64Text) -> int:
    """ISO/IEC 14496-12: the box `mvhd` of the movie."""
    movie = boxes.find(blob, 0, blob.size, b"moov")
    header = movie and boxes.find(blob, *movie, b"mvhd")
    head = boxes.read(blob, header[0], 32) if header else b""
    form, at = (">IQ", 20) if head[0] else (">II", 12)
    scale, duration = unpack_from(form, head, at)
    return int(duration * 1000 // scale)
