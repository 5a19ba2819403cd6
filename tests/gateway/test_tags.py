"""Tags of calls: kept with the request log, told apart in reports, and never sent on."""

from datetime import UTC, datetime

from tests.gateway.conftest import Gate, request_of
from toolkit.core.period import Period
from toolkit.reports import dimensions, spend


def test_a_call_is_tagged_by_its_header(gate: Gate) -> None:
    """Its row has the tags; the provider does not get the header."""
    path, body = request_of("chat", "[[demo tokens=4]]")
    reply = gate.send(path, body, {"X-Keydesk-Tags": "team=search, feature=rerank"})
    assert reply.status == 200
    (row,) = gate.rows()
    assert row.tags == '{"feature":"rerank","team":"search"}'
    witnessed = gate.witness(reply.request_id)
    assert witnessed is not None
    assert "rerank" not in str(witnessed)


def test_sdk_fields_are_tags(gate: Gate) -> None:
    """What the official SDKs have for it: `metadata` and `user` of OpenAI, `metadata.user_id` of Anthropic."""
    assert gate.ask("chat", "[[demo tokens=4]]", metadata={"team": "search"}, user="u-7").status == 200
    assert gate.ask("messages", "[[demo tokens=4]]", metadata={"user_id": "u-8"}).status == 200
    assert [row.tags for row in gate.rows()] == ['{"team":"search","user":"u-7"}', '{"user":"u-8"}']


def test_a_secret_in_a_tag_is_not_kept(gate: Gate) -> None:
    """Only its display form is, as everywhere."""
    assert gate.ask("chat", "[[demo tokens=4]]", user=gate.secret).status == 200
    (row,) = gate.rows()
    assert row.tags is not None
    assert gate.secret not in row.tags
    assert gate.secret[-4:] in row.tags


def test_a_wrong_header_is_refused_and_logged(gate: Gate) -> None:
    """The caller learns what is wrong before anything is spent."""
    path, body = request_of("chat", "[[demo tokens=4]]")
    reply = gate.send(path, body, {"X-Keydesk-Tags": "team"})
    assert (reply.status, reply.type) == (400, "invalid_request")
    assert "X-Keydesk-Tags" in reply.message
    (row,) = gate.rows()
    assert (row.outcome, row.cost) == ("refused", 0)


def test_spend_by_tag_sums_to_the_whole(gate: Gate) -> None:
    """Tagged and untagged calls together are what was charged."""
    path, body = request_of("chat", "[[demo tokens=4]]")
    for tags in ("team=a", "team=b", "team=a", ""):
        assert gate.send(path, body, {"X-Keydesk-Tags": tags}).status == 200
    period = Period(datetime(2020, 1, 1, tzinfo=UTC), None)
    frame = spend.table(gate.workspace.ledger, ["tag:team"], period, org=gate.org_id)
    calls = dict(zip(frame.iloc[:, 0], frame["calls"], strict=True))
    assert calls == {"a": 2, "b": 1, dimensions.UNTAGGED: 1}
    assert frame["cost"].sum() == sum(row.cost for row in gate.rows())
