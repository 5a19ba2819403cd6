"""`keydesk gateway`: runs the gateway."""

import click

from toolkit import environment
from toolkit.cli.app import App, Command, keep_private, pass_app
from toolkit.cli.values import PORT


@click.command(cls=Command)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: KEYDESK_HOST]")
@click.option("--port", type=PORT, help="Port to listen on.  [default: KEYDESK_GATEWAY_PORT]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that share the port.")
@pass_app
def gateway_command(app: App, host: str | None, port: int | None, workers: int) -> None:  # noqa: ARG001
    """Run the gateway."""
    from toolkit.gateway import app as gateway

    settings = environment.read_settings()
    keep_private(settings)
    gateway.serve(settings, host or settings.host, port or settings.gateway_port, workers)
