"""Credentials of upstreams: the names of all that one has; calls of several keys are spread over them."""

from collections.abc import Sequence

from sqlalchemy import delete, select

from toolkit.admin import catalog, upstreams
from toolkit.core.errors import InvalidInput
from toolkit.store import audit, incidents
from toolkit.store.tables import UpstreamCredential
from toolkit.store.transaction import Transaction

MOST_CREDENTIALS = 16


def set_credentials(tx: Transaction, upstream: str, names: Sequence[str]) -> list[str]:
    """Say which credentials an upstream has; the next call goes by it.

    Each API key stays with one of them, since providers keep their caches for an account, and those move least whose
    credential is added or taken away. Another one is taken while theirs is refused, has no credit, or is limited.

    Args:
        tx: as a platform admin.
        upstream: its name.
        names: of variables, or of lines in the secrets file; at least one. The first is the upstream's own.

    Returns:
        The names.

    Raises:
        NotFound: no such upstream.
        InvalidInput: a name cannot be used, or stands there twice.
    """
    catalog.begin_change(tx)
    row = upstreams.find(tx, upstream)
    before = credentials_of(tx, upstream)
    if not 1 <= len(names) <= MOST_CREDENTIALS:
        raise InvalidInput(f"An upstream has 1 to {MOST_CREDENTIALS} credentials, not {len(names)}.")
    for name in names:
        upstreams.check_credential_name(name)
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"The credential {min(twice)} is named twice.")
    upstreams.check_owner_of(tx, names, row.org_id)
    row.credential_env = names[0]
    tx.session.execute(delete(UpstreamCredential).where(UpstreamCredential.upstream == upstream))
    tx.session.add_all(
        UpstreamCredential(upstream=upstream, credential_env=name, position=position)
        for position, name in enumerate(names[1:], 1)
    )
    tx.session.flush()
    if (after := list(names)) != before:
        catalog.changed(tx)
        incidents.end_with(tx, upstream, set(before) - set(after))
        audit.record(tx, "upstream.credentials", upstream, before={"credentials": before}, after={"credentials": after})
    return after


def credentials_of(tx: Transaction, upstream: str) -> list[str]:
    """Return the names of an upstream's credentials, its own first.

    Raises:
        NotFound: no such upstream.
    """
    own = upstreams.find(tx, upstream).credential_env
    query = select(UpstreamCredential.credential_env).where(UpstreamCredential.upstream == upstream)
    return [own, *tx.session.scalars(query.order_by(UpstreamCredential.position))]
