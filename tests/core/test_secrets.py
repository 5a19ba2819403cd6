"""API-key secrets, their digests and peppers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core import secrets
from toolkit.core.errors import InvalidInput
from toolkit.core.ids import ALPHABET
from toolkit.core.secrets import Keyring, display_form, is_well_formed, new_secret, redact

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
