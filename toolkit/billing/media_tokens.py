"""What pictures, documents and recordings cost in tokens, by dialect and family of models. Pure: no I/O, no clock.

Each row of `ROWS` says where it has its figures from. Where a provider's pages differ, the dearer figure is taken; a
model that no row names gets the dearest row of its dialect. Two questions are answered:

- `most_tokens`: the most that a picture can be billed for, which its hold needs. Pictures alone: how many pages a PDF
  has, and how long a recording is, can be hidden from whoever reads the header, so those hold the whole context window.
- `usual_tokens`: what a medium is charged at when a provider who was called reports nothing. What nobody here can tell
  of it, since its address alone is known or its header is not read, counts as the most: who leaves has no discount.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from toolkit.core.dialect import Dialect
from toolkit.core.usage import text_tokens
from toolkit.dialects.media import Kind, Medium

WHOLE_WINDOW = 10_000_000
"""More tokens than any context window has: what counts as so many counts as the whole window."""

PAGE_PICTURE = (1_448, 2_048)
"""Pixels of a page that is shown to a model as a picture: A4, as large as most models take one."""

PAGE_TEXT = 3_000
"""Tokens of a page's text; Anthropic, "PDF support": 1,500 to 3,000. OpenAI names no figure."""

MOST_PAGES = 1_000
"""Pages of a PDF that a provider takes; Google, "Document understanding". The others take fewer."""

SOUND_RATE = 32
"""Tokens a second of sound; Google, "Understand and count tokens" ("Media resolution" says 25, OpenAI counts 10)."""

VIDEO_RATE = 10
"""Tokens a second of video beside frames and sound; Google, "Video understanding": about 300 in all, 258 and 32 of them
frame and sound."""

LOWEST_VIDEO_RATE = 12_500
"""Bytes a second of a video whose length cannot be read: 100 kbit/s, as the smallest that are streamed."""

LOWEST_SOUND_RATE = 2_000
"""Bytes a second of a recording whose length cannot be read: 16 kbit/s, speech."""


class Pictures:
    """How a family of models counts a picture."""

    def most(self, picture: Medium) -> int:
        """Return the most tokens that a picture can be billed for, whether or not its size is known."""
        raise NotImplementedError

    def usual(self, picture: Medium) -> int:
        """Return what a picture is likely to be billed for; the most that it can be, unless the rule is not known."""
        return self.most(picture)


@dataclass(frozen=True)
class Tiles(Pictures):
    """Fit into 2,048 × 2,048 px, then the short side into 768, and count the squares of 512 that cover it.

    Args:
        base: tokens of any picture.
        tile: tokens of each square.
    """

    base: int
    tile: int

    def most(self, picture: Medium) -> int:
        if picture.detail == "low":
            return self.base
        if not picture.width:
            return self.base + 8 * self.tile
        width, height = _fit(picture.width, picture.height, 2_048)
        short = max(min(width, height), 768)
        return self.base + self.tile * _up(_up(width * 768, short), 512) * _up(_up(height * 768, short), 512)


@dataclass(frozen=True)
class Patches(Pictures):
    """Fit into a side, and count the patches of 32 × 32 px that cover it, up to a number.

    Args:
        hundredths: tokens of a hundred patches.
        sizes: by `detail`: the longest side in pixels, and the most patches.
    """

    hundredths: int
    sizes: Mapping[str, tuple[int, int]]

    def most(self, picture: Medium) -> int:
        # A word that is not known may mean the dearest.
        given = self.sizes.get(picture.detail or "auto")
        patches = 0
        for side, most in self.sizes.values() if given is None else (given,):
            width, height = _fit(picture.width, picture.height, side) if picture.width else (side, side)
            patches = max(patches, min(_up(width, 32) * _up(height, 32), most))
        return _up(patches * self.hundredths, 100)


@dataclass(frozen=True)
class Areas(Pictures):
    """Fit into a side, and count patches of 28 × 28 px, or pixels ÷ 750, as it used to be, if that is more.

    Args:
        side: the longest, in pixels.
        cap: the most tokens.
    """

    side: int
    cap: int

    def most(self, picture: Medium) -> int:
        if not picture.width:
            return self.cap
        width, height = _fit(picture.width, picture.height, self.side)
        return min(max(_up(width, 28) * _up(height, 28), _up(width * height, 750)), self.cap)


@dataclass(frozen=True)
class Crops(Pictures):
    """One tile up to 384 px; else tiles of two thirds of the short side, which are 256 to 768 px."""

    def most(self, picture: Medium) -> int:
        width, height = picture.width, picture.height
        if not width:
            # Google reads no picture that is not known here; one whose size is hidden may have any.
            return WHOLE_WINDOW if picture.hidden else 35_000
        if max(width, height) <= 384:
            return 258
        unit = min(max(2 * min(width, height) // 3, 256), 768)
        return max(258 * _up(width, unit) * _up(height, unit), 2_304)


@dataclass(frozen=True)
class Levels(Pictures):
    """So many tokens whatever the size, by `mediaResolution`."""

    tokens: Mapping[str, int]

    def most(self, picture: Medium) -> int:
        return _at_level(self.tokens, picture.detail)


@dataclass(frozen=True)
class Dearest(Pictures):
    """The dearest of several rules."""

    rules: tuple[Pictures, ...]

    def most(self, picture: Medium) -> int:
        return max(rule.most(picture) for rule in self.rules)


@dataclass(frozen=True)
class Unknown(Pictures):
    """A model that nobody has described: held at the dearest of all, charged as the commonest open models count."""

    def most(self, picture: Medium) -> int:  # noqa: ARG002 - whatever it is
        return 48_200

    def usual(self, picture: Medium) -> int:
        return min(_up(picture.width, 28) * _up(picture.height, 28), 16_384) if picture.width else 16_384


@dataclass(frozen=True)
class Row:
    """A family of models.

    Args:
        dialect: whose.
        name: for people.
        models: what the provider's name of such a model matches, from its beginning.
        pictures: what a picture costs.
        source: of the figures.
        page: tokens of a page of a PDF by `mediaResolution`; None: its text, and a picture of it.
        frame: tokens of a video's frame by `mediaResolution`.
    """

    dialect: Dialect
    name: str
    models: str
    pictures: Pictures
    source: str
    page: Mapping[str, int] | None = None
    frame: Mapping[str, int] | None = None

    def page_tokens(self, detail: str) -> int:
        """Return what a page of a PDF costs, at its densest."""
        if self.page is not None:
            return _at_level(self.page, detail)
        width, height = PAGE_PICTURE
        return PAGE_TEXT + self.pictures.usual(Medium(Kind.PICTURE, width=width, height=height, detail=detail))

    def frame_tokens(self, detail: str) -> int:
        """Return what a frame of a video costs."""
        return _at_level(self.frame or _FRAMES, detail)


def _up(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    """Scale down until neither is longer than `side`; what is left of a pixel counts as one."""
    longest = max(width, height)
    return (width, height) if longest <= side else (_up(width * side, longest), _up(height * side, longest))


def _at_level(tokens: Mapping[str, int], level: str) -> int:
    """Return what a level costs; one that is not known may be the dearest."""
    found = tokens.get(level)
    return max(tokens.values()) if found is None else found


_DATED = r"(?:-chat)?(?:-latest|-preview)?(?:-\d{4}-\d\d-\d\d)?$"
_VISION = 'OpenAI, "Images and vision"'
_LOW, _HIGH, _LARGEST = (512, 256), (2_048, 2_500), (65_535, 30_000)
_ONE_SIZE = dict.fromkeys(("low", "high", "auto"), (2_048, 6_144))
_SIX = {"low": _LOW, "high": (65_535, 2_500), "original": _LARGEST, "auto": _LARGEST}
_FIVE_SIX = {**_SIX, "high": _HIGH}
_FIVE_FIVE = {"low": _LOW, "high": _HIGH, "original": (6_000, 10_000), "auto": (6_000, 10_000)}
_FIVE_FOUR = {"low": (2_048, 6_144), "high": _HIGH, "original": (6_000, 10_000), "auto": _HIGH}

_CROPS = Crops()
_LEVELS = Levels({"": 1_120, "low": 280, "medium": 560, "high": 1_120, "ultra_high": 2_240})
_PAGES = {"": 560, "low": 280, "medium": 560, "high": 1_120}
_FRAMES = {"": 258}
_NEW_FRAMES = {"": 70, "low": 70, "medium": 70, "high": 280}

ROWS = (
    Row(Dialect.OPENAI, "gpt-6-astra", "gpt-6-astra" + _DATED, Patches(120, _SIX), _VISION),
    Row(Dialect.OPENAI, "gpt-5.6", r"gpt-5\.6-(?:sol|terra|luna)" + _DATED, Patches(120, _FIVE_SIX), _VISION),
    Row(Dialect.OPENAI, "gpt-5.5", r"gpt-5\.5" + _DATED, Patches(120, _FIVE_FIVE), _VISION),
    Row(
        Dialect.OPENAI,
        "gpt-5.4, mini and nano",
        r"gpt-5\.4(?:-mini|-nano)?" + _DATED,
        Patches(120, _FIVE_FOUR),
        _VISION,
    ),
    Row(Dialect.OPENAI, "gpt-5.2, gpt-5-mini", r"gpt-5(?:\.2|-mini)" + _DATED, Patches(120, _ONE_SIZE), _VISION),
    Row(Dialect.OPENAI, "gpt-5-nano", "gpt-5-nano" + _DATED, Patches(150, _ONE_SIZE), _VISION),
    Row(Dialect.OPENAI, "gpt-4.1-mini", r"gpt-4\.1-mini" + _DATED, Patches(162, _ONE_SIZE), _VISION),
    Row(Dialect.OPENAI, "gpt-4.1-nano", r"gpt-4\.1-nano" + _DATED, Patches(246, _ONE_SIZE), _VISION),
    Row(Dialect.OPENAI, "o4-mini", "o4-mini" + _DATED, Patches(172, _ONE_SIZE), _VISION),
    Row(Dialect.OPENAI, "gpt-5, gpt-5.1", r"gpt-5(?:\.1)?" + _DATED, Tiles(70, 140), _VISION),
    Row(Dialect.OPENAI, "gpt-4o, gpt-4.1", r"(?:chat)?gpt-4(?:o|\.1)" + _DATED, Tiles(85, 170), _VISION),
    Row(Dialect.OPENAI, "gpt-4o-mini", "gpt-4o-mini" + _DATED, Tiles(2_833, 5_667), _VISION),
    Row(Dialect.OPENAI, "o1, o3", "o[13](?:-pro)?" + _DATED, Tiles(75, 150), _VISION),
    Row(Dialect.OPENAI, "any other", "", Unknown(), 'gpt-4o-mini\'s largest; Qwen, "Qwen2.5-VL"'),
    Row(
        Dialect.ANTHROPIC,
        "Claude before 4.7",
        r"(?:.*\.)?claude-(?:instant|2|3|(?:opus|sonnet|haiku)-4(?![-.](?:[7-9]|\d\d)(?!\d)))",
        Areas(1_568, 1_600),
        'Anthropic, "Vision", "PDF support"',
    ),
    Row(Dialect.ANTHROPIC, "any other", "", Areas(2_576, 4_784), 'Anthropic, "Vision", "PDF support"'),
    Row(
        Dialect.GEMINI,
        "Gemini before 3",
        r"gemini-[12](?:\.\d+)?-",
        _CROPS,
        'Google, "Image understanding", "Media resolution"',
        page={"": 258},
        frame=_FRAMES,
    ),
    Row(
        Dialect.GEMINI,
        "Gemini 3",
        r"gemini-3(?:\.\d+)?-",
        _LEVELS,
        'Google, "Media resolution"',
        page=_PAGES,
        frame=_NEW_FRAMES,
    ),
    Row(
        Dialect.GEMINI,
        "any other",
        "",
        Dearest((_CROPS, _LEVELS)),
        "as above",
        page={"": 1_120},
        frame={"": 280},
    ),
)


@lru_cache(maxsize=1024)
def row_of(dialect: Dialect, model: str) -> Row:
    """Return the row of a model.

    Args:
        dialect: that its provider speaks.
        model: the provider's name of it, maybe with a path before it, or as a model that was tuned.
    """
    name = model.rpartition("/")[2].removeprefix("ft:").partition(":")[0].lower()
    return next(row for row in ROWS if row.dialect is dialect and re.match(row.models, name))


def most_tokens(dialect: Dialect, model: str, media: Mapping[Medium, int]) -> int:
    """Return the most tokens that pictures can be billed for; whatever else there is holds the whole context window."""
    pictures = row_of(dialect, model).pictures
    return sum(count * pictures.most(medium) for medium, count in media.items() if medium.kind is Kind.PICTURE)


def usual_tokens(dialect: Dialect, model: str, media: Mapping[Medium, int]) -> int:
    """Return the tokens that media are charged at when nothing is reported; maybe more than a context window has."""
    row = row_of(dialect, model)
    return sum(count * _usual(row, medium) for medium, count in media.items())


def _usual(row: Row, medium: Medium) -> int:
    if medium.kind is Kind.PICTURE:
        return row.pictures.usual(medium)
    if medium.kind is Kind.PDF:
        return (medium.pages or MOST_PAGES) * row.page_tokens(medium.detail)
    if not medium.size and not medium.milliseconds:
        return WHOLE_WINDOW
    if medium.kind is Kind.AUDIO:
        return _up((medium.milliseconds or medium.size * 1000 // LOWEST_SOUND_RATE) * SOUND_RATE, 1000)
    if medium.kind is Kind.VIDEO:
        milliseconds = medium.milliseconds or medium.size * 1000 // LOWEST_VIDEO_RATE
        frames = _up(milliseconds * medium.frames, 1_000_000)
        rate = VIDEO_RATE if medium.sound is False else VIDEO_RATE + SOUND_RATE
        return frames * row.frame_tokens(medium.detail) + _up(milliseconds * rate, 1000)
    # A compressed document holds about four bytes of text in each of its own, so it counts a token a byte.
    return text_tokens(medium.size) if medium.kind is Kind.TEXT else medium.size
