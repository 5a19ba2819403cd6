"""What a request carries beside text: pictures, documents, recordings, and what their own bytes say of their size.

The declared media type is a hint for what has no sign of its own; it may be a mistake or a lie. Reading a blob costs a
bounded amount of work, whatever its length and whatever its bytes are.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from toolkit.dialects import pdf, pictures, recordings, tracks
from toolkit.dialects.base64_text import Base64Text

_GLANCE = 3 * 1024


class Kind(StrEnum):
    """What a medium is."""

    PICTURE = "picture"
    PDF = "PDF"
    TEXT = "text"
    DOCUMENT = "document"
    AUDIO = "audio"
    VIDEO = "video"


class Medium(NamedTuple):
    """One picture, document or recording; what is not known is 0.

    Args:
        kind: what it is.
        by_url: only the provider reads it, so nothing of its size is known.
        width: of a picture, in pixels; so is height.
        pages: of a PDF.
        milliseconds: of a recording.
        size: bytes of what has none of the above.
        detail: how closely it is to be looked at, in the dialect's own word; empty if the request does not say.
        frames: of a video that are looked at in 1,000 seconds.
        hidden: it is a picture that decoders know, or may be one, and yet its size cannot be read.
        sound: whether it is sound, or a video with a track of it; None where that cannot be told of a video.
    """

    kind: Kind
    by_url: bool = False
    width: int = 0
    height: int = 0
    pages: int = 0
    milliseconds: int = 0
    size: int = 0
    detail: str = ""
    frames: int = 1_000
    hidden: bool = False
    sound: bool | None = False


_PICTURES: tuple[tuple[re.Pattern[bytes], Callable[[Base64Text], pictures.Size | None]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), pictures.png),
    (re.compile(rb"\xff\xd8\xff"), pictures.jpeg),
    (re.compile(rb"GIF8[79]a"), pictures.gif),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), pictures.webp),
    (re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cx]|m[is]f1|avi[fs])", re.DOTALL), pictures.heif),
)
_RECORDINGS: tuple[tuple[re.Pattern[bytes], Kind, Callable[[Base64Text], int] | None], ...] = (
    (re.compile(rb"RIFF.{4}WAVE", re.DOTALL), Kind.AUDIO, recordings.wav),
    (re.compile(rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"), Kind.AUDIO, recordings.mp3),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]|fLaC|#!AMR|FORM.{4}AIF", re.DOTALL), Kind.AUDIO, None),
    (re.compile(rb"OggS.{0,200}theora", re.DOTALL), Kind.VIDEO, None),
    (re.compile(rb"OggS"), Kind.AUDIO, recordings.ogg),
    (re.compile(rb".{4}ftypM4[AB]", re.DOTALL), Kind.AUDIO, recordings.mp4),
    (re.compile(rb".{4}ftyp", re.DOTALL), Kind.VIDEO, recordings.mp4),
    (re.compile(rb"\x1a\x45\xdf\xa3"), Kind.VIDEO, None),
)
# One look for what has no sign: every one of the above begins like this.
_SIGN = re.compile(rb"[\x89\xff#\x1a]|GIF8|RIFF|ID3|fLaC|FORM|OggS|.{4}ftyp", re.DOTALL)
_DECLARED = (
    (re.compile(r"image/"), Kind.PICTURE),
    (re.compile(r"audio/"), Kind.AUDIO),
    (re.compile(r"video/"), Kind.VIDEO),
    (re.compile(r"application/(?:x-)?pdf"), Kind.PDF),
    (re.compile(r"text/|application/(?:json|xml|javascript|x-javascript|x-python|rtf)"), Kind.TEXT),
)
_SOUND_OF_DECLARED = {Kind.AUDIO: True, Kind.VIDEO: None}
_LONGEST_URL_HEAD = 256


def read_blob(media_type: str, text: str, start: int = 0, *, url_safe: bool = False) -> Medium:
    """Return what an inline blob is.

    Args:
        media_type: as declared, or empty.
        text: its base64.
        start: as `Base64Text` takes it; so is url_safe.
    """
    blob = Base64Text(text, start, url_safe=url_safe)
    head = blob.head(_GLANCE)
    declared = media_type.lower()
    said = kind_of(declared)
    # What is declared as a recording is played as one, whatever stands before it.
    played = said in _SOUND_OF_DECLARED
    # Readers of PDF look for its sign in the first kilobyte, readers of pictures do not.
    if not played and (head.startswith(b"%PDF-") or (b"%PDF-" in head[:1024] and not declared.startswith("image/"))):
        return Medium(Kind.PDF, pages=pdf.pages_of(blob))
    known = _SIGN.match(head)
    for sign, reader in _PICTURES if known and not played else ():
        if sign.match(head):
            size = pictures.size_of(reader, blob)
            return Medium(Kind.PICTURE, hidden=True) if size is None else Medium(Kind.PICTURE, False, *size)
    for sign, kind, length in _RECORDINGS if known else ():
        if sign.match(head):
            milliseconds = recordings.length_of(length, blob) if length else 0
            sound = tracks.has_sound(blob) if kind is Kind.VIDEO else True
            return Medium(kind, milliseconds=milliseconds, size=0 if milliseconds else blob.size, sound=sound)
    if said is Kind.PICTURE:
        return Medium(said, hidden=not head and blob.size > 0)
    return Medium(said, size=blob.size, sound=_SOUND_OF_DECLARED.get(said, False))


def kind_of(media_type: str) -> Kind:
    """Return what a blob is declared as."""
    return next((kind for start, kind in _DECLARED if start.match(media_type)), Kind.DOCUMENT)


def data_url(url: str) -> tuple[str, int] | None:
    """Return the media type that a `data:` URL declares, and where its data begins; None if it is another address."""
    if url[:5].lower() != "data:":
        return None
    comma = url.find(",", 0, _LONGEST_URL_HEAD)
    head = url[5:comma].lower() if comma >= 0 else ""
    return head.partition(";")[0].strip(), comma + 1
