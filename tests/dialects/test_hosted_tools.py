"""Tools that the provider runs are left out where they are merely offered, and refused where they are forced."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.dialects import anthropic, gemini, openai
from toolkit.dialects.gemini_request import COUNT_TOKENS, GENERATE
from toolkit.dialects.openai_fields import CHAT, EMBEDDINGS, RESPONSES

Json = dict[str, Any]
FUNCTION: Json = {"type": "function", "name": "f", "parameters": {}}
CUSTOM: Json = {"type": "custom", "name": "apply_patch"}
SEARCH: Json = {"type": "web_search"}


def responses(**fields: Any) -> tuple[Json, tuple[str, ...]]:
    """Leave hosted tools out of a Responses request."""
    return openai.without_hosted_tools(RESPONSES, {"model": "m", "input": "x", **fields})


def test_a_search_that_codex_offers_is_left_out() -> None:
    """Functions and custom tools stay in their order; nothing else changes, and the body that came is as it was."""
    tools = [FUNCTION, SEARCH, CUSTOM]
    body: Json = {"model": "m", "input": "x", "tools": tools, "tool_choice": "auto", "parallel_tool_calls": True}
    changed, left_out = openai.without_hosted_tools(RESPONSES, body)
    assert changed == {**body, "tools": [FUNCTION, CUSTOM]}
    assert left_out == ("tools[*].web_search",)
    assert body["tools"] is tools
    assert len(tools) == 3


@pytest.mark.parametrize("tools", [None, [], [FUNCTION, CUSTOM], "web_search", [5, None, {}]])
def test_a_request_without_hosted_tools_stays_the_same_object(tools: Any) -> None:
    """It goes on byte for byte, and what is wrong with it is said by those who read it."""
    body = {"model": "m", "input": "x", "tools": tools}
    for endpoint, dialect in ((RESPONSES, openai), (CHAT, openai), ("messages", anthropic), (GENERATE, gemini)):
        assert dialect.without_hosted_tools(endpoint, body)[0] is body
    embedding = {"model": "m", "input": "x", "tools": [SEARCH]}
    assert openai.without_hosted_tools(EMBEDDINGS, embedding)[0] is embedding


def test_a_function_as_another_dialect_declares_it_is_no_hosted_tool() -> None:
    """It stays, and is refused by its field's name: left out in silence, the agent would miss it."""
    declared = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert messages(**declared)[1] == generate(**declared)[1] == ()


def test_without_a_tool_left_what_belongs_to_tools_goes_too() -> None:
    """Providers refuse a choice among no tools."""
    changed, _ = responses(tools=[SEARCH], tool_choice="auto", parallel_tool_calls=True, max_tool_calls=3)
    assert changed == {"model": "m", "input": "x"}


def test_what_would_be_told_of_a_left_out_tool_is_not_asked_for() -> None:
    """The rest of `include` stays."""
    include = ["web_search_call.action.sources", "reasoning.encrypted_content", "file_search_call.results"]
    changed, _ = responses(tools=[FUNCTION, {"type": "web_search_preview_2025_03_11"}], include=include)
    assert changed["include"] == include[1:]


def test_an_unknown_tool_and_one_in_a_namespace_are_left_out() -> None:
    """A type that no table has may be one that the provider runs and charges for."""
    space = {"type": "namespace", "name": "n", "tools": [FUNCTION, {"type": "web_search"}]}
    only = {"type": "namespace", "name": "o", "tools": [{"type": "mcp"}]}
    changed, left_out = responses(tools=[space, only, {"type": "teleport"}])
    assert changed["tools"] == [{**space, "tools": [FUNCTION]}]
    assert left_out == ("tools[*].web_search", "tools[*].mcp", "tools[*].teleport")


@pytest.mark.parametrize(
    "forced",
    [
        {"tools": [FUNCTION, SEARCH], "tool_choice": {"type": "web_search"}},
        {
            "tools": [FUNCTION, {"type": "web_search_preview_2025_03_11"}],
            "tool_choice": {"type": "web_search_preview"},
        },
        {"tools": [{"type": "web_search_2025_08_26"}, CUSTOM], "tool_choice": {"type": "web_search"}},
        {"tools": [SEARCH], "tool_choice": "any"},
        {"tools": [SEARCH], "tool_choice": "required"},
        {
            "tools": [FUNCTION, SEARCH],
            "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        },
    ],
)
def test_a_forced_tool_stays(forced: Json) -> None:
    """The request cannot be answered as it is meant: it is for the refusal to say so."""
    changed, left_out = responses(**forced)
    assert changed == {"model": "m", "input": "x", **forced}
    assert left_out == ()


def test_a_choice_among_functions_does_not_force_a_search() -> None:
    """`required` with a function left, and a list of tools that may be used, lose no more than the search."""
    assert responses(tools=[FUNCTION, SEARCH], tool_choice="required")[0]["tools"] == [FUNCTION]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}, SEARCH]}
    changed, _ = responses(tools=[FUNCTION, SEARCH], tool_choice=allowed)
    assert changed["tool_choice"] == {**allowed, "tools": [{"type": "function", "name": "f"}]}
    changed, _ = responses(tools=[FUNCTION, SEARCH], tool_choice={**allowed, "tools": [SEARCH]})
    assert changed["tool_choice"] == "none"
    nested = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed["tools"]}}
    body = {"model": "m", "messages": [], "tools": [FUNCTION, SEARCH], "tool_choice": nested}
    changed, _ = openai.without_hosted_tools(CHAT, body)
    assert changed["tool_choice"]["allowed_tools"] == {"mode": "auto", "tools": [{"type": "function", "name": "f"}]}


def test_what_is_left_depends_on_nothing_that_is_gone() -> None:
    """Tools that a hosted search would have shown are shown at once; what a hosted program calls is called directly."""
    deferred = {**FUNCTION, "defer_loading": True}
    space = {"type": "namespace", "name": "n", "tools": [deferred]}
    changed, left_out = responses(tools=[space, deferred, {"type": "tool_search"}])
    assert changed["tools"] == [{**space, "tools": [FUNCTION]}, FUNCTION]
    assert left_out == ("tools[*].tool_search",)
    own = {"type": "tool_search", "execution": "client", "description": "d", "parameters": {}}
    changed, _ = responses(tools=[deferred, own, SEARCH])
    assert changed["tools"] == [deferred, own]
    called = {**FUNCTION, "allowed_callers": ["programmatic"]}
    changed, _ = responses(tools=[called, {"type": "programmatic_tool_calling"}])
    assert changed["tools"] == [FUNCTION]


def test_a_shell_in_a_container_of_the_providers_is_left_out() -> None:
    """One of the caller's own machine goes on."""
    own = {"type": "shell", "environment": {"type": "local"}}
    changed, left_out = responses(tools=[own, {"type": "shell", "environment": {"type": "container_auto"}}])
    assert (changed["tools"], left_out) == ([own], ("tools[*].shell",))


def test_a_computer_that_the_caller_controls_goes_on() -> None:
    """Its kind is a word there, and no environment of the provider's; the model's tokens are all that it costs."""
    tool = {"type": "computer_use_preview", "display_width": 1_024, "display_height": 768, "environment": "browser"}
    body: Json = {"model": "m", "input": "x", "tools": [tool, {"type": "computer"}]}
    assert openai.without_hosted_tools(RESPONSES, body) == (body, ())
    assert openai.inspect(RESPONSES, body, 100, None).tools == 2


# -- Anthropic --------------------------------------------------------------------------------------------------

BASH: Json = {"type": "bash_20250124", "name": "bash"}
WEB: Json = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}


def messages(**fields: Any) -> tuple[Json, tuple[str, ...]]:
    """Leave hosted tools out of a request for a message."""
    return anthropic.without_hosted_tools("messages", {"model": "m", **fields})


def test_a_search_that_claude_code_offers_is_left_out() -> None:
    """Tools without a type are the caller's own."""
    own = {"name": "f", "input_schema": {}}
    changed, left_out = messages(tools=[own, WEB, BASH], tool_choice={"type": "any"})
    assert changed == {"model": "m", "tools": [own, BASH], "tool_choice": {"type": "any"}}
    assert left_out == ("tools[*].web_search_20250305",)
    assert messages(tools=[WEB], tool_choice={"type": "auto"})[0] == {"model": "m"}


def test_what_ends_at_a_left_out_tool_is_cached_up_to_the_tool_before_it() -> None:
    """Agents mark their last tool; without the mark every call would pay for all tools anew."""
    own: Json = {"name": "f", "input_schema": {}}
    mark = {"cache_control": {"type": "ephemeral"}}
    assert messages(tools=[own, BASH, {**WEB, **mark}])[0]["tools"] == [own, {**BASH, **mark}]
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert messages(tools=[{**own, **hour}, {**WEB, **mark}])[0]["tools"] == [{**own, **hour}]
    assert messages(tools=[{**WEB, **mark}, own])[0]["tools"] == [own]
    assert "cache_control" not in BASH


def test_servers_that_the_provider_would_call_are_left_out() -> None:
    """With the tools that name them, or alone, as the first version of the beta has them."""
    servers = [{"type": "url", "name": "s", "url": "https://mcp.example.com"}]
    toolset = {"type": "mcp_toolset", "mcp_server_name": "s"}
    changed, left_out = messages(tools=[BASH, toolset], mcp_servers=servers)
    assert (changed, left_out) == ({"model": "m", "tools": [BASH]}, ("tools[*].mcp_toolset", "mcp_servers"))
    assert messages(mcp_servers=servers) == ({"model": "m"}, ("mcp_servers",))
    assert messages(mcp_servers=[])[1] == ()
    forced = {"tools": [BASH], "mcp_servers": servers, "tool_choice": {"type": "tool", "name": "of the server"}}
    assert messages(**forced) == ({"model": "m", **forced}, ())


def test_deferred_tools_are_shown_where_the_hosted_search_for_them_is_gone() -> None:
    """Anthropic refuses a request whose tools are all deferred; Claude Code looks for tools itself, and keeps it so."""
    deferred = {"name": "f", "input_schema": {}, "defer_loading": True}
    called = {"name": "g", "input_schema": {}, "allowed_callers": ["code_execution_20260120"]}
    search = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    changed, left_out = messages(tools=[search, deferred, called, {"type": "code_execution_20260120", "name": "c"}])
    assert changed["tools"] == [{"name": "f", "input_schema": {}}, {"name": "g", "input_schema": {}}]
    assert left_out == ("tools[*].tool_search_tool_bm25_20251119", "tools[*].code_execution_20260120")
    own = {"name": "ToolSearch", "input_schema": {}}
    assert messages(tools=[own, deferred, WEB])[0]["tools"] == [own, deferred]


@pytest.mark.parametrize(
    "forced",
    [
        {"tools": [BASH, WEB], "tool_choice": {"type": "tool", "name": "web_search"}},
        {"tools": [WEB], "tool_choice": {"type": "any"}},
    ],
)
def test_a_forced_tool_of_anthropics_stays(forced: Json) -> None:
    """By its name, or since nothing else is left."""
    assert messages(**forced) == ({"model": "m", **forced}, ())


# -- Gemini -----------------------------------------------------------------------------------------------------


def generate(**fields: Any) -> tuple[Json, tuple[str, ...]]:
    """Leave hosted tools out of a request to generate content."""
    return gemini.without_hosted_tools(GENERATE, {"contents": [], **fields})


def test_a_search_that_gemini_cli_offers_is_left_out() -> None:
    """Each tool is a field; an object that has others keeps them, in either spelling."""
    declared = {"functionDeclarations": [{"name": "f"}]}
    changed, left_out = generate(tools=[{**declared, "googleSearch": {}}, {"url_context": {}}])
    assert changed == {"contents": [], "tools": [declared]}
    assert left_out == ("tools[*].googleSearch", "tools[*].url_context")
    auto = {"functionCallingConfig": {"mode": "AUTO"}}
    assert generate(tools=[{"googleSearch": {}}], toolConfig=auto)[0] == {"contents": []}


def test_nobody_asks_to_see_what_tools_do_that_are_gone() -> None:
    """The rest of the configuration stays."""
    declared = {"functionDeclarations": [{"name": "f"}]}
    config = {"functionCallingConfig": {"mode": "VALIDATED"}, "includeServerSideToolInvocations": True}
    changed, _ = generate(tools=[declared, {"googleSearch": {}}], toolConfig=config)
    assert changed["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert generate(tools=[declared], toolConfig=config)[0]["toolConfig"] is config


def test_one_tool_of_geminis_may_stand_without_its_array() -> None:
    """As Google's reader takes it; what stays of it is in one."""
    declared = {"function_declarations": [{"name": "f"}]}
    assert generate(tools={**declared, "google_search": {}})[0] == {"contents": [], "tools": [declared]}
    assert generate(tools={"codeExecution": {}}) == ({"contents": []}, ("tools[*].codeExecution",))
    body = {"contents": [], "tools": declared}
    assert gemini.without_hosted_tools(GENERATE, body) == (body, ())


def test_tokens_are_counted_without_a_search_too() -> None:
    """At the request's own level, and in the request whose tokens are to be counted."""
    search: Json = {"tools": [{"googleSearch": {}}]}
    assert gemini.without_hosted_tools(COUNT_TOKENS, search)[0] == {}
    for name in ("generateContentRequest", "generate_content_request"):
        body = {name: {"model": "models/m", **search}}
        assert gemini.without_hosted_tools(COUNT_TOKENS, body) == (
            {name: {"model": "models/m"}},
            ("tools[*].googleSearch",),
        )


@pytest.mark.parametrize("outer", ["toolConfig", "tool_config"])
@pytest.mark.parametrize("inner", ["functionCallingConfig", "function_calling_config"])
@pytest.mark.parametrize("mode", ["ANY", "any", 2])
def test_a_forced_tool_of_geminis_stays(outer: str, inner: str, mode: object) -> None:
    """`ANY` asks for a call, and no function is left; however it is spelled, or by the enum's number."""
    forced = {"tools": [{"googleSearch": {}}], outer: {inner: {"mode": mode}}}
    assert generate(**forced) == ({"contents": [], **forced}, ())
    declared = {"functionDeclarations": [{"name": "f"}]}
    kept = {**forced, "tools": [declared]}
    assert generate(**{**forced, "tools": [declared, {"googleSearch": {}}]})[0] == {"contents": [], **kept}


# -- odd bodies -------------------------------------------------------------------------------------------------

WORDS = [
    "web_search",
    "function",
    "namespace",
    "tool_search",
    "required",
    "allowed_tools",
    "tool",
    "any",
    "client",
    "f",
]
NAMES = ["type", "tools", "name", "mode", "execution", "googleSearch", "allowed_callers", "defer_loading", "include"]
ODD = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {"tools": ODD}, optional=dict.fromkeys(("tool_choice", "include", "mcp_servers", "toolConfig"), ODD)
)


@given(BODIES)
def test_whatever_stands_there_is_looked_at_without_a_fault(body: Json) -> None:
    """And a second look finds nothing more to leave out."""
    for dialect, endpoint in ((openai, RESPONSES), (openai, CHAT), (anthropic, "messages"), (gemini, GENERATE)):
        changed, left_out = dialect.without_hosted_tools(endpoint, body)
        assert left_out or changed is body
        assert not left_out or dialect.without_hosted_tools(endpoint, changed)[1] == ()
