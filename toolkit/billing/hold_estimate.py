"""The hold estimator: an upper bound of what a call can cost, before it is made. Pure: no I/O, no clock.

A token of every tokenizer in use stands for at least one byte of text, so the bytes of the body bound the
tokens of its text. What a provider adds itself is bounded by these allowances:

| what | tokens | source |
|---|---|---|
| each message | 16 | OpenAI cookbook, "How to count tokens": 3 to 4 a message; doubled twice for other templates |
| each tool definition | 1,024 | Anthropic, "Tool use pricing": typed tools 245 to 735 |
| any tool at all | 1,024 | Anthropic, "Tool use pricing": system prompt of 159 to 804 |
| the request | 64 | reply priming, begin and end marks |
| each picture | 16 | marks around it; a patch more by rounding (OpenAI, "Images and vision") |
| what a picture shows | by its size | the rows of `media_tokens`; unreadable sizes as the largest |

A document, URL, audio or video part counts as the model's whole context window.

What a provider who was called does not report is estimated (`likely_input`); `metering` keeps that within the hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.billing.media_tokens import most_tokens, usual_tokens
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.core.usage import text_tokens
from toolkit.dialects.media import Kind
from toolkit.dialects.shape import Shape

PER_MESSAGE = 16
PER_TOOL = 1_024
ANY_TOOL = 1_024
PER_REQUEST = 64
PER_PICTURE = 16

SMALLEST_FITTED_BOUND = 1_024
"""A default output bound is never lowered below this many tokens: a shorter answer helps nobody."""

MOST_BYTES_PER_TOKEN = 16
"""Bytes of text that a token of context is taken for: four times the usual, so that only what cannot fit is refused."""


def input_bound(dialect: Dialect, shape: Shape, context_window: int, model: str) -> int:
    """Return the most input tokens that a call can be billed for.

    Args:
        dialect: of the request.
        shape: the request, as its dialect read it.
        context_window: the model's, in tokens.
        model: the provider's name of it.
    """
    window = context_window * shape.inputs
    if shape.whole_context:
        return window
    tokens = (
        shape.text_bytes
        + PER_REQUEST
        + PER_MESSAGE * shape.messages
        + PER_TOOL * shape.tools
        + (ANY_TOOL if shape.tools else 0)
    )
    if shape.media:
        pictures = sum(count for medium, count in shape.media.items() if medium.kind is Kind.PICTURE)
        tokens += PER_PICTURE * pictures + most_tokens(dialect, model, shape.media)
    return min(tokens, window)


def check_text(shape: Shape, model: str, context_window: int) -> None:
    """Refuse more text than a model's context window can hold, before anybody reads it in vain.

    Raises:
        Refusal: request_too_large; the text outside media is over 16 bytes a token of context, or one of the inputs
            of an embedding request is.
    """
    most = MOST_BYTES_PER_TOKEN * context_window
    size, what = (shape.longest_input, "An input") if shape.inputs > 1 else (shape.text_bytes, "The text")
    if size > most:
        raise Refusal(
            RefusalType.REQUEST_TOO_LARGE,
            f"{what} of this request is {size:,} bytes; at most {most:,} are taken for '{model}': "
            f"{MOST_BYTES_PER_TOKEN} for each of the {context_window:,} tokens of its context. Send less text, or call "
            "a model with a larger context.",
        )


def likely_input(dialect: Dialect, shape: Shape, model: str) -> int:
    """Return the input tokens that a call has probably used; maybe more than its context window has.

    Args:
        dialect: of the request.
        shape: the request, as its dialect read it.
        model: the provider's name of the model.
    """
    text = text_tokens(shape.text_bytes)
    return text + usual_tokens(dialect, model, shape.media) if shape.media else text


@dataclass(slots=True)
class HoldBound:
    """What a call can cost, as a function of its output bound.

    Args:
        base: cost of the input and the request, in 10⁻¹² nano-USD (price × multiplier, not yet divided).
        each: the same for one token of output bound (all choices together).
        output_bound: the output bound of one choice, the caller's or one that is added; 0 where there is no output.
        fixed: whether that bound is never lowered: the caller gave it, or no answer of the call may be cut.
        input_tokens: the input that `base` counts.
        settable: whether another bound of the caller's would change what is held.
    """

    base: int
    each: int
    output_bound: int
    fixed: bool
    input_tokens: int = 0
    settable: bool = True

    def amount(self, output_bound: int | None = None) -> int:
        """Return the hold in nano-USD, rounded up."""
        tokens = self.output_bound if output_bound is None else output_bound
        return -(-(self.base + self.each * tokens) // (MILLION * MILLION))

    def largest_bound(self, room: int) -> int:
        """Return the largest output bound whose hold is at most `room` nano-USD; below zero if none is."""
        left = room * MILLION * MILLION - self.base
        if self.each == 0:
            return self.output_bound if left >= 0 else -1
        return left // self.each if left >= 0 else -1

    def fitted(self, room: int) -> int | None:
        """Return the output bound to admit the call with, or None if it does not fit into `room` nano-USD."""
        if self.amount() <= room:
            return self.output_bound
        if self.fixed or self.each == 0:
            return None
        bound = self.largest_bound(room)
        return bound if bound >= SMALLEST_FITTED_BOUND else None

    def least(self) -> int:
        """Return the smallest hold, in nano-USD, that the call would have been admitted with."""
        return self.amount() if self.fixed else self.amount(min(SMALLEST_FITTED_BOUND, self.output_bound))

    def would_fit(self, room: int) -> int | None:
        """Return the output bound to advise a caller for whom a larger one does not fit; None if none would."""
        largest = self.largest_bound(room)
        return largest if self.fixed and self.settable and self.each and largest >= 1 else None


def hold_bound(
    dialect: Dialect,
    shape: Shape,
    sheet: PriceSheet,
    multiplier: int,
    *,
    context_window: int,
    default_output: int,
    model: str,
) -> HoldBound:
    """Return the strict bound of a call.

    Args:
        dialect: whose image allowance applies.
        shape: the request, as its dialect read it.
        sheet: prices in force now.
        multiplier: the plan's multiplier in millionths.
        context_window: the model's, in tokens.
        default_output: output bound to add where the caller gave none, in tokens.
        model: the provider's name of the model, which says what its pictures cost.
    """
    tokens = input_bound(dialect, shape, context_window, model)
    tiers = sheet.reachable(tokens)
    base = tokens * max([tier.dearest_input for tier in tiers]) + sheet.request * MILLION
    each = shape.choices * max([tier.output for tier in tiers]) if shape.output else 0
    base += each * shape.beside
    output_bound = 0 if not shape.output else default_output if shape.output_bound is None else shape.output_bound
    fixed = shape.output_bound is not None or not shape.may_be_cut
    return HoldBound(base * multiplier, each * multiplier, output_bound, fixed, tokens, not shape.compacts)


def dearest(bounds: Sequence[HoldBound]) -> HoldBound:
    """Return what a call can cost that may be served in one of several ways: at most what the dearest part of each is.

    Args:
        bounds: of the same call, at least one; they differ in prices and in what their models count alone.
    """
    return replace(
        bounds[0],
        base=max(bound.base for bound in bounds),
        each=max(bound.each for bound in bounds),
        input_tokens=max(bound.input_tokens for bound in bounds),
    )
