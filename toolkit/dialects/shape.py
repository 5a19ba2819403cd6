"""What billing policy needs to know of a request and of a model, whatever the dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from toolkit.dialects.body import unsupported
from toolkit.dialects.fields import AUDIO
from toolkit.dialects.media import Kind, Medium, data_url, kind_of, read_blob

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
        text_bytes: bytes of the body without inline media; an upper bound of its text's tokens.
        messages: messages, contents or input items, the system prompt included.
        tools: tool definitions, wherever in the body they stand.
        media: pictures, documents and recordings, and how many of each there are.
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
        long_cache: the request asks for a cache that lives an hour.
        may_be_cut: whether its clients take an answer that ends at its output bound for an answer; those of Responses
            take it for a broken stream, and ask again.
        compacts: whether the answer is a summary of the context, as long as the model makes it: no bound of the request
            is known to hold for it.
        left_out: tools that are offered, have no price here, and do not go on; and what such tools did earlier, of
            which only the text goes on.
        unknown: paths of fields that no table has, in the order in which they stand; see `fields`.
        standard_tier: the `service_tier` that asks for the tier that is priced; empty where the request names one, or
            cannot.
        reasoning: whether reasoning is asked for, or that it be not shown; None where the request says neither.
    """

    endpoint: str
    model: str
    stream: bool
    free: bool
    text_bytes: int
    messages: int
    tools: int
    media: Mapping[Medium, int]
    whole_context: bool
    choices: int
    output_bound: int | None
    output: bool
    usage_asked: bool
    inputs: int = 1
    longest_input: int = 0
    beside: int = 0
    window: Window | None = None
    long_cache: bool = False
    may_be_cut: bool = True
    compacts: bool = False
    left_out: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    standard_tier: str = ""
    reasoning: bool | None = None


MOST_MEDIA = 1_024
"""Different media of one request that are counted one by one; the others count as the largest of their kind."""

MOST_SMALL_BLOBS = 256
"""Blobs of one request whose headers are read, and one more for each 16 kB of them: many tiny ones would cost more to
read than they are worth, and count as the largest."""

LONGEST_DETAIL = 16
"""Of the words that say how closely a medium is to be looked at."""


@dataclass(slots=True)
class Tally:
    """What a walk over a request body has counted so far.

    Args:
        media_bytes: length of inline media, which are not billed by their length.
        blobs: inline media.
        messages: as in `Shape`; so are tools, media, whole_context and long_cache.
        compacts: as in `Shape`.
    """

    media_bytes: int = 0
    blobs: int = 0
    messages: int = 0
    tools: int = 0
    media: dict[Medium, int] = field(default_factory=dict)
    whole_context: bool = False
    long_cache: bool = False
    compacts: bool = False

    def add(self, medium: Medium) -> None:
        """Count one medium."""
        if medium not in self.media and len(self.media) >= MOST_MEDIA:
            medium = Medium(medium.kind, hidden=True)
        self.media[medium] = self.media.get(medium, 0) + 1

    def blob(
        self,
        media_type: str,
        text: str,
        start: int = 0,
        *,
        detail: object = None,
        frames: int = 1_000,
        url_safe: bool = False,
    ) -> Medium:
        """Count one inline blob, and return what it is.

        A picture is held by the piece if it is declared as one and its bytes are of no other kind; whatever else there
        is holds the whole context window, since its header may hide how much it is.

        Args:
            media_type: as declared, or empty.
            text: base64 from `start` on; so is url_safe as `media.read_blob` takes it.
            detail: the request's word for how closely it is to be looked at.
            frames: as in `Medium`.
        """
        self.media_bytes += len(text) - start
        self.blobs += 1
        if self.blobs <= MOST_SMALL_BLOBS + (self.media_bytes >> 14):
            medium = read_blob(media_type, text, start, url_safe=url_safe)
        else:
            medium = Medium(kind_of(media_type.lower()), hidden=True)
        if medium.kind is not Kind.PICTURE or not media_type.lower().startswith("image/"):
            self.whole_context = True
        self.add(medium._replace(detail=_detail(detail), frames=frames))
        return medium

    def by_url(self, kind: Kind, detail: object = None) -> None:
        """Count a medium that only the provider reads."""
        self.whole_context = True
        self.add(Medium(kind, by_url=True, detail=_detail(detail)))

    def address(self, kind: Kind, url: str, detail: object = None) -> Medium | None:
        """Count a medium that is given as a `data:` URL, or by an address; return what it is, if that can be seen."""
        found = data_url(url)
        if found is None:
            self.by_url(kind, detail)
            return None
        media_type, start = found
        return self.blob(media_type, url, start, detail=detail)


def refuse_sound(medium: Medium | None, where: str) -> None:
    """Refuse a recording, by its own bytes too: a sound that is sent under another name is a sound.

    Raises:
        Refusal: unsupported_feature; it is sound, or a video that has some or may have.
    """
    if medium is None or medium.kind not in (Kind.AUDIO, Kind.VIDEO) or medium.sound is False:
        return
    if medium.kind is Kind.AUDIO:
        raise unsupported(where, f"{AUDIO}; send a transcript")
    seen = "this video has a track of sound" if medium.sound else "whether this video has sound cannot be told here"
    raise unsupported(where, f"{seen}, and {AUDIO}; send it without a track of sound, as MP4, QuickTime or WebM")


def _detail(word: object) -> str:
    """Return a word that says how closely to look, as a table may know it; empty if there is none."""
    if word is None:
        return ""
    return word if isinstance(word, str) and len(word) <= LONGEST_DETAIL else "?"


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
