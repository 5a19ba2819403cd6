"""What an inline blob is, and how large, is told by its own bytes, whatever it is declared as and whatever it holds."""

import io
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from struct import pack
from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from toolkit.dialects.base64_text import LONGEST_HEAD
from toolkit.dialects.media import Kind, Medium, data_url, read_blob
from toolkit.dialects.shape import MOST_MEDIA, Tally


def text(data: bytes) -> str:
    """Return bytes as a request carries them."""
    return b64encode(data).decode()


def picture(form: str, width: int, height: int, **options: Any) -> bytes:
    """Return a real picture."""
    made = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(made, form, **options)
    return made.getvalue()


def animated(form: str) -> bytes:
    """Return a real picture that moves."""
    frames = [Image.new("RGB", (40, 30), (shade, 0, 0)) for shade in (0, 100, 200)]
    made = io.BytesIO()
    frames[0].save(made, form, save_all=True, append_images=frames[1:], duration=100, loop=0)
    return made.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    """Return one segment of a JPEG."""
    return b"\xff" + bytes([marker]) + pack(">H", len(data) + 2) + data


def box(name: bytes, *content: bytes) -> bytes:
    """Return one box of an ISO base media file."""
    data = b"".join(content)
    return pack(">I4s", len(data) + 8, name) + data


def heic(*sizes: tuple[int, int]) -> bytes:
    """Return the head of a HEIC file whose items have these sizes."""
    properties = [box(b"ispe", bytes(4), pack(">II", *size)) for size in sizes]
    return box(b"ftyp", b"heic", bytes(4), b"mif1") + box(b"meta", bytes(4), box(b"iprp", box(b"ipco", *properties)))


def mp4(seconds: int, *, brand: bytes = b"isom", sound: bool = False, late: int = 0, version: int = 0) -> bytes:
    """Return an MP4 file whose header stands behind `late` bytes of media data, and its tracks have tables as long."""
    kinds = [b"vide", b"soun"] if sound else [b"vide"]
    times = pack(">QQIQ", 0, 0, 600, seconds * 600) if version else pack(">IIII", 0, 0, 600, seconds * 600)
    header = box(b"mvhd", bytes([version, 0, 0, 0]), times)
    tracks = [box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), kind), bytes(late))) for kind in kinds]
    movie = box(b"moov", header, *tracks)
    media = [box(b"mdat", bytes(late))] if late else []
    return b"".join([box(b"ftyp", brand, bytes(4)), *media, movie])


def element(name: bytes, *content: bytes, size: bytes = b"") -> bytes:
    """Return one element of a Matroska file; its size is written in eight bytes, unless it is given."""
    data = b"".join(content)
    return name + (size or pack(">Q", 1 << 56 | len(data))) + data


def webm(*kinds: int, live: bool = False, before: bytes = b"") -> bytes:
    """Return a WebM file with tracks of these types, after what is `before` them; a live recording has no sizes."""
    entries = [element(b"\xae", element(b"\xd7", b"\x01"), element(b"\x83", bytes([kind]))) for kind in kinds]
    tracks = element(b"\x16\x54\xae\x6b", *entries)
    unknown = b"\x01" + b"\xff" * 7 if live else b""
    frames = element(b"\x1f\x43\xb6\x75", b"\x83\x81\x02" * 100_000, size=unknown)
    head = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"webm"))
    return head + element(b"\x18\x53\x80\x67", before, tracks, frames, size=unknown)


def wav(seconds: int) -> bytes:
    """Return a WAV file of 8,000 bytes a second."""
    head = b"RIFF" + bytes(4) + b"WAVEfmt " + pack("<IHHIIHH", 16, 1, 1, 8_000, 8_000, 1, 8) + b"data" + bytes(4)
    return head + bytes(8_000 * seconds - len(head))


def mp3(seconds: int, *, tag: bytes = b"", frames: int = 0) -> bytes:
    """Return an MP3 file of 128 kbit/s at 44,100 Hz, after an ID3 tag; or one that counts its frames."""
    name = b"ID3\x04\x00\x00" + bytes([0, 0, len(tag) >> 7, len(tag) & 127]) + tag if tag else b""
    counted = b"Xing" + pack(">II", 1, frames) if frames else b""
    sound = b"\xff\xfb\x90\x00" + bytes(32) + counted
    return name + sound + bytes(max(16_000 * seconds - len(sound), 0))


def ogg(seconds: int, *, head: bytes = b"OpusHead", rate: int = 48_000) -> bytes:
    """Return an Ogg file."""
    first = b"OggS" + bytes(24) + head
    return first + bytes(100_000) + b"OggS\x00\x04" + pack("<q", seconds * rate) + bytes(14)


def pdf(pages: int, *, count: bool = True, packed: bool = False, padding: int = 0) -> bytes:
    """Return a PDF file with so many empty pages.

    Args:
        pages: how many.
        count: its page tree says how many it has.
        packed: objects are compressed into streams.
        padding: bytes of streams between pages and page tree.
    """
    tree = b"2 0 obj\n<< /Type /Pages /Kids [] %s>>\nendobj\n" % (b"/Count %d " % pages if count else b"")
    page = b"3 0 obj\n<< /Type /Page /Parent 2 0 R >>\nendobj\n"
    stream = b"9 0 obj\n<< /Type /ObjStm /N 4 >>\nendobj\n"
    body = (stream if packed else page * pages) + bytes(padding) + (tree if count or not packed else b"")
    return b"%PDF-1.7\n" + body + b"trailer\n"


SIZES = [(1, 1), (640, 480), (1, 5_000)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "icc_profile": b"x" * 100_000}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + b"x" * 100}),
        ("AVIF", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_pictures_size_is_read_from_its_header(form: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    """Every format that providers take; what the caller declares does not matter."""
    found = read_blob("image/x-other", text(picture(form, *size, **options)))
    assert found == Medium(Kind.PICTURE, False, *size)


def test_the_largest_item_of_a_heif_file_is_its_size() -> None:
    """Tiles and thumbnails are items, too."""
    assert read_blob("", text(heic((512, 512), (4_032, 3_024), (320, 240))))[2:4] == (4_032, 3_024)


def test_a_frame_outside_a_gifs_screen_counts() -> None:
    """Decoders enlarge the screen to its first frame, so a small screen hides nothing."""
    data = bytearray(picture("GIF", 300, 200))
    data[6:10] = pack("<HH", 1, 1)
    assert read_blob("image/gif", text(bytes(data)))[2:4] == (300, 200)


def test_of_two_frames_of_a_jpeg_the_larger_counts() -> None:
    """Decoders differ on which of them they obey."""
    small = segment(0xC0, pack(">BHHB", 8, 1, 1, 0))
    data = picture("JPEG", 900, 800)
    scan = data.index(b"\xff\xda")
    assert read_blob("image/jpeg", text(data[:2] + small + data[2:scan] + small + data[scan:]))[2:4] == (900, 800)


@pytest.mark.parametrize(
    "data",
    [
        animated("GIF"),
        animated("WEBP"),
        animated("AVIF"),
        b"\xff\xd8" + segment(0xE1, bytes(60_000)) * 10 + picture("JPEG", 5, 5)[2:],
        b"\xff\xd8" + segment(0xC0, pack(">BHHB", 8, 0, 700, 0)) + b"\xff\xda",
        picture("PNG", 5, 5)[:20],
        b"\x89PNG\r\n\x1a\n" + pack(">I4sII", 13, b"IHDR", 0, 10**9),
        box(b"ftyp", b"heic", bytes(4)) + box(b"meta", bytes(100)),
        box(b"ftyp", b"avis", bytes(4)) + heic((5, 5))[20:],
    ],
    ids=["gif", "webp", "avif", "far", "no height", "cut", "no width", "no size", "sequence"],
)
def test_a_picture_whose_size_cannot_be_read_is_marked(data: bytes) -> None:
    """It counts as the largest: it moves, its header is cut or hidden, or says nothing."""
    assert read_blob("image/png", text(data)) == Medium(Kind.PICTURE, hidden=True)


@pytest.mark.parametrize("spoil", [lambda t: t[:8] + "\n" + t[8:], lambda t: t[:8] + "-" + t[8:], lambda t: "=" + t])
def test_base64_that_readers_may_read_differently_hides_the_size(spoil: Callable[[str], str]) -> None:
    """Some readers pass over a sign that is none, others stop: then nobody knows what the provider sees."""
    assert read_blob("image/png", spoil(text(picture("PNG", 5, 5)))).hidden


def test_the_url_safe_alphabet_is_read_where_the_provider_reads_it() -> None:
    """Google's SDK sends it."""
    data = picture("JPEG", 640, 480)
    sent = urlsafe_b64encode(data).decode()
    assert sent[:100] != text(data)[:100]
    assert read_blob("image/jpeg", sent, url_safe=True)[2:4] == (640, 480)
    assert read_blob("image/jpeg", sent.rstrip("="), url_safe=True)[2:4] == (640, 480)
    assert read_blob("image/jpeg", sent).hidden


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (pdf(1), Kind.PDF),
        (mp4(1), Kind.VIDEO),
        (mp4(1, brand=b"M4A "), Kind.AUDIO),
        (wav(1), Kind.AUDIO),
        (mp3(1), Kind.AUDIO),
        (ogg(1), Kind.AUDIO),
        (b"fLaC" + bytes(50), Kind.AUDIO),
        (b"\x1a\x45\xdf\xa3" + bytes(50), Kind.VIDEO),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_lie_about_the_kind_is_found_out(data: bytes, kind: Kind) -> None:
    """Whoever declares a document or a recording as a picture does not get a picture's price."""
    assert read_blob("image/png", text(data)).kind is kind


@pytest.mark.parametrize(
    "data",
    [picture("PNG", 9, 9), pdf(1), b"spam %PDF-1.7" + bytes(99), heic((9, 9)), mp4(3, brand=b"heic", sound=True)],
)
def test_what_is_declared_as_a_recording_is_no_picture(data: bytes) -> None:
    """Players pass over what stands before the frames, so a sign at the beginning says nothing of what follows."""
    assert read_blob("video/mpeg", text(data)).kind is Kind.VIDEO
    assert read_blob("video/mpeg", text(data)).sound is not False
    assert read_blob("audio/mpeg", text(data)).sound is not False


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("image/tiff", Medium(Kind.PICTURE)),
        ("Video/x-ms-wmv", Medium(Kind.VIDEO, size=9, sound=None)),
        ("application/pdf", Medium(Kind.PDF, size=9)),
        ("text/csv", Medium(Kind.TEXT, size=9)),
        ("application/json; charset=utf-8", Medium(Kind.TEXT, size=9)),
        ("application/zip", Medium(Kind.DOCUMENT, size=9)),
        ("", Medium(Kind.DOCUMENT, size=9)),
    ],
)
def test_what_has_no_sign_is_what_it_is_declared_as(declared: str, expected: Medium) -> None:
    """Its bytes are counted, for nothing else is known of it."""
    assert read_blob(declared, text(b"something")) == expected


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        (pdf(7), 7),
        (pdf(7, count=False), 7),
        (pdf(7, packed=True), 7),
        (pdf(7, packed=True, count=False), 0),
        (pdf(7, count=False, padding=LONGEST_HEAD * 2), 0),
        (pdf(7, padding=LONGEST_HEAD * 2), 7),
        (b"%PDF-1.5\n1 0 obj\n<</Linearized 1/L 99/N 12/T 9>>\nendobj\n" + bytes(LONGEST_HEAD * 2), 12),
        (b"\n" * 900 + pdf(3), 3),
    ],
    ids=["tree", "counted", "packed", "hidden", "too long", "at its end", "linearized", "late sign"],
)
def test_pages_are_counted_without_inflating_anything(data: bytes, pages: int) -> None:
    """The page tree says how many; else they are counted, if none can be hidden; else nobody knows."""
    assert read_blob("application/pdf", text(data)) == Medium(Kind.PDF, pages=pages)


@pytest.mark.parametrize(
    ("data", "milliseconds"),
    [
        (wav(7), 7_000),
        (mp3(7), 7_000),
        (mp3(7, tag=bytes(5_000)), 7_000),
        (mp3(0, frames=1_000), 1_000 * 1_152 * 1_000 // 44_100),
        (ogg(7), 7_000),
        (ogg(7, head=b"\x01vorbis\0\0\0\0\x02" + pack("<I", 44_100), rate=44_100), 7_000),
        (mp4(7), 7_000),
        (mp4(7, version=1), 7_000),
        (mp4(7, late=1_000_001), 7_000),
        (mp4(7, brand=b"M4A "), 7_000),
    ],
    ids=["wav", "mp3", "tagged", "variable", "opus", "vorbis", "mp4", "long numbers", "late", "m4a"],
)
def test_a_recordings_length_is_read_from_its_header(data: bytes, milliseconds: int) -> None:
    """Wherever in the file that stands."""
    assert abs(read_blob("", text(data)).milliseconds - milliseconds) <= 1


def test_pages_of_a_real_file_are_counted() -> None:
    """As Pillow writes it."""
    made, page = io.BytesIO(), Image.new("RGB", (90, 120))
    page.save(made, "PDF", save_all=True, append_images=[page] * 4)
    assert read_blob("", text(made.getvalue())).pages == 5


def test_a_recording_without_a_length_has_its_bytes() -> None:
    """A bit rate makes seconds of them."""
    data = mp4(0)
    assert read_blob("video/mp4", text(data)) == Medium(Kind.VIDEO, size=len(data))


@pytest.mark.parametrize(
    ("data", "sound"),
    [
        (mp4(3), False),
        (mp4(3, sound=True), True),
        (mp4(3, sound=True, late=2_000_000), True),
        (webm(1), False),
        (webm(1, 17, live=True), False),
        (webm(1, 2), True),
        (webm(3, live=True), True),
    ],
)
def test_a_track_of_sound_is_seen(data: bytes, sound: bool) -> None:
    """MP4, QuickTime, Matroska and WebM list their tracks in the header."""
    assert read_blob("video/mp4", text(data)).sound is sound


FREE = box(b"free")
HANDLER = box(b"mdia", box(b"hdlr", bytes(8), b"vide"))


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF" + bytes(4) + b"AVI LIST" + bytes(99),
        b"FLV\x01\x05" + bytes(99),
        b"OggS" + bytes(24) + b"theora",
        box(b"ftyp", b"isom") + FREE * 100 + mp4(3)[16:],
        box(b"ftyp", b"isom") + box(b"moov", box(b"trak", HANDLER), FREE * 100),
        box(b"ftyp", b"isom") + box(b"moov", box(b"trak", HANDLER), box(b"trak", box(b"udta", b"hdlr" * 9))),
        box(b"ftyp", b"isom") + box(b"moov", box(b"cmov", bytes(99))),
        mp4(3)[:-9],
        webm(),
        webm(before=element(b"\x1f\x43\xb6\x75")),
        webm(1, before=element(b"\xec", bytes(300_000))),
        webm(1)[:70],
        b"\x1a\x45\xdf\xa3" + bytes(99),
    ],
)
def test_sound_that_may_be_there_is_not_taken_for_none(data: bytes) -> None:
    """A container that is not read here, or whose list of tracks was not read to its end."""
    found = read_blob("video/mp4", text(data))
    assert (found.kind, found.sound) == (Kind.VIDEO, None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:image/png;base64,AAAA", ("image/png", 22)),
        ("DATA:Image/PNG;name=a;base64,AAAA", ("image/png", 29)),
        ("data:,AAAA", ("", 6)),
        ("data:image/png", ("", 0)),
        ("https://example.com/data:", None),
        ("", None),
    ],
)
def test_data_urls_are_taken_apart(url: str, expected: tuple[str, int] | None) -> None:
    """What they declare, and where their data begins."""
    assert data_url(url) == expected


SAMPLES = [
    *(picture(form, 64, 48) for form in ("PNG", "JPEG", "GIF", "WEBP")),
    picture("WEBP", 64, 48, lossless=True),
    animated("GIF"),
    animated("WEBP"),
    heic((64, 48)),
    mp4(3, sound=True),
    mp4(3, version=1),
    wav(1),
    mp3(1, tag=bytes(20), frames=9),
    ogg(1),
    pdf(3),
    webm(1, 2),
    webm(1, live=True),
]


@given(
    st.sampled_from(SAMPLES),
    st.integers(0, 400),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=9)), max_size=4),
    st.sampled_from(["", "image/png", "video/mp4", "application/pdf", "audio/ogg", "text/plain"]),
)
def test_spoiled_containers_are_read_without_a_fault(
    data: bytes, cut: int, changes: list[tuple[int, bytes]], declared: str
) -> None:
    """Whatever a file claims in its header, there is an answer, and nothing in it is negative."""
    for at, put in changes:
        data = data[:at] + put + data[at + len(put) :]
    found = read_blob(declared, text(data[: len(data) - cut]))
    assert min(found.width, found.height, found.pages, found.milliseconds, found.size) >= 0
    assert bool(found.width) == bool(found.height)


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_a_container_may_end_anywhere(number: int) -> None:
    """Each beginning of each sample is read without a fault."""
    for length in range(300):
        read_blob("image/png", text(SAMPLES[number][:length]))


@given(st.binary(max_size=200) | st.builds(lambda a, b: a[:12] + b, st.sampled_from(SAMPLES), st.binary(max_size=99)))
def test_garbage_is_read_without_a_fault(data: bytes) -> None:
    """Bytes of any kind."""
    assert read_blob("image/png", text(data)).kind in Kind


@given(st.text(max_size=100))
def test_text_that_is_no_base64_is_read_without_a_fault(given_text: str) -> None:
    """A field that should hold base64 may hold anything."""
    assert read_blob("image/png", given_text).width == 0


class Counted(str):  # noqa: SLOT000 - it counts in an attribute
    """A text that counts how much of it is read."""

    read = 0

    def __getitem__(self, at: SupportsIndex | slice) -> str:
        piece = super().__getitem__(at)
        self.read += len(piece)
        return piece


LONG = 20_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + segment(0xE1, bytes(65_000)) * (LONG // 65_004),
        b"\xff\xd8" + b"\xff" * LONG,
        picture("PNG", 9, 9) + bytes(LONG),
        b"GIF89a" + bytes(7) + b"\x21\xfe" + (b"\x01\x00" * (LONG // 2)),
        b"%PDF-1.7" + b"/Type /Page " * (LONG // 12),
        box(b"ftyp", b"isom", bytes(4)) + box(b"free") * (LONG // 8),
        box(b"ftyp", b"heic", bytes(4)) + pack(">I4s", LONG, b"meta") + b"ispe" * (LONG // 4),
        ogg(1) + bytes(LONG),
        b"ID3" + bytes(LONG),
    ],
    ids=["segments", "fill", "png", "blocks", "pdf", "boxes", "heif", "ogg", "id3"],
)
def test_only_so_much_of_a_blob_is_decoded(data: bytes) -> None:
    """20 MB cost what a few hundred kilobytes do, whatever they claim to be."""
    sent = Counted(text(data))
    read_blob("image/jpeg", sent)
    assert sent.read <= 3 * LONGEST_HEAD * 4 // 3


def test_many_tiny_blobs_are_not_read_one_by_one() -> None:
    """Beyond 256 each needs 16 kB beside it to be read; else it counts as the largest of what it is declared as."""
    tally = Tally()
    tiny, large = text(picture("PNG", 9, 9)), text(picture("PNG", 9, 9) + bytes(20_000))
    for _ in range(1_000):
        tally.blob("image/png", tiny)
    assert tally.media[Medium(Kind.PICTURE, hidden=True)] > 700
    tally = Tally()
    for _ in range(1_000):
        tally.blob("image/png", large)
    assert tally.media == {Medium(Kind.PICTURE, False, 9, 9): 1_000}


def test_more_kinds_of_media_than_anybody_sends_count_as_the_largest() -> None:
    """So what a request holds in memory, and what it costs to add up, has a bound."""
    tally = Tally()
    for width in range(1, 3 * MOST_MEDIA):
        tally.add(Medium(Kind.PICTURE, False, width, 1))
    assert len(tally.media) == MOST_MEDIA + 1
    assert tally.media[Medium(Kind.PICTURE, hidden=True)] == 2 * MOST_MEDIA - 1
