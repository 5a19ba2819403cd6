"""What-if: a period's calls replayed under another plan, multiplier, price book or monthly limit.

Each call is charged anew by its own tokens, as `pricing.charge` does it, and refused where the plan does not include
its model or the limit has no room. Money is int64 nano-USD. `docs/attribution.md` says what a replay cannot know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from toolkit.admin import plans
from toolkit.admin.models import list_models
from toolkit.admin.prices import list_prices, price_at
from toolkit.core.errors import InvalidInput, RefusalType
from toolkit.core.money import check_amount
from toolkit.core.period import Period
from toolkit.core.pricing import PriceSheet, check_multiplier
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import CHARGED, TOKENS, charge_sql
from toolkit.reports.dimensions import DIMENSIONS, condition

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

GROUPS = ("key", "model", "org")
"""What `replay` can group by."""

_WINDOW = 4_096  # calls looked at together behind a refusal
_ENDLESS = 2**62
_NAMES = ["key_id", "key", "key_label", "org_id", "org"]

_PRICED = """
WITH priced AS NOT MATERIALIZED (
    SELECT key_id, key, key_label, org_id, org, model, month, request_id, admitted_at, cost,
           {inside} AS inside, {planned} AS planned, {repriced} AS repriced
    FROM usage {sheets} WHERE {charged} AND {where}
)
"""

_SUMS = """
, sums AS (
    SELECT key_id, key, key_label, priced.org_id, org, model, month, planned, {limit} AS monthly_limit,
           sum(cost) FILTER (NOT inside) AS earlier, count(*) FILTER (inside) AS calls,
           sum(cost) FILTER (inside) AS cost, sum(repriced) FILTER (inside) AS repriced
    FROM priced LEFT JOIN keys ON keys.id = priced.key_id GROUP BY ALL
), months AS (
    SELECT key_id, month, (any_value(monthly_limit) - coalesce(sum(earlier), 0))::BIGINT AS room,
           coalesce(coalesce(sum(repriced) FILTER (planned), 0) > room, false) AS over
    FROM sums GROUP BY ALL
)
SELECT sums.* EXCLUDE (monthly_limit, earlier, cost, repriced), cost::BIGINT AS cost, repriced::BIGINT AS repriced,
       coalesce(room, 0) AS room, over
FROM sums JOIN months USING (key_id, month) WHERE calls > 0 ORDER BY key_id, month, model
"""

_IN_ORDER = """
SELECT number::INTEGER AS number, cost, repriced::BIGINT AS repriced, request_id, admitted_at
FROM priced JOIN (SELECT unnest(?, recursive := true)) AS over ON over.key_id = priced.key_id
 AND over.month = priced.month AND over.model = coalesce(priced.model, '')
WHERE inside ORDER BY place, admitted_at, request_id
"""

_NOT_IN_PLAN = """
SELECT key_id, model, planned, cost, repriced::BIGINT AS repriced, request_id, admitted_at
FROM priced WHERE inside AND NOT planned ORDER BY admitted_at, request_id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a period would have cost, and which of its calls would have been refused.

    Args:
        spend: the dimensions' columns, then calls, cost (as charged), repriced (all of them under the scenario),
            not_in_plan and over_limit (calls refused), refused (what these would have cost under the scenario),
            replayed (repriced − refused) and difference (replayed − cost), in nano-USD; the largest difference first,
            up or down.
        refused: calls that would have been refused, in order of admission, as many as were to be listed: request_id,
            admitted_at, key_id, key, key_label, org_id, org, model, refusal (`model_not_allowed` or
            `api_key_quota_exceeded`), cost and repriced.
    """

    spend: "pd.DataFrame"
    refused: "pd.DataFrame"


def replay(
    ledger: Ledger,
    period: Period | None = None,
    *,
    by: Sequence[str] = ("key", "model"),
    plan: str | None = None,
    multiplier: int | None = None,
    prices: Mapping[str, PriceSheet] | None = None,
    limit: int | Literal["own"] | None = "own",
    org: str | None = None,
    key: str | None = None,
    listed: int = 10_000,
) -> Replay:
    """Charge a period's calls anew under a scenario; what is not given stays as it was at each call's admission.

    The calls of a key are judged in order of admission: one is refused when what the key has spent in its billing month
    plus what the call costs is more than the limit, and is then not spent. A real admission knows a call's hold, not
    its cost, so near a limit it refuses some calls more than this. What was spent in the month before the period stays
    as it was charged. A call that costs nothing is never refused for its cost.

    Args:
        ledger: whose actor's rows count.
        period: by admission; everything by default.
        by: one or more of `GROUPS`.
        plan: id or name of the plan that all keys would have: its multiplier, and its models alone.
        multiplier: millionths, instead of the plan's.
        prices: sheets by model, such as `book_at` returns; calls of other models keep the prices applied.
        limit: monthly limit of each key in nano-USD, None for none; by default each key's own of today.
        org: id, to replay that organisation alone.
        key: id, to replay that key alone.
        listed: most refused calls to list, the earliest ones; all are counted.

    Raises:
        InvalidInput: no dimension, an unknown one, or no such multiplier or limit.
        NotFound: no such plan.
    """
    import pandas as pd

    if not by or set(by) - set(GROUPS):
        raise InvalidInput(f"A replay is grouped by one or more of {', '.join(GROUPS)}; got {', '.join(by) or '-'}.")
    if multiplier is not None:
        check_multiplier(multiplier)
    if limit != "own" and limit is not None and check_amount(limit, "monthly limit") < 0:
        raise InvalidInput("A monthly limit is 0 or more.")
    models: list[str] | None = None
    if plan is not None:
        with ledger.store.read(ledger.actor) as tx:
            found = plans.find(tx, plan)
            models = plans.models(tx, found.id)
            multiplier = found.multiplier if multiplier is None else multiplier
    start, end = (period.start, period.end) if period else (None, None)
    months = Period(start and start.replace(day=1, hour=0, minute=0, second=0, microsecond=0), end)
    priced, values = _priced(start, months, multiplier, models, prices or {}, org, key)
    own = "keys.monthly_limit" if limit == "own" else "NULL::BIGINT" if limit is None else f"{limit}::BIGINT"
    sums = ledger.df(priced + _SUMS.format(limit=own), values, period=months)
    within = sums[~sums["over"]].assign(refused=False)
    refused = ledger.sql(priced + _NOT_IN_PLAN, [*values, listed], period=months).to_pandas()
    over = sums[sums["over"]].reset_index(drop=True)
    if len(over):
        over["number"], over["place"] = over.index, over.groupby(["key_id", "month"]).ngroup()
        numbered = over[["key_id", "month", "model", "number", "place"]].fillna({"model": ""}).to_dict("records")
        judged, first = _judged(ledger.sql(priced + _IN_ORDER, [*values, numbered], period=months), over, listed)
        names = sums[_NAMES].drop_duplicates()
        within, refused = pd.concat([within, judged.merge(names, on="key_id")]), pd.concat([refused, first])
    return Replay(_spend(within, list(by)), _listed(refused, sums, listed))


def book_at(ledger: Ledger, moment: datetime) -> dict[str, PriceSheet]:
    """Return the price sheets of all models that are in force at a moment, to replay by; the moment may be to come."""
    sheets = {}
    with ledger.store.read(ledger.actor) as tx:
        for model in list_models(tx):
            entry = price_at(list_prices(tx, model.id), moment)
            if entry is not None:
                sheets[model.id] = PriceSheet.from_json(entry.sheet)
    return sheets


def _priced(
    start: datetime | None,
    months: Period,
    multiplier: int | None,
    models: list[str] | None,
    prices: Mapping[str, PriceSheet],
    org: str | None,
    key: str | None,
) -> tuple[str, list[Any]]:
    """Return the SQL of `priced`, each call with its new charge, and its values.

    Args:
        start: of the period; the calls of `months` before it only take room.
        months: from the first of a month on.
        multiplier, models, prices, org, key: the scenario, see `replay`.
    """
    values: list[Any] = []
    inside = planned = "true"
    if start is not None:
        inside = "admitted_at >= ?"
        values.append(start)
    if models is not None:
        planned = "coalesce(list_contains(?::VARCHAR[], model), false)"
        values.append(models)
    applied = "multiplier" if multiplier is None else str(multiplier)
    sheets, repriced = "", charge_sql(applied)
    if prices:
        sheets = (
            "LEFT JOIN (SELECT unnest(?, recursive := true)) AS sheet"
            " ON sheet_model = model AND input_tokens BETWEEN least_input AND most_input"
        )
        values.append([tier for model, sheet in prices.items() for tier in _tiers(model, sheet)])
        kinds = (*TOKENS, "request")
        repriced = charge_sql(applied, **{kind: f"coalesce(new_{kind}, {kind}_price)" for kind in kinds})
    where, bounds = condition(months, org_id=org, key_id=key)
    query = _PRICED.format(
        inside=inside, planned=planned, repriced=repriced, sheets=sheets, charged=CHARGED, where=where
    )
    return query, [*values, *bounds]


def _tiers(model: str, sheet: PriceSheet) -> list[dict[str, Any]]:
    """Return a sheet's tiers as rows, each with the least and the most input that it prices."""
    ends = [tier.above for tier in sheet.tiers[1:]] + [_ENDLESS]
    return [
        {
            "sheet_model": model,
            "least_input": tier.above + 1 if number else 0,
            "most_input": end,
            "new_input": tier.input,
            "new_cached_input": tier.cached_input,
            "new_cache_write_5m": tier.cache_write_5m,
            "new_cache_write_1h": tier.cache_write_1h,
            "new_output": tier.output,
            "new_request": sheet.request,
        }
        for number, (tier, end) in enumerate(zip(sheet.tiers, ends, strict=True))
    ]


def _judged(calls: "pa.Table", over: "pd.DataFrame", listed: int) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Judge the calls of months that are over their limit, one after the other.

    There may be millions: each has a number for what it shares with others.

    Args:
        calls: by month, then in order of admission.
        over: by number, what its calls share: key, model, whether it is planned, the place of their month, and what
            that month has left of its limit when the first of them comes.
        listed: most refused calls to list.

    Returns:
        The sums of calls, cost and repriced by what calls share and by refused; and the first refused calls, at least
        as many as are to be listed, but for those that are not in the plan.
    """
    import numpy as np
    import pyarrow as pa

    costs, numbers = calls.column("repriced").to_numpy(), calls.column("number").to_numpy()
    planned, places, rooms = (over[name].to_numpy() for name in ("planned", "place", "room"))
    refused = np.zeros(len(costs), dtype=bool)
    (judged,) = np.nonzero(planned[numbers])
    for month in np.split(judged, np.nonzero(np.diff(places[numbers[judged]]))[0] + 1):
        if len(month):
            refused[month] = over_limit(costs[month], int(rooms[numbers[month[0]]]))
    shared = over[["key_id", "model", "planned"]]
    calls = calls.append_column("refused", pa.array(refused))
    sums = calls.group_by(["number", "refused"]).aggregate([([], "count_all"), ("cost", "sum"), ("repriced", "sum")])
    sums = sums.rename_columns(["number", "refused", "calls", "cost", "repriced"]).to_pandas()
    (first,) = np.nonzero(refused)
    if len(first) > listed:
        moments = calls.column("admitted_at").to_numpy()[first]
        first = first[moments <= np.partition(moments, listed)[listed]]
    return sums.join(shared, on="number"), calls.take(first).to_pandas().join(shared, on="number")


def _spend(rows: "pd.DataFrame", by: list[str]) -> "pd.DataFrame":
    """Return `Replay.spend` from sums of calls that were judged alike."""
    out, late = ~rows["planned"].astype(bool), rows["refused"].astype(bool)
    rows["not_in_plan"], rows["over_limit"] = rows["calls"].where(out, 0), rows["calls"].where(late, 0)
    rows["refused"] = rows["repriced"].where(out | late, 0)
    columns = list(dict.fromkeys(column for name in by for column in DIMENSIONS[name]))
    figures = ["calls", "cost", "repriced", "not_in_plan", "over_limit", "refused"]
    spend = rows.groupby(columns, as_index=False, dropna=False)[figures].sum()
    spend["replayed"] = spend["repriced"] - spend["refused"]
    spend["difference"] = spend["replayed"] - spend["cost"]
    spend = spend.sort_values("cost", ascending=False, kind="stable")
    return spend.sort_values("difference", key=lambda values: -values.abs(), kind="stable", ignore_index=True)


def _listed(rows: "pd.DataFrame", sums: "pd.DataFrame", listed: int) -> "pd.DataFrame":
    """Return `Replay.refused` from refused calls."""
    rows = rows.sort_values(["admitted_at", "request_id"], ignore_index=True)[:listed]
    reasons = {True: str(RefusalType.API_KEY_QUOTA_EXCEEDED), False: str(RefusalType.MODEL_NOT_ALLOWED)}
    rows["refusal"] = rows["planned"].map(reasons)
    rows = rows.merge(sums[_NAMES].drop_duplicates(), on="key_id", how="left")
    return rows[["request_id", "admitted_at", *_NAMES, "model", "refusal", "cost", "repriced"]]


def over_limit(costs: "np.ndarray", room: int) -> "np.ndarray":
    """Return which calls a limit refuses, in order: those that cost more than what the ones before have left of it.

    Args:
        costs: int64 nano-USD, in order of admission; their sum must fit into 64 bits.
        room: what is left of the limit, in nano-USD; below zero when it was passed before.
    """
    import numpy as np

    refused: np.ndarray[Any, Any] = costs > 0
    start, window = 0, _WINDOW
    # Room only shrinks: of the calls ahead, those that exceed it by themselves are refused whatever happens. Of the
    # others a run fits, until one does not; the next run starts behind it with less room. Windows grow while all fits.
    while start < len(costs) and room > 0:
        ahead = costs[start : start + window]
        (candidates,) = np.nonzero((ahead > 0) & (ahead <= room))
        sums = ahead[candidates].cumsum()
        fit = int(sums.searchsorted(room, side="right"))
        refused[start + candidates[:fit]] = False
        room -= int(sums[fit - 1]) if fit else 0
        if fit < len(candidates):
            start, window = start + int(candidates[fit]) + 1, _WINDOW
        else:
            start, window = start + window, 2 * window
    return refused
