"""What an Anthropic request asks for: the Messages API, as its reference has it."""

from collections.abc import Iterator, Sequence
from typing import Any

from toolkit.core.upstream_traits import USUAL, UpstreamTraits
from toolkit.dialects.anthropic_fields import BETAS_IN_BODY, BLOCK, BODY, FOREIGN_BLOCK, MESSAGE, SOURCE, STORED, TOOLS
from toolkit.dialects.body import (
    MAX_OUTPUT_BOUND,
    invalid,
    read_count,
    read_flag,
    read_kind,
    read_messages,
    read_object,
    read_objects,
    read_text,
    shown,
    unsupported,
)
from toolkit.dialects.headers import Betas, read_betas
from toolkit.dialects.media import Kind
from toolkit.dialects.shape import Shape, Tally, Window, refuse_sound

MESSAGES = "messages"
COUNT_TOKENS = "messages/count_tokens"
ENDPOINTS: tuple[str, ...] = (MESSAGES, COUNT_TOKENS)

_TEXT_BLOCKS = frozenset(
    {
        *("text", "thinking", "redacted_thinking", "tool_use", "tool_reference", "browser_state"),
        "connector_text",  # among the blocks that Claude Code knows; it holds text
        "fallback",  # says where another model went on, and is no part of the prompt
    }
)
_HOLDERS = frozenset({"tool_result", "search_result"})
_TOOL_CHANGES = frozenset({"tool_addition", "tool_removal"})


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
    unknown: list[str] = []
    BODY.check(body, "", unknown)
    window: Window | None = None
    for name, betas in _betas(body):
        unknown += [f"{name}={beta}" for beta in betas.unknown]
        window = betas.window or window
    model = read_text(body, "model")
    free = endpoint == COUNT_TOKENS
    bound = read_count(body, "max_tokens", 0, MAX_OUTPUT_BOUND)
    if bound is None and not free:
        raise invalid("'max_tokens' is missing; it must be an integer; 0 only fills the cache.", "max_tokens")
    stream = read_flag(body, "stream") and not free
    tally = Tally(whole_context=BODY.whole_context(body))
    _check_cache_control(body, "", tally)
    messages = read_messages(body)
    tally.messages = len(messages)
    for index, message in enumerate(messages):
        if not MESSAGE.fine(message):
            MESSAGE.refuse(message, f"messages[{index}]")
        if not isinstance(message.get("content"), str):
            where = f"messages[{index}]"
            _walk_blocks(read_objects(message, "content", where), f"{where}.content", tally)
    if body.get("system") is not None:
        tally.messages += 1
        if not isinstance(body["system"], str):
            _walk_blocks(read_objects(body, "system"), "system", tally)
    _walk_tools(read_objects(body, "tools"), tally)
    return Shape(
        endpoint=endpoint,
        model=model,
        stream=stream,
        free=free,
        text_bytes=max(size - tally.media_bytes, 0),
        messages=tally.messages,
        tools=tally.tools,
        media=tally.media,
        whole_context=tally.whole_context,
        choices=1,
        output_bound=None if free else bound,
        output=not free,
        usage_asked=True,
        window=window,
        long_cache=tally.long_cache,
        unknown=tuple(unknown),
        # Anthropic, "Service tiers": "auto", which is the default, takes the priority tier where the account has one.
        standard_tier="standard_only" if not free and body.get("service_tier") in (None, "auto") else "",
        reasoning=_thinks(body),
    )


def _thinks(body: dict[str, Any]) -> bool | None:
    """Return whether thinking is asked for; None where the request does not say. Anthropic, "Extended thinking"."""
    kind = read_object(body, "thinking").get("type")
    return None if kind is None else kind != "disabled"


def _betas(body: dict[str, Any]) -> Iterator[tuple[str, Betas]]:
    """Yield the betas that the body names, as Vertex and Bedrock have it, by field."""
    for name in BETAS_IN_BODY:
        if (values := body.get(name)) is not None:
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise invalid(f"'{name}' must be an array of strings, not {shown(values)}.", name)
            yield name, read_betas("anthropic-beta", ",".join(values))


def _check_cache_control(obj: dict[str, Any], where: str, tally: Tally) -> None:
    if obj.get("cache_control") is None:
        return
    control = read_object(obj, "cache_control", where)
    ttl = control.get("ttl")
    if ttl not in (None, "5m", "1h"):
        field = f"{where}.cache_control.ttl" if where else "cache_control.ttl"
        raise invalid(f"'{field}' must be '5m' or '1h', not {shown(ttl)}.", field)
    tally.long_cache = tally.long_cache or ttl == "1h"


def _walk_blocks(blocks: Sequence[dict[str, Any]], where: str, tally: Tally) -> None:
    for index, block in enumerate(blocks):
        field = f"{where}[{index}]"
        kind = read_kind(block, field)
        if not BLOCK.fine(block):
            BLOCK.refuse(block, field)
        _check_cache_control(block, field, tally)
        if kind in _TEXT_BLOCKS:
            continue
        if kind == "image":
            _walk_source(block, field, Kind.PICTURE, tally)
        elif kind == "document":
            _walk_source(block, field, Kind.PDF, tally)
            tally.whole_context = True
        elif kind in _TOOL_CHANGES:
            _walk_tool_change(read_object(block, "tool", field), f"{field}.tool", tally)
        elif kind in _HOLDERS:
            if not isinstance(block.get("content"), str):
                _walk_blocks(read_objects(block, "content", field), f"{field}.content", tally)
        else:
            raise unsupported(f"{field}.type", f"{shown(kind)}: {FOREIGN_BLOCK}")


def _walk_tool_change(tool: dict[str, Any], where: str, tally: Tally) -> None:
    """Look at a tool that is added, or taken away, in the middle of a conversation; Anthropic, "Create a Message"."""
    kind = read_kind(tool, where)
    if kind == "tool_definition":
        defined = read_object(tool, "definition", where)
        TOOLS.check(defined, f"{where}.definition", [])
        _walk_tools([defined], tally)
    elif kind != "tool_reference":
        raise unsupported(f"{where}.type", f"{shown(kind)}: {FOREIGN_BLOCK}")


def _walk_source(block: dict[str, Any], where: str, medium: Kind, tally: Tally) -> None:
    field = f"{where}.source"
    source = read_object(block, "source", where)
    SOURCE.refuse(source, field)
    kind = read_kind(source, field)
    data = source.get("data")
    if kind == "base64" and isinstance(data, str):
        media_type = source.get("media_type")
        refuse_sound(tally.blob(media_type if isinstance(media_type, str) else "", data), f"{field}.data")
    elif kind == "url":
        tally.by_url(medium)
    elif kind == "text":
        pass
    elif kind == "content":
        if not isinstance(source.get("content"), str):
            _walk_blocks(read_objects(source, "content", field), f"{field}.content", tally)
    elif kind == "file":
        raise unsupported(f"{field}.type", f"'file': {STORED}")
    else:
        raise invalid(
            f"'{field}.type' must be 'base64', 'url', 'text' or 'content', not {shown(kind)}.", f"{field}.type"
        )


def _walk_tools(tools: Sequence[dict[str, Any]], tally: Tally) -> None:
    tally.tools += len(tools)
    for index, tool in enumerate(tools):
        if "cache_control" in tool:
            _check_cache_control(tool, f"tools[{index}]", tally)


def rewrite(
    endpoint: str,  # noqa: ARG001
    body: dict[str, Any],
    *,
    upstream_model: str,
    output_bound: int | None,  # noqa: ARG001
    include_usage: bool,  # noqa: ARG001
    leave_out_unknown: bool = False,
    service_tier: str | None = None,
    traits: UpstreamTraits = USUAL,  # noqa: ARG001 - they speak of OpenAI's fields
) -> dict[str, Any] | None:
    """Return the body to forward, or None if it can go on as it came.

    The model's name is changed, the `service_tier` is if one is given, and what no table has is dropped where
    `leave_out_unknown` says so.
    """
    known = body
    if leave_out_unknown:
        known = BODY.strip(body)
        for name, betas in _betas(body):
            if betas.unknown:
                known = {**known, name: betas.known.split(",") if betas.known else []}
    changes = {} if body.get("model") == upstream_model else {"model": upstream_model}
    if service_tier is not None:
        changes["service_tier"] = service_tier
    return {**known, **changes} if changes or known is not body else None
