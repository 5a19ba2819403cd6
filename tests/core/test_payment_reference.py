"""References of payments: what a person would take for the same one is the same one."""

from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.payment_reference import reference_key


def test_spellings_of_one_reference_have_one_key() -> None:
    """Case, white space, width and composition do not matter; letters and digits do."""
    spellings = ["Straße  é 1", "STRASSE É 1", " strasse e\u0301 1\n", "strasse\u00a0é\t1", "ｓｔｒａｓｓｅ é １"]
    assert {reference_key(spelling) for spelling in spellings} == {"strasse é 1"}
    assert reference_key("INV-1") != reference_key("INV-11")


@given(st.text(max_size=80))
def test_a_key_is_its_own_key(reference: str) -> None:
    """So a reference that was read from a key meets the same entry."""
    key = reference_key(reference)
    assert reference_key(key) == key
    assert reference_key(reference.upper().lower()) == reference_key(reference.upper())
