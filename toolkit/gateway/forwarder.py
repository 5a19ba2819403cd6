"""The way of one admitted call: forward it, pass its answer on, have it settled.

What must not be lost (a whole answer, a settlement) runs in a task of its own, so that a caller who hangs up
cannot cancel a charge. The last byte of an answer is sent only after its charge has been committed.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Send

from toolkit.billing.call import Ending
from toolkit.billing.leases import Progress
from toolkit.billing.metering import Metered
from toolkit.billing.rules import Receipt
from toolkit.core.account_fault import AccountFault
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType, Unavailable
from toolkit.core.money import usd
from toolkit.core.policy import Outcome
from toolkit.core.scrub import Scrubber
from toolkit.core.service_tier import NOT_SAID, Served, word
from toolkit.core.usage import text_tokens
from toolkit.core.wording import counted
from toolkit.dialects import MODULES
from toolkit.dialects.fields import named
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.reading import tells_error
from toolkit.dialects.sse import Framing, framing_of
from toolkit.gateway import upstream_errors
from toolkit.gateway.admission import Admission
from toolkit.gateway.answer_reading import AnswerReader, WholeAnswer
from toolkit.gateway.call_failures import CallFailed, internal_error, refusal_of, stopped, written_off
from toolkit.gateway.incidents import Incidents
from toolkit.gateway.interrupted_calls import usage_of_stream, usage_when_cut, usage_when_failed
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.request import CallRequest
from toolkit.gateway.responses import (
    EVENTS,
    JSON,
    LEFT_OUT,
    PINNED,
    head,
    hold_id,
    send_blocks,
    send_refusal,
    send_whole,
)
from toolkit.gateway.upstream_exchange import Exchange, NotConfigured, UpstreamBroke, UpstreamSlow
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.gateway.upstream_request import upstream_request

logger = logging.getLogger("keydesk.gateway")

CLIENT_CLOSED = 499
"""Status in the request log of a caller who left before the answer (as nginx writes it)."""

LONGEST_DETAIL = 500

TIER_HEADER = b"x-gemini-service-tier"
"""Where Gemini's API says which tier served; Google, "Priority inference"."""

STOPPED = "the gateway was stopped"
LEFT = "the caller left"
TOO_LONG = "the call took longer than its time limit"
"""What cuts a call, as its row says it."""


class Forwarder:
    """The way of one admitted call: forward it, watch its answer, settle it."""

    def __init__(
        self,
        lifecycle: CallLifecycle,
        upstreams: UpstreamPool,
        answers: AnswerReader,
        incidents: Incidents,
        request: CallRequest,
        admission: Admission,
        receive: Receive,
        send: Send,
    ) -> None:
        self._lifecycle = lifecycle
        self._upstreams = upstreams
        self._answers = answers
        self._incidents = incidents
        self._request = request
        self._call = admission.call
        self._shape = admission.shape
        self._admission = admission
        self._receive = receive
        self._send = send
        self._dialect = MODULES[request.dialect]
        self._started = time.perf_counter()
        self._first_byte_ms: int | None = None
        self._settlement: asyncio.Future[Receipt | None] | None = None
        self._exchange: Exchange | None = None
        self._credential = ""
        self._begun = False
        self._cut = STOPPED
        self._meter: StreamMeter | None = None
        self._served = NOT_SAID
        self._odd: list[str] = []
        """What was odd about the answer, in words."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Forward the call and answer the caller."""
        self._lifecycle.open_calls[self._call.request_id] = self
        return self._way()

    def progress(self, least_age: float) -> Progress | None:
        """Return how far the call has come; None if it was not forwarded, or is younger than `least_age` seconds."""
        exchange = self._exchange
        if exchange is None or not exchange.sent or time.perf_counter() - self._started < least_age:
            return None
        return Progress(self._meter.response_id if self._meter else None, exchange.received)

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

    async def _failed(self, error: Exception) -> CallFailed:
        """End a call on which we have failed; return what is raised for the log, and for a caller without a head."""
        self._ensure_settled(error)
        refusal = internal_error(sent=self._sent)
        if self._settlement is not None:
            with contextlib.suppress(Unavailable):
                await self._settlement
        if self._begun:
            await self._end_begun(refusal)
        return CallFailed(refusal, self._extra())

    async def _end_begun(self, refusal: Refusal) -> None:
        """End an answer that had begun: a whole one is cut."""

    # -- forwarding ---------------------------------------------------------------------------------------------

    async def _open(self) -> Exchange:
        request = await upstream_request(self._request, self._admission, self._upstreams)
        self._credential = request.credential
        self._exchange = self._upstreams.exchange(request.url, request.headers, request.body)
        return self._exchange

    def _drop_body(self) -> None:
        if isinstance(self._request.body, LargeBody):
            self._request.body.drop()

    @property
    def _sent(self) -> bool:
        return self._exchange is not None and self._exchange.sent

    async def _way(self) -> None:
        """Forward a call and send its answer in one piece. Runs to its end even when the caller has left.

        It is cancelled only when the gateway stops and its grace is over.
        """
        task = self._lifecycle.enter()
        try:
            with await self._open() as exchange:
                await exchange.send()
                self._drop_body()
                self._first_byte_ms = milliseconds_since(self._started)
                if exchange.status >= 300:
                    await self._upstream_error(exchange)
                else:
                    await self._answer_whole(exchange)
        except asyncio.CancelledError:
            # Not by the caller: one who leaves cancels nothing here.
            self._settle_cut()
            if not self._begun:
                await self._say_cut()
        except (UpstreamBroke, UpstreamSlow, Refusal) as error:
            await self._no_answer(error)
        except Exception as error:
            raise await self._failed(error) from error
        finally:
            self._ensure_settled()
            self._lifecycle.leave(task)

    async def _answer_whole(self, exchange: Exchange) -> None:
        answer = self._answers.whole(self._call.key.org_id)
        try:
            try:
                await answer.take_in(exchange)
            except (UpstreamBroke, UpstreamSlow) as error:
                await self._no_answer(error, self._metered_broken(exchange, framing_of(answer.beginning)))
                return
            parsed, left_out = await self._answers.parse(answer, self._call.key.org_id)
            if parsed is not None:
                await self._pass_whole(exchange, answer, parsed, left_out)
                return
            framing = framing_of(answer.beginning)
            if framing is Framing.EVENTS or (framing is Framing.ARRAY and self._is_gemini):
                await self._pass_stream_as_whole(exchange, answer, sse=framing is Framing.EVENTS)
            else:
                why = UpstreamBroke(f"it answered {exchange.status} with what is no JSON object")
                await self._no_answer(why, self._metered_broken(exchange, framing))
        finally:
            answer.drop()

    async def _pass_whole(self, exchange: Exchange, answer: WholeAnswer, parsed: dict[str, Any], left_out: int) -> None:
        endpoint = self._shape.endpoint
        failed = tells_error(parsed)  # some servers say 200 and mean an error
        self._served = self._dialect.served_by(parsed)
        metered = None if self._shape.free else self._metered_whole(parsed, answer.size, left_out, failed)
        response_id = self._dialect.response_id_of(parsed)
        told = self._told(exchange.status, answer.beginning) if failed else None
        if told:
            found = upstream_errors.of_event(parsed, exchange.retry, self._shape.model, self._scrubber())
            if not self._dialect.text_bytes_of(endpoint, parsed):
                await self._fail(found, metered, response_id=response_id, error=told)
                return
            self._note_incident(found.fault, told)
        kind = self._kind_of(exchange, JSON)
        receipt = await self._settle(
            Outcome.UPSTREAM_ERROR if failed else Outcome.COMPLETED,
            exchange.status,
            metered,
            refusal=RefusalType.UPSTREAM_ERROR if failed else None,
            response_id=response_id,
            error=told,
        )
        blocks = [upstream_errors.in_answer(parsed, self._shape.model, self._scrubber())] if failed else answer.blocks
        await self._send_paid(exchange, receipt, kind, blocks)

    async def _pass_stream_as_whole(self, exchange: Exchange, answer: WholeAnswer, *, sse: bool) -> None:
        """Charge a stream that was not asked for by what it says, and pass it on as what it is."""
        self._odd.append("a stream came, though a whole answer was asked for")
        meter = self._dialect.Meter(self._shape.endpoint, sse=sse, choices=self._shape.choices)
        kept = await self._answers.watch(answer, meter, self._call.key.org_id, sse=sse)
        if kept is None:  # too large to be read here
            metered: Metered | None = self._admission.gauge().unreported(text_tokens(answer.size))
        else:
            metered = usage_of_stream(self._admission, meter)
            self._served = meter.served
            self._odd += meter.oddities
        if self._shape.free:
            metered = None
        if meter.failed:
            piece = next((piece for piece in kept or () if b"error" in piece), b"")
            found = upstream_errors.of_piece(piece, exchange.retry, self._shape.model, self._scrubber(), sse=sse)
            error = self._told(exchange.status, piece)
            await self._fail(found, metered, response_id=meter.response_id, error=error)
        elif meter.complete or kept is None:
            kind = self._kind_of(exchange, EVENTS if sse else JSON)
            receipt = await self._settle(Outcome.COMPLETED, exchange.status, metered, response_id=meter.response_id)
            await self._send_paid(exchange, receipt, kind, answer.blocks)
        else:
            await self._no_answer(UpstreamBroke("the stream ended without its last event"), metered)

    async def _send_paid(self, exchange: Exchange, receipt: Receipt | None, kind: bytes, blocks: list[bytes]) -> None:
        """Send an answer that is settled; nobody reads what was written off."""
        if receipt is None:
            await self._refuse(written_off())
            return
        headers = self._headers(kind)
        headers.append((b"x-cost-usd", usd(receipt.cost).encode()))
        await self._send_whole(exchange.status, headers, blocks)

    async def _send_whole(self, status: int, headers: list[tuple[bytes, bytes]], blocks: list[bytes]) -> None:
        self._begun = True
        await send_blocks(self._send, status, headers, blocks)

    @property
    def _is_gemini(self) -> bool:
        return self._request.dialect is Dialect.GEMINI

    def _kind_of(self, exchange: Exchange, proper: bytes) -> bytes:
        """Return the content type of an answer: as the upstream says, unless it is another one."""
        said = exchange.content_type
        if said.lower().startswith(proper):
            return said
        named = f"as {said[:80].decode('latin-1')}" if said else "without a content type"
        self._odd.append(f"{proper.decode()} came {named}")
        return proper

    def _metered_broken(self, exchange: Exchange, framing: Framing | None) -> Metered | None:
        """Return what an answer costs that had begun and is not whole: what has come of it had been made."""
        if framing is None or self._shape.free or (framing is Framing.ARRAY and not self._is_gemini):
            return None
        return self._admission.gauge().unreported(text_tokens(exchange.received))

    # -- endings ------------------------------------------------------------------------------------------------

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
            ending = Ending(
                outcome=outcome,
                ended_at=self._lifecycle.key_cache.now(),
                status=status,
                usage=metered.usage if metered and not unbilled else None,
                refusal=refusal,
                response_id=response_id,
                first_byte_ms=self._first_byte_ms,
                duration_ms=milliseconds_since(self._started),
                error=error[:LONGEST_DETAIL] if error else None,
                resent=self._exchange is not None and self._exchange.resent,
                served=self._what_served(),
            )
            if metered and (metered.doubt or metered.overrun_reason):
                ending.usage_doubt, ending.overrun_reason = metered.doubt, metered.overrun_reason
                if metered.provider_usage:
                    ending.provider_usage = self._scrubber().for_operators(metered.provider_usage.encode())
            if outcome is Outcome.COMPLETED and not self._shape.free:
                model = self._admission.model
                self._incidents.answered(model.upstream, model.upstream_model, ending.ended_at)
            self._settlement = self._lifecycle.settle(self._call, ending)
        return self._settlement

    def _what_served(self) -> Served:
        served = self._served if self._meter is None else self._meter.served
        if served.tier is None and self._exchange and (tier := word(self._exchange.header(TIER_HEADER))):
            return Served(tier, served.geo)
        return served

    def _settle_cut(self) -> None:
        """Charge what was produced until the call was cut. Nobody is left to wait for it."""
        metered = usage_when_cut(self._admission, self._exchange, self._meter)
        response_id = self._meter.response_id if self._meter else None
        error = self._cut
        if metered and metered.unseen:
            error += f"; {counted(metered.unseen, 'token')} of output reckoned by time, for nobody saw it"
        self._settle(Outcome.ABORTED, CLIENT_CLOSED, metered, response_id=response_id, error=error)

    def _metered_whole(self, answer: dict[str, Any], size: int, left_out: int, failed: bool) -> Metered | None:
        """Return what a whole answer used, of whose bytes some are left out; None if it failed and reports nothing."""
        gauge, endpoint = self._admission.gauge(), self._shape.endpoint
        report = self._dialect.usage_of(endpoint, answer)
        if failed and (report is None or not (report.usage.input_tokens or report.usage.output_tokens)):
            return None
        if report is None:  # by its text, as of a stream; by its size where the text stands where nobody knows
            return gauge.unreported(text_tokens(self._dialect.text_bytes_of(endpoint, answer) + left_out or size))
        return gauge.reported(report, lambda: text_tokens(self._dialect.text_bytes_of(endpoint, answer) + left_out))

    async def _say_cut(self) -> None:
        too_long = self._cut == TOO_LONG
        refusal = refusal_of(UpstreamSlow(TOO_LONG), sent=True) if too_long else stopped(sent=self._sent)
        await self._refuse(refusal)

    async def _no_answer(self, error: Exception, metered: Metered | None = None) -> None:
        """The upstream gave nothing, which costs nothing; or a part of a whole answer, which is charged."""
        if isinstance(error, NotConfigured):
            self._note_incident(AccountFault.UNCONFIGURED, str(error))
            logger.error("call %s could not be forwarded: %s", self._request.id, error)
        refusal = refusal_of(error, sent=self._sent, charged=metered is not None)
        status = self._told_status(refusal.status)
        receipt = await self._settle(Outcome.UPSTREAM_ERROR, status, metered, refusal=refusal.type, error=str(error))
        if metered and receipt:
            refusal.headers["x-cost-usd"] = usd(receipt.cost)
        await self._refuse(refusal)

    async def _upstream_error(self, exchange: Exchange) -> None:
        """The upstream answered with an error: nothing is charged; it is passed through or explained."""
        answer = await exchange.read_error(upstream_errors.LARGEST_ERROR)
        found = upstream_errors.of_answer(exchange.status, answer, exchange.retry, self._shape.model, self._scrubber())
        await self._fail(found, None, error=self._told(exchange.status, answer))

    async def _fail(
        self,
        found: upstream_errors.CallersError,
        metered: Metered | None,
        *,
        error: str,
        response_id: str | None = None,
    ) -> None:
        """Settle a call that the upstream answered with an error, and tell the caller."""
        refusal = found.refusal
        self._note_incident(found.fault, error)
        status = self._told_status(refusal.status)
        await self._settle(
            Outcome.UPSTREAM_ERROR, status, metered, refusal=refusal.type, response_id=response_id, error=error
        )
        await self._send_error(found)

    def _note_incident(self, fault: AccountFault | None, told: str) -> None:
        """Note for operators that the upstream does not serve our account, if it is that."""
        if fault is not None:
            model, now = self._admission.model, self._lifecycle.key_cache.now()
            self._incidents.refused(model.upstream, fault, model.upstream_model, self._scrubber().text(told), now)

    def _told_status(self, status: int) -> int:
        """Return the status that the caller gets, for the row."""
        return status

    async def _refuse(self, refusal: Refusal) -> None:
        asked = self._request
        self._begun = True
        await send_refusal(self._send, refusal, asked.id, asked.dialect, self._extra(), asked=asked.headers)

    async def _send_error(self, found: upstream_errors.CallersError) -> None:
        refusal = found.refusal
        if found.body is None or self._begun:
            await self._refuse(refusal)
        else:
            self._begun = True
            headers = head(self._request.id, self._request.dialect, JSON, self._extra() | refusal.headers)
            await send_whole(self._send, refusal.status, headers, found.body)

    def _scrubber(self) -> Scrubber:
        return Scrubber(self._credential, self._admission.model.base_url)

    def _told(self, status: int, words: bytes) -> str:
        """Return an upstream's error as the operator reads it."""
        return f"upstream {self._call.upstream} answered {status}: {self._scrubber().for_operators(words)}"

    def _extra(self) -> dict[str, str]:
        extra = {"x-hold-id": hold_id(self._request.id)}
        if self._admission.admitted.fitted:
            extra["x-max-tokens-fitted"] = str(self._admission.admitted.output_bound)
        if left_out := self._shape.left_out + self._admission.left_out:
            extra[LEFT_OUT] = named(left_out)
        if (tier := self._admission.pinned_tier) is not None:
            extra[PINNED] = f"service_tier={tier}"
        return extra

    def _headers(self, content_type: bytes) -> list[tuple[bytes, bytes]]:
        return head(self._request.id, self._request.dialect, content_type, self._extra())


def milliseconds_since(start: float) -> int:
    """Return whole milliseconds since a reading of `time.perf_counter`."""
    return round((time.perf_counter() - start) * 1000)
