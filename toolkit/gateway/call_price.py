"""What a call is charged by: the model that its caller may call, its price and the plan's multiplier; and its bound."""

from datetime import datetime

from toolkit.billing.call import Call
from toolkit.billing.hold_estimate import HoldBound, check_text, dearest, hold_bound
from toolkit.core.catalog import Catalog, DatedSheet, ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import KeyFacts
from toolkit.dialects.headers import Onward
from toolkit.dialects.shape import EMBEDDING_ENDPOINTS, Shape
from toolkit.gateway.call_ways import Caller, CallWays, Ways
from toolkit.gateway.field_policy import check_window
from toolkit.gateway.large_bodies import LargeBody
from toolkit.gateway.request import CallRequest

PATH_OF = {
    Dialect.OPENAI: "POST /v1/chat/completions (or /v1/responses, /v1/embeddings)",
    Dialect.ANTHROPIC: "POST /v1/messages",
    Dialect.GEMINI: "POST /v1beta/models/{model}:generateContent",
}
"""Where to call a model of each dialect, for the caller who came to another's path."""

OF_MODELS = {RefusalType.MODEL_NOT_FOUND, RefusalType.WRONG_DIALECT, RefusalType.MODEL_NOT_ALLOWED}


def no_such_model(name: str) -> Refusal:
    return Refusal(
        RefusalType.MODEL_NOT_FOUND,
        f"There is no model {name[:128]!r} here. GET /v1/models lists what this API key may call.",
        param="model",
    )


def find_model(
    catalog: Catalog, name: str, dialect: Dialect, key: KeyFacts, now: datetime
) -> tuple[ModelFacts, DatedSheet]:
    """Return the model that a caller named, and its price at `now` (UTC).

    Raises:
        Refusal: model_not_found, wrong_dialect or model_not_allowed, in this order; `AdmissionControl.told` says what
            of it the caller may learn.
    """
    model = catalog.model(name, key.org_id)
    dated = model.price(now) if model else None
    if model is None or dated is None:
        raise no_such_model(name)
    if model.dialect is not dialect:
        raise Refusal(
            RefusalType.WRONG_DIALECT,
            f"The model '{name}' speaks the {model.dialect} dialect: call {PATH_OF[model.dialect]}.",
            param="model",
        )
    plan = catalog.plans.get(key.plan_id)
    key.check_model(name, plan.models if plan else frozenset())
    return model, dated


def always_costs(catalog: Catalog, key: KeyFacts, endpoint: str, now: datetime) -> bool:
    """Whether there is a model that the key may call, and none whose calls may be free."""
    plan = catalog.plans.get(key.plan_id)
    if plan is None:
        return False
    models = [place for model in catalog.callable_by(key) for place in model.places]
    prices = [dated.sheet for model in models if (dated := model.price(now)) is not None]
    output = endpoint not in EMBEDDING_ENDPOINTS
    return plan.multiplier > 0 and bool(prices) and all(sheet.always_costs(output=output) for sheet in prices)


def price_call(
    request: CallRequest,
    key: KeyFacts,
    now: datetime,
    shape: Shape,
    onward: Onward,
    tagged: str | None,
    catalog: Catalog,
    known: Ways,
) -> tuple[Call, ModelFacts, CallWays | None, HoldBound]:
    """Fix what a call is charged by: model, price, multiplier, and its ways if there are several.

    What it can cost at most is bounded by the dearest of the ways.
    """
    model, dated = find_model(catalog, shape.model, request.dialect, key, now)
    ways: CallWays | None = None
    if model.ways:
        rewritable = not isinstance(request.body, LargeBody)
        caller = Caller(key.org_id, key.key_id, tagged, request.endpoint, shape.free)
        ways = known.of_call(model, caller, now, rewritable=rewritable)
        if ways is None:
            raise no_such_model(shape.model)
        model, dated = ways.left[0]
    if shape.window or onward.window:
        check_window(shape, onward, model)
    check_text(shape, model.id, model.context_window)
    plan = catalog.plans[key.plan_id]  # it includes the model, or `find_model` would have refused
    # By position: Python 3.11 makes a dictionary of a class's keywords, for every call.
    call = Call(request.id, key, now, request.dialect, request.endpoint, shape.stream, shape.model)
    call.upstream, call.credential = model.upstream, model.credential_env
    call.price_id, call.sheet = dated.id, None if shape.free else dated.sheet
    call.multiplier = plan.multiplier
    call.tags = tagged
    if shape.free:
        return call, model, ways, HoldBound(0, 0, 0, fixed=True)
    if ways is not None:
        return call, model, ways, dearest([_bound(*way, shape, plan.multiplier) for way in ways.left])
    return call, model, None, _bound(model, dated, shape, plan.multiplier)


def _bound(model: ModelFacts, dated: DatedSheet, shape: Shape, multiplier: int) -> HoldBound:
    return hold_bound(
        model.dialect,
        shape,
        dated.sheet,
        multiplier,
        context_window=model.context_window,
        default_output=model.default_output if shape.may_be_cut else model.max_output,
        model=model.upstream_model,
    )
