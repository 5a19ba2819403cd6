"""What a Gemini request asks for, as the Gemini API's REST reference has it.

Protocol buffers in JSON: a field may be spelled `cachedContent` or `cached_content`, and null means absent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.core.upstream_traits import USUAL, UpstreamTraits
from toolkit.dialects.body import (
    MAX_MODEL_LENGTH,
    MAX_OUTPUT_BOUND,
    check_inputs,
    check_objects,
    invalid,
    path,
    read_count,
    read_object,
    read_objects,
    shown,
    text_bytes,
    unsupported,
)
from toolkit.dialects.fields import snake_case
from toolkit.dialects.gemini_fields import BODY, PART
from toolkit.dialects.shape import Shape, Tally, refuse_sound

GENERATE = "generateContent"
STREAM = "streamGenerateContent"
COUNT_TOKENS = "countTokens"
EMBED = "embedContent"
BATCH_EMBED = "batchEmbedContents"
ENDPOINTS: tuple[str, ...] = (GENERATE, STREAM, COUNT_TOKENS, EMBED, BATCH_EMBED)

_MOST_FRAMES = 24
_MOST_DIGITS = 10

_PREDEFINED = 16
"""Functions that `computerUse` declares; Google, "Computer Use", supported actions, has 13."""

MAX_CANDIDATES = 8
"""The largest `candidateCount`; Google, "Generating content", GenerationConfig."""

_READ = (
    *("contents", "content", "systemInstruction", "tools", "functionDeclarations", "generationConfig", "parts"),
    *("generateContentRequest", "candidateCount", "maxOutputTokens", "responseModalities", "responseFormat"),
    *("inlineData", "mimeType", "functionResponse", "mediaResolution", "numTokens", "videoMetadata"),
    "computerUse",
    *("thinkingConfig", "thinkingBudget", "thinkingLevel"),
)
_SNAKE = {name: snake_case(name) for name in _READ}


def _spelled(obj: Mapping[str, Any], name: str, where: str) -> str:
    """Return the spelling of `name` that an object uses.

    Raises:
        Refusal: it uses both, which is one field given twice.
    """
    snake = _SNAKE[name]
    if snake == name or snake not in obj:
        return name
    if name in obj:
        raise invalid(f"'{path(where, name)}' and '{path(where, snake)}' are the same field.", path(where, name))
    return snake


def _object(obj: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    return read_object(obj, _spelled(obj, name, where), where)


def _objects(obj: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """Return an array of objects; one object alone counts as an array of one, as Google's reader takes it."""
    value = obj.get(_spelled(obj, name, where))
    if value is None:
        return []
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise invalid(f"'{path(where, name)}' must be an array, not {shown(value)}.", path(where, name))
    return check_objects(value, path(where, name))


def inspect(endpoint: str, body: dict[str, Any], size: int, path_model: str | None) -> Shape:
    """Return what the price of a request can depend on.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: the parsed body.
        size: bytes of the body as it came.
        path_model: the model in the request's path.

    Raises:
        Refusal: `invalid_request`, or `unsupported_feature` for what cannot be metered or kept apart
            from other tenants; the param is the field's path.
    """
    model = (path_model or "").removeprefix("models/")
    if not 0 < len(model) <= MAX_MODEL_LENGTH or not model.isprintable():
        raise invalid(
            f"The path must name a model in 1 to {MAX_MODEL_LENGTH} printable characters: models/{{model}}:{endpoint}.",
            "model",
        )
    unknown: list[str] = []
    BODY.check(body, "", unknown)
    tally = Tally()
    choices, bound, inputs, longest = 1, None, 1, 0
    if endpoint == BATCH_EMBED:
        requests = read_objects(body, "requests")
        if not requests:
            raise invalid("'requests' must be an array with at least one request.", "requests")
        check_inputs(len(requests), "requests")
        inputs = len(requests)
        for index, request in enumerate(requests):
            before = tally.media_bytes
            _walk_request(request, f"requests[{index}]", model, tally)
            longest = max(longest, text_bytes(request) - (tally.media_bytes - before))
    else:
        choices, bound = _walk_request(body, "", model, tally)
        inner = _object(body, "generateContentRequest", "")
        if inner:
            _walk_request(inner, "generateContentRequest", model, tally)
    generates = endpoint in (GENERATE, STREAM)
    return Shape(
        endpoint=endpoint,
        model=model,
        stream=endpoint == STREAM,
        free=endpoint == COUNT_TOKENS,
        text_bytes=max(size - tally.media_bytes, 0),
        messages=tally.messages,
        tools=tally.tools,
        media=tally.media,
        whole_context=tally.whole_context,
        choices=choices if generates else 1,
        output_bound=bound if generates else None,
        output=generates,
        usage_asked=True,
        inputs=inputs,
        longest_input=longest,
        unknown=tuple(unknown),
        reasoning=_thinks(body) if generates else None,
    )


def _thinks(body: dict[str, Any]) -> bool | None:
    """Return whether thinking is asked for; None where the request does not say. Google, "Gemini thinking"."""
    where = "generationConfig"
    config = _object(_object(body, "generationConfig", ""), "thinkingConfig", where)
    budget = config.get(_spelled(config, "thinkingBudget", f"{where}.thinkingConfig"))
    if budget is not None:
        return budget not in (0, "0")
    level = config.get(_spelled(config, "thinkingLevel", f"{where}.thinkingConfig"))
    return None if level is None else True


def _walk_request(request: dict[str, Any], where: str, model: str, tally: Tally) -> tuple[int, int | None]:
    """Count one request; return its candidates and its bound on output tokens."""
    named = request.get("model")
    if named is not None and named not in (model, f"models/{model}"):
        field = path(where, "model")
        raise invalid(f"'{field}' must be the model of the path, 'models/{model}', not {shown(named)}.", field)
    in_config = _spelled(request, "generationConfig", where)
    config = read_object(request, in_config, where)
    resolution = config.get(_spelled(config, "mediaResolution", path(where, in_config)))
    for name in ("contents", "content", "systemInstruction"):
        spelled = _spelled(request, name, where)
        if isinstance(request.get(spelled), str):
            tally.messages += 1
            continue
        for index, content in enumerate(_objects(request, name, where)):
            tally.messages += 1
            field = path(where, f"{spelled}[{index}]" if name == "contents" else spelled)
            _walk_parts(_objects(content, "parts", field), f"{field}.parts", resolution, tally)
    for index, tool in enumerate(_objects(request, "tools", where)):
        field = path(where, f"tools[{index}]")
        tally.tools += len(_objects(tool, "functionDeclarations", field))
        if tool.get(_spelled(tool, "computerUse", field)) is not None:
            tally.tools += _PREDEFINED
    return _read_config(config, path(where, in_config))


def _read_config(config: dict[str, Any], where: str) -> tuple[int, int | None]:
    modalities = config.get(_spelled(config, "responseModalities", where))
    for modality in modalities if isinstance(modalities, list) else [modalities]:
        if modality is not None and (not isinstance(modality, str) or modality.upper() != "TEXT"):
            raise unsupported(
                path(where, _spelled(config, "responseModalities", where)),
                f"{shown(modality)} has no price here; only 'TEXT' is answered",
            )
    for index, wanted in enumerate(_objects(config, "responseFormat", where)):
        for name in wanted:
            if name != "text" and wanted[name] is not None:
                raise unsupported(f"{where}.responseFormat[{index}].{name[:64]}", "only text has a price here")
    choices = _count(config, "candidateCount", MAX_CANDIDATES, where)
    return choices or 1, _count(config, "maxOutputTokens", MAX_OUTPUT_BOUND, where)


def _count(config: Mapping[str, Any], name: str, most: int, where: str) -> int | None:
    """Return a number of things; it may be written `8`, `8.0` or `"8"`; Protocol Buffers, "ProtoJSON format", int32."""
    spelled = _spelled(config, name, where)
    value = config.get(spelled)
    if (isinstance(value, float) and value.is_integer()) or (
        isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
    ):
        config = {spelled: int(value)}
    return read_count(config, spelled, 1, most, where)


def _walk_parts(parts: Sequence[dict[str, Any]], where: str, resolution: object, tally: Tally) -> None:
    for index, part in enumerate(parts):
        if len(part) == 1 and "text" in part:
            continue
        field = f"{where}[{index}]"
        PART.refuse(part, field)
        blob = _object(part, "inlineData", field)
        if blob:
            inline = f"{field}.{_spelled(part, 'inlineData', field)}"
            _count_blob(part, blob, field, inline, resolution, tally)
        answer = _object(part, "functionResponse", field)
        if answer:
            inner = f"{field}.{_spelled(part, 'functionResponse', field)}"
            _walk_parts(_objects(answer, "parts", inner), f"{inner}.parts", resolution, tally)


def _count_blob(
    part: dict[str, Any], blob: dict[str, Any], where: str, inline: str, resolution: object, tally: Tally
) -> None:
    kind, data = blob.get(_spelled(blob, "mimeType", inline)), blob.get("data")
    own = part.get(_spelled(part, "mediaResolution", where))
    if isinstance(own, dict):
        tally.whole_context = tally.whole_context or own.get(_spelled(own, "numTokens", where)) is not None
        own = own.get("level")
    medium = tally.blob(
        kind if isinstance(kind, str) else "",
        data if isinstance(data, str) else "",
        detail=_level(resolution if own is None else own),
        frames=_frames(_object(part, "videoMetadata", where)),
        url_safe=True,
    )
    refuse_sound(medium, inline)


def _level(resolution: object) -> object:
    """Return a media resolution as the table of media has it."""
    if not isinstance(resolution, str):
        return resolution
    level = resolution.lower().removeprefix("media_resolution_")
    return None if level in ("", "unspecified") else level


def _frames(metadata: Mapping[str, Any]) -> int:
    """Return the frames looked at in 1,000 seconds; Google, "Video understanding": one a second, 24 at most."""
    rate = metadata.get("fps")
    if rate is None:
        return 1_000
    if not isinstance(rate, int | float) or isinstance(rate, bool) or rate <= 0:
        return 1_000 * _MOST_FRAMES
    return round(1_000 * min(rate, _MOST_FRAMES))


def rewrite(
    endpoint: str,
    body: dict[str, Any],
    *,
    upstream_model: str,
    output_bound: int | None,
    include_usage: bool,  # noqa: ARG001
    leave_out_unknown: bool = False,
    service_tier: str | None = None,  # noqa: ARG001 - the standard one serves unless another is named
    traits: UpstreamTraits = USUAL,  # noqa: ARG001 - they speak of OpenAI's fields
) -> dict[str, Any] | None:
    """Return the body to forward, or None if it can go on as it came.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: the parsed body; it is not changed.
        upstream_model: the provider's name of the model, for bodies that repeat the path's.
        output_bound: bound on output tokens to add where the caller gave none; None to add none.
        include_usage: not used; streams carry usage.
        leave_out_unknown: drop the fields that no table has.
    """
    known = BODY.strip(body) if leave_out_unknown else body
    full = f"models/{upstream_model.removeprefix('models/')}"
    changes = _renamed(known, full)
    for name in ("generateContentRequest", "generate_content_request"):
        if isinstance(known.get(name), dict) and (inner := _renamed(known[name], full)):
            changes[name] = {**known[name], **inner}
    requests = known.get("requests")
    if endpoint == BATCH_EMBED and isinstance(requests, list):
        renamed = [{**request, **_renamed(request, full)} for request in requests]
        if renamed != requests:
            changes["requests"] = renamed
    if output_bound is not None and endpoint in (GENERATE, STREAM):
        key = "generation_config" if "generation_config" in known else "generationConfig"
        config = known.get(key) or {}
        given = [config.get(name) for name in ("maxOutputTokens", "max_output_tokens")]
        if given == [None, None]:
            kept = {name: value for name, value in config.items() if name != "max_output_tokens"}
            changes[key] = {**kept, "maxOutputTokens": output_bound}
    return {**known, **changes} if changes or known is not body else None


def _renamed(request: dict[str, Any], full: str) -> dict[str, Any]:
    return {"model": full} if request.get("model") not in (None, full) else {}
