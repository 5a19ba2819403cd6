"""Which fields an error is about: each provider's form is read, and words that a caller could have sent are not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from toolkit.gateway.field_errors import Blamed, blamed

NOT_PERMITTED = "Extra inputs are not permitted"


def openai(message: Any, **names: Any) -> dict[str, Any]:
    """Return an error in OpenAI's envelope."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **names}}


def google(*lines: str) -> dict[str, Any]:
    """Return an error of Google's."""
    violations = [{"description": line} for line in lines]
    details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}]
    error = {"code": 400, "message": "\n".join(lines), "status": "INVALID_ARGUMENT", "details": details}
    return {"error": error}


def cannot_find(name: str, at: str = "") -> str:
    """Return Google's sentence of a field that it does not know."""
    return f'Invalid JSON payload received. Unknown name "{name}"{f" at {at!r}" if at else ""}: Cannot find field.'


def pydantic(*loc: Any, kind: str = "extra_forbidden") -> dict[str, Any]:
    """Return one error of Pydantic's."""
    return {"type": kind, "loc": list(loc), "msg": NOT_PERMITTED, "input": {"include_usage": True}}


VLLM = "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra inputs are not permitted'}]"

UNKNOWN: list[tuple[Any, set[str]]] = [
    (openai("Unrecognized request argument supplied: max_completion_tokens"), {"max_completion_tokens"}),
    (openai("Unrecognized request arguments supplied: store, stream_options"), {"store", "stream_options"}),
    (openai("Unknown parameter: 'store'.", param="store", code="unknown_parameter"), {"store"}),
    (openai("No.", param="service_tier", code="unsupported_parameter"), {"service_tier"}),
    (openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'x' instead."), {"max_tokens"}),
    (openai("property 'stream_options' is unsupported, did you mean 'stream'?"), {"stream_options"}),
    ({"message": "store: property 'store' is unsupported", "code": "wrong_api_format"}, {"store"}),
    ({"message": "body.store: property 'body.store' is unsupported", "param": "validation_error"}, {"store"}),
    (openai("body.a: property 'body.a' is unsupported\nbody.b: property 'body.b' is unsupported"), {"a", "b"}),
    (openai(f"{NOT_PERMITTED}, field: 'stream_options', value: {{}}"), {"stream_options"}),
    (openai(f"Validation error at #/stream_options: {NOT_PERMITTED}"), {"stream_options"}),
    ({"type": "error", "error": {"message": f"service_tier: {NOT_PERMITTED}"}}, {"service_tier"}),
    (openai(f"The model returned the following errors: store: {NOT_PERMITTED}"), {"store"}),
    ({"message": "Malformed input request: #: extraneous key [store] is not permitted, please reformat"}, {"store"}),
    (openai(VLLM, code=400), {"stream_options"}),
    (
        openai(f"1 validation error for ChatCompletionRequest\nstore\n  {NOT_PERMITTED} [type=extra_forbidden]"),
        {"store"},
    ),
    ({"detail": [pydantic("body", "max_completion_tokens")]}, {"max_completion_tokens"}),
    ({"detail": [pydantic("body", "store", kind="value_error.extra")]}, {"store"}),
    ({"object": "error", "message": {"detail": [pydantic("body", "store")]}}, {"store"}),
    ({"message": [pydantic("body", "stream_options", "include_usage")]}, {"stream_options.include_usage"}),
    ({"error": {"code": "Invalid input", "details": [pydantic("body", "store")]}}, {"store"}),
    (google(cannot_find("store")), {"store"}),
    ([google(cannot_find("metadata"), cannot_find("store"))], {"metadata", "store"}),
    (google(cannot_find("maxOutputTokens", "generation_config")), {"generation_config.maxOutputTokens"}),
    ({"detail": "Unsupported parameter: max_output_tokens"}, {"max_output_tokens"}),
    (openai("Failed to deserialize the JSON body into the target type: unknown field `store`, expected"), {"store"}),
    ({"error": 'json: unknown field "stream_options"'}, {"stream_options"}),
    (openai("Argument not supported on this model: service_tier"), {"service_tier"}),
    (openai("Additional properties are not allowed ('store' was unexpected)"), {"store"}),
    (openai("litellm.UnsupportedParamsError: groq does not support parameters: ['store'], for model=x"), {"store"}),
    (
        openai(
            "litellm.BadRequestError: AzureException BadRequestError - Unrecognized request argument supplied: store"
        ),
        {"store"},
    ),
    (openai("Extra parameters ['max_completion_tokens'] are not allowed when"), {"max_completion_tokens"}),
]


@pytest.mark.parametrize(("answer", "fields"), UNKNOWN)
def test_each_servers_form_is_read(answer: Any, fields: set[str]) -> None:
    """Of a field that is not known."""
    assert blamed(answer).unknown == fields


def test_another_complaint_about_a_field_is_told_apart() -> None:
    """Its value is wrong, and not the field."""
    encrypted = blamed(openai("Encrypted content is not supported with this model.", param="include"))
    assert encrypted == Blamed(unsupported=frozenset({"include"}))
    too_large = blamed(openai("max_tokens is too large: 9.", param="max_tokens", code="invalid_value"))
    assert too_large == Blamed(other=frozenset({"max_tokens"}))
    assert blamed({"detail": [pydantic("body", "store", kind="bool_type")]}).other == {"store"}


@pytest.mark.parametrize(
    "answer",
    [
        openai("Your prompt 'Unknown parameter: 'store'.' was flagged"),
        openai("Invalid prompt:\nUnknown parameter: 'store'."),
        openai("Unknown parameter: 'messages[0].store'."),
        openai("'messages.0' : for 'role:user' must be satisfied[('messages.0' : property 'store' is unsupported)]"),
        openai("[{'type': 'missing', 'loc': ('body', 'x'), 'input': \"'loc': ('body', 'store')\"}]"),
        openai(f"messages.0.store: {NOT_PERMITTED}"),
        {"detail": [pydantic("body", "messages", 0, "store")]},
        {"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "store", "input": "Unknown parameter: 'store'"}]},
        google(cannot_find("store", "contents[0].parts[0]")),
        {"error": {"message": "no", "store": "store", "metadata": {"param": "store", "raw": "unknown field `store`"}}},
        {"choices": [{"message": {"content": "Unknown parameter: 'store'."}}]},
        None,
        [],
        {"error": []},
        {"error": {"param": {"store": 1}, "message": {"detail": "store"}}},
    ],
)
def test_what_a_caller_can_have_written_is_not(answer: Any) -> None:
    """Words further on, other lines, and fields of the same name that stand deeper in the request."""
    assert "store" not in blamed(answer).all


@examples(30)
@given(said=st.text(max_size=300), form=st.sampled_from([row for row in UNKNOWN if isinstance(row[0], dict)]))
def test_a_form_behind_other_words_counts_for_nothing(said: str, form: tuple[Any, set[str]]) -> None:
    """Whatever a caller's text says, in front of which his provider writes a sentence of its own."""
    message = json.dumps(form[0])
    assert blamed(openai(f"The request was refused: {said} {message}")).all == set()


def test_what_should_be_a_word_may_be_anything() -> None:
    """A type that is a list is none that says that the field is unknown."""
    assert blamed({"detail": [{"type": [], "loc": ["body", "store"]}]}).other == {"store"}


@examples(50)
@given(
    answer=st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "detail", "details", "loc", "param", "type", "x"]), inner
            )
        ),
    )
)
def test_whatever_is_answered_is_read(answer: Any) -> None:
    """Nothing of it makes the reading fail."""
    blamed(answer)
