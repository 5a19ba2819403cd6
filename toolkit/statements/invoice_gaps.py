"""What an invoice and our own log differ by: the gaps, by model and by cause. Pure."""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from toolkit.core.money import NANO

if TYPE_CHECKING:
    import pandas as pd


class Cause(StrEnum):
    """Why an invoice is not what we expect; each amount is theirs − ours.

    "At most": as much of the gap as these calls can explain is put down to them, whether or not it is theirs.
    """

    MISSING_FROM_US = "calls missing from us"
    MISSING_FROM_THEM = "calls missing from them"
    BILLED_TWICE = "billed twice"
    TOKENS = "token counts"
    PRICES = "prices"
    ESTIMATED = "estimated rows (at most)"
    UNFINISHED = "aborted or abandoned calls (at most)"
    ROUNDING = "rounding"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Gap:
    """What an invoice bills for a model beyond what our log says, and why.

    Args:
        model: the provider's name of it.
        our_calls: admitted calls in our log, failed ones included.
        their_lines: lines of the invoice.
        ours, theirs: USD, exact.
        causes: each cause's part of theirs − ours, in USD; they sum to it.
    """

    model: str
    our_calls: int
    their_lines: int
    ours: Decimal
    theirs: Decimal
    causes: dict[Cause, Decimal]

    def __post_init__(self) -> None:
        assert sum(self.causes.values()) == self.gap, self  # noqa: S101 - or the causes are worth nothing

    @property
    def gap(self) -> Decimal:
        """Theirs − ours, in USD."""
        return self.theirs - self.ours


@dataclass(frozen=True, slots=True)
class Comparison:
    """An invoice beside our log.

    Args:
        models: by model, the largest gap first.
        total: the sum of all models.
        evidence: for causes that single calls stand for, the costliest of them in words.
    """

    upstream: str
    month: str
    models: list[Gap]
    total: Gap
    evidence: dict[Cause, list[str]]


def by_model(compared: Comparison | None) -> "pd.DataFrame":
    """Return a comparison as a table, a model a line and the total below: amounts in nano-USD, rounded.

    Returns:
        model, our_calls, their_lines, ours, theirs, gap; no line for None.
    """
    import pandas as pd

    gaps = [*compared.models, replace(compared.total, model="Total")] if compared else []
    return pd.DataFrame(
        [(gap.model, gap.our_calls, gap.their_lines, *map(nano, (gap.ours, gap.theirs, gap.gap))) for gap in gaps],
        columns=["model", "our_calls", "their_lines", "ours", "theirs", "gap"],
    )


def by_cause(compared: Comparison | None) -> "pd.DataFrame":
    """Return the gap as a table, a line for each cause and model and the total below: amounts in nano-USD, rounded.

    Returns:
        cause, model, part_of_the_gap; no line for None.
    """
    import pandas as pd

    gaps = compared.models if compared else []
    rows = [(str(cause), gap.model, nano(gap.causes[cause])) for cause in Cause for gap in gaps if cause in gap.causes]
    total = [("Total", "", nano(compared.total.gap))] if compared else []
    return pd.DataFrame([*rows, *total], columns=["cause", "model", "part_of_the_gap"])


def nano(amount: Decimal) -> int:
    """Return USD as nano-USD, rounded."""
    return round(amount * NANO)
