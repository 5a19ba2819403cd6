"""HTTP clients side by side: what each costs the gateway per call and per chunk, and which can be cancelled.

    python benchmarks/clients.py [--secs 0.5] [--rounds 5] [--only keydesk,aiohttp]

Every client runs in a process of its own and calls one small upstream process on this machine. Rounds are
interleaved; a figure is the median over the rounds of a client's CPU (all its threads) divided by aiohttp's in the
same round. Below about 10 % nothing is a difference. Needs uvloop, httptools and aiohttp; pyreqwest, wreq and rnet
are measured when they are installed, TLS when `cryptography` is.
"""

import argparse
import asyncio
import contextlib
import datetime
import importlib.metadata
import ipaddress
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import httptools
import uvloop

from toolkit import environment

ROOT = Path(__file__).parent.parent
CHUNKS, PAUSE, STREAMS = 34, 0.010, 32
EVENT = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
ANSWER = json.dumps({"id": "x", "choices": [{"message": {"content": "word " * 80}}], "usage": {}}).encode()
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 370}]}).encode()
SENT = {
    "accept": "application/json",
    "user-agent": "OpenAI/Python 3.54.0",
    "authorization": "Bearer upstream-key",
    "content-type": "application/json",
    "accept-encoding": "identity",
    "x-request-id": "req_01890a5d-ac96-774b-bcce-b302099a8057",
}
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 10:00:00 GMT\r\nserver: mock\r\nx-request-id: req_1\r\n"
    b"openai-organization: org\r\nopenai-processing-ms: 412\r\nopenai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\ncf-cache-status: DYNAMIC\r\n"
)
WHOLE = HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
OPENING = HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


# -- the upstream -----------------------------------------------------------------------------------------------------


class Upstream(asyncio.Protocol):
    """Answers by path: /plain, /paced, /burst, /half (a piece, then silence), /silent, /deaf, /short, /cut."""

    opened, closed = 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Upstream.opened += 1
        self.wire: Any = transport
        self.parser = httptools.HttpRequestParser(self)
        self.timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.path = b""

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_headers_complete(self) -> None:
        if self.path == b"/deaf":
            self.wire.pause_reading()
            asyncio.get_running_loop().call_later(0.3, self.wire.resume_reading)

    def on_message_complete(self) -> None:
        match self.path:
            case b"/plain":
                self.wire.write(WHOLE)
            case b"/paced" | b"/half":
                self.wire.write(OPENING + PIECE)
                if self.path == b"/paced":
                    self.left = CHUNKS - 1
                    self.timer = asyncio.get_running_loop().call_later(PAUSE, self.next_chunk)
            case b"/burst":
                self.wire.write(OPENING + PIECE * CHUNKS + b"0\r\n\r\n")
            case b"/short":
                self.wire.write(HEAD + b"content-length: 1000\r\n\r\n{}")
                self.wire.close()
            case b"/cut":
                self.wire.write(OPENING + PIECE)
                self.wire.close()

    def next_chunk(self) -> None:
        self.left -= 1
        self.wire.write(PIECE if self.left else PIECE + b"0\r\n\r\n")
        if self.left:
            self.timer = asyncio.get_running_loop().call_later(PAUSE, self.next_chunk)

    def connection_lost(self, _error: Exception | None) -> None:
        Upstream.closed += 1
        if self.timer:
            self.timer.cancel()


async def listen(folder: Path) -> list[str]:
    """Start the upstream in this loop; return its base URLs, plain and (if a certificate was made) TLS."""
    loop = asyncio.get_running_loop()
    contexts: list[ssl.SSLContext | None] = [None]
    if (folder / "ca.pem").exists():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
        contexts.append(context)
    urls = []
    for context in contexts:
        server = await loop.create_server(Upstream, "127.0.0.1", 0, ssl=context)
        urls.append(f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    return urls


def make_certificate(folder: Path) -> bool:
    """Write a self-signed certificate for 127.0.0.1; return whether that was possible."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return False
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = (
        made.serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    )
    made = made.add_extension(host, critical=False)
    certificate = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return True


# -- the clients ------------------------------------------------------------------------------------------------------


class Client(Protocol):
    """One client: a whole call, and a streamed one; both POST and do not follow redirects."""

    async def whole(self, url: str, body: bytes) -> bytes: ...
    def stream(self, url: str, body: bytes) -> AsyncIterator[bytes]: ...


class Keydesk:
    """The gateway's own `toolkit.gateway.upstream_pool`, with its time limits and error texts."""

    def __init__(self, _ca: str) -> None:
        sys.path.insert(0, str(ROOT))
        from toolkit.gateway.upstream_pool import UpstreamPool

        self.upstreams = UpstreamPool(environment.read_settings({}))
        self.is_open = False

    async def exchange(self, url: str, body: bytes) -> Any:
        if not self.is_open:
            await self.upstreams.open()
            self.is_open = True
        return self.upstreams.exchange(url, SENT, body)

    async def whole(self, url: str, body: bytes) -> bytes:
        async with await self.exchange(url, body) as exchange:
            await exchange.send()
            parts = []
            while part := await exchange.read():
                parts.append(part)
            return b"".join(parts)

    async def stream(self, url: str, body: bytes) -> AsyncIterator[bytes]:
        async with await self.exchange(url, body) as exchange:
            await exchange.send()
            while part := await exchange.read():
                yield part


class Aiohttp:
    """The reference: a session without cookies and decompression, its public API used in the plainest way."""

    def __init__(self, _ca: str) -> None:
        self.session: Any = None

    def post(self, url: str, body: bytes) -> Any:
        import aiohttp

        if self.session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            jar = aiohttp.DummyCookieJar()
            self.session = aiohttp.ClientSession(
                connector=connector, cookie_jar=jar, timeout=timeout, auto_decompress=False
            )
        return self.session.post(url, data=body, headers=SENT, allow_redirects=False)

    async def whole(self, url: str, body: bytes) -> bytes:
        answer = await self.post(url, body)
        try:
            return bytes(await answer.read())
        finally:
            answer.close()

    async def stream(self, url: str, body: bytes) -> AsyncIterator[bytes]:
        answer = await self.post(url, body)
        try:
            while chunk := await answer.content.readany():
                yield chunk
        finally:
            answer.close()


class Pyreqwest:
    """Rust's reqwest."""

    def __init__(self, ca: str) -> None:
        from pyreqwest.client import ClientBuilder

        builder = ClientBuilder().no_proxy().follow_redirects(False).gzip(False).brotli(False).zstd(False)
        builder = builder.deflate(False).connect_timeout(datetime.timedelta(seconds=5))
        if ca:
            builder = builder.add_root_certificate_pem(Path(ca).read_bytes())
        self.client = builder.build()

    async def whole(self, url: str, body: bytes) -> bytes:
        answer = await self.client.post(url).headers(SENT).body_bytes(body).build().send()
        return bytes(await answer.bytes())

    async def stream(self, url: str, body: bytes) -> AsyncIterator[bytes]:
        async with self.client.post(url).headers(SENT).body_bytes(body).build_streamed() as answer:
            while (chunk := await answer.body_reader.read_chunk()) is not None:
                yield bytes(chunk)


class Wreq:
    """Rust's wreq."""

    def __init__(self, ca: str) -> None:
        import wreq

        limits: dict[str, Any] = {"connect_timeout": datetime.timedelta(seconds=5), "no_proxy": True}
        self.client = wreq.Client(**limits, **({"tls_verify": Path(ca)} if ca else {}))

    async def whole(self, url: str, body: bytes) -> bytes:
        answer = await self.client.post(url, headers=SENT, body=body)
        return bytes(await answer.bytes())

    async def stream(self, url: str, body: bytes) -> AsyncIterator[bytes]:
        answer = await self.client.post(url, headers=SENT, body=body)
        try:
            async with answer.stream() as chunks:
                async for chunk in chunks:
                    yield bytes(chunk)
        finally:
            await answer.close()


class Rnet(Wreq):
    """The forerunner of wreq."""

    def __init__(self, ca: str) -> None:
        import rnet

        limits: dict[str, Any] = {"connect_timeout": 5, "no_proxy": True, "allow_redirects": False}
        self.client = rnet.Client(**limits, **({"verify": Path(ca)} if ca else {}))


CLIENTS: dict[str, Callable[[str], Client]] = {
    "aiohttp": Aiohttp,
    "keydesk": Keydesk,
    "pyreqwest": Pyreqwest,
    "wreq": Wreq,
    "rnet": Rnet,
}


# -- one client's process ---------------------------------------------------------------------------------------------

LOADS = {"plain c1": 1, "plain c64": 64, "paced": STREAMS, "burst": 16}
"""Kinds of load and how many calls run at once."""


async def load(client: Client, url: str, kind: str, secs: float) -> float:
    """Return CPU microseconds per call, or per chunk where it streams; every answer is checked."""
    done = 0
    end = time.perf_counter() + secs

    async def one(number: int) -> None:
        nonlocal done
        await asyncio.sleep(number * PAUSE / STREAMS if kind == "paced" else 0)  # so that every chunk comes alone
        while time.perf_counter() < end:
            if kind.startswith("plain"):
                assert await client.whole(url + "/plain", BODY) == ANSWER
                done += 1
            else:
                parts = [chunk async for chunk in client.stream(f"{url}/{kind}", BODY)]
                assert b"".join(parts) == EVENT * CHUNKS
                done += CHUNKS

    started = time.process_time()
    await asyncio.gather(*(one(number) for number in range(LOADS[kind])))
    return (time.process_time() - started) / done * 1e6


async def seconds_until_closed(client: Client, url: str, path: str) -> str:
    """Cancel a call in the state that `path` brings about; return how long its connection then lives."""
    arrived = asyncio.Event()

    async def call() -> None:
        if path == "/half":
            async for _ in client.stream(url + path, BODY):
                arrived.set()
        else:
            await client.whole(url + path, BODY if path == "/silent" else bytes(64 << 20))

    before = Upstream.closed
    task = asyncio.create_task(call())
    await asyncio.wait({task, asyncio.create_task(arrived.wait())}, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        return f"fails: {task.exception()!r}"
    started = time.perf_counter()
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    while Upstream.closed == before and time.perf_counter() - started < 3:  # noqa: ASYNC110 - no client tells
        await asyncio.sleep(0.002)
    took = time.perf_counter() - started
    return f"{took * 1000:.0f} ms" if Upstream.closed > before and task.cancelled() else "NEVER"


async def name_of_error(client: Client, url: str) -> str:
    """Return what a call raises."""
    try:
        async with asyncio.timeout(3):
            async for _ in client.stream(url, BODY):
                pass
    except Exception as error:  # noqa: BLE001 - whatever it is, is what is asked
        return type(error).__name__
    return "NONE"


async def manners(client: Client, folder: Path) -> list[list[str]]:
    """Return a row for plain and one for TLS: cancelled before the head, in the body, while sending; errors."""
    rows = []
    for url in await listen(folder):
        row = [await seconds_until_closed(client, url, path) for path in ("/silent", "/half", "/deaf")]
        row += [await name_of_error(client, url + path) for path in ("/short", "/cut")]
        rows.append([*row, await name_of_error(client, url.split(":")[0] + "://127.0.0.1:9/")])
    return rows


async def be_client(name: str, folder: Path) -> None:
    """Do what the lines on standard input ask for; answer each with a line of JSON."""
    ca = folder / "ca.pem"
    client = CLIENTS[name](str(ca) if ca.exists() else "")
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        result = await (load(client, *order) if order else manners(client, folder))
        print(json.dumps(result), flush=True)


async def be_upstream(folder: Path) -> None:
    """Serve until standard input is closed."""
    print(json.dumps(await listen(folder)), flush=True)
    await asyncio.to_thread(sys.stdin.read)


# -- the comparison ---------------------------------------------------------------------------------------------------


class Worker:
    """A process of this file in one of its roles."""

    def __init__(self, role: str, folder: Path, core: int) -> None:
        environment = os.environ | {"SSL_CERT_FILE": str(folder / "ca.pem")}  # for those who take the default roots
        command = [sys.executable, __file__, "--role", role, "--folder", str(folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {core % (os.cpu_count() or 1)})

    def ask(self, order: object) -> Any:
        """Send an order and wait for its result."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.result()

    def result(self) -> Any:
        """Return the next line."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended: {self.process.args}")
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


def version(name: str) -> str | None:
    """Return a client's version; None if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def compare(names: list[str], secs: float, rounds: int, folder: Path) -> None:
    """Print the tables."""
    make_certificate(folder)
    upstream = Worker("upstream", folder, 1)
    urls = upstream.result()
    workers = {name: Worker(name, folder, 0) for name in names}
    try:
        print("| CPU / aiohttp's | " + " | ".join(names) + " | aiohttp, us |\n|---|" + "---|" * (len(names) + 1))
        for url in urls:
            for kind in LOADS:
                for worker in workers.values():
                    worker.ask([url, kind, 0.1])
                taken = [{n: worker.ask([url, kind, secs]) for n, worker in workers.items()} for _ in range(rounds)]
                ratios = [statistics.median(one[name] / one["aiohttp"] for one in taken) for name in names]
                base = statistics.median(one["aiohttp"] for one in taken)
                cells = [url.split(":")[0] + " " + kind, *(f"{ratio:.2f}" for ratio in ratios), f"{base:.0f}"]
                print("| " + " | ".join(cells) + " |", flush=True)
        print(
            "\n| cancelled: connection lives | before the head | in the body | while sending | short | cut | refused |"
        )
        print("|---|---|---|---|---|---|---|")
        for name, worker in workers.items():
            for scheme, row in zip(("http", "https"), worker.ask(None), strict=False):
                print(f"| {name} {scheme} | " + " | ".join(row) + " |", flush=True)
    finally:
        for worker in [*workers.values(), upstream]:
            worker.stop()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secs", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CLIENTS), help="names, comma-separated; aiohttp always takes part")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        uvloop.run(be_upstream(given.folder) if given.role == "upstream" else be_client(given.role, given.folder))
        return
    versions = {name: version("aiohttp" if name == "keydesk" else name) for name in CLIENTS}
    asked = [name for name in CLIENTS if name == "aiohttp" or name in given.only.split(",")]
    names = [name for name in asked if versions[name]]
    print(
        f"Python {platform.python_version()}, uvloop {version('uvloop')}, {os.cpu_count()} cores, {platform.machine()};"
    )
    print(", ".join(f"{name} {versions[name] or 'SKIPPED: not installed'}" for name in asked), end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        compare(names, given.secs, given.rounds, Path(folder))


if __name__ == "__main__":
    main()
