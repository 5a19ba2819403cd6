"""What the pages share: who is signed in, and how money, times, states, tables and errors look.

Functions that return HTML escape what they are given, so names that people chose can be passed as they are.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import streamlit as st

from toolkit.admin import organisations
from toolkit.core.errors import KeydeskError
from toolkit.core.money import show_usd, usd
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.dashboard import identity, streamlit_sessions
from toolkit.store.tables import Organisation
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROLES = {Role.PLATFORM_ADMIN: "Platform admin", Role.ORG_ADMIN: "Org admin", Role.ANALYST: "Analyst"}
PERIODS = {"7 days": 7, "30 days": 30, "90 days": 90}
STYLE = Path(__file__).with_name("style.css")
DARK = Path(__file__).with_name("dark.css")
LOGO = Path(__file__).with_name("logo.svg")

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+.!|~$:^=-])")
_FLASH = "flash"
_OWNER = "owner"


def current_workspace() -> Workspace | None:
    """Return the Keydesk with the rights of whoever is signed in, or None; looked up anew in every run.

    What a tab holds belongs to one person signed in once: it is dropped when the run before was for anybody else, for
    other rights of the same person, or by another sign-in.
    """
    cookie = st.context.headers.get(streamlit_sessions.HEADER)
    actor = identity.find(cookie)
    before = st.session_state.get(_OWNER)
    if before != (actor, cookie):
        st.session_state.clear()
        st.session_state[_OWNER] = (actor, cookie)
        if before is not None and actor is not None:
            flash("Your rights have changed, so what was open here has been closed.")
    return identity.workspace_of(actor) if actor else None


def workspace() -> Workspace:
    """Return the Keydesk with the rights of whoever is signed in; stop the script if nobody is."""
    found = current_workspace()
    if found is None:
        st.html(f'<div class="kd-empty"><b>You are signed out.</b> <a href="sign-in" {SAME_TAB}>Sign in</a></div>')
        st.stop()
    return found


SAME_TAB = 'target="_self"'
"""Streamlit opens links in a new tab unless they say otherwise."""


@contextmanager
def problems() -> Iterator[None]:
    """Show what went wrong, in the words of the error, instead of a traceback."""
    try:
        yield
    except KeydeskError as error:
        st.error(plain(str(error)), icon=":material/error:")


def flash(message: str) -> None:
    """Keep a message for the next run of the page, which shows it once."""
    st.session_state[_FLASH] = message


def show_flash() -> None:
    """Show the message that the run before left, if any."""
    message = st.session_state.pop(_FLASH, None)
    if message:
        st.toast(plain(message), icon=":material/check_circle:")


def plain(text: str) -> str:
    """Return text as Markdown that shows it literally: names may hold stars, colons or dollar signs."""
    return _MARKDOWN.sub(r"\\\1", text)


def prose(words: str) -> str:
    """Return words with what stands in backquotes as code, as HTML."""
    parts = escape(words).split("`")
    return "".join(f"<code>{part}</code>" if position % 2 else part for position, part in enumerate(parts))


def gateway_url() -> str:
    """Return the gateway's address as the person at this browser can reach it."""
    settings = identity.workspace().settings
    if settings.public_url:
        return settings.public_url
    host = settings.host
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = urlsplit(st.context.url or "").hostname or "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway_port}"


def org_choice(workspace: Workspace, key: str) -> Organisation | None:
    """Ask for one organisation or all, where the actor may see several; return the chosen one, None for all."""
    with workspace.read() as tx:
        orgs = {org.id: org for org in organisations.list_all(tx)}
    if workspace.actor.org_id is not None:
        return orgs[workspace.actor.org_id]
    chosen = st.selectbox(
        "Organisation",
        ["", *orgs],
        format_func=lambda org_id: orgs[org_id].name if org_id else "All organisations",
        key=key,
        label_visibility="collapsed",
        persist_state="session",
    )
    return orgs.get(chosen) if chosen else None


def page_head(workspace: Workspace, title: str, key: str) -> tuple[str | None, int]:
    """Draw a page's title beside the choice of organisation and period; return the id (None is all) and the days.

    Args:
        key: begins the names that the choices are remembered by.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(title, anchor=False)
        st.space("stretch")
        with st.container(width=240):
            org = org_choice(workspace, f"{key}_org")
        days = st.segmented_control(
            "Period",
            list(PERIODS),
            default="30 days",
            required=True,
            key=f"{key}_period",
            label_visibility="collapsed",
            persist_state="session",
        )
    return org.id if org else None, PERIODS[str(days)]


def period(days: int) -> Period:
    """Return the last `days` UTC days, today included."""
    return Period.days(days, utc_now())


def is_dark() -> bool:
    """Whether this browser shows the dark theme."""
    return bool(st.context.theme.type == "dark")


def plot(figure: "go.Figure", key: str, alt: str) -> None:
    """Draw a chart of `charts` in the page's own font, without Plotly's buttons."""
    if is_dark():
        from toolkit.reports.charts import on_dark

        figure = on_dark(figure)
    figure.update_layout(font_family='"Source Sans", sans-serif', font_size=14)
    st.plotly_chart(figure, theme=None, key=key, alt=alt, config={"displayModeBar": False})


def money(nano: int, *, css: str = "", decimals: int | None = None) -> str:
    """Return nano-USD as HTML: rounded for the eye, exact on hover."""
    return f'<span class="kd-num {css}" title="${usd(nano)}">{show_usd(nano, decimals)}</span>'


def exact_money(value: Decimal) -> str:
    """Return an exact amount in USD, at least two decimals, as text."""
    whole, _, part = f"{abs(value):f}".partition(".")
    return f"{'-' if value < 0 else ''}${int(whole):,}.{part.rstrip('0'):0<2}"


def count(number: int) -> str:
    """Return a count with thousands separators, as HTML."""
    return f'<span class="kd-num">{number:,}</span>'


def short_count(number: int) -> str:
    """Return a large count shortened ("1.2 M"), exact on hover, as HTML."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            scale = 1000 if unit == "k" else size
            return f'<span class="kd-num" title="{number:,}">{number / scale:,.1f}\u202f{unit}</span>'
    return count(number)


def utc(moment: datetime) -> str:
    """Return a moment to the second, UTC, as text."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def ago(moment: datetime | None, now: datetime, *, never: str = "never") -> str:
    """Return how long ago a moment was (or how soon it comes), exact UTC on hover, as HTML."""
    if moment is None:
        return f'<span class="kd-muted">{escape(never)}</span>'
    gap = now - moment
    ahead = gap < timedelta(0)
    seconds = int(abs(gap).total_seconds())
    if seconds < 10 and not ahead:
        text = "just now"
    else:
        steps = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (60 * 86_400, 86_400, "d"))
        step = next(((unit, name) for limit, unit, name in steps if seconds < limit), (30 * 86_400, "months"))
        amount = f"{seconds // step[0]}\u202f{step[1]}"
        text = f"in {amount}" if ahead else f"{amount} ago"
    return f'<time datetime="{moment.isoformat()}" title="{utc(moment)}">{text}</time>'


def badge(text: str, tone: str) -> str:
    """Return a small label as HTML; tone is one of good, warn, bad, quiet, info."""
    return f'<span class="kd-badge kd-{tone}">{escape(text)}</span>'


def bar(parts: Sequence[tuple[float, str]], title: str) -> str:
    """Return a slim bar as HTML: shares of its width from the left (0 to 1), each with a CSS class."""
    inner = "".join(f'<i class="{css}" style="width:{min(max(share, 0), 1) * 100:.2f}%"></i>' for share, css in parts)
    return f'<span class="kd-bar" title="{escape(title)}">{inner}</span>'


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], *, css: str = "") -> str:
    """Return a table as HTML.

    Args:
        columns: heading (text) and alignment ("left", "right" or "share") of each.
        rows: cells, HTML already.
        css: further classes of the table.
    """
    head = "".join(f'<th class="kd-{align}">{escape(name)}</th>' for name, align in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="kd-{align}">{cell}</td>' for (_, align), cell in zip(columns, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<table class="kd-table {css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def cards(items: Sequence[tuple[str, str, str]]) -> str:
    """Return a row of figures as HTML: label (text), value (HTML) and the note below it (HTML)."""
    return (
        '<div class="kd-cards">'
        + "".join(
            f'<div class="kd-card"><div class="kd-label">{escape(label)}</div><div class="kd-value">{value}</div>'
            f'<div class="kd-note">{note}</div></div>'
            for label, value, note in items
        )
        + "</div>"
    )


def facts(items: Sequence[tuple[str, str]]) -> str:
    """Return a list of facts as HTML: label (text) and value (HTML)."""
    return (
        '<dl class="kd-facts">'
        + "".join(f"<dt>{escape(label)}</dt><dd>{value}</dd>" for label, value in items)
        + "</dl>"
    )


def empty(title: str, next_step: str, *, slim: bool = False) -> None:
    """Show that there is nothing here yet, and what to do about it (both HTML); slim where that is as it should be."""
    st.html(f'<div class="kd-empty{" kd-slim" if slim else ""}"><b>{title}</b><br>{next_step}</div>')


def heading(title: str, note: str = "") -> None:
    """Show a section's title with a quiet note beside it (both text)."""
    st.html(f'<h3 class="kd-heading">{escape(title)}<small>{escape(note)}</small></h3>')
