"""The table of a page: Streamlit's own, with its sorting, search and keyboard, and a CSV of all its rows."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from toolkit.core.spreadsheet import FORMULA

TALLEST = 640
"""Pixels of a table; longer ones scroll in themselves."""
_ROW = 35


def draw(
    rows: Sequence[Mapping[str, Any]],
    *,
    key: str,
    alt: str,
    on_open: Callable[[int], None],
) -> None:
    """Draw rows, of which one can be chosen to be opened, and below them the button for their CSV.

    Args:
        rows: at least one; each has the columns' headings as keys, in their order. A moment is shown as how long ago it
            was, with a column "… (UTC)" beside it.
        key: of the widget, and name of the file.
        alt: what the rows are, for a screen reader.
        on_open: called with a row's position when it is chosen.
    """
    shown: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        shown[name] = values
        if isinstance(first, datetime):
            config[name] = st.column_config.DatetimeColumn(format="distance", timezone="UTC")
            exact = f"{name} (UTC)"
            shown[exact] = values
            config[exact] = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC")

    def opened() -> None:
        chosen = st.session_state[key]["selection"]["rows"]
        if chosen:
            on_open(int(chosen[0]))

    st.dataframe(
        pd.DataFrame(shown),
        key=key,
        alt=alt,
        hide_index=True,
        column_config=config,
        on_select=opened,
        selection_mode="single-row",
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


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV: moments in RFC 3339, and text that a spreadsheet takes for a formula after an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_cell, rows[0]))
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
