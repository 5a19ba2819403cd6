"""Peppers: which of them the store's API keys need, and what becomes of keys whose pepper is gone.

Without its pepper no secret can be verified, and beside a wrong one every key is answered 401. So no process makes a
pepper beside a store that has live secrets, and none starts while one of theirs is missing. A pepper that was taken
away on purpose, because it leaked, is retired: the secrets made under it are dead, their keys wait to be rotated.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from toolkit import environment
from toolkit.admin import keys, rights
from toolkit.core import words
from toolkit.core.errors import Conflict, NotFound
from toolkit.core.secrets import Keyring
from toolkit.core.settings import Settings
from toolkit.core.wording import counted
from toolkit.store import audit
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.locks import lock_orgs
from toolkit.store.tables import ApiKey, LiveSecret, Organisation
from toolkit.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Pepper:
    """A pepper that is here, or that keys were made under.

    Args:
        id: names it and tells nothing of it.
        keys: API keys whose present secret was made under it.
        is_here: whether this process has it.
        is_current: whether new secrets are made under it here.
    """

    id: str
    keys: int
    is_here: bool
    is_current: bool


def open_keyring(store: Store, settings: Settings) -> Keyring:
    """Return the peppers of a key store; the first is made where no live secret needs one.

    Raises:
        Conflict: a pepper that live secrets need is missing; says which, and how to restore it.
        InvalidInput: a pepper cannot be used.
    """
    with store.read(SYSTEM) as tx:
        needed = _needed(tx)
    keyring = None if needed and not environment.has_pepper(settings) else environment.keyring(settings)
    here = keyring.pepper_ids if keyring else []
    missing = {pepper: number for pepper, number in needed.items() if pepper not in here}
    if keyring is None or missing:
        raise Conflict(_missing(missing, here, settings))
    return keyring


def listed(tx: Transaction, settings: Settings) -> list[Pepper]:
    """Return the peppers that are here, the current one first, and those that live secrets need."""
    rights.require_platform_admin(tx)
    needed = _needed(tx)
    here = environment.keyring(settings).pepper_ids if environment.has_pepper(settings) else []
    return [
        Pepper(pepper, needed.get(pepper, 0), pepper in here, here[:1] == [pepper])
        for pepper in [*here, *sorted(needed.keys() - set(here))]
    ]


def retire(tx: Transaction, pepper_id: str, *, current: str | None, confirm: str, reason: str = "") -> int:
    """End the secrets that were made under a pepper: it leaked, or is lost for good. Their keys wait to be rotated.

    Calls under way finish and are charged.

    Args:
        tx: as a platform admin.
        pepper_id: which.
        current: the pepper that new secrets are made under, if there is one: that one cannot be retired.
        confirm: must equal the pepper's id.
        reason: for the audit log.

    Returns:
        How many keys have no secret now.

    Raises:
        NotFound: no live secret was made under it.
        NotConfirmed: `confirm` is not its id.
        Conflict: new secrets would be made under it again.
    """
    rights.require_platform_admin(tx)
    lock_orgs(tx, *tx.session.scalars(select(Organisation.id)))  # whichever has such a key, or gets one meanwhile
    made_under = (
        select(LiveSecret.key_id)
        .join(ApiKey, ApiKey.id == LiveSecret.key_id)
        .where(LiveSecret.pepper_id == pepper_id)
        .order_by(ApiKey.org_id, ApiKey.id)  # the order in which chains of the audit log are locked
    )
    key_ids = list(tx.session.scalars(made_under))
    if not key_ids:
        raise NotFound(
            f"No API key's secret was made under the pepper {pepper_id!r}. `keydesk pepper list` shows them."
        )
    words.check_confirmed(confirm, pepper_id, "pepper's id")
    if pepper_id == current:
        raise Conflict(
            f"New secrets are made under the pepper {pepper_id} here. Put another one first in KEYDESK_PEPPER, or in "
            "the file `pepper`, or remove that file."
        )
    for key_id in key_ids:
        keys.retire_secret(tx, key_id, reason=reason or f"The pepper {pepper_id} was retired.")
    audit.record(tx, "pepper.retire", pepper_id, after={"keys": len(key_ids)}, reason=reason)
    return len(key_ids)


def _needed(tx: Transaction) -> dict[str, int]:
    query = select(LiveSecret.pepper_id, func.count()).group_by(LiveSecret.pepper_id).order_by(LiveSecret.pepper_id)
    return {row[0]: row[1] for row in tx.session.execute(query)}


def _missing(missing: Mapping[str, int], here: list[str], settings: Settings) -> str:
    named = ", ".join(f"{pepper} ({counted(number, 'API key')})" for pepper, number in missing.items())
    where = "KEYDESK_PEPPER" if settings.pepper_text else str(settings.pepper_file)
    has = f"has {', '.join(here)}" if here else "is not there"
    return (
        f"The peppers that the store's API keys were made under are missing: {named}; {where} {has}. Without them "
        "every call of these keys is refused. Restore them from the backup, or set KEYDESK_PEPPER as for the other "
        "processes. If one is lost for good, or was taken away because it leaked, `keydesk pepper retire ID` ends the "
        "secrets made under it."
    )
