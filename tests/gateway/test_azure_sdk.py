"""OpenAI's SDK works through the gateway as it does with Azure: its own client, changed in address and key."""

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.gateway.conftest import Gate

pytestmark = pytest.mark.world

VERSION = "2026-01-01-preview"


@pytest.fixture
def azure(gate: Gate) -> Iterator[openai.AzureOpenAI]:
    """Azure's client of a key."""
    with openai.AzureOpenAI(azure_endpoint=gate.url, api_key=gate.secret, api_version=VERSION, max_retries=0) as client:
        yield client


def test_chat_and_its_stream(gate: Gate, azure: openai.AzureOpenAI) -> None:
    """The deployment is the model."""
    plain = azure.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": "Budgets?"}])
    with azure.chat.completions.create(
        model="gpt-test", messages=[{"role": "user", "content": "Budgets?"}], stream=True
    ) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == plain.choices[0].message.content
    assert [(row.model, row.outcome) for row in gate.rows()] == [("gpt-test", "completed")] * 2


def test_responses_embeddings_and_models(gate: Gate, azure: openai.AzureOpenAI) -> None:
    """Whether the client puts the deployment into the path or not."""
    assert azure.responses.create(model="gpt-test", input="Budgets?").output_text
    with azure.responses.stream(model="gpt-test", input="Budgets?") as stream:
        assert stream.until_done().get_final_response().output_text
    assert azure.embeddings.create(model="embed-test", input="one").data[0].embedding
    assert "gpt-test" in [model.id for model in azure.models.list()]
    assert [row.endpoint for row in gate.rows()] == ["responses", "responses", "embeddings"]


def test_a_client_of_one_deployment(gate: Gate) -> None:
    """Its calls go to that deployment, whatever model they name."""
    with openai.AzureOpenAI(
        azure_endpoint=gate.url, azure_deployment="gpt-test", api_key=gate.secret, api_version=VERSION
    ) as client:
        assert client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Budgets?"}])
    assert gate.row().model == "gpt-test"


def test_a_token_and_an_async_client(gate: Gate) -> None:
    """A token of Entra goes as a Bearer: that is where the key is then."""

    async def ask() -> str | None:
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=gate.url, azure_ad_token=gate.secret, api_version=VERSION
        ) as client:
            answer = await client.chat.completions.create(
                model="gpt-test", messages=[{"role": "user", "content": "Budgets?"}]
            )
            return answer.choices[0].message.content

    assert asyncio.run(ask())


def test_errors_are_the_sdks_own(azure: openai.AzureOpenAI) -> None:
    """With our words."""
    with pytest.raises(openai.NotFoundError, match="There is no model 'nobody' here"):
        azure.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Budgets?"}])


def test_the_new_base_url(gate: Gate) -> None:
    """Azure's newest API is OpenAI's own client with a base URL that ends with /openai/v1/."""
    with openai.OpenAI(base_url=f"{gate.url}/openai/v1/", api_key=gate.secret) as client:
        assert client.responses.create(model="gpt-test", input="Budgets?").output_text
        assert client.models.retrieve("gpt-test").id == "gpt-test"
