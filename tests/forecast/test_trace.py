"""Replays of a trace: calls of real sizes in the order of their arrival, and a ledger whose sums are the trace's.

The full trace is Azure's of an LLM coding service (Azure Public Dataset, CC-BY 4.0; Patel et al., "Splitwise:
Efficient generative LLM inference using phase splitting", ISCA 2024). It is sought where KEYDESK_TEST_TRACE says, or
beside the project.
"""

import asyncio
import csv
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.witness import Wish
from tests.conftest import ADMIN, ROOT, World, free_port, gateway_process, process, usd
from toolkit.admin import plans
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.checks import reconcile
from toolkit.core.dialect import Dialect
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.request_writing import request_bytes, split_url
from toolkit.gateway.upstream_connection import UpstreamConnection
from toolkit.reports import spend
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

TRACE = Path(
    os.environ.get("KEYDESK_TEST_TRACE") or ROOT.parent / "shared" / "data" / "azure_llm_inference_trace_2023_code.csv"
)
KEYS = 8
AT_ONCE = 32
PATIENCE = 60.0

SHEET = PriceSheet.flat(input=usd(0.15), output=usd(0.60))
INPUT_PRICE, OUTPUT_PRICE = Fraction(150), Fraction(600)
"""Nano-USD a token, as in `SHEET`. At 1.25 times that, every odd input costs half a nano-USD too much or too little."""

MULTIPLIER = Fraction(5, 4)


class Row(NamedTuple):
    """One call of a trace, in tokens."""

    input: int
    output: int

    @property
    def cost(self) -> int:
        """What it must cost, nano-USD: computed here anew, and rounded as fractions are, half to even."""
        return round((self.input * INPUT_PRICE + self.output * OUTPUT_PRICE) * MULTIPLIER)


class Sums(NamedTuple):
    """What calls add up to."""

    calls: int
    input: int
    output: int
    cost: int


def sums_of(rows: Sequence[Row]) -> Sums:
    """Add up what calls must come to."""
    inputs, outputs = sum(row.input for row in rows), sum(row.output for row in rows)
    return Sums(len(rows), inputs, outputs, sum(row.cost for row in rows))


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An upstream that reports the usage that a prompt asks for."""
    folder, port = tmp_path_factory.mktemp("witness"), free_port()
    arguments = ["-m", "tests.chaos.witness", "--port", str(port), "--journal", str(folder / "journal")]
    with process(arguments, f"http://127.0.0.1:{port}/", {}, folder / "log"):
        yield f"http://127.0.0.1:{port}/v1"


def request_of(row: Row) -> bytes:
    """Return a request with as many bytes of prompt as the call had tokens, so that the hold is an upper bound."""
    prompt = f"{Wish(row.input, row.output, 0)} ".ljust(row.input, "x")
    body = {"model": "trace", "messages": [{"role": "user", "content": prompt}], "max_tokens": max(row.output, 1)}
    return json.dumps(body).encode()


async def send_all(url: str, secrets: Sequence[str], rows: Sequence[Row]) -> None:
    """Send the calls in order, some at once, the n-th by the n-th key in turn; each must be answered."""
    address, opening = split_url(f"{url}/v1/chat/completions")
    pool, calls, clock = ConnectionPool(), iter(enumerate(rows)), asyncio.get_running_loop().time

    async def answer(connection: UpstreamConnection) -> bytes:
        parts = []
        await connection.read_head(clock() + PATIENCE)
        while part := await connection.read(clock() + PATIENCE):
            parts.append(part)
        return b"".join(parts)

    async def caller() -> None:
        for number, row in calls:
            headers = {"authorization": f"Bearer {secrets[number % len(secrets)]}", "content-type": "application/json"}
            connection = pool.kept(address) or await pool.connect(address, clock() + PATIENCE)
            try:
                connection.send(request_bytes(opening, headers, request_of(row)))
                said = await answer(connection)
                assert connection.status == 200, said
            finally:
                connection.release()

    try:
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    finally:
        pool.close()
        await asyncio.sleep(0)  # the connections end in the loop's next turn


def replay(world: World, witness: str, folder: Path, rows: Sequence[Row]) -> None:
    """Replay a trace through a gateway, drain the ledger, and compare the sums: by key, in all, and of the wallet."""
    settings = replace(world.workspace.settings, gateway_port=free_port())
    workspace = Workspace(settings, world.workspace.store, ADMIN)
    with workspace.write() as tx:
        add_upstream(tx, "witness", Dialect.OPENAI, witness, "TEST_UPSTREAM_API_KEY")
        add_model(tx, "trace", "witness", sheet=SHEET, context_window=1_000_000, max_output=100_000)
        plan = plans.add(tx, "trace", MILLION * 5 // 4, ["trace"])
    made = [replace(world, plan_id=plan.id).key(f"key {number}") for number in range(KEYS)]
    with gateway_process(settings, folder / "gateway.log"):
        url = f"http://127.0.0.1:{settings.gateway_port}"
        asyncio.run(send_all(url, [new.secret for new in made], rows))

    assert workspace.ledger.sync() == len(rows)
    found = spend.table(workspace.ledger, ["key"]).set_index("key_id")
    figures = found[["calls", "input_tokens", "output_tokens", "cost"]].T.to_dict("list")
    by_key = {key: Sums(*map(int, of_key)) for key, of_key in figures.items()}
    assert by_key == {new.key.id: sums_of(rows[number::KEYS]) for number, new in enumerate(made)}
    totals = spend.totals(workspace.ledger)
    assert Sums(totals.calls, totals.input_tokens, totals.output_tokens, totals.cost) == sums_of(rows)
    assert (totals.refused, totals.errors) == (0, 0)
    assert workspace.ledger.sql("SELECT count(*) AS rows FROM usage WHERE overrun > 0").to_pylist() == [{"rows": 0}]
    assert [finding for finding in reconcile.run(workspace) if finding.violations] == []


@pytest.mark.world
def test_a_small_trace_adds_up(world: World, witness: str, tmp_path: Path) -> None:
    """The ledger's calls, tokens and cost are the trace's, by key and in all; no hold was too small."""
    chance = random.Random(2023)
    rows = [Row(chance.randint(3, 7_500), chance.randint(1, 400)) for _ in range(300)]
    replay(world, witness, tmp_path, rows)


@pytest.mark.world
@pytest.mark.skipif(not TRACE.exists(), reason="the trace is not here; KEYDESK_TEST_TRACE may say where it is")
def test_the_full_trace_adds_up(world: World, witness: str, tmp_path: Path) -> None:
    """So it is after thousands of calls as they came to a real service."""
    with TRACE.open(newline="") as file:
        rows = [Row(int(line["ContextTokens"]), int(line["GeneratedTokens"])) for line in csv.DictReader(file)]
    assert rows
    replay(world, witness, tmp_path, rows)
