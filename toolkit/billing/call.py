"""What is known of a call when it is judged, and how it ended. Pure."""

from dataclasses import dataclass, field
from datetime import datetime

from toolkit.core.errors import RefusalType
from toolkit.core.period import billing_month
from toolkit.core.policy import KeyFacts, Outcome
from toolkit.core.pricing import PriceSheet
from toolkit.core.service_tier import NOT_SAID, Served
from toolkit.core.usage import OverrunReason, Usage


@dataclass(slots=True)
class Call:
    """What is fixed about a call when it is judged, and stored with its charge.

    Args:
        request_id: time-ordered, unique.
        received_at: the moment of admission, UTC.
        tags: as `tags.read` gives them.
        unknown_fields: whether the request was passed on with fields whose effect is not known.
        credential: the name of ours that the upstream is shown.

    Attributes:
        month: the billing month of the admission.
    """

    request_id: str
    key: KeyFacts
    received_at: datetime
    dialect: str
    endpoint: str
    stream: bool
    model: str | None = None
    upstream: str | None = None
    price_id: str | None = None
    sheet: PriceSheet | None = None
    multiplier: int = 0
    tags: str | None = None
    unknown_fields: bool = False
    credential: str | None = None
    month: str = field(init=False)

    def __post_init__(self) -> None:
        self.month = billing_month(self.received_at)


@dataclass(slots=True)
class Ending:
    """How an admitted call ended.

    Args:
        outcome: what happened.
        ended_at: UTC.
        status: HTTP status that the caller got.
        usage: what is charged; None charges nothing.
        refusal: the reason that the caller was given, if there was one.
        response_id: the provider's own id of its answer.
        first_byte_ms, duration_ms: milliseconds since admission.
        error: detail for operators; must hold no secret.
        usage_doubt: why the usage may be wrong.
        overrun_reason: why the usage may cost more than was held, unless unknown fields are the reason.
        provider_usage: JSON of what the provider reported, where there is a doubt; must hold no secret.
        resent: whether the upstream was sent the request a second time.
        served: the tier and region that served it.
    """

    outcome: Outcome
    ended_at: datetime
    status: int
    usage: Usage | None = None
    refusal: RefusalType | None = None
    response_id: str | None = None
    first_byte_ms: int | None = None
    duration_ms: int | None = None
    error: str | None = None
    usage_doubt: str | None = None
    overrun_reason: OverrunReason | None = None
    provider_usage: str | None = None
    resent: bool = False
    served: Served = NOT_SAID
