"""What a 402 says: which limit, its amount, spent, held, what the call needs, and what would help. Pure."""

from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.money import show_usd, usd
from toolkit.core.period import next_month


def quota_exceeded(limit: int, spent: int, held: int, needed: int | None, month: str, fits: int | None) -> Refusal:
    """Return the refusal of a call that the key's monthly limit does not allow.

    Args:
        limit, spent, held: of the key in this month, nano-USD.
        needed: the least that this call would hold, nano-USD; None before the call has been read.
        month: billing month.
        fits: the output bound, in tokens, that would be admitted; None if none would.
    """
    reset = f"{next_month(month)}-01T00:00:00Z"
    # A limit of 0 allows nothing next month either.
    outlook = (
        f"The month resets at {reset}; an org admin can raise the limit." if limit else "An org admin can raise it."
    )
    return Refusal(
        RefusalType.API_KEY_QUOTA_EXCEEDED,
        f"This API key's monthly limit of {show_usd(limit)} does not allow this call: {show_usd(spent)} is spent, "
        f"{show_usd(held)} is held for calls under way, and {_need(needed)}.{_advice(fits)} {outlook}",
        details={
            "limit": "monthly_limit",
            "limit_usd": usd(limit),
            "spent_usd": usd(spent),
            "held_usd": usd(held),
            "resets_at": reset,
        }
        | _needed(needed)
        | _largest(fits),
    )


def wallet_shortfall(balance: int, held: int, needed: int | None, fits: int | None) -> Refusal:
    """Return the refusal of a call that the organisation's wallet does not cover; args as in `quota_exceeded`."""
    return Refusal(
        RefusalType.BILLING_SHORTFALL,
        f"The organisation's wallet does not cover this call: its balance is {show_usd(balance)}, {show_usd(held)} is "
        f"held for calls under way, and {_need(needed)}.{_advice(fits)} "
        "Ask a platform admin to credit the wallet.",
        details={
            "limit": "wallet",
            "balance_usd": usd(balance),
            "held_usd": usd(held),
        }
        | _needed(needed)
        | _largest(fits),
    )


def _need(needed: int | None) -> str:
    return "nothing is left" if needed is None else f"this call needs {show_usd(needed)}"


def _needed(needed: int | None) -> dict[str, str]:
    return {} if needed is None else {"needed_usd": usd(needed)}


def _advice(fits: int | None) -> str:
    return f" An output bound of at most {fits:,} tokens would fit." if fits else ""


def _largest(fits: int | None) -> dict[str, str]:
    return {"largest_output_bound": str(fits)} if fits else {}
