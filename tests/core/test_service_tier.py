"""The tier and region that served a call: one word each, and whether the price book has their price."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.dialect import Dialect
from toolkit.core.service_tier import NOT_SAID, Served, unpriced, word


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("default", "default"),
        ("ON_DEMAND_PRIORITY", "on_demand_priority"),
        ("eu-west.1", "eu-west.1"),
        ("auto", None),
        ("AUTO", None),
        ("not_available", None),
        ("TRAFFIC_TYPE_UNSPECIFIED", None),
        ("", None),
        (None, None),
        (7, None),
        (["default"], None),
        ("x" * 41, None),
        ("two words", None),
        ("line\nbreak", None),
        ("nul\0", None),
        ("\u202eevil", None),
    ],
)
def test_a_word_is_kept_as_one(said: object, kept: str | None) -> None:
    """In lower case; what is no word, or says that there is none, counts as not said."""
    assert word(said) == kept


@given(st.text())
def test_no_word_is_harmful(text: str) -> None:
    """Whatever a provider says: what is kept is short, printable ASCII."""
    kept = word(text)
    assert kept is None or (kept.isascii() and kept.isprintable() and 0 < len(kept) <= 40 and " " not in kept)


@pytest.mark.parametrize(
    ("dialect", "served", "odd"),
    [
        (Dialect.OPENAI, Served("default"), []),
        (Dialect.OPENAI, Served("on_demand"), []),
        (Dialect.OPENAI, Served("priority"), ["priority"]),
        (Dialect.OPENAI, Served("flex"), ["flex"]),
        (Dialect.ANTHROPIC, Served("standard", "global"), []),
        (Dialect.ANTHROPIC, Served("priority", "us"), ["priority", "us"]),
        (Dialect.ANTHROPIC, Served(None, "us"), ["us"]),
        (Dialect.GEMINI, Served("standard"), []),
        (Dialect.GEMINI, Served("provisioned_throughput"), ["provisioned_throughput"]),
        (Dialect.GEMINI, NOT_SAID, []),
    ],
)
def test_what_is_not_priced_is_told(dialect: Dialect, served: Served, odd: list[str]) -> None:
    """Each dialect has its own names of the standard tier."""
    assert unpriced(dialect, served) == odd


def test_the_later_word_counts() -> None:
    """An answer's first event repeats what was asked for, its last says what served; silence takes nothing back."""
    assert Served("default", "us").followed_by(Served("priority")) == Served("priority", "us")
