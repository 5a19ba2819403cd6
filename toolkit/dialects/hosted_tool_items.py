"""What a provider's own tools did in an earlier answer, when it is sent back: said as text. Pure.

Clients send answers back as they came, also those that the provider itself gave them before they had a key here. An
item of a hosted tool refers to what the provider keeps, or to a tool that is not offered any more. As text it says what
was looked for and what was found, lets nothing run, and costs its tokens. It stays in its place, so that signed
thoughts on both sides of it do not meet: a provider that cannot tell them apart refuses them (Anthropic, "Extended
thinking").

None of this costs a request that has no such item: it is done for one that would be refused.
"""

import json
from collections.abc import Mapping
from typing import Any

from toolkit.dialects.fields import Kinds, snake_case
from toolkit.dialects.hosted_tools import Body, Left, named, told_apart

_OF_OPENAI = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
        *("mcp_call", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "program", "program_output"),
    }
)
"""OpenAI, "Create a model response", input items of tools that it runs."""

_SEARCHES_TOOLS = frozenset({"tool_search_call", "tool_search_output"})
"""The same if the server executed them."""

_SHELL = frozenset({"shell_call", "shell_call_output"})
"""The same if it ran in a container of the provider's, which only the call says."""

_OF_ANTHROPIC = frozenset({"server_tool_use", "mcp_tool_use", "mcp_tool_listing"})
"""Anthropic, "Messages", content blocks; their results are called `…_tool_result`, after the tool."""

_TOOL_CHANGES = frozenset({"tool_addition", "tool_removal"})

_OF_GEMINI = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""Google, "Generating content", Part."""

_OPAQUE = frozenset(
    {
        *("id", "call_id", "tool_use_id", "container_id", "file_id", "approval_request_id", "fingerprint", "status"),
        *("encrypted_content", "encrypted_index", "encrypted_stdout", "signature", "caller", "cache_control", "tools"),
    }
)
"""What of an item says nothing to a model: ids, what only the provider can read, and the definitions of other tools."""

_DECLARES_DATA = frozenset({"media_type", "mimeType", "mime_type"})


def of_openai(body: Body, table: Kinds) -> Left:
    """Return a body of Responses whose items of hosted tools are text, and their names; the same body if it has none.

    Tools that an item adds are treated as those of the request.

    Args:
        body: it is not changed.
        table: what is known of tools.
    """
    items = body.get("input")
    if not isinstance(items, list):
        return body, ()
    in_containers = {_call_of(item) for item in items if isinstance(item, dict) and _in_container(item)}
    told: dict[str, None] = {}
    kept: list[Any] = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if not isinstance(kind, str):
            kept.append(item)
        elif (
            kind in _OF_OPENAI
            or (kind in _SEARCHES_TOOLS and item.get("execution") == "server")
            or (kind in _SHELL and _call_of(item) in in_containers)
        ):
            told[f"input[*].{kind}"] = None
            kept.append({"role": "assistant", "content": _said(kind, item)})
        elif isinstance(item.get("tools"), list):
            tools, gone = told_apart(item["tools"], table)
            told |= dict.fromkeys(named(gone, "input[*].tools"))
            if tools or not gone:
                kept.append({**item, "tools": tools} if gone else item)
        else:
            kept.append(item)
    return ({**body, "input": [_uncalled(item) for item in kept]}, tuple(told)) if told else (body, ())


def of_anthropic(body: Body, table: Kinds) -> Left:
    """Return a body whose blocks of hosted tools are text; as `of_openai`.

    Where one becomes available in the middle of a conversation, or is withdrawn, nothing is said of it.
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body, ()
    told: dict[str, None] = {}
    seen = [_message(message, table, told) if isinstance(message, dict) else message for message in messages]
    kept = [after for after, before in zip(seen, messages, strict=True) if after is before or after["content"]]
    return ({**body, "messages": kept}, tuple(told)) if told else (body, ())


def of_gemini(body: Body) -> Left:
    """Return a body whose parts of hosted tools are text; as `of_openai`."""
    told: dict[str, None] = {}
    changes: Body = {}
    for name in ("contents", "generateContentRequest", "generate_content_request"):
        value = body.get(name)
        if name == "contents":
            one_alone = isinstance(value, dict)
            contents = [value] if one_alone else value
            if isinstance(contents, list):
                changes[name] = [_content(content, told) for content in contents]
        elif isinstance(value, dict):
            changes[name], inside = of_gemini(value)
            told |= dict.fromkeys(inside)
    return ({**body, **changes}, tuple(told)) if told else (body, ())


def _call_of(item: Mapping[str, Any]) -> str:
    """Return what connects a call with its output; empty if it is no text."""
    call = item.get("call_id")
    return call if isinstance(call, str) else ""


def _in_container(item: Mapping[str, Any]) -> bool:
    environment = item.get("environment")
    return item.get("type") == "shell_call" and isinstance(environment, dict) and environment.get("type") != "local"


def _uncalled(item: Any) -> Any:
    """Return an item without the name of a program or tool of the provider's that has called it."""
    caller = item.get("caller") if isinstance(item, dict) else None
    if not isinstance(caller, dict) or caller.get("type") == "direct":
        return item
    return {name: value for name, value in item.items() if name != "caller"}


def _message(message: dict[str, Any], table: Kinds, told: dict[str, None]) -> dict[str, Any]:
    """Return a message of Anthropic's dialect; so that what stays of it refers to nothing that does not."""
    blocks = message.get("content")
    if not isinstance(blocks, list):
        return message
    here: dict[str, None] = {}
    kept: list[Any] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str):
            kept.append(block)
        elif kind in _OF_ANTHROPIC or kind.endswith("_tool_result"):
            here[f"messages[*].content[*].{kind}"] = None
            mark = {"cache_control": block["cache_control"]} if "cache_control" in block else {}
            kept.append({"type": "text", "text": _said(kind, block), **mark})
        elif kind in _TOOL_CHANGES and _is_hosted(block.get("tool"), table):
            here[f"messages[*].content[*].{kind}"] = None
        elif kind == "text" and "citations" in block:
            kept.append({name: value for name, value in block.items() if name != "citations"})
        else:
            kept.append(_uncalled(block))
    told |= here
    return {**message, "content": kept} if here else message


def _is_hosted(tool: object, table: Kinds) -> bool:
    """Tell whether what is added or withdrawn is a tool that the provider runs, or a server that it calls."""
    if not isinstance(tool, dict):
        return False
    definition = tool.get("definition")
    kind = definition.get("type") if isinstance(definition, dict) else None
    return str(tool.get("type")).startswith("mcp_") or (isinstance(kind, str) and bool(table.row(kind).refused))


def _content(content: Any, told: dict[str, None]) -> Any:
    parts = content.get("parts") if isinstance(content, dict) else None
    if isinstance(parts, dict):
        parts = [parts]
    if not isinstance(parts, list):
        return content
    return {**content, "parts": [_part(part, told) for part in parts]}


def _part(part: Any, told: dict[str, None]) -> Any:
    for name in _OF_GEMINI if isinstance(part, dict) else ():
        for spelled in (name, snake_case(name)):
            if part.get(spelled) is not None:
                told[f"contents[*].parts[*].{name}"] = None
                return {"text": _said(name, part[spelled])}
    return part


def _said(kind: str, item: object) -> str:
    """Return what an item says to a model: what it is, and its fields, but for those that only the provider reads."""
    if isinstance(item, dict):
        # A picture that was made is base64 there; OpenAI, "Image generation".
        hidden = {"type", "result"} if kind == "image_generation_call" else {"type"}
        item = {name: value for name, value in item.items() if name not in hidden}
    return f"[{kind}] {json.dumps(_readable(item), ensure_ascii=False, separators=(',', ':'))}"


def _readable(value: object) -> object:
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        encoded = value.get("type") == "base64" or not _DECLARES_DATA.isdisjoint(value)
        return {
            name: _readable(inner)
            for name, inner in value.items()
            if name not in _OPAQUE and not (encoded and name == "data")
        }
    return "data:" if isinstance(value, str) and value[:5].lower() == "data:" else value
