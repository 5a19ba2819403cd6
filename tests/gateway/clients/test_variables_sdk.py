"""The lines that are shown with a new key are all that the official SDKs need."""

import anthropic
import openai
import pytest
from google import genai

from tests.gateway.conftest import Gate
from toolkit.admin import client_settings

pytestmark = pytest.mark.world


@pytest.fixture
def pasted(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A key whose lines have been pasted into the shell that runs the test."""
    for name in ("ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with gate.workspace.read() as tx:
        models = client_settings.callable_models(tx, gate.key.key)
    for line in client_settings.exports(models, gate.url, gate.secret).splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        monkeypatch.setenv(name, value)
    return gate


def test_openai(pasted: Gate) -> None:
    """OpenAI's SDK, without an argument."""
    with openai.OpenAI() as client:
        assert client.responses.create(model="gpt-test", input="Budgets?").output_text
    assert pasted.row().status == 200


def test_anthropic(pasted: Gate) -> None:
    """Anthropic's SDK, without an argument."""
    with anthropic.Anthropic() as client:
        asked = [{"role": "user", "content": "Budgets?"}]
        assert client.messages.create(model="claude-test", max_tokens=100, messages=asked).content  # type: ignore[arg-type]
    assert pasted.row().status == 200


def test_google(pasted: Gate) -> None:
    """Google's SDK, without an argument."""
    with genai.Client() as client:
        assert client.models.generate_content(model="gemini-test", contents="Budgets?").text
    assert pasted.row().status == 200
