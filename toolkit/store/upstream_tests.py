"""Tests of upstreams in the key store: an operator asks for one, and one gateway, which has the credential, takes it.

A gateway that dies leaves its test to be taken by another one, once; so a test that brings gateways down ends in words.
"""

from datetime import timedelta

from sqlalchemy import Select, delete, select

from toolkit.core.ids import new_id
from toolkit.store.locks import lock_name
from toolkit.store.tables import GatewayInstance, UpstreamTest
from toolkit.store.transaction import Transaction, store_now

MOST_TRIES = 2
"""Gateways that take one test, should the first die."""

KEPT = timedelta(days=1)
"""How long a test is kept."""

_DIED = "the gateways that took it ended before they were done; their logs may say why"


def ask(tx: Transaction, upstream: str, model: str | None) -> str:
    """Ask for a test of an upstream; return its id."""
    tx.session.execute(delete(UpstreamTest).where(UpstreamTest.asked_at < tx.now - KEPT))
    test = UpstreamTest(
        id=new_id("test"), upstream=upstream, model=model, asked_at=tx.now, asked_by=tx.actor.name, tries=0
    )
    tx.session.add(test)
    return test.id


def is_waiting(tx: Transaction) -> bool:
    """Whether there is a test that has not ended; cheap, for it is asked again and again."""
    return tx.session.scalar(select(UpstreamTest.id).where(UpstreamTest.ended_at.is_(None)).limit(1)) is not None


def take(tx: Transaction, instance_id: str) -> UpstreamTest | None:
    """Take the oldest test that no living gateway has taken, for a gateway; None if there is none."""
    lock_name(tx, "upstream tests")
    for test in tx.session.scalars(
        select(UpstreamTest)
        .where(
            UpstreamTest.ended_at.is_(None),
            UpstreamTest.taken_by.is_(None) | UpstreamTest.taken_by.not_in(_living(tx)),
        )
        .order_by(UpstreamTest.asked_at, UpstreamTest.id)
    ):
        if test.tries >= MOST_TRIES:
            test.ended_at, test.failure = tx.now, _DIED
            continue
        test.tries += 1
        test.taken_by = instance_id
        tx.session.flush()
        tx.session.expunge(test)
        return test
    return None


def end(
    tx: Transaction, test_id: str, instance_id: str, *, found: str | None = None, failure: str | None = None
) -> None:
    """Write what became of a test, unless another gateway has taken it meanwhile."""
    test = tx.session.get(UpstreamTest, test_id, with_for_update=True)
    if test is not None and test.taken_by == instance_id and test.ended_at is None:
        test.ended_at, test.found, test.failure = tx.now, found, failure


def give_back(tx: Transaction, test_id: str, instance_id: str) -> None:
    """Leave a test to another gateway, as if this one had not taken it."""
    test = tx.session.get(UpstreamTest, test_id, with_for_update=True)
    if test is not None and test.taken_by == instance_id and test.ended_at is None:
        test.taken_by, test.tries = None, test.tries - 1


def has_gateway(tx: Transaction) -> bool:
    """Whether a gateway is running, which could take a test."""
    return tx.session.scalar(_living(tx).limit(1)) is not None


def _living(tx: Transaction) -> Select[str]:
    return select(GatewayInstance.id).where(GatewayInstance.lease_until >= store_now(tx))
