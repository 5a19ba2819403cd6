"""`keydesk ledger`: drain, compact, sweep, verify and export the usage ledger, and show its state."""

import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from toolkit.admin import keys, organisations, plans
from toolkit.cli.app import App, Group, keep_private, pass_app
from toolkit.cli.command_line import to_paste
from toolkit.cli.supervisor import StopSignals
from toolkit.cli.values import Moment
from toolkit.core import tags
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, Unavailable
from toolkit.core.period import Period
from toolkit.core.policy import Outcome
from toolkit.store import refusal_counts

if TYPE_CHECKING:
    from toolkit.ledger import exports
    from toolkit.ledger.ledger import Ledger

DRAIN_EVERY = 1.0
"""Seconds between two drains of `sync --follow`."""

MERGE_EVERY = 10.0
"""Seconds between two compactions in passing: each drain leaves a small segment, and many make queries slow."""

COMPACT_EVERY = 600.0
"""Seconds between two compactions of all that is small, each with a sweep."""

LATE = 60.0
"""Seconds that a row may wait before `status` says that no drain runs."""

_FROM = click.option("--from", "start", type=Moment(), metavar="TIME", help="From this moment on, UTC.")
_TO = click.option("--to", "end", type=Moment(), metavar="TIME", help="Up to, but not including, this moment, UTC.")


@click.group(cls=Group)
def ledger_command() -> None:
    """Drain, compact, verify and export the usage ledger; show its state."""


@ledger_command.command("status")
@pass_app
def status(app: App) -> None:
    """Show the state of the ledger: what it holds, what waits, and what there is to do."""
    found = app.workspace.ledger.status()
    late = found.waiting > 0 and found.oldest_seconds > LATE
    facts = {
        "root": str(app.workspace.ledger.root),
        "rows": found.rows,
        "bytes": found.size,
        "bytes_per_row": round(found.size / found.rows, 1) if found.rows else None,
        "segments": found.segments,
        "mergeable_segments": found.mergeable,
        "replaced_files": found.replaced,
        "waiting": found.waiting,
        "oldest_seconds": round(found.oldest_seconds, 3),
        "drained_at": found.drained_at,
        "draining": not late,
    }
    if app.as_json:
        app.facts(facts)
        return
    waiting = f"{found.waiting:,}" + (f", the oldest for {found.oldest_seconds:,.0f} s" if found.waiting else "")
    if late:
        waiting += to_paste("; nobody drains: run `keydesk ledger sync --follow`")
    small = f", {found.mergeable:,} of them small enough to merge" if found.mergeable else ""
    app.facts(
        {
            "kept in": facts["root"],
            "rows": f"{found.rows:,}",
            "size": f"{found.size / 1e6:,.1f} MB"
            + (f", {found.size / found.rows:.0f} bytes a row" if found.rows else ""),
            "segments": f"{found.segments:,}{small}",
            "replaced files": f"{found.replaced:,}",
            "rows waiting": waiting,
            "last drained": found.drained_at or "never",
        }
    )


@ledger_command.command("sync")
@click.option("--follow", is_flag=True, help="Go on, once a second, until Ctrl-C or SIGTERM; compacts now and then.")
@pass_app
def sync(app: App, follow: bool) -> None:
    """Move rows from the key store's outbox into the ledger's segments."""
    keep_private(app.workspace.settings)
    moved = _follow(app.workspace.ledger) if follow else app.workspace.ledger.sync()
    app.done(f"Moved {moved:,} rows into the ledger.", {"moved": moved})


def _follow(ledger: "Ledger") -> int:
    """Drain and compact until the process is told to stop; return how many rows were moved."""
    moved, rounds = 0, 0
    with StopSignals() as stop:
        while not stop.count:
            step = _tried(ledger.sync)
            if step is not None:
                moved += step
                rounds += 1
                thorough = rounds % (COMPACT_EVERY // DRAIN_EVERY) == 0
                if thorough or rounds % (MERGE_EVERY // DRAIN_EVERY) == 0:
                    moved += _tried(partial(_merge, ledger, stop, thorough=thorough)) or 0
                if thorough:
                    _tried(ledger.sweep)
                    _tried(partial(refusal_counts.fold, ledger.store))
            stop.wait(DRAIN_EVERY)
    return moved


def _merge(ledger: "Ledger", stop: StopSignals, *, thorough: bool) -> int:
    """Merge, and drain in between, so that no row waits for all of it; return how many rows were drained."""
    moved = 0
    for _ in ledger.merges(thorough=thorough):
        moved += ledger.sync()
        if stop.count:
            break
    return moved


def _tried(act: Callable[[], int]) -> int | None:
    """Do something for the ledger, or say why it cannot be done now; a later round tries again."""
    try:
        return act()
    except Unavailable as error:
        # Rows wait in the outbox, where readers see them all the same.
        click.echo(f"The ledger waits: {error}", err=True)
        return None


@ledger_command.command("compact")
@pass_app
def compact(app: App) -> None:
    """Merge the small segments of each day, and remove files that no query can still be reading.

    Counts of refusals that are some days old are added up by day.
    """
    try:
        replaced = app.workspace.ledger.compact()
    finally:  # a damaged segment keeps no old file
        removed = app.workspace.ledger.sweep()
        refusal_counts.fold(app.workspace.store)
    app.done(f"Merged {replaced:,} segments; removed {removed:,} old files.", {"merged": replaced, "removed": removed})


@ledger_command.command("verify")
@pass_app
def verify(app: App) -> None:
    """Check every segment against its checksum, and that no request occurs twice."""
    problems = app.workspace.ledger.verify()
    rows, seconds = app.workspace.ledger.lag()
    waiting = f"{rows:,} rows wait in the outbox" + (f", the oldest for {seconds:.0f} s." if rows else ".")
    app.done(
        "\n".join(problems) if problems else f"The ledger holds; {waiting}",
        {"intact": not problems, "problems": problems, "waiting": rows, "oldest_seconds": round(seconds, 3)},
    )
    if problems:
        click.get_current_context().exit(1)


@ledger_command.command("export")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "chosen",
    type=click.Choice(["parquet", "csv", "duckdb", "focus"]),
    help="focus: the columns of FOCUS 1.2, for PATH.csv or PATH.parquet.  [default: by PATH's ending]",
)
@_FROM
@_TO
@click.option("--org", "orgs", multiple=True, metavar="ORG", help="Only this organisation's; may be given again.")
@click.option("--key", "keys_", multiple=True, metavar="KEY", help="Only this API key's; a deleted one by its id.")
@click.option("--plan", "plans_", multiple=True, metavar="PLAN", help="Only calls under this plan.")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Only calls of this model.")
@click.option(
    "--dialect",
    "dialects",
    multiple=True,
    type=click.Choice([dialect.value for dialect in Dialect]),
    help="Only calls in this dialect.",
)
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice([outcome.value for outcome in Outcome]),
    help="Only calls that ended so.",
)
@click.option(
    "--tag", "tagged", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag; if given again, with all."
)
@click.option("--where", default="", metavar="SQL", help="Only calls that meet this condition on the view usage.")
@click.option("--issuer", default="Keydesk", show_default=True, metavar="NAME", help="FOCUS: who bills.")
@click.option("--force", is_flag=True, help="Take the place of a file that is there.")
@pass_app
def export(
    app: App,
    path: Path,
    chosen: "exports.Format | None",
    start: datetime | None,
    end: datetime | None,
    orgs: tuple[str, ...],
    keys_: tuple[str, ...],
    plans_: tuple[str, ...],
    models: tuple[str, ...],
    dialects: tuple[str, ...],
    outcomes: tuple[str, ...],
    tagged: tuple[str, ...],
    where: str,
    issuer: str,
    force: bool,
) -> None:
    """Write the request log, or its FOCUS form, into one file.

    Limited to a period and to some calls, if you wish. On a terminal a bar shows how far it is.
    """
    from toolkit.ledger import exports

    ending = path.suffix.removeprefix(".")
    if chosen is None and ending not in {"parquet", "csv", "duckdb"}:
        raise click.UsageError(
            f"{path} does not end in .parquet, .csv or .duckdb: say which with --format.", click.get_current_context()
        )
    if not path.parent.is_dir():
        raise InvalidInput(f"There is no folder {path.parent}. Make it first, or write elsewhere.")
    if path.exists() and not force:
        raise Conflict(f"{path} is there already. Choose another name, or replace it with --force.")
    with app.workspace.read() as tx:
        only = {
            "org_id": [organisations.find(tx, name).id for name in orgs],
            "key_id": [keys.find(tx, name).id for name in keys_],
            "plan_id": [plans.find(tx, name).id for name in plans_],
            "model": models,
            "dialect": dialects,
            "outcome": outcomes,
        }
    with click.progressbar(length=1, file=sys.stderr, hidden=not sys.stderr.isatty(), width=20) as bar:

        def show(done: int, calls: int) -> None:
            bar.length = calls
            bar.update(done - bar.pos)

        try:
            rows = exports.export(
                app.workspace.ledger,
                path,
                format=chosen or cast("exports.Format", ending),
                period=Period(start, end),
                only={column: values for column, values in only.items() if values},
                tags=tags.wanted(tagged),
                where=where,
                issuer=issuer,
                progress=show,
            )
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written: {error}.") from error
    app.done(f"Wrote {rows:,} rows to {path}.", {"rows": rows, "path": str(path)})
