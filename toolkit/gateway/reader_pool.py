"""The processes that read what is large: a few, begun when they are needed, ended when they have nothing to do.

They compete with the event loop for the machine's processors but never for the interpreter's lock.
"""

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.dialects.shape import Shape
from toolkit.gateway.byte_blocks import BLOCK
from toolkit.gateway.fair_turns import FairTurns
from toolkit.gateway.reader_process import CPU_LIMIT, LENGTH, Ask, Headers, Told, is_public

MOST = 2
"""Processes at once."""

PATIENCE = 60.0
"""Seconds that a call waits for a process, and a process for its own processor."""

WAITING = 64
"""Large bodies and answers of one organisation that may wait for a process."""

IDLE = 60.0
"""Seconds without work after which a process is ended."""

NICE = 10
"""Of a process, from its first moment: the loop of the gateway comes first where they share a processor."""

_BEGIN = "import os; os.nice({nice}); from toolkit.gateway.reader_process import main; main({parent})"

_SHOWN = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


class ReaderFailed(Exception):
    """The process that read ended before its answer."""


class Reader:
    """One process. It belongs to one call at a time."""

    def __init__(
        self, process: subprocess.Popen[bytes], heard: asyncio.StreamReader, said: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._heard = heard
        self._said = said
        self.idle_since = 0.0
        self.has_grown = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._heard.at_eof() or self._process.poll() is not None

    async def ask(self, what: str, blocks: Sequence[bytes] = (), **arguments: Any) -> tuple[Any, list[bytes]]:
        """Ask it something; return its answer and what follows that.

        Args:
            what: the question's name in `reader`.
            blocks: the bytes that it is about.
            arguments: the question's own.

        Raises:
            Refusal: its answer.
            ReaderFailed: it ended, or did not answer in time.
        """
        frame = pickle.dumps(Ask(what, arguments, sum(map(len, blocks))))
        try:
            async with asyncio.timeout(PATIENCE):
                self._said.write(LENGTH.pack(len(frame)) + frame)
                for block in blocks:
                    for start in range(0, len(block), BLOCK):
                        self._said.write(block[start : start + BLOCK] if len(block) > BLOCK else block)
                        await self._said.drain()
                (length,) = LENGTH.unpack(await self._heard.readexactly(LENGTH.size))
                told: Told = pickle.loads(await self._heard.readexactly(length))  # noqa: S301 - by our own process
                more, left = [], told.size
                while left:
                    more.append(await self._heard.readexactly(min(left, BLOCK)))
                    left -= len(more[-1])
        except TimeoutError:
            raise ReaderFailed from None
        except (OSError, EOFError, pickle.UnpicklingError):
            await self._ends()
            raise ReaderFailed from None
        self.has_grown = told.last
        if told.refusal is not None:
            raise Refusal(**told.refusal)
        return told.value, more

    async def _ends(self) -> None:
        """Wait for the end of a process whose socket is closed, which comes a moment before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while not self.is_gone():  # noqa: ASYNC110 - a signal handler is not worth it
                    await asyncio.sleep(0.005)

    def end(self) -> int | None:
        """End it; return the status it had ended with by itself, if it had."""
        status = self._process.poll()
        if status is None:
            self._process.kill()
        self._said.transport.abort()
        return status

    def is_gone(self) -> bool:
        """Whether nothing is left of it."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait until it is gone; it has been killed."""
        self._process.wait()


class ReaderPool:
    """All processes of a gateway that read."""

    def __init__(self) -> None:
        self._turns = FairTurns(MOST, MOST, waiting=WAITING, patience=PATIENCE, what="more large bodies")
        self._idle: list[Reader] = []
        self._ending: list[Reader] = []
        self._busy: set[Reader] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def pids(self) -> list[int]:
        """Process ids of those that live."""
        return [reader.pid for reader in [*self._idle, *self._busy]]

    async def lease(self, org: str) -> Reader:
        """Return a process for one call; give it back with `done`.

        Raises:
            Refusal: unavailable; there are too many large calls, or no process can be begun.
        """
        await self._turns.take(org, 1)
        try:
            while self._idle:
                reader = self._idle.pop()
                if not reader.is_over:  # it may have grown and gone, or been killed
                    break
                self._drop(reader)
            else:
                reader = await _begin()
        except BaseException as error:
            self._turns.give(org, 1)
            if isinstance(error, OSError):
                raise Refusal(
                    RefusalType.UNAVAILABLE,
                    "The gateway cannot begin a process that reads large bodies. Try again shortly.",
                ) from None
            raise
        self._busy.add(reader)
        return reader

    def done(self, org: str, reader: Reader, *, reusable: bool) -> int | None:
        """Take a process back; return the status that it ended with, if it did so by itself.

        Args:
            org: that leased it.
            reader: the process.
            reusable: whether its last question was answered; else it is ended.
        """
        self._busy.discard(reader)
        status = None
        if reusable and not reader.has_grown:
            reader.idle_since = asyncio.get_running_loop().time()
            self._idle.append(reader)
        else:
            status = self._drop(reader)
        self._sweep()
        self._turns.give(org, 1)
        return status

    @contextlib.asynccontextmanager
    async def leased(self, org: str) -> AsyncIterator[Reader]:
        """Lease a process for one question."""
        reader = await self.lease(org)
        reusable = False
        try:
            yield reader
            reusable = True
        finally:
            self.done(org, reader, reusable=reusable)

    def close(self) -> None:
        """End all."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for reader in [*self._idle, *self._busy]:
            self._drop(reader)
        for reader in self._ending:
            reader.wait()
        self._idle.clear()

    def _drop(self, reader: Reader) -> int | None:
        status = reader.end()
        self._ending = [old for old in [*self._ending, reader] if not old.is_gone()]
        return status

    def _sweep(self) -> None:
        """End those that have had nothing to do, the longest idle first."""
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0].idle_since + IDLE <= loop.time():
            self._drop(self._idle.pop(0))
        self._ending = [old for old in self._ending if not old.is_gone()]
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = loop.call_later(IDLE / 2, self._sweep) if self._idle or self._ending else None


async def _begin() -> Reader:
    ours, its = socket.socketpair()
    with its:
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - it takes a millisecond, and takes nothing from outside
            [sys.executable, "-c", _BEGIN.format(nice=NICE, parent=os.getpid())],
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a traceback could hold words of a prompt
            env={name: value for name, value in os.environ.items() if name in _SHOWN or name.startswith("PYTHON")},
        )
    try:
        heard, said = await asyncio.open_unix_connection(sock=ours, limit=BLOCK)
    except BaseException:
        process.kill()
        ours.close()
        raise
    return Reader(process, heard, said)


class Inspection:
    """A large request body that a process reads and keeps until it is rewritten.

    Args:
        readers: the processes.
        org: whose turn it takes.
    """

    def __init__(self, readers: ReaderPool, org: str) -> None:
        self._readers = readers
        self._org = org
        self._reader: Reader | None = None

    async def inspect(
        self, blocks: Sequence[bytes], *, dialect: Dialect, endpoint: str, model: str | None, headers: Headers
    ) -> tuple[Shape, str | None]:
        """Return shape and tags of a body, as `reader.read_request` reads them.

        Raises:
            Refusal: what is wrong with it, or unavailable.
        """
        await self.forget()  # it may have been read before
        self._reader = await self._readers.lease(self._org)
        shown = [header for header in headers if is_public(header[0])]
        (shape, tags), _ = await self._ask(
            "inspect", blocks, dialect=dialect, endpoint=endpoint, model=model, headers=shown
        )
        return shape, tags

    async def rewrite(self, **arguments: Any) -> list[bytes] | None:
        """Return the body as the dialect's `rewrite` changes it; None if it does not.

        Raises:
            Refusal: unavailable; the process has ended meanwhile.
        """
        changed, blocks = await self._ask("rewrite", **arguments)
        self._done(reusable=True)
        return blocks if changed else None

    async def fields_added(self, **arguments: Any) -> set[str]:
        """Return the paths of what the dialect's `rewrite` adds to the body; the process keeps it.

        Raises:
            Refusal: unavailable; the process has ended meanwhile.
        """
        paths, _ = await self._ask("fields_added", **arguments)
        return set(paths)

    async def forget(self) -> None:
        """Let the process go on to another body, if this one has not been rewritten."""
        if self._reader is not None:
            with contextlib.suppress(Refusal):
                await self._ask("forget")
                self._done(reusable=True)

    async def _ask(self, what: str, blocks: Sequence[bytes] = (), **arguments: Any) -> tuple[Any, list[bytes]]:
        assert self._reader is not None  # noqa: S101 - `inspect` comes first
        try:
            return await self._reader.ask(what, blocks, **arguments)
        except ReaderFailed:
            raise _failure(self._done(reusable=False)) from None
        except Refusal:
            self._done(reusable=True)
            raise
        except BaseException:
            self._done(reusable=False)  # half a question has been asked
            raise

    def _done(self, *, reusable: bool) -> int | None:
        reader, self._reader = self._reader, None
        return self._readers.done(self._org, reader, reusable=reusable) if reader else None


def _failure(status: int | None) -> Refusal:
    if status == -signal.SIGPROF:
        return Refusal(
            RefusalType.INVALID_REQUEST,
            f"Reading the request body took more than {CPU_LIMIT:g} s. Send less in one request.",
        )
    return Refusal(
        RefusalType.UNAVAILABLE, "The process that read the request body has ended before it was done. Try again."
    )
