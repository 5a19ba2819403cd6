"""`keydesk requests`, run in process on a real store."""

import json
from typing import Any

import pytest

from tests.books import Books
from tests.conftest import Run, World, usd
from tests.rows import append, row

pytestmark = pytest.mark.any_store


def test_requests_can_be_limited_to_overruns(world: World, run: Run) -> None:
    """`--overruns` leaves the calls that cost more than was held, with both amounts."""
    assert run("requests", "--overruns").stdout == "No call has cost more than was held for it.\n"
    books, key = Books(world), world.key("app").key
    books.settle(key, usd(2))
    wanted = books.settle(key, usd(4), held=usd(3))
    (row,) = json.loads(run("requests", "--overruns", "--json").stdout)
    assert (row["request_id"], row["overrun_usd"]) == (wanted, "1")
    assert "$4.00" in run("requests", "--overruns").stdout
    assert "$1.00" in run("requests", "--overruns").stdout


def test_a_call_is_corrected(world: World, run: Run) -> None:
    """The verb asks, books the difference and says where it went; again it books nothing; the request shows both."""
    request_id = Books(world).settle(world.key("app").key, usd(3))
    asked = ("requests", "correct", request_id, "--charge", "1", "--reason", "billed less")
    assert "confirm with --yes" in run(*asked).output
    done = run(*asked, "--yes")
    assert "from $3.00 to $1.00: $2.00 went back into the wallet, whose balance is $99.00." in done.stdout
    assert "Nothing was booked" in run(*asked).stdout
    shown = json.loads(run("requests", "--id", request_id, "--json").stdout)
    assert (shown["cost_usd"], shown["corrected_usd"], shown["charge_usd"]) == ("3", "-2", "1")
    assert json.loads(run("wallet", "show", "--org", "Acme", "--json").stdout)["corrected_usd"] == "-2"
    (entry, _) = json.loads(run("wallet", "entries", "--org", "Acme", "--json").stdout)
    assert (entry["request_id"], entry["amount_usd"], entry["reason"]) == (request_id, "2", "billed less")
    assert run("requests", "correct", "req_nobody", "--charge", "0", "--reason", "x", "--yes").exit_code == 1
    assert run("requests", "correct", request_id, "--charge", "-1", "--reason", "x", "--yes").exit_code == 1


def test_requests_can_be_limited_to_doubtful_ones(world: World, run: Run) -> None:
    """`--doubtful` leaves the calls whose token counts may be wrong, and says why."""
    books, key = Books(world), world.key("app").key
    assert run("requests", "--doubtful").stdout == "No call's token counts are doubted.\n"
    books.settle(key, usd(1))
    doubtful = books.settle(key, usd(2), usage_doubt="no input tokens")
    (found,) = json.loads(run("requests", "--doubtful", "--json").stdout)
    assert found["request_id"] == doubtful
    assert "no input tokens" in run("requests", "--doubtful").stdout


def test_requests_can_be_limited_to_an_outcome(world: World, run: Run) -> None:
    """`--outcome` leaves the calls that ended like this, and takes what the log has for outcomes."""
    books, key = Books(world), world.key("app").key
    books.settle(key, usd(2))
    refused = books.refuse(key)
    found = json.loads(run("requests", "--outcome", "refused", "--json").stdout)
    assert [row["request_id"] for row in found] == [refused]
    assert run("requests", "--outcome", "REFUSED").exit_code == 2


def test_spend_and_requests_can_be_limited_to_tags(world: World, run: Run) -> None:
    """`--tag` leaves the calls that carry it, given twice those that carry both; what is no tag is refused."""
    key = world.key("app").key
    texts = ['{"env":"live","team":"search"}', '{"team":"search"}', '{"team":"ads"}', None]
    ids = append(world.workspace.store, [row(key, cost=10**n, tags=text) for n, text in enumerate(texts)])

    def read(*arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(run(*arguments, "--json").stdout)
        return rows

    assert [found["calls"] for found in read("spend", "--tag", "team=search")] == [2]
    assert {found["request_id"] for found in read("requests", "--tag", "team=search")} == set(ids[:2])
    both = ["--tag", "team=search", "--tag", "env=live"]
    assert [found["cost_usd"] for found in read("spend", *both)] == ["0.000000001"]
    assert [found["request_id"] for found in read("requests", *both)] == ids[:1]
    shown = run("requests", *both).stdout
    assert "ORGANISATION  TAGS" in shown
    assert "Acme          env=live, team=search" in shown
    assert run("spend", "--tag", "team=nobody").stdout == "Nothing was spent in this period.\n"
    for command in ("spend", "requests"):
        result = run(command, "--tag", "team")
        assert result.exit_code == 1
        assert "'team' is not a tag. Write it like team=search." in result.stderr
