"""The row that a call leaves in the request log. Pure."""

from toolkit.billing.call import Call, Ending
from toolkit.billing.state import LogRow
from toolkit.core.moments import micros
from toolkit.core.secrets import redact
from toolkit.core.usage import OverrunReason, Usage

LONGEST_RESPONSE_ID = 200
"""Characters of a provider's id of its answer that are kept; theirs have a few dozen."""


def log_row(call: Call, ending: Ending, cost: int, held: int, overrun: int) -> LogRow:
    """Return the row of a call that ended, with its charge, its hold and what it cost beyond that, nano-USD."""
    key, sheet = call.key, call.sheet
    usage = ending.usage or _NOTHING
    tier = sheet.tier(usage.input_tokens) if sheet and ending.usage else None
    reason = (OverrunReason.UNKNOWN_FIELD if call.unknown_fields else ending.overrun_reason) if overrun else None
    return LogRow(
        call.request_id,
        key.org_id,
        key.key_id,
        key.plan_id,
        micros(call.received_at),
        micros(ending.ended_at),
        ending.outcome,
        ending.refusal,
        ending.status,
        call.dialect,
        call.endpoint,
        call.stream,
        redact(call.model) if call.model else None,  # a caller may mistake their secret for a model's name
        call.upstream,
        storable(ending.response_id)[:LONGEST_RESPONSE_ID] if ending.response_id else None,
        ending.usage.source if ending.usage else None,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        call.price_id,
        call.multiplier,
        tier.input if tier else 0,
        tier.cached_input if tier else 0,
        tier.cache_write_5m if tier else 0,
        tier.cache_write_1h if tier else 0,
        tier.output if tier else 0,
        sheet.request if sheet and tier else 0,
        cost,
        held,
        overrun,
        ending.first_byte_ms,
        ending.duration_ms,
        redact(storable(ending.error)) if ending.error else None,
        redact(storable(call.tags)) if call.tags else None,
        ending.usage_doubt,
        reason,
        redact(storable(ending.provider_usage)) if ending.provider_usage else None,
        None,  # what was seen is in the usage
        ending.resent,
        ending.served.tier,
        ending.served.geo,
        call.credential,
    )


def storable(words: str) -> str:
    """Return an upstream's words as all stores can keep them; no answer may keep its own charge from being written.

    PostgreSQL's text has no NUL, and half of a surrogate pair, which JSON can escape, has no UTF-8.
    """
    return words.encode(errors="replace").decode().replace("\0", "?")


_NOTHING = Usage()
