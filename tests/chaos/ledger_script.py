"""The script: which row a producer writes as its first, its second, its n-th, in every column.

Since everybody can look that up, nothing need be recorded, and a reader knows to the nano-USD what a ledger says that
holds each producer's first so many rows. A request id ends with the producer and the row's number.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tests.chaos.stage import MODEL, Caller
from toolkit.core.moments import micros, moment
from toolkit.core.period import Period
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.ledger import segments, snapshot

if TYPE_CHECKING:
    import pyarrow as pa

PRODUCERS, ORGS = 3, 2
DAYS = [
    datetime(2026, month, day, tzinfo=UTC) for month, day in ((9, 30), (10, 1), (10, 31), (11, 1), (11, 21), (11, 22))
]
CHANCES = [0.04, 0.08, 0.04, 0.08, 0.12, 0.64]
"""How often a row is of each day: mostly of the last one, and many a late row of a day long drained and merged."""

FRESH, CACHED, OUTPUT = 2, 1, 7
"""Prices in nano-USD a token: whole ones, so that the script need not round."""

SHEET = PriceSheet.flat(input=FRESH * MILLION, cached_input=CACHED * MILLION, output=OUTPUT * MILLION)

HELD = 1_200_000
"""nano-USD: enough for most rows, so that some are overruns."""

TAGS = '{"team": "search"}'
UPSTREAM, PRICE, ENDPOINT = "witness", "price_of_the_script", "chat/completions"

_BLOCK = 4_096
_RUN = 64
"""Rows of one day that follow each other."""

_DAY = 86_400_000_000
_STEP = 100_000

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Slice:
    """Some of the rows: of a span of admission times, of one organisation, or all.

    Args:
        start, end: microseconds since 1970.
        org: its number.
    """

    start: int | None = None
    end: int | None = None
    org: int | None = None

    @property
    def period(self) -> Period | None:
        """The span as the ledger takes it."""
        if self.start is None and self.end is None:
            return None
        return Period(*(None if bound is None else moment(bound) for bound in (self.start, self.end)))

    @property
    def of_org(self) -> "Slice":
        """The same without the span."""
        return replace(self, start=None, end=None)

    @classmethod
    def of(cls, start: datetime, length: timedelta) -> "Slice":
        """Return a span of time."""
        return cls(micros(start), micros(start + length))


@dataclass(frozen=True)
class Members:
    """The rows of one producer that are in a slice, in order.

    Args:
        numbers: theirs.
        costs: `costs[n]` is what the first n of them cost together.
    """

    numbers: Numbers
    costs: Numbers

    def upto(self, number: int) -> int:
        """Return how many of them are among the producer's first `number` rows."""
        return int(np.searchsorted(self.numbers, number, "right"))


class Part:
    """What one producer writes.

    Args:
        producer: its number.
    """

    def __init__(self, producer: int) -> None:
        self.producer = producer
        self._blocks: list[dict[str, Numbers]] = []
        self._columns: dict[str, Numbers] = {}

    def columns(self, last: int) -> dict[str, Numbers]:
        """Return what is drawn for the rows up to number `last`; the first has the index 0."""
        while len(self._blocks) * _BLOCK < last:
            self._blocks.append(_block(self.producer, len(self._blocks)))
            self._columns = {}
        if not self._columns and self._blocks:
            self._columns = {name: np.concatenate([block[name] for block in self._blocks]) for name in self._blocks[0]}
        return {name: values[:last] for name, values in self._columns.items()}

    def members(self, of: Slice, last: int) -> Members:
        """Return those of the first `last` rows that are in a slice."""
        if last == 0:
            return Members(np.zeros(0, np.int64), np.zeros(1, np.int64))
        rows = self.columns(last)
        wanted = np.ones(last, bool)
        if of.start is not None:
            wanted &= rows["admitted_at"] >= of.start
        if of.end is not None:
            wanted &= rows["admitted_at"] < of.end
        if of.org is not None:
            wanted &= rows["org"] == of.org
        return Members(rows["number"][wanted], np.concatenate([[0], np.cumsum(rows["cost"][wanted])]))

    def request_id(self, number: int) -> str:
        """Return the id of a row."""
        return self._request_id(int(self.columns(number)["admitted_at"][-1]), number)

    def _request_id(self, at: int, number: int) -> str:
        return f"req_{at // 1000:012x}-{self.producer}-{number:09d}"

    def log(self, callers: tuple[Caller, ...], plan: str, first: int, last: int) -> "pa.Table":
        """Return the rows from number `first` to `last` as the request log must have them.

        Args:
            callers: the producer's keys, one of each organisation.
            plan: of the keys.
        """
        import pyarrow as pa

        rows = {name: values[first - 1 :] for name, values in self.columns(last).items()}
        count = last - first + 1
        orgs, flags = rows["org"].tolist(), rows["flags"]
        same: dict[str, Any] = {
            "plan_id": plan,
            "outcome": "completed",
            "status": 200,
            "dialect": "openai",
            "endpoint": ENDPOINT,
            "model": MODEL,
            "upstream": UPSTREAM,
            "usage_source": "reported",
            "cache_write_5m_tokens": 0,
            "cache_write_1h_tokens": 0,
            "price_id": PRICE,
            "multiplier": MILLION,
            "input_price": FRESH * MILLION,
            "cached_input_price": CACHED * MILLION,
            "cache_write_5m_price": FRESH * MILLION,
            "cache_write_1h_price": FRESH * MILLION,
            "output_price": OUTPUT * MILLION,
            "request_price": 0,
            "held": HELD,
            "resent": False,
        }
        values: dict[str, Any] = {name: [value] * count for name, value in same.items()} | {
            "request_id": [
                self._request_id(at, number)
                for at, number in zip(rows["admitted_at"].tolist(), rows["number"].tolist(), strict=True)
            ],
            "org_id": [callers[org].org_id for org in orgs],
            "key_id": [callers[org].key_id for org in orgs],
            "admitted_at": rows["admitted_at"],
            "settled_at": rows["admitted_at"] + rows["duration_ms"] * 1000,
            "stream": flags & 1 == 1,
            "response_id": [f"chatcmpl-{cost:x}" for cost in rows["cost"].tolist()],
            "input_tokens": rows["input_tokens"],
            "cached_input_tokens": rows["cached_input_tokens"],
            "output_tokens": rows["output_tokens"],
            "reasoning_tokens": rows["output_tokens"] // 2,
            "cost": rows["cost"],
            "overrun": np.maximum(rows["cost"] - HELD, 0),
            "first_byte_ms": [None if flag & 2 else flag for flag in flags.tolist()],
            "duration_ms": rows["duration_ms"],
            "tags": [TAGS if flag & 4 else None for flag in flags.tolist()],
        }
        schema = segments.arrow_schema(snapshot.OUTBOX)
        nothing = [None] * count
        return pa.Table.from_arrays(
            [pa.array(values.get(field.name, nothing), field.type) for field in schema], schema=schema
        )


@cache
def part(producer: int) -> Part:
    """Return what a producer writes; one of each is kept, since it is dear to draw."""
    return Part(producer)


def _block(producer: int, index: int) -> dict[str, Numbers]:
    chance = np.random.default_rng([producer, index])
    number = np.arange(index * _BLOCK + 1, (index + 1) * _BLOCK + 1)
    starts = np.array([micros(day) for day in DAYS])
    day = np.repeat(chance.choice(len(DAYS), _BLOCK // _RUN, p=CHANCES), _RUN)
    fresh = chance.integers(1, 200_000, _BLOCK)
    cached = chance.integers(0, 2, _BLOCK) * chance.integers(1, 9_999, _BLOCK)
    output = chance.integers(0, 130_000, _BLOCK)
    return {
        "number": number,
        "admitted_at": starts[day] + (number * _STEP + producer) % _DAY,
        "org": (chance.random(_BLOCK) < 0.3).astype(np.int64),
        "flags": chance.integers(0, 256, _BLOCK),
        "input_tokens": fresh + cached,
        "cached_input_tokens": cached,
        "output_tokens": output,
        "duration_ms": chance.integers(1, 60_000, _BLOCK),
        "cost": FRESH * fresh + CACHED * cached + OUTPUT * output,
    }
