"""Fields that the gateway adds to requests and a provider does not take: its callers never learn of them.

A provider's error that names one is not the caller's: the call is made once more without it, and for a while this
process leaves it out at once. What bounds the output is called by its other name instead, for a hold counts on it. What
is set on the upstream is an operator's to change, whom a finding tells; see `field_errors` for what counts as naming.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from toolkit.core.added_fields import BOUNDS, REMEDIES, traits_without
from toolkit.core.catalog import ModelFacts
from toolkit.core.wording import listed
from toolkit.gateway.admission import Admission
from toolkit.gateway.bound_errors import Fitting, fitting
from toolkit.gateway.field_errors import blamed, key_of
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.reader_process import fields_added
from toolkit.gateway.request import CallRequest
from toolkit.gateway.upstream_errors import parsed
from toolkit.gateway.upstream_request import changes_of
from toolkit.store import refused_fields, smaller_limits
from toolkit.store.tally import Tallies

logger = logging.getLogger("keydesk.gateway")

REMEMBERED = 3600.0
"""Seconds for which a field is left out at once; then it is tried again, for the provider may have learnt it."""

MOST_LOWERED = 2
"""Times that the bound of one call is lowered: to what the model makes at most, and to what its input leaves."""

_TWO_NAMES = frozenset({"max_tokens", "max_completion_tokens"})
"""Of one bound: to leave out the one is to send the other."""

_UNLESS_UNKNOWN = BOUNDS | {"store"}
"""What is sent as it is unless the provider does not know it at all, whatever else it finds wrong with it."""

_OURS = {key_of(name) for name in REMEDIES.keys() | BOUNDS}
_PART = re.compile(r"[.\[]")


class _Learnt(NamedTuple):
    """Fields that a model of an upstream does not take, and until when that is remembered, on the monotonic clock."""

    fields: frozenset[str]
    until: float


class AddedFields:
    """What this process knows of the fields that upstreams do not take.

    Args:
        tallies: with which it is written for the audits.
        now: the present moment, UTC.
        clock: monotonic seconds.

    Attributes:
        learnt: fields by the address and the model; empty as long as nobody has refused any.
    """

    def __init__(
        self, tallies: Tallies, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tallies = tallies
        self._tally = tallies.tally(refused_fields.add)
        self._limits = tallies.tally(smaller_limits.add)
        self._told: set[smaller_limits.At] = set()
        self._now = now
        self._clock = clock
        self.learnt: dict[tuple[str, str], _Learnt] = {}

    def fitted(self, model: ModelFacts) -> ModelFacts:
        """Return a model, and that its upstream does not take what it is known not to take."""
        place = _place(model)
        learnt = self.learnt.get(place)
        if learnt is None:
            return model
        if learnt.until <= self._clock():
            del self.learnt[place]
            return model
        return without_fields(model, learnt.fields)

    def learn(self, model: ModelFacts, fields: frozenset[str]) -> None:
        """Remember that a model answers once these fields are left out, and tell the audits."""
        place = _place(model)
        known = self.learnt[place].fields if place in self.learnt else frozenset[str]()
        if fields & _TWO_NAMES:
            known -= _TWO_NAMES
        self.learnt[place] = _Learnt(known | fields, self._clock() + REMEMBERED)
        self.note(model, fields)

    def note(self, model: ModelFacts, fields: frozenset[str]) -> None:
        """Tell the audits that a model refuses these fields."""
        for name in sorted(fields):
            self._tally.count((model.upstream, model.upstream_model, name), self._now())
        logger.warning(
            "upstream %s refuses %s, which Keydesk adds for model %s; `keydesk findings` says what to do",
            model.upstream,
            listed(sorted(fields)),
            model.upstream_model,
        )
        self._tallies.hurry()

    def note_limit(self, model: ModelFacts, fits: Fitting) -> None:
        """Tell the audits that a model's limit is larger here than its upstream has it, if it is that."""
        if fits.most >= getattr(model, fits.limit):
            return
        limit = model.upstream, model.upstream_model, fits.limit, fits.most
        self._limits.count(limit, self._now())
        if limit not in self._told:
            self._told.add(limit)
            logger.warning("upstream %s has a %s of model %s of %d", limit[0], fits.limit, limit[1], fits.most)
            self._tallies.hurry()


def _place(model: ModelFacts) -> tuple[str, str]:
    return model.base_url, model.upstream_model


def without_fields(model: ModelFacts, fields: frozenset[str]) -> ModelFacts:
    """Return a model, and that its upstream does not take some fields; each is a key of `REMEDIES`."""
    return replace(model, traits=traits_without(model.traits, fields))


class FieldRefused(Exception):
    """An upstream refused a field that we added, and the call is to be sent again without it."""


class Trial:
    """A call that an upstream refused for a field, and what is left out of it.

    Args:
        known: where what is learnt is kept.
        request, admission: the call.
    """

    def __init__(self, known: AddedFields, request: CallRequest, admission: Admission) -> None:
        self._known = known
        self._request = request
        self._admission = admission
        self._left_out: frozenset[str] = frozenset()
        self._lasting: frozenset[str] = frozenset()
        self._lowered: list[Fitting] = []

    async def refused(self, answer: bytes) -> frozenset[str]:
        """Return which fields that we added an upstream's error is about; none, if the caller's request is to blame.

        Args:
            answer: the body of an error with one of `field_errors.STATUSES`.

        Raises:
            Refusal: unavailable; a large body cannot be read again.
        """
        if _OURS.isdisjoint(key_of(_top(path)) for path in blamed(parsed(answer)).all):
            return frozenset()  # and a large body need not be read again
        refused = refused_by(answer, await self._added())
        self._lasting |= refused.lasting
        return refused.fields

    async def _added(self) -> set[str]:
        request, admission = self._request, self._admission
        changes = changes_of(admission)
        if isinstance(request.body, LargeBody):
            asked = request.dialect, request.endpoint, request.model, request.headers
            return await request.body.fields_added(*asked, **changes)
        return fields_added(request.dialect, admission.shape.endpoint, admission.body or {}, **changes)

    async def lower_bound(self, answer: bytes) -> int | None:
        """Have the call sent with a bound that fits, where the one that we added is too large for the provider.

        Args:
            answer: as `refused` takes it.

        Returns:
            The bound; None if the error is about something else.

        Raises:
            Refusal: unavailable; a large body cannot be read again.
        """
        shape, admitted = self._admission.shape, self._admission.admitted
        if not shape.output or shape.output_bound is not None or len(self._lowered) >= MOST_LOWERED:
            return None
        fits = fitting(parsed(answer), admitted.output_bound)
        if fits is None or BOUNDS.isdisjoint(_top(path) for path in await self._added()):
            return None
        self._lowered.append(fits)
        self._admission.admitted = replace(admitted, output_bound=fits.bound, fitted=True)
        return fits.bound

    def leave_out(self, fields: frozenset[str]) -> bool:
        """Have the call sent without these fields; False if that has been tried, or would leave it without a bound."""
        if is_left_out_in_vain(fields, self._left_out):
            return False
        self._admission.model = without_fields(self._admission.model, fields)
        self._left_out |= fields
        return True

    def succeeded(self) -> None:
        """Remember what was left out, and tell what was too large: the upstream has taken the call without it."""
        if lasting := self._left_out & self._lasting:
            self._known.learn(self._admission.model, lasting)
        if passing := self._left_out - self._lasting:
            self._known.note(self._admission.model, passing)
        for fits in self._lowered:
            self._known.note_limit(self._admission.model, fits)


class Refused(NamedTuple):
    """Fields that were added to a request and that an upstream refuses.

    Args:
        fields: all of them.
        lasting: those that it does not take at all; the others were wrong with what this request asks for, and what
            one caller asks for must change nothing for the others.
    """

    fields: frozenset[str]
    lasting: frozenset[str]


def refused_by(answer: bytes, added: Iterable[str]) -> Refused:
    """Return which of the fields that were added to a request an upstream refuses.

    Args:
        answer: the body of an error with one of `field_errors.STATUSES`.
        added: paths, as `paths_added` has them.
    """
    found, tops = blamed(parsed(answer)), {key_of(path): _top(path) for path in added}
    unknown, unsupported, other = (frozenset(tops.get(key_of(path), "") for path in paths) - {""} for paths in found)
    # A bound may be too large for what was sent, and what is not to be stored stays so where that can be said.
    lasting = unknown | (unsupported - _UNLESS_UNKNOWN)
    return Refused(lasting | (other - _UNLESS_UNKNOWN), lasting)


def is_left_out_in_vain(fields: frozenset[str], before: frozenset[str]) -> bool:
    """Whether fields have been left out before, or cannot be: then a request would be the same, or without a bound."""
    return not REMEDIES.keys() >= fields or bool(fields & before) or fields | before >= _TWO_NAMES


def without(fields: frozenset[str]) -> str:
    """Return what a call's row says of the fields that were left out of it."""
    return f"sent again without {listed(sorted(fields))}, which the provider does not take"


def _top(path: str) -> str:
    """Return the field at the top of the request in which a path begins."""
    return _PART.split(path, maxsplit=1)[0]
