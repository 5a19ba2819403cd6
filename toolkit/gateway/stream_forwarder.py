"""The way of one admitted call whose answer is a stream: passed on as it comes, and settled before its end is sent."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.types import Message

from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import Outcome
from toolkit.core.upstream_traits import OnLeave
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.silence import sign_of_life
from toolkit.dialects.sse import Framing, data_of, element_of, framing_of, name_of
from toolkit.gateway import upstream_errors
from toolkit.gateway.byte_blocks import BLOCK
from toolkit.gateway.call_failures import refusal_of, written_off
from toolkit.gateway.forwarder import FAILURES, Forwarder
from toolkit.gateway.interrupted_calls import usage_of_stream
from toolkit.gateway.request import caller_leaves
from toolkit.gateway.responses import EVENTS, JSON
from toolkit.gateway.settled_call import LEFT, TOO_LONG, milliseconds_since
from toolkit.gateway.upstream_exchange import Exchange, UpstreamBroke, UpstreamSlow

STEP = 8 * 1024
"""Bytes of a stream that are looked at in one step of the loop."""

READ_ON = f"{LEFT}, and the answer was read on for its usage"
"""What cuts a call that may go on without its caller, as its row says it."""

GRACE = 2.0
"""Seconds beyond the time limit of a call in which it may end by itself."""

AFTER_END = 15.0
"""Seconds of silence, when an answer is complete, after which nothing more is waited for: usage may come late."""

AFTER_ANNOUNCED_END = 3.0
"""Seconds that a provider has for whatever it sends behind the end that it has announced, which waits for it."""

MOST_AFTER_END = 1024 * 1024
"""Bytes that are kept back: who sends more behind the end of an answer is not listened to."""

MOST_EARLY = 64 * 1024
"""Bytes without news that wait for the first event."""


class StreamForwarder(Forwarder):
    """The way of a call that asks for a stream; should the answer come whole, it is passed on whole."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Forward the call and pass its answer on as it comes."""
        self._sse = True
        self._patient = True
        """Whether the head waits for the first event: an error can be answered with its status until then."""
        self._head: list[tuple[bytes, bytes]] | None = None
        self._early: list[bytes] = []
        self._streaming = False
        """Whether the head of a stream was sent."""
        self._speaking = False
        self._over = False
        self._heard = 0.0
        self._left = False
        self._comes_whole = False
        return super().run()

    async def _end_begun(self, refusal: Refusal) -> None:
        """Say by an event what ends the stream."""
        if self._streaming:
            await self._send_error_event(refusal)

    async def _way(self) -> None:
        """Forward a call and pass its answer on as it comes; when the caller leaves, do as the upstream's row says."""
        leaving = asyncio.ensure_future(caller_leaves(self._receive))
        passing = self._lifecycle.start(self._pass_stream())
        try:
            if not await self._ends(passing, leaving):
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
                    self._leave_place()
        if goes_on:
            return
        if not passing.cancelled():
            passing.result()
        elif not self._begun and not left:
            await self._say_cut()

    def _goes_on(self, passing: asyncio.Task[None]) -> bool:
        """Have an answer that its caller has left read on for its usage; False if it is to be cancelled instead."""
        exchange, meter = self._exchange, self._meter
        if exchange is None or not exchange.asked or exchange.status >= 300 or passing.done() or self._settlement:
            return False
        # Where all has been made, and only its usage or the rest of its bytes are to come, there is nothing to stop.
        is_made = self._comes_whole or (meter is not None and meter.complete)
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

    async def _ends(self, passing: asyncio.Future[None], leaving: asyncio.Future[None]) -> bool:
        """Wait until the call is over or its caller has left; False if neither comes within the time limit.

        The limit is for a caller who neither reads nor leaves: a hold is not kept for ever. Silence is broken.
        """
        clock = self._clock = asyncio.get_running_loop().time
        until = clock() + self._upstreams.call_timeout + GRACE
        silence = self._upstreams.stream_silence
        self._heard = clock()
        while (now := clock()) < until:
            quiet = min(self._heard + silence, until)
            if now < quiet:
                done, _ = await asyncio.wait(
                    {passing, leaving}, timeout=quiet - now, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return True
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self._break_silence()
                self._heard = clock()
        return False

    async def _break_silence(self) -> None:
        """Send the head that waits, for what was asked for if the upstream has said nothing; and a sign of life."""
        if not self._begun:
            self._patient = False
            if self._head is None:
                self._sse = not self._may_be_array
                self._head = self._headers(EVENTS if self._sse else JSON)
            await self._begin()
        sign = sign_of_life(self._request.dialect, sse=self._sse)
        if sign and self._streaming and not self._speaking and not self._over:
            await self._send({"type": "http.response.body", "body": sign, "more_body": True})

    async def _pass_stream(self) -> None:
        meter: StreamMeter | None = None
        try:
            while True:
                try:
                    with await self._open() as exchange:
                        await exchange.send()
                        self._drop_body(exchange)
                        if exchange.status >= 300:
                            await self._upstream_error(exchange)
                            return
                        framing = framing_of(await exchange.peek())
                        self._first_byte_ms = milliseconds_since(self._started)
                        if framing is None and exchange.content_type.lower().startswith(EVENTS):
                            framing = Framing.EVENTS
                        if framing is not Framing.EVENTS and not (framing is Framing.ARRAY and self._is_gemini):
                            self._odd.append("the answer came whole, though a stream was asked for")
                            self._comes_whole = True
                            await self._answer_whole(exchange)
                            return
                        meter = self._meter = self._begin_meter(exchange, sse=framing is Framing.EVENTS)
                        await self._pass_events(exchange, meter)
                    await self._finish_stream(meter)
                    return
                except FAILURES as error:
                    self._take_next_way(error)
                    meter = None
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
            self._leave_place()

    def _take_next_way(self, error: Exception) -> None:
        super()._take_next_way(error)
        self._meter, self._comes_whole, self._early = None, False, []
        if not self._begun:
            self._head = None

    def _begin_meter(self, exchange: Exchange, *, sse: bool) -> StreamMeter:
        """Begin to read a stream, and make its head if none was sent.

        Raises:
            UpstreamBroke: a head was sent for the other form.
        """
        if sse is self._may_be_array:
            self._odd.append("the stream came in another form than was asked for")
            if self._begun:
                raise UpstreamBroke("the stream came in another form than its head says, which was sent before")
        self._sse = sse
        kind = self._kind_of(exchange, EVENTS if sse else JSON)
        if not self._begun:
            self._head = self._headers(kind)
        return self._dialect.Meter(
            self._shape.endpoint, sse=sse, drop_usage=not self._shape.usage_asked, choices=self._shape.choices
        )

    async def _pass_events(self, exchange: Exchange, meter: StreamMeter) -> None:
        """Pass a stream on. An answer that has come to its end is whole, whatever breaks behind it."""
        if not self._patient:
            await self._begin()
        try:
            while chunk := await exchange.read():
                await self._pass_chunk(meter, chunk)
                if self._left and self._is_told:
                    return
                if meter.complete or meter.failed:
                    is_over = meter.ended or meter.failed
                    exchange.expect_end(AFTER_ANNOUNCED_END if is_over else AFTER_END, at_once=is_over)
                    if meter.held_size > MOST_AFTER_END:
                        self._odd.append("much came after its end")
                        return
        except (UpstreamBroke, UpstreamSlow) as error:
            if not (meter.complete or meter.failed):
                raise
            self._odd.append(f"after its end {error}")

    async def _pass_chunk(self, meter: StreamMeter, chunk: bytes) -> None:
        """Pass on what has come; it may be thousands of events, so others go on between."""
        for start in range(0, len(chunk), STEP):
            if start:
                await asyncio.sleep(0)
            pieces = meter.feed(chunk[start : start + STEP])  # bytes that are not cut are not copied
            if pieces and (self._begun or not self._waits_for_news(pieces)):
                await self._send_piece(b"".join(pieces))
            while meter.heavy is not None:
                await self._pass_heavy(meter, meter.heavy)

    def _waits_for_news(self, pieces: list[bytes]) -> bool:
        """Keep pieces that say nothing for the first event: an error may follow, which is answered with its status."""
        if not self._patient or not self._sse or any(map(_is_news, pieces)):
            return False
        self._early += pieces
        self._patient = sum(map(len, self._early)) < MOST_EARLY
        return self._patient

    async def _pass_heavy(self, meter: StreamMeter, piece: bytes) -> None:
        """Have an event read elsewhere that would take long here, and pass it on."""
        for passed in meter.resume(*await self._answers.stand_in(piece, self._call.key.org_id, sse=self._sse)):
            for start in range(0, len(passed), BLOCK):
                await self._send_piece(passed[start : start + BLOCK])

    @property
    def _may_be_array(self) -> bool:
        """Whether the caller expects a JSON array."""
        return self._is_gemini and not self._request.wants_sse

    async def _begin(self) -> None:
        """Send the head of a stream, if there is one to send, and what has waited for the first event."""
        if self._head is not None and not self._begun:
            self._begun = self._streaming = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._head})
            early, self._early = b"".join(self._early), []
            if early:
                await self._send({"type": "http.response.body", "body": early, "more_body": True})

    async def _send_piece(self, data: bytes, *, more: bool = True) -> None:
        self._speaking = True
        self._over = not more
        if not self._begun:
            await self._begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._heard = self._clock()
        self._speaking = False

    async def _send_whole(self, status: int, headers: list[tuple[bytes, bytes]], blocks: list[bytes]) -> None:
        """Send a whole answer; behind the head of a stream as its only event."""
        if not self._streaming:
            await super()._send_whole(status, headers, blocks)
            return
        # White space alone has line ends in JSON, and one would end the event's data.
        lines = [block.translate(_NO_LINE_ENDS) for block in blocks]
        before, behind = (b"data: ", b"\n\n") if self._sse else (b"[", b"]")
        for block in (before, *lines):
            await self._send_piece(block)
        await self._send_piece(behind, more=False)

    async def _finish_stream(self, meter: StreamMeter) -> None:
        """The body ended cleanly: settle, then send what was kept back, or an error event if the end was missing."""
        meter.end()
        while meter.heavy is not None:
            await self._pass_heavy(meter, meter.heavy)
        kept = meter.finish()
        if self._left:
            self._settle_cut()
            return
        self._odd += meter.oddities
        if not meter.complete and not meter.failed:
            await self._break_stream(meter, UpstreamBroke("the stream ended without its last event"))
            return
        outcome, refusal, error = Outcome.COMPLETED, None, None
        if meter.failed:
            outcome, refusal = Outcome.UPSTREAM_ERROR, RefusalType.UPSTREAM_ERROR
            piece = meter.failure
            error = self._told(200, piece)
            retry = self._exchange.retry if self._exchange else {}
            found = upstream_errors.of_piece(piece, retry, self._shape.model, self._scrubber(), sse=self._sse)
            if not self._begun:
                metered = usage_of_stream(self._admission, meter)
                self._note_if_billed(upstream_errors.event_in(piece, sse=self._sse))
                if metered is None:
                    told = data_of(piece) if self._sse else element_of(piece)
                    found = await self._unless_of_ours(found, told or b"")
                await self._fail(found, metered, response_id=meter.response_id, error=error)
                return
            self._note_incident(found.fault, error)
            self._note_if_billed(upstream_errors.event_in(piece, sse=self._sse))
            kept = [self._fit(piece, meter) for piece in kept]
        metered = usage_of_stream(self._admission, meter)
        receipt = await self._settle(outcome, 200, metered, refusal=refusal, response_id=meter.response_id, error=error)
        if receipt is None:
            await self._send_error_event(written_off())
        else:
            if not (meter.ended or meter.failed):
                kept.append(meter.missing_end)
            await self._send_piece(b"".join(kept), more=False)

    def _fit(self, piece: bytes, meter: StreamMeter) -> bytes:
        """Return a piece of a stream that the upstream ended with an error, fit for the caller."""
        fit = upstream_errors.in_piece(piece, self._shape.model, self._scrubber(), sse=self._sse)
        return self._error_event(meter, refusal_of(UpstreamBroke(), sent=True)) if fit is None else fit

    async def _break_stream(self, meter: StreamMeter, error: Exception) -> None:
        if not self._begun:
            await self._no_answer(error)
            return
        self._note_broken(error)
        refusal = refusal_of(error, sent=True)
        await self._settle(
            Outcome.UPSTREAM_ERROR,
            200,
            usage_of_stream(self._admission, meter),
            refusal=refusal.type,
            response_id=meter.response_id,
            error=str(error),
        )
        await self._send_error_event(refusal)

    def _told_status(self, status: int) -> int:
        return 200 if self._streaming else status

    async def _refuse(self, refusal: Refusal) -> None:
        """Say what is wrong, by an event if the head was sent."""
        if self._streaming:
            await self._send_error_event(refusal)
        else:
            await super()._refuse(refusal)

    def _error_event(self, meter: StreamMeter | None, refusal: Refusal) -> bytes:
        return self._dialect.error_event(
            refusal,
            self._request.id,
            sse=self._sse,
            endpoint=self._shape.endpoint,
            started=meter is not None and meter.started,
        )

    async def _send_error_event(self, refusal: Refusal) -> None:
        await self._send_piece(self._error_event(self._meter, refusal), more=False)


_NO_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def _is_news(piece: bytes) -> bool:
    """Whether an event says more than that somebody is at work: comments and pings do not."""
    return bool(data_of(piece)) and name_of(piece) != b"ping"


async def _to_nobody(message: Message) -> None:
    """Send nothing: the caller has left."""
