"""Streams that are read on end after a time, when the gateway stops, and by themselves; and count for their key."""

import asyncio
import logging
from typing import cast

import pytest

from toolkit.gateway import reading_on
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.reading_on import ReadingOn


async def for_ever() -> None:
    """Read on without an end."""
    await asyncio.Event().wait()


def test_reading_on_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is cancelled, and its place is free again."""
    monkeypatch.setattr(reading_on, "LONGEST", 0.01)
    monkeypatch.setattr(reading_on, "MOST", 1)

    async def run() -> None:
        streams = ReadingOn()
        for _ in range(3):
            task = asyncio.create_task(for_ever())
            assert streams.take("key", task)
            assert not streams.take("key", task)
            await asyncio.wait({task}, timeout=20)
            assert task.cancelled()

    asyncio.run(run())


def test_each_key_has_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One's do not take another's; what has ended by itself counts no more."""
    monkeypatch.setattr(reading_on, "MOST", 2)

    async def run() -> None:
        streams = ReadingOn()
        ends = [asyncio.Event() for _ in range(2)]
        tasks = [asyncio.create_task(wait_for(end)) for end in ends]
        assert [streams.take("one", task) for task in tasks] == [True, True]
        assert not streams.take("one", tasks[0])
        assert streams.take("other", asyncio.create_task(for_ever()))
        ends[0].set()
        await tasks[0]
        assert streams.take("one", asyncio.create_task(for_ever()))
        streams.end()

    asyncio.run(run())


async def wait_for(end: asyncio.Event) -> None:
    """Read on until it is said that the usage has come."""
    await end.wait()


def test_a_gateway_that_stops_reads_nothing_on() -> None:
    """What is read on ends at once, and not with the grace that callers have; from then on nothing is taken."""

    async def run() -> None:
        lifecycle = CallLifecycle(cast("KeyCache", None), "gateway_1")
        task = lifecycle.start(for_ever())
        assert lifecycle.reading_on.take("key", task)
        await asyncio.wait_for(lifecycle.drain(3_600), 20)
        assert task.cancelled()
        assert not lifecycle.reading_on.take("key", asyncio.create_task(for_ever()))

    asyncio.run(run())


def test_a_stream_that_fails_while_it_is_read_on_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else is left to hear of it."""

    async def fail() -> None:
        raise ZeroDivisionError("what nobody expects")

    async def run() -> None:
        task = asyncio.create_task(fail())
        assert ReadingOn().take("key", task)
        await asyncio.wait({task})

    with caplog.at_level(logging.ERROR, logger="keydesk.gateway"):
        asyncio.run(run())
    assert "ZeroDivisionError: what nobody expects" in caplog.text
