"""The way to all providers: our credentials for them, and one pool of connections."""

from collections.abc import Mapping

from toolkit import environment
from toolkit.core.outbound_proxies import OutboundProxies
from toolkit.core.settings import Settings
from toolkit.core.token_command import NoToken, TokenCommand
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.token_commands import TokenCommands
from toolkit.gateway.upstream_exchange import Body, Exchange, NotConfigured
from toolkit.gateway.upstream_queues import UpstreamQueues
from toolkit.gateway.upstream_tls import own_tls_contexts, tls_context


class UpstreamPool:
    """The pool of connections to all upstreams; opened and closed with the gateway.

    Args:
        settings: time limits, proxies, certificates.

    Attributes:
        queues: of calls to upstreams that take only so many at once.

    Raises:
        InvalidInput: a proxy or a certificate cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.queues = UpstreamQueues()
        self._commands = TokenCommands(settings)
        self._context = tls_context(settings)
        self._proxies = OutboundProxies.parse(settings.https_proxy, settings.http_proxy, settings.no_proxy)
        self._own_contexts = own_tls_contexts(settings)
        self._pool: ConnectionPool | None = None
        self._own: dict[str, ConnectionPool] = {}
        """By the upstream's name: whoever is shown another certificate shares no connection with others."""

    async def open(self) -> None:
        """Make the pool; needs the running event loop."""
        self._pool = ConnectionPool(self._context, self._proxies)
        self._own = {name: ConnectionPool(own, self._proxies) for name, own in self._own_contexts.items()}

    async def close(self) -> None:
        """Close all connections, and end commands that print tokens."""
        self._commands.close()
        if self._pool is not None:
            for pool in (self._pool, *self._own.values()):
                pool.close()

    @property
    def call_timeout(self) -> float:
        """Seconds that a whole call may take."""
        return self._settings.call_timeout

    @property
    def stream_silence(self) -> float:
        """Seconds that a stream to a caller may be silent."""
        return self._settings.stream_silence

    async def credential(self, name: str) -> str | None:
        """Return our credential for an upstream, as it stands now: it may be rotated without a restart.

        Raises:
            NotConfigured: the name is none of an upstream's credential, as an older row may have it; or its command
                gives no token.
        """
        if fault := environment.credential_fault(self._settings, name):
            raise NotConfigured(f"{fault}. `keydesk upstreams update` names another one")
        found = environment.upstream_credential(self._settings, name)
        if not isinstance(found, TokenCommand):
            return found
        try:
            return await self._commands.token(found)
        except NoToken as error:
            raise NotConfigured(
                f"the token command of {name} failed: {error}. The gateway's log has what it said"
            ) from None

    def is_renewable(self, name: str) -> bool:
        """Whether a credential is a token that a command of this machine prints."""
        return isinstance(environment.upstream_credential(self._settings, name), TokenCommand)

    async def has_renewed(self, name: str, refused: str) -> bool:
        """Whether there is another credential than one that a provider has refused; a token is fetched anew."""
        found = environment.upstream_credential(self._settings, name)
        return isinstance(found, TokenCommand) and await self._commands.renewed(found, refused)

    def exchange(
        self, url: str, headers: Mapping[str, str], body: Body, method: str = "POST", *, upstream: str = ""
    ) -> Exchange:
        """Prepare a request to an upstream, whose name decides which certificate it is shown."""
        assert self._pool is not None  # noqa: S101 - opened with the gateway
        return Exchange(self._own.get(upstream, self._pool), self._settings, url, headers, body, method)
