"""Judging a call before it is forwarded: whose it is, what it asks for, what it can cost at most, and its hold.

The first reason that applies is the answer; docs/gateway.md has their order.
"""

from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from toolkit.billing.call import Call
from toolkit.billing.funds import Afford
from toolkit.billing.hold_estimate import HoldBound, likely_input
from toolkit.billing.metering import Gauge
from toolkit.billing.rules import Admitted, Refuse
from toolkit.billing.state import Stale
from toolkit.core.catalog import ModelFacts
from toolkit.core.errors import Refusal, RefusalType, Unavailable
from toolkit.core.period import billing_month
from toolkit.core.policy import KeyFacts
from toolkit.dialects import headers
from toolkit.dialects.fields import named
from toolkit.dialects.headers import Onward
from toolkit.dialects.openai_fields import CHAT
from toolkit.dialects.shape import FREE_ENDPOINTS, Shape
from toolkit.gateway.call_price import OF_MODELS, always_costs, no_such_model, price_call
from toolkit.gateway.call_ways import CallWays, Ways
from toolkit.gateway.field_policy import UnknownNames, judge_hosted, judge_unknown
from toolkit.gateway.key_cache import LARGEST_KEY_CACHE, KeyCache
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.reader_process import read_request
from toolkit.gateway.refusal_log import RefusalLog
from toolkit.gateway.request import CallRequest
from toolkit.gateway.responses import LEFT_OUT
from toolkit.gateway.upstream_queues import Place, UpstreamQueues

MOST_STALE = 20
"""Times that a call is judged anew because key or catalog have changed meanwhile."""

JUDGED_IN_STORE = frozenset({RefusalType.API_KEY_QUOTA_EXCEEDED, RefusalType.BILLING_SHORTFALL})
"""Reasons that come out of a transaction in which key and catalog were current: no other one need look again."""


@dataclass(slots=True)
class Admission:
    """A call that may go on, with all that was fixed about it.

    Args:
        left_out: names of unknown fields, betas and headers that do not go on.
        model: as the upstream that is asked serves it.
        ways: the upstreams that can serve it, if there are several.
        place: at the upstream that is asked, if it takes only so many calls at once.
    """

    call: Call
    shape: Shape
    body: dict[str, Any] | None  # a large one is elsewhere
    onward: Onward
    left_out: tuple[str, ...]
    model: ModelFacts
    bound: HoldBound
    admitted: Admitted
    ways: CallWays | None = None
    place: Place | None = None

    def take_next_way(self) -> None:
        """Have the call served by the next of several upstreams, and charged by the price that it has there."""
        assert self.ways is not None  # noqa: S101 - there is a next one
        self.model, dated = self.ways.take_next()
        self.call.upstream, self.call.credential = self.model.upstream, self.model.credential_env
        self.call.price_id = dated.id
        self.call.sheet = None if self.shape.free else dated.sheet

    @property
    def pinned_tier(self) -> str | None:
        """The service tier that is asked for in the caller's stead; None where it is not."""
        return (self.shape.standard_tier or None) if self.model.traits.pin_tier else None

    @property
    def not_taken(self) -> tuple[str, ...]:
        """The caller's wish for usage, where the upstream refuses to be asked: it tells it unasked, or not at all."""
        asked = self.shape.usage_asked and self.shape.stream and self.shape.endpoint == CHAT
        return ("stream_options",) if asked and not self.model.traits.add_stream_options else ()

    def gauge(self) -> Gauge:
        """Return what the call's usage is measured by."""
        shape, model = self.shape, self.model
        choices = shape.choices if shape.output else 0
        held_output = choices * (self.admitted.output_bound + shape.beside)
        window, most_output = model.context_window * shape.inputs, choices * (model.max_output + shape.beside)
        return Gauge(
            self.bound.input_tokens,
            held_output,
            window,
            most_output,
            lambda: likely_input(model.dialect, shape, model.upstream_model),
            shape.long_cache,
            model.traits.refusal_free,
        )


class AdmissionControl:
    """Judges the calls of one gateway.

    Args:
        key_cache: keys and catalog.
        lifecycle: where admitted calls are held.
        refusal_log: where refusals of known keys go.
        unknown_names: where the names of unknown fields are counted.
        ways: which upstreams have failed lately.
        queues: where calls wait whose upstream takes only so many at once.
    """

    def __init__(
        self,
        key_cache: KeyCache,
        lifecycle: CallLifecycle,
        refusal_log: RefusalLog,
        unknown_names: UnknownNames,
        ways: Ways,
        queues: UpstreamQueues,
    ) -> None:
        self._key_cache = key_cache
        self._lifecycle = lifecycle
        self._refusal_log = refusal_log
        self._unknown_names = unknown_names
        self._ways = ways
        self._queues = queues
        self._paying: set[str] = set()
        """Keys whose last call here was not refused for want of money: theirs are judged once their body is read."""

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
            catalog, now = self._key_cache.catalog, self._key_cache.now()
            if not always_costs(catalog, key, request.endpoint, now):
                break
            try:
                await self._key_cache.ask(Afford(key, billing_month(now), catalog.version))
                break
            except Stale as stale:
                key = await self._key_cache.renewed(request.digests, stale)
        if len(self._paying) >= LARGEST_KEY_CACHE:
            self._paying.clear()
        self._paying.add(key.key_id)
        return key

    async def admit(self, request: CallRequest, key: KeyFacts, receive: Receive) -> Admission:
        """Judge a call and place its hold.

        Args:
            request: with its body.
            key: whose secret it brings, as last read.
            receive: says when its caller leaves.

        Raises:
            Refusal: nothing is held; the refusal of a known key is logged.
            Unavailable: the key store cannot be reached, or the lease is lost.
        """
        lease = self._lifecycle.current_lease()
        body: dict[str, Any] | None = None
        shape: Shape | None = None
        tagged: str | None = None
        onward = headers.read(request.dialect, request.headers)
        left_out: tuple[str, ...] = ()
        counted = False
        place: Place | None = None  # which it keeps while it is judged anew, or it would have to wait anew
        try:
            for _ in range(MOST_STALE):
                catalog = self._key_cache.catalog
                now = self._key_cache.now()
                call: Call | None = None
                try:
                    if shape is None:
                        asked = request.dialect, request.endpoint, request.model, request.headers
                        if isinstance(request.body, LargeBody):
                            shape, tagged = await request.body.inspect(*asked)
                        else:
                            reading = read_request(*asked, request.body)
                            body, shape, tagged = reading.body, reading.shape, reading.tags
                    call, model, ways, bound = price_call(request, key, now, shape, onward, tagged, catalog, self._ways)
                    left_out = ()
                    if shape.left_out:
                        judge_hosted(shape.left_out, key, catalog.plans[key.plan_id])
                    if unknown := shape.unknown + onward.unknown:
                        if not counted:
                            self._unknown_names.count(unknown, model.upstream, key.plan_id, now)
                            counted = True
                        left_out = judge_unknown(unknown, model, catalog.plans[key.plan_id])
                        call.unknown_fields = not left_out
                    if place is not None and place.upstream != model.upstream:
                        place.leave()
                        place = None
                    if place is None and model.max_connections and (ways is None or not ways.has_another_upstream):
                        # Before the hold: for a call that only waits no money is set aside.
                        at = model.upstream, model.max_connections, key.org_id, key.key_id
                        place = await self._queues.enter(*at, receive=receive)
                    admitted = await self._lifecycle.hold(call, bound, catalog, lease)
                    admission = Admission(call, shape, body, onward, left_out, model, bound, admitted, ways, place)
                    place = None  # it is the call's from here on
                    return admission
                except Stale as stale:
                    key = await self._key_cache.renewed(request.digests, stale)
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
                        await self._log_refusal(
                            call, refusal, None if refusal.type in JUDGED_IN_STORE else catalog.version
                        )
                    except Stale as stale:
                        key = await self._key_cache.renewed(request.digests, stale)
                    else:
                        raise refusal from None
        finally:
            if place is not None:
                place.leave()
        raise Unavailable("The key or the catalog changes faster than this call can be judged.")

    async def told(self, refusal: Refusal, key: KeyFacts, model: str) -> Refusal:
        """Return what a caller is told of a model that cannot be called.

        Of one that no plan of the organisation has that is only that there is none, or whoever guesses names would
        learn what other tenants have. The store is asked whatever the refusal is: its pace tells nothing either.

        Raises:
            Unavailable: the key store cannot be reached.
        """
        if refusal.type in OF_MODELS and not await self._key_cache.org_has(key.org_id, model):
            return no_such_model(model)
        return refusal

    async def _log_refusal(self, call: Call, refusal: Refusal, catalog_version: int | None) -> None:
        await self._refusal_log.log(Refuse(call, refusal, self._key_cache.now(), catalog_version))

    async def log_unread(self, request: CallRequest, key: KeyFacts, refusal: Refusal) -> None:
        """Log the refusal of a call of a known key whose body was not read."""
        call = Call(request.id, key, self._key_cache.now(), request.dialect, request.endpoint, stream=False)
        await self._log_refusal(call, refusal, None)
