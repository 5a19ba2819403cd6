"""Tests of upstreams: an operator asks for one, a running gateway makes it, and the operator reads what it found."""

from typing import NamedTuple

from toolkit.admin import catalog, rights, upstreams
from toolkit.admin.models import check_upstream_model
from toolkit.core.catalog import ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, NotFound
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_test import Found
from toolkit.store import audit, upstream_tests
from toolkit.store.tables import UpstreamTest
from toolkit.store.transaction import Transaction

_NO_GATEWAY = (
    "No gateway is running, and only a gateway has the credential. Start one with `keydesk gateway` (or `keydesk up`), "
    "then ask again."
)


class Outcome(NamedTuple):
    """What became of a test.

    Args:
        found: what it found; None if it did not come to that.
        failure: why not, in words.
    """

    found: Found | None
    failure: str | None


def ask(tx: Transaction, name: str, model: str | None = None) -> str:
    """Ask for a test of an upstream, which makes short calls at the operator's own cost; return its id.

    Args:
        tx: as a platform admin.
        name: of the upstream.
        model: that is to be called: a public id, or the upstream's own name of one; else the cheapest of the catalog.

    Raises:
        Forbidden: the actor is no platform admin.
        NotFound: no such upstream.
        InvalidInput: the model cannot be a name.
        Conflict: no gateway is running, or too many tests have not ended.
    """
    rights.require_platform_admin(tx)
    upstreams.find(tx, name)
    if model is not None:
        check_upstream_model(model)
    if not upstream_tests.has_gateway(tx):
        raise Conflict(_NO_GATEWAY)
    test_id = upstream_tests.ask(tx, name, model)
    audit.record(tx, "upstream.test", name, after={"test": test_id, **({"model": model} if model else {})})
    return test_id


def outcome(tx: Transaction, test_id: str) -> Outcome | None:
    """Return what became of a test; None while it goes on.

    Raises:
        Forbidden: the actor is no platform admin.
        NotFound: no such test.
        Conflict: it has not ended, and no gateway is running any more.
    """
    rights.require_platform_admin(tx)
    test = tx.session.get(UpstreamTest, test_id)
    if test is None:
        raise NotFound(f"There is no test {test_id!r} any more.")
    if test.ended_at is not None:
        return Outcome(Found.from_json(test.found) if test.found else None, test.failure)
    if not upstream_tests.has_gateway(tx):
        raise Conflict(f"The gateway has ended before the test had. {_NO_GATEWAY}")
    return None


def model_to_call(tx: Transaction, test: UpstreamTest) -> ModelFacts:
    """Return which model of an upstream a test calls: the one that was asked for, else the cheapest that has output.

    One that the catalog does not have has no price. Without any its name is empty, and only the list is tested.

    Raises:
        NotFound: the upstream is gone.
    """
    upstream = upstreams.find(tx, test.upstream)
    served = [facts for facts in catalog.load(tx).places() if facts.upstream == upstream.name]
    wanted = [facts for facts in served if test.model is None or test.model in (facts.id, facts.upstream_model)]
    if wanted:
        return min(wanted, key=lambda facts: _price(facts, tx))
    return ModelFacts(
        id=test.model or "",
        dialect=Dialect(upstream.dialect),
        upstream=upstream.name,
        base_url=upstream.base_url,
        credential_env=upstream.credential_env,
        upstream_model=test.model or "",
        context_window=0,
        default_output=0,
        max_output=0,
        created_at=tx.now,
        unknown_fields=UnknownFields(upstream.unknown_fields),
        traits=catalog.traits_of(upstream),
        prices=(),
    )


def _price(facts: ModelFacts, tx: Transaction) -> tuple[bool, int, str]:
    """Return what models are ordered by: those without a price for output, such as embeddings, come last."""
    dated = facts.price(tx.now)
    tier = dated.sheet.tiers[0] if dated else None
    return tier is None or tier.output == 0, tier.input + tier.output if tier else 0, facts.id
