"""A provider that refuses our account is an incident for operators, until a call succeeds; good calls pay nothing."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import CREDENTIAL, World, wait_until
from tests.gateway.conftest import Behind, Gate, http_answer, raw_upstream
from tests.store.test_tally import writes
from toolkit.core.account_fault import AccountFault
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Unavailable
from toolkit.gateway.incidents import Incidents
from toolkit.store.database import Store
from toolkit.store.incidents import SAME
from toolkit.store.tables import UpstreamIncident
from toolkit.store.tally import Tallies

__all__ = ["writes"]  # a fixture

JSON = "Content-Type: application/json"
GOOD = http_answer(json.dumps({"id": "x", "choices": [], "usage": {"prompt_tokens": 1}}).encode(), JSON)
MINUTE = timedelta(minutes=1)


def refusal(status: int, words: str, **names: Any) -> bytes:
    """Return a provider's refusal."""
    return http_answer(json.dumps({"error": {"message": words, **names}}).encode(), JSON, status=f"{status} X")


NO_CREDIT = refusal(429, f"You exceeded your current quota, org-AbCdEf123456, {CREDENTIAL}", code="insufficient_quota")


def incidents(behind: Behind) -> dict[str, UpstreamIncident]:
    """Return the incidents of a model's upstream, by fault."""
    with behind.gate.workspace.read() as tx:
        name = behind.gate.rows()[-1].upstream
        found = tx.session.scalars(select(UpstreamIncident).where(UpstreamIncident.upstream == name))
        return {row.fault: row for row in found}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_refusal_is_an_incident_until_a_call_succeeds(gate: Gate, stream: bool) -> None:
    """It is written within seconds, with the provider's words scrubbed; the next good call ends it."""
    script = [NO_CREDIT]
    with raw_upstream(script) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat", stream=stream).status == 502
        wait_until(lambda: incidents(behind), "the incident")
        row = incidents(behind)["credit"]
        assert (row.calls, row.ended_at, row.model) == (1, None, "")
        assert "You exceeded your current quota" in row.words
        assert CREDENTIAL not in row.words
        assert "AbCdEf" not in row.words
        script[:] = [GOOD]
        assert behind.ask("chat", stream=stream).status == 200
        wait_until(lambda: incidents(behind)["credit"].ended_at, "its end")


def test_what_is_the_callers_is_no_incident(gate: Gate) -> None:
    """Nor is a limit, or a failure; the one that follows is written with all that came before it."""
    script = [refusal(400, "too long")]
    with raw_upstream(script) as upstream:
        behind = gate.behind(upstream.url)
        for answer in (script[0], refusal(429, "slow down"), refusal(500, "no"), refusal(503, "busy")):
            script[:] = [answer]
            behind.ask("chat")
        script[:] = [refusal(401, "Incorrect API key provided")]
        behind.ask("chat")
        wait_until(lambda: incidents(behind), "the incident")
        assert list(incidents(behind)) == ["credential"]


def test_a_free_endpoint_that_a_model_does_not_have_is_none(gate: Gate) -> None:
    """Tools count before each message, and the next message would end it; that our key is wrong is one all the same."""
    script = [refusal(404, "no count_tokens for this model", type="not_found_error")]
    with raw_upstream(script) as upstream:
        behind = gate.behind(upstream.url, Dialect.ANTHROPIC)
        body = {"model": behind.model, "messages": [{"role": "user", "content": "hello"}]}
        assert behind.gate.send("/v1/messages/count_tokens", body).status == 404
        script[:] = [refusal(401, "invalid x-api-key")]
        assert behind.gate.send("/v1/messages/count_tokens", body).status == 502
        wait_until(lambda: incidents(behind), "the incident")
        assert list(incidents(behind)) == ["credential"]


def test_a_credential_that_is_missing_is_one(gate: Gate) -> None:
    """The provider was not even asked."""
    behind = gate.behind("http://127.0.0.1:9", credential_env="TEST_MISSING_API_KEY")
    assert behind.ask("chat").status == 502
    wait_until(lambda: incidents(behind), "the incident")
    assert "TEST_MISSING_API_KEY" in incidents(behind)["unconfigured"].words


@pytest.mark.parametrize("text", [{}, {"choices": [{"index": 0, "message": {"content": "half of it"}}]}])
def test_an_error_in_a_whole_answer_is_one(gate: Gate, text: dict[str, Any]) -> None:
    """Beside text and without any."""
    body = json.dumps(text | {"error": {"message": "no", "code": "insufficient_quota"}}).encode()
    with raw_upstream([http_answer(body, JSON)]) as upstream:
        behind = gate.behind(upstream.url)
        behind.ask("chat")
        wait_until(lambda: incidents(behind), "the incident")
        assert list(incidents(behind)) == ["credit"]


def test_an_error_in_the_middle_of_a_stream_is_one(gate: Gate) -> None:
    """The account runs dry while an answer is made."""
    text = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
    error = b'data: {"error":{"message":"no","code":"insufficient_quota"}}\n\n'
    with raw_upstream([http_answer(text + error, "Content-Type: text/event-stream")]) as upstream:
        behind = gate.behind(upstream.url)
        behind.ask("chat", stream=True)
        wait_until(lambda: incidents(behind), "the incident")
        assert list(incidents(behind)) == ["credit"]


# -- in memory and in the store ------------------------------------------------------------------------------


class Scene:
    """A gateway's incidents, beside those of another gateway."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.here, self.there = self.gateway(), self.gateway()
        self.now = datetime.fromisoformat("2026-11-30T12:00:00+00:00")

    def gateway(self) -> Incidents:
        """Return the incidents of one more gateway."""
        return Incidents(Tallies(self.world.workspace.store))

    def refuse(
        self, gateway: Incidents, fault: AccountFault = AccountFault.CREDIT, *, times: int = 1, model: str = "m"
    ) -> None:
        """Let a provider refuse calls, a minute later."""
        self.now += MINUTE
        for _ in range(times):
            gateway.refused("up", fault, model, "no", self.now)

    def answer(self, gateway: Incidents, model: str = "m", upstream: str = "up") -> None:
        """Let it answer a call, a minute later."""
        self.now += MINUTE
        gateway.answered(upstream, model, self.now)

    def flush(self, *gateways: Incidents) -> None:
        """Write what they have noted."""
        for gateway in gateways:
            gateway.flush(self.world.workspace.store)

    def rows(self) -> list[tuple[str, str, int, bool]]:
        """Return fault, model, calls, and whether it has ended."""
        with self.world.workspace.read() as tx:
            found = tx.session.scalars(
                select(UpstreamIncident).order_by(UpstreamIncident.fault, UpstreamIncident.model)
            )
            return [(row.fault, row.model, row.calls, row.ended_at is not None) for row in found]


@pytest.fixture
def scene(world: World) -> Scene:
    """Two gateways."""
    return Scene(world)


@pytest.mark.both_stores
def test_two_gateways_count_one_incident_and_either_ends_it(scene: Scene) -> None:
    """One that has not met it knows of it from the store."""
    scene.refuse(scene.here, times=2)
    scene.refuse(scene.there, times=3)
    scene.flush(scene.here, scene.there)
    assert scene.rows() == [("credit", "", 5, False)]
    scene.answer(late := scene.gateway())
    scene.flush(late)
    assert scene.rows() == [("credit", "", 5, False)]
    scene.answer(late)
    scene.flush(late)
    assert scene.rows() == [("credit", "", 5, True)]


@pytest.mark.both_stores
def test_the_later_of_refusal_and_answer_counts_whichever_is_written_first(scene: Scene) -> None:
    """An answer before another gateway's refusal does not end an incident, nor a refusal before an answer revive it."""
    scene.refuse(scene.here)
    scene.flush(scene.here, scene.there)
    scene.answer(scene.here)
    scene.refuse(scene.there)
    scene.flush(scene.there, scene.here)
    assert scene.rows() == [("credit", "", 2, False)]
    scene.refuse(scene.there)
    scene.flush(scene.here)
    scene.answer(scene.here)
    scene.flush(scene.here, scene.there)
    assert scene.rows() == [("credit", "", 3, True)]


@pytest.mark.both_stores
def test_an_incident_that_comes_back_soon_goes_on_and_a_later_one_is_new(scene: Scene) -> None:
    """So a provider that now refuses and now answers leaves one row."""
    scene.refuse(scene.here)
    scene.answer(scene.here)
    scene.refuse(scene.here)
    scene.flush(scene.here)
    assert scene.rows() == [("credit", "", 2, False)]
    scene.answer(scene.here)
    scene.flush(scene.here)
    scene.refuse(scene.here)
    scene.flush(scene.here)
    assert scene.rows() == [("credit", "", 3, False)]
    scene.answer(scene.here)
    scene.flush(scene.here)
    scene.now += SAME
    scene.refuse(scene.here)
    scene.flush(scene.here)
    assert scene.rows() == [("credit", "", 1, False)]


def test_another_model_ends_only_what_concerns_all(scene: Scene) -> None:
    """That one model answers says nothing of a model that is not open to us, nor another upstream of any."""
    scene.refuse(scene.here, AccountFault.MODEL, model="a")
    scene.refuse(scene.here, AccountFault.MODEL, model="b")
    scene.refuse(scene.here, AccountFault.CREDENTIAL, model="a")
    scene.flush(scene.here)
    scene.answer(scene.here, upstream="other")
    scene.flush(scene.here)
    assert scene.rows() == [("credential", "", 1, False), ("model", "a", 1, False), ("model", "b", 1, False)]
    scene.answer(scene.here, "b")
    scene.flush(scene.here)
    assert scene.rows() == [("credential", "", 1, True), ("model", "a", 1, False), ("model", "b", 1, True)]


def test_the_log_says_once_that_an_incident_begins_and_ends(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """For who reads nothing else."""
    caplog.set_level("INFO", "keydesk.gateway")
    scene.refuse(scene.here, times=100)
    scene.answer(scene.here)
    scene.answer(scene.here)
    assert [record.getMessage() for record in caplog.records] == [
        "upstream up: our account at the provider has no credit or quota left; it said: no",
        "upstream up has answered a call again",
    ]


def test_a_call_that_succeeds_writes_nothing(scene: Scene, writes: list[Store]) -> None:
    """Without an incident there is nothing to end, however many calls there are."""
    scene.flush(scene.here)
    for _ in range(1_000):
        scene.answer(scene.here)
    scene.flush(scene.here)
    assert writes == []


def test_what_cannot_be_written_stays_noted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away refusals are counted on, and written when it is back."""
    scene.refuse(scene.here, times=2)
    away: Callable[..., Any] = lambda *_: (_ for _ in ()).throw(Unavailable("away"))  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", away)
        with pytest.raises(Unavailable):
            scene.flush(scene.here)
    scene.refuse(scene.here)
    scene.flush(scene.here)
    assert scene.rows() == [("credit", "", 3, False)]
    scene.answer(scene.here)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", away)
        with pytest.raises(Unavailable):
            scene.flush(scene.here)
    scene.flush(scene.here)
    assert scene.rows() == [("credit", "", 3, True)]


def test_whatever_a_provider_says_can_be_stored(scene: Scene) -> None:
    """Characters that a database does not take, and texts without end."""
    scene.here.refused("up", AccountFault.CREDIT, "m", "\0\ud800" + "x" * 10_000, scene.now)
    scene.flush(scene.here)
    assert scene.rows() == [("credit", "", 1, False)]
