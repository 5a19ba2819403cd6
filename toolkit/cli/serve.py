"""`keydesk up`, `gateway`, `dashboard` and `demo`: the processes."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import toolkit
from toolkit import environment
from toolkit.cli.app import App, Command, Group, keep_private, pass_app, shared_options
from toolkit.cli.command_line import short, to_paste
from toolkit.core.errors import InvalidInput
from toolkit.environment import write_private

if TYPE_CHECKING:
    from toolkit.cli.first_start import Welcome
    from toolkit.workspace import Workspace

_PORT = click.IntRange(1, 65535)


@click.command(cls=Command)
@pass_app
def up_command(app: App) -> None:
    """Start gateway, dashboard, ledger drain and demo upstream.

    The first start makes the key store, demo data and a platform admin, and prints how to sign in. Ctrl-C stops
    everything.
    """
    from toolkit.cli import first_start, up
    from toolkit.demo.data import CREDENTIAL, follow_port

    # Until the processes run, an interruption simply ends this one; the next start goes on from there.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = environment.read_settings()
    say = _silent if app.as_json else click.echo
    up.check(settings)
    supervisor = up.Supervisor(settings, {CREDENTIAL: os.environ.get(CREDENTIAL, "demo")})
    say(click.style(f"Keydesk {toolkit.__version__}", bold=True))
    try:
        app.open(make=True)
        keep_private(settings)
        app.workspace.keyring  # noqa: B018 - made here, or found missing, rather than by several processes at once
        first = first_start.is_due(app.workspace)
        if first:
            first_start.prepare(app.workspace, quiet=app.as_json)
        follow_port(app.workspace)
        credentials = _credentials(app.workspace)
    except KeyboardInterrupt:
        say("\nStopped. The next start goes on from here.")
        click.get_current_context().exit(130)
    with supervisor:
        ready = supervisor.start(lambda name: say(f"  {name.capitalize():<15} ready"), _warn, credentials)
        if ready:
            gateway = settings.public_url or up.url(settings.host, settings.gateway_port)
            dashboard = next(iter(settings.dashboard_origins), up.url(settings.host, settings.dashboard_port))
            welcome = first_start.finish(app.workspace, gateway) if first else None
            _greet(app, gateway, dashboard, welcome)
            supervisor.watch()
        say("\nStopping …")
    say("Stopped.")


def _credentials(workspace: "Workspace") -> set[str]:
    """Return the names of variables with upstreams' credentials: those that upstreams have, and might get."""
    from toolkit.admin.upstreams import list_upstreams

    with workspace.read() as tx:
        named = {upstream.credential_env for upstream in list_upstreams(tx)}
    return named | environment.credential_names(workspace.settings, os.environ)


def _warn(line: str) -> None:
    click.echo(line, err=True)


def _silent(_line: str) -> None:
    """Say nothing: with `--json` only the result is written."""


def _greet(app: App, gateway: str, dashboard: str, welcome: "Welcome | None") -> None:
    """Show where everything is, and after the first start how to get in: to a terminal alone, else into a file."""
    from toolkit.cli.first_start import ADMIN

    settings = app.workspace.settings
    path = None
    if welcome is not None and (app.as_json or not sys.stdout.isatty()):
        path = settings.first_start_file
        write_private(path, welcome.text() + "\n")
    if app.as_json:
        app.facts({"dashboard": dashboard, "gateway": gateway, "first_start": str(path) if path else None})
        return
    click.echo(f"\n  Dashboard   {click.style(dashboard, bold=True)}")
    click.echo(f"  Gateway     {click.style(gateway, bold=True)}\n")
    if path is not None:
        click.echo(
            f"  Sign-in and a first call are in {short(path)} (yours alone to read). Delete it when you have them."
        )
    elif welcome is not None:
        click.echo(welcome.text())
        click.echo("\n  Password and key are shown this once.")
    else:
        click.echo(f"  Forgotten password   {to_paste(f'keydesk operators reset-password {ADMIN}')}")
        click.echo(f"  Start anew           stop, then delete what is in {short(settings.data_dir)}")
    click.echo(f"\n  Logs are in {short(settings.logs_dir)}. Ctrl-C stops everything.")


@click.command(cls=Command)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: KEYDESK_HOST]")
@click.option("--port", type=_PORT, help="Port to listen on.  [default: KEYDESK_GATEWAY_PORT]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that share the port.")
@pass_app
def gateway_command(app: App, host: str | None, port: int | None, workers: int) -> None:  # noqa: ARG001
    """Run the gateway."""
    from toolkit.gateway import app as gateway

    settings = environment.read_settings()
    keep_private(settings)
    gateway.serve(settings, host or settings.host, port or settings.gateway_port, workers)


@click.command(cls=Command)
@pass_app
def dashboard_command(app: App) -> None:
    """Run the dashboard."""
    settings = environment.read_settings()
    keep_private(settings)
    app.workspace.keyring  # noqa: B018 - a missing pepper is said here, in words
    script = Path(toolkit.__file__).resolve().parent.parent / "app.py"
    if not script.exists():
        raise InvalidInput(f"The dashboard's {script.name} is not in {script.parent}. Run Keydesk from its own folder.")
    from toolkit.dashboard import server

    server.serve(settings, script)


@click.group(cls=Group, invoke_without_command=True, params=shared_options())
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=_PORT, help="Port to listen on.  [default: KEYDESK_DEMO_PORT]")
@click.option("--pace", type=click.FloatRange(0), default=1.0, show_default=True, help="0 answers at once, 2 is slow.")
@click.pass_context
def demo_command(ctx: click.Context, host: str, port: int | None, pace: float) -> None:
    """Run the demo upstream, which answers without any account.

    It speaks the dialects of OpenAI, Anthropic and Gemini.
    """
    if ctx.invoked_subcommand is None:
        from toolkit.demo import upstream

        upstream.serve(host, port or environment.read_settings().demo_port, pace)


@demo_command.command("load")
@pass_app
def load(app: App) -> None:
    """Load the demo data: 90 days of calls by three organisations."""
    from toolkit.cli import first_start

    calls = first_start.load_demo(app.open(make=True), quiet=app.as_json)
    app.done(f"Loaded {calls:,} calls.", {"calls": calls})
