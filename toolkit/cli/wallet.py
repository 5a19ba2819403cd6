"""`keydesk wallet`: show, entries, credit, adjust, low."""

from typing import Any

import click

from toolkit.admin import organisations, wallet
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.values import Usd as UsdType
from toolkit.core.marked import Usd
from toolkit.core.money import show_usd
from toolkit.store.tables import Organisation, WalletEntry
from toolkit.store.transaction import Transaction

_ORG = click.option("--org", required=True, metavar="ORG", help="Id or name of the organisation.")
_REFERENCE = click.option(
    "--reference", required=True, help="The payment's or ticket's own number; each is booked once."
)
_SAME_REFERENCE = click.option(
    "--same-reference",
    is_flag=True,
    help="Credit it though its reference has been credited before: one payment for two organisations.",
)


@click.group(cls=Group)
def wallet_command() -> None:
    """Put money into wallets and look into them."""


def _facts(tx: Transaction, org: Organisation) -> dict[str, Any]:
    return {
        "org": org.name,
        "org_id": org.id,
        "suspended": org.suspended,
        "credited_usd": Usd(org.credited),
        "corrected_usd": Usd(wallet.corrected(tx, org.id)),
        "settled_usd": Usd(org.settled),
        "balance_usd": Usd(org.balance),
        "held_usd": Usd(org.held),
        "available_usd": Usd(org.available),
        "low_balance_usd": None if org.low_balance is None else Usd(org.low_balance),
    }


def _entry(entry: WalletEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "kind": entry.kind,
        "amount_usd": Usd(entry.amount),
        "reference": entry.reference,
        "reason": entry.reason,
        "created_at": entry.created_at,
        "created_by": entry.created_by,
        "request_id": entry.request_id,
        "same_reference": entry.same_reference,
    }


@wallet_command.command("show")
@_ORG
@pass_app
def show(app: App, org: str) -> None:
    """Show a wallet: balance, open holds, and what is available."""
    with app.workspace.read() as tx:
        facts = _facts(tx, organisations.find(tx, org))
    app.facts(facts)


@wallet_command.command("entries")
@_ORG
@pass_app
def entries(app: App, org: str) -> None:
    """List a wallet's credits and adjustments, newest first."""
    with app.workspace.read() as tx:
        rows = [_entry(entry) for entry in wallet.entries(tx, org)]
    columns = {
        "created_at": "booked (UTC)",
        "kind": "kind",
        "amount_usd": "amount",
        "reference": "reference",
        "created_by": "by",
        "reason": "reason",
    }
    app.rows(rows, columns, empty="No entries yet. Put money in: keydesk wallet credit --help")


@wallet_command.command("credit")
@_ORG
@click.option("--amount", required=True, type=UsdType(), metavar="USD", help="Above zero.")
@_REFERENCE
@_SAME_REFERENCE
@click.option("--reason", default="", metavar="TEXT", help="Free text.")
@pass_app
def credit(app: App, org: str, amount: int, reference: str, same_reference: bool, reason: str) -> None:
    """Put money into a wallet."""
    with app.workspace.write() as tx:
        entry = wallet.credit(tx, org, amount, reference, reason, same_reference=same_reference)
        owner = organisations.find(tx, org)
        facts = _facts(tx, owner)
    app.done(
        f"Credited {show_usd(amount)} to {owner.name}; its balance is {show_usd(owner.balance)}.",
        {**_entry(entry), "wallet": facts},
    )


@wallet_command.command("adjust")
@_ORG
@click.option("--amount", required=True, type=UsdType(), metavar="USD", help="Negative takes money out.")
@_REFERENCE
@click.option("--reason", required=True, metavar="TEXT", help="Why the wallet is corrected.")
@pass_app
def adjust(app: App, org: str, amount: int, reference: str, reason: str) -> None:
    """Correct a wallet, up or down."""
    with app.workspace.write() as tx:
        entry = wallet.adjust(tx, org, amount, reference, reason)
        owner = organisations.find(tx, org)
        facts = _facts(tx, owner)
    app.done(
        f"Adjusted the wallet of {owner.name} by {show_usd(amount)}; its balance is {show_usd(owner.balance)}.",
        {**_entry(entry), "wallet": facts},
    )


@wallet_command.command("low")
@_ORG
@click.option("--below", required=True, type=UsdType(none=True), metavar="USD|none", help="Above zero.")
@pass_app
def low(app: App, org: str, below: int | None) -> None:
    """Say below which balance a wallet is low, which is alerted."""
    with app.workspace.write() as tx:
        owner = wallet.set_low_balance(tx, org, below)
        facts = _facts(tx, owner)
    when = "is never told to be low" if below is None else f"is low below {show_usd(below)}"
    app.done(f"The wallet of {owner.name} {when}.", facts)
