"""A call of the past as one job of billing: admitted or refused, and settled, in one transaction."""

from dataclasses import dataclass
from datetime import timedelta

from toolkit.billing.call import Call, Ending
from toolkit.billing.hold_estimate import hold_bound
from toolkit.billing.rules import Admit, Refuse, Settle
from toolkit.billing.state import BatchState, RowsWanted
from toolkit.core.catalog import Catalog
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.ids import new_request_id
from toolkit.core.moments import micros
from toolkit.core.policy import KeyFacts, Outcome
from toolkit.core.usage import Usage, UsageSource
from toolkit.demo.traffic import DemoCall
from toolkit.dialects.shape import Shape

_INSTANCE = "gateway_demo"
_ENDPOINTS = {Dialect.OPENAI: "chat/completions", Dialect.ANTHROPIC: "messages", Dialect.GEMINI: "generateContent"}


@dataclass(frozen=True, slots=True)
class PastCall:
    """A job for a billing store, as `billing.state.Job` says; its parts are those of a gateway."""

    admit: Admit | None
    settle: Settle
    catalog_version: int
    refusal: Refusal | None = None

    def want(self, wanted: RowsWanted) -> None:
        """Ask for the rows of all that may become of the call."""
        for job in (self.admit, self._refuse(Refusal(RefusalType.API_KEY_QUOTA_EXCEEDED, "")), self.settle):
            if job is not None:
                job.want(wanted)

    def judge(self, batch: BatchState) -> None:
        """Admit the call and settle it, or refuse it."""
        try:
            if self.refusal is not None or self.admit is None:
                raise self.refusal or AssertionError("a call is admitted or refused")
            self.admit.judge(batch)
        except Refusal as refusal:
            self._refuse(refusal).judge(batch)
        else:
            self.settle.judge(batch)

    def _refuse(self, refusal: Refusal) -> Refuse:
        return Refuse(self.settle.call, refusal, self.settle.call.received_at, self.catalog_version)


def past_call(demo: DemoCall, facts: KeyFacts, catalog: Catalog) -> PastCall:
    """Return the job of one drawn call.

    Args:
        demo: the call.
        facts: of its key, as they were then.
        catalog: as it was then.
    """
    plan = catalog.plans[facts.plan_id]
    model = catalog.models["gpt-5" if demo.mistaken else demo.model.id]
    dated = model.price(demo.at)
    assert dated is not None  # noqa: S101 - prices begin before the first call
    call = Call(
        request_id=new_request_id(micros(demo.at) // 1000),
        key=facts,
        received_at=demo.at,
        dialect=model.dialect,
        endpoint=_endpoint(demo),
        stream=demo.stream,
        model=model.id,
        upstream=model.upstream,
        price_id=dated.id,
        sheet=dated.sheet,
        multiplier=plan.multiplier,
        tags=demo.tags,
    )
    shape = Shape(
        endpoint=call.endpoint,
        model=model.id,
        stream=demo.stream,
        free=False,
        text_bytes=demo.input_tokens * 4,
        messages=4,
        tools=0,
        media={},
        whole_context=False,
        choices=1,
        output_bound=4 * demo.model.output_tokens + demo.output_tokens,
        output=demo.model.output_tokens > 0,
        usage_asked=True,
    )
    bound = hold_bound(
        model.dialect,
        shape,
        dated.sheet,
        plan.multiplier,
        context_window=model.context_window,
        default_output=model.default_output,
        model=model.upstream_model,
    )
    version = catalog.version
    try:
        facts.check_model(model.id, plan.models)
    except Refusal as refusal:
        return PastCall(None, Settle(call, _ending(demo)), version, refusal)
    return PastCall(Admit(call, bound, version, _INSTANCE), Settle(call, _ending(demo)), version)


def _ending(demo: DemoCall) -> Ending:
    milliseconds = round(demo.seconds * 1000)
    ended = demo.at + timedelta(milliseconds=milliseconds)
    if demo.outcome is Outcome.UPSTREAM_ERROR:
        detail = f"upstream demo-{demo.model.dialect} answered 529: overloaded"
        return Ending(demo.outcome, ended, 502, None, RefusalType.UPSTREAM_ERROR, None, None, milliseconds, detail)
    aborted = demo.outcome is Outcome.ABORTED
    usage = Usage(
        input_tokens=demo.input_tokens,
        cached_input_tokens=demo.cached_tokens,
        cache_write_5m_tokens=demo.cache_write_tokens,
        output_tokens=demo.output_tokens,
        reasoning_tokens=demo.reasoning_tokens,
        source=UsageSource.ESTIMATED if aborted else UsageSource.REPORTED,
    )
    return Ending(
        outcome=demo.outcome,
        ended_at=ended,
        status=499 if aborted else 200,
        usage=usage,
        response_id=f"demo-{micros(demo.at):x}",
        first_byte_ms=min(milliseconds, 180 + demo.input_tokens // 100),
        duration_ms=milliseconds,
        error="the caller left" if aborted else None,
    )


def _endpoint(demo: DemoCall) -> str:
    if not demo.model.output_tokens:
        return "embeddings"
    if demo.model.dialect is Dialect.GEMINI and demo.stream:
        return "streamGenerateContent"
    return _ENDPOINTS[demo.model.dialect]
