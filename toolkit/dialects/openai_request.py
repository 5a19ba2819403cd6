"""What an OpenAI request asks for: Chat Completions, Responses and Embeddings, as the API reference has them."""

from collections.abc import Callable, Mapping
from typing import Any

from toolkit.core.upstream_traits import USUAL, OutputBound, UpstreamTraits
from toolkit.dialects.body import (
    MAX_OUTPUT_BOUND,
    check_inputs,
    invalid,
    read_count,
    read_flag,
    read_messages,
    read_object,
    read_objects,
    read_text,
    shown,
    text_bytes,
)
from toolkit.dialects.chat_bounds import OTHERS, other_bound, with_bound_as, word_of
from toolkit.dialects.openai_fields import BODIES, CHAT, COMPACTION, EMBEDDINGS, MESSAGE, RESPONSES
from toolkit.dialects.openai_items import walk_item, walk_parts, walk_tools
from toolkit.dialects.shape import Shape, Tally, Window
from toolkit.dialects.unseen_reasoning import OPENAI_REASONS, openai_asks

ENDPOINTS: tuple[str, ...] = tuple(BODIES)

ENCRYPTED = "reasoning.encrypted_content"
"""Of `include`: reasoning that the caller keeps, where nothing is stored; OpenAI, "Reasoning", encrypted reasoning."""

MAX_CHOICES = 128
"""The largest `n`; OpenAI, "Create chat completion"."""


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
        walk_tools(read_objects(body, "tools"), "tools", tally)
        tally.tools += len(read_objects(body, "functions"))
    messages = read_messages(body)
    tally.messages = len(messages)
    for index, message in enumerate(messages):
        if not MESSAGE.fine(message):
            MESSAGE.refuse(message, f"messages[{index}]")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            walk_parts(read_objects(message, "content", f"messages[{index}]"), f"messages[{index}].content", tally)
    text_bytes = max(size - tally.media_bytes, 0)
    # The first by position: Python 3.11 makes a dictionary of a class's keywords, for every call.
    shape = Shape(
        CHAT,
        model,
        stream,
        False,
        text_bytes,
        tally.messages,
        tally.tools,
        tally.media,
        tally.whole_context,
        choices,
        bound,
        True,
        usage_asked,
    )
    shape.beside = beside
    shape.window = window
    shape.unknown = tuple(unknown)
    shape.standard_tier = _standard_tier(body)
    shape.reasoning = openai_asks(body)
    return shape


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
            walk_item(item, f"input[{index}]", tally)
    else:
        raise invalid(f"'input' must be a string or an array of items, not {shown(given)}.", "input")
    instructions = body.get("instructions")
    if instructions is not None:
        if not isinstance(instructions, str):  # items, as an answer may have them, would not have been looked at
            raise invalid(f"'instructions' must be a string, not {shown(instructions)}.", "instructions")
        tally.messages += 1
    walk_tools(read_objects(body, "tools"), "tools", tally)
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
