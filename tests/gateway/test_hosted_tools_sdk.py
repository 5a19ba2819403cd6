"""The official SDKs offer their provider's own tools, and send back what those did: the agent goes on without them."""

from typing import Any

import anthropic
import openai
import pytest
from google.genai import errors, types

from tests.gateway.conftest import Gate

pytestmark = pytest.mark.world

LEFT_OUT = "x-keydesk-left-out"
SEARCHED: dict[str, Any] = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "the news"},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_openai_offers_a_search_and_sends_one_back(gate: Gate, stream: bool) -> None:
    """As the SDK has its types; what else is offered goes on."""
    tools: list[Any] = [
        {"type": "web_search", "search_context_size": "low"},
        {"type": "function", "name": "read", "parameters": {}, "strict": False},
    ]
    with gate.openai() as client:
        items: list[Any] = [{"role": "user", "content": "hello"}, SEARCHED, {"role": "user", "content": "and now?"}]
        raw = client.responses.with_raw_response.create(
            model="gpt-test", input=items, tools=tools, include=["web_search_call.action.sources"], stream=stream
        )
        answer: Any = raw.parse()
        if stream:
            assert [event.type for event in answer][-1] == "response.completed"
        else:
            assert answer.output_text
    assert raw.headers[LEFT_OUT] == "tools[*].web_search, input[*].web_search_call"
    assert gate.row().usage_source == "reported"


def test_openai_is_refused_a_search_that_it_insists_on(gate: Gate) -> None:
    """The SDK's own choice of a hosted tool."""
    with gate.openai() as client, pytest.raises(openai.BadRequestError, match="have no price here"):
        client.responses.create(
            model="gpt-test",
            input="hello",
            tools=[{"type": "web_search_preview"}],
            tool_choice={"type": "web_search_preview"},
        )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_anthropic_offers_a_search_and_sends_one_back(gate: Gate, stream: bool) -> None:
    """The blocks of an answer that Anthropic gave earlier, as they came."""
    used: list[Any] = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "the news"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    ]
    with gate.anthropic() as client:
        raw = client.messages.with_raw_response.create(
            model="claude-test",
            max_tokens=100,
            messages=[
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": used},
                {"role": "user", "content": "and now?"},
            ],
            tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
            stream=stream,
        )
        answer: Any = raw.parse()
        if stream:
            assert [event.type for event in answer][-1] == "message_stop"
        else:
            assert answer.content
    blocks = "messages[*].content[*]"
    assert raw.headers[LEFT_OUT] == (
        f"tools[*].web_search_20250305, {blocks}.server_tool_use, {blocks}.web_search_tool_result"
    )


def test_anthropic_is_refused_a_search_that_it_insists_on(gate: Gate) -> None:
    """By the tool's name."""
    with gate.anthropic() as client, pytest.raises(anthropic.BadRequestError, match="have no price here"):
        client.messages.create(
            model="claude-test",
            max_tokens=100,
            messages=[{"role": "user", "content": "hello"}],
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
            tool_choice={"type": "tool", "name": "web_search"},
        )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_google_offers_a_search_and_sends_code_back(gate: Gate, stream: bool) -> None:
    """With a function of the caller's own, which goes on."""
    declared = types.FunctionDeclaration(name="read", parameters_json_schema={"type": "object", "properties": {}})
    config = types.GenerateContentConfig(
        tools=[types.Tool(google_search=types.GoogleSearch()), types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents: list[Any] = [
        types.Content(role="user", parts=[types.Part(text="hello")]),
        types.Content(
            role="model",
            parts=[
                types.Part(executable_code=types.ExecutableCode(code="print(1)", language=types.Language.PYTHON)),
                types.Part(
                    code_execution_result=types.CodeExecutionResult(outcome=types.Outcome.OUTCOME_OK, output="1")
                ),
            ],
        ),
        types.Content(role="user", parts=[types.Part(text="and now?")]),
    ]
    asked: dict[str, Any] = {"model": "gemini-test", "contents": contents, "config": config}
    with gate.genai() as client:
        if stream:
            answer, *_ = client.models.generate_content_stream(**asked)
        else:
            answer = client.models.generate_content(**asked)
    assert answer.sdk_http_response is not None
    headers = {name.lower(): value for name, value in (answer.sdk_http_response.headers or {}).items()}
    parts = "contents[*].parts[*]"
    assert headers[LEFT_OUT] == f"tools[*].googleSearch, {parts}.executableCode, {parts}.codeExecutionResult"


def test_google_is_refused_a_search_that_it_insists_on(gate: Gate) -> None:
    """A call is demanded, and nothing else is there to be called."""
    calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
    config = types.GenerateContentConfig(
        tools=[types.Tool(google_search=types.GoogleSearch())],
        tool_config=types.ToolConfig(function_calling_config=calling),
    )
    with gate.genai() as client, pytest.raises(errors.ClientError, match="have no price here"):
        client.models.generate_content(model="gemini-test", contents="hello", config=config)
