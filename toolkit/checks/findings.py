"""Findings: all audits in one go, the gravest first. `docs/audits.md` says what each check means and what to do."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from toolkit.checks import charges, keys, operators, prices, published_prices, records, snapshot_reader
from toolkit.checks.finding import Finding, Severity
from toolkit.checks.keys import RotationDue
from toolkit.checks.operators import Activity
from toolkit.checks.snapshot import Snapshot
from toolkit.checks.thresholds import Thresholds
from toolkit.ledger.ledger import Ledger

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CHECKS",
    "Activity",
    "AuditReport",
    "Check",
    "Finding",
    "RotationDue",
    "Severity",
    "Thresholds",
    "frame",
    "judge",
    "run",
]


@dataclass(frozen=True, slots=True)
class Check:
    """One audit.

    Args:
        id: what its findings bear.
        title: what it looks for.
        find: from evidence and thresholds to findings; pure.
        platform: whether it looks at what no single organisation may see.
    """

    id: str
    title: str
    find: Callable[[Snapshot, Thresholds], Iterable[Finding]]
    platform: bool = False


CHECKS = (
    Check("key-never-used", "keys that were never used", keys.never_used),
    Check("key-unused", "keys that are not used any more", keys.unused),
    Check("key-no-limit", "keys without a monthly limit", keys.without_limit),
    Check("key-limit-high", "limits far above use", keys.limit_far_above_use),
    Check("key-limit-near", "keys near their limit", keys.near_limit),
    Check("key-scope-wide", "model scopes far wider than use", keys.wide_scope),
    Check("key-not-rotated", "secrets that were not rotated", keys.not_rotated),
    Check("key-expired", "expired keys that are still there", keys.expired),
    Check("key-secret-in-url", "secrets sent in URLs", keys.secret_in_url),
    Check("key-old-secret-used", "old secrets that are still used", keys.old_secret_used),
    Check("operator-unusual-hours", "acts at unusual hours", operators.unusual_hours),
    Check("operator-burst", "many secrets shown within an hour", operators.burst),
    Check("operator-sign-in-failures", "failed sign-ins", operators.sign_in_failures, platform=True),
    Check("operator-trusted-acts", "acts that nobody signed in for", operators.trusted_acts, platform=True),
    Check("operator-new", "new operators", operators.new_operators),
    Check("operator-unlogged", "operators unknown to the audit log", operators.unlogged_operators, platform=True),
    Check("upstream-uncalled", "upstreams that are never called", records.uncalled_upstreams, platform=True),
    Check("upstream-refuses", "upstreams that refuse our account", records.refusing_upstreams),
    Check("upstream-refuses-fields", "fields of ours that upstreams refuse", records.refused_fields, platform=True),
    Check("model-limit-smaller", "limits that upstreams have smaller", records.smaller_limits, platform=True),
    Check("org-names-alike", "organisations whose names are alike", records.alike_names, platform=True),
    Check("audit-chain", "the audit log's chains", records.chains),
    Check("books-violated", "violations at the last reconciliation", records.violations, platform=True),
    Check("books-unreconciled", "age of the last reconciliation", records.unreconciled, platform=True),
    Check("payment-repeated", "payments credited more than once", records.repeated_payments),
    Check("hold-orphaned", "orphaned holds", records.orphaned_holds),
    Check("price-change", "price changes", prices.prices, platform=True),
    Check("plan-change", "changes of plans and multipliers", prices.multipliers, platform=True),
    Check("key-plan-change", "keys moved to another plan", prices.key_plans),
    Check(
        "price-outdated",
        "copied prices that are not the published ones any more",
        published_prices.outdated,
        platform=True,
    ),
    Check("model-unpriced", "models without a price", published_prices.unpriced, platform=True),
    Check("model-superseded", "models that are about to end", published_prices.superseded, platform=True),
    Check("catalog-unlogged", "prices unknown to the audit log", prices.unlogged, platform=True),
    Check("fields-unknown", "fields that Keydesk does not know", records.unknown_fields, platform=True),
    Check("calls-estimated", "estimated charges", charges.estimated),
    Check("calls-abandoned", "abandoned calls", charges.abandoned),
    Check("calls-doubtful", "charges by other counts than the provider's", charges.doubtful),
    Check("calls-overrun", "calls that cost more than was held", charges.overruns),
    Check("calls-other-tier", "calls that another tier served than is priced", charges.other_tiers, platform=True),
)
"""All checks, in the order of `docs/audits.md`."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What the audits found.

    Args:
        at: the moment that was judged, UTC.
        findings: the gravest first, then the newest.
        skipped: checks that were not made, for they look at what the actor may not see.
        activity: what each actor did in the period.
        due_soon: keys whose secret becomes too old within `Thresholds.rotation_soon` days, the first one first.
    """

    at: datetime
    findings: list[Finding]
    skipped: list[Check]
    activity: list[Activity]
    due_soon: list[RotationDue]


def run(
    ledger: Ledger,
    *,
    thresholds: Thresholds | None = None,
    known_heads: dict[str, str] | None = None,
    now: datetime | None = None,
) -> AuditReport:
    """Make every check that the ledger's actor may make; nothing is changed.

    Args:
        ledger: whose actor's keys, calls and acts are looked at: those of one organisation, or all.
        thresholds: from when on something is a finding.
        known_heads: heads of audit chains that `audit.heads` exported earlier; each must still be at its place.
        now: the moment to judge by, UTC; the store's present moment by default. Whether a gateway lives is judged by
            the store's clock in any case.

    Raises:
        InvalidInput: a known head is not of the form `seq:hash`.
        Unavailable: the key store or the ledger cannot be read.
    """
    thresholds = thresholds or Thresholds()
    return judge(snapshot_reader.read(ledger, thresholds, known_heads, now), thresholds)


def judge(seen: Snapshot, thresholds: Thresholds) -> AuditReport:
    """Return what all checks find in the evidence. Pure."""
    made = [check for check in CHECKS if seen.whole or not check.platform]
    found = [finding for check in made for finding in check.find(seen, thresholds)]
    found.sort(key=lambda finding: finding.since, reverse=True)
    found.sort(key=lambda finding: finding.severity.rank)
    skipped = [check for check in CHECKS if check not in made]
    due_soon = keys.rotations_due(seen, thresholds)
    return AuditReport(seen.now, found, skipped, operators.table(seen, thresholds), due_soon)


def frame(findings: Sequence[Finding]) -> "pd.DataFrame":
    """Return findings as a table, in the order given.

    Returns:
        severity, check, kind, subject_id, subject, org (None for what is the platform's), since (UTC), sentence and
        action, as `Finding` has them.
    """
    import pandas as pd

    columns = ["severity", "check", "kind", "subject_id", "subject", "org", "since", "sentence", "action"]
    rows = [[str(finding.severity), *(getattr(finding, name) for name in columns[1:])] for finding in findings]
    # As objects, for in a column of text pandas makes NaN of None.
    return pd.DataFrame(rows, columns=columns, dtype=object).astype({"since": "datetime64[us, UTC]"})
