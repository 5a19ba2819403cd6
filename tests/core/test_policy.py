"""What a key may do: facts in, verdict out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from toolkit.core.errors import STATUS, Refusal, RefusalType
from toolkit.core.policy import HoldPolicy, KeyFacts, KeyStatus, Unauthorized

NOW = datetime(2026, 11, 23, tzinfo=UTC)
KEY = KeyFacts(
    key_id="key_1",
    org_id="org_1",
    plan_id="plan_1",
    version=1,
    status=KeyStatus.ACTIVE,
    org_suspended=False,
    scope=frozenset(),
    monthly_limit=None,
    hold_policy=HoldPolicy.STRICT,
    expires_at=None,
)
PLAN = frozenset({"a", "b", "c"})


@pytest.mark.parametrize(
    ("changes", "live"),
    [
        ({}, True),
        ({"status": KeyStatus.DISABLED}, False),
        ({"status": KeyStatus.DELETED}, False),
        ({"org_suspended": True}, True),
        ({"expires_at": NOW + timedelta(microseconds=1)}, True),
        ({"expires_at": NOW}, False),
        ({"expires_at": NOW - timedelta(days=1)}, False),
        ({"monthly_limit": 0}, True),
    ],
)
def test_a_key_is_live_when_nothing_speaks_against_it(changes: dict[str, object], live: bool) -> None:
    """Active and not expired, to the microsecond; a limit and a suspended organisation are other matters."""
    assert replace(KEY, **changes).is_live(NOW) is live  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scope", "model", "allowed"),
    [
        (frozenset(), "a", True),
        (frozenset(), "z", False),
        (frozenset({"a"}), "a", True),
        (frozenset({"a"}), "b", False),
        (frozenset({"z"}), "z", False),
        (frozenset(), "A", False),
        (frozenset(), "", False),
    ],
)
def test_a_model_must_be_in_plan_and_scope(scope: frozenset[str], model: str, allowed: bool) -> None:
    """A scope narrows the plan and never widens it; an empty one is the whole plan."""
    key = replace(KEY, scope=scope)
    assert (model in key.callable_models(PLAN)) is allowed
    if allowed:
        key.check_model(model, PLAN)
        return
    with pytest.raises(Refusal) as caught:
        key.check_model(model, PLAN)
    assert (caught.value.type, caught.value.status, caught.value.param) == (
        RefusalType.MODEL_NOT_ALLOWED,
        403,
        "model",
    )


def test_a_listing_holds_what_the_scope_leaves_of_the_plan() -> None:
    """Models that left the plan are not listed."""
    assert replace(KEY, scope=frozenset({"a", "z"})).callable_models(PLAN) == {"a"}
    assert KEY.callable_models(PLAN) == PLAN


def test_every_credential_that_does_not_admit_gets_one_answer() -> None:
    """It must not tell which keys exist."""
    assert Unauthorized().message == Unauthorized().message
    assert Unauthorized().status == 401


def test_every_refusal_has_a_status() -> None:
    """The closed list is complete."""
    assert set(STATUS) == set(RefusalType)
    assert all(400 <= status < 600 for status in STATUS.values())
