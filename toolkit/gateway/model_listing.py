"""The endpoints that list models: what a key may call in a dialect, in that dialect's own form."""

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.dialects import MODULES, gemini
from toolkit.dialects.shape import ModelInfo
from toolkit.gateway.arrival import arrival_of
from toolkit.gateway.call_price import find_model
from toolkit.gateway.connection_limits import prove
from toolkit.gateway.credentials import query_fields
from toolkit.gateway.endpoint import Endpoint
from toolkit.gateway.request import CallRequest
from toolkit.gateway.responses import send_json


class ModelListing(Endpoint):
    """Lists all models that the key may call, or tells of the one that the path names."""

    async def answer(self, request: CallRequest, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the listing; judged by the store's present state."""
        cache, dialect = self.gateway.key_cache, request.dialect
        if self.dialect in {None, Dialect.GEMINI} and (request.model or "").rpartition(":")[2] in gemini.ENDPOINTS:
            raise HTTPException(405, headers={"Allow": "POST"})  # an action of a model
        key = await cache.current_key(request.digests)
        prove(scope, key.org_id)
        now = cache.now()
        catalog = cache.catalog
        module = MODULES[dialect]
        infos = [
            ModelInfo(
                id=model.id,
                created_at=model.created_at,
                context_window=model.context_window,
                max_output=model.max_output,
                display_name=model.id,
                owned_by=model.upstream,
            )
            for model in sorted(catalog.callable_by(key), key=lambda model: model.id)
            if model.dialect is dialect and model.price(now) is not None
        ]
        if request.model is None:
            asked = query_fields(arrival_of(scope).query)
            await send_json(send, 200, request.id, dialect, module.listing(infos, asked))
            return
        name = request.model.removeprefix("models/")
        try:
            find_model(catalog, name, dialect, key, now)
        except Refusal as refusal:
            raise await self.gateway.admissions.told(refusal, key, name) from None
        await send_json(send, 200, request.id, dialect, module.listed(next(i for i in infos if i.id == name)))
