"""Several ways for one call: which upstream and which credential serves it first, which may then, which just failed.

A call goes another way only while it is certain that nobody has made anything of it (`upstream_rules`), so that it is
never paid twice. What has failed is set aside for a while, so that not each call tries it first: it comes last then,
but it comes. When the while is over, the next call that asks a provider tries it, and the others wait for what becomes
of that; if nothing does, since the request was nonsense or its caller left, the next one tries.

What a provider answers may come of the very request: of its endpoint, which another one may have, or of nonsense in it.
So it counts for the calls of its organisation alone until another one meets it, too, and a free call's failure says
nothing of other endpoints. Only a provider that nobody can reach is set aside for all at once.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from toolkit.core.account_fault import OF_ONE_MODEL
from toolkit.core.catalog import DatedSheet, ModelFacts
from toolkit.gateway.upstream_errors import CallersError
from toolkit.gateway.upstream_exchange import NotConfigured
from toolkit.gateway.upstream_rules import ABSENT, LIMITED

BRIEFLY = 10.0
"""Seconds for which what failed is set aside, unless the provider says when to try again."""

UNTIL_MENDED = 60.0
"""Seconds for which a provider is set aside that does not serve our account: somebody has to mend that."""

LONGEST = 3_600.0
"""Seconds; a provider that wants to be left alone for longer is tried all the same."""


class Place(NamedTuple):
    """What is set aside.

    Args:
        upstream: its name.
        credential: the name of the credential that is concerned; empty if all are.
        model: the upstream's name of the model that is concerned; empty if all are.
        endpoint: that is concerned; empty if all are.
    """

    upstream: str
    credential: str = ""
    model: str = ""
    endpoint: str = ""


class Aside(NamedTuple):
    """For whom something is set aside, and how long.

    Args:
        since, until: by the clock of `Ways`.
        org_id: the only organisation that has met it; None if it is set aside for all.
    """

    since: float
    until: float
    org_id: str | None

    def concerns(self, caller: "Caller") -> bool:
        """Whether a caller's calls go elsewhere."""
        return self.org_id is None or self.org_id == caller.org_id


class Caller(NamedTuple):
    """Who makes a call, and of which endpoint.

    Args:
        org_id, key_id: whose it is.
        tags: of the call; one conversation stays at one upstream.
        endpoint: of the dialect.
        is_free: whether its calls cost nothing, and so say nothing of those that do.
    """

    org_id: str
    key_id: str
    tags: str | None
    endpoint: str
    is_free: bool


class Priced(NamedTuple):
    """A model as one of its upstreams serves it, and the price that this call has there."""

    model: ModelFacts
    dated: DatedSheet


class AnotherWay(Exception):
    """An upstream answered with an error, and the call goes on to another one; says what it answered."""


class Ways:
    """What one gateway process knows of upstreams that have failed.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._aside: dict[Place, Aside] = {}

    def of_call(self, model: ModelFacts, caller: Caller, now: datetime, *, rewritable: bool) -> "CallWays | None":
        """Return the ways of a call of a model that several upstreams serve; None if none of them has a price.

        Args:
            model: the model.
            caller: who calls.
            now: UTC; at which the prices hold.
            rewritable: whether the body can be written for each upstream. One that cannot is sent on only to where it
                is the same.
        """
        ranked = [Priced(way, dated) for way in self._ranked(model, caller) if (dated := way.price(now))]
        if not ranked:
            return None
        first = ranked[0].model
        if not rewritable:
            ranked = [
                way
                for way in ranked
                if way.model.upstream_model == first.upstream_model and way.model.traits == first.traits
            ]
        return CallWays(self, caller, ranked)

    def set_aside(self, place: Place, seconds: float, org_id: str | None = None) -> None:
        """Say that something has just failed.

        Args:
            place: what.
            seconds: for how long.
            org_id: whose call may have brought it about; it is set aside for all if another one's has, too, or if None.
        """
        now = self.clock()
        known = self._aside.get(place)
        if known is not None and known.until > now and known.org_id != org_id:
            org_id = None
        self._aside[place] = Aside(now, now + min(seconds, LONGEST), org_id)

    def set_aside_now(self) -> dict[Place, Aside]:
        """Return what is set aside at this moment; may be asked from any thread."""
        now = self.clock()
        return {place: aside for place, aside in self._aside.copy().items() if aside.until > now}

    def asked(self, model: ModelFacts, caller: Caller) -> dict[Place, Aside]:
        """Say that a model is asked for: what was set aside and may be tried again is tried by this call alone.

        Returns:
            What it tries, for `ended`.
        """
        tried: dict[Place, Aside] = {}
        now = self.clock()
        for place, aside in self._found(model, caller):
            if aside.until <= now and (place.endpoint or not caller.is_free):
                tried[place] = self._aside[place] = aside._replace(until=now + BRIEFLY)
        return tried

    def ended(self, tried: dict[Place, Aside]) -> None:
        """Say that a call is over: of what it has tried and learnt nothing about the next call finds out."""
        for place, aside in tried.items():
            if self._aside.get(place) is aside:
                self._aside[place] = aside._replace(until=self.clock())

    def answered(self, model: ModelFacts, caller: Caller, asked_at: float) -> None:
        """Say that a call has been answered: what was set aside before it was asked is no more."""
        for place, aside in self._found(model, caller):
            if aside.since < asked_at and (place.endpoint or not caller.is_free):
                del self._aside[place]

    def _found(self, model: ModelFacts, caller: Caller) -> list[tuple[Place, Aside]]:
        """Return what has failed lately and concerns a caller's calls of a model at an upstream."""
        if not self._aside:
            return []
        found = ((place, self._aside.get(place)) for place in _places(model, caller.endpoint))
        return [(place, aside) for place, aside in found if aside is not None and aside.concerns(caller)]

    def _ranked(self, model: ModelFacts, caller: Caller) -> list[ModelFacts]:
        key_id, session = caller.key_id, _session(caller.tags)
        conversation = f"{key_id}/{session}" if session else key_id
        ranked = [way.model for way in sorted(model.ways, key=lambda way: way.rank(key_id, conversation))]
        if not self._aside:
            return ranked
        now = self.clock()
        good: list[ModelFacts] = []
        last: list[ModelFacts] = []
        for way in ranked:
            is_aside = any(aside.until > now for _, aside in self._found(way, caller))
            (last if is_aside else good).append(way)
        return good + last


@dataclass(slots=True)
class CallWays:
    """The ways of one call.

    Args:
        ways: what is known of all.
        caller: who makes it.
        left: the one that it takes, and those that it may take after it.
        asked_at: when it took it, by the clock of `ways`.
        tried: what had failed before, and this call finds out about.
    """

    ways: Ways
    caller: Caller
    left: list[Priced]
    asked_at: float = 0.0
    tried: dict[Place, Aside] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked_at = self.ways.clock()

    @property
    def has_more(self) -> bool:
        """Whether there is a way after the present one."""
        return len(self.left) > 1

    @property
    def has_another_upstream(self) -> bool:
        """Whether another upstream, and not only another credential, is among the ways after the present one."""
        return any(way.model.upstream != self.left[0].model.upstream for way in self.left[1:])

    def take_next(self) -> Priced:
        """Leave the present way for the next one."""
        self.ended()
        del self.left[0]
        self.asked_at = self.ways.clock()
        return self.left[0]

    def _failed(self, place: Place, seconds: float, *, for_all: bool = False) -> None:
        """Set something aside, and leave out of this call's ways what it concerns, too."""
        caller = self.caller
        if caller.is_free and not for_all:
            place = place._replace(endpoint=caller.endpoint)
        self.ways.set_aside(place, seconds, None if for_all else caller.org_id)
        self.left[1:] = [way for way in self.left[1:] if place not in _places(way.model, caller.endpoint)]

    def asked(self) -> None:
        """Say that the present way is asked now."""
        self.tried |= self.ways.asked(self.left[0].model, self.caller)

    def ended(self) -> None:
        """Say that the call is over on the present way, for whatever reason."""
        if self.tried:
            self.ways.ended(self.tried)
            self.tried = {}

    def refused(self, found: CallersError) -> None:
        """Set the present way aside for the error that it answered with, unless the caller is to blame for it."""
        model = self.left[0].model
        if found.fault in OF_ONE_MODEL:  # which other endpoints may have, or be permitted
            self._failed(
                Place(model.upstream, model.credential_env, model.upstream_model, self.caller.endpoint), UNTIL_MENDED
            )
        elif found.fault is not None:
            self._failed(Place(model.upstream, model.credential_env), UNTIL_MENDED)
        elif found.rule is ABSENT:  # of one endpoint, and the others may be there
            self.left[1:] = [way for way in self.left[1:] if way.model.upstream != model.upstream]
        elif found.rule is LIMITED:  # providers count by account and model
            place = Place(model.upstream, model.credential_env, model.upstream_model)
            self._failed(place, _wait(found.refusal.headers) or BRIEFLY)
        elif not found.rule.is_callers:
            place = Place(model.upstream, model=model.upstream_model)
            self._failed(place, _wait(found.refusal.headers) or BRIEFLY)

    def broke(self, error: Exception, *, reached: bool) -> None:
        """Set the present way aside for having given no answer, or half of one.

        Args:
            error: what happened.
            reached: whether the upstream had got the request.
        """
        model = self.left[0].model
        if reached and isinstance(error, NotConfigured):  # a redirect, which may be of one path
            self._failed(Place(model.upstream, endpoint=self.caller.endpoint), UNTIL_MENDED)
        elif reached:
            self._failed(Place(model.upstream, model=model.upstream_model), BRIEFLY)
        elif isinstance(error, NotConfigured):
            self._failed(Place(model.upstream, model.credential_env), UNTIL_MENDED, for_all=True)
        else:
            self._failed(Place(model.upstream), BRIEFLY, for_all=True)

    def answered(self) -> None:
        """Say that the present way has answered the call."""
        self.ways.answered(self.left[0].model, self.caller, self.asked_at)


def _places(model: ModelFacts, endpoint: str) -> list[Place]:
    """Return all that can be set aside and concerns an endpoint of a model at an upstream."""
    upstream = model.upstream
    return [
        Place(upstream, credential, name, of)
        for credential in ("", model.credential_env)
        for name in ("", model.upstream_model)
        for of in ("", endpoint)
    ]


def _session(tags: str | None) -> str | None:
    """Return the conversation that a call belongs to, if it says so."""
    found = json.loads(tags).get("session") if tags else None
    return found if isinstance(found, str) else None


def _wait(headers: dict[str, str]) -> float | None:
    """Return how many seconds a provider wants to be left alone, if it says so; RFC 9110, 10.2.3.

    Args:
        headers: as `upstream_exchange.Exchange.retry` lets them through.
    """
    if "retry-after-ms" in headers:
        return float(headers["retry-after-ms"]) / 1_000
    said = headers.get("retry-after", "")
    try:
        return float(said)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
