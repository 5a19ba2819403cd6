"""The gateway's HTTP client on real sockets: what it sends, whom it believes, and that it lets go."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from toolkit.core.settings import Settings
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.request_writing import request_bytes, split_url
from toolkit.gateway.upstream_connection import UpstreamConnection
from toolkit.gateway.upstream_exchange import Body, Exchange, UpstreamBroke

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Front:
    """A server that answers each request by `script`, and what it saw."""

    def __init__(self, script: list[bytes]) -> None:
        self.script = script
        self.connections = 0
        self.left = asyncio.Event()
        self.tasks: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the other side leaves."""
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            for answer in self.script:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(answer)
            await reader.read()
        self.left.set()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(*script: bytes) -> AsyncIterator[tuple[Front, ConnectionPool, str]]:
    """Run a server and a pool."""
    front = Front(list(script))
    server = await asyncio.start_server(front.serve, "127.0.0.1", 0)
    pool = ConnectionPool()
    try:
        yield front, pool, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        pool.close()
        await asyncio.gather(*filter(None, front.tasks))
        server.close()


async def begin(pool: ConnectionPool, url: str, body: bytes = b"{}") -> UpstreamConnection:
    """Send a request."""
    address, opening = split_url(url)
    connection = pool.kept(address) or await pool.connect(address, soon())
    connection.send(request_bytes(opening, {}, body))
    return connection


def soon() -> float:
    """Return a time limit that no test should reach."""
    return asyncio.get_running_loop().time() + 5


async def whole(connection: UpstreamConnection) -> bytes:
    """Read an answer."""
    await connection.read_head(soon())
    parts = []
    while part := await connection.read(soon()):
        parts.append(part)
    connection.release()
    return b"".join(parts)


async def body_of(exchange: Exchange) -> bytes:
    """Return the body of an exchange's answer."""
    parts = []
    while part := await exchange.read():
        parts.append(part)
    return b"".join(parts)


def test_connection_is_kept() -> None:
    """One connection serves call after call, also past an interim answer."""

    async def run() -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ANSWER
        async with serving(ANSWER, early, ANSWER) as (front, pool, url):
            assert [await whole(await begin(pool, url)) for _ in range(3)] == [b"ok"] * 3
            assert front.connections == 1

    asyncio.run(run())


def test_each_exchange_counts_its_own_bytes(settings: Settings) -> None:
    """Also when its connection serves another call by now."""

    async def run() -> None:
        longer = ANSWER.replace(b"Length: 2", b"Length: 5") + b"ays"
        async with serving(ANSWER, longer) as (front, pool, url):
            exchanges = [Exchange(pool, settings, url, {}, b"{}") for _ in range(2)]
            assert [exchange.received for exchange in exchanges] == [0, 0]
            for exchange in exchanges:
                with exchange:
                    await exchange.send()
                    await body_of(exchange)
            assert [exchange.received for exchange in exchanges] == [2, 5]
            assert front.connections == 1

    asyncio.run(run())


class Hurried(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        """Return the time."""
        return super().time() + self.ahead


def test_slow_caller_is_not_the_upstreams_fault(settings: Settings) -> None:
    """The clock between two bytes stands still while a slow caller takes what has come."""
    patient = replace(settings, call_timeout=1e9)

    async def run(loop: Hurried) -> None:
        more = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER[:-1])
            await more.wait()
            writer.write(ANSWER[-1:])
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        pool = ConnectionPool()
        with Exchange(pool, patient, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {}, b"{}") as made:
            await made.send()
            assert await made.read() == b"o"
            loop.ahead += 2 * patient.idle_timeout  # so long did the caller take for it
            rest = asyncio.ensure_future(made.read())
            for _ in range(10):  # what is late by now is found to be late
                await asyncio.sleep(0)
            more.set()
            assert await rest == b"k"
        pool.close()
        server.close()

    with asyncio.Runner(loop_factory=Hurried) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Hurried)
        runner.run(run(loop))


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        ANSWER.replace(b"1.1", b"1.0"),
        ANSWER + ANSWER,
        ANSWER + b"rubbish",
    ],
    ids=["close", "HTTP/1.0", "two answers", "rubbish behind it"],
)
def test_connection_that_cannot_be_trusted_again(answer: bytes) -> None:
    """What follows an answer never becomes the answer of somebody else's call."""

    async def run() -> None:
        async with serving(answer, ANSWER) as (front, pool, url):
            first = await begin(pool, url)
            await first.read_head(soon())
            assert await first.read(soon()) == b"ok"
            first.release()
            await asyncio.wait_for(front.left.wait(), 20)
            second = await begin(pool, url)
            assert second is not first
            second.release()

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"", ANSWER[:-2]], ids=["before the head", "in the body"])
def test_call_that_is_given_up(answer: bytes) -> None:
    """The upstream learns at once that nobody waits any more."""

    async def run() -> None:
        async with serving(answer) as (front, pool, url):
            connection = await begin(pool, url)
            task = asyncio.create_task(whole(connection))
            await asyncio.wait({task}, timeout=0.1)
            assert not task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            connection.release()
            await asyncio.wait_for(front.left.wait(), 20)

    asyncio.run(run())


def test_call_that_is_given_up_while_it_is_sent() -> None:
    """A request that only half went out is not finished."""

    async def run() -> None:
        left = asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            with contextlib.suppress(OSError):
                while await reader.read(1 << 20):
                    pass
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            left.set()

        server = await asyncio.start_server(deaf, "127.0.0.1", 0)
        pool = ConnectionPool()
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        connection = await begin(pool, url, bytes(64 << 20))
        connection.release()
        await asyncio.wait_for(left.wait(), 1)
        pool.close()
        server.close()

    asyncio.run(run())


def test_time_limit() -> None:
    """An early timer is not mistaken for the limit, and the limit is kept."""

    async def run() -> None:
        async with serving(ANSWER[:-1]) as (_, pool, url):
            connection = await begin(pool, url)
            clock = asyncio.get_running_loop().time
            await connection.read_head(clock() + 5)
            assert await connection.read(clock() + 5) == b"o"
            started = clock()
            with pytest.raises(TimeoutError):
                await connection.read(started + 0.1)
            with pytest.raises(TimeoutError):
                await connection.read(started + 0.3)
            assert 0.3 <= clock() - started < 2
            connection.release()

    asyncio.run(run())


class Fickle:
    """A server whose n-th connection answers its requests by the n-th script, and is closed with the last answer."""

    def __init__(self, scripts: Sequence[Sequence[bytes]]) -> None:
        self.scripts = list(scripts)
        self.bodies: list[list[bytes]] = []
        """Of the requests of each connection, in order."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer as the script says; an answer may be nothing."""
        answers = self.scripts[len(self.bodies)]
        bodies: list[bytes] = []
        self.bodies.append(bodies)
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            bodies.append(await reader.readexactly(length))
            writer.write(answer)
        writer.close()


async def ask(scripts: Sequence[Sequence[bytes]], settings: Settings, *bodies: Body) -> tuple[Fickle, list[str]]:
    """Make one exchange after the other; return what the server saw, and how each ended."""
    fickle, ends = Fickle(scripts), []
    server = await asyncio.start_server(fickle.serve, "127.0.0.1", 0)
    pool = ConnectionPool()
    for body in bodies:
        try:
            with Exchange(pool, settings, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {}, body) as made:
                await made.send()
                answer = await body_of(made)
            ends.append(answer.decode() + (", resent" if made.resent else ""))
        except UpstreamBroke as error:
            ends.append(str(error) + (", resent" if made.resent else ""))
    pool.close()
    server.close()
    return fickle, ends


BROKE = "no answer: closed before the end"


@pytest.mark.parametrize(
    ("scripts", "ends"),
    [
        ([[ANSWER, b""], [ANSWER]], ["ok", "ok, resent"]),
        ([[ANSWER, b""], [b""]], ["ok", f"{BROKE}, resent"]),
        ([[ANSWER, b"H"], [ANSWER]], ["ok", BROKE]),
        ([[ANSWER, b"HTTP/1.1 100 Continue\r\n\r\n"], [ANSWER]], ["ok", BROKE]),
        ([[ANSWER, ANSWER[:-1]], [ANSWER]], ["ok", "the answer broke off: closed before the end"]),
        ([[ANSWER, b"rubbish"], [ANSWER]], ["ok", "no answer: what came is not HTTP"]),
        ([[b""], [ANSWER], [ANSWER]], [BROKE, "ok"]),
    ],
    ids=["once", "not twice", "a byte came", "an interim answer came", "broken off", "rubbish", "not over a new one"],
)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_kept_connection_that_is_closed_as_it_is_used(
    settings: Settings, scripts: list[list[bytes]], ends: list[str], large: bool
) -> None:
    """The request goes out once more over a new one, whole, if not a byte of an answer had come; else never."""
    body: Body = [b"a" * 70_000, b"b" * 70_000] if large else b"{}"
    whole = b"".join(body) if isinstance(body, list) else body
    bodies: list[Body] = [list(body) if isinstance(body, list) else body for _ in ends]
    fickle, ended = asyncio.run(ask(scripts, settings, *bodies))
    assert ended == ends
    again = sum("resent" in end for end in ends)
    assert sum(map(len, fickle.bodies)) == len(ends) + again
    assert {got for connection in fickle.bodies for got in connection} == {whole}


@pytest.mark.parametrize("sent", [b"", ANSWER, b"x"], ids=["its end", "an answer", "rubbish"])
def test_a_connection_on_which_something_has_come_unasked(sent: bytes) -> None:
    """Even if the loop has not read it yet, it is not used for the next call."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = socket.create_server(("127.0.0.1", 0))
        server.setblocking(False)
        pool = ConnectionPool()
        address = split_url(f"http://127.0.0.1:{server.getsockname()[1]}/")[0]
        pool.keep(await pool.connect(address, soon()))
        other, _ = await loop.sock_accept(server)
        kept = pool.kept(address)
        assert kept is not None
        pool.keep(kept)
        other.send(sent) if sent else other.close()  # and the loop gets no turn before the next line
        assert pool.kept(address) is None
        assert not kept.is_open
        other.close()
        server.close()
        pool.close()

    asyncio.run(run())


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_body_behind_a_status_that_has_none_is_nobodys_answer(settings: Settings, status: bytes) -> None:
    """It may come after its head has ended the call: the connection serves no other."""

    async def run() -> None:
        head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n"
        async with serving(head, ANSWER) as (front, pool, url):
            with contextlib.suppress(UpstreamBroke), Exchange(pool, settings, url, {}, b"{}") as made:
                await made.send()
                assert await body_of(made) == b""
            assert pool.kept(split_url(url)[0]) is None
            await asyncio.wait_for(front.left.wait(), 20)

    asyncio.run(run())


@pytest.mark.parametrize("value", ["a\nb", "a\r\nb: c", "a\0b", "€"])
def test_header_that_cannot_be_sent(value: str) -> None:
    """No header of ours can become two."""
    with pytest.raises(ValueError):  # noqa: PT011 - an encoding error is one, too
        request_bytes("POST / HTTP/1.1\r\nHost: x", {"authorization": value}, b"")


@pytest.mark.parametrize(
    ("url", "opening"),
    [
        ("https://api.example.com/v1/x?alt=sse", "POST /v1/x?alt=sse HTTP/1.1\r\nHost: api.example.com"),
        ("http://[::1]:8000", "POST / HTTP/1.1\r\nHost: [::1]:8000"),
        ("https://bücher.example:443/a b", "POST /a%20b HTTP/1.1\r\nHost: xn--bcher-kva.example"),
        ("http://x/models/a%2Fb:run", "POST /models/a%2Fb:run HTTP/1.1\r\nHost: x"),
    ],
)
def test_first_lines(url: str, opening: str) -> None:
    """Path and host are written as HTTP wants them, and nothing is encoded twice."""
    assert split_url(url)[1] == opening


@pytest.mark.parametrize("status", [b"000", b"042", b"099", b"101", b"600", b"999"])
def test_a_status_that_is_none_is_no_answer(status: bytes) -> None:
    """Below 100 and above 599 there are none, and nobody asked for another protocol (RFC 9110)."""

    async def ask() -> None:
        answer = ANSWER.replace(b"200", status)
        async with serving(answer + ANSWER) as (_, pool, url):
            connection = await begin(pool, url)
            with pytest.raises(ConnectionError):
                await connection.read_head(soon())
            assert not connection.is_open

    asyncio.run(ask())
