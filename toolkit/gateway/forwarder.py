"""The way of one admitted call: forward it, pass its answer on, have it settled.

A whole answer is taken in by the task that serves the call, so that a caller who hangs up cannot cancel it. The last
byte of an answer is sent only after its charge has been committed.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Send

from toolkit.billing.metering import Metered
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import Outcome
from toolkit.core.service_tier import NOT_SAID
from toolkit.core.usage import text_tokens
from toolkit.dialects.reading import tells_error
from toolkit.dialects.sse import Framing, framing_of
from toolkit.gateway import upstream_errors
from toolkit.gateway.added_fields import AddedFields, FieldRefused
from toolkit.gateway.admission import Admission
from toolkit.gateway.answer_reading import AnswerReader, WholeAnswer
from toolkit.gateway.answered_call import AnsweredCall
from toolkit.gateway.call_ways import AnotherWay
from toolkit.gateway.field_errors import STATUSES
from toolkit.gateway.incidents import Incidents
from toolkit.gateway.interrupted_calls import usage_of_stream
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.request import CallRequest
from toolkit.gateway.responses import EVENTS, JSON
from toolkit.gateway.settled_call import milliseconds_since
from toolkit.gateway.token_commands import CredentialRenewed
from toolkit.gateway.upstream_exchange import Exchange, NotConfigured, UpstreamBroke, UpstreamSlow
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.gateway.upstream_request import upstream_request

FAILURES = (UpstreamBroke, UpstreamSlow, Refusal, FieldRefused, CredentialRenewed, AnotherWay)
"""With which an upstream may fail a call before it has answered."""

LONGEST_FAILURE = 200
"""Characters of what an upstream answered that stand in the row of a call that went another way."""


class Forwarder(AnsweredCall):
    """The way of one admitted call: forward it, watch its answer, settle it."""

    def __init__(
        self,
        lifecycle: CallLifecycle,
        upstreams: UpstreamPool,
        answers: AnswerReader,
        incidents: Incidents,
        added_fields: AddedFields,
        request: CallRequest,
        admission: Admission,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(lifecycle, upstreams, incidents, added_fields, request, admission, send)
        self._answers = answers
        self._receive = receive
        self._until = 0.0
        """On the loop's clock: when its time is over, however often it is sent; once it has been sent."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Forward the call and answer the caller."""
        self._lifecycle.open_calls[self._call.request_id] = self
        return self._way()

    async def _open(self) -> Exchange:
        """Prepare to ask the upstream.

        Raises:
            NotConfigured, Refusal, AnotherWay: it cannot be asked now.
        """
        if self._admission.model.max_connections and self._admission.place is None:
            await self._take_place()
        if self._added_fields.learnt and self._trial is None:
            self._admission.model = self._added_fields.fitted(self._admission.model)
        request = await upstream_request(self._request, self._admission, self._upstreams)
        self._credential = request.credential
        self._exchange = self._upstreams.exchange(
            request.url, request.headers, request.body, upstream=self._admission.model.upstream
        )
        if self._until:
            self._exchange.deadline = self._until
        if self._admission.ways is not None:
            self._admission.ways.asked()
        return self._exchange

    async def _take_place(self) -> None:
        """Take a place at one of several upstreams; only the last of them is waited for.

        Raises:
            AnotherWay: it is full.
            Refusal: it is the last, and stays full.
        """
        admission, model = self._admission, self._admission.model
        is_last = admission.ways is None or not admission.ways.has_another_upstream
        key = self._call.key
        receive = None if self._shape.stream else self._receive  # a stream ends when its caller leaves
        place = model.upstream, model.max_connections, key.org_id, key.key_id
        try:
            admission.place = await self._upstreams.queues.enter(*place, waits=is_last, receive=receive)
        except Refusal:
            if is_last:
                raise
            raise AnotherWay(f"upstream {model.upstream}: as many calls as it takes were under way") from None

    def _leave_place(self) -> None:
        """Let another call go to the upstream, if it takes only so many; the connection is free or closed by now."""
        if self._admission.place is not None:
            self._admission.place.leave()
            self._admission.place = None

    def _drop_body(self, exchange: Exchange) -> None:
        """Let go of a large body that was sent, unless it may have to be sent another way, without a field, or anew."""
        if isinstance(self._request.body, LargeBody):
            ways, status = self._admission.ways, exchange.status
            if status < 300 or (status not in {*STATUSES, 401} and (ways is None or not ways.has_more)):
                self._request.body.drop()

    def _take_next_way(self, error: Exception) -> None:
        """Go on without a field, with a new token, or another way, if the upstream can have made nothing of the call.

        Raises:
            Exception: the error, where the call ends with it.
        """
        if self._exchange is not None:
            self._until = self._exchange.deadline
        if isinstance(error, FieldRefused | CredentialRenewed):
            self._exchange, self._served = None, NOT_SAID
            return
        ways, exchange = self._admission.ways, self._exchange
        if ways is None or not ways.has_more:
            raise error
        if not isinstance(error, AnotherWay):
            if not isinstance(error, NotConfigured) and (exchange is None or exchange.reached):
                raise error
            self._note_failure(error)
            self._odd.append(f"upstream {self._call.upstream}: {error}")
        else:
            self._odd.append(str(error)[:LONGEST_FAILURE])
        left = self._call.upstream
        self._exchange, self._trial, self._served = None, None, NOT_SAID
        self._admission.take_next_way()
        if self._call.upstream != left:  # with another credential it has its place still
            self._leave_place()

    async def _way(self) -> None:
        """Forward a call and send its answer in one piece. Runs to its end even when the caller has left.

        It is cancelled only when the gateway stops and its grace is over.
        """
        task = self._lifecycle.enter()
        try:
            while True:
                try:
                    with await self._open() as exchange:
                        await exchange.send()
                        self._drop_body(exchange)
                        self._first_byte_ms = milliseconds_since(self._started)
                        if exchange.status >= 300:
                            await self._upstream_error(exchange)
                        else:
                            await self._answer_whole(exchange)
                    break
                except FAILURES as error:
                    self._take_next_way(error)
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
            self._leave_place()
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
            self._note_if_billed(parsed)
            found = upstream_errors.of_event(parsed, exchange.retry, self._shape.model, self._scrubber())
            if not self._dialect.text_bytes_of(endpoint, parsed):
                if metered is None:
                    found = await self._unless_of_ours(found, answer.beginning)
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
            piece = meter.failure
            self._note_if_billed(upstream_errors.event_in(piece, sse=sse))
            found = upstream_errors.of_piece(piece, exchange.retry, self._shape.model, self._scrubber(), sse=sse)
            error = self._told(exchange.status, piece)
            await self._fail(found, metered, response_id=meter.response_id, error=error)
        elif meter.complete or kept is None:
            kind = self._kind_of(exchange, EVENTS if sse else JSON)
            receipt = await self._settle(Outcome.COMPLETED, exchange.status, metered, response_id=meter.response_id)
            await self._send_paid(exchange, receipt, kind, answer.blocks)
        else:
            await self._no_answer(UpstreamBroke("the stream ended without its last event"), metered)

    def _kind_of(self, exchange: Exchange, proper: bytes) -> bytes:
        """Return the content type of an answer: as the upstream says, unless it is another one."""
        said = exchange.content_type
        if said.lower().startswith(proper):
            return said
        named = f"as {said[:80].decode('latin-1')}" if said else "without a content type"
        self._odd.append(f"{proper.decode()} came {named}")
        return proper
