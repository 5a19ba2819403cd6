"""One's own account: where one is signed in, and one's own password. What operators do to others is in `operators`."""

from sqlalchemy import select, update

from toolkit.admin import operators, sessions, sign_in
from toolkit.core.errors import NotFound
from toolkit.core.passwords import PasswordHash, require_hash
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.database import Store
from toolkit.store.tables import Operator, SignInSession
from toolkit.store.transaction import Transaction


def mine(tx: Transaction) -> Operator:
    """Return the operator who acts.

    Raises:
        NotFound: it is a process that acts, not somebody who has signed in.
    """
    operator = operators.with_email(tx, tx.actor.name)
    if operator is None:
        raise NotFound(f"{tx.actor.name} is no operator: only who has signed in has an account.")
    return operator


def my_sessions(tx: Transaction) -> list[SignInSession]:
    """Return one's open sessions, the newest first. Errors as `mine`."""
    query = select(SignInSession).where(
        SignInSession.operator_id == mine(tx).id,
        SignInSession.ended_at.is_(None),
        SignInSession.expires_at > tx.now,
    )
    return list(tx.session.scalars(query.order_by(SignInSession.created_at.desc())))


def end_sessions(tx: Transaction, *, keep: str | None = None, only: str | None = None) -> int:
    """End one's sessions; return how many.

    Args:
        tx: as who has signed in.
        keep: digest of the one that stays, such as that of this browser.
        only: digest of the one that ends; all by default.

    Raises as `mine`.
    """
    operator = mine(tx)
    chosen = update(SignInSession).where(
        SignInSession.operator_id == operator.id, SignInSession.ended_at.is_(None), SignInSession.expires_at > tx.now
    )
    if only is not None:
        chosen = chosen.where(SignInSession.digest == only)
    if keep is not None:
        chosen = chosen.where(SignInSession.digest != keep)
    ended = int(tx.session.execute(chosen.values(ended_at=tx.now)).rowcount)  # type: ignore[attr-defined]
    if ended:
        facts = {"email": operator.email, "sessions": ended}
        audit.record(tx, "operator.end_sessions", operator.id, org_id=operator.org_id, after=facts)
    return ended


def change_password(store: Store, actor: Actor, old: str, new: PasswordHash, *, address: str, keep: str | None) -> None:
    """Change one's own password, and end one's other sessions.

    Takes as long as a sign-in, and counts as one for the throttle: who sits down at somebody's open browser cannot
    guess the password there.

    Args:
        store: the key store.
        actor: who has signed in.
        old: the present password, as typed.
        new: hashed before.
        address: the client's, for the throttle.
        keep: digest of the session that stays, that of this browser.

    Raises:
        SignInFailed: the present password is wrong, or there were too many failures.
        NotFound: as `mine`.
        InvalidInput: the new one is not hashed.
    """
    hashed = require_hash(new)
    proven = sign_in.prove(store, actor.name, old, address)
    with store.write(actor) as tx:
        operator = sign_in.unchanged(tx, proven)
        operator.password_hash = hashed
        sign_in.forgive(tx, proven)
        tx.session.flush()
        sessions.end_all(tx, operator, keep=keep)
        audit.record(
            tx, "operator.change_password", operator.id, org_id=operator.org_id, after={"email": operator.email}
        )
