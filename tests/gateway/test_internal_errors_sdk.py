"""The official SDKs raise their own errors for a fault of the gateway's own, with our message."""

from collections.abc import Callable

import anthropic
import openai
import pytest
from google.genai import errors

from tests.conftest import wait_until
from tests.gateway.conftest import Gate
from tests.gateway.test_internal_errors import WORDS, breaks, here
from toolkit.gateway.key_cache import KeyCache

__all__ = ["here"]  # a fixture

pytestmark = pytest.mark.world


def ask_openai(gate: Gate) -> openai.APIStatusError:
    """Ask through OpenAI's SDK; return what it raises."""
    with gate.openai() as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": "hello"}])
    assert caught.value.code == "internal_error"
    assert caught.value.request_id == caught.value.body["request_id"]  # type: ignore[index]
    return caught.value


def ask_anthropic(gate: Gate) -> anthropic.APIStatusError:
    """Ask through Anthropic's SDK; return what it raises."""
    with gate.anthropic() as client, pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "hello"}])
    assert caught.value.body["error"]["type"] == "api_error"  # type: ignore[index]
    assert caught.value.request_id
    return caught.value


def ask_google(gate: Gate) -> errors.ServerError:
    """Ask through Google's SDK; return what it raises."""
    with gate.genai() as client, pytest.raises(errors.ServerError) as caught:
        client.models.generate_content(model="gemini-test", contents="hello")
    assert (caught.value.code, caught.value.status) == (500, "INTERNAL")
    return caught.value


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic, ask_google])
def test_sdks_raise_their_internal_server_error_with_our_message(
    here: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ask: Callable[[Gate], Exception]
) -> None:
    """Something breaks before a call is admitted: nothing is held, nothing is charged."""
    breaks(monkeypatch, KeyCache, "key")
    assert WORDS in str(ask(here))
    assert (here.rows(), here.totals()) == ([], (0, 0))
    wait_until(lambda: "ZeroDivisionError" in caplog.text, "the traceback, which is logged after the answer")
    assert caplog.text.count("ZeroDivisionError: what nobody expects") == 1
