"""Who acts, as the audit log names them: trusted processes are never taken for people."""

import os
import pwd

import pytest

from toolkit.core import words
from toolkit.core.errors import InvalidInput
from toolkit.core.policy import Role
from toolkit.store.actor import Actor


def test_a_trusted_actor_is_named_by_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own, or the number of one that has no name; a name that was given stands behind it."""

    def nameless(_number: int) -> None:
        raise KeyError("no such user")

    user = pwd.getpwuid(os.getuid()).pw_name
    for variable in ("USER", "LOGNAME"):
        monkeypatch.setenv(variable, "ada@example.com")
    assert Actor.trusted().name == f"cli:{user}"
    assert Actor.trusted("ada@example.com") == Actor(f"cli:{user} as ada@example.com", Role.PLATFORM_ADMIN)
    monkeypatch.setattr(pwd, "getpwuid", nameless)
    assert Actor.trusted().name == f"cli:{os.getuid()}"


@pytest.mark.parametrize("name", ["", "  ", "a\u202eb", "a\u200bb", "a\nb", "x" * 255, "\u3164"])
def test_a_name_that_is_not_what_it_looks_like_is_no_actors(name: str) -> None:
    """Control, invisible and turning characters, nothing at all, or too much."""
    with pytest.raises(InvalidInput, match="name of who acts"):
        Actor.trusted(name)


def test_no_operator_can_be_named_like_a_process() -> None:
    """No e-mail has a colon before its @, so an actor that begins with `cli:` never signed in."""
    with pytest.raises(InvalidInput):
        words.check_email("cli:root@example.com")
