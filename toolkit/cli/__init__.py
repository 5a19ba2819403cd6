"""The `keydesk` command.

Begin with `SECTIONS` below, the list of all commands, and with `app`, what they share: the opened Keydesk, `--json`,
`--as`, confirmations. Each command is in the file of its name, `keydesk keys` in `keys`. `output` writes tables, facts
and JSON; `values` and `options` are what commands are given. `supervisor` and `part_log` are behind `keydesk up`.

A command's file is imported only when the command runs, so that `keydesk --help` answers at once.

May import everything, `demo` and `dashboard` included: it starts them. Nothing imports it.
"""

from importlib import import_module

import click

from toolkit.cli.app import App, Failure
from toolkit.core.errors import KeydeskError

SECTIONS = {
    "Run": {
        "up": "Start gateway, dashboard, alerts, ledger drain and demo upstream.",
        "gateway": "Run the gateway.",
        "dashboard": "Run the dashboard.",
        "alerts": "Say who is told when a threshold is passed; tell them.",
        "demo": "Run the demo upstream, which answers without any account.",
        "health": "Show which processes run, how the stores stand, and which settings hold.",
    },
    "API keys": {
        "keys": "Create, change, rotate, disable and delete API keys.",
    },
    "Usage": {
        "spend": "Show what was spent: calls, tokens and cost.",
        "movers": "Show whose spend moved between two periods, and why.",
        "whatif": "Replay a period's calls under another plan, multiplier, price book or limit.",
        "forecast": "Say what this month will cost, and when limits and wallets run out.",
        "anomalies": "Show when a key spent far more than usual, fell silent, or was refused in bursts.",
        "requests": "Search the request log, or correct what a call was charged.",
        "audit": "Show the audit log, or prove that it was not changed.",
        "findings": "Audit keys, operators, prices and books: what was found, and what to do.",
        "accuracy": "Show how well holds foretold charges, per key and model.",
        "holds": "List open holds: the money set aside for calls under way, the oldest first.",
        "reconcile": "Check that the books balance, and show what does not.",
        "ledger": "Drain, compact, verify and export the usage ledger; show its state.",
        "month": "Close billing months, and show, check and write their statements.",
        "invoice": "Compare what a provider bills with our own log.",
    },
    "Set-up": {
        "pepper": "See which peppers the API keys need, and retire one that is gone.",
        "orgs": "Add, list, rename, suspend and resume organisations.",
        "operators": "Add, change and remove people who may sign in.",
        "wallet": "Put money into wallets and look into them.",
        "upstreams": "Add, change and list provider endpoints.",
        "models": "Add, change and list models.",
        "prices": "Look into the price book and enter prices, in USD per million tokens.",
        "plans": "Add, change and list plans.",
    },
}
"""Every command by section, with its line in `keydesk --help`. Each is in the file of its name."""


class Root(click.Group):
    """The top of the command: finds the commands, and turns errors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command, or None if there is none of this name."""
        for commands in SECTIONS.values():
            if cmd_name in commands:
                module = import_module(f"toolkit.cli.{cmd_name}")
                command: click.Command = getattr(module, f"{cmd_name}_command")
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands by section, without importing them."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(10), line) for name, line in commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note `--json` before anything is parsed, so that usage errors are JSON too."""
        ctx.obj = App(as_json="--json" in args)
        for argument in args:
            try:
                argument.encode()
            except UnicodeEncodeError:
                problem = f"{argument.encode(errors='backslashreplace').decode()} is not text in UTF-8."
                raise Failure(problem, type="usage", as_json=ctx.obj.as_json, exit_code=2) from None
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; errors that are meant for people become messages without a traceback."""
        app = ctx.obj
        try:
            return super().invoke(ctx)
        except KeydeskError as error:
            raise Failure.of(error, as_json=app.as_json) from error
        except BrokenPipeError:
            raise  # the reader of our output has left
        except OSError as error:
            if error.filename is None:
                raise
            # A disk that is full or read-only, a folder that is somebody else's: whatever the command was about to do.
            problem = f"{error.filename}: {error.strerror}. See that this user may use it and that its disk has room."
            raise Failure(problem, type="unavailable", as_json=app.as_json) from error
        except click.UsageError as error:
            if not app.as_json:
                raise
            raise Failure(error.format_message(), type="usage", as_json=True, exit_code=2) from error
        finally:
            app.close()


@click.command(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="keydesk", message="keydesk %(version)s")
def cli() -> None:
    """Issue, meter, cap and audit the API keys of an LLM gateway."""


def main() -> None:
    """Run `keydesk` with the process's arguments."""
    cli(prog_name="keydesk")
