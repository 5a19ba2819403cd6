"""Tables of reports as an analyst reads them in a notebook, and figures in words. Pure over data frames."""

from collections.abc import Callable, Iterable
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from toolkit.core.money import NANO, show_usd

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

MISSING = "–"
"""What stands where a table has no value."""

_MINUS = "\N{MINUS SIGN}"


def sheet(
    frame: "pd.DataFrame",
    *,
    usd: Iterable[str] = (),
    share: Iterable[str] = (),
    day: Iterable[str] = (),
    nothing: str = "Nothing.",
) -> "Styler":
    """Return a table to be read: amounts in USD, whole numbers in groups of three, text on the left, no row numbers.

    Amounts are rounded one by one, so that rounded parts may differ from their rounded sum by a cent. Headings are the
    columns' names in words. A table that is wider than the page scrolls.

    Args:
        frame: of any columns; text is shown as it is, whatever it holds.
        usd: columns of nano-USD, each in cents, or finer if one of its amounts is below a cent.
        share: columns of shares, shown in percent.
        day: columns of moments that are told by their day; other moments are told to the minute, UTC.
        nothing: what is shown instead of a table without rows.
    """
    from pandas.api import types

    moments = [name for name in frame.columns if types.is_datetime64_any_dtype(frame[name])]
    formats: dict[Any, Any] = dict.fromkeys(moments, "{:%Y-%m-%d %H:%M}") | dict.fromkeys(day, "{:%Y-%m-%d}")
    formats |= {name: _amounts(frame[name]) for name in usd} | dict.fromkeys(share, "{:.1%}")
    text = frame.columns[[name not in formats and _is_text(frame[name]) for name in frame.columns]]
    styled = frame.style.format(formats, thousands=",", escape="html", na_rep=MISSING)
    styled.format_index(_heading, axis="columns", escape="html").hide(axis="index")
    styled.set_table_styles(
        [
            {"selector": "", "props": "display: block; max-width: 100%; overflow-x: auto"},
            {"selector": "td", "props": "vertical-align: top"},
            {"selector": "th", "props": "vertical-align: bottom"},
            {"selector": "caption", "props": "white-space: nowrap; text-align: left"},
        ]
    )
    styled.set_table_styles({name: [{"selector": "th", "props": "text-align: left"}] for name in text}, overwrite=False)
    if frame.empty:
        return styled.hide(axis="columns").set_caption(nothing)
    styled.set_properties(subset=frame.columns.difference(text), **{"white-space": "nowrap"})
    return styled.set_properties(subset=text, **{"text-align": "left", "white-space": "normal"})


def change(before: int, after: int) -> str:
    """Return how an amount in nano-USD changed: "$289.12 → $357.99: +$68.87, +24 %"."""
    difference = after - before
    sign = "+" if difference > 0 else _MINUS if difference < 0 else ""
    words = f"{show_usd(before)} → {show_usd(after)}: {sign}{show_usd(abs(difference))}"
    return f"{words}, {sign}{abs(round(Decimal(100 * difference) / before))} %" if before else words


def largest_in_words(frame: "pd.DataFrame", label: str, value: str = "cost", *, limit: int = 3) -> str:
    """Return the first rows of a table in words: "$92.32 on gpt-5, $3.10 on gpt-5-mini and 2 more".

    Args:
        frame: any table with the two columns; the rows that matter most first.
        label: column of names or days; "26 Oct $5.09" for days.
        value: column of nano-USD.
        limit: most rows to name.
    """
    rows = zip(frame[label], frame[value], strict=True)
    words = [
        f"{name:%d %b} {show_usd(int(nano))}" if isinstance(name, date) else f"{show_usd(int(nano))} on {name}"
        for name, nano in rows
    ]
    rest = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _heading(name: Any) -> str:
    """Return a column's name in words; that of a tag is the caller's own."""
    return str(name) if str(name).startswith("tag:") else str(name).replace("_", " ")


def _amounts(column: "pd.Series[Any]") -> Callable[[int], str]:
    """Return what writes the amounts of a column, all with as many decimals: those that the smallest one needs.

    What six decimals cannot show, such as the rounding of charges, adds none to a column that has more than that.
    """
    sizes = [abs(int(nano)) for nano in column.dropna() if nano]
    smallest = min([size for size in sizes if size >= 1000] or sizes, default=NANO)
    decimals = 2 if smallest >= NANO // 100 else 6 if smallest >= 1000 else 9

    def written(nano: int) -> str:
        text = show_usd(abs(nano), decimals)
        return f"{_MINUS}{text}" if nano < 0 and text.strip("$0.") else text

    return written


def _is_text(column: "pd.Series[Any]") -> bool:
    from pandas.api import types

    if types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        return False
    return not all(isinstance(value, Decimal | int | date) for value in column.dropna())
