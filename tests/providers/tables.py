"""The tables of docs/providers.md, printed anew from the presets and the recordings.

python -m tests.providers.tables
"""

import sys
from collections.abc import Iterable

from tests.providers.coverage import ASPECTS, UNTESTED, covered
from toolkit.core.upstream_traits import CredentialHeader, OutputBound
from toolkit.dialects import MODULES
from toolkit.providers.preset import Preset
from toolkit.providers.presets import FORMS, PRESETS


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _table(heads: list[str], rows: Iterable[Iterable[object]]) -> str:
    return "\n".join([_row(heads), "|" + "---|" * len(heads), *map(_row, rows)])


def _code(value: str) -> str:
    return f"`{value}`"


def asked() -> str:
    """Return the table of how each provider is asked."""

    def added(preset: Preset) -> str:
        if preset.dialect != "openai":
            return "–"
        names = ["stream_options"] if preset.traits.add_stream_options else []
        names += ["store"] if preset.traits.add_store and "responses" in preset.endpoints else []
        return ", ".join(map(_code, names)) or "–"

    def bound(preset: Preset) -> str:
        word = preset.traits.output_bound
        own = "either" if preset.dialect == "openai" else "–"
        return own if word is OutputBound.EITHER else f"`{word}`"

    def header(preset: Preset) -> str:
        named = preset.traits.credential_header
        return "" if named is CredentialHeader.USUAL else f" in `{named}`"

    heads = ["preset", "provider", "base URL", "credential", "endpoints", "bound on a chat's output", "may be added"]
    rows = (
        (
            _code(one.name),
            one.title,
            _code(one.base_url),
            _code(one.credential_env) + header(one),
            ", ".join(map(_code, one.endpoints)),
            bound(one),
            added(one),
        )
        for one in PRESETS.values()
    )
    return _table(heads, rows)


def billed() -> str:
    """Return the table of what each provider reports and bills."""
    heads = [
        "preset",
        "a stream's usage",
        "cached input",
        "reasoning",
        "a stream that is left",
        "billed",
        "our account",
    ]

    def bills(preset: Preset) -> str:
        said = [*map(_code, filter(None, preset.traits.billed_errors.split(",")))]
        said += ["no refusal before output"] if preset.traits.refusal_free else []
        said += ["tiers: pinned"] if preset.traits.pin_tier else []
        return ", ".join(said) or "–"

    rows = (
        (
            _code(one.name),
            one.usage_at,
            one.cached,
            one.reasoning,
            _code(one.traits.on_leave),
            bills(one),
            ", ".join(map(_code, one.account_errors)),
        )
        for one in PRESETS.values()
    )
    return _table(heads, rows)


def sources() -> str:
    """Return the table of where it is said, and what an operator should know."""
    heads = ["preset", "unknown fields", "list in genai-prices", "source", "unverified", "to know"]
    rows = (
        (
            _code(one.name),
            _code(one.unknown_fields),
            one.price_list or "–",
            one.source,
            one.unread or "–",
            one.note or "–",
        )
        for one in PRESETS.values()
    )
    return _table(heads, rows)


def tested() -> str:
    """Return the table of what is tested by recordings, with the reason where it is not."""
    found = covered()

    def cell(name: str, aspect: str) -> str:
        return "tested" if aspect in found[name] else f"untested: {UNTESTED[name, aspect]}"

    return _table(
        ["preset", *ASPECTS], ((_code(name), *(cell(name, aspect) for aspect in ASPECTS)) for name in PRESETS)
    )


def others() -> str:
    """Return the table of the providers' other dialects."""
    heads = ["preset", "dialect", "base URL", "credential in", "endpoints", "source", "to know"]
    rows = (
        (
            _code(one.name),
            _code(one.dialect),
            _code(one.base_url),
            _code(next(iter(header_of(one)))),
            ", ".join(map(_code, one.endpoints)),
            one.source,
            one.note or "–",
        )
        for one in FORMS.values()
        if one is not PRESETS[one.name]
    )
    return _table(heads, rows)


def header_of(preset: Preset) -> dict[str, str]:
    """Return the header that shows a credential of ours to a provider."""
    named = preset.traits.credential_header
    usual = named is CredentialHeader.USUAL
    return MODULES[preset.dialect].auth_headers("k") if usual else named.shown("k")


TABLES = {
    "How each is asked": asked,
    "In another dialect": others,
    "What each reports and bills": billed,
    "Where it is said": sources,
    "What is tested": tested,
}
"""By the heading that each stands under."""

if __name__ == "__main__":
    sys.stdout.write("\n\n".join(f"## {title}\n\n{table()}" for title, table in TABLES.items()) + "\n")
