"""Every failure reaches the caller as the SDK's own typed exception, in the exact envelope, with the right headers."""

import json

import pytest

from tests.conftest import CREDENTIAL, usd
from tests.gateway.conftest import (
    KINDS,
    Gate,
    Reply,
    dialect_of,
    http_answer,
    raw_upstream,
)
from toolkit.store.tables import OutboxRow

BROKEN = "[[demo tokens=40 break=3]]"
ERROR_EVENT = "[[demo tokens=40 error_event=3]]"


@pytest.mark.parametrize("kind", KINDS)
def test_providers_own_error_event_passes_and_is_explained(gate: Gate, kind: str) -> None:
    """The provider's own error event reaches the caller; what came before is charged, and the row says what it was."""
    reply = gate.ask(kind, ERROR_EVENT, stream=True)
    row = gate.row()
    assert b"error" in reply.body
    assert (row.outcome, row.refusal) == ("upstream_error", "upstream_error")
    assert row.cost > 0
    assert "error" in (row.error or "").partition(": ")[2]


def test_broken_array_stays_json(gate: Gate) -> None:
    """A Gemini stream without `alt=sse` that breaks is a whole JSON array whose last element is the error."""
    reply = gate.ask("array", BROKEN, stream=True)
    elements = reply.json
    assert len(elements) > 1
    assert elements[-1]["error"]["status"] == "INTERNAL"


@pytest.mark.parametrize("kind", KINDS)
def test_whole_answer_that_breaks_is_estimated(gate: Gate, kind: str) -> None:
    """The provider had made it, and bills it: the caller pays an estimate, reads so, and no SDK asks again."""
    reply = gate.ask(kind, BROKEN)
    row = gate.row()
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (502, "upstream_error", "false")
    assert "is charged, by an estimate" in reply.message
    assert (row.outcome, row.status, row.usage_source) == ("upstream_error", 502, "estimated")
    assert 0 < row.cost == gate.totals()[0]
    assert gate.totals()[1] == 0


# -- the envelopes, to the letter ----------------------------------------------------------------------------


def test_openai_envelope(gate: Gate) -> None:
    """OpenAI: type and code are ours; the request id is in the body and in X-Request-ID."""
    reply = gate.ask("chat", "hi", model="nope")
    assert reply.json == {
        "error": {
            "message": "There is no model 'nope' here. GET /v1/models lists what this API key may call.",
            "type": "model_not_found",
            "code": "model_not_found",
            "param": "model",
            "request_id": reply.headers["x-request-id"],
        }
    }
    assert reply.headers["content-type"] == "application/json"


def test_anthropic_envelope(gate: Gate) -> None:
    """Anthropic: its broad type, our type in the details, the request id in the body and in `request-id` too."""
    reply = gate.ask("messages", "hi", model="nope")
    assert reply.json == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "There is no model 'nope' here. GET /v1/models lists what this API key may call.",
            "details": {"error_code": "model_not_found", "param": "model"},
        },
        "request_id": reply.headers["x-request-id"],
    }
    assert reply.headers["request-id"] == reply.headers["x-request-id"]


def test_gemini_envelope(gate: Gate) -> None:
    """Gemini: canonical status, our type as the reason of an ErrorInfo."""
    reply = gate.send("/v1beta/models/nope:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]})
    assert reply.json == {
        "error": {
            "code": 404,
            "message": "There is no model 'nope' here. GET /v1/models lists what this API key may call.",
            "status": "NOT_FOUND",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "model_not_found",
                    "domain": "keydesk",
                    "metadata": {"request_id": reply.headers["x-request-id"], "param": "model"},
                }
            ],
        }
    }


def test_402_says_what_it_would_take(gate: Gate) -> None:
    """A refused limit says which, its amount, what is spent and held, what the call needs, and when it resets."""
    gate.ask("chat", "[[demo input=1000 cached=0 tokens=100]]")  # costs 0.00375 USD
    gate.update(monthly_limit=usd(0.01))
    reply = gate.ask("chat", "hi", max_tokens=1000)
    details = reply.json["error"]["details"]
    assert reply.status == 402
    assert (details["limit"], details["limit_usd"], details["spent_usd"], details["held_usd"]) == (
        "monthly_limit",
        "0.01",
        "0.00375",
        "0",
    )
    assert float(details["needed_usd"]) > 0.0125
    assert details["resets_at"].endswith("-01T00:00:00Z")
    assert 0 < int(details["largest_output_bound"]) < 1000


@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
def test_402_details_in_every_dialect(gate: Gate, kind: str) -> None:
    """The same facts are in every dialect's envelope."""
    assert gate.ask(kind, "hi").status == 200
    gate.update(monthly_limit=1)
    error = gate.ask(kind, "hi").json["error"]
    details = error["details"][0]["metadata"] if kind == "generate" else error["details"]
    assert details["limit"] == "monthly_limit"
    assert details["needed_usd"] != "0"


@pytest.mark.parametrize("kind", KINDS)
def test_headers_of_an_upstream_error(gate: Gate, kind: str) -> None:
    """An upstream error names the hold, and tells SDKs not to retry what the provider may bill."""
    reply = gate.ask(kind, "[[demo status=504]]", stream=kind != "chat")
    assert reply.status == 502
    assert reply.headers["x-hold-id"] == reply.request_id.replace("req_", "hold_")
    assert reply.headers["x-should-retry"] == "false"
    assert ("request-id" in reply.headers) == (kind == "messages")


@pytest.mark.parametrize("kind", KINDS)
def test_headers_of_a_stream(gate: Gate, kind: str) -> None:
    """A stream carries our ids and the right content type."""
    reply = gate.ask(kind, "hello", stream=True)
    assert reply.headers["x-hold-id"] == reply.request_id.replace("req_", "hold_")
    assert reply.headers["content-type"].startswith("application/json" if kind == "array" else "text/event-stream")


def test_upstream_headers_are_dropped(gate: Gate) -> None:
    """Cookies, organisation and rate-limit headers of the provider's account are nobody's business."""
    headers = ["Set-Cookie: a=b", "OpenAI-Organization: ours", "X-RateLimit-Remaining-Requests: 5", "X-Internal: 1"]
    with raw_upstream([http_answer(b'{"id":"x"}', "Content-Type: application/json", *headers)]) as upstream:
        reply = gate.behind(upstream.url).ask("chat")
    assert reply.status == 200
    assert not {"set-cookie", "openai-organization", "x-ratelimit-remaining-requests", "x-internal"} & set(
        reply.headers
    )


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "529 Overloaded"])
def test_a_busy_provider_says_when_to_try_again(gate: Gate, status: str) -> None:
    """Its Retry-After and retry-after-ms pass; what is no time does not, nor do its words."""
    answer = http_answer(b'{"error":{"message":"slow down, org-AbCdEf123456"}}', "Retry-After: 7", status=status)
    with raw_upstream([answer.replace(b"Retry-After: 7", b"Retry-After: 7\r\nRetry-After-Ms: 6500")]) as upstream:
        reply = gate.behind(upstream.url).ask("chat")
    assert (reply.status, reply.headers["retry-after"], reply.headers["retry-after-ms"]) == (
        int(status[:3]),
        "7",
        "6500",
    )
    assert "slow down" not in reply.message
    assert "x-should-retry" not in reply.headers
    odd = http_answer(b"{}", "Retry-After: sk-not-a-time", status=status)
    with raw_upstream([odd]) as upstream:
        assert "retry-after" not in gate.behind(upstream.url).ask("chat").headers


# -- the provider's words -------------------------------------------------------------------------------------

LEAKS = (
    f"for {CREDENTIAL} of org-AbCdEf123456, projects/123456789012, arn:aws:bedrock:us-east-1:123456789012:x, "
    "admin@company.example at https://gpu7.internal:8443/v1 (request ID a1b2c3d4e5)"
)
LEAKED = [CREDENTIAL, "AbCdEf", "123456789012", "company.example", "gpu7", "a1b2c3d4e5"]
TOO_LONG = "This model's maximum context length is 128000 tokens"


def fails(gate: Gate, status: str, body: bytes, *headers: str, kind: str = "chat", stream: bool = False) -> Reply:
    """Ask a model whose upstream answers so."""
    headers = headers or ("Content-Type: application/json",)
    with raw_upstream([http_answer(body, *headers, status=status)]) as upstream:
        return gate.behind(upstream.url, dialect_of(kind)).ask(kind, stream=stream)


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "408 X", "413 Too Large", "422 Unprocessable"])
@pytest.mark.parametrize("escaped", [False, True])
def test_an_error_of_the_callers_keeps_its_words_without_ours(gate: Gate, status: str, escaped: bool) -> None:
    """Status, code, type and wording are the provider's; credential, accounts, people and hosts are not in them."""
    error = {"message": f"{TOO_LONG} {LEAKS}", "type": "invalid_request_error", "code": "context_length_exceeded"}
    body = json.dumps({"error": error | {"organization": "org-AbCdEf123456"}})
    if escaped:
        body = body.replace(CREDENTIAL, "".join(f"\\u{ord(letter):04x}" for letter in CREDENTIAL))
    reply = fails(gate, status, body.encode())
    found = reply.json["error"]
    assert (reply.status, found["type"], found["code"]) == (int(status[:3]), error["type"], error["code"])
    assert found["message"].startswith(TOO_LONG)
    assert not [leaked for leaked in LEAKED if leaked in reply.body.decode()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", ["401 X", "402 X", "403 X", "429 X", "500 X", "503 X", "529 X"])
def test_an_error_of_ours_is_in_our_words(gate: Gate, kind: str, status: str) -> None:
    """In the caller's dialect, whatever the provider says; the log has what it says, without our credential."""
    body = json.dumps({"error": {"message": f"No {LEAKS}", "code": "no"}}).encode()
    reply = fails(gate, status, body, kind=kind, stream=kind == "array")
    assert reply.type in {"upstream_error", "upstream_rate_limited", "upstream_overloaded"}
    assert not [leaked for leaked in LEAKED if leaked in reply.body.decode()]
    with gate.workspace.read() as tx:
        row = tx.session.get_one(OutboxRow, reply.request_id)
    assert CREDENTIAL not in (row.error or "")
    assert "org-AbCdEf123456" in (row.error or "")


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Your credit balance is too low to access the Anthropic API.", "type": "invalid_request_error"},
        {"message": "You exceeded your current quota", "code": "insufficient_quota", "type": "insufficient_quota"},
        {"message": "User location is not supported for the API use.", "code": 400, "status": "FAILED_PRECONDITION"},
        {"message": "API key not valid.", "code": 400, "details": [{"reason": "API_KEY_INVALID"}]},
    ],
)
@pytest.mark.parametrize("status", ["400 Bad Request", "429 Too Many Requests"])
def test_what_our_account_is_to_blame_for_is_ours(gate: Gate, error: dict[str, object], status: str) -> None:
    """Whatever status the provider gives it: the caller cannot mend it, and no SDK should try again."""
    reply = fails(gate, status, json.dumps({"error": error}).encode())
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (502, "upstream_error", "false")
    assert "does not serve this gateway's account" in reply.message
    assert str(error["message"]) not in reply.message


def exhausted(limit: str, *, in_words: bool) -> bytes:
    """Return Gemini's answer for a quota that is used up; its words name the plan and billing in any case."""
    words = "You exceeded your current quota, please check your plan and billing details."
    quota = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaValue": limit}]}
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.2s"}
    error = {
        "code": 429,
        "message": f"{words} Quota exceeded for metric: requests, limit: {limit}" if in_words else words,
        "status": "RESOURCE_EXHAUSTED",
        "details": [retry] if in_words else [quota, retry],
    }
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize("in_words", [True, False])
def test_geminis_limit_per_minute_is_not_our_accounts_fault(gate: Gate, in_words: bool) -> None:
    """It says "quota" of a minute's, too, and when to come back: callers wait. A limit of 0 is our account's."""
    reply = fails(gate, "429 Too Many Requests", exhausted("20", in_words=in_words), kind="generate")
    assert (reply.status, reply.type, reply.headers["retry-after"]) == (429, "upstream_rate_limited", "37")
    reply = fails(gate, "429 Too Many Requests", exhausted("0", in_words=in_words), kind="generate")
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (502, "upstream_error", "false")


FIRST: list[tuple[str, bytes, int, str]] = [
    ("chat", b'data: {"error":{"message":"context too long","code":"context_length_exceeded"}}\n\n', 400, "context"),
    ("chat", b'data: {"error":{"message":"x","type":"rate_limit_exceeded"}}\n\ndata: [DONE]\n\n', 429, "limits how"),
    ("chat", b'data: {"error":{"message":"CUDA out of memory","code":503}}\n\n', 503, "overloaded"),
    ("chat", b'data: {"error":"gpu7 fell over"}\n\n', 502, "could not answer"),
    ("chat", b'data: {"error":{"message":"no","code":"insufficient_quota"}}\n\n', 502, "does not serve this gateway"),
    (
        "responses",
        b'event: response.failed\ndata: {"type":"response.failed","response":{"error":{"code":"server_error"}}}\n\n',
        502,
        "could not answer",
    ),
    (
        "responses",
        b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"x"}\n\n',
        429,
        "limits",
    ),
    (
        "messages",
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        529,
        "overloaded",
    ),
    (
        "messages",
        b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error","message":"too long"}}\n\n',
        400,
        "too long",
    ),
    ("generate", b'data: {"error":{"code":503,"status":"UNAVAILABLE","message":"busy"}}\n\n', 503, "overloaded"),
    ("array", b'[{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"too long"}}]', 400, "too long"),
]


@pytest.mark.parametrize(("kind", "sent", "status", "words"), FIRST)
def test_an_error_as_the_first_event_has_its_status(
    gate: Gate, kind: str, sent: bytes, status: int, words: str
) -> None:
    """So each SDK raises the exception of that status, and tries again where that helps; nothing is charged."""
    media = "application/json" if kind == "array" else "text/event-stream"
    with raw_upstream([http_answer(sent, f"Content-Type: {media}", "Retry-After: 7")]) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        reply = behind.ask(kind, stream=True)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert words in reply.message
    assert b"gpu7" not in reply.body
    row = behind.gate.row()
    assert (row.outcome, row.status, row.cost) == ("upstream_error", status, 0)
    if status in (429, 503, 529):
        assert reply.headers["retry-after"] == "7"


def test_an_error_after_the_first_event_is_an_event(gate: Gate) -> None:
    """What has begun with 200 goes on as a stream."""
    text = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
    error = b'data: {"error":{"message":"busy","type":"overloaded_error"}}\n\n'
    with raw_upstream([http_answer(text + error, "Content-Type: text/event-stream")]) as upstream:
        reply = gate.behind(upstream.url).ask("chat", stream=True)
    assert reply.status == 200
    assert reply.body.startswith(text)
    assert b"is overloaded" in reply.body


def test_a_stream_of_nothing_is_no_answer(gate: Gate) -> None:
    """It has no event at all, so it is told by its status, and not charged."""
    with raw_upstream([http_answer(b"", "Content-Type: text/event-stream")]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=True)
    assert (reply.status, reply.type, behind.gate.row().cost) == (502, "upstream_error", 0)


@pytest.mark.parametrize(("status", "told"), [("400 X", 400), ("413 X", 413), ("404 X", 502), ("502 X", 502)])
@pytest.mark.parametrize("body", [b"<html><h1>gpu7.internal</h1></html>", b'{"error":' + b"[" * 100_000, b"", b"model"])
def test_a_page_of_a_load_balancer_is_in_our_words(gate: Gate, status: str, told: int, body: bytes) -> None:
    """What is no JSON of an API is never passed on."""
    reply = fails(gate, status, body, "Content-Type: text/html")
    assert (reply.status, reply.type) == (told, "upstream_error")
    assert reply.headers["content-type"] == "application/json"
    assert b"gpu7" not in reply.body


def test_a_404_that_is_not_about_a_model_is_ours(gate: Gate) -> None:
    """The base URL of the upstream is wrong: the caller cannot mend that."""
    reply = fails(gate, "404 Not Found", b'{"error":{"message":"no route /v1/v1"}}')
    assert (reply.status, reply.type) == (502, "upstream_error")


def test_a_long_error_is_cut(gate: Gate) -> None:
    """It is still JSON; one that has no end is not read to it."""
    reply = fails(gate, "400 X", json.dumps({"error": {"message": "m " * 50_000, "type": "t"}}).encode())
    assert (reply.status, reply.json["error"]["type"]) == (400, "t")
    assert len(reply.body) < 6_000
    reply = fails(gate, "400 X", b'{"error":"' + b"x" * 2_000_000 + b'"}')
    assert (reply.status, reply.type) == (400, "upstream_error")


def test_an_error_in_a_whole_answer_is_fit_to_read(gate: Gate) -> None:
    """Some servers say 200 and mean an error."""
    body = json.dumps({"id": "x", "error": {"message": f"{TOO_LONG} {LEAKS}", "code": "context_length_exceeded"}})
    reply = fails(gate, "200 OK", body.encode())
    assert reply.json["error"]["code"] == "context_length_exceeded"
    assert not [leaked for leaked in LEAKED if leaked in reply.body.decode()]
    assert reply.status == 400
    busy = {"error": {"message": f"Busy {LEAKS}", "type": "overloaded_error"}}
    reply = fails(gate, "200 OK", json.dumps(busy).encode())
    assert (reply.status, reply.type) == (529, "upstream_overloaded")
    assert "is overloaded or limits this gateway" in reply.message
    text = {"choices": [{"index": 0, "message": {"content": "half of it"}}]}
    reply = fails(gate, "200 OK", json.dumps(busy | text).encode())
    assert (reply.status, reply.json["error"]["type"]) == (200, "overloaded_error")
    assert "is overloaded or limits this gateway" in reply.message


def event_of(kind: str, error: dict[str, str]) -> bytes:
    """Return a stream of one piece of text and an error event, in the form of a kind of request."""
    if kind == "messages":
        start = b'event: message_start\ndata: {"type":"message_start","message":{"id":"x"}}\n\n'
        told = {"type": "error", "error": error, "request_id": "req_x1"}
        return start + b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"
    if kind == "responses":
        created = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n'
        failed = {"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": error}}
        return created + b"event: response.failed\ndata: " + json.dumps(failed).encode() + b"\n\n"
    if kind == "array":
        return (
            b'[{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]},' + json.dumps({"error": error}).encode() + b"]"
        )
    text = (
        b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}],"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}'
    )
    return text + b"\n\ndata: " + json.dumps({"error": error}).encode() + b"\n\n"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_event_is_fit_to_read(gate: Gate, kind: str) -> None:
    """In a stream, too: what the caller is to blame for keeps its words, the rest is in ours; the framing stays."""
    content_type = "Content-Type: application/json" if kind == "array" else "Content-Type: text/event-stream"
    too_long = {"message": f"{TOO_LONG} {LEAKS}", "type": "invalid_request_error", "code": "context_length_exceeded"}
    busy = {
        "message": f"Busy {LEAKS}. Please try again in 1.5s.",
        "type": "overloaded_error",
        "code": "rate_limit_exceeded",
    }
    for error, told in ((too_long, TOO_LONG), (busy, "is overloaded or limits this gateway")):
        reply = fails(gate, "200 OK", event_of(kind, error), content_type, kind=kind, stream=True)
        text = reply.body.decode()
        assert told in text
        assert error["code"] in text
        assert not [leaked for leaked in LEAKED if leaked in text]
        assert kind != "messages" or "req_x1" not in text
        if kind == "array":
            assert told in json.loads(text)[-1]["error"]["message"]
        else:
            data = [line for line in text.splitlines() if line.startswith("data: {")]
            assert told in str(json.loads(data[-1].removeprefix("data: ")))
    assert "try again in 1.5s" in text


def test_an_error_event_that_is_not_json_is_ours(gate: Gate) -> None:
    """The caller gets an event that its SDK can read."""
    reply = fails(
        gate,
        "200 OK",
        b"event: ping\ndata: {}\n\nevent: error\ndata: gpu7 fell over\n\n",
        "Content-Type: text/event-stream",
        kind="messages",
        stream=True,
    )
    assert b"gpu7" not in reply.body
    assert json.loads(reply.body.rpartition(b"data: ")[2])["error"]["type"] == "api_error"
