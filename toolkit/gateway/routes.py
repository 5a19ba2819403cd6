"""Every path that the gateway answers: each path and method of docs/gateway.md is one route."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolkit.core.dialect import Dialect
from toolkit.dialects import anthropic, gemini, openai
from toolkit.gateway.call_endpoint import CallEndpoint
from toolkit.gateway.endpoint import Gateway
from toolkit.gateway.key_endpoint import KeyEndpoint
from toolkit.gateway.model_listing import ModelListing
from toolkit.gateway.readiness import Readiness

_OPENAI = ("/v1", "/openai/v1", "/openai", "/openai/deployments/{model:path}")
"""OpenAI's own prefix and Azure's: today's, that of an API version, and the one that names the model ("Azure OpenAI in
Azure AI Foundry Models REST API reference")."""

_ANTHROPIC = ("/v1", "/anthropic/v1")
_GEMINI = ("/v1beta", "/v1", "/gemini/v1beta", "/gemini/v1")

_CALLS = {
    Dialect.OPENAI: (_OPENAI, "{prefix}/{endpoint}", openai.ENDPOINTS),
    Dialect.ANTHROPIC: (_ANTHROPIC, "{prefix}/{endpoint}", anthropic.ENDPOINTS),
    Dialect.GEMINI: (_GEMINI, "{prefix}/models/{{model:path}}:{endpoint}", gemini.ENDPOINTS),
}
"""Where each dialect is called: prefixes, of which its SDKs use the first; how a path is spelled; the endpoints."""

_LISTINGS = {
    "/v1/models": None,  # where today's SDKs meet: what the caller sends decides
    "/openai/v1/models": Dialect.OPENAI,
    "/openai/models": Dialect.OPENAI,
    "/anthropic/v1/models": Dialect.ANTHROPIC,
    "/v1beta/models": Dialect.GEMINI,
    "/gemini/v1/models": Dialect.GEMINI,
    "/gemini/v1beta/models": Dialect.GEMINI,
}


_ALIVE = ("/healthz", "/", "/api/hello")
"""The last two are where Claude Code looks whether anybody is there, before its first call and without its key."""


def routes(gateway: Gateway, readiness: Readiness) -> list[Route]:
    """Return all routes; the first that matches answers, so what is asked most stands first."""

    async def health(_request: Request) -> Response:
        """Answer as long as the process answers at all."""
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        """Answer 200 as long as calls can be admitted."""
        fault = await readiness.fault()
        if fault is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "unavailable", "reason": fault}, status_code=503)

    def call(path: str, dialect: Dialect, endpoint: str) -> Route:
        return Route(path, CallEndpoint(gateway, dialect, endpoint), methods=["POST"], name=endpoint)

    def listing(path: str, dialect: Dialect | None) -> Route:
        return Route(path, ModelListing(gateway, dialect, "models"), methods=["GET"], name="models")

    usual: list[Route] = []
    others: list[Route] = []
    for dialect, (prefixes, spelling, endpoints) in _CALLS.items():
        for prefix in prefixes:
            paths = {spelling.format(prefix=prefix, endpoint=endpoint): endpoint for endpoint in endpoints}
            found = usual if prefix == prefixes[0] else others
            found.extend(call(path, dialect, endpoint) for path, endpoint in paths.items())
    return [
        *usual,
        *others,
        *(listing(path, dialect) for path, dialect in _LISTINGS.items()),
        *(listing(f"{path}/{{model:path}}", dialect) for path, dialect in _LISTINGS.items()),
        Route("/v1/key", KeyEndpoint(gateway, None, "key"), methods=["GET"], name="key"),
        *(Route(path, health) for path in _ALIVE),
        Route("/readyz", ready),
    ]
