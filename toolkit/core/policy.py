"""What a key may do: facts in, verdict out. Pure: no I/O, no clock; the moment comes in as an argument."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.hosted_tools import HostedTools


class Role(StrEnum):
    """What an operator may do: see `admin.rights`."""

    PLATFORM_ADMIN = "platform_admin"
    ORG_ADMIN = "org_admin"
    ANALYST = "analyst"


class KeyStatus(StrEnum):
    """State of an API key. Expiry is a fact beside it, not a state."""

    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"


class HoldPolicy(StrEnum):
    """How much is held against a key's monthly limit before a call: see `billing`."""

    STRICT = "strict"
    EXPECTED = "expected"


class Outcome(StrEnum):
    """How a call ended, as the request log records it."""

    COMPLETED = "completed"
    REFUSED = "refused"
    UPSTREAM_ERROR = "upstream_error"
    ABORTED = "aborted"
    ABANDONED = "abandoned"
    QUEUE_FULL = "queue_full"


NOT_ADMITTED = (Outcome.REFUSED, Outcome.QUEUE_FULL)
"""Outcomes of calls that never began: nothing was held for them, sent on, or charged."""


def has_expired(expires_at: datetime | None, now: datetime) -> bool:
    """Whether an expiry, None for never, has come at `now`; both UTC."""
    return expires_at is not None and expires_at <= now


def is_live(status: str, expires_at: datetime | None, now: datetime) -> bool:
    """Whether a key's secret is one that admits at `now`: active and not expired.

    Whether its organisation is suspended is another matter, which its callers are told.
    """
    return status == KeyStatus.ACTIVE and not has_expired(expires_at, now)


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What the gateway needs to know of a key, as it stood at one version.

    Args:
        version: raised by every change to the key; an admission goes on only if it still holds.
        scope: model ids the key may call; empty means all models of its plan.
        monthly_limit: nano-USD; None is unlimited, 0 means nothing paid.
        expires_at: UTC; None is never.
        hosted_tools: what becomes of tools that the provider would run; the plan may be stricter.
    """

    key_id: str
    org_id: str
    plan_id: str
    version: int
    status: KeyStatus
    org_suspended: bool
    scope: frozenset[str]
    monthly_limit: int | None
    hold_policy: HoldPolicy
    expires_at: datetime | None
    hosted_tools: HostedTools = HostedTools.LEAVE_OUT

    def is_live(self, now: datetime) -> bool:
        """Whether the key's secret is one that admits at `now` (UTC)."""
        return is_live(self.status, self.expires_at, now)

    def check_model(self, model: str, plan_models: frozenset[str]) -> None:
        """Raise Refusal unless the plan includes the model and the key's scope allows it."""
        if model not in plan_models:
            raise Refusal(
                RefusalType.MODEL_NOT_ALLOWED,
                f"The model '{model}' is not in the plan of this API key. GET /v1/models lists what the key may call; "
                "a platform admin can change its plan.",
                param="model",
            )
        if self.scope and model not in self.scope:
            raise Refusal(
                RefusalType.MODEL_NOT_ALLOWED,
                f"The model '{model}' is outside this API key's model scope. Ask an org admin to widen the scope, "
                "or call a model that GET /v1/models lists.",
                param="model",
            )

    def callable_models(self, plan_models: frozenset[str]) -> frozenset[str]:
        """Return the models that the key may call."""
        return plan_models & self.scope if self.scope else plan_models


class NotAdmitted(Refusal):
    """The answer to a credential that admits nothing, whatever is called.

    Args:
        type, message: as of every refusal.
        key: the key that the credential is or was of, for the request log; None if it is of none.
    """

    def __init__(self, type: RefusalType, message: str, key: KeyFacts | None) -> None:  # noqa: A002 - as in `Refusal`
        super().__init__(type, message)
        self.key = key


class OrganisationSuspended(NotAdmitted):
    """The secret is right, and its organisation is suspended: the caller is told, unlike one with a dead key."""

    def __init__(self, key: KeyFacts) -> None:
        super().__init__(
            RefusalType.ORGANISATION_SUSPENDED,
            "The organisation of this API key is suspended: its calls are refused until it is resumed. The key itself "
            "is in order. Ask an org admin; they know whom at the platform to ask.",
            key,
        )


class Unauthorized(NotAdmitted):
    """The one answer to every credential that does not admit: it must not tell which keys exist. `key`: see above."""

    def __init__(self, key: KeyFacts | None = None) -> None:
        super().__init__(
            RefusalType.UNAUTHORIZED,
            "This API key is not valid. It may be mistyped, rotated, disabled, expired or deleted; "
            "ask an org admin, or create a new key in the Keydesk dashboard.",
            key,
        )
