"""Judging a call and settling it: what happens before it is forwarded and after its answer is known."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from toolkit.billing.funds import Afford
from toolkit.billing.hold_estimate import HoldBound, check_text, hold_bound, likely_input
from toolkit.billing.leases import Progress
from toolkit.billing.metering import Gauge
from toolkit.billing.rules import Admit, Admitted, Call, Ending, Receipt, Refuse, Settle, cost_of
from toolkit.billing.state import Stale
from toolkit.core.catalog import Catalog, DatedSheet, ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType, Unavailable
from toolkit.core.money import usd
from toolkit.core.period import billing_month
from toolkit.core.policy import KeyFacts
from toolkit.dialects import headers
from toolkit.dialects.fields import named
from toolkit.dialects.headers import Onward
from toolkit.dialects.shape import EMBEDDING_ENDPOINTS, FREE_ENDPOINTS, Shape
from toolkit.gateway.bodies import LargeBody
from toolkit.gateway.field_policy import UnknownNames, check_window, judge_unknown
from toolkit.gateway.key_cache import LARGEST_KEY_CACHE, KeyCache
from toolkit.gateway.reader import read_request
from toolkit.gateway.refusal_log import RefusalLog
from toolkit.gateway.request import CallRequest
from toolkit.gateway.responses import LEFT_OUT

logger = logging.getLogger("keydesk.gateway")

T = TypeVar("T")

MOST_STALE = 20
"""Times that a call is judged anew because key or catalog have changed meanwhile."""

JUDGED_IN_STORE = frozenset({RefusalType.API_KEY_QUOTA_EXCEEDED, RefusalType.BILLING_SHORTFALL})
"""Reasons that come out of a transaction in which key and catalog were current: no other one need look again."""

SETTLE_PATIENCE = 60.0
"""Seconds for which a settlement is tried again while the key store cannot be reached."""


class UnderWay(Protocol):
    """What forwards a call."""

    def progress(self, least_age: float) -> Progress | None:
        """Return how far the call has come; None if it was not forwarded, or is younger than `least_age` seconds."""


class CallLifecycle:
    """What all calls of one gateway share.

    Args:
        key cache: keys, catalog and billing.
        refusal_log: where refusals of known keys go.
        unknown_names: where the names of unknown fields are counted.
        instance_id: owner of the holds.
    """

    def __init__(
        self, key_cache: KeyCache, refusal_log: RefusalLog, unknown_names: UnknownNames, instance_id: str
    ) -> None:
        self.key_cache = key_cache
        self._refusal_log = refusal_log
        self._unknown_names = unknown_names
        self.instance_id = instance_id
        self.open_calls: dict[str, UnderWay | None] = {}
        """Calls that may hold money: their admission has been asked for, and their settlement is not done. With what
        forwards them, from when it does."""
        self.unsettled: set[str] = set()
        """Calls that nobody tries to settle any more, though they may hold money: they could have been forwarded."""
        self.lease = 0
        """Number of the lease that holds, 0 without one: then no call is admitted."""
        self._paying: set[str] = set()
        """Keys whose last call here was not refused for want of money: theirs are judged once their body is read."""
        self._calls: set[asyncio.Task[Any]] = set()
        self._settlements: set[asyncio.Future[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a call in a task of its own, which ends with the gateway."""
        return _run(work, self._calls)

    def enter(self) -> asyncio.Task[Any]:
        """Let the present task, which runs a call, end with the gateway; `leave` when the call is over."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a call is a coroutine
        self._calls.add(task)
        return task

    def progress(self, least_age: float) -> dict[str, Progress]:
        """Return how far the forwarded calls have come that are at least `least_age` seconds old; from any thread."""
        forwarded = [(request_id, call) for request_id, call in list(self.open_calls.items()) if call is not None]
        found = ((request_id, call.progress(least_age)) for request_id, call in forwarded)
        return {request_id: progress for request_id, progress in found if progress is not None}

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Forget a task whose call is over."""
        self._calls.discard(task)

    async def drain(self, grace: float) -> None:
        """Let the calls under way finish for `grace` seconds, end the rest, and wait until all are settled."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace)
        self.abort()
        while pending := self._calls | self._settlements:
            await asyncio.wait(pending)

    def abort(self) -> None:
        """End all calls under way; each is settled as aborted."""
        for call in self._calls:
            call.cancel()

    async def check_funds(self, request: CallRequest, key: KeyFacts) -> KeyFacts:
        """Refuse a call that must cost something and has nothing left to pay it with, before its body is read.

        The store is asked only when this gateway knows nothing of the key yet, or refused its last call for want of
        money: a call of a key with money pays nothing for this.

        Returns:
            The key's facts, which may have been read anew.

        Raises:
            Refusal: as that limit's; it is not logged yet.
            Unavailable: the key store cannot be reached.
        """
        if key.key_id in self._paying or request.endpoint in FREE_ENDPOINTS:
            return key
        for _ in range(MOST_STALE):
            catalog, now = self.key_cache.catalog, self.key_cache.now()
            if not _always_costs(catalog, key, request.endpoint, now):
                break
            try:
                await self.key_cache.ask(Afford(key, billing_month(now), catalog.version))
                break
            except Stale as stale:
                key = await self.key_cache.renewed(request.digests, stale)
        if len(self._paying) >= LARGEST_KEY_CACHE:
            self._paying.clear()
        self._paying.add(key.key_id)
        return key

    async def admit(self, request: CallRequest, key: KeyFacts) -> "Admission":
        """Judge a call and place its hold.

        Args:
            request: with its body.
            key: whose secret it brings, as last read.

        Raises:
            Refusal: nothing is held; the refusal of a known key is logged.
            Unavailable: the key store cannot be reached, or the lease is lost.
        """
        lease = self.lease
        if not lease:
            raise _no_lease()
        body: dict[str, Any] | None = None
        shape: Shape | None = None
        tagged: str | None = None
        onward = headers.read(request.dialect, request.headers)
        left_out: tuple[str, ...] = ()
        counted = False
        for _ in range(MOST_STALE):
            catalog = self.key_cache.catalog
            now = self.key_cache.now()
            call: Call | None = None
            try:
                if shape is None:
                    asked = request.dialect, request.endpoint, request.model, request.headers
                    if isinstance(request.body, LargeBody):
                        shape, tagged = await request.body.inspect(*asked)
                    else:
                        reading = read_request(*asked, request.body)
                        body, shape, tagged = reading.body, reading.shape, reading.tags
                call, model, bound = _price(request, key, now, shape, onward, tagged, catalog)
                left_out = ()
                if unknown := shape.unknown + onward.unknown:
                    if not counted:
                        self._unknown_names.count(unknown, model.upstream, key.plan_id, now)
                        counted = True
                    left_out = judge_unknown(unknown, model, catalog.plans[key.plan_id])
                    call.unknown_fields = not left_out
                admitted = await self._hold(call, bound, catalog, lease)
                return Admission(call, shape, body, onward, left_out, model, bound, admitted)
            except Stale as stale:
                key = await self.key_cache.renewed(request.digests, stale)
            except Refusal as error:
                refusal = await self.told(error, key, shape.model) if shape else error
                if refusal.status == 402:
                    self._paying.discard(key.key_id)
                if gone := (shape.left_out if shape else ()) + left_out:
                    refusal.headers[LEFT_OUT] = named(gone)
                stream, name = (shape.stream, shape.model) if shape else (False, None)
                endpoint = request.endpoint
                call = call or Call(request.id, key, now, request.dialect, endpoint, stream, name, tags=tagged)
                try:
                    await self._log_refusal(call, refusal, None if refusal.type in JUDGED_IN_STORE else catalog.version)
                except Stale as stale:
                    key = await self.key_cache.renewed(request.digests, stale)
                else:
                    raise refusal from None
        raise Unavailable("The key or the catalog changes faster than this call can be judged.")

    async def told(self, refusal: Refusal, key: KeyFacts, model: str) -> Refusal:
        """Return what a caller is told of a model that cannot be called.

        Of one that no plan of the organisation has that is only that there is none, or whoever guesses names would
        learn what other tenants have. The store is asked whatever the refusal is: its pace tells nothing either.

        Raises:
            Unavailable: the key store cannot be reached.
        """
        if refusal.type in _OF_MODELS and not await self.key_cache.org_has(key.org_id, model):
            return _no_such_model(model)
        return refusal

    async def _hold(self, call: Call, bound: HoldBound, catalog: Catalog, lease: int) -> Admitted:
        self.open_calls[call.request_id] = None
        try:
            admitted = await self.key_cache.ask(Admit(call, bound, catalog.version, self.instance_id))
        except BaseException:
            # Should the store have admitted it after all, without our learning of it, the lease's heartbeat finds out.
            self.open_calls.pop(call.request_id, None)
            raise
        if self.lease != lease:
            # Somebody may have swept the hold already, though a new lease may hold by now. If not, the heartbeat does.
            self.open_calls.pop(call.request_id, None)
            raise _no_lease()
        return admitted

    async def _log_refusal(self, call: Call, refusal: Refusal, catalog_version: int | None) -> None:
        await self._refusal_log.log(Refuse(call, refusal, self.key_cache.now(), catalog_version))

    async def log_unread(self, request: CallRequest, key: KeyFacts, refusal: Refusal) -> None:
        """Log the refusal of a call of a known key whose body was not read."""
        call = Call(request.id, key, self.key_cache.now(), request.dialect, request.endpoint, stream=False)
        await self._log_refusal(call, refusal, None)

    def settle(self, call: Call, ending: Ending) -> "asyncio.Future[Receipt | None]":
        """Charge a call; keeps trying while the key store cannot be reached.

        It goes on whether or not anybody waits for the future, or cancels it. The future raises Unavailable if the
        store stayed away for a minute: then the hold will be written off.
        """
        settled: asyncio.Future[Receipt | None] = asyncio.get_running_loop().create_future()

        def tried(first: "asyncio.Future[Receipt | None]") -> None:
            error = first.exception()
            if isinstance(error, Unavailable):
                _run(self._settle_again(call, ending, settled), self._settlements)
            elif error is not None:
                self._not_settled(call, error, settled)
            else:
                self._settled(call, first.result(), settled)
            self._settlements.discard(first)

        first = self.key_cache.ask(Settle(call, ending))
        self._settlements.add(first)
        first.add_done_callback(tried)
        return settled

    async def _settle_again(self, call: Call, ending: Ending, settled: "asyncio.Future[Receipt | None]") -> None:
        give_up = time.monotonic() + SETTLE_PATIENCE
        lease = self.lease
        pause = 0.05
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
            try:
                receipt = await self.key_cache.ask(Settle(call, ending)) or await self._settled_before(
                    call, ending, lease
                )
            except Unavailable as error:
                if time.monotonic() > give_up:
                    logger.error("call %s could not be settled: no key store", call.request_id)  # noqa: TRY400
                    self._not_settled(call, error, settled)
                    return
            except Exception as error:  # noqa: BLE001 - given to whoever waits
                self._not_settled(call, error, settled)
                return
            else:
                self._settled(call, receipt, settled)
                return

    async def _settled_before(self, call: Call, ending: Ending, lease: int) -> Receipt | None:
        """Return the receipt of a settlement that was committed though the store could not say so; None if it was not.

        Its row may be in the ledger by now, which is not read here. But while the lease lasted nobody else could have
        written the call off.
        """
        receipt = await self.key_cache.receipt(call.request_id)
        if receipt is None and lease and lease == self.lease:
            receipt = Receipt(cost_of(call, ending))
        return receipt

    def _settled(self, call: Call, receipt: Receipt | None, settled: "asyncio.Future[Receipt | None]") -> None:
        self.open_calls.pop(call.request_id, None)
        if receipt is None:
            logger.warning("lost settlement: call %s had been written off as abandoned", call.request_id)
        elif receipt.overrun:
            logger.warning("overrun: call %s cost more than its hold by %s USD", call.request_id, usd(receipt.overrun))
        if not settled.done():
            settled.set_result(receipt)

    def _not_settled(self, call: Call, error: BaseException, settled: "asyncio.Future[Receipt | None]") -> None:
        self.unsettled.add(call.request_id)
        self.open_calls.pop(call.request_id, None)
        if not settled.done():
            settled.set_exception(error)


def _no_lease() -> Unavailable:
    return Unavailable("The gateway's lease has ended.")


def _run(work: Coroutine[Any, Any, T], running: "set[Any]") -> "asyncio.Task[T]":
    task = asyncio.get_running_loop().create_task(work)
    running.add(task)  # the event loop itself keeps only a weak reference
    task.add_done_callback(running.discard)
    return task


@dataclass(slots=True)
class Admission:
    """A call that may go on, with all that was fixed about it.

    Args:
        left_out: names of unknown fields, betas and headers that do not go on.
    """

    call: Call
    shape: Shape
    body: dict[str, Any] | None  # a large one is elsewhere
    onward: Onward
    left_out: tuple[str, ...]
    model: ModelFacts
    bound: HoldBound
    admitted: Admitted

    def gauge(self) -> Gauge:
        """Return what the call's usage is measured by."""
        shape, model = self.shape, self.model
        choices = shape.choices if shape.output else 0
        return Gauge(
            held_input=self.bound.input_tokens,
            held_output=choices * (self.admitted.output_bound + shape.beside),
            window=model.context_window * shape.inputs,
            most_output=choices * (model.max_output + shape.beside),
            likely_input=lambda: likely_input(model.dialect, shape, model.upstream_model),
            long_cache=shape.long_cache,
        )


PATH_OF = {
    Dialect.OPENAI: "POST /v1/chat/completions (or /v1/responses, /v1/embeddings)",
    Dialect.ANTHROPIC: "POST /v1/messages",
    Dialect.GEMINI: "POST /v1beta/models/{model}:generateContent",
}
"""Where to call a model of each dialect, for the caller who came to another's path."""

_OF_MODELS = {RefusalType.MODEL_NOT_FOUND, RefusalType.WRONG_DIALECT, RefusalType.MODEL_NOT_ALLOWED}


def _no_such_model(name: str) -> Refusal:
    return Refusal(
        RefusalType.MODEL_NOT_FOUND,
        f"There is no model {name[:128]!r} here. GET /v1/models lists what this API key may call.",
        param="model",
    )


def find_model(
    catalog: Catalog, name: str, dialect: Dialect, key: KeyFacts, now: datetime
) -> tuple[ModelFacts, DatedSheet]:
    """Return the model that a caller named, and its price at `now` (UTC).

    Raises:
        Refusal: model_not_found, wrong_dialect or model_not_allowed, in this order; `CallLifecycle.told` says what
            of it the caller may learn.
    """
    model = catalog.models.get(name)
    dated = model.price(now) if model else None
    if model is None or dated is None:
        raise _no_such_model(name)
    if model.dialect is not dialect:
        raise Refusal(
            RefusalType.WRONG_DIALECT,
            f"The model '{name}' speaks the {model.dialect} dialect: call {PATH_OF[model.dialect]}.",
            param="model",
        )
    plan = catalog.plans.get(key.plan_id)
    key.check_model(name, plan.models if plan else frozenset())
    return model, dated


def _always_costs(catalog: Catalog, key: KeyFacts, endpoint: str, now: datetime) -> bool:
    """Whether there is a model that the key may call, and none whose calls may be free."""
    plan = catalog.plans.get(key.plan_id)
    if plan is None:
        return False
    prices = [
        dated.sheet
        for name in key.callable_models(plan.models)
        if (dated := catalog.models[name].price(now)) is not None
    ]
    output = endpoint not in EMBEDDING_ENDPOINTS
    return plan.multiplier > 0 and bool(prices) and all(sheet.always_costs(output=output) for sheet in prices)


def _price(
    request: CallRequest,
    key: KeyFacts,
    now: datetime,
    shape: Shape,
    onward: Onward,
    tagged: str | None,
    catalog: Catalog,
) -> tuple[Call, ModelFacts, HoldBound]:
    """Fix what a call is charged by: model, price, multiplier; and bound what it can cost."""
    model, dated = find_model(catalog, shape.model, request.dialect, key, now)
    if shape.window or onward.window:
        check_window(shape, onward, model)
    check_text(shape, model.id, model.context_window)
    plan = catalog.plans[key.plan_id]  # it includes the model, or `find_model` would have refused
    call = Call(
        request_id=request.id,
        key=key,
        received_at=now,
        dialect=request.dialect,
        endpoint=request.endpoint,
        stream=shape.stream,
        model=shape.model,
        upstream=model.upstream,
        price_id=dated.id,
        sheet=None if shape.free else dated.sheet,
        multiplier=plan.multiplier,
        tags=tagged,
    )
    if shape.free:
        return call, model, HoldBound(0, 0, 0, explicit=True)
    bound = hold_bound(
        model.dialect,
        shape,
        dated.sheet,
        plan.multiplier,
        context_window=model.context_window,
        default_output=model.default_output,
        model=model.upstream_model,
    )
    return call, model, bound
