"""What a caller is told when an admitted call has failed."""

from toolkit.core.errors import Refusal, RefusalType
from toolkit.gateway.upstream_exchange import NotConfigured, UpstreamSlow


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


def refusal_of(error: Exception, *, sent: bool) -> Refusal:
    """Return the refusal that an error of the upstream's, or of ours on the way to it, is answered with."""
    if isinstance(error, Refusal):
        return error
    headers = {"x-should-retry": "false"} if sent else {}
    if isinstance(error, UpstreamSlow):
        return Refusal(
            RefusalType.UPSTREAM_TIMEOUT,
            f"The provider did not answer in time: {error}. Ask for less output, stream, or try again later.",
            headers={"x-should-retry": "false"},
        )
    if isinstance(error, NotConfigured):
        return Refusal(
            RefusalType.UPSTREAM_ERROR,
            "This gateway is not set up to call the provider of this model. Give the operator the request id.",
            headers={"x-should-retry": "false"},
        )
    return Refusal(
        RefusalType.UPSTREAM_ERROR,
        "The connection to the provider failed or broke off. Try again; if it lasts, give the operator the request id.",
        headers=headers,
    )


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
