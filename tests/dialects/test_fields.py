"""Fields of requests: what a row does, what becomes of the unknown, and that the SDKs' own names are all known."""

import json
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dialects.test_media import mp4, text, wav
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.strictness import stricter
from toolkit.core.unknown_fields import UnknownFields
from toolkit.dialects import MODULES, anthropic_fields, gemini_fields, headers, openai_fields
from toolkit.dialects.fields import MOST_UNKNOWN, Effect, Field, Fields, Kinds, covered, plain, refused
from toolkit.dialects.headers import BETAS, KNOWN, read, read_betas
from toolkit.dialects.shape import Shape

TABLE = Fields(
    plain("temperature", "kind"),
    covered(Effect.PRICE, "decides the price", "model", "stream", "think"),
    refused(Effect.STATE, "because", "store", allowed=(False,)),
    {"options": Field(Effect.NONE, inside=Fields(plain("seed"), refused(Effect.PRICE, "dear", "tier")))},
)


def checked(table: Fields, obj: dict[str, Any]) -> list[str]:
    """Return the unknown names that a table notes."""
    unknown: list[str] = []
    table.check(obj, "", unknown)
    return unknown


# -- what a row does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["Model", "MODEL", "ſtream", "thin\u212a"])
def test_name_in_other_case_is_refused(key: str) -> None:
    """A name that another reader could take for one with an effect is refused, Unicode's look-alikes included."""
    with pytest.raises(Refusal) as caught:
        checked(TABLE, {key: 1})
    assert (caught.value.type, caught.value.param) == (RefusalType.INVALID_REQUEST, key)
    assert checked(TABLE, {"model": 1, "temperature": 1}) == []


def test_refused_row_lets_harmless_values_pass() -> None:
    """Null, empty and expressly allowed values pass; 0 is not false and anything else is unsupported."""
    harmless: list[object] = [None, [], {}, False]
    for value in harmless:
        assert checked(TABLE, {"store": value}) == []
    asking: list[object] = [True, 0, "false", [1]]
    for value in asking:
        with pytest.raises(Refusal) as caught:
            TABLE.check({"store": value}, "config", [])
        assert caught.value.type is RefusalType.UNSUPPORTED_FEATURE
        assert caught.value.param == "config.store"
        assert "because" in caught.value.message


def test_nested_field_is_refused_by_its_path() -> None:
    """What a table has inside an object, or inside each object of an array, is judged as well."""
    for value, param in (({"tier": 1}, "options.tier"), ([{}, {"tier": 1}], "options[1].tier")):
        with pytest.raises(Refusal) as caught:
            checked(TABLE, {"options": value})
        assert caught.value.param == param


def test_what_comes_first_in_the_table_is_what_the_refusal_names() -> None:
    """So the same request gets the same refusal, in whichever order its fields stand."""
    table = Fields(refused(Effect.STATE, "a", "one"), refused(Effect.STATE, "b", "two"))
    for body in ({"one": 1, "two": 1}, {"two": 1, "one": 1}):
        with pytest.raises(Refusal) as caught:
            checked(table, body)
        assert caught.value.param == "one"


# -- the unknown ------------------------------------------------------------------------------------------------------


def test_unknown_names_are_noted_by_their_path() -> None:
    """Places in an array are one name, and the body's order is kept."""
    body = {"later": 1, "options": [{"seed": 1, "fooBar": 2}, {"fooBar": 3}], "temperature": 1}
    assert checked(TABLE, body) == ["later", "options[*].fooBar"]


def test_strip_leaves_out_what_check_notes_and_no_more() -> None:
    """The caller's own body is not changed; a body without unknown names is the same object."""
    body = {"later": 1, "options": [{"seed": 1, "fooBar": 2}, {"seed": 3}], "model": "m"}
    assert TABLE.strip(body) == {"options": [{"seed": 1}, {"seed": 3}], "model": "m"}
    assert body["later"] == 1
    known = {"model": "m", "options": {"seed": 1}}
    assert TABLE.strip(known) is known


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda v: st.lists(v, max_size=3)
)


@given(
    st.dictionaries(
        st.sampled_from(["temperature", "kind", "x", "y"]) | st.text(max_size=6),
        _VALUES | st.dictionaries(st.text(max_size=4), _VALUES, max_size=3),
        max_size=6,
    ),
    st.dictionaries(st.sampled_from(["seed", "x", "Seed"]), _VALUES, max_size=3),
)
def test_nothing_unknown_is_left_after_strip(body: dict[str, Any], options: dict[str, Any]) -> None:
    """For any body that is not refused: all known values stay as they are, and nothing else does."""
    body = {**body, "options": options}
    try:
        unknown = checked(TABLE, body)
    except Refusal:
        return
    left = TABLE.strip(body)
    assert checked(TABLE, left) == []
    assert (left is body) == (not unknown)
    assert {name: left[name] for name in left if name != "options"} == {
        name: value for name, value in body.items() if name in TABLE.names and name != "options"
    }


def test_unknown_names_of_one_request_have_an_end() -> None:
    """Ten thousand made-up names cost no more memory than a hundred, and each is cut."""
    unknown = checked(TABLE, {f"{number:05}{'x' * 100}": 1 for number in range(10_000)})
    assert len(unknown) == MOST_UNKNOWN
    assert {len(name) for name in unknown} == {64}


def test_stricter_wins() -> None:
    """Refuse over leave out over pass."""
    passes, leaves, refuses = UnknownFields.PASS, UnknownFields.LEAVE_OUT, UnknownFields.REFUSE
    assert stricter(passes, leaves) is stricter(leaves, passes) is leaves
    assert stricter(refuses, leaves) is stricter(passes, refuses) is refuses


# -- what each dialect does with them ---------------------------------------------------------------------------------

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> Shape:
    """Inspect a chat completion."""
    body = {"model": "m", "messages": HELLO, **fields}
    return MODULES[Dialect.OPENAI].inspect("chat/completions", body, 100, None)


def responses(**fields: Any) -> Shape:
    """Inspect a response."""
    return MODULES[Dialect.OPENAI].inspect("responses", {"model": "m", "input": "hello", **fields}, 100, None)


def embeddings(**fields: Any) -> Shape:
    """Inspect a request for embeddings."""
    return MODULES[Dialect.OPENAI].inspect("embeddings", {"model": "m", "input": "hello", **fields}, 100, None)


def messages(**fields: Any) -> Shape:
    """Inspect a message."""
    body = {"model": "m", "max_tokens": 5, "messages": HELLO, **fields}
    return MODULES[Dialect.ANTHROPIC].inspect("messages", body, 100, None)


def generate(**fields: Any) -> Shape:
    """Inspect a Gemini request."""
    body = {"contents": [{"parts": [{"text": "hello"}]}], **fields}
    return MODULES[Dialect.GEMINI].inspect("generateContent", body, 100, "m")


WAVE, VIDEO = text(wav(1)), text(mp4(1, sound=True))


def said(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return messages, or items, of one part."""
    return [{"role": "user", "content": [part]}]


REFUSED = [
    (
        chat,
        {"messages": said({"type": "file", "file": {"file_data": f"data:audio/wav;base64,{WAVE}"}})},
        "messages[0].content[0].file.file_data",
    ),
    (
        chat,
        {"messages": said({"type": "image_url", "image_url": {"url": f"data:video/mp4;base64,{VIDEO}"}})},
        "messages[0].content[0].image_url",
    ),
    (responses, {"input": said({"type": "input_file", "file_data": VIDEO})}, "input[0].content[0].file_data"),
    (
        messages,
        {
            "messages": said(
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": WAVE}}
            )
        },
        "messages[0].content[0].source.data",
    ),
    (chat, {"extra_body": {"service_tier": "flex"}}, "extra_body.service_tier"),
    (chat, {"extra_body": {"max_tokens": 10**6}}, "extra_body.max_tokens"),
    (chat, {"extra_body": {"n": 4}}, "extra_body.n"),
    (chat, {"extra_body": {"model": "dearer"}}, "extra_body.model"),
    (chat, {"extra_body": {"extra_body": {"n": 4}}}, "extra_body.extra_body"),
    (chat, {"extra_body": {"reasoning": {"mode": "pro"}}}, "extra_body.reasoning.mode"),
    (chat, {"extra_body": {"chat_template": "{% for i in range(99999) %}"}}, "extra_body.chat_template"),
    (chat, {"web_search_options": {}}, "web_search_options"),
    (chat, {"search_parameters": {}}, "search_parameters"),
    (chat, {"enable_search": True}, "enable_search"),
    (chat, {"models": ["a", "b"]}, "models"),
    (chat, {"provider": {"order": ["x"]}}, "provider"),
    (chat, {"data_sources": [{"type": "azure_search"}]}, "data_sources"),
    (chat, {"extra_headers": {"anthropic-beta": "context-1m-2025-08-07"}}, "extra_headers"),
    (chat, {"kv_transfer_params": {"remote_host": "x"}}, "kv_transfer_params"),
    (chat, {"api_base": "https://example.com"}, "api_base"),
    (chat, {"extra_body": {"google": {"cached_content": "cachedContents/1"}}}, "extra_body.google.cached_content"),
    (chat, {"anthropic_beta": ["context-1m-2025-08-07"]}, "anthropic_beta"),
    (chat, {"mcp_servers": [{"url": "https://example.com"}]}, "mcp_servers"),
    (chat, {"num_retries": 3}, "num_retries"),
    (chat, {"n_cmpl": 3}, "n_cmpl"),
    (
        messages,
        {"messages": [{"role": "user", "content": "x", "tools": [{"type": "web_search"}]}]},
        "messages[0].tools",
    ),
    (responses, {"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    (responses, {"extra_body": {"background": True}}, "extra_body.background"),
    (responses, {"extra_body": {"max_output_tokens": 5}}, "extra_body.max_output_tokens"),
    (responses, {"fallbacks": ["a"]}, "fallbacks"),
    (embeddings, {"extra_body": {"model": "dearer"}}, "extra_body.model"),
    (messages, {"extra_body": {"speed": "fast"}}, "extra_body.speed"),
    (messages, {"extra_body": {"max_tokens": 5}}, "extra_body.max_tokens"),
    (messages, {"workspace_id": "wrkspc_1"}, "workspace_id"),
    (messages, {"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits[0].type"),
    (generate, {"generationConfig": {"modelSelectionConfig": {"a": "b"}}}, "generationConfig.modelSelectionConfig"),
    (generate, {"generationConfig": {"speechConfig": {"languageCode": "en"}}}, "generationConfig.speechConfig"),
    (generate, {"generateContentRequest": {"cachedContent": "x"}}, "generateContentRequest.cachedContent"),
    (
        messages,
        {
            "messages": [
                {
                    "role": "system",
                    "content": [
                        {
                            "type": "tool_addition",
                            "tool": {"type": "tool_definition", "definition": {"type": "web_search_20250305"}},
                        }
                    ],
                }
            ]
        },
        "messages[0].content[0].tool.definition.type",
    ),
]


@pytest.mark.parametrize(("inspect", "fields", "param"), REFUSED, ids=[param for _, _, param in REFUSED])
def test_what_changes_price_or_crosses_tenants_is_refused_also_where_it_is_nested(
    inspect: typing.Callable[..., Shape], fields: dict[str, Any], param: str
) -> None:
    """Also under `extra_body`, which some servers merge into the body."""
    with pytest.raises(Refusal) as caught:
        inspect(**fields)
    assert (caught.value.type, caught.value.param) == (RefusalType.UNSUPPORTED_FEATURE, param)


OTHER_CASE: list[tuple[typing.Callable[..., Shape], dict[str, Any], str]] = [
    (chat, {"tools": [{"type": "function", "Type": "web_search", "function": {"name": "f"}}]}, "tools[0].Type"),
    (chat, {"messages": [{"role": "user", "content": "x", "Content": [{"type": "file"}]}]}, "messages[0].Content"),
    (
        chat,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "Type": "image_url"}]}]},
        "messages[0].content[0].Type",
    ),
    (responses, {"input": [{"role": "user", "content": "x", "Type": "item_reference"}]}, "input[0].Type"),
    (messages, {"messages": [{"role": "user", "content": "x", "CONTENT": []}]}, "messages[0].CONTENT"),
    (
        messages,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "Source": {}}]}]},
        "messages[0].content[0].Source",
    ),
    (chat, {"extra_body": {"Service_Tier": "flex"}}, "extra_body.Service_Tier"),
    (chat, {"Stream_Options": {"include_usage": False}}, "Stream_Options"),
    (chat, {"Extra_Body": {"n": 3}}, "Extra_Body"),
    (responses, {"reasoning": {"Mode": "pro"}}, "reasoning.Mode"),
    (messages, {"Thinking": {"type": "enabled"}}, "Thinking"),
    (generate, {"generationConfig": {"speechconfig": {}}}, "generationConfig.speechconfig"),
    (generate, {"generationConfig": {"Speech_Config": {}}}, "generationConfig.Speech_Config"),
]


@pytest.mark.parametrize(("inspect", "fields", "param"), OTHER_CASE, ids=[param for _, _, param in OTHER_CASE])
def test_nested_name_in_other_case_is_refused(
    inspect: typing.Callable[..., Shape], fields: dict[str, Any], param: str
) -> None:
    """Some readers match names without regard to case, nested ones too."""
    with pytest.raises(Refusal) as caught:
        inspect(**fields)
    assert (caught.value.type, caught.value.param) == (RefusalType.INVALID_REQUEST, param)


UNKNOWN = [
    (chat, {"fooBar": 1, "reasoning": {"bar": 1}}, ("fooBar", "reasoning.bar")),
    (chat, {"tools": [{"type": "function", "function": {"name": "f", "new": 1}}]}, ("tools[*].function.new",)),
    (chat, {"tools": [{"type": "function", "new": 1, "function": {"name": "f"}}]}, ("tools[*].new",)),
    (chat, {"stream_options": {"new": 1}, "extra_body": {"foo": 1}}, ("stream_options.new", "extra_body.foo")),
    (responses, {"fooBar": None, "text": {"format": {}}}, ("fooBar",)),
    (embeddings, {"fooBar": 1}, ("fooBar",)),
    (messages, {"thinking": {"type": "adaptive", "new": 1}}, ("thinking.new",)),
    (messages, {"tools": [{"name": "f", "input_schema": {}, "new": 1}]}, ("tools[*].new",)),
    (messages, {"tools": [{"type": "bash_20250124", "name": "bash", "new": 1}]}, ("tools[*].new",)),
    (
        messages,
        {"anthropic_beta": ["effort-2025-11-24", "tomorrow-2027-01-01"]},
        ("anthropic_beta=tomorrow-2027-01-01",),
    ),
    (generate, {"generationConfig": {"fooBar": 1}}, ("generationConfig.fooBar",)),
    (generate, {"generation_config": {"thinking_config": {"a": 1}}}, ("generation_config.thinking_config.a",)),
]


@pytest.mark.parametrize(("inspect", "fields", "names"), UNKNOWN, ids=[",".join(names) for _, _, names in UNKNOWN])
def test_unknown_fields_of_a_request_are_in_its_shape(
    inspect: typing.Callable[..., Shape], fields: dict[str, Any], names: tuple[str, ...]
) -> None:
    """At the top and in the nested objects of the table, with the path as name."""
    assert inspect(**fields).unknown == names


@pytest.mark.parametrize(
    ("dialect", "endpoint", "body", "left"),
    [
        (
            Dialect.OPENAI,
            "chat/completions",
            {"model": "m", "x": 1, "max_tokens": 5, "tools": [{"type": "function", "function": {"name": "f", "y": 1}}]},
            {"model": "m", "max_tokens": 5, "tools": [{"type": "function", "function": {"name": "f"}}]},
        ),
        (Dialect.OPENAI, "responses", {"model": "m", "x": 1, "store": False}, {"model": "m", "store": False}),
        (Dialect.OPENAI, "embeddings", {"model": "m", "x": 1}, {"model": "m"}),
        (
            Dialect.ANTHROPIC,
            "messages",
            {"model": "m", "x": 1, "anthropic_beta": ["effort-2025-11-24", "new-2027-01-01"], "thinking": {"z": 1}},
            {"model": "m", "anthropic_beta": ["effort-2025-11-24"], "thinking": {}},
        ),
        (
            Dialect.GEMINI,
            "generateContent",
            {"x": 1, "generationConfig": {"topP": 1, "foo": 2}},
            {"generationConfig": {"topP": 1}},
        ),
        (
            Dialect.GEMINI,
            "batchEmbedContents",
            {"requests": [{"content": {}, "foo": 2}, {"content": {}}]},
            {"requests": [{"content": {}}, {"content": {}}]},
        ),
    ],
)
def test_rewrite_leaves_the_unknown_out(
    dialect: Dialect, endpoint: str, body: dict[str, Any], left: dict[str, Any]
) -> None:
    """What goes on is the body without them; without the wish it goes on as it came."""
    rewrite = MODULES[dialect].rewrite
    options: dict[str, Any] = {"upstream_model": "m", "output_bound": None, "include_usage": False}
    assert rewrite(endpoint, body, leave_out_unknown=True, **options) == left
    assert rewrite(endpoint, body, **options) is None


CLIENTS = [
    # Codex on Responses; Claude Code; LangChain; Vercel AI SDK; local servers' options.
    (
        responses,
        {
            "instructions": "x",
            "tools": [
                {"type": "function", "name": "shell", "strict": False, "parameters": {}},
                {"type": "custom", "name": "apply_patch", "description": "x", "format": {"type": "grammar"}},
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "store": False,
            "stream": True,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "x",
            "text": {"verbosity": "low"},
            "client_metadata": {"x": "y"},
        },
    ),
    (
        messages,
        {
            "system": [
                {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h", "scope": "global"}}
            ],
            "tools": [{"name": "Bash", "description": "x", "input_schema": {}, "eager_input_streaming": True}],
            "metadata": {"user_id": "{}"},
            "thinking": {"type": "adaptive", "display": "summarized"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high"},
            "stream": True,
        },
    ),
    (
        chat,
        {
            "temperature": 0.7,
            "n": 1,
            "stream_options": {"include_usage": True},
            "reasoning_effort": "low",
            "response_format": {"type": "json_object"},
            "user": "u",
        },
    ),
    (
        chat,
        {
            "top_k": 20,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
            "chat_template_kwargs": {"enable_thinking": False},
            "guided_json": {"type": "object"},
            "structured_outputs": {"json": {}},
            "separate_reasoning": True,
            "cache_prompt": True,
            "id_slot": 1,
            "keep_alive": "5m",
            "options": {"num_ctx": 4096, "temperature": 0.1, "num_predict": 64},
            "think": True,
            "extra_body": {"top_k": 20, "reasoning": {"effort": "low"}},
        },
    ),
    (
        generate,
        {
            "systemInstruction": {"parts": [{"text": "x"}]},
            "safetySettings": [{"category": "a", "threshold": "b"}],
            "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
            "tools": [{"functionDeclarations": [{"name": "f"}]}],
            "generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}, "mediaResolution": "MEDIA_RESOLUTION_LOW"},
        },
    ),
    # What has become of Codex's longer contexts.
    (
        responses,
        {
            "input": [
                {"type": kind, "encrypted_content": "x"}
                for kind in ("compaction", "compaction_summary", "context_compaction")
            ]
        },
    ),
    # Mistral's reasoning, sent back; a search that is off at xAI; tools that come and go at Anthropic.
    (
        chat,
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}],
                    "prefix": False,
                }
            ],
            "search_parameters": {"mode": "off"},
        },
    ),
    (
        messages,
        {
            "messages": [
                {
                    "role": "system",
                    "content": [
                        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "Read"}},
                        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "Bash"}},
                        {
                            "type": "tool_addition",
                            "tool": {"type": "tool_definition", "definition": {"name": "f", "input_schema": {}}},
                        },
                        {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
                        {"type": "connector_text", "connector_text": "x"},
                    ],
                }
            ]
        },
    ),
]


@pytest.mark.parametrize(("inspect", "fields"), CLIENTS)
def test_what_clients_really_send_is_known(inspect: typing.Callable[..., Shape], fields: dict[str, Any]) -> None:
    """Coding tools, frameworks and local servers' own options are neither refused nor unknown."""
    assert inspect(**fields).unknown == ()


def test_bound_under_another_name_moves_the_hold_and_is_said_again() -> None:
    """llama.cpp and Ollama obey their own name, others the standard one: the larger is held, and both are sent."""
    assert chat(n_predict=5_000, max_tokens=100).output_bound == 5_000
    body = {"model": "m", "messages": HELLO, "options": {"num_predict": 300}}
    assert chat(options={"num_predict": 300}).output_bound == 300
    rewrite = MODULES[Dialect.OPENAI].rewrite
    rewritten = rewrite("chat/completions", body, upstream_model="m", output_bound=None, include_usage=False)
    assert rewritten == {**body, "max_completion_tokens": 300}
    with pytest.raises(Refusal) as caught:
        chat(n_predict=-1)  # without an end
    assert caught.value.param == "n_predict"


def test_template_of_the_callers_own_holds_the_whole_context() -> None:
    """It can make any number of tokens of a short body."""
    assert chat(chat_template="{{ messages }}").whole_context
    assert not chat(chat_template=None).whole_context
    assert messages(chat_template="x").whole_context


def test_larger_window_is_part_of_the_shape() -> None:
    """Ollama's `num_ctx` and a beta named in the body both ask for one."""
    window = chat(options={"num_ctx": 500_000}).window
    assert window is not None
    assert (window.tokens, window.asked_by) == (500_000, "options.num_ctx")
    beta = messages(anthropic_beta=["context-1m-2025-08-07"]).window
    assert beta is not None
    assert beta.tokens == 1_000_000


# -- headers ----------------------------------------------------------------------------------------------------------


def test_betas_are_known_by_their_name_without_the_date() -> None:
    """A new date of a known beta has the known effect; an unknown one is noted, and left out of what is known."""
    betas = read_betas("anthropic-beta", "context-1m-2027-05-01, claude-code-20250219,,tomorrow-2027-01-01")
    assert betas.unknown == ("tomorrow-2027-01-01",)
    assert betas.known == "context-1m-2027-05-01,claude-code-20250219"
    assert betas.window is not None
    assert betas.window.tokens == 1_000_000


def test_what_claude_code_sends_is_known() -> None:
    """Its betas, as seen of its version of June 2026 (opencode-anthropic-auth, issue 174), and others that it has."""
    sent = (
        "claude-code-20250219,oauth-2025-04-20,interleaved-thinking-2025-05-14,thinking-token-count-2026-05-13,"
        "context-management-2025-06-27,prompt-caching-scope-2026-01-05,mid-conversation-system-2026-04-07,"
        "advisor-tool-2026-03-01,effort-2025-11-24,extended-cache-ttl-2025-04-11,structured-outputs-2025-12-15,"
        "fine-grained-tool-streaming-2025-05-14,advanced-tool-use-2025-11-20,redact-thinking-2026-02-12,"
        "per-turn-control-2026-07-01,mid-conversation-tool-changes-2026-07-01"
    )
    assert read_betas("anthropic-beta", sent).unknown == ()


def test_what_codex_says_of_its_requests_goes_on() -> None:
    """Without it a provider may not look for tools and instructions in the input; elsewhere it means nothing."""
    name = b"x-openai-internal-codex-responses-lite"
    sent = [(name, b"true"), (b"x-openai-actor-authorization", b"secret"), (b"originator", b"codex_exec")]
    assert headers.read(Dialect.OPENAI, sent).headers == {name.decode(): "true"}
    assert headers.read(Dialect.ANTHROPIC, sent).headers == {}


def test_headers_of_another_provider_and_of_an_account_do_not_go_on() -> None:
    """Only what is the dialect's own does, and nothing that chooses an account."""
    sent = [
        (b"accept", b"*/*"),
        (b"cookie", b"x"),
        (b"openai-beta", b"responses=experimental"),
        (b"openai-organization", b"org-1"),
        (b"openai-tomorrow", b"1"),
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-workspace-id", b"wrkspc_1"),
        (b"anthropic-beta", b"effort-2025-11-24"),
        (b"anthropic-beta", b"new-2027-01-01"),
        (b"x-goog-api-client", b"genai"),
        (b"x-goog-user-project", b"p"),
        (b"x-goog-tomorrow", b"1"),
    ]
    openai = read(Dialect.OPENAI, sent)
    assert openai.headers == {"accept": "*/*", "openai-beta": "responses=experimental", "openai-tomorrow": "1"}
    assert openai.unknown == ("openai-tomorrow",)
    assert openai.known == {"accept": "*/*", "openai-beta": "responses=experimental"}
    claude = read(Dialect.ANTHROPIC, sent)
    assert claude.headers["anthropic-beta"] == "effort-2025-11-24, new-2027-01-01"
    assert claude.known == {"accept": "*/*", "anthropic-version": "2023-06-01", "anthropic-beta": "effort-2025-11-24"}
    assert claude.unknown == ("anthropic-beta=new-2027-01-01",)
    assert read(Dialect.GEMINI, sent).headers == {"accept": "*/*", "x-goog-api-client": "genai"}


OF_HEADERS = {"betas", "workspace_id", "user_profile_id"}
"""Parameters of Anthropic's SDK that are headers on the wire."""


def rows_of(known: Fields | Kinds | Mapping[str, Field], where: str = "") -> Iterable[tuple[str, Field]]:
    """Yield path and row of every field that has an effect; what is merged into the body is said once."""
    for name, row in (known if isinstance(known, Mapping) else known.rows).items():
        field = f"{where}[{name}]" if isinstance(known, Kinds) else f"{where}.{name}".lstrip(".")
        if row.effect is not Effect.NONE:
            yield field, row
        if row.inside is not None and name not in {"extra_body", "generateContentRequest", "requests"}:
            yield from rows_of(row.inside, field)


DOCUMENTED: list[tuple[str, Fields | Mapping[str, Field]]] = [
    ("OpenAI: chat completions", openai_fields.BODIES[openai_fields.CHAT]),
    ("OpenAI: responses", openai_fields.BODIES[openai_fields.RESPONSES]),
    ("OpenAI: embeddings", openai_fields.BODIES[openai_fields.EMBEDDINGS]),
    ("OpenAI: headers", KNOWN[Dialect.OPENAI]),
    ("OpenAI: values of `openai-beta`", BETAS["openai-beta"]),
    ("Anthropic: messages", anthropic_fields.BODY),
    ("Anthropic: headers", KNOWN[Dialect.ANTHROPIC]),
    ("Anthropic: values of `anthropic-beta`, without their date", BETAS["anthropic-beta"]),
    ("Gemini: the body", gemini_fields.BODY),
    ("Gemini: headers", KNOWN[Dialect.GEMINI]),
]


def written(known: Fields | Mapping[str, Field]) -> str:
    """Return a table of the documentation: fields of one effect and one fate share a line."""
    lines: dict[tuple[Effect, str], list[str]] = {}
    for field, row in rows_of(known):
        fate = f"refused: {row.refused}" if row.refused else row.covered or "field by field"
        if row.allowed:
            allowed = ", ".join(f"`{json.dumps(value)}`" for value in row.allowed)
            fate += f" (passes: {allowed})"
        lines.setdefault((row.effect, fate), []).append(f"`{field}`")
    text = ["| effect | fields | what becomes of them |", "|---|---|---|"]
    order = list(Effect)
    for (effect, fate), fields in sorted(lines.items(), key=lambda line: order.index(line[0][0])):
        text.append(f"| {effect} | {', '.join(fields)} | {fate} |")
    return "\n".join(text)


@pytest.mark.parametrize(("title", "known"), DOCUMENTED, ids=[title for title, _ in DOCUMENTED])
def test_the_documentation_lists_every_effect(title: str, known: Fields | Mapping[str, Field]) -> None:
    """As the tables have it; when one changes, its section of docs/fields.md is to be written anew."""
    text = (Path(__file__).parents[2] / "docs" / "fields.md").read_text()
    assert f"### {title}\n\n{written(known)}\n" in text


def test_a_compaction_differs_from_responses_in_two_fields() -> None:
    """As docs/fields.md says instead of repeating the table."""
    responses, compaction = (openai_fields.BODIES[name].rows for name in ("responses", "responses/compact"))
    differ = [name for name, row in compaction.items() if row is not responses.get(name)]
    assert (set(differ), compaction.keys()) == ({"stream", "max_output_tokens", "extra_body"}, responses.keys())


@pytest.mark.parametrize("rows", [openai_fields.TOOLS.rows, anthropic_fields.TOOLS.rows, gemini_fields.TOOL.rows])
def test_the_documentation_says_who_runs_which_tool(rows: Mapping[str, Field]) -> None:
    """The caller, whose tools go on, or the provider."""
    own, hosted = (
        ", ".join(f"`{name}`" for name, row in rows.items() if bool(row.refused) is of) for of in (False, True)
    )
    assert f"| {own} | {hosted}" in (Path(__file__).parents[2] / "docs" / "fields.md").read_text()


def test_rows_say_what_covers_their_effect() -> None:
    """A row with an effect is refused, or says how the hold and the charge cover it."""

    def faults(known: Fields | Kinds | Mapping[str, Field], where: str) -> Iterable[str]:
        rows = known if isinstance(known, Mapping) else known.rows
        for name, row in rows.items():
            if row.effect is not Effect.NONE and not (row.refused or row.covered or row.inside):
                yield f"{where}.{name}"
            if row.inside is not None:
                yield from faults(row.inside, f"{where}.{name}")

    tables: list[Fields | Kinds | Mapping[str, Field]] = [*openai_fields.BODIES.values(), anthropic_fields.BODY]
    tables += [gemini_fields.BODY, *KNOWN.values(), *BETAS.values(), headers.KNOWN[Dialect.OPENAI]]
    assert [fault for table in tables for fault in faults(table, "")] == []
