"""Fields that Keydesk adds to requests, and what is set on an upstream that does not take one of them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from toolkit.core.upstream_traits import OutputBound, UpstreamTraits


@dataclass(frozen=True, slots=True)
class Remedy:
    """What makes calls go on without a field.

    Args:
        trait: of `UpstreamTraits`.
        value: that it is set to.
        option: of `keydesk upstreams update`, which sets it for good.
        meaning: what that means, as a sentence.
    """

    trait: str
    value: Any
    option: str
    meaning: str


REMEDIES = {
    "stream_options": Remedy(
        "add_stream_options",
        False,
        "--no-add-stream-options",
        "Streams whose usage is not asked for may not have it, and are charged by an estimate then.",
    ),
    "store": Remedy(
        "add_store", False, "--no-add-store", "See in the provider's documentation that it keeps no answers unasked."
    ),
    "include": Remedy(
        "add_include",
        False,
        "--no-add-include",
        "What a model reasoned can then not be sent back by those who keep nothing at the provider.",
    ),
    "service_tier": Remedy(
        "pin_tier", False, "--no-pin-tier", "The account's own tier then serves, which may have another price."
    ),
    "max_completion_tokens": Remedy(
        "output_bound",
        OutputBound.MAX_TOKENS,
        "--output-bound max_tokens",
        "The bound on a chat's output is then called max_tokens, whatever its caller called it.",
    ),
    "max_tokens": Remedy(
        "output_bound",
        OutputBound.MAX_COMPLETION_TOKENS,
        "--output-bound max_completion_tokens",
        "The bound on a chat's output is then called max_completion_tokens, whatever its caller called it.",
    ),
}
"""By the name of the field. Any other one that is added bounds the output and has no second name: it stays."""

BOUNDS = frozenset({"max_completion_tokens", "max_tokens", "max_output_tokens", "generationConfig"})
"""Those that bound the output: they are called otherwise, never left out, or a hold would bound nothing."""


def traits_without(traits: UpstreamTraits, fields: Iterable[str]) -> UpstreamTraits:
    """Return what is known of an upstream, and that it does not take some fields; each is a key of `REMEDIES`."""
    return replace(traits, **{remedy.trait: remedy.value for remedy in (REMEDIES[name] for name in fields)})
