"""What the provider's own SDK makes of our refusals, broken streams and listings."""

import json
from datetime import UTC, datetime

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from tests.dialects.test_gemini import BATCH, BROKE, COUNT, EMBED, GENERATE, STREAM, chunk, framed
from toolkit.core.errors import STATUS, Refusal, RefusalType
from toolkit.dialects import gemini
from toolkit.dialects.shape import ModelInfo

pytestmark = pytest.mark.world


def client(status: int, body: bytes, content_type: str = "application/json") -> genai.Client:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url="http://gateway", httpx_client=transport))


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        (RefusalType.UNAUTHORIZED, errors.ClientError, "UNAUTHENTICATED"),
        (RefusalType.API_KEY_QUOTA_EXCEEDED, errors.ClientError, "FAILED_PRECONDITION"),
        (RefusalType.MODEL_NOT_ALLOWED, errors.ClientError, "PERMISSION_DENIED"),
        (RefusalType.MODEL_NOT_FOUND, errors.ClientError, "NOT_FOUND"),
        (RefusalType.INVALID_REQUEST, errors.ClientError, "INVALID_ARGUMENT"),
        (RefusalType.UPSTREAM_ERROR, errors.ServerError, "INTERNAL"),
    ],
)
def test_sdk_raises_its_own_error_with_our_message(
    kind: RefusalType, error: type[errors.APIError], status: str
) -> None:
    """The official SDK turns the envelope into its typed exception, with message, code and status."""
    refusal = Refusal(kind, "No, because.", param="contents", details={"limit": "5.00"})
    body = json.dumps(gemini.error_body(refusal, "req_1")).encode()
    with client(STATUS[kind], body) as api, pytest.raises(error) as caught:
        api.models.generate_content(model="m", contents="x")
    assert (caught.value.code, caught.value.status, caught.value.message) == (STATUS[kind], status, "No, because.")
    (info,) = caught.value.details["error"]["details"]
    assert info["reason"] == kind.value
    assert info["metadata"] == {"request_id": "req_1", "param": "contents", "limit": "5.00"}


def test_sdk_raises_when_a_stream_breaks() -> None:
    """The text up to the break is delivered, then the SDK raises with our message."""
    body = b"".join(framed([chunk("he")], sse=True))
    body += gemini.error_event(BROKE, "req_1", sse=True, endpoint=STREAM, started=True)
    texts: list[str | None] = []
    with client(200, body, "text/event-stream") as api:
        stream = api.models.generate_content_stream(model="m", contents="x")
        with pytest.raises(errors.ServerError, match="connection broke"):
            texts += [answer.text for answer in stream]


def test_sdk_lists_models() -> None:
    """Listings satisfy the SDK's own types; an embedding model says what it is for."""
    created = datetime(2026, 1, 2, tzinfo=UTC)
    infos = [
        ModelInfo("gemini-x", created, 1_000_000, 65_536, "Gemini X", "google"),
        ModelInfo("embedder", created, None, 0, "Embedder", "google"),
    ]
    with client(200, json.dumps(gemini.listing(infos)).encode()) as api:
        talker, embedder = list(api.models.list())
    assert (talker.name, talker.display_name) == ("models/gemini-x", "Gemini X")
    assert (talker.input_token_limit, talker.output_token_limit) == (1_000_000, 65_536)
    assert talker.supported_actions == [GENERATE, STREAM, COUNT]
    assert embedder.supported_actions == [EMBED, BATCH]
    with client(200, json.dumps(gemini.listed(infos[0])).encode()) as api:
        assert api.models.get(model="gemini-x").name == "models/gemini-x"
