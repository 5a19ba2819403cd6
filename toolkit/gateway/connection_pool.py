"""Connections to providers, kept between calls; and how new ones are made."""

import asyncio
import socket
import ssl
from collections.abc import Sequence

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from toolkit.core.destinations import fault_of_address, fault_of_host
from toolkit.core.outbound_proxies import OutboundProxies, OutboundProxy
from toolkit.gateway.connection_faults import Misconfigured, fault_of_connecting, fault_of_handshake
from toolkit.gateway.proxy_tunnel import open_tunnel
from toolkit.gateway.request_writing import Address
from toolkit.gateway.upstream_connection import UpstreamConnection

KEPT = 30.0
"""Seconds for which a connection without a call is kept; providers close theirs after a minute or more."""

_SECOND_ADDRESS = 0.25
"""Seconds after which a host's next address is tried alongside (RFC 8305)."""

_NOT_CONNECTED = (OSError, RuntimeError, UnicodeError)
"""What fails to connect: uvloop raises a RuntimeError now and then, a name that is none a UnicodeError."""


class ConnectionPool:
    """The connections to all upstreams; made in the running event loop.

    Args:
        context: how TLS certificates are checked; by default against this machine's authorities.
        proxies: through which upstreams are called; by default none.
        public_only: whether only addresses of the public internet are called.

    Attributes:
        forwards: whether a proxy passes on what is asked of upstreams of http.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        proxies: OutboundProxies | None = None,
        *,
        public_only: bool = False,
    ) -> None:
        self._public_only = public_only
        self._loop = asyncio.get_running_loop()
        self._context = context or ssl.create_default_context()
        self._proxies = proxies or OutboundProxies()
        self.forwards = self._proxies.http is not None
        self._kept: dict[Address, dict[UpstreamConnection, float]] = {}
        self._all: set[UpstreamConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._lookups: dict[tuple[str, int], asyncio.Future[Sequence[AddrInfoType]]] = {}

    async def connect(self, address: Address, limit: float) -> UpstreamConnection:
        """Return a new connection.

        Args:
            address: where to.
            limit: on the loop's clock, to have looked the host up, connected and agreed on TLS.

        Raises:
            Misconfigured: none can be made until an operator has mended something.
            OSError, TimeoutError: none can be made.
        """
        proxy = self._proxies.of(address.host, address.port, tls=address.tls)
        try:
            async with asyncio.timeout_at(limit):
                return await self._connect(address, proxy)
        except TimeoutError:
            through = f" through {proxy}" if proxy else ""
            raise TimeoutError(f"no connection to it{through} within the time limit") from None

    def forwarder_of(self, address: Address) -> OutboundProxy | None:
        """Return the proxy that passes on what is asked of an upstream of http; None if that is asked directly."""
        return self._proxies.of(address.host, address.port, tls=False)

    def kept(self, address: Address) -> UpstreamConnection | None:
        """Return a kept connection, the youngest first; None if there is none."""
        kept = self._kept.get(address)
        while kept:
            connection, _ = kept.popitem()
            if connection.is_open and connection.is_quiet:
                return connection
            connection.abort()
        return None

    async def _connect(self, address: Address, proxy: OutboundProxy | None) -> UpstreamConnection:
        wire = await (self._wire(address) if proxy is None else self._through(address, proxy))
        try:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            _, connection = await self._loop.create_connection(
                lambda: UpstreamConnection(self, address, wire),
                sock=wire,
                ssl=self._context if address.tls else None,
                server_hostname=address.host if address.tls else None,
            )
        except ssl.SSLError as error:
            wire.close()
            raise fault_of_handshake(error) from None
        except BaseException:
            wire.close()
            raise
        self._all.add(connection)
        return connection

    async def _wire(self, address: Address) -> socket.socket:
        """Connect to an upstream."""
        try:
            infos = await self._look_up(address.host, address.port)
        except _NOT_CONNECTED as error:
            raise fault_of_connecting(error) from None
        for *_, resolved in infos:
            # Here and not by the name: what it resolves to is up to whoever answers for it, and may change. It is not
            # looked up again: what was judged is what is connected to.
            if fault := fault_of_address(str(resolved[0]), public_only=self._public_only):
                raise Misconfigured(f"{fault}, which is never called")
        try:
            return await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=_SECOND_ADDRESS)
        except _NOT_CONNECTED as error:
            raise fault_of_connecting(error) from None

    async def _look_up(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """Look a host up; those who want to know the same wait for one look-up.

        The loop makes few at once, and none can be stopped: one host whose names nobody answers for would keep all
        others waiting.
        """
        lookup = self._lookups.get((host, port))
        if lookup is None:
            lookup = self._lookups[host, port] = self._loop.create_task(_addresses(host, port))
            lookup.add_done_callback(lambda done: self._looked_up(host, port, done))
        return await asyncio.shield(lookup)

    def _looked_up(self, host: str, port: int, lookup: "asyncio.Future[Sequence[AddrInfoType]]") -> None:
        del self._lookups[host, port]
        if not lookup.cancelled():
            lookup.exception()  # whoever waited for it may be gone

    async def _through(self, address: Address, proxy: OutboundProxy) -> socket.socket:
        """Connect to a proxy, which looks the upstream's name up: of that only the spelling can be judged.

        What is asked of an upstream of http it passes on itself; to one of https it makes a tunnel.
        """
        if fault := fault_of_host(address.host, public_only=self._public_only):
            raise Misconfigured(f"{fault}, which is never called")
        try:
            infos = await self._look_up(proxy.host, proxy.port)
            wire = await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=_SECOND_ADDRESS)
        except _NOT_CONNECTED as error:
            raise ConnectionError(f"{proxy} cannot be reached ({type(error).__name__})") from None
        if not address.tls:
            return wire
        try:
            await open_tunnel(wire, proxy, address.host, address.port)
        except BaseException:
            wire.close()
            raise
        return wire

    def keep(self, connection: UpstreamConnection) -> None:
        """Take a connection back whose call is over."""
        self._kept.setdefault(connection.address, {})[connection] = self._loop.time() + KEPT
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEPT, self._sweep)

    def forget(self, connection: UpstreamConnection) -> None:
        """Let go of a connection that was closed."""
        self._all.discard(connection)
        if kept := self._kept.get(connection.address):
            kept.pop(connection, None)

    def close(self) -> None:
        """Close all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._all):
            connection.abort()
        for lookup in list(self._lookups.values()):
            lookup.cancel()

    def _sweep(self) -> None:
        """Close what was kept too long."""
        now = self._loop.time()
        for kept in list(self._kept.values()):
            for connection, until in list(kept.items()):
                if until <= now:
                    del kept[connection]
                    connection.abort()
        left = [until for kept in self._kept.values() for until in kept.values()]
        self._sweeper = self._loop.call_at(min(left), self._sweep) if left else None


async def _addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
