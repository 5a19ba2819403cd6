"""What an OpenAI request asks for: Chat Completions, Responses and Embeddings, as the API reference has them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolkit.core.upstream_traits import USUAL, OutputBound, UpstreamTraits
from toolkit.dialects.body import (
    MAX_OUTPUT_BOUND,
    check_inputs,
    invalid,
    path,
    read_count,
    read_flag,
    read_kind,
    read_messages,
    read_object,
    read_objects,
    read_text,
    shown,
    text_bytes,
    unsupported,
)
from toolkit.dialects.chat_bounds import OTHERS, other_bound, with_bound_as, word_of
from toolkit.dialects.fields import AUDIO
from toolkit.dialects.media import Kind
from toolkit.dialects.openai_fields import (
    BODIES,
    BREAKPOINT,
    CHAT,
    COMPACTION,
    EMBEDDINGS,
    HOSTED_TOOL,
    ITEM,
    MESSAGE,
    PART,
    PICTURE,
    RESPONSES,
    STORED,
    TOOLS,
)
from toolkit.dialects.shape import Shape, Tally, Window, refuse_sound
from toolkit.dialects.unseen_reasoning import OPENAI_REASONS, openai_asks

ENDPOINTS: tuple[str, ...] = tuple(BODIES)

ENCRYPTED = "reasoning.encrypted_content"
"""Of `include`: reasoning that the caller keeps, where nothing is stored; OpenAI, "Reasoning", encrypted reasoning."""

MAX_CHOICES = 128
"""The largest `n`; OpenAI, "Create chat completion"."""

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


def inspect(endpoint: str, body: dict[str, Any], size: int, path_model: str | None) -> Shape:
    """Return what the price of a request can depend on.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: the parsed body.
        size: bytes of the body as it came.
        path_model: the model in the request's path, which Azure has there; it goes before the body's.

    Raises:
        Refusal: `invalid_request`, or `unsupported_feature` for what cannot be metered or kept apart
            from other tenants; the param is the field's path.
    """
    return _INSPECTORS[endpoint](body if path_model is None else {**body, "model": path_model}, size)


_SELDOM = frozenset({"n", "stream_options", "thinking_budget", "tools", "functions"})
"""Fields of a chat that simple ones have not: these are read at once."""


def _inspect_chat(body: dict[str, Any], size: int) -> Shape:
    unknown: list[str] = []
    BODIES[CHAT].check(body, "", unknown)
    model = read_text(body, "model")
    stream = read_flag(body, "stream")
    choices, usage_asked, beside = 1, False, 0
    tally = Tally(whole_context=BODIES[CHAT].whole_context(body))
    bound = read_count(body, "max_completion_tokens", 1, MAX_OUTPUT_BOUND)
    if "max_tokens" in body:
        # Both bounds at once: servers differ on which one they obey, so the larger is held.
        bound = max(bound or 0, read_count(body, "max_tokens", 1, MAX_OUTPUT_BOUND) or 0) or None
    window: Window | None = None
    if not OTHERS.isdisjoint(body):
        bound = max(bound or 0, other_bound(body) or 0) or None
        context = read_count(read_object(body, "options"), "num_ctx", 1, MAX_OUTPUT_BOUND, "options")
        window = Window(context, "options.num_ctx") if context else None
    if not _SELDOM.isdisjoint(body):
        choices = read_count(body, "n", 1, MAX_CHOICES) or 1
        usage_asked = read_flag(read_object(body, "stream_options"), "include_usage", "stream_options")
        beside = read_count(body, "thinking_budget", 0, MAX_OUTPUT_BOUND) or 0
        _walk_tools(read_objects(body, "tools"), "tools", tally)
        tally.tools += len(read_objects(body, "functions"))
    messages = read_messages(body)
    tally.messages = len(messages)
    for index, message in enumerate(messages):
        if not MESSAGE.fine(message):
            MESSAGE.refuse(message, f"messages[{index}]")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            _walk_parts(read_objects(message, "content", f"messages[{index}]"), f"messages[{index}].content", tally)
    return Shape(
        endpoint=CHAT,
        model=model,
        stream=stream,
        free=False,
        text_bytes=max(size - tally.media_bytes, 0),
        messages=tally.messages,
        tools=tally.tools,
        media=tally.media,
        whole_context=tally.whole_context,
        choices=choices,
        output_bound=bound,
        output=True,
        usage_asked=usage_asked,
        beside=beside,
        window=window,
        unknown=tuple(unknown),
        standard_tier=_standard_tier(body),
        reasoning=openai_asks(body),
    )


def _inspect_responses(body: dict[str, Any], size: int, endpoint: str = RESPONSES) -> Shape:
    unknown: list[str] = []
    BODIES[endpoint].check(body, "", unknown)
    model = read_text(body, "model")
    stream = read_flag(body, "stream")
    bound = read_count(body, "max_output_tokens", 1, MAX_OUTPUT_BOUND)
    tally = Tally(whole_context=BODIES[endpoint].whole_context(body), compacts=endpoint == COMPACTION)
    given = body.get("input")
    if isinstance(given, str):
        tally.messages = 1
    elif isinstance(given, list):
        for index, item in enumerate(read_objects(body, "input")):
            _walk_item(item, f"input[{index}]", tally)
    else:
        raise invalid(f"'input' must be a string or an array of items, not {shown(given)}.", "input")
    instructions = body.get("instructions")
    if instructions is not None:
        if not isinstance(instructions, str):  # items, as an answer may have them, would not have been looked at
            raise invalid(f"'instructions' must be a string, not {shown(instructions)}.", "instructions")
        tally.messages += 1
    _walk_tools(read_objects(body, "tools"), "tools", tally)
    return Shape(
        endpoint=endpoint,
        may_be_cut=False,
        compacts=tally.compacts,
        model=model,
        stream=stream,
        free=False,
        text_bytes=max(size - tally.media_bytes, 0),
        messages=tally.messages,
        tools=tally.tools,
        media=tally.media,
        whole_context=tally.whole_context,
        choices=1,
        output_bound=None if tally.compacts else bound,
        output=True,
        usage_asked=True,
        beside=read_count(body, "thinking_budget", 0, MAX_OUTPUT_BOUND) or 0,
        unknown=tuple(unknown),
        standard_tier=_standard_tier(body),
        reasoning=tally.compacts or openai_asks(body),  # a summary is sealed, so it is made unseen
    )


def _inspect_compaction(body: dict[str, Any], size: int) -> Shape:
    return _inspect_responses(body, size, COMPACTION)


def _standard_tier(body: dict[str, Any]) -> str:
    """Return what asks for the standard tier; empty where it is asked for.

    Who sends none, or "auto", gets what the account is set to; OpenAI, "Create chat completion", service_tier.
    """
    return "default" if body.get("service_tier") in (None, "auto") else ""


def _inspect_embeddings(body: dict[str, Any], size: int) -> Shape:
    unknown: list[str] = []
    BODIES[EMBEDDINGS].check(body, "", unknown)
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
        media={},
        whole_context=BODIES[EMBEDDINGS].whole_context(body),
        choices=1,
        output_bound=None,
        output=False,
        usage_asked=True,
        inputs=inputs,
        longest_input=longest,
        unknown=tuple(unknown),
    )


_INSPECTORS: Mapping[str, Callable[[dict[str, Any], int], Shape]] = {
    CHAT: _inspect_chat,
    RESPONSES: _inspect_responses,
    COMPACTION: _inspect_compaction,
    EMBEDDINGS: _inspect_embeddings,
}


def _walk_item(item: dict[str, Any], where: str, tally: Tally) -> None:
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
        _walk_tools(tools, f"{where}.tools", tally)
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


def _walk_tools(tools: Sequence[dict[str, Any]], where: str, tally: Tally) -> None:
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
    leave_out_unknown: bool = False,
    service_tier: str | None = None,
    traits: UpstreamTraits = USUAL,
) -> dict[str, Any] | None:
    """Return the body to forward, or None if it can go on as it came.

    Responses are stored at the provider unless the caller says otherwise, so `store: false` is added there. A model
    that reasons is then asked for its reasoning in encrypted form, without which the next turn cannot send it back.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: the parsed body; it is not changed.
        upstream_model: the provider's name of the model.
        output_bound: bound on output tokens to add where the caller gave none; None to add none.
        include_usage: ask for usage at the end of a chat stream.
        leave_out_unknown: drop the fields that no table has.
        service_tier: the tier to ask for; None leaves it as it is.
        traits: what is known of the upstream: which fields may be added, and how a chat's bound is called.
    """
    known = BODIES[endpoint].strip(body) if leave_out_unknown else body
    changes: dict[str, Any] = {}
    if body.get("model") != upstream_model:
        changes["model"] = upstream_model
    if service_tier is not None:
        changes["service_tier"] = service_tier
    if endpoint == CHAT:
        if not traits.add_stream_options:
            known = _without("stream_options", known)
        elif include_usage and body.get("stream") is True:
            options = known.get("stream_options") or {}
            if options.get("include_usage") is not True:
                changes["stream_options"] = {**options, "include_usage": True}
        bounded = body.get("max_completion_tokens") is not None or body.get("max_tokens") is not None
        # A bound under another name is said again in OpenAI's own word: many servers know no other.
        if not bounded and (bound := output_bound or other_bound(body)) is not None:
            changes[word_of(traits)] = bound
        if traits.output_bound is not OutputBound.EITHER:
            known = with_bound_as(word_of(traits), known)
    elif endpoint == RESPONSES:
        if body.get("store") is None and traits.add_store:
            changes["store"] = False
            reasons = traits.add_include and _reasons(body, upstream_model)
            if reasons and ENCRYPTED not in (included := _included(body)):
                changes["include"] = [*included, ENCRYPTED]
        if output_bound is not None and body.get("max_output_tokens") is None:
            changes["max_output_tokens"] = output_bound
    return {**known, **changes} if changes or known is not body else None


def _without(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without a field that its upstream refuses; the body itself if it has none."""
    return {field: value for field, value in body.items() if field != name} if name in body else body


def _reasons(body: dict[str, Any], upstream_model: str) -> bool:
    """Whether a model of OpenAI's will reason; others refuse to be asked for what they reasoned."""
    effort = read_object(body, "reasoning").get("effort")
    return effort != "none" and (effort is not None or OPENAI_REASONS.match(upstream_model) is not None)


def _included(body: dict[str, Any]) -> list[Any]:
    include = body.get("include")
    return include if isinstance(include, list) else []
