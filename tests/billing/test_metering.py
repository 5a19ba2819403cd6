"""Reports are charged as far as they can be true, cut where they cannot, estimated where they are silent."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import GEMINI_SHEET, examples
from tests.usages import ANTHROPIC, GEMINI, OPENAI
from toolkit.billing.metering import LONGEST_SAID, Gauge, Metered, said_by
from toolkit.core.pricing import PriceSheet, Tier, charge
from toolkit.core.usage import OverrunReason, Report, Usage, UsageSource
from toolkit.dialects import anthropic, gemini, openai

WINDOW, HELD_INPUT, MOST_OUTPUT, HELD_OUTPUT = 1_000, 300, 500, 100
LIKELY = 80


def gauge(*, embeds: bool = False) -> Gauge:
    """Return what a call is measured by whose hold counted less than the model can."""
    output = (0, 0) if embeds else (HELD_OUTPUT, MOST_OUTPUT)
    return Gauge(HELD_INPUT, output[0], WINDOW, output[1], lambda: LIKELY)


def chat(*, seen: int = 40, embeds: bool = False, **usage: Any) -> Metered:
    """Return what is charged for a whole answer of OpenAI's dialect."""
    report = openai.usage_of("chat/completions", {"usage": usage})
    assert report is not None
    return gauge(embeds=embeds).reported(report, lambda: seen)


def tokens(metered: Metered) -> tuple[int, int]:
    """Return input and output."""
    return metered.usage.input_tokens, metered.usage.output_tokens


def test_what_the_hold_counted_is_charged_as_reported() -> None:
    """A report within the hold is not doubted, and nothing of the answer is looked at."""
    report = Report(Usage(HELD_INPUT, output_tokens=HELD_OUTPUT))
    metered = gauge().reported(report, lambda: pytest.fail("looked at the answer"))
    assert metered == Metered(report.usage)


@pytest.mark.parametrize(
    ("given_tokens", "made", "reason"),
    [
        (HELD_INPUT + 1, 5, OverrunReason.CONTEXT_WINDOW),
        (2 * WINDOW, 5, OverrunReason.CONTEXT_WINDOW),
        (5, HELD_OUTPUT + 1, OverrunReason.OUTPUT_BOUND),
        (5, MOST_OUTPUT, OverrunReason.OUTPUT_BOUND),
        (2 * WINDOW, MOST_OUTPUT, OverrunReason.CONTEXT_WINDOW),
    ],
)
def test_what_the_model_can_have_used_is_charged_in_full(given_tokens: int, made: int, reason: OverrunReason) -> None:
    """Up to twice the context window and the longest output nothing is cut, and an overrun has its reason."""
    metered = chat(prompt_tokens=given_tokens, completion_tokens=made)
    assert tokens(metered) == (given_tokens, made)
    assert (metered.overrun_reason, metered.doubt, metered.usage.source) == (reason, None, UsageSource.REPORTED)


def test_an_input_that_cannot_be_is_cut_to_what_the_hold_counted() -> None:
    """A billion tokens of input are what was held for input, the output stays, and the row says why."""
    metered = chat(prompt_tokens=10**9, completion_tokens=7)
    assert tokens(metered) == (HELD_INPUT, 7)
    assert metered.doubt == "1,000,000,000 input tokens, more than the model can take"
    assert metered.usage.source is UsageSource.ESTIMATED
    assert json.loads(metered.provider_usage or "") == {"prompt_tokens": 10**9, "completion_tokens": 7}


def test_an_output_that_cannot_be_is_cut_to_what_the_hold_counted() -> None:
    """Output beyond the model's longest is what was held for output, reasoning included; the input stays."""
    details = {"reasoning_tokens": 10**9}
    metered = chat(prompt_tokens=50, completion_tokens=10**9, completion_tokens_details=details)
    assert tokens(metered) == (50, HELD_OUTPUT)
    assert metered.usage.reasoning_tokens == HELD_OUTPUT
    assert metered.doubt == "1,000,000,000 output tokens, more than the model can make"


def test_the_kind_that_cannot_be_is_the_one_that_is_cut() -> None:
    """Kinds of input that can be keep their count when another cannot."""
    metered = chat(prompt_tokens=10**9, completion_tokens=7, prompt_tokens_details={"cached_tokens": 60})
    assert (metered.usage.cached_input_tokens, metered.usage.fresh_input_tokens) == (60, HELD_INPUT - 60)
    details = {"cached_tokens": 10**9 - 60}
    metered = chat(prompt_tokens=10**9, completion_tokens=7, prompt_tokens_details=details)
    assert (metered.usage.cached_input_tokens, metered.usage.fresh_input_tokens) == (HELD_INPUT - 60, 60)


@pytest.mark.parametrize(
    ("count", "why"),
    [
        (-5, "is negative"),
        (1.5, "is no whole number"),
        (float("nan"), "is no whole number"),
        ("many", "is a text that is no number"),
        ("-3", "is a text that is no number"),
        (True, "is true or false"),
        ([7], "is no number"),
    ],
)
def test_an_impossible_count_is_estimated(count: object, why: str) -> None:
    """A count that is none does not make its part free: the input by the request, the output by what was seen."""
    metered = chat(prompt_tokens=count, completion_tokens=7)
    assert tokens(metered) == (LIKELY, 7)
    assert (metered.doubt, metered.usage.source) == (f"prompt_tokens {why}", UsageSource.ESTIMATED)
    metered = chat(prompt_tokens=50, completion_tokens=count)
    assert tokens(metered) == (50, 40)
    assert (metered.doubt, metered.usage.source) == (f"completion_tokens {why}", UsageSource.ESTIMATED)


@pytest.mark.parametrize("count", [12, 12.0, "12"])
def test_whole_numbers_are_counts_however_they_are_written(count: object) -> None:
    """12.0 and "12" are 12, and nothing is doubted."""
    metered = chat(prompt_tokens=count, completion_tokens=count)
    assert metered == Metered(Usage(12, output_tokens=12))


def test_a_missing_side_is_estimated() -> None:
    """A report of one side alone is completed, and the row says what was missing."""
    assert chat(completion_tokens=7).doubt == "no input tokens"
    assert tokens(chat(completion_tokens=7)) == (LIKELY, 7)
    assert chat(prompt_tokens=50).doubt == "no output tokens beside text"
    assert tokens(chat(prompt_tokens=50)) == (50, 40)


def test_zeros_beside_text_are_no_report() -> None:
    """Text with a usage of zeros is charged by estimate, never above the hold."""
    metered = chat(prompt_tokens=0, completion_tokens=0)
    assert tokens(metered) == (LIKELY, 40)
    assert metered.doubt == "no output tokens beside text; no input tokens"
    assert metered.usage.source is UsageSource.ESTIMATED
    assert tokens(chat(prompt_tokens=0, completion_tokens=0, seen=10**6)) == (LIKELY, HELD_OUTPUT)


def test_zeros_of_an_answer_without_text_may_be_true() -> None:
    """An answer that says nothing and reports nothing costs nothing; one without output is charged its input."""
    assert chat(prompt_tokens=0, completion_tokens=0, seen=0) == Metered(Usage())
    assert chat(prompt_tokens=9, completion_tokens=0, seen=0) == Metered(Usage(9))


def test_embeddings_have_input_alone() -> None:
    """No output is missed; one that is reported is not charged; an input of zero is none."""
    assert chat(embeds=True, prompt_tokens=9, total_tokens=9) == Metered(Usage(9))
    assert tokens(chat(embeds=True, prompt_tokens=9, completion_tokens=5)) == (9, 0)
    assert tokens(chat(embeds=True, prompt_tokens=0)) == (LIKELY, 0)


def test_a_part_of_anthropics_input_that_cannot_be_is_estimated_as_fresh() -> None:
    """What is said is the least; what the request is estimated at beyond it is charged as fresh input."""
    usage = {"input_tokens": 20, "cache_read_input_tokens": -7, "cache_creation_input_tokens": 10, "output_tokens": 3}
    report = anthropic.usage_of("messages", {"usage": usage})
    assert report is not None
    metered = gauge().reported(report, lambda: 0)
    assert metered.usage == Usage(LIKELY, 0, 10, 0, 3, source=UsageSource.ESTIMATED)
    assert metered.doubt == "cache_read_input_tokens is negative"


@pytest.mark.parametrize("long_cache", [True, False])
@pytest.mark.parametrize("broken", [True, False])
def test_writes_of_unknown_life_have_the_longest_that_was_asked_for(long_cache: bool, broken: bool) -> None:
    """A sum that nobody splits is charged as the hour's cache if the request asks for one."""
    report = anthropic.usage_of(
        "messages", {"usage": {"input_tokens": 1, "cache_creation_input_tokens": 30, "output_tokens": 2}}
    )
    assert report is not None
    measure = gauge()
    measure.long_cache = long_cache
    used = (measure.broken(report, 2) if broken else measure.reported(report, lambda: 2)).usage
    assert (used.cache_write_5m_tokens, used.cache_write_1h_tokens) == ((0, 30) if long_cache else (30, 0))
    assert report.usage.cache_write_5m_tokens == 30


def test_more_cache_than_input_is_doubtful() -> None:
    """Parts that are larger than the whole are cut to it, and the row says so."""
    metered = chat(prompt_tokens=50, completion_tokens=7, total_tokens=57, prompt_tokens_details={"cached_tokens": 80})
    assert (metered.usage.cached_input_tokens, metered.usage.fresh_input_tokens) == (50, 0)
    assert metered.doubt == "more tokens read from and written to the cache than input"


def test_a_broken_answer_is_charged_as_far_as_it_came() -> None:
    """The input as reported, the output as seen or reported, whichever is more; without a report both by estimate."""
    report = Report(Usage(50, output_tokens=3))
    assert gauge().broken(report, 20).usage == Usage(50, output_tokens=20, source=UsageSource.ESTIMATED)
    assert gauge().broken(report, 2).usage == Usage(50, output_tokens=3, source=UsageSource.ESTIMATED)
    assert tokens(gauge().broken(None, 20)) == (LIKELY, 20)
    assert tokens(gauge().broken(None, 10**6)) == (LIKELY, HELD_OUTPUT)
    assert tokens(gauge().broken(Report(Usage(10**9)), 20)) == (HELD_INPUT, 20)


@pytest.mark.parametrize(
    ("report", "seen", "unseen", "made", "reckoned"),
    [
        (None, 20, 30, 50, 30),
        (None, 20, 10**6, HELD_OUTPUT, HELD_OUTPUT - 20),
        (None, 10**6, 30, HELD_OUTPUT, 0),
        (None, 20, 0, 20, 0),
        (Report(Usage(50, output_tokens=40)), 20, 30, 70, 30),
        (Report(Usage(50, output_tokens=40)), 60, 30, 90, 30),
        (Report(Usage(50, output_tokens=HELD_OUTPUT + 5)), 20, 30, HELD_OUTPUT + 5, 0),
    ],
)
def test_what_nobody_saw_is_added_within_the_hold(
    report: Report | None, seen: int, unseen: int, made: int, reckoned: int
) -> None:
    """To what was seen or reported, whichever is more; how much it was is told."""
    metered = gauge().broken(report, seen, unseen)
    assert (metered.usage.output_tokens, metered.unseen) == (made, reckoned)
    assert metered.usage.source is UsageSource.ESTIMATED


@pytest.mark.parametrize("broken", [False, True])
def test_a_refusal_before_any_output_is_billed_by_those_who_bill_it(broken: bool) -> None:
    """The input is charged as reported, or not at all with the reason; of one without a report it is estimated."""

    def charged(report: Report, *, free: bool) -> Metered:
        by = gauge()
        by.refusal_free = free
        return by.broken(report, 0) if broken else by.reported(report, lambda: 0)

    said = Report(Usage(200), refused=True)
    assert tokens(charged(said, free=False)) == (200, 0)
    assert charged(said, free=False).unbilled is None
    free = charged(said, free=True)
    assert (tokens(free), free.doubt) == ((0, 0), None)
    assert "(200 tokens of input)" in (free.unbilled or "")
    silent = Report(Usage(), input_missing=True, output_missing=True, refused=True)
    assert tokens(charged(silent, free=False)) == (LIKELY, 0)
    assert charged(silent, free=True).unbilled


SHEET = PriceSheet((Tier(0, 7, 3, 11, 13, 17), Tier(200, 9, 4, 12, 15, 21)), request=5)


def held(sheet: PriceSheet) -> int:
    """Return the hold that HELD_INPUT and HELD_OUTPUT make, nano-USD, rounded up."""
    million = 1_000_000
    dearest = max(tier.dearest_input for tier in sheet.tiers) * HELD_INPUT
    output = max(tier.output for tier in sheet.tiers) * HELD_OUTPUT
    return -(-(dearest + output + sheet.request * million) // million)


REPORTS = st.one_of(
    OPENAI.map(lambda usage: openai.usage_of("chat/completions", {"usage": usage})),
    ANTHROPIC.map(lambda usage: anthropic.usage_of("messages", {"usage": usage})),
    GEMINI.map(lambda usage: gemini.usage_of("generateContent", {"usageMetadata": usage})),
)


COUNTS = st.integers(0, 10**6)


@given(REPORTS, st.booleans(), COUNTS, COUNTS, COUNTS, st.sampled_from([SHEET, GEMINI_SHEET]))
def test_a_charge_is_within_the_hold_or_can_be_true(
    report: Report | None, complete: bool, seen: int, unseen: int, likely: int, sheet: PriceSheet
) -> None:
    """Whatever is reported, the parts fit the whole, and the charge is above the hold only for counts that can be."""
    by = Gauge(HELD_INPUT, HELD_OUTPUT, WINDOW, MOST_OUTPUT, lambda: likely)
    metered = by.reported(report, lambda: seen) if report and complete else by.broken(report, seen, unseen)
    usage = metered.usage
    assert 0 <= metered.unseen <= usage.output_tokens
    counts = [usage.cached_input_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens]
    assert min(*counts, usage.output_tokens, usage.reasoning_tokens) >= 0
    assert sum(counts) + usage.fresh_input_tokens == usage.input_tokens <= 2 * WINDOW
    assert usage.reasoning_tokens <= usage.output_tokens <= MOST_OUTPUT
    cost = charge(usage, sheet, 1_000_000)
    assert cost >= 0
    assert cost <= held(sheet) or metered.overrun_reason is not None
    if metered.overrun_reason is not None:
        assert report is not None
        reported = report.usage
        assert usage.input_tokens <= max(reported.input_tokens, HELD_INPUT)
        assert usage.output_tokens <= max(reported.output_tokens, HELD_OUTPUT)
    if metered.doubt:
        assert usage.source is UsageSource.ESTIMATED
        assert len(metered.doubt) < 1_000


@given(st.lists(REPORTS.filter(lambda report: report is not None), min_size=1, max_size=4))
def test_reports_of_a_stream_never_lose_what_was_said(reports: list[Report]) -> None:
    """However reports follow one another, no side becomes smaller than the last whole one said."""
    merged = reports[0]
    for report in reports[1:]:
        merged = merged.followed_by(report)
    for side in ("input", "output"):
        whole = [getattr(r.usage, f"{side}_tokens") for r in reports if not getattr(r, f"{side}_missing")]
        if whole:
            assert getattr(merged.usage, f"{side}_tokens") == max(whole)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.integers(10**30, 10**300),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=80), inner, max_size=40),
    max_leaves=100,
)


@examples(15)
@given(st.lists(st.dictionaries(st.text(max_size=80), ANYTHING, max_size=100), min_size=1, max_size=2))
def test_what_is_kept_of_a_report_is_short_json(said: list[dict[str, Any]]) -> None:
    """A row's copy of a report is JSON that every engine reads, of at most 4 kB, and has no long text in it."""
    kept = said_by(Report(Usage(), tuple(said)))
    assert len(kept.encode()) <= LONGEST_SAID
    json.loads(kept, parse_constant=pytest.fail)
