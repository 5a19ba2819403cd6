"""What is sent to a provider for an admitted call: its body as policy leaves it, its headers, and our credential."""

from typing import Any, NamedTuple

from toolkit.core.catalog import ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.core.upstream_traits import CredentialHeader
from toolkit.dialects import MODULES, gemini, openai
from toolkit.dialects.body import dump_object
from toolkit.gateway.admission import Admission
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.reader_process import rewrite_request
from toolkit.gateway.request import CallRequest
from toolkit.gateway.upstream_exchange import Body, NotConfigured
from toolkit.gateway.upstream_pool import UpstreamPool


class UpstreamRequest(NamedTuple):
    """A POST to an upstream.

    Args:
        credential: ours; it stands in the headers, too.
    """

    url: str
    headers: dict[str, str]
    body: Body
    credential: str


async def upstream_request(request: CallRequest, admission: Admission, upstreams: UpstreamPool) -> UpstreamRequest:
    """Return what is sent for a call.

    Raises:
        NotConfigured: our credential is missing, or its command gives none.
        Refusal: unavailable; who read a large body has ended meanwhile.
    """
    model, shape = admission.model, admission.shape
    credential = await credential_of(model, upstreams)
    changes = changes_of(admission)
    body: Body
    if isinstance(request.body, LargeBody):
        more = admission.ways is not None and admission.ways.has_more
        more = more or upstreams.is_renewable(model.credential_env)
        body = await request.body.rewrite(keep=more, **changes)
    else:
        left_out = bool(shape.left_out)
        changed = rewrite_request(request.dialect, shape.endpoint, admission.body or {}, left_out=left_out, **changes)
        body = request.body if changed is None else dump_object(changed)
    headers = {
        **(admission.onward.known if admission.left_out else admission.onward.headers),
        **headers_of(model, credential),
        "x-request-id": request.id,
    }
    url = url_of(model, shape.endpoint, stream=shape.stream, alt_sse=request.wants_sse)
    return UpstreamRequest(url, headers, body, credential)


async def credential_of(model: ModelFacts, upstreams: UpstreamPool) -> str:
    """Return our credential for a model's upstream.

    Raises:
        NotConfigured: it is missing, or its command gives none.
    """
    # White space at its end is the commonest fault of a credential, and no header may hold a line break.
    credential = (await upstreams.credential(model.credential_env) or "").strip()
    if not credential:
        raise NotConfigured(f"the credential {model.credential_env} of upstream {model.upstream} is not set")
    return credential


def changes_of(admission: Admission) -> dict[str, Any]:
    """Return how a call's body is changed on its way, as the dialect's `rewrite` takes it."""
    model, shape = admission.model, admission.shape
    bounded = shape.output and shape.output_bound is None
    return {
        "upstream_model": model.upstream_model,
        "output_bound": admission.admitted.output_bound if bounded else None,
        "include_usage": shape.stream and not shape.usage_asked,
        "leave_out_unknown": bool(admission.left_out),
        "service_tier": admission.pinned_tier,
        "traits": model.traits,
    }


def headers_of(model: ModelFacts, credential: str) -> dict[str, str]:
    """Return the headers of whatever a model's upstream is asked, with our credential."""
    header = model.traits.credential_header
    usual = header is CredentialHeader.USUAL
    return {
        **(MODULES[model.dialect].auth_headers(credential) if usual else header.shown(credential)),
        "content-type": "application/json",
        "accept-encoding": "identity",
    }


def url_of(model: ModelFacts, endpoint: str, *, stream: bool, alt_sse: bool) -> str:
    """Return where a model is called.

    Args:
        model: as its upstream serves it.
        endpoint: of its dialect.
        stream: whether an answer is streamed.
        alt_sse: whether it is streamed as events, where a dialect knows another form.
    """
    if model.traits.api_version:
        path = openai.deployment_path(endpoint, model.upstream_model, model.traits.api_version)
    else:
        path = MODULES[model.dialect].upstream_path(endpoint, model.upstream_model, stream, alt_sse=alt_sse)
        if model.dialect is Dialect.GEMINI:
            return gemini.url_below(model.base_url, path)
    return model.base_url + path
