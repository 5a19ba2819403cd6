"""The common parts of a page: its table's CSV, and the names that its filters show."""

import csv
from datetime import UTC, datetime

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
