"""An admitted call as its caller sees it: the headers of its answer, and what is told where there is none."""

import contextlib
import logging

from starlette.types import Send

from toolkit.billing.metering import Metered
from toolkit.billing.rules import Receipt
from toolkit.core.account_fault import AccountFault
from toolkit.core.errors import Refusal, Unavailable
from toolkit.core.money import usd
from toolkit.core.policy import Outcome
from toolkit.dialects.fields import named
from toolkit.gateway import field_errors, upstream_errors
from toolkit.gateway.added_fields import AddedFields, FieldRefused, Trial, without
from toolkit.gateway.admission import Admission
from toolkit.gateway.call_failures import CallFailed, internal_error, refusal_of, stopped, written_off
from toolkit.gateway.call_ways import AnotherWay
from toolkit.gateway.incidents import Incidents
from toolkit.gateway.interrupted_calls import usage_of_error
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.request import CallRequest
from toolkit.gateway.responses import (
    JSON,
    LEFT_OUT,
    PINNED,
    head,
    hold_id,
    send_blocks,
    send_refusal,
    send_whole,
)
from toolkit.gateway.settled_call import BILLED, TOO_LONG, SettledCall
from toolkit.gateway.token_commands import CredentialRenewed
from toolkit.gateway.upstream_exchange import Exchange, NotConfigured, UpstreamSlow
from toolkit.gateway.upstream_pool import UpstreamPool

logger = logging.getLogger("keydesk.gateway")


class AnsweredCall(SettledCall):
    """An admitted call, and what is sent to its caller: an answer once it is settled, or why there is none."""

    def __init__(
        self,
        lifecycle: CallLifecycle,
        upstreams: UpstreamPool,
        incidents: Incidents,
        added_fields: AddedFields,
        request: CallRequest,
        admission: Admission,
        send: Send,
    ) -> None:
        super().__init__(lifecycle, incidents, request, admission)
        self._upstreams = upstreams
        self._has_new_token = False
        self._added_fields = added_fields
        self._send = send
        self._begun = False
        """Whether anything of an answer was sent."""

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

    async def _say_cut(self) -> None:
        too_long = self._cut == TOO_LONG
        refusal = refusal_of(UpstreamSlow(TOO_LONG), sent=True) if too_long else stopped(sent=self._sent)
        await self._refuse(refusal)

    async def _no_answer(self, error: Exception, metered: Metered | None = None) -> None:
        """The upstream gave nothing, which costs nothing; or a part of a whole answer, which is charged."""
        self._note_failure(error)
        refusal = refusal_of(error, sent=self._sent, charged=metered is not None)
        status = self._told_status(refusal.status)
        receipt = await self._settle(Outcome.UPSTREAM_ERROR, status, metered, refusal=refusal.type, error=str(error))
        if metered and receipt:
            refusal.headers["x-cost-usd"] = usd(receipt.cost)
        await self._refuse(refusal)

    def _note_failure(self, error: Exception) -> None:
        """Note for operators, and for the calls that follow, that the upstream gave no answer."""
        if isinstance(error, NotConfigured):
            self._note_incident(error.fault, str(error))
            logger.error("call %s could not be forwarded: %s", self._request.id, error)
        if not isinstance(error, Refusal):  # which is ours, and nothing about the upstream
            self._note_broken(error)

    async def _upstream_error(self, exchange: Exchange) -> None:
        """The upstream answered with an error: it is passed through or explained, and charged where it is billed.

        Raises:
            FieldRefused: it is about a field of ours, and the call is to be sent without it.
            CredentialRenewed: it is about our token, and the call is to be sent with a new one.
        """
        answer = await exchange.read_error(upstream_errors.LARGEST_ERROR)
        metered = usage_of_error(self._admission, exchange.status, answer)
        if metered:
            self._odd.append(BILLED)
        found = upstream_errors.of_answer(exchange.status, answer, exchange.retry, self._shape.model, self._scrubber())
        if metered is None:
            if found.fault is AccountFault.CREDENTIAL:
                await self._renew_token()
            found = await self._unless_of_ours(found, answer)
        await self._fail(found, metered, error=self._told(exchange.status, answer))

    async def _renew_token(self) -> None:
        """Have the call sent again, once, if our credential is a token and there is a newer one.

        Raises:
            CredentialRenewed: there is.
        """
        name = self._admission.model.credential_env
        if not self._has_new_token and await self._upstreams.has_renewed(name, self._credential):
            self._has_new_token = True
            self._odd.append("sent again with a new token, for the provider refused the one before")
            raise CredentialRenewed

    async def _unless_of_ours(self, found: upstream_errors.CallersError, answer: bytes) -> upstream_errors.CallersError:
        """Return what the caller gets for an error; where it is about a field that we have to add, in our words.

        Args:
            found: what he would get; nothing has been made of the call.
            answer: the error as it came, JSON.

        Raises:
            FieldRefused: the call is to be sent without what it is about.
        """
        if found.refusal.status in field_errors.STATUSES and (refused := await self._refused(answer)):
            return upstream_errors.of_added(refused, self._shape.model)
        return found

    async def _refused(self, answer: bytes) -> frozenset[str]:
        trial = self._trial or Trial(self._added_fields, self._request, self._admission)
        try:
            refused = await trial.refused(answer)
            fits = None if refused else await trial.lower_bound(answer)
        except Refusal:  # a large body cannot be read again just now: the error is told as it is
            return frozenset()
        if fits is not None:
            self._trial = trial
            self._odd.append(f"sent again with a bound of {fits} output tokens, for a larger one was refused")
            raise FieldRefused
        if not refused:
            return refused
        if trial.leave_out(refused):
            self._trial = trial
            self._odd.append(without(refused))
            raise FieldRefused
        self._added_fields.note(self._admission.model, refused)
        return refused

    async def _fail(
        self,
        found: upstream_errors.CallersError,
        metered: Metered | None,
        *,
        error: str,
        response_id: str | None = None,
    ) -> None:
        """Settle a call that the upstream answered with an error, and tell the caller.

        Raises:
            AnotherWay: nothing was made of it, and another upstream can serve it.
        """
        refusal = found.refusal
        self._note_incident(found.fault, error)
        if (ways := self._admission.ways) is not None:
            ways.refused(found)
            body = self._request.body
            is_gone = isinstance(body, LargeBody) and body.is_gone
            if ways.has_more and found.other_way and metered is None and not is_gone:
                raise AnotherWay(error)
        status = self._told_status(refusal.status)
        receipt = await self._settle(
            Outcome.UPSTREAM_ERROR, status, metered, refusal=refusal.type, response_id=response_id, error=error
        )
        if metered and receipt:
            refusal.headers["x-cost-usd"] = usd(receipt.cost)
        await self._send_error(found)

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

    def _extra(self) -> dict[str, str]:
        extra = {"x-hold-id": hold_id(self._request.id)}
        if self._admission.admitted.fitted:
            extra["x-max-tokens-fitted"] = str(self._admission.admitted.output_bound)
        if left_out := self._shape.left_out + self._admission.left_out + self._admission.not_taken:
            extra[LEFT_OUT] = named(left_out)
        if (tier := self._admission.pinned_tier) is not None:
            extra[PINNED] = f"service_tier={tier}"
        return extra

    def _headers(self, content_type: bytes) -> list[tuple[bytes, bytes]]:
        return head(self._request.id, self._request.dialect, content_type, self._extra())
