"""What an answer in OpenAI's format says of its usage, under whatever name and wherever its server says it. Pure.

Servers that speak this format agree on the two totals and on little else. Where a count may be:

- The whole object: `usage`; `x_groq.usage` (Groq, "Text chat", streaming); `choices[].usage` (Moonshot, "Chat
  completion", streaming); `timings`, with `cache_n`, `prompt_n` and `predicted_n` (llama.cpp, "HTTP server": only newer
  versions can be asked for a stream's usage).
- Input from the cache: `cached_tokens` of the details (OpenAI, "Prompt caching"; OpenRouter, vLLM, xAI);
  `prompt_cache_hit_tokens`, with `prompt_cache_miss_tokens` for the rest (DeepSeek, "Context caching");
  `cached_tokens` beside the details (Moonshot and Together, "Chat completions"); `cache_read_input_tokens` (relays of
  Anthropic's models).
- Input written to a cache: `cache_write_tokens` of the details (OpenAI and OpenRouter, "Prompt caching");
  `cache_creation_input_tokens`, of the details (Alibaba, "Context cache") or beside them (as relays
  of Anthropic's models do).
- Reasoning: `reasoning_tokens` of the details (OpenAI, "Reasoning"), or beside them (SGLang, "Reasoning parser";
  Perplexity, "Chat completions").

Whether cached input is part of the input, and reasoning part of the output, differs too (xAI, "Reasoning", and Google's
endpoint count it beside). The total decides; without one, parts are parts, unless they are larger than their whole.
"""

from collections.abc import Mapping
from typing import Any

from toolkit.core.usage import Report, Usage
from toolkit.dialects.reading import first_of, object_of, objects_of, tokens_of

_DOCUMENTED = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
"""OpenAI, "The chat completion object", usage."""

_INTEGERS = {int}
_NOTHING_READ = {"cached_tokens": 0}
_NO_REASONING = {"reasoning_tokens": 0}

_INPUT = ("prompt_tokens", "input_tokens")
_MISSED = ("prompt_cache_miss_tokens", "prompt_n")
_OUTPUT = ("completion_tokens", "output_tokens", "predicted_n")
_READ_PART = ("cached_tokens", "cache_read_tokens", "cache_read_input_tokens")
_READ = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens", "cache_n")
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_LIVES = ("cache_write_tokens_details", "cache_creation")
_OF_WRITES = frozenset(_WRITTEN + _LIVES)
_SHORT = ("ttl_30m_tokens", "ephemeral_5m_input_tokens")
_LONG = ("ttl_12h_tokens", "ephemeral_1h_input_tokens")


def usage_of(answer: Mapping[str, Any]) -> Report | None:
    """Return the usage that an answer, or an event of a stream, reports; None if it reports none. Never raises."""
    usage = _object(answer)
    if usage is None:
        return None
    return _as_documented(usage) or _weighed(usage)


def _as_documented(usage: dict[str, Any]) -> Report | None:
    """Return what a usage object says that is as OpenAI documents it, so that nothing has to be weighed; else None.

    Nearly all are, and each call has one: `_weighed` says the same in four times the time.
    """
    inputs = usage.get("prompt_tokens_details", _NOTHING_READ)
    outputs = usage.get("completion_tokens_details", _NO_REASONING)
    if not usage.keys() <= _DOCUMENTED or type(inputs) is not dict or type(outputs) is not dict:
        return None
    counts: tuple[Any, ...] = (
        usage.get("prompt_tokens"),
        inputs.get("cached_tokens"),
        usage.get("completion_tokens"),
        outputs.get("reasoning_tokens"),
        usage.get("total_tokens"),
    )
    if set(map(type, counts)) != _INTEGERS or not _OF_WRITES.isdisjoint(inputs):
        return None
    given, read, made, thought, total = counts
    if total != given + made or not 0 <= read <= given or not 0 <= thought <= made:
        return None
    return Report(Usage(given, read, 0, 0, made, thought), (usage,))


def _weighed(usage: dict[str, Any]) -> Report | None:
    """Return what a usage object says wherever its server says it; None if it says nothing."""
    input_faults: list[str] = []
    output_faults: list[str] = []
    given = first_of(usage, _INPUT, input_faults)
    made = first_of(usage, _OUTPUT, output_faults)
    missed = first_of(usage, _MISSED, []) if given is None else None
    if given is None and made is None and missed is None and not (input_faults or output_faults):
        return None
    inputs = object_of(usage, "prompt_tokens_details") or object_of(usage, "input_tokens_details")
    outputs = object_of(usage, "completion_tokens_details") or object_of(usage, "output_tokens_details")
    read = _count(inputs, _READ_PART, usage, _READ, input_faults)
    short, long = _written(inputs, usage, input_faults)
    if given is None and missed is not None:
        given = missed + read
    thought = _count(outputs, ("reasoning_tokens",), usage, ("reasoning_tokens",), output_faults)
    total_in, total_out = given or 0, made or 0
    if given is not None and made is not None:
        total = tokens_of(usage, "total_tokens", [])
        total_in, total_out = _whole(
            total_in, total_out, read + short + long, thought, total, input_faults, output_faults
        )
    read = min(read, total_in)
    long = min(long, total_in - read)
    found = Usage(
        input_tokens=total_in,
        cached_input_tokens=read,
        cache_write_5m_tokens=min(short, total_in - read - long),
        cache_write_1h_tokens=long,
        output_tokens=total_out,
        reasoning_tokens=min(thought, total_out),
    )
    return Report(found, (usage,), given is None, made is None, tuple(input_faults), tuple(output_faults))


def _object(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = answer.get("usage")
    if isinstance(usage, dict):
        return usage
    usage = object_of(answer, "x_groq").get("usage")
    if isinstance(usage, dict):
        return usage
    for choice in objects_of(answer, "choices"):
        usage = choice.get("usage")
        if isinstance(usage, dict):
            return usage
    return object_of(answer, "timings") or None


def _count(
    details: Mapping[str, Any],
    of_details: tuple[str, ...],
    usage: Mapping[str, Any],
    beside: tuple[str, ...],
    faults: list[str],
) -> int:
    """Return a part of the input or output, from the details or from beside them; 0 if it is not said."""
    found = first_of(details, of_details, faults) if details else None
    return (first_of(usage, beside, faults) or 0) if found is None else found


def _written(inputs: Mapping[str, Any], usage: Mapping[str, Any], faults: list[str]) -> tuple[int, int]:
    """Return the input written to a short-lived and to a long-lived cache: by their lives where these are said."""
    if _OF_WRITES.isdisjoint(inputs) and _OF_WRITES.isdisjoint(usage):  # as nearly always
        return 0, 0
    written = _count(inputs, _WRITTEN, usage, _WRITTEN[1:], faults)
    lives = object_of(inputs, _LIVES[0]) or object_of(inputs, _LIVES[1]) or object_of(usage, _LIVES[1])
    if not lives:
        return written, 0
    long = first_of(lives, _LONG, faults) or 0
    return max(first_of(lives, _SHORT, faults) or 0, written - long), long


def _whole(
    given: int,
    made: int,
    kept: int,
    thought: int,
    total: int | None,
    input_faults: list[str],
    output_faults: list[str],
) -> tuple[int, int]:
    """Return all input and all output, by the reading of the parts that explains the total; else by the dearest.

    Args:
        given: input as counted.
        made: output as counted.
        kept: input that was read from or written to a cache.
        thought: reasoning.
        total: of input and output; None, or 0, if it is not said.
        input_faults: gets a sentence if the input cannot be as it is said; so does output_faults of the output.
    """
    if kept <= given and thought <= made and (not total or total == given + made):
        return given, made
    if total == given + made:  # the parts are wrong, for the whole is confirmed
        if kept > given:
            input_faults.append("more tokens read from and written to the cache than input")
        if thought > made:
            output_faults.append("more reasoning tokens than output")
        return given, made
    if total:
        for all_input, all_output in ((given, made + thought), (given + kept, made), (given + kept, made + thought)):
            if all_input + all_output == total:
                return all_input, all_output
        output_faults.append("a total that no reading of the counts explains")
    if kept > given:
        input_faults.append("more tokens read from and written to the cache than input, counted beside it")
        given += kept
    if thought > made or (total and total > given + made):
        if thought > made:
            output_faults.append("more reasoning tokens than output, counted beside it")
        made = max(made + thought, (total or 0) - given)
    return given, made
