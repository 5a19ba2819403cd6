"""The same over sockets: wherever a provider breaks a stream off, the row has what the pure meter says of its bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.gateway.conftest import Gate, read_reply
from tests.gateway.recorded.recording import ORDERS, Recording
from tests.gateway.recorded.test_cut_streams import CHARGED, STREAMS, admitted, cost_of, cuts, feed, meter_of
from tests.gateway.recorded.test_recordings import row_of
from toolkit.dialects.sse import data_of, name_of
from toolkit.gateway.interrupted_calls import usage_of_stream

pytestmark = pytest.mark.world

ORDERED = [name for name in CHARGED if STREAMS[name].request.keys().isdisjoint({"input", "messages", "contents"})]
"""Recordings without a prompt of their own, in which the upstream is told where to break off."""


def begins(recording: Recording, passed: bytes) -> bool:
    """Whether an answer has begun: comments and pings say only that somebody is at work, and an error may follow."""
    if recording.ask == "array":
        return bool(passed)
    events = [event + b"\n\n" for event in passed.split(b"\n\n")]
    return any(data_of(event) and name_of(event) != b"ping" for event in events)


@examples(30)
@given(cuts(ORDERED), st.integers(1, 300))
def test_a_broken_stream_costs_what_its_bytes_say(recorded: Gate, cut: tuple[str, int, list[int]], piece: int) -> None:
    """What came before the break is charged, nothing where no answer had begun, and no hold stays."""
    name, length, _ = cut
    recording = STREAMS[name]
    path, body = recording.asked("stream", ORDERS.format(length=length, piece=piece))
    with recorded.connection() as connection:
        headers = {"Authorization": f"Bearer {recorded.secret}", "Content-Type": "application/json"}
        connection.request("POST", path, body, headers)
        reply = read_reply(connection)
    row = row_of(recorded, reply.request_id)
    meter = meter_of(recording)
    passed = feed(meter, recording.sent("stream").until[:length], list(range(0, length, piece)))
    if meter.complete:  # what breaks behind the end of an answer does not break it
        meter.end()
        meter.finish()
    if begins(recording, passed) or meter.complete:
        assert (reply.status, reply.body[: len(passed)]) == (200, passed)
        assert row.cost == cost_of(usage_of_stream(admitted(name), meter))
    else:
        assert (reply.status, row.cost) == (502, 0)
    assert row.outcome == "upstream_error" or meter.complete
    assert recorded.held_calls() == []
