"""However a stream is split and wherever it is cut: what was reported is charged, an estimate is within the hold."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.gateway.recorded.conftest import MODEL, SHEET
from tests.gateway.recorded.recording import KINDS, Recording, recordings
from toolkit.billing.hold_estimate import hold_bound
from toolkit.billing.metering import Metered
from toolkit.billing.rules import Admitted
from toolkit.core.catalog import ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.core.pricing import MILLION, charge
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import UpstreamTraits
from toolkit.core.usage import Report, UsageSource
from toolkit.dialects import MODULES, anthropic_usage
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.sse import data_of
from toolkit.gateway.admission import Admission
from toolkit.gateway.interrupted_calls import usage_of_stream, usage_when_cut
from toolkit.gateway.reader_process import read_request
from toolkit.gateway.upstream_exchange import Exchange

ENDPOINTS = {
    "chat": "chat/completions",
    "responses": "responses",
    "messages": "messages",
    "generate": "streamGenerateContent",
    "array": "streamGenerateContent",
}
ANY: Any = None  # what no meter looks at

STREAMS = {one.name: one for one in recordings() if "stream" in one.ways and one.sent("stream").status == 200}
CHARGED = [name for name, one in STREAMS.items() if one.expected("stream").charged]


@cache
def admitted(name: str) -> Admission:
    """Return the admission of a recording's call, as the gateway would have it, but for the key."""
    recording = STREAMS[name]
    dialect = Dialect(KINDS[recording.ask])
    model: dict[str, int] = MODEL | recording.model
    reading = read_request(dialect, ENDPOINTS[recording.ask], recording.model_id, [], recording.asked("stream")[1])
    bound = hold_bound(
        dialect,
        reading.shape,
        SHEET,
        MILLION,
        context_window=model["context_window"],
        default_output=model["default_output"],
        model=name,
    )
    facts = ModelFacts(
        name,
        dialect,
        "recorded",
        "",
        "",
        name,
        context_window=model["context_window"],
        default_output=model["default_output"],
        max_output=model["max_output"],
        created_at=datetime.now(UTC),
        unknown_fields=UnknownFields.PASS,
        traits=UpstreamTraits(),
        prices=(),
    )
    held = Admitted(bound.amount(), bound.output_bound, fitted=False)
    return Admission(ANY, reading.shape, reading.body, ANY, (), facts, bound, held)


def meter_of(recording: Recording) -> StreamMeter:
    """Return what watches a recording's stream."""
    shape = admitted(recording.name).shape
    return MODULES[Dialect(KINDS[recording.ask])].Meter(
        shape.endpoint, sse=recording.ask != "array", drop_usage=not shape.usage_asked, choices=shape.choices
    )


def feed(meter: StreamMeter, body: bytes, splits: list[int]) -> bytes:
    """Give a meter a body in pieces; return what it passes on at once."""
    edges = sorted({0, len(body), *(split for split in splits if split < len(body))})
    return b"".join(b"".join(meter.feed(body[start:end])) for start, end in pairwise(edges))


def reports(recording: Recording, body: bytes) -> list[Report]:
    """Return the reports of the whole events of a body, each read for itself."""
    found = []
    for event in body.split(b"\n\n")[:-1] if recording.ask != "array" else []:
        try:
            said = json.loads(data_of(event + b"\n\n") or b"null")
        except ValueError:
            continue
        if not isinstance(said, dict):
            continue
        if recording.ask == "messages":
            usage = said.get("usage") or said.get("message", {}).get("usage")
            found.append(anthropic_usage.usage_of(usage) if usage else None)
        else:
            whole = said.get("response", said) if recording.ask == "responses" else said
            found.append(MODULES[Dialect(KINDS[recording.ask])].usage_of(ENDPOINTS[recording.ask], whole or {}))
    return [report for report in found if report and not report.has_gaps]


def cost_of(metered: Metered | None) -> int:
    """Return what is charged, nano-USD."""
    return charge(metered.usage, SHEET, MILLION) if metered else 0


@st.composite
def cuts(draw: st.DrawFn, of: list[str]) -> tuple[str, int, list[int]]:
    """Draw a recording, how many bytes of its stream come, and where they are split."""
    name = draw(st.sampled_from(of))
    places = st.integers(0, len(STREAMS[name].sent("stream").until))
    return name, draw(places), draw(st.lists(places, max_size=12))


@examples(300)
@given(cuts(CHARGED), st.booleans())
def test_a_cut_stream_is_charged_within_its_bounds(cut: tuple[str, int, list[int]], ends: bool) -> None:
    """Never below zero, the last complete report or what was seen; never above the hold unless that was reported."""
    name, length, splits = cut
    recording = STREAMS[name]
    came = recording.sent("stream").until[:length]
    admission, meter = admitted(name), meter_of(recording)
    feed(meter, came, splits)
    if ends:
        meter.end()
        meter.finish()
    gauge = admission.gauge()
    metered = usage_of_stream(admission, meter) or gauge.broken(meter.report, meter.output_seen)
    cost = cost_of(metered)
    assert cost >= 0
    told = reports(recording, came + b"\n\n" * ends)  # an event at a clean end is one without its empty line, too
    implied = cost_of(gauge.reported(told[-1], lambda: 0)) if told else 0
    assert cost >= implied
    if not meter.complete:
        assert metered.usage.output_tokens >= min(meter.output_seen, gauge.held_output)
    if metered.usage.source is UsageSource.ESTIMATED:
        assert cost <= max(admission.admitted.hold, implied)


@dataclass(frozen=True)
class Timed:
    """What is asked of an exchange that was cut: how long it has been answered, and how long nothing has come."""

    answering_for: float
    silent_for: float
    sent: bool = True
    status: int = 200


@examples(300)
@given(cuts(CHARGED), st.floats(0, 4_000), st.floats(0, 1), st.booleans(), st.integers(0, 100_000))
def test_who_leaves_is_charged_what_was_seen_to_the_hold(
    cut: tuple[str, int, list[int]], seconds: float, silent: float, reasons: bool, rate: int
) -> None:
    """Whenever that is: no less than without reckoning, no more than the hold unless that was reported."""
    name, length, splits = cut
    recording = STREAMS[name]
    came = recording.sent("stream").until[:length]
    admission, meter, plain = admitted(name), meter_of(recording), meter_of(recording)
    facts = replace(admission.model, traits=UpstreamTraits(reckon_rate=rate))
    asked = replace(admission, model=facts, shape=replace(admission.shape, reasoning=reasons))
    for one in (meter, plain):
        feed(one, came, splits)
    metered = usage_when_cut(asked, cast("Exchange", Timed(seconds, seconds * silent)), meter)
    certain = usage_of_stream(admission, plain)
    assert cost_of(metered) >= cost_of(certain)
    if metered is None:
        assert meter.failed
        return
    gauge, usage = admission.gauge(), metered.usage
    told = reports(recording, came)
    implied = cost_of(gauge.reported(told[-1], lambda: 0)) if told else 0
    if usage.source is UsageSource.ESTIMATED:
        assert cost_of(metered) <= max(admission.admitted.hold, implied)
    assert metered.unseen <= rate * seconds * admission.shape.choices
    if not reasons or (meter.complete and meter.report is not None):
        assert metered.unseen == 0


@examples(150)
@given(cuts(list(STREAMS)))
def test_splitting_changes_nothing(cut: tuple[str, int, list[int]]) -> None:
    """What is passed on, kept back, reported and seen is the same as of a stream that comes in one piece."""
    name, _, splits = cut
    recording = STREAMS[name]
    body = recording.sent("stream").until
    one, many = meter_of(recording), meter_of(recording)
    passed = [feed(one, body, []), feed(many, body, splits)]
    for meter in (one, many):
        meter.end()
    kept = [b"".join(meter.finish()) for meter in (one, many)]
    assert passed[0] + kept[0] == passed[1] + kept[1]
    assert (one.report, one.complete, one.failed) == (many.report, many.complete, many.failed)
    assert one.output_seen == many.output_seen
