"""`keydesk upstreams test`: has a running gateway try an upstream, and says what it found and what is to be set."""

import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import NamedTuple

import click

from toolkit.admin import catalog, model_routes, models, upstream_tests, upstreams
from toolkit.admin.upstream_tests import Outcome
from toolkit.cli.app import App, Command, pass_app
from toolkit.core.account_fault import CURES, AccountFault
from toolkit.core.added_fields import REMEDIES
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from toolkit.core.money import show_usd, usd
from toolkit.core.upstream_test import Found, TriedCall
from toolkit.core.upstream_traits import OutputBound, UpstreamTraits
from toolkit.core.wording import counted, listed
from toolkit.dialects import openai_fields
from toolkit.providers import presets
from toolkit.store.transaction import Transaction

_LOOK = 0.2
"""Seconds between two looks at what became of the test."""

_MOST_SHOWN = 10
"""Models that are named to people."""


@click.command("test", cls=Command)
@click.argument("name")
@click.option("--model", metavar="MODEL", help="Which model is called.  [default: the cheapest of the catalog]")
@click.option("--add-models", is_flag=True, help="Add the listed models that the catalog lacks and genai-prices knows.")
@click.option("--wait", type=click.IntRange(1, 3600), default=300, show_default=True, help="Seconds to wait for it.")
@pass_app
def test_upstream(app: App, name: str, model: str | None, add_models: bool, wait: int) -> None:
    """Have a running gateway list an endpoint's models and make short calls, and say what is to be set."""
    with app.workspace.write() as tx:
        test_id = upstream_tests.ask(tx, name, model)
    found, failure = _wait_for(app, test_id, wait)
    if found is None:
        raise Unavailable(f"The upstream {name!r} could not be tested: {failure}.")
    with app.workspace.read() as tx:
        upstream = upstreams.find(tx, name)
        preset = presets.known(upstream.preset, Dialect(upstream.dialect))
        expected = Expected(catalog.traits_of(upstream), preset.endpoints if preset else None)
        known = model_routes.served_at(tx, name)
        elsewhere = _elsewhere(tx, name, [one for one in found.models or () if one not in known])
    lacking = [listed_model for listed_model in found.models or () if listed_model not in known]
    added = _add(app, name, lacking) if add_models else []
    to_do = [*steps(name, found, expected, is_priced=found.model in known), *elsewhere]
    if app.as_json:
        calls = [asdict(call) | {"cost": None if call.cost is None else usd(call.cost)} for call in found.calls]
        facts = asdict(found) | {"upstream": name, "calls": calls, "lacking": lacking, "added": added, "to_do": to_do}
        app.facts(facts)
    else:
        app.done("\n".join(report(name, found, lacking, added, to_do)), {})
    if not works(found, expected):
        click.get_current_context().exit(1)


def _wait_for(app: App, test_id: str, seconds: float) -> Outcome:
    """Return what became of a test.

    Raises:
        Conflict: no gateway is running any more.
        Unavailable: it takes longer than that.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with app.workspace.read() as tx:
            outcome = upstream_tests.outcome(tx, test_id)
        if outcome is not None:
            return outcome
        time.sleep(_LOOK)
    raise Unavailable(f"No gateway has made the test within {seconds} s. See that one is running and not too busy.")


def _elsewhere(tx: Transaction, name: str, lacking: list[str]) -> list[str]:
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
    return [f"Other upstreams serve {model}; to have this account serve its organisation first: {command}{more}"]


def _add(app: App, name: str, lacking: list[str]) -> list[str]:
    """Add the models whose price is public; return them."""
    added = []
    for model in lacking:
        try:
            with app.workspace.write() as tx:
                models.add_model(tx, model, name)
            added.append(model)
        except (NotFound, InvalidInput, Conflict):
            continue  # it has no public price, or its name cannot be or is another model's id: it is named as lacking
    return added


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
        yield f"  {call.form}, {'streamed' if call.stream else 'whole'}: {_told(call)}"
    if not found.calls:
        yield "  no call was made: the catalog has no model of it; name one with --model"
    if to_do:
        yield "To do:"
        yield from (f"  {step}" for step in to_do)


def _told(call: TriedCall) -> str:
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
        yield f"It refuses {field}: {update} {REMEDIES[field].option}. {REMEDIES[field].meaning}"
    silent = [call for call in found.calls if call.works and call.stream and call.usage is None]
    if silent and not traits.add_stream_options:
        yield f"Streams have no usage unless it is asked for: {update} --add-stream-options"
    elif silent:
        yield "Streams have no usage here, though it is asked for: they are charged by an estimate."
    if ignored := [call for call in found.calls if call.beyond_bound]:
        yield _bound_step(update, ignored, traits)
    if any(call.unpriced for call in found.calls) and not traits.pin_tier:
        yield f"Another tier or region serves than is priced; to ask for the standard tier: {update} --pin-tier"
    if found.model is not None and not is_priced and any(call.works for call in found.calls):
        model = shlex.quote(found.model)
        yield f"The model has no price here: keydesk models add {model} --upstream {quoted} (`--help` says how)"
    if found.calls and not works(found, expected) and found.fault is None:
        failed = counted(len(expected.failed(found) or found.calls), "call")
        yield f"See why {failed} failed that should work; if it is the address: {update} --base-url URL"


def _bound_step(update: str, ignored: list[TriedCall], traits: UpstreamTraits) -> str:
    """Return what to do about a bound on output that an upstream ignores: a chat's has another name."""
    what = (
        f"It ignores the bound on output of {listed(sorted({call.form for call in ignored}))}, so a hold bounds nothing"
    )
    if not any(call.form == openai_fields.CHAT for call in ignored):
        return f"{what}: calls there may cost more than was held."
    sent = traits.output_bound is OutputBound.MAX_TOKENS
    return f"{what}: {update} --output-bound {'max_completion_tokens' if sent else 'max_tokens'}, then test again."
