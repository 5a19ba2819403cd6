"""What one call used: tokens by kind, as an upstream reports them or as we estimate them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

BYTES_PER_TOKEN = 4
"""Of text, where nobody counted its tokens: OpenAI, "What are tokens", has about 4 characters to a token."""


def text_tokens(size: int) -> int:
    """Return what so many bytes of text count as, in tokens, a part of one as one."""
    return -(-size // BYTES_PER_TOKEN)


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

    def copy(self) -> "Usage":
        """Return the same counts, to be changed; `dataclasses.replace` takes five times as long."""
        return Usage(
            self.input_tokens,
            self.cached_input_tokens,
            self.cache_write_5m_tokens,
            self.cache_write_1h_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.source,
        )

    @property
    def fresh_input_tokens(self) -> int:
        """Input that was neither read from nor written to a cache, never below zero."""
        kept = self.cached_input_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens
        return max(self.input_tokens - kept, 0)


@dataclass(slots=True)
class Report:
    """What a provider says that a call used.

    Args:
        usage: the counts that can be read; what cannot is 0 there, so each is the least that it can be.
        said: the provider's own objects, the newest last.
        input_missing: not all of the input is said.
        output_missing: not all of the output is said.
        input_faults: what of the input cannot be as it is said, in words.
        output_faults: the same of the output.
        unsplit_write_tokens: the part of `cache_write_5m_tokens` of which nobody said how long the cache lives.
        refused: the provider refused before any output, which not all of them bill.
    """

    usage: Usage
    said: tuple[Mapping[str, Any], ...] = ()
    input_missing: bool = False
    output_missing: bool = False
    input_faults: tuple[str, ...] = ()
    output_faults: tuple[str, ...] = ()
    unsplit_write_tokens: int = 0
    refused: bool = False

    @property
    def faults(self) -> tuple[str, ...]:
        """What cannot be as it is said, in words."""
        return self.input_faults + self.output_faults

    @property
    def has_gaps(self) -> bool:
        """Whether a side is missing, or zero: an earlier report of the same stream may say more."""
        used = self.usage
        return self.input_missing or self.output_missing or not used.input_tokens or not used.output_tokens

    def followed_by(self, later: "Report") -> "Report":
        """Return what two reports of one stream say together.

        Counts only grow while an answer is made, so the later one replaces the earlier; the input as a whole, and the
        output as a whole, unless that side is missing or smaller: some servers end with zeros.
        """
        ours, theirs = self.usage, later.usage
        newer_input = _replaces(self.input_missing, ours.input_tokens, later.input_missing, theirs.input_tokens)
        newer_output = _replaces(self.output_missing, ours.output_tokens, later.output_missing, theirs.output_tokens)
        if newer_input and newer_output:
            return later
        given, made = (later if newer_input else self), (later if newer_output else self)
        return Report(
            usage=Usage(
                given.usage.input_tokens,
                given.usage.cached_input_tokens,
                given.usage.cache_write_5m_tokens,
                given.usage.cache_write_1h_tokens,
                made.usage.output_tokens,
                made.usage.reasoning_tokens,
            ),
            said=(self.said + later.said)[-2:],
            input_missing=given.input_missing,
            output_missing=made.output_missing,
            input_faults=given.input_faults,
            output_faults=made.output_faults,
            unsplit_write_tokens=given.unsplit_write_tokens,
        )


def _replaces(missing: bool, tokens: int, later_missing: bool, later_tokens: int) -> bool:
    if missing != later_missing:
        return missing
    return later_tokens >= tokens
