"""The endpoints that call a model: who asks is known, the body is read, the call is judged, held and forwarded."""

from starlette.types import Receive, Scope, Send

from toolkit.core.errors import Refusal
from toolkit.core.policy import NotAdmitted
from toolkit.gateway.connection_limits import prove
from toolkit.gateway.endpoint import Endpoint
from toolkit.gateway.forwarder import Forwarder
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.request import CallRequest
from toolkit.gateway.stream_forwarder import StreamForwarder


class CallEndpoint(Endpoint):
    """Calls a model of one dialect at one of its endpoints."""

    async def answer(self, request: CallRequest, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge the call and forward it; no body is read for a caller without a key, or without money."""
        gateway = self.gateway
        key = await gateway.key_cache.key(request.digests)
        prove(scope, key.org_id)
        try:
            key = await gateway.admissions.check_funds(request, key)
            request.body = await gateway.bodies.read(receive, request, key)
        except NotAdmitted:
            raise  # and is logged there, as wherever it comes from
        except Refusal as refusal:
            await gateway.admissions.log_unread(request, key, refusal)
            raise
        try:
            admission = await gateway.admissions.admit(request, key, receive)
            way = StreamForwarder if admission.shape.stream else Forwarder
            await way(
                gateway.lifecycle,
                gateway.upstreams,
                gateway.answers,
                gateway.incidents,
                gateway.added_fields,
                request,
                admission,
                receive,
                send,
            ).run()
        finally:
            if isinstance(request.body, LargeBody):
                await request.body.close()
