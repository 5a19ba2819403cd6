"""What the provider's own SDK makes of our refusals, broken streams and listings."""

import json
from datetime import UTC, datetime

import httpx2
import openai as sdk
import pytest

from tests.dialects.test_openai import CHAT, CREATED, RESPONSES, chunk, sse
from toolkit.core.errors import STATUS, Refusal, RefusalType
from toolkit.dialects import openai
from toolkit.dialects.shape import ModelInfo

pytestmark = pytest.mark.world


def client(status: int, body: bytes, content_type: str = "application/json") -> sdk.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return sdk.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=transport, max_retries=0)


NO = Refusal(RefusalType.UPSTREAM_ERROR, "The provider's connection broke.", param="x", details={"spent": "1.50"})


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (RefusalType.UNAUTHORIZED, sdk.AuthenticationError),
        (RefusalType.API_KEY_QUOTA_EXCEEDED, sdk.APIStatusError),
        (RefusalType.BILLING_SHORTFALL, sdk.APIStatusError),
        (RefusalType.MODEL_NOT_ALLOWED, sdk.PermissionDeniedError),
        (RefusalType.MODEL_NOT_FOUND, sdk.NotFoundError),
        (RefusalType.UNSUPPORTED_FEATURE, sdk.BadRequestError),
        (RefusalType.UPSTREAM_ERROR, sdk.InternalServerError),
    ],
)
def test_sdk_raises_its_own_error_with_our_message(kind: RefusalType, error: type[sdk.APIStatusError]) -> None:
    """The official SDK turns the envelope into its typed exception, with message, type, code and param."""
    body = json.dumps(openai.error_body(Refusal(kind, "No, because.", param="n", details={"limit": "5.00"}), "req_1"))
    with client(STATUS[kind], body.encode()) as api, pytest.raises(error) as caught:
        api.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert (caught.value.code, caught.value.type, caught.value.param) == (kind.value, kind.value, "n")
    assert caught.value.body == {
        "message": "No, because.",
        "type": kind.value,
        "code": kind.value,
        "param": "n",
        "request_id": "req_1",
        "details": {"limit": "5.00"},
    }


def test_sdk_raises_when_a_chat_stream_breaks() -> None:
    """The text up to the break is delivered, then the SDK raises with our message."""
    body = sse(chunk("he")) + openai.error_event(NO, "req_1", sse=True, endpoint=CHAT, started=True)
    texts = []
    with client(200, body, "text/event-stream") as api:
        stream = api.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(sdk.APIError, match="connection broke") as caught:
            texts += [event.choices[0].delta.content for event in stream]
    assert caught.value.code == "upstream_error"


def test_sdk_raises_when_a_responses_stream_breaks() -> None:
    """The event is one of Responses' own and makes the SDK raise."""
    event = openai.error_event(NO, "req_1", sse=True, endpoint=RESPONSES, started=True)
    assert event.startswith(b'event: response.failed\ndata: {"type": "response.failed"')
    said = json.loads(event.partition(b"data: ")[2])
    assert said["response"]["error"] == said["error"]
    assert said["error"]["code"] == "server_error"
    with client(200, sse(CREATED) + event, "text/event-stream") as api:
        stream = api.responses.create(model="m", input="x", stream=True)
        with pytest.raises(sdk.APIError, match="connection broke"):
            list(stream)


def test_sdk_lists_models() -> None:
    """Listings satisfy the SDK's own types."""
    info = ModelInfo("gpt-x", datetime(2026, 1, 2, tzinfo=UTC), 1000, 100, "GPT X", "openai")
    with client(200, json.dumps(openai.listing([info])).encode()) as api:
        (model,) = api.models.list().data
    assert (model.id, model.created, model.owned_by, model.object) == ("gpt-x", 1767312000, "openai", "model")
    with client(200, json.dumps(openai.listed(info)).encode()) as api:
        assert api.models.retrieve("gpt-x").id == "gpt-x"
