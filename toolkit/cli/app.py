"""What all commands share: the opened Keydesk, `--json` and `--as`, errors and confirmations."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from toolkit import environment
from toolkit.cli import output
from toolkit.cli.command_line import to_paste
from toolkit.core import words
from toolkit.core.errors import InvalidInput, KeydeskError, NotConfirmed

if TYPE_CHECKING:
    from toolkit.core.settings import Settings
    from toolkit.workspace import Workspace


class Failure(click.ClickException):
    """An error as the command reports it: one line, or with `--json` one object, on standard error."""

    def __init__(self, message: str, *, type: str, as_json: bool, exit_code: int = 1) -> None:  # noqa: A002
        super().__init__(message)
        self.type = type
        self.as_json = as_json
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    @classmethod
    def of(cls, error: KeydeskError, *, as_json: bool) -> "Failure":
        """Return the report of an error. A secret that was typed where a name belongs is not repeated."""
        from toolkit.core.secrets import redact

        snake_case = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
        return cls(to_paste(redact(str(error))), type=snake_case, as_json=as_json)

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the report."""
        if self.as_json:
            click.echo(json.dumps({"error": {"type": self.type, "message": self.message}}), file=file, err=True)
        else:
            super().show(file)

    def format_message(self) -> str:
        """Return the message without what a terminal would obey: it may quote what others wrote."""
        return "\n".join(map(output.text, self.message.split("\n")))


class App:
    """One run of the command.

    Args:
        as_json: whether results are written as JSON.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.actor: str | None = None
        self._workspace: Workspace | None = None

    @property
    def workspace(self) -> "Workspace":
        """Keydesk, opened at first use with the rights of the platform and the name given by `--as`."""
        return self._workspace or self.open()

    def open(self, *, make: bool = False) -> "Workspace":
        """Open Keydesk.

        Args:
            make: whether a missing key store is made; where, is then said. Only for what sets Keydesk up.

        Raises:
            KeydeskError: a setting is wrong, or the key store is missing or cannot be opened.
        """
        from toolkit.store.actor import Actor
        from toolkit.workspace import Workspace

        self._workspace = Workspace.open(actor=Actor.trusted(self.actor), make=make)
        migration = self._workspace.store.migration
        if migration is not None and migration.before == 0:
            click.echo(migration, err=True)
        return self._workspace

    def ids(self, org: str | None, key: str | None = None) -> tuple[str | None, str | None]:
        """Return the ids of an organisation and a key that were given by id or name, or not at all.

        Raises:
            NotFound: there is none.
        """
        from toolkit.admin import keys, organisations

        with self.workspace.read() as tx:
            return organisations.find(tx, org).id if org else None, keys.find(tx, key).id if key else None

    def close(self) -> None:
        """Close what was opened."""
        if self._workspace is not None:
            self._workspace.close()

    def rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: Mapping[str, str],
        *,
        empty: str,
        total: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a list: every field as JSON, or the named columns for people.

        Args:
            rows: one mapping each, all with the same fields.
            columns: field → heading, for people.
            empty: what people read when there are no rows: the next step.
            total: a last line for people.
        """
        if self.as_json:
            click.echo(output.to_json(list(rows)))
        elif rows:
            click.echo(output.table(rows, columns, total))
        else:
            click.echo(to_paste(empty))

    def facts(self, facts: Mapping[str, Any], title: str = "") -> None:
        """Write one thing: an object as JSON, or a title and labelled lines for people."""
        if self.as_json:
            click.echo(output.to_json(facts))
        else:
            click.echo((f"{title}\n" if title else "") + output.labelled(facts))

    def done(self, sentence: str, facts: Mapping[str, Any]) -> None:
        """Report an act: the facts as JSON, or a sentence for people."""
        click.echo(output.to_json(facts) if self.as_json else to_paste(sentence))

    def confirm(self, question: str, *, yes: bool, type_name: str | None = None) -> None:
        """Ask before something dangerous; returns only if it was confirmed.

        Args:
            question: what is about to happen.
            yes: whether it was confirmed by `--yes`.
            type_name: what the person must type; by default a plain yes is enough.

        Raises:
            NotConfirmed: the answer was no, or there is nobody to ask.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise NotConfirmed("There is no terminal to ask on: confirm with --yes. Nothing was changed.")
        if type_name is None:
            confirmed = click.confirm(question, err=True)
        else:
            confirmed = click.prompt(f"{question}\nType its name to confirm", err=True).strip() == type_name
        if not confirmed:
            raise NotConfirmed("Not confirmed. Nothing was changed.")

    def new_password(self, *, from_stdin: bool) -> str:
        """Read a new password: hidden and twice from the terminal, or one line of standard input.

        Raises:
            InvalidInput: there is no terminal to ask on.
        """
        if from_stdin:
            return sys.stdin.readline().rstrip("\r\n")
        if not sys.stdin.isatty():
            raise InvalidInput("There is no terminal to ask for the password on: use --password-stdin.")
        password: str = click.prompt("New password", hide_input=True, confirmation_prompt="Once more", err=True)
        return password


def keep_private(settings: "Settings") -> None:
    """Keep what Keydesk has written from this machine's other users, and say what was changed for it."""
    for line in environment.keep_private(settings):
        click.echo(line, err=True)


pass_app = click.make_pass_decorator(App)


def _name_actor(ctx: click.Context, _parameter: click.Parameter, actor: str | None) -> None:
    if actor is not None:
        try:
            ctx.find_root().obj.actor = words.check_line(actor, "name of who acts", words.EMAIL)
        except InvalidInput as error:
            raise click.BadParameter(str(error), ctx) from error


def shared_options() -> list[click.Parameter]:
    """Return the options that every command has."""
    return [
        # The root has read --json already; here it is declared, so that it is accepted and explained.
        click.Option(["--json"], is_flag=True, expose_value=False, help="Write JSON; errors too."),
        click.Option(
            ["--as", "as_actor"],
            metavar="EMAIL",
            expose_value=False,
            callback=_name_actor,
            help="In whose name you act: the audit log shows `cli:<user> as EMAIL`.",
        ),
    ]


class Command(click.Command):
    """A command with the options that every command has."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(shared_options())


class Group(click.Group):
    """A noun: its commands are its verbs."""

    command_class = Command
