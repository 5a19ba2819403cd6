"""What holds of an upstream that is made without a preset."""

from toolkit.core.dialect import Dialect
from toolkit.core.upstream_traits import UpstreamTraits
from toolkit.providers.preset import Preset
from toolkit.providers.presets import PRESETS


def preset_at(dialect: Dialect, base_url: str) -> Preset | None:
    """Return the preset of the provider at whose own host an upstream is; None if it is at nobody's."""
    return next((preset for preset in PRESETS.values() if preset.is_at(dialect, base_url)), None)


def usual(dialect: Dialect, base_url: str) -> UpstreamTraits:
    """Return what holds of an upstream of which nobody has said anything else.

    What a host tells by itself is what is billed there: whether a refusal is free, and whether tiers are sold. How a
    provider is asked is left as the dialect has it, until somebody names the preset.
    """
    preset = preset_at(dialect, base_url)
    if preset is None:
        return UpstreamTraits()
    return UpstreamTraits(refusal_free=preset.traits.refusal_free, pin_tier=preset.traits.pin_tier)
