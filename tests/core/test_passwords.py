"""Operators' passwords: what is refused, and what verifies."""

import bcrypt
import pytest

from toolkit.core import passwords
from toolkit.core.errors import InvalidInput


def test_long_passwords_that_differ_late_differ() -> None:
    """bcrypt alone looks at 72 bytes; passwords are condensed before."""
    stem = "long enough passphrase " * 5
    stored = passwords.hash_password(stem + "a")
    assert passwords.verify_password(stem + "a", stored)
    assert not passwords.verify_password(stem + "b", stored)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "пароль из слов", "nul\x00 in the middle", "🔑" * 3 + "abcdefghi"]
)
def test_a_password_of_any_characters_verifies(password: str) -> None:
    """And nothing that begins like it."""
    stored = passwords.hash_password(password)
    assert passwords.verify_password(password, stored)
    assert not passwords.verify_password(password + " ", stored)
    assert not passwords.verify_password(password.split("\x00", maxsplit=1)[0] + "?", stored)


def test_equal_passwords_have_different_hashes() -> None:
    """Each is salted."""
    assert passwords.hash_password("correct horse battery") != passwords.hash_password("correct horse battery")


@pytest.mark.parametrize("password", ["", "eleven char", "a" * 40, "abcabcabcabc"])
def test_a_weak_password_is_refused(password: str) -> None:
    """Twelve characters, of four kinds or more."""
    with pytest.raises(InvalidInput):
        passwords.hash_password(password)


def test_the_dummy_hash_is_one_that_bcrypt_takes() -> None:
    """At the cost of real ones, so that an unknown operator takes as long; no password opens it."""
    assert bcrypt.checkpw(b"anything", passwords._DUMMY_HASH) is False
    assert passwords._DUMMY_HASH.split(b"$")[2] == str(passwords.BCRYPT_COST).encode()
    assert not passwords.verify_password("anything", None)
