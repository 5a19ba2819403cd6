"""Demo data: 90 believable days of three organisations, from a fixed seed.

Everything is written by the functions that write real usage (`admin.keys`, `admin.wallet`, `billing.rules`), in
batched transactions with the time of then, so every invariant holds for it: daily and weekly rhythm, growth, a runaway
key, an unused key, a key near its limit, a rotated key whose old secret is still used, errors and refusals.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import select

from toolkit.admin import keys, organisations, plans
from toolkit.admin.key_summaries import summaries
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream, list_upstreams, update_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict
from toolkit.core.money import NANO
from toolkit.demo.history import OLD_SECRET_USES, PLATFORM, History, acting_for
from toolkit.demo.scenario import CREDITS, DAYS, KEYS, MODELS, NEAR_LIMIT
from toolkit.demo.scenario import PLANS as DEMO_PLANS
from toolkit.demo.traffic import draw
from toolkit.store import audit
from toolkit.store.actor import SYSTEM
from toolkit.store.locks import lock_catalog
from toolkit.store.tables import AuditRow, Organisation
from toolkit.workspace import Workspace

CALLS = 45_000

CREDENTIAL = "DEMO_UPSTREAM_API_KEY"
"""The environment variable that demo upstreams take their credential from; any value will do."""

_BASES = {Dialect.OPENAI: "openai/v1", Dialect.ANTHROPIC: "anthropic", Dialect.GEMINI: "gemini"}
_LOADED = "demo.load"


def is_loaded(workspace: Workspace) -> bool:
    """Whether the demo data is there, to its end."""
    with workspace.read() as tx:
        return tx.session.scalar(select(AuditRow.seq).where(AuditRow.action == _LOADED).limit(1)) is not None


def load(workspace: Workspace, progress: Callable[[int, int], None] | None = None, *, calls: int = CALLS) -> int:
    """Load the demo data, or the rest of it if an earlier load was cut short; return how many calls it has.

    Args:
        workspace: opened as a platform admin; its settings say where the demo upstream listens.
        progress: called with calls done and calls in all.
        calls: about how many to make.

    Raises:
        Conflict: the demo data is loaded already, or organisations of the same names are there.
    """
    if is_loaded(workspace):
        raise Conflict("The demo data is loaded already.")
    with workspace.read() as tx:
        # An organisation of the same name that somebody else made is no load that was cut short.
        ours = (Organisation.name == KEYS[0].org, Organisation.created_by == PLATFORM.name)
        first = tx.session.scalar(select(Organisation.created_at).where(*ours))
        now = tx.now
    start = first or (now - timedelta(days=DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
    if first is None:
        _set_up(workspace, start)
    drawn = [call for call in draw(start, calls) if call.at < now]
    history = History(workspace, start, now)
    history.play(drawn, progress or (lambda _done, _all: None))
    history.use_old_secret()
    calls = len(drawn) + OLD_SECRET_USES
    _end(workspace, now, calls)
    return calls


def follow_port(workspace: Workspace) -> None:
    """Point the demo upstreams to where the settings now say that the demo upstream listens, with its credential.

    One that an operator has pointed elsewhere is left alone.
    """
    with workspace.store.write(SYSTEM) as tx:
        lock_catalog(tx)
        found = {upstream.name: upstream.base_url for upstream in list_upstreams(tx)}
        for dialect, url in _base_urls(workspace).items():
            name = f"demo-{dialect}"
            if re.fullmatch(rf"http://127\.0\.0\.1:\d+/{_BASES[dialect]}", found.get(name, "")):
                update_upstream(tx, name, base_url=url, credential_env=CREDENTIAL)


def _base_urls(workspace: Workspace) -> dict[Dialect, str]:
    return {dialect: f"http://127.0.0.1:{workspace.settings.demo_port}/{base}" for dialect, base in _BASES.items()}


def _set_up(workspace: Workspace, start: datetime) -> None:
    """Add models, plans, organisations and their first money, all before the first call."""
    with workspace.store.write(PLATFORM, start) as tx:
        for dialect, url in _base_urls(workspace).items():
            add_upstream(tx, f"demo-{dialect}", dialect, url, CREDENTIAL)
        for model in MODELS:
            add_model(
                tx,
                model.id,
                f"demo-{model.dialect}",
                context_window=model.context_window,
                max_output=model.max_output,
            )
        for name, (multiplier, models) in DEMO_PLANS.items():
            plans.add(tx, name, multiplier, models)
        for org in CREDITS:
            organisations.add(tx, org)


def _end(workspace: Workspace, now: datetime, calls: int) -> None:
    """Set the limit that one key is near, and say that all is loaded."""
    with acting_for(workspace, NEAR_LIMIT.org, now) as tx:
        summary = next(s for s in summaries(tx, org=NEAR_LIMIT.org) if s.key.name == NEAR_LIMIT.name)
        near = max(-(-summary.spent * 100 // (94 * NANO)), 1) * NANO
        keys.update(tx, summary.key.id, monthly_limit=near, reason="Budget for the rest of the quarter.")
    with workspace.store.write(PLATFORM, now) as tx:
        audit.record(tx, _LOADED, "demo", after={"calls": calls})
