"""A command that prints a short-lived token for an upstream, and what it may print. Pure.

It stands in the secrets file of the machine, as `NAME!=COMMAND`. The key store has its name alone: who could write a
command there would run what he likes on the gateway's machine.
"""

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

LARGEST_OUTPUT = 64 * 1024
"""Bytes that a command may print."""

LONGEST_TOKEN = 16 * 1024
"""Characters of a token; no provider takes a longer header."""

LONGEST_LIFE = 86_400.0
"""Seconds for which a token is kept at most, whatever is told of its end."""

_HOLDERS = ("status", "credential")
"""Objects that a token may stand in: Kubernetes, "client-go credential plugins"; `gcloud config config-helper`."""

_TOKENS = ("token", "access_token", "accessToken")
_LIVES = ("expires_in", "expiresIn")
_ENDS = ("expirationTimestamp", "token_expiry", "expires_on", "expiry", "expires_at")
"""As Kubernetes, gcloud, and Azure's `az account get-access-token` call them, and RFC 6749, 5.1 (`expires_in`).

Azure's `expiresOn` is of the local time ("azure-cli" 2.54.0: use `expires_on`) and is none of them.
"""


class NoToken(Exception):
    """A command gave no token; says why, without anything that it printed."""


@dataclass(frozen=True, slots=True)
class TokenCommand:
    """A command that prints a token.

    Args:
        name: of the credential.
        text: the command, with a shell's quotes; no shell runs it.
    """

    name: str
    text: str

    @property
    def argv(self) -> list[str]:
        """The program and its arguments.

        Raises:
            NoToken: it cannot be read, or is empty.
        """
        try:
            found = shlex.split(self.text)
        except ValueError as error:
            raise NoToken(f"it cannot be read: {str(error).lower()}") from None
        if not found or not found[0]:
            raise NoToken("it is empty")
        return found


class Token(NamedTuple):
    """A token, and for how many seconds it is good; None if nothing tells."""

    text: str
    life: float | None


def token_in(output: bytes, now: datetime) -> Token:
    """Return the token that a command has printed: alone, or in a JSON object that may tell its end.

    Args:
        output: all that it has printed.
        now: UTC.

    Raises:
        NoToken: there is none, or it is of the past.
    """
    try:
        printed = output.decode("ascii").strip()
    except UnicodeDecodeError:
        raise NoToken("it printed something that is not ASCII") from None
    if not printed:
        raise NoToken("it printed nothing")
    if not printed.startswith("{"):
        return Token(_checked(printed), None)
    try:
        told = json.loads(printed)
    except (ValueError, RecursionError):
        raise NoToken("it printed a JSON object that cannot be read") from None
    places = [told, *(told[name] for name in _HOLDERS if isinstance(told.get(name), dict))]
    for place in places:
        token = next((place[name] for name in _TOKENS if isinstance(place.get(name), str)), None)
        if token:
            return Token(_checked(token), _life(place, now))
    raise NoToken(f"it printed a JSON object without {', '.join(_TOKENS[:-1])} or {_TOKENS[-1]}")


def _checked(token: str) -> str:
    if len(token.split()) != 1:
        raise NoToken("it printed more than one word")
    if not token.isascii() or not token.isprintable():
        raise NoToken("its token has characters that no header may hold")
    if len(token) > LONGEST_TOKEN:
        raise NoToken(f"its token is longer than {LONGEST_TOKEN:,} characters")
    return token


def _life(told: dict[str, Any], now: datetime) -> float | None:
    """Return for how many seconds a token is good, if it is told in a way that can be read."""
    life = next((_number(told[name]) for name in _LIVES if name in told), None)
    if life is None:
        ends = (_moment(told[name]) for name in _ENDS if name in told)
        end = next((one for one in ends if one is not None), None)
        life = None if end is None else end - now.timestamp()
    if life is not None and life <= 0:
        raise NoToken("the token that it printed has expired already")
    return None if life is None else min(life, LONGEST_LIFE)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e12 else None  # nor what is no number


def _moment(value: Any) -> float | None:
    """Return seconds since 1970 of a moment, in RFC 3339 or in seconds; what names no time zone is no moment.

    But in `{"datetime": …}`, as `gcloud auth print-access-token --format=json` has it, it is UTC: google-auth's own.
    """
    if (number := _number(value)) is not None:
        return number
    zone = None
    if isinstance(value, dict):
        value, zone = value.get("datetime"), UTC
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or (moment.tzinfo or zone) is None:
            return None
        return moment.replace(tzinfo=moment.tzinfo or zone).timestamp()
    except (ValueError, OverflowError):
        return None
