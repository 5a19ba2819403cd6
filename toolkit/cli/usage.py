"""`keydesk spend`, `accuracy`, `requests` and `audit`: what happened, and whether the records hold."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from toolkit.admin import keys, organisations
from toolkit.cli.app import App, Command, Group, pass_app, shared_options
from toolkit.cli.output import Usd, records
from toolkit.cli.values import Moment
from toolkit.cli.values import Usd as UsdType
from toolkit.core import tags
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.money import show_usd
from toolkit.core.period import Period
from toolkit.core.policy import Outcome
from toolkit.store import audit

CHANGES_WIDTH = 100
"""Characters of an act's changes that people see; `--json` has all."""

_FROM = click.option("--from", "start", type=Moment(), metavar="TIME", help="From this moment on, UTC.")
_TO = click.option("--to", "end", type=Moment(), metavar="TIME", help="Up to, but not including, this moment, UTC.")
_TAG = click.option(
    "--tag", "tagged", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag; if given again, with all."
)
_OUTCOMES = [outcome.value for outcome in Outcome]
_MONEY = ("cost", "held", "overrun")


def headings(by: Sequence[str]) -> dict[str, str]:
    """Return the columns of a report's dimensions for people: field → heading."""
    known = {
        "key": {"key_label": "key", "org": "organisation"},
        "org": {"org": "organisation"},
        "hour": {"hour": "hour (UTC)"},
        "day": {"day": "day (UTC)"},
        "week": {"week": "week from (UTC)"},
    }
    return {field: heading for name in by for field, heading in known.get(name, {name: name}).items()}


@click.command(cls=Command)
@click.option(
    "--by",
    multiple=True,
    default=["key"],
    show_default=True,
    metavar="DIMENSION",
    help="What to add up for: key, model, org, plan, dialect, hour, day, week, month or tag:NAME; may be given again.",
)
@_FROM
@_TO
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--key", metavar="KEY", help="Only this API key's.")
@_TAG
@pass_app
def spend_command(
    app: App,
    by: tuple[str, ...],
    start: datetime | None,
    end: datetime | None,
    org: str | None,
    key: str | None,
    tagged: tuple[str, ...],
) -> None:
    """Show what was spent: calls, tokens and cost.

    Refused calls do not count.
    """
    from toolkit.reports import queries

    org_id, key_id = app.ids(org, key)
    period, wanted = Period(start, end), tags.wanted(tagged)
    rows = records(queries.spend(app.workspace.ledger, by, period, org=org_id, key=key_id, tags=wanted), _MONEY)
    dimensions = headings(by)
    sums = ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost_usd")
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in sums}
    total |= {next(iter(dimensions)): "total", "cost_usd": Usd(total["cost_usd"])}
    columns = {
        **dimensions,
        "calls": "calls",
        "input_tokens": "input",
        "cached_input_tokens": "cached",
        "output_tokens": "output",
        "cost_usd": "cost",
    }
    app.rows(rows, columns, empty="Nothing was spent in this period.", total=total)


@click.command(cls=Command)
@_FROM
@_TO
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--key", metavar="KEY", help="Only this API key's.")
@pass_app
def accuracy_command(app: App, start: datetime | None, end: datetime | None, org: str | None, key: str | None) -> None:
    """Show how well holds foretold charges, per key and model.

    The ratio is held ÷ charged; an overrun is a call that cost more than was held for it.
    """
    from toolkit.reports import queries

    org_id, key_id = app.ids(org, key)
    frame = queries.hold_accuracy(app.workspace.ledger, period=Period(start, end), org=org_id, key=key_id)
    columns = {
        "key_label": "key",
        "org": "organisation",
        "model": "model",
        "calls": "calls",
        "held_usd": "held",
        "cost_usd": "charged",
        "ratio": "ratio",
        "overruns": "overruns",
        "overrun_usd": "beyond holds",
    }
    app.rows(records(frame, _MONEY), columns, empty="No call was charged in this period.")


@click.group(cls=Group, invoke_without_command=True, params=shared_options())
@click.option("--key", metavar="KEY", help="Of this API key; a deleted one by its id.")
@click.option("--id", "request_id", metavar="R", help="The one with this request id, in full.")
@_FROM
@_TO
@_TAG
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
    from toolkit.reports import queries
    from toolkit.statements import corrections

    app = ctx.find_object(App)
    assert app is not None  # noqa: S101 - the root made it
    _, key_id = app.ids(None, key)
    period = Period(start, end)
    found = queries.requests(
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


@click.command(cls=Command)
@click.option("--verify", is_flag=True, help="Walk every chain; fail if a row was changed, removed or reordered.")
@click.option(
    "--head",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the chains' heads into FILE; with --verify, check that those in FILE still stand.",
)
@click.option("--key", metavar="KEY", help="Acts on this API key; a deleted one by its id.")
@click.option("--org", metavar="ORG", help="Acts in this organisation.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most rows, the newest first.")
@pass_app
def audit_command(app: App, verify: bool, head: Path | None, key: str | None, org: str | None, limit: int) -> None:
    """Show the audit log, or prove that it was not changed."""
    if (key or org) and (verify or head):
        raise click.UsageError("--verify and --head take the whole log.", click.get_current_context())
    if verify:
        _verify_audit(app, head)
    elif head is not None:
        with app.workspace.read() as tx:
            heads = audit.heads(tx)
        try:
            head.write_text(json.dumps(heads, indent=2, sort_keys=True) + "\n")
        except OSError as error:
            raise InvalidInput(f"The heads cannot be written: {error}.") from error
        app.done(f"Wrote the heads of {len(heads)} chains to {head}. Keep the file elsewhere.", heads)
    else:
        with app.workspace.read() as tx:
            org_names = {found.id: found.name for found in organisations.list_all(tx)}
            key_id = keys.find(tx, key).id if key else None
            org_id = organisations.find(tx, org).id if org else None
            rows: list[dict[str, Any]] = [
                {
                    "at": row.at,
                    "chain": row.chain,
                    "org": org_names.get(row.chain),
                    "seq": row.seq,
                    "actor": row.actor,
                    "action": row.action,
                    "subject": row.subject,
                    "before": json.loads(row.before) if row.before else None,
                    "after": json.loads(row.after) if row.after else None,
                    "reason": row.reason,
                    "hash": row.hash,
                }
                for row in audit.rows(tx, subject=key_id, org_id=org_id, limit=limit)
            ]
        if not app.as_json:
            rows = [row | {"changes": _changes(row["before"], row["after"])} for row in rows]
        columns = {
            "at": "time (UTC)",
            "actor": "actor",
            "action": "action",
            "subject": "subject",
            "org": "organisation",
            "changes": "changes",
            "reason": "reason",
        }
        empty = "Nothing like this is in the audit log." if key or org else "The audit log is empty."
        app.rows(rows, columns, empty=empty)


_NOT_SHOWN = {"id", "org", "version", "created_at", "created_by"}
"""Fields of an act that say nothing about it: other columns have them, or every act changes them."""


def _changes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """Return in short what an act changed, `field: before → after`; for something new, its fields."""
    old, new = before or {}, after or {}
    names = [name for name in {**old, **new} if name not in _NOT_SHOWN and old.get(name) != new.get(name)]
    parts = [
        f"{name.removesuffix('_usd').replace('_', ' ')}: "
        + (f"{_value(name, old[name])} → " if name in old else "")
        + _value(name, new.get(name))
        for name in names
        if before or new[name] != []
    ]
    return shorten("; ".join(parts), CHANGES_WIDTH, placeholder=" …")


def _value(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or ("all" if name == "models" else "none")
    return str(value)


def _verify_audit(app: App, head: Path | None) -> None:
    known = audit.read_heads(head) if head is not None else None
    with app.workspace.read() as tx:
        broken = audit.verify(tx, known)
        chains = len(audit.heads(tx))
    links = [{"chain": link.chain, "seq": link.seq, "problem": link.problem} for link in broken]
    if app.as_json or not links:
        app.done(f"The audit log holds: {chains} chains, no broken link.", {"intact": not links, "broken": links})
    else:
        app.rows(links, {"chain": "chain", "seq": "row", "problem": "problem"}, empty="")
    if links:
        click.get_current_context().exit(1)
