"""`keydesk up`: starts all of Keydesk, and says where it is and how to get in."""

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

import toolkit
from toolkit import environment
from toolkit.cli.app import App, Command, keep_private, pass_app
from toolkit.cli.command_line import short, to_paste
from toolkit.environment import write_private

if TYPE_CHECKING:
    from toolkit.cli.first_start import Welcome
    from toolkit.workspace import Workspace


@click.command(cls=Command)
@pass_app
def up_command(app: App) -> None:
    """Start gateway, dashboard, alerts, ledger drain and demo upstream.

    The first start makes the key store, demo data and a platform admin, and prints how to sign in. Ctrl-C stops
    everything.
    """
    from toolkit.cli import first_start, parts, supervisor
    from toolkit.demo.data import CREDENTIAL, follow_port

    # Until the processes run, an interruption simply ends this one; the next start goes on from there.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = environment.read_settings()
    say = _silent if app.as_json else click.echo
    all_parts = parts.parts(settings)
    supervisor.check(settings, all_parts)
    running = supervisor.Supervisor(settings, all_parts, {CREDENTIAL: os.environ.get(CREDENTIAL, "demo")})
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
    with running:
        ready = running.start(lambda name: say(f"  {name.capitalize():<15} ready"), _warn, credentials)
        if ready:
            gateway = settings.public_url or parts.url(settings.host, settings.gateway_port)
            dashboard = next(iter(settings.dashboard_urls), parts.url(settings.host, settings.dashboard_port))
            welcome = first_start.finish(app.workspace, gateway) if first else None
            _greet(app, gateway, dashboard, welcome)
            running.watch()
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
