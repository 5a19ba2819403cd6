"""An upstream with several credentials: a key stays with one, and takes another only while that one is set aside."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from tests.conftest import CREDENTIAL, wait_until
from tests.gateway.conftest import SECOND_CREDENTIAL, Behind, Gate, RawUpstream, raw_upstream
from tests.gateway.test_several_upstreams import GOOD_STREAM, TOKENS, failure, first, good
from toolkit.admin.upstream_credentials import set_credentials
from toolkit.store.tables import ApiKey, UpstreamIncident

pytestmark = pytest.mark.any_store

VALUES = {"TEST_UPSTREAM_API_KEY": CREDENTIAL, "TEST_SECOND_API_KEY": SECOND_CREDENTIAL}
NAMES = list(VALUES)


class Provider(list[bytes]):
    """What an upstream answers, by the credential that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.upstream: RawUpstream | None = None
        self.answers = dict.fromkeys(NAMES, good())

    def shown(self) -> list[str]:
        """Return the names of the credentials of all requests."""
        assert self.upstream is not None
        return [
            next(name for name, value in VALUES.items() if value.encode() in request)
            for request in self.upstream.requests
        ]

    def __iter__(self) -> Iterator[bytes]:
        yield self.answers[self.shown()[-1]]


@contextlib.contextmanager
def provider(gate: Gate) -> Iterator[tuple[Provider, Behind]]:
    """Run an upstream with two credentials; give a model of it."""
    script = Provider()
    with raw_upstream(script) as upstream:
        script.upstream = upstream
        behind = gate.behind(upstream.url)
        with gate.workspace.write() as tx:
            set_credentials(tx, first(behind), NAMES)
        yield script, behind


def incidents(behind: Behind) -> dict[str, tuple[str, bool]]:
    """Return the incidents of the upstream by credential: which, and whether it lasts."""
    with behind.gate.workspace.read() as tx:
        found = tx.session.scalars(select(UpstreamIncident).where(UpstreamIncident.upstream == first(behind)))
        return {row.credential: (row.fault, row.ended_at is None) for row in found}


def test_a_key_stays_with_one(gate: Gate) -> None:
    """And several keys are spread over both; the row says which, by its name."""
    with provider(gate) as (script, behind):
        with gate.workspace.read() as tx:
            plan = tx.session.get_one(ApiKey, behind.gate.key_id).plan_id
        used: Counter[str | None] = Counter()
        for number in range(10):
            caller = Behind(behind.model, behind.gate.another(f"key {number}", plan=plan))
            assert [caller.ask("chat").status for _ in range(2)] == [200, 200]
            credentials = [row.credential for row in caller.gate.rows()]
            assert credentials == script.shown()[-2:]
            assert len(set(credentials)) == 1
            used[credentials[0]] += 1
    assert set(used) == set(NAMES)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("refusal", "fault"),
    [
        (failure(401, "Incorrect API key provided"), "credential"),
        (failure(429, "You exceeded your current quota", code="insufficient_quota"), "credit"),
        (failure(429, "slow down", "Retry-After: 60"), None),
    ],
    ids=["wrong key", "no credit", "limited"],
)
def test_the_other_one_serves_while_one_is_set_aside(
    gate: Gate, refusal: bytes, fault: str | None, streamed: bool
) -> None:
    """The call that met it is answered, too; the operator learns of the one that is refused, by its name."""
    with provider(gate) as (script, behind):
        assert behind.ask("chat").status == 200
        mine = script.shown()[0]
        (other,) = set(NAMES) - {mine}
        script.answers = {mine: refusal, other: GOOD_STREAM if streamed else good()}
        assert [behind.ask("chat", stream=streamed).status for _ in range(3)] == [200] * 3
        assert script.shown() == [mine, mine, other, other, other]
        assert [row.credential for row in behind.gate.rows()] == [mine, other, other, other]
        assert behind.gate.totals() == (4 * TOKENS, 0)
        if fault is not None:
            wait_until(lambda: incidents(behind), "the incident")
            assert incidents(behind) == {mine: (fault, True)}


def test_what_both_share_is_not_tried_twice(gate: Gate) -> None:
    """A provider that is down is down with either."""
    with provider(gate) as (script, behind):
        script.answers = dict.fromkeys(NAMES, failure(503))
        assert behind.ask("chat").status == 503
        assert len(script.shown()) == 1
        assert behind.gate.totals() == (0, 0)


def test_when_all_are_refused_the_caller_is_told(gate: Gate) -> None:
    """As if there were one; each has its incident, which ends when it is taken again."""
    with provider(gate) as (script, behind):
        script.answers = dict.fromkeys(NAMES, failure(401, "Incorrect API key provided"))
        assert behind.ask("chat").status == 502
        assert sorted(script.shown()) == sorted(NAMES)
        wait_until(lambda: len(incidents(behind)) == 2, "the incidents")
        script.answers = dict.fromkeys(NAMES, good())
        assert behind.ask("chat").status == 200
        served = script.shown()[-1]
        wait_until(lambda: not incidents(behind)[served][1], "the end of its incident")
        assert [lasts for _, lasts in incidents(behind).values()].count(True) == 1
