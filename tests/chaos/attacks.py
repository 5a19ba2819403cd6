"""Requests that nobody should send, drawn at random: heads, paths and bodies. Pure."""

import json
import random
import string
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

from tests.chaos.liar import HONEST

PATHS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "messages",
    "/anthropic/v1/messages": "messages",
    "/v1beta/models/fuzz-gemini:generateContent": "gemini",
    "/v1beta/models/fuzz-gemini:streamGenerateContent?alt=sse": "gemini",
    "/gemini/v1beta/models/fuzz-gemini:streamGenerateContent": "gemini",
    "/v1beta/models/fuzz-gemini:countTokens": "gemini",
}
MODELS = {"chat": "fuzz-openai", "responses": "fuzz-openai", "embeddings": "fuzz-openai", "messages": "fuzz-anthropic"}

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**400, "", "x", "\ud800", "\0", "\u202e", [], {}, [[]], {"": {}}),
    *(float(10**15), "x" * 70_000, ["x"] * 3_000, {str(n): n for n in range(500)}, "data:image/png;base64,AAAA"),
    *({"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "file", "file": {"file_data": "AAAA"}}),
    *(
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "web_search"},
        "../../etc/passwd",
        "sk-" + "A" * 49,
    ),
)


class Attack(NamedTuple):
    """One connection's worth of bytes.

    Args:
        kind: for the figures.
        data: what is sent.
        whole: whether it holds a whole request, which must be answered.
        leave: bytes of the answer after which the caller hangs up; None is at its end.
    """

    kind: str
    data: bytes
    whole: bool = False
    leave: int | None = None


class Attacker:
    """Draws attacks.

    Args:
        seed: of what is drawn.
        secrets: of keys with money, of keys without, and of nobody.
    """

    def __init__(self, seed: int, secrets: list[str]) -> None:
        self._draw = random.Random(seed)
        self._secrets = secrets

    def attack(self) -> Attack:
        """Return some attack."""
        ways: list[Callable[[], Attack]] = [self._body] * 5 + [self._leaver] * 2 + [self._head] * 3
        ways += [self._path, self._large, self._cut]
        return self._draw.choice(ways)()

    # -- whole requests -----------------------------------------------------------------------------------------------

    def _body(self) -> Attack:
        path, form = self._draw.choice(list(PATHS.items()))
        body = self._spoilt(self._valid(form))
        text = json.dumps(body).encode()
        if self._draw.random() < 0.2:
            text = self._flipped(text)
        return Attack("body", self._request(path, text), whole=True)

    def _leaver(self) -> Attack:
        path, form = self._draw.choice(list(PATHS.items()))
        body = self._valid(form) | ({} if form == "gemini" else {"stream": True})
        leave = self._draw.choice([0, 1, 200, 600])
        return Attack("leaver", self._request(path, json.dumps(body).encode()), leave=leave)

    def _large(self) -> Attack:
        path, form = self._draw.choice(list(PATHS.items()))
        size = self._draw.choice([300_000, 1_000_000, 4_000_000])
        odd = [
            b'{"a":' + b"[" * size,
            b'{"a":[' + b"1," * (size // 2) + b"1]}",
            b'{"a":[' + b"{}," * (size // 3) + b"{}]}",
            b'{"model":"' + b"x" * size + b'"}',
            b"{" + b'"a":1,' * (size // 6) + b'"a":1}',
            b"{" + b",".join(b'"%x":1' % n for n in range(size // 10)) + b"}",
            json.dumps(self._valid(form) | {"user": "x" * size}).encode(),
            b'"' * size,
        ]
        return Attack("large body", self._request(path, self._draw.choice(odd)), whole=True)

    def _path(self) -> Attack:
        draw = self._draw
        odd = [
            "/v1" * draw.choice([1, 100, 2_000, 20_000]),
            "/" * draw.choice([1, 7_000, 9_000]),
            "/v1/models/" + "".join(draw.choice("%2f.:\\\x7fé@?#") for _ in range(draw.choice([3, 300]))),
            "/v1/chat/completions" + draw.choice(["/", "//", "?", "%00", "%0d%0aX: y", "#x", ";a=b"]),
            "/v1/models?key=" + draw.choice(self._secrets),
            draw.choice(
                ["*", "http://x/v1/models", "//x/v1/models", "/../v1/models", "/v1/./models", "/%76%31/models"]
            ),
        ]
        method = draw.choice(["GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "CONNECT", "get", "M-SEARCH"])
        return Attack("path", self._request(draw.choice(odd), b"", method), whole=True)

    # -- bytes that may be no request ---------------------------------------------------------------------------------

    def _head(self) -> Attack:
        draw = self._draw
        path, form = draw.choice(list(PATHS.items()))
        data = self._request(path, json.dumps(self._valid(form)).encode())
        lines = data.split(b"\r\n")
        odd: list[bytes] = [
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding : chunked",
            b"Upgrade: h2c",
            b"Connection: Upgrade\r\nUpgrade: websocket",
            b"Expect: 100-continue",
            b"X: " + b"y" * draw.choice([100, 70_000]),
            b"Content-Encoding: " + draw.choice([b"gzip", b"br", b"\xff", b"identity"]),
            b"X-Keydesk-Tags: " + draw.randbytes(20).replace(b"\n", b""),
            b"\0: \0",
            b" folded: yes",
            b"Authorization: Bearer " + draw.choice(self._secrets).encode(),
            b"anthropic-beta: " + b"a," * 500,
        ]
        for _ in range(draw.choice([1, 1, 3])):
            lines.insert(draw.randrange(len(lines)), draw.choice(odd))
        data = b"\r\n".join(lines)
        if draw.random() < 0.3:
            data = self._flipped(data)
        if draw.random() < 0.1:
            data = data.replace(b"\r\n", b"\n")
        if draw.random() < 0.1:
            data += data
        return Attack("head", data)

    def _cut(self) -> Attack:
        path, form = self._draw.choice(list(PATHS.items()))
        data = self._request(path, json.dumps(self._valid(form)).encode())
        return Attack("cut off", data[: self._draw.randrange(len(data))])

    # -- parts --------------------------------------------------------------------------------------------------------

    def _request(self, path: str, body: bytes, method: str = "POST") -> bytes:
        secret = self._draw.choice(self._secrets)
        credential = self._draw.choice(["Authorization: Bearer ", "x-api-key: ", "x-goog-api-key: "])
        head = [f"{method} {path} HTTP/1.1", "Host: x", f"{credential}{secret}", "Content-Type: application/json"]
        head += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        return "\r\n".join(head).encode("utf-8", "surrogatepass") + body

    def _valid(self, form: str) -> dict[str, Any]:
        text = {"role": "user", "content": "Say something."}
        forms: dict[str, dict[str, Any]] = {
            "chat": {"messages": [text], "max_tokens": 50, "tools": [{"type": "function", "function": {"name": "f"}}]},
            "responses": {"input": [text], "max_output_tokens": 50, "reasoning": {"effort": "low"}},
            "embeddings": {"input": ["a", "b"]},
            "messages": {"messages": [text], "max_tokens": 50, "system": [{"type": "text", "text": "Be kind."}]},
            "gemini": {"contents": [{"parts": [{"text": "Say."}]}], "generationConfig": {"maxOutputTokens": 50}},
        }
        model = {} if form == "gemini" else {"model": MODELS[form]}
        stream = {"stream": True} if form not in {"gemini", "embeddings"} and self._draw.random() < 0.4 else {}
        return json.loads(json.dumps(model | forms[form] | stream))  # type: ignore[no-any-return]  # a deep copy

    def _spoilt(self, value: Any) -> Any:
        """Return a body in which some values are others, or names are new."""
        for _ in range(self._draw.choice([0, 1, 1, 2, 5])):
            place = value
            while isinstance(place, dict | list) and place:
                name: Any = self._draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
                if self._draw.random() < 0.4 or not isinstance(place[name], dict | list):
                    place[name] = deepcopy(self._draw.choice(ODD_VALUES))
                    if isinstance(place, dict) and self._draw.random() < 0.3:
                        place["".join(self._draw.choice(string.printable) for _ in range(5))] = 1
                    break
                place = place[name]
        return value

    def _flipped(self, data: bytes) -> bytes:
        flipped = bytearray(data)
        for _ in range(self._draw.choice([1, 3, 20])):
            flipped[self._draw.randrange(len(flipped))] = self._draw.randrange(256)
        return bytes(flipped)


def neighbour(secret: str) -> bytes:
    """Return the request of a caller who does nothing wrong, and whose provider is honest."""
    body = {"model": MODELS["chat"], "messages": [{"role": "user", "content": HONEST.decode()}], "max_tokens": 50}
    text = json.dumps(body).encode()
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {secret}"]
    head += ["Content-Type: application/json", f"Content-Length: {len(text)}", "Connection: close", "", ""]
    return "\r\n".join(head).encode() + text
