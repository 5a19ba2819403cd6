"""What one call used: tokens by kind, as an upstream reports them or as we estimate them."""

from dataclasses import dataclass
from enum import StrEnum


class UsageSource(StrEnum):
    """Where a row's token counts come from."""

    REPORTED = "reported"
    ESTIMATED = "estimated"


class OverrunReason(StrEnum):
    """Why a call cost more than was held for it."""

    CONTEXT_WINDOW = "context_window"
    """Its input was larger than the model's context window, or than what the hold counted."""
    OUTPUT_BOUND = "output_bound"
    """Its output was longer than the bound that the request set: some providers reason outside it."""
    UNKNOWN_FIELD = "unknown_field"
    """The request had fields that Keydesk does not know, and passed on."""


@dataclass(slots=True)  # not frozen: that would take three times as long to make, for every call
class Usage:
    """Tokens of one call, normalised so that no token is counted in two priced fields.

    Args:
        input_tokens: all input, cached and cache-written tokens included.
        cached_input_tokens: the part of the input read from the provider's cache.
        cache_write_5m_tokens: the part of the input written to a cache that lives 5 minutes.
        cache_write_1h_tokens: the part of the input written to a cache that lives 1 hour.
        output_tokens: all output, reasoning tokens included.
        reasoning_tokens: the part of the output spent on reasoning; priced as output.
        source: reported by the upstream, or estimated by us.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    source: UsageSource = UsageSource.REPORTED

    @property
    def fresh_input_tokens(self) -> int:
        """Input that was neither read from nor written to a cache, never below zero."""
        kept = self.cached_input_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens
        return max(self.input_tokens - kept, 0)
