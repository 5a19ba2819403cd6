"""What a call costs that did not come to its end: its provider broke off, its caller left, or we stopped or failed.

What was certainly not sent to the provider costs nothing, and neither does what it answered with an error, or broke off
before any output. Else the input is charged as reported or estimated, and the output by what was seen of it.
"""

from toolkit.billing.metering import Metered
from toolkit.core.usage import text_tokens
from toolkit.dialects.meter import StreamMeter
from toolkit.gateway.admission import Admission
from toolkit.gateway.upstream_exchange import Exchange


def usage_of_stream(admission: Admission, meter: StreamMeter) -> Metered | None:
    """Return what a stream used: as reported at its end, else what was seen of it; None if that was nothing."""
    report = meter.report
    if meter.complete and report is not None:
        return admission.gauge().reported(report, lambda: meter.output_seen)
    if meter.output_seen or (meter.complete and not meter.failed):
        return admission.gauge().broken(report, meter.output_seen)
    return None


def usage_when_cut(admission: Admission, exchange: Exchange | None, meter: StreamMeter | None) -> Metered | None:
    """Return what a call used that was ended because its caller left, or the gateway stopped.

    Args:
        admission: of the call.
        exchange: with its provider; None if it was not asked yet.
        meter: of the stream; None if there was no answer yet, or it comes whole.
    """
    if meter is not None:
        return usage_of_stream(admission, meter) or admission.gauge().broken(meter.report, meter.output_seen)
    if exchange is None or not exchange.sent or admission.shape.free:
        return None
    return admission.gauge().unreported(0)


def usage_when_failed(admission: Admission, exchange: Exchange | None, meter: StreamMeter | None) -> Metered | None:
    """Return what is known to have been used by a call on which the gateway itself failed; arguments as above."""
    if exchange is None or exchange.status >= 300:
        return None
    if meter is not None or not exchange.received or admission.shape.free:
        return usage_when_cut(admission, exchange, meter)
    return admission.gauge().unreported(text_tokens(exchange.received))
