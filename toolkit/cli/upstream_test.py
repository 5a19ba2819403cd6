"""`keydesk upstreams test`: has a running gateway try an upstream, and says what it found and what is to be set."""

import time
from dataclasses import asdict

import click

from toolkit.admin import upstream_report, upstream_tests
from toolkit.admin.upstream_tests import Outcome
from toolkit.cli.app import App, Command, pass_app
from toolkit.core.errors import Unavailable
from toolkit.core.money import usd

_LOOK = 0.2
"""Seconds between two looks at what became of the test."""


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
        works, lacking, to_do = upstream_report.judge(tx, name, found)
    workspace = app.workspace
    added = upstream_report.add_models(workspace.store, workspace.actor, name, lacking) if add_models else []
    if app.as_json:
        calls = [asdict(call) | {"cost": None if call.cost is None else usd(call.cost)} for call in found.calls]
        facts = asdict(found) | {"upstream": name, "calls": calls, "lacking": lacking, "added": added, "to_do": to_do}
        app.facts(facts)
    else:
        app.done("\n".join(upstream_report.report(name, found, lacking, added, to_do)), {})
    if not works:
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
