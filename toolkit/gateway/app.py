"""The gateway's Starlette application: reads requests, answers listings, and has calls judged and passed on."""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from toolkit import billing
from toolkit.cashier import Cashier
from toolkit.credentials import new_id, new_request_id
from toolkit.database import Store, utc_now
from toolkit.dialects import MODULES
from toolkit.dialects.shape import ModelInfo
from toolkit.errors import KeydeskError, Refusal, RefusalType, Unavailable
from toolkit.gateway import paths
from toolkit.gateway.answers import send_json, send_refusal
from toolkit.gateway.book import Book
from toolkit.gateway.call import Request, Teller, find_model
from toolkit.gateway.caller import dialect_of_shared_path, find_secret, wants_sse
from toolkit.gateway.passage import Passage
from toolkit.gateway.upstreams import Upstreams
from toolkit.policy import Unauthorized
from toolkit.settings import Settings

logger = logging.getLogger("keydesk.gateway")

LEASE = timedelta(seconds=30)
AFTER_GRACE = 0.5
"""Seconds for calls whose connections the server has given up, before they are ended and settled."""

HEARTBEAT = 5.0
"""Seconds between two renewals of the lease; each also sweeps the holds of instances that died."""


class Gateway:
    """The ASGI endpoint of every path that callers use."""

    def __init__(self, settings: Settings, book: Book, teller: Teller, upstreams: Upstreams) -> None:
        self._settings = settings
        self._book = book
        self._teller = teller
        self._upstreams = upstreams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query: bytes = scope["query_string"]
        # From here on nobody sees `?key=`: not a log, not an exception handler.
        scope["query_string"] = b""
        request_id = new_request_id(time.time_ns() // 1_000_000)
        path: str = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else scope["path"]
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        dialect = paths.dialect_of_unknown(path) or dialect_of_shared_path(headers, query)
        try:
            target = paths.resolve(scope["method"], path)
            dialect = target.dialect or dialect_of_shared_path(headers, query)
            digests = self._book.digests(find_secret(dialect, headers, query))
            request = Request(request_id, dialect, target, digests, headers, b"", wants_sse(query))
            try:
                await self._answer(request, receive, send)
            except Unauthorized as refusal:
                if refusal.key is not None:
                    await self._teller.log_unread(request, refusal.key, refusal)
                raise
        except Refusal as refusal:
            await send_refusal(send, refusal, request_id, dialect)
        except ClientDisconnect:
            return
        except Unavailable as error:
            logger.error("%s", error)  # noqa: TRY400 - the message says it all
            message = "The gateway cannot reach its key store. Try again shortly."
            await send_refusal(send, Refusal(RefusalType.UNAVAILABLE, message), request_id, dialect)

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        if request.target.endpoint == "models":
            await self._list_models(request, send)
            return
        key = await self._book.key(request.digests)  # no body is read for a caller without a key
        try:
            request = replace(request, body=await self._read_body(request.headers, receive))
        except Refusal as refusal:
            await self._teller.log_unread(request, key, refusal)
            raise
        admission = await self._teller.admit(request)
        await Passage(self._teller, self._upstreams, request, admission, receive, send).run()

    async def _read_body(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
        limit = self._settings.body_limit
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise _too_large(limit)
            if name == b"content-encoding" and value.lower() != b"identity":
                raise Refusal(RefusalType.INVALID_REQUEST, "Send the body uncompressed, without Content-Encoding.")
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                async with asyncio.timeout(self._settings.idle_timeout):
                    message = await receive()
            except TimeoutError:
                raise Refusal(RefusalType.INVALID_REQUEST, "The request body stopped before its end.") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _list_models(self, request: Request, send: Send) -> None:
        target, dialect = request.target, request.dialect
        key = await self._book.current_key(request.digests)
        catalog, now = self._book.catalog, utc_now()
        module = MODULES[dialect]
        plan = catalog.plans.get(key.plan_id)
        names = key.callable_models(plan.models if plan else frozenset())
        infos = [
            ModelInfo(
                id=model.id,
                created_at=model.created_at,
                context_window=model.context_window,
                max_output=model.max_output,
                display_name=model.id,
                owned_by=model.upstream,
            )
            for name in sorted(names)
            if (model := catalog.models[name]).dialect is dialect and model.price(now) is not None
        ]
        if target.model is None:
            await send_json(send, 200, request.id, dialect, module.listing(infos))
            return
        name = target.model.removeprefix("models/")
        find_model(catalog, name, dialect, key, now)
        await send_json(send, 200, request.id, dialect, module.listed(next(i for i in infos if i.id == name)))


def _too_large(limit: int) -> Refusal:
    return Refusal(RefusalType.REQUEST_TOO_LARGE, f"The request body is larger than {limit:,} bytes.")


def create_app(settings: Settings | None = None) -> Starlette:
    """Return the gateway as a Starlette application; it opens the key store when it starts."""
    settings = settings or Settings.from_env()
    store = Store.open(settings)
    cashier = Cashier(store)
    book = Book(store, settings.keyring(), cashier)
    upstreams = Upstreams(settings)
    instance_id = new_id("gateway")
    teller = Teller(book, instance_id)

    async def renew() -> None:
        def work(connection: sqlite3.Connection) -> int:
            now = utc_now()
            billing.renew_lease(connection, instance_id, now, now + LEASE)
            return billing.sweep(connection, now)

        swept = await book.ask(work)
        if swept:
            logger.warning("%d holds of a gateway that had died were released", swept)

    async def keep_alive() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            try:
                await renew()
            except (KeydeskError, sqlite3.Error) as error:
                logger.error("the lease could not be renewed: %s", error)  # noqa: TRY400

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        cashier.start()
        await book.open()
        await upstreams.open()
        await renew()
        heart = asyncio.create_task(keep_alive())
        try:
            yield
        finally:
            await teller.drain(AFTER_GRACE)  # the lease is kept until the last call is settled
            heart.cancel()
            with contextlib.suppress(Unavailable):
                await book.ask(lambda connection: billing.end_instance(connection, instance_id))
            await asyncio.to_thread(cashier.stop)
            await upstreams.close()
            store.close()

    async def health(_request: HttpRequest) -> Response:
        try:
            await book.ask(lambda connection: connection.execute("SELECT 1").fetchone())
        except Unavailable:
            return JSONResponse({"status": "unavailable"}, status_code=503)
        return JSONResponse({"status": "ok"})

    gateway = Gateway(settings, book, teller, upstreams)
    app = Starlette(routes=[Route("/healthz", health)], lifespan=lifespan)
    # Not a route for any path: its pattern would not match a path with a line break in it.
    app.router.default = gateway
    app.router.redirect_slashes = False
    return app


def serve(settings: Settings, host: str, port: int, workers: int = 1) -> None:
    """Run the gateway until it is told to stop.

    Args:
        settings: as in the environment; with several workers each reads the environment itself.
        host, port: where to listen.
        workers: processes that share the port and the key store.
    """
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    uvicorn.run(
        "toolkit.gateway.app:create_app" if workers > 1 else create_app(settings),
        factory=workers > 1,
        host=host,
        port=port,
        workers=workers,
        access_log=False,  # would print `?key=` before we see it
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=max(round(settings.shutdown_grace), 1),
    )
