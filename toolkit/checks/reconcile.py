"""Do the books balance? Each invariant of the design that data can show, checked against the data itself.

Every check reads one snapshot of the key store, so it holds while gateways are at work. DuckDB does the adding up, and
request ids are compared a million at a time, so memory does not grow with the ledger. Revocation (I1), secrecy (I7)
and tenancy (I8) cannot be seen in data; the tests check them.
"""

import time
from collections.abc import Callable
from functools import partial

from toolkit.checks import limits_history
from toolkit.checks.reconcile_integrity import ONCE, SOUND, chains, files, once, orphans, recorded, sound, within_limits
from toolkit.checks.reconcile_runs import CheckResult, record
from toolkit.checks.reconcile_sums import CHECKS, Result, ask
from toolkit.core.errors import Forbidden, Unavailable
from toolkit.core.policy import Role
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace


def run(workspace: Workspace, progress: Callable[[int, int, str], None] | None = None) -> list[CheckResult]:
    """Check every invariant that data can show, within what the actor may see; a platform admin's run is recorded.

    Args:
        workspace: opened as anybody who may look. Files of the ledger, which hold everybody's rows, are checked only
            for an actor of no single organisation.
        progress: called before each check with checks done, checks in all and the name of this one; then once more
            at the end, with no name.

    Raises:
        Unavailable: the key store cannot be read. A damaged ledger is a violation.
    """
    started, clock = utc_now(), time.monotonic()
    steps = _steps(workspace)
    results: list[CheckResult] = []
    for invariant, title, step in steps:
        if progress is not None:
            progress(len(results), len(steps), title)
        try:
            checked, violations = step()
        except Unavailable as error:
            if not (results and results[0].title == SOUND and results[0].violations):
                raise
            checked, violations = 0, [f"Not checked, for the key store is damaged: {error}"]
        results.append(CheckResult(invariant, title, checked, violations))
    if progress is not None:
        progress(len(steps), len(steps), "")
    if workspace.actor.role is Role.PLATFORM_ADMIN:
        rows = next(result.checked for result in results if result.title == ONCE)
        duration_ms = round((time.monotonic() - clock) * 1000)
        try:
            with workspace.write() as tx:
                record(tx, started, duration_ms, rows, results)
        except (Unavailable, Forbidden):
            pass  # a copy of the store that cannot be written is checked all the same, and a workspace that only reads
    return results


def _steps(workspace: Workspace) -> list[tuple[str, str, Callable[[], Result]]]:
    """Return each check: its invariant, its title, and what does it."""
    steps: list[tuple[str, str, Callable[[], Result]]] = [
        (
            "I2",
            "No strict key was let beyond its limit, but for recorded overruns",
            partial(within_limits, workspace, limits_history.KEYS),
        ),
        (
            "I3",
            "No wallet was let below zero, but for overruns and adjustments",
            partial(within_limits, workspace, limits_history.WALLETS),
        ),
        *(
            (check.invariant, check.title, partial(ask, workspace, check.checked, check.wrong, check.say))
            for check in CHECKS
        ),
        ("I4", ONCE, partial(once, workspace)),
        ("I5", "No hold outlives its gateway", partial(orphans, workspace)),
        ("I6", "The audit log's chains are whole", partial(chains, workspace)),
        ("I6", "Limits and wallet entries are those that the audit log tells", partial(recorded, workspace)),
    ]
    if workspace.actor.org_id is None:
        steps.insert(0, ("I4", SOUND, partial(sound, workspace)))
        steps.insert(-3, ("I4", "Each ledger segment is the file that was written", partial(files, workspace)))
    return steps
