"""Options that several commands have."""

from typing import Any

import click

from toolkit.cli.values import Moment
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.unknown_fields import UnknownFields

FROM = click.option("--from", "start", type=Moment(), metavar="TIME", help="From this moment on, UTC.")
TO = click.option("--to", "end", type=Moment(), metavar="TIME", help="Up to, but not including, this moment, UTC.")
TAG = click.option(
    "--tag", "tagged", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag; if given again, with all."
)
UNKNOWN_FIELDS = click.option(
    "--unknown-fields",
    type=click.Choice([choice.value for choice in UnknownFields]),
    help="What becomes of request fields and betas that Keydesk does not know; the stricter of upstream and plan wins. "
    "New ones have `pass`.",
)
HOSTED_TOOLS = click.option(
    "--hosted-tools",
    type=click.Choice([choice.value for choice in HostedTools]),
    help="What becomes of tools that the provider would run, such as its web search; the stricter of plan and key "
    "wins. New ones have `leave_out`; `allow` needs prices for tools, which there are none of yet.",
)


def require_one(options: dict[str, Any]) -> None:
    """Refuse an `update` that changes nothing.

    Raises:
        UsageError: none of the options was given.
    """
    if all(value is None for value in options.values()):
        raise click.UsageError("Nothing to change: give at least one option.", click.get_current_context())
