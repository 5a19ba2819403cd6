"""Sheets: tables as an analyst reads them."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import pytest

from toolkit.reports.tables import change, largest_in_words, sheet

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


def test_an_empty_table_is_a_sentence() -> None:
    """Without rows there are no headings over nothing, but what the caller says, or a word."""
    assert "<caption>Nothing.</caption>" in sheet(FRAME[:0], usd=["cost"]).to_html()
    html = sheet(FRAME[:0], usd=["cost"], nothing="All is well.").to_html()
    assert "<caption>All is well.</caption>" in html
    assert "</th>" not in html


def test_headings_are_words() -> None:
    """Underscores are for programs; the name of a tag is shown as callers write it, and is no HTML either."""
    html = sheet(pd.DataFrame({"calls_before": [1], "tag:my_team": ["a"], "tag:<b>": ["a"]})).to_html()
    for heading in ("calls before", "tag:my_team", "tag:&lt;b&gt;"):
        assert f">{heading}</th>" in html, heading


@pytest.mark.parametrize(
    ("amounts", "shown"),
    [
        ([80_000_000, -740_000_000, 0], ["$0.08", "−$0.74", "$0.00"]),
        ([80_000_000, 6_782_000, -40], ["$0.080000", "$0.006782", "$0.000000"]),
        ([80_000_000, -40], ["$0.08", "$0.00"]),
        ([25, -3], ["$0.000000025", "−$0.000000003"]),
    ],
)
def test_amounts_of_a_column_have_as_many_decimals(amounts: list[int], shown: list[str]) -> None:
    """Cents, unless one amount is below a cent; below zero there is a minus sign, but none before nothing."""
    html = sheet(pd.DataFrame({"cost": amounts}), usd=["cost"]).to_html()
    assert re.findall(">([^<>]*)</td>", html) == shown


def test_only_text_stands_on_the_left_and_may_break() -> None:
    """Ratios and days are read like numbers: on the right and in one line; all cells begin at the top of their row."""
    frame = pd.DataFrame({"ratio": [Decimal("1.25"), None], "day": [date(2026, 11, 23)] * 2, "name": ["a b", "c"]})
    html = sheet(frame).to_html()
    (left,) = re.findall(r"([^{}]*) \{\s*text-align: left;\s*white-space: normal;\s*\}", html)
    assert re.findall("col([0-9]+)", left) == ["2", "2"]
    (unbroken,) = re.findall(r"([^{}]*) \{\s*white-space: nowrap;\s*\}", html.partition("caption")[2])
    assert sorted(re.findall("col([0-9]+)", unbroken)) == ["0", "0", "1", "1"]
    assert re.search(r"td \{\s*vertical-align: top;\s*\}", html)


def test_a_wide_table_scrolls() -> None:
    """A table takes no more than the width of the page."""
    assert re.search(r"max-width: 100%;\s*overflow-x: auto;", sheet(FRAME).to_html())


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (289_120_000_000, 357_990_000_000, "$289.12 → $357.99: +$68.87, +24 %"),
        (2_000_000_000, 1_000_000_000, "$2.00 → $1.00: −$1.00, −50 %"),
        (0, 1_000_000_000, "$0.00 → $1.00: +$1.00"),
        (1_000_000_000, 1_000_000_000, "$1.00 → $1.00: $0.00, 0 %"),
    ],
)
def test_a_change_is_told_in_usd_and_percent(before: int, after: int, words: str) -> None:
    """From what, to what, by how much; of nothing there is no percentage."""
    assert change(before, after) == words


def test_first_rows_are_listed_in_words() -> None:
    """Names with their amounts, days in short, and how many more there are."""
    models = pd.DataFrame({"model": ["gpt-5", "o3", "o4"], "cost": [3_000_000_000, 20_000_000, 10_000_000]})
    assert largest_in_words(models, "model", limit=2) == "$3.00 on gpt-5, $0.02 on o3 and 1 more"
    days = pd.DataFrame({"day": [date(2026, 10, 26), date(2026, 10, 3)], "cost": [5_090_000_000, 4_000_000_000]})
    assert largest_in_words(days, "day") == "26 Oct $5.09, 03 Oct $4.00"
    assert largest_in_words(days[:0], "day") == ""
