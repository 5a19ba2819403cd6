"""Real things for the tests: a store in a temporary folder, a gateway and a demo upstream on free ports.

A test module whose subject touches the key store is marked. `both_stores`: each of its tests that uses a store runs on
SQLite and on PostgreSQL; so do billing, leases, migrations, locks, the ledger's drain. `any_store`: it is the same on
both, so `make test` runs it on SQLite, and `make test-world` on PostgreSQL too; so do the services, the command line,
checks, statements. `only_store(KIND)` makes an exception. A test's own mark goes before its module's. What is the same
whatever the store (dialects, charts, wording, browsers) needs none. PostgreSQL is the server that
KEYDESK_TEST_POSTGRES_URL names, or one that the tests start for themselves (`tests.stores`).
"""

import atexit
import contextlib
import gc
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

from tests.stores import StoreKind, Stores
from toolkit import environment
from toolkit.admin import keys, organisations, plans, wallet
from toolkit.admin.keys import NewSecret
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream, list_upstreams, update_upstream
from toolkit.cli import cli
from toolkit.cli.command_line import keydesk
from toolkit.core import passwords
from toolkit.core.dialect import Dialect
from toolkit.core.money import NANO
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION, PriceSheet, Tier
from toolkit.core.settings import Settings
from toolkit.ledger.duckdb_engine import engine
from toolkit.store import engines
from toolkit.store.actor import Actor
from toolkit.workspace import Workspace

ROOT = Path(__file__).parent.parent
ADMIN = Actor("admin@keydesk.local", Role.PLATFORM_ADMIN)
CREDENTIAL = "upstream-credential-of-the-tests"
NOWHERE = "http://127.0.0.1:9"
"""An address where no upstream is."""


NEAR_MIDNIGHT = timedelta(seconds=20)

USUAL_EXAMPLES = 20
"""Of a property, unless it asks for another number: `make test` tries six tenths of it, `make test-world` ten times."""

# A test judges the code and not the machine: on a busy one inputs are made slowly, and that is no fault. Examples that
# share a fixture's store are meant to. `make test` tries the same examples each time; `make test-world` seeks new ones.
hypothesis.settings.register_profile(
    "keydesk",
    max_examples=USUAL_EXAMPLES * 6 // 10,
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile(
    "world",
    hypothesis.settings.get_profile("keydesk"),
    max_examples=10 * USUAL_EXAMPLES,
    derandomize=False,
    print_blob=True,
)
hypothesis.settings.load_profile("keydesk")


def examples(count: int) -> hypothesis.settings:
    """Try a property on `count` examples where others are tried on `USUAL_EXAMPLES`."""
    return hypothesis.settings(max_examples=count * hypothesis.settings().max_examples // USUAL_EXAMPLES)


def usd(dollars: float) -> int:
    """Return whole cents' worth of dollars as nano-USD, for readable tests."""
    return round(dollars * 100) * (NANO // 100)


@pytest.fixture(autouse=True, scope="session")
def _one_engine() -> Iterator[None]:
    """Keep the process's engine of DuckDB, which ends with its last connection: each test would make it anew."""
    connection = engine()
    yield
    connection.close()


@pytest.fixture(autouse=True, scope="session")
def _statements_compiled_once() -> Iterator[None]:
    """Let all engines of a process share the text of compiled statements: each test opens a store of its own."""
    shared: LRUCache[Any, Any] = LRUCache(2_000)

    def remembered(engine: Engine) -> Engine:
        return engine.execution_options(compiled_cache=shared)

    with pytest.MonkeyPatch.context() as patch:
        for make in ("sqlite_engine", "postgres_engine"):
            original = getattr(engines, make)
            patch.setattr(engines, make, lambda *given, original=original: remembered(original(*given)))
        # The key of a compiled statement holds its engine's dialect.
        patch.setattr(DefaultDialect, "__eq__", lambda one, other: type(one) is type(other), raising=False)
        patch.setattr(DefaultDialect, "__hash__", lambda one: hash(type(one)), raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _cheap_passwords() -> Iterator[None]:
    """bcrypt's lowest cost: the tests check what is done with passwords, not how long guessing takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords.hash_password, "__defaults__", (4,))
        yield


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the official SDKs to `make test-world`: their import alone takes seconds in each worker."""
    skipped = config.option.markexpr == "not world" and collection_path.stem.endswith(("_sdk", "_sdks"))
    return skipped or None


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a fifth of the time the tests wait for real processes."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """What was imported stays: spare the garbage collector from looking at it again and again."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries tell of what is left over at the end


def pytest_runtest_setup() -> None:
    """Wait for midnight, UTC, shortly before it: a test that sees two days, or two months, counts in both.

    What runs longer than this must not care which day it is.
    """
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if (left := midnight - now) < NEAR_MIDNIGHT:
        time.sleep(left.total_seconds())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on the kinds of store that its nearest mark tells."""
    if "store_kind" in metafunc.fixturenames:
        kinds: dict[str, list[object]] = {
            "only_store": [],
            "both_stores": ["sqlite", "postgresql"],
            "any_store": ["sqlite", pytest.param("postgresql", marks=pytest.mark.world)],
        }
        for mark in metafunc.definition.iter_markers():  # the nearest comes first
            if mark.name in kinds:
                metafunc.parametrize("store_kind", mark.args or kinds[mark.name], indirect=True)
                break


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of both stores and both places for segments `make test` takes each once, and `make test-world` all four pairs."""
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        crossed = (params.get("store_kind"), params.get("root")) in {("sqlite", "bucket"), ("postgresql", "folder")}
        if crossed and item.get_closest_marker("both_stores"):
            item.add_marker(pytest.mark.world)


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> StoreKind:
    """What the test's key store is: SQLite, or each of the two in turn."""
    kind: StoreKind = getattr(request, "param", "sqlite")
    return kind


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Makes key stores for this process's tests."""
    shared = tmp_path_factory.getbasetemp()  # below the folder that all workers share
    runtime = (shared.parent if hasattr(request.config, "workerinput") else shared) / "postgres"
    stores = Stores(tmp_path_factory.mktemp("stores"), runtime)
    yield stores
    stores.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where the test's settings have all data; not there yet."""
    return tmp_path / "data"


@pytest.fixture
def store_url(store_kind: StoreKind, stores: Stores, data_dir: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the test's own key store: empty, or for `workspace` and `world` a copy of one that is prepared."""
    if "world" in request.fixturenames:
        url = stores.copy(store_kind, data_dir, "world", prepare_world)
    elif "workspace" in request.fixturenames:
        url = stores.copy(store_kind, data_dir, "workspace", prepare_workspace)
    else:
        url = stores.make(store_kind, data_dir)
    yield url
    stores.drop(url)


@pytest.fixture
def settings(data_dir: Path, store_url: str) -> Settings:
    """Settings with all data in the test's own folder, and its own key store."""
    return settings_for(data_dir, store_url)


Run = Callable[..., Result]


@pytest.fixture
def run(settings: Settings) -> Run:
    """Run `keydesk` with some arguments on the test's own data folder, as `invoke` does."""
    return partial(invoke, settings)


def settings_for(data_dir: Path, store_url: str) -> Settings:
    """Return settings for a data folder and a key store."""
    # The tests end processes, not machines: nothing need reach a disk.
    environ = {"KEYDESK_DATA_DIR": str(data_dir), "KEYDESK_STORE_URL": store_url}
    return environment.read_settings(environ | {"KEYDESK_SQLITE_SYNCHRONOUS": "NORMAL"})


def invoke(settings: Settings, *arguments: str, typed: str | None = None) -> Result:
    """Run `keydesk` with some arguments on a data folder.

    What commands in its output carry to be pasted (tests.cli.test_command_line) is left out, for tests to compare.
    """
    result = CliRunner().invoke(cli, arguments, input=typed, env=variables_of(settings), prog_name="keydesk")
    carried = f"KEYDESK_DATA_DIR={shlex.quote(str(settings.data_dir))} {keydesk()}".encode()
    result.stdout_bytes = result.stdout_bytes.replace(carried, b"keydesk")
    result.stderr_bytes = (result.stderr_bytes or b"").replace(carried, b"keydesk")
    return result


def variables_of(settings: Settings) -> dict[str, str]:
    """Return the variables that make another process use the same Keydesk."""
    return {
        "KEYDESK_DATA_DIR": str(settings.data_dir),
        "KEYDESK_STORE_URL": settings.store_url,
        "KEYDESK_SQLITE_SYNCHRONOUS": settings.sqlite_synchronous,
    }


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """A Keydesk, acted on as a platform admin: empty, unless the test asks for `world` too."""
    workspace = Workspace.open(settings, ADMIN, make=True)
    yield workspace
    workspace.close()


def prepare_workspace(data_dir: Path, store_url: str) -> None:
    """Make an empty Keydesk, for `Stores.copy`."""
    Workspace.open(settings_for(data_dir, store_url), ADMIN, make=True).close()


def prepare_world(data_dir: Path, store_url: str) -> None:
    """Make a world, for `Stores.copy`."""
    workspace = Workspace.open(settings_for(data_dir, store_url), ADMIN, make=True)
    make_world(workspace)
    workspace.close()


# Prices in nano-USD per million tokens: round numbers, so that amounts in tests can be computed by hand.
OPENAI_SHEET = PriceSheet.flat(input=usd(2), cached_input=usd(0.5), output=usd(10))
ANTHROPIC_SHEET = PriceSheet.flat(
    input=usd(3), cached_input=usd(0.3), cache_write_5m=usd(3.75), cache_write_1h=usd(6), output=usd(15)
)
GEMINI_SHEET = PriceSheet(
    (
        Tier(0, usd(1), usd(0.25), usd(1), usd(1), usd(8)),
        Tier(2_000, usd(2), usd(0.5), usd(2), usd(2), usd(12)),
    )
)
EMBEDDING_SHEET = PriceSheet.flat(input=usd(0.02), output=0)


@dataclass(frozen=True)
class World:
    """An organisation with money, a model in each dialect, and a plan at 1.25 times the base price."""

    workspace: Workspace
    org_id: str
    plan_id: str

    def key(self, name: str = "app", **options: object) -> NewSecret:
        """Create a key in the organisation."""
        with self.workspace.write() as tx:
            return keys.create(tx, self.workspace.keyring, org=self.org_id, name=name, plan=self.plan_id, **options)  # type: ignore[arg-type]

    def credit(self, amount: int, reference: str) -> None:
        """Put money into the wallet."""
        with self.workspace.write() as tx:
            wallet.credit(tx, self.org_id, amount, reference)


def make_world(workspace: Workspace, upstream: str = NOWHERE, money: int = usd(100)) -> World:
    """Fill an empty Keydesk; `upstream` is the address of a demo upstream."""
    bases = {
        Dialect.OPENAI: f"{upstream}/openai/v1",
        Dialect.ANTHROPIC: f"{upstream}/anthropic",
        Dialect.GEMINI: f"{upstream}/gemini",
    }
    with workspace.write() as tx:
        for dialect, base in bases.items():
            add_upstream(tx, f"test-{dialect}", dialect, base, "TEST_UPSTREAM_API_KEY")
        models = [
            ("gpt-test", Dialect.OPENAI, OPENAI_SHEET),
            ("claude-test", Dialect.ANTHROPIC, ANTHROPIC_SHEET),
            ("gemini-test", Dialect.GEMINI, GEMINI_SHEET),
            ("embed-test", Dialect.OPENAI, EMBEDDING_SHEET),
            ("gemini-embed-test", Dialect.GEMINI, EMBEDDING_SHEET),
            ("other-test", Dialect.OPENAI, OPENAI_SHEET),
        ]
        for name, dialect, sheet in models:
            add_model(
                tx, name, f"test-{dialect}", sheet=sheet, context_window=100_000, default_output=4_096, max_output=8_192
            )
        planned = [name for name, _, _ in models if name != "other-test"]
        plan = plans.add(tx, "standard", MILLION * 5 // 4, planned)
        org = organisations.add(tx, "Acme")
        if money:
            wallet.credit(tx, org.id, money, "first payment")
    return World(workspace, org.id, plan.id)


@pytest.fixture
def world(workspace: Workspace) -> World:
    """An organisation, models and a plan, with no upstream behind them."""
    return World(workspace, *_world_of(workspace))


def _world_of(workspace: Workspace) -> tuple[str, str]:
    with workspace.read() as tx:
        return organisations.find(tx, "Acme").id, plans.find(tx, "standard").id


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until something becomes true; fail with its name if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Run acts in threads that start together; return each one's result, or what it raised."""
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> object:
        start.wait(20)
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - the test judges it
            return error

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


def answers(url: str) -> bool:
    """Whether a server answers at `url`, with whatever status."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def process(arguments: list[str], health: str, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python process until the block ends; it is there once `health` answers."""
    with log.open("ab") as output:
        running = subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | env, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
    try:

        def up() -> bool:
            if running.poll() is not None:
                pytest.fail(f"{arguments} ended with {running.returncode}:\n{log.read_text()}")
            return answers(health)

        wait_until(up, f"{arguments} to answer at {health}", seconds=120)
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo upstream without pauses, in a process of its own; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("upstream") / "log"
    with process(["-m", "toolkit.demo.upstream", "--port", str(port), "--pace", "0"], f"{url}/demo/calls", {}, log):
        yield url


@dataclass(frozen=True)
class Running:
    """A gateway process with a world behind it."""

    world: World
    url: str
    upstream: str
    log: Path
    process: subprocess.Popen[bytes]


def gateway_process(
    settings: Settings, log: Path, env: dict[str, str] | None = None, *, workers: int = 1
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Run `keydesk gateway` on the port that the settings name."""
    variables = variables_of(settings) | {
        "KEYDESK_GATEWAY_PORT": str(settings.gateway_port),
        "TEST_UPSTREAM_API_KEY": CREDENTIAL,
    }
    health = f"http://127.0.0.1:{settings.gateway_port}/healthz"
    return process(["-m", "toolkit.cli", "gateway", "--workers", str(workers)], health, variables | (env or {}), log)


@pytest.fixture
def running(world: World, upstream: str, tmp_path: Path) -> Iterator[Running]:
    """A gateway of the test's own, in a process of its own."""
    settings = replace(world.workspace.settings, gateway_port=free_port())
    workspace = Workspace(settings, world.workspace.store, ADMIN)
    with workspace.write() as tx:
        for found in list_upstreams(tx):
            update_upstream(tx, found.name, base_url=found.base_url.replace(NOWHERE, upstream))
    log = tmp_path / "gateway.log"
    with gateway_process(settings, log) as server:
        yield Running(
            replace(world, workspace=workspace), f"http://127.0.0.1:{settings.gateway_port}", upstream, log, server
        )
