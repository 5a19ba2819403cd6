"""A request to the demo upstream and its answer, in words that belong to no dialect."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.demo import text

Json = dict[str, Any]

MESSAGE_TOKENS = 3
"""Overhead counted for each message, as roles and separators are tokens too."""

MEDIA_TOKENS = 85
"""Counted for an image, a document or a recording, whatever its size."""

EFFORT_TOKENS = {"minimal": 16, "low": 32, "medium": 64, "high": 128, "xhigh": 192, "max": 256}
"""Reasoning tokens by the effort that was asked for."""


class BadRequest(ValueError):
    """The request cannot be answered; the message says which field is at fault."""


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the prompt: its text, its tokens, and the life of the cache that ends with it, if one does."""

    text: str
    tokens: int
    ttl: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """What the model may call.

    Args:
        name: as the request has it.
        schema: that of its arguments.
        namespace: the group of tools that it is one of, if it is.
        freeform: it is called with a text and not with JSON, as OpenAI's custom tools are.
    """

    name: str
    schema: Any
    namespace: str | None = None
    freeform: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What reached the model: words of the user, or (`result`) what a tool answered."""

    text: str
    result: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Args:
        model: as the caller named it.
        body: the request itself, for what only its dialect knows.
        prompt: all that counts as input, in the order in which providers cache it.
        turns: what users and tools said, oldest first; a message's words come before its results.
        stream: the answer is wanted event by event.
        limit: output tokens a choice may have at most, reasoning included.
        choices: how many answers are wanted; 0 for calls that generate nothing.
        tools: what may be called; empty when calling is switched off.
        must_call: name of the tool that must be called, "" for any, None for no such demand.
        parallel: more than one tool may be called.
        reasoning: reasoning tokens wanted.
        schema: the answer is to be JSON that fits it.
        framed: events are sent as server-sent events; Gemini can also send one JSON array.
    """

    model: str
    body: Json
    prompt: tuple[Block, ...]
    turns: tuple[Turn, ...]
    stream: bool = False
    limit: int | None = None
    choices: int = 1
    tools: tuple[Tool, ...] = ()
    must_call: str | None = None
    parallel: bool = True
    reasoning: int = 0
    schema: Any = None
    framed: bool = True

    @property
    def last_user_text(self) -> str:
        """Where directives are read from, and what is answered."""
        return next((turn.text for turn in reversed(self.turns) if not turn.result), "")

    @property
    def answers_tool(self) -> bool:
        """Whether a tool answered last, so that it has been used already."""
        return bool(self.turns) and self.turns[-1].result


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model makes, with its arguments as JSON, or as the text that a freeform tool takes."""

    id: str
    tool: Tool
    arguments: str

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer; its tokens are those of what is in it."""

    reasoning: str
    text: str
    calls: tuple[ToolCall, ...]
    finish: Literal["stop", "length", "tool_calls"]

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the reasoning, shown or not."""
        return text.count(self.reasoning)

    @property
    def visible_tokens(self) -> int:
        """Tokens of text and tool calls."""
        return text.count(self.text) + sum(text.count(one.name) + text.count(one.arguments) for one in self.calls)


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens to report. `input` is the field of that name: with all of the cache, but without it for Anthropic."""

    input: int
    cached: int
    cache_write_5m: int
    cache_write_1h: int
    visible: int
    reasoning: int

    @property
    def output(self) -> int:
        """Visible and reasoning tokens together."""
        return self.visible + self.reasoning


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back; `counts` is None when the upstream is told to report nothing."""

    choices: tuple[Choice, ...]
    counts: Counts | None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True, slots=True)
class Event:
    """Bytes of a stream. Events with tokens are the chunks that directives count; the last ones are terminal."""

    data: bytes
    tokens: int = 0
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one provider is recognised and how it says no.

    Args:
        credentials: request headers that may hold its API key, `authorization` as a bearer token.
        error: status and message to the provider's error body.
        models: what its listing answers.
        headers: what it sends with every answer and no caller of a gateway should see.
        marked_cache: it caches what a request marks, and reports that beside the input; else long beginnings are
            cached by themselves and reported as a part of the input.
    """

    credentials: tuple[str, ...]
    error: Callable[[int, str], Json]
    models: Callable[[], Json]
    headers: dict[str, str]
    marked_cache: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """How one kind of call is answered event by event.

    Args:
        events: the whole answer.
        failure: the bytes that end it in an error, given the number of events before them.
    """

    events: Callable[[Ask, Answer], Iterator[Event]]
    failure: Callable[[Ask, Answer, int], bytes]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one kind of call is read and answered.

    Args:
        read: body and query parameters to the request; raises BadRequest.
        whole: the answer as one JSON value.
        usage: the usage object that the answer reports, None when it reports none.
        stream: how it is streamed, for calls that can be.
    """

    read: Callable[[Json], Ask]
    whole: Callable[[Ask, Answer], Any]
    usage: Callable[[Ask, Answer], Json | None]
    stream: Stream | None = None


def dump(value: object) -> str:
    """Write JSON as short as it gets, so that it never has more bytes than the caller's own."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sse(value: object, name: str | None = None) -> bytes:
    """Write a server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {dump(value)}\n\n".encode("utf-8", "replace")


def blocks(content: object, overhead: int = MESSAGE_TOKENS) -> list[Block]:
    """Turn a message's content, in any dialect, into blocks; the first one carries the message's overhead."""
    parts = content if isinstance(content, list) else [] if content is None else [content]
    read = [_block(part) for part in parts] or [Block("", 0)]
    read[0] = Block(read[0].text, read[0].tokens + overhead, read[0].ttl)
    return read


def cache_life(mark: Json) -> str:
    """Return how long what a `cache_control` marks is kept: "1h", or "5m" as by default."""
    return "1h" if mark.get("ttl") == "1h" else "5m"


def _block(part: object) -> Block:
    ttl = None
    if isinstance(part, dict) and isinstance(part.get("cache_control"), dict):
        ttl = cache_life(part["cache_control"])
    shown = part.get("text") if isinstance(part, dict) else part
    if isinstance(shown, str):
        shown = text.without_directives(shown)
        return Block(shown, text.count(shown), ttl)
    if isinstance(part, dict) and _MEDIA.intersection(part):
        return Block(hashlib.blake2b(dump(part).encode("utf-8", "replace")).hexdigest(), MEDIA_TOKENS, ttl)
    shown = dump(part)
    return Block(shown, text.count(shown), ttl)


_MEDIA = frozenset(
    (
        *("image_url", "input_audio", "file", "file_data", "file_id", "file_url"),  # OpenAI
        "source",  # Anthropic
        *("inlineData", "inline_data", "fileData"),  # Gemini, which has file_data too
    )
)


def said(content: object) -> str | None:
    """Return the text of a message's content, or None when it holds none."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None


def whole_number(value: object, name: str, least: int = 1, most: int = 2_000_000) -> int | None:
    """Check an optional whole number of the request.

    Raises:
        BadRequest: it is something else, or out of bounds.
    """
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"{name} must be a whole number from {least} to {most}")
    return value


def records(value: object, name: str) -> list[Json]:
    """Check an optional list of objects of the request.

    Raises:
        BadRequest: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRequest(f"{name} must be a list of objects")
    return value
