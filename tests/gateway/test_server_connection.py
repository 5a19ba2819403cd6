"""Connections: whatever is sent is read within bounds, in one way only, and never at another's expense."""

import contextlib
import gc
import itertools
import json
import re
import socket
import weakref
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples, wait_until
from tests.gateway.conftest import Gate, request_of
from tests.gateway.raw import GET, Served, Turns, answers, connected, error, say, served, to_the_end
from toolkit.gateway.connection_limits import ConnectionGuard, Limits
from toolkit.gateway.flow_control import PIECE
from toolkit.gateway.server_connection import ServerConnection
from toolkit.gateway.timed_connection import TimedConnection

LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def everybody() -> Iterator[Served]:
    with served(Limits()) as running:
        yield running


@pytest.fixture
def server(everybody: Served) -> Served:
    """A server with the usual limits, whose application has seen nothing yet."""
    everybody.seen.clear()
    everybody.left.clear()
    everybody.go_on.clear()
    return everybody


def port_of(gate: Gate) -> int:
    """Return the gateway's port."""
    return int(gate.url.rpartition(":")[2])


# -- what is left ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        POST + b"Content-Length: 9\r\n\r\nab",
        GET * 40,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"a" * 9_000,
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 600,
        b"\0\r\n",
    ],
    ids=[
        "silence",
        "less than a head",
        "a request",
        "less than a body",
        "requests",
        "two ways",
        "url",
        "head",
        "no HTTP",
    ],
)
def test_a_closed_connection_leaves_nothing_to_the_garbage_collector(
    server: Served, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose one look at what thousands of strangers left behind would stop everybody."""
    made: list[weakref.ref[TimedConnection]] = []
    enter = ConnectionGuard.enter

    def noting(self: ConnectionGuard, connection: TimedConnection) -> None:
        made.append(weakref.ref(connection))
        enter(self, connection)

    monkeypatch.setattr(ConnectionGuard, "enter", noting)
    gc.disable()
    try:
        with connected(server.port) as client:
            client.sendall(sent)
            wait_until(lambda: made, "the connection to be made")
        wait_until(lambda: made[0]() is None, "nothing of it to be left")
    finally:
        gc.enable()


# -- what could be read in two ways ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: 0x3\r\n\r\nabc",
        POST + b"Content-Length : 3\r\n\r\nabc",
        POST + b"Content-Length: 99999999999999999999\r\n\r\nabc",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        b"POST /post HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"X: a\r\n b\r\n\r\n",
        POST + b" X: a\r\n\r\n",
        POST + b"X: a\nContent-Length: 3\r\n\r\nabc",
        POST + b"X: a\rContent-Length: 3\r\n\r\nabc",
        POST + b"X: a\x00b\r\n\r\n",
        POST + b"X\xff: a\r\n\r\n",
        POST + b": a\r\n\r\n",
        POST + b"Host: b\r\n\r\n",
        b"GET /a#b?c HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT b:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes.fromhex("16030100f6010000f20303") + b"\x00" * 100,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(server: Served, request_: bytes) -> None:
    """Nobody is asked, and what follows it on the connection is not read."""
    received = say(server.port, request_ + LAST)
    assert answers(received) == [400]
    assert error(received)["code"] == "invalid_request"
    assert server.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n',
    ],
)
def test_chunks_that_could_be_read_in_two_ways_are_refused(server: Served, body: bytes) -> None:
    """In place of an answer to their request, and nothing after them is read."""
    received = say(server.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + LAST)
    assert answers(received) == [400]
    wait_until(lambda: server.left == ["/post"], "the application to be told that nobody waits")
    assert [seen.path for seen in server.seen] == ["/post"]


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_trailer_is_no_header(server: Served, size: int) -> None:
    """It is dropped, in whatever pieces it comes."""
    request = (
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nHost: b\r\n\r\n" + LAST
    )
    received = say(server.port, *(request[at : at + size] for at in range(0, len(request), size)))
    assert answers(received) == [200, 200]
    assert [(seen.path, seen.body) for seen in server.seen] == [("/post", b"abc"), ("/last", b"")]
    assert server.seen[0].headers == {b"host": b"a", b"transfer-encoding": b"chunked"}


def test_a_credential_in_a_trailer_is_none(gate: Gate) -> None:
    """The gateway answers as without it."""
    path, body = request_of("chat", "hello")
    data = json.dumps(body).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"{len(data):x}\r\n{data.decode()}\r\n0\r\nAuthorization: Bearer {gate.secret}\r\n\r\n"
    )
    received = say(port_of(gate), request.encode())
    assert answers(received) == [401]
    assert "is missing" in error(received)["message"]


# -- other protocols -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("offer", [b"h2c", b"TLS/1.0, HTTP/1.1", b"foo"])
def test_an_offer_of_another_protocol_is_declined(server: Served, framing: str, apart: bool, offer: bytes) -> None:
    """The body is this request's, whether it comes with the head or after it; Java's clients offer h2c on each call."""
    body = LAST.replace(b"last", b"body")
    head = (
        POST + b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\nHTTP2-Settings: AAM\r\n"
    )
    if framing == "length":
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        sent = body
    else:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    parts = [head, sent + LAST] if apart else [head + sent + LAST]
    with connected(server.port) as client:
        for part in parts:
            wait_until(lambda part=part: part is parts[0] or server.seen, "the head to be read")  # type: ignore[misc]
            client.sendall(part)
        received = to_the_end(client)
    assert answers(received) == [200, 200]
    assert [(seen.path, seen.body) for seen in server.seen] == [("/post", body), ("/last", b"")]
    assert server.seen[0].headers[b"connection"] == b"keep-alive"
    assert b"upgrade" not in server.seen[0].headers


def test_a_websocket_at_the_gateway_is_refused(gate: Gate) -> None:
    """426, on which OpenAI's Codex falls back to plain requests; the connection is closed."""
    head = b"GET /v1/responses HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
    received = say(
        port_of(gate), head + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert answers(received) == [426]
    assert b"\r\nupgrade: HTTP/1.1\r\n" in received
    assert error(received)["code"] == "upgrade_required"


# -- sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/" + b"v1/" * 15_000, 414),
        (b"/v1/models?key=" + b"a" * 8_200, 414),
        (b"/" + b"%2F" * 2_800, 414),
        (b"http://a/" + b"a" * 8_200, 414),
        (b"/" + b"a" * 8_000, 404),
    ],
)
def test_a_url_has_a_length(gate: Gate, target: bytes, status: int) -> None:
    """Beyond 8 kB it is 414, in the envelope that its path calls for."""
    received = say(port_of(gate), b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answers(received) == [status]
    assert ("uri_too_long" in str(error(received))) == (status == 414)


@pytest.mark.parametrize(
    ("path", "field"), [(b"/v1/x", "code"), (b"/anthropic/v1/x", "details"), (b"/gemini/v1/x", "status")]
)
def test_an_early_refusal_is_in_the_dialect_of_its_path(gate: Gate, path: bytes, field: str) -> None:
    """With our request id, and on a connection that is closed."""
    received = say(port_of(gate), b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000)
    assert answers(received) == [431]
    assert field in error(received)
    assert re.search(rb"\r\nx-request-id: req_[0-9a-f]{32}\r\n", received)
    assert b"\r\nconnection: close\r\n" in received


@pytest.mark.parametrize(
    "headers",
    [
        b"X: " + b"a" * 65_530 + b"\r\n",
        b"x" * 66_000 + b": a\r\n",
        b"X: " + b" " * 700_000 + b"a\r\n",
        b"%b: %b\r\n" % (b"n" * 100, b"v" * 100) * 350,
    ],
    ids=["value", "name", "space", "many"],
)
@pytest.mark.parametrize("size", [4_000, 1 << 20])
def test_a_head_has_a_size(server: Served, headers: bytes, size: int) -> None:
    """Beyond 64 kB it is 431, in whatever pieces it comes and whether or not it ends."""
    for end in (b"\r\n", b""):
        request = b"GET / HTTP/1.1\r\nHost: a\r\n" + headers + end
        received = say(server.port, *(request[at : at + size] for at in range(0, len(request), size)))
        assert answers(received) == [431]
    assert server.seen == []


def test_a_head_has_a_number_of_headers(server: Served) -> None:
    """Beyond 500 it is 431, however short they are."""
    assert answers(say(server.port, b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 5_000 + b"\r\n")) == [431]


def test_headers_beyond_the_bound_are_not_looked_at(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them come in one piece."""
    looked: list[bytes] = []
    on_header = ServerConnection.on_header

    def counting(self: ServerConnection, name: bytes, value: bytes) -> None:
        looked.append(name)
        on_header(self, name, value)

    monkeypatch.setattr(ServerConnection, "on_header", counting)
    assert answers(say(server.port, b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n")) == [431]
    assert len(looked) == Limits().headers + 1


def test_a_head_just_within_its_bounds_is_read(server: Served) -> None:
    """One byte at a time, too."""
    headers = b"Host: a\r\nConnection: close\r\n" + b"".join(b"X%d: %b\r\n" % (i, b"a" * 120) for i in range(490))
    request = b"GET /large HTTP/1.1\r\n" + headers + b"\r\n"
    assert 59_000 < len(request) < 65_536
    single = [request[at : at + 1] for at in range(len(request))]
    for parts in ([request], [request[:30_000], request[30_000:]], single):
        assert answers(say(server.port, *parts)) == [200]
    assert [len(seen.headers) for seen in server.seen] == [492] * 3


def test_a_head_without_end_is_not_read_to_its_end(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 67 MB no more than two are taken, and of these 64 kB are parsed."""
    taken, parsed = Counter[int](), Counter[int]()
    note(monkeypatch, "data_received", lambda _, data: taken.update({0: len(data)}))
    note(monkeypatch, "_read", lambda _, data: parsed.update({0: len(data)}))
    with connected(server.port) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(67):
                client.sendall(b"a" * 1_000_000)
        assert answers(to_the_end(client))[:1] in ([431], [])
    assert parsed[0] <= 1 << 17
    assert taken[0] <= 1 << 21


@pytest.mark.parametrize(
    ("request_", "callback", "most"),
    [
        (CHUNKED + b"1\r\na\r\n" * 40_000, "on_body", PIECE // 5),
        (CHUNKED + (b"10\r\n" + b"a" * 16 + b"\r\n") * 40_000 + b"0\r\n\r\n", "on_body", PIECE // 20),
        (
            b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + b"a" * 8_000_000,
            "data_received",
            1,
        ),
    ],
    ids=["one byte a chunk", "small chunks", "a body that was answered"],
)
def test_whoever_sends_much_is_read_in_turns(
    server: Served, monkeypatch: pytest.MonkeyPatch, request_: bytes, callback: str, most: int
) -> None:
    """Others are asked in between what they have, however fast it comes."""
    turns = Turns()
    note(monkeypatch, callback, lambda connection, _: turns.note(connection.loop))
    with connected(server.port) as client, contextlib.suppress(ConnectionError):
        client.sendall(request_)
        client.recv(1 << 16)
    assert sum(turns.counts.values()) > most
    assert turns.most() <= most


def note(monkeypatch: pytest.MonkeyPatch, name: str, look: Callable[[ServerConnection, bytes], object]) -> None:
    """Have a look at what a method of all connections is given."""
    method = getattr(ServerConnection, name)

    def noting(self: ServerConnection, data: bytes) -> None:
        look(self, data)
        method(self, data)

    monkeypatch.setattr(ServerConnection, name, noting)


@pytest.mark.parametrize(
    "body",
    [
        b"1\r\na\r\n" * 60_000,
        b"000000" * 50_000 + b"1\r\na\r\n",
        b"1;" + b"x" * 300_000,
        b"1;x=y\r\na\r\n" * 20_000,
        b"3\r\nabc\r\n0\r\nX: " + b"a" * 700_000,
        b"3\r\nabc\r\n0\r\n" + b"X: a\r\n" * 100_000,
    ],
    ids=["tiny chunks", "zeros", "extension", "extensions", "trailer", "trailers"],
)
def test_what_frames_a_body_has_a_size(server: Served, body: bytes) -> None:
    """Chunks of a byte each, endless extensions and trailers are refused long before a body of their size would be."""
    with connected(server.port) as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        wait_until(lambda: server.seen, "the head to be read")
        with contextlib.suppress(ConnectionError):
            client.sendall(body)
        assert answers(to_the_end(client)) in ([400], [])  # a reset may overtake the answer
    wait_until(lambda: server.left == ["/post"], "the application to be told")
    assert "were too slow" not in server.guard.ended


def test_small_chunks_are_read(server: Served) -> None:
    """A writer that flushes every few words is none to refuse."""
    words = b"the quick brown fox "
    chunk = b"%x\r\n%b\r\n" % (len(words), words)
    request = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 20_000 + b"0\r\n\r\n"
    assert answers(say(server.port, request)) == [200]
    assert server.seen[0].body == words * 20_000


def test_a_body_that_was_answered_early_is_let_go(server: Served) -> None:
    """The caller reads the answer, and may ask again on the same connection."""
    with connected(server.port) as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        client.sendall(b"x" * 3_000_000 + LAST)
        assert answers(to_the_end(client)) == [200]
    assert [seen.path for seen in server.seen] == ["/early", "/last"]


def test_a_caller_who_closes_still_reads_an_early_answer(server: Served) -> None:
    """Though it goes on sending: no reset takes the answer away."""
    with connected(server.port) as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 30000000\r\n\r\n")
        for _ in range(30):
            client.sendall(b"x" * 1_000_000)
        assert answers(to_the_end(client)) == [200]


# -- one after the other ---------------------------------------------------------------------------------------


def test_an_answer_waits_for_no_other_packet() -> None:
    """Its body goes out though its head has not been acknowledged, whichever the loop."""
    delays = []
    for loop in ("asyncio", "uvloop"):
        with served(Limits(), loop=loop) as server, connected(server.port) as client:
            client.sendall(GET)
            assert answers(client.recv(1 << 16)) == [200]
            (connection,) = server.guard.connections
            taken = connection.transport.get_extra_info("socket")
            delays.append(not taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    assert delays == [False, False]


def test_requests_sent_ahead_are_bounded(server: Served) -> None:
    """The answered ones are the first; the others may be asked again (RFC 9112, "Pipelining")."""
    with connected(server.port) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" + GET * 5_000)
        wait_until(lambda: server.seen, "the first to be asked")
        server.go_on.set()
        received = to_the_end(client)
    assert answers(received) == [200] * (1 + Limits().queued)
    assert len(server.seen) == 1 + Limits().queued


@pytest.mark.parametrize(
    "rest", [b"nonsense\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\nX\r\n", b"GET /" + b"a" * 9_000]
)
def test_what_cannot_be_read_leaves_the_answer_before_it_alone(server: Served, rest: bytes) -> None:
    """No refusal comes into the midst of another request's answer."""
    with connected(server.port) as client:
        client.sendall(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + GET + rest)
        wait_until(lambda: server.seen, "the first to be asked")
        server.go_on.set()
        received = to_the_end(client)
    assert answers(received) == [200, 200]
    assert b"hello" in received


def test_nobody_waits_for_100_continue_in_vain(server: Served) -> None:
    """It is sent when the body is asked for; without it the connection is closed, since the body may come or not."""
    head = b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with connected(server.port) as client:
        client.sendall(b"POST /post HTTP/1.1\r\n" + head)
        assert client.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert answers(to_the_end(client)) == [200]
    assert answers(say(server.port, b"POST /early HTTP/1.1\r\n" + head)) == [200]


def test_http_1_0_is_answered_and_closed(server: Served) -> None:
    """As simple health checks speak it."""
    assert answers(say(server.port, b"GET /healthz HTTP/1.0\r\n\r\n" + GET)) == [200]


def test_a_target_in_absolute_form_is_its_path(server: Served) -> None:
    """As it is written to a proxy (RFC 9112, "absolute-form")."""
    say(server.port, b"GET http://b/x/y?z HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
    say(server.port, b"GET http://b HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
    assert [seen.path for seen in server.seen] == ["/x/y", "/"]


@pytest.mark.parametrize("path", [b"/a%00b", b"/a%0d%0aX:1", b"/%ff", b"/%", b"/%zz", b"/a%2Fb", b"//a/b", b"/../a"])
def test_percent_encodings_reach_the_gateway_as_they_are(gate: Gate, path: bytes) -> None:
    """They name nothing, and break nothing."""
    received = say(port_of(gate), b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answers(received) == [404]


# -- whatever else ---------------------------------------------------------------------------------------------

_names = [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"X", b"Trailer"]
_values = [b"a", b"0", b"5", b"05", b"chunked", b"upgrade", b"close", b"keep-alive", b"h2c", b"100-continue", b"\x00"]
_bodies = [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\nX: a\r\n\r\n"]
_header = st.tuples(
    st.sampled_from(_names) | st.binary(min_size=1, max_size=4), st.sampled_from(_values) | st.binary(max_size=8)
).map(b": ".join)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something like a request."""
    method = draw(st.sampled_from([b"GET", b"POST", b"CONNECT", b"HEAD", b"OPTIONS", b"get"]))
    target = draw(st.sampled_from([b"/", b"/post", b"/early", b"*", b"http://a/b", b"a:80"]) | st.binary(max_size=12))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 4 + [b"HTTP/1.0", b"HTTP/2.0", b""]))
    line = draw(st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\n "]))
    body = draw(st.sampled_from(_bodies) | st.binary(max_size=20))
    return line.join([b" ".join([method, target, version]), *draw(st.lists(_header, max_size=6)), b"", body])


@examples(50)
@given(sent=st.lists(requests(), min_size=1, max_size=3), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_whatever_is_sent_is_answered_or_hung_up_on(everybody: Served, sent: list[bytes], cuts: list[int]) -> None:
    """No 500 and no hang, and the next connection is served."""
    data = b"".join(sent)
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    everybody.seen.clear()
    with connected(everybody.port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        with contextlib.suppress(ConnectionError):
            for start, end in itertools.pairwise(edges):
                client.sendall(data[start:end])
            client.shutdown(socket.SHUT_WR)
        received = to_the_end(client)
    assert not [status for status in answers(received) if status not in {100, 200, 400, 414, 426, 431}]
    assert answers(say(everybody.port, LAST)) == [200]
