"""Ports: taken for both families, and refused in a sentence."""

import socket
from contextlib import closing

import pytest

from tests.conftest import free_port
from toolkit.cli import parts
from toolkit.core.errors import Conflict, InvalidInput
from toolkit.gateway.listening import EVERYWHERE, bind


def close(sockets: list[socket.socket]) -> None:
    """Close all."""
    for one in sockets:
        one.close()


def test_everywhere_is_both_families() -> None:
    """`::` takes callers of IPv4, and of IPv6 where there is any."""
    (listener,) = bind(EVERYWHERE, 0)
    with closing(listener):
        listener.listen()
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1") if listener.family == socket.AF_INET6 else ("127.0.0.1",):
            with socket.create_connection((host, port), timeout=60):
                accepted, peer = listener.accept()
                accepted.close()
                assert host in peer[0]
        assert parts.reachable(EVERYWHERE) == "127.0.0.1"


def test_one_address_is_one() -> None:
    """127.0.0.1 is no more than that."""
    sockets = bind("127.0.0.1", 0)
    assert [one.getsockname()[0] for one in sockets] == ["127.0.0.1"]
    close(sockets)


def test_a_port_in_use_is_refused() -> None:
    """By whatever family it is taken; nothing stays bound."""
    (listener,) = bind("127.0.0.1", free_port())
    with closing(listener):
        listener.listen()
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0", EVERYWHERE):
            with pytest.raises(Conflict, match=f"Port {port} is in use"):
                bind(host, port)
    close(bind("127.0.0.1", port))


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "2001:db8::7", "a" * 300])
def test_a_host_that_is_not_here_is_refused(host: str) -> None:
    """By the setting's name."""
    with pytest.raises(InvalidInput, match=r"KEYDESK_HOST=.* is not an address of this machine"):
        bind(host, 0)
