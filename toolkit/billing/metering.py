"""Metering: from what a provider reports to what is charged. Pure.

A provider's report is input from outside. What the model can have used is charged in full, even above the hold; what
it cannot have used is cut to what the hold counted, and what is not said, or not as a count, is estimated. So a charge
is tokens × prices in every case, and above the hold only for usage that can be true. Where the charged counts are not
the provider's, the row says why, and keeps the provider's own.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.core.usage import OverrunReason, Report, Usage, UsageSource

MOST_WINDOWS = 2
"""Context windows that one input may fill before it is not believed: the window that is set here may be out of date."""

LONGEST_SAID = 4_096
"""Bytes of a provider's report that a row keeps."""

_DEEPEST = 4
_LONGEST_NAME = 48
_WORD = re.compile(r"[A-Za-z0-9_.:+ -]{0,32}")
_LARGEST = 10**30
_PUNCTUATION = 4
_MARGIN = 80
"""What the last value and the brackets around it may take beyond the room that was left."""


@dataclass(slots=True)
class Metered:
    """What is charged for a call, and what a person should know of it.

    Args:
        usage: the charged tokens.
        doubt: why they are not the provider's; None if they are, or the provider reported nothing.
        overrun_reason: why they may cost more than was held; None if they cannot.
        provider_usage: JSON of what the provider reported, if there is a doubt.
        unbilled: why nothing is charged though something was used; None if it is.
        unseen: the part of the output that was reckoned by time, for nobody saw it.
    """

    usage: Usage
    doubt: str | None = None
    overrun_reason: OverrunReason | None = None
    provider_usage: str | None = None
    unbilled: str | None = None
    unseen: int = 0


@dataclass(slots=True)
class Gauge:
    """What a call's usage is measured by, in tokens.

    Args:
        held_input: input that the hold counted.
        held_output: output that the hold counted, of all choices together; 0 where there is no output.
        window: the largest input of the model; for embeddings, of all inputs together.
        most_output: the longest output of the model, of all choices together.
        likely_input: gives the input to charge where none is reported.
        long_cache: the request asks for a cache that lives an hour: what was written to one of unknown life is charged
            as that.
        refusal_free: the provider does not bill a refusal before any output.
    """

    held_input: int
    held_output: int
    window: int
    most_output: int
    likely_input: Callable[[], int]
    long_cache: bool = False
    refusal_free: bool = False

    def reported(self, report: Report, seen: Callable[[], int]) -> Metered:
        """Return what to charge for an answer that came to its end.

        Args:
            report: of the answer.
            seen: gives the output tokens that were seen of it; asked only where the report lacks them.
        """
        if report.refused:
            if self.refusal_free:
                return _refused(report)
            if report.input_missing and report.output_missing and not report.faults:
                return self.unreported(seen())
        used = self._used(report)
        if not (report.faults or report.has_gaps) and (
            used.input_tokens <= self.held_input and used.output_tokens <= self.held_output
        ):
            return Metered(used)
        used, doubts = used.copy(), list(report.faults)
        if self.held_output and (report.output_missing or not used.output_tokens):
            made = min(seen(), self.held_output)
            if made > used.output_tokens:
                used.output_tokens = made
                if not report.output_faults:
                    doubts.append("no output tokens beside text")
        # Without input there is no output, and no embedding. Zeros of an answer that says nothing may be true.
        if report.input_missing or (not used.input_tokens and (used.output_tokens or not self.held_output)):
            if not report.input_faults:
                doubts.append("no input tokens")
            self._estimate_input(used)
        return self._bounded(used, doubts, report)

    def broken(self, report: Report | None, seen: int, unseen: int = 0) -> Metered:
        """Return what to charge for an answer that did not come to its end.

        Args:
            report: what had been reported until then.
            seen: output tokens that were seen of it.
            unseen: output tokens that it may have made beside those that were seen or reported.
        """
        if report is not None and report.refused and self.refusal_free:
            return _refused(report)
        made = max(seen, report.usage.output_tokens if report else 0)
        metered = self._as_far_as(report, made + unseen)
        metered.unseen = max(metered.usage.output_tokens - made, 0) if unseen else 0
        return metered

    def _as_far_as(self, report: Report | None, seen: int) -> Metered:
        if report is None:
            return self.unreported(seen)
        used = self._used(report).copy()
        used.source = UsageSource.ESTIMATED
        used.output_tokens = max(min(seen, self.held_output), used.output_tokens)
        if report.input_missing or not used.input_tokens:
            self._estimate_input(used)
        return self._bounded(used, list(report.faults), report)

    def unreported(self, seen: int) -> Metered:
        """Return what to charge for a call of which nothing was reported, by the output tokens that were seen of it."""
        used = Usage(output_tokens=min(seen, self.held_output), source=UsageSource.ESTIMATED)
        self._estimate_input(used)
        return Metered(used)

    def _used(self, report: Report) -> Usage:
        unsplit = report.unsplit_write_tokens
        if not (unsplit and self.long_cache):
            return report.usage
        used = report.usage.copy()
        used.cache_write_5m_tokens -= unsplit
        used.cache_write_1h_tokens += unsplit
        return used

    def _estimate_input(self, used: Usage) -> None:
        """Put an estimate in the place of an input of which only the least is known."""
        used.input_tokens = max(used.input_tokens, min(self.likely_input(), self.held_input))

    def _bounded(self, used: Usage, doubts: list[str], report: Report) -> Metered:
        """Cut what the model cannot have used to what the hold counted; say why the rest may exceed the hold."""
        reason: OverrunReason | None = None
        if used.input_tokens > max(MOST_WINDOWS * self.window, self.held_input):
            doubts.append(f"{_shown(used.input_tokens)} input tokens, more than the model can take")
            _cut_input(used, self.held_input)
        elif used.input_tokens > self.held_input:
            reason = OverrunReason.CONTEXT_WINDOW
        if used.output_tokens > max(self.most_output, self.held_output):
            doubts.append(f"{_shown(used.output_tokens)} output tokens, more than the model can make")
            used.output_tokens = self.held_output
        elif used.output_tokens > self.held_output:
            reason = reason or OverrunReason.OUTPUT_BOUND
        used.reasoning_tokens = min(used.reasoning_tokens, used.output_tokens)
        if not doubts:
            return Metered(used, overrun_reason=reason)
        used.source = UsageSource.ESTIMATED
        return Metered(used, "; ".join(doubts), reason, said_by(report))


def _refused(report: Report) -> Metered:
    given = report.usage.input_tokens
    why = f"the provider refused before any output, and does not bill that ({given:,} tokens of input)"
    return Metered(Usage(), unbilled=why)


def _cut_input(used: Usage, most: int) -> None:
    """Cut the input to `most` tokens: the largest kind first, for that is the one which cannot be."""
    kinds = {
        "cached_input_tokens": used.cached_input_tokens,
        "cache_write_5m_tokens": used.cache_write_5m_tokens,
        "cache_write_1h_tokens": used.cache_write_1h_tokens,
        "": used.fresh_input_tokens,
    }
    left = used.input_tokens = most
    for name, tokens in sorted(kinds.items(), key=lambda kind: kind[1]):
        if name:
            setattr(used, name, min(tokens, left))
        left -= min(tokens, left)


def _shown(tokens: int) -> str:
    return f"{tokens:,}" if tokens < 10**15 else "over 10^15"


def said_by(report: Report) -> str:
    """Return what a provider reported as JSON of at most 4 kB: names, numbers and single words, and nothing longer.

    Of a stream whose reports complete one another it is an array of them.
    """
    room = LONGEST_SAID // max(len(report.said), 1) - _MARGIN
    said = [_kept(part, [room], 1) for part in report.said]
    return json.dumps(said[0] if len(said) == 1 else said, separators=(",", ":"))


def _kept(value: object, room: list[int], depth: int) -> Any:
    """Return parsed JSON without what is too long, too deep or too much.

    Args:
        value: what a provider sent.
        room: the bytes that are left, as its only element; lowered.
        depth: how many levels of objects this is.
    """
    if isinstance(value, Mapping | list):
        if depth > _DEEPEST:
            return "..."
        parts: dict[str, Any] = {}
        for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            short = str(name)[:_LONGEST_NAME]
            room[0] -= len(json.dumps(short)) + _PUNCTUATION
            if room[0] < 0:
                break
            parts[short] = _kept(part, room, depth + 1)
        return parts if isinstance(value, Mapping) else list(parts.values())
    if isinstance(value, str) and not _WORD.fullmatch(value):
        value = "..."
    elif isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        value = "over 10^30" if value > 0 else "under -10^30"
    room[0] -= len(json.dumps(value))
    return value
