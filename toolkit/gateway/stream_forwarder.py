"""The way of one admitted call whose answer is a stream: passed on as it comes, and settled before its end is sent."""

import asyncio

from starlette.types import Message

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import Outcome
from toolkit.core.upstream_traits import OnLeave
from toolkit.dialects.meter import StreamMeter
from toolkit.gateway import upstream_errors
from toolkit.gateway.byte_blocks import BLOCK
from toolkit.gateway.call_failures import refusal_of, written_off
from toolkit.gateway.forwarder import LEFT, TOO_LONG, Forwarder, milliseconds_since
from toolkit.gateway.interrupted_calls import usage_of_stream
from toolkit.gateway.responses import JSON
from toolkit.gateway.upstream_exchange import UpstreamBroke, UpstreamSlow

STEP = 8 * 1024
"""Bytes of a stream that are looked at in one step of the loop."""

PATIENCE = 15.0
"""Seconds that the head of a stream waits for its first event: an error can be answered with its status until then."""

READ_ON = f"{LEFT}, and the answer was read on for its usage"
"""What cuts a call that may go on without its caller, as its row says it."""

GRACE = 2.0
"""Seconds beyond the time limit of a call in which it may end by itself."""


class StreamForwarder(Forwarder):
    """The way of a call that asks for a stream; should the answer come whole, it is passed on whole."""

    _sse = True
    _patient = True
    _head: list[tuple[bytes, bytes]] | None = None
    _left = False

    async def _end_begun(self, refusal: Refusal) -> None:
        """Say by an event what ends the stream."""
        if self._meter is not None:
            await self._send_error_event(self._meter, refusal)

    async def _way(self) -> None:
        """Forward a call and pass its answer on as it comes; when the caller leaves, do as the upstream's row says."""
        leaving = asyncio.ensure_future(self._caller_leaves())
        passing = self._lifecycle.start(self._pass_stream())
        try:
            # The limit is for a caller who neither reads nor leaves: a hold is not kept for ever.
            limit = self._upstreams.call_timeout + GRACE
            patience = min(PATIENCE, limit)
            if not await _first_of(passing, leaving, patience):
                self._patient = False
                await self._begin()
                if not await _first_of(passing, leaving, limit - patience):
                    self._cut = TOO_LONG
        finally:
            left = leaving.done()
            leaving.cancel()
            goes_on = left and self._goes_on(passing)
            if not goes_on:
                if left:
                    self._cut = LEFT
                passing.cancel()
                await asyncio.wait({passing})
                if self._settlement is None:  # it was cancelled before its first step
                    self._settle_cut()
        if goes_on:
            return
        if not passing.cancelled():
            passing.result()
        elif not self._begun and not left:
            await self._say_cut()

    def _goes_on(self, passing: asyncio.Task[None]) -> bool:
        """Have an answer that its caller has left read on for its usage; False if it is to be cancelled instead."""
        exchange, meter = self._exchange, self._meter
        if exchange is None or not exchange.sent or exchange.status >= 300 or passing.done() or self._settlement:
            return False
        # Where all has been made, and only its usage is to come, there is nothing to stop.
        is_made = meter is not None and meter.complete
        if (is_made and self._is_told) or not (is_made or self._admission.model.traits.on_leave is OnLeave.READ_ON):
            return False
        if not self._lifecycle.reading_on.take(self._call.key.key_id, passing):
            return False
        self._cut, self._left, self._send = READ_ON, True, _to_nobody
        return True

    @property
    def _is_told(self) -> bool:
        """Whether the provider has said what a stream used that has come to its end."""
        meter = self._meter
        return meter is not None and meter.complete and meter.report is not None and not meter.report.has_gaps

    async def _caller_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _pass_stream(self) -> None:
        meter: StreamMeter | None = None
        try:
            with await self._open() as exchange:
                await exchange.send()
                self._drop_body()
                if exchange.status >= 300:
                    await self._upstream_error(exchange)
                    return
                kind = exchange.content_type.lower()
                self._sse = kind.startswith(b"text/event-stream")
                if not self._sse and not (self._may_be_array and kind.startswith(JSON)):
                    await self._answer_whole(exchange)
                    return
                meter = self._meter = self._dialect.Meter(
                    self._shape.endpoint,
                    sse=self._sse,
                    drop_usage=not self._shape.usage_asked,
                    choices=self._shape.choices,
                )
                self._head = self._headers(exchange.content_type)
                if not self._patient:
                    await self._begin()
                while chunk := await exchange.read():
                    if self._first_byte_ms is None:
                        self._first_byte_ms = milliseconds_since(self._started)
                    await self._pass_chunk(meter, chunk)
                    if self._left and self._is_told:
                        break
            await self._finish_stream(meter)
        except asyncio.CancelledError:
            # What the upstream made until now is charged, unless its end is being settled.
            self._settle_cut()
            raise
        except (UpstreamBroke, UpstreamSlow, ValueError, Refusal) as error:
            if meter is None:
                await self._no_answer(error)
            else:
                await self._break_stream(meter, error)
        except Exception as error:
            raise await self._failed(error) from error
        finally:
            self._ensure_settled()

    async def _pass_chunk(self, meter: StreamMeter, chunk: bytes) -> None:
        """Pass on what has come; it may be thousands of events, so others go on between."""
        for start in range(0, len(chunk), STEP):
            if start:
                await asyncio.sleep(0)
            if pieces := meter.feed(chunk[start : start + STEP]):  # bytes that are not cut are not copied
                await self._send_piece(b"".join(pieces))
            while meter.heavy is not None:
                await self._pass_heavy(meter, meter.heavy)

    async def _pass_heavy(self, meter: StreamMeter, piece: bytes) -> None:
        """Have an event read elsewhere that would take long here, and pass it on."""
        for passed in meter.resume(*await self._answers.stand_in(piece, self._call.key.org_id, sse=self._sse)):
            for start in range(0, len(passed), BLOCK):
                await self._send_piece(passed[start : start + BLOCK])

    @property
    def _may_be_array(self) -> bool:
        return self._request.dialect is Dialect.GEMINI and not self._request.wants_sse

    async def _begin(self) -> None:
        """Send the head of a stream, if there is one to send: until then an error can be answered with its status."""
        if self._head is not None and not self._begun:
            self._begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._head})

    async def _send_piece(self, data: bytes, *, more: bool = True) -> None:
        await self._begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _finish_stream(self, meter: StreamMeter) -> None:
        """The body ended cleanly: settle, then send what was kept back, or an error event if the end was missing."""
        meter.end()
        while meter.heavy is not None:
            await self._pass_heavy(meter, meter.heavy)
        kept = meter.finish()
        if self._left:
            self._settle_cut()
            return
        if not meter.complete and not meter.failed:
            await self._break_stream(meter, UpstreamBroke("the stream ended without its last event"))
            return
        outcome, refusal, error = Outcome.COMPLETED, None, None
        if meter.failed:
            outcome, refusal = Outcome.UPSTREAM_ERROR, RefusalType.UPSTREAM_ERROR
            # What is kept may begin with text of the answer, which the log must not hold.
            piece = next((piece for piece in kept if b"error" in piece), b"")
            error = self._told(200, piece)
            if not self._begun:
                await self._error_at_first(meter, piece, error)
                return
            kept = [self._fit(piece, meter) for piece in kept]
        metered = usage_of_stream(self._admission, meter)
        receipt = await self._settle(outcome, 200, metered, refusal=refusal, response_id=meter.response_id, error=error)
        if receipt is None:
            await self._send_error_event(meter, written_off())
        else:
            await self._send_piece(b"".join(kept), more=False)

    async def _error_at_first(self, meter: StreamMeter, piece: bytes, error: str) -> None:
        """The stream's first event is an error: it is answered as if the upstream had given it a status."""
        retry = self._exchange.retry if self._exchange else {}
        found = upstream_errors.of_piece(piece, retry, self._shape.model, self._scrubber(), sse=self._sse)
        await self._settle(
            Outcome.UPSTREAM_ERROR,
            found.refusal.status,
            usage_of_stream(self._admission, meter),
            refusal=found.refusal.type,
            response_id=meter.response_id,
            error=error,
        )
        await self._send_error(found)

    def _fit(self, piece: bytes, meter: StreamMeter) -> bytes:
        """Return a piece of a stream that the upstream ended with an error, fit for the caller."""
        fit = upstream_errors.in_piece(piece, self._shape.model, self._scrubber(), sse=self._sse)
        return self._error_event(meter, refusal_of(UpstreamBroke(), sent=True)) if fit is None else fit

    async def _break_stream(self, meter: StreamMeter, error: Exception) -> None:
        if not self._begun:
            await self._no_answer(error)
            return
        refusal = refusal_of(error, sent=True)
        await self._settle(
            Outcome.UPSTREAM_ERROR,
            200,
            usage_of_stream(self._admission, meter),
            refusal=refusal.type,
            response_id=meter.response_id,
            error=str(error),
        )
        await self._send_error_event(meter, refusal)

    def _error_event(self, meter: StreamMeter, refusal: Refusal) -> bytes:
        return self._dialect.error_event(
            refusal, self._request.id, sse=self._sse, endpoint=self._shape.endpoint, started=meter.started
        )

    async def _send_error_event(self, meter: StreamMeter, refusal: Refusal) -> None:
        await self._send_piece(self._error_event(meter, refusal), more=False)


async def _to_nobody(message: Message) -> None:
    """Send nothing: the caller has left."""


async def _first_of(one: asyncio.Future[None], other: asyncio.Future[None], seconds: float) -> bool:
    """Wait until one of two has ended, and tell whether it has."""
    done, _ = await asyncio.wait({one, other}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)
