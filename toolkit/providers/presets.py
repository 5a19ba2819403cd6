"""The table of presets. A fact that no page of the provider's says has its place's usual value."""

from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import CredentialHeader, OnLeave, OutputBound, UpstreamTraits
from toolkit.core.wording import listed
from toolkit.providers.other_dialects import OTHER_DIALECTS
from toolkit.providers.preset import Part, Preset, UsageAt

_CHAT = ("chat/completions",)
_WITH_RESPONSES = ("chat/completions", "responses")
_WITH_EMBEDDINGS = ("chat/completions", "embeddings")
_ALL_OF_OPENAI = ("chat/completions", "responses", "embeddings")

_STOPS = "; OpenRouter, “Streaming”, on who stops"
"""Where it is said what the provider does when a stream is left."""

_LOCAL = "Any value serves as its credential unless the server was started with a key."

_ROWS = (
    Preset(
        "openai",
        "OpenAI",
        Dialect.OPENAI,
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        _ALL_OF_OPENAI,
        "OpenAI, “API reference”, “Priority processing” and “Error codes”",
        traits=UpstreamTraits(pin_tier=True),
        price_list="openai",
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        account_errors=(
            "401",
            "insufficient_quota",
            "billing_hard_limit_reached",
            "unsupported_country_region_territory",
        ),
        unread="our account, a stream that is left",
    ),
    Preset(
        "azure-openai",
        "Azure OpenAI",
        Dialect.OPENAI,
        "https://{resource}.openai.azure.com/openai/v1",
        "AZURE_OPENAI_API_KEY",
        _ALL_OF_OPENAI,
        "Microsoft, “Azure OpenAI REST API reference”, “Content filtering” and “Plan to manage costs”, billing status",
        traits=UpstreamTraits(
            credential_header=CredentialHeader.API_KEY,
            billed_errors="content_filter,408",
        ),
        price_list="azure",
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        account_errors=("401", "DeploymentNotFound"),
        unread="our account, what is billed, a stream that is left",
        note="A model's name there is that of its deployment. The older API has the deployment in the path: "
        "`--base-url https://{resource}.openai.azure.com/openai --api-version 2024-10-21`.",
    ),
    Preset(
        "anthropic",
        "Anthropic",
        Dialect.ANTHROPIC,
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
        ("messages", "messages/count_tokens"),
        "Anthropic, “API overview”, “Service tiers”, “Release notes” of 2 June 2026, and “Errors”",
        traits=UpstreamTraits(refusal_free=True, pin_tier=True),
        price_list="anthropic",
        usage_at=UsageAt.BOTH_ENDS,
        cached=Part.BESIDE,
        reasoning=Part.WITHIN,
        account_errors=("authentication_error", "billing_error", "permission_error"),
        unread="a stream that is left",
    ),
    Preset(
        "google",
        "Google AI Studio",
        Dialect.GEMINI,
        "https://generativelanguage.googleapis.com",
        "GEMINI_API_KEY",
        ("generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"),
        "Google, “Gemini API reference”, “UsageMetadata” and “Troubleshooting guide”" + _STOPS,
        traits=UpstreamTraits(on_leave=OnLeave.READ_ON),
        price_list="google",
        usage_at=UsageAt.EACH,
        cached=Part.WITHIN,
        reasoning=Part.BESIDE,
        account_errors=("API_KEY_INVALID", "BILLING_DISABLED", "SERVICE_DISABLED", "PERMISSION_DENIED"),
        unread="our account, a stream that is left",
    ),
    Preset(
        "vertex",
        "Google Vertex AI, in OpenAI's format",
        Dialect.OPENAI,
        "https://{location}-aiplatform.googleapis.com/v1/projects/{project}/locations/{location}/endpoints/openapi",
        "VERTEX_API_KEY",
        _CHAT,
        "Google Cloud, “Using OpenAI libraries with Vertex AI”, and “API errors”" + _STOPS,
        traits=UpstreamTraits(on_leave=OnLeave.READ_ON),
        price_list="google",
        reasoning=Part.BESIDE,
        account_errors=("401", "403"),
        unread="usage, our account, a stream that is left",
        note="Its credential is an access token that lives an hour, not an API key: the line "
        "`VERTEX_API_KEY!=gcloud auth print-access-token` of the secrets file has the gateway fetch it. A model's "
        "name there begins with its publisher's: `google/gemini-…`.",
    ),
    Preset(
        "bedrock",
        "Amazon Bedrock, in OpenAI's format",
        Dialect.OPENAI,
        "https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        "BEDROCK_API_KEY",
        _WITH_RESPONSES,
        "Amazon, “Responses API” and “Endpoint availability” of Bedrock; “Troubleshooting API error codes”" + _STOPS,
        traits=UpstreamTraits(on_leave=OnLeave.READ_ON),
        price_list="aws",
        account_errors=("401", "403", "AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException"),
        unread="a chat's fields and usage, our account, a stream that is left",
        note="Its credential is a Bedrock API key, which Amazon's own tools call AWS_BEARER_TOKEN_BEDROCK.",
    ),
    Preset(
        "openrouter",
        "OpenRouter",
        Dialect.OPENAI,
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        _WITH_RESPONSES,
        "openrouter, OpenRouter's Python SDK, ChatRequest; “Usage accounting”, “Streaming” and “Errors”",
        price_list="openrouter",
        usage_at=UsageAt.LAST,
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        account_errors=("401", "402"),
        unread="our account, a stream's usage",
        note="Whether a stream that is left stops depends on where it is routed; if not, `--on-leave read_on`.",
    ),
    Preset(
        "deepseek",
        "DeepSeek",
        Dialect.OPENAI,
        "https://api.deepseek.com",
        "DEEPSEEK_API_KEY",
        _CHAT,
        "DeepSeek, “Your first API call” and “Error codes”; deepseek-sdk, its fields and usage",
        traits=UpstreamTraits(output_bound=OutputBound.MAX_TOKENS),
        price_list="deepseek",
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        account_errors=("401", "402"),
        unread="reasoning, a stream that is left",
    ),
    Preset(
        "mistral",
        "Mistral",
        Dialect.OPENAI,
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        _WITH_EMBEDDINGS,
        "mistralai, Mistral's Python SDK, ChatCompletionRequest and UsageInfo; “API error codes”" + _STOPS,
        traits=UpstreamTraits(on_leave=OnLeave.READ_ON, output_bound=OutputBound.MAX_TOKENS, add_stream_options=False),
        unknown_fields=UnknownFields.LEAVE_OUT,
        price_list="mistral",
        usage_at=UsageAt.LAST,
        unread="unknown fields, our account, a stream that is left",
    ),
    Preset(
        "groq",
        "Groq",
        Dialect.OPENAI,
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        _WITH_RESPONSES,
        "groq, Groq's Python SDK, chat completions and their usage; “Error codes” and “Model permissions”" + _STOPS,
        traits=UpstreamTraits(on_leave=OnLeave.READ_ON, output_bound=OutputBound.MAX_COMPLETION_TOKENS),
        price_list="groq",
        usage_at=UsageAt.LAST,
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        account_errors=("401", "organization_restricted", "model_permission_blocked_org"),
        unread="our account, a stream that is left",
    ),
    Preset(
        "xai",
        "xAI",
        Dialect.OPENAI,
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        _WITH_RESPONSES,
        "xAI, “REST API reference”, “Reasoning”, “Prompt caching” and “Debugging errors”",
        unread="all: these pages are named from memory",
        price_list="x-ai",
        cached=Part.WITHIN,
        reasoning=Part.BESIDE,
        account_errors=("401", "403"),
    ),
    Preset(
        "moonshot",
        "Moonshot",
        Dialect.OPENAI,
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        _CHAT,
        "Moonshot, “Chat completion”, “Context caching” and “Error reference”",
        price_list="moonshotai",
        usage_at=UsageAt.LAST,
        cached=Part.WITHIN,
        account_errors=("invalid_authentication_error", "exceeded_current_quota_error"),
        other_hosts=("api.moonshot.cn",),
        unread="all but the address and the bound",
        note="Accounts of its Chinese platform are at https://api.moonshot.cn/v1.",
    ),
    Preset(
        "qwen",
        "Alibaba Cloud Model Studio",
        Dialect.OPENAI,
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        _WITH_EMBEDDINGS,
        "Alibaba Cloud, “OpenAI compatible – Chat”, “API compatibility upgrades” of 2 November 2026 and "
        "“Error messages” of Model Studio" + _STOPS,
        # Which of reasoning and answer `max_tokens` bounds depends on the model; the other name always bounds both.
        traits=UpstreamTraits(on_leave=OnLeave.READ_ON, output_bound=OutputBound.MAX_COMPLETION_TOKENS),
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        account_errors=("401", "InvalidApiKey", "Arrearage", "Model.AccessDenied"),
        other_hosts=("dashscope.aliyuncs.com", "dashscope-us.aliyuncs.com", "maas.aliyuncs.com"),
        unread="cached input, reasoning, a stream that is left",
        note="Each region has an address of its own, some with the workspace's id in it; give yours with `--base-url`.",
    ),
    Preset(
        "together",
        "Together",
        Dialect.OPENAI,
        "https://api.together.ai/v1",
        "TOGETHER_API_KEY",
        _WITH_EMBEDDINGS,
        "Together, “OpenAI compatibility”; together, its Python SDK, chat completions; “Error codes”",
        traits=UpstreamTraits(output_bound=OutputBound.MAX_TOKENS),
        price_list="together",
        usage_at=UsageAt.LAST,
        cached=Part.WITHIN,
        account_errors=("401", "402"),
        other_hosts=("api.together.xyz",),
        unread="cached input, our account, a stream that is left",
    ),
    Preset(
        "fireworks",
        "Fireworks",
        Dialect.OPENAI,
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        _ALL_OF_OPENAI,
        "fireworks-ai, Fireworks' Python SDK, chat completions and their usage; “Inference error codes”",
        price_list="fireworks",
        usage_at=UsageAt.LAST,
        cached=Part.WITHIN,
        account_errors=("401", "402", "403"),
        unread="a stream's usage, our account, a stream that is left",
    ),
    Preset(
        "cerebras",
        "Cerebras",
        Dialect.OPENAI,
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        _CHAT,
        "cerebras-cloud-sdk, Cerebras' Python SDK, chat completions and their usage",
        traits=UpstreamTraits(output_bound=OutputBound.MAX_COMPLETION_TOKENS),
        price_list="cerebras",
        usage_at=UsageAt.LAST,
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        account_errors=("401", "402"),
        unread="our account, a stream that is left",
    ),
    Preset(
        "perplexity",
        "Perplexity",
        Dialect.OPENAI,
        "https://api.perplexity.ai",
        "PERPLEXITY_API_KEY",
        _CHAT,
        "perplexityai, Perplexity's Python SDK, chat completions and UsageInfo; “Errors”" + _STOPS,
        traits=UpstreamTraits(on_leave=OnLeave.READ_ON, output_bound=OutputBound.MAX_TOKENS, add_stream_options=False),
        price_list="perplexity",
        usage_at=UsageAt.EACH,
        unread="our account, a stream that is left",
        note="It searches with each call, and bills that beside the tokens; the price book has no price for it.",
    ),
    Preset(
        "vllm",
        "vLLM",
        Dialect.OPENAI,
        "http://127.0.0.1:8000/v1",
        "VLLM_API_KEY",
        _ALL_OF_OPENAI,
        "vLLM, “OpenAI-compatible server”",
        cached=Part.WITHIN,
        unread="all: this page is named from memory",
        note=_LOCAL,
    ),
    Preset(
        "sglang",
        "SGLang",
        Dialect.OPENAI,
        "http://127.0.0.1:30000/v1",
        "SGLANG_API_KEY",
        _WITH_EMBEDDINGS,
        "SGLang, “OpenAI APIs” and “Reasoning parser”",
        unread="all: these pages are named from memory",
        cached=Part.WITHIN,
        reasoning=Part.WITHIN,
        note=_LOCAL,
    ),
    Preset(
        "llama.cpp",
        "llama.cpp",
        Dialect.OPENAI,
        "http://127.0.0.1:8080/v1",
        "LLAMA_API_KEY",
        _ALL_OF_OPENAI,
        "llama.cpp, its server's fields, check of keys and conversion of Responses",
        # Newer builds take the other name, too; this one all do.
        traits=UpstreamTraits(output_bound=OutputBound.MAX_TOKENS),
        unread="cached input, reasoning",
        note=_LOCAL,
    ),
    Preset(
        "ollama",
        "Ollama",
        Dialect.OPENAI,
        "http://127.0.0.1:11434/v1",
        "OLLAMA_API_KEY",
        _ALL_OF_OPENAI,
        "Ollama, “OpenAI compatibility”",
        traits=UpstreamTraits(output_bound=OutputBound.MAX_TOKENS),
        note="A server of your own takes any value as its credential.",
    ),
    Preset(
        "lm-studio",
        "LM Studio",
        Dialect.OPENAI,
        "http://127.0.0.1:1234/v1",
        "LM_STUDIO_API_KEY",
        _ALL_OF_OPENAI,
        "LM Studio, “Chat completions”, its list of fields, and “API changelog”, 0.3.18 and 0.3.29",
        traits=UpstreamTraits(output_bound=OutputBound.MAX_TOKENS),
        note="It takes any value as its credential unless it is told to require one.",
    ),
    Preset(
        "litellm",
        "LiteLLM Proxy",
        Dialect.OPENAI,
        "http://127.0.0.1:4000/v1",
        "LITELLM_API_KEY",
        _ALL_OF_OPENAI,
        "LiteLLM, “Proxy”, quick start, “Input params” and “Budget alerts”",
        account_errors=("401", "budget_exceeded"),
        unread="our account",
        note="What it reports and bills is up to the provider behind it.",
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ROWS}
"""By name, in the order in which they are shown; each in the dialect that its provider is asked in as a rule."""

FORMS: dict[tuple[str, Dialect], Preset] = {
    (form.name, form.dialect): form
    for preset in _ROWS
    for form in (preset, *(other.of(preset) for name, other in OTHER_DIALECTS.items() if name == preset.name))
}
"""Every preset in every dialect that its provider speaks."""


def find(name: str, dialect: Dialect | None = None) -> Preset:
    """Return a preset, in a dialect or in that which its provider is asked in as a rule.

    Raises:
        InvalidInput: there is none of this name, or its provider does not speak that dialect.
    """
    if name not in PRESETS:
        raise InvalidInput(f"There is no preset {name!r}. There are: {', '.join(PRESETS)}.")
    found = known(name, dialect or PRESETS[name].dialect)
    if found is None:
        spoken = listed([form.dialect for form in FORMS.values() if form.name == name])
        raise InvalidInput(
            f"The preset {name} is of the {spoken} dialect, not {dialect}. Leave --preset out, and say what is known "
            "of the upstream by the other options."
        )
    return found


def known(name: str | None, dialect: Dialect) -> Preset | None:
    """Return the preset of this name in a dialect; None if this version knows none."""
    return FORMS.get((name or "", dialect))
