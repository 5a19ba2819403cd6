"""The retry on a dead connection: a request is sent once more where a kept connection was closed as it was used.

Servers close what has been idle for long, now and then just as it is used again, and do not say which request they have
read last. So the request is sent once more, though a provider may have begun on it: a call changes nothing there, and
the caller would do the same. Where a new connection is closed, the provider is at fault, and nothing is sent again.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from toolkit.gateway.upstream_connection import UpstreamConnection


class Ask(Protocol):
    """Sends the request over a connection, and waits for the answer's head."""

    def __call__(self, connection: UpstreamConnection, *, may_be_repeated: bool) -> Awaitable[None]: ...


async def ask_again_if_closed(
    kept: UpstreamConnection | None, connect: Callable[[], Awaitable[UpstreamConnection]], ask: Ask
) -> None:
    """Ask over a connection that served calls before, and over a new one if there is none, or it proves to be dead.

    Raises:
        OSError, TimeoutError: no connection can be made, or it broke, or the answer did not come in time.
    """
    if kept is not None:
        try:
            await ask(kept, may_be_repeated=True)
        except ConnectionError:
            if kept.is_answered:
                raise
        else:
            return
    await ask(await connect(), may_be_repeated=False)
