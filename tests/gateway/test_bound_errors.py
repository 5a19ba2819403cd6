"""The bound on output that fits is read from errors about one that is too large, in each server's own form."""

from typing import Any

import pytest

from tests.gateway.picky import openai
from toolkit.gateway.bound_errors import Fitting, fitting


def in_window(asked: int, of_input: int, bound: int) -> str:
    """Return what vLLM said before, and OpenAI's older models do."""
    return (
        f"This model's maximum context length is 8192 tokens. However, you requested {asked} tokens ({of_input} in the "
        f"messages, {bound} in the completion). Please reduce the length of the messages or completion."
    )


def at_most(bound: int, most: int) -> str:
    """Return what OpenAI says of a model that makes less."""
    return f"max_tokens is too large: {bound}. This model supports at most {most} completion tokens, whereas you gave"


VLLM = (
    "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 8192 tokens "
    "and your request has 5000 input tokens (4096 > 8192 - 5000). None"
)
ABOVE = "Invalid 'max_output_tokens': integer above maximum value. Expected a value <= 2048, but got 4096 instead."
ARK = (
    "The parameter `max_completion_tokens` specified in the request are not valid: integer above maximum value, "
    "expected a value <= 2048, but got 4096 instead."
)


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        (VLLM, Fitting(3192, "context_window", 8192)),
        (in_window(9096, 5000, 4096), Fitting(3192, "context_window", 8192)),
        (at_most(4096, 2048), Fitting(2048, "max_output", 2048)),
        (ABOVE, Fitting(2048, "max_output", 2048)),
        (ARK, Fitting(2048, "max_output", 2048)),
        (f"litellm.BadRequestError: OpenAIException - {at_most(4096, 2048)}", Fitting(2048, "max_output", 2048)),
        (in_window(13096, 9000, 4096), None),  # the input alone is too long
        (at_most(4097, 2048), None),  # that is another bound than was sent
        (at_most(4096, 8192), None),
        (f"You said: {at_most(4096, 1)}", None),
        ("", None),
    ],
)
def test_the_bound_that_fits_is_read(words: str, fits: Fitting | None) -> None:
    """It is never larger than the one that was sent, and never nothing."""
    assert fitting(openai(words), 4096) == fits
    assert fitting([openai(words)], 4096) == fits


def test_what_is_no_error_says_nothing() -> None:
    """Whatever it is."""
    answers: list[Any] = [None, [], {}, {"error": []}, {"error": {"message": 1}}]
    for answer in answers:
        assert fitting(answer, 4096) is None
