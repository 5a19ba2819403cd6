"""Trying an upstream: a running gateway makes the calls, and what it found is read from the key store."""

import re
from datetime import datetime
from html import escape
from typing import NamedTuple, cast

import streamlit as st

from toolkit.admin import models, upstream_report, upstream_tests
from toolkit.admin.public_prices import PublicPrice
from toolkit.admin.upstream_tests import Outcome
from toolkit.core.account_fault import AccountFault, sentence_of
from toolkit.core.money import show_usd
from toolkit.core.upstream_test import Found, TriedCall
from toolkit.core.wording import counted
from toolkit.dashboard import shared
from toolkit.dashboard.copy_button import copy_button
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

LOOK_EVERY = "1s"
_TRIAL = "upstream_trial"
_COMMAND = re.compile(r"`(keydesk [^`]+)`")


class Trial(NamedTuple):
    """A trial that was asked for here: of which upstream, its id, when it was asked for (UTC), what became of it."""

    upstream: str
    id: str
    asked_at: datetime
    outcome: Outcome | None


def draw(name: str, known: list[str]) -> None:
    """Draw the dialog's content: the question, the wait, or what was found.

    Args:
        name: of the upstream.
        known: public ids of the models that it serves.
    """
    workspace = shared.workspace()
    trial = cast("Trial | None", st.session_state.get(_TRIAL))
    if trial is None or trial.upstream != name:
        _ask(workspace, name, known)
    elif trial.outcome is None:
        wait()
    else:
        _told(workspace, name, trial.outcome)


def _ask(workspace: Workspace, name: str, known: list[str]) -> None:
    st.html(
        f"<p>A running gateway lists the models of <b>{escape(name)}</b> and makes a short call in each form that its "
        "dialect has: whole and streamed. They are at your own cost, a fraction of a cent as a rule.</p>"
    )
    with st.form("trial_form", border=False):
        model = st.selectbox(
            "Model that is called",
            ["", *known],
            format_func=lambda each: each or "The cheapest of the catalog",
            accept_new_options=True,
            key="trial_model",
            help="One of the catalog, or the upstream's own name of one: type it.",
        )
        with st.container(horizontal=True, horizontal_alignment="right"):
            pressed = st.form_submit_button("Try it", type="primary", key="confirm")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                trial_id = upstream_tests.ask(tx, name, model or None)
            st.session_state[_TRIAL] = Trial(name, trial_id, utc_now(), None)
            st.rerun()


@st.fragment(run_every=LOOK_EVERY)
def wait() -> None:
    """Say how long it has taken, until there is something to tell."""
    trial = cast("Trial | None", st.session_state.get(_TRIAL))
    if trial is None:
        return
    with shared.problems():
        with shared.workspace().read() as tx:
            outcome = upstream_tests.outcome(tx, trial.id)
        if outcome is not None:
            st.session_state[_TRIAL] = trial._replace(outcome=outcome)
            st.rerun()
        seconds = int((utc_now() - trial.asked_at).total_seconds())
        st.info(f"A gateway is at it, for {seconds:,} s …", icon=":material/hourglass_top:")
    if st.button("Stop waiting", key="trial_stop"):
        st.session_state.pop(_TRIAL, None)
        st.rerun()


def _told(workspace: Workspace, name: str, outcome: Outcome) -> None:
    """Draw what was found, what is to be done, and the models that can be added."""
    found = outcome.found
    if found is None:
        st.error(f"It could not be tried: {shared.plain(outcome.failure or '')}.", icon=":material/error:")
    else:
        with workspace.read() as tx:
            judged = upstream_report.judge(tx, name, found)
            prices = {model: models.published(tx, name, model) for model in judged.lacking}
        _verdict(name, found, works=judged.works)
        if found.calls:
            rows = [[_form(call), f"{_badge(call)} {_words(call)}"] for call in found.calls]
            st.html(shared.table([("Call", "left"), ("What came", "left")], rows))
        _to_do(judged.to_do)
        _models(workspace, name, found, judged.lacking, prices)
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Try again", icon=":material/refresh:", key="trial_again"):
            st.session_state.pop(_TRIAL, None)
            st.rerun()


def _form(call: TriedCall) -> str:
    return f'<code>{escape(call.form)}</code><span class="kd-sub">{"streamed" if call.stream else "whole"}</span>'


def _words(call: TriedCall) -> str:
    return escape(upstream_report.told(call).removeprefix("works").removeprefix("; "))


def _badge(call: TriedCall) -> str:
    if call.works:
        return shared.badge("works", "good")
    return shared.badge("not there", "quiet") if call.absent else shared.badge("fails", "bad")


def _verdict(name: str, found: Found, *, works: bool) -> None:
    with_model = f", tried with {shared.plain(found.model)}" if found.model else ""
    if works:
        st.success(f"{shared.plain(name)} works{with_model}.", icon=":material/check_circle:")
    else:
        why = f": {sentence_of(AccountFault(found.fault), '')}" if found.fault else ""
        st.error(f"{shared.plain(name)} does not work as it should{with_model}{why}.", icon=":material/error:")
    if not found.calls and found.fault is None:
        st.caption("No call was made: the catalog has no model of it. Try again with one of its own names.")


def _to_do(steps: list[str]) -> None:
    if not steps:
        return
    shared.heading("To do")
    for position, step in enumerate(steps):
        st.html(f"<p>{shared.prose(step)}</p>")
        for command in _COMMAND.findall(step):
            with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
                st.code(command, language="bash", wrap_lines=True)
                copy_button(command, "Copy command", key=f"copy_step_{position}")


def _models(
    workspace: Workspace, name: str, found: Found, lacking: list[str], prices: dict[str, PublicPrice | None]
) -> None:
    """Draw which models it has, and let those be added whose price is public."""
    shared.heading("Models")
    if found.models is None:
        st.html(f"<p>It lists none: {escape(found.listing_said or '')}</p>")
        return
    addable = [model for model in lacking if prices[model] is not None]
    unpriced = len(lacking) - len(addable)
    rest = f"; {unpriced:,} more have no public price: <code>keydesk models add --help</code>" if unpriced else ""
    st.html(f"<p>{counted(len(found.models), 'model')} listed, {len(lacking):,} not in the catalog{rest}.</p>")
    if not addable:
        return

    def shown(model: str) -> str:
        price = prices[model]
        tier = price.sheet.tiers[0] if price else None
        return f"{model} · {show_usd(tier.input)} in, {show_usd(tier.output)} out" if tier else model

    with st.form("add_models_form", border=False):
        chosen = st.multiselect(
            "Add these models, at public prices per million tokens",
            addable,
            format_func=shown,
            key="trial_models",
            placeholder=f"{len(addable):,} to choose from",
        )
        with st.container(horizontal=True, horizontal_alignment="right"):
            pressed = st.form_submit_button("Add these models", key="add_models")
    if pressed and chosen:
        with shared.problems():
            added = upstream_report.add_models(workspace.store, workspace.actor, name, chosen)
            refused = [model for model in chosen if model not in added]
            if refused:
                st.warning(f"Not added, for the id is taken or cannot be one: {shared.plain(', '.join(refused))}.")
            else:
                shared.flash(f"{counted(len(added), 'model')} added. A plan decides who may call them.")
                st.rerun()
