"""Attribution: why spend is what it is. Movers between two periods, use of limits, cache savings, unit costs.

Pure over a `Ledger`. Money is int64 nano-USD, and every split sums exactly: no part of a difference is lost to
rounding. `docs/attribution.md` has an example by hand.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from toolkit.admin.prices import list_prices
from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import CHARGED, TOKENS, charge_sql, half_even
from toolkit.reports.dimensions import TIMES, chosen, condition, grouped, ordered, with_decimals
from toolkit.reports.variance import Effects, Side, split

if TYPE_CHECKING:
    import pandas as pd

_KINDS = (*TOKENS, "request")


def movers(
    ledger: Ledger,
    before: Period,
    after: Period,
    by: str | Sequence[str] = "key",
    *,
    org: str | None = None,
    key: str | None = None,
) -> "pd.DataFrame":
    """Return whose spend moved between two periods, and why: each difference split into four effects that sum to it.

    The effects are `volume` (more calls or fewer), `mix` (other calls: models, sizes, cache hits), `price` and
    `multiplier`; `variance` defines them. A row without calls before is `new`, one without calls after `gone`:
    all of it is volume.

    Args:
        ledger: whose actor's rows count.
        before: the earlier period, by admission.
        after: the later one.
        by: one or more of `dimensions.DIMENSIONS` that are no times, or `tag:NAME`.
        org: id or name, to count that organisation alone.
        key: id or name, to count that key alone; a deleted one by its id.

    Returns:
        The dimensions' columns, status (new, gone or kept), calls_before and calls_after (charged ones), before, after,
        difference (after − before), volume, mix, price and multiplier (nano-USD); the largest difference first, up or
        down. The columns' sums are those of all calls. Volume and mix of the sum depend on `by`: what shifts between
        two rows is volume of each.

    Raises:
        InvalidInput: no dimension, an unknown one, one twice, or a time.
    """
    import pandas as pd

    by = [by] if isinstance(by, str) else list(by)
    columns = grouped("A comparison of periods", by)
    if times := [name for name in by if name in TIMES]:
        raise InvalidInput(f"Two periods are not compared by {times[0]}: give the periods themselves.")
    lots = _lots(ledger, columns, (before, after), org, key)
    names = list(lots.columns[: list(lots.columns).index("period")])
    rows = [
        dict(zip(names, group, strict=True)) | _facts(*_sides(of_group))
        for group, of_group in groupby(_tuples(lots), key=lambda lot: lot[: len(names)])
    ]
    figures = ["calls_before", "calls_after", "before", "after", "difference", *Effects._fields]
    frame = pd.DataFrame(rows, columns=[*names, "status", *figures]).astype(dict.fromkeys(figures, "int64"))
    # The rows are in order of their names; where differences are alike they stay so.
    return frame.sort_values("difference", key=lambda values: -values.abs(), kind="stable", ignore_index=True)


def _facts(before: Side, after: Side) -> dict[str, Any]:
    """Return what `movers` says of a row."""
    return {
        "status": "kept" if before.calls and after.calls else "new" if after.calls else "gone",
        "calls_before": before.calls,
        "calls_after": after.calls,
        "before": before.cost,
        "after": after.cost,
        "difference": after.cost - before.cost,
    } | split(before, after)._asdict()


def preceding(period: Period) -> Period:
    """Return the period of the same length that ends where this one starts.

    Spans of whole months are preceded by as many months, whatever their days: November by October.

    Raises:
        InvalidInput: the period is open, or so long that the calendar begins after the one before it would.
    """
    start, end = period.start, period.end
    if start is None or end is None:
        raise InvalidInput("Only a period with start and end has one before it.")
    try:
        if _begins_month(start) and _begins_month(end):
            months = 12 * (end.year - start.year) + end.month - start.month
            year, month = divmod(12 * start.year + start.month - 1 - months, 12)
            return Period(start.replace(year=year, month=month + 1), start)
        return Period(start - (end - start), start)
    except (ValueError, OverflowError):  # a year before the first
        raise InvalidInput(f"No period as long as this one can end on {start.date()}, where it starts.") from None


def caveats(ledger: Ledger, before: Period, after: Period, *, org: str | None = None) -> list[str]:
    """Return what to mind when two periods are compared, a sentence each; nothing if they are alike.

    A period that began before the first call of all, one that is not over and one that is longer than the other have
    a difference that nobody caused.

    Args:
        ledger: whose actor's rows count.
        before: the earlier period, by admission.
        after: the later one.
        org: id or name, to look at that organisation's calls alone.
    """
    where, values = condition(None, None, **chosen(ledger, org))
    first = ledger.sql(f"SELECT min(admitted_at) AS first FROM usage WHERE {where}", values)["first"][0].as_py()
    with ledger.store.read(ledger.actor) as tx:
        now = tx.now
    found = []
    if first is not None and before.end is not None and first >= before.end:
        found.append(f"The earlier period has no calls: the first of all came on {first:%Y-%m-%d}.")
    elif first is not None and before.start is not None and first.date() > before.start.date():
        found.append(
            f"The earlier period is not whole: it begins on {before.start:%Y-%m-%d}, and the first call of all came on "
            f"{first:%Y-%m-%d}. Much of the difference may be only that."
        )
    if after.end is not None and now < after.end:
        found.append(f"The later period is not over: it ends at {after.end:%Y-%m-%d %H:%M} UTC.")
    lengths = [period.end - period.start for period in (before, after) if period.start and period.end]
    if len(set(lengths)) > 1:
        days = [f"{length / timedelta(days=1):.3g}" for length in lengths]
        found.append(f"The periods differ in length: {days[0]} days before, {days[1]} after.")
    return found


def _begins_month(moment: datetime) -> bool:
    return moment == moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _lots(
    ledger: Ledger, columns: list[str], periods: tuple[Period, Period], org: str | None, key: str | None
) -> "pd.DataFrame":
    """Return the charged calls of both periods, summed up where dimensions, cell, prices and multiplier agree."""
    size, models = _size(ledger)
    prices = ", ".join(f"{kind}_price" for kind in _KINDS)
    tokens = ", ".join(f"sum({count})::BIGINT" for count in TOKENS.values())
    mine = chosen(ledger, org, key)
    parts, values = [], []
    for number, period in enumerate(periods):
        where, bounds = condition(period, None, **mine)
        parts.append(
            f"SELECT {', '.join(columns)}, {number} AS period, key_id AS cell_key, model AS cell_model, {size} AS size,"
            f" count(*) AS calls, sum(cost)::BIGINT AS cost, multiplier, {prices}, {tokens}, {MILLION} * count(*)"
            f" FROM usage WHERE {CHARGED} AND {where} GROUP BY ALL"
        )
        values += [*models, *bounds]
    both = Period.spanning(*periods)
    return ledger.df(f"{' UNION ALL '.join(parts)} ORDER BY ALL", values, period=both)


def _size(ledger: Ledger) -> tuple[str, list[str]]:
    """Return SQL for the size of a call's input, and its values: how many thresholds of its model it exceeds."""
    thresholds: dict[str, set[int]] = {}
    with ledger.store.read(ledger.actor) as tx:
        for entry in list_prices(tx):
            above = {tier.above for tier in PriceSheet.from_json(entry.sheet).tiers[1:]}
            if above:
                thresholds.setdefault(entry.model_id, set()).update(above)
    if not thresholds:
        return "0", []
    sizes = [" + ".join(f"(input_tokens > {above})::INTEGER" for above in sorted(t)) for t in thresholds.values()]
    return f"CASE model {' '.join(f'WHEN ? THEN {size}' for size in sizes)} ELSE 0 END", list(thresholds)


def _tuples(frame: "pd.DataFrame") -> Iterator[tuple[Any, ...]]:
    """Yield the rows as tuples of Python's own values: sums of products exceed 64 bits."""
    return zip(*(frame[name].astype(object).tolist() for name in frame.columns), strict=True)


def _sides(lots: Iterator[tuple[Any, ...]]) -> tuple[Side, Side]:
    """Return one row's calls, before and after."""
    kinds = len(_KINDS)
    sides = Side(), Side()
    for lot in lots:
        *_, period, key, model, size, calls, cost, multiplier = lot[: -2 * kinds]
        prices, tokens = lot[-2 * kinds : -kinds], lot[-kinds:]
        sides[period].add((key, model, size), calls, cost, tokens, prices, multiplier)
    return sides


def cumulative(ledger: Ledger, month: str, *, org: str | None = None, key: str | None = None) -> "pd.DataFrame":
    """Return what each key has spent of its monthly limit, day by day of a billing month.

    The limit is that of today: one that was changed since is not the one that calls were judged by.

    Args:
        ledger: whose actor's rows count.
        month: billing month, such as "2026-11".
        org: id or name, to count that organisation alone.
        key: id or name, to count that key alone; a deleted one by its id.

    Returns:
        key_id, key, key_label, org, day, cost (of that day) and spent (from the first of the month up to and including
        that day), monthly_limit (Int64, missing for none), all in nano-USD, and share (spent ÷ limit, a Decimal
        rounded down to four decimals, so that 1 means reached; None without a limit or with one of 0). Every key that
        was called has a row for each day, up to the last day with a call of any of them.

    Raises:
        InvalidInput: not a month.
    """
    where, values = condition(Period.month(month), None, **chosen(ledger, org, key))
    frame = ledger.df(
        f"""
        WITH daily AS (
            SELECT key_id, key, key_label, org, day, sum(cost)::BIGINT AS cost FROM usage WHERE {where} GROUP BY ALL
        ), days AS (
            SELECT unnest(generate_series(?::DATE, (SELECT max(day) FROM daily), INTERVAL 1 DAY))::DATE AS day
        ), filled AS (
            SELECT names.*, days.day, coalesce(daily.cost, 0) AS cost,
                   sum(coalesce(daily.cost, 0)) OVER (PARTITION BY names.key_id ORDER BY days.day) AS spent
            FROM (SELECT DISTINCT key_id, key, key_label, org FROM daily) AS names CROSS JOIN days
            LEFT JOIN daily ON daily.key_id = names.key_id AND daily.day = days.day
        )
        SELECT key_id, key, key_label, org, day, cost, spent::BIGINT AS spent, keys.monthly_limit,
               (10000 * filled.spent // nullif(keys.monthly_limit, 0))::BIGINT AS share
        FROM filled LEFT JOIN keys ON keys.id = filled.key_id
        ORDER BY max(filled.spent) OVER (PARTITION BY key_id) DESC, key_id, day
        """,
        [*values, f"{month}-01"],
        period=Period.month(month),
    )
    frame["monthly_limit"] = frame["monthly_limit"].astype("Int64")
    return with_decimals(frame, "share", 4)


def cache_savings(
    ledger: Ledger,
    by: Sequence[str] = ("key", "model"),
    period: Period | None = None,
    *,
    org: str | None = None,
    key: str | None = None,
) -> "pd.DataFrame":
    """Return what the providers' caches saved, and what writing to them cost on top.

    Each call is charged anew as if its cached input had been fresh, and as if it had written to no cache either, by
    the prices and the multiplier that were applied, and rounded as the call itself was. So saved − surcharge is exactly
    what the calls would have cost without any cache, less what they cost.

    Args:
        ledger: whose actor's rows count.
        by: one or more of `dimensions.DIMENSIONS`, or `tag:NAME`.
        period: by admission; everything by default.
        org: id or name, to count that organisation alone.
        key: id or name, to count that key alone; a deleted one by its id.

    Returns:
        The dimensions' columns, charged_calls, input_tokens, cached_input_tokens, cache_write_tokens, hit_rate
        (cached ÷ input tokens, a Decimal rounded down to four decimals; None without input), and in nano-USD cost,
        saved (cached input at the price of input, less what it cost), surcharge (cache writes, less the price of
        input; below zero where a write is cheaper) and net (saved − surcharge); in order of time if the first
        dimension is one, else the largest net first.

    Raises:
        InvalidInput: no dimension, an unknown one, or one twice.
    """
    columns = grouped("Cache savings", by)
    where, values = condition(period, None, **chosen(ledger, org, key))
    without_reads = charge_sql(cached_input="input_price")
    without_cache = charge_sql(cached_input="input_price", cache_write_5m="input_price", cache_write_1h="input_price")
    writes = "cache_write_5m_tokens + cache_write_1h_tokens"
    surcharge = f"CASE WHEN {writes} > 0 THEN {without_reads} - {without_cache} ELSE 0 END"  # few calls write
    frame = ledger.df(
        f"""
        SELECT {", ".join(columns)}, count(*) AS charged_calls, sum(input_tokens)::BIGINT AS input_tokens,
               sum(cached_input_tokens)::BIGINT AS cached_input_tokens,
               sum({writes})::BIGINT AS cache_write_tokens,
               (10000 * sum(cached_input_tokens) // nullif(sum(input_tokens), 0))::BIGINT AS hit_rate,
               sum(cost)::BIGINT AS cost, sum({without_reads} - cost)::BIGINT AS saved,
               sum({surcharge})::BIGINT AS surcharge, (saved - surcharge)::BIGINT AS net
        FROM usage WHERE {CHARGED} AND {where} GROUP BY ALL ORDER BY {ordered(by, columns, "net DESC")}
        """,
        values,
        period=period,
    )
    return with_decimals(frame, "hit_rate", 4)


def unit_costs(
    ledger: Ledger,
    by: Sequence[str] = ("key", "model"),
    period: Period | None = None,
    *,
    org: str | None = None,
    key: str | None = None,
) -> "pd.DataFrame":
    """Return what a call, and what a thousand output tokens cost.

    Args:
        ledger: whose actor's rows count.
        by: one or more of `dimensions.DIMENSIONS`, or `tag:NAME`.
        period: by admission; everything by default.
        org: id or name, to count that organisation alone.
        key: id or name, to count that key alone; a deleted one by its id.

    Returns:
        The dimensions' columns, charged_calls, output_tokens, cost, per_call and per_thousand_output (nano-USD,
        rounded half to even; the whole cost, input included, over the output; Int64, missing without output); in order
        of time if the first dimension is one, else the costliest first.

    Raises:
        InvalidInput: no dimension, an unknown one, or one twice.
    """
    columns = grouped("Unit costs", by)
    where, values = condition(period, None, **chosen(ledger, org, key))
    frame = ledger.df(
        f"""
        SELECT {", ".join(columns)}, count(*) AS charged_calls, sum(output_tokens)::BIGINT AS output_tokens,
               sum(cost)::BIGINT AS cost, {half_even("sum(cost)", "count(*)")}::BIGINT AS per_call,
               {half_even("1000 * sum(cost)", "nullif(sum(output_tokens), 0)")}::BIGINT AS per_thousand_output
        FROM usage WHERE {CHARGED} AND {where} GROUP BY ALL ORDER BY {ordered(by, columns, "cost DESC")}
        """,
        values,
        period=period,
    )
    return frame.astype({"per_thousand_output": "Int64"})
