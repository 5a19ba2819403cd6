"""What a gateway tells of itself with each heartbeat: operators read it, and nothing else goes by it."""

import logging
from collections.abc import Callable
from datetime import timedelta

from toolkit import environment
from toolkit.core.catalog import Catalog
from toolkit.core.gateway_report import CredentialKind, GatewayReport, SetAside
from toolkit.core.settings import Settings
from toolkit.core.token_command import TokenCommand
from toolkit.gateway.call_ways import Ways
from toolkit.store.transaction import utc_now

MOST = 200
"""Places that are told as set aside, those that stay so for longest."""

logger = logging.getLogger("keydesk.gateway")


class SelfReport:
    """Says what a gateway has set aside, and how it has the credentials that models are served with.

    Args:
        settings: where credentials are.
        ways: what has failed lately.
        catalog: returns the catalog as last read.
    """

    def __init__(self, settings: Settings, ways: Ways, catalog: Callable[[], Catalog]) -> None:
        self._settings = settings
        self._ways = ways
        self._catalog = catalog

    def text(self) -> str | None:
        """Return it as JSON; None if a credential's file cannot be read: no lease is lost for that."""
        try:
            return self.report().to_json()
        except OSError as error:
            logger.warning("the gateway's report is left out: %s", error)
            return None

    def report(self) -> GatewayReport:
        """Return it as of this moment."""
        now, wall = self._ways.clock(), utc_now()
        aside = [
            SetAside(*place, found.org_id, wall + timedelta(seconds=found.until - now))
            for place, found in self._ways.set_aside_now().items()
        ]
        aside.sort(key=lambda each: each.until, reverse=True)
        return GatewayReport(tuple(aside[:MOST]), {name: self._kind(name) for name in self._names()})

    def _names(self) -> set[str]:
        """Return the names of all credentials that models are served with."""
        catalog = self._catalog()
        models = [*catalog.models.values(), *(model for own in catalog.own.values() for model in own.values())]
        return {way.credential_env for model in models for way in (model, *(each.model for each in model.ways))}

    def _kind(self, name: str) -> CredentialKind:
        held = environment.upstream_credential(self._settings, name)
        if held is None or environment.credential_fault(self._settings, name) is not None:
            return CredentialKind.MISSING
        return CredentialKind.COMMAND if isinstance(held, TokenCommand) else CredentialKind.VALUE
