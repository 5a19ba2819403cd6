"""What is printed to be pasted meets the installation and the data folder that it speaks of."""

import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from tests.conftest import Run, World, variables_of
from tests.rows import append, row
from toolkit.cli import cli
from toolkit.cli.command_line import keydesk, to_paste
from toolkit.core.settings import Settings
from toolkit.environment import read_settings


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command of an installation in a folder of its own; somebody stands in that folder."""
    command = tmp_path / "bin" / "keydesk"
    command.parent.mkdir()
    command.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(command.with_name("python")))
    return command


@pytest.mark.parametrize(("on_path", "shown"), [(True, "keydesk"), (False, "bin/keydesk")])
def test_keydesk_is_named_as_it_can_be_run(
    command: Path, monkeypatch: pytest.MonkeyPatch, on_path: bool, shown: str
) -> None:
    """By its name where the shell finds it, else by its place as seen from here."""
    monkeypatch.setenv("PATH", str(command.parent) if on_path else "")
    assert keydesk() == shown


def test_another_installation_of_that_name_is_not_meant(
    command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that would find somebody else's `keydesk` gets the place of ours."""
    other = tmp_path / "other" / "keydesk"
    other.parent.mkdir()
    other.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert keydesk() == "bin/keydesk"


def test_commands_carry_the_folder_that_they_mean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each command in a sentence does, prose that speaks of Keydesk does not; the folder is quoted for a shell."""
    folder = tmp_path / "it's here"
    monkeypatch.setenv("KEYDESK_DATA_DIR", str(folder))
    said = to_paste("Keydesk is shy: `keydesk keys list` shows them, or keydesk up. keydesk.db stays.")
    carried = f"KEYDESK_DATA_DIR={shlex.quote(str(folder))} {keydesk()}"
    assert said == f"Keydesk is shy: `{carried} keys list` shows them, or {carried} up. keydesk.db stays."


def test_an_empty_list_says_the_next_step_on_its_own_folder(world: World) -> None:
    """What a person copies from an answer goes to the store that the answer is about."""
    env = variables_of(world.workspace.settings)
    with world.workspace.write() as tx:
        tx.session.execute(text("DELETE FROM operator"))
    result = CliRunner().invoke(cli, ["operators", "list"], env=env, prog_name="keydesk")
    assert f"Add one: KEYDESK_DATA_DIR={world.workspace.settings.data_dir} {keydesk()} operators add" in result.stdout


def test_a_violation_says_what_checks_the_right_ledger(world: World) -> None:
    """What `reconcile` finds wrong with a segment is looked into on the same folder."""
    workspace = world.workspace
    append(workspace.store, [row(world.key("app").key, cost=1)])
    workspace.ledger.sync()
    (segment,) = (workspace.settings.data_dir / "ledger").rglob("*.parquet")
    segment.unlink()
    result = CliRunner().invoke(cli, ["reconcile"], env=variables_of(workspace.settings), prog_name="keydesk")
    assert f"`KEYDESK_DATA_DIR={workspace.settings.data_dir} {keydesk()} ledger verify` checks them" in result.stdout


def test_the_folder_of_the_checkout_goes_without_saying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any shell finds it by itself, also when somebody has set it all the same."""
    monkeypatch.delenv("KEYDESK_DATA_DIR", raising=False)
    assert to_paste("keydesk up") == f"{keydesk()} up"
    monkeypatch.setenv("KEYDESK_DATA_DIR", str(read_settings({}).data_dir))
    assert to_paste("keydesk up") == f"{keydesk()} up"


def test_the_report_of_a_wrong_setting_is_said_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no folder to carry where the settings cannot be read."""
    monkeypatch.setenv("KEYDESK_HOTS", "typo")
    assert to_paste("keydesk up") == "keydesk up"


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "list"),
        ("reconcile",),
        ("findings", "--fail-on", "low"),
        ("ledger", "sync"),
        ("operators", "list"),
        ("wallet", "show", "--org", "Acme"),
        ("month", "list"),
        ("upstreams", "list"),
    ],
    ids=" ".join,
)
def test_a_wrong_folder_is_no_empty_keydesk(run: Run, settings: Settings, arguments: tuple[str, ...]) -> None:
    """Whatever is asked of a folder without a store is refused, names the folder, and makes nothing."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"There is no key store at {settings.data_dir / 'keydesk.db'}." in result.stderr
    assert "KEYDESK_DATA_DIR" in result.stderr
    assert not settings.data_dir.exists()


def test_a_relative_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that starts elsewhere, as cron's do, finds no store and says where it looked."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["keys", "list"], env={"KEYDESK_DATA_DIR": "elsewhere"}, prog_name="keydesk")
    assert result.exit_code == 1
    assert f"There is no key store at {tmp_path / 'elsewhere' / 'keydesk.db'}." in result.stderr


def test_the_first_organisation_makes_the_store_and_says_where(run: Run, settings: Settings) -> None:
    """Setting up by hand begins with an organisation; the second one makes nothing."""
    first, second = run("orgs", "add", "Acme"), run("orgs", "add", "Bolt")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert f"Made the key store sqlite:///{settings.data_dir / 'keydesk.db'}." in first.stderr
    assert second.stderr == ""


def test_an_empty_file_is_no_store(run: Run, settings: Settings) -> None:
    """A file that somebody touched, or a restore that failed, has no schema: nothing is made in it."""
    settings.data_dir.mkdir()
    file = settings.data_dir / "keydesk.db"
    file.touch()
    result = run("keys", "list")
    assert result.exit_code == 1
    assert "There is no key store at" in result.stderr
    assert file.stat().st_size == 0


def test_a_file_that_cannot_be_used_is_a_sentence(world: World, run: Run, tmp_path: Path) -> None:
    """What the machine refuses is told with the file's name and no traceback, whatever the command was about to do."""
    result = run("ledger", "export", str(tmp_path / ("x" * 300 + ".csv")))
    assert result.exit_code == 1
    assert "x.csv: File name too long. See that this user may use it and that its disk has room." in result.stderr
