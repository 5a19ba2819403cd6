"""What becomes of tools that the provider would run, such as its web search: a choice of each plan and key. Pure."""

from enum import StrEnum

from toolkit.core.errors import InvalidInput


class HostedTools(StrEnum):
    """What becomes of hosted tools that a request offers; a plan and a key each say, and the stricter wins."""

    ALLOW = "allow"
    LEAVE_OUT = "leave_out"
    REFUSE = "refuse"


SETTABLE = (HostedTools.LEAVE_OUT, HostedTools.REFUSE)
"""What can be chosen: `allow` would let a tool run that nothing is held or charged for, since none has a price here."""


def checked(choice: HostedTools) -> HostedTools:
    """Return what a plan or key may say of hosted tools.

    Args:
        choice: a member, or its plain word, as notebooks give it.

    Raises:
        InvalidInput: no such choice, or one that cannot be set yet.
    """
    if choice == HostedTools.ALLOW:
        raise InvalidInput(
            "Hosted tools cannot be allowed yet: they have no price in the price book, so their use could be neither "
            "held nor charged. Choose leave_out (the call goes on without them, and its answer says so) or refuse."
        )
    if choice not in SETTABLE:
        raise InvalidInput(f"There is no choice {choice!r} for hosted tools. Choose {' or '.join(SETTABLE)}.")
    return HostedTools(choice)
