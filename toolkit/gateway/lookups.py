"""Looks secrets up in the key store: those that wait at the same time in one reading, so that guesses cost little."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from toolkit.admin import secret_lookup
from toolkit.core.policy import KeyFacts
from toolkit.store.transaction import Transaction

TOGETHER = 64
"""Secrets that are looked up in one reading."""


class Found(NamedTuple):
    """The key that a secret admits, or else the one that it once admitted."""

    live: KeyFacts | None
    retired: KeyFacts | None


Facts = tuple[dict[str, KeyFacts], dict[str, KeyFacts]]
"""Keys by the digest that admits them, and by the one that once did."""


class Lookups:
    """Looks secrets up, one reading after the other: a flood of guesses takes one thread, and not the loop's time.

    Args:
        read: asks a question of the key store, in a thread.
    """

    def __init__(self, read: Callable[[Callable[[Transaction], Facts]], Coroutine[None, None, Facts]]) -> None:
        self._read = read
        self._waiting: list[tuple[list[str], asyncio.Future[Found]]] = []
        self._working: asyncio.Task[None] | None = None

    async def find(self, digests: list[str]) -> Found:
        """Return what the store knows of a secret, no older than this question.

        Args:
            digests: of the secret, under each pepper.

        Raises:
            Unavailable: the key store cannot be reached.
        """
        found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((digests, found))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await found

    async def _work(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
                await self._answer(asked)
        finally:
            self._working = None

    async def _answer(self, asked: list[tuple[list[str], asyncio.Future[Found]]]) -> None:
        wanted = [digest for digests, _ in asked for digest in digests]

        def question(tx: Transaction) -> Facts:
            live = secret_lookup.all_live(tx, wanted)
            unknown = [digest for digest in wanted if digest not in live]
            return live, secret_lookup.all_retired(tx, unknown) if unknown else {}

        try:
            live, retired = await self._read(question)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            for _, found in asked:
                if not found.done():
                    found.set_exception(error)
            return
        for digests, found in asked:
            if not found.done():  # else its caller has left
                found.set_result(Found(_first(digests, live), _first(digests, retired)))


def _first(digests: list[str], facts: dict[str, KeyFacts]) -> KeyFacts | None:
    return next((facts[digest] for digest in digests if digest in facts), None)
