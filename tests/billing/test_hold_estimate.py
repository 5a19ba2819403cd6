"""The hold is an upper bound of what a call can cost, and a fitted bound is the largest that fits."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_pricing import MULTIPLIERS, sheets
from toolkit.billing import hold_estimate
from toolkit.billing.hold_estimate import (
    ANY_TOOL,
    PER_MESSAGE,
    PER_PICTURE,
    PER_REQUEST,
    PER_TOOL,
    SMALLEST_FITTED_BOUND,
    HoldBound,
    check_text,
    dearest,
    hold_bound,
    input_bound,
    likely_input,
)
from toolkit.billing.metering import Gauge
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.core.money import NANO
from toolkit.core.pricing import MILLION, PriceSheet, charge
from toolkit.core.usage import Report, Usage, UsageSource
from toolkit.dialects.media import Kind, Medium
from toolkit.dialects.shape import Shape

PLAIN = Shape(
    endpoint="chat/completions",
    model="gpt-test",
    stream=False,
    free=False,
    text_bytes=1000,
    messages=2,
    tools=0,
    media={},
    whole_context=False,
    choices=1,
    output_bound=None,
    output=True,
    usage_asked=True,
)

MODELS = ["gpt-4o-mini", "gpt-5.6-sol", "claude-opus-5", "claude-3-opus", "gemini-2.5-pro", "gemini-3-pro", "llama"]
MEDIUMS = st.builds(
    Medium,
    kind=st.sampled_from(Kind),
    by_url=st.booleans(),
    width=st.integers(0, 20_000),
    height=st.integers(1, 20_000),
    pages=st.integers(0, 2_000),
    milliseconds=st.integers(0, 10**8),
    size=st.integers(0, 10**8),
    detail=st.sampled_from(["", "low", "high", "original", "?"]),
    frames=st.integers(1, 24_000),
    hidden=st.booleans(),
)
MEDIA = st.dictionaries(MEDIUMS, st.integers(1, 50), max_size=3)

SHAPES = st.builds(
    replace,
    st.just(PLAIN),
    text_bytes=st.integers(0, 400_000),
    messages=st.integers(0, 50),
    tools=st.integers(0, 20),
    media=MEDIA,
    whole_context=st.booleans(),
    choices=st.integers(1, 8),
    output_bound=st.one_of(st.none(), st.integers(1, 200_000)),
    output=st.booleans(),
    may_be_cut=st.booleans(),
)
DIALECTS = st.sampled_from(list(Dialect))
WINDOWS = st.integers(1, 2_000_000)


@given(st.data(), SHAPES, DIALECTS, sheets(), MULTIPLIERS, WINDOWS, st.integers(1, 64_000))
def test_no_call_within_its_bounds_costs_more_than_its_hold(
    data: st.DataObject,
    shape: Shape,
    dialect: Dialect,
    sheet: PriceSheet,
    multiplier: int,
    window: int,
    default_output: int,
) -> None:
    """Whatever mix of fresh, cached and cache-written input and whatever output: the charge fits the hold."""
    bound = hold_bound(
        dialect, shape, sheet, multiplier, context_window=window, default_output=default_output, model="m"
    )
    most_input = input_bound(dialect, shape, window, "m")
    marks = [0, most_input, *(tier.above + step for tier in sheet.tiers for step in (0, 1))]
    total = data.draw(st.one_of(st.integers(0, most_input), st.sampled_from([m for m in marks if m <= most_input])))
    cached = data.draw(st.integers(0, total))
    write_5m = data.draw(st.integers(0, total - cached))
    write_1h = data.draw(st.integers(0, total - cached - write_5m))
    most_output = shape.choices * (shape.output_bound or default_output) if shape.output else 0
    output = data.draw(st.one_of(st.just(most_output), st.integers(0, most_output)))
    cost = charge(Usage(total, cached, write_5m, write_1h, output, output // 2), sheet, multiplier)
    assert cost <= bound.amount()


@given(st.integers(0, 10**24), st.integers(0, 10**18), st.integers(0, 200_000))
def test_a_hold_is_rounded_up(base: int, each: int, output: int) -> None:
    """The hold is the smallest number of nano-USD that is not below the exact bound."""
    exact = Fraction(base + each * output, MILLION * MILLION)
    held = HoldBound(base, each, output, fixed=True).amount()
    assert type(held) is int
    assert exact <= held < exact + 1


@given(st.integers(0, 10**18), st.integers(1, 10**14), st.integers(0, 200_000), st.integers(0, 10**7))
def test_the_largest_bound_fits_and_one_more_would_not(base: int, each: int, output: int, room: int) -> None:
    """The suggestion made to a caller is neither too large nor too small."""
    bound = HoldBound(base, each, output, fixed=True)
    largest = bound.largest_bound(room)
    if largest >= 0:
        assert bound.amount(largest) <= room
    assert bound.amount(largest + 1) > room


@given(st.integers(0, 10**18), st.integers(0, 10**14), st.integers(0, 200_000), st.integers(-10, 10**8))
def test_a_default_bound_is_fitted_to_the_room(base: int, each: int, output: int, room: int) -> None:
    """A fitted bound's hold fits, it is the largest that does, and it is 1,024 tokens or more."""
    bound = HoldBound(base, each, output, fixed=False)
    fitted = bound.fitted(room)
    if fitted is None:
        assert bound.amount() > room
        assert output <= SMALLEST_FITTED_BOUND or bound.amount(SMALLEST_FITTED_BOUND) > room
        return
    assert bound.amount(fitted) <= room
    assert fitted <= output
    if fitted < output:
        assert fitted >= SMALLEST_FITTED_BOUND
        assert bound.amount(fitted + 1) > room


@given(st.integers(0, 10**18), st.integers(0, 10**14), st.integers(1, 200_000), st.integers(-10, 10**8))
def test_an_explicit_bound_is_taken_as_it_is_or_not_at_all(base: int, each: int, output: int, room: int) -> None:
    """What a caller asked for is never lowered."""
    bound = HoldBound(base, each, output, fixed=True)
    assert bound.fitted(room) == (output if bound.amount() <= room else None)


@given(SHAPES, DIALECTS, sheets(), MULTIPLIERS, WINDOWS)
def test_a_callers_bound_is_explicit_and_a_default_is_not(
    shape: Shape, dialect: Dialect, sheet: PriceSheet, multiplier: int, window: int
) -> None:
    """The bound that is held for is the caller's own, else the model's default; none where there is no output."""
    bound = hold_bound(dialect, shape, sheet, multiplier, context_window=window, default_output=4_096, model="m")
    assert bound.fixed == (shape.output_bound is not None or not shape.may_be_cut)
    assert bound.output_bound == ((shape.output_bound or 4_096) if shape.output else 0)


@given(SHAPES, DIALECTS, WINDOWS, st.integers(1, 1000))
def test_more_of_anything_never_bounds_less(shape: Shape, dialect: Dialect, window: int, more: int) -> None:
    """The input bound grows with bytes, messages, tools and pictures, up to the context window."""
    before = input_bound(dialect, shape, window, "m")
    assert before <= window * shape.inputs
    for name in ("text_bytes", "messages", "tools"):
        larger = replace(shape, **{name: getattr(shape, name) + more})
        assert input_bound(dialect, larger, window, "m") >= before
    larger = replace(shape, media={medium: count + more for medium, count in shape.media.items()})
    assert input_bound(dialect, larger, window, "m") >= before


def test_text_beyond_what_a_context_window_can_hold_is_refused_beside_media_too() -> None:
    """A picture by its address is no way around it, and the bytes of media are none of the text."""
    most = replace(PLAIN, text_bytes=1_600, whole_context=True)
    check_text(most, "m", 100)
    with pytest.raises(Refusal, match="1,601 bytes"):
        check_text(replace(most, text_bytes=1_601), "m", 100)


def test_the_modules_table_has_the_allowances() -> None:
    """What the docstring says of them, with their sources, is what they are."""
    table = dict(re.findall(r"^\| ([a-z ]+) \| ([\d,]+) \|", hold_estimate.__doc__ or "", re.MULTILINE))
    assert table == {
        "each message": f"{PER_MESSAGE:,}",
        "each tool definition": f"{PER_TOOL:,}",
        "any tool at all": f"{ANY_TOOL:,}",
        "the request": f"{PER_REQUEST:,}",
        "each picture": f"{PER_PICTURE:,}",
    }


def test_the_allowances_add_up() -> None:
    """Bytes + 64 + 16 a message + 1,024 a tool and once for tools + 16 a picture and what its model takes it for."""
    shape = replace(PLAIN, text_bytes=500, messages=3, tools=2, media={Medium(Kind.PICTURE): 2})
    rest = 500 + PER_REQUEST + 3 * PER_MESSAGE + 2 * PER_TOOL + ANY_TOOL + 2 * PER_PICTURE
    for dialect, largest in ((Dialect.OPENAI, 48_200), (Dialect.ANTHROPIC, 4_784), (Dialect.GEMINI, 35_000)):
        assert input_bound(dialect, shape, 10_000_000, "m") == rest + 2 * largest


def test_what_bytes_do_not_bound_is_the_whole_window() -> None:
    """A document or URL holds the model's context window, however short the body."""
    assert input_bound(Dialect.OPENAI, replace(PLAIN, text_bytes=1, whole_context=True), 128_000, "m") == 128_000


def test_a_hand_computed_hold() -> None:
    """1,000 bytes + 64 + 32 = 1,096 input at 3.75 and 2 × 500 output at 15 USD a million, times 1.25."""
    sheet = PriceSheet.flat(input=3 * NANO, output=15 * NANO, cached_input=NANO // 10, cache_write_5m=3_750_000_000)
    shape = replace(PLAIN, choices=2, output_bound=500)
    bound = hold_bound(Dialect.ANTHROPIC, shape, sheet, 1_250_000, context_window=10**6, default_output=9, model="m")
    assert bound.amount() == (1_096 * 3_750 + 2 * 500 * 15_000) * 5 // 4


def test_embeddings_hold_no_output() -> None:
    """Where no output can be charged, the bound does not depend on it."""
    sheet = PriceSheet.flat(input=NANO, output=1000 * NANO)
    shape = replace(PLAIN, output=False, output_bound=100_000)
    bound = hold_bound(Dialect.OPENAI, shape, sheet, MILLION, context_window=10**6, default_output=4096, model="m")
    assert (bound.each, bound.output_bound, bound.amount()) == (0, 0, 1_096 * 1_000)


@given(sheets())
def test_a_dearer_tier_counts_only_if_it_can_be_reached(sheet: PriceSheet) -> None:
    """A model whose window ends below a tier does not hold for that tier's prices."""
    low = replace(PLAIN, text_bytes=0, messages=0)
    bound = hold_bound(Dialect.OPENAI, low, sheet, MILLION, context_window=1, default_output=1, model="m")
    first = sheet.tiers[0]
    assert bound.base == (first.dearest_input + sheet.request * MILLION) * MILLION
    assert bound.each == first.output * MILLION


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_likely_input_is_four_bytes_a_token_rounded_up(size: int, tokens: int) -> None:
    """What is charged when an upstream reports nothing."""
    assert likely_input(Dialect.OPENAI, replace(PLAIN, text_bytes=size), "m") == tokens


def test_likely_input_has_media_by_the_table() -> None:
    """1,000 bytes of text, a picture of 4 tiles, and a PDF of 2 pages of 3,000 and 6 tiles each."""
    media = {Medium(Kind.PICTURE, width=1_024, height=1_024): 1, Medium(Kind.PDF, pages=2): 1}
    assert likely_input(Dialect.OPENAI, replace(PLAIN, media=media), "gpt-4o") == 250 + 765 + 2 * (3_000 + 1_105)


@given(
    st.data(),
    SHAPES,
    DIALECTS,
    st.sampled_from(MODELS),
    sheets(),
    MULTIPLIERS,
    WINDOWS,
    st.integers(1, 64_000),
    st.integers(0, 10**6),
)
def test_an_estimate_lies_between_what_is_certain_and_the_hold(
    data: st.DataObject,
    shape: Shape,
    dialect: Dialect,
    model: str,
    sheet: PriceSheet,
    multiplier: int,
    window: int,
    default_output: int,
    seen: int,
) -> None:
    """Whatever was sent, reported and seen: the charge is that of what is certain at least, and at most the hold."""
    bound = hold_bound(
        dialect, shape, sheet, multiplier, context_window=window, default_output=default_output, model=model
    )
    output_bound = bound.output_bound
    if not bound.fixed and output_bound:  # it may have been fitted to what is left
        output_bound = data.draw(st.integers(1, output_bound))
    choices = shape.choices if shape.output else 0
    held_output = choices * output_bound
    gauge = Gauge(
        held_input=bound.input_tokens,
        held_output=held_output,
        window=window * shape.inputs,
        most_output=choices * 100_000,
        likely_input=lambda: likely_input(dialect, shape, model),
    )
    fresh, read, short, long = data.draw(st.tuples(*[st.integers(0, bound.input_tokens // 4)] * 4))
    made = data.draw(st.integers(0, held_output))
    certain = data.draw(st.sampled_from([Usage(), Usage(fresh + read + short + long, read, short, long, made)]))
    usage = (gauge.broken(Report(certain), seen) if certain.input_tokens else gauge.unreported(seen)).usage
    cost, hold = charge(usage, sheet, multiplier), bound.amount(output_bound)
    assert usage.source is UsageSource.ESTIMATED
    assert (charge(certain, sheet, multiplier) if certain.input_tokens else 0) <= cost <= hold
    if not certain.input_tokens:
        assert usage.input_tokens == min(likely_input(dialect, shape, model), bound.input_tokens)


@given(st.lists(st.tuples(sheets(), MULTIPLIERS), min_size=1, max_size=4), SHAPES, st.integers(0, 10**13))
def test_the_dearest_of_several_ways_covers_each(ways: list[tuple[PriceSheet, int]], shape: Shape, room: int) -> None:
    """At any output bound; so a bound that is fitted to what is left fits whoever answers."""
    bounds = [
        hold_bound(
            Dialect.OPENAI, shape, sheet, multiplier, context_window=100_000, default_output=4_096, model="gpt-test"
        )
        for sheet, multiplier in ways
    ]
    whole = dearest(bounds)
    assert all(whole.amount(tokens) >= bound.amount(tokens) for bound in bounds for tokens in (0, 1, 4_096, None))
    fitted = whole.fitted(room)
    assert fitted is None or all(bound.amount(fitted) <= room for bound in bounds)
