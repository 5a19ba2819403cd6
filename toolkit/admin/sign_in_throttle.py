"""The throttle of the sign-in: how many wrong passwords are let pass, and how fast after that.

Failures of the last 15 minutes are counted three ways. Below a limit a try is judged at once; above it one try in each
pause is, and the others are refused before their password is looked at.

| counted for | let pass | then one try in | so that |
|---|---|---|---|
| an e-mail from one address | 8 | 60 s | nobody guesses a password |
| an address, for all e-mails | 40 | 10 s | nobody tries one password on everybody |
| an e-mail, from all addresses | 24 | 10 s | many machines guess no faster than one |

Nothing is ever locked: a limit that strangers use up holds as long as they go on, and a pause longer. From an address
where the same e-mail has signed in during the last 30 days only the first limit holds, so that strangers elsewhere do
not keep anybody out at all. A reset of the password forgets all failures of the e-mail.

Wrong API keys at the page /key count for their address alone.
"""

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select

from toolkit.core.errors import SignInFailed
from toolkit.core.ids import new_id
from toolkit.store.locks import lock_name
from toolkit.store.tables import Operator, SignInFailure, SignInSession
from toolkit.store.transaction import Transaction

WINDOW = timedelta(minutes=15)
KNOWN_FOR = timedelta(days=30)
"""How long an address is known for an e-mail after it signed in there."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Failures in the window that are let pass, and the pause between two tries after that."""

    tries: int
    pause: timedelta


_FROM = " from "

PAIR = Limit(8, timedelta(seconds=60))
ADDRESS = Limit(40, timedelta(seconds=10))
EMAIL = Limit(24, timedelta(seconds=10))


@dataclass(frozen=True, slots=True)
class Try:
    """One try to sign in.

    Args:
        email: as it was typed, without surrounding space, in lower case.
        address: the network that it comes from (see `network`).
    """

    email: str
    address: str

    @property
    def pair(self) -> str:
        """The subject of what this address does with this e-mail."""
        return f"{email_subject(self.email)}{_FROM}{self.address}"

    def limits(self) -> dict[str, Limit]:
        """Return what it counts for, and the limit of each."""
        return {self.pair: PAIR, **_of_address(self.address), email_subject(self.email): EMAIL}


def network(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 of an IPv6 one, which is one customer's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def email_subject(email: str) -> str:
    """Return how the throttle knows an e-mail, or whatever was typed for one: by its digest."""
    return f"email:{hashlib.sha256(email.encode('utf-8', 'surrogatepass')).hexdigest()}"


def is_pair(subject: str) -> bool:
    """Whether a subject is an e-mail together with an address, whose failures count for each of the two as well."""
    return _FROM in subject


def require_turn(tx: Transaction, this: Try) -> None:
    """Raise unless the try may be judged now; reads only.

    Raises:
        SignInFailed: too many failures; the message has the seconds to wait.
    """
    waits = _waits(tx, this.limits())
    if waits and (this.pair in waits or not _is_known(tx, this)):
        raise SignInFailed(
            f"Too many failed tries. Wait {_seconds(waits)} s and try again, or ask a platform admin to reset the "
            "password."
        )


def require_key_turn(tx: Transaction, address: str) -> None:
    """Raise unless an API key that was typed may be looked at now; reads only.

    Wrong keys and wrong passwords of an address count together.

    Args:
        tx: any.
        address: the network that it comes from (see `network`).

    Raises:
        SignInFailed: too many failures; the message has the seconds to wait.
    """
    if waits := _waits(tx, _of_address(address)):
        raise SignInFailed(f"Too many failed tries. Wait {_seconds(waits)} s and try again.")


def take_key_turn(tx: Transaction, address: str) -> list[str]:
    """Count an API key that was typed as wrong, until it has been right; return the ids of what was counted.

    Raises as `require_key_turn`.
    """
    lock_name(tx, "sign-in")
    require_key_turn(tx, address)
    return _count(tx, _of_address(address))


def forgive_key(tx: Transaction, counted: list[str]) -> None:
    """Forget an API key that was right."""
    tx.session.execute(delete(SignInFailure).where(SignInFailure.id.in_(counted)))


def _of_address(address: str) -> dict[str, Limit]:
    return {f"address:{address}": ADDRESS}


def _waits(tx: Transaction, limits: dict[str, Limit]) -> dict[str, timedelta]:
    """Return for how long each subject that has failed too often must wait."""
    recent = SignInFailure.failed_at > tx.now - WINDOW
    waits = {}
    for subject, limit in limits.items():
        query = select(func.count(), func.max(SignInFailure.failed_at)).where(SignInFailure.subject == subject, recent)
        failures, newest = tx.session.execute(query).one()
        if failures >= limit.tries and newest + limit.pause > tx.now:
            waits[subject] = newest + limit.pause - tx.now
    return waits


def _seconds(waits: dict[str, timedelta]) -> int:
    return -(-max(waits.values()) // timedelta(seconds=1))


def count(tx: Transaction, this: Try) -> list[str]:
    """Count a try as failed, until it has succeeded; return the ids of what was counted."""
    return _count(tx, this.limits())


def _count(tx: Transaction, subjects: Iterable[str]) -> list[str]:
    tx.session.execute(delete(SignInFailure).where(SignInFailure.failed_at <= tx.now - WINDOW))
    failed = [SignInFailure(id=new_id("fail"), subject=subject, failed_at=tx.now) for subject in subjects]
    tx.session.add_all(failed)
    return [failure.id for failure in failed]


def forgive(tx: Transaction, this: Try, counted: list[str]) -> None:
    """Forget a try that has succeeded, and the failures of its e-mail; what its address did otherwise is remembered."""
    tx.session.execute(delete(SignInFailure).where(or_(_of_email(this.email), SignInFailure.id.in_(counted))))


def forget(tx: Transaction, email: str) -> None:
    """Forget the failures of an e-mail, as after a reset of its password."""
    tx.session.execute(delete(SignInFailure).where(_of_email(email)))


def _of_email(email: str) -> ColumnElement[bool]:
    subject = email_subject(email)
    return or_(SignInFailure.subject == subject, SignInFailure.subject.startswith(f"{subject}{_FROM}"))


def _is_known(tx: Transaction, this: Try) -> bool:
    query = (
        select(SignInSession.digest)
        .join(Operator, Operator.id == SignInSession.operator_id)
        .where(
            Operator.email == this.email,
            SignInSession.address == this.address,
            SignInSession.created_at > tx.now - KNOWN_FOR,
        )
    )
    return tx.session.scalar(query.limit(1)) is not None
