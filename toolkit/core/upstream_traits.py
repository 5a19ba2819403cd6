"""What is known of an upstream: what it bills of a call that is left or refused; its tier. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput

RECKON_RATE = 200
"""Tokens a second that a model is taken to make where nobody saw them, unless its upstream says otherwise."""

MOST_RECKON_RATE = 100_000
"""Tokens a second; no model is near it."""

_OWN_HOSTS = {Dialect.OPENAI: "api.openai.com", Dialect.ANTHROPIC: "api.anthropic.com"}
"""Where the two who sell tiers serve their own models; OpenAI's regions are below its host ("Data controls")."""


class OnLeave(StrEnum):
    """What becomes of a streamed answer whose caller has left."""

    CANCEL = "cancel"
    """The connection is closed: the provider stops, and bills what it made."""
    READ_ON = "read_on"
    """It is read on for a while: the provider bills the whole anyway, or tells its usage only at the end."""


@dataclass(frozen=True, slots=True)
class UpstreamTraits:
    """What is known of an upstream.

    Args:
        on_leave: what becomes of a streamed answer whose caller has left.
        refusal_free: it does not bill a refusal before any output.
        pin_tier: a request that names no service tier asks for the one that is priced.
        reckon_rate: tokens a second that a model is taken to make where nobody saw them.
    """

    on_leave: OnLeave = OnLeave.CANCEL
    refusal_free: bool = False
    pin_tier: bool = False
    reckon_rate: int = RECKON_RATE


def defaults(dialect: Dialect, base_url: str) -> UpstreamTraits:
    """Return what holds of an upstream of which nobody has said anything else.

    On its own API Anthropic does not bill a refusal before any output ("Release notes", 2 June 2026); those who resell
    its models are silent. OpenAI and Anthropic serve another tier than the priced one where the account says so.
    """
    host = urlsplit(base_url).hostname or ""
    own = _OWN_HOSTS.get(dialect)
    is_own = own is not None and (host == own or host.endswith(f".{own}"))
    return UpstreamTraits(refusal_free=is_own and dialect is Dialect.ANTHROPIC, pin_tier=is_own)


def check(dialect: Dialect, traits: UpstreamTraits) -> None:
    """Refuse what cannot be true of an upstream of a dialect.

    Raises:
        InvalidInput: free refusals or a pinned tier in a dialect that has none, or a rate that cannot be.
    """
    if traits.refusal_free and dialect is not Dialect.ANTHROPIC:
        raise InvalidInput(
            f"Free refusals are Anthropic's: an upstream of the {dialect} dialect does not say that it refused before "
            "any output. Leave it off."
        )
    if traits.pin_tier and dialect is Dialect.GEMINI:
        raise InvalidInput(
            "The tier is pinned on upstreams of the openai and anthropic dialects alone: Gemini's API serves the "
            "standard tier unless a request names another one, and that is refused."
        )
    if not 0 <= traits.reckon_rate <= MOST_RECKON_RATE:
        raise InvalidInput(f"The reckoned rate must be 0 to {MOST_RECKON_RATE:,} tokens a second.")
