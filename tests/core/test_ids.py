"""Request ids: they sort by time, and never occur again."""

import random

from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.ids import RequestIds, new_request_id


@given(st.lists(st.integers(0, 2**48 - 1), min_size=2, max_size=20))
def test_request_ids_sort_by_time_and_are_uuids_of_version_7(moments: list[int]) -> None:
    """Their order is that of their milliseconds; version and variant bits are RFC 9562's."""
    ids = {moment: new_request_id(moment) for moment in moments}
    assert sorted(ids.values()) == [ids[moment] for moment in sorted(ids)]
    for moment, request_id in ids.items():
        digits = request_id.removeprefix("req_")
        assert len(digits) == 32
        assert int(digits[:12], 16) == moment
        assert digits[12] == "7"
        assert digits[16] in "89ab"


def test_request_ids_made_in_stock_differ_and_have_the_same_form() -> None:
    """Ids whose random part is fetched a hundred at a time are as unique, and sort by time as well."""
    ids = RequestIds()
    made = [ids.next(1_700_000_000_000 + number // 10) for number in range(1_000)]
    assert len(set(made)) == 1_000
    assert [request_id[:16] for request_id in made] == sorted(request_id[:16] for request_id in made)
    assert {(len(request_id), request_id[16], request_id[20] in "89ab") for request_id in made} == {(36, "7", True)}


def test_request_ids_of_one_millisecond_differ() -> None:
    """74 random bits tell them apart, even if a library seeds Python's common generator each time."""
    made = set()
    for _ in range(2_000):
        random.seed(0)
        made.add(new_request_id(1_700_000_000_000))
    assert len(made) == 2_000
