"""The table of a page: Streamlit's own, with its sorting, search and keyboard, and a CSV of all its rows."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from toolkit.core.marked import Multiplier, Price, Share, Usd
from toolkit.core.money import NANO, usd
from toolkit.core.pricing import MILLION, show_multiplier
from toolkit.core.spreadsheet import FORMULA

CENTS, FINEST = 2, 6
"""Decimals of amounts: of usual ones, and of the least that are still told apart in a table."""
TALLEST = 640
"""Pixels of a table; longer ones scroll in themselves."""
_ROW = 35


def draw(
    rows: Sequence[Mapping[str, Any]],
    *,
    key: str,
    alt: str,
    on_open: Callable[[int], None] | None,
) -> None:
    """Draw rows, of which one can be chosen to be opened, and below them the button for their CSV.

    Args:
        rows: at least one; each has the columns' headings as keys, in their order. What a value is decides how it
            looks (None is empty): a moment is shown as how long ago it was, with a column "… (UTC)" at the end; money
            (`core.marked`) has one precision in its column, and is exact in the CSV.
        key: of the widget, and name of the file.
        alt: what the rows are, for a screen reader.
        on_open: called with a row's position when it is chosen; None where a row has no more to tell.
    """
    shown = {name: [row[name] for row in rows] for name in rows[0]}
    config: dict[str, Any] = {}
    exact: dict[str, list[Any]] = {}
    for name, values in shown.items():
        if (column := _column(values)) is not None:  # None would hide it
            config[name] = column
        if _is_a(datetime, values):
            exact[f"{name} (UTC)"] = values
            config[f"{name} (UTC)"] = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC")
        elif _is_a(Usd, values):
            shown[name] = [None if value is None else value / NANO for value in values]
        elif _is_a(Multiplier, values):
            shown[name] = [None if value is None else value / MILLION for value in values]
        elif _is_a(Share, values):
            shown[name] = [None if value is None else value * 100 for value in values]
    shown |= exact  # last, so that a phone shows what matters first

    def opened() -> None:
        chosen = st.session_state[key]["selection"]["rows"]
        if chosen and on_open is not None:
            on_open(int(chosen[0]))

    st.dataframe(
        pd.DataFrame(shown),
        key=key,
        alt=alt,
        hide_index=True,
        column_config=config,
        on_select=opened if on_open is not None else "ignore",
        selection_mode="single-row",
        placeholder="–",
        height=min(_ROW * (len(rows) + 1) + 3, TALLEST),
    )
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.download_button(
            "Download CSV",
            to_csv(rows),
            f"keydesk-{key}.csv",
            "text/csv",
            icon=":material/download:",
            key=f"{key}_csv",
            on_click="ignore",
        )


def _is_a(kind: type, values: Sequence[Any]) -> bool:
    return isinstance(next((value for value in values if value is not None), None), kind)


def _column(values: Sequence[Any]) -> Any:
    """Return how Streamlit shows a column, or None to leave that to it."""
    if _is_a(datetime, values):
        return st.column_config.DatetimeColumn(format="distance", timezone="UTC")
    if _is_a(Price, values):
        return st.column_config.NumberColumn(format=f"$%.{_decimals(values, exact=True)}f")
    if _is_a(Usd, values):
        decimals = _decimals(values)
        return st.column_config.NumberColumn(format="dollar" if decimals == CENTS else f"$%.{decimals}f")
    if _is_a(Multiplier, values):
        return st.column_config.NumberColumn(format="%.6g ×")
    if _is_a(Share, values):
        return st.column_config.NumberColumn(format="%.1f %%")
    return None


def _decimals(values: Sequence[Any], *, exact: bool = False) -> int:
    """Return with how many decimals a column of amounts is read: cents, or what its finest or least one needs.

    A column whose largest amount is a dollar or more is read in cents.

    Args:
        values: nano-USD.
        exact: whether each is to be read exactly; else its first two digits do.
    """
    amounts = [abs(value) for value in values if value]
    if not amounts:
        return CENTS
    if exact:
        return max(CENTS, *(len(usd(amount).partition(".")[2]) for amount in amounts))
    if max(amounts) >= NANO:  # beside a dollar, a part of a cent is noise; the CSV has it
        return CENTS
    least = min(amounts)
    return CENTS if least >= NANO // 10**CENTS else min(len(str(NANO)) + 1 - len(str(least)), FINEST)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV: moments in RFC 3339, and text that a spreadsheet takes for a formula after an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_cell, rows[0]))
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, Usd):
        return usd(value)
    if isinstance(value, Multiplier):
        return show_multiplier(value).removesuffix("×")
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
