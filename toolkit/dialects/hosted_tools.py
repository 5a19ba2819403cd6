"""Tools that the provider runs and that have no price here: left out of a request that merely offers them. Pure.

Coding tools offer a web search with every call, and never insist on it. So it is taken out, the answer says so, and the
agent goes on with the tools that it runs itself. A request that forces such a tool stays as it is, and is refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.dialects.fields import Fields, Kinds

Body = dict[str, Any]
Left = tuple[Body, tuple[str, ...]]
"""A body, and what was left out of it, by name."""

_FUNCTION = frozenset({"type", "function", "name", "description", "parameters", "input_schema"})
"""What tells a function that was declared as another dialect has it: no hosted tool, but a mistake to be refused."""

_ONLY_WITH_TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "max_tool_calls")
_ONLY_WITH_GEMINIS_TOOLS = ("tools", "toolConfig", "tool_config")
"""What has no place in a request without tools; providers refuse some of it."""

_SEARCHES_TOOLS = "tool_search"
"""How the names of tools begin that look for other tools, which `defer_loading` keeps from the model until then."""

_VERSION = re.compile(r"(?:_preview)?(?:[-_]\d{4}[-_]?\d\d[-_]?\d\d)?$")

_EITHER = frozenset({_SEARCHES_TOOLS, "shell"})
"""Tools that the caller or the provider runs, as the request says."""

_ANY = ("required", "any")
"""OpenAI's word for "call a tool, whichever", and Mistral's."""

_GEMINIS_ANY = ("ANY", 2)
"""The same in Gemini's dialect, as a name and as the enum's number; Google, "Function calling", modes."""


def of_openai(body: Body, table: Kinds) -> Left:
    """Return a body of OpenAI's dialect without the hosted tools that it offers.

    What `include` asks to be told of them goes too; OpenAI, "Create a model response", include and tool choice.

    Args:
        body: of chat completions or Responses; it is not changed.
        table: what is known of tools.
    """
    kept, gone = told_apart(body.get("tools"), table)
    if not gone:
        return body, ()
    stems = {_stem(kind) for kind in gone}
    choice = body.get("tool_choice")
    listed = _listed(choice)
    changes: Body = {"tools": kept}
    if isinstance(choice, Mapping) and _stem(choice.get("type")) in stems:
        return body, ()
    if listed is not None:
        allowed = [
            tool for tool in listed["tools"] if not (isinstance(tool, Mapping) and _stem(tool.get("type")) in stems)
        ]
        if not allowed and listed.get("mode") == "required":
            return body, ()
        if len(allowed) < len(listed["tools"]):
            shorter = {**listed, "tools": allowed}
            nested = isinstance(choice, Mapping) and listed is not choice
            left = {"type": "allowed_tools", "allowed_tools": shorter} if nested else shorter
            changes["tool_choice"] = left if allowed else "none"
    if choice in _ANY and not kept:
        return body, ()
    include = body.get("include")
    if isinstance(include, list):
        changes["include"] = [name for name in include if not _tells_of(name, stems)]
    return _changed({**body, **changes}, named(gone), _ONLY_WITH_TOOLS)


def of_anthropic(body: Body, table: Kinds) -> Left:
    """Return a body of Anthropic's dialect without the hosted tools that it offers; as `of_openai`.

    So go the servers that the provider would call for them; Anthropic, "MCP connector".
    """
    kept, gone = told_apart(body.get("tools"), table)
    left_out = named(gone)
    servers = body.get("mcp_servers")
    if isinstance(servers, list) and servers:
        left_out = (*left_out, "mcp_servers")
    if not left_out:
        return body, ()
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        names = [tool.get("name") for tool in kept if isinstance(tool, Mapping)]
        wanted = choice.get("type")
        if (wanted == "any" and not kept) or (wanted == "tool" and choice.get("name") not in names):
            return body, ()
    rest = {name: value for name, value in body.items() if name != "mcp_servers"}
    return _changed({**rest, "tools": kept} if gone else rest, left_out, _ONLY_WITH_TOOLS)


def of_gemini(body: Body, table: Fields) -> Left:
    """Return a body of Gemini's dialect without the hosted tools that it offers; as `of_openai`.

    A tool is told by the names of its fields, and one object may have several. One tool may stand without its array.
    """
    tools = body.get("tools")
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return body, ()
    gone = {name: None for tool in tools for name in table.refused_in(tool) if name not in _FUNCTION}
    if not gone:
        return body, ()
    kept = [{name: value for name, value in tool.items() if name not in gone} for tool in tools]
    kept = [tool for tool in kept if tool]
    if not kept and _mode(body) in _GEMINIS_ANY:
        return body, ()
    configs: Body = {name: _without_invocations(body[name]) for name in ("toolConfig", "tool_config") if name in body}
    return _changed({**body, **configs, "tools": kept}, named(gone), _ONLY_WITH_GEMINIS_TOOLS)


def _without_invocations(config: Any) -> Any:
    """Return Gemini's tool configuration without the wish to see what hosted tools do."""
    if not isinstance(config, dict):
        return config
    wish = ("includeServerSideToolInvocations", "include_server_side_tool_invocations")
    return {name: value for name, value in config.items() if name not in wish}


def told_apart(tools: object, table: Kinds) -> tuple[list[Any], dict[str, None]]:
    """Return the tools that stay, and the types of those that do not, in the request's order.

    What stays depends on nothing that does not: no hosted tool calls it, or looks for it.
    """
    if not isinstance(tools, list):
        return [], {}
    kept, gone = _sorted_out(tools, table)
    if not gone:
        return kept, gone
    searched = any(kind.startswith(_SEARCHES_TOOLS) for kind in gone) and not any(
        isinstance(tool, dict) and tool.get("type") == _SEARCHES_TOOLS for tool in kept
    )
    return [_on_its_own(tool, searched=searched) for tool in kept], gone


def _sorted_out(tools: list[Any], table: Kinds) -> tuple[list[Any], dict[str, None]]:
    kept: list[Any] = []
    gone: dict[str, None] = {}
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind in _FUNCTION:
            kept.append(tool)
        elif table.row(kind).refused or (kind in _EITHER and _runs_elsewhere(kind, tool)):
            gone[kind] = None
            _hand_on(tool, kept)
        elif kind == "namespace" and isinstance(tool.get("tools"), list):
            inner, gone_inside = _sorted_out(tool["tools"], table)
            gone |= gone_inside
            if inner or not gone_inside:
                kept.append({**tool, "tools": inner} if gone_inside else tool)
        else:
            kept.append(tool)
    return kept, gone


def _hand_on(tool: Mapping[str, Any], kept: list[Any]) -> None:
    """Let the tool before one that goes end what is cached, where that one did; Anthropic, "Prompt caching", tools."""
    mark = tool.get("cache_control")
    if mark is not None and kept and isinstance(kept[-1], dict) and kept[-1].get("cache_control") is None:
        kept[-1] = {**kept[-1], "cache_control": mark}


def _runs_elsewhere(kind: str, tool: Mapping[str, Any]) -> bool:
    """Tell whether a tool that the caller could run is one that the provider is to; OpenAI, "Tool search", "Shell"."""
    environment = tool.get("environment")
    return (kind == _SEARCHES_TOOLS and tool.get("execution") != "client") or (
        kind == "shell" and isinstance(environment, Mapping) and environment.get("type") not in (None, "local")
    )


def _on_its_own(tool: Any, *, searched: bool) -> Any:
    """Return a tool as it is offered where no hosted tool is.

    Args:
        tool: as the request has it.
        searched: whether what looked for deferred tools is gone: they would never be shown to the model.
    """
    if not isinstance(tool, dict):
        return tool
    goes = {"allowed_callers", "defer_loading"} if searched else {"allowed_callers"}
    changed = {name: value for name, value in tool.items() if name not in goes} if goes & tool.keys() else tool
    if isinstance(inner := changed.get("tools"), list):
        changed = {**changed, "tools": [_on_its_own(one, searched=searched) for one in inner]}
    return changed


def _stem(kind: object) -> object:
    """Return what tells a type of tool from others: its versions, and what a choice calls it, differ in the rest."""
    return _VERSION.sub("", kind) if isinstance(kind, str) else None


def _listed(choice: object) -> Mapping[str, Any] | None:
    """Return the object that lists the tools which may be used; Responses has it flat, chat below a name."""
    if not isinstance(choice, Mapping) or choice.get("type") != "allowed_tools":
        return None
    found = choice.get("allowed_tools", choice)
    return found if isinstance(found, Mapping) and isinstance(found.get("tools"), list) else None


def _tells_of(name: object, stems: set[object]) -> bool:
    """Tell whether an entry of `include`, such as `web_search_call.results`, is about a tool that was left out."""
    return isinstance(name, str) and name.partition("_call")[0] in stems


def _mode(body: Mapping[str, Any]) -> object:
    """Return Gemini's mode of calling functions; each name on the way may be spelled in two ways."""
    config = _either(body, "toolConfig", "tool_config")
    calling = _either(config, "functionCallingConfig", "function_calling_config")
    mode = calling.get("mode") if isinstance(calling, Mapping) else None
    return mode.upper() if isinstance(mode, str) else mode


def _either(obj: object, *names: str) -> object:
    return next((obj[name] for name in names if name in obj), None) if isinstance(obj, Mapping) else None


def named(gone: Mapping[str, None], where: str = "tools") -> tuple[str, ...]:
    """Return the paths of tools that were left out of the array `where`, by their types."""
    return tuple(f"{where}[*].{kind}" for kind in gone)


def _changed(body: Body, left_out: tuple[str, ...], only_with_tools: Sequence[str]) -> Left:
    """Return a body whose `tools` are those that stay, without what belongs to tools if none does; and what is gone."""
    if not body.get("tools"):
        body = {name: value for name, value in body.items() if name not in only_with_tools}
    return body, left_out
