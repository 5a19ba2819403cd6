"""The dialects that providers speak beside that of their preset: `--preset deepseek --dialect anthropic`. Data."""

from dataclasses import dataclass, replace

from toolkit.core.dialect import Dialect
from toolkit.core.upstream_traits import CredentialHeader, UpstreamTraits
from toolkit.providers.preset import Part, Preset, UsageAt

_MESSAGES = ("messages",)
_WITH_COUNT = ("messages", "messages/count_tokens")
_CHAT = ("chat/completions",)


@dataclass(frozen=True, slots=True)
class OtherDialect:
    """What is different where a provider is asked in another dialect; the rest is as its preset has it.

    Args:
        dialect: that it speaks there.
        base_url, endpoints, source: as of a preset.
        credential_header: which header shows our credential there.
        note: what an operator should know.
    """

    dialect: Dialect
    base_url: str
    endpoints: tuple[str, ...]
    source: str
    credential_header: CredentialHeader = CredentialHeader.USUAL
    note: str = ""

    def of(self, preset: Preset) -> Preset:
        """Return the preset as it is in this dialect."""
        ends = {Dialect.OPENAI: UsageAt.ASKED, Dialect.ANTHROPIC: UsageAt.BOTH_ENDS, Dialect.GEMINI: UsageAt.EACH}
        return replace(
            preset,
            dialect=self.dialect,
            base_url=self.base_url,
            endpoints=self.endpoints,
            source=self.source,
            traits=UpstreamTraits(on_leave=preset.traits.on_leave, credential_header=self.credential_header),
            usage_at=ends[self.dialect],
            cached=Part.NOT_SAID,
            reasoning=Part.NOT_SAID,
            note=self.note,
        )


def _messages(
    base_url: str,
    source: str,
    *,
    endpoints: tuple[str, ...] = _MESSAGES,
    header: CredentialHeader = CredentialHeader.USUAL,
    note: str = "",
) -> OtherDialect:
    return OtherDialect(Dialect.ANTHROPIC, base_url, endpoints, source, header, note)


OTHER_DIALECTS: dict[str, OtherDialect] = {
    "anthropic": OtherDialect(
        Dialect.OPENAI,
        "https://api.anthropic.com/v1",
        _CHAT,
        "Anthropic, “OpenAI SDK compatibility”",
        CredentialHeader.BEARER,
        "Anthropic calls it a layer for tests and comparisons; it caches no prompts.",
    ),
    "google": OtherDialect(
        Dialect.OPENAI,
        "https://generativelanguage.googleapis.com/v1beta/openai",
        _CHAT,
        "Google, “OpenAI compatibility”",
        CredentialHeader.BEARER,
        "Its completion does not hold the thoughts; the total does.",
    ),
    "vertex": OtherDialect(
        Dialect.GEMINI,
        "https://{location}-aiplatform.googleapis.com/v1/projects/{project}/locations/{location}/publishers/google",
        ("generateContent", "streamGenerateContent", "countTokens"),
        "Google Cloud, “REST reference” of generative AI on Vertex AI",
        CredentialHeader.BEARER,
        "Its credential is an access token that lives an hour, not an API key.",
    ),
    "openrouter": _messages(
        "https://openrouter.ai/api",
        "unverified: its Python SDK has messages of its presets alone; as users set Claude Code",
        header=CredentialHeader.BEARER,
    ),
    "deepseek": _messages(
        "https://api.deepseek.com/anthropic",
        "DeepSeek, “Using the Anthropic API”",
        note="Names of models that begin with claude are served by models of DeepSeek's.",
    ),
    "moonshot": _messages(
        "https://api.moonshot.ai/anthropic",
        "unverified: Moonshot's page was not found; as users set Claude Code",
        header=CredentialHeader.BEARER,
    ),
    "qwen": _messages(
        "https://dashscope-intl.aliyuncs.com/apps/anthropic",
        "Alibaba Cloud, “Anthropic-compatible Messages” of Model Studio",
        note="Each region has an address of its own, some with the workspace's id in it; give yours with `--base-url`.",
    ),
    "fireworks": _messages("https://api.fireworks.ai/inference", "Fireworks, “Anthropic compatibility”"),
    "vllm": _messages(
        "http://127.0.0.1:8000",
        "vLLM, “Claude Code”, and its router of the Messages API",
        endpoints=_WITH_COUNT,
        header=CredentialHeader.BEARER,
    ),
    "sglang": _messages(
        "http://127.0.0.1:30000",
        "SGLang, its entry points of the Messages API",
        endpoints=_WITH_COUNT,
        header=CredentialHeader.BEARER,
    ),
    "llama.cpp": _messages(
        "http://127.0.0.1:8080", "llama.cpp, “LLaMA.cpp HTTP server”, and its check of keys", endpoints=_WITH_COUNT
    ),
    "ollama": _messages(
        "http://127.0.0.1:11434",
        "Ollama, “Anthropic compatibility”",
        note="It counts no tokens ahead, forces no tool, and caches no prompts.",
    ),
    "lm-studio": _messages("http://127.0.0.1:1234", "LM Studio, “Anthropic compatibility endpoints”"),
    "litellm": _messages("http://127.0.0.1:4000", "LiteLLM, “/v1/messages”"),
}
"""By the preset's name. A provider has one dialect more at the most."""
