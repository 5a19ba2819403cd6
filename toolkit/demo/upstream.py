"""The embedded demo upstream: one local process that answers like OpenAI, Anthropic and Gemini.

    python -m toolkit.demo.upstream --port 9100 --pace 1

Base URLs for the official SDKs are `http://HOST:PORT/openai/v1`, `http://HOST:PORT/anthropic` and
`http://HOST:PORT/gemini`. Any API key is accepted, none is not. Any model name is answered; embeddings, token counts
and model listings too. The same prompt gets the same text, and the tokens reported are those of the text sent.

`use the tool` in the last user message makes the model call the first tool it was given; `tool_choice` does so too. A
coding agent that is told "Replace wrld with world in notes.txt, then run cat notes.txt" does it, by its own tools
(`toolkit.demo.agent`). Where the answer is to fit a JSON schema, it does.

Directives in the last user message change the answer. They are not counted as prompt; one pair of brackets may hold
several, as in `[[demo input=1000 cached=400 tokens=100]]`:

    status=529       answer with this HTTP error, in the provider's shape
    tokens=50        the text of each choice is this long, if the request's bound allows it
    reasoning=20     reasoning tokens of each choice, on top of `tokens`, within the same bound
    calls=2          call tools this many times in parallel
    input=1000       what the provider's field for input reports (Anthropic's leaves the cache out)
    cached=400       input tokens reported as read from the cache
    cache_write_5m=5, cache_write_1h=5
                     input tokens reported as written to it (OpenAI: the sum of both, Gemini: nothing)
    nousage          report no usage at all
    delay=2.5        seconds before the first byte
    chunk_delay=0.2  seconds between two chunks
    break=3          drop the connection after this many chunks
    truncate=3       end the body cleanly after this many chunks, without the events that end an answer
    error_event=3    send the provider's own error event after this many chunks

A chunk is an event with text, reasoning or a part of a tool call; there are two tokens in most. An answer with fewer
chunks fails just before its end. A call that does not stream has no chunks: `break` and `truncate` then act in the
middle of the body, and `error_event` is a plain HTTP 500.

In the disguise of a provider (`keydesk demo --like groq`) it has the endpoints, credential's header and fields that its
preset says; what that provider does not know, or it was told to refuse, is an error (`toolkit.demo.disguise`).

`GET /demo/calls` is the witness: the last 10,000 calls as a JSON list, oldest first, without any header's value.
`state` is running, finished, disconnected (the client left) or error. `DELETE /demo/calls` clears it.
"""

import argparse
import hashlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from toolkit.demo import anthropic, gemini, openai
from toolkit.demo.answer import BadRequest, Dialect, Endpoint, Json, dump
from toolkit.demo.compaction import COMPACTION
from toolkit.demo.compose import PromptCache, compose
from toolkit.demo.delivery import Call, Delivery, Late, refuse
from toolkit.demo.disguise import Disguise
from toolkit.demo.responses import RESPONSES
from toolkit.demo.text import Directives

_KEPT_CALLS = 10_000
_KEPT_BODY_BYTES = 1_000_000


@dataclass(slots=True)
class Upstream:
    """What one demo upstream remembers.

    Args:
        pace: how long it takes: 1.0 like a usual provider, 0 at once, 2.0 twice as long.
        cache: the prompts it has seen.
        calls: the last calls, oldest first.
        disguise: the provider that it behaves as, if it does.
    """

    pace: float
    disguise: Disguise | None = None
    cache: PromptCache = field(default_factory=PromptCache)
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=_KEPT_CALLS))

    def endpoint(self, dialect: Dialect, kind: Endpoint) -> Callable[[Request], Awaitable[ASGIApp]]:
        """Make the handler of one kind of call."""

        async def handle(request: Request) -> ASGIApp:
            call = self._meet(request)
            if (refusal := self._refusal(request, dialect, call)) is not None:
                return refusal
            try:
                raw = await request.body()
            except ClientDisconnect:
                call.state = "disconnected"
                return Response()
            try:
                body = _read_body(call, raw, request.path_params.get("model"))
                if self.disguise is not None and (form := self.disguise.form(request.url.path)) is not None:
                    if unknown := self.disguise.unknown_field(form, body):
                        raise BadRequest(f"Unrecognized request argument supplied: {unknown}")
                    body = self.disguise.asked(form, body)
                ask = kind.read(body)
                orders = Directives.read(ask.last_user_text)
            except ValueError as problem:
                return refuse(dialect, call, 400, str(problem))
            if orders.status is not None:
                answer = refuse(dialect, call, orders.status, f"The demo upstream was told to answer {orders.status}.")
                return Late(answer, call, orders.delay)
            answered = compose(ask, orders, self.cache, marked_cache=dialect.marked_cache)
            return Delivery(self.pace, call, dialect, kind, ask, orders, answered)

        return handle

    def listing(self, dialect: Dialect) -> Callable[[Request], Awaitable[Response]]:
        """Make the handler of the models' listing."""

        async def handle(request: Request) -> Response:
            call = self._meet(request)
            if (refusal := self._refusal(request, dialect, call)) is not None:
                return refusal
            call.state, call.status = "finished", 200
            return JSONResponse(dialect.models(), headers=dialect.headers)

        return handle

    async def generated(self, request: Request) -> ASGIApp:
        """Handle a call whose verb is part of its path, as Gemini's do."""
        kinds = {
            "generateContent": gemini.GENERATE,
            "streamGenerateContent": gemini.STREAM_EVENTS
            if request.query_params.get("alt") == "sse"
            else gemini.STREAM_ARRAY,
            "countTokens": gemini.COUNT_TOKENS,
            "embedContent": gemini.EMBED,
            "batchEmbedContents": gemini.BATCH_EMBED,
        }
        kind = kinds.get(request.path_params["verb"])
        if kind is None:
            raise HTTPException(404)
        return await self.endpoint(gemini.DIALECT, kind)(request)

    async def witness(self, request: Request) -> Response:
        """Show or clear the calls."""
        if request.method == "DELETE":
            self.calls.clear()
            return Response(status_code=204)
        shown = dump([asdict(call) for call in self.calls]).encode("utf-8", "replace")
        return Response(shown, media_type="application/json")

    def _refusal(self, request: Request, dialect: Dialect, call: Call) -> Response | None:
        """Return why a call is not even read: there is no such endpoint in this disguise, or no credential is shown."""
        shown = _has_credential(request, dialect)
        if self.disguise is not None:
            form = self.disguise.form(request.url.path)
            if form is None:  # as a server answers that does not have it, in no dialect's form
                call.state, call.status = "error", 404
                return JSONResponse({"detail": "Not Found"}, 404)
            shown = self.disguise.shows_credential(form, request.headers, usually=shown)
        return None if shown else refuse(dialect, call, 401, "No API key was given, or it is not valid.")

    def _meet(self, request: Request) -> Call:
        call = Call(
            request_id=request.headers.get("x-request-id"),
            method=request.method,
            path=request.url.path,
            query=sorted(set(request.query_params)),
            headers=sorted(set(request.headers)),
        )
        self.calls.append(call)
        return call


def _has_credential(request: Request, dialect: Dialect) -> bool:
    for name in dialect.credentials:
        value = request.headers.get(name, "").strip()
        if name == "authorization":
            scheme, _, value = value.partition(" ")
            value = value.strip() if scheme.lower() == "bearer" else ""
        if value:
            return True
    return False


def _read_body(call: Call, raw: bytes, model: str | None) -> Json:
    call.body_sha256 = hashlib.sha256(raw).hexdigest()
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not valid JSON.") from None
    if len(raw) <= _KEPT_BODY_BYTES:
        call.body = body
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    if model is not None:
        body = body | {"model": model}
    call.model = str(body.get("model"))
    return body


async def _no_such_path(request: Request, problem: Exception) -> Response:
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    prefix = request.url.path.split("/")[1]
    dialect = {"anthropic": anthropic.DIALECT, "gemini": gemini.DIALECT}.get(prefix, openai.DIALECT)
    return JSONResponse(dialect.error(status, f"{request.method} {request.url.path}: no such call here."), status)


def create_app(pace: float = 1.0, disguise: Disguise | None = None) -> Starlette:
    """Make a demo upstream with a memory of its own.

    Args:
        pace: how long answers take: 1.0 like a usual provider (0.15 s to the first token, then 60 tokens a second),
            0 at once, 2.0 twice as long.
        disguise: the provider that it behaves as; without one it has all that it knows.
    """
    upstream = Upstream(pace, disguise)
    routes = [Route("/demo/calls", upstream.witness, methods=["GET", "DELETE"])]
    for path, dialect, kind in (
        ("/openai/v1/chat/completions", openai.DIALECT, openai.CHAT),
        ("/openai/v1/responses", openai.DIALECT, RESPONSES),
        ("/openai/v1/responses/compact", openai.DIALECT, COMPACTION),
        ("/openai/v1/embeddings", openai.DIALECT, openai.EMBEDDINGS),
        ("/anthropic/v1/messages", anthropic.DIALECT, anthropic.MESSAGES),
        ("/anthropic/v1/messages/count_tokens", anthropic.DIALECT, anthropic.COUNT_TOKENS),
    ):
        routes.append(Route(path, upstream.endpoint(dialect, kind), methods=["POST"]))
    for path, dialect in (
        ("/openai/v1/models", openai.DIALECT),
        ("/anthropic/v1/models", anthropic.DIALECT),
        ("/gemini/v1/models", gemini.DIALECT),
        ("/gemini/v1beta/models", gemini.DIALECT),
    ):
        routes.append(Route(path, upstream.listing(dialect), methods=["GET"]))
    for version in ("v1", "v1beta"):
        path = f"/gemini/{version}/models/{{model:path}}:{{verb}}"
        routes.append(Route(path, upstream.generated, methods=["POST"]))
    return Starlette(routes=routes, exception_handlers={404: _no_such_path, 405: _no_such_path})


def serve(host: str, port: int, pace: float, disguise: Disguise | None = None) -> None:
    """Run a demo upstream until the process is told to stop; returns after Ctrl-C.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which uvicorn's log names.
        pace: as for `create_app`.
        disguise: the same.
    """
    uvicorn.run(
        create_app(pace, disguise),
        host=host,
        port=port,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=1,
    )


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Answer like OpenAI, Anthropic and Gemini, without any account.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--pace", type=float, default=1.0, help="0 answers at once, 2 takes twice as long")
    options = parser.parse_args()
    serve(options.host, options.port, options.pace)


if __name__ == "__main__":
    main()
