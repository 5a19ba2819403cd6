"""The largest body: how many bytes of a request a key may send, by what any call of it could need. Pure."""

from datetime import datetime

from toolkit.billing.hold_estimate import MOST_BYTES_PER_TOKEN
from toolkit.core.catalog import Catalog, ModelFacts
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import KeyFacts

MEDIA_ALLOWANCE = 28 * 1024 * 1024
"""Bytes of pictures and documents in one body: 20 MB as base64, which is what Gemini takes inline (Google, "Image
understanding"), and near the 32 MB that Anthropic takes in all (Anthropic, "Errors", request size limits)."""


def _embeds(model: ModelFacts, now: datetime) -> bool:
    """Whether it may be an embedding model: those put out nothing, and nothing has a price of zero."""
    dated = model.price(now)
    return model.max_output == 0 or (dated is not None and not any(tier.output for tier in dated.sheet.tiers))


def check_size(size: int, key: KeyFacts, catalog: Catalog, now: datetime, body_limit: int) -> None:
    """Refuse a body that is larger than any call of the key could need, before it is read.

    Args:
        size: bytes that have come or are said to come.
        key: who sends it.
        catalog: what the models that it may call take.
        now: UTC.
        body_limit: bytes that the gateway takes from anybody.

    Raises:
        Refusal: request_too_large, naming the number.
    """
    if size > body_limit:
        raise Refusal(
            RefusalType.REQUEST_TOO_LARGE,
            f"The request body is larger than {body_limit:,} bytes. Send less in one request; the operator can raise "
            "KEYDESK_BODY_LIMIT.",
        )
    models = catalog.callable_by(key)
    if any(_embeds(model, now) for model in models):  # each input of an embedding request has a context to itself
        return
    context = max((model.context_window for model in models), default=0)
    limit = MOST_BYTES_PER_TOKEN * context + MEDIA_ALLOWANCE
    if size > limit:
        raise Refusal(
            RefusalType.REQUEST_TOO_LARGE,
            f"The request body is larger than {limit:,} bytes: {MEDIA_ALLOWANCE:,} for media, and "
            f"{MOST_BYTES_PER_TOKEN} for each of the {context:,} tokens of the largest context that this API key may "
            "call. Send less in one request.",
        )
