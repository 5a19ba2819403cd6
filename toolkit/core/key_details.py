"""What people note of a key beside its options: whose it is, where it runs, what for. Pure; no call is judged by it."""

from collections.abc import Iterable

from toolkit.core import words
from toolkit.core.errors import InvalidInput

ENVIRONMENT = 40
LABEL = 60
"""Characters, at most."""

MOST_LABELS = 20


def check_owner(text: str) -> str:
    """Return whose key it is: a person, a team, an e-mail address; empty for nobody's.

    Raises:
        InvalidInput: too long, or with a character that cannot be seen.
    """
    return words.check_line(text, "owner", words.NAME) if text.strip() else ""


def check_environment(text: str) -> str:
    """Return where a key is used, such as "production"; empty if nobody says. Errors as `check_owner`."""
    return words.check_line(text, "environment", ENVIRONMENT) if text.strip() else ""


def check_note(text: str) -> str:
    """Return a note, on several lines if need be, or "". Errors as `check_owner`."""
    return words.check_reason(text, "note")


def check_labels(labels: Iterable[str]) -> list[str]:
    """Return labels, such as "team=search" or "batch", sorted, each once.

    Raises:
        InvalidInput: too many, one is too long, or has a comma or a character that cannot be seen.
    """
    checked = sorted({words.check_line(label, "label", LABEL) for label in labels if label.strip()})
    if len(checked) > MOST_LABELS:
        raise InvalidInput(f"A key has at most {MOST_LABELS} labels, not {len(checked)}.")
    if with_comma := next((label for label in checked if "," in label), None):
        raise InvalidInput(f"The label {with_comma!r} has a comma, which stands between labels.")
    return checked
