"""`keydesk alerts`, in process on a real store: who is told, and what became of it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.alerts.receiver import receiving
from tests.conftest import Run, World, wait_until
from toolkit.alerts import queue
from toolkit.alerts.runner import Runner

pytestmark = pytest.mark.any_store


@contextmanager
def sending(world: World) -> Iterator[None]:
    """Send alerts in another thread while the block lasts; it has the lease when the block begins."""
    stop = threading.Event()
    workspace = world.workspace

    async def work() -> None:
        await Runner(workspace.store, workspace.settings, workspace.keyring).run(stop.is_set)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        wait_until(lambda: not is_free(world), "the lease")
        yield
    finally:
        stop.set()
        thread.join()


def is_free(world: World) -> bool:
    with world.workspace.read() as tx:
        return queue.is_free(tx)


def test_destinations_come_and_go(run: Run, world: World) -> None:
    """Each with a secret that can be shown again; a list says whose alerts go where."""
    assert "Nobody is told anything yet" in run("alerts", "list").stdout
    added = json.loads(run("alerts", "add", "on-call", "https://alerts.example.com/hook", "--json").stdout)
    run("alerts", "add", "acme", "https://acme.example.com/hook", "--org", "Acme")
    assert json.loads(run("alerts", "secret", "on-call", "--json").stdout)["secret"] == added["secret"]
    rows = json.loads(run("alerts", "list", "--json").stdout)
    assert [(row["name"], row["org"], row["waiting"]) for row in rows] == [("on-call", None, 0), ("acme", "Acme", 0)]
    assert "confirm with --yes" in run("alerts", "remove", "on-call").stderr
    assert run("alerts", "remove", "on-call", "--yes").stdout == "Removed on-call.\n"
    assert run("alerts", "secret", "on-call").exit_code == 1


def test_a_test_alert_needs_somebody_who_sends(run: Run, world: World) -> None:
    """Else it would wait for ever: the command that sends is named."""
    run("alerts", "add", "on-call", "https://alerts.example.com/hook")
    failed = run("alerts", "test", "on-call")
    assert failed.exit_code == 1
    assert "keydesk alerts run" in failed.stderr


def test_a_test_alert_is_taken_or_it_is_said_why_not(run: Run, world: World) -> None:
    """The log has both, the newest first."""
    assert "Nothing has passed a threshold" in run("alerts", "log").stdout
    with receiving() as receiver, sending(world):
        run("alerts", "add", "on-call", receiver.url)
        assert run("alerts", "test", "on-call").stdout.startswith("on-call has taken the test alert alert_")
        receiver.status = 503
        refused = run("alerts", "test", "on-call")
    assert refused.exit_code == 1
    assert "it answered with status 503" in refused.stdout
    rows = json.loads(run("alerts", "log", "--json").stdout)
    assert [(row["state"], row["destination"]) for row in rows] == [("waiting", "on-call"), ("sent", "on-call")]
    assert rows[0]["failure"] == "it answered with status 503"
