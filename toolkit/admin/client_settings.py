"""What a client needs of a new key, to be pasted: a call to try it with, and the variables that SDKs and tools read."""

import json
from collections.abc import Sequence

from toolkit.admin import catalog
from toolkit.core.catalog import ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import Transaction

_HELLO = "Say hello in five words."


def callable_models(tx: Transaction, key: ApiKey) -> list[ModelFacts]:
    """Return the models of a key's plan that are in its scope, by name."""
    known = catalog.load(tx)
    included, scope = known.plans[key.plan_id].models, frozenset(json.loads(key.scope))
    named = sorted(included & scope if scope else included)
    return [facts for name in named if (facts := known.model(name, key.org_id)) is not None]


def exports(models: Sequence[ModelFacts], base: str, secret: str) -> str:
    """Return lines for a shell that set the variables by which the official SDKs, and what uses them, find us.

    Those of the dialects that the models speak; OpenAI's, Anthropic's and Google's SDKs ("README", environment
    variables). Anthropic's key goes under the name that Claude Code takes without asking ("LLM gateway configuration").

    Args:
        models: that the key may call.
        base: the gateway's address, without a slash at its end.
        secret: of the key.
    """
    variables = {
        Dialect.OPENAI: {"OPENAI_BASE_URL": f"{base}/v1", "OPENAI_API_KEY": secret},
        Dialect.ANTHROPIC: {"ANTHROPIC_BASE_URL": base, "ANTHROPIC_AUTH_TOKEN": secret},
        Dialect.GEMINI: {"GOOGLE_GEMINI_BASE_URL": base, "GEMINI_API_KEY": secret},
    }
    spoken = {model.dialect for model in models}
    return "\n".join(
        f"export {name}={value}"
        for dialect, both in variables.items()
        if dialect in spoken
        for name, value in both.items()
    )


def first_call(tx: Transaction, models: Sequence[ModelFacts], base: str, secret: str) -> str | None:
    """Return a curl that calls the cheapest chat model of these; None if there is none.

    Args:
        tx: in which the models were read.
        models, base, secret: as `exports` takes them.
    """
    # A model without an output price makes embeddings, not answers.
    priced = [(price.sheet.tiers[0].output, facts) for facts in models if (price := facts.price(tx.now))]
    chat = [(list(Dialect).index(facts.dialect), output, facts.id, facts) for output, facts in priced if output]
    if not chat:
        return None
    model = min(chat)[-1]
    message = [{"role": "user", "content": _HELLO}]
    if model.dialect is Dialect.OPENAI:
        path, credential = "/v1/chat/completions", f"Authorization: Bearer {secret}"
        body: dict[str, object] = {"model": model.id, "messages": message}
    elif model.dialect is Dialect.ANTHROPIC:
        path, credential = "/v1/messages", f"x-api-key: {secret}"
        body = {"model": model.id, "max_tokens": 200, "messages": message}
    else:
        path, credential = f"/v1beta/models/{model.id}:generateContent", f"x-goog-api-key: {secret}"
        body = {"contents": [{"parts": [{"text": _HELLO}]}]}
    return (
        f"curl {base}{path} \\\n  -H '{credential}' \\\n  -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body)}'"
    )
