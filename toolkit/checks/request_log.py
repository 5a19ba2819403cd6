"""What the audits read of the request log: calls that are alike, summed up, and those whose usage is doubted."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput
from toolkit.core.money import LARGEST_AMOUNT
from toolkit.core.period import Period
from toolkit.core.pricing import PriceSheet, charge
from toolkit.core.service_tier import Served
from toolkit.core.usage import Report
from toolkit.dialects import MODULES
from toolkit.ledger.ledger import Ledger

MOST = 10_000
"""Doubted calls that are looked at, the newest first."""


class Calls(NamedTuple):
    """Rows of the request log that are alike; money in nano-USD.

    Args:
        recent: whether they lie in the period; else in the days before it that scopes are judged by.
        overrun_reason: of those that cost more than was held; with the largest `most_input` and `most_output`, in
            tokens.
        forwarded, response_ids: of abandoned calls, how many had certainly been forwarded, and some of the ids by which
            the provider knows them.
        last_at: microseconds since 1970.
    """

    key_id: str
    model: str | None
    upstream: str | None
    dialect: str
    endpoint: str
    outcome: str
    refusal: str | None
    usage_source: str | None
    recent: bool
    calls: int
    cost: int
    held: int
    overruns: int
    overrun: int
    overrun_reason: str | None
    most_input: int
    most_output: int
    forwarded: int
    response_ids: list[str]
    last_at: int


class Doubted(NamedTuple):
    """A call whose usage is doubted, and that nobody has corrected; cost in nano-USD, multiplier in millionths."""

    request_id: str
    key_id: str
    model: str
    dialect: str
    endpoint: str
    admitted_at: datetime
    cost: int
    multiplier: int
    price_id: str
    doubt: str
    provider_usage: str | None


class ServedCalls(NamedTuple):
    """Charged calls that a tier or region served which their provider named; cost in nano-USD."""

    model: str
    upstream: str
    dialect: Dialect
    served: Served
    calls: int
    cost: int
    first_at: datetime


def calls(ledger: Ledger, recent: datetime, start: datetime) -> list[Calls]:
    """Return the calls since a moment that the ledger's actor may see, summed up.

    Args:
        ledger: whose actor's.
        recent: from when on they lie in the period, UTC.
        start: the first moment, UTC.
    """
    rows = ledger.sql(
        """
        SELECT key_id, model, upstream, dialect, endpoint, outcome, refusal, usage_source, admitted_at >= ? AS recent,
               count(*) AS calls, sum(cost)::BIGINT AS cost, sum(held)::BIGINT AS held,
               count(*) FILTER (WHERE overrun > 0) AS overruns, sum(overrun)::BIGINT AS overrun, overrun_reason,
               coalesce(max(input_tokens) FILTER (WHERE overrun > 0), 0) AS most_input,
               coalesce(max(output_tokens) FILTER (WHERE overrun > 0), 0) AS most_output,
               count(seen_bytes) AS forwarded,
               coalesce(list(response_id ORDER BY request_id)
                   FILTER (outcome = 'abandoned' AND response_id IS NOT NULL), [])
                   [1:20] AS response_ids,
               epoch_us(max(admitted_at)) AS last_at
        FROM usage GROUP BY ALL ORDER BY ALL
        """,
        [recent],
        period=Period(start),
    )
    return [Calls(*row) for row in zip(*(column.to_pylist() for column in rows.columns), strict=True)]


def doubted(ledger: Ledger, start: datetime) -> list[Doubted]:
    """Return the doubted calls since a moment that the ledger's actor may see, the newest first, at most `MOST`."""
    rows = ledger.sql(
        f"""
        SELECT request_id, key_id, model, dialect, endpoint, admitted_at, cost, multiplier, price_id, usage_doubt,
               provider_usage
        FROM usage
        WHERE usage_doubt IS NOT NULL AND request_id NOT IN (
            SELECT request_id FROM wallet_entries WHERE request_id IS NOT NULL
        )
        ORDER BY admitted_at DESC, request_id LIMIT {MOST}
        """,
        period=Period(start),
    )
    return [Doubted(*row) for row in zip(*(column.to_pylist() for column in rows.columns), strict=True)]


def served(ledger: Ledger, start: datetime) -> list[ServedCalls]:
    """Return the charged calls since a moment that the ledger's actor may see, by the tier and region that served."""
    rows = ledger.sql(
        """
        SELECT model, upstream, dialect, service_tier, inference_geo, count(*), sum(cost)::BIGINT, min(admitted_at)
        FROM usage
        WHERE cost > 0 AND (service_tier IS NOT NULL OR inference_geo IS NOT NULL)
        GROUP BY ALL ORDER BY ALL
        """,
        period=Period(start),
    )
    return [
        ServedCalls(model, upstream, Dialect(dialect), Served(tier, geo), *figures)
        for model, upstream, dialect, tier, geo, *figures in zip(
            *(column.to_pylist() for column in rows.columns), strict=True
        )
    ]


def report_of(call: Doubted) -> Report | None:
    """Return what the provider reported, as far as its report was kept; None if that cannot be read."""
    try:
        said = json.loads(call.provider_usage or "")
    except ValueError:
        return None
    merged: Report | None = None
    for part in said if isinstance(said, list) else [said]:
        answer: dict[str, Any] = {"usage": part, "usageMetadata": part}
        report = MODULES[Dialect(call.dialect)].usage_of(call.endpoint, answer)
        if report is not None:
            merged = merged.followed_by(report) if merged is not None else report
    return merged


def charge_reported(call: Doubted, prices: Mapping[str, str]) -> int | None:
    """Return what a call would cost if the provider's own counts are right, nano-USD; None if they are no counts.

    Args:
        call: with its report.
        prices: the price book's sheets as they are stored, by the entry's id; one that cannot be read counts as none.
    """
    report = report_of(call)
    if report is None or report.faults or report.input_missing or not report.usage.input_tokens:
        return None
    try:
        cost = charge(report.usage, PriceSheet.from_json(prices[call.price_id]), call.multiplier)
    except (ValueError, TypeError, KeyError, InvalidInput):
        return None
    return cost if cost <= LARGEST_AMOUNT else None
