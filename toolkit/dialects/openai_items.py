"""What an OpenAI request is made of: items, parts of content and tools, counted and refused where they stand."""

from collections.abc import Sequence
from typing import Any

from toolkit.dialects.body import invalid, path, read_kind, read_object, read_objects, shown, unsupported
from toolkit.dialects.fields import AUDIO
from toolkit.dialects.media import Kind
from toolkit.dialects.openai_fields import BREAKPOINT, HOSTED_TOOL, ITEM, PART, PICTURE, STORED, TOOLS
from toolkit.dialects.shape import Tally, refuse_sound

_NOT_KEPT = f"{STORED} in 'input'; clients that refer to earlier items send them when told store: false"
_FOREIGN_ITEM = "it belongs to a tool or to state at the provider, which cannot be used here"
# Items that carry all their content themselves; an item without a type is a message.
_ITEMS = frozenset(
    {
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "compaction",
        "compaction_summary",
        "context_compaction",
        "compaction_trigger",
        "configuration_update",
        "additional_tools",
        "tool_search_call",
        "tool_search_output",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "computer_call",
        "computer_call_output",
    }
)
_COMPACTIONS = frozenset({"compaction", "compaction_summary", "context_compaction"})
"""What has become of a longer context; the latter two are Codex's words for it."""

_TEXT_PARTS = frozenset({"text", "refusal", "input_text", "output_text", "reasoning_text", "thinking"})
"""`thinking` is Mistral's, "Reasoning": text that holds text."""

_UNKNOWN_PART = "this kind of content has no price here"


def walk_item(item: dict[str, Any], where: str, tally: Tally) -> None:
    """Count an item of a response's input, with the parts and tools in it.

    Args:
        item: as the caller sent it.
        where: its path in the body.
        tally: what is counted so far; it is added to.

    Raises:
        Refusal: `invalid_request`, or `unsupported_feature` for what cannot be metered or kept apart from other
            tenants; the param is the field's path.
    """
    if not ITEM.fine(item):
        ITEM.refuse(item, where)
    kind = read_kind(item, where) or "message"
    if kind == "item_reference":
        raise unsupported(f"{where}.type", f"'item_reference': {_NOT_KEPT}")
    if kind not in _ITEMS or (item.get("execution") == "server" and kind.startswith("tool_search")):
        raise unsupported(f"{where}.type", f"{shown(kind)}: {_FOREIGN_ITEM}")
    if kind == "message" and ("role" not in item or item.get("content") is None):
        # An item with little more than an id is a reference; OpenAI, "Create a model response", item reference.
        raise unsupported(where, f"an item needs a role and content; {_NOT_KEPT}")
    if kind == "reasoning" and item.get("id") and not (item.get("encrypted_content") or item.get("content")):
        raise unsupported(
            where, "reasoning is not kept at the provider; ask for it with include: ['reasoning.encrypted_content']"
        )
    tally.messages += 1
    if kind in _COMPACTIONS:
        if not item.get("encrypted_content"):
            raise unsupported(where, f"a compaction needs its encrypted_content; {_NOT_KEPT}")
        tally.whole_context = True
    elif kind == "compaction_trigger":
        tally.compacts = True
    _check_environment(item, where)
    if "tools" in item:
        tools = read_objects(item, "tools", where)
        TOOLS.check_all(tools, f"{where}.tools", [])
        walk_tools(tools, f"{where}.tools", tally)
    for name in ("content", "output"):
        value = item.get(name)
        if isinstance(value, list) and kind != "shell_call_output":  # its parts are plain stdout and stderr
            walk_parts(read_objects(item, name, where), f"{where}.{name}", tally)
        elif isinstance(value, dict):
            walk_parts([value], f"{where}.{name}", tally)


def walk_parts(parts: Sequence[dict[str, Any]], where: str, tally: Tally) -> None:
    """Count parts of a content: text, pictures and documents. Arguments and errors are those of `walk_item`."""
    for index, part in enumerate(parts):
        field = f"{where}[{index}]"
        kind = read_kind(part, field)
        if "prompt_cache_breakpoint" in part:
            mark = read_object(part, "prompt_cache_breakpoint", field)
            BREAKPOINT.refuse(mark, f"{field}.prompt_cache_breakpoint")
        if not PART.fine(part):
            PART.refuse(part, field)
        if kind in _TEXT_PARTS:
            continue
        if kind in ("image_url", "input_image", "computer_screenshot"):
            given = part.get("image_url")
            picture = given if isinstance(given, dict) else {"url": given, "detail": part.get("detail")}
            PICTURE.refuse(picture, f"{field}.image_url")
            address = picture.get("url")
            if not isinstance(address, str):
                raise invalid(f"'{field}.image_url' must hold a URL, not {shown(address)}.", f"{field}.image_url")
            refuse_sound(tally.address(Kind.PICTURE, address, picture.get("detail")), f"{field}.image_url")
        elif kind in ("file", "input_file"):
            file = read_object(part, "file", field)
            PART.refuse(file, f"{field}.file")
            _count_file(file or part, f"{field}.file" if file else field, tally)
        elif kind == "input_audio":
            raise unsupported(f"{field}.type", f"'input_audio': {AUDIO}; send a transcript")
        else:
            raise unsupported(f"{field}.type", f"{shown(kind)}: {_UNKNOWN_PART}")


def _count_file(file: dict[str, Any], where: str, tally: Tally) -> None:
    """Count a document: inline, as a `data:` URL or as bare base64, or by its address; some servers mix their names."""
    tally.whole_context = True
    for name in ("file_data", "file_url"):
        address = file.get(name)
        if not isinstance(address, str) or not address:
            continue
        if address[:5].lower() == "data:" or "://" in address[:16]:
            refuse_sound(tally.address(Kind.PDF, address), f"{where}.{name}")
        else:
            refuse_sound(tally.blob("", address), f"{where}.{name}")


def walk_tools(tools: Sequence[dict[str, Any]], where: str, tally: Tally) -> None:
    """Count tools, which their table has passed. Arguments and errors are those of `walk_item`."""
    for index, tool in enumerate(tools):
        kind = tool["type"]  # a string: the table has been asked
        tally.tools += 1
        if kind == "function":
            continue
        field = f"{where}[{index}]"
        if kind == "tool_search" and tool.get("execution") != "client":
            raise unsupported(f"{field}.type", f"{shown(kind)}: {HOSTED_TOOL}")
        if kind == "shell":
            _check_environment(tool, field)
        if kind == "namespace":
            nested = read_objects(tool, "tools", field)
            if any(inner.get("type") == "namespace" for inner in nested):
                raise invalid(f"'{field}.tools' cannot hold another namespace.", f"{field}.tools")
            walk_tools(nested, f"{field}.tools", tally)


def _check_environment(obj: dict[str, Any], where: str) -> None:
    environment = read_object(obj, "environment", where) if "environment" in obj else {}
    if environment and environment.get("type") != "local":
        field = path(where, "environment")
        raise unsupported(field, "containers at the provider have no price here; use {'type': 'local'}")
