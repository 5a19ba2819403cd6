"""What a call costs that did not come to its end: its provider broke off, its caller left, or we stopped or failed.

What was certainly not sent to the provider costs nothing, and neither does what it broke off before any output, or
answered with an error, unless it is known to bill that one, or says what it used. Else the input is charged as reported
or estimated, and the output by what was seen of it; of a call that we ended, also by what its model may have reasoned
meanwhile and did not show.
"""

from typing import Any

from toolkit.billing.metering import Metered
from toolkit.core.usage import text_tokens
from toolkit.dialects import MODULES, unseen_reasoning
from toolkit.dialects.meter import StreamMeter
from toolkit.gateway import upstream_errors
from toolkit.gateway.admission import Admission
from toolkit.gateway.upstream_exchange import Exchange


def usage_of_stream(admission: Admission, meter: StreamMeter) -> Metered | None:
    """Return what a stream used: as reported at its end, else what was seen of it; None if that was nothing.

    An error that ended it before any output costs as `usage_of_told` says.
    """
    report = meter.report
    if meter.complete and report is not None:
        return admission.gauge().reported(report, lambda: meter.output_seen)
    if meter.output_seen or (meter.complete and not meter.failed):
        return admission.gauge().broken(report, meter.output_seen)
    if meter.failed:
        return usage_of_told(admission, upstream_errors.event_in(meter.failure, sse=meter.sse))
    return None


def usage_of_told(admission: Admission, event: dict[str, Any] | None) -> Metered | None:
    """Return what an error costs that an event tells, or an answer of status 200, and before which nothing was said.

    That is nothing, unless it says what it used, or the upstream bills this error: then its input.
    """
    if event is None or admission.shape.free:
        return None
    model, endpoint = admission.model, admission.shape.endpoint
    response = event.get("response")
    report = MODULES[model.dialect].usage_of(endpoint, response if isinstance(response, dict) else event)
    if report is not None and not (report.usage.input_tokens or report.usage.output_tokens):
        report = None
    if report is None and not upstream_errors.is_billed(event, model.traits):
        return None
    return admission.gauge().broken(report, 0)


def usage_of_error(admission: Admission, status: int, answer: bytes) -> Metered | None:
    """Return what an error costs that the upstream bills: as it reports, else its input by an estimate.

    Args:
        admission: of the call.
        status, answer: the upstream's.
    """
    model, shape = admission.model, admission.shape
    body = None if shape.free else upstream_errors.billed(status, answer, model.traits)
    if body is None:
        return None
    return admission.gauge().broken(MODULES[model.dialect].usage_of(shape.endpoint, body), 0)


def usage_when_cut(admission: Admission, exchange: Exchange | None, meter: StreamMeter | None) -> Metered | None:
    """Return what a call used that was ended because its caller left, or the gateway stopped.

    Args:
        admission: of the call.
        exchange: with its provider; None if it was not asked yet.
        meter: of the stream; None if there was no answer yet, or it comes whole.
    """
    if exchange is None or not exchange.sent or exchange.status >= 300 or admission.shape.free:
        return None
    if meter is None:
        return admission.gauge().broken(None, 0, _unseen(admission, exchange, None, 0))
    if meter.failed or (meter.complete and meter.report is not None):
        return usage_of_stream(admission, meter)
    report, seen = meter.report, meter.output_seen
    made = max(seen, report.usage.output_tokens if report else 0)
    return admission.gauge().broken(report, seen, _unseen(admission, exchange, meter, made))


def usage_when_failed(admission: Admission, exchange: Exchange | None, meter: StreamMeter | None) -> Metered | None:
    """Return what is known to have been used by a call on which the gateway itself failed; arguments as above."""
    if exchange is None or not exchange.sent or exchange.status >= 300 or admission.shape.free:
        return None
    if meter is None:
        return admission.gauge().unreported(text_tokens(exchange.received))
    if meter.failed:
        return usage_of_stream(admission, meter)
    return usage_of_stream(admission, meter) or admission.gauge().broken(meter.report, meter.output_seen)


def _unseen(admission: Admission, exchange: Exchange, meter: StreamMeter | None, made: int) -> int:
    """Return the output tokens that a model may have made beside the `made` ones that were seen or reported.

    By time, and only where it can reason unseen. What its provider reports on the way is known until its last word, and
    an answer that has come to its end but for its usage was made by then.
    """
    shape, model = admission.shape, admission.model
    shown = meter is not None and meter.shows_reasoning
    if not unseen_reasoning.can_be(model.dialect, model.upstream_model, shape.reasoning, shown=shown):
        return 0
    report = meter.report if meter is not None else None
    told = report is not None and not report.output_missing and report.usage.output_tokens > 0
    rate = model.traits.reckon_rate * shape.choices
    silent = 0.0 if meter is None or not meter.complete else exchange.silent_for
    if told:
        return int(rate * (exchange.silent_for - silent))
    return max(int(rate * (exchange.answering_for - silent)) - made, 0)
