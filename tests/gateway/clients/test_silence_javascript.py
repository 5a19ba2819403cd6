"""Signs of life do not disturb the JavaScript SDKs."""

from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Running
from tests.gateway.clients.conftest import INSTALLED, Desk
from tests.gateway.conftest import Script, dialect_of, make_gate, raw_upstream
from tests.gateway.test_odd_answers import STREAMS
from tests.gateway.test_silence import HEAD, nervous
from tests.gateway.test_silence_sdk import silence_of

__all__ = ["nervous"]  # a fixture

pytestmark = pytest.mark.world

SCRIPT = Path(__file__).with_name("read_stream.mjs")
SDKS = {
    "openai chat": "chat",
    "openai responses": "responses",
    "@anthropic-ai/sdk": "messages",
    "@google/genai": "generate",
    "ai": "chat",
}


@pytest.mark.parametrize("sdk", SDKS)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_sdks_read_over_signs_of_life(nervous: Running, tmp_path: Path, sdk: str, before: int) -> None:
    """Before the first event, and between two: the text arrives whole."""
    kind = SDKS[sdk]
    pieces = STREAMS[kind] * 2 if kind == "generate" else STREAMS[kind]
    gate = make_gate(nervous)
    script: Script = [HEAD, *pieces[:before], partial(silence_of, gate), *pieces[before:]]
    with raw_upstream(script) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        desk = Desk(behind.gate, tmp_path, tmp_path)
        command = ["node", "--input-type=module", "-", sdk, gate.url, behind.gate.secret, behind.model]
        ended = desk.run(*command, folder=INSTALLED.parent, typed=SCRIPT.read_text())
    assert ended.status == 0, ended.errors
    assert ended.output == ("hellohello\n" if kind == "generate" else "hello\n")
