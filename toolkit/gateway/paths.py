"""Which dialect and endpoint a path means. Pure.

OpenAI lives under /v1; Anthropic under /v1 and /anthropic/v1; Gemini under /v1, /v1beta and both below /gemini.
Where today's SDKs meet on one path (GET /v1/models) the caller's headers decide.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for.

    Args:
        dialect: None where the caller's headers decide.
        endpoint: as in `dialects.shape.Shape`, or "models" for listings.
        method: the only method that the path takes.
        model: the model that the path names.
    """

    dialect: Dialect | None
    endpoint: str
    method: str = "POST"
    model: str | None = None


GEMINI_VERBS = frozenset(
    {"generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"}
)
_OPENAI = {
    f"/v1/{endpoint}": Target(Dialect.OPENAI, endpoint) for endpoint in ("chat/completions", "responses", "embeddings")
}
_ANTHROPIC = {
    f"{prefix}/v1/{endpoint}": Target(Dialect.ANTHROPIC, endpoint)
    for prefix in ("", "/anthropic")
    for endpoint in ("messages", "messages/count_tokens")
}
_LISTINGS = {
    "/v1/models": None,
    "/anthropic/v1/models": Dialect.ANTHROPIC,
    "/v1beta/models": Dialect.GEMINI,
    "/gemini/v1/models": Dialect.GEMINI,
    "/gemini/v1beta/models": Dialect.GEMINI,
}
_EXACT = _OPENAI | _ANTHROPIC | {path: Target(dialect, "models", "GET") for path, dialect in _LISTINGS.items()}

PATH_OF = {
    Dialect.OPENAI: "POST /v1/chat/completions (or /v1/responses, /v1/embeddings)",
    Dialect.ANTHROPIC: "POST /v1/messages",
    Dialect.GEMINI: "POST /v1beta/models/{model}:generateContent",
}
"""Where to call a model of each dialect, for the caller who came to another's path."""


LONGEST = 8 * 1024
"""Bytes of a path."""

_LONGEST_HINTED = 256
"""Bytes of a path that could be one of ours with a segment too many or too few."""


def find(path: str) -> Target | None:
    """Return what a path is for, or None if it is not one of ours. `path` is still percent-encoded."""
    target = _EXACT.get(path)
    if target is not None:
        return target
    for prefix, dialect in _LISTINGS.items():
        if not path.startswith(prefix + "/"):
            continue
        name, colon, verb = unquote(path[len(prefix) + 1 :]).rpartition(":")
        if colon and verb in GEMINI_VERBS:
            return Target(Dialect.GEMINI, verb, model=name) if dialect in {None, Dialect.GEMINI} and name else None
        model = unquote(path[len(prefix) + 1 :])
        return Target(dialect, "models", "GET", model) if model else None
    return None


def resolve(method: str, path: str) -> Target:
    """Return what a request is for.

    Raises:
        Refusal: not_found, saying when one /v1 too many or too few is the likely cause; method_not_allowed.
    """
    if len(path) > LONGEST:
        raise Refusal(RefusalType.URI_TOO_LONG, f"The path is too long: at most {LONGEST:,} bytes are read.")
    target = find(path)
    if target is None:
        raise Refusal(RefusalType.NOT_FOUND, f"There is nothing at {_shown(path)}.{_hint(path)}")
    if target.endpoint == "models" and method == "POST" and target.model and ":" in target.model:
        action = _shown(target.model.rpartition(":")[2])
        raise Refusal(
            RefusalType.NOT_FOUND,
            f"There is no action {action!r} of models. There are: {', '.join(sorted(GEMINI_VERBS))}.",
        )
    if method != target.method:
        raise Refusal(
            RefusalType.METHOD_NOT_ALLOWED,
            f"{_shown(path)} takes {target.method}, not {_shown(method)}.",
            headers={"allow": target.method},
        )
    return target


def dialect_of(path: str) -> Dialect | None:
    """Return in whose envelope to answer for a path, ours or not; None where the caller's headers decide."""
    target = find(path)
    if target is not None:
        return target.dialect
    if path.startswith("/anthropic") or path.endswith(("/messages", "/messages/count_tokens")):
        return Dialect.ANTHROPIC
    if path.startswith(("/gemini", "/v1beta")) or path.rpartition(":")[2] in GEMINI_VERBS:
        return Dialect.GEMINI
    return None


def _shown(text: str) -> str:
    return text if len(text) <= 120 and text.isprintable() else text[:120].encode("unicode_escape").decode() + "…"


def _hint(path: str) -> str:
    if len(path) > _LONGEST_HINTED:
        return " It is longer than any path here; docs/gateway.md lists what is offered."
    segments = path.split("/")
    for place, version in enumerate(segments):
        if version not in {"v1", "v1beta"}:
            continue
        shorter = "/".join(segments[:place] + segments[place + 1 :])
        if find(shorter):
            return f" One /{version} too many: the path is {shorter}. Take /{version} off the base URL."
    for prefix in ("", "/anthropic", "/gemini"):
        for version in ("/v1", "/v1beta"):
            longer = f"{prefix}{version}{path.removeprefix(prefix)}" if path.startswith(prefix) else ""
            if longer and find(longer):
                return f" One {version} too few: the path is {longer}. Add {version} to the base URL."
    if segments[1:2] in (["v1"], ["v1beta"]):
        return " The base URL is right, but this is not offered here; docs/gateway.md lists what is."
    return (
        " The base URL is this gateway's address, with /v1 for OpenAI's SDK and without for Anthropic's and Google's."
    )
