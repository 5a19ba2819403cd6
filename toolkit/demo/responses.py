"""OpenAI's Responses API in the demo upstream, with its full sequence of events.

Source: OpenAI API reference, "Responses" and "Streaming events".
"""

import base64
from collections.abc import Iterator
from typing import Any

from toolkit.demo import text
from toolkit.demo.answer import (
    EFFORT_TOKENS,
    Answer,
    Ask,
    BadRequest,
    Block,
    Choice,
    Endpoint,
    Event,
    Json,
    Stream,
    Tool,
    ToolCall,
    Turn,
    blocks,
    records,
    said,
    sse,
    whole_number,
)


def read(body: Json) -> Ask:
    """Read a responses request."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model must be the name of a model")
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else records(given, "input")
    if not items:
        raise BadRequest("input must be a text, or a list of at least one item")
    tools = list(_tools(records(body.get("tools"), "tools"), items))
    prompt: list[Block] = blocks(body["tools"], overhead=0) if body.get("tools") else []
    if isinstance(body.get("instructions"), str):
        prompt += blocks(body["instructions"])
    for item in items:
        prompt += blocks(item.get("content", item))
    choice = body.get("tool_choice")
    effort = body.get("reasoning")
    return Ask(
        model=model,
        body=body,
        prompt=tuple(prompt),
        turns=tuple(_turns(items)),
        stream=body.get("stream") is True,
        limit=whole_number(body.get("max_output_tokens"), "max_output_tokens"),
        tools=() if choice == "none" or _compacts(body) else tuple(tools),
        must_call=str(choice.get("name", "")) if isinstance(choice, dict) else "" if choice == "required" else None,
        parallel=body.get("parallel_tool_calls") is not False,
        reasoning=EFFORT_TOKENS.get(str(effort.get("effort")), 0) if isinstance(effort, dict) else 0,
        schema=_schema(body.get("text")),
    )


def _tools(listed: list[Json], items: list[Json]) -> Iterator[Tool]:
    """Yield the tools of the request and those that its items add, the members of a namespace one by one."""
    added = [item.get("tools") for item in items if item.get("type") == "additional_tools"]
    for tool in [*listed, *(tool for tools in added if isinstance(tools, list) for tool in tools)]:
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            group = tool.get("tools") if tool.get("type") == "namespace" else None
            if group is None:
                yield _tool(tool, None)
            for inner in group if isinstance(group, list) else []:
                if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                    yield _tool(inner, tool["name"])


def _tool(tool: Json, namespace: str | None) -> Tool:
    return Tool(tool["name"], tool.get("parameters"), namespace, freeform=tool.get("type") == "custom")


def _turns(items: list[Json]) -> Iterator[Turn]:
    for item in items:
        words = said(item.get("content"))
        if str(item.get("type")).endswith("_call_output"):
            yield Turn(said(item.get("output")) or "", result=True)
        elif item.get("role") == "user" and words is not None:
            yield Turn(words)


def _schema(wanted: object) -> Any:
    form = wanted.get("format") if isinstance(wanted, dict) else None
    return form.get("schema") if isinstance(form, dict) else None


def usage(_ask: Ask, answer: Answer) -> Json | None:
    """Report the tokens of a response."""
    counts = answer.counts
    if counts is None:
        return None
    written = counts.cache_write_5m + counts.cache_write_1h
    return {
        "input_tokens": counts.input,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": written},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.input + counts.output,
    }


def whole(ask: Ask, answer: Answer) -> Json:
    """Write a response as it is when it has ended."""
    choice = answer.choices[0]
    ended: Json = {"status": "completed", "completed_at": answer.created, "output": _items(ask, answer)}
    if choice.finish == "length":
        ended |= {"status": "incomplete", "completed_at": None, "incomplete_details": {"reason": "max_output_tokens"}}
    if answer.counts:
        ended["usage"] = usage(ask, answer)
    return _begun(ask, answer) | ended


def _begun(ask: Ask, answer: Answer) -> Json:
    body = ask.body
    wanted = body.get("reasoning") if isinstance(body.get("reasoning"), dict) else {}
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": ask.model,
        "output": [],
        "parallel_tool_calls": ask.parallel,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None} | (wanted or {}),
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": None,
        "metadata": body.get("metadata") or {},
    }


def _items(ask: Ask, answer: Answer) -> list[Json]:
    choice = answer.choices[0]
    if _compacts(ask.body):
        return [compaction(answer)]
    items: list[Json] = []
    if choice.reasoning:
        summary = [{"type": "summary_text", "text": choice.reasoning}] if _shows_summary(ask) else []
        thought: Json = {"id": f"rs_{answer.id}", "type": "reasoning", "summary": summary}
        include = ask.body.get("include")
        if isinstance(include, list) and "reasoning.encrypted_content" in include:
            thought["encrypted_content"] = base64.b64encode(choice.reasoning.encode()).decode()
        items.append(thought)
    items += [_call(call) for call in choice.calls]
    if not choice.calls:
        status = "incomplete" if choice.finish == "length" else "completed"
        items.append(_message(answer, status, [_part(choice.text)]))
    return items


def _compacts(body: Json) -> bool:
    given = body.get("input")
    return isinstance(given, list) and given[-1].get("type") == "compaction_trigger"


def compaction(answer: Answer) -> Json:
    """Write the item that stands for a conversation from now on: its summary, sealed."""
    sealed = base64.b64encode(answer.choices[0].text.encode("utf-8", "replace")).decode()
    return {"id": f"cmp_{answer.id}", "type": "compaction", "encrypted_content": sealed}


def _call(call: ToolCall) -> Json:
    made: Json = {"status": "completed", "call_id": f"call_{call.id}", "name": call.name}
    if call.tool.namespace:
        made["namespace"] = call.tool.namespace
    if call.tool.freeform:
        return {"id": f"ctc_{call.id}", "type": "custom_tool_call"} | made | {"input": call.arguments}
    return {"id": f"fc_{call.id}", "type": "function_call"} | made | {"arguments": call.arguments}


def _shows_summary(ask: Ask) -> bool:
    wanted = ask.body.get("reasoning")
    return isinstance(wanted, dict) and bool(wanted.get("summary"))


def _message(answer: Answer, status: str, content: list[Json]) -> Json:
    return {"id": f"msg_{answer.id}", "type": "message", "status": status, "role": "assistant", "content": content}


def _part(written: str) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": written}


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """Stream a response: each item is added, filled and done; the last event holds the whole response and its usage."""
    begun = _begun(ask, answer)
    ended = whole(ask, answer)
    steps: list[tuple[str, Json, int]] = [
        ("response.created", {"response": begun}, 0),
        ("response.in_progress", {"response": begun}, 0),
    ]
    for place, item in enumerate(ended["output"]):
        steps += [(name, {"output_index": place} | more, tokens) for name, more, tokens in _filled(answer, item)]
    steps.append((f"response.{ended['status']}", {"response": ended}, 0))
    for number, (name, more, tokens) in enumerate(steps):
        data = sse({"type": name, "sequence_number": number} | more, name)
        yield Event(data, tokens, terminal=number == len(steps) - 1)


def _filled(answer: Answer, item: Json) -> Iterator[tuple[str, Json, int]]:
    choice: Choice = answer.choices[0]
    here = {"item_id": item["id"]}
    match item["type"]:
        case "reasoning":
            yield "response.output_item.added", {"item": item | {"summary": []}}, 0
            for part in item["summary"]:
                spot = here | {"summary_index": 0}
                empty = part | {"text": ""}
                yield "response.reasoning_summary_part.added", spot | {"part": empty}, 0
                for piece, _ in text.chunks(part["text"], 8):
                    yield "response.reasoning_summary_text.delta", spot | {"delta": piece}, 0
                yield "response.reasoning_summary_text.done", spot | {"text": part["text"]}, 0
                yield "response.reasoning_summary_part.done", spot | {"part": part}, 0
        case "function_call":
            empty = item | {"status": "in_progress", "arguments": ""}
            yield "response.output_item.added", {"item": empty}, text.count(item["name"])
            for piece, tokens in text.chunks(item["arguments"]):
                yield "response.function_call_arguments.delta", here | {"delta": piece}, tokens
            done = here | {"name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", done, 0
        case "custom_tool_call":
            empty = item | {"status": "in_progress", "input": ""}
            yield "response.output_item.added", {"item": empty}, text.count(item["name"])
            for piece, tokens in text.chunks(item["input"]):
                yield "response.custom_tool_call_input.delta", here | {"delta": piece}, tokens
            yield "response.custom_tool_call_input.done", here | {"input": item["input"]}, 0
        case "compaction":
            yield "response.output_item.added", {"item": item | {"encrypted_content": ""}}, 0
            yield "response.compaction.compacting", here, text.count(choice.text)
        case _:
            yield "response.output_item.added", {"item": _message(answer, "in_progress", [])}, 0
            spot = here | {"content_index": 0}
            yield "response.content_part.added", spot | {"part": _part("")}, 0
            for piece, tokens in text.chunks(choice.text):
                yield "response.output_text.delta", spot | {"delta": piece, "logprobs": []}, tokens
            yield "response.output_text.done", spot | {"text": choice.text, "logprobs": []}, 0
            yield "response.content_part.done", spot | {"part": _part(choice.text)}, 0
    yield "response.output_item.done", {"item": item}, 0


def failure(ask: Ask, answer: Answer, sent: int) -> bytes:
    """End a stream in an error: the error event, then the failed response."""
    reason: Json = {"code": "server_error", "message": "The server had an error while processing your request."}
    failed = _begun(ask, answer) | {"status": "failed", "error": reason}
    first: Json = {"type": "error", "sequence_number": sent} | reason | {"param": None}
    last: Json = {"type": "response.failed", "sequence_number": sent + 1, "response": failed}
    return sse(first, "error") + sse(last, "response.failed")


RESPONSES = Endpoint(read, whole, usage, Stream(events, failure))
