"""What of each preset is tested by recordings, and why the rest is not."""

from tests.gateway.recorded.recording import Recording, recordings
from toolkit.providers.presets import PRESETS

ASPECTS = ("answer", "stream", "tools", "error", "usage")
"""A whole answer, a stream, a call of a function, an error's body, and usage as it is reported."""

_CALLS = ('"tool_calls":', '"tool_use"', '"functionCall"')

UNTESTED = {
    ("bedrock", "tools"): "its pages show no call of a function in this format",
    ("perplexity", "tools"): "its pages show no answer that calls a function",
    ("lm-studio", "error"): "its pages show no error's body",
}
"""Why a preset's aspect has no recording."""


def covered() -> dict[str, set[str]]:
    """Return the aspects of each preset that a recording plays through an upstream that is made by it."""
    found: dict[str, set[str]] = {name: set() for name in PRESETS}
    for one in recordings():
        if one.preset is not None:
            found[one.preset] |= set(_aspects(one))
    return found


def _aspects(one: Recording) -> list[str]:
    if one.path.stem.startswith("error-"):
        return ["error"]
    aspects = [{"whole": "answer", "stream": "stream"}[way] for way in one.ways]
    sent = [one.sent(way).body.decode().replace(" ", "") for way in one.ways]
    if any(mark in body for mark in _CALLS for body in sent):
        aspects.append("tools")
    charged = [one.expected(way).charged for way in one.ways]
    if any(part and part.get("source") != "estimated" and not part.get("doubt") for part in charged):
        aspects.append("usage")
    return aspects
