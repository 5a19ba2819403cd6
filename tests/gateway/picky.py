"""A provider that refuses some requests and answers the others, in each dialect, whole and streamed."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Refusing = Callable[[Body], Any]
"""What a provider answers a request with that it refuses, or None."""

ANSWERS: dict[str, Body] = {
    "chat": {
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    },
    "responses": {
        "id": "x",
        "object": "response",
        "status": "completed",
        "output": [],
        "usage": {"input_tokens": 10, "output_tokens": 2},
    },
    "messages": {
        "id": "x",
        "type": "message",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 2},
    },
    "generate": {
        "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 2},
    },
}


LISTINGS: dict[str, Body] = {
    "chat": {"object": "list", "data": [{"id": "gpt-listed"}, {"id": "gpt-5"}, {"id": "gpt-4o-mini"}]},
    "messages": {"data": [{"id": "claude-listed", "type": "model"}], "has_more": False},
    "generate": {"models": [{"name": "models/gemini-listed"}]},
}


def events_of(kind: str) -> list[Body]:
    """Return a stream's events."""
    answer = ANSWERS[kind]
    if kind == "chat":
        text = {"id": "x", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
        return [text, {"id": "x", "choices": [], "usage": answer["usage"]}]
    if kind == "responses":
        return [{"type": "response.completed", "response": answer}]
    if kind == "messages":
        start = {"type": "message_start", "message": {"id": "x", "usage": answer["usage"]}}
        delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": answer["usage"]}
        return [start, delta, {"type": "message_stop"}]
    return [answer]


@dataclass
class Picky:
    """A provider that refuses some requests.

    Args:
        url: its address.
        refuse: which, and how.
        status: with which it refuses.
        listing_status: with which its list of models is answered.
        as_event: whether it refuses in a stream of status 200.
        absent: ends of paths that it does not have.
        listing: of models; that of its kind unless said.
        output_tokens: that chats and responses report.
        padding: bytes of space before every answer.
        bodies: of the requests that came.
    """

    url: str
    refuse: Refusing
    status: int = 400
    listing_status: int = 200
    as_event: bool = False
    absent: tuple[str, ...] = ()
    listing: Any = None
    output_tokens: int = 2
    padding: int = 0
    bodies: list[Body] = field(default_factory=list)


@contextlib.contextmanager
def picky(refuse: Refusing, kind: str = "chat") -> Iterator[Picky]:
    """Run a provider that answers what it does not refuse."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path.endswith(upstream.absent or "?"):
                self.reply(404, "application/json", b'{"detail":"Not Found"}')
                return
            upstream.bodies.append(body)
            error = upstream.refuse(body)
            if error is not None and upstream.as_event:
                self.reply(200, "text/event-stream", b"data: %s\n\n" % json.dumps(error).encode())
                return
            if error is not None:
                self.reply(upstream.status, "application/json", json.dumps(error).encode())
                return
            asked = "responses" if self.path.endswith("/responses") else kind
            if body.get("stream") or "stream" in self.path:
                lines = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events_of(asked))
                self.reply(200, "text/event-stream", lines + (b"data: [DONE]\n\n" if asked == "chat" else b""))
            else:
                self.reply(200, "application/json", json.dumps(ANSWERS[asked]).encode())

        def do_GET(self) -> None:
            self.reply(
                upstream.listing_status, "application/json", json.dumps(upstream.listing or LISTINGS[kind]).encode()
            )

        def reply(self, status: int, content_type: str, body: bytes) -> None:
            for name in (b"completion_tokens", b"output_tokens"):
                body = body.replace(b'"%s": 2' % name, b'"%s": %d' % (name, upstream.output_tokens))
            body = b" " * upstream.padding + body
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    upstream = Picky(f"http://127.0.0.1:{server.server_port}", refuse)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def openai(message: str, **names: Any) -> Body:
    """Return an error in OpenAI's envelope."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **names}}


def refusing(*names: str) -> Refusing:
    """Return a provider that does not know these fields, and says so of the first one that it finds, as OpenAI does."""

    def refuse(body: Body) -> Any:
        found = next((name for name in names if name in body), None)
        return openai(f"Unrecognized request argument supplied: {found}") if found else None

    return refuse
