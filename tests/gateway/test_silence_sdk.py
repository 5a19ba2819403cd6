"""Signs of life do not disturb the official SDKs."""

import threading
from functools import partial

import pytest

from tests.conftest import Running
from tests.gateway.conftest import Gate, Script, dialect_of, make_gate, raw_upstream
from tests.gateway.test_odd_answers import STREAMS
from tests.gateway.test_silence import HEAD, PATIENCE, Listener, nervous

__all__ = ["nervous"]  # a fixture

pytestmark = pytest.mark.world


@pytest.fixture
def gate(nervous: Running) -> Gate:
    """A fresh key at the nervous gateway."""
    return make_gate(nervous)


def silence_of(gate: Gate) -> None:
    """Wait until the gateway has given two signs of life to another stream."""
    go_on = threading.Event()
    script: Script = [HEAD, STREAMS["chat"][0], partial(go_on.wait, PATIENCE), *STREAMS["chat"][1:]]
    Listener(gate, script, "chat").hear(b": still at work\n" * 2, go_on)


@pytest.mark.parametrize("kind", ["chat", "responses", "messages", "generate"])
@pytest.mark.parametrize("before", [0, 1])
def test_sdks_read_over_signs_of_life(gate: Gate, kind: str, before: int) -> None:
    """Before the first event, and between two: the text arrives whole."""
    pieces = STREAMS[kind] if kind != "generate" else STREAMS[kind] * 2
    script: Script = [HEAD, *pieces[:before], partial(silence_of, gate), *pieces[before:]]
    with raw_upstream(script) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        told, model = behind.gate, behind.model
        if kind == "chat":
            with told.openai() as client:
                stream = client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "hi"}], stream=True
                )
                said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        elif kind == "responses":
            with told.openai() as client:
                events = client.responses.create(model=model, input="hi", stream=True)
                said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        elif kind == "messages":
            with told.anthropic() as claude:
                message = claude.messages.create(
                    model=model, max_tokens=10, messages=[{"role": "user", "content": "hi"}], stream=True
                )
                said = "".join(event.delta.text for event in message if event.type == "content_block_delta")  # type: ignore[union-attr]
        else:
            with told.genai() as google:
                parts = google.models.generate_content_stream(model=model, contents="hi")
                said = "".join(part.text or "" for part in parts)
    assert said == "hello" * (2 if kind == "generate" else 1)
    assert behind.gate.row().outcome == "completed"
