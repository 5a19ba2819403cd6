"""The gateway's Starlette application: reads requests, answers listings, and has calls judged and passed on."""

import asyncio
import contextlib
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config

from toolkit import environment
from toolkit.admin import peppers
from toolkit.billing.batcher import Batcher
from toolkit.billing.stores import open_billing_store
from toolkit.core.errors import Refusal, RefusalType, Unavailable
from toolkit.core.ids import RequestIds, new_id
from toolkit.core.policy import KeyFacts, NotAdmitted
from toolkit.core.settings import Settings
from toolkit.dialects import MODULES
from toolkit.dialects.shape import ModelInfo
from toolkit.dialects.skim import LIGHT_SIZE, is_light
from toolkit.gateway import paths
from toolkit.gateway.blocks import Blocks
from toolkit.gateway.bodies import MEDIA_ALLOWANCE, Bodies, LargeBody, check_size
from toolkit.gateway.call import CallLifecycle, Request, find_model
from toolkit.gateway.caller import dialect_of_shared_path, find_secret, secret_in_url, wants_sse
from toolkit.gateway.door import prove
from toolkit.gateway.field_policy import UnknownNames
from toolkit.gateway.forwarder import Forwarder
from toolkit.gateway.heartbeat import Heartbeat
from toolkit.gateway.intake import Intake
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.processes import end_with
from toolkit.gateway.reader import Headers
from toolkit.gateway.readers import Readers
from toolkit.gateway.readiness import Readiness
from toolkit.gateway.refusal_log import RefusalLog
from toolkit.gateway.responses import early_refusal, send_json, send_refusal
from toolkit.gateway.server import protocol, run
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.store.database import Store
from toolkit.store.tally import Tallies

logger = logging.getLogger("keydesk.gateway")

HEALTH = "/healthz"
"""Answered as long as the process answers at all."""

READY = "/readyz"
"""Answered 200 as long as calls can be admitted."""

_OWN = frozenset({HEALTH, READY})

AFTER_GRACE = 0.5
"""Seconds for calls whose connections the server has given up, before they are ended and settled."""

WORKER_WITHIN = 30
"""Seconds in which a worker must give a sign of life, else it is replaced; a busy machine starts one in ten."""


class Gateway:
    """The ASGI endpoint of every path that callers use."""

    def __init__(
        self, settings: Settings, key_cache: KeyCache, lifecycle: CallLifecycle, upstreams: UpstreamPool, bodies: Bodies
    ) -> None:
        self._settings = settings
        self._key_cache = key_cache
        self._lifecycle = lifecycle
        self._upstreams = upstreams
        self._ids = RequestIds()
        self._complained = float("-inf")
        self._bodies = bodies
        self._intake = Intake(bodies.readers, settings.call_timeout)
        self._certain = min(settings.body_limit, MEDIA_ALLOWANCE)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        query: bytes = scope["query_string"]
        # From here on nobody sees `?key=`: not a log, not an exception handler.
        scope["query_string"] = b""
        handling = self._handle(scope, query, receive, send)
        return self._note_url(handling, query) if query else handling

    async def _note_url(self, handling: Coroutine[Any, Any, None], query: bytes) -> None:
        try:
            await handling
        finally:
            if (secret := secret_in_url(query)) is not None:
                self._lifecycle.start(self._key_cache.note_in_url(self._key_cache.digests(secret)))

    async def _handle(self, scope: Scope, query: bytes, receive: Receive, send: Send) -> None:
        request_id = self._ids.next(time.time_ns() // 1_000_000)
        path: str = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else scope["path"]
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        try:
            target = paths.resolve(scope["method"], path)
        except Refusal as refusal:
            dialect = paths.dialect_of(path) or dialect_of_shared_path(headers, query)
            await send_refusal(send, refusal, request_id, dialect)
            return
        dialect = target.dialect or dialect_of_shared_path(headers, query)
        try:
            digests = self._key_cache.digests(find_secret(dialect, headers, query))
            request = Request(request_id, dialect, target, digests, headers, b"", wants_sse(query))
            try:
                await self._answer(request, scope, receive, send)
            except NotAdmitted as refusal:
                if refusal.key is not None:
                    await self._lifecycle.log_unread(request, refusal.key, refusal)
                raise
        except Refusal as refusal:
            await send_refusal(send, refusal, request_id, dialect)
        except ClientDisconnect:
            return
        except Unavailable as error:
            if time.monotonic() - self._complained > 1:  # thousands of calls may meet the same
                self._complained = time.monotonic()
                logger.error("%s", error)  # noqa: TRY400 - the message says it all
            message = "The gateway cannot reach its key store. Try again shortly."
            await send_refusal(send, Refusal(RefusalType.UNAVAILABLE, message), request_id, dialect)

    async def _answer(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        if request.target.endpoint == "models":
            await self._list_models(request, scope, send)
            return
        key = await self._key_cache.key(request.digests)  # no body is read for a caller without a key, or without money
        prove(scope, key.org_id)
        try:
            key = await self._lifecycle.check_funds(request, key)
            request.body = await self._read_body(request, key, receive)
        except NotAdmitted:
            raise  # and is logged there, as wherever it comes from
        except Refusal as refusal:
            await self._lifecycle.log_unread(request, key, refusal)
            raise
        if isinstance(request.body, LargeBody):
            try:
                await self._pass(request, key, receive, send)
            finally:
                await request.body.close()
        else:
            await self._pass(request, key, receive, send)

    async def _pass(self, request: Request, key: KeyFacts, receive: Receive, send: Send) -> None:
        admission = await self._lifecycle.admit(request, key)
        await Forwarder(self._lifecycle, self._upstreams, self._intake, request, admission, receive, send).run()

    async def _read_body(self, request: Request, key: KeyFacts, receive: Receive) -> bytes | LargeBody:
        size = _announced(request.headers)
        await self._check_size(size, request, key)
        if size > LIGHT_SIZE:
            return await self._read_large(await self._bodies.begin(key, size), request, key, receive)
        parts = Blocks()
        while True:
            part, more = await self._next_part(receive)
            await self._check_size(parts.size + len(part), request, key)
            if not more and not parts.size:
                return part if is_light(part) else self._bodies.heavy(key, part)  # as most, it came in one piece
            parts.add(part)
            if parts.size > LIGHT_SIZE:  # it did not say how large it is
                large = await self._bodies.begin(key, self._settings.body_limit)
                large.add(b"".join(parts.take()))
                return await self._read_large(large, request, key, receive)
            if not more:
                whole = b"".join(parts.take())
                return whole if is_light(whole) else self._bodies.heavy(key, whole)

    async def _read_large(self, body: LargeBody, request: Request, key: KeyFacts, receive: Receive) -> LargeBody:
        try:
            more = True
            while more:
                part, more = await self._next_part(receive)
                body.add(part)
                await self._check_size(body.size, request, key)
        except BaseException:
            body.drop()
            raise
        return body

    async def _check_size(self, size: int, request: Request, key: KeyFacts) -> None:
        if size <= self._certain:  # whatever the key may call; most bodies are smaller
            return
        for last in (False, True):
            try:
                check_size(size, key, self._key_cache.catalog, self._key_cache.now(), self._settings.body_limit)
                return
            except Refusal:
                if last:
                    raise
                key = await self._key_cache.current_key(request.digests)  # nobody is refused by what was so once

    async def _next_part(self, receive: Receive) -> tuple[bytes, bool]:
        """Return the next part of a body, and whether there are more."""
        reading = _Begun(receive())
        try:
            if reading.done:  # as most are, since the body has come with the head: it costs no timer
                message = reading.result
            else:
                async with asyncio.timeout(self._settings.idle_timeout):
                    message = await reading
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            return message.get("body", b""), message.get("more_body", False)
        except TimeoutError:
            raise Refusal(RefusalType.INVALID_REQUEST, "The request body stopped before its end.") from None

    async def _list_models(self, request: Request, scope: Scope, send: Send) -> None:
        target, dialect = request.target, request.dialect
        key = await self._key_cache.current_key(request.digests)
        prove(scope, key.org_id)
        catalog = self._key_cache.catalog
        now = self._key_cache.now()
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
        try:
            find_model(catalog, name, dialect, key, now)
        except Refusal as refusal:
            raise await self._lifecycle.told(refusal, key, name) from None
        await send_json(send, 200, request.id, dialect, module.listed(next(i for i in infos if i.id == name)))


def _announced(headers: Headers) -> int:
    """Return the size of a body, 0 if it is not told.

    Raises:
        Refusal: it is encoded.
    """
    size = 0
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            size = int(value)
        if name == b"content-encoding" and value.lower() != b"identity":
            raise Refusal(RefusalType.INVALID_REQUEST, "Send the body uncompressed, without Content-Encoding.")
    return size


class _Begun:
    """An awaitable, run until it must wait; to be awaited if it is not `done` by then."""

    def __init__(self, awaitable: Awaitable[Message]) -> None:
        self._steps = awaitable.__await__()
        self.done = False
        self.result: Message = {}
        try:
            self._waits_for = next(self._steps)
        except StopIteration as end:
            self.done = True
            self.result = end.value

    def __await__(self) -> Generator[Any, Any, Message]:
        while True:
            try:
                given = yield self._waits_for
            except BaseException as error:  # noqa: BLE001 - a cancellation, for the one who waits
                step = partial(self._steps.throw, error)
            else:
                step = partial(self._steps.send, given)
            try:
                self._waits_for = step()
            except StopIteration as end:
                result: Message = end.value
                return result


def _calm_collector() -> None:
    """Let the garbage collector leave what was made at the start alone, and look less often: a third of a call's CPU.

    Calls make few reference cycles; what is left over waits for a later look.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class _Application(Starlette):
    """Starlette for the server's own matters; calls go past its router and middleware, which they do not need.

    Nor would a route do: its pattern does not match a path with a line break in it.
    """

    def __init__(self, gateway: Gateway, **options: Any) -> None:
        super().__init__(**options)
        self._gateway = gateway

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http" and scope["path"] not in _OWN:
            return self._gateway(scope, receive, send)
        return super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> Starlette:
    """Return the gateway as a Starlette application; it opens the key store when it starts."""
    settings = settings or environment.read_settings()
    store = Store.open(settings, make=True)
    try:
        keyring = peppers.open_keyring(store, settings)
    except BaseException:
        store.close()
        raise
    batcher = Batcher(open_billing_store(store))
    tallies = Tallies(store)
    key_cache = KeyCache(store, keyring, batcher, tallies)
    upstreams = UpstreamPool(settings)
    lifecycle = CallLifecycle(key_cache, RefusalLog(batcher, tallies), UnknownNames(tallies), new_id("gateway"))
    readers = Readers()
    heartbeat = Heartbeat(store, lifecycle, settings.lease)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        batcher.start()
        tallies.start()
        await key_cache.open()
        await upstreams.open()
        await heartbeat.start()
        _calm_collector()
        try:
            yield
        finally:
            await lifecycle.drain(AFTER_GRACE)  # the lease is kept until the last call is settled
            await batcher.stop()
            await asyncio.to_thread(tallies.stop)
            await heartbeat.stop()
            await upstreams.close()
            readers.close()
            store.close()

    readiness = Readiness(
        store,
        lifecycle.instance_id,
        (lambda: (batcher.committed, batcher.failed), lambda: (heartbeat.renewed, heartbeat.failed)),
        lambda: bool(lifecycle.lease),
    )

    async def health(_request: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_request: HttpRequest) -> Response:
        fault = await readiness.fault()
        if fault is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "unavailable", "reason": fault}, status_code=503)

    gateway = Gateway(settings, key_cache, lifecycle, upstreams, Bodies(settings.body_limit, readers))
    return _Application(gateway, routes=[Route(HEALTH, health), Route(READY, ready)], lifespan=lifespan)


def create_worker() -> Starlette:
    """Return the gateway of one of several workers; on Linux it ends in good order when their supervisor is killed."""
    end_with(os.getppid())()
    return create_app()


def serve(settings: Settings, host: str, port: int, workers: int = 1) -> None:
    """Run the gateway until it is told to stop.

    Args:
        settings: as in the environment; with several workers each reads the environment itself.
        host, port: where to listen.
        workers: processes that share the port and the key store.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if workers > 1:  # what stops a start is said once and before, not by each worker for ever
        with contextlib.closing(Store.open(settings, make=True)) as store:
            peppers.open_keyring(store, settings)
    config = Config(
        "toolkit.gateway.app:create_worker" if workers > 1 else create_app(settings),
        factory=workers > 1,
        host=host,
        port=port,
        workers=workers,
        http=protocol(early_refusal, settings.trusted_proxies),
        access_log=False,  # would print `?key=` before we see it
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        interface="asgi3",
        timeout_worker_healthcheck=WORKER_WITHIN,
        timeout_graceful_shutdown=max(round(settings.shutdown_grace), 1),
    )
    run(config)
