"""Every field, tool and beta that the official SDKs know is known here."""

from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

import anthropic.types.beta as anthropic_beta
import anthropic.types.beta.message_count_tokens_params as count_tokens_params
import anthropic.types.beta.message_create_params as beta_message_params
import anthropic.types.message_create_params as message_params
import openai.types.chat.completion_create_params as chat_params
import openai.types.responses.response_create_params as response_params
import pytest
from anthropic.types.anthropic_beta_param import AnthropicBetaParam
from anthropic.types.beta.beta_content_block_param import BetaContentBlockParam
from google.genai import types as genai_types
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.chat.chat_completion_tool_union_param import ChatCompletionToolUnionParam
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.response_compact_params import ResponseCompactParams
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.tool_param import ToolParam
from openai.types.shared_params import Reasoning

from toolkit.dialects import anthropic, anthropic_fields, gemini, gemini_fields, openai, openai_fields
from toolkit.dialects.fields import Fields, Kinds, undated

pytestmark = pytest.mark.world


# -- the SDKs' own definitions ----------------------------------------------------------------------------------------


def names_of(definition: Any) -> set[str]:
    """Return the field names of a TypedDict."""
    return set(get_type_hints(definition))


def types_of(definition: Any) -> list[str]:
    """Return the values that a TypedDict's `type` may have; those of optional ones too."""
    found: list[str] = []
    waiting = [get_type_hints(definition).get("type")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found.append(part)
        waiting += get_args(part)
    return found


OF_THE_SDK = {"httpOptions", "shouldReturnHttpResponse", "automaticFunctionCalling", "automaticContinuation"}
"""Settings of Google's SDK that never reach the wire."""

DEFINED: list[tuple[str, Fields, Iterable[Any]]] = [
    (
        "openai chat",
        openai_fields.BODIES[openai_fields.CHAT],
        [chat_params.CompletionCreateParamsNonStreaming, chat_params.CompletionCreateParamsStreaming],
    ),
    (
        "openai responses",
        openai_fields.BODIES[openai_fields.RESPONSES],
        [response_params.ResponseCreateParamsNonStreaming, response_params.ResponseCreateParamsStreaming],
    ),
    ("openai compaction", openai_fields.BODIES[openai_fields.COMPACTION], [ResponseCompactParams]),
    ("openai embeddings", openai_fields.BODIES[openai_fields.EMBEDDINGS], [EmbeddingCreateParams]),
    (
        "anthropic messages",
        anthropic_fields.BODY,
        [
            message_params.MessageCreateParamsStreaming,
            beta_message_params.MessageCreateParamsStreaming,
            beta_message_params.MessageCreateParamsNonStreaming,
            count_tokens_params.MessageCountTokensParams,
        ],
    ),
]


@pytest.mark.parametrize(("table", "definitions"), [row[1:] for row in DEFINED], ids=[row[0] for row in DEFINED])
def test_every_field_of_the_sdks_bodies_is_known(table: Fields, definitions: Iterable[Any]) -> None:
    """An upgrade of an SDK shows here which fields are new: give each a row with its effect."""
    for definition in definitions:
        assert names_of(definition) <= table.names


def inside(table: Fields, name: str) -> Fields:
    """Return the table of a nested object."""
    nested = table.rows[name].inside
    assert isinstance(nested, Fields)
    return nested


def test_every_field_of_the_sdks_nested_objects_is_known() -> None:
    """Those objects that carry prices or bounds."""
    chat_table, responses_table = (openai_fields.BODIES[name] for name in (openai_fields.CHAT, openai_fields.RESPONSES))
    body = anthropic_fields.BODY
    for table, definition in (
        (inside(chat_table, "stream_options"), ChatCompletionStreamOptionsParam),
        (inside(responses_table, "stream_options"), response_params.StreamOptions),
        (inside(chat_table, "prompt_cache_options"), chat_params.PromptCacheOptions),
        (inside(responses_table, "prompt_cache_options"), response_params.PromptCacheOptions),
        (inside(responses_table, "reasoning"), Reasoning),
        (inside(responses_table, "image"), response_params.Image),
        (inside(body, "cache_control"), anthropic_beta.BetaCacheControlEphemeralParam),
        (inside(body, "output_config"), anthropic_beta.BetaOutputConfigParam),
        (inside(body, "context_management"), anthropic_beta.BetaContextManagementConfigParam),
        (inside(body, "diagnostics"), anthropic_beta.BetaDiagnosticsParam),
        *((inside(body, "thinking"), one) for one in get_args(anthropic_beta.BetaThinkingConfigParam)),
    ):
        assert names_of(definition) <= table.names, definition


@pytest.mark.parametrize(
    ("kinds", "definitions"),
    [
        (openai_fields.TOOLS, get_args(ToolParam)),
        (openai_fields.TOOLS, get_args(ChatCompletionToolUnionParam)),
        (anthropic_fields.TOOLS, get_args(anthropic_beta.BetaToolUnionParam)),
    ],
    ids=["responses", "chat", "messages"],
)
def test_every_tool_of_the_sdks_is_known(kinds: Kinds, definitions: tuple[Any, ...]) -> None:
    """By type; the caller's own tools with all their fields, so that none is unknown."""
    for definition in definitions:
        for kind in types_of(definition):
            row = kinds.row(kind)
            assert row is not kinds.others, kind
            if not row.refused:
                assert isinstance(row.inside, Fields)
                assert names_of(definition) <= row.inside.names, kind


def test_every_beta_of_the_sdk_is_known() -> None:
    """The list that Anthropic's SDK has for its header."""
    listed = [value for part in get_args(AnthropicBetaParam) for value in get_args(part)]
    assert len(listed) > 20
    assert [beta for beta in listed if undated(beta) not in anthropic_fields.BETAS] == []


def test_every_field_of_gemini_is_known() -> None:
    """Google's SDK has pydantic models with the wire's own spelling."""

    def wire(model: Any) -> set[str]:
        return {field.alias or name for name, field in model.model_fields.items()}

    assert wire(genai_types.GenerationConfig) <= gemini_fields.CONFIG.names
    known = gemini_fields.CONFIG.names | gemini_fields.BODY.names
    assert wire(genai_types.GenerateContentConfig) - OF_THE_SDK <= known
    assert wire(genai_types.EmbedContentConfig) - OF_THE_SDK <= gemini_fields.BODY.names
    assert wire(genai_types.Tool) <= gemini_fields.TOOL.names
    assert wire(genai_types.ToolConfig) <= inside(gemini_fields.BODY, "toolConfig").names
    assert wire(genai_types.ThinkingConfig) <= inside(gemini_fields.CONFIG, "thinkingConfig").names


# -- what is sent back ------------------------------------------------------------------------------------------------


def test_every_item_of_the_sdks_input_is_read_or_said_as_text() -> None:
    """OpenAI's, but for those that refer to what the provider keeps."""
    elsewhere = {"item_reference"}
    kinds = {kind for definition in get_args(ResponseInputItemParam) for kind in types_of(definition)} - elsewhere
    assert len(kinds) > 25
    for kind in kinds:
        body = {"input": [{"type": kind, "role": "user", "content": "x", "encrypted_content": "x"}]}
        changed, told = openai.with_hosted_items_as_text(openai_fields.RESPONSES, body)
        openai.inspect(openai_fields.RESPONSES, {"model": "m", **changed}, 100, None)
        assert told or changed is body


def test_every_block_of_the_sdks_messages_is_read_or_said_as_text() -> None:
    """Anthropic's, but for those that refer to what the provider keeps."""
    elsewhere = {"container_upload", "compaction"}
    definitions = [one for one in get_args(BetaContentBlockParam) if isinstance(one, type)]
    kinds = {kind for definition in definitions for kind in types_of(definition)} - elsewhere
    assert len(kinds) > 20
    source = {"source": {"type": "url", "url": "https://example.com"}, "tool": {"type": "tool_reference"}}
    for kind in kinds:
        body = {"messages": [{"role": "user", "content": [{"type": kind, "content": "x", **source}]}]}
        changed, _ = anthropic.with_hosted_items_as_text("messages", body)
        anthropic.inspect("messages", {"model": "m", "max_tokens": 1, **changed}, 100, None)


def test_every_part_of_geminis_that_is_refused_is_said_as_text() -> None:
    """But for a file that the provider keeps."""
    names = {field.alias or name for name, field in genai_types.Part.model_fields.items()}
    assert gemini_fields.PART.names >= {"executableCode", "toolCall"}
    for name in names - {"fileData"}:
        body = {"contents": [{"parts": [{name: {"a": "b"}}]}]}
        changed, _ = gemini.with_hosted_items_as_text("generateContent", body)
        gemini.inspect("generateContent", changed, 100, "m")
