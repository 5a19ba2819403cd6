"""What people type: names, e-mails, reasons. One place says how long they may be and what they may hold. Pure.

What cannot be seen is refused: two names that look alike must be alike, and what the audit log shows must be what was
written. So are controls, and the characters that turn the direction of what follows (Unicode's UAX #9).
"""

import re
import unicodedata

from toolkit.core.errors import InvalidInput, NotConfirmed

NAME = 80
"""Most characters of a name: an organisation's, a key's, a plan's, an upstream's, a reference."""

REASON = 500
"""Most characters of a reason."""

EMAIL = 254
"""Most characters of an e-mail address (RFC 5321: a path has 256 with its brackets)."""

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show nothing though Python holds them for printable: joiners, fillers, blanks, variation selectors
(Unicode's DerivedCoreProperties.txt, Default_Ignorable_Code_Point, and the empty braille cell)."""

_PART = r"[^@\s<>\"(),:;\\]"
_EMAIL = re.compile(rf"{_PART}{{1,64}}@{_PART}{{1,189}}")


def check_line(text: str, what: str, longest: int) -> str:
    """Return what somebody typed on one line, without space around it, its accents composed.

    Args:
        text: as it was typed.
        what: how a message names it, such as "organisation's name".
        longest: the most characters that it may have.

    Raises:
        InvalidInput: empty, too long, or with a character that cannot be seen.
    """
    text = unicodedata.normalize("NFC", text.strip())
    if not text:
        raise InvalidInput(f"The {what} is empty. It must have 1 to {longest} characters.")
    return _checked(text, what, longest)


def check_name(name: str, what: str) -> str:
    """Return the name without surrounding space, its accents composed: names that look alike are alike.

    Raises:
        InvalidInput: empty, longer than 80 characters, or holding characters that cannot be seen.
    """
    return check_line(name, what, NAME)


def check_confirmed(confirm: str, name: str, what: str) -> None:
    """Raise NotConfirmed unless what was given to confirm is the thing's name exactly."""
    if confirm != name:
        raise NotConfirmed(f"To confirm, give the {what} exactly: {name!r}, not {confirm!r}. Nothing was changed.")


def check_reason(text: str, what: str = "reason") -> str:
    """Return why somebody did something, or "": at most `REASON` characters, on several lines if need be.

    Raises:
        InvalidInput: too long, or with a character that cannot be seen.
    """
    return _checked(unicodedata.normalize("NFC", text.strip()), what, REASON, allowed="\n\t")


def email_form(email: str) -> str:
    """Return what was typed for an e-mail address in the form in which addresses are compared; it may be none."""
    return unicodedata.normalize("NFC", email.strip().lower())


def check_email(email: str) -> str:
    """Return an e-mail address in the one form in which it is kept and compared: lower case, accents composed.

    Raises:
        InvalidInput: it is none, or holds a character that cannot be seen or that only looks like another.
    """
    email = email_form(email)
    _checked(email, "e-mail address", EMAIL)
    if _EMAIL.fullmatch(email) is None:
        raise InvalidInput(f"{email!r} is not an e-mail address.")
    if unicodedata.normalize("NFKC", email) != email:
        raise InvalidInput(f"The e-mail address {email!r} has characters that only look like usual ones. Retype it.")
    return email


def folded(name: str) -> str:
    """Return what names have in common that differ in case or in the form of their characters alone.

    That is Unicode's toNFKC_Casefold (The Unicode Standard, 3.13), but for characters that a name cannot have.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _checked(text: str, what: str, longest: int, allowed: str = "") -> str:
    if len(text) > longest:
        raise InvalidInput(f"The {what} has {len(text):,} characters; at most {longest} are allowed.")
    for place, character in enumerate(text, 1):
        if (not character.isprintable() or _UNSEEN.match(character)) and character not in allowed:
            raise InvalidInput(
                f"The {what} holds a character that cannot be seen (U+{ord(character):04X}, character {place}). "
                "Type it anew without it."
            )
    return text
