"""Tunnels through a proxy: it is asked to connect to an upstream, and passes bytes on from there (RFC 9110, CONNECT).

TLS is spoken with the upstream itself, so the proxy reads neither call nor credential of an upstream of https.
"""

import asyncio
import re
import socket
from collections.abc import Iterable

from toolkit.core.outbound_proxies import OutboundProxy
from toolkit.gateway.connection_faults import Misconfigured

LONGEST_HEAD = 16 * 1024
"""Bytes of a proxy's answer that are read."""

WANTS_USER = 407
"""Status with which a proxy wants to know who asks (RFC 9110, 15.5.8)."""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d[ \r]")
_CHALLENGE = re.compile(rb"\r\nproxy-authenticate:([^\r]*)", re.IGNORECASE)
_BASIC = re.compile(rb"(?:^|[\s,])basic(?:[\s,]|$)", re.IGNORECASE)
_END = b"\r\n\r\n"
_CANNOT_REACH = frozenset({502, 503, 504})


async def open_tunnel(wire: socket.socket, proxy: OutboundProxy, host: str, port: int) -> None:
    """Ask a proxy for a connection to an upstream; from then on `wire` leads there.

    Args:
        wire: connected to the proxy; does not block.
        proxy: how it is named, and its credential.
        host, port: of the upstream.

    Raises:
        Misconfigured: the proxy does not do it for us.
        OSError: it cannot, or its answer broke off.
    """
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        await loop.sock_sendall(wire, "\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = await _answer(wire, proxy)
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
        raise _hung_up(proxy) from None
    _judge(proxy, answer)


async def _answer(wire: socket.socket, proxy: OutboundProxy) -> bytes:
    """Return a proxy's answer as far as its head, and what came along with it.

    Interim answers (1xx) are passed over: they may come before any answer (RFC 9110, 15.2).
    """
    loop = asyncio.get_running_loop()
    answer, left = b"", LONGEST_HEAD
    while _END not in answer:
        part = await loop.sock_recv(wire, LONGEST_HEAD)
        if not part:
            raise _hung_up(proxy)
        answer, left = answer + part, left - len(part)
        if left < 0:
            raise ConnectionError(f"{proxy} gives an answer without end")
        while _INTERIM.match(answer) and _END in answer:
            answer = answer.partition(_END)[2]
    return answer


def _hung_up(proxy: OutboundProxy) -> ConnectionError:
    return ConnectionError(f"{proxy} hung up before it had answered")


def fault_of_user(proxy: OutboundProxy, challenges: Iterable[bytes] = ()) -> Misconfigured:
    """Return what is wrong where a proxy wants to know who asks.

    Args:
        proxy: which one.
        challenges: what it says of how that is proven, its `Proxy-Authenticate`, as far as it is known.
    """
    offered = list(challenges)
    if offered and not any(_BASIC.search(challenge) for challenge in offered):
        return Misconfigured(
            f"{proxy} takes no user and password (407), but another sign-in, such as NTLM or Kerberos, which the "
            "gateway does not know: have it let this machine through, or run a proxy here that signs in to it"
        )
    return Misconfigured(
        f"{proxy} does not take the user and the password in its URL (407)"
        if proxy.authorization
        else f"{proxy} asks for a user and a password (407): write both into its URL"
    )


def _judge(proxy: OutboundProxy, answer: bytes) -> None:
    """Raise what is wrong with a proxy's answer, if anything."""
    found = _STATUS.match(answer)
    if found is None:
        raise Misconfigured(f"{proxy} is no HTTP proxy: what it answers is not HTTP")
    status = int(found[1])
    if status == WANTS_USER:
        raise fault_of_user(proxy, _CHALLENGE.findall(answer))
    if status in _CANNOT_REACH:
        raise ConnectionError(f"{proxy} could not reach the upstream ({status})")
    if not 200 <= status < 300:
        raise Misconfigured(
            f"{proxy} does not connect to the upstream ({status}): allow its host and port there, or name the host in "
            "NO_PROXY if it can be called directly"
        )
    if not answer.endswith(_END):  # nobody has been asked anything yet behind the proxy
        raise ConnectionError(f"{proxy} sent more than its answer")
