"""The official SDKs raise their own typed errors, with our message."""

from collections.abc import Callable

import anthropic
import openai
import pytest
from google.genai import errors, types

from tests.gateway.conftest import (
    Gate,
    make_gate,
)
from tests.gateway.test_errors import BROKEN, ERROR_EVENT
from toolkit.core.secrets import new_secret

pytestmark = pytest.mark.world
TRUNCATED = "[[demo tokens=40 truncate=3]]"

# -- each SDK's own exceptions -------------------------------------------------------------------------------


def chat(gate: Gate, text: str = "hello", *, secret: str | None = None, model: str = "gpt-test") -> None:
    """Ask through OpenAI's SDK."""
    with gate.openai(secret) as client:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])


def message(gate: Gate, text: str = "hello", *, secret: str | None = None, model: str = "claude-test") -> None:
    """Ask through Anthropic's SDK."""
    with gate.anthropic(secret) as client:
        client.messages.create(model=model, max_tokens=100, messages=[{"role": "user", "content": text}])


def generate(gate: Gate, text: str = "hello", *, secret: str | None = None, model: str = "gemini-test") -> None:
    """Ask through Google's SDK."""
    with gate.genai(secret) as client:
        client.models.generate_content(model=model, contents=text)


def test_401_is_typed(gate: Gate) -> None:
    """A secret that was never issued: AuthenticationError, and Google's ClientError with status UNAUTHENTICATED."""
    unknown = new_secret()
    with pytest.raises(openai.AuthenticationError, match="This API key is not valid"):
        chat(gate, secret=unknown)
    with pytest.raises(anthropic.AuthenticationError, match="This API key is not valid"):
        message(gate, secret=unknown)
    with pytest.raises(errors.ClientError, match="This API key is not valid") as caught:
        generate(gate, secret=unknown)
    assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")


def test_402_of_the_limit_is_typed(gate: Gate) -> None:
    """A used-up monthly limit raises each SDK's exception for 402, which names the limit."""
    gate.update(monthly_limit=0)
    with pytest.raises(openai.APIStatusError, match=r"monthly limit of \$0\.00") as first:
        chat(gate)
    assert (first.value.status_code, first.value.code) == (402, "api_key_quota_exceeded")
    with pytest.raises(anthropic.APIStatusError, match=r"monthly limit of \$0\.00") as second:
        message(gate)
    assert type(second.value).__name__ == "PaymentRequiredError"
    with pytest.raises(errors.ClientError, match=r"monthly limit of \$0\.00") as third:
        generate(gate)
    assert third.value.code == 402
    assert [row.refusal for row in gate.rows()] == ["api_key_quota_exceeded"] * 3


def test_402_of_the_wallet_is_typed(gate: Gate) -> None:
    """An empty wallet raises the same exceptions, with the other reason."""
    poor = make_gate(gate.running, money=0)
    with pytest.raises(openai.APIStatusError, match="wallet does not cover") as first:
        chat(poor)
    assert (first.value.status_code, first.value.code) == (402, "billing_shortfall")
    with pytest.raises(anthropic.APIStatusError, match="wallet does not cover"):
        message(poor)
    with pytest.raises(errors.ClientError, match="wallet does not cover"):
        generate(poor)


def test_403_is_typed(gate: Gate) -> None:
    """A model outside the key's scope is forbidden, in words that say what to do."""
    gate.update(models=["embed-test"])
    with pytest.raises(openai.PermissionDeniedError, match="outside this API key's model scope"):
        chat(gate)
    with pytest.raises(anthropic.PermissionDeniedError, match="outside this API key's model scope"):
        message(gate)
    with pytest.raises(errors.ClientError, match="outside this API key's model scope") as caught:
        generate(gate)
    assert (caught.value.code, caught.value.status) == (403, "PERMISSION_DENIED")


def test_404_is_typed(gate: Gate) -> None:
    """A model that does not exist is not found."""
    with pytest.raises(openai.NotFoundError, match="There is no model 'nope'"):
        chat(gate, model="nope")
    with pytest.raises(anthropic.NotFoundError, match="There is no model 'nope'"):
        message(gate, model="nope")
    with pytest.raises(errors.ClientError, match="There is no model 'nope'") as caught:
        generate(gate, model="nope")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


def test_400_is_typed(gate: Gate) -> None:
    """A field that cannot be used is a bad request, which names the field."""
    with gate.openai() as client, pytest.raises(openai.BadRequestError, match="'n' must be") as first:
        client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": "hi"}], n=1000)
    assert first.value.param == "n"
    with gate.anthropic() as client, pytest.raises(anthropic.BadRequestError, match="'max_tokens' must be"):
        client.messages.create(model="claude-test", max_tokens=-1, messages=[{"role": "user", "content": "hi"}])
    config = types.GenerateContentConfig(candidate_count=1000)
    with gate.genai() as google, pytest.raises(errors.ClientError, match="candidateCount") as caught:
        google.models.generate_content(model="gemini-test", contents="hi", config=config)
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("status", [401, 403, 500, 502, 504])
def test_upstream_failure_is_typed(gate: Gate, status: int) -> None:
    """What is wrong between us and the provider is a 502 with our text, not to be retried, and not charged."""
    orders = f"[[demo status={status}]]"
    ours = "could not answer this call|does not serve this gateway's account"
    with pytest.raises(openai.InternalServerError, match=ours) as first:
        chat(gate, orders)
    with pytest.raises(anthropic.APIStatusError, match=ours) as second:
        message(gate, orders)
    with pytest.raises(errors.ServerError, match=ours) as third:
        generate(gate, orders)
    assert [first.value.status_code, second.value.status_code, third.value.code] == [502, 502, 502]
    assert first.value.response.headers.get("x-should-retry") == (None if status == 500 else "false")
    rows = gate.rows()
    assert [(row.outcome, row.refusal, row.cost) for row in rows] == [("upstream_error", "upstream_error", 0)] * 3
    assert all(f"answered {status}" in (row.error or "") for row in rows)
    assert gate.totals() == (0, 0)


@pytest.mark.parametrize(
    ("status", "kind", "theirs"),
    [
        (429, "upstream_rate_limited", (openai.RateLimitError, anthropic.RateLimitError, errors.ClientError)),
        (503, "upstream_overloaded", (openai.InternalServerError, anthropic.APIStatusError, errors.ServerError)),
        (529, "upstream_overloaded", (openai.InternalServerError, anthropic.APIStatusError, errors.ServerError)),
    ],
)
def test_a_busy_provider_is_typed(gate: Gate, status: int, kind: str, theirs: tuple[type[Exception], ...]) -> None:
    """It keeps its status, which SDKs retry by, and is told in our words."""
    for ask, error in zip((chat, message, generate), theirs, strict=True):
        with pytest.raises(error, match=r"The provider of .* (limits|is overloaded)") as caught:
            ask(gate, f"[[demo status={status}]]")
        found = caught.value
        assert getattr(found, "status_code", None) == status or getattr(found, "code", None) == status
        assert "was told to answer" not in str(found)
    assert [(row.refusal, row.status, row.cost) for row in gate.rows()] == [(kind, status, 0)] * 3


def test_what_the_caller_is_to_blame_for_is_typed(gate: Gate) -> None:
    """The provider's 400 passes with the provider's own words."""
    with pytest.raises(openai.BadRequestError, match="was told to answer 400"):
        chat(gate, "[[demo status=400]]")
    with pytest.raises(anthropic.BadRequestError, match="was told to answer 400"):
        message(gate, "[[demo status=400]]")
    with pytest.raises(errors.ClientError, match="was told to answer 400"):
        generate(gate, "[[demo status=400]]")
    with pytest.raises(openai.UnprocessableEntityError, match="was told to answer 422"):
        chat(gate, "[[demo status=422]]")
    assert {(row.outcome, row.refusal, row.cost) for row in gate.rows()} == {("upstream_error", "upstream_error", 0)}


def stream_chat(gate: Gate, text: str) -> str:
    """Read a chat stream to its end; return its text."""
    with (
        gate.openai() as client,
        client.chat.completions.create(
            model="gpt-test", messages=[{"role": "user", "content": text}], stream=True
        ) as stream,
    ):
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def stream_responses(gate: Gate, text: str) -> str:
    """Read a Responses stream to its end; return its text."""
    with gate.openai() as client, client.responses.create(model="gpt-test", input=text, stream=True) as stream:
        return "".join(event.delta for event in stream if event.type == "response.output_text.delta")


def stream_message(gate: Gate, text: str) -> str:
    """Read a message stream to its end; return its text."""
    with (
        gate.anthropic() as client,
        client.messages.stream(
            model="claude-test", max_tokens=500, messages=[{"role": "user", "content": text}]
        ) as stream,
    ):
        return "".join(stream.text_stream)


def stream_generate(gate: Gate, text: str) -> str:
    """Read a Gemini stream to its end; return its text."""
    with gate.genai() as client:
        return "".join(
            piece.text or "" for piece in client.models.generate_content_stream(model="gemini-test", contents=text)
        )


STREAMS: list[tuple[Callable[[Gate, str], str], type[Exception]]] = [
    (stream_chat, openai.APIError),
    (stream_responses, openai.APIError),
    (stream_message, anthropic.APIStatusError),
    (stream_generate, errors.ServerError),
]


@pytest.mark.parametrize("orders", [BROKEN, TRUNCATED], ids=["broken", "truncated"])
@pytest.mark.parametrize(("read", "error"), STREAMS)
def test_broken_stream_is_typed(
    gate: Gate, read: Callable[[Gate, str], str], error: type[Exception], orders: str
) -> None:
    """A stream that breaks, or ends without its end, raises with our message, and what was produced is charged."""
    with pytest.raises(error, match="connection to the provider failed or broke off"):
        read(gate, orders)
    row = gate.row()
    assert (row.outcome, row.refusal, row.usage_source) == ("upstream_error", "upstream_error", "estimated")
    assert 1 <= row.output_tokens <= 40
    assert row.cost > 0
    assert gate.totals() == (row.cost, 0)


@pytest.mark.parametrize(("read", "error"), [stream for stream in STREAMS if stream[0] is not stream_responses])
def test_providers_own_error_event_is_typed(
    gate: Gate, read: Callable[[Gate, str], str], error: type[Exception]
) -> None:
    """The provider's own error event makes the SDK raise."""
    with pytest.raises(error):
        read(gate, ERROR_EVENT)
