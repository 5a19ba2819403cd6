"""What billing policy needs to know of a request and of a model, whatever the dialect."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Dialect(StrEnum):
    """Whose API a path, a body and an answer follow."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


FREE_ENDPOINTS = frozenset({"messages/count_tokens", "countTokens"})
"""Providers count tokens for nothing; Anthropic, "Token counting"; Google, "Count tokens"."""

EMBEDDING_ENDPOINTS = frozenset({"embeddings", "embedContent", "batchEmbedContents"})
"""Their answers have no output tokens, and each of their inputs has the model's context window to itself."""


class Window(NamedTuple):
    """A context window that a request asks for, which may be larger than the one that the model is known with.

    Args:
        tokens: of input.
        asked_by: the field or header value that asks for it.
    """

    tokens: int
    asked_by: str


@dataclass(slots=True)  # not frozen: that would take three times as long to make, for every call
class Shape:
    """The facts of one request that its price can depend on.

    Args:
        endpoint: the path's last part in the dialect, e.g. `chat/completions` or `streamGenerateContent`.
        model: the public model id that the caller named.
        stream: whether the answer is asked for as a stream.
        free: the provider charges nothing for this endpoint (token counting).
        text_bytes: bytes of the body without inline image data; an upper bound of its text's tokens.
        messages: messages, contents or input items, the system prompt included.
        tools: tool definitions, wherever in the body they stand.
        images: image parts.
        whole_context: a part whose tokens the body's size does not bound (a document, a URL, audio,
            video) is present, so the input counts as the model's whole context window.
        choices: answers asked for at once.
        output_bound: the caller's bound on output tokens of one choice; None if there is none.
        output: whether output tokens can be charged; not for embeddings and token counting.
        usage_asked: whether the stream carries usage without our asking for it.
        inputs: inputs that have a context window each; 1 but for embeddings.
        longest_input: bytes of the longest of them; 0 where there is but one, which `text_bytes` says.
        beside: output tokens of one choice that are asked for beside its bound, by providers that count thinking apart.
        window: the context window that the request asks for, where it does.
        unknown: paths of fields that no table has, in the order in which they stand; see `fields`.
    """

    endpoint: str
    model: str
    stream: bool
    free: bool
    text_bytes: int
    messages: int
    tools: int
    images: int
    whole_context: bool
    choices: int
    output_bound: int | None
    output: bool
    usage_asked: bool
    inputs: int = 1
    longest_input: int = 0
    beside: int = 0
    window: Window | None = None
    unknown: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """What a walk over a request body has counted so far.

    Args:
        media_bytes: length of inline image data, which is billed by picture and not by length.
        messages: as in `Shape`; so are tools, images and whole_context.
    """

    media_bytes: int = 0
    messages: int = 0
    tools: int = 0
    images: int = 0
    whole_context: bool = False

    def media(self, media_type: str, data: str) -> None:
        """Count one inline blob: a picture by the piece, anything else as a whole context window."""
        if media_type.startswith("image/"):
            self.images += 1
            self.media_bytes += len(data)
        else:
            self.whole_context = True

    def image_url(self, url: str) -> None:
        """Count a picture given as a `data:` URL, or by an address that only the provider reads."""
        head = url[:64].lower()
        if head.startswith("data:"):
            self.media(head[5:], url)
        else:
            self.images += 1
            self.whole_context = True


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as callers see it in a listing.

    Args:
        id: the public id.
        created_at: when the model was added here, UTC.
        context_window: tokens of input; None if not known.
        max_output: the most output tokens of one answer; 0 for an embedding model, None if not known.
        display_name: for people.
        owned_by: the organisation or upstream that serves it.
    """

    id: str
    created_at: datetime
    context_window: int | None
    max_output: int | None
    display_name: str
    owned_by: str
