"""The common parts of a page: its table's CSV, and the names that its filters show."""

import csv
from datetime import UTC, datetime

import pytest

from toolkit.core.marked import Multiplier, Price, Usd
from toolkit.dashboard import filters, table


def test_csv_has_exact_moments_and_no_formula() -> None:
    """A spreadsheet that opens the file runs nothing that a person typed; numbers stay numbers."""
    at = datetime(2026, 11, 30, 23, 59, 59, 123456, tzinfo=UTC)
    text = table.to_csv([{"When": at, "Why": '=HYPERLINK("https://evil.example")', "Calls": -3}])
    heading, row = csv.reader(text.splitlines())
    assert heading == ["When", "Why", "Calls"]
    assert row == ["2026-11-30T23:59:59.123456+00:00", '\'=HYPERLINK("https://evil.example")', "-3"]


def test_names_that_several_share_are_told_apart() -> None:
    """By the end of their ids; a name of one thing alone is shown as it is."""
    shown = filters.distinct({"key_000001": "app", "key_000002": "app", "key_000003": "other"})
    assert shown == {"key_000001": "app · 000001", "key_000002": "app · 000002", "key_000003": "other"}


def test_money_is_exact_in_the_csv() -> None:
    """Whatever the table rounds."""
    text = table.to_csv([{"Cost": Usd(1_234_567_891), "Price": Price(150_000_000), "At": Multiplier(1_250_000)}])
    assert text.splitlines()[1] == "1.234567891,0.15,1.25"


@pytest.mark.parametrize(
    ("amounts", "shown"),
    [
        ([Usd(5_000_000_000), Usd(20_000_000), None], "dollar"),
        ([Usd(5_000_000_000), Usd(1_500_000)], "dollar"),
        ([Usd(50_000_000), Usd(1_500_000)], "$%.4f"),
        ([Usd(1)], "$%.6f"),
        ([None, Usd(0)], "dollar"),
        ([Price(150_000_000), Price(2_000_000_000)], "$%.2f"),
        ([Price(37_500_000), Price(2_000_000_000)], "$%.4f"),
    ],
)
def test_a_column_of_money_has_one_precision(amounts: list[Usd | None], shown: str) -> None:
    """Cents, unless all are less than a dollar and the least would show as nothing; prices are shown whole."""
    assert table._column(amounts)["type_config"]["format"] == shown
