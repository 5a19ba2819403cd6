"""What a gateway tells of itself with each heartbeat: what it has set aside, and which credentials it has. Pure."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from toolkit.core.moments import micros, moment


class CredentialKind(StrEnum):
    """How a gateway has an upstream's credential."""

    VALUE = "value"
    """As a variable, or a line of the secrets file."""
    COMMAND = "command"
    """A command of the secrets file prints it."""
    MISSING = "missing"
    """It has none of this name, or may not send it."""


class SetAside(NamedTuple):
    """A part of an upstream that has just failed: for a while calls that have another way go there.

    Args:
        upstream: its name.
        credential, model, endpoint: which of it; empty where all are concerned. The model is the upstream's name of it.
        org_id: the only organisation whose calls have met it; None for all.
        until: UTC.
    """

    upstream: str
    credential: str
    model: str
    endpoint: str
    org_id: str | None
    until: datetime

    @property
    def what(self) -> str:
        """What is set aside, in words."""
        return ", ".join(filter(None, (self.model, self.endpoint, self.credential))) or "all of it"


class GatewayReport(NamedTuple):
    """What one gateway tells.

    Args:
        aside: what it has set aside.
        credentials: how it has those that models are served with, by their names.
    """

    aside: tuple[SetAside, ...]
    credentials: dict[str, CredentialKind]

    def to_json(self) -> str:
        """Return it as the store keeps it."""
        aside = [[*each[:-1], micros(each.until)] for each in self.aside]
        return json.dumps({"aside": aside, "credentials": self.credentials})

    @classmethod
    def from_json(cls, text: str) -> "GatewayReport":
        """Return what `to_json` was made of."""
        data: dict[str, Any] = json.loads(text)
        aside = tuple(
            SetAside(upstream, credential, model, endpoint, org_id, moment(until))
            for upstream, credential, model, endpoint, org_id, until in data["aside"]
        )
        return cls(aside, {name: CredentialKind(kind) for name, kind in data["credentials"].items()})
