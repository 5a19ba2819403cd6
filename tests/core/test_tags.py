"""Tags: read from a header or from the provider's own fields, bounded, and never a reason to fail a caller's body."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rows import append, row
from toolkit.core import tags
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput, Refusal, RefusalType
from toolkit.ledger.ledger import Ledger
from toolkit.reports import requests, spend
from toolkit.workspace import Workspace


def read(body: dict[str, Any], *headers: bytes, dialect: Dialect = Dialect.OPENAI) -> Any:
    """Return the tags of a call as an object."""
    text = tags.read(dialect, body, [(b"host", b"x"), *((tags.HEADER, header) for header in headers)])
    return None if text is None else json.loads(text)


def test_a_call_without_tags_has_none() -> None:
    """Nothing is kept for it."""
    assert read({"model": "m"}) is None
    assert read({"metadata": {}, "user": None}) is None
    assert read({}, b"  ") is None


def test_the_header_is_read() -> None:
    """Names and values without the space around them; an = in a value is part of it."""
    assert read({}, b"team=search, feature = re=rank ,") == {"team": "search", "feature": "re=rank"}
    assert read({}, "team=Köln".encode()) == {"team": "Köln"}


def test_openai_fields_are_tags() -> None:
    """`metadata` as it is, `user` as the tag of that name."""
    assert read({"metadata": {"team": "a"}, "user": "u-1"}) == {"team": "a", "user": "u-1"}


def test_anthropic_field_is_the_tag_user() -> None:
    """`metadata.user_id` and nothing else."""
    body = {"metadata": {"user_id": "u-1", "team": "a"}, "user": "x"}
    assert read(body, dialect=Dialect.ANTHROPIC) == {"user": "u-1"}


DEVICE, ACCOUNT, SESSION = "ab" * 32, "c0ffee00-0000-4000-8000-000000000001", "5e551015-0000-4000-8000-000000000002"


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [
        (f"user_{DEVICE}_account_{ACCOUNT}_session_{SESSION}", {"user": ACCOUNT, "session": SESSION}),
        (f"user_{DEVICE}_account__session_{SESSION}", {"user": DEVICE, "session": SESSION}),
        (
            json.dumps({"device_id": DEVICE, "account_uuid": ACCOUNT, "session_id": SESSION}),
            {"user": ACCOUNT, "session": SESSION},
        ),
        (
            json.dumps({"device_id": DEVICE, "account_uuid": "", "session_id": SESSION}),
            {"user": DEVICE, "session": SESSION},
        ),
        (json.dumps({"session_id": 5, "device_id": DEVICE}), {"user": DEVICE}),
        (json.dumps({"name": "x"}), {"user": '{"name": "x"}'}),
        ("{not JSON", {"user": "{not JSON"}),
        ("[" * 3_000, None),
        ("u-1", {"user": "u-1"}),
    ],
)
def test_claude_codes_session_is_no_user(user_id: str, expected: dict[str, str] | None) -> None:
    """Both forms in which it writes device, account and session; whatever else is there is the user as it is."""
    assert read({"metadata": {"user_id": user_id}}, dialect=Dialect.ANTHROPIC) == expected


def test_openais_new_word_for_a_user_is_a_tag() -> None:
    """`safety_identifier` has taken the place of `user`, which wins where both are sent; null is no tag."""
    assert read({"safety_identifier": "u-1"}) == {"user": "u-1"}
    assert read({"safety_identifier": "u-1", "user": "u-2"}) == {"user": "u-2"}
    assert read({"safety_identifier": None, "user": None, "metadata": None}) is None


def test_claude_codes_session_header_is_a_tag() -> None:
    """Beside the caller's own tags, which hide it."""
    headers = [(tags.SESSION_HEADER, b"s-1")]
    assert tags.read(Dialect.ANTHROPIC, {}, headers) == '{"session":"s-1"}'
    assert tags.read(Dialect.ANTHROPIC, {}, [*headers, (tags.HEADER, b"session=own")]) == '{"session":"own"}'
    assert tags.read(Dialect.ANTHROPIC, {}, [(tags.SESSION_HEADER, b"s" * 300)]) is None


@pytest.mark.parametrize("name", sorted(tags.SESSION_HEADERS))
def test_a_coding_tools_session_is_a_tag(name: bytes) -> None:
    """Codex has a header for it too, under two names, and opencode; it is no user."""
    assert tags.read(Dialect.OPENAI, {"user": "u"}, [(name, b"s-1")]) == '{"session":"s-1","user":"u"}'


def test_the_header_hides_the_body() -> None:
    """Who can set a header decides; the other names stay."""
    assert read({"metadata": {"team": "a", "env": "b"}}, b"team=c") == {"team": "c", "env": "b"}


def test_the_text_is_canonical() -> None:
    """The same tags are the same text, in whatever order they came."""
    one, other = ([(tags.HEADER, text)] for text in (b"a=1,b=2", b"b=2,a=1"))
    assert tags.read(Dialect.OPENAI, {}, one) == tags.read(Dialect.OPENAI, {}, other) == '{"a":"1","b":"2"}'


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"team", "a name, = and a value"),
        (b"team=", "a name, = and a value"),
        (b"te am=x", "letters, digits"),
        (b"=x", "letters, digits"),
        (b"a=1,a=2", "given twice"),
        (b"a=" + b"x" * 257, "longer than 256"),
        (b"a" * 65 + b"=x", "1 to 64"),
        (",".join(f"t{n}=x" for n in range(17)).encode(), "17 tags"),
        (b"a=\xff", "not UTF-8"),
        (b"a=\x07", "a name, = and a value"),
    ],
)
def test_a_wrong_header_is_refused(header: bytes, told: str) -> None:
    """The caller learns which rule it breaks; a tag that would be lost is worse than a refusal."""
    with pytest.raises(Refusal, match=told) as caught:
        read({}, header)
    assert caught.value.type is RefusalType.INVALID_REQUEST


def test_never_more_than_sixteen() -> None:
    """The header's come first."""
    body = {"metadata": {f"m{n}": "x" for n in range(16)}}
    found = read(body, b"a=1,b=2")
    assert len(found) == tags.MOST
    assert {"a", "b"} < set(found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["metadata", "user", "model"]), JSON), st.sampled_from(Dialect))
def test_no_body_fails_a_call(body: dict[str, Any], dialect: Dialect) -> None:
    """Whatever a body holds, its tags are a bounded object of strings, or none."""
    found = read(body, dialect=dialect) or {}
    assert len(found) <= tags.MOST
    assert all(isinstance(value, str) and len(value) <= tags.LONGEST_VALUE for value in found.values())


@pytest.fixture
def ledger(workspace: Workspace) -> Ledger:
    """Calls with tags, one of them without, half of them drained."""
    odd = {"a/b~c": "Köln \"é' \n", "team": "search"}
    carried = [{"team": "search", "env": "live"}, {"team": "ads", "env": "search"}, odd, None]
    calls = [row(cost=10**n, tags=each and tags.written(each)) for n, each in enumerate(carried)]
    append(workspace.store, calls[:2])
    workspace.ledger.sync()
    append(workspace.store, calls[2:])
    return workspace.ledger


@pytest.mark.parametrize(
    ("wanted", "cost"),
    [
        ({"team": "search"}, 101),
        ({"team": "search", "env": "live"}, 1),
        ({"env": "search"}, 10),
        ({"team": "ads", "env": "live"}, 0),
        ({"team": "sear"}, 0),
        ({"team": "search'); DROP TABLE usage; --"}, 0),
        ({"a/b~c": "Köln \"é' \n"}, 100),
        ({}, 1111),
        (None, 1111),
    ],
)
def test_calls_are_found_by_their_tags(ledger: Ledger, wanted: dict[str, str] | None, cost: int) -> None:
    """A call must carry all of the tags, each with this very value, whatever characters they have."""
    assert spend.table(ledger, ["model"], tags=wanted)["cost"].sum() == cost
    assert requests.search(ledger, tags=wanted)["cost"].sum() == cost


def test_tags_to_search_by_are_names_and_values() -> None:
    """The first = ends the name; the value is taken as it is."""
    assert tags.wanted(["team=search", "note= a=b "]) == {"team": "search", "note": " a=b "}


@pytest.mark.parametrize("pairs", [["team"], ["team="], ["=search"], ["te am=x"], ["team=a", "team=b"]])
def test_what_is_no_tag_is_not_searched_by(pairs: list[str]) -> None:
    """It would find nothing, which looks like an answer."""
    with pytest.raises(InvalidInput, match=r"is not a tag\. Write it like team=search|'team' is given twice"):
        tags.wanted(pairs)
