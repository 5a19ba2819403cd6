"""Tunnels through a proxy: it is asked to connect to an upstream, and passes bytes on from there (RFC 9110, CONNECT).

TLS is spoken with the upstream itself, so the proxy reads neither call nor credential of an upstream of https.
"""

import asyncio
import re
import socket

from toolkit.core.outbound_proxies import OutboundProxy
from toolkit.gateway.connection_faults import Misconfigured

LONGEST_HEAD = 16 * 1024
"""Bytes of a proxy's answer that are read."""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_END = b"\r\n\r\n"
_WANTS_USER = 407
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
    await loop.sock_sendall(wire, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    answer = b""
    while _END not in answer:
        part = await loop.sock_recv(wire, LONGEST_HEAD)
        if not part:
            raise ConnectionError(f"{proxy} hung up before it had answered")
        answer += part
        if len(answer) > LONGEST_HEAD:
            raise ConnectionError(f"{proxy} gives an answer without end")
    _judge(proxy, answer)


def _judge(proxy: OutboundProxy, answer: bytes) -> None:
    """Raise what is wrong with a proxy's answer, if anything."""
    found = _STATUS.match(answer)
    if found is None:
        raise Misconfigured(f"{proxy} is no HTTP proxy: what it answers is not HTTP")
    status = int(found[1])
    if status == _WANTS_USER:
        raise Misconfigured(
            f"{proxy} does not take the user and the password in its URL (407)"
            if proxy.authorization
            else f"{proxy} asks for a user and a password (407): write both into its URL"
        )
    if status in _CANNOT_REACH:
        raise ConnectionError(f"{proxy} could not reach the upstream ({status})")
    if not 200 <= status < 300:
        raise Misconfigured(
            f"{proxy} does not connect to the upstream ({status}): allow its host and port there, or name the host in "
            "NO_PROXY if it can be called directly"
        )
    if not answer.endswith(_END):  # nobody has been asked anything yet behind the proxy
        raise ConnectionError(f"{proxy} sent more than its answer")
