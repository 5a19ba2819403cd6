"""What media cost, against figures worked out by hand from the providers' documentation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from toolkit.billing.media_tokens import (
    MOST_PAGES,
    ROWS,
    VIDEO_RATE,
    WHOLE_WINDOW,
    Row,
    most_tokens,
    row_of,
    usual_tokens,
)
from toolkit.core.dialect import Dialect
from toolkit.dialects.media import Kind, Medium

OPENAI, ANTHROPIC, GEMINI = Dialect.OPENAI, Dialect.ANTHROPIC, Dialect.GEMINI


def picture(width: int = 0, height: int = 0, detail: str = "", **facts: bool) -> Medium:
    return Medium(Kind.PICTURE, width=width, height=height, detail=detail, **facts)


def most(dialect: Dialect, model: str, medium: Medium) -> int:
    return most_tokens(dialect, model, {medium: 1})


def usual(dialect: Dialect, model: str, medium: Medium) -> int:
    return usual_tokens(dialect, model, {medium: 1})


PICTURES = [
    # Tiles: 1,024² → 768² → 2 × 2; 2,048 × 4,096 → 1,024 × 2,048 → 768 × 1,536 → 2 × 3; the guide's own examples.
    (OPENAI, "gpt-4o", picture(1_024, 1_024), 85 + 4 * 170),
    (OPENAI, "gpt-4o-2024-08-06", picture(2_048, 4_096, "high"), 85 + 6 * 170),
    (OPENAI, "gpt-4.1", picture(4_096, 8_192, "low"), 85),
    (OPENAI, "gpt-4o", picture(512, 512), 85 + 170),
    (OPENAI, "gpt-4o", picture(1, 100_000), 85 + 4 * 170),
    (OPENAI, "gpt-4o-mini", picture(1_024, 1_024), 2_833 + 4 * 5_667),
    (OPENAI, "gpt-4o-mini", picture(), 2_833 + 8 * 5_667),
    (OPENAI, "openai/gpt-5.1", picture(1_024, 1_024), 70 + 4 * 140),
    (OPENAI, "gpt-5-chat-latest", picture(1_024, 1_024, "low"), 70),
    (OPENAI, "o3", picture(1_024, 1_024), 75 + 4 * 150),
    (OPENAI, "ft:gpt-4o-2024-08-06:ours::abc", picture(1_024, 1_024), 765),
    # Patches: the guide's own examples for detail `high`.
    (OPENAI, "gpt-6-astra", picture(1_024, 1_024, "high"), 1_229),
    (OPENAI, "gpt-6-astra", picture(2_048, 2_048, "high"), 3_000),
    (OPENAI, "gpt-6-astra", picture(4_096, 512, "high"), 2_458),
    (OPENAI, "gpt-5.6-sol", picture(4_096, 512, "high"), 615),  # fits into 2,048 × 256: 64 × 8 patches
    (OPENAI, "gpt-5.6-sol", picture(4_096, 512), 2_458),
    (OPENAI, "gpt-5.6-luna", picture(20_000, 20_000, "original"), 36_000),  # beyond 30,000 patches it is rejected
    (OPENAI, "gpt-5.6-terra", picture(4_000, 3_000, "low"), 231),  # 512 × 384: 16 × 12 patches
    (OPENAI, "gpt-5.5", picture(6_000, 6_000), 12_000),
    (OPENAI, "gpt-5.4", picture(6_000, 6_000), 3_000),
    (OPENAI, "gpt-5.4-mini", picture(6_000, 6_000, "original"), 12_000),
    (OPENAI, "gpt-5.4-nano", picture(2_048, 2_048, "low"), 4_916),  # 64 × 64 patches, more than `high`
    (OPENAI, "gpt-5.2", picture(2_048, 2_048), 4_916),
    (OPENAI, "gpt-5-mini", picture(1_024, 1_024), 1_229),
    (OPENAI, "gpt-5-nano", picture(1_024, 1_024), 1_536),
    (OPENAI, "gpt-4.1-mini-2025-04-14", picture(1_024, 1_024), 1_659),
    (OPENAI, "gpt-4.1-nano", picture(1_024, 1_024), 2_520),
    (OPENAI, "o4-mini", picture(1_024, 1_024), 1_762),
    (OPENAI, "gpt-5.4", picture(6_000, 6_000, "who knows"), 12_000),
    # Patches of 28, or pixels ÷ 750: 36 × 36 = 1,296 against 1,334; 69 × 39 = 2,691 against 2,765.
    (ANTHROPIC, "claude-sonnet-4-5-20250929", picture(1_000, 1_000), 1_334),
    (ANTHROPIC, "claude-sonnet-4-5-20250929", picture(3_840, 2_160), 1_600),
    (ANTHROPIC, "claude-3-haiku-20240307", picture(200, 200), 64),
    (ANTHROPIC, "us.anthropic.claude-opus-4-20250514-v1:0", picture(), 1_600),
    (ANTHROPIC, "claude-opus-4-6", picture(8_000, 8_000), 1_600),
    (ANTHROPIC, "claude-opus-4-7", picture(1_920, 1_080), 2_765),
    (ANTHROPIC, "claude-opus-4-10", picture(8_000, 8_000), 4_784),
    (ANTHROPIC, "claude-opus-5", picture(3_840, 2_160), 4_784),
    (ANTHROPIC, "kimi-k2", picture(), 4_784),
    # The guide's example has a crop unit of 360, so 3 × 2 tiles; pan and scan come to 2,304.
    (GEMINI, "models/gemini-2.5-flash", picture(384, 384), 258),
    (GEMINI, "gemini-2.5-pro", picture(960, 540), 2_304),
    (GEMINI, "gemini-2.0-flash", picture(4_000, 3_000), 24 * 258),
    (GEMINI, "gemini-2.5-flash", picture(1, 100_000), 391 * 258),
    (GEMINI, "gemini-2.5-flash", picture(), 35_000),
    (GEMINI, "gemini-2.5-flash", picture(hidden=True), WHOLE_WINDOW),
    (GEMINI, "gemini-3-pro-preview", picture(4_000, 3_000), 1_120),
    (GEMINI, "gemini-3.5-flash", picture(9, 9, "low"), 280),
    (GEMINI, "gemini-3.5-flash", picture(9, 9, "medium"), 560),
    (GEMINI, "gemini-3.5-flash", picture(9, 9, "ultra_high"), 2_240),
    (GEMINI, "gemini-3.5-flash", picture(9, 9, "?"), 2_240),
    (GEMINI, "gemini-flash-latest", picture(9, 9), 1_120),
    (GEMINI, "gemini-flash-latest", picture(4_000, 3_000), 24 * 258),
]


@pytest.mark.parametrize(("dialect", "model", "medium", "tokens"), PICTURES)
def test_a_picture_costs_what_its_provider_says(dialect: Dialect, model: str, medium: Medium, tokens: int) -> None:
    """Held and charged alike: the size is the one that the provider's decoder must use, too."""
    assert (most(dialect, model, medium), usual(dialect, model, medium)) == (tokens, tokens)


def test_a_model_that_nobody_described_is_held_at_the_dearest_and_charged_at_the_usual() -> None:
    """A local server's model: 2,000 × 1,000 px are 72 × 36 patches; what cannot be read is as large as they come."""
    assert most(OPENAI, "qwen3-vl", picture(2_000, 1_000)) == 48_200
    assert usual(OPENAI, "qwen3-vl", picture(2_000, 1_000)) == 72 * 36
    assert usual(OPENAI, "qwen3-vl", picture()) == 16_384


@pytest.mark.parametrize(
    "name", ["gpt-5.1-codex-mini", "gpt-5.3", "gpt-4o-audio-preview", "gpt-5-pro", "o4-mini-deep-research", ""]
)
def test_a_name_that_is_nearly_a_known_one_is_not_taken_for_it(name: str) -> None:
    """A new or special model may cost more: the name must be the whole one, but for its date."""
    assert row_of(OPENAI, name).name == "any other"


@given(st.integers(1, 70_000), st.integers(1, 70_000), st.sampled_from(["", "low", "high", "original", "auto", "?"]))
def test_no_picture_costs_more_than_the_largest(width: int, height: int, detail: str) -> None:
    """So one whose size cannot be read is held as the largest; Google's older models take any size."""
    for row in ROWS:
        if row.dialect is not GEMINI:
            assert row.pictures.most(picture(width, height, detail)) <= row.pictures.most(picture(0, 0, detail))


@given(st.integers(1, 70_000), st.integers(1, 70_000), st.integers(0, 5_000))
def test_a_pictures_orientation_does_not_matter(width: int, height: int, more: int) -> None:
    """Cameras turn pictures by a note in the header, which is not read here."""
    for row in ROWS:
        assert row.pictures.most(picture(width, height)) == row.pictures.most(picture(height, width))


DOCUMENTS = [
    # A page is its text and a picture of 1,448 × 2,048 px: 768 × 1,087 → 2 × 3 tiles; 46 × 64 = 2,944 patches.
    (OPENAI, "gpt-4o", Medium(Kind.PDF, pages=10), 10 * (3_000 + 85 + 6 * 170)),
    (OPENAI, "gpt-5.6-sol", Medium(Kind.PDF, pages=10), 10 * (3_000 + 3_533)),
    (ANTHROPIC, "claude-sonnet-4-5", Medium(Kind.PDF, pages=10), 10 * (3_000 + 1_600)),
    (ANTHROPIC, "claude-opus-5", Medium(Kind.PDF, pages=2), 2 * (3_000 + 3_955)),  # 1,448 × 2,048 ÷ 750
    (GEMINI, "gemini-2.5-flash", Medium(Kind.PDF, pages=10), 2_580),
    (GEMINI, "gemini-3-pro", Medium(Kind.PDF, pages=10), 5_600),
    (GEMINI, "gemini-3-pro", Medium(Kind.PDF, pages=10, detail="high"), 11_200),
    (GEMINI, "gemini-2.5-flash", Medium(Kind.PDF), MOST_PAGES * 258),
    (GEMINI, "gemini-2.5-flash", Medium(Kind.PDF, by_url=True), 1_000 * 258),
    (ANTHROPIC, "claude-sonnet-4-5", Medium(Kind.PDF, by_url=True), 1_000 * (3_000 + 1_600)),
    (ANTHROPIC, "claude-sonnet-4-5", picture(by_url=True), 1_600),
    (OPENAI, "gpt-4o", picture(by_url=True), 85 + 8 * 170),
    (OPENAI, "gpt-4o", Medium(Kind.TEXT, size=1_001), 251),
    (OPENAI, "gpt-4o", Medium(Kind.DOCUMENT, size=30_000), 30_000),
    (OPENAI, "gpt-4o", Medium(Kind.DOCUMENT), WHOLE_WINDOW),
    # Google: 258 a frame, 32 a second of sound, 10 of metadata; 60 seconds.
    (GEMINI, "gemini-2.5-flash", Medium(Kind.VIDEO, milliseconds=60_000), 60 * 268),
    (GEMINI, "gemini-2.5-flash", Medium(Kind.VIDEO, milliseconds=60_000, frames=5_000), 60 * (5 * 258 + 10)),
    (GEMINI, "gemini-2.5-flash", Medium(Kind.VIDEO, milliseconds=60_000, frames=100), 60 * 10 + 6 * 258),
    (GEMINI, "gemini-3-pro", Medium(Kind.VIDEO, milliseconds=60_000), 60 * 80),
    (GEMINI, "gemini-3-pro", Medium(Kind.VIDEO, milliseconds=60_000, detail="high"), 60 * 290),
    (GEMINI, "gemini-2.5-flash", Medium(Kind.VIDEO, size=125_000), 10 * 268),  # at 100 kbit/s
    (OPENAI, "any", Medium(Kind.VIDEO, milliseconds=60_000, sound=True), 60 * 300),
    (OPENAI, "any", Medium(Kind.AUDIO, milliseconds=60_000), 60 * 32),
    (OPENAI, "any", Medium(Kind.AUDIO, size=20_000), 10 * 32),  # at 16 kbit/s
]


@pytest.mark.parametrize(("dialect", "model", "medium", "tokens"), DOCUMENTS)
def test_a_document_or_recording_is_charged_by_pages_or_seconds(
    dialect: Dialect, model: str, medium: Medium, tokens: int
) -> None:
    """At its densest; what only the provider has seen, and what cannot be read, as the most that it can be."""
    assert usual(dialect, model, medium) == tokens


def test_media_of_a_kind_add_up() -> None:
    """Each as often as it is there; a hold has only pictures to add."""
    media = {picture(512, 512): 3, Medium(Kind.PDF, pages=1): 2}
    assert usual_tokens(OPENAI, "gpt-4o", media) == 3 * 255 + 2 * 4_105
    assert most_tokens(OPENAI, "gpt-4o", media) == 3 * 255


def line(row: Row) -> str:
    """Return a row as docs/money.md has it."""
    small, photo = picture(1_024, 1_024), picture(4_000, 3_000)
    largest = row.pictures.most(picture(hidden=True))
    second = row.frame_tokens("") + VIDEO_RATE
    figures = [
        *(f"{row.pictures.usual(size):,}" for size in (small, photo)),
        "the whole window" if largest == WHOLE_WINDOW else f"{largest:,}",
        f"{row.page_tokens(''):,}",
        f"{second:,}",
    ]
    return " | ".join(["", f"{row.dialect}: {row.name}", *figures, row.source, ""]).strip()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_document_has_the_table(row: Row) -> None:
    """What docs/money.md says of each family is what is held and charged."""
    assert line(row) in (ROOT / "docs/money.md").read_text()
