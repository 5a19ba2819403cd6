"""What a caller is told when an admitted call has failed."""

from toolkit.core.errors import Refusal, RefusalType
from toolkit.gateway.upstream_exchange import NotConfigured, UpstreamSlow
from toolkit.gateway.upstream_rules import ACCOUNT, BROKEN, LOST, SLOW, UNREACHED, Rule


class CallFailed(Exception):
    """A fault of ours on an admitted call, which is its cause; the call has been settled.

    Args:
        refusal, headers: what the caller is told, if no answer has begun.
    """

    def __init__(self, refusal: Refusal, headers: dict[str, str]) -> None:
        super().__init__("an admitted call failed, and was charged by what is known of it")
        self.refusal = refusal
        self.headers = headers


def written_off() -> Refusal:
    """Return what a caller gets whose call was written off: nobody reads the end of what is not charged."""
    return Refusal(
        RefusalType.UNAVAILABLE,
        "The gateway had lost touch with its key store, and this call was written off. It is not charged; try again.",
    )


def refusal_of(error: Exception, *, sent: bool, charged: bool = False) -> Refusal:
    """Return the refusal that an error of the upstream's, or of ours on the way to it, is answered with.

    Args:
        error: what went wrong.
        sent: whether the provider has got the request, and may bill it.
        charged: whether the caller pays for a part of an answer that cannot be passed on.
    """
    if isinstance(error, Refusal):
        return error
    slow = isinstance(error, UpstreamSlow)
    if charged:
        return _refusal(
            SLOW if slow else BROKEN,
            "The provider's answer began and did not come to its end. What had been made of it is charged, by an "
            "estimate. Stream such calls; if it lasts, give the operator the request id.",
        )
    if slow:
        return _refusal(
            SLOW, f"The provider did not answer in time: {error}. Ask for less output, stream, or try again later."
        )
    if isinstance(error, NotConfigured):
        return _refusal(
            ACCOUNT,
            "This gateway is not set up to call the provider of this model. Give the operator the request id.",
        )
    return _refusal(
        LOST if sent else UNREACHED,
        "The connection to the provider failed or broke off. Try again; if it lasts, give the operator the request id.",
    )


def _refusal(rule: Rule, words: str) -> Refusal:
    return Refusal(rule.type, words, headers={"x-should-retry": "false"} if rule.should_not_retry else {})


def stopped(*, sent: bool) -> Refusal:
    """Return what a caller gets whose call was ended with the gateway; one that was `sent` may have been billed."""
    return Refusal(
        RefusalType.UNAVAILABLE,
        "The gateway was stopped before the provider had answered. Give the operator the request id if it lasts.",
        headers={"x-should-retry": "false"} if sent else {},
    )


def internal_error(*, sent: bool) -> Refusal:
    """Return what a caller is told of a fault of ours; a call that was `sent` on may have been billed."""
    return Refusal(
        RefusalType.INTERNAL_ERROR,
        "The gateway failed on this request. Its log says why: give the operator the request id.",
        headers={"x-should-retry": "false"} if sent else {},
    )
