"""The server: uvicorn with our connections, on one address or on all of both families."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import cast

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.server import Server
from uvicorn.supervisors import Multiprocess

from toolkit.core.proxies import Proxies
from toolkit.gateway.connection_limits import ConnectionGuard, Limits, RefusalWriter
from toolkit.gateway.listening import bind
from toolkit.gateway.server_connection import ServerConnection


def protocol(front: RefusalWriter, proxies: Proxies, limits: Limits | None = None) -> type[asyncio.Protocol]:
    """Return what uvicorn takes as `http=`.

    Args:
        front: words the refusals that arise before the application is asked.
        proxies: whose word about a connection's origin counts.
        limits: what a connection is granted.
    """
    made: Callable[..., ServerConnection] = partial(ServerConnection, ConnectionGuard(front, proxies, limits))
    return cast("type[asyncio.Protocol]", made)


def run(config: Config) -> None:
    """Serve until told to stop, by one process or several.

    Raises:
        Conflict, InvalidInput: as `listening.bind`.
        SystemExit: the application did not start; its log says why.
    """
    sockets = bind(config.host, config.port)
    server = Server(config)
    try:
        if config.workers > 1:
            Multiprocess(config, sockets=sockets).run()
        else:
            server.run(sockets=sockets)
    except KeyboardInterrupt:
        return
    if config.workers == 1 and not server.started:
        sys.exit(STARTUP_FAILURE)
