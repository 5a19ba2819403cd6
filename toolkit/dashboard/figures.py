"""Figures that pages draw again and again, kept until the key store says that something new has happened.

`View.pulse` is a glance at the key store that changes with every call that ended. As part of a cache's key it makes
an idle page cost next to nothing, and a new call show at the next tick.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import streamlit as st
from sqlalchemy import func, select

from toolkit.admin import organisations
from toolkit.core.period import Period, billing_month
from toolkit.reports import hold_accuracy as hold_accuracy_report
from toolkit.reports import refusals as refusals_report
from toolkit.reports import requests as requests_report
from toolkit.reports import spend as spend_report
from toolkit.reports import upstream_calls as upstream_calls_report
from toolkit.reports.spend import Totals
from toolkit.store.tables import ApiKey, Organisation, OutboxRow
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = timedelta(minutes=1)
"""How old a figure may get when the pulse does not change: a report of last month still gains calls that end late."""


@dataclass(frozen=True, slots=True)
class View:
    """Which figures are meant: of which stores, with whose rights, of which organisation, at which moment.

    Args:
        stores: address of the key store and folder of the ledger.
        actor: name and organisation of who looks.
        org: id of the organisation looked at; None is all that the actor may see.
        pulse: numbers of the key store, one of which changes whenever a call of what is looked at has ended, or a key
            was changed.
    """

    stores: tuple[str, str]
    actor: tuple[str, str | None]
    org: str | None
    pulse: tuple[str, ...]

    @classmethod
    def of(cls, workspace: Workspace, org: str | None) -> "View":
        """Return the view at this moment."""
        seen = workspace.actor.org_id or org
        ended = select(func.count(), func.max(OutboxRow.settled_at))
        settled, changed = select(func.sum(Organisation.settled)), select(func.sum(ApiKey.version))
        if seen is not None:  # what others do is no reason to ask anew
            ended = ended.where(OutboxRow.org_id == seen)
            settled = settled.where(Organisation.id == seen)
            changed = changed.where(ApiKey.org_id == seen)
        with workspace.read() as tx:
            pulse = [*tx.session.execute(ended).one(), tx.session.scalar(settled), tx.session.scalar(changed)]
        settings, actor = workspace.settings, workspace.actor
        stores = settings.store_url, str(settings.ledger_root)
        return cls(stores, (actor.name, actor.org_id), org, tuple(map(str, pulse)))


@dataclass(frozen=True, slots=True)
class Wallets:
    """The wallets of a view, added up; nano-USD."""

    count: int
    balance: int
    held: int
    available: int


def wallets(workspace: Workspace, org: str | None) -> Wallets:
    """Return the wallets' present state; never cached."""
    with workspace.read() as tx:
        rows = [row for row in organisations.list_all(tx) if org in {None, row.id}]
    return Wallets(
        len(rows), sum(row.balance for row in rows), sum(row.held for row in rows), sum(row.available for row in rows)
    )


def this_month(workspace: Workspace, view: View, now: datetime) -> tuple[Totals, Totals, datetime]:
    """Return the totals of this billing month, those of the month before up to the same point, and that point."""
    month = Period.month(billing_month(now))
    assert month.start is not None  # noqa: S101 - a month has both bounds
    elapsed = (now - month.start) // timedelta(minutes=1) * timedelta(minutes=1)
    before = Period.month(billing_month(month.start - timedelta(days=1)))
    assert before.start is not None  # noqa: S101
    end = min(before.start + max(elapsed, timedelta(minutes=1)), month.start)
    return totals(workspace, view, month), totals(workspace, replace(view, pulse=()), Period(before.start, end)), end


@st.cache_data(max_entries=256, ttl=_LONGEST, show_spinner=False)
def totals(_workspace: Workspace, view: View, period: Period) -> Totals:
    """Return `reports.spend.totals`."""
    return spend_report.totals(_workspace.ledger, period, org=view.org)


@st.cache_data(max_entries=256, ttl=_LONGEST, show_spinner=False)
def spend(_workspace: Workspace, view: View, by: tuple[str, ...], period: Period) -> "pd.DataFrame":
    """Return `reports.spend.table`."""
    return spend_report.table(_workspace.ledger, by, period, org=view.org)


@st.cache_data(max_entries=256, ttl=_LONGEST, show_spinner=False)
def refusals(_workspace: Workspace, view: View, period: Period) -> "pd.DataFrame":
    """Return `reports.refusals.table`."""
    return refusals_report.table(_workspace.ledger, period, org=view.org)


@st.cache_data(max_entries=64, ttl=_LONGEST, show_spinner=False)
def hold_accuracy(_workspace: Workspace, view: View, period: Period) -> "pd.DataFrame":
    """Return `reports.hold_accuracy.table` per key and model."""
    return hold_accuracy_report.table(_workspace.ledger, period=period, org=view.org)


@st.cache_data(max_entries=64, ttl=_LONGEST, show_spinner=False)
def overruns(_workspace: Workspace, view: View, period: Period, limit: int) -> "pd.DataFrame":
    """Return the newest calls that cost more than was held for them."""
    return requests_report.search(_workspace.ledger, overrun=True, period=period, org=view.org, limit=limit)


@st.cache_data(max_entries=16, ttl=_LONGEST, show_spinner=False)
def upstream_calls(_workspace: Workspace, view: View, period: Period) -> "pd.DataFrame":  # noqa: ARG001 - view is the key
    """Return `reports.upstream_calls.table`."""
    return upstream_calls_report.table(_workspace.ledger, period)
