"""What is known of the fields of an Anthropic request, and what each changes.

Names and meanings: Anthropic's API reference ("Create a Message", beta included), and what servers that speak its
dialect take beside it (vLLM, SGLang, llama.cpp, Ollama, LiteLLM; Vertex and Bedrock name betas in the body).
"""

from toolkit.dialects.fields import Effect, Field, Fields, Kinds, covered, dropped, merged, plain, refused, undated

STORED = "what the provider keeps is shared by everybody behind this gateway; send the content itself"
FOREIGN_BLOCK = "it belongs to a tool that the provider runs or to a file kept there, which has no price here"

_OTHER_MODEL = "another model than the one named may answer, at another price"
_COMPACTION = (
    "compaction at the provider uses tokens that no bound of this call covers; leave it out, and compact "
    "in your own code"
)
_HOSTED_TOOL = "tools that the provider runs have no price here; declare a tool and run it yourself"
_ACCOUNT = "which account and workspace are used is decided by your API key here"
_HEADERS = "what a request's headers and address say is not taken from its body"
_HOLD_INPUT = "its bytes bound the input that is held"

_CACHE_CONTROL = Field(
    Effect.PRICE,
    covered="both lifetimes have prices, and the dearer is held",
    inside=Fields(
        plain("type", "scope"), covered(Effect.PRICE, "both lifetimes have prices, and the dearer is held", "ttl")
    ),
)

# -- tools ------------------------------------------------------------------------------------------------------

_OF_TOOL = {
    **plain("type", "name", "strict", "allowed_callers", "defer_loading", "input_examples", "eager_input_streaming"),
    "cache_control": _CACHE_CONTROL,
}
_CLIENT_TOOLS = {
    "custom": Field(Effect.CONTEXT, covered=_HOLD_INPUT, inside=Fields(_OF_TOOL, plain("description", "input_schema"))),
    **dict.fromkeys(
        ("bash", "text_editor", "computer", "memory", "browser_toolset", "computer_toolset"),
        Field(
            Effect.CONTEXT,
            covered="allowance per tool",
            inside=Fields(
                _OF_TOOL,
                plain("display_width_px", "display_height_px", "display_number", "enable_zoom", "max_characters"),
                plain("configs"),
            ),
        ),
    ),
}
TOOLS = Kinds(
    _CLIENT_TOOLS,
    refused(
        Effect.PRICE,
        _HOSTED_TOOL,
        *("web_search", "web_fetch", "advisor", "tool_search_tool_bm25", "tool_search_tool_regex"),
    ),
    refused(Effect.STATE, _HOSTED_TOOL, "code_execution", "mcp_toolset"),
    others=Field(Effect.PRICE, _HOSTED_TOOL),
    default="custom",
    stem=undated,
)
"""Tools by type, without the date: those that the caller's code runs ("Tool use overview", client tools), and others.

An unknown type may be one that the provider runs and charges for.
"""

# -- the body ---------------------------------------------------------------------------------------------------

_EDITS = Kinds(
    {
        "clear_tool_uses": Field(
            Effect.CONTEXT,
            covered="it makes the input smaller",
            inside=Fields(plain("type", "trigger", "keep", "clear_at_least", "clear_tool_inputs", "exclude_tools")),
        ),
        "clear_thinking": Field(
            Effect.CONTEXT, covered="it makes the input smaller", inside=Fields(plain("type", "keep"))
        ),
    },
    others=Field(Effect.PRICE, _COMPACTION),
    default="",
    stem=undated,
)

BETAS_IN_BODY = ("anthropic_beta", "betas")
"""What Vertex and Bedrock call the header `anthropic-beta`."""

_BODY = Fields(
    covered(Effect.PRICE, "decides the price", "model"),
    covered(Effect.CONTEXT, _HOLD_INPUT, "messages", "system"),
    covered(Effect.CONTEXT, "bounds the output that is held", "max_tokens"),
    covered(Effect.PRICE, "the answer's form decides where usage is read", "stream"),
    covered(Effect.PRICE, "each is judged as in the header", *BETAS_IN_BODY),
    plain("metadata", "stop_sequences", "temperature", "top_p", "top_k", "tool_choice", "anthropic_version"),
    plain("output_format"),
    {
        "tools": Field(Effect.CONTEXT, covered="bytes and an allowance per tool", inside=TOOLS),
        "cache_control": _CACHE_CONTROL,
        "thinking": Field(
            Effect.NONE,
            inside=Fields(
                plain("type", "display", "block_binding"),
                covered(Effect.CONTEXT, "thinking counts toward `max_tokens`", "budget_tokens"),
            ),
        ),
        "output_config": Field(
            Effect.NONE,
            inside=Fields(
                plain("effort", "format"),
                covered(Effect.CONTEXT, "each call's output is bounded by `max_tokens`", "task_budget"),
            ),
        ),
        "context_management": Field(
            Effect.CONTEXT,
            covered="what clears may be; compaction is refused",
            inside=Fields({"edits": Field(Effect.CONTEXT, covered="by type", inside=_EDITS)}),
        ),
        "diagnostics": Field(
            Effect.STATE,
            covered="without a reference",
            inside=Fields(
                refused(Effect.STATE, "it refers to an answer that may be another tenant's", "previous_message_id")
            ),
        ),
    },
    refused(Effect.STATE, STORED, "container"),
    refused(
        Effect.PRICE, "servers that the provider calls have no price here; call them from your own code", "mcp_servers"
    ),
    refused(Effect.STATE, f"{STORED} in 'messages'", "thread"),
    refused(Effect.PRICE, _OTHER_MODEL, "fallbacks", "models", "route", "provider"),
    refused(Effect.PRICE, "credits change the price of what is cached; leave it out", "fallback_credit_token"),
    refused(Effect.PRICE, "who is billed is decided by your API key here", "billing_policy"),
    refused(Effect.STATE, _ACCOUNT, "workspace_id", "user_profile_id"),
    refused(Effect.PRICE, _COMPACTION, "compaction"),
    refused(Effect.PRICE, "this service tier has no price here", "service_tier", allowed=("auto", "standard_only")),
    refused(Effect.PRICE, "fast mode has no price here", "speed", allowed=("standard",)),
    refused(Effect.PRICE, "a fixed region has no price here", "inference_geo", allowed=("global",)),
    # What servers that speak the dialect take beside it.
    plain("min_p", "repetition_penalty", "repeat_penalty", "frequency_penalty", "presence_penalty", "seed"),
    plain(
        "chat_template_kwargs", "keep_alive", "cache_prompt", "id_slot", "priority", "request_id", "reasoning_effort"
    ),
    {"chat_template": Field(Effect.CONTEXT, covered="the model's whole context window is held", whole_context=True)},
    refused(
        Effect.STATE,
        "it reaches into the server's own memory or network, which other tenants share",
        *("kv_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room", "session_params"),
    ),
    refused(Effect.STATE, _HEADERS, "extra_headers", "extra_query", "api_base", "base_url", "api_key"),
)
BODY = Fields(
    _BODY.rows,
    {"extra_body": Field(Effect.PRICE, covered="judged as if it were merged into the body", inside=merged(_BODY))},
)
"""The body of `messages` and `messages/count_tokens`."""

# -- messages ---------------------------------------------------------------------------------------------------

MESSAGE = Fields(
    plain("clear_at"),
    covered(Effect.CONTEXT, "walked, block by block", "role", "content"),
    {"output_config": Field(Effect.NONE, inside=Fields(plain("effort")))},
    refused(Effect.PRICE, "tools are judged at the request's own level; give them there", "tools"),
)
"""A message."""

BLOCK = Fields(
    plain("text", "id", "name", "input", "tool_use_id", "is_error", "thinking", "signature", "title", "context"),
    covered(Effect.CONTEXT, "walked", "type", "source", "content"),
    covered(Effect.PRICE, "both lifetimes have prices, and the dearer is held", "cache_control"),
)
"""A block of a message."""

SOURCE = Fields(covered(Effect.CONTEXT, "walked", "type", "media_type", "data", "url", "content", "file_id"))
"""The `source` of a block."""

# -- betas ------------------------------------------------------------------------------------------------------

_CARRIED = "by a body field or tool, which is judged by itself"

BETAS = {
    "context-1m": Field(
        Effect.CONTEXT,
        covered="refused where the call could have more input than the model's context window here",
        window=1_000_000,
    ),
    **covered(Effect.CONTEXT, "`max_tokens` is held as given", "output-128k", "output-300k", "max-tokens-3-5-sonnet"),
    **covered(
        Effect.CONTEXT,
        "each call's output is bounded by `max_tokens`",
        *("interleaved-thinking", "dev-full-thinking", "task-budgets", "model-context-window-exceeded"),
    ),
    **covered(
        Effect.PRICE,
        "cache writes and reads have prices, and the dearest is held",
        *("prompt-caching", "prompt-caching-scope", "extended-cache-ttl"),
    ),
    **covered(
        Effect.PRICE,
        _CARRIED,
        *("fast-mode", "compact", "server-side-fallback", "fallback-credit", "user-profiles-billing", "web-search"),
        *("web-fetch", "advisor-tool", "context-management", "priority-tier"),
    ),
    **covered(
        Effect.STATE,
        _CARRIED,
        *("files-api", "code-execution", "mcp-client", "mcp-tunnels", "skills", "message-threads", "inline-tools"),
        *("user-profiles", "cache-diagnosis", "agent-memory", "ce-plugins"),
    ),
    **covered(
        Effect.STATE,
        "for endpoints that this gateway does not have",
        *("message-batches", "managed-agents", "dreaming", "webhooks", "spend-limit-reads", "telemetry-destinations"),
        *("admin-user-sign-out", "analytics-usage-cost", "ce-user-management", "ce-claude-code-managed-settings"),
    ),
    **plain(
        *("claude-code", "oauth", "token-counting", "token-efficient-tools", "fine-grained-tool-streaming"),
        *("computer-use", "pdfs", "structured-outputs", "effort", "advanced-tool-use", "tool-search-tool"),
        *("tool-examples", "redact-thinking", "thinking-token-count", "thinking-display-updates", "adaptive-thinking"),
        *("thinking-binding-controls", "mid-conversation-system", "mid-conversation-system-clear-at"),
        *(
            "mid-conversation-tool-changes",
            "mid-conversation-output-config",
            "per-turn-control",
            "summarize-connector-text",
            "afk-mode",
        ),
        *("cli-internal", "experimental-claude-tag"),
    ),
}
"""Values of the header `anthropic-beta` without their date; Anthropic, "Beta headers", its SDK's list, and what Claude
Code sends. A new date changes details of a feature, not what it costs."""

HEADERS = {
    **plain("anthropic-version", "anthropic-dangerous-direct-browser-access"),
    **covered(Effect.PRICE, "value by value", "anthropic-beta"),
    **dropped(
        Effect.STATE,
        "the account is chosen by your API key",
        *("anthropic-workspace-id", "anthropic-user-profile-id", "anthropic-organization-id"),
    ),
}
"""Headers of Anthropic's own."""
