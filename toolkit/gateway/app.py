"""The gateway's Starlette application: its parts, its routes, its start and its end."""

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import AsyncIterator
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from uvicorn.config import Config

from toolkit import environment
from toolkit.admin import peppers
from toolkit.billing.batcher import Batcher
from toolkit.billing.stores import open_billing_store
from toolkit.core.ids import new_id
from toolkit.core.settings import Settings
from toolkit.gateway.added_fields import AddedFields
from toolkit.gateway.admission import AdmissionControl
from toolkit.gateway.answer_reading import AnswerReader
from toolkit.gateway.arrival import Arrivals
from toolkit.gateway.body_reading import BodyReader
from toolkit.gateway.call_ways import Ways
from toolkit.gateway.cross_origin import shown_to_pages
from toolkit.gateway.endpoint import Gateway
from toolkit.gateway.error_handlers import ErrorHandlers
from toolkit.gateway.field_policy import UnknownNames
from toolkit.gateway.heartbeat import Heartbeat
from toolkit.gateway.incidents import Incidents
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.large_bodies import LargeBodies
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.memory import free_large_pieces_at_once, keep_giving_back
from toolkit.gateway.processes import end_with
from toolkit.gateway.reader_pool import ReaderPool
from toolkit.gateway.readiness import Readiness
from toolkit.gateway.refusal_log import RefusalLog
from toolkit.gateway.responses import early_refusal
from toolkit.gateway.routes import routes
from toolkit.gateway.self_report import SelfReport
from toolkit.gateway.server import protocol, run
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.gateway.upstream_testing import UpstreamTesting
from toolkit.store.database import Store
from toolkit.store.tally import Tallies

AFTER_GRACE = 0.5
"""Seconds for calls whose connections the server has given up, before they are ended and settled."""

WORKER_WITHIN = 30
"""Seconds in which a worker must give a sign of life, else it is replaced; a busy machine starts one in ten."""


def calm_collector() -> None:
    """Let the garbage collector leave what was made at the start alone, and look less often: a third of a call's CPU.

    Calls make few reference cycles; what is left over waits for a later look. No look at what is young takes long: all
    threads wait for it, the event loop's too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 80, 50)


def create_app(settings: Settings | None = None) -> Starlette:
    """Return the gateway as a Starlette application; it opens the key store when it starts."""
    settings = settings or environment.read_settings()
    upstreams = UpstreamPool(settings)
    store = Store.open(settings, make=True)
    try:
        keyring = peppers.open_keyring(store, settings)
    except BaseException:
        store.close()
        raise
    batcher = Batcher(open_billing_store(store))
    tallies = Tallies(store)
    key_cache = KeyCache(store, keyring, batcher, tallies)
    lifecycle = CallLifecycle(key_cache, new_id("gateway"))
    log, unknown = RefusalLog(batcher, tallies), UnknownNames(tallies)
    ways = Ways()
    admissions = AdmissionControl(key_cache, lifecycle, log, unknown, ways, upstreams.queues)
    readers = ReaderPool()
    report = SelfReport(settings, ways, lambda: key_cache.catalog)
    heartbeat = Heartbeat(store, lifecycle, settings.lease, report.text)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        batcher.start()
        tallies.start()
        await key_cache.open()
        await upstreams.open()
        await heartbeat.start()
        calm_collector()
        free_large_pieces_at_once()
        giving_back = asyncio.create_task(keep_giving_back())
        testing = asyncio.create_task(UpstreamTesting(store, upstreams, lifecycle).run())
        try:
            yield
        finally:
            giving_back.cancel()
            testing.cancel()
            await asyncio.wait({testing})
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

    bodies = BodyReader(key_cache, LargeBodies(settings.body_limit, readers), settings.body_limit)
    answers = AnswerReader(readers, settings.call_timeout)
    known = Incidents(tallies), AddedFields(tallies, key_cache.now)
    gateway = Gateway(key_cache, admissions, lifecycle, upstreams, bodies, answers, *known)
    app = Starlette(
        routes=routes(gateway, readiness),
        middleware=[Middleware(Arrivals, key_cache, lifecycle)],
        exception_handlers=ErrorHandlers().all(),
        lifespan=lifespan,
    )
    if settings.cors_origins:  # around all else, so that errors can be read, too
        app.middleware_stack = shown_to_pages(app.build_middleware_stack(), settings.cors_origins)
    app.router.redirect_slashes = False  # a slash too many is a path that is not ours, and is told so
    return app


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
        UpstreamPool(settings)
        with contextlib.closing(Store.open(settings, make=True)) as store:
            peppers.open_keyring(store, settings)
    config = Config(
        "toolkit.gateway.app:create_worker" if workers > 1 else create_app(settings),
        factory=workers > 1,
        host=host,
        port=port,
        workers=workers,
        http=protocol(partial(early_refusal, origins=settings.cors_origins), settings.trusted_proxies),
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
