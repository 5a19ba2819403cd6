"""A recording: what a provider answers, and what must become of it. README.md says how a file of one is written."""

import json
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PROMPT_BYTES = 8_000
"""Length of each request's body, so that what is estimated of it can be reckoned by hand: 2,000 tokens."""

OUTPUT_BOUND = 2_000
"""Output tokens that each request asks for at most, unless its recording says otherwise."""

PRICES = {"input": 1_000, "cached": 100, "written_5m": 1_250, "written_1h": 2_000, "output": 10_000}
"""Nano-USD a token."""

ORDERS = "[[send {length} bytes in pieces of {piece}]]"
"""What tells the upstream, in a prompt, to send so much of an answer, in such pieces, and to break it off."""

KINDS = {"chat": "openai", "responses": "openai", "messages": "anthropic", "generate": "gemini", "array": "gemini"}
"""Ways to ask, with their dialects; `array` is Gemini's stream as a JSON array."""

WAYS = ("whole", "stream")

_TOP = {"about", "source", "ask", "preset", "request", "model", "upstream", "charged", "answered", "row", *WAYS}
_SENT = {"status", "type", "headers", "body", "lines", "breaks_after", "waits_after", "charged", "answered", "row"}
_CHARGED = {*PRICES, "reasoning", "cost", "source", "doubt", "overrun"}
_ANSWERED = {"status", "body", "without", "then", "instead", "never", "headers"}


@dataclass(frozen=True)
class Sent:
    """What the provider sends.

    Args:
        status, type: of the answer; an empty type is left out.
        headers: further ones.
        body: as it is.
        breaks_after: the connection is closed after this text, though the answer is not at its end.
        waits_after: nothing more is sent after this text, until the other side hangs up; the caller does then.
    """

    status: int
    type: str
    headers: dict[str, str]
    body: bytes
    breaks_after: bytes
    waits_after: bytes

    @property
    def until(self) -> bytes:
        """What of the body is sent."""
        mark = self.breaks_after or self.waits_after
        return self.body[: self.body.index(mark) + len(mark)] if mark else self.body


@dataclass(frozen=True)
class Expected:
    """What must become of it: `charged`, `answered` and `row` as in the file."""

    charged: dict[str, Any]
    answered: dict[str, Any]
    row: dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """One file.

    Args:
        path: of it.
        about: what it shows, in a sentence.
        source: the provider's page that says so.
        ask: one of `KINDS`.
        preset: whose upstream answers, as `toolkit.providers` has it; None for one of which nothing is known.
        request: fields of the request beside the prompt.
        model: options of the model.
        upstream: options of the upstream.
    """

    path: Path
    about: str
    source: str
    ask: str
    preset: str | None = None
    request: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    upstream: dict[str, Any] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path) -> "Recording":
        """Read a file.

        Raises:
            ValueError: it is not written as a recording is.
        """
        table = tomllib.loads(path.read_text())
        _known(path, table, _TOP)
        for way in WAYS:
            if way in table:
                _known(path, table[way], _SENT)
        for part in (table, *(table[way] for way in WAYS if way in table)):
            _known(path, part.get("charged", {}), _CHARGED)
            _known(path, part.get("answered", {}), _ANSWERED)
        if table["ask"] not in KINDS or not any(way in table for way in WAYS):
            raise ValueError(f"{path}: `ask` must be one of {', '.join(KINDS)}, and [whole] or [stream] must be there")
        options = {name: table[name] for name in ("preset", "request", "model", "upstream") if name in table}
        return cls(path, table["about"], table["source"], table["ask"], **options, table=table)

    @property
    def name(self) -> str:
        """Folder and file, such as `deepseek/cache`."""
        return self.path.relative_to(FOLDER).with_suffix("").as_posix()

    @property
    def model_id(self) -> str:
        """The model that answers with this recording."""
        return self.name.replace("/", ".")

    @property
    def ways(self) -> list[str]:
        """The ways that it can be asked for in."""
        return [way for way in WAYS if way in self.table]

    def sent(self, way: str) -> Sent:
        """Return what the provider sends for a way of asking."""
        part = self.table[way]
        array = self.ask == "array" or way == "whole"
        body = part.get("body", "").encode()
        if part.get("lines"):
            body = body.replace(b"\n", part["lines"].encode())
        return Sent(
            part.get("status", 200),
            part.get("type", "application/json" if array else "text/event-stream"),
            part.get("headers", {}),
            body,
            part.get("breaks_after", "").encode(),
            part.get("waits_after", "").encode(),
        )

    def expected(self, way: str) -> Expected:
        """Return what must become of it; what is said of the way goes before what is said of both."""
        part = self.table[way]
        return Expected(
            *(self.table.get(name, {}) | part.get(name, {}) for name in ("charged", "answered", "row")),
        )

    def asked(self, way: str, told: str = "") -> tuple[str, bytes]:
        """Return path and body of the request: a prompt, the recording's fields, `PROMPT_BYTES` in all.

        Args:
            way: one of `WAYS`.
            told: what the prompt begins with: `ORDERS` for the upstream.
        """
        fields: dict[str, Any] = {} if self.ask in ("generate", "array") else {"model": self.model_id}
        stream = way == "stream"
        if self.ask == "chat":
            path = "/v1/chat/completions"
            fields |= {"max_completion_tokens": OUTPUT_BOUND}
            fields |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        elif self.ask == "responses":
            path = "/v1/responses"
            fields |= {"max_output_tokens": OUTPUT_BOUND} | ({"stream": True} if stream else {})
        elif self.ask == "messages":
            path = "/v1/messages"
            fields |= {"max_tokens": OUTPUT_BOUND} | ({"stream": True} if stream else {})
        else:
            path = f"/v1beta/models/{self.model_id}:{'streamGenerateContent' if stream else 'generateContent'}"
            path += "?alt=sse" if stream and self.ask == "generate" else ""
            fields |= {"generationConfig": {"maxOutputTokens": OUTPUT_BOUND}}
        fields |= self.request
        fields = {name: value for name, value in fields.items() if value != "left out"}
        return path, self._body(fields, told, PROMPT_BYTES - len(self._body(fields, told, 0)))

    def _body(self, fields: dict[str, Any], told: str, length: int) -> bytes:
        """Return the request's body with a prompt of some length behind what it begins with."""
        prompt = told + ("Tell me about budgets. " * (length // 20 + 1))[:length]
        if self.ask == "responses":
            said: dict[str, Any] = {"input": prompt}
        elif self.ask in ("generate", "array"):
            said = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
        else:
            said = {"messages": [{"role": "user", "content": prompt}]}
        return json.dumps(said | fields).encode()


def _known(path: Path, part: dict[str, Any], names: set[str]) -> None:
    if unknown := set(part) - names:
        raise ValueError(f"{path}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(names))}")


def recordings() -> list[Recording]:
    """Return all, by name."""
    return [Recording.read(path) for path in sorted(FOLDER.glob("*/*.toml"))]


def reckoned(sum_: str) -> int:
    """Return what a sum such as `2 × 1,000 + 3 × 100 = 2,300` makes.

    Raises:
        ValueError: it makes something else.
    """
    terms, _, result = sum_.replace(",", "").partition("=")
    made = sum(_product(term) for term in terms.split("+"))
    if result and made != int(result):
        raise ValueError(f"{terms} is {made:,}, not {result}")
    return made


def _product(term: str) -> int:
    made = 1
    for factor in re.split("[×x]", term):
        made *= int(factor)
    return made


def table() -> str:
    """Return README.md's table of recordings."""
    lines = ["| recording | shows | source |", "|---|---|---|"]
    lines += [f"| [{one.name}]({one.name}.toml) | {one.about} | {one.source} |" for one in recordings()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
