"""An admitted call as it is forwarded: how far it came, and what it is charged, once.

What must not be lost (a settlement) goes on whether or not anybody waits for it, so that a caller who hangs up cannot
cancel a charge.
"""

import asyncio
import time
from typing import Any

from toolkit.billing.call import Ending
from toolkit.billing.leases import Asked, Progress
from toolkit.billing.metering import Metered
from toolkit.billing.rules import Receipt
from toolkit.core.account_fault import OF_ONE_MODEL, AccountFault
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import Outcome
from toolkit.core.scrub import Scrubber
from toolkit.core.service_tier import NOT_SAID, Served, word
from toolkit.core.usage import text_tokens
from toolkit.core.wording import counted
from toolkit.dialects import MODULES
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.sse import Framing
from toolkit.gateway.added_fields import Trial
from toolkit.gateway.admission import Admission
from toolkit.gateway.incidents import Incidents
from toolkit.gateway.interrupted_calls import usage_of_told, usage_when_cut, usage_when_failed
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.request import CallRequest
from toolkit.gateway.upstream_errors import is_billed
from toolkit.gateway.upstream_exchange import Exchange

CLIENT_CLOSED = 499
"""Status in the request log of a caller who left before the answer (as nginx writes it)."""

LONGEST_DETAIL = 500

TIER_HEADER = b"x-gemini-service-tier"
"""Where Gemini's API says which tier served; Google, "Priority inference"."""

STOPPED = "the gateway was stopped"
LEFT = "the caller left"
TOO_LONG = "the call took longer than its time limit"
"""What cuts a call, as its row says it."""

BILLED = "the provider bills this error"


class SettledCall:
    """An admitted call: its exchange with the upstream, and its settlement."""

    def __init__(
        self, lifecycle: CallLifecycle, incidents: Incidents, request: CallRequest, admission: Admission
    ) -> None:
        self._lifecycle = lifecycle
        self._incidents = incidents
        self._request = request
        self._call = admission.call
        self._shape = admission.shape
        self._admission = admission
        self._dialect = MODULES[request.dialect]
        self._started = time.perf_counter()
        self._first_byte_ms: int | None = None
        self._settlement: asyncio.Future[Receipt | None] | None = None
        self._exchange: Exchange | None = None
        self._credential = ""
        self._cut = STOPPED
        self._meter: StreamMeter | None = None
        self._served = NOT_SAID
        self._trial: Trial | None = None
        """What has been left out of the call because the upstream refuses it, once something has."""
        self._odd: list[str] = []
        """What was odd about the answer, in words."""

    def progress(self, least_age: float) -> Progress | None:
        """Return how far the call has come; None if it was not forwarded, or is younger than `least_age` seconds."""
        ways = self._admission.ways
        way = ways.left[0] if ways is not None else None
        exchange, meter = self._exchange, self._meter
        if exchange is None or not exchange.sent or time.perf_counter() - self._started < least_age:
            return None
        if ways is not None and ways.left[0] is not way:  # it goes another way at this moment; another thread asks
            return None
        asked = Asked(way.model.upstream, way.model.credential_env, way.dated.id) if way is not None else None
        return Progress(meter.response_id if meter else None, exchange.received, asked)

    @property
    def _sent(self) -> bool:
        return self._exchange is not None and self._exchange.sent

    @property
    def _is_gemini(self) -> bool:
        return self._request.dialect is Dialect.GEMINI

    def _settle(
        self,
        outcome: Outcome,
        status: int,
        metered: Metered | None,
        *,
        refusal: RefusalType | None = None,
        response_id: str | None = None,
        error: str | None = None,
    ) -> "asyncio.Future[Receipt | None]":
        """Charge the call, once: whoever comes second gets the first's receipt.

        It goes on whether or not anybody waits for it.
        """
        if self._settlement is None:
            unbilled = metered.unbilled if metered else None
            if unbilled or self._odd:
                error = "; ".join(filter(None, (error, unbilled, *self._odd)))
            ending = Ending(outcome, self._lifecycle.key_cache.now(), status)
            ending.usage = metered.usage if metered and not unbilled else None
            ending.refusal = refusal
            ending.response_id = response_id
            ending.first_byte_ms = self._first_byte_ms
            ending.duration_ms = milliseconds_since(self._started)
            ending.error = error[:LONGEST_DETAIL] if error else None
            ending.resent = self._exchange is not None and self._exchange.resent
            ending.served = self._what_served()
            if metered and (metered.doubt or metered.overrun_reason):
                ending.usage_doubt, ending.overrun_reason = metered.doubt, metered.overrun_reason
                if metered.provider_usage:
                    ending.provider_usage = self._scrubber().for_operators(metered.provider_usage.encode())
            if outcome is Outcome.COMPLETED and self._trial is not None:
                self._trial.succeeded()
            if outcome is Outcome.COMPLETED:
                if not self._shape.free:
                    model, at = self._admission.model, ending.ended_at
                    self._incidents.answered(model.upstream, model.upstream_model, at, model.credential_env)
                if self._admission.ways is not None:
                    self._admission.ways.answered()
            elif self._admission.ways is not None:
                self._admission.ways.ended()
            self._settlement = self._lifecycle.settle(self._call, ending)
        return self._settlement

    def _ensure_settled(self, error: Exception | None = None) -> None:
        """Should the way have ended in one that nobody thought of, what is known to have been made is charged."""
        if self._settlement is not None:
            return
        try:
            metered = usage_when_failed(self._admission, self._exchange, self._meter)
        except Exception:  # noqa: BLE001 - what reads the answer may be what is broken, and the hold must end
            metered = None
        why = "the gateway failed on this call" + (f" ({type(error).__name__})" if error else "")
        self._settle(Outcome.UPSTREAM_ERROR, 500, metered, refusal=RefusalType.INTERNAL_ERROR, error=why)

    def _settle_cut(self) -> None:
        """Charge what was produced until the call was cut. Nobody is left to wait for it."""
        metered = usage_when_cut(self._admission, self._exchange, self._meter)
        response_id = self._meter.response_id if self._meter else None
        error = self._cut
        if metered and metered.unseen:
            error += f"; {counted(metered.unseen, 'token')} of output reckoned by time, for nobody saw it"
        self._settle(Outcome.ABORTED, CLIENT_CLOSED, metered, response_id=response_id, error=error)

    def _what_served(self) -> Served:
        served = self._served if self._meter is None else self._meter.served
        if served.tier is None and self._exchange and (tier := word(self._exchange.header(TIER_HEADER))):
            return Served(tier, served.geo)
        return served

    def _metered_whole(self, answer: dict[str, Any], size: int, left_out: int, failed: bool) -> Metered | None:
        """Return what a whole answer used, of whose bytes some are left out; None if it failed, and is not billed."""
        gauge, endpoint = self._admission.gauge(), self._shape.endpoint
        report = self._dialect.usage_of(endpoint, answer)
        if failed and (report is None or not (report.usage.input_tokens or report.usage.output_tokens)):
            return usage_of_told(self._admission, answer)
        if report is None:  # by its text, as of a stream; by its size where the text stands where nobody knows
            return gauge.unreported(text_tokens(self._dialect.text_bytes_of(endpoint, answer) + left_out or size))
        return gauge.reported(report, lambda: text_tokens(self._dialect.text_bytes_of(endpoint, answer) + left_out))

    def _metered_broken(self, exchange: Exchange, framing: Framing | None) -> Metered | None:
        """Return what an answer costs that had begun and is not whole: what has come of it had been made."""
        if framing is None or self._shape.free or (framing is Framing.ARRAY and not self._is_gemini):
            return None
        return self._admission.gauge().unreported(text_tokens(exchange.received))

    def _note_incident(self, fault: AccountFault | None, told: str) -> None:
        """Note for operators that the upstream does not serve our account, if it is that.

        Not that it does not have, or permit, a free endpoint of a model: calls that cost go on, and would end it.
        """
        if fault is not None and not (self._shape.free and fault in OF_ONE_MODEL):
            model, now = self._admission.model, self._lifecycle.key_cache.now()
            words = self._scrubber().text(told)
            self._incidents.refused(model.upstream, fault, model.upstream_model, words, now, model.credential_env)

    def _note_if_billed(self, event: dict[str, Any] | None) -> None:
        """Note in the row that the provider bills the error that an event tells, or an answer of status 200."""
        if event is not None and not self._shape.free and is_billed(event, self._admission.model.traits):
            self._odd.append(BILLED)

    def _note_broken(self, error: Exception) -> None:
        """Note, where other upstreams serve the model, too, that this one gave no answer, or half of one."""
        if self._admission.ways is not None and not isinstance(error, Refusal):
            self._admission.ways.broke(error, reached=self._exchange is not None and self._exchange.reached)

    def _scrubber(self) -> Scrubber:
        return Scrubber(self._credential, self._admission.model.base_url)

    def _told(self, status: int, words: bytes) -> str:
        """Return an upstream's error as the operator reads it."""
        return f"upstream {self._call.upstream} answered {status}: {self._scrubber().for_operators(words)}"


def milliseconds_since(start: float) -> int:
    """Return whole milliseconds since a reading of `time.perf_counter`."""
    return round((time.perf_counter() - start) * 1000)
