"""The audit log: every way of tampering with its chains is found."""

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import ADMIN, World, at_once
from toolkit.admin import keys, operators, organisations, wallet
from toolkit.admin.key_summaries import summaries
from toolkit.admin.prices import set_price
from toolkit.checks import findings
from toolkit.core.errors import InvalidInput
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet
from toolkit.ledger import snapshot
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.audit import PLATFORM, BrokenLink
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store


@pytest.fixture
def written(workspace: Workspace) -> Workspace:
    """A workspace with five acts in the platform's chain and three in that of an organisation."""
    with workspace.write() as tx:
        for number in range(5):
            audit.record(tx, "test.act", f"thing_{number}", before={"n": number}, after={"n": number + 1}, reason="why")
        for number in range(3):
            audit.record(tx, "test.act", f"other_{number}", org_id="org_a")
    return workspace


def execute(workspace: Workspace, statement: str, **values: Any) -> None:
    """Change the store behind the log's back."""
    with workspace.write() as tx:
        assert tx.session.execute(text(statement), values).rowcount > 0  # type: ignore[attr-defined]


def verify(workspace: Workspace, heads: dict[str, str] | None = None) -> list[BrokenLink]:
    """Verify all chains."""
    with workspace.read() as tx:
        return audit.verify(tx, heads)


def test_each_chain_counts_from_one_and_links_to_the_row_before(written: Workspace) -> None:
    """Sequence numbers have no gap, and each row holds the hash of the one before it."""
    with written.read() as tx:
        rows = [row for row in audit.rows(tx)[::-1] if row.chain == PLATFORM]
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].previous_hash == audit.GENESIS
    assert [row.previous_hash for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert verify(written) == []


def test_a_row_keeps_what_it_was_given(workspace: Workspace) -> None:
    """Actor, moment, facts and reason are stored, whatever characters are in them."""
    reason = "line\nbreak, 'quotes', \"more\", ключ, 🔑"
    with workspace.acting_as(Actor("ada@example.com", Role.PLATFORM_ADMIN)).write() as tx:
        made = audit.record(tx, "test.act", "thing", after={"name": "naïve 日本"}, reason=reason)
        moment = tx.now
    with workspace.read() as tx:
        (row,) = audit.rows(tx)
    assert (row.actor, row.at, row.reason, row.hash) == ("ada@example.com", moment, reason, made.hash)
    assert row.after == '{"name": "naïve 日本"}'
    assert row.before is None
    assert verify(workspace) == []


@pytest.mark.parametrize("reason", ["a\0b", "looks \u202edne eht", "x" * 501])
def test_a_reason_that_is_not_what_it_looks_like_is_refused(workspace: Workspace, reason: str) -> None:
    """Controls, what turns the direction of what follows, and more than anybody reads: the act fails with its row."""
    with pytest.raises(InvalidInput, match="The reason"), workspace.write() as tx:
        audit.record(tx, "test.act", "thing", reason=reason)
    with workspace.read() as tx:
        assert audit.rows(tx) == []


CHANGES = {
    "actor": "'mallory'",
    "action": "'test.other'",
    "subject": "'elsewhere'",
    '"before"': "NULL",
    '"after"': "'{}'",
    "reason": "''",
    "at": "at + 1",
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_row_is_found(written: Workspace, column: str) -> None:
    """Whatever is changed of a row, its hash does not fit any more."""
    execute(written, f"UPDATE audit SET {column} = {CHANGES[column]} WHERE chain = 'platform' AND seq = 3")
    assert verify(written) == [BrokenLink(PLATFORM, 3, "was changed")]


def test_a_changed_row_with_a_new_hash_is_found(written: Workspace) -> None:
    """Computing the row's hash anew breaks the link of the next row."""
    with written.write() as tx:
        row = next(row for row in audit.rows(tx) if (row.chain, row.seq) == (PLATFORM, 3))
        row.reason = "forged"
        row.hash = audit._row_hash(row)
    assert verify(written) == [BrokenLink(PLATFORM, 4, "does not follow from the row before it")]


@pytest.mark.parametrize("seq", [1, 3])
def test_a_removed_row_is_found(written: Workspace, seq: int) -> None:
    """A gap is named with the row that is missing."""
    execute(written, "DELETE FROM audit WHERE chain = 'platform' AND seq = :seq", seq=seq)
    assert verify(written) == [BrokenLink(PLATFORM, seq + 1, f"row {seq} is missing")]


def test_rows_that_changed_places_are_found(written: Workspace) -> None:
    """Two rows whose numbers were swapped do not fit where they stand."""
    execute(written, "UPDATE audit SET seq = 99 WHERE chain = 'platform' AND seq = 2")
    execute(written, "UPDATE audit SET seq = 2 WHERE chain = 'platform' AND seq = 3")
    execute(written, "UPDATE audit SET seq = 3 WHERE seq = 99")
    assert {link.seq for link in verify(written)} >= {2, 3}


def test_a_row_moved_to_another_chain_is_found(written: Workspace) -> None:
    """An act cannot be given to another organisation."""
    execute(written, "UPDATE audit SET chain = 'org_a', seq = 4 WHERE chain = 'platform' AND seq = 5")
    assert {link.chain for link in verify(written)} == {PLATFORM, "org_a"}


def test_a_cut_tail_is_found_by_the_head(written: Workspace) -> None:
    """Removing the last rows does not fit the head that the store keeps."""
    execute(written, "DELETE FROM audit WHERE chain = 'platform' AND seq > 3")
    assert verify(written) == [BrokenLink(PLATFORM, 5, "the chain's end was cut or replaced")]


def test_a_cut_tail_with_a_forged_head_is_found_by_the_exported_one(written: Workspace) -> None:
    """If the store's own head was set back too, only the head kept elsewhere tells."""
    with written.read() as tx:
        heads = audit.heads(tx)
    execute(written, "DELETE FROM audit WHERE chain = 'platform' AND seq > 3")
    execute(
        written,
        "UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit WHERE chain = 'platform' AND seq = 3)"
        " WHERE chain = 'platform'",
    )
    assert verify(written) == []
    assert verify(written, heads) == [BrokenLink(PLATFORM, 5, "the exported head is not in the log")]


def test_a_tail_that_was_written_anew_is_found_by_the_exported_head(written: Workspace) -> None:
    """A tail that was cut and grown again has another hash at the exported place."""
    with written.read() as tx:
        heads = audit.heads(tx)
    execute(written, "DELETE FROM audit WHERE chain = 'platform' AND seq > 4")
    execute(
        written,
        "UPDATE audit_head SET seq = 4, hash = (SELECT hash FROM audit WHERE chain = 'platform' AND seq = 4)"
        " WHERE chain = 'platform'",
    )
    with written.write() as tx:
        audit.record(tx, "test.act", "nothing happened")
    assert verify(written) == []
    assert verify(written, heads) == [BrokenLink(PLATFORM, 5, "is not the row whose head was exported")]


def test_an_exported_head_fits_a_log_that_has_grown_since(written: Workspace) -> None:
    """Old heads stay good."""
    with written.read() as tx:
        heads = audit.heads(tx)
    with written.write() as tx:
        audit.record(tx, "test.act", "more")
    assert heads.keys() == {PLATFORM, "org_a"}
    assert verify(written, heads) == []


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM audit_head WHERE chain = 'org_a'", "UPDATE audit_head SET hash = 'x' WHERE chain = 'org_a'"],
)
def test_a_head_that_is_gone_or_wrong_is_found(written: Workspace, statement: str) -> None:
    """A chain without its head could be cut unseen, so that is a finding itself."""
    execute(written, statement)
    (link,) = verify(written)
    assert (link.chain, link.seq) == ("org_a", 3)


@pytest.mark.parametrize(
    "head",
    [
        "",
        "5",
        "x:" + "0" * 64,
        "²:" + "0" * 64,
        "5:abc",
        ":" + "0" * 64,
        pytest.param(f"{'9' * 5_000}:{64 * '0'}", id="9"),
    ],
)
def test_a_head_of_another_form_is_refused(written: Workspace, head: str) -> None:
    """A typo in an exported head is not taken for tampering."""
    with pytest.raises(InvalidInput, match="must look like"):
        verify(written, {PLATFORM: head})


@pytest.mark.only_store("sqlite")
def test_heads_are_read_as_they_were_written(written: Workspace, tmp_path: Path) -> None:
    """A file of heads is what `heads` returned; a path may be text."""
    with written.read() as tx:
        heads = audit.heads(tx)
    file = tmp_path / "heads.json"
    file.write_text(json.dumps(heads))
    assert audit.read_heads(file) == audit.read_heads(str(file)) == heads


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"platform": 5}', b"\xff", b"[" * 100_000, b'{"\\ud800": "x"}', b'{"a": ' + b"9" * 5_000 + b"}"],
    ids=["nothing", "a list", "a number", "no text", "deep", "half a character", "a long number"],
)
def test_a_file_that_holds_no_heads_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever else is in the file, the answer names it and what writes such files."""
    file = tmp_path / "heads.json"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"heads\.json .*audit --head FILE` writes them"):
        audit.read_heads(file)
    with pytest.raises(InvalidInput, match="cannot be read as heads"):
        audit.read_heads(tmp_path / "none")


def test_an_act_of_a_failed_transaction_leaves_no_gap(written: Workspace) -> None:
    """A rolled-back act takes its number back with it."""
    with pytest.raises(RuntimeError, match="stop"):
        fail(written)
    with written.write() as tx:
        assert audit.record(tx, "test.act", "next").seq == 6
    assert verify(written) == []


def fail(workspace: Workspace) -> None:
    """Record an act in a transaction that fails."""
    with workspace.write() as tx:
        audit.record(tx, "test.act", "lost")
        raise RuntimeError("stop")


def test_an_organisation_sees_its_own_chain_only(world: World) -> None:
    """Rows, heads and verification stop at the organisation's border; the platform sees all."""
    world.key()
    with world.workspace.write() as tx:
        rival = organisations.add(tx, "Rival")
        keys.create(tx, world.workspace.keyring, org=rival.id, name="theirs", plan=world.plan_id)
    for role in (Role.ORG_ADMIN, Role.ANALYST):
        own = replace(world, workspace=world.workspace.acting_as(Actor("x@example.com", role, world.org_id)))
        with own.workspace.read() as tx:
            assert {row.chain for row in audit.rows(tx)} == {world.org_id}
            assert set(audit.heads(tx)) == {world.org_id}
            theirs = summaries(tx)
            assert [summary.key.name for summary in theirs] == ["app"]
    with world.workspace.read() as tx:
        assert set(audit.heads(tx)) == {PLATFORM, world.org_id, rival.id}
        foreign = next(row.subject for row in audit.rows(tx) if row.chain == rival.id)
    execute(world.workspace, "UPDATE audit SET reason = 'x' WHERE chain = :chain", chain=rival.id)
    with world.workspace.acting_as(Actor("x@example.com", Role.ANALYST, world.org_id)).read() as tx:
        assert audit.verify(tx) == []
        assert audit.rows(tx, subject=foreign) == []
    assert {link.chain for link in verify(world.workspace)} == {rival.id}


def test_rows_are_newest_first_and_limited(written: Workspace) -> None:
    """The limit keeps the newest; a subject selects its own."""
    with written.read() as tx:
        assert [row.seq for row in audit.rows(tx) if row.chain == PLATFORM] == [5, 4, 3, 2, 1]
        assert len(audit.rows(tx, limit=2)) == 2
        (row,) = audit.rows(tx, subject="thing_2")
    assert row.seq == 3


def test_acts_at_once_are_one_chain(workspace: Workspace) -> None:
    """Also the first ones of a new chain: none fails, none is lost, and every link holds."""

    def act(number: int) -> None:
        with workspace.write() as tx:
            audit.record(tx, "test.act", f"thing_{number}", org_id="org_new")

    assert at_once(*[partial(act, number) for number in range(8)]) == [None] * 8
    with workspace.read() as tx:
        assert sorted(row.seq for row in audit.rows(tx)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert verify(workspace) == []


BOSS, ADA = "boss@keydesk.local", "ada@acme.example"


@pytest.fixture
def both(world: World) -> World:
    """A world in which the platform and the organisation's own admin have made and changed keys."""
    for name, role, org in ((BOSS, Role.PLATFORM_ADMIN, None), (ADA, Role.ORG_ADMIN, world.org_id)):
        workspace = world.workspace.acting_as(Actor(name, role, org))
        with workspace.write() as tx:
            made = keys.create(tx, workspace.keyring, org=world.org_id, name=f"of the {role}", plan=world.plan_id).key
            keys.update(tx, made.id, monthly_limit=5)
    return world


def test_people_of_one_organisation_read_no_names_of_the_platform(both: World) -> None:
    """In acts, their facts, keys and findings: own people by name, all others as the platform; the log is whole."""
    workspace = both.workspace.as_analyst("Acme")
    with workspace.read() as tx:
        rows = audit.rows(tx)
        assert {row.actor for row in rows} == {"platform", ADA}
        assert {json.loads(row.after or "{}").get("created_by") for row in rows} == {None, "platform", ADA}
        assert {summary.created_by for summary in summaries(tx)} == {"platform", ADA}
        assert audit.verify(tx) == []
    report = findings.run(workspace.ledger)
    assert "keydesk.local" not in repr(report)
    assert "cli:" not in repr(report)


def test_acts_are_narrowed_by_names_as_they_are_read(both: World) -> None:
    """Asking for a name of the platform finds an organisation nothing, so that none can be guessed."""
    workspace = both.workspace.as_analyst("Acme")
    with workspace.read() as tx:
        known = audit.choices(tx)
        assert known.actors == [ADA, "platform"]
        assert {row.actor for row in audit.rows(tx, by="platform")} == {"platform"}
        assert {row.actor for row in audit.rows(tx, by=ADA, action="key.create")} == {ADA}
        assert len(audit.rows(tx, by="platform")) + len(audit.rows(tx, by=ADA)) == len(audit.rows(tx))
        assert audit.rows(tx, by=BOSS) == []
        assert audit.rows(tx, since=tx.now + timedelta(days=1)) == []
    with both.workspace.read() as tx:
        assert {BOSS, ADA} <= set(audit.choices(tx).actors)
        assert {row.actor for row in audit.rows(tx, by=BOSS)} == {BOSS}


def test_the_platform_reads_all_names(both: World) -> None:
    """Also when it looks at one organisation's acts alone."""
    with both.workspace.read() as tx:
        assert {row.actor for row in audit.rows(tx, org_id=both.org_id)} == {ADMIN.name, BOSS, ADA}
        assert {summary.created_by for summary in summaries(tx)} == {BOSS, ADA}


def test_no_view_has_a_name_of_the_platform_for_an_organisation(both: World) -> None:
    """Every column of every view is looked through, and so is what another organisation's models cost."""
    with both.workspace.write() as tx:
        set_price(tx, "other-test", PriceSheet.flat(input=1, output=1))
        wallet.credit(tx, "Acme", 5, "second payment")
    workspace = both.workspace.as_analyst("Acme")
    for name in snapshot.TABLES:
        told = repr(workspace.ledger.sql(f"SELECT * FROM {name}").to_pylist())
        assert "keydesk.local" not in told, name
        assert "other-test" not in told, name
    assert ADA in repr(workspace.ledger.sql("SELECT created_by FROM keys").to_pylist())
    assert BOSS in repr(both.workspace.ledger.sql("SELECT created_by FROM keys").to_pylist())


def test_a_name_is_known_where_it_acted_or_was_let_in(both: World) -> None:
    """Whoever is removed stays known to the own organisation; another one does not learn the name by a move alone."""
    with both.workspace.write() as tx:
        rival = organisations.add(tx, "Rival")
        password = hash_password("correct horse battery")
        operators.add(tx, "eve@rival.example", Role.ANALYST, password, org_id=rival.id)
        operators.remove(tx, "eve@rival.example", confirm="eve@rival.example")
    for org, known in (("Rival", {"eve@rival.example"}), ("Acme", {ADA})):
        with both.workspace.as_analyst(org).read() as tx:
            shown = audit.names_shown(tx)
            assert {name for name in (BOSS, ADA, "eve@rival.example", "cli:root") if shown(name) == name} == known
