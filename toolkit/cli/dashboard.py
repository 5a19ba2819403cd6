"""`keydesk dashboard`: runs the dashboard."""

from pathlib import Path

import click

import toolkit
from toolkit import environment
from toolkit.cli.app import App, Command, keep_private, pass_app
from toolkit.core.errors import InvalidInput


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
