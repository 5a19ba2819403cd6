"""What an OpenAI request asks for: Chat Completions, Responses and Embeddings, as the API reference has them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolkit.dialects.body import (
    MAX_OUTPUT_BOUND,
    Ban,
    check_bans,
    check_inputs,
    guard_names,
    invalid,
    path,
    read_count,
    read_flag,
    read_kind,
    read_object,
    read_objects,
    read_text,
    shown,
    text_bytes,
    unsupported,
)
from toolkit.dialects.shape import Shape, Tally

CHAT = "chat/completions"
RESPONSES = "responses"
EMBEDDINGS = "embeddings"
ENDPOINTS: tuple[str, ...] = (CHAT, RESPONSES, EMBEDDINGS)

MAX_CHOICES = 128
"""The largest `n`; OpenAI, "Create chat completion"."""

_STORED = "what the provider stores is shared by everybody behind this gateway; send what it refers to instead"
_TIER = "this service tier has no price here; leave it out or send 'auto' or 'default'"
_AUDIO = "audio tokens have no price here"

# Fields that refer to state at the provider, hide usage, or change a price that the price book does not have.
_BOTH_BANS = {
    "store": Ban("what the provider would keep is shared by everybody behind this gateway", (False,)),
    "service_tier": Ban(_TIER, ("auto", "default")),
    "moderation": Ban("it calls a second model, which has no price here"),
}
_CHAT_BANS = {
    **_BOTH_BANS,
    "audio": Ban(_AUDIO),
    "prediction": Ban("rejected prediction tokens are billed as output beyond any bound"),
    "best_of": Ban("the answers that are thrown away are billed too; use 'n'"),
    "web_search_options": Ban("web search has no price here; search in your own code and send the results"),
}
_RESPONSES_BANS = {
    **_BOTH_BANS,
    "previous_response_id": Ban(f"{_STORED} in 'input'"),
    "conversation": Ban(f"{_STORED} in 'input'"),
    "prompt": Ban("prompt templates are kept at the provider; send the text in 'instructions' and 'input'"),
    "background": Ban("the usage of a background answer is not seen by this gateway", (False,)),
    "background_options": Ban("the usage of a background answer is not seen by this gateway"),
    "context_management": Ban("compaction at the provider uses tokens that no bound of this call covers"),
    "container": Ban(_STORED),
}
_CACHE_BANS = {
    "ttl": Ban("only the 30 minute cache has a price here", ("30m",)),
    "comparison_response_id": Ban(_STORED),
}
_FILE_BANS = {"file_id": Ban("uploaded files are shared by everybody behind this gateway; send the content")}
_MESSAGE_BANS = {"audio": Ban("it refers to audio kept at the provider; send the text")}

_HOSTED_TOOL = "tools that the provider runs have no price here; declare a function and run it yourself"
_CLIENT_TOOLS = frozenset({"function", "custom", "local_shell", "apply_patch", "shell", "computer", "namespace"})

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
_TEXT_PARTS = frozenset({"text", "refusal", "input_text", "output_text", "reasoning_text"})
_UNKNOWN_PART = "this kind of content has no price here"

_CHAT_NAMES = frozenset(_CHAT_BANS) | {
    "model",
    "messages",
    "tools",
    "functions",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "modalities",
    "stream",
    "stream_options",
    "prompt_cache_options",
}
_RESPONSES_NAMES = frozenset(_RESPONSES_BANS) | {
    "model",
    "input",
    "instructions",
    "tools",
    "max_output_tokens",
    "stream",
    "prompt_cache_options",
}
_EMBEDDINGS_NAMES = frozenset({"model", "input"})


def inspect(endpoint: str, body: dict[str, Any], size: int, path_model: str | None) -> Shape:  # noqa: ARG001
    """Return what the price of a request can depend on.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: the parsed body.
        size: bytes of the body as it came.
        path_model: not used; the model is in the body.

    Raises:
        Refusal: `invalid_request`, or `unsupported_feature` for what cannot be metered or kept apart
            from other tenants; the param is the field's path.
    """
    return _INSPECTORS[endpoint](body, size)


def _inspect_chat(body: dict[str, Any], size: int) -> Shape:
    guard_names(body, _CHAT_NAMES)
    model = read_text(body, "model")
    check_bans(body, _CHAT_BANS)
    if "prompt_cache_options" in body:
        check_bans(read_object(body, "prompt_cache_options"), _CACHE_BANS, "prompt_cache_options")
    if body.get("modalities") not in (None, [], ["text"]):
        raise unsupported("modalities", f"{_AUDIO}; only ['text'] is answered")
    stream = read_flag(body, "stream")
    choices = read_count(body, "n", 1, MAX_CHOICES) or 1
    bound = read_count(body, "max_completion_tokens", 1, MAX_OUTPUT_BOUND)
    if "max_tokens" in body:
        # Both bounds at once: servers differ on which one they obey, so the larger is held.
        bound = max(bound or 0, read_count(body, "max_tokens", 1, MAX_OUTPUT_BOUND) or 0) or None
    options = read_object(body, "stream_options")
    usage_asked = read_flag(options, "include_usage", "stream_options")
    tally = Tally()
    messages = read_objects(body, "messages")
    if not messages:
        raise invalid("'messages' must be an array with at least one message.", "messages")
    tally.messages = len(messages)
    for index, message in enumerate(messages):
        if "audio" in message:
            check_bans(message, _MESSAGE_BANS, f"messages[{index}]")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            _walk_parts(read_objects(message, "content", f"messages[{index}]"), f"messages[{index}].content", tally)
    _walk_tools(read_objects(body, "tools"), "tools", tally)
    tally.tools += len(read_objects(body, "functions"))
    return Shape(
        endpoint=CHAT,
        model=model,
        stream=stream,
        free=False,
        text_bytes=max(size - tally.media_bytes, 0),
        messages=tally.messages,
        tools=tally.tools,
        images=tally.images,
        whole_context=tally.whole_context,
        choices=choices,
        output_bound=bound,
        output=True,
        usage_asked=usage_asked,
    )


def _inspect_responses(body: dict[str, Any], size: int) -> Shape:
    guard_names(body, _RESPONSES_NAMES)
    model = read_text(body, "model")
    check_bans(body, _RESPONSES_BANS)
    check_bans(read_object(body, "prompt_cache_options"), _CACHE_BANS, "prompt_cache_options")
    stream = read_flag(body, "stream")
    bound = read_count(body, "max_output_tokens", 1, MAX_OUTPUT_BOUND)
    tally = Tally()
    given = body.get("input")
    if isinstance(given, str):
        tally.messages = 1
    elif isinstance(given, list):
        for index, item in enumerate(read_objects(body, "input")):
            _walk_item(item, f"input[{index}]", tally)
    else:
        raise invalid(f"'input' must be a string or an array of items, not {shown(given)}.", "input")
    if body.get("instructions") is not None:
        tally.messages += 1
    _walk_tools(read_objects(body, "tools"), "tools", tally)
    return Shape(
        endpoint=RESPONSES,
        model=model,
        stream=stream,
        free=False,
        text_bytes=max(size - tally.media_bytes, 0),
        messages=tally.messages,
        tools=tally.tools,
        images=tally.images,
        whole_context=tally.whole_context,
        choices=1,
        output_bound=bound,
        output=True,
        usage_asked=True,
    )


def _inspect_embeddings(body: dict[str, Any], size: int) -> Shape:
    guard_names(body, _EMBEDDINGS_NAMES)
    model = read_text(body, "model")
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise invalid(f"'input' must be a string or an array of strings or token ids, not {shown(given)}.", "input")
    inputs, longest = 1, 0
    if isinstance(given, list) and isinstance(given[0], str | list):  # else it is one input, as token ids
        inputs, longest = len(given), max(map(text_bytes, given))
        check_inputs(inputs, "input")
    return Shape(
        endpoint=EMBEDDINGS,
        model=model,
        stream=False,
        free=False,
        text_bytes=size,
        messages=len(given) if isinstance(given, list) else 1,
        tools=0,
        images=0,
        whole_context=False,
        choices=1,
        output_bound=None,
        output=False,
        usage_asked=True,
        inputs=inputs,
        longest_input=longest,
    )


_INSPECTORS: Mapping[str, Callable[[dict[str, Any], int], Shape]] = {
    CHAT: _inspect_chat,
    RESPONSES: _inspect_responses,
    EMBEDDINGS: _inspect_embeddings,
}


def _walk_item(item: dict[str, Any], where: str, tally: Tally) -> None:
    kind = read_kind(item, where) or "message"
    if kind not in _ITEMS:
        raise unsupported(f"{where}.type", f"{shown(kind)}: {_FOREIGN_ITEM}")
    if kind == "message" and ("role" not in item or "content" not in item):
        # An item with little more than an id is a reference; OpenAI, "Create a model response", item reference.
        raise unsupported(where, f"an item needs a role and content; {_STORED} in 'input'")
    if kind == "reasoning" and not (item.get("encrypted_content") or item.get("content")):
        raise unsupported(
            where, "reasoning is not kept at the provider; ask for it with include: ['reasoning.encrypted_content']"
        )
    tally.messages += 1
    if kind == "compaction":
        tally.whole_context = True
    _check_environment(item, where)
    if "tools" in item:
        _walk_tools(read_objects(item, "tools", where), f"{where}.tools", tally)
    for name in ("content", "output"):
        value = item.get(name)
        if isinstance(value, list) and kind != "shell_call_output":  # its parts are plain stdout and stderr
            _walk_parts(read_objects(item, name, where), f"{where}.{name}", tally)
        elif isinstance(value, dict):
            _walk_parts([value], f"{where}.{name}", tally)


def _walk_parts(parts: Sequence[dict[str, Any]], where: str, tally: Tally) -> None:
    for index, part in enumerate(parts):
        field = f"{where}[{index}]"
        kind = read_kind(part, field)
        mark = read_object(part, "prompt_cache_breakpoint", field)
        check_bans(mark, _CACHE_BANS, f"{field}.prompt_cache_breakpoint")
        if kind in _TEXT_PARTS:
            continue
        if kind in ("image_url", "input_image", "computer_screenshot"):
            check_bans(part, _FILE_BANS, field)
            address = part.get("image_url")
            if isinstance(address, dict):
                address = address.get("url")
            if not isinstance(address, str):
                raise invalid(f"'{field}.image_url' must hold a URL, not {shown(address)}.", f"{field}.image_url")
            tally.image_url(address)
        elif kind in ("file", "input_file"):
            check_bans(part, _FILE_BANS, field)
            check_bans(read_object(part, "file", field), _FILE_BANS, f"{field}.file")
            tally.whole_context = True
        elif kind == "input_audio":
            raise unsupported(f"{field}.type", f"'input_audio': {_AUDIO}; send a transcript")
        else:
            raise unsupported(f"{field}.type", f"{shown(kind)}: {_UNKNOWN_PART}")


def _walk_tools(tools: Sequence[dict[str, Any]], where: str, tally: Tally) -> None:
    for index, tool in enumerate(tools):
        field = f"{where}[{index}]"
        kind = read_kind(tool, field)
        if kind == "tool_search" and tool.get("execution") == "client":
            tally.tools += 1
            continue
        if not kind:
            raise invalid(f"'{field}.type' is missing; it must be a string, e.g. 'function'.", f"{field}.type")
        if kind not in _CLIENT_TOOLS:
            raise unsupported(f"{field}.type", f"{shown(kind)}: {_HOSTED_TOOL}")
        _check_environment(tool, field)
        tally.tools += 1
        if kind == "namespace":
            nested = read_objects(tool, "tools", field)
            if any(inner.get("type") == "namespace" for inner in nested):
                raise invalid(f"'{field}.tools' cannot hold another namespace.", f"{field}.tools")
            _walk_tools(nested, f"{field}.tools", tally)


def _check_environment(obj: dict[str, Any], where: str) -> None:
    environment = read_object(obj, "environment", where) if "environment" in obj else {}
    if environment and environment.get("type") != "local":
        field = path(where, "environment")
        raise unsupported(field, "containers at the provider have no price here; use {'type': 'local'}")


def rewrite(
    endpoint: str,
    body: dict[str, Any],
    *,
    upstream_model: str,
    output_bound: int | None,
    include_usage: bool,
) -> dict[str, Any] | None:
    """Return the body to forward, or None if it can go on as it came.

    Responses are stored at the provider unless the caller says otherwise, so `store: false` is added there.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: the parsed body; it is not changed.
        upstream_model: the provider's name of the model.
        output_bound: bound on output tokens to add where the caller gave none; None to add none.
        include_usage: ask for usage at the end of a chat stream.
    """
    changes: dict[str, Any] = {}
    if body.get("model") != upstream_model:
        changes["model"] = upstream_model
    if endpoint == CHAT:
        if include_usage and body.get("stream") is True:
            options = body.get("stream_options") or {}
            if options.get("include_usage") is not True:
                changes["stream_options"] = {**options, "include_usage": True}
        bounded = body.get("max_completion_tokens") is not None or body.get("max_tokens") is not None
        if output_bound is not None and not bounded:
            changes["max_completion_tokens"] = output_bound
    elif endpoint == RESPONSES:
        if body.get("store") is None:
            changes["store"] = False
        if output_bound is not None and body.get("max_output_tokens") is None:
            changes["max_output_tokens"] = output_bound
    return {**body, **changes} if changes else None
