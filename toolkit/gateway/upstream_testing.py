"""Tests of upstreams that operators ask for: taken from the key store by a slow loop, made, and answered there."""

import asyncio
import logging

from toolkit.admin import upstream_tests as admin
from toolkit.core.catalog import ModelFacts
from toolkit.core.errors import NotFound, Unavailable
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.upstream_exchange import UpstreamBroke
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.gateway.upstream_probe import Probe
from toolkit.store import upstream_tests
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import UpstreamTest

logger = logging.getLogger("keydesk.gateway")

PAUSE = 1.0
"""Seconds between two looks at the key store."""

LONGEST = 300.0
"""Seconds that one test may take."""


class UpstreamTesting:
    """Makes the tests of one gateway, one after the other.

    Args:
        store: where they are asked for.
        upstreams: the way to providers.
        lifecycle: whose lease says that this gateway lives.
    """

    def __init__(self, store: Store, upstreams: UpstreamPool, lifecycle: CallLifecycle) -> None:
        self._store = store
        self._upstreams = upstreams
        self._lifecycle = lifecycle

    async def run(self) -> None:
        """Look for tests, until cancelled."""
        while True:
            await asyncio.sleep(PAUSE)
            try:
                if self._lifecycle.lease and await asyncio.to_thread(self._is_waiting):
                    await self._make_one()
            except Unavailable:
                continue  # others say so
            except Exception:
                logger.exception("a test of an upstream failed")  # and the next one is looked for

    def _is_waiting(self) -> bool:
        with self._store.read(SYSTEM) as tx:
            return upstream_tests.is_waiting(tx, self._lifecycle.instance_id)

    async def _make_one(self) -> None:
        taken = await asyncio.to_thread(self._take)
        if taken is None:
            return
        test, model = taken
        found, failure = None, None
        try:
            async with asyncio.timeout(LONGEST):
                found = (await Probe(self._upstreams, model, self._lifecycle.key_cache.now()).run()).to_json()
        except asyncio.CancelledError:  # the gateway is stopped
            await asyncio.shield(asyncio.to_thread(self._give_back, test.id))
            raise
        except TimeoutError:
            failure = "it took too long"
        except UpstreamBroke as error:  # it is not set up here
            failure = str(error)
        except Exception:
            logger.exception("the test of upstream %s failed", test.upstream)
            failure = "the gateway failed on it; its log says why"
        await asyncio.to_thread(self._end, test.id, found, failure)

    def _take(self) -> tuple[UpstreamTest, ModelFacts] | None:
        with self._store.write(SYSTEM) as tx:
            test = upstream_tests.take(tx, self._lifecycle.instance_id)
            if test is None:
                return None
            try:
                return test, admin.model_to_call(tx, test)
            except NotFound as error:  # it was removed meanwhile
                upstream_tests.end(tx, test.id, self._lifecycle.instance_id, failure=str(error))
                return None

    def _give_back(self, test_id: str) -> None:
        with self._store.write(SYSTEM) as tx:
            upstream_tests.give_back(tx, test_id, self._lifecycle.instance_id)

    def _end(self, test_id: str, found: str | None, failure: str | None) -> None:
        with self._store.write(SYSTEM) as tx:
            upstream_tests.end(tx, test_id, self._lifecycle.instance_id, found=found, failure=failure)
