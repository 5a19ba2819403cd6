"""A preset: what is known of a provider, so that an upstream is made by its name alone."""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from toolkit.core.dialect import Dialect
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import USUAL, UpstreamTraits


class UsageAt(StrEnum):
    """Where a stream has its usage."""

    ASKED = "in the last chunk, when asked"
    LAST = "in the last chunk, unasked"
    EACH = "in each chunk; the last counts"
    BOTH_ENDS = "input at the start, output at the end"


class Part(StrEnum):
    """How a provider counts a part of what was used."""

    WITHIN = "within"
    """It is inside the count of which it is a part."""
    BESIDE = "beside"
    """It is not: what is billed is the sum, or the total."""
    NOT_SAID = "not said"


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a provider.

    Args:
        name: as `--preset` takes it.
        title: the provider's own name.
        dialect: that it speaks.
        base_url: its address; a word in braces is to be filled in, with `--base-url`.
        credential_env: the customary name of the variable with its credential, such that it may be sent.
        endpoints: those of the dialect that it has.
        source: the provider's pages that say so.
        traits: what is known beside the address.
        unknown_fields: what becomes of request fields that Keydesk does not know.
        price_list: its list in genai-prices; None if there is none.
        usage_at: where a stream has its usage.
        cached: how input that was read from a cache is counted.
        reasoning: how output that was reasoning is counted.
        account_errors: codes and statuses of errors that are about our account.
        other_hosts: where the provider is, too: older hosts, and those of other regions.
        unread: what of this no page or SDK of the provider's was read for; it is held to be so all the same.
        note: what an operator should know.
    """

    name: str
    title: str
    dialect: Dialect
    base_url: str
    credential_env: str
    endpoints: tuple[str, ...]
    source: str
    traits: UpstreamTraits = USUAL
    unknown_fields: UnknownFields = UnknownFields.PASS
    price_list: str | None = None
    usage_at: UsageAt = UsageAt.ASKED
    cached: Part = Part.NOT_SAID
    reasoning: Part = Part.NOT_SAID
    account_errors: tuple[str, ...] = ("401",)
    other_hosts: tuple[str, ...] = ()
    unread: str = ""
    note: str = ""

    @property
    def has_address(self) -> bool:
        """Whether its address is the same for everybody."""
        return "{" not in self.base_url

    @property
    def is_yours(self) -> bool:
        """Whether it is a server that everybody runs himself, by default on his own machine."""
        return self.base_url.startswith("http:")

    def is_at(self, dialect: Dialect, base_url: str) -> bool:
        """Whether an upstream of a dialect is at the provider's own host, or at one below it."""
        if dialect is not self.dialect or not self.has_address or self.is_yours:
            return False
        host = urlsplit(base_url).hostname or ""
        return any(
            host == own or host.endswith(f".{own}") for own in (urlsplit(self.base_url).hostname, *self.other_hosts)
        )
