"""Secrets, digests, request ids and passwords."""

import random

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core import secrets
from toolkit.core.errors import InvalidInput
from toolkit.core.secrets import (
    ALPHABET,
    Keyring,
    RequestIds,
    display_form,
    is_well_formed,
    new_request_id,
    new_secret,
    redact,
)

PEPPER, OLDER = b"p" * 32, b"o" * 32


def test_a_secret_has_its_form_and_is_new_each_time() -> None:
    """`sk-` and 49 base62 characters, recognised offline."""
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    for secret in made:
        assert len(secret) == secrets.SECRET_LENGTH == 52
        assert secret.startswith("sk-")
        assert set(secret[3:]) <= set(ALPHABET)
        assert is_well_formed(secret)


@given(st.data())
def test_a_typo_is_recognised(data: st.DataObject) -> None:
    """One changed character anywhere, or two neighbours swapped, fails the offline check."""
    secret = new_secret()
    at = data.draw(st.integers(3, len(secret) - 1))
    other = data.draw(st.sampled_from(ALPHABET.replace(secret[at], "")))
    assert not is_well_formed(secret[:at] + other + secret[at + 1 :])
    if at + 1 < len(secret) and secret[at] != secret[at + 1]:
        assert not is_well_formed(secret[:at] + secret[at + 1] + secret[at] + secret[at + 2 :])


@given(st.text(max_size=60))
def test_foreign_text_is_no_secret(text: str) -> None:
    """Whatever a caller sends is answered, never an error."""
    assert not is_well_formed(text)


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "\n{}", "{}x", "Bearer {}", "{}\x00"])
def test_nothing_around_a_secret_is_trimmed(around: str) -> None:
    """White space and additions make it another text."""
    assert not is_well_formed(around.format(new_secret()))


def test_a_secret_in_other_digits_or_case_is_none() -> None:
    """Only ASCII letters and digits count, and case matters."""
    secret = new_secret()
    assert not is_well_formed(secret.swapcase())
    assert not is_well_formed(secret[:-1] + "٣")


def test_a_display_form_tells_too_little_to_guess() -> None:
    """Seven characters of the start and four of the end."""
    secret = new_secret()
    assert display_form(secret) == f"{secret[:7]}…{secret[-4:]}"


@given(st.text(max_size=30), st.text(max_size=30))
def test_redaction_leaves_no_secret(before: str, after: str) -> None:
    """Wherever it stands, the secret is replaced by its display form, and the rest stays."""
    secret = new_secret()
    clean = redact(f"{before} {secret} {after}")
    assert secret not in clean
    assert clean == f"{before} {display_form(secret)} {after}"


def test_a_digest_depends_on_secret_and_pepper() -> None:
    """The same under the same pepper, different under another one; the pepper's id tells which."""
    secret = new_secret()
    ring = Keyring([PEPPER])
    assert ring.digest(secret) == ring.digest(secret)
    assert ring.digest(secret) != ring.digest(new_secret())
    assert ring.digest(secret) != Keyring([OLDER]).digest(secret)
    assert len(ring.digest(secret).value) == 64


def test_a_pepper_can_be_rotated() -> None:
    """The first pepper signs; the older ones still verify."""
    secret = new_secret()
    old = Keyring([OLDER]).digest(secret)
    ring = Keyring([PEPPER, OLDER])
    assert ring.digest(secret).pepper_id != old.pepper_id
    assert ring.digests(secret) == [ring.digest(secret), old]


def test_a_keyring_shows_no_pepper() -> None:
    """Its repr names the peppers by id, which is no part of them."""
    shown = repr(Keyring([PEPPER, OLDER]))
    assert "ppp" not in shown
    assert PEPPER.hex()[:8] not in shown


def test_keys_for_other_purposes_differ() -> None:
    """The cookie's key is no pepper, and one for each purpose."""
    ring = Keyring([PEPPER])
    assert len({PEPPER, *ring.signing_keys("cookie"), *ring.signing_keys("other")}) == 3


def test_keys_of_older_peppers_come_before_the_current_ones() -> None:
    """The last one signs; what an older pepper signed is still known."""
    older = b"another pepper of 32 bytes or more"
    (current,), (old,) = Keyring([PEPPER]).signing_keys("cookie"), Keyring([older]).signing_keys("cookie")
    assert Keyring([PEPPER, older]).signing_keys("cookie") == [old, current]


@pytest.mark.parametrize("peppers", [[], [b""], [b"x" * 31], [PEPPER, b"short"]])
def test_a_short_pepper_is_refused(peppers: list[bytes]) -> None:
    """Thirty-two bytes at least, each of them."""
    with pytest.raises(InvalidInput, match="32 bytes"):
        Keyring(peppers)


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


def test_long_passwords_that_differ_late_differ() -> None:
    """bcrypt alone looks at 72 bytes; passwords are condensed before."""
    stem = "long enough passphrase " * 5
    stored = secrets.hash_password(stem + "a")
    assert secrets.verify_password(stem + "a", stored)
    assert not secrets.verify_password(stem + "b", stored)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "пароль из слов", "nul\x00 in the middle", "🔑" * 3 + "abcdefghi"]
)
def test_a_password_of_any_characters_verifies(password: str) -> None:
    """And nothing that begins like it."""
    stored = secrets.hash_password(password)
    assert secrets.verify_password(password, stored)
    assert not secrets.verify_password(password + " ", stored)
    assert not secrets.verify_password(password.split("\x00", maxsplit=1)[0] + "?", stored)


def test_equal_passwords_have_different_hashes() -> None:
    """Each is salted."""
    assert secrets.hash_password("correct horse battery") != secrets.hash_password("correct horse battery")


@pytest.mark.parametrize("password", ["", "eleven char", "a" * 40, "abcabcabcabc"])
def test_a_weak_password_is_refused(password: str) -> None:
    """Twelve characters, of four kinds or more."""
    with pytest.raises(InvalidInput):
        secrets.hash_password(password)


def test_the_dummy_hash_is_one_that_bcrypt_takes() -> None:
    """At the cost of real ones, so that an unknown operator takes as long; no password opens it."""
    assert bcrypt.checkpw(b"anything", secrets._DUMMY_HASH) is False
    assert secrets._DUMMY_HASH.split(b"$")[2] == str(secrets.BCRYPT_COST).encode()
    assert not secrets.verify_password("anything", None)
