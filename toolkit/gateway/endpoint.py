"""What all endpoints that callers use share: who asks, and what becomes of those who may not."""

from dataclasses import dataclass
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from toolkit.core.dialect import Dialect
from toolkit.core.policy import NotAdmitted
from toolkit.gateway.added_fields import AddedFields
from toolkit.gateway.admission import AdmissionControl
from toolkit.gateway.answer_reading import AnswerReader
from toolkit.gateway.arrival import arrival_of
from toolkit.gateway.body_reading import BodyReader
from toolkit.gateway.credentials import dialect_of_shared_path, find_secret, wants_sse
from toolkit.gateway.incidents import Incidents
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.request import CallRequest
from toolkit.gateway.unknown_paths import has_stray_slash, likely_dialect
from toolkit.gateway.upstream_pool import UpstreamPool


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of one gateway that endpoints work with."""

    key_cache: KeyCache
    admissions: AdmissionControl
    lifecycle: CallLifecycle
    upstreams: UpstreamPool
    bodies: BodyReader
    answers: AnswerReader
    incidents: Incidents
    added_fields: AddedFields


class Endpoint:
    """An ASGI application for requests to one path.

    Args:
        gateway: its parts.
        dialect: of its callers; None where their headers decide.
        name: as `CallRequest.endpoint`.
    """

    def __init__(self, gateway: Gateway, dialect: Dialect | None, name: str) -> None:
        self.gateway = gateway
        self.dialect = dialect
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            Refusal, Unavailable, ClientDisconnect, HTTPException: for the application's exception handlers.
        """
        request = self._request(scope)
        try:
            await self.answer(request, scope, receive, send)
        except NotAdmitted as refusal:
            if refusal.key is not None:
                await self.gateway.admissions.log_unread(request, refusal.key, refusal)
            raise

    async def answer(self, request: CallRequest, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of somebody who has shown a credential."""
        raise NotImplementedError

    def _request(self, scope: Scope) -> CallRequest:
        arrival, headers = arrival_of(scope), scope["headers"]
        dialect = self.dialect or dialect_of_shared_path(headers, arrival.query)
        model: str | None = scope["path_params"].get("model")
        if model is not None:
            if not model or has_stray_slash(f"/{model}"):
                raise HTTPException(404)
            model = unquote(model)
        digests = self.gateway.key_cache.digests(find_secret(dialect, headers, arrival.query))
        return CallRequest(
            arrival.request_id, dialect, self.name, model, digests, headers, b"", wants_sse(arrival.query)
        )


def dialect_of(scope: Scope) -> Dialect:
    """Return in whose envelope a request is answered, whatever it asks for."""
    endpoint = scope.get("endpoint")
    told = endpoint.dialect if isinstance(endpoint, Endpoint) else likely_dialect(scope["path"])
    return told or dialect_of_shared_path(scope["headers"], arrival_of(scope).query)
