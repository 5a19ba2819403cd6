"""Which of several upstreams serves a call: in order or by weight, the same for the same caller, what failed last."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.account_fault import AccountFault
from toolkit.core.catalog import DatedSheet, ModelFacts, Way
from toolkit.core.dialect import Dialect
from toolkit.core.pricing import PriceSheet
from toolkit.core.scrub import Scrubber
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import UpstreamTraits
from toolkit.gateway import upstream_errors
from toolkit.gateway.call_ways import BRIEFLY, LONGEST, UNTIL_MENDED, Caller, CallWays, Ways
from toolkit.gateway.upstream_exchange import NotConfigured, NoWay, UpstreamBroke

NOW = datetime(2026, 12, 1, tzinfo=UTC)
PRICE = DatedSheet("price-1", NOW - timedelta(days=1), PriceSheet.flat(1, 1))


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def place(upstream: str, **facts: object) -> ModelFacts:
    """Return the model as an upstream has it."""
    model = ModelFacts(
        id="gpt-test",
        dialect=Dialect.OPENAI,
        upstream=upstream,
        base_url=f"https://{upstream}.example",
        credential_env=f"{upstream}_API_KEY",
        upstream_model="gpt-test",
        context_window=100_000,
        default_output=4_096,
        max_output=8_192,
        created_at=NOW,
        unknown_fields=UnknownFields.PASS,
        traits=UpstreamTraits(),
        prices=(PRICE,),
    )
    return replace(model, **facts)  # type: ignore[arg-type]


def in_order(*places: ModelFacts) -> ModelFacts:
    """Return a model that upstreams serve in order."""
    return replace(places[0], ways=tuple(Way(facts, position) for position, facts in enumerate(places)))


def weighted(**weights: int) -> ModelFacts:
    """Return a model that upstreams serve by weight."""
    places = [Way(place(name), 0, weight) for name, weight in weights.items()]
    return replace(places[0].model, ways=tuple(places))


MODEL = in_order(place("a"), place("b"), place("c"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ways(clock: Clock) -> Ways:
    return Ways(clock)


CALLER = Caller("org_1", "key_1", None, "chat/completions", is_free=False)
ANOTHER = CALLER._replace(org_id="org_2", key_id="key_2")
COUNTING = CALLER._replace(endpoint="messages/count_tokens", is_free=True)


def of_call(ways: Ways, model: ModelFacts = MODEL, caller: Caller = CALLER) -> CallWays:
    """Return the ways of a call."""
    found = ways.of_call(model, caller, NOW, rewritable=True)
    assert found is not None
    return found


def names(call: CallWays) -> str:
    """Return the upstreams of a call, in their order."""
    return "".join(way.model.upstream for way in call.left)


def error(status: int, retry: dict[str, str] | None = None, **said: str) -> upstream_errors.CallersError:
    """Return an upstream's error."""
    body = json.dumps({"error": {"message": "no", **said}}).encode()
    return upstream_errors.of_answer(status, body, retry or {}, "gpt-test", Scrubber("secret", "https://a.example"))


def test_what_failed_is_last_for_a_while(ways: Ways, clock: Clock) -> None:
    """Every call would try it first else; when the while is over, one call does, and the rest wait for it."""
    of_call(ways).refused(error(500))
    assert names(of_call(ways)) == "bca"
    clock.now += BRIEFLY
    call = of_call(ways)
    assert names(call) == "abc"
    call.asked()
    assert names(of_call(ways)) == "bca"


def test_who_is_refused_keeps_nobody_from_trying_again(ways: Ways, clock: Clock) -> None:
    """Only a call that asks the provider finds out anything; one without money comes and goes."""
    of_call(ways).refused(error(500))
    clock.now += BRIEFLY
    assert [names(of_call(ways)) for _ in range(3)] == ["abc"] * 3


def test_who_tries_again_and_learns_nothing_lets_the_next_one_try(ways: Ways, clock: Clock) -> None:
    """Who sends nonsense whenever the while is over would keep everybody away; a failure stays one."""
    of_call(ways).refused(error(500))
    clock.now += BRIEFLY
    first = of_call(ways)
    first.asked()
    first.asked()  # without a field that was refused
    first.refused(error(400))
    first.ended()
    second = of_call(ways)
    assert names(second) == "abc"
    second.asked()
    second.refused(error(500))
    second.ended()
    assert names(of_call(ways)) == "bca"


def test_an_endpoint_that_is_not_there_says_nothing_of_the_others(ways: Ways) -> None:
    """This call goes elsewhere, past the upstream's other credentials; who asks for another endpoint stays."""
    model = in_order(place("a"), place("a", credential_env="OTHER_API_KEY"), place("b"))
    call = of_call(ways, model)
    call.refused(error(405))
    assert names(call) == "ab"
    assert names(of_call(ways, model)) == "aab"


def test_an_answer_ends_it(ways: Ways, clock: Clock) -> None:
    """Not one of a call that was asked before it failed: that says nothing of now."""
    before = of_call(ways)
    clock.now += 1
    of_call(ways).refused(error(429, {"retry-after": "100"}))
    before.answered()
    assert names(of_call(ways)) == "bca"
    clock.now += 100
    after = of_call(ways)
    after.asked()
    after.answered()
    assert names(of_call(ways)) == names(of_call(ways)) == "abc"


def test_all_that_failed_are_tried_all_the_same(ways: Ways) -> None:
    """In their order: somebody has to be."""
    call = of_call(ways)
    for _ in range(3):
        call.broke(UpstreamBroke(), reached=False)
        if call.has_more:
            call.take_next()
    assert names(of_call(ways)) == "abc"


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (error(429, {"retry-after": "30"}), 30),
        (error(429, {"retry-after": "30", "retry-after-ms": "1500"}), 1.5),
        (error(429), BRIEFLY),
        (error(503, {"retry-after": "86400"}), LONGEST),
        (error(529, {"retry-after": "nonsense"}), BRIEFLY),
        (error(502), BRIEFLY),
        (error(401), UNTIL_MENDED),
        (error(429, {"retry-after": "1"}, code="insufficient_quota"), UNTIL_MENDED),
    ],
)
def test_how_long(ways: Ways, clock: Clock, found: upstream_errors.CallersError, seconds: float) -> None:
    """As long as the provider says, if it says so, and not for ever."""
    of_call(ways).refused(found)
    clock.now += seconds - 0.01
    assert names(of_call(ways)) == "bca"
    clock.now += 0.02
    assert names(of_call(ways)) == "abc"


def test_a_date_says_how_long_too(ways: Ways, clock: Clock) -> None:
    """RFC 9110 has both."""
    at = datetime.now(UTC) + timedelta(seconds=100)
    of_call(ways).refused(error(429, {"retry-after": format_datetime(at, usegmt=True)}))
    clock.now += 60
    assert names(of_call(ways)) == "bca"
    clock.now += 50
    assert names(of_call(ways)) == "abc"


@pytest.mark.parametrize("status", [400, 408, 413, 422])
def test_the_callers_own_fault_is_nobody_elses(ways: Ways, status: int) -> None:
    """Whoever sends nonsense does not turn others away."""
    of_call(ways).refused(error(status))
    assert names(of_call(ways)) == "abc"


def test_who_is_concerned(ways: Ways) -> None:
    """A limit is of a model at an account, a fault of an account, and a dead connection of the upstream."""
    same = place("a", upstream_model="other")
    elsewhere = place("a", upstream_model="other", credential_env="OTHER_API_KEY")
    others = [in_order(facts, place("b")) for facts in (place("a"), same, elsewhere)]

    def aside() -> list[bool]:
        return [names(of_call(ways, model)) == "ba" for model in others]

    first, second, third = (of_call(ways) for _ in range(3))
    first.refused(error(429))
    assert aside() == [True, False, False]
    second.refused(error(401))
    assert aside() == [True, True, False]
    third.broke(UpstreamBroke(), reached=False)
    assert aside() == [True, True, True]


ERRORS = [error(400, code="insufficient_quota"), error(401), error(403), error(404, code="model_not_found")]
ERRORS += [error(429, {"retry-after": "100"}), error(500), error(503), error(504)]


@pytest.mark.parametrize("found", ERRORS)
def test_what_a_provider_answers_to_one_organisation_turns_no_other_away(
    ways: Ways, clock: Clock, found: upstream_errors.CallersError
) -> None:
    """Nonsense may have brought it about; another one that meets it, too, shows that it was not that."""
    of_call(ways).refused(found)
    assert [names(of_call(ways, caller=caller)) for caller in (CALLER, ANOTHER)] == ["bca", "abc"]
    of_call(ways, caller=ANOTHER).refused(found)
    third = CALLER._replace(org_id="org_3")
    assert [names(of_call(ways, caller=caller)) for caller in (CALLER, ANOTHER, third)] == ["bca"] * 3
    clock.now += UNTIL_MENDED + 100
    of_call(ways).refused(found)
    assert names(of_call(ways, caller=ANOTHER)) == "abc"


def test_an_answer_that_broke_off_is_of_one_organisation_and_a_dead_upstream_of_all(ways: Ways) -> None:
    """Who asks for more than can be answered in time does so alone."""
    first, second = (of_call(ways) for _ in range(2))
    first.broke(UpstreamBroke(), reached=True)
    assert [names(of_call(ways, caller=caller)) for caller in (CALLER, ANOTHER)] == ["bca", "abc"]
    second.broke(UpstreamBroke(), reached=False)
    assert names(of_call(ways, caller=ANOTHER)) == "bca"


def test_an_answer_to_another_organisation_ends_nothing_for_the_first(ways: Ways, clock: Clock) -> None:
    """It says nothing of a call that it has not made."""
    of_call(ways).refused(error(500))
    clock.now += 1
    of_call(ways, caller=ANOTHER).answered()
    assert names(of_call(ways)) == "bca"


@pytest.mark.parametrize("found", ERRORS)
def test_a_free_call_that_fails_says_nothing_of_others(
    ways: Ways, clock: Clock, found: upstream_errors.CallersError
) -> None:
    """Counting tokens has limits and permissions of its own; it is itself served elsewhere, until it is answered."""
    first, second = (of_call(ways, caller=COUNTING) for _ in range(2))
    first.refused(found)
    second.broke(UpstreamBroke(), reached=True)
    assert [names(of_call(ways, caller=caller)) for caller in (CALLER, COUNTING)] == ["abc", "bca"]
    clock.now += UNTIL_MENDED + 100
    call = of_call(ways, caller=COUNTING)
    call.asked()
    call.answered()
    assert names(of_call(ways, caller=COUNTING)) == "abc"


def test_a_free_call_that_is_answered_says_nothing_of_others(ways: Ways, clock: Clock) -> None:
    """An account without credit may count all the same."""
    of_call(ways).refused(error(402))
    clock.now += 1
    of_call(ways, caller=COUNTING).answered()
    assert names(of_call(ways)) == "bca"


@pytest.mark.parametrize("found", [error(404, code="model_not_found"), error(403, code="permission_denied")])
def test_a_model_that_one_endpoint_does_not_have_may_have_another(
    ways: Ways, found: upstream_errors.CallersError
) -> None:
    """OpenAI says 404 of a model that is called on Chat Completions and has Responses alone."""
    of_call(ways).refused(found)
    other = CALLER._replace(endpoint="responses")
    assert [names(of_call(ways, caller=caller)) for caller in (CALLER, other)] == ["bca", "abc"]


def test_a_redirect_is_of_its_endpoint(ways: Ways) -> None:
    """Some servers send elsewhere who asks for a path that they do not have."""
    of_call(ways).broke(NoWay("no answer: it redirects"), reached=True)
    other = CALLER._replace(endpoint="responses")
    assert [names(of_call(ways, caller=caller)) for caller in (CALLER, other)] == ["bca", "abc"]


def test_what_is_not_configured_is_of_its_credential(ways: Ways) -> None:
    """Until somebody mends it."""
    of_call(ways).broke(NotConfigured("no credential"), reached=False)
    assert names(of_call(ways)) == names(of_call(ways, caller=ANOTHER)) == "bca"
    assert names(of_call(ways, in_order(place("a", credential_env="OTHER_API_KEY"), place("b")))) == "ab"


def test_faults_of_one_model_are_its_own(ways: Ways) -> None:
    """The account may have others."""
    assert error(404, code="model_not_found").fault is AccountFault.MODEL
    of_call(ways).refused(error(404, code="model_not_found"))
    assert names(of_call(ways)) == "bca"
    assert names(of_call(ways, in_order(place("a", upstream_model="other"), place("b")))) == "ab"


def test_what_has_no_price_yet_is_no_way(ways: Ways) -> None:
    """It would be charged nothing; if no way has one, there is no such model."""
    later = (replace(PRICE, valid_from=NOW + timedelta(days=1)),)
    assert names(of_call(ways, in_order(place("a", prices=later), place("b")))) == "b"
    assert ways.of_call(in_order(place("a", prices=later)), CALLER, NOW, rewritable=True) is None


def test_a_body_that_is_written_once_goes_only_where_it_is_the_same(ways: Ways) -> None:
    """Another name of the model, or other settings, need another body."""
    other = UpstreamTraits(pin_tier=True)
    model = in_order(place("a"), place("b", upstream_model="x"), place("c", traits=other), place("d"))
    found = ways.of_call(model, CALLER, NOW, rewritable=False)
    assert found is not None
    assert names(found) == "ad"


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), min_size=2), st.text(max_size=9), st.text(max_size=9)
)
def test_a_caller_stays_where_they_are(weights: dict[str, int], key: str, session: str) -> None:
    """With each conversation; when an upstream is taken out, only those move who were there."""
    ways = Ways()
    caller = CALLER._replace(key_id=key, tags=json.dumps({"session": session}) if session else None)
    order = names(of_call(ways, weighted(**weights), caller))
    assert order == names(of_call(Ways(), weighted(**weights), caller))
    for gone in weights:
        if len(weights) > 1:
            left = {name: weight for name, weight in weights.items() if name != gone}
            assert names(of_call(ways, weighted(**left), caller)) == order.replace(gone, "")


def test_conversations_of_one_key_are_spread(ways: Ways) -> None:
    """A key that has many would be served at one place alone else; one that says nothing stays together."""
    model = weighted(a=1, b=1)

    def tagged(name: str, number: int) -> str:
        return names(of_call(ways, model, CALLER._replace(tags=json.dumps({name: str(number)}))))

    sessions = Counter(tagged("session", number) for number in range(200))
    assert min(sessions["ab"], sessions["ba"]) > 60
    assert len({tagged("team", number) for number in range(50)}) == 1
