"""Signing in: the throttle, the life of a session, and what an outsider can tell."""

from datetime import UTC, datetime, timedelta
from functools import partial

import bcrypt
import pytest
from sqlalchemy import func, select, text

from tests.conftest import ADMIN, Run, at_once
from toolkit.admin import operators, organisations, sessions, sign_in_throttle
from toolkit.admin.sign_in import open_session
from toolkit.core import passwords
from toolkit.core.errors import SignInFailed
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.store import audit, database, locks, transaction
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import Operator, SignInFailure, SignInSession
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

PASSWORD = "correct horse battery"
EMAIL = "ada@example.com"
ADDRESS = "192.0.2.1"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        """Move on."""
        self.now += timedelta(**span)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The store's clock."""
    clock = Clock()
    monkeypatch.setattr(transaction, "store_now", lambda _tx: clock())
    return clock


@pytest.fixture
def store(workspace: Workspace, clock: Clock) -> Store:
    """A store with one org admin and one platform admin."""
    with workspace.write() as tx:
        org = organisations.add(tx, "Acme")
        operators.add(tx, EMAIL, Role.ORG_ADMIN, hash_password(PASSWORD), org_id=org.id)
        operators.add(tx, "root@example.com", Role.PLATFORM_ADMIN, hash_password(PASSWORD))
    return workspace.store


@pytest.fixture
def _cheap_dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let unknown operators cost as little as the tests' own do."""
    monkeypatch.setattr(passwords, "_DUMMY_HASH", bcrypt.hashpw(b"nobody", bcrypt.gensalt(4)))


def operator_id(store: Store) -> str:
    """Return the id of the org admin."""
    with store.read(ADMIN) as tx:
        operator = operators.with_email(tx, EMAIL)
        assert operator is not None
        return operator.id


def failures(store: Store, times: int, email: str = EMAIL, address: str = ADDRESS) -> None:
    """Fail to sign in some times."""
    for _ in range(times):
        with pytest.raises(SignInFailed, match="E-mail or password is wrong"):
            open_session(store, email, "wrong password", address)


def test_the_right_password_opens_a_session(store: Store, clock: Clock) -> None:
    """The session names the operator with its role and organisation; the sign-in is recorded."""
    actor = sessions.find(store, open_session(store, f"  {EMAIL.upper()} ", PASSWORD, ADDRESS))
    assert actor is not None
    assert (actor.name, actor.role) == (EMAIL, Role.ORG_ADMIN)
    assert actor.org_id is not None
    with store.read(ADMIN) as tx:
        operator = tx.session.get(Operator, operator_id(store))
        assert operator is not None
        assert operator.last_sign_in_at == clock.now
        newest = audit.rows(tx, limit=1)[0]
    assert (newest.action, newest.actor, newest.chain) == ("operator.sign_in", EMAIL, actor.org_id)


def test_each_sign_in_has_an_id_of_its_own(store: Store) -> None:
    """An id is never given from outside nor used again, so nobody can fix it beforehand."""
    first, second = (open_session(store, EMAIL, PASSWORD, ADDRESS) for _ in range(2))
    assert first != second
    assert min(len(first), len(second)) >= 43
    sessions.sign_out(store, first)
    assert sessions.find(store, first) is None
    assert sessions.find(store, second) is not None


def test_the_store_opens_no_session(store: Store) -> None:
    """Neither the id nor the password is in the store: only digests."""
    session_id = open_session(store, EMAIL, PASSWORD, ADDRESS)
    with store.read(ADMIN) as tx:
        (digest,) = tx.session.scalars(select(SignInSession.digest))
        dump = repr([tx.session.execute(text(f"SELECT * FROM {table}")).all() for table in ("operator", "audit")])
    assert session_id not in digest
    assert sessions.find(store, digest) is None
    assert PASSWORD not in dump


@pytest.mark.parametrize("session_id", ["", "x", "' OR 1=1 --", "\ud800", "ключ"])
def test_an_unknown_session_is_nobody(store: Store, session_id: str) -> None:
    """Whatever a cookie may hold, it is either a session or nothing."""
    open_session(store, EMAIL, PASSWORD, ADDRESS)
    assert sessions.find(store, session_id) is None
    sessions.sign_out(store, session_id)


def test_a_session_ends_after_twelve_hours(store: Store, clock: Clock) -> None:
    """To the second."""
    session_id = open_session(store, EMAIL, PASSWORD, ADDRESS)
    clock.forward(hours=12, seconds=-1)
    assert sessions.find(store, session_id) is not None
    clock.forward(seconds=1)
    assert sessions.find(store, session_id) is None


def test_end_all_ends_every_session_of_one_operator(store: Store) -> None:
    """Others stay signed in."""
    own = [open_session(store, EMAIL, PASSWORD, ADDRESS) for _ in range(2)]
    other = open_session(store, "root@example.com", PASSWORD, ADDRESS)
    with store.write(ADMIN) as tx:
        sessions.end_all(tx, tx.session.get_one(Operator, operator_id(store)))
    assert [sessions.find(store, session_id) for session_id in own] == [None, None]
    assert sessions.find(store, other) is not None


def test_a_session_follows_the_operators_present_role(store: Store) -> None:
    """Rights are read anew each time, not kept from the sign-in."""
    session_id = open_session(store, EMAIL, PASSWORD, ADDRESS)
    with store.write(ADMIN) as tx:
        operator = tx.session.get(Operator, operator_id(store))
        assert operator is not None
        operator.role = Role.ANALYST
    actor = sessions.find(store, session_id)
    assert actor is not None
    assert actor.role is Role.ANALYST


@pytest.mark.parametrize("password", ["", PASSWORD + " ", PASSWORD.upper(), "x" * 5000, "\x00", "\ud800 surrogate"])
def test_a_wrong_password_opens_nothing(store: Store, password: str) -> None:
    """Close is not enough, and odd input is just wrong."""
    with pytest.raises(SignInFailed, match="E-mail or password is wrong"):
        open_session(store, EMAIL, password, ADDRESS)


def test_an_unknown_operator_is_told_the_same_after_the_same_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash is checked for unknown e-mails too, at the cost of real ones."""
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return bool(real(password, hashed))

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    messages = set()
    for email in (EMAIL, "nobody@example.com", "no address", ""):
        with pytest.raises(SignInFailed) as caught:
            open_session(store, email, "wrong password", ADDRESS)
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert checked[1:] == [passwords._DUMMY_HASH] * 3
    assert passwords._DUMMY_HASH.startswith(f"$2b${passwords.BCRYPT_COST}$".encode())


def test_eight_failures_slow_a_pair_down(store: Store, clock: Clock) -> None:
    """After eight failures of an e-mail from one address there is one try a minute, even with the right password."""
    failures(store, sign_in_throttle.PAIR.tries)
    with pytest.raises(SignInFailed, match="Wait 60 s"):
        open_session(store, EMAIL, PASSWORD, ADDRESS)
    clock.forward(seconds=60)
    failures(store, 1)
    with pytest.raises(SignInFailed, match="Wait 60 s"):
        open_session(store, EMAIL, PASSWORD, ADDRESS)
    clock.forward(seconds=60)
    assert open_session(store, EMAIL, PASSWORD, ADDRESS)


def test_a_stranger_locks_nobody_out(store: Store) -> None:
    """Whatever one address does with a known e-mail, its owner signs in from any other one."""
    failures(store, sign_in_throttle.PAIR.tries)
    assert open_session(store, EMAIL, PASSWORD, "198.51.100.7")


def test_many_strangers_slow_an_e_mail_down_but_where_it_is_known(store: Store, clock: Clock) -> None:
    """From everywhere together there is one try in ten seconds, but not from where the e-mail has signed in before."""
    assert open_session(store, EMAIL, PASSWORD, "198.51.100.7")
    for number in range(sign_in_throttle.EMAIL.tries // 4):
        failures(store, 4, address=f"192.0.2.{number}")
    assert open_session(store, EMAIL, PASSWORD, "198.51.100.7")

    for number in range(sign_in_throttle.EMAIL.tries // 4):
        failures(store, 4, address=f"203.0.113.{number}")
    with pytest.raises(SignInFailed, match="Wait 10 s"):
        open_session(store, EMAIL, PASSWORD, "198.51.100.8")
    clock.forward(seconds=10)
    assert open_session(store, EMAIL, PASSWORD, "198.51.100.8")


def test_a_known_address_is_forgotten_after_a_month(store: Store, clock: Clock) -> None:
    """An address where somebody signed in long ago may be anybody's by now."""
    assert open_session(store, EMAIL, PASSWORD, "198.51.100.7")
    clock.forward(days=30)
    for number in range(sign_in_throttle.EMAIL.tries // 4):
        failures(store, 4, address=f"192.0.2.{number}")
    with pytest.raises(SignInFailed, match="Too many"):
        open_session(store, EMAIL, PASSWORD, "198.51.100.7")


def test_who_must_wait_writes_nothing_and_has_no_password_compared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of tries that are refused costs the store's other writers nothing."""
    failures(store, sign_in_throttle.PAIR.tries)

    def no_write(*_arguments: object) -> None:
        raise AssertionError("it wrote")

    monkeypatch.setattr(store, "write", no_write)
    monkeypatch.setattr(bcrypt, "checkpw", no_write)
    with pytest.raises(SignInFailed, match="Too many"):
        open_session(store, EMAIL, PASSWORD, ADDRESS)


@pytest.mark.usefixtures("_cheap_dummy")
def test_the_throttle_counts_unknown_e_mails_alike(store: Store) -> None:
    """So it tells nobody which operators there are; spelling does not go around it."""
    failures(store, sign_in_throttle.PAIR.tries, "Nobody@example.com ")
    with pytest.raises(SignInFailed, match="Too many"):
        open_session(store, "nobody@EXAMPLE.com", PASSWORD, ADDRESS)


@pytest.mark.usefixtures("_cheap_dummy")
def test_one_address_may_not_try_everybody(store: Store) -> None:
    """Forty failures from one address slow it down, whoever it tries to be; other addresses go on."""
    for number in range(sign_in_throttle.ADDRESS.tries):
        failures(store, 1, f"guess{number}@example.com")
    with pytest.raises(SignInFailed, match="Too many"):
        open_session(store, EMAIL, PASSWORD, ADDRESS)
    assert open_session(store, EMAIL, PASSWORD, "198.51.100.7")


def test_addresses_of_one_customer_count_as_one() -> None:
    """An IPv6 customer has 2^64 addresses; an IPv4 one looks different on a socket for both families."""
    assert (
        sign_in_throttle.network("2001:db8:1:2:3:4:5:6")
        == sign_in_throttle.network("2001:db8:1:2::1%eth0")
        == "2001:db8:1:2::/64"
    )
    assert sign_in_throttle.network("::ffff:192.0.2.1") == sign_in_throttle.network("192.0.2.1") == "192.0.2.1"
    assert sign_in_throttle.network("unknown") == "unknown"


@pytest.mark.both_stores
def test_no_password_is_hashed_or_compared_inside_a_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While bcrypt takes its time, any other writer gets its turn: all billing would wait on SQLite."""
    writers = 0

    def compared(*_arguments: object) -> bool:
        nonlocal writers
        assert at_once(lambda: _write_once(store)) == [None]
        writers += 1
        return True

    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.0)
    monkeypatch.setattr(bcrypt, "checkpw", compared)
    assert open_session(store, EMAIL, PASSWORD, ADDRESS)
    assert writers == 1


@pytest.mark.both_stores
@pytest.mark.parametrize(
    "arguments",
    [("add", "eva@example.com", "--role", "analyst"), ("reset-password", EMAIL)],
)
def test_commands_hash_before_they_write(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Adding an operator and resetting a password hold up no other writer while bcrypt takes its time either."""
    real, hashed = bcrypt.hashpw, []

    def hashpw(password: bytes, salt: bytes) -> bytes:
        hashed.append(at_once(lambda: _write_once(store)))
        return real(password, salt)

    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.0)
    monkeypatch.setattr(bcrypt, "hashpw", hashpw)
    result = run("operators", *arguments, "--password-stdin", typed="a fresh password\n")
    assert result.exit_code == 0, result.output
    assert hashed == [[None]]


def _write_once(store: Store) -> None:
    with store.write(ADMIN) as tx:
        locks.lock_name(tx, "sign-in")
        locks.lock_name(tx, "operator names")


def test_signing_in_forgets_the_failures_of_the_e_mail(store: Store) -> None:
    """Typos do not add up over a day; what the address did is remembered."""
    failures(store, sign_in_throttle.PAIR.tries - 1)
    open_session(store, EMAIL, PASSWORD, ADDRESS)
    failures(store, sign_in_throttle.PAIR.tries - 1)
    assert open_session(store, EMAIL, PASSWORD, ADDRESS)
    with store.read(ADMIN) as tx:
        subjects = set(tx.session.scalars(select(SignInFailure.subject)))
    assert subjects == {f"address:{ADDRESS}"}


def test_a_reset_password_works_at_once(store: Store, workspace: Workspace) -> None:
    """The throttle's advice holds: after a reset the operator need not wait; the old password is dead."""
    failures(store, sign_in_throttle.PAIR.tries)
    with workspace.write() as tx:
        operators.reset_password(tx, EMAIL, hash_password("a fresh password"))
    failures(store, 1)
    assert open_session(store, EMAIL, "a fresh password", ADDRESS)


def test_old_failures_are_cleared_away(store: Store, clock: Clock) -> None:
    """The table of failures does not grow for ever."""
    failures(store, 3)
    clock.forward(minutes=16)
    failures(store, 1)
    with store.read(ADMIN) as tx:
        assert tx.session.scalar(select(func.count()).select_from(SignInFailure)) == 3


def test_a_password_that_changes_during_the_sign_in_opens_nothing(
    store: Store, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check and the session, a reset wins."""
    real = operators.password_matches

    def reset_meanwhile(operator: Operator | None, password: str) -> bool:
        matches = real(operator, password)
        with workspace.write() as tx:
            operators.reset_password(tx, EMAIL, hash_password("a fresh password"))
        return matches

    monkeypatch.setattr(operators, "password_matches", reset_meanwhile)
    with pytest.raises(SignInFailed):
        open_session(store, EMAIL, PASSWORD, ADDRESS)
    with store.read(ADMIN) as tx:
        assert tx.session.scalar(select(func.count()).select_from(SignInSession)) == 0


@pytest.mark.both_stores
def test_tries_at_once_do_not_get_past_the_throttle(store: Store) -> None:
    """However many guess at the same moment, no more passwords are compared than one after the other."""
    tries = sign_in_throttle.PAIR.tries + 4
    guess = partial(open_session, store, EMAIL, "wrong", ADDRESS)
    told = [str(result) for result in at_once(*[guess] * tries)]
    assert sum("wrong" in message for message in told) == sign_in_throttle.PAIR.tries
    assert sum("Too many" in message for message in told) == 4


def test_tries_that_succeed_do_not_count(store: Store) -> None:
    """Any number of people may sign in from one address."""
    for _ in range(sign_in_throttle.PAIR.tries + 1):
        assert open_session(store, EMAIL, PASSWORD, ADDRESS)
    with store.read(SYSTEM) as tx:
        assert tx.session.scalar(select(func.count()).select_from(SignInFailure)) == 0
