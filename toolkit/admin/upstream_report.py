"""What a test of an upstream means: whether it works, what is to be set, and which models can be added."""

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from toolkit.admin import catalog, model_routes, models, upstreams
from toolkit.core.account_fault import CURES, AccountFault
from toolkit.core.added_fields import REMEDIES
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.money import show_usd
from toolkit.core.upstream_test import Found, TriedCall
from toolkit.core.upstream_traits import OutputBound, UpstreamTraits
from toolkit.core.wording import counted, listed
from toolkit.dialects import openai_fields
from toolkit.providers import presets
from toolkit.store.actor import Actor
from toolkit.store.database import Store
from toolkit.store.transaction import Transaction

_MOST_SHOWN = 10
"""Models that are named to people."""


class Judged(NamedTuple):
    """What a test means for an operator.

    Args:
        works: whether the upstream serves our account, and all that it should have.
        lacking: models that it lists and that the catalog does not have from it.
        to_do: what is to be done, in sentences with the commands.
    """

    works: bool
    lacking: list[str]
    to_do: list[str]


def judge(tx: Transaction, name: str, found: Found) -> Judged:
    """Return what a test means.

    Args:
        tx: of whom may see the upstream.
        name: of the upstream.
        found: by its test.

    Raises:
        NotFound: no such upstream.
    """
    upstream = upstreams.find(tx, name)
    preset = presets.known(upstream.preset, Dialect(upstream.dialect))
    expected = Expected(catalog.traits_of(upstream), preset.endpoints if preset else None)
    known = model_routes.served_at(tx, name)
    lacking = [listed_model for listed_model in found.models or () if listed_model not in known]
    to_do = [*steps(name, found, expected, is_priced=found.model in known), *elsewhere(tx, name, lacking)]
    return Judged(works(found, expected), lacking, to_do)


def add_models(store: Store, actor: Actor, name: str, lacking: Sequence[str]) -> list[str]:
    """Add models of an upstream whose price is public, each in a transaction of its own; return those added.

    One that has no public price, or whose name cannot be or is another model's id, is left out.

    Args:
        store: the key store.
        actor: a platform admin.
        name: of the upstream.
        lacking: what the upstream calls them.

    Raises:
        Forbidden: the actor may not.
    """
    added = []
    for model in lacking:
        try:
            with store.write(actor) as tx:
                models.add_model(tx, model, name)
            added.append(model)
        except (NotFound, InvalidInput, Conflict):
            continue
    return added


def elsewhere(tx: Transaction, name: str, lacking: list[str]) -> list[str]:
    """Return what is to be done for an organisation's own account to serve the models that others serve by now."""
    upstream = upstreams.find(tx, name)
    if upstream.org_id is None:
        return []
    routes = {
        model.id: model_routes.route_of(tx, model)
        for model in models.list_models(tx)
        if model.id in lacking and upstreams.find(tx, model.upstream).dialect == upstream.dialect
    }
    plain = {model: ways for model, ways in routes.items() if not any(way.weight or way.price_model for way in ways)}
    if not plain:
        return []
    model, ways = next(iter(plain.items()))
    named = ",".join([f"{name}:{model}", *(f"{way.upstream}:{way.upstream_model}" for way in ways)])
    more = f", and likewise {listed(sorted(set(routes) - {model}))}" if len(routes) > 1 else ""
    command = f"keydesk models route {shlex.quote(model)} --upstream {shlex.quote(named)}"
    return [f"Other upstreams serve {model}; to have this account serve its organisation first: `{command}`{more}"]


class Expected(NamedTuple):
    """What is known of an upstream before it is tested.

    Args:
        traits: as they are set.
        endpoints: that its preset says it has; None if it has no preset.
    """

    traits: UpstreamTraits
    endpoints: tuple[str, ...] | None

    def failed(self, found: Found) -> list[TriedCall]:
        """Return the calls that should work and do not: those of its preset; without one, those that are there."""
        if self.endpoints is None:
            return [call for call in found.calls if not (call.works or call.absent)]
        return [call for call in found.calls if not call.works and call.form in self.endpoints]


def works(found: Found, expected: Expected) -> bool:
    """Whether an upstream serves our account, and all that it should have."""
    if found.fault is not None or expected.failed(found):
        return False
    return any(call.works for call in found.calls) if found.calls else found.models is not None


def report(name: str, found: Found, lacking: list[str], added: list[str], to_do: list[str]) -> Iterator[str]:
    """Yield what was found, in lines for people."""
    yield f"The upstream {name!r}" + (f", tested with {found.model}:" if found.model else ":")
    if found.models is None:
        yield f"  models: not listed; {found.listing_said}"
    else:
        more = [model for model in lacking if model not in added]
        shown = [*more[:_MOST_SHOWN], *([f"{len(more) - _MOST_SHOWN:,} more"] if len(more) > _MOST_SHOWN else [])]
        yield f"  models: {len(found.models):,} listed" + (f"; not in the catalog: {listed(shown)}" if more else "")
    if added:
        yield f"  added, with public prices: {listed(added)}"
    for call in found.calls:
        yield f"  {call.form}, {'streamed' if call.stream else 'whole'}: {told(call)}"
    if not found.calls:
        yield "  no call was made: the catalog has no model of it; name one with --model"
    if to_do:
        yield "To do:"
        yield from (f"  {step}" for step in to_do)


def told(call: TriedCall) -> str:
    """Return what became of a call, in words."""
    if call.absent:
        return f"not there ({call.said})"
    if not call.works:
        return f"FAILS: {call.said}"
    parts = ["works"]
    if call.left_out:
        parts.append(f"without {listed(call.left_out)}, which it refuses")
    if call.usage is None:
        parts.append("no usage, so it would be charged by an estimate")
    else:
        parts.append(listed([f"{count:,} {kind}" for kind, count in call.usage.items()]) + " tokens")
        parts.append("it has no price here" if call.cost is None else f"{show_usd(call.cost)} by the price book")
    if call.beyond_bound:
        parts.append("more than it was asked for at most")
    parts += [f"served by {word}, which is not what is priced" for word in call.unpriced]
    return "; ".join([*parts, *call.odd])


def steps(name: str, found: Found, expected: Expected, *, is_priced: bool) -> Iterator[str]:
    """Yield what an operator should do after a test, with the commands.

    Args:
        name: of the upstream.
        found: by the test.
        expected: of the upstream.
        is_priced: whether the catalog has the model that was called.
    """
    quoted = shlex.quote(name)
    update = f"keydesk upstreams update {quoted}"
    traits = expected.traits
    if found.fault is not None:
        yield CURES[AccountFault(found.fault)].format(upstream=quoted)
    for field in sorted({field for call in found.calls for field in call.left_out}):
        yield f"It refuses {field}: `{update} {REMEDIES[field].option}`. {REMEDIES[field].meaning}"
    silent = [call for call in found.calls if call.works and call.stream and call.usage is None]
    if silent and not traits.add_stream_options:
        yield f"Streams have no usage unless it is asked for: `{update} --add-stream-options`"
    elif silent:
        yield "Streams have no usage here, though it is asked for: they are charged by an estimate."
    if ignored := [call for call in found.calls if call.beyond_bound]:
        yield _bound_step(update, ignored, traits)
    if any(call.unpriced for call in found.calls) and not traits.pin_tier:
        yield f"Another tier or region serves than is priced; to ask for the standard tier: `{update} --pin-tier`"
    if found.model is not None and not is_priced and any(call.works for call in found.calls):
        model = shlex.quote(found.model)
        yield f"The model has no price here: `keydesk models add {model} --upstream {quoted}` (`--help` says how)"
    if found.calls and not works(found, expected) and found.fault is None:
        failed = counted(len(expected.failed(found) or found.calls), "call")
        yield f"See why {failed} failed that should work; if it is the address: `{update} --base-url URL`"


def _bound_step(update: str, ignored: list[TriedCall], traits: UpstreamTraits) -> str:
    """Return what to do about a bound on output that an upstream ignores: a chat's has another name."""
    what = (
        f"It ignores the bound on output of {listed(sorted({call.form for call in ignored}))}, so a hold bounds nothing"
    )
    if not any(call.form == openai_fields.CHAT for call in ignored):
        return f"{what}: calls there may cost more than was held."
    sent = traits.output_bound is OutputBound.MAX_TOKENS
    return f"{what}: `{update} --output-bound {'max_completion_tokens' if sent else 'max_tokens'}`, then test again."
