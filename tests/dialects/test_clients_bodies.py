"""What popular clients send with each call, by their defaults, is known: nothing of it is refused or left out.

The bodies have the shapes that each client's own requests have, cut down to their fields.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from toolkit.core.dialect import Dialect
from toolkit.dialects import MODULES
from toolkit.dialects.body import parse_object
from toolkit.dialects.headers import read

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}
TOOL = {"type": "function", "function": FUNCTION}
FLAT_TOOL = {"type": "function", **FUNCTION}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SAMPLING = {"temperature": 0.5, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "stop": ["x"]}
REASONING = {"reasoning": {"effort": "medium", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}


def nulls(*names: str) -> dict[str, None]:
    """Return fields that are sent as null where they are not set, as many generated clients do."""
    return dict.fromkeys(names)


CHAT: Mapping[str, dict[str, Any]] = {
    "LangChain": {"messages": HELLO, "n": 1, "temperature": 0.7, "stream": False, "tools": [TOOL]},
    "LangChain, after a tool": {
        "messages": [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "x", "tool_call_id": "c"},
        ],
        **USAGE,
    },
    "aider, by LiteLLM": {"messages": HELLO, **USAGE, "temperature": 0, "extra_body": {}, "metadata": {"tags": "x"}},
    "LiteLLM, to a proxy": {"messages": HELLO, "litellm_session_id": "s", "litellm_trace_id": "t", "drop_params": True},
    "Cline": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
        ],
        "temperature": 0,
        "parallel_tool_calls": False,
        "tools": [TOOL],
        **USAGE,
        **nulls("reasoning_effort"),
    },
    "Continue": {"messages": HELLO, "max_tokens": 4096, **SAMPLING, "logit_bias": {"1": 1}, "tools": [TOOL], **USAGE},
    "Open WebUI": {"messages": HELLO, **USAGE, "user": "u", "max_completion_tokens": 1000, "session_id": "s"},
    "Zed": {
        "messages": HELLO,
        "stream": True,
        "max_completion_tokens": 1000,
        "stop": [],
        "tools": [],
        "prompt_cache_key": "x",
        **nulls("tool_choice", "reasoning_effort"),
    },
    "GitHub Copilot": {"messages": HELLO, "intent": True, "snippy": {"enabled": False}, "n": 1, "stream": True},
    "Qwen Code": {"messages": HELLO, "metadata": {"sessionId": "s", "promptId": "p"}, **USAGE},
    "the OpenAI SDK, all of it": {
        "messages": [{**HELLO[0], **nulls("name", "tool_calls", "function_call", "refusal", "audio")}],
        "safety_identifier": "u",
        "verbosity": "low",
        "reasoning_effort": "low",
        "prompt_cache_retention": "24h",
        **nulls("stream", "tools", "n", "stop", "max_tokens", "logit_bias", "seed", "response_format", "service_tier"),
        **nulls("store", "modalities", "audio", "prediction", "web_search_options", "functions", "top_logprobs"),
    },
}
RESPONSES: Mapping[str, dict[str, Any]] = {
    "the Agents SDK": {
        "input": HELLO,
        "include": [],
        "tools": [FLAT_TOOL],
        "metadata": {},
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "text": {"format": {"type": "text"}},
        "prompt_cache_key": "agents-sdk:run:x",
    },
    "Vercel's SDK": {
        "input": HELLO,
        "tools": [FLAT_TOOL],
        "tool_choice": "auto",
        "max_output_tokens": 100,
        **REASONING,
    },
    "the OpenAI SDK, a turn that is sent back": {
        "input": [
            {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x", **nulls("content", "status")},
            {
                "type": "function_call",
                "id": "fc",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                **nulls("caller", "namespace", "created_by"),
            },
            {"type": "function_call_output", "call_id": "c", "output": "x", **nulls("id", "status")},
            {
                "type": "message",
                "id": "msg",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}],
                **nulls("phase"),
            },
        ],
        **nulls("stream", "store", "background", "conversation", "previous_response_id", "prompt", "reasoning", "text"),
        **nulls("context_management", "service_tier", "truncation", "instructions", "max_tool_calls", "moderation"),
    },
}
MESSAGES: Mapping[str, dict[str, Any]] = {
    "Claude Code": {
        "max_tokens": 32_000,
        "stream": True,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "metadata": {"user_id": '{"device_id": "d", "session_id": "s"}'},
        "system": [
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h", "scope": "global"}}
        ],
        "tools": [{"name": "Read", "description": "d", "input_schema": {}, "eager_input_streaming": True}],
        "messages": [
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "x"}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [{"type": "tool_reference", "tool_name": "y"}],
                    }
                ],
            },
        ],
    },
    "Cline": {
        "max_tokens": 8192,
        "temperature": 0,
        "system": "x",
        "messages": HELLO,
        "stream": True,
        "tool_choice": {},
    },
    "the Anthropic SDK, all of it": {
        "max_tokens": 5,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x", **nulls("cache_control", "citations")}]}
        ],
        **nulls("system", "tools", "tool_choice", "metadata", "thinking", "stop_sequences", "temperature", "top_k"),
        **nulls("service_tier", "container", "inference_geo", "mcp_servers", "context_management", "speed"),
    },
}
GENERATE: Mapping[str, dict[str, Any]] = {
    "Gemini CLI": {
        "systemInstruction": {"role": "user", "parts": [{"text": "x"}]},
        "contents": [
            {
                "role": "model",
                "parts": [{"functionCall": {"name": "f", "args": {}, "id": "i"}, "thoughtSignature": "x"}],
            },
            {"role": "user", "parts": [{"functionResponse": {"id": "i", "name": "f", "response": {"output": "x"}}}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": {}}]}],
        "generationConfig": {
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 8192, "thinkingLevel": "HIGH"},
        },
    },
}
SENT = [
    (dialect, endpoint, client, body)
    for dialect, endpoint, bodies in (
        (Dialect.OPENAI, "chat/completions", CHAT),
        (Dialect.OPENAI, "responses", RESPONSES),
        (Dialect.ANTHROPIC, "messages", MESSAGES),
        (Dialect.GEMINI, "streamGenerateContent", GENERATE),
    )
    for client, body in bodies.items()
]


@pytest.mark.parametrize(("dialect", "endpoint", "client", "body"), SENT, ids=[f"{one[1]}-{one[2]}" for one in SENT])
def test_what_a_client_sends_by_default_is_known(
    dialect: Dialect, endpoint: str, client: str, body: dict[str, Any]
) -> None:
    """Whatever upstream and plan say of unknown fields, it works."""
    raw = json.dumps(body if dialect is Dialect.GEMINI else {"model": "m", **body}).encode()
    kept, left_out = MODULES[dialect].without_hosted_tools(endpoint, parse_object(raw))
    shape = MODULES[dialect].inspect(endpoint, kept, len(raw), "m" if dialect is Dialect.GEMINI else None)
    assert (shape.unknown, left_out) == ((), ())


def test_the_betas_of_claude_code_are_known() -> None:
    """As one of its calls has them; a window of a million tokens is asked for, and judged by what the model has."""
    betas = (
        "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,context-1m-2025-08-07,"
        "prompt-caching-scope-2026-01-05,effort-2025-11-24,advanced-tool-use-2025-11-20,structured-outputs-2025-12-15,"
        "per-turn-control-2026-07-01,mid-conversation-tool-changes-2026-07-01,thinking-token-count-2026-05-13,"
        "redact-thinking-2026-02-12,fine-grained-tool-streaming-2025-05-14,token-efficient-tools-2026-03-28"
    )
    onward = read(Dialect.ANTHROPIC, [(b"anthropic-version", b"2023-06-01"), (b"anthropic-beta", betas.encode())])
    assert onward.unknown == ()
    assert onward.window is not None
    assert onward.headers["anthropic-beta"] == betas
