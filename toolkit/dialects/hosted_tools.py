"""Tools that the provider runs and that have no price here: left out of a request that merely offers them. Pure.

Coding tools offer a web search with every call, and never insist on it. So it is taken out, the answer says so, and the
agent goes on with the tools that it runs itself. A request that forces such a tool stays as it is, and is refused.
"""

from collections.abc import Mapping
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


def of_openai(body: Body, table: Kinds) -> Left:
    """Return a body of OpenAI's dialect without the hosted tools that it offers.

    What `include` asks to be told of them goes too; OpenAI, "Create a model response", include and tool choice.

    Args:
        body: of chat completions or Responses; it is not changed.
        table: what is known of tools.
    """
    kept, gone = _told_apart(body.get("tools"), table)
    if not gone:
        return body, ()
    choice = body.get("tool_choice")
    listed = _listed(choice)
    changes: Body = {"tools": kept}
    if isinstance(choice, Mapping) and choice.get("type") in gone:
        return body, ()
    if listed is not None:
        allowed = [tool for tool in listed["tools"] if not (isinstance(tool, Mapping) and tool.get("type") in gone)]
        if not allowed and listed.get("mode") == "required":
            return body, ()
        if len(allowed) < len(listed["tools"]):
            shorter = {**listed, "tools": allowed}
            nested = isinstance(choice, Mapping) and listed is not choice
            left = {"type": "allowed_tools", "allowed_tools": shorter} if nested else shorter
            changes["tool_choice"] = left if allowed else "none"
    if choice == "required" and not kept:
        return body, ()
    include = body.get("include")
    if isinstance(include, list):
        changes["include"] = [name for name in include if not _tells_of(name, gone)]
    return _changed({**body, **changes}, gone, _ONLY_WITH_TOOLS)


def of_anthropic(body: Body, table: Kinds) -> Left:
    """Return a body of Anthropic's dialect without the hosted tools that it offers; as `of_openai`."""
    kept, gone = _told_apart(body.get("tools"), table)
    if not gone:
        return body, ()
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        names = {tool.get("name") for tool in kept if isinstance(tool, Mapping)}
        wanted = choice.get("type")
        if (wanted == "any" and not kept) or (wanted == "tool" and choice.get("name") not in names):
            return body, ()
    return _changed({**body, "tools": kept}, gone, _ONLY_WITH_TOOLS)


def of_gemini(body: Body, table: Fields) -> Left:
    """Return a body of Gemini's dialect without the hosted tools that it offers; as `of_openai`.

    A tool is told by the names of its fields, and one object may have several.
    """
    tools = body.get("tools")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return body, ()
    gone = {name: None for tool in tools for name in table.refused_in(tool) if name not in _FUNCTION}
    if not gone:
        return body, ()
    kept = [{name: value for name, value in tool.items() if name not in gone} for tool in tools]
    kept = [tool for tool in kept if tool]
    if not kept and _mode(body) == "ANY":
        return body, ()
    return _changed({**body, "tools": kept}, gone, _ONLY_WITH_GEMINIS_TOOLS)


def _told_apart(tools: object, table: Kinds) -> tuple[list[Any], dict[str, None]]:
    """Return the tools that stay, and the types of those that do not, in the request's order."""
    if not isinstance(tools, list):
        return [], {}
    kept: list[Any] = []
    gone: dict[str, None] = {}
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind in _FUNCTION or kind.startswith("tool_search"):
            kept.append(tool)
        elif table.row(kind).refused:
            gone[kind] = None
        elif kind == "namespace" and isinstance(tool.get("tools"), list):
            inner, gone_inside = _told_apart(tool["tools"], table)
            gone |= gone_inside
            if inner or not gone_inside:
                kept.append({**tool, "tools": inner} if gone_inside else tool)
        else:
            kept.append(tool)
    return kept, gone


def _listed(choice: object) -> Mapping[str, Any] | None:
    """Return the object that lists the tools which may be used; Responses has it flat, chat below a name."""
    if not isinstance(choice, Mapping) or choice.get("type") != "allowed_tools":
        return None
    found = choice.get("allowed_tools", choice)
    return found if isinstance(found, Mapping) and isinstance(found.get("tools"), list) else None


def _tells_of(name: object, gone: Mapping[str, None]) -> bool:
    """Tell whether an entry of `include`, such as `web_search_call.results`, is about a tool that was left out."""
    if not isinstance(name, str):
        return False
    tool = name.partition("_call")[0]
    return any(kind.startswith(tool) for kind in gone)


def _mode(body: Mapping[str, Any]) -> object:
    for name, inner in (("toolConfig", "functionCallingConfig"), ("tool_config", "function_calling_config")):
        config = body.get(name)
        if isinstance(config, Mapping):
            calling = config.get(inner)
            mode = calling.get("mode") if isinstance(calling, Mapping) else None
            return mode.upper() if isinstance(mode, str) else mode
    return None


def _changed(body: Body, gone: Mapping[str, None], only_with_tools: tuple[str, ...]) -> Left:
    """Return a body whose `tools` are those that stay, without what belongs to tools if none does; and what is gone."""
    if not body["tools"]:
        body = {name: value for name, value in body.items() if name not in only_with_tools}
    return body, tuple(f"tools[*].{kind}" for kind in gone)
