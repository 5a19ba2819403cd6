"""Several ways for one call: which upstream and which credential serves it first, which may then, which just failed.

A call goes another way only while it is certain that nobody has made anything of it (`upstream_rules`), so that it is
never paid twice. What has failed is set aside for a while, so that not each call tries it first: it comes last then,
but it comes. When the while is over, the next call that asks a provider tries it, and the others wait for what becomes
of that.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
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
    """

    upstream: str
    credential: str = ""
    model: str = ""


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
        self._aside: dict[Place, tuple[float, float]] = {}
        """Since when, and until when."""

    def of_call(
        self, model: ModelFacts, key_id: str, tags: str | None, now: datetime, *, rewritable: bool
    ) -> "CallWays | None":
        """Return the ways of a call of a model that several upstreams serve; None if none of them has a price.

        Args:
            model: the model.
            key_id: who calls.
            tags: of the call; one conversation stays at one upstream.
            now: UTC; at which the prices hold.
            rewritable: whether the body can be written for each upstream. One that cannot is sent on only to where it
                is the same.
        """
        ranked = [Priced(way, dated) for way in self._ranked(model, key_id, tags) if (dated := way.price(now))]
        if not ranked:
            return None
        first = ranked[0].model
        if not rewritable:
            ranked = [
                way
                for way in ranked
                if way.model.upstream_model == first.upstream_model and way.model.traits == first.traits
            ]
        return CallWays(self, ranked)

    def set_aside(self, place: Place, seconds: float) -> None:
        """Say that something has just failed."""
        now = self.clock()
        self._aside[place] = now, now + min(seconds, LONGEST)

    def asked(self, model: ModelFacts) -> None:
        """Say that a model is asked for: what was set aside and may be tried again is tried by this call alone."""
        now = self.clock()
        for place in _places(model) if self._aside else ():
            since, until = self._aside.get(place, (now, LONGEST + now))
            if until <= now:
                self._aside[place] = since, now + BRIEFLY

    def answered(self, model: ModelFacts, asked_at: float) -> None:
        """Say that a call has been answered: what was set aside before it was asked is no more."""
        for place in _places(model) if self._aside else ():
            since, _ = self._aside.get(place, (asked_at, 0.0))
            if since < asked_at:
                del self._aside[place]

    def _ranked(self, model: ModelFacts, key_id: str, tags: str | None) -> list[ModelFacts]:
        caller = f"{key_id}/{session}" if (session := _session(tags)) else key_id
        ranked = [way.model for way in sorted(model.ways, key=lambda way: way.rank(key_id, caller))]
        if not self._aside:
            return ranked
        now = self.clock()
        good: list[ModelFacts] = []
        aside: list[ModelFacts] = []
        for way in ranked:
            until = max(self._aside.get(place, (0.0, 0.0))[1] for place in _places(way))
            (aside if until > now else good).append(way)
        return good + aside


@dataclass(slots=True)
class CallWays:
    """The ways of one call.

    Args:
        ways: what is known of all.
        left: the one that it takes, and those that it may take after it.
        asked_at: when it took it, by the clock of `ways`.
    """

    ways: Ways
    left: list[Priced]
    asked_at: float = 0.0

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
        del self.left[0]
        self.asked_at = self.ways.clock()
        return self.left[0]

    def _failed(self, place: Place, seconds: float) -> None:
        """Set something aside, and leave out of this call's ways what it concerns, too."""
        self.ways.set_aside(place, seconds)
        self.left[1:] = [way for way in self.left[1:] if place not in _places(way.model)]

    def asked(self) -> None:
        """Say that the present way is asked now."""
        self.ways.asked(self.left[0].model)

    def refused(self, found: CallersError) -> None:
        """Set the present way aside for the error that it answered with, unless the caller is to blame for it."""
        model = self.left[0].model
        if found.fault is not None:
            of_one = model.upstream_model if found.fault in OF_ONE_MODEL else ""
            self._failed(Place(model.upstream, model.credential_env, of_one), UNTIL_MENDED)
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
        if isinstance(error, NotConfigured):
            self._failed(Place(model.upstream, model.credential_env), UNTIL_MENDED)
        else:
            self._failed(Place(model.upstream, model=model.upstream_model if reached else ""), BRIEFLY)

    def answered(self) -> None:
        """Say that the present way has answered the call."""
        self.ways.answered(self.left[0].model, self.asked_at)


def _places(model: ModelFacts) -> tuple[Place, ...]:
    """Return all that can be set aside and concerns a model at an upstream."""
    upstream, credential, name = model.upstream, model.credential_env, model.upstream_model
    return (
        Place(upstream),
        Place(upstream, credential),
        Place(upstream, "", name),
        Place(upstream, credential, name),
    )


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
