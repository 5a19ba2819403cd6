"""What becomes of request fields that Keydesk does not know: a choice of each upstream and plan. Pure."""

from enum import StrEnum


class UnknownFields(StrEnum):
    """What becomes of fields, betas and headers that no table has; an upstream and a plan each say."""

    PASS = "pass"  # noqa: S105 - not a password
    LEAVE_OUT = "leave_out"
    REFUSE = "refuse"
