"""Tests of upstreams in the key store: an operator asks for one, and one gateway, which has the credential, takes it.

A gateway that dies leaves its test to be taken by another one, once; so a test that brings gateways down ends in words.
"""

from datetime import timedelta

from sqlalchemy import ColumnElement, Select, delete, func, select

from toolkit.core.errors import Conflict
from toolkit.core.ids import new_id
from toolkit.store.locks import lock_name
from toolkit.store.tables import GatewayInstance, UpstreamTest
from toolkit.store.transaction import Transaction, store_now

MOST_TRIES = 2
"""Gateways that take one test, should the first die."""

MOST_WAITING = 20
"""Tests that have not ended; each costs calls, and they are made one after the other."""

KEPT = timedelta(days=1)
"""How long a test is kept."""

_LOCK = "upstream tests"

_DIED = "the gateways that took it ended, or could not write what they found; their logs may say why"


def ask(tx: Transaction, upstream: str, model: str | None) -> str:
    """Ask for a test of an upstream; return its id: that of the same test which has not ended, if there is one.

    Raises:
        Conflict: too many have not ended.
    """
    lock_name(tx, _LOCK)
    tx.session.execute(delete(UpstreamTest).where(UpstreamTest.asked_at < tx.now - KEPT))
    open_ones = select(UpstreamTest).where(UpstreamTest.ended_at.is_(None))
    for same in tx.session.scalars(open_ones.where(UpstreamTest.upstream == upstream)):
        if same.model == model:
            return same.id
    if (tx.session.scalar(select(func.count()).select_from(open_ones.subquery())) or 0) >= MOST_WAITING:
        raise Conflict(f"{MOST_WAITING} tests of upstreams have not ended yet. Ask again when they have.")
    test = UpstreamTest(
        id=new_id("test"), upstream=upstream, model=model, asked_at=tx.now, asked_by=tx.actor.name, tries=0
    )
    tx.session.add(test)
    return test.id


def is_waiting(tx: Transaction, instance_id: str) -> bool:
    """Whether there is a test for a gateway to take; cheap, for it is asked again and again."""
    return tx.session.scalar(select(UpstreamTest.id).where(*_untaken(tx, instance_id)).limit(1)) is not None


def take(tx: Transaction, instance_id: str) -> UpstreamTest | None:
    """Take the oldest test that no other living gateway has taken, for a gateway; None if there is none.

    A gateway makes one at a time: one that it has taken and not ended is one whose end it could not write.
    """
    lock_name(tx, _LOCK)
    for test in tx.session.scalars(
        select(UpstreamTest).where(*_untaken(tx, instance_id)).order_by(UpstreamTest.asked_at, UpstreamTest.id)
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


def _untaken(tx: Transaction, instance_id: str) -> tuple[ColumnElement[bool], ...]:
    taken_by = UpstreamTest.taken_by
    others = _living(tx).where(GatewayInstance.id != instance_id)
    return UpstreamTest.ended_at.is_(None), taken_by.is_(None) | taken_by.not_in(others)


def _living(tx: Transaction) -> Select[str]:
    return select(GatewayInstance.id).where(GatewayInstance.lease_until >= store_now(tx))
