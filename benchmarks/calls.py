"""Request-log rows by the million: made with NumPy, alike in shape and entropy to what gateways write.

Keys differ in traffic by a power law, days and hours have their rhythm, token counts are log-normal, cached input comes
in blocks, ids are random where providers' ids are, and costs are what `pricing.charge` would have made of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toolkit.core.moments import micros
from toolkit.core.policy import Outcome
from toolkit.core.pricing import MILLION
from toolkit.ledger import segments
from toolkit.store.tables import OutboxRow

if TYPE_CHECKING:
    from sqlalchemy import Table

ORGS, KEYS, PLANS = 12, 200, 3
MULTIPLIERS = (1_000_000, 1_250_000, 1_500_000)
MODELS = (
    # id, upstream, endpoint, dialect, input, cached, output (USD per million tokens × 1000)
    ("gpt-5.2", "openai", "chat/completions", "openai", 1750, 175, 14000),
    ("gpt-5-mini", "openai", "chat/completions", "openai", 250, 25, 2000),
    ("gpt-4o-mini", "openai", "chat/completions", "openai", 150, 75, 600),
    ("gpt-4.1", "openai", "responses", "openai", 2000, 500, 8000),
    ("o4-mini", "openai", "responses", "openai", 1100, 275, 4400),
    ("claude-opus-4-5", "anthropic", "messages", "anthropic", 5000, 500, 25000),
    ("claude-sonnet-4-5", "anthropic", "messages", "anthropic", 3000, 300, 15000),
    ("claude-haiku-4-5", "anthropic", "messages", "anthropic", 1000, 100, 5000),
    ("gemini-2.5-pro", "google", "streamGenerateContent", "gemini", 1250, 125, 10000),
    ("gemini-2.5-flash", "google", "generateContent", "gemini", 300, 30, 2500),
    ("gemini-2.5-flash-lite", "google", "generateContent", "gemini", 100, 10, 400),
    ("text-embedding-3-small", "openai", "embeddings", "openai", 20, 20, 0),
)
_RESPONSE_IDS = (
    # endpoints, prefix, random characters: as the providers' own ids look; embeddings have none
    (("chat/completions",), "chatcmpl-", 29),
    (("responses",), "resp_", 48),
    (("messages",), "msg_01", 22),
    (("generateContent", "streamGenerateContent"), "", 22),
)
_OUTCOMES = (Outcome.COMPLETED, Outcome.REFUSED, Outcome.UPSTREAM_ERROR, Outcome.ABORTED)
_BASE62 = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_OVERHEAD = 400
_MOST_OUTPUT = 4_096


@dataclass(frozen=True)
class Share:
    """The calls of one UTC day."""

    day: date
    rows: int


def shares(rows: int, days: int, last: date) -> Iterator[Share]:
    """Spread calls over days: growing, with quiet weekends."""
    dates = [last - timedelta(days=days - 1 - number) for number in range(days)]
    weights = np.array([(0.6 if day.weekday() > 4 else 1.0) * (1 + number / days) for number, day in enumerate(dates)])
    edges = np.round(np.cumsum(weights) / weights.sum() * rows).astype(int)
    for day, count in zip(dates, np.diff(edges, prepend=0).tolist(), strict=True):
        if count:
            yield Share(day, count)


def of_day(share: Share, seed: int = 1) -> pa.Table:
    """Return the rows of one day, in order of time."""
    count = share.rows
    chance = np.random.default_rng([seed, share.day.toordinal()])
    start = micros(datetime(share.day.year, share.day.month, share.day.day, tzinfo=UTC))
    noon = (chance.normal(0.58, 0.17, count) % 1.0) * 0.75 + chance.random(count) * 0.25
    admitted = start + np.sort((noon * 86_400e6).astype(np.int64))
    key = np.minimum((chance.pareto(0.9, count) * 4).astype(np.int64), KEYS - 1)
    model = (key * 7 + np.minimum(chance.geometric(0.6, count), 4)) % len(MODELS)
    plan = key % PLANS
    prices = np.array([[price * MILLION for price in known[4:]] for known in MODELS], np.int64)[model]
    multiplier = np.array(MULTIPLIERS, np.int64)[plan]

    outcome = np.searchsorted([0.955, 0.98, 0.993], chance.random(count))
    failed = (outcome == 1) | (outcome == 2)
    chatty = prices[:, 2] > 0
    fresh = np.clip(chance.lognormal(6.6, 1.1, count), 8, 120_000).astype(np.int64)
    cached = np.where(chance.random(count) < 0.4, np.clip(chance.geometric(0.04, count), 8, 400) * 128, 0) * chatty
    output = np.clip(chance.lognormal(5.3, 1.0, count), 1, _MOST_OUTPUT).astype(np.int64) * chatty
    reasoning = np.where(np.isin(model, (0, 4, 8)), (output * chance.random(count)).astype(np.int64), 0)
    fresh, cached, output, reasoning = (np.where(failed, 0, tokens) for tokens in (fresh, cached, output, reasoning))
    # Prices are whole multiples of a million here, so that 64 bits hold the product.
    units = fresh * (prices[:, 0] // MILLION) + cached * (prices[:, 1] // MILLION) + output * (prices[:, 2] // MILLION)
    cost = (units * (multiplier // 1000) + 500) // 1000
    likely = (fresh + cached) * 4 + _OVERHEAD
    bound = likely * (prices[:, 0] // MILLION) + _MOST_OUTPUT * (prices[:, 2] // MILLION)
    held = np.where(outcome == 1, 0, np.maximum((bound * (multiplier // 1000) + 500) // 1000, cost))
    first_byte = chance.lognormal(6.3, 0.5, count).astype(np.int64)
    duration = first_byte + (output * chance.lognormal(2.3, 0.4, count)).astype(np.int64)
    settled = admitted + np.where(outcome == 1, 300, duration * 1000) + chance.integers(200, 5_000, count)

    columns: dict[str, Any] = {
        "request_id": _request_ids(admitted, chance),
        "org_id": _named("org_{:012d}", key % ORGS, ORGS),
        "key_id": _named("key_{:012d}", key, KEYS),
        "plan_id": _named("plan_{:012d}", plan, PLANS),
        "admitted_at": admitted,
        "settled_at": settled,
        "outcome": pa.array([str(name) for name in _OUTCOMES]).take(pa.array(outcome)),
        "refusal": pa.array([None, "api_key_quota_exceeded", "upstream_error", None]).take(pa.array(outcome)),
        "status": np.array([200, 402, 502, 200])[outcome],
        "dialect": _of_model(3, model),
        "endpoint": _of_model(2, model),
        "stream": np.isin(model, (0, 5, 6, 8)),
        "model": _of_model(0, model),
        "upstream": _unless(outcome == 1, _of_model(1, model)),
        "response_id": _response_ids(model, failed, chance),
        "usage_source": _unless(failed, pa.array(["reported", "estimated"]).take(pa.array((outcome == 3) * 1))),
        "input_tokens": fresh + cached,
        "cached_input_tokens": cached,
        "output_tokens": output,
        "reasoning_tokens": reasoning,
        "price_id": _unless(outcome == 1, _named("price_{:012d}", model * 31, len(MODELS) * 31)),
        "multiplier": multiplier,
        "input_price": prices[:, 0],
        "cached_input_price": prices[:, 1],
        "cache_write_5m_price": prices[:, 0],
        "cache_write_1h_price": prices[:, 0],
        "output_price": prices[:, 2],
        "cost": cost,
        "held": held,
        "first_byte_ms": _unless(outcome == 1, pa.array(first_byte)),
        "duration_ms": _unless(outcome == 1, pa.array(duration)),
        "error": pa.array([None, "upstream answered 502"]).take(pa.array((outcome == 2) * 1)),
    }
    nothing = np.zeros(count, np.int64)
    schema = segments.arrow_schema(cast("Table", OutboxRow.__table__))
    return pa.table(
        [
            pa.array(columns[field.name]).cast(field.type)
            if field.name in columns
            else (pa.nulls(count, field.type) if field.nullable and field.type == pa.string() else nothing)
            for field in schema
        ],
        schema=schema,
    )


def _named(form: str, numbers: Any, most: int) -> pa.Array:
    return pa.array([form.format(number) for number in range(most)]).take(pa.array(numbers))


def _of_model(place: int, model: Any) -> pa.Array:
    return pa.array([str(known[place]) for known in MODELS]).take(pa.array(model))


def _unless(missing: Any, values: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(missing), pa.scalar(None, values.type), values)


def _texts(letters: Any) -> pa.Array:
    """Return a matrix of ASCII letters as one text for each row."""
    count, width = letters.shape
    offsets = pa.py_buffer(np.arange(0, (count + 1) * width, width, dtype=np.int32))
    return pa.StringArray.from_buffers(count, offsets, pa.py_buffer(np.ascontiguousarray(letters)))


def _request_ids(admitted: Any, chance: Any) -> pa.Array:
    """Return ids as `ids.new_request_id` makes them: UUIDv7 in hex, in no order within a millisecond."""
    raw = chance.integers(0, 256, (len(admitted), 16), dtype=np.uint8)
    raw[:, :6] = (admitted // 1000).astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = np.stack([_HEX[raw >> 4], _HEX[raw & 15]], axis=2).reshape(len(admitted), 32)
    return _texts(np.hstack([np.tile(np.frombuffer(b"req_", np.uint8), (len(admitted), 1)), digits]))


def _response_ids(model: Any, missing: Any, chance: Any) -> pa.Array:
    endpoints = np.array([known[2] for known in MODELS])[model]
    found = pa.nulls(len(model), pa.string())
    for of_endpoints, prefix, length in _RESPONSE_IDS:
        letters = _HEX if prefix == "resp_" else _BASE62
        noise = _texts(letters[chance.integers(0, len(letters), (len(model), length), dtype=np.uint8)])
        texts = pc.binary_join_element_wise(prefix, noise, "")
        found = pc.if_else(pa.array(np.isin(endpoints, of_endpoints) & ~missing), texts, found)
    return found
