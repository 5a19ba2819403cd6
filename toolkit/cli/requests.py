"""`keydesk requests`: the request log, and the correction of a charge."""

import json
from datetime import datetime
from typing import Any

import click

from toolkit.cli.app import App, Group, pass_app, shared_options
from toolkit.cli.options import FROM, TAG, TO
from toolkit.cli.output import records
from toolkit.cli.values import Usd as UsdType
from toolkit.core import tags
from toolkit.core.errors import NotFound
from toolkit.core.marked import Usd
from toolkit.core.money import show_usd
from toolkit.core.period import Period
from toolkit.core.policy import Outcome

_MONEY = ("cost", "held", "overrun")
_OUTCOMES = [outcome.value for outcome in Outcome]


@click.group(cls=Group, invoke_without_command=True, params=shared_options())
@click.option("--key", metavar="KEY", help="Of this API key; a deleted one by its id.")
@click.option("--id", "request_id", metavar="R", help="The one with this request id, in full.")
@FROM
@TO
@TAG
@click.option("--outcome", type=click.Choice(_OUTCOMES), help="Only calls that ended like this.")
@click.option("--overruns", is_flag=True, help="Only calls that cost more than was held for them.")
@click.option("--doubtful", is_flag=True, help="Only calls whose token counts may be wrong.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most rows, the newest first.")
@click.pass_context
def requests_command(
    ctx: click.Context,
    key: str | None,
    request_id: str | None,
    start: datetime | None,
    end: datetime | None,
    tagged: tuple[str, ...],
    outcome: str | None,
    overruns: bool,
    doubtful: bool,
    limit: int,
) -> None:
    """Search the request log, or correct what a call was charged."""
    if ctx.invoked_subcommand is not None:
        return
    from toolkit.reports import requests
    from toolkit.statements import corrections

    app = ctx.find_object(App)
    assert app is not None  # noqa: S101 - the root made it
    _, key_id = app.ids(None, key)
    period = Period(start, end)
    found = requests.search(
        app.workspace.ledger,
        request_id=request_id,
        key=key_id,
        outcome=outcome,
        overrun=overruns,
        doubtful=doubtful,
        period=period,
        tags=tags.wanted(tagged),
        limit=limit,
    )
    rows = records(found, _MONEY)
    if request_id is None:
        columns = {
            "admitted_at": "time (UTC)",
            "request_id": "request",
            "key_label": "key",
            "model": "model",
            "outcome": "outcome",
            "refusal": "refusal",
            "input_tokens": "input",
            "output_tokens": "output",
            "cost_usd": "cost",
            "duration_ms": "ms",
        }
        if tagged:
            columns |= {"org": "organisation", "tags": "tags"}
            if not app.as_json:
                rows = [row | {"tags": [f"{tag}={value}" for tag, value in _tags_of(row)]} for row in rows]
        if overruns:
            columns = {name: title for name, title in columns.items() if name not in {"outcome", "refusal"}}
            columns |= {"held_usd": "held", "overrun_usd": "overrun"}
            app.rows(rows, columns, empty="No call has cost more than was held for it.")
            return
        if doubtful:
            app.rows(rows, columns | {"usage_doubt": "doubt"}, empty="No call's token counts are doubted.")
            return
        app.rows(rows, columns, empty="No requests. A call through the gateway shows up here as soon as it has ended.")
    elif rows:
        with app.workspace.read() as tx:
            entries = corrections.of_call(tx, request_id)
        changed = -sum(entry.amount for entry in entries)
        more = {"corrected_usd": Usd(changed), "charge_usd": Usd(int(found["cost"].iloc[0]) + changed)}
        app.facts(rows[0] | (more if entries else {}))
    else:
        raise NotFound(f"There is no request {request_id!r} in the log. A call under way has no row yet.")


@requests_command.command("correct")
@click.argument("request_id", metavar="ID")
@click.option("--charge", required=True, type=UsdType(), metavar="USD", help="The whole charge; 0 gives it back.")
@click.option("--reason", required=True, metavar="TEXT", help="Why the charge was wrong.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_app
def correct(app: App, request_id: str, charge: int, reason: str, yes: bool) -> None:
    """Set what a call costs; the difference is booked in the wallet."""
    from toolkit.statements import corrections

    found = corrections.find(app.workspace, request_id)
    what = f"the charge of {found.request_id} (key {found.key!r} of {found.org}, {found.month})"
    if found.present != charge:
        app.confirm(f"Correct {what} from {show_usd(found.present)} to {show_usd(charge)}?", yes=yes)
    done = corrections.correct(app.workspace, request_id, charge, reason, confirm=found.request_id)
    by = charge - done.before.present
    facts = {
        "request_id": found.request_id,
        "org": found.org,
        "key": found.key,
        "charged_usd": Usd(found.cost),
        "before_usd": Usd(done.before.present),
        "charge_usd": Usd(charge),
        "booked_usd": Usd(-by),
        "month": done.month,
        "entry": done.entry.id if done.entry else None,
        "balance_usd": Usd(done.balance),
    }
    if done.entry is None:
        app.done(f"Nothing was booked: {what} is {show_usd(charge)} already.", facts)
        return
    moved = f" {found.month} is closed, so it counts for {done.month}." if done.moved else ""
    app.done(
        f"Corrected {what} from {show_usd(done.before.present)} to {show_usd(charge)}: {show_usd(abs(by))} "
        f"{'went back into' if by < 0 else 'was taken from'} the wallet, whose balance is {show_usd(done.balance)}."
        f"{moved}",
        facts,
    )


def _tags_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    return list(json.loads(row["tags"]).items())
