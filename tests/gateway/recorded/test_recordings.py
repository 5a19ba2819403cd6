"""Each recording, through the gateway: charge, bytes, headers and row are what its file works out by hand."""

from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import wait_until
from tests.gateway.conftest import Gate, Reply, read_reply
from tests.gateway.recorded.recording import FOLDER, PRICES, Expected, Recording, Sent, reckoned, recordings, table
from toolkit.store.tables import OutboxRow

RECORDINGS = {one.name: one for one in recordings()}
PLAYS = [(name, way) for name, one in RECORDINGS.items() for way in one.ways]

KINDS_IN_ROW = {
    "input": "input_tokens",
    "cached": "cached_input_tokens",
    "written_5m": "cache_write_5m_tokens",
    "written_1h": "cache_write_1h_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
}


@pytest.mark.parametrize(("name", "way"), PLAYS)
def test_recording(recorded: Gate, name: str, way: str) -> None:
    """It is charged, answered and logged as its file says."""
    recording = RECORDINGS[name]
    sent, expected = recording.sent(way), recording.expected(way)
    reply = play(recorded, recording, way)
    row = row_of(recorded, reply.request_id)
    check_charge(row, expected.charged)
    check_row(row, expected, reply.status)
    if not sent.waits_after:
        check_body(reply, sent, expected.answered)
        check_headers(reply, row, way, expected.answered)


def play(gate: Gate, recording: Recording, way: str) -> Reply:
    """Ask for a recording and read what comes; of one that waits no more than is sent until then."""
    path, body = recording.asked(way)
    sent = recording.sent(way)
    with gate.connection() as connection:
        connection.request(
            "POST", path, body, {"Authorization": f"Bearer {gate.secret}", "Content-Type": "application/json"}
        )
        if not sent.waits_after:
            return read_reply(connection)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        came = answer.read(len(sent.until))
        answer.close()
        return Reply(answer.status, headers, came)


def row_of(gate: Gate, request_id: str) -> OutboxRow:
    """Return a call's row, as soon as it is there: of a caller who has left it comes later."""
    found: list[OutboxRow] = []

    def there() -> bool:
        with gate.workspace.read() as tx:
            found.extend(tx.session.scalars(select(OutboxRow).where(OutboxRow.request_id == request_id)))
        return bool(found)

    wait_until(there, f"the row of {request_id}")
    return found[0]


def check_charge(row: OutboxRow, charged: dict[str, Any]) -> None:
    """Compare counts and cost; the file's own sum must come to what its counts cost."""
    counts = {name: getattr(row, column) for name, column in KINDS_IN_ROW.items()}
    wanted = {name: charged.get(name, 0) for name in KINDS_IN_ROW}
    assert counts == wanted
    fresh = wanted["input"] - wanted["cached"] - wanted["written_5m"] - wanted["written_1h"]
    priced = sum(tokens * PRICES[name] for name, tokens in (wanted | {"input": fresh}).items() if name in PRICES)
    assert reckoned(charged.get("cost", "0")) == priced, "the file's own sum"
    assert row.cost == priced
    doubt, overrun = charged.get("doubt"), charged.get("overrun")
    assert row.usage_source == (charged.get("source", "estimated" if doubt else "reported") if charged else None)
    assert (doubt in (row.usage_doubt or "")) if doubt else row.usage_doubt is None, row.usage_doubt
    assert row.overrun_reason == overrun
    assert row.cost <= row.held or overrun


def check_row(row: OutboxRow, expected: Expected, status: int) -> None:
    """Compare the columns that the file names, and those that are the same unless it says otherwise."""
    usual = {"outcome": "completed", "refusal": None, "status": status}
    for column, value in (usual | expected.row).items():
        if column == "error" and value:
            assert value in (row.error or "")
        else:
            assert getattr(row, column) == (None if value == "none" else value), column


def check_body(reply: Reply, sent: Sent, answered: dict[str, Any]) -> None:
    """Compare the bytes that came with those that were sent."""
    assert reply.status == answered.get("status", sent.status)
    came, passed = reply.body.decode(), sent.until.decode()
    for text in answered.get("never", ()):
        assert text not in came
    if "instead" in answered:
        rest = came
    else:
        for text in answered.get("without", ()):
            assert passed.count(text) == 1
            passed = passed.replace(text, "")
        assert came[: len(passed)] == passed
        rest = came[len(passed) :]
        assert bool(rest) == bool(answered.get("then")), rest
    for text in [*answered.get("then", ()), *answered.get("instead", ())]:
        assert text in rest


def check_headers(reply: Reply, row: OutboxRow, way: str, answered: dict[str, Any]) -> None:
    """Compare headers: those that the file names, an empty one must be missing; a whole answer says its cost."""
    if way == "whole" and reply.status == 200:
        told = reply.headers["x-cost-usd"]
        assert round(float(told) * 10**9) == row.cost
    for name, value in answered.get("headers", {}).items():
        assert reply.headers.get(name, "") == value, name


def test_each_recording_is_in_the_table() -> None:
    """README.md lists them with what they show and their sources; `python -m tests.gateway.recorded.recording`."""
    assert table() in (FOLDER / "README.md").read_text()
