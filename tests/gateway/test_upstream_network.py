"""Between the gateway and a provider: proxies, authorities, certificates, addresses that change, redirects."""

import asyncio
import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import CREDENTIAL, wait_until
from tests.gateway.conftest import Behind, Gate, RawUpstream, http_answer, raw_upstream
from tests.gateway.network import PASSWORD, PROVIDER, RESET, Authority, ConnectProxy, Network
from toolkit.core.errors import InvalidInput
from toolkit.core.outbound_proxies import OutboundProxies, OutboundProxy
from toolkit.core.settings import Settings
from toolkit.gateway.connection_faults import Misconfigured, redirected
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.request_writing import Address
from toolkit.gateway.upstream_exchange import Exchange, NoWay, UpstreamBroke
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.gateway.upstream_tls import tls_context
from toolkit.store.tables import UpstreamIncident

JSON = "Content-Type: application/json"
USAGE = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}
COST = 10 * 1_000 + 5 * 8_000
WHOLE = http_answer(json.dumps({"id": "x", "choices": [], **USAGE}).encode(), JSON)
EVENTS = f"data: {json.dumps({'id': 'x', 'choices': [], **USAGE})}\n\ndata: [DONE]\n\n".encode()
STREAM = http_answer(EVENTS, "Content-Type: text/event-stream")

ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that no gateway knows."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


def by_name(upstream: RawUpstream, host: str = PROVIDER) -> str:
    """Return an upstream's address with another host in it."""
    return upstream.url.replace("127.0.0.1", host)


def incident(behind: Behind) -> UpstreamIncident | None:
    """Return what operators read of the upstream."""
    with behind.gate.workspace.read() as tx:
        name = behind.gate.rows()[-1].upstream
        return tx.session.scalar(select(UpstreamIncident).where(UpstreamIncident.upstream == name))


# -- a gateway with a proxy and an authority of its own -------------------------------------------------------------


@ways
def test_a_call_goes_through_the_proxy(gate: Gate, network: Network, stream: bool) -> None:
    """The proxy is asked for a connection and reads nothing of the call; the upstream reads nothing of the proxy."""
    with raw_upstream([STREAM if stream else WHOLE], tls=network.authority.server(PROVIDER)) as upstream:
        behind = gate.behind(by_name(upstream))
        reply = behind.ask("chat", stream=stream)
    (head,) = [head for head in network.proxy.heads if upstream.url.rpartition(":")[2].encode() in head]
    (request,) = upstream.requests
    assert (reply.status, behind.gate.row().cost) == (200, COST)
    assert head.startswith(f"CONNECT {PROVIDER}:".encode())
    assert b"\r\nProxy-Authorization: Basic " in head
    assert CREDENTIAL.encode() not in head
    assert CREDENTIAL.encode() in request
    assert b"proxy" not in request.lower()
    assert PASSWORD not in gate.running.log.read_text()


def test_a_connection_through_the_proxy_is_kept(gate: Gate, network: Network) -> None:
    """The tunnel is made once; a kept connection that is closed is made anew, through the proxy again."""
    with raw_upstream([WHOLE], linger=True, tls=network.authority.server(PROVIDER)) as upstream:
        behind = gate.behind(by_name(upstream))
        before = len(network.proxy.heads)
        assert [behind.ask("chat").status for _ in range(2)] == [200, 200]
        assert len(upstream.requests) == len(network.proxy.heads) - before == 2
    assert sorted(bool(row.resent) for row in behind.gate.rows()) == [False, True]


@ways
@pytest.mark.parametrize("wrong", ["authority", "host", "time"])
def test_a_wrong_certificate_is_refused_in_words(
    gate: Gate, network: Network, stranger: Authority, wrong: str, stream: bool
) -> None:
    """Nothing is sent and nothing charged, SDKs do not ask again, and the operator reads what to mend."""
    authority = stranger if wrong == "authority" else network.authority
    name = "other.test" if wrong == "host" else "127.0.0.1"
    with raw_upstream([WHOLE], tls=authority.server(name, expired=wrong == "time")) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=stream)
        assert upstream.requests == []
    row = behind.gate.row()
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (502, "upstream_error", "false")
    assert "not set up to call the provider" in reply.message
    assert (row.outcome, row.cost, behind.gate.totals()) == ("upstream_error", 0, (0, 0))
    words = {"authority": "SSL_CERT_FILE", "host": "mend the base URL", "time": "expired"}[wrong]
    assert words in (row.error or "")


def test_what_is_wrong_on_the_way_is_an_incident(gate: Gate, stranger: Authority) -> None:
    """Operators read it where they read that a provider refuses our account, without hosts."""
    with raw_upstream([WHOLE], tls=stranger.server("127.0.0.1")) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat").status == 502
    wait_until(lambda: incident(behind), "the incident")
    found = incident(behind)
    assert found is not None
    assert (found.fault, found.model) == ("connection", "")
    assert "let SSL_CERT_FILE name a PEM file that has it" in found.words
    assert "[removed]" not in found.words


def test_an_upstream_that_asks_for_a_certificate_gets_the_gateways(gate: Gate, network: Network) -> None:
    """As the setting names it."""
    with raw_upstream([WHOLE], tls=network.authority.server("127.0.0.1", asks=network.authority)) as upstream:
        assert gate.behind(upstream.url).ask("chat").status == 200


@ways
def test_a_redirect_says_where_the_base_url_is_wrong(gate: Gate, stream: bool) -> None:
    """The operator reads what to change; whereto it leads is the provider's word and stays out of the log."""
    with raw_upstream([]) as upstream:
        secret = f"Location: {upstream.url.replace('http:', 'https:')}/v1?key={CREDENTIAL}"
        with raw_upstream([http_answer(b"moved", secret, status="308 Permanent Redirect")]) as redirecting:
            behind = gate.behind(redirecting.url)
            reply = behind.ask("chat", stream=stream)
        assert upstream.requests == []
    row = behind.gate.row()
    assert (reply.status, reply.headers["x-should-retry"], row.cost) == (502, "false", 0)
    assert (
        row.error == "no answer: it redirects (308) to https at the same host, which is not followed: mend its base URL"
    )


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("https://api.test/v1/chat", "https at the same host"),
        ("/v2/chat", "another path or port"),
        ("http://api.test:8080/v1/chat", "another path or port"),
        ("https://www.test/", "another host"),
        ("//www.test/", "another host"),
        ("", "another path or port"),
        ("http://[", "no address"),
    ],
)
def test_of_a_redirect_the_kind_is_told(location: str, kind: str) -> None:
    """Enough to know what is wrong."""
    said = redirected("http://api.test/v1/chat", 301, location)
    assert said == f"it redirects (301) to {kind}, which is not followed: mend its base URL"


# -- proxies --------------------------------------------------------------------------------------------------------


def connect_to(proxy: ConnectProxy, host: str = PROVIDER, user: str = "") -> None:
    """Connect to an upstream of https through a proxy."""

    async def run() -> None:
        pool = ConnectionPool(proxies=OutboundProxies(https=proxy.known("HTTPS_PROXY", user)))
        try:
            await pool.connect(Address(host, 8443, tls=True), asyncio.get_running_loop().time() + 10)
        finally:
            pool.close()

    asyncio.run(run())


_407 = b"HTTP/1.1 407 Proxy Authentication Required\r\n"


@pytest.mark.parametrize(
    ("answer", "user", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "", r"asks for a user and a password \(407\)"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "u:hunter2", "does not take the user and the password"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nNo u:hunter2", "u:hunter2", r"\(403\): allow its host"),
        (b"HTTP/1.1 405 \r\n\r\n", "", r"\(405\): allow its host and port there, or name the host in NO_PROXY"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "", "is no HTTP proxy"),
        (_407 + b"Proxy-Authenticate: Basic realm=x\r\n\r\n", "", "asks for a user and a password"),
        (_407 + b"Proxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM, basic\r\n\r\n", "", "asks for a user"),
        (_407 + b"Proxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM\r\n\r\n", "u:hunter2", "another sign-in"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n", "", r"\(403\): allow its host"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "", r"\(101\): allow its host"),
    ],
)
def test_a_proxy_that_must_be_mended(answer: bytes, user: str, words: str) -> None:
    """An operator reads what to change; nothing that the proxy said, and no password, is in it."""
    with (
        ConnectProxy(answer) as proxy,
        pytest.raises(Misconfigured, match=f"the proxy of HTTPS_PROXY.*{words}") as caught,
    ):
        connect_to(proxy, user=user)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", r"could not reach the upstream \(502\)"),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", r"could not reach the upstream \(503\)"),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", r"could not reach the upstream \(504\)"),
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\n", "hung up"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "hung up"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, "without end"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, "without end"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}", "more than its answer"),
    ],
)
def test_a_proxy_that_fails_now(answer: bytes, words: str) -> None:
    """It may work the next time, so it is not said to be set up wrongly."""
    with (
        ConnectProxy(answer) as proxy,
        pytest.raises(ConnectionError, match=f"the proxy of HTTPS_PROXY.*{words}") as caught,
    ):
        connect_to(proxy)
    assert type(caught.value) is ConnectionError


def test_a_proxy_that_breaks_off_is_named() -> None:
    """It is the proxy that reset the connection, not the upstream."""
    with ConnectProxy(RESET) as proxy, pytest.raises(ConnectionError, match="the proxy of HTTPS_PROXY hung up"):
        connect_to(proxy)


def test_a_proxy_that_says_nothing_is_named() -> None:
    """Whoever waits for a connection in vain reads what it was to go through."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            proxy = OutboundProxy.parse(f"http://127.0.0.1:{silent.getsockname()[1]}", "HTTPS_PROXY")
            pool = ConnectionPool(proxies=OutboundProxies(https=proxy))
            with pytest.raises(TimeoutError, match="no connection to it through the proxy of HTTPS_PROXY"):
                await pool.connect(Address(PROVIDER, 443, tls=True), asyncio.get_running_loop().time() + 0.05)

    asyncio.run(run())


def test_a_proxy_that_is_not_there() -> None:
    """It is the proxy that cannot be reached, not the upstream."""
    proxy = ConnectProxy()
    with proxy:
        pass
    with pytest.raises(ConnectionError, match="the proxy of HTTPS_PROXY cannot be reached"):
        connect_to(proxy)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "::ffff:169.254.169.254", "metadata.google.internal", "0xa9fea9fe"]
)
def test_no_proxy_is_asked_for_a_metadata_service(host: str) -> None:
    """What a proxy looks up cannot be seen from here, but such a host's spelling can."""
    with ConnectProxy() as proxy:
        with pytest.raises(Misconfigured, match="never called"):
            connect_to(proxy, host)
        assert proxy.heads == []


def test_an_ipv6_address_is_written_in_brackets() -> None:
    """RFC 9110, 9.3.6: host and port as an authority has them."""
    with ConnectProxy(b"HTTP/1.1 502 \r\n\r\n") as proxy:
        with pytest.raises(ConnectionError):
            connect_to(proxy, "2001:db8::1")
        assert proxy.heads == [b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n"]


# -- upstreams of http through a proxy -----------------------------------------------------------------------------


def asked_through(proxy: OutboundProxy, settings: Settings, url: str, times: int = 1) -> None:
    """Ask an upstream of http for something, through a proxy."""

    async def run() -> None:
        pool = ConnectionPool(proxies=OutboundProxies(http=proxy))
        for _ in range(times):
            with Exchange(pool, settings, url, {"authorization": "Bearer ours"}, b"{}") as made:
                await made.send()
                while await made.read():
                    pass
        pool.close()

    asyncio.run(run())


def test_what_is_asked_of_an_upstream_of_http_is_passed_on_by_the_proxy(settings: Settings) -> None:
    """In the absolute form, with the proxy's credential; many proxies make tunnels to port 443 alone."""
    with raw_upstream([WHOLE]) as front:
        proxy = OutboundProxy.parse(front.url.replace("//", "//Aladdin:open%20sesame@"), "HTTP_PROXY")
        assert proxy is not None
        asked_through(proxy, settings, "http://models.test:8000/v1/chat?x=1")
        asked_through(replace(proxy, authorization=""), settings, "http://[2001:db8::1]/")
        first, second = front.requests
    assert first.startswith(
        b"POST http://models.test:8000/v1/chat?x=1 HTTP/1.1\r\nHost: models.test:8000\r\nauthorization: Bearer ours\r\n"
        b"proxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"
    )
    assert second.startswith(
        b"POST http://[2001:db8::1]/ HTTP/1.1\r\nHost: [2001:db8::1]\r\nauthorization: Bearer ours"
    )
    assert b"proxy-auth" not in second


@pytest.mark.parametrize("user", ["", "u:hunter2@"])
def test_a_proxy_of_http_that_wants_to_know_who_asks(settings: Settings, user: str) -> None:
    """It is the proxy's 407, and an operator's to mend."""
    with raw_upstream([http_answer(b"who?", status="407 Proxy Authentication Required")]) as front:
        proxy = OutboundProxy.parse(front.url.replace("//", f"//{user}"), "HTTP_PROXY")
        assert proxy is not None
        with pytest.raises(NoWay, match=r"the proxy of HTTP_PROXY .*user and .*password.* \(407\)") as caught:
            asked_through(proxy, settings, "http://models.test/")
    assert "hunter2" not in str(caught.value)


def test_no_proxy_passes_on_what_is_for_a_metadata_service(settings: Settings) -> None:
    """As none makes a tunnel to it."""
    with raw_upstream([WHOLE]) as front:
        proxy = OutboundProxy.parse(front.url, "HTTP_PROXY")
        assert proxy is not None
        with pytest.raises(NoWay, match="never called"):
            asked_through(proxy, settings, "http://169.254.169.254/")
        assert front.requests == []


# -- addresses ------------------------------------------------------------------------------------------------------


class Rebinding(asyncio.SelectorEventLoop):
    """A loop whose names change from a harmless address to a metadata service's."""

    lookups = 0

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Look a name up."""
        assert host == "rebinding.test"
        self.lookups += 1
        return await super().getaddrinfo("127.0.0.1" if self.lookups == 1 else "169.254.169.254", port, **options)


def test_the_address_that_was_judged_is_connected_to() -> None:
    """A name that changes between look and leap is looked up once; the next connection is judged anew."""

    async def run() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        pool, loop = ConnectionPool(), asyncio.get_running_loop()
        assert isinstance(loop, Rebinding)
        address = Address("rebinding.test", server.getsockname()[1], tls=False)
        with server:
            assert (await pool.connect(address, loop.time() + 10)).is_open
            assert loop.lookups == 1
            with pytest.raises(Misconfigured, match="never called"):
                await pool.connect(address, loop.time() + 10)
        pool.close()

    with asyncio.Runner(loop_factory=Rebinding) as runner:
        runner.run(run())


class Crossing(asyncio.SelectorEventLoop):
    """A loop whose name has two addresses; at the first nobody listens."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Look a name up."""
        assert host == "two.test"
        found = await super().getaddrinfo("127.0.0.1", port, **options)
        return [(*info[:4], ("127.77.77.77", port)) for info in found] + found


def test_of_two_addresses_one_may_be_dead() -> None:
    """The other one is connected to."""

    async def run() -> None:
        pool, loop = ConnectionPool(), asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            assert (
                await pool.connect(Address("two.test", server.getsockname()[1], tls=False), loop.time() + 10)
            ).is_open
        pool.close()

    with asyncio.Runner(loop_factory=Crossing) as runner:
        runner.run(run())


class Silent(asyncio.SelectorEventLoop):
    """A loop whose names nobody answers for until `answered` is set."""

    lookups = 0

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Look a name up."""
        assert host == "silent.test"
        self.lookups += 1
        await self.answered.wait()
        return await super().getaddrinfo("127.0.0.1", port, **options)

    answered: asyncio.Event


def test_those_who_want_to_connect_to_the_same_host_wait_for_one_look_up() -> None:
    """Few are made at once, so that a host that nobody answers for must not take them all; who gives up stops none."""

    async def run() -> None:
        pool, loop = ConnectionPool(), asyncio.get_running_loop()
        assert isinstance(loop, Silent)
        loop.answered = asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = Address("silent.test", server.getsockname()[1], tls=False)
            with pytest.raises(TimeoutError):
                await pool.connect(address, loop.time())
            waiting = [asyncio.ensure_future(pool.connect(address, loop.time() + 20)) for _ in range(5)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
            loop.answered.set()
            assert all([(await task).is_open for task in waiting[1:]])
            assert loop.lookups == 1
            await pool.connect(address, loop.time() + 20)
            assert loop.lookups == 2  # nothing is kept of it: names may change
        pool.close()

    with asyncio.Runner(loop_factory=Silent) as runner:
        runner.run(run())


def free_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1", "nothing listens at its address"),
        ("nobody.invalid", "cannot be looked up: is its base URL right, or must HTTPS_PROXY name a proxy"),
        ("two..dots", "cannot be looked up"),
    ],
)
def test_an_upstream_that_cannot_be_connected_to(host: str, words: str) -> None:
    """Said in words, and nothing that is set up wrongly for certain: it may work the next time."""

    async def run() -> None:
        address = Address(host, free_port(), tls=False)
        with pytest.raises(ConnectionError, match=words) as caught:
            await ConnectionPool().connect(address, asyncio.get_running_loop().time() + 20)
        assert type(caught.value) is ConnectionError

    asyncio.run(run())


# -- certificates ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority."""
    return Authority(tmp_path_factory.mktemp("authority"))


def exchange(settings: Settings, context: ssl.SSLContext, url: str) -> None:
    """Ask an upstream for something."""

    async def run() -> None:
        pool = ConnectionPool(context)
        with Exchange(pool, settings, url, {}, b"{}") as made:
            await made.send()
        pool.close()

    asyncio.run(run())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_of_ours_that_is_missing(
    authority: Authority, settings: Settings, version: ssl.TLSVersion
) -> None:
    """A server of TLS 1.3 says so only after the request was written; it is the same fault."""
    server = authority.server("127.0.0.1", asks=authority)
    server.minimum_version = server.maximum_version = version
    with raw_upstream([WHOLE], tls=server) as upstream:
        with pytest.raises(UpstreamBroke) as caught:
            exchange(settings, authority.believed(), upstream.url)
        assert upstream.requests == []
    assert isinstance(caught.value, NoWay)
    assert "KEYDESK_CLIENT_CERTIFICATE" in str(caught.value)


def test_an_upstream_of_http_under_https(authority: Authority, settings: Settings) -> None:
    """What answers there is no TLS, and its address is to be mended."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        pool = ConnectionPool(authority.believed())
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(NoWay, match="speaks no TLS"), Exchange(pool, settings, url, {}, b"{}") as made:
                await made.send()
        pool.close()

    asyncio.run(run())


def spoiled(tmp_path: Path, authority: Authority) -> dict[str, dict[str, Any]]:
    """Return settings that cannot be used, by what is said of them."""
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate\n")
    good, other = authority.issue("gateway.test"), authority.issue("other.test")
    return {
        r"SSL_CERT_FILE: .*none\.pem cannot be used: No such file": {"cert_file": tmp_path / "none.pem"},
        r"SSL_CERT_FILE: .*junk\.pem cannot be used: it holds no certificate": {"cert_file": junk},
        r"SSL_CERT_DIR: .*nowhere cannot be used: .*openssl rehash": {"cert_dir": str(tmp_path / "nowhere")},
        r"SSL_CERT_DIR: .*:.* cannot be used: .*openssl rehash": {"cert_dir": f"{tmp_path}:{tmp_path / 'nowhere'}"},
        r"KEYDESK_CLIENT_CERTIFICATE: .*none\.pem cannot be used: No such file": {
            "client_certificate": tmp_path / "none.pem"
        },
        r"KEYDESK_CLIENT_CERTIFICATE: .*authority\.pem .* KEYDESK_CLIENT_KEY": {"client_certificate": authority.file},
        r"KEYDESK_CLIENT_CERTIFICATE: .* with the key in .*belong together": {
            "client_certificate": good,
            "client_key": other,
        },
        r"KEYDESK_CLIENT_CERTIFICATE: .*have no password": {
            "client_certificate": authority.issue("gateway.test", password=b"secret")
        },
        r"KEYDESK_CLIENT_KEY is of no use alone": {"client_key": good},
        r"KEYDESK_UPSTREAM_CERTIFICATES: .*none\.pem cannot be used: No such file": {
            "upstream_certificates": {"models": tmp_path / "none.pem"}
        },
    }


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, authority: Authority, settings: Settings) -> None:
    """OpenSSL passes over a wrong file of authorities without a word, and asks at the terminal for a key's password."""
    for words, given in spoiled(tmp_path, authority).items():
        with pytest.raises(InvalidInput, match=words):
            UpstreamPool(replace(settings, **given))


def test_an_upstream_may_be_shown_a_certificate_of_its_own(
    tmp_path: Path, authority: Authority, stranger: Authority, settings: Settings
) -> None:
    """The others are shown the gateway's; no two of them share a connection, though they are at one address."""
    settings = replace(
        settings,
        cert_file=authority.file,
        client_certificate=authority.issue("gateway.test"),
        upstream_certificates={"own": stranger.issue("gateway.test")},
    )

    async def ask(upstreams: UpstreamPool, url: str, upstream: str) -> bool:
        with upstreams.exchange(url, {}, b"{}", upstream=upstream) as made:
            await made.send()
            while await made.read():
                pass
            return made.resent

    async def run() -> None:
        upstreams = UpstreamPool(settings)
        await upstreams.open()
        with raw_upstream([WHOLE], tls=authority.server("127.0.0.1", asks=stranger)) as upstream:
            await ask(upstreams, upstream.url, "own")
            with pytest.raises(NoWay, match="wants a client certificate that it knows"):
                await ask(upstreams, upstream.url, "another")
            assert len(upstream.requests) == 1
        with raw_upstream([WHOLE], tls=authority.server("127.0.0.1", asks=authority)) as upstream:
            await ask(upstreams, upstream.url, "another")
        with raw_upstream([http_answer(b"{}", "Connection: keep-alive")], linger=True) as upstream:
            await ask(upstreams, upstream.url, "another")
            assert not await ask(upstreams, upstream.url, "own")  # over a new connection
            assert await ask(upstreams, upstream.url, "own")  # over the same, which its server has closed by then
        await upstreams.close()

    asyncio.run(run())


def test_authorities_may_stand_in_a_folder(tmp_path: Path, authority: Authority, settings: Settings) -> None:
    """Under the names by which OpenSSL looks for them; one of several folders may be missing."""
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / authority.hashed_name).write_bytes(authority.file.read_bytes())
    context = tls_context(replace(settings, cert_dir=f"{tmp_path / 'nowhere'}:{folder}"))
    with raw_upstream([WHOLE], tls=authority.server("127.0.0.1")) as upstream:
        exchange(settings, context, upstream.url)
        assert len(upstream.requests) == 1


def test_a_key_may_be_in_a_file_of_its_own(tmp_path: Path, authority: Authority, settings: Settings) -> None:
    """As orchestrators mount them."""
    both = authority.issue("gateway.test").read_text()
    key, mark, certificate = both.partition("-----BEGIN CERTIFICATE-----")
    (tmp_path / "tls.key").write_text(key)
    (tmp_path / "tls.crt").write_text(mark + certificate)
    context = tls_context(replace(settings, client_certificate=tmp_path / "tls.crt", client_key=tmp_path / "tls.key"))
    assert context.verify_mode is ssl.CERT_REQUIRED
