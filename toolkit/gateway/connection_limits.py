"""How many connections a server bears, and for how long, above all from callers who have shown nothing yet.

A connection is *proven* once a valid key or session has come over it: the application says so, by `prove`. Until then
it may be anybody's, so its time and its number are bounded. Whoever has a key can open connections without end, too:
where there are too many, of the proven those are ended that wait for what their callers send. One look at all
connections, twice a second, serves every deadline: none of them needs a timer of its own.
"""

import asyncio
import logging
import math
import os
import resource
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from toolkit.core.errors import Refusal
from toolkit.core.proxies import Proxies
from toolkit.gateway.head_parsing import Headers

if TYPE_CHECKING:
    from toolkit.gateway.timed_connection import TimedConnection

logger = logging.getLogger("keydesk.server")

RefusalWriter = Callable[[Refusal, str, Headers], tuple[Headers, bytes]]
"""Words a refusal for whoever asked for a path with these headers, as far as they are known: headers and body."""

NEVER = math.inf

STATE = "connection"
"""Where a request's scope has its connection, in its `state`."""

_AT_ONCE = 64
"""A share of the proven connections that wait, one in so many, is ended at once: to find them all are looked at."""

_IN_A_TURN = 32
"""Connections that are ended in one turn of the loop, when many are due."""

_ROTATED = 64
"""Connections whose request is being answered that are passed over in search of one that waits."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection is granted: times in seconds, sizes in bytes.

    Args:
        target: of a request's target, path and query.
        head: of request line and headers together, and of what frames a body beyond the body itself.
        headers: their number.
        queued: requests that may wait for the answer of the one before.
        head_time: from connecting, or from a request's first byte, to the end of its head.
        body_time, body_pace: a body has `body_time`, and a second more for each `body_pace` bytes that have come.
        answer_time: for an answer to somebody unproven; a proven caller's calls have limits of their own.
        idle_time: between the requests of a proven connection; of another it is `head_time`.
        swallowed: of a body that comes though it has been answered.
        stray: of anything else that comes after what could not be read.
        linger: until a connection is closed whose caller still sends.
        young: how long an unproven connection counts towards no address.
        of_address: older unproven connections of one address, for IPv6 of one /64 network.
        share: of the files that the process may open, for connections in all; proven ones that wait for nothing but
            their answers are never ended.
        most: connections in all, however many files there may be: all of them are looked at.
        look: between two looks at all connections.
    """

    target: int = 8 * 1024
    head: int = 64 * 1024
    headers: int = 500
    queued: int = 16
    head_time: float = 10
    body_time: float = 10
    body_pace: int = 16 * 1024
    answer_time: float = 60
    idle_time: float = 75
    swallowed: int = 64 * 1024 * 1024
    stray: int = 1024 * 1024
    linger: float = 5
    young: float = 1
    of_address: int = 64
    share: float = 0.8
    most: int = 10_000
    look: float = 0.5


def prove(scope: MutableMapping[str, Any], owner: str = "") -> None:
    """Say that a valid key or session came with a request.

    Args:
        scope: the request's, as the server made it. Another server's scope is left alone.
        owner: whose connections are counted together.
    """
    connection = scope.get("state", {}).get(STATE)
    if connection is not None:
        connection.proven, connection.owner = True, owner


class ConnectionGuard:
    """Looks after the connections of one server.

    Each worker process gets a copy: nothing in it is open before the first connection.

    Args:
        front: words the refusals that arise before the application is asked.
        proxies: whose word about a connection's origin counts.
        limits: what a connection is granted.
    """

    def __init__(self, front: RefusalWriter, proxies: Proxies, limits: Limits | None = None) -> None:
        self.front = front
        self.proxies = proxies
        self.limits = limits or Limits()
        self.connections: set[TimedConnection] = set()
        """All that are open, websockets apart."""
        self._unproven: OrderedDict[TimedConnection, None] = OrderedDict()
        self.looks = 0
        """How often all of them have been looked at."""
        self._most = 0
        self._full_of_answers = -1  # the look after which no proven connection was found to wait
        self.ended: Counter[str] = Counter()
        """How many were ended, by the reason, since it was last logged."""
        self._logged = -math.inf

    def enter(self, connection: "TimedConnection") -> None:
        """Take a new connection, at the expense of one that waits if there are too many."""
        if not self._most:
            self._begin(connection.loop)
        self.connections.add(connection)
        if len(self.connections) > self._most:
            while self._unproven and (oldest := next(iter(self._unproven))).proven:
                del self._unproven[oldest]
            # The greater number yields: strangers do not crowd out callers, nor a caller everybody else.
            if 2 * len(self._unproven) < len(self.connections) - 1:
                self._end_waiting()
            else:
                self._make_room()
        self._unproven[connection] = None

    def leave(self, connection: "TimedConnection") -> None:
        """Forget a connection that was closed, or that a websocket has taken over."""
        self.connections.discard(connection)
        self._unproven.pop(connection, None)

    def note(self, why: str) -> None:
        """Count a connection that was ended; what has been counted is logged once a minute at most."""
        self.ended[why] += 1

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            files = self.limits.most * 2
        self._most = min(max(int(files * self.limits.share) - _open_files(), 8), self.limits.most)
        self._watching = loop.create_task(self._watch(loop))

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is past its deadline, and the unproven of an address that has too many."""
        while True:
            await asyncio.sleep(self.limits.look)
            now = loop.time()
            self.looks += 1
            async for connection in self._open([held for held in self.connections if held.deadline <= now]):
                if connection.deadline <= now:
                    connection.expire(now)
            async for connection in self._open(self._surplus(now)):
                if not connection.proven:
                    self._turn_away(connection)
            if self.ended and now - self._logged >= 60:
                self._logged = now
                counts = ", ".join(f"{count} {why}" for why, count in self.ended.items())
                logger.warning("connections ended: %s", counts)
                self.ended.clear()

    async def _open(self, connections: "list[TimedConnection]") -> "AsyncIterator[TimedConnection]":
        """Go through connections, a few in each turn of the loop; what has been closed meanwhile is left out."""
        for place, connection in enumerate(connections, 1):
            if connection in self.connections:
                yield connection
            if place % _IN_A_TURN == 0:
                await asyncio.sleep(0)

    def _surplus(self, now: float) -> "list[TimedConnection]":
        """Return the connections that an address has too many of; forget which are unproven no more."""
        crowds: dict[str, list[TimedConnection]] = {}
        for connection in list(self._unproven):
            if connection.proven:
                del self._unproven[connection]
            elif connection.since + self.limits.young <= now and not connection.behind_proxy:
                crowds.setdefault(connection.network, []).append(connection)
        surplus: list[TimedConnection] = []
        for crowd in crowds.values():
            surplus += sorted(crowd, key=_is_busy)[: max(len(crowd) - self.limits.of_address, 0)]
        return surplus

    def _make_room(self) -> None:
        """End the unproven connection that has waited longest for its request, else the longest-answered one."""
        for _ in range(min(len(self._unproven), _ROTATED)):
            oldest, _ = self._unproven.popitem(last=False)
            if oldest.proven:
                return
            if not oldest.busy:
                self._turn_away(oldest)
                return
            self._unproven[oldest] = None
        if self._unproven:
            self._turn_away(next(iter(self._unproven)))

    def _end_waiting(self) -> None:
        """End the longest-waiting proven connections of whoever has most."""
        if self._full_of_answers == self.looks:
            return
        owned = Counter(connection.owner for connection in self.connections if connection.proven)
        waiting = [connection for connection in self.connections if connection.proven and connection.waits]
        waiting.sort(key=lambda connection: (-owned[connection.owner], connection.busy, connection.deadline))
        if not waiting:
            self._full_of_answers = self.looks
        for connection in waiting[: -(-len(waiting) // _AT_ONCE)]:
            self._turn_away(connection, "were too many that waited")

    def _turn_away(self, connection: "TimedConnection", why: str = "had shown no valid key or session") -> None:
        self.leave(connection)
        self.note(why)
        connection.transport.abort()


def network_of(address: str) -> str:
    """Return what an address is counted under: itself, or for IPv6 the /64 network that a subscriber gets."""
    if ":" not in address:
        return address
    return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))


def _is_busy(connection: "TimedConnection") -> bool:
    return connection.busy


def _open_files() -> int:
    try:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 - names alone
    except OSError:
        return 64
