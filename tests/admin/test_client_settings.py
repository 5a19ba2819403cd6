"""What is shown with a new key, to be pasted."""

import pytest

from tests.conftest import World
from toolkit.admin import client_settings

pytestmark = pytest.mark.any_store
BASE = "http://127.0.0.1:8080"


def test_the_variables_are_those_of_the_dialects_that_the_key_may_call(world: World) -> None:
    """All three without a scope; with one, those that its models speak, and the first call goes to one of them."""
    everything, scoped = world.key("everything"), world.key("scoped", models=["claude-test"])
    with world.workspace.read() as tx:
        models = client_settings.callable_models(tx, everything.key)
        assert client_settings.exports(models, BASE, "sk-x") == (
            f"export OPENAI_BASE_URL={BASE}/v1\nexport OPENAI_API_KEY=sk-x\n"
            f"export ANTHROPIC_BASE_URL={BASE}\nexport ANTHROPIC_AUTH_TOKEN=sk-x\n"
            f"export GOOGLE_GEMINI_BASE_URL={BASE}\nexport GEMINI_API_KEY=sk-x"
        )
        models = client_settings.callable_models(tx, scoped.key)
        assert [model.id for model in models] == ["claude-test"]
        assert client_settings.exports(models, BASE, "sk-x").count("export") == 2
        call = client_settings.first_call(tx, models, BASE, "sk-x")
    assert call is not None
    assert call.startswith(f"curl {BASE}/v1/messages \\\n  -H 'x-api-key: sk-x'")


def test_there_is_no_first_call_without_a_chat_model(world: World) -> None:
    """A key of embeddings has its variables, and nothing to chat with; one without models has neither."""
    embeds = world.key("embeds", models=["embed-test"])
    with world.workspace.read() as tx:
        models = client_settings.callable_models(tx, embeds.key)
        assert client_settings.exports(models, BASE, "sk-x").count("export") == 2
        assert client_settings.first_call(tx, models, BASE, "sk-x") is None
    assert client_settings.exports([], BASE, "sk-x") == ""
