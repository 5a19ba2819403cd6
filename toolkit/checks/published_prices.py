"""Prices against what is published: models without one, or whose price or model has come to its end. Pure.

Each function is one of the checks. What is published is what the genai-prices package has that is installed here.
"""

import shlex
from collections.abc import Iterator

from toolkit.admin.prices import price_updates
from toolkit.checks.finding import Finding, Severity
from toolkit.checks.prices import sheet_of
from toolkit.checks.snapshot import Snapshot
from toolkit.checks.thresholds import Thresholds
from toolkit.core.price_changes import in_words, price_changes
from toolkit.core.wording import listed, stamp


def unpriced(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A model that has no price now, nor has any of its route's upstreams: nobody can call it."""
    for model in evidence.models.values():
        sources = {model.id, *evidence.price_models.get(model.id, ())}
        entries = [price for price in evidence.prices if price.model_id in sources]
        first = min((price.valid_from for price in entries), default=None)
        if first is not None and first <= evidence.now:
            continue
        yield Finding(
            check="model-unpriced",
            severity=Severity.MEDIUM,
            kind="model",
            subject_id=model.id,
            subject=model.id,
            org=None,
            since=model.created_at,
            sentence="It has no price, so its calls are refused as those of a model that is not there."
            if first is None
            else f"It has no price before {stamp(first)}: until then its calls are refused.",
            action=f"`keydesk prices set {shlex.quote(model.id)}` with --input-price and --output-price enters one.",
            evidence={"priced_from": first},
        )


def outdated(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A price that was copied from genai-prices, which has another one by now."""
    copied = [(price, public) for price, public in evidence.published if sheet_of(price) is not None]
    since = {price.id: price.valid_from for price, _ in copied}
    for update in price_updates(copied):
        changes = price_changes(update.before, update.after)
        yield Finding(
            check="price-outdated",
            severity=Severity.MEDIUM,
            kind="model",
            subject_id=update.model,
            subject=update.model,
            org=None,
            since=since[update.entry_id],
            sentence=f"Its price was copied from {update.source_before}; {update.source} has another one: "
            f"{listed(list(map(in_words, changes)))}.",
            action="`keydesk prices refresh` shows what that would have done to last month's spend, and enters it.",
            evidence={"source_before": update.source_before, "source": update.source, "changes": changes},
        )


def superseded(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A model that its provider is about to end, or that genai-prices does not have any more."""
    for price, public in evidence.published:
        if public is not None and not public.deprecated:
            continue
        name = shlex.quote(price.model_id)
        yield Finding(
            check="model-superseded",
            severity=Severity.LOW,
            kind="model",
            subject_id=price.model_id,
            subject=price.model_id,
            org=None,
            since=price.valid_from,
            sentence=f"Its price was copied from {price.source}, which does not have it any more: it may have been "
            "renamed, or ended."
            if public is None
            else f"Its provider has declared that it will end ({public.source}); it still works.",
            action="See at the provider until when it is served, and what comes after it. "
            f"`keydesk models update {name} --upstream-model NEW` moves its callers there, `keydesk prices set {name}` "
            "enters the new one's price.",
            evidence={"source": price.source, "deprecated": public is not None},
        )
