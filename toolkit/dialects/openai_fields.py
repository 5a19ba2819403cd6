"""What is known of the fields of an OpenAI request, and what each changes.

Names and meanings: OpenAI's API reference ("Create chat completion", "Create a model response", "Create embeddings");
and what servers that speak its dialect take beside it, from their own documentation: OpenRouter ("API parameters"),
vLLM and SGLang ("OpenAI-compatible server"), llama.cpp ("server"), Ollama ("OpenAI compatibility"), LiteLLM ("Input
params"), Qwen ("Deep thinking"), xAI, Groq, Mistral, DeepSeek, Together, Fireworks, Azure; GitHub Copilot's clients.
"""

from toolkit.dialects.fields import AUDIO, Effect, Field, Fields, Kinds, covered, dropped, merged, plain, refused

STORED = "what the provider stores is shared by everybody behind this gateway; send what it refers to instead"
HOSTED_TOOL = "tools that the provider runs have no price here; declare a function and run it yourself"

_TIER = "this service tier has no price here; leave it out or send 'auto' or 'default'"
_OTHER_MODEL = "another model than the one named may answer, at another price"
_KEPT = "what the provider would keep is shared by everybody behind this gateway"
_SEARCH = "web search has no price here; search in your own code and send the results"
_BACKGROUND = "the usage of a background answer is not seen by this gateway"
_COMPACTION = (
    "compaction at the provider uses tokens that no bound of this call covers; compact by a call of its own, "
    "'responses/compact'"
)
_PREDICTION = "rejected prediction tokens are billed as output beyond any bound; leave it out"
_SERVER = "it reaches into the server's own memory or network, which other tenants share"
_HEADERS = "what a request's headers and address say is not taken from its body"

OTHER_BOUNDS = ("n_predict", "max_new_tokens")
"""What llama.cpp's and Hugging Face's servers call the bound on output; others ignore these names."""

_HOLD_INPUT = "its bytes bound the input that is held"
_HOLD_OUTPUT = "bounds the output that is held"
_BREAKPOINT = Fields(
    plain("mode"),
    refused(Effect.PRICE, "only the 30 minute cache has a price here", "ttl", allowed=("30m",)),
)

# -- tools ------------------------------------------------------------------------------------------------------

_FUNCTION = Fields(plain("name", "description", "parameters", "strict"))
_OF_TOOL = plain("type", "allowed_callers", "defer_loading", "async", "cache_control")
_CLIENT_TOOLS = {
    "function": Field(
        Effect.CONTEXT,
        covered=_HOLD_INPUT,
        inside=Fields(
            _OF_TOOL,
            plain("name", "description", "parameters", "strict", "output_schema"),
            {"function": Field(Effect.NONE, inside=_FUNCTION)},
        ),
    ),
    "custom": Field(
        Effect.CONTEXT, covered=_HOLD_INPUT, inside=Fields(_OF_TOOL, plain("name", "description", "format", "custom"))
    ),
    **dict.fromkeys(
        ("local_shell", "apply_patch", "computer"),
        Field(Effect.CONTEXT, covered="allowance per tool", inside=Fields(_OF_TOOL)),
    ),
    "computer_use_preview": Field(
        Effect.CONTEXT,
        covered="allowance per tool",
        inside=Fields(_OF_TOOL, plain("display_height", "display_width", "environment")),
    ),
    "shell": Field(
        Effect.CONTEXT, covered="`environment.type: local` alone", inside=Fields(_OF_TOOL, plain("environment"))
    ),
    "tool_search": Field(
        Effect.CONTEXT,
        covered="`execution: client` alone",
        inside=Fields(_OF_TOOL, plain("description", "execution", "parameters")),
    ),
}
"""Those that the caller runs; OpenAI, "Using tools", and the page of each. They cost no more than their tokens."""

_HOSTED_TOOLS = {
    **refused(
        Effect.PRICE,
        HOSTED_TOOL,
        *("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
        *("image_generation", "programmatic_tool_calling"),
    ),
    **refused(Effect.STATE, HOSTED_TOOL, "file_search", "code_interpreter", "mcp"),
}
_OTHER_TOOL = Field(Effect.PRICE, HOSTED_TOOL)
_INNER_TOOLS = Kinds(_CLIENT_TOOLS, _HOSTED_TOOLS, plain("namespace"), others=_OTHER_TOOL)
_NAMESPACE = Fields(_OF_TOOL, plain("name", "description"), {"tools": Field(Effect.CONTEXT, inside=_INNER_TOOLS)})
TOOLS = Kinds(
    _CLIENT_TOOLS,
    _HOSTED_TOOLS,
    {"namespace": Field(Effect.CONTEXT, covered="each of its tools is judged by itself", inside=_NAMESPACE)},
    others=_OTHER_TOOL,
)
"""Tools by type; an unknown type may be one that the provider runs and charges for."""

# -- the body ---------------------------------------------------------------------------------------------------

_SHARED = {
    **covered(Effect.PRICE, "decides the price", "model"),
    "tools": Field(Effect.CONTEXT, covered="bytes and an allowance per tool", inside=TOOLS),
    **plain("metadata", "user", "safety_identifier", "parallel_tool_calls", "tool_choice"),
    **plain("top_logprobs", "prompt_cache_key", "prompt_cache_retention"),
    **covered(Effect.PRICE, "the answer's form decides where usage is read", "stream"),
    **refused(Effect.STATE, _KEPT, "store", allowed=(False,)),
    **refused(Effect.PRICE, _TIER, "service_tier", allowed=("auto", "default")),
    **refused(Effect.PRICE, "it calls a second model, which has no price here", "moderation"),
    "prompt_cache_options": Field(
        Effect.PRICE,
        covered="cache writes are held and charged at their price",
        inside=Fields(_BREAKPOINT.rows, plain("prewarm"), refused(Effect.STATE, STORED, "comparison_response_id")),
    ),
}

_SAMPLING = plain(
    *("temperature", "top_p"),
    *("top_k", "top_a", "min_p", "typical_p", "tfs_z", "repetition_penalty", "repeat_penalty", "repeat_last_n"),
    *("length_penalty", "no_repeat_ngram_size", "early_stopping", "use_beam_search", "temperature_last"),
    *("mirostat", "mirostat_tau", "mirostat_eta", "mirostat_mode", "dynatemp_range", "dynatemp_exponent"),
    *("xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"),
    *("dry_sequence_breakers", "samplers", "min_keep", "logit_bias", "seed", "random_seed", "do_sample", "min_tokens"),
    *("ignore_eos", "stop_token_ids", "stop_regex", "no_stop_trim", "include_stop_str_in_output", "bad_words"),
    *("allowed_token_ids", "skip_special_tokens", "spaces_between_special_tokens", "detokenize", "frequency_penalty"),
    *("presence_penalty", "stop", "logprobs", "prompt_logprobs", "n_probs", "post_sampling_probs", "echo"),
    *("return_token_ids", "return_tokens", "return_tokens_as_token_ids", "include_reasoning"),
)
_GUIDED = plain(
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend"),
    *("guided_whitespace_pattern", "structured_outputs", "structural_tag", "grammar", "json_schema", "regex", "ebnf"),
    *("response_format", "format"),
)
_SERVING = plain(
    *("add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template_kwargs", "documents"),
    *("truncate_prompt_tokens", "priority", "request_id", "cache_salt", "vllm_xargs", "data_parallel_rank", "rid"),
    *("separate_reasoning", "stream_reasoning", "return_hidden_states", "cache_prompt", "id_slot", "n_keep"),
    *("n_discard", "n_indent", "t_max_predict_ms", "timings_per_token", "return_progress", "parse_tool_calls"),
    *("reasoning_format", "thinking_forced_open", "keep_alive", "think", "raw", "enable_thinking", "tool_stream"),
    *("context_length_exceeded_behavior", "prompt_truncate_len", "perf_metrics_in_response", "parallel_tool_call"),
    *("safe_prompt", "prompt_mode", "disable_tool_validation", "citation_options", "partial", "thinking"),
    *("prompt_cache_isolation_key", "x_session_affinity", "drop_params", "allowed_openai_params", "timeout"),
    *(
        "litellm_metadata",
        "litellm_session_id",
        "litellm_trace_id",
        "tags",
        "intent",
        "snippy",
        "copilot_cache_control",
    ),
    *("cache_control", "session_id", "trace", "debug", "usage", "transforms", "structured_output", "custom_params"),
)

_REASONING = Fields(
    plain("effort", "summary", "generate_summary", "context", "exclude", "enabled", "encrypted_content"),
    covered(Effect.CONTEXT, "lies within the output bound", "max_tokens"),
    refused(
        Effect.PRICE,
        "this mode has no price here; leave it out or send 'standard'",
        "mode",
        allowed=("standard", "auto"),
    ),
)
_OPTIONS = Fields(
    _SAMPLING,
    plain("num_keep", "numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "use_mmap", "use_mlock", "num_thread"),
    plain("penalize_newline", "vocab_only", "f16_kv", "draft_num_predict"),
    covered(Effect.CONTEXT, "refused if it is larger than the model's context window here", "num_ctx"),
    covered(Effect.CONTEXT, _HOLD_OUTPUT, "num_predict"),
)
"""Ollama's, "Modelfile", parameters."""

_COMPATIBLE = {
    **_SAMPLING,
    **_GUIDED,
    **_SERVING,
    "reasoning": Field(Effect.NONE, inside=_REASONING),
    **plain("reasoning_effort", "verbosity"),
    "options": Field(Effect.CONTEXT, covered="its bound is read", inside=_OPTIONS),
    **covered(Effect.CONTEXT, f"{_HOLD_OUTPUT}, if it is the largest given", *OTHER_BOUNDS),
    **covered(Effect.CONTEXT, "held beside the output bound, within which Qwen does not count it", "thinking_budget"),
    **dict.fromkeys(
        ("chat_template", "mm_processor_kwargs", "media_io_kwargs", "vl_high_resolution_images"),
        Field(Effect.CONTEXT, covered="the model's whole context window is held", whole_context=True),
    ),
    **refused(Effect.PRICE, "it calls a second model, which has no price here", "safety_model", "guardrails"),
    **refused(
        Effect.PRICE,
        _OTHER_MODEL,
        *("models", "route", "preset", "fallbacks", "model_list", "context_window_fallback_dict"),
        *("compound_custom", "lora", "lora_path"),
    ),
    **refused(Effect.PRICE, "another provider may answer, at another price", "provider"),
    **refused(Effect.PRICE, "images that a model makes have no price here", "image_config"),
    **refused(Effect.PRICE, _SEARCH, "search_parameters", allowed=({"mode": "off"},), bare=True),
    **refused(Effect.PRICE, _SEARCH, "search_options", "search_settings", "plugins"),
    **refused(Effect.PRICE, _SEARCH, "enable_search", allowed=(False,)),
    **refused(Effect.PRICE, "it may leave the usage out of the answer", "response_fields"),
    **refused(Effect.STATE, _BACKGROUND, "deferred", "background", allowed=(False,)),
    **refused(Effect.PRICE, "the answers are billed one by one; use 'n'", "n_cmpl", "num_return_sequences"),
    **refused(Effect.PRICE, "each further try is billed too", "num_retries", allowed=(0,)),
    **refused(Effect.PRICE, "fast mode has no price here", "speed", allowed=("standard",)),
    **refused(Effect.PRICE, "a fixed region has no price here", "inference_geo", allowed=("global",)),
    **refused(Effect.PRICE, "servers that the provider calls have no price here", "mcp_servers"),
    **refused(Effect.STATE, STORED, "container", "cached_content", "cachedContent"),
    **refused(Effect.CONTEXT, _COMPACTION, "context_management"),
    "google": Field(
        Effect.NONE,
        inside=Fields(
            plain("thinking_config", "thought_tag_marker", "safety_settings"),
            refused(Effect.STATE, STORED, "cached_content", "cachedContent"),
        ),
    ),
    **refused(
        Effect.STATE,
        _SERVER,
        *("kv_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room", "session_params"),
        *("custom_logit_processor", "logits_processors"),
    ),
    **refused(Effect.STATE, STORED, "data_sources", "dataSources"),
    **refused(
        Effect.STATE,
        _HEADERS,
        *(
            "extra_headers",
            "extra_query",
            "headers",
            "anthropic_beta",
            "api_base",
            "base_url",
            "api_key",
            "api_version",
            "custom_llm_provider",
        ),
    ),
}
"""What servers that speak OpenAI's dialect take on chat completions beside OpenAI's own fields."""

_CHAT = Fields(
    _COMPATIBLE,
    _SHARED,
    covered(Effect.CONTEXT, _HOLD_INPUT, "messages", "functions"),
    plain("function_call"),
    covered(Effect.PRICE, "each choice is held and charged", "n"),
    covered(Effect.CONTEXT, _HOLD_OUTPUT, "max_tokens", "max_completion_tokens"),
    {
        "stream_options": Field(
            Effect.PRICE,
            covered="usage is asked for in any case",
            inside=Fields(
                plain("include_obfuscation", "continuous_usage_stats"),
                covered(Effect.PRICE, "usage is asked for in any case", "include_usage"),
            ),
        )
    },
    refused(Effect.PRICE, f"{AUDIO}; only ['text'] is answered", "modalities", allowed=(["text"],)),
    refused(Effect.PRICE, AUDIO, "audio"),
    refused(Effect.PRICE, _PREDICTION, "prediction"),
    refused(Effect.PRICE, "the answers that are thrown away are billed too; use 'n'", "best_of"),
    refused(Effect.PRICE, _SEARCH, "web_search_options", bare=True),
)

_RESPONSES = Fields(
    _SAMPLING,
    _SERVING,
    _SHARED,
    covered(Effect.CONTEXT, _HOLD_INPUT, "input", "instructions"),
    covered(Effect.CONTEXT, _HOLD_OUTPUT, "max_output_tokens"),
    plain("text", "truncation", "include", "client_metadata", "access_programs", "enable_response_messages"),
    plain("max_tool_calls"),
    {
        "reasoning": _COMPATIBLE["reasoning"],
        "image": Field(
            Effect.CONTEXT, covered="within the allowance per picture", inside=Fields(plain("context_compression"))
        ),
        "stream_options": Field(Effect.NONE, inside=Fields(plain("include_obfuscation", "include_usage"))),
    },
    refused(Effect.STATE, f"{STORED} in 'input'", "previous_response_id", "conversation"),
    refused(
        Effect.STATE, "prompt templates are kept at the provider; send the text in 'instructions' and 'input'", "prompt"
    ),
    refused(Effect.STATE, _BACKGROUND, "background", allowed=(False,)),
    refused(Effect.STATE, _BACKGROUND, "background_options"),
    refused(Effect.CONTEXT, _COMPACTION, "context_management"),
    refused(Effect.STATE, STORED, "container"),
    {
        name: _COMPATIBLE[name]
        for name in (
            *("models", "route", "provider", "preset", "fallbacks", "plugins", "search_parameters", "chat_template"),
            *("mm_processor_kwargs", "kv_transfer_params", "extra_headers", "extra_query", "api_base", "api_key"),
            *("base_url", "thinking_budget"),
        )
    },
)

_EMBEDDINGS = Fields(
    covered(Effect.PRICE, "decides the price", "model"),
    covered(Effect.CONTEXT, _HOLD_INPUT, "input"),
    plain("dimensions", "encoding_format", "user", "metadata", "input_type", "truncate", "truncation", "output_dtype"),
    plain("output_dimension", "task", "late_chunking", "normalized", "normalize", "embedding_type", "instruction"),
    plain("add_special_tokens", "truncate_prompt_tokens", "priority", "request_id", "keep_alive", "options"),
    {name: _COMPATIBLE[name] for name in ("models", "provider", "fallbacks", "extra_headers", "extra_query")},
    {name: _COMPATIBLE[name] for name in ("api_base", "api_key", "base_url", "lora_path", "chat_template")},
)


def _with_extra(body: Fields) -> Fields:
    extra = Field(Effect.PRICE, covered="judged as if it were merged into the body", inside=merged(body))
    return Fields(body.rows, {"extra_body": extra})


_COMPACTED = Fields(
    _RESPONSES.rows,
    covered(Effect.CONTEXT, "the model's longest output is held", "max_output_tokens"),
    refused(Effect.PRICE, "a compaction is answered whole", "stream", allowed=(False,)),
)
"""OpenAI, "Compact a response", takes fewer fields than Responses; Codex also sends tools, reasoning and text."""

CHAT = "chat/completions"
RESPONSES = "responses"
COMPACTION = "responses/compact"
EMBEDDINGS = "embeddings"
BODIES = {
    CHAT: _with_extra(_CHAT),
    RESPONSES: _with_extra(_RESPONSES),
    COMPACTION: _with_extra(_COMPACTED),
    EMBEDDINGS: _with_extra(_EMBEDDINGS),
}
"""The body of each endpoint."""

# -- parts ------------------------------------------------------------------------------------------------------

BREAKPOINT = Fields(_BREAKPOINT.rows, refused(Effect.STATE, STORED, "comparison_response_id"))
"""`prompt_cache_breakpoint` of a part."""

MESSAGE = Fields(
    plain("name", "tool_calls", "tool_call_id", "refusal", "function_call", "reasoning", "reasoning_content"),
    covered(Effect.CONTEXT, "walked, part by part", "role", "content"),
    refused(Effect.STATE, "it refers to audio kept at the provider; send the text", "audio"),
)
"""A message of a chat."""

ITEM = Fields(
    plain("id", "status", "name", "arguments", "input", "call_id", "summary", "phase", "action", "namespace", "async"),
    covered(Effect.CONTEXT, "walked", "type", "role", "content", "output", "tools", "encrypted_content"),
    covered(Effect.STATE, "`type: local` alone", "environment"),
)
"""An item of a response's input."""

PART = Fields(
    plain("text", "detail"),
    covered(Effect.CONTEXT, "walked", "type", "image_url", "file", "input_audio", "file_data", "file_url"),
    refused(Effect.STATE, "uploaded files are shared by everybody behind this gateway; send the content", "file_id"),
)
"""A part of a message."""

PICTURE = Fields(covered(Effect.CONTEXT, "walked", "url", "detail"))
"""`image_url` of a part."""

# -- headers ----------------------------------------------------------------------------------------------------

BETAS = {
    **plain("responses=experimental"),
    **covered(
        Effect.STATE,
        "for endpoints that this gateway does not have",
        *("assistants=v1", "assistants=v2", "realtime=v1", "chatkit_beta=v1", "agents=v1", "responses_multi_agent=v1"),
        "responses_websockets",
    ),
}
"""Values of the header `OpenAI-Beta`: those of OpenAI's SDK, and what Codex sends; a date at the end is left away."""

HEADERS = {
    **covered(Effect.STATE, "value by value", "openai-beta"),
    **plain("x-openai-internal-codex-responses-lite"),
    **dropped(
        Effect.STATE,
        "the account is chosen by your API key",
        *("openai-organization", "openai-project"),
    ),
}
"""Headers of OpenAI's own; Codex says by the second that its tools and instructions stand in the input."""
