"""What the provider's own SDK makes of our refusals, broken streams and listings."""

import json
from datetime import UTC, datetime

import anthropic as sdk
import httpx2
import pytest

from tests.dialects.test_anthropic import BLOCK, MESSAGES, delta, sse, start
from toolkit.core.errors import STATUS, Refusal, RefusalType
from toolkit.dialects import anthropic
from toolkit.dialects.shape import ModelInfo

pytestmark = pytest.mark.world


def client(status: int, body: bytes, content_type: str = "application/json") -> sdk.Anthropic:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return sdk.Anthropic(api_key="k", base_url="http://gateway", http_client=transport, max_retries=0)


@pytest.mark.parametrize(
    ("kind", "error", "word"),
    [
        (RefusalType.UNAUTHORIZED, sdk.AuthenticationError, "authentication_error"),
        (RefusalType.API_KEY_QUOTA_EXCEEDED, sdk.PaymentRequiredError, "billing_error"),
        (RefusalType.BILLING_SHORTFALL, sdk.PaymentRequiredError, "billing_error"),
        (RefusalType.MODEL_NOT_ALLOWED, sdk.PermissionDeniedError, "permission_error"),
        (RefusalType.MODEL_NOT_FOUND, sdk.NotFoundError, "not_found_error"),
        (RefusalType.INVALID_REQUEST, sdk.BadRequestError, "invalid_request_error"),
        (RefusalType.UPSTREAM_ERROR, sdk.InternalServerError, "api_error"),
    ],
)
def test_sdk_raises_its_own_error_with_our_message(
    kind: RefusalType, error: type[sdk.APIStatusError], word: str
) -> None:
    """The official SDK turns the envelope into its typed exception, with message, type and code."""
    refusal = Refusal(kind, "No, because.", param="max_tokens", details={"limit": "5.00"})
    body = json.dumps(anthropic.error_body(refusal, "req_1")).encode()
    with client(STATUS[kind], body) as api, pytest.raises(error, match=r"No, because\.") as caught:
        api.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    assert (caught.value.type, caught.value.error_code) == (word, kind.value)
    assert caught.value.api_message == "No, because."
    assert json.loads(body) == {
        "type": "error",
        "error": {
            "type": word,
            "message": "No, because.",
            "details": {"error_code": kind.value, "param": "max_tokens", "limit": "5.00"},
        },
        "request_id": "req_1",
    }


def test_sdk_raises_when_a_stream_breaks() -> None:
    """The text up to the break is delivered, then the SDK raises with our message."""
    refusal = Refusal(RefusalType.UPSTREAM_ERROR, "The provider's connection broke.")
    body = sse(start(input_tokens=1, output_tokens=1), BLOCK, delta("he"))
    body += anthropic.error_event(refusal, "req_1", sse=True, endpoint=MESSAGES, started=True)
    seen = []
    with client(200, body, "text/event-stream") as api:
        stream = api.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(sdk.APIStatusError, match="connection broke"):
            seen += [event.type for event in stream]


def test_sdk_lists_models() -> None:
    """Listings satisfy the SDK's own types, and an empty one is a page too."""
    info = ModelInfo("claude-x", datetime(2026, 1, 2, tzinfo=UTC), 200_000, 64_000, "Claude X", "anthropic")
    with client(200, json.dumps(anthropic.listing([info])).encode()) as api:
        (model,) = list(api.models.list())
    assert (model.id, model.display_name, model.created_at) == (
        "claude-x",
        "Claude X",
        datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert (model.max_input_tokens, model.max_tokens) == (200_000, 64_000)
    with client(200, json.dumps(anthropic.listing([])).encode()) as api:
        assert list(api.models.list()) == []
    with client(200, json.dumps(anthropic.listed(info)).encode()) as api:
        assert api.models.retrieve("claude-x").id == "claude-x"
