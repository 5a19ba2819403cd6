"""Tables, labelled facts and JSON. What a value is decides how it looks; the caller never formats."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from toolkit.core.marked import Multiplier, Price, Usd
from toolkit.core.money import show_usd, usd
from toolkit.core.pricing import show_multiplier

if TYPE_CHECKING:
    import pandas as pd


_CONTROLS = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Beyond those that JSON writes as escapes itself: C1 controls, other line ends, and turns of the writing direction."""


def records(frame: "pd.DataFrame", money: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return a report's rows as mappings; what is missing is None.

    Args:
        frame: the report.
        money: columns in nano-USD; like those of prices, they say so in their names and values.
    """
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [dict(_field(str(name), value, money) for name, value in row.items()) for row in rows]


def _field(name: str, value: Any, money: Collection[str]) -> tuple[str, Any]:
    if name in money:
        return f"{name}_usd", None if value is None else Usd(value)
    if name.endswith("_price"):
        return f"{name}_usd", Price(value)
    if isinstance(value, Decimal):
        return name, str(value)
    return name, Multiplier(value) if name == "multiplier" else value


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: money as decimal strings in USD, moments in ISO 8601."""
    if isinstance(value, Usd):
        return usd(value)
    if isinstance(value, Multiplier):
        return show_multiplier(value).removesuffix("×")
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    return value


def to_json(value: Mapping[str, Any] | list[Any]) -> str:
    """Return an object or a list as indented JSON, without characters that a terminal would obey."""
    written = json.dumps(_plain(value), indent=2, ensure_ascii=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def text(value: Any) -> str:
    """Return a value for people, on one line. Control characters, which could move the cursor, become spaces."""
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Price):
        return f"${usd(value)}"
    if isinstance(value, Usd):
        return show_usd(value)
    if isinstance(value, Multiplier):
        return show_multiplier(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return "".join(character if character.isprintable() else " " for character in str(value))


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], total: Mapping[str, Any] | None = None) -> str:
    """Return rows as an aligned table: numbers to the right, the rest to the left.

    Args:
        rows: at least one.
        columns: field → heading, in order.
        total: values of a last line, for some of the fields.
    """
    cells = [[text(row[field]) for field in columns] for row in rows]
    last = [text(total[field]) if field in total else "" for field in columns] if total else []
    headings = [heading.upper() for heading in columns.values()]
    widths = [max(map(len, column)) for column in zip(headings, *cells, *([last] if last else []), strict=True)]
    to_right = [
        all(row[field] is None or isinstance(row[field], int) for row in rows)
        and any(row[field] is not None for row in rows)
        for field in columns
    ]

    def line(texts: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(texts, widths, to_right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    lines = [click.style(line(headings), dim=True), *map(line, cells)]
    if last:
        lines.append(click.style(line(last), bold=True))
    return "\n".join(lines)


def labelled(facts: Mapping[str, Any]) -> str:
    """Return facts as aligned lines, one `label  value` each. Labels are the field names in plain words."""
    labels = [name.removesuffix("_usd").replace("_", " ") for name in facts]
    width = max(map(len, labels), default=0)
    return "\n".join(
        f"  {click.style(label.ljust(width), dim=True)}  {text(value)}"
        for label, value in zip(labels, facts.values(), strict=True)
    )


def headings(by: Sequence[str]) -> dict[str, str]:
    """Return the columns of a report's dimensions for people: field → heading."""
    known = {
        "key": {"key_label": "key", "org": "organisation"},
        "org": {"org": "organisation"},
        "hour": {"hour": "hour (UTC)"},
        "day": {"day": "day (UTC)"},
        "week": {"week": "week from (UTC)"},
    }
    return {field: heading for name in by for field, heading in known.get(name, {name: name}).items()}


def total_of(rows: Sequence[Mapping[str, Any]], first: str, sums: Sequence[str]) -> dict[str, Any]:
    """Return the last line of a table: "total" in its first column, and the sums of some others."""
    sums_of = {name: sum(row[name] for row in rows) for name in sums}
    return {first: "total"} | {name: Usd(n) if name.endswith("_usd") else n for name, n in sums_of.items()}


def days_of(count: int) -> str:
    """Return a number of days in words."""
    return "1 day" if count == 1 else f"{count} days"
