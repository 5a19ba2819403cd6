"""The audit log: append-only, hash-chained, one chain for each organisation and one for the platform.

Every verb of the services records its act here, in its own transaction. A row's hash covers its content and the
hash before it, so a changed, removed or reordered row is found; the head, kept elsewhere, shows a cut tail.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, select, text
from sqlalchemy.orm import InstrumentedAttribute

from toolkit.core import words
from toolkit.core.errors import InvalidInput
from toolkit.core.moments import micros
from toolkit.store.tables import AuditHead, AuditRow, OrgPerson
from toolkit.store.transaction import Transaction

PLATFORM = "platform"
"""The chain of acts that belong to no organisation."""
NAMES = frozenset({"actor", "created_by", "recorded_by", "closed_by"})
"""Columns, and facts of acts, that hold the name of whoever did or made something."""

GENESIS = "0" * 64
_LONGEST_SEQ = 18


def _row_hash(row: AuditRow) -> str:
    content = [
        row.chain,
        row.seq,
        micros(row.at),
        row.actor,
        row.action,
        row.subject,
        row.before,
        row.after,
        row.reason,
        row.previous_hash,
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def _snapshot(facts: dict[str, Any] | None) -> str | None:
    return None if facts is None else json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)


def record(
    tx: Transaction,
    action: str,
    subject: str,
    *,
    org_id: str | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> AuditRow:
    """Append an act to its chain, inside the transaction that performs it.

    Args:
        tx: gives the actor and the moment.
        action: `noun.verb`, such as "key.rotate".
        subject: id of what was acted on.
        org_id: whose chain; None is the platform's.
        before, after: the facts that changed; never a secret.
        reason: why, in the actor's words.

    Raises:
        InvalidInput: the reason is too long, or holds characters that cannot be seen.
    """
    chain = org_id or PLATFORM
    head = _locked_head(tx, chain)
    row = AuditRow(
        chain=chain,
        seq=head.seq + 1,
        at=tx.now,
        actor=tx.actor.name,
        action=action,
        subject=subject,
        before=_snapshot(before),
        after=_snapshot(after),
        reason=words.check_reason(reason),
        previous_hash=head.hash,
        hash="",
    )
    if tx.actor.org_id is not None:
        remember(tx, tx.actor.org_id, tx.actor.name)
    row.hash = _row_hash(row)
    head.seq, head.hash = row.seq, row.hash
    tx.session.add(row)
    tx.session.flush()
    return row


def _locked_head(tx: Transaction, chain: str) -> AuditHead:
    """Return a chain's head, which nobody else may move until the transaction ends; a new chain gets one."""
    head = tx.session.get(AuditHead, chain, with_for_update=True, populate_existing=True)
    if head is not None:
        return head
    # Somebody else may begin the chain at this moment.
    begin = text("INSERT INTO audit_head (chain, seq, hash) VALUES (:chain, 0, :hash) ON CONFLICT (chain) DO NOTHING")
    tx.session.execute(begin, {"chain": chain, "hash": GENESIS})
    return tx.session.get_one(AuditHead, chain, with_for_update=True)


def remember(tx: Transaction, org_id: str, name: str) -> None:
    """Note that somebody is one of an organisation's own people, whose names the others may read."""
    known = text("INSERT INTO org_person (org_id, name) VALUES (:org, :name) ON CONFLICT (org_id, name) DO NOTHING")
    tx.session.execute(known, {"org": org_id, "name": name})


def names_shown(tx: Transaction) -> Callable[[str], str]:
    """Return what the actor of a transaction reads for the name of whoever did or made something.

    People of one organisation read the names of its own people, and "platform" for all others': those of the platform's
    operators are none of their business, nor is who has the key store.
    """
    if tx.actor.org_id is None:
        return str
    own = set(tx.session.scalars(select(OrgPerson.name).where(OrgPerson.org_id == tx.actor.org_id)))
    return lambda name: name if name in own else PLATFORM


def facts_shown(snapshot: str | None, shown: Callable[[str], str]) -> str | None:
    """Return the facts of an act as somebody reads them who reads names as `shown` says."""
    if snapshot is None or not any(f'"{field}"' in snapshot for field in NAMES):
        return snapshot
    try:
        facts = dict(json.loads(snapshot))
    except (ValueError, TypeError):  # somebody made it unreadable: the chain's check finds it
        return None
    return _snapshot({name: shown(value) if name in NAMES and value else value for name, value in facts.items()})


@dataclass(frozen=True, slots=True)
class Choices:
    """What the acts that somebody may see can be narrowed to, each sorted: actions, actors and subjects' ids."""

    actions: list[str]
    actors: list[str]
    subjects: list[str]


def choices(tx: Transaction) -> Choices:
    """Return what `rows` may be asked for, with actors as the actor of the transaction reads them."""

    def distinct(column: InstrumentedAttribute[str]) -> set[str]:
        query = select(column).distinct()
        return set(
            tx.session.scalars(query if tx.actor.org_id is None else query.where(AuditRow.chain == tx.actor.org_id))
        )

    actors = set(map(names_shown(tx), distinct(AuditRow.actor)))
    return Choices(sorted(distinct(AuditRow.action)), sorted(actors), sorted(distinct(AuditRow.subject)))


def _is_by(tx: Transaction, by: str) -> ColumnElement[bool]:
    """Return the condition that an act was done by somebody, under the name that the transaction's actor reads."""
    if tx.actor.org_id is None:
        return AuditRow.actor == by
    own = select(OrgPerson.name).where(OrgPerson.org_id == tx.actor.org_id)
    return AuditRow.actor.not_in(own) if by == PLATFORM else and_(AuditRow.actor == by, AuditRow.actor.in_(own))


def rows(
    tx: Transaction,
    *,
    subject: str | None = None,
    org_id: str | None = None,
    action: str | None = None,
    by: str | None = None,
    since: datetime | None = None,
    limit: int = 200,
) -> list[AuditRow]:
    """Return the newest acts that the actor may see, newest first; for people of one organisation as they read them.

    Args:
        tx: any actor.
        subject: only acts on this.
        org_id: only acts in the organisation with this id.
        action: only acts of this kind, such as "key.rotate".
        by: only acts of whoever the actor of the transaction reads this name for.
        since: only acts at this moment or later.
        limit: the most to return.
    """
    query = select(AuditRow).order_by(AuditRow.at.desc(), AuditRow.chain, AuditRow.seq.desc()).limit(limit)
    if tx.actor.org_id is not None:
        query = query.where(AuditRow.chain == tx.actor.org_id)
    if org_id is not None:
        query = query.where(AuditRow.chain == org_id)
    if subject is not None:
        query = query.where(AuditRow.subject == subject)
    if action is not None:
        query = query.where(AuditRow.action == action)
    if by is not None:
        query = query.where(_is_by(tx, by))
    if since is not None:
        query = query.where(AuditRow.at >= since)
    found = list(tx.session.scalars(query))
    if tx.actor.org_id is None:
        return found
    shown = names_shown(tx)
    return [_as_shown(row, shown) for row in found]


def _as_shown(row: AuditRow, shown: Callable[[str], str]) -> AuditRow:
    """Return a copy that belongs to no session, so that nothing of it is ever written."""
    facts = {column.key: getattr(row, column.key) for column in AuditRow.__table__.columns}
    facts |= {"actor": shown(row.actor)}
    facts |= {name: facts_shown(facts[name], shown) for name in ("before", "after")}
    return AuditRow(**facts)


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """A place where a chain does not hold."""

    chain: str
    seq: int
    problem: str


def heads(tx: Transaction) -> dict[str, str]:
    """Return the head of each chain that the actor may see as `seq:hash`, for safe keeping elsewhere."""
    return {chain: f"{seq}:{digest}" for chain, (seq, digest) in _heads(tx).items()}


def read_heads(file: Path | str) -> dict[str, str]:
    """Return the heads that `keydesk audit --head FILE` wrote, for `verify`.

    Raises:
        InvalidInput: the file cannot be read, or holds something else.
    """
    try:
        kept = json.loads(Path(file).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} cannot be read as heads: {error}. `audit --head FILE` writes them.") from error
    if not isinstance(kept, dict) or not all(chain.isprintable() and isinstance(kept[chain], str) for chain in kept):
        raise InvalidInput(f"{file} holds no heads. `keydesk audit --head FILE` writes them.")
    return kept


def _heads(tx: Transaction) -> dict[str, tuple[int, str]]:
    query = select(AuditHead)
    if tx.actor.org_id is not None:
        query = query.where(AuditHead.chain == tx.actor.org_id)
    return {head.chain: (head.seq, head.hash) for head in tx.session.scalars(query)}


def verify(tx: Transaction, known_heads: dict[str, str] | None = None) -> list[BrokenLink]:
    """Walk every chain that the actor may see and return what does not hold; an empty list is a clean log.

    Args:
        tx: a read transaction.
        known_heads: heads exported earlier; each must still be at its place.

    Raises:
        InvalidInput: a known head is not of the form `seq:hash`.
    """
    broken: list[BrokenLink] = []
    expected: dict[str, tuple[int, str]] = {}
    wanted = {chain: _parse_head(chain, text) for chain, text in (known_heads or {}).items()}
    query = select(AuditRow).order_by(AuditRow.chain, AuditRow.seq)
    if tx.actor.org_id is not None:
        query = query.where(AuditRow.chain == tx.actor.org_id)
    for row in tx.session.scalars(query.execution_options(yield_per=1_000)):
        seq, previous = expected.get(row.chain, (0, GENESIS))
        if row.seq != seq + 1:
            broken.append(BrokenLink(row.chain, row.seq, f"row {seq + 1} is missing"))
        elif row.previous_hash != previous:
            broken.append(BrokenLink(row.chain, row.seq, "does not follow from the row before it"))
        if _row_hash(row) != row.hash:
            broken.append(BrokenLink(row.chain, row.seq, "was changed"))
        if wanted.get(row.chain, (0, ""))[0] == row.seq and wanted.pop(row.chain)[1] != row.hash:
            broken.append(BrokenLink(row.chain, row.seq, "is not the row whose head was exported"))
        expected[row.chain] = (row.seq, row.hash)
    kept = _heads(tx)
    broken += [
        BrokenLink(chain, head[0], "the chain's end was cut or replaced")
        for chain, head in kept.items()
        if expected.get(chain) != head
    ]
    broken += [
        BrokenLink(chain, seq, "the chain has no head any more")
        for chain, (seq, _) in expected.items()
        if chain not in kept
    ]
    broken += [BrokenLink(chain, seq, "the exported head is not in the log") for chain, (seq, _) in wanted.items()]
    return broken


def _parse_head(chain: str, text: str) -> tuple[int, str]:
    seq, separator, digest = text.partition(":")
    if not (separator and seq.isdecimal() and len(seq) <= _LONGEST_SEQ and len(digest) == 64):
        raise InvalidInput(f"The exported head of chain {chain!r} must look like 12:<64 hexadecimal digits>.")
    return int(seq), digest
