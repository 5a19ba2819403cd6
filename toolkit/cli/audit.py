"""`keydesk audit`: the audit log, and the proof that it was not changed."""

import json
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from toolkit.admin import keys, organisations
from toolkit.cli.app import App, Command, pass_app
from toolkit.core.errors import InvalidInput
from toolkit.store import audit

CHANGES_WIDTH = 100
"""Characters of an act's changes that people see; `--json` has all."""


@click.command(cls=Command)
@click.option("--verify", is_flag=True, help="Walk every chain; fail if a row was changed, removed or reordered.")
@click.option(
    "--head",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the chains' heads into FILE; with --verify, check that the log still has those in FILE.",
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
