"""Rendezvous hashing: everybody stays where they are unless they must move, and places get their shares."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.rendezvous import score

NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
PLACES = st.dictionaries(NAMES, st.integers(1, 1_000), min_size=2, max_size=8)


def chosen(who: str, places: dict[str, int]) -> str:
    """Return where somebody goes."""
    return max(places, key=lambda place: score(who, place, places[place]))


@given(NAMES, PLACES)
def test_only_those_move_whose_place_is_gone(who: str, places: dict[str, int]) -> None:
    """Whichever other place is taken out, or added, the choice stays."""
    first = chosen(who, places)
    for other in places:
        if other != first:
            assert chosen(who, {place: weight for place, weight in places.items() if place != other}) == first


@given(NAMES, PLACES, st.integers(2, 10))
def test_the_order_of_the_rest_is_that_of_being_chosen_from_them(who: str, places: dict[str, int], more: int) -> None:
    """So who loses a place goes to the next of their ranking; and more weight for the chosen one changes nothing."""
    first = chosen(who, places)
    rest = {place: weight for place, weight in places.items() if place != first}
    ranking = sorted(places, key=lambda place: -score(who, place, places[place]))
    assert ranking[1] == chosen(who, rest) or score(who, ranking[1], places[ranking[1]]) == score(
        who, chosen(who, rest), rest[chosen(who, rest)]
    )
    assert chosen(who, places | {first: places[first] * more}) == first


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 1, 2)])
def test_each_gets_its_share(weights: tuple[int, ...]) -> None:
    """Of four thousand, within three hundredths."""
    places = {f"upstream-{number}": weight for number, weight in enumerate(weights)}
    found = Counter(chosen(f"key_{number}", places) for number in range(4_000))
    for place, weight in places.items():
        assert abs(found[place] / 4_000 - weight / sum(weights)) < 0.03


def test_it_is_the_same_for_ever() -> None:
    """A release that chose otherwise would make every cache cold."""
    assert [round(score("key_1", place), 6) for place in ("a", "b")] == [1.481459, 6.127032]
