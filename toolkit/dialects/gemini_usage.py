"""What an answer in Gemini's format says of its usage. Pure.

Google, "GenerateContentResponse", UsageMetadata: `promptTokenCount` includes cached tokens and excludes the results of
tools; thoughts are not part of `candidatesTokenCount`. A count of 0 is left out, as JSON mappings do. Some servers that
speak the format count thoughts as part of the candidates, or have no count for them: the total tells.
"""

from collections.abc import Mapping
from typing import Any

from toolkit.core.usage import Report, Usage
from toolkit.dialects.reading import count_of, objects_of, tokens_of


def usage_of(answer: Mapping[str, Any]) -> Report | None:
    """Return the usage that an answer, or a piece of a stream, reports; None if it reports none. Never raises."""
    usage = answer.get("usageMetadata")
    if not isinstance(usage, dict):
        return None
    input_faults: list[str] = []
    output_faults: list[str] = []
    prompt = tokens_of(usage, "promptTokenCount", input_faults)
    tools = tokens_of(usage, "toolUsePromptTokenCount", input_faults) or 0
    input_missing = prompt is None or bool(input_faults)
    cached = tokens_of(usage, "cachedContentTokenCount", input_faults) or 0
    made = tokens_of(usage, "candidatesTokenCount", output_faults)
    thoughts = tokens_of(usage, "thoughtsTokenCount", output_faults) or 0
    total = tokens_of(usage, "totalTokenCount", [])
    if prompt is None and made is None and total is None and not (input_faults or output_faults):
        return None
    total_in = (prompt or 0) + tools
    output_missing = bool(output_faults)
    output = (made or 0) + thoughts
    if made is None and not output_faults:
        output_missing = total is None or input_missing
        output = thoughts if output_missing else max((total or 0) - total_in, thoughts)
    elif made is not None and total and not (input_missing or output_missing):
        output = _output(prompt or 0, tools, made, thoughts, total, output_faults)
    if cached > total_in and not input_missing:
        input_faults.append("more tokens read from the cache than input")
    if any(count_of(part, "tokenCount") for part in _heard(usage)):
        input_faults.append("tokens of sound, which has no price of its own here")
    found = Usage(
        input_tokens=total_in,
        cached_input_tokens=min(cached, total_in),
        output_tokens=output,
        reasoning_tokens=min(thoughts, output),
    )
    return Report(found, (usage,), input_missing, output_missing, tuple(input_faults), tuple(output_faults))


def _heard(usage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is said of the input's tokens of sound; Google, "GenerateContentResponse", ModalityTokenCount."""
    return [part for part in objects_of(usage, "promptTokensDetails") if part.get("modality") == "AUDIO"]


def _output(prompt: int, tools: int, made: int, thoughts: int, total: int, faults: list[str]) -> int:
    """Return all output, by the reading of the counts that explains the total; else the dearer.

    The total may leave out what tools brought: its documentation names prompt, thoughts and candidates alone.
    """
    if total in (prompt + tools + made + thoughts, prompt + made + thoughts):
        return made + thoughts
    if thoughts <= made and total in (prompt + tools + made, prompt + made):
        return made
    faults.append("a total that no reading of the counts explains")
    return max(made + thoughts, total - prompt - tools)
