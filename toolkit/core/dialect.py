"""The dialects: whose wire formats callers and upstreams speak. Pure."""

from enum import StrEnum


class Dialect(StrEnum):
    """Whose API a path, a body and an answer follow."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
