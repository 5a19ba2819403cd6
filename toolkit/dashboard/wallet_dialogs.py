"""The dialogs of the page Wallet: book a payment, correct the balance, say when it is low, look at an entry."""

from html import escape

import streamlit as st

from toolkit.admin import wallet
from toolkit.core.errors import Conflict
from toolkit.core.money import parse_usd, show_usd, usd
from toolkit.core.policy import Role
from toolkit.dashboard import dialog, shared
from toolkit.store.tables import Organisation, WalletEntry


def draw(org: Organisation) -> None:
    """Draw the dialog that is open, if any."""
    name, subject = dialog.shown() or ("", "")
    role = shared.workspace().actor.role
    if name == "Entry":
        entry_dialog(org, subject)
    elif name == "Low balance" and role is not Role.ANALYST:
        low_dialog(org)
    elif name == "Credit" and role is Role.PLATFORM_ADMIN:
        credit_dialog(org)
    elif name == "Adjust" and role is Role.PLATFORM_ADMIN:
        adjust_dialog(org)


@st.dialog("Credit the wallet", on_dismiss=dialog.close)
def credit_dialog(org: Organisation) -> None:
    """Book a payment. Its reference makes it come once, however often the button is pressed."""
    dialog.leave_if_closed()
    _now(org)
    with st.form("credit_form", border=False):
        amount = _amount("Amount in USD", "1000.00")
        reference = _reference("The payment's own number: each is booked once, in all of Keydesk.")
        reason = _reason("Reason (for the audit log)", "optional")
        again = st.checkbox(
            "This payment is for two organisations",
            key="same_reference",
            help="Only then may a reference be credited though it has been credited to another organisation.",
        )
        pressed = dialog.form_button("Book the credit")
    if pressed:
        with shared.problems():
            nano = parse_usd(amount, "credit")
            with shared.workspace().write() as tx:
                try:
                    wallet.credit(tx, org.id, nano, reference, reason, same_reference=again)
                except Conflict as error:
                    raise _in_the_forms_words(error) from None
            dialog.finish(f"{show_usd(nano)} credited to {org.name}; its balance was {show_usd(org.balance)} before.")


def _in_the_forms_words(error: Conflict) -> Conflict:
    """Return an error that names the form's checkbox instead of the command's option."""
    way_out = ": --same-reference, or same_reference=True in Python."
    return Conflict(str(error).replace(way_out, " by the box above."))


@st.dialog("Adjust the wallet", on_dismiss=dialog.close)
def adjust_dialog(org: Organisation) -> None:
    """Correct the balance, up or down."""
    dialog.leave_if_closed()
    _now(org)
    with st.form("adjust_form", border=False):
        amount = _amount("Amount in USD", "-12.50", "Above zero adds money, below zero takes it out.")
        reference = _reference("A ticket's number, say: each is used once for an adjustment of this organisation.")
        reason = _reason("Reason", "why the balance is not right")
        pressed = dialog.form_button("Book the adjustment")
    if pressed:
        with shared.problems():
            nano = parse_usd(amount, "adjustment")
            with shared.workspace().write() as tx:
                wallet.adjust(tx, org.id, nano, reference, reason)
            dialog.finish(f"The wallet of {org.name} is adjusted by {show_usd(nano)}.")


@st.dialog("Low balance", on_dismiss=dialog.close)
def low_dialog(org: Organisation) -> None:
    """Say from which balance on the wallet is low."""
    dialog.leave_if_closed()
    _now(org)
    with st.form("low_form", border=False):
        present = "" if org.low_balance is None else usd(org.low_balance)
        below = st.text_input(
            "Low below, in USD",
            present,
            key="low_below",
            placeholder="never",
            autocomplete="off",
            help="An alert is sent once when the balance falls below it, and again after it has risen above.",
        )
        pressed = dialog.form_button("Save")
    if pressed:
        with shared.problems():
            wanted = below.strip()
            nano = parse_usd(wanted, "low balance") if wanted else None
            with shared.workspace().write() as tx:
                wallet.set_low_balance(tx, org.id, nano)
            dialog.finish(f"{org.name} is low below {show_usd(nano)}." if nano else f"{org.name} is never called low.")


@st.dialog("Entry", width="medium", position="right", on_dismiss=dialog.close)
def entry_dialog(org: Organisation, entry_id: str) -> None:
    """Show an entry of the organisation."""
    with shared.workspace().read() as tx:
        entry = next((each for each in wallet.entries(tx, org.id) if each.id == entry_id), None)
    if entry is None:
        st.info("There is no such entry.")
        return
    st.html(shared.facts(_facts(org, entry)))


def _facts(org: Organisation, entry: WalletEntry) -> list[tuple[str, str]]:
    facts = [
        ("Organisation", escape(org.name)),
        ("Kind", escape(entry.kind)),
        ("Amount", shared.money(entry.amount)),
        ("Reference", escape(entry.reference)),
        ("Reason", escape(entry.reason) or "–"),
        ("Booked", f"{shared.utc(entry.created_at)} by {escape(entry.created_by)}"),
        ("Id", f"<code>{entry.id}</code>"),
    ]
    if entry.request_id:
        facts.append(("Corrects the call", f"<code>{escape(entry.request_id)}</code>"))
    if entry.same_reference:
        facts.append(("Same payment", "credited to another organisation, too, and meant so"))
    return facts


def _now(org: Organisation) -> None:
    st.html(
        f"<p>The wallet of <b>{escape(org.name)}</b> has a balance of {shared.money(org.balance)}, of which "
        f"{shared.money(org.held)} are held.</p>"
    )


def _amount(label: str, example: str, help: str | None = None) -> str:  # noqa: A002 - Streamlit's word
    return st.text_input(label, key="amount", placeholder=example, autocomplete="off", help=help)


def _reference(help: str) -> str:  # noqa: A002 - Streamlit's word
    return st.text_input("Reference", key="reference", placeholder="INV-2026-0042", autocomplete="off", help=help)


def _reason(label: str, placeholder: str) -> str:
    return st.text_input(label, key="reason", placeholder=placeholder, autocomplete="off")
