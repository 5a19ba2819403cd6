"""What there may be to tell: a subject, what it is measured by, and how far it has come."""

from typing import NamedTuple


class Occasion(NamedTuple):
    """A candidate that differs from what was told last.

    Args:
        kind: limit, wallet, expiry, upstream, unpriced or drain.
        subject: id of what it is about.
        org_id, org: the organisation's id and name; None and empty if it is the platform's.
        name: the subject's.
        detail, model: of an upstream's incident, its fault and its model.
        period: the month of a limit, else empty.
        basis: what it is measured by: nano-USD of a limit or a low balance, microseconds of a moment.
        amount: nano-USD spent or left; calls that an upstream refused.
        reached: percent of a limit, else 1; 0 is over.
    """

    kind: str
    subject: str
    org_id: str | None
    org: str
    name: str
    detail: str
    model: str
    period: str
    basis: int
    amount: int
    reached: int
