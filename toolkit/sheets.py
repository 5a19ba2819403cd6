"""Sheets: tables of reports as an analyst reads them in a notebook. Pure over data frames."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from toolkit.pricing import show_usd

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

MISSING = "–"
"""What stands where a table has no value."""


def sheet(
    frame: "pd.DataFrame", *, usd: Iterable[str] = (), share: Iterable[str] = (), day: Iterable[str] = ()
) -> "Styler":
    """Return a table to be read: amounts in USD, whole numbers in groups of three, text on the left, no row numbers.

    Args:
        frame: of any columns; text is shown as it is, whatever it holds.
        usd: columns of nano-USD.
        share: columns of shares, shown in percent.
        day: columns of moments that are told by their day; other moments are told to the minute, UTC.
    """
    from pandas.api import types

    moments = [name for name in frame.columns if types.is_datetime64_any_dtype(frame[name])]
    formats: dict[Any, Any] = dict.fromkeys(moments, "{:%Y-%m-%d %H:%M}") | dict.fromkeys(day, "{:%Y-%m-%d}")
    formats |= dict.fromkeys(usd, show_usd) | dict.fromkeys(share, "{:.1%}")
    text = frame.columns[[name not in formats and not types.is_numeric_dtype(frame[name]) for name in frame.columns]]
    styled = frame.style.format(formats, thousands=",", escape="html", na_rep=MISSING).hide(axis="index")
    styled.set_table_styles({name: [{"selector": "th", "props": "text-align: left"}] for name in text})
    on_the_left = {"text-align": "left", "white-space": "normal", "vertical-align": "top"}
    return styled.set_properties(subset=text, **on_the_left)
