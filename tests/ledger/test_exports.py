"""Exports: whole files of any period and filter, safe in spreadsheets, and FOCUS figures that sum to the charges."""

import csv
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT, World, examples, variables_of
from tests.ledgers import bucket, bucket_server, ledger, root, store
from tests.rows import NOON, append, row
from toolkit.admin import keys, organisations
from toolkit.cli import cli
from toolkit.core import pricing, tags
from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet
from toolkit.core.settings import Settings
from toolkit.core.usage import Usage
from toolkit.ledger import exports
from toolkit.ledger.ledger import Ledger
from toolkit.reports import dimensions, spend
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.workspace import Workspace

__all__ = ["bucket", "bucket_server", "ledger", "root", "store"]

DAY = timedelta(days=1)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return a CSV file's rows as Python's own reader finds them."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Return a Parquet file's rows."""
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return rows


@pytest.fixture
def local(store: Store, tmp_path: Path) -> Ledger:
    """An empty ledger in a folder."""
    return Ledger(store, tmp_path / "ledger", SYSTEM)


def test_each_form_holds_the_period(ledger: Ledger, tmp_path: Path) -> None:
    """Each form holds the period's rows with all columns of the view, in order of time, drained or not."""
    append(ledger.store, [row(at=NOON - 40 * DAY, cost=1), row(cost=2)])
    ledger.sync()
    append(ledger.store, [row(at=NOON + timedelta(hours=1), cost=4), row(at=NOON + timedelta(minutes=1), cost=3)])
    period, out = Period.month("2026-11"), tmp_path / "out"
    columns = ledger.sql("SELECT * FROM usage").column_names
    for form in ("parquet", "csv", "duckdb"):
        assert exports.export(ledger, out / f"usage.{form}", format=form, period=period) == 3
    assert [found["cost"] for found in read_parquet(out / "usage.parquet")] == [2, 3, 4]
    assert [found["cost"] for found in read_csv(out / "usage.csv")] == ["2", "3", "4"]
    assert list(read_csv(out / "usage.csv")[0]) == pq.ParquetFile(out / "usage.parquet").schema_arrow.names == columns
    with duckdb.connect(out / "usage.duckdb", read_only=True) as database:
        assert database.execute("SELECT cost FROM usage").fetchall() == [(2,), (3,), (4,)]
    assert sorted(path.name for path in out.iterdir()) == ["usage.csv", "usage.duckdb", "usage.parquet"]


def test_parquet_has_the_rows_of_the_view(local: Ledger, tmp_path: Path) -> None:
    """What Parquet gives back is what the view has: values and types, missing ones too."""
    append(local.store, [row(at=NOON + n * DAY, cost=n, error=None if n % 2 else "é\n", stream=True) for n in range(4)])
    local.sync()
    exports.export(local, tmp_path / "usage.parquet", format="parquet")
    wanted = local.sql("SELECT * FROM usage ORDER BY admitted_at")
    assert pq.ParquetFile(tmp_path / "usage.parquet").read().equals(wanted)


def test_csv_has_each_value(local: Ledger, tmp_path: Path) -> None:
    """Moments are RFC 3339 in UTC, numbers are digits, a missing value is nothing, text is as it was."""
    odd = 'say "hi",\r\nnow'
    append(local.store, [row(at=NOON, cost=-5, held=2**62, error=odd, first_byte_ms=None, stream=True)])
    exports.export(local, tmp_path / "usage.csv", format="csv")
    (found,) = read_csv(tmp_path / "usage.csv")
    wanted = {
        "admitted_at": "2026-11-23T12:00:00.000000Z",
        "day": "2026-11-23",
        "cost": "-5",
        "held": str(2**62),
        "error": odd,
        "first_byte_ms": "",
        "stream": "true",
    }
    assert {name: found[name] for name in wanted} == wanted


@given(st.lists(st.one_of(st.none(), st.text(), st.from_regex(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20].*")), min_size=1))
def test_no_text_is_a_formula(texts: list[str | None]) -> None:
    """No cell begins as a formula does; all that is changed is an apostrophe in front of those that did."""
    safe = exports.spreadsheet_safe(pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.string())}))
    for text, cell in zip(texts, safe.column(0).to_pylist(), strict=True):
        begins_so = text is not None and text[:1] in tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
        assert cell == (f"'{text}" if begins_so else text)


def test_formulas_are_disarmed_in_the_file(world: World, tmp_path: Path) -> None:
    """A caller's model and an operator's name for a key reach the file disarmed, in both CSV forms."""
    key = world.key("=HYPERLINK(1)").key
    append(world.workspace.store, [row(key, model="+1", cost=1, usage_source="reported", output_tokens=1)])
    for form in ("csv", "focus"):
        exports.export(world.workspace.ledger, tmp_path / f"{form}.csv", format=form)
    (found,) = read_csv(tmp_path / "csv.csv")
    assert (found["key"], found["key_label"], found["model"]) == ("'=HYPERLINK(1)", "'=HYPERLINK(1)", "'+1")
    for line in read_csv(tmp_path / "focus.csv"):
        assert (line["SubAccountName"], line["ResourceId"]) == ("'=HYPERLINK(1)", "'+1")


def test_filters_leave_what_meets_all(local: Ledger, tmp_path: Path) -> None:
    """Each filter takes any of its values; a call must pass all of them and the condition."""
    wanted = [row(model="a", cost=1), row(model="b", cost=2, outcome="aborted")]
    others = [row(model="c", cost=3), row(model="a", cost=4, outcome="refused"), row("key_2", model="a", cost=5)]
    append(local.store, [*wanted, *others, row(model="b", cost=99)])
    only = {"model": ["a", "b"], "outcome": ["completed", "aborted"], "key_id": ["key_none"]}
    path = tmp_path / "usage.parquet"
    assert exports.export(local, path, format="parquet", only=only, where="cost < 50 -- not dear") == 2
    assert sorted(found["cost"] for found in read_parquet(path)) == [1, 2]
    assert exports.export(local, path, format="parquet", only={"model": []}) == 0
    assert read_parquet(path) == []


def test_tags_limit_every_form(local: Ledger, tmp_path: Path) -> None:
    """A call must carry all of the tags, beside what else is asked of it; FOCUS is limited likewise."""
    wanted = {"team": "it's", "env": "live"}
    others = [{"team": "it's"}, {"team": "ads", "env": "live"}, None]
    charged: dict[str, Any] = {"usage_source": "reported", "output_tokens": 1, "output_price": 10**6}
    texts = [tags.written(carried) if carried else None for carried in (wanted | {"user": "u"}, *others)]
    append(local.store, [row(cost=1, tags=text, model=model, **charged) for text in texts for model in ("a", "b")])
    for name, form in {"usage.csv": "csv", "usage.parquet": "parquet", "focus.csv": "focus"}.items():
        count = exports.export(local, tmp_path / name, format=form, only={"model": ["b"]}, tags=wanted)  # type: ignore[arg-type]
        assert count == 1
    assert [found["tags"] for found in read_csv(tmp_path / "usage.csv")] == texts[:1]
    assert [found["Tags"] for found in read_csv(tmp_path / "focus.csv")] == texts[:1]


def test_other_orgs_stay_out(world: World, tmp_path: Path) -> None:
    """An actor of one organisation exports its rows; a database has only the keys, orgs and plans that rows name."""
    mine, unused = world.key("mine").key, world.key("unused").key
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Globex")
        theirs = keys.create(tx, world.workspace.keyring, org=other.id, name="theirs", plan=world.plan_id).key
    append(world.workspace.store, [row(mine), row(theirs)])
    seen = world.workspace.acting_as(Actor("boss@acme.example", Role.ANALYST, world.org_id)).ledger
    assert exports.export(seen, tmp_path / "mine.parquet", format="parquet", where="true OR true") == 1
    path = tmp_path / "mine.duckdb"
    assert exports.export(world.workspace.ledger, path, format="duckdb", only={"org_id": [world.org_id]}) == 1
    with duckdb.connect(path, read_only=True) as database:
        assert database.execute("SELECT k.name, o.name, p.name FROM keys k, orgs o, plans p").fetchall() == [
            ("mine", "Acme", "standard")
        ]
    assert unused.id not in str(path.read_bytes())


def test_a_mistake_is_named_and_writes_nothing(local: Ledger, tmp_path: Path) -> None:
    """An unknown format, ending, filter or column is named; nothing is written, and an older file stays."""
    append(local.store, [row()])
    out = tmp_path / "out"
    out.mkdir()
    (out / "usage.csv").write_text("older")
    with pytest.raises(InvalidInput, match="xlsx"):
        exports.export(local, out / "usage.xlsx", format="xlsx")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"usage\.duckdb"):
        exports.export(local, out / "usage.duckdb", format="focus")
    with pytest.raises(InvalidInput, match="secret"):
        exports.export(local, out / "usage.csv", format="csv", only={"secret": ["x"]})
    with pytest.raises(InvalidInput, match="colour"):
        exports.export(local, out / "usage.csv", format="csv", where="colour = 'red'")
    with pytest.raises(InvalidInput, match="SQL"):
        exports.export(local, out / "usage.csv", format="csv", where="cost >")
    assert [path.name for path in out.iterdir()] == ["usage.csv"]
    assert (out / "usage.csv").read_text() == "older"


@pytest.mark.parametrize("form", ["csv", "parquet", "duckdb"])
def test_a_failure_half_way_leaves_no_file(
    local: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: exports.Format
) -> None:
    """An export that ends early, as by Ctrl-C, leaves nothing behind."""
    monkeypatch.setattr(exports, "SPAN", 1)
    append(local.store, [row(at=NOON), row(at=NOON + DAY)])

    def interrupt(done: int, _calls: int) -> None:
        assert done == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exports.export(local, tmp_path / "out" / f"usage.{form}", format=form, progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_leftovers_of_killed_exports_go(local: Ledger, tmp_path: Path) -> None:
    """What an export to this file left a day ago is removed; what may be written still, or is another's, stays."""
    made = {
        ".usage.csv.killed00": ("export", 2 * exports.STALE),
        ".usage.csv.spilling": ("spilled/part", 2 * exports.STALE),
        ".usage.csv.at_work0": ("export", exports.STALE / 2),
        ".usage.csv.backups": ("mine", 2 * exports.STALE),
        ".other.csv.killed00": ("export", 2 * exports.STALE),
    }
    for folder, (name, age) in made.items():
        file = tmp_path / "out" / folder / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        moment = time.time() - age
        for path in {file, file.parent, tmp_path / "out" / folder}:
            os.utime(path, (moment, moment))
    (tmp_path / "out" / ".usage.csv.swp").write_bytes(b"an editor's")
    exports.export(local, tmp_path / "out" / "usage.csv", format="csv")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "usage.csv",
        ".usage.csv.swp",
        ".usage.csv.at_work0",
        ".usage.csv.backups",
        ".other.csv.killed00",
    }


FILL = """
import resource, sys
from toolkit.cli import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
cli(["ledger", "export", sys.argv[1]])
"""


@pytest.mark.world
@pytest.mark.parametrize(
    "form", ["duckdb", pytest.param("csv", marks=pytest.mark.world), pytest.param("parquet", marks=pytest.mark.world)]
)
def test_full_disk_is_named(workspace: Workspace, settings: Settings, tmp_path: Path, form: str) -> None:
    """A file that does not fit is named, and the ledger is not blamed; nothing of it stays."""
    append(workspace.store, [row(error=os.urandom(400).hex()) for _ in range(500)])
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", FILL, str(out / f"usage.{form}")]
    env = os.environ | variables_of(settings)
    told = subprocess.run(command, check=False, env=env, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert f"usage.{form} cannot be written: " in told.stderr
    assert "File too large" in told.stderr
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "where",
    [
        "true) OR (true",
        "true) OR true -- ",
        "true) /*",
        "*/ true",
        "true; SELECT 1",
        "true;",
        "true, false",
        "1 FROM usage",
    ],
)
def test_condition_stays_one(local: Ledger, tmp_path: Path, where: str) -> None:
    """A condition cannot end the brackets around it, which would let calls in that the other filters keep out."""
    append(local.store, [row(model="a"), row(model="b")])
    with pytest.raises(InvalidInput, match="condition"):
        exports.export(local, tmp_path / "out" / "x.csv", format="csv", only={"model": ["a"]}, where=where)
    assert list((tmp_path / "out").iterdir()) == []
    harmless = "(true) OR (true) /* ) */ -- )"
    path = tmp_path / "out" / "usage.csv"
    assert exports.export(local, path, format="csv", only={"model": ["a"]}, where=harmless) == 1


def test_progress_reaches_the_end(local: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told in calls, in spans of limited size, and ends with all that pass the filter."""
    monkeypatch.setattr(exports, "SPAN", 2)
    append(local.store, [row(at=NOON + timedelta(hours=n)) for n in range(5)] + [row(model="other")])
    told: list[tuple[int, int]] = []
    exports.export(
        local,
        tmp_path / "usage.csv",
        format="csv",
        only={"model": ["gpt-test"]},
        progress=lambda done, calls: told.append((done, calls)),
    )
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.world
@pytest.mark.any_store
@pytest.mark.parametrize("form", ["parquet", "csv", "duckdb", "focus"])
def test_an_export_is_of_one_moment(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: exports.Format
) -> None:
    """Calls that are added, drained and compacted while an export is under way are neither lost, doubled nor added."""
    monkeypatch.setattr(exports, "SPAN", 1)

    def call(n: int) -> dict[str, Any]:
        return row(at=NOON + n * DAY, cost=2**n, usage_source="reported", output_tokens=1, output_price=2**n * 10**6)

    append(ledger.store, [call(0), call(1)])
    ledger.sync()
    append(ledger.store, [call(2), call(3)])

    def upkeep(_done: int, _calls: int) -> None:
        append(ledger.store, [row(at=NOON + 3 * DAY, cost=1000, usage_source="reported")])
        ledger.sync()
        ledger.compact()

    path = tmp_path / ("out.csv" if form == "focus" else f"out.{form}")
    assert exports.export(ledger, path, format=form, progress=upkeep) == 4
    if form == "parquet":
        assert [found["cost"] for found in read_parquet(path)] == [1, 2, 4, 8]
    elif form == "csv":
        assert [found["cost"] for found in read_csv(path)] == ["1", "2", "4", "8"]
    elif form == "focus":
        costs = [Decimal(line["BilledCost"]) for line in read_csv(path)]
        assert costs == [Decimal(cost).scaleb(-9) for cost in (1, 2, 4, 8)]
    else:
        with duckdb.connect(path, read_only=True) as database:
            assert database.execute("SELECT cost FROM usage").fetchall() == [(1,), (2,), (4,), (8,)]
    assert ledger.sql("SELECT count(*) AS rows FROM usage").to_pylist() == [{"rows": 8}]


@pytest.mark.world
def test_an_export_beside_a_drain(local: Ledger, store_url: str, tmp_path: Path) -> None:
    """While another thread drains and compacts, each export has every committed row once."""
    done, failures = threading.Event(), list[BaseException]()

    def drain() -> None:
        own = Store(store_url)
        mine = Ledger(own, str(local.root), SYSTEM)
        try:
            while not done.is_set():
                mine.sync(limit=7)
                mine.compact()
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            failures.append(failure)
        finally:
            own.close()

    thread = threading.Thread(target=drain)
    thread.start()
    appended: list[str] = []
    try:
        for _ in range(6):
            appended += append(local.store, [row(at=NOON + n * DAY) for n in range(20)])
            exports.export(local, tmp_path / "out.parquet", format="parquet")
            assert sorted(found["request_id"] for found in read_parquet(tmp_path / "out.parquet")) == sorted(appended)
    finally:
        done.set()
        thread.join()
    assert failures == []


def test_command_takes_names_and_conditions(world: World, settings: Settings, tmp_path: Path) -> None:
    """`keydesk ledger export` finds orgs, keys and plans by name, and writes FOCUS by the ending of its file."""
    key = world.key("app").key
    said = '{"env":"live","team":"search"}'
    wanted = row(key, model="m", cost=5, usage_source="reported", output_tokens=5, output_price=10**6, tags=said)
    append(world.workspace.store, [wanted, row(key, model="m", outcome="refused"), row(world.key("other").key, cost=9)])

    def run(name: str, *options: str) -> Result:
        arguments = ["ledger", "export", str(tmp_path / name), *options]
        return CliRunner().invoke(cli, arguments, env=variables_of(settings))

    narrow = ["--org", "Acme", "--key", "app", "--plan", "standard", "--model", "m", "--dialect", "openai"]
    assert run("all.csv").exit_code == 0
    assert run("some.csv", *narrow, "--outcome", "completed", "--outcome", "aborted").exit_code == 0
    assert run("dear.csv", "--where", "cost > 5").exit_code == 0
    assert run("tagged.csv", "--tag", "team=search", "--tag", "env=live").exit_code == 0
    assert run("none.csv", "--tag", "team=search", "--tag", "env=test").exit_code == 0
    assert run("focus.csv", *narrow, "--format", "focus", "--issuer", "Example Ltd").exit_code == 0
    names = ("all", "some", "dear", "tagged", "none")
    costs = [sorted(found["cost"] for found in read_csv(tmp_path / f"{name}.csv")) for name in names]
    assert costs == [["0", "5", "9"], ["5"], ["9"], ["5"], []]
    (charged,) = read_csv(tmp_path / "focus.csv")
    assert (charged["ProviderName"], charged["BilledCost"]) == ("Example Ltd", "0.000000005")
    assert run("x.csv", "--key", "nobody").exit_code == 1
    assert "nonsense" in run("x.csv", "--where", "nonsense = 1").stderr
    assert "Write it like team=search" in run("x.csv", "--tag", "team").stderr
    assert not (tmp_path / "x.csv").exists()


# FOCUS

PRICES: dict[str, Any] = {
    "price_id": "price_1",
    "multiplier": 1_250_000,
    "input_price": 150_000_000,  # 0.15 USD per million tokens
    "cached_input_price": 75_000_000,
    "cache_write_5m_price": 187_500_000,
    "cache_write_1h_price": 300_000_000,
    "output_price": 600_000_000,
    "usage_source": "reported",
    "upstream": "openai",
}


def line(world: World, key_id: str, **values: str) -> dict[str, str]:
    """Return a usage row of FOCUS with what all of the hand-computed ones share."""
    shared = {
        "BillingAccountId": world.org_id,
        "BillingAccountName": "Acme",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2026-11-24T00:00:00Z",
        "ChargePeriodStart": "2026-11-23T00:00:00Z",
        "ConsumedUnit": "Tokens",
        "InvoiceIssuerName": "Example Ltd",
        "PricingCategory": "Standard",
        "PricingUnit": "1000000 Tokens",
        "ProviderName": "Example Ltd",
        "PublisherName": "openai",
        "ResourceId": "gpt-test",
        "ResourceName": "",  # no display name is known: the id must not stand for it
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "LLM API",
        "ServiceSubcategory": "Generative AI",
        "SkuPriceDetails": '{"x_PriceEntry":"price_1"}',
        "SubAccountId": key_id,
        "SubAccountName": "app",
        "Tags": "",
    }
    return shared | values | {"EffectiveCost": values["BilledCost"]}


def test_focus_by_hand(world: World, tmp_path: Path) -> None:
    """Three calls of one key: quantities, unit prices and costs of each kind, and the nano-USD that rounding left.

    Fresh input 601 + 1 tokens × 150 nano-USD × 1.25 = 112,875; cached 400 × 75 × 1.25 = 37,500; output 7 × 600 × 1.25 =
    5,250; together 155,625 nano-USD. The calls were charged 155,437.5 → 155,438 and 187.5 → 188, which is 1 more. The
    third has another price of output: 1 × 602 × 1.25 = 752.5 → 752, the row like the charge.
    """
    key = world.key("app").key
    calls = [
        row(key, input_tokens=1001, cached_input_tokens=400, output_tokens=7, cost=155_438, **PRICES),
        row(key, at=NOON + timedelta(hours=11), input_tokens=1, cost=188, **PRICES),
        row(key, output_tokens=1, cost=752, **PRICES | {"output_price": 602_000_000}),
        row(key, at=NOON, outcome="refused", refusal="rate_limited", input_tokens=5, **PRICES | {"usage_source": None}),
    ]
    append(world.workspace.store, calls)
    path = tmp_path / "focus.csv"
    assert exports.export(world.workspace.ledger, path, format="focus", issuer="Example Ltd") == 5
    lines = {(found["SkuMeter"], found["ListUnitPrice"]): found for found in read_csv(path)}

    def usage(kind: str, meter: str, price: str, nano: str, **values: str) -> dict[str, str]:
        sku = {"SkuId": f"gpt-test/{kind}", "SkuMeter": meter, "SkuPriceId": f"price_1/gpt-test/{kind}/{nano}"}
        text = {"ChargeDescription": f"gpt-test: {meter}", "ListUnitPrice": price}
        return line(world, key.id, **values, **sku, **text)

    assert lines["Input tokens", "0.15"] == usage(
        "input",
        "Input tokens",
        "0.15",
        "150000000",
        ConsumedQuantity="602",
        PricingQuantity="0.000602",
        ContractedUnitPrice="0.1875",
        ListCost="0.0000903",
        ContractedCost="0.000112875",
        BilledCost="0.000112875",
    )
    assert lines["Cached input tokens", "0.075"] == usage(
        "cached_input",
        "Cached input tokens",
        "0.075",
        "75000000",
        ConsumedQuantity="400",
        PricingQuantity="0.0004",
        ContractedUnitPrice="0.09375",
        ListCost="0.00003",
        ContractedCost="0.0000375",
        BilledCost="0.0000375",
    )
    assert lines["Output tokens", "0.6"] == usage(
        "output",
        "Output tokens",
        "0.6",
        "600000000",
        ConsumedQuantity="7",
        PricingQuantity="0.000007",
        ContractedUnitPrice="0.75",
        ListCost="0.0000042",
        ContractedCost="0.00000525",
        BilledCost="0.00000525",
    )
    assert lines["Output tokens", "0.602"] == usage(
        "output",
        "Output tokens",
        "0.602",
        "602000000",
        ConsumedQuantity="1",
        PricingQuantity="0.000001",
        ContractedUnitPrice="0.7525",
        ListCost="0.000000602",
        ContractedCost="0.0000007525",
        BilledCost="0.000000752",
    )
    nothing = dict.fromkeys(
        [
            *("ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "ListUnitPrice", "PricingCategory"),
            *("PricingQuantity", "PricingUnit", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId"),
        ],
        "",
    )
    assert lines["", ""] == line(
        world,
        key.id,
        **nothing,
        BilledCost="0.000000001",
        ListCost="0",
        ContractedCost="0",
    ) | {"ChargeCategory": "Adjustment", "ChargeDescription": "gpt-test: Rounding of each charge to a nano-USD"}


def test_focus_of_cache_writes_and_requests(local: Ledger, tmp_path: Path) -> None:
    """Writes to both caches and a price per request have rows of their own, with the request as its unit."""
    writes: dict[str, Any] = {
        "input_tokens": 30,
        "cache_write_5m_tokens": 10,
        "cache_write_1h_tokens": 20,
        "request_price": 10_000,
    }
    cost = 10 * 187.5 + 20 * 300 + 10_000
    prices = PRICES | {"multiplier": 1_000_000}
    append(local.store, [row(cost=int(cost), **prices, **writes) for _ in range(2)])
    exports.export(local, tmp_path / "focus.parquet", format="focus")
    found = [
        (line["SkuId"], line["ConsumedQuantity"], line["ConsumedUnit"], line["PricingQuantity"], line["BilledCost"])
        for line in read_parquet(tmp_path / "focus.parquet")
    ]
    assert found == [
        ("gpt-test/cache_write_5m", 20, "Tokens", Decimal("0.00002"), Decimal("0.00000375")),
        ("gpt-test/cache_write_1h", 40, "Tokens", Decimal("0.00004"), Decimal("0.000012")),
        ("gpt-test/request", 2, "Requests", 2, Decimal("0.00002")),
    ]


def test_focus_has_a_row_for_each_day(local: Ledger, tmp_path: Path) -> None:
    """Charge periods are UTC days, billing periods months; types are those of the specification."""
    midnight = datetime(2026, 12, 1, tzinfo=UTC)
    append(local.store, [row(at=midnight - timedelta(microseconds=1), cost=600, output_tokens=1, **PRICES)])
    append(local.store, [row(at=midnight, cost=750, output_tokens=1, **PRICES)])
    exports.export(local, tmp_path / "focus.parquet", format="focus")
    lines = read_parquet(tmp_path / "focus.parquet")
    periods = [
        [lines[n][f"{kind}Period{edge}"] for kind in ("Billing", "Charge") for edge in ("Start", "End")]
        for n in (0, -1)
    ]
    months = [midnight.replace(month=11), midnight, datetime(2027, 1, 1, tzinfo=UTC)]
    assert periods == [
        [months[0], months[1], midnight - DAY, midnight],
        [months[1], months[2], midnight, midnight + DAY],
    ]
    # 600 was charged where tokens × price says 750: the books' figure counts, and the difference is shown.
    assert [(line["ChargeCategory"], line["BilledCost"]) for line in lines] == [
        ("Usage", Decimal("0.00000075")),
        ("Adjustment", Decimal("-0.00000015")),
        ("Usage", Decimal("0.00000075")),
    ]


def test_focus_has_rows_for_each_set_of_tags(local: Ledger, tmp_path: Path) -> None:
    """Calls that differ in their tags are apart, the rest is summed; each set's rows sum to what its calls cost.

    0.5 nano-USD a token: three calls of 1 token are charged 0, 0 and 0 and are 1.5 together, which rounds to 2, so that
    the rounding is −2; the two of 3 tokens are charged 2 each (1.5 rounded to even), and are 3, the rounding 1.
    """
    rerank, index = '{"feature":"rerank","team":"search"}', '{"feature":"index","team":"search"}'
    prices = PRICES | {"multiplier": 1_000_000, "output_price": 500_000}
    calls = [
        *(row(at=NOON + n * DAY / 4, cost=0, output_tokens=1, tags=rerank, **prices) for n in range(-1, 2)),
        *(row(cost=2, output_tokens=3, tags=index, **prices) for _ in range(2)),
        row(cost=4, output_tokens=8, **prices),
    ]
    append(local.store, calls)
    exports.export(local, tmp_path / "focus.parquet", format="focus")
    exports.export(local, tmp_path / "focus.csv", format="focus")
    found = [
        (line["Tags"], line["ChargeCategory"], line["ConsumedQuantity"], int(line["BilledCost"].scaleb(9)))
        for line in read_parquet(tmp_path / "focus.parquet")
    ]
    assert found == [
        (index, "Usage", 6, 3),
        (index, "Adjustment", None, 1),
        (rerank, "Usage", 3, 2),
        (rerank, "Adjustment", None, -2),
        (None, "Usage", 8, 4),
    ]
    assert [line["Tags"] for line in read_csv(tmp_path / "focus.csv")] == [text or "" for text, *_ in found]
    by_feature = spend.table(local, ["tag:feature"])
    assert dict(zip(by_feature["tag:feature"], by_feature["cost"], strict=True)) == {
        "index": 3 + 1,
        "rerank": 2 - 2,
        dimensions.UNTAGGED: 4,
    }


CALLS = st.lists(
    st.tuples(
        st.integers(0, 50_000),
        st.integers(0, 50_000),
        st.integers(0, 5_000),
        st.sampled_from([(150_000_001, 75_000_003, 599_999_999), (3_000_000_000, 300_000_000, 15_000_000_000)]),
        st.sampled_from([1_000_000, 1_333_333, 870_001, 0]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=12,
)


@examples(8)
@given(calls=CALLS)
def test_focus_sums_to_the_charges(local: Ledger, tmp_path: Path, numbers: Iterator[int], calls: list[Any]) -> None:
    """Billed costs sum to what `pricing.charge` charged; list costs are at multiplier 1; unit prices explain costs."""
    key, rows, charged, listed = f"key_{next(numbers)}", [], 0, Decimal(0)
    for fresh, cached, output, (price, cached_price, output_price), multiplier, day in calls:
        sheet = PriceSheet.flat(price, output_price, cached_price, request=7)
        cost = pricing.charge(
            Usage(input_tokens=fresh + cached, cached_input_tokens=cached, output_tokens=output), sheet, multiplier
        )
        charged += cost
        listed += Decimal(fresh * price + cached * cached_price + output * output_price + 7 * 10**6).scaleb(-15)
        tokens: dict[str, Any] = {
            "input_tokens": fresh + cached,
            "cached_input_tokens": cached,
            "output_tokens": output,
        }
        prices: dict[str, Any] = {
            "input_price": price,
            "cached_input_price": cached_price,
            "output_price": output_price,
        }
        rows.append(
            row(
                key,
                at=NOON + day * DAY,
                cost=cost,
                multiplier=multiplier,
                request_price=7,
                usage_source="estimated",
                **tokens,
                **prices,
            )
        )
    append(local.store, rows)
    exports.export(local, tmp_path / "focus.parquet", format="focus", only={"key_id": [key]})
    lines = read_parquet(tmp_path / "focus.parquet")
    assert sum(line["BilledCost"] for line in lines) == Decimal(charged).scaleb(-9)
    assert sum(line["ListCost"] for line in lines) == listed
    for found in lines:
        if found["ChargeCategory"] == "Usage":
            assert found["ListCost"] == found["PricingQuantity"] * found["ListUnitPrice"]
            assert found["ContractedCost"] == found["PricingQuantity"] * found["ContractedUnitPrice"]
            assert abs(found["BilledCost"] - found["ContractedCost"]) <= Decimal("0.0000000005")
        else:
            # Each call, and each of its six rows at most, was rounded by half a nano-USD at most.
            assert abs(found["BilledCost"]) <= Decimal(len(calls) * 7).scaleb(-9) / 2


@pytest.fixture
def numbers() -> Iterator[int]:
    """Numbers that are used once."""
    return iter(range(1_000_000))
