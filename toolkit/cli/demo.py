"""`keydesk demo`: runs the demo upstream, or loads the demo data."""

import click

from toolkit import environment
from toolkit.cli.app import App, Group, pass_app, shared_options
from toolkit.cli.values import PORT
from toolkit.core.errors import InvalidInput
from toolkit.providers import presets


@click.group(cls=Group, invoke_without_command=True, params=shared_options())
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=PORT, help="Port to listen on.  [default: KEYDESK_DEMO_PORT]")
@click.option("--pace", type=click.FloatRange(0), default=1.0, show_default=True, help="0 answers at once, 2 is slow.")
@click.option("--like", "preset", metavar="P", help="Behave as this provider; `upstreams presets` lists them.")
@click.option("--refuse", metavar="FIELD", multiple=True, help="With --like: a field that it refuses all the same.")
@click.pass_context
def demo_command(
    ctx: click.Context, host: str, port: int | None, pace: float, preset: str | None, refuse: tuple[str, ...]
) -> None:
    """Run the demo upstream, which answers without any account.

    It speaks the dialects of OpenAI, Anthropic and Gemini.
    """
    if ctx.invoked_subcommand is None:
        from toolkit.demo import upstream
        from toolkit.demo.disguise import Disguise

        if refuse and preset is None:
            raise InvalidInput("--refuse is for the disguise of a provider: name it with --like.")
        disguise = None if preset is None else Disguise(presets.find(preset), frozenset(refuse))
        upstream.serve(host, port or environment.read_settings().demo_port, pace, disguise)


@demo_command.command("load")
@pass_app
def load(app: App) -> None:
    """Load the demo data: 90 days of calls by three organisations."""
    from toolkit.cli import first_start

    calls = first_start.load_demo(app.open(make=True), quiet=app.as_json)
    app.done(f"Loaded {calls:,} calls.", {"calls": calls})
