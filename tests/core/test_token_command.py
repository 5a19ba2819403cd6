"""What commands that print tokens may print."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.token_command import LONGEST_LIFE, NoToken, Token, TokenCommand, token_in

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def test_a_token_may_stand_alone() -> None:
    """With the line break that a command ends it with."""
    assert token_in(b"ya29.a0\r\n", NOW) == Token("ya29.a0", None)


@pytest.mark.parametrize(
    ("printed", "life"),
    [
        ({"status": {"token": "t", "expirationTimestamp": "2026-12-01T12:01:00Z"}}, 60),
        ({"credential": {"access_token": "t", "token_expiry": "2026-12-01T14:01:00+02:00"}}, 60),
        ({"accessToken": "t", "expiresOn": "2026-12-01 12:09:00.000000", "expires_on": NOW.timestamp() + 60}, 60),
        ({"access_token": "t", "expires_in": 60, "token_type": "Bearer"}, 60),
        ({"access_token": "t", "expires_in": "60"}, 60),
        ({"token": "t", "expiry": {"datetime": "2026-12-01 12:01:00.000000"}, "id_token": "i", "valid": True}, 60),
        ({"token": "t", "expiry": {"datetime": "2026-12-01 14:01:00+02:00"}}, 60),
        ({"token": "t", "expiry": {"datetime": 7}}, None),
        ({"token": "t", "expiry": "2026-12-01T12:01:00"}, None),
        ({"token": "t", "expires_in": [], "expires_at": None}, None),
        ({"token": "t", "expires_in": float("nan")}, None),
        ({"token": "t", "expires_in": 1e9}, LONGEST_LIFE),
        ({"token": "t"}, None),
    ],
    ids=[
        *("kubernetes", "gcloud", "azure", "oauth", "words", "google-auth", "zone", "no text", "no zone", "odd"),
        *("no number", "long", "none"),
    ],
)
def test_an_object_may_tell_its_end(printed: object, life: float | None) -> None:
    """As the tools of Kubernetes, Google and Microsoft, and OAuth's servers, print it."""
    assert token_in(json.dumps(printed, indent=1).encode(), NOW) == Token("t", life)


@pytest.mark.parametrize(
    "printed",
    [
        *(b"", b" \n", b"one\ntwo", b"Bearer abc", "schlüssel".encode(), b"\xff\xfe", b"a\0b", b"{", b"{}", b"[1]x y"),
        *(b'{"token": 7}', b'{"token": ""}', b'{"token": "a b"}', b'{"token": "\\u00fc"}', b'{"token": "a\\nb"}'),
        *(b'{"token": "t", "expires_in": 0}', b'{"token": "t", "expiry": "2020-01-01T00:00:00Z"}'),
        *(b"x" * 20_000, b'{"status": {"error": "sk-secret"}}', b'{"a":' * 5_000),
    ],
    ids=lambda printed: repr(printed[:20]),
)
def test_what_is_no_token_is_refused_in_words_without_it(printed: bytes) -> None:
    """What was printed may be another secret."""
    with pytest.raises(NoToken) as refused:
        token_in(printed, NOW)
    assert "secret" not in str(refused.value)


@given(
    st.binary(max_size=200) | st.binary(max_size=50).map(lambda part: b'{"token": "t", "expires_in": ' + part + b"}")
)
def test_whatever_is_printed_is_a_token_for_a_header_or_refused(printed: bytes) -> None:
    """And nothing else happens."""
    try:
        token = token_in(printed, NOW)
    except NoToken:
        return
    assert token.text.isascii()
    assert token.text.isprintable()
    assert " " not in token.text
    assert token.life is None or 0 < token.life <= LONGEST_LIFE


def test_a_command_is_divided_as_by_a_shell_and_not_more() -> None:
    """Quotes count; a pipe or a variable is a word like any other."""
    assert TokenCommand("X", "a 'b c' $D | e").argv == ["a", "b c", "$D", "|", "e"]
    for text in ("", "  ", "a 'b", "''"):
        with pytest.raises(NoToken):
            _ = TokenCommand("X", text).argv
