"""The shapes of the demo upstream's answers over plain HTTP; `test_upstream_sdk` has them read by the official SDKs."""

import base64
import json
import struct
from typing import Any

import httpx2
import pytest

from tests.demo.test_upstream import SCHEMA, chat, content, events, message, post, response
from toolkit.demo import text

ARGUMENTS = {"city": "weather", "unit": "celsius", "days": 2}
ASKED = "What is the weather? Use the tool."

CHAT_TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
RESPONSE_TOOLS = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
MESSAGE_TOOLS = [{"name": "weather", "input_schema": SCHEMA}]
CONTENT_TOOLS = [{"functionDeclarations": [{"name": "weather", "parametersJsonSchema": SCHEMA}]}]


def of_type(found: list[Any], kind: str) -> list[Any]:
    return [one for one in found if one["type"] == kind]


# -- tools --------------------------------------------------------------------------------------------------------


def test_a_chat_calls_a_tool(http: httpx2.Client) -> None:
    """Whole and streamed, with the same arguments; a named tool is called unasked, none is never called."""
    (choice,) = post(http, *chat(ASKED, tools=CHAT_TOOLS))["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", ARGUMENTS)
    assert choice["finish_reason"] == "tool_calls"
    chunks = events(http, *chat(ASKED, tools=CHAT_TOOLS, stream=True))
    pieces = [one for chunk in chunks for one in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert pieces[0]["function"]["name"] == "weather"
    assert json.loads("".join(one["function"]["arguments"] for one in pieces)) == ARGUMENTS
    named = {"type": "function", "function": {"name": "weather"}}
    assert post(http, *chat("Tides", tools=CHAT_TOOLS, tool_choice=named))["choices"][0]["message"]["tool_calls"]
    none = post(http, *chat(ASKED, tools=CHAT_TOOLS, tool_choice="none"))["choices"][0]["message"]
    assert not none.get("tool_calls")


def test_a_response_calls_tools_in_parallel(http: httpx2.Client) -> None:
    """Each call is an item with an id of its own, and its arguments stream."""
    found = events(http, *response(f"{ASKED} [[demo calls=2]]", tools=RESPONSE_TOOLS, stream=True))
    calls = of_type(found[-1]["response"]["output"], "function_call")
    assert len({one["call_id"] for one in calls}) == 2
    streamed = "".join(one["delta"] for one in of_type(found, "response.function_call_arguments.delta"))
    assert streamed == "".join(one["arguments"] for one in calls)
    assert json.loads(calls[0]["arguments"]) == ARGUMENTS


def test_a_freeform_tool_is_called_by_a_text(http: httpx2.Client) -> None:
    """OpenAI's custom tools: the call has its namespace, and the pieces of its input join."""
    tools = [{"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}]
    items = [{"type": "additional_tools", "role": "developer", "tools": tools}, {"role": "user", "content": "Tides"}]
    body = {"model": "m", "input": items, "stream": True, "tool_choice": "required"}
    found = events(http, "/openai/v1/responses", body)
    (call,) = of_type(found[-1]["response"]["output"], "custom_tool_call")
    assert (call["name"], call["namespace"], call["input"]) == ("exec", "functions", "Tides")
    assert "".join(one["delta"] for one in of_type(found, "response.custom_tool_call_input.delta")) == call["input"]


def test_a_message_calls_a_tool_and_answers_its_result_in_words(http: httpx2.Client) -> None:
    """The block's JSON streams; after the result the model calls it no more, so that an agent's loop ends."""
    found = events(http, *message(ASKED, tools=MESSAGE_TOOLS, stream=True))
    pieces = [one["delta"]["partial_json"] for one in of_type(found, "content_block_delta")]
    assert json.loads("".join(pieces)) == ARGUMENTS
    assert found[-2]["delta"]["stop_reason"] == "tool_use"
    path, body = message(ASKED, tools=MESSAGE_TOOLS)
    body["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Rain"}]},
    ]
    assert post(http, path, body)["stop_reason"] == "end_turn"


@pytest.mark.parametrize(("mode", "prompt", "called"), [("AUTO", ASKED, 1), ("NONE", ASKED, 0), ("ANY", "Tides", 1)])
def test_gemini_calls_a_tool_as_its_mode_says(http: httpx2.Client, mode: str, prompt: str, called: int) -> None:
    """Whole and streamed; a call has its arguments and an id."""
    config = {"functionCallingConfig": {"mode": mode}}

    def calls(answer: Any) -> list[Any]:
        return [part["functionCall"] for part in answer["candidates"][0]["content"]["parts"] if "functionCall" in part]

    whole = calls(post(http, *content(prompt, tools=CONTENT_TOOLS, toolConfig=config)))
    streamed = events(http, *content(prompt, stream=True, tools=CONTENT_TOOLS, toolConfig=config))
    assert [len(whole), sum(len(calls(one)) for one in streamed if one["candidates"][0].get("content"))] == [called] * 2
    assert all(one["name"] == "weather" and one["id"] and one["args"] for one in whole)


def test_gemini_answers_a_tools_result(http: httpx2.Client) -> None:
    """A function's response ends the turn in words."""
    path, body = content(ASKED, tools=CONTENT_TOOLS)
    given = {"functionResponse": {"name": "weather", "response": {"output": "Rain"}}}
    body["contents"].append({"role": "user", "parts": [given]})
    (candidate,) = post(http, path, body)["candidates"]
    assert "text" in candidate["content"]["parts"][0]


# -- models, tokens, embeddings -----------------------------------------------------------------------------------


def test_models_are_listed(http: httpx2.Client) -> None:
    """In each dialect's form."""
    assert http.get("/openai/v1/models").json()["data"][0]["id"] == "demo-gpt"
    assert http.get("/anthropic/v1/models").json()["first_id"] == "demo-claude"
    assert http.get("/gemini/v1beta/models").json()["models"][0]["name"] == "models/demo-gemini"


def test_tokens_are_counted_as_in_the_call(http: httpx2.Client) -> None:
    """The free counting calls give the input that the real call reports."""
    path, body = message(ASKED, system="Be brief", tools=MESSAGE_TOOLS)
    counted = post(http, f"{path}/count_tokens", {key: body[key] for key in body if key != "max_tokens"})
    assert counted["input_tokens"] == post(http, path, body)["usage"]["input_tokens"]
    path, body = content("Tell me about tides")
    total = post(http, path.replace("generateContent", "countTokens"), body)["totalTokens"]
    assert total == post(http, path, body)["usageMetadata"]["promptTokenCount"]
    assert http.post(path.replace("generateContent", "paint"), json=body).status_code == 404


def test_embeddings_depend_on_the_text_alone(http: httpx2.Client) -> None:
    """As numbers and in base64, of texts and of token numbers; of one content and of several."""
    ask = {"model": "m", "input": ["a tide", "a river"], "dimensions": 8}
    plain = post(http, "/openai/v1/embeddings", ask)
    packed = post(http, "/openai/v1/embeddings", ask | {"encoding_format": "base64"})
    unpacked = struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"]))
    assert list(unpacked) == pytest.approx(plain["data"][0]["embedding"])
    assert plain["data"][0]["embedding"] != plain["data"][1]["embedding"]
    numbers = post(http, "/openai/v1/embeddings", {"model": "m", "input": [5, 6, 7]})
    assert numbers["usage"]["prompt_tokens"] == 3
    one = {"content": {"parts": [{"text": "a tide"}]}}
    single = post(http, "/gemini/v1beta/models/m:embedContent", one)
    several = post(http, "/gemini/v1beta/models/m:batchEmbedContents", {"requests": [one, one]})
    assert [each["values"] for each in several["embeddings"]] == [single["embedding"]["values"]] * 2
    assert http.post("/openai/v1/embeddings", json={"model": "m", "input": []}).status_code == 400
    bad = http.post("/gemini/v1beta/models/m:batchEmbedContents", json={"requests": []})
    assert "content with a text" in bad.text


def test_choices_are_counted_together(http: httpx2.Client) -> None:
    """`n` gives that many different answers, and usage is their sum."""
    done = post(http, *chat("Name a river [[demo tokens=15]]", n=3))
    assert len({one["message"]["content"] for one in done["choices"]}) == 3
    assert done["usage"]["completion_tokens"] == 45


# -- reasoning, caches, errors ------------------------------------------------------------------------------------


def test_reasoning_is_shown_where_the_dialect_shows_it(http: httpx2.Client) -> None:
    """A thinking block with a signature, a summary with sealed content, a part marked as thought."""
    thinking = {"type": "enabled", "budget_tokens": 1_024}
    found = events(http, *message("Tides", max_tokens=2_000, thinking=thinking, stream=True))
    kinds = [one["delta"]["type"] for one in of_type(found, "content_block_delta")]
    assert kinds.index("thinking_delta") < kinds.index("signature_delta") < kinds.index("text_delta")
    include = ["reasoning.encrypted_content"]
    asked = response("Tides", reasoning={"effort": "low", "summary": "auto"}, include=include, stream=True)
    streamed = events(http, *asked)
    assert of_type(streamed, "response.reasoning_summary_text.delta")
    assert streamed[-1]["response"]["output"][0]["encrypted_content"]
    config = {"thinkingConfig": {"thinkingBudget": 32, "includeThoughts": True}}
    parts = post(http, *content("Tides", generationConfig=config))["candidates"][0]["content"]["parts"]
    assert [part.get("thought") for part in parts] == [True, None]


def test_anthropic_writes_marked_blocks_and_reads_them_after(http: httpx2.Client) -> None:
    """By their time to live, once; input counts neither."""
    rules, facts = "Rules. " * 40, "Facts. " * 20
    system = [
        {"type": "text", "text": rules, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": facts, "cache_control": {"type": "ephemeral"}},
    ]
    first, second = (post(http, *message(ask, system=system))["usage"] for ask in ("One?", "Another?"))
    written = first["cache_creation"]
    assert written["ephemeral_5m_input_tokens"] == text.count(facts)
    assert first["cache_creation_input_tokens"] == second["cache_read_input_tokens"] == sum(written.values())
    assert second["cache_creation_input_tokens"] == first["cache_read_input_tokens"] == 0


def test_a_summary_of_a_conversation_is_sealed(http: httpx2.Client) -> None:
    """OpenAI's compaction, whole and streamed."""
    items = [{"role": "user", "content": "Tides"}, {"type": "compaction_trigger"}]
    body = {"model": "m", "input": items}
    (item,) = post(http, "/openai/v1/responses", body)["output"]
    assert item["type"] == "compaction"
    found = events(http, "/openai/v1/responses", body | {"stream": True})
    assert of_type(found, "response.compaction.compacting")


@pytest.mark.parametrize(("call", "status", "kind"), [(chat, 429, "requests"), (message, 529, "overloaded_error")])
def test_a_dictated_status_has_the_providers_shape(http: httpx2.Client, call: Any, status: int, kind: str) -> None:
    """And its message says who ordered it."""
    path, body = call(f"Tides [[demo status={status}]]")
    answer = http.post(path, json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind
    assert "was told to answer" in answer.json()["error"]["message"]


def test_an_error_comes_in_the_middle_of_a_stream(http: httpx2.Client) -> None:
    """After three pieces, in the form that each dialect has for it."""
    prompt = "Tides [[demo tokens=40 error_event=3]]"
    assert "had an error" in events(http, *chat(prompt, stream=True))[-1]["error"]["message"]
    kinds = [one["type"] for one in events(http, *response(prompt, stream=True))]
    assert kinds.count("response.output_text.delta") == 3
    assert kinds[-2:] == ["error", "response.failed"]
    assert events(http, *message(prompt, stream=True))[-1]["error"]["type"] == "overloaded_error"
    assert events(http, *content(prompt, stream=True))[-1]["error"]["status"] == "UNAVAILABLE"
