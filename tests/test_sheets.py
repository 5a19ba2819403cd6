"""Sheets: tables as an analyst reads them."""

from datetime import UTC, datetime

import pandas as pd

from toolkit.sheets import sheet

FRAME = pd.DataFrame(
    {
        "key": ["<b>app</b>", None],
        "calls": [1_234_567, 1],
        "cost": pd.array([2_500_000_000, None], dtype="Int64"),
        "share": [0.125, 1.0],
        "at": [datetime(2026, 11, 23, 9, 5, tzinfo=UTC)] * 2,
    }
)


def test_amounts_shares_and_moments_are_written_out() -> None:
    """Nano-USD become USD, shares percent, whole numbers are grouped, and what is missing is a dash."""
    html = sheet(FRAME, usd=["cost"], share=["share"]).to_html()
    for text in ("$2.50", "1,234,567", "12.5%", "2026-11-23 09:05", "–"):
        assert f">{text}</td>" in html, text


def test_a_moment_may_be_told_by_its_day() -> None:
    """A column named as days has no hours."""
    html = sheet(FRAME, day=["at"]).to_html()
    assert ">2026-11-23</td>" in html
    assert "09:05" not in html


def test_text_is_shown_as_it_is() -> None:
    """A name is no HTML."""
    html = sheet(FRAME).to_html()
    assert "&lt;b&gt;app&lt;/b&gt;" in html
    assert "<b>" not in html


def test_rows_have_no_numbers() -> None:
    """The frame's index says nothing to a reader."""
    assert "row_heading" not in sheet(FRAME).to_html()


def test_an_empty_table_has_its_heads() -> None:
    """Without rows there is a table all the same."""
    assert ">cost</th>" in sheet(FRAME[:0], usd=["cost"]).to_html()
