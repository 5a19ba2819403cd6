"""A finding: what an audit has to say, and how grave it is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How soon somebody should act, the gravest first."""

    HIGH = "high"
    """Today: a secret is known to others, records cannot be relied upon, or calls fail."""
    MEDIUM = "medium"
    """This week: a risk that needs a decision."""
    LOW = "low"
    """At the next review: something to tidy."""
    INFO = "info"
    """To know: nothing to do unless it comes as a surprise."""

    @property
    def rank(self) -> int:
        """Its place in the order, 0 being the gravest."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an audit found.

    Args:
        check: id of the check.
        severity: how soon to act.
        kind: what the subject is: "key", "operator", "model", "plan", "upstream", "gateway", "chain",
            "organisation" or "books".
        subject_id, subject: id and name.
        org: name of its organisation; None if it is the platform's.
        since: UTC; since when it holds, as far as the records tell.
        sentence: the evidence in words.
        action: what to do, with the command in backquotes where there is one.
        evidence: the numbers and moments; those named `…_nano` are nano-USD.
    """

    check: str
    severity: Severity
    kind: str
    subject_id: str
    subject: str
    org: str | None
    since: datetime
    sentence: str
    action: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
