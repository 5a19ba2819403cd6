"""Reasoning that a provider bills and its answer does not show: which models and requests can have it. Pure.

A model is known by the provider's name of it, with or without the maker's in front, as routers have it.
"""

import re
from collections.abc import Mapping
from typing import Any

from toolkit.core.dialect import Dialect

OPENAI_REASONS = re.compile(
    r"(?:.*/)?(?:o[1-9]|gpt-[5-9]|codex|grok-(?:[4-9]|code|3-mini))(?!.*-(?:chat|non-reasoning))"
)
"""Names of models that reason out of sight; OpenAI, "Models"; xAI, "Reasoning". An answer has a summary at most."""

_CLAUDE_THINKS = re.compile(r"(?:.*[/.])?claude-(?:fable|mythos|(?:opus|sonnet|haiku)-(?:[5-9]|\d\d))(?!\d)")
"""Names of models that think unless they are told not to; Anthropic, "What's new in Claude Opus 5" and its like. The
answer has a summary of it, or nothing ("Extended thinking", summarized and omitted)."""

_GEMINI_THINKS = re.compile(
    r"(?:.*/)?gemini-(?:2\.5-(?:pro|flash(?!-lite))|[3-9]|(?:pro|flash)-latest)(?!.*(?:image|tts|audio|embedding))"
)
"""Names of models that think unless told otherwise; Google, "Gemini thinking". The answer has a summary at most."""

_BY_NAME = {
    Dialect.OPENAI: (OPENAI_REASONS, _GEMINI_THINKS),
    Dialect.ANTHROPIC: (_CLAUDE_THINKS,),
    Dialect.GEMINI: (_GEMINI_THINKS,),
}


_WORDS_OF_OPENAI = frozenset(
    {"reasoning", "reasoning_effort", "enable_thinking", "include_reasoning", "reasoning_format"}
)


def openai_asks(body: Mapping[str, Any]) -> bool | None:
    """Return whether a request in OpenAI's format asks for reasoning, or for its not being shown; None if neither.

    OpenAI, "Reasoning"; OpenRouter, "Reasoning tokens"; Groq, "Reasoning"; vLLM, "Reasoning outputs"; Qwen.
    """
    if _WORDS_OF_OPENAI.isdisjoint(body):  # as most
        return None
    own = body.get("reasoning")
    wanted = own if isinstance(own, dict) else {}
    effort = wanted.get("effort") or body.get("reasoning_effort")
    if effort == "none" or wanted.get("enabled") is False or body.get("enable_thinking") is False:
        return False
    hidden = wanted.get("exclude") is True or body.get("include_reasoning") is False
    asked = effort or wanted.get("enabled") or wanted.get("max_tokens") or body.get("reasoning_format") == "hidden"
    return True if hidden or asked else None


def can_be(dialect: Dialect, upstream_model: str, asked: bool | None, *, shown: bool) -> bool:
    """Whether an answer can have reasoning that is not shown.

    Args:
        dialect: of the request.
        upstream_model: the provider's name of the model.
        asked: whether the request asks for reasoning, or for its not being shown; None where it does neither.
        shown: whether the answer has shown reasoning: a model that is not known for hiding it then shows all.
    """
    if asked is False:
        return False
    return (asked is True and not shown) or any(name.match(upstream_model) for name in _BY_NAME[dialect])
