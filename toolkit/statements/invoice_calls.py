"""What a provider should bill us for: our calls at an upstream, each alone or summed by model, at list price.

Money is counted in 10⁻¹⁵ USD: a token times a price in nano-USD per million tokens is a whole number of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

from toolkit.core.period import Period
from toolkit.core.policy import Outcome
from toolkit.core.usage import UsageSource
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import ADMITTED, CHARGED, TOKENS, charge_sql
from toolkit.statements.invoice_lines import KINDS

_NANO = 10**6  # parts of 10⁻¹⁵ USD, in which everything is counted
_UNFINISHED = f"outcome IN ('{Outcome.ABORTED}', '{Outcome.ABANDONED}', '{Outcome.UPSTREAM_ERROR}')"
_ESTIMATED = f"(usage_source = '{UsageSource.ESTIMATED}' AND NOT {_UNFINISHED})"
_HELD = f"coalesce(held::HUGEINT * 1000000 // nullif(multiplier, 0), {2**62})"  # at list price


@dataclass(slots=True)
class OurCalls:
    """One call of ours or many: counts and sums, money in 10⁻¹⁵ USD."""

    name: str
    model: str
    response_id: str | None
    day: date | None
    calls: int
    cost: int
    exact: int
    tokens: list[int]
    values: list[int]  # tokens × price
    prices: list[int]  # sums of the prices of `priced` calls
    priced: int
    unfinished: tuple[int, int]  # the least and the most that real usage may add to what we charged
    estimated: tuple[int, int]

    def add(self, other: "OurCalls") -> None:
        """Take in the calls of another."""
        self.calls += other.calls
        self.cost += other.cost
        self.exact += other.exact
        self.priced += other.priced
        for mine, theirs in ((self.tokens, other.tokens), (self.values, other.values), (self.prices, other.prices)):
            mine[:] = map(int.__add__, mine, theirs)
        self.unfinished = (self.unfinished[0] + other.unfinished[0], self.unfinished[1] + other.unfinished[1])
        self.estimated = (self.estimated[0] + other.estimated[0], self.estimated[1] + other.estimated[1])

    def worth(self, tokens: list[int]) -> int | None:
        """Return what a provider's counts of tokens, by `KINDS`, would cost instead of ours, at our prices.

        In 10⁻¹⁵ USD; None if a price is needed that no call of ours tells.
        """
        worth = Fraction(self.exact)
        for kind, (theirs, mine) in enumerate(zip(tokens, self.tokens, strict=True)):
            if theirs != mine:
                price = self._price(kind)
                if price is None:
                    return None
                worth += (theirs - mine) * price
        return round(worth)

    def _price(self, kind: int) -> Fraction | None:
        """Return the mean price of a kind of tokens, per token; None if no call of ours tells it."""
        if self.tokens[kind]:
            return Fraction(self.values[kind], self.tokens[kind])
        return Fraction(self.prices[kind], self.priced) if self.priced else None


def our_calls(
    ledger: Ledger, upstream: str, period: Period, named: Mapping[str, str], *, by_call: bool
) -> Iterator[OurCalls]:
    """Yield our calls, each alone or summed by model."""
    where, values = period.where()
    exact = charge_sql("1000000::HUGEINT * 1000000")  # in the unit that all is counted in: nothing is rounded
    cost = charge_sql("1000000")
    more = f"greatest({_HELD} - {cost}, 0)"

    def text(value: str, condition: str = "true") -> str:  # 128 bits do not fit into Arrow's integers
        return f"coalesce(sum({value}) FILTER ({condition}), 0)::VARCHAR"

    sums = [text("1"), text(cost), text(exact)]
    sums += [text(TOKENS[kind]) for kind in KINDS]
    sums += [text(f"{TOKENS[kind]}::HUGEINT * {kind}_price") for kind in KINDS]
    sums += [text(f"{kind}_price", CHARGED) for kind in KINDS]
    sums += [text("1", CHARGED)]
    sums += [text(value, which) for which in (_UNFINISHED, _ESTIMATED) for value in (f"-{cost}", more)]
    model, names = "coalesce(model, '') AS model", ""
    if by_call:
        model = "min(coalesce(model, '')) AS model"
        names = ", coalesce(response_id, request_id) AS call, min(response_id) AS response_id, min(day) AS day"
    table = ledger.sql(
        f"SELECT {', '.join([model, *sums])}{names}"
        f" FROM usage WHERE {ADMITTED} AND upstream = ? AND {where}"
        f" GROUP BY ALL ORDER BY {'call' if by_call else 'model'}",
        [upstream, *values],
        period=period,
    )
    for batch in table.to_batches(10_000):
        for name, *row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            n, rest = [int(value) for value in row[: len(sums)]], row[len(sums) :]
            call, response_id, day = rest or ("", None, None)
            yield OurCalls(
                name=call,
                model=named.get(name, name),
                response_id=response_id,
                day=day,
                calls=n[0],
                cost=n[1] * _NANO,
                exact=n[2],
                tokens=n[3:8],
                values=n[8:13],
                prices=n[13:18],
                priced=n[18],
                unfinished=(n[19] * _NANO, n[20] * _NANO),
                estimated=(n[21] * _NANO, n[22] * _NANO),
            )
