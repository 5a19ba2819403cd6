"""What a provider's error says of a bound on output that is too large for it. Pure.

Only sentences count that each of these servers makes in one form and begins with, as in `field_errors`.
"""

import re
from typing import Any, NamedTuple

from toolkit.gateway.account_faults import LONGEST_WORDS, words_of
from toolkit.gateway.field_errors import WRAPPED

_NAME = r"['\"`]?(?:max_tokens|max_completion_tokens|max_output_tokens)['\"`]?"
_BOUND, _WINDOW, _INPUT, _MOST = (rf"(?P<{what}>\d{{1,9}})" for what in ("bound", "window", "input", "most"))

# vLLM, now and before, which OpenAI said, too; OpenAI, before and now; Volcengine's Ark.
_SENTENCES = (
    (
        rf"{_NAME}(?: or {_NAME})? is too large: {_BOUND}\. this model's maximum context length is {_WINDOW} tokens "
        rf"and your request has {_INPUT} input tokens"
    ),
    (
        rf"this model's maximum context length is {_WINDOW} tokens\. however, you requested \d{{1,9}} tokens "
        rf"\({_INPUT} in the messages, {_BOUND} in the completion\)"
    ),
    rf"{_NAME} is too large: {_BOUND}\. this model supports at most {_MOST} completion tokens",
    rf"invalid {_NAME}: integer above maximum value\. expected a value <= {_MOST}, but got {_BOUND} instead",
    (
        rf"the parameter {_NAME} specified in the request are not valid: integer above maximum value, expected a value "
        rf"<= {_MOST}, but got {_BOUND} instead"
    ),
)
_FORMS = tuple(re.compile(rf"\W{{0,3}}{WRAPPED}{sentence}", re.IGNORECASE) for sentence in _SENTENCES)


class Fitting(NamedTuple):
    """What a provider would take in the place of a bound that is too large for it, in tokens.

    Args:
        bound: at least 1, and less than the one that was sent.
        limit: the name of the model's limit that it goes by, `max_output` or `context_window`.
        most: that limit.
    """

    bound: int
    limit: str
    most: int


def fitting(answer: Any, bound: int) -> Fitting | None:
    """Return what a provider would take in the place of a bound on output that is too large for it.

    Args:
        answer: the body of its error, parsed: an object, or the list of one.
        bound: that was sent, in tokens.

    Returns:
        None if the error is about something else, or the input alone is too long.
    """
    whole = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(whole, dict):
        return None
    words = (words_of(whole.get("error")) or words_of(whole))[:LONGEST_WORDS]
    said = next((match.groupdict() for form in _FORMS if (match := form.match(words))), None)
    if said is None or int(said["bound"]) != bound:
        return None
    if "most" in said:
        found = Fitting(int(said["most"]), "max_output", int(said["most"]))
    else:
        window = int(said["window"])
        found = Fitting(window - int(said["input"]), "context_window", window)
    return found if 0 < found.bound < bound else None
