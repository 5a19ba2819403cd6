"""Tools that the provider runs are left out where they are merely offered, and refused where they are forced."""

from typing import Any

import pytest

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
    counting: Json = {"tools": [{"googleSearch": {}}]}
    assert gemini.without_hosted_tools(COUNT_TOKENS, counting)[0] is counting


def test_a_forced_tool_of_geminis_stays() -> None:
    """`ANY` asks for a call, and no function is left."""
    forced = {"tools": [{"googleSearch": {}}], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}
    assert generate(**forced) == ({"contents": [], **forced}, ())
