"""What people type: how long it may be, and that it is what it looks like."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core import words
from toolkit.core.errors import InvalidInput

UNSEEN = ["\0", "\x1b", "\x7f", "\x85", "\u00ad", "\u200b", "\u200d", "\u2028", "\u202e", "\u2066", "\ufeff", "\u3164"]
UNSEEN += ["\u115f", "\u2800", "\ufe0f", "\U000e0041", "\U000e0100", "\ud800", "\u061c", "\u034f"]


@pytest.mark.parametrize("character", UNSEEN, ids=lambda character: f"U+{ord(character):04X}")
def test_what_cannot_be_seen_is_refused_everywhere(character: str) -> None:
    """Controls, invisible characters, turns of the direction: in names, reasons, e-mails; the message says which."""
    said = f"U\\+{ord(character):04X}, character 2"
    with pytest.raises(InvalidInput, match=said):
        words.check_line(f"a{character}b", "name", words.NAME)
    with pytest.raises(InvalidInput, match=said):
        words.check_reason(f"a{character}b")
    with pytest.raises(InvalidInput, match=said):
        words.check_email(f"a{character}b@example.com")


def test_a_length_is_named_with_its_limit() -> None:
    """By the sentence that refuses what is longer."""
    assert words.check_line("x" * 80, "key's name", words.NAME)
    with pytest.raises(InvalidInput, match="The key's name has 81 characters; at most 80 are allowed"):
        words.check_line("x" * 81, "key's name", words.NAME)
    assert words.check_reason("x" * 500)
    with pytest.raises(InvalidInput, match="The reason has 501 characters; at most 500 are allowed"):
        words.check_reason("x" * 501)
    with pytest.raises(InvalidInput, match="The e-mail address has 311 characters; at most 254 are allowed"):
        words.check_email("x@" + "y" * 309)


def test_a_reason_may_have_lines_and_may_be_missing() -> None:
    """Somebody may write several sentences, or none."""
    assert words.check_reason("first\nsecond\tthird") == "first\nsecond\tthird"
    assert words.check_reason("  ") == ""


def test_an_e_mail_has_one_form() -> None:
    """Typed on another machine, with composed or decomposed accents, it is the same address."""
    composed, decomposed = "josé@example.com", unicodedata.normalize("NFD", "JOSÉ@example.com")
    assert words.check_email(decomposed) == words.check_email(f" {composed} ") == composed


@pytest.mark.parametrize("email", ["ada@example.com", "ada@ｅxample.com", "a㎏@example.com", "ﬁ@example.com"])
def test_an_e_mail_that_only_looks_like_one_is_refused(email: str) -> None:
    """Full-width and other compatibility characters; the plain address passes."""
    if email.isascii():
        assert words.check_email(email) == email
    else:
        with pytest.raises(InvalidInput, match="only look like"):
            words.check_email(email)


@given(st.text(max_size=60))
def test_folding_forgets_case_and_nothing_else_that_matters(name: str) -> None:
    """A name and its upper and lower case fold alike where Unicode says so, and folding twice changes nothing more."""
    assert words.folded(words.folded(name)) == words.folded(name)
    assert words.folded(unicodedata.normalize("NFD", name)) == words.folded(unicodedata.normalize("NFC", name))


@given(st.text(max_size=90))
def test_a_name_is_clean_or_refused(text: str) -> None:
    """What passes has 1 to 80 printable characters, no space around it, and passes again unchanged."""
    try:
        name = words.check_name(text, "name")
    except InvalidInput:
        return
    assert 1 <= len(name) <= 80
    assert name == name.strip()
    assert name.isprintable()
    assert words.check_name(name, "name") == name
