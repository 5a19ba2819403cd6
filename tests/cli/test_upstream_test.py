"""What `keydesk upstreams test` says: what works, what it costs, and the commands that set what is to be set."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.books import Books
from tests.conftest import Run, World
from toolkit.admin.upstream_report import Expected, elsewhere, report, steps, works
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.upstream_test import Found, TriedCall
from toolkit.core.upstream_traits import OutputBound, UpstreamTraits
from toolkit.store import upstream_tests
from toolkit.store.actor import SYSTEM

pytestmark = pytest.mark.any_store

CHAT, RESPONSES = "chat/completions", "responses"
USAGE = {"input": 1_234, "output": 2}
GOOD = TriedCall(CHAT, stream=False, works=True, usage=USAGE, cost=26_000)
STREAM = replace(GOOD, stream=True)
ABSENT = TriedCall(RESPONSES, stream=False, works=False, absent=True, said="404: Not Found")
BROKEN = TriedCall(RESPONSES, stream=False, works=False, said="500: oh no")
PLAIN = Expected(UpstreamTraits(), None)


def found(*calls: TriedCall) -> Found:
    """Return what a test found with these calls."""
    return Found(("gpt-9", "gpt-8"), None, "gpt-9", calls)


def said(*calls: TriedCall, expected: Expected = PLAIN, is_priced: bool = True) -> list[str]:
    """Return what is to be done after a test with these calls."""
    return list(steps("up", found(*calls), expected, is_priced=is_priced))


def test_all_is_well() -> None:
    """Nothing is to be done; usage and price stand by each form."""
    assert said(GOOD, STREAM) == []
    assert list(report("up", found(GOOD, STREAM), ["gpt-8"], [], [])) == [
        "The upstream 'up', tested with gpt-9:",
        "  models: 2 listed; not in the catalog: gpt-8",
        "  chat/completions, whole: works; 1,234 input and 2 output tokens; $0.000026 by the price book",
        "  chat/completions, streamed: works; 1,234 input and 2 output tokens; $0.000026 by the price book",
    ]


def test_a_long_list_is_cut() -> None:
    """For people; JSON has all."""
    lines = list(report("up", found(GOOD), [f"m{number}" for number in range(12)], ["m0"], []))
    assert "m10 and 1 more" in lines[1]
    assert lines[2] == "  added, with public prices: m0"


@pytest.mark.parametrize(
    ("call", "expected", "words"),
    [
        (replace(STREAM, left_out=("stream_options",)), PLAIN, "keydesk upstreams update up --no-add-stream-options"),
        (replace(GOOD, left_out=("max_completion_tokens",)), PLAIN, "update up --output-bound max_tokens"),
        (replace(STREAM, usage=None, cost=None), PLAIN, "no usage here, though it is asked for"),
        (
            replace(STREAM, usage=None, cost=None),
            Expected(UpstreamTraits(add_stream_options=False), None),
            "keydesk upstreams update up --add-stream-options",
        ),
        (replace(GOOD, unpriced=("priority",)), PLAIN, "keydesk upstreams update up --pin-tier"),
        (replace(GOOD, beyond_bound=True), PLAIN, "chat/completions, so a hold bounds nothing"),
        (replace(GOOD, form=RESPONSES, beyond_bound=True), PLAIN, "calls there may cost more than was held"),
        (
            replace(GOOD, beyond_bound=True),
            Expected(UpstreamTraits(output_bound=OutputBound.MAX_TOKENS), None),
            "--output-bound max_completion_tokens`, then test again",
        ),
        (BROKEN, PLAIN, "See why 1 call failed that should work"),
    ],
)
def test_each_quirk_has_its_command(call: TriedCall, expected: Expected, words: str) -> None:
    """And nothing else is to be done."""
    (step,) = said(GOOD, call, expected=expected)
    assert words in step


def test_what_a_preset_claims_must_work_and_nothing_else() -> None:
    """Without a preset an endpoint that is not there is no failure."""
    chat, both = (Expected(UpstreamTraits(), endpoints) for endpoints in ((CHAT,), (CHAT, RESPONSES)))
    assert works(found(GOOD, ABSENT), PLAIN)
    assert not works(found(GOOD, BROKEN), PLAIN)
    assert works(found(GOOD, BROKEN), chat)
    assert not works(found(GOOD, ABSENT), both)
    assert not works(found(ABSENT), PLAIN)  # nothing is there
    assert not works(Found(None, "404: no", None), PLAIN)
    assert works(Found(("m",), None, None), PLAIN)


def test_a_fault_of_our_account_is_told_with_its_cure() -> None:
    """And no address is suspected."""
    refused = replace(found(BROKEN), fault="credit")
    assert not works(refused, PLAIN)
    (step,) = steps("up", refused, PLAIN, is_priced=True)
    assert "Add credit" in step


def test_a_model_without_a_price_is_named() -> None:
    """With the command that adds it."""
    (step,) = said(replace(GOOD, cost=None), is_priced=False)
    assert "keydesk models add gpt-9 --upstream up" in step


def test_models_that_others_serve_are_named_for_an_own_account(world: World) -> None:
    """With the command that has its organisation's calls served there first; none for everybody's upstream."""
    with world.workspace.write() as tx:
        for name, org in (("acme-own", "Acme"), ("more", None)):
            add_upstream(tx, name, Dialect.OPENAI, "http://127.0.0.1:9", f"{name[:4].upper()}_API_KEY", org=org)
        lacking = ["gpt-test", "other-test", "claude-test", "unheard-of"]
        assert elsewhere(tx, "more", lacking) == []
        assert elsewhere(tx, "acme-own", ["unheard-of", "claude-test"]) == []
        (step,) = elsewhere(tx, "acme-own", lacking)
    assert step == (
        "Other upstreams serve gpt-test; to have this account serve its organisation first: `keydesk models route "
        "gpt-test --upstream acme-own:gpt-test,test-openai:gpt-test`, and likewise other-test"
    )


def test_what_was_found_comes_back_from_the_store_as_it_was() -> None:
    """JSON has no tuples."""
    whole = found(replace(GOOD, left_out=("store",), unpriced=("flex",), odd=("it came whole",)), ABSENT)
    assert Found.from_json(whole.to_json()) == whole
    assert Found.from_json(Found(None, "no", None).to_json()) == Found(None, "no", None)


@contextmanager
def gateway_that_finds(world: World, outcome: Found | str) -> Iterator[None]:
    """Take the next test as a gateway does, in another thread, and end it with what it found or why it failed."""
    Books(world).gateway("gateway_lives")
    found, failure = (outcome.to_json(), None) if isinstance(outcome, Found) else (None, outcome)
    stop = threading.Event()

    def answer() -> None:
        while not stop.wait(0.05):
            with world.workspace.store.write(SYSTEM) as tx:
                test = upstream_tests.take(tx, "gateway_lives")
                if test is not None:
                    upstream_tests.end(tx, test.id, "gateway_lives", found=found, failure=failure)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_command_shows_what_a_gateway_found(world: World, run: Run) -> None:
    """In words, and as JSON with amounts in USD."""
    with gateway_that_finds(world, found(GOOD, STREAM)):
        shown = run("upstreams", "test", "test-openai")
        facts = json.loads(run("upstreams", "test", "test-openai", "--json").stdout)
    assert shown.exit_code == 0, shown.output
    assert "chat/completions, streamed: works" in shown.stdout
    assert [call["cost"] for call in facts["calls"]] == ["0.000026", "0.000026"]
    assert facts["lacking"] == ["gpt-9", "gpt-8"]


def test_the_command_adds_what_has_a_public_price_and_names_the_rest(world: World, run: Run) -> None:
    """A model that nobody knows is not added at a guess."""
    listed = replace(found(GOOD), models=("gpt-5-mini", "nobody-knows-it"))
    with gateway_that_finds(world, listed):
        facts = json.loads(run("upstreams", "test", "test-openai", "--add-models", "--json").stdout)
    assert facts["added"] == ["gpt-5-mini"]
    assert "gpt-5-mini" in run("models", "list").stdout


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("its credential is not set", "its credential is not set"), (found(BROKEN), "FAILS: 500: oh no")],
)
def test_the_command_fails_where_the_upstream_does(world: World, run: Run, outcome: Found | str, words: str) -> None:
    """So that a script notices."""
    with gateway_that_finds(world, outcome):
        shown = run("upstreams", "test", "test-openai")
    assert shown.exit_code == 1
    assert words in shown.output


def test_without_a_gateway_nothing_is_asked(world: World, run: Run) -> None:
    """Only a gateway has the credential: how to start one is said."""
    assert "keydesk gateway" in run("upstreams", "test", "test-openai").stderr
