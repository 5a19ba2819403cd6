"""A provider's invoice or usage export, read from CSV: which column is which, and what each line says. Pure.

Providers name their columns as they like; the usual names are known, and any other can be named. What cannot be read
is an error that names the line, the column and the fix: a line that is skipped is a gap that nobody sees.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal

from toolkit.core.errors import InvalidInput
from toolkit.statements.invoice_columns import places_of

UNIT = 10**15
"""Parts of a USD that amounts are kept in: a token times a price in nano-USD per million tokens is a whole number."""

KINDS = ("input", "cached_input", "cache_write_5m", "cache_write_1h", "output")
"""Tokens that are priced apart. `input` is what was neither read from nor written to a cache."""

_TOTALS = frozenset({"total", "totals", "sum", "subtotal", "grand total"})

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")

_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")

_WITH_COMMAS = re.compile(r"[+-]?[0-9.]*,[0-9.,]*")

_CURRENCY = re.compile(r"^([+-]?)(\$|USD)\s*|\s*(\$|USD)$")

_EPOCH = re.compile(r"[0-9]{10}([0-9]{3})?")

_MOST_DECIMALS = 15

_LARGEST = 9 * 10**9

_EXACT = Context(prec=60)


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """A line of an invoice.

    Args:
        number: of the line in the file; the heading is line 1.
        day: UTC, if the invoice has days.
        model: the provider's name of it.
        response_id: the provider's id of the answer, if the invoice has them.
        tokens: by `KINDS`; None where the invoice has no such column. `input` may include cached and cache-written
            tokens: `Invoice.input_has_cached` says so.
        amount: what is billed, in 10⁻¹⁵ USD; below zero for a refund.
    """

    number: int
    day: date | None
    model: str
    response_id: str | None
    tokens: tuple[int | None, ...]
    amount: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """What was read.

    Args:
        lines: in the file's order.
        columns: field → heading that it was read from.
        input_has_cached: whether `input` includes cached tokens, if the headings tell.
        last_place: one unit in the last decimal place that amounts are written to, in 10⁻¹⁵ USD.
    """

    lines: list[InvoiceLine]
    columns: dict[str, str]
    input_has_cached: bool | None
    last_place: int


def read(text: str, *, columns: Mapping[str, str] | None = None) -> Invoice:
    """Read an invoice.

    Args:
        text: CSV with a heading, separated by commas, semicolons or tabs. Amounts are in USD, with a decimal point;
            a comma may group thousands where commas separate the cells, for then it can mean nothing else.
        columns: field (one of `NAMES`) → heading, for those that are not known by their heading.

    Raises:
        InvalidInput: what is not there, cannot be read or could mean two things; says where and what to do.
    """
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        heading = next(reader, [])
        places = places_of(heading, columns or {})
        lines, decimals = [], 0
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = _Row(reader.line_num, heading, places, cells, grouped=delimiter == ",")
                lines.append(row.line())
                decimals = max(decimals, row.decimals)
    except csv.Error as error:
        raise InvalidInput(f"Line {reader.line_num} is not CSV: {error}. Export the invoice as CSV anew.") from None
    if not lines:
        raise InvalidInput("The invoice has no lines below its heading.")
    return Invoice(
        lines,
        {field: heading[place] for field, place in places.items()},
        False if "fresh_input_tokens" in places else None,
        UNIT // 10 ** min(decimals, _MOST_DECIMALS),
    )


class _Row:
    """One row of the file, while it is read."""

    def __init__(
        self, number: int, heading: list[str], places: Mapping[str, int], cells: list[str], *, grouped: bool
    ) -> None:
        if len(cells) != len(heading):
            raise InvalidInput(
                f"Line {number} has {len(cells)} cells, the heading {len(heading)}. Look for a separator in a name "
                "that is not quoted, or a line that is no part of the table."
            )
        self.number = number
        self.decimals = 0
        self._heading = heading
        self._places = places
        self._cells = cells
        self._grouped = grouped

    def line(self) -> InvoiceLine:
        """Return what the row says."""
        currency = self._text("currency")
        if currency and currency.upper() != "USD":
            raise self._wrong("currency", "is not USD. Convert the amounts first, at the rate you paid")
        model = self._text("model")
        if not model or model.lower() in _TOTALS:
            raise self._wrong("model", "names no model. Take lines that are sums out, or name what was billed")
        tokens = (
            self._tokens("input_tokens") if "input_tokens" in self._places else self._tokens("fresh_input_tokens"),
            *(self._tokens(f"{kind}_tokens") for kind in ("cached", "cache_write_5m", "cache_write_1h", "output")),
        )
        return InvoiceLine(self.number, self._day(), model, self._text("response_id") or None, tokens, self._amount())

    def _text(self, field: str) -> str:
        return self._cells[self._places[field]].strip() if field in self._places else ""

    def _wrong(self, field: str, what: str) -> InvalidInput:
        name = self._heading[self._places[field]]
        return InvalidInput(f"Line {self.number}, column {name!r}: {self._text(field)!r} {what}.")

    def _day(self) -> date | None:
        text = self._text("date")
        if "date" not in self._places:
            return None
        try:
            if _EPOCH.fullmatch(text):
                return datetime.fromtimestamp(int(text[:10]), UTC).date()
            moment = datetime.fromisoformat(text)
            return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
        except (ValueError, OverflowError):
            raise self._wrong("date", "is not a day. Write it like 2026-10-05 or 2026-10-05T14:00:00Z") from None

    def _number(self, field: str, text: str, wanted: str) -> Decimal:
        """Return a number with a decimal point. A comma that may be another one is no reason to guess."""
        if self._grouped and _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        if _WITH_COMMAS.fullmatch(text):
            raise self._wrong(
                field,
                "could mean two things, for its comma may group thousands or begin the decimals: write it as 1234.50, "
                "with a point and nothing between thousands",
            )
        if not _NUMBER.fullmatch(text):
            raise self._wrong(field, wanted)
        return Decimal(text)

    def _tokens(self, field: str) -> int | None:
        if field not in self._places:
            return None
        count = self._number(field, self._text(field) or "0", "is not a number of tokens. Write it like 1250")
        if count < 0 or count != count.to_integral_value() or count > UNIT:
            raise self._wrong(field, "is not a number of tokens: it must be whole and not below zero")
        return int(count)

    def _amount(self) -> int:
        text = _CURRENCY.sub(r"\1", self._text("amount"))
        amount = self._number("amount", text, "is not an amount. Write it in USD, with a point: 12.50")
        if abs(amount) > _LARGEST:
            raise self._wrong("amount", "is out of range")
        exponent = amount.as_tuple().exponent
        self.decimals = max(-exponent, 0) if isinstance(exponent, int) else 0
        # Some exports write binary fractions in full; what is beyond 15 decimals is no money.
        return int(_EXACT.multiply(amount, UNIT).to_integral_value(ROUND_HALF_EVEN))
