"""What a caller gets for which failure of a provider: the table, in the code, in the documentation and on the wire."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.conftest import Gate, dialect_of, http_answer, raw_upstream
from toolkit.gateway.upstream_rules import RULES, Rule

LIMITS = (
    *("X-RateLimit-Remaining-Requests: 5", "X-RateLimit-Reset-Tokens: 6m0s", "RateLimit-Reset: 9"),
    *("anthropic-ratelimit-requests-remaining: 0", "anthropic-ratelimit-unified-status: rejected"),
    *("X-Should-Retry: true", "Retry-After: 7", "retry-after-ms: 6500"),
)


def written(rules: tuple[Rule, ...]) -> str:
    """Return the table as docs/gateway.md has it."""
    lines = [
        "| the provider | HTTP | type | words | when to try again | `x-should-retry` | another upstream |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {rule.when} | {rule.status or 'the same'} | `{rule.type}` | "
        f"{'its own' if rule.is_callers else 'ours'} | {'kept' if rule.tells_when else '–'} | "
        f"{'`false`' if rule.should_not_retry else '–'} | {'tried' if rule.other_way else '–'} |"
        for rule in rules
    ]
    return "\n".join(lines)


def test_the_documentation_has_the_table() -> None:
    """Row by row, in its order."""
    assert written(RULES) in Path("docs/gateway.md").read_text()


def told(status: int, **names: object) -> bytes:
    """Return a provider's error that says nothing of the kind of failure but what is given."""
    return json.dumps({"error": {"message": "of model gpu7", **names}}).encode()


# The provider's status and error, what the caller gets, whether he learns when to try again, and whether not to.
ON_THE_WIRE: list[tuple[int, bytes, int, str, bool, bool]] = [
    (401, told(401), 502, "upstream_error", False, True),
    (402, told(402), 502, "upstream_error", False, True),
    (403, told(403), 502, "upstream_error", False, True),
    (400, told(400, type="authentication_error"), 502, "upstream_error", False, True),
    (429, told(429), 429, "upstream_rate_limited", True, False),
    (429, told(429, code="insufficient_quota"), 502, "upstream_error", False, True),
    (503, told(503), 503, "upstream_overloaded", True, False),
    (529, told(529), 529, "upstream_overloaded", True, False),
    (498, told(498), 503, "upstream_overloaded", True, False),
    (400, told(400), 400, "", False, False),
    (404, told(404), 404, "", False, False),
    (413, told(413), 413, "", False, False),
    (422, told(422), 422, "", False, False),
    (403, told(403, metadata={"reasons": ["violence"]}), 403, "", False, False),
    (408, told(408), 408, "", False, True),
    (500, told(500), 502, "upstream_error", False, False),
    (501, told(501), 502, "upstream_error", False, False),
    (500, told(500, type="timeout_error"), 502, "upstream_error", False, True),
    (502, told(502), 502, "upstream_error", False, True),
    (504, told(504), 502, "upstream_error", False, True),
    (524, b"<html>", 502, "upstream_error", False, True),
    (404, b"{}", 502, "upstream_error", False, True),
    (302, b"", 502, "upstream_error", False, True),
]


@pytest.fixture(scope="module")
def script() -> list[bytes]:
    return []


@pytest.fixture(scope="module")
def address(script: list[bytes]) -> Iterator[str]:
    """An upstream that says what the script has."""
    with raw_upstream(script) as upstream:
        yield upstream.url


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["chat", "responses", "messages", "generate", "array"])
def test_each_failure_on_the_wire(gate: Gate, kind: str, stream: bool, address: str, script: list[bytes]) -> None:
    """In each dialect, whole and streamed; of the headers of the provider's limits two pass at most."""
    behind = gate.behind(address, dialect_of(kind))
    for status, body, gets, type_, when, not_again in ON_THE_WIRE:
        script[:] = [http_answer(body, "Content-Type: application/json", *LIMITS, status=f"{status} X")]
        reply = behind.ask(kind, stream=stream)
        assert reply.status == gets, (status, body)
        assert reply.headers.get("retry-after") == ("7" if when else None), (status, body)
        assert reply.headers.get("retry-after-ms") == ("6500" if when else None), (status, body)
        assert reply.headers.get("x-should-retry") == ("false" if not_again else None), (status, body)
        assert not [name for name in reply.headers if "ratelimit" in name]
        if type_:
            assert reply.type == type_
            assert b"gpu7" not in reply.body
        else:
            assert "gpu7" in reply.message
    rows = behind.gate.rows()
    assert [(row.status, row.cost) for row in rows] == [(gets, 0) for _, _, gets, *_ in ON_THE_WIRE]


def test_who_cannot_be_reached_may_be_tried_again(gate: Gate) -> None:
    """Nothing was sent, so nothing is paid twice; a connection that is lost behind the request is another matter."""
    reply = gate.behind("http://127.0.0.1:9").ask("chat")
    assert (reply.status, reply.type, "x-should-retry" in reply.headers) == (502, "upstream_error", False)
    with raw_upstream([]) as upstream:
        reply = gate.behind(upstream.url).ask("chat")
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (502, "upstream_error", "false")
