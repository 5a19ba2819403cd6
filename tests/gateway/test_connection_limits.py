"""Limits of connections: who has shown nothing is bounded in time and number, who has shown a key is left alone."""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CREDENTIAL, free_port, process, variables_of, wait_until
from tests.gateway.conftest import Gate
from tests.gateway.raw import GET, Served, Turns, answers, connected, error, hung_up, served, to_the_end
from toolkit.gateway.connection_limits import ConnectionGuard, Limits, network_of
from toolkit.gateway.server_connection import ServerConnection

NEVER = 3600.0
PROVE = b"GET /prove HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = Limits(head_time=0.2, body_time=0.2, answer_time=0.2, idle_time=0.2, linger=0.2, look=0.02)
"""Limits that are met while a test waits for what they do."""

PATIENT = Limits(
    head_time=NEVER, body_time=NEVER, answer_time=NEVER, idle_time=NEVER, linger=NEVER, young=NEVER, look=0.02
)
"""Limits that no test meets, but for the one that it sets."""


def answered(client: socket.socket) -> bool:
    """Whether a whole answer without a body comes next."""
    return answers(client.recv(1 << 16)) == [200]


@contextlib.contextmanager
def crowd(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(port)) for _ in range(number)]


# -- time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_has_a_time(sent: bytes) -> None:
    """A connection that says nothing, or not all, is closed."""
    with served(replace(PATIENT, head_time=0.2)) as server, connected(server.port) as client:
        client.sendall(sent)
        assert to_the_end(client) == b""
        assert server.seen == []


def test_a_head_that_drips_gets_no_more_time(server_quick: Served) -> None:
    """Each byte that comes moves nothing."""
    with connected(server_quick.port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100_000):
                client.sendall(b"a")
                if hung_up(client):
                    break
                client.setblocking(True)
        assert not server_quick.seen


@pytest.fixture
def server_quick() -> Iterator[Served]:
    """A server with quick limits."""
    with served(QUICK) as server:
        yield server


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"])
def test_a_body_has_a_time(framing: bytes) -> None:
    """Whoever stops sending is told so, and the application is told that nobody waits."""
    with served(replace(PATIENT, body_time=0.2)) as server, connected(server.port) as client:
        client.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n" + framing)
        received = to_the_end(client)
        assert answers(received) == [400]
        assert error(received)["details"]["error_code"] == "invalid_request"
        assert "too slowly" in error(received)["message"]
        wait_until(lambda: server.left == ["/v1/messages"], "the application to be told")


def test_a_body_that_keeps_its_pace_is_read() -> None:
    """More time for each byte that has come: here an hour for each."""
    with served(replace(PATIENT, body_time=0.1, body_pace=1)) as server, connected(server.port) as client:
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + b"x" * 8_999)
        wait_until(lambda: _looked(server, 10), "the deadline to be judged")
        client.sendall(b"x")
        assert answers(client.recv(1 << 16)) == [200]


def _looked(server: Served, times: int) -> bool:
    """Whether the guard has looked at the deadlines that often since it was first asked."""
    first = server.__dict__.setdefault("first", server.guard.looks)
    return bool(server.guard.looks >= first + times)


def test_a_body_that_was_answered_has_a_time_too() -> None:
    """Else an early answer would be a way to stay for ever."""
    with served(replace(PATIENT, body_time=0.2)) as server, connected(server.port) as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        assert answers(to_the_end(client)) == [200]


def test_whoever_has_shown_a_key_may_pause_longer() -> None:
    """Between two requests; a stranger has the time of a head."""
    with served(replace(PATIENT, head_time=0.2)) as server, connected(server.port) as client:
        client.sendall(PROVE)
        assert answered(client)
        with connected(server.port) as stranger:
            stranger.sendall(GET)
            assert answers(to_the_end(stranger)) == [200]
        client.sendall(PROVE)
        assert answered(client)
    with served(replace(PATIENT, idle_time=0.2)) as server, connected(server.port) as client:
        client.sendall(PROVE)
        assert answers(to_the_end(client)) == [200]


def test_a_call_may_take_its_time() -> None:
    """A proven caller's answer has the application's limits; nobody else's takes long."""
    with served(QUICK) as server, connected(server.port) as client, connected(server.port) as stranger:
        client.sendall(PROVE + b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        stranger.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        assert to_the_end(stranger) == b""
        server.go_on.set()
        wait_until(lambda: server.left, "the stranger's request to be given up")
        assert answers(to_the_end(client)) == [200, 200]


def test_a_reader_who_stops_is_let_go() -> None:
    """Nobody holds a connection by not taking his answer; whoever reads slowly keeps it."""
    size = 20_000_000
    with served(QUICK) as server, connected(server.port) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        wait_until(lambda: not server.guard.connections, "the connection to be closed")
        assert len(to_the_end(client)) < size


# -- number ----------------------------------------------------------------------------------------------------


def test_an_address_has_a_number_of_connections() -> None:
    """The oldest go first; who has shown a key is not counted, nor who has just come."""
    limits = replace(PATIENT, young=0.0, of_address=4)
    with served(limits) as server, connected(server.port) as proven:
        proven.sendall(PROVE)
        assert answered(proven)
        with crowd(server.port, 10) as clients:
            wait_until(lambda: len(server.guard.connections) == 5, "the surplus to be closed")
            wait_until(lambda: sum(hung_up(client) for client in clients) == 6, "the callers to notice")
            assert [hung_up(client) for client in clients] == [True] * 6 + [False] * 4
        proven.sendall(PROVE)
        assert answered(proven)


def test_who_is_being_answered_goes_last() -> None:
    """A whole head counts for more than age."""
    limits = replace(PATIENT, young=0.0, of_address=2)
    with served(limits) as server, connected(server.port) as asking:
        asking.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: server.seen, "the request to be asked")
        with crowd(server.port, 6):
            wait_until(lambda: len(server.guard.connections) == 2, "the surplus to be closed")
        server.go_on.set()
        assert answered(asking)


def test_connections_of_a_trusted_proxy_are_not_counted_by_address() -> None:
    """They are many callers'."""
    limits = replace(PATIENT, young=0.0, of_address=2)
    with served(limits, proxies="127.0.0.1") as server, crowd(server.port, 10):
        wait_until(lambda: len(server.guard.connections) == 10, "all to be connected")
        wait_until(lambda: _looked(server, 10), "the guard to look")
        assert len(server.guard.connections) == 10


def test_in_all_there_is_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has waited longest makes room at once, however young; the proven stay."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (0, 0))  # so that the least holds: 8
    with served(PATIENT) as server, connected(server.port) as proven:
        proven.sendall(PROVE)
        assert answered(proven)
        with crowd(server.port, 30) as clients, connected(server.port) as last:
            last.sendall(GET)
            assert answered(last)
            wait_until(lambda: len(server.guard.connections) <= 9, "the surplus to be closed")
            assert not hung_up(clients[-1])
        proven.sendall(PROVE)
        assert answered(proven)


def test_files_are_not_all_that_bounds_connections() -> None:
    """A machine may allow a million of them."""
    with served(replace(PATIENT, most=9)) as server, crowd(server.port, 30), connected(server.port) as last:
        last.sendall(GET)
        assert answered(last)
        assert len(server.guard.connections) <= 10


@pytest.mark.parametrize(
    ("who", "ending", "limits"),
    [
        (ServerConnection, "expire", replace(PATIENT, head_time=0.0, look=2.0)),
        (ConnectionGuard, "_turn_away", replace(PATIENT, young=0.0, of_address=0, look=2.0)),
    ],
    ids=["late", "too many"],
)
def test_a_crowd_is_ended_in_turns(monkeypatch: pytest.MonkeyPatch, who: type, ending: str, limits: Limits) -> None:
    """Others are asked in between what they have."""
    turns = Turns()
    end = getattr(who, ending)

    def noting(*arguments: Any) -> None:
        turns.note(asyncio.get_running_loop())
        end(*arguments)

    monkeypatch.setattr(who, ending, noting)
    with served(limits) as server, crowd(server.port, 150):
        wait_until(lambda: turns.counts and not server.guard.connections, "all to be ended")
    assert turns.most() <= 32


def test_whoever_has_a_key_shuts_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that rest, or drip a body, make room, the longest-waiting of whoever has most; a call goes on."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (0, 0))  # so that the least holds: 8
    with served(PATIENT) as server, contextlib.ExitStack() as stack:
        asking, other, *greedy = [stack.enter_context(connected(server.port)) for _ in range(4)]
        other.sendall(b"GET /prove?other HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answered(other)
        for client in (asking, *greedy):
            client.sendall(b"GET /prove?greedy HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answered(client)
        asking.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(server.seen) == 5, "the call to be under way")
        for number in range(20):
            client = stack.enter_context(connected(server.port))
            client.sendall(b"POST /prove?greedy HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            wait_until(lambda seen=number: len(server.seen) == 6 + seen, "the request to be seen")  # type: ignore[misc]
        with connected(server.port) as neighbour:
            neighbour.sendall(GET)
            assert answered(neighbour)
        assert len(server.guard.connections) <= 9
        assert hung_up(greedy[0])
        other.sendall(PROVE)
        assert answered(other)
        server.go_on.set()
        assert answered(asking)


def test_what_was_ended_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """One line with counts, however many there were."""
    with caplog.at_level(logging.WARNING, "keydesk.server"), served(replace(QUICK, look=0.3)) as server:
        for _ in range(20):
            with connected(server.port) as client:
                client.sendall(b"nonsense\r\n\r\n")
                to_the_end(client)
        wait_until(lambda: caplog.records, "the line")
    lines = [record.getMessage() for record in caplog.records if record.name == "keydesk.server"]
    assert len(lines) == 1
    assert "sent what is not HTTP" in lines[0]


def test_ipv6_is_counted_by_subscriber() -> None:
    """Who has one address of a /64 has them all."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("192.0.2.1") == "192.0.2.1"


# -- at the gateway --------------------------------------------------------------------------------------------


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
sys.argv = ["keydesk", "gateway"]
from toolkit.cli import main
main()
"""


@pytest.mark.world
def test_silent_connections_shut_nobody_out(gate: Gate, tmp_path: Path) -> None:
    """At `ulimit -n 200` three hundred of them leave a neighbour his calls, and operators a log line."""
    log = tmp_path / "gateway.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = variables_of(gate.workspace.settings) | {
        "KEYDESK_GATEWAY_PORT": str(port),
        "TEST_UPSTREAM_API_KEY": CREDENTIAL,
    }
    with process(["-c", FEW_FILES], f"{url}/healthz", variables, log):
        neighbour = replace(gate, running=replace(gate.running, url=url))
        with crowd(port, 150), crowd(port, 150):
            for _ in range(5):
                assert neighbour.ask("chat", "[[demo tokens=4]]").status == 200
            wait_until(lambda: "had shown no valid key or session" in log.read_text(), "the log line")
            assert neighbour.ask("chat", "[[demo tokens=4]]").status == 200
    assert "Traceback" not in log.read_text()
