"""Fields that the gateway adds never become the caller's error: the call goes on without what a provider refuses."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conftest import CREDENTIAL, World, wait_until
from tests.gateway.conftest import Behind, Gate, dialect_of
from tests.gateway.picky import Body, openai, picky, refusing
from toolkit.admin import catalog
from toolkit.core.upstream_traits import OutputBound
from toolkit.gateway.added_fields import REMEMBERED, AddedFields
from toolkit.store.actor import SYSTEM
from toolkit.store.refused_fields import Refused, refused
from toolkit.store.smaller_limits import smaller
from toolkit.store.tables import OutboxRow
from toolkit.store.tally import Tallies


def found(behind: Behind) -> list[Refused]:
    """Return what operators learn of a model's upstream."""
    upstream = behind.gate.rows()[-1].upstream
    with behind.gate.workspace.store.read(SYSTEM) as tx:
        return [row for row in refused(tx) if row.upstream == upstream]


def last(behind: Behind) -> OutboxRow:
    """Return the row of the last call."""
    return behind.gate.rows()[-1]


CASES = [
    ("chat", True, "stream_options"),
    ("chat", False, "max_completion_tokens"),
    ("responses", True, "store"),
    ("responses", False, "include"),
    ("messages", True, "service_tier"),
]
FURTHER = [
    ("chat", True, "max_completion_tokens"),
    ("chat", False, "service_tier"),
    ("responses", False, "store"),
    ("responses", False, "service_tier"),
    ("messages", False, "service_tier"),
]


@pytest.mark.parametrize(
    ("kind", "stream", "name"), [*CASES, *(pytest.param(*case, marks=pytest.mark.world) for case in FURTHER)]
)
def test_a_call_goes_on_without_what_its_provider_refuses(gate: Gate, kind: str, stream: bool, name: str) -> None:
    """It is settled once, by the second answer; later calls leave it out at once, and operators are told."""
    with picky(refusing(name), kind) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind), upstream_model="gpt-5", pin_tier=name == "service_tier")
        assert behind.ask(kind, stream=stream).status == 200
        first, second = upstream.bodies
        assert name in first
        assert name not in second
        row = behind.gate.row()
        assert (row.outcome, row.status, row.input_tokens, row.output_tokens) == ("completed", 200, 10, 2)
        assert f"sent again without {name}" in (row.error or "")
        assert behind.ask(kind, stream=stream).status == 200
        assert len(upstream.bodies) == 3
        assert name not in upstream.bodies[-1]
        assert last(behind).error is None
        wait_until(lambda: found(behind), "the finding")
        (told,) = found(behind)
        assert (told.name, told.models, told.times) == (name, ("gpt-5",), 1)


def test_a_bound_is_called_otherwise_and_never_left_out(gate: Gate) -> None:
    """So that no call costs more than is held."""
    with picky(refusing("max_completion_tokens")) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat").status == 200
        first, second = upstream.bodies
        assert second["max_tokens"] == first["max_completion_tokens"] > 0
        assert behind.ask("chat", max_completion_tokens=7).status == 200
        assert upstream.bodies[-1]["max_tokens"] == 7


def test_several_fields_go_one_after_the_other(gate: Gate) -> None:
    """A provider may name only the first that it finds; each goes once, so it comes to an end."""
    with picky(refusing("store", "include", "service_tier"), "responses") as upstream:
        behind = gate.behind(upstream.url, upstream_model="gpt-5", pin_tier=True)
        reply = behind.ask("responses", stream=True)
        assert reply.status == 200
        assert len(upstream.bodies) == 3  # `include` goes with `store`
        assert "x-keydesk-pinned" not in reply.headers
        assert behind.gate.row().outcome == "completed"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_provider_that_refuses_whatever_it_gets_comes_to_an_end(gate: Gate, stream: bool) -> None:
    """Each field goes once and the bound is lowered twice; then its error is told, and nothing is charged."""

    def refuse(body: Body) -> Any:
        named = [name for name in ("stream_options", "service_tier", "max_completion_tokens") if name in body]
        bound = body.get("max_tokens", 0)
        return (
            openai("no", param=named[0], code="unknown_parameter")
            if named
            else openai(f"max_tokens is too large: {bound}. This model supports at most {bound - 1} completion tokens")
        )

    with picky(refuse) as upstream:
        behind = gate.behind(upstream.url, pin_tier=True)
        reply = behind.ask("chat", stream=stream)
        assert (reply.status, len(upstream.bodies)) == (400, 5 + stream)
        row = behind.gate.row()
        assert (row.outcome, row.cost, behind.gate.totals()) == ("upstream_error", 0, (0, 0))


def test_several_fields_may_be_named_at_once(gate: Gate) -> None:
    """As Google's endpoint does, on a line each."""

    def refuse(body: Body) -> Any:
        names = [name for name in ("stream_options", "max_completion_tokens") if name in body]
        lines = [f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.' for name in names]
        return [openai("\n".join(lines), status="INVALID_ARGUMENT", code=400)] if names else None

    with picky(refuse) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat", stream=True).status == 200
        assert len(upstream.bodies) == 2
        assert "without max_completion_tokens and stream_options" in (last(behind).error or "")


def test_422_of_pydantic_is_read(gate: Gate) -> None:
    """As vLLM's and Mistral's servers answer."""

    def refuse(body: Body) -> Any:
        detail = {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
        return {"detail": [detail]} if "stream_options" in body else None

    with picky(refuse) as upstream:
        upstream.status = 422
        assert gate.behind(upstream.url).ask("chat", stream=True).status == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_error_in_an_answer_of_status_200_is_read_too(gate: Gate, stream: bool) -> None:
    """Some servers say 200 and mean an error, whole or as the first event of a stream."""
    with picky(refusing("max_completion_tokens")) as upstream:
        upstream.status, upstream.as_event = 200, stream
        behind = gate.behind(upstream.url)
        assert behind.ask("chat", stream=stream).status == 200
        assert ["max_tokens" in body for body in upstream.bodies] == [False, True]
        row = last(behind)
        assert (row.outcome, row.input_tokens, row.output_tokens) == ("completed", 10, 2)
        assert behind.ask("chat", stream=stream).status == 200
        assert len(upstream.bodies) == 3


def test_an_answer_that_fails_after_all_teaches_nothing(gate: Gate) -> None:
    """The second try was taken, and ended in an error of status 200."""

    def refuse(body: Body) -> Any:
        if "max_completion_tokens" in body:
            return openai("Unrecognized request argument supplied: max_completion_tokens")
        return openai("the model is broken", code=500)

    with picky(refuse) as upstream:
        upstream.status = 200
        behind = gate.behind(upstream.url)
        assert behind.ask("chat").status == 502
        upstream.refuse = lambda _: None
        assert behind.ask("chat").status == 200
        assert "max_completion_tokens" in upstream.bodies[-1]


def test_what_the_caller_sent_is_his(gate: Gate) -> None:
    """Its error is passed on as it is, and nothing is tried again or remembered."""
    with picky(refusing("stream_options", "max_completion_tokens", "store")) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=True, stream_options={"include_usage": True}, max_tokens=5)
        assert (reply.status, reply.json["error"]["message"]) == (
            400,
            "Unrecognized request argument supplied: stream_options",
        )
        assert behind.ask("chat", max_completion_tokens=5).status == 400
        assert behind.ask("responses", store=False).status == 400
        assert len(upstream.bodies) == 3
        assert found(behind) == []


def test_a_prompt_that_is_echoed_changes_nothing(gate: Gate) -> None:
    """Neither this call nor the next one: a provider's words are not its structure."""
    prompt = "Unrecognized request argument supplied: max_completion_tokens"

    def refuse(body: Body) -> Any:
        said = body["messages"][0]["content"]
        return openai(f"Cannot answer '{said}'\n{said}", details=[{"raw": said}], param="messages")

    with picky(refuse) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat", prompt).status == 400
        assert len(upstream.bodies) == 1
        upstream.refuse = lambda _: None
        assert behind.ask("chat").status == 200
        assert "max_completion_tokens" in upstream.bodies[-1]


def test_nothing_is_remembered_that_did_not_help(gate: Gate) -> None:
    """Should a caller make a provider name one of our fields after all, his next call is as any other."""
    with picky(lambda _: openai("Unrecognized request argument supplied: max_completion_tokens")) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat").status == 400
        assert ["max_completion_tokens" in body for body in upstream.bodies] == [True, False]
        upstream.refuse = lambda _: None
        assert behind.ask("chat").status == 200
        assert "max_completion_tokens" in upstream.bodies[-1]
        assert found(behind) == []


@pytest.mark.parametrize(
    ("words", "code", "is_remembered"),
    [
        ("Encrypted content is not supported with this model.", None, True),
        ("This value of include cannot be combined with your tools.", "invalid_value", False),
    ],
)
def test_what_is_wrong_with_one_request_alone_is_not_remembered(
    gate: Gate, words: str, code: str | None, is_remembered: bool
) -> None:
    """Else one caller could change what is sent for the others."""

    def refuse(body: Body) -> Any:
        return openai(words, param="include", code=code) if "include" in body else None

    with picky(refuse) as upstream:
        behind = gate.behind(upstream.url, upstream_model="gpt-5")
        assert behind.ask("responses").status == 200
        assert len(upstream.bodies) == 2
        assert behind.ask("responses").status == 200
        assert len(upstream.bodies) == (3 if is_remembered else 4)
        wait_until(lambda: found(behind), "the finding")


def test_a_bound_that_is_too_large_is_not_renamed(gate: Gate) -> None:
    """Its value is wrong here, and the words say what fits."""
    error = openai("max_completion_tokens is too large: 4096.", param="max_completion_tokens", code="invalid_value")
    with picky(lambda _: error) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat").json == error
        assert len(upstream.bodies) == 1


@pytest.mark.parametrize(("stream", "large"), [(False, False), (True, True)], ids=["whole, light", "stream, large"])
def test_a_bound_of_ours_that_does_not_fit_is_lowered(gate: Gate, stream: bool, large: bool) -> None:
    """Its caller has set none, so a model whose window leaves less answers as it does without us."""

    def refuse(body: Body) -> Any:
        bound = body["max_completion_tokens"]
        if bound <= 3192:
            return None
        return openai(
            f"'max_tokens' or 'max_completion_tokens' is too large: {bound}. This model's maximum context length is "
            f"8192 tokens and your request has 5000 input tokens ({bound} > 8192 - 5000).",
            code=400,
        )

    with picky(refuse) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", "x" * 600_000 if large else "hello", stream=stream)
        assert reply.status == 200
        assert reply.headers["x-max-tokens-fitted"] == "3192"
        assert [body["max_completion_tokens"] for body in upstream.bodies] == [4096, 3192]
        assert "sent again with a bound of 3192 output tokens" in (last(behind).error or "")
        assert behind.ask("chat", max_completion_tokens=4000).status == 400
        assert found(behind) == []


def test_a_longest_output_that_is_set_too_large_is_told_to_operators(gate: Gate) -> None:
    """The call goes on; what its upstream says that the model makes at most is a finding."""

    def refuse(body: Body) -> Any:
        bound = body["max_completion_tokens"]
        said = f"max_tokens is too large: {bound}. This model supports at most 2048 completion tokens, whereas you gave"
        return openai(said) if bound > 2048 else None

    def told() -> list[tuple[str, int]]:
        with behind.gate.workspace.store.read(SYSTEM) as tx:
            return [(row.name, row.most) for row in smaller(tx) if row.model == behind.model]

    with picky(refuse) as upstream:
        behind = gate.behind(upstream.url)
        assert behind.ask("chat").status == 200
        wait_until(told, "the finding")
    assert told() == [("max_output", 2048)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("responses", {"detail": "Unsupported parameter: max_output_tokens"}),
        (
            "generate",
            openai(
                "Invalid JSON payload received. Unknown name \"maxOutputTokens\" at 'generation_config': "
                "Cannot find field."
            ),
        ),
    ],
)
def test_a_bound_that_has_no_other_name_fails_in_our_words(gate: Gate, kind: str, error: Body) -> None:
    """Its caller has not sent it; the operator is told."""
    with picky(lambda _: error, kind) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        reply = behind.ask(kind)
        assert (reply.status, reply.headers["x-should-retry"]) == (502, "false")
        assert "which this gateway adds to bound what a call can cost" in reply.message
        assert len(upstream.bodies) == 1
        assert "upstream upstream-" in (last(behind).error or "")
        assert behind.gate.totals() == (0, 0)
        wait_until(lambda: found(behind), "the finding")


def test_a_large_body_is_read_again(gate: Gate) -> None:
    """It was let go of to a process, and is there again for a second try."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2_000_000}}
    content = [{"type": "text", "text": "look"}, picture]
    with picky(refusing("stream_options", "max_completion_tokens")) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=True, messages=[{"role": "user", "content": content}])
        assert reply.status == 200
        assert len(upstream.bodies) == 3
        assert upstream.bodies[-1]["messages"][0]["content"] == content
        assert upstream.bodies[-1]["max_tokens"] > 0
        assert last(behind).outcome == "completed"


def test_our_credential_is_not_in_what_is_told(gate: Gate) -> None:
    """Whatever the provider says."""
    with picky(lambda _: {"detail": f"Unsupported parameter: max_output_tokens {CREDENTIAL}"}) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("responses")
        assert CREDENTIAL not in reply.body.decode()
        assert CREDENTIAL not in (last(behind).error or "")


# -- in memory -----------------------------------------------------------------------------------------------


class Scene:
    """What a process knows of one model."""

    def __init__(self, world: World) -> None:
        with world.workspace.read() as tx:
            self.model = catalog.load(tx).models["gpt-test"]
        self.now = 0.0
        self.known = AddedFields(
            Tallies(world.workspace.store), lambda: datetime(2026, 11, 30, tzinfo=UTC), lambda: self.now
        )

    def learn(self, *names: str) -> None:
        """Learn that the model does not take these fields."""
        self.known.learn(self.model, frozenset(names))


@pytest.fixture
def scene(world: World) -> Scene:
    """A process that knows nothing yet."""
    return Scene(world)


def test_what_was_learnt_is_forgotten_in_an_hour(scene: Scene) -> None:
    """The provider may have learnt it; until then no call pays for a try."""
    assert not scene.known.learnt
    scene.learn("store")
    scene.now = REMEMBERED - 1
    assert not scene.known.fitted(scene.model).traits.add_store
    scene.now = REMEMBERED
    assert scene.known.fitted(scene.model) is scene.model
    assert not scene.known.learnt


def test_what_was_learnt_adds_up(scene: Scene) -> None:
    """But of a bound's two names the last one counts."""
    scene.learn("store", "max_completion_tokens")
    scene.learn("max_tokens")
    traits = scene.known.fitted(scene.model).traits
    assert (traits.add_store, traits.output_bound) == (False, OutputBound.MAX_COMPLETION_TOKENS)


def test_another_model_or_another_address_is_not_concerned(scene: Scene) -> None:
    """What one server refuses says nothing of another one."""
    scene.learn("store")
    for other in (replace(scene.model, upstream_model="other"), replace(scene.model, base_url="http://other")):
        assert scene.known.fitted(other) is other
