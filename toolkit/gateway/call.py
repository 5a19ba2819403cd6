"""Judging a call and settling it: what happens before it is forwarded and after its answer is known."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from toolkit import billing
from toolkit.billing import Admitted, Call, Ending, Receipt, Stale
from toolkit.catalog import Catalog, DatedSheet, ModelFacts
from toolkit.database import utc_now
from toolkit.dialects import MODULES
from toolkit.dialects.body import parse_object
from toolkit.dialects.shape import Dialect, Shape
from toolkit.errors import Refusal, RefusalType, Unavailable
from toolkit.estimate import HoldBound, hold_bound
from toolkit.gateway.book import Book
from toolkit.gateway.paths import PATH_OF, Target
from toolkit.policy import KeyFacts
from toolkit.pricing import usd

logger = logging.getLogger("keydesk.gateway")

T = TypeVar("T")

SETTLE_PATIENCE = 60.0
"""Seconds for which a settlement is tried again while the key store cannot be reached."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read and authenticated as far as that goes without the store."""

    id: str
    dialect: Dialect
    target: Target
    digests: list[str]
    headers: list[tuple[bytes, bytes]]
    body: bytes
    wants_sse: bool


class Teller:
    """What all calls of one gateway share.

    Args:
        book: keys, catalog and billing.
        instance_id: owner of the holds.
    """

    def __init__(self, book: Book, instance_id: str) -> None:
        self.book = book
        self.instance_id = instance_id
        self._calls: set[asyncio.Task[Any]] = set()
        self._settlements: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a call in a task of its own, which a caller who leaves does not cancel."""
        return _run(work, self._calls)

    def start_settling(self, call: Call, ending: Ending) -> "asyncio.Task[Receipt | None]":
        """Settle a call in a task of its own, which nothing cancels."""
        return _run(self.settle(call, ending), self._settlements)

    async def drain(self, grace: float) -> None:
        """Let the calls under way finish for `grace` seconds, end the rest, and wait until all are settled."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace)
        for call in self._calls:
            call.cancel()
        while pending := self._calls | self._settlements:
            await asyncio.wait(pending)

    async def admit(self, request: Request) -> "Admission":
        """Judge a call and place its hold.

        Raises:
            Refusal: nothing is held; the refusal of a known key is logged.
            Unavailable: the key store cannot be reached.
        """
        body: dict[str, Any] | None = None
        shape: Shape | None = None
        for _ in range(20):
            key = await self.book.key(request.digests)
            catalog = self.book.catalog
            call = Call(request.id, key, utc_now(), request.dialect, request.target.endpoint, stream=False, model=None)
            try:
                if body is None or shape is None:
                    body = parse_object(request.body)
                    shape = MODULES[request.dialect].inspect(
                        request.target.endpoint, body, len(request.body), request.target.model
                    )
                call = replace(call, stream=shape.stream, model=shape.model)
                call, model, bound = _price(call, shape, catalog)
                admitted = await self._hold(call, bound, catalog)
                return Admission(call, shape, body, model, bound, admitted)
            except Stale:
                await self.book.refresh(request.digests)
            except Refusal as refusal:
                try:
                    await self._log_refusal(call, refusal, catalog.version)
                except Stale:
                    await self.book.refresh(request.digests)
                else:
                    raise
        raise Unavailable("The key or the catalog changes faster than this call can be judged.")

    async def _hold(self, call: Call, bound: HoldBound, catalog: Catalog) -> Admitted:
        return await self.book.ask(
            lambda connection: billing.admit(
                connection, call, bound, catalog_version=catalog.version, instance_id=self.instance_id
            )
        )

    async def _log_refusal(self, call: Call, refusal: Refusal, catalog_version: int | None) -> None:
        await self.book.ask(
            lambda connection: billing.refuse(connection, call, refusal, utc_now(), catalog_version=catalog_version)
        )

    async def log_unread(self, request: Request, key: KeyFacts, refusal: Refusal) -> None:
        """Log the refusal of a call of a known key whose body was not read."""
        call = Call(request.id, key, utc_now(), request.dialect, request.target.endpoint, stream=False)
        await self._log_refusal(call, refusal, None)

    async def settle(self, call: Call, ending: Ending) -> Receipt | None:
        """Charge a call; keeps trying while the key store cannot be reached.

        Raises:
            Unavailable: it stayed away for a minute; the hold will be swept.
        """
        give_up = time.monotonic() + SETTLE_PATIENCE
        pause = 0.05
        while True:
            try:
                receipt = await self.book.ask(lambda connection: billing.settle(connection, call, ending))
            except Unavailable:
                if time.monotonic() > give_up:
                    logger.error("call %s could not be settled: the key store cannot be reached", call.request_id)  # noqa: TRY400
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            if receipt is None:
                logger.warning("lost settlement: call %s had been swept as abandoned", call.request_id)
            elif receipt.overrun:
                logger.warning(
                    "overrun: call %s cost more than its hold by %s USD", call.request_id, usd(receipt.overrun)
                )
            return receipt


def _run(work: Coroutine[Any, Any, T], running: "set[asyncio.Task[Any]]") -> "asyncio.Task[T]":
    task = asyncio.get_running_loop().create_task(work)
    running.add(task)  # the event loop itself keeps only a weak reference
    task.add_done_callback(running.discard)
    return task


@dataclass(frozen=True, slots=True)
class Admission:
    """A call that may go on, with all that was fixed about it."""

    call: Call
    shape: Shape
    body: dict[str, Any]
    model: ModelFacts
    bound: HoldBound
    admitted: Admitted


def find_model(
    catalog: Catalog, name: str, dialect: Dialect, key: KeyFacts, now: datetime
) -> tuple[ModelFacts, DatedSheet]:
    """Return the model that a caller named, and its price at `now` (UTC).

    Raises:
        Refusal: model_not_found, wrong_dialect or model_not_allowed, in this order.
    """
    model = catalog.models.get(name)
    dated = model.price(now) if model else None
    if model is None or dated is None:
        raise Refusal(
            RefusalType.MODEL_NOT_FOUND,
            f"There is no model {name[:128]!r} here. GET /v1/models lists what this API key may call.",
            param="model",
        )
    if model.dialect is not dialect:
        raise Refusal(
            RefusalType.WRONG_DIALECT,
            f"The model '{name}' speaks the {model.dialect} dialect: call {PATH_OF[model.dialect]}.",
            param="model",
        )
    plan = catalog.plans.get(key.plan_id)
    key.check_model(name, plan.models if plan else frozenset())
    return model, dated


def _price(call: Call, shape: Shape, catalog: Catalog) -> tuple[Call, ModelFacts, HoldBound]:
    """Fix what a call is charged by: model, price, multiplier; and bound what it can cost."""
    model, dated = find_model(catalog, shape.model, Dialect(call.dialect), call.key, call.received_at)
    plan = catalog.plans[call.key.plan_id]  # it includes the model, or `find_model` would have refused
    priced = replace(
        call,
        upstream=model.upstream,
        price_id=dated.id,
        sheet=None if shape.free else dated.sheet,
        multiplier=plan.multiplier,
    )
    if shape.free:
        return priced, model, HoldBound(0, 0, 0, explicit=True)
    bound = hold_bound(
        model.dialect,
        shape,
        dated.sheet,
        plan.multiplier,
        context_window=model.context_window,
        default_output=model.default_output,
    )
    return priced, model, bound
