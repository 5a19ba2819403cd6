"""`/readyz` says whether calls can be admitted and why not; `/healthz` that the process answers."""

import asyncio
import contextlib
import http.client
import json
import math
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event

from tests.conftest import Running, World, wait_until
from tests.gateway.conftest import make_gate
from toolkit.core.errors import Unavailable
from toolkit.gateway.readiness import AWAY, NO_LEASE, Readiness, reason
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store

INSTANCE = "gateway_test"


def ask(url: str, path: str) -> tuple[int, Any]:
    """Return a health check's answer."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def no_room(running: Running) -> Iterator[None]:
    """Let the gateway's process write no file any further, as on a full disk."""
    soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.world
def test_a_gateway_that_cannot_commit_is_not_ready(running: Running) -> None:
    """It says why as soon as a call has met it, and is ready again when the store is; the process answers all along."""
    gate = make_gate(running)
    assert gate.ask("chat", "[[demo tokens=4]]").status == 200
    assert ask(running.url, "/readyz") == (200, {"status": "ready"})
    with no_room(running):
        assert gate.ask("chat", "[[demo tokens=4]]").status == 503
        status, said = ask(running.url, "/readyz")
        assert (status, said["status"]) == (503, "unavailable")
        assert "disk" in said["reason"]
        assert str(running.world.workspace.settings.data_dir) not in said["reason"]
        assert ask(running.url, "/healthz") == (200, {"status": "ok"})
    wait_until(lambda: ask(running.url, "/readyz")[0] == 200, "the gateway to be ready again")
    assert gate.ask("chat", "[[demo tokens=4]]").status == 200


def readiness(store: Store, *moments: tuple[float, float], lease: bool = True) -> Readiness:
    """Return the readiness of a gateway whose commits succeeded and failed at these moments."""
    return Readiness(store, INSTANCE, [lambda moment=moment: moment for moment in moments], lambda: lease)  # type: ignore[misc]


@contextlib.contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Note the commits of a store."""
    commits: list[str] = []

    def note(_connection: Any) -> None:
        commits.append("commit")

    event.listen(store.engine, "commit", note)
    yield commits
    event.remove(store.engine, "commit", note)


@pytest.mark.any_store
def test_a_commit_that_has_just_succeeded_needs_no_probe(world: World) -> None:
    """Whoever asks, nothing is written for it."""
    store = world.workspace.store
    with counted(store) as commits:
        assert asyncio.run(readiness(store, (-math.inf, -math.inf), (time.monotonic(), 0.0)).fault()) is None
    assert commits == []


@pytest.mark.any_store
@pytest.mark.parametrize("moments", [(-math.inf, -math.inf), (0.0, math.inf)])
def test_else_one_commit_shows_it_for_all_who_ask(world: World, moments: tuple[float, float]) -> None:
    """One in a second at most, however many ask."""
    store = world.workspace.store

    async def many() -> list[str | None]:
        asked = readiness(store, moments)
        return await asyncio.gather(*(asked.fault() for _ in range(50)))

    with counted(store) as commits:
        assert asyncio.run(many()) == [None] * 50
    assert commits == ["commit"]


def test_without_a_lease_no_call_is_admitted(world: World) -> None:
    """So the gateway is not ready, though the store takes commits."""
    assert asyncio.run(readiness(world.workspace.store, (time.monotonic(), 0.0), lease=False).fault()) == NO_LEASE


@pytest.mark.parametrize(
    ("pragma", "words"),
    [("PRAGMA max_page_count = 1", "disk of the key store is full"), ("PRAGMA query_only = 1", "can only be read")],
)
def test_the_reason_is_a_sentence_without_a_path(world: World, pragma: str, words: str) -> None:
    """As SQLite reports it, not as it words it."""
    store = world.workspace.store
    with pytest.raises(Unavailable) as caught, store.write(SYSTEM) as tx:  # noqa: PT012 - one of them fails
        for statement in (pragma, "CREATE TABLE more (a)", "INSERT INTO more VALUES (zeroblob(1000000))"):
            tx.session.connection().exec_driver_sql(statement)
    assert words in reason(caught.value)
    assert "/" not in reason(caught.value)


def test_a_reason_that_nobody_knows_says_no_more_than_that() -> None:
    """Nor does an error of another kind."""
    error = Unavailable("The key store /secret/place failed")
    error.__cause__ = sqlite3.OperationalError("/secret/place")
    assert reason(error) == AWAY
    assert reason(Unavailable("postgresql://u:p@h/d is away")) == AWAY
