"""The `keydesk` command, run in process on a real store; where a terminal or a signal matters, as a real process."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from select import select as select_ready

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from tests.cli.interrupt import doing
from tests.conftest import ROOT, Run, World, variables_of, wait_until
from toolkit.admin import sessions
from toolkit.admin.sign_in import open_session
from toolkit.cli import SECTIONS, cli, output
from toolkit.cli.app import Failure
from toolkit.cli.values import Moment
from toolkit.core.account_fault import AccountFault
from toolkit.core.marked import Usd
from toolkit.core.money import NANO, parse_usd
from toolkit.core.secrets import is_well_formed, new_secret
from toolkit.core.settings import Settings
from toolkit.store import incidents
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.incidents import At, Refused
from toolkit.store.tables import ApiKey, AuditRow, LiveSecret, Operator, Organisation, OutboxRow

pytestmark = pytest.mark.any_store

PASSWORD = "correct horse battery"


@pytest.fixture
def read(run: Run) -> Callable[..., object]:
    """Run `keydesk … --json`, which must succeed, and return what it wrote."""

    def invoke(*arguments: str, typed: str | None = None) -> object:
        result = run(*arguments, "--json", typed=typed)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return invoke


Read = Callable[..., dict[str, object]]
ReadList = Callable[..., list[dict[str, object]]]


def log_call(world: World, key: ApiKey, cost: int, request_id: str = "req_1") -> None:
    """Write the request-log row of a completed call."""
    moment = datetime(2026, 11, 5, 10, 30, tzinfo=UTC)
    numbers = dict.fromkeys(
        (column.name for column in OutboxRow.__table__.columns if column.type.python_type is int), 0
    )
    facts = {
        **numbers,
        "request_id": request_id,
        "org_id": world.org_id,
        "key_id": key.id,
        "plan_id": world.plan_id,
        "admitted_at": moment,
        "settled_at": moment,
        "outcome": "completed",
        "status": 200,
        "dialect": "openai",
        "endpoint": "chat/completions",
        "stream": False,
        "model": "gpt-test",
        "input_tokens": 1_200,
        "output_tokens": 34,
        "cost": cost,
    }
    with world.workspace.write() as tx:
        tx.session.add(OutboxRow(**facts))


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its full name."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name, command
        if isinstance(command, click.Group):
            for verb, inner in command.commands.items():
                yield f"{name} {verb}", inner


COMMANDS = dict(all_commands())


# -- the command as a whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_shared_options(name: str) -> None:
    """`--json` and `--as` are accepted everywhere."""
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--json", "--as"} <= options


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    """docs/commands.md has a section for each command that names each of its options and arguments."""
    page = (ROOT / "docs" / "commands.md").read_text()
    section = re.search(rf"^### `keydesk {name}[ `].*?(?=^###? |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, f"no section `keydesk {name}`"
    shared = {"--json", "--as"}
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and not shared & set(parameter.opts):
            assert parameter.opts[0] in section.group(), f"{parameter.opts[0]} is not described"


def test_documented_commands_exist() -> None:
    """docs/commands.md describes no command that is not there."""
    page = (ROOT / "docs" / "commands.md").read_text()
    documented = re.findall(r"^### `keydesk ([a-z -]+?)(?: [A-Z\[-].*)?`$", page, re.MULTILINE)
    assert sorted(documented) == sorted(COMMANDS)


def test_every_setting_is_documented() -> None:
    """docs/settings.md has each setting with its default and its help, word for word, and no other."""
    from toolkit.core.settings import TABLE

    page = (ROOT / "docs" / "settings.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(name, f"`{default}`" if default else "-", text) for name, default, text in TABLE]


def test_help_lists_what_the_commands_say_of_themselves() -> None:
    """The lines of `keydesk --help`, kept apart for speed, are the commands' own first lines."""
    context = click.Context(cli)
    for commands in SECTIONS.values():
        for name, line in commands.items():
            command = cli.get_command(context, name)
            assert command is not None
            assert command.get_short_help_str(limit=200) == line.removesuffix(".") + "."


def test_help_imports_nothing_heavy() -> None:
    """`keydesk --help` answers without loading the key store, pandas, DuckDB or Streamlit."""
    code = (
        "import sys; from toolkit.cli import cli; cli(['--help'], standalone_mode=False);"
        "print(sorted({'sqlalchemy', 'pandas', 'duckdb', 'pyarrow', 'streamlit', 'starlette'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_key_commands_do_not_load_pandas() -> None:
    """Simple commands start without pandas, DuckDB and Streamlit."""
    code = (
        "import sys, toolkit.cli.keys, toolkit.cli.requests, toolkit.workspace;"
        "print(sorted({'pandas', 'duckdb', 'streamlit', 'plotly'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("workspace")
def test_an_error_is_one_line_on_standard_error(run: Run) -> None:
    """What is wrong is said without a traceback, and the exit code is 1."""
    result = run("keys", "show", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: There is no API key 'nobody'. `keydesk keys list` shows them.\n"


@pytest.mark.usefixtures("workspace")
def test_an_error_is_json_where_json_is_asked_for(run: Run) -> None:
    """With --json an error is one object on standard error."""
    result = run("keys", "show", "nobody", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr)["error"]["type"] == "not_found"


@pytest.mark.parametrize("arguments", [["keys", "show"], ["keys", "paint"], ["orgs", "add", "A", "--colour"]])
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    """A missing argument, an unknown command and an unknown option are usage errors, in JSON too."""
    plain, as_json = run(*arguments), run(*arguments, "--json")
    assert (plain.exit_code, as_json.exit_code) == (2, 2)
    assert "Usage:" in plain.stderr
    assert json.loads(as_json.stderr)["error"]["type"] == "usage"


def test_a_wrong_setting_is_an_error_of_one_line(settings: Settings) -> None:
    """A misspelt variable is reported, not ignored."""
    env = variables_of(settings) | {"KEYDESK_DATADIR": "x"}
    result = CliRunner().invoke(cli, ["orgs", "list"], env=env)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: KEYDESK_DATADIR is not a setting of Keydesk.")


def test_a_secret_typed_as_a_name_is_not_repeated(run: Run) -> None:
    """Whoever pastes a secret where a key's name belongs does not find it in the error."""
    secret = new_secret()
    result = run("keys", "show", secret)
    assert result.exit_code == 1
    assert secret not in result.output


# -- API keys -----------------------------------------------------------------------------------------------------


def create(read: Read, *options: str, name: str = "app") -> dict[str, object]:
    """Create a key through the command and return what it wrote."""
    return read("keys", "create", "--org", "Acme", "--name", name, "--plan", "standard", *options)


def test_create_gives_a_secret_once(world: World, run: Run) -> None:
    """The secret stands on a line of its own, with the warning; no other command shows it."""
    result = run("keys", "create", "--org", "Acme", "--name", "app", "--plan", "standard")
    assert result.exit_code == 0
    (secret,) = (line for line in result.stdout.splitlines() if line.startswith("sk-"))
    assert is_well_formed(secret)
    assert "cannot be shown again" in result.stdout
    assert f"\nexport OPENAI_BASE_URL=http://127.0.0.1:8080/v1\nexport OPENAI_API_KEY={secret}\n" in result.stdout
    for later in (run("keys", "show", "app"), run("keys", "list", "--json"), run("audit", "--json")):
        assert later.exit_code == 0
        assert secret not in later.output


def test_create_takes_all_options(world: World, read: Read) -> None:
    """Scope, limit, expiry and policy arrive as they were given; money and moments are exact in JSON."""
    options = ["--models", "gpt-test, claude-test", "--monthly-limit", "12.50", "--expires", "2099-01-31"]
    key = create(read, *options, "--policy", "expected")
    assert key["models"] == ["claude-test", "gpt-test"]
    assert key["monthly_limit_usd"] == "12.5"
    assert key["expires_at"] == "2099-01-31T00:00:00+00:00"
    assert key["policy"] == "expected"
    assert is_well_formed(str(key["secret"]))


def test_list_shows_keys_as_an_aligned_table(world: World, run: Run, read: Read) -> None:
    """A person sees name, plan, status and limit; columns line up."""
    create(read, "--monthly-limit", "1234.5")
    create(read, name="another-app")
    heading, *lines = run("keys", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["another-app", "app"]
    end_of_limit = heading.index("LIMIT") + len("LIMIT")
    end_of_longest = max(
        len(line[: line.index("$1,234.50")]) + len("$1,234.50") for line in lines if "$1,234.50" in line
    )
    assert end_of_limit == end_of_longest
    assert lines[0][end_of_limit - 2 : end_of_limit] == " -"


@pytest.mark.usefixtures("workspace")
def test_an_empty_list_says_the_next_step(run: Run) -> None:
    """Where there is nothing yet, a person reads what to do and a program gets an empty list."""
    assert "keydesk keys create" in run("keys", "list").stdout
    assert json.loads(run("keys", "list", "--json").stdout) == []


def test_update_changes_what_is_given_and_nothing_else(world: World, read: Read) -> None:
    """`none` and `never` lift limit and expiry; the rest stays."""
    create(read, "--monthly-limit", "5", "--expires", "2099-01-31", "--models", "gpt-test")
    key = read("keys", "update", "app", "--monthly-limit", "none", "--expires", "never")
    assert (key["monthly_limit_usd"], key["expires_at"], key["models"]) == (None, None, ["gpt-test"])
    key = read("keys", "update", "app", "--models", "all", "--name", "web", "--policy", "expected")
    assert (key["models"], key["name"], key["policy"]) == ([], "web", "expected")


@pytest.mark.parametrize("empty", ["", " ", ","])
def test_an_empty_list_of_models_is_a_usage_error(world: World, run: Run, read: Read, empty: str) -> None:
    """A variable that was not set does not widen a key to every model, nor make one that has them all."""
    create(read, "--models", "gpt-test")
    result = run("keys", "update", "app", "--models", empty)
    assert result.exit_code == 2
    assert "`all`" in result.stderr
    assert read("keys", "show", "app")["models"] == ["gpt-test"]
    assert run("keys", "create", "--org", "Acme", "--name", "b", "--plan", "standard", "--models", empty).exit_code == 2
    assert run("plans", "update", "standard", "--models", empty).exit_code == 2


def test_show_says_which_models_a_key_may_call(world: World, run: Run, read: Read) -> None:
    """A key without a model scope may call them all, and a person reads so."""
    create(read)
    assert re.search(r"^ *models +all models$", click.unstyle(run("keys", "show", "app").stdout), re.MULTILINE)
    assert read("keys", "show", "app")["models"] == []


def test_update_without_an_option_is_a_usage_error(world: World, run: Run, read: Read) -> None:
    """Nothing to change is said, not passed over."""
    create(read)
    assert run("keys", "update", "app", "--reason", "none").exit_code == 2


@pytest.mark.parametrize("verb", ["rotate", "disable", "delete"])
def test_dangerous_verbs_need_yes_without_a_terminal(world: World, run: Run, read: Read, verb: str) -> None:
    """Where nobody can be asked, nothing changes and the way out is named."""
    before = create(read)
    del before["secret"]
    result = run("keys", verb, "app")
    assert result.exit_code == 1
    assert "--yes" in result.stderr
    assert read("keys", "show", "app") == before


def test_rotate_gives_another_secret(world: World, read: Read) -> None:
    """The key keeps its id; the secret that admits is a new one."""
    before = create(read)
    with world.workspace.read() as tx:
        old_digest = tx.session.scalars(select(LiveSecret.digest)).one()
    after = read("keys", "rotate", "app", "--yes")
    with world.workspace.read() as tx:
        digest = tx.session.scalars(select(LiveSecret.digest)).one()
    assert after["id"] == before["id"]
    assert is_well_formed(str(after["secret"]))
    assert world.workspace.keyring.digest(str(after["secret"])).value == digest != old_digest


def test_disable_enable_delete(world: World, read: Read, run: Run) -> None:
    """Each verb leaves the status it is named for; a deleted key is found by id and in `list --deleted`."""
    key_id = create(read)["id"]
    assert read("keys", "disable", "app", "--yes")["status"] == "disabled"
    assert run("keys", "disable", "app", "--yes").exit_code == 1
    assert read("keys", "enable", "app", "--yes")["status"] == "active"
    assert read("keys", "delete", "app", "--yes", "--reason", "leaked")["status"] == "deleted"
    assert read("keys", "list") == []  # type: ignore[comparison-overlap]
    assert read("keys", "show", str(key_id))["status"] == "deleted"


def on_terminal(settings: Settings, arguments: list[str], *dialogue: tuple[str, str]) -> tuple[int, str]:
    """Run `keydesk` on a pseudo-terminal: wait for each prompt and type its answer; return exit code and screen."""
    parent, child = pty.openpty()
    env = os.environ | variables_of(settings)
    command = [sys.executable, "-m", "toolkit.cli", *arguments]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=env, cwd=ROOT)
    os.close(child)
    shown, answers = "", list(dialogue)
    try:
        while select_ready([parent], [], [], 20)[0] and (block := os.read(parent, 4096)):
            shown += block.decode()
            if answers and answers[0][0] in shown:
                os.write(parent, f"{answers.pop(0)[1]}\n".encode())
    except OSError:  # how Linux says that the other side has closed
        pass
    finally:
        os.close(parent)
        if answers:  # a prompt that never came: do not wait for one who waits
            process.kill()
        code = process.wait(20)
    return code, shown


@pytest.mark.world
@pytest.mark.only_store("sqlite")
def test_delete_asks_for_the_name_on_a_terminal(world: World, settings: Settings, read: Read) -> None:
    """Another name than the key's leaves it alone; its own name deletes it."""
    key_id = str(create(read)["id"])
    code, shown = on_terminal(settings, ["keys", "delete", "app"], ("confirm", "ap"))
    assert code == 1
    assert "Nothing was changed" in shown
    assert read("keys", "show", key_id)["status"] == "active"
    code, shown = on_terminal(settings, ["keys", "delete", "app"], ("confirm", "app"))
    assert code == 0, shown
    assert read("keys", "show", key_id)["status"] == "deleted"


# -- organisations, operators, wallet, catalog --------------------------------------------------------------------


def test_as_names_the_actor_in_the_audit_log(world: World, run: Run) -> None:
    """The audit log shows who acted: the name given by --as, else the user of the machine."""
    run("orgs", "add", "Umbrella", "--as", "maria@example.com")
    run("orgs", "add", "Initech")
    with world.workspace.read() as tx:
        query = select(AuditRow.actor).where(AuditRow.action == "org.add").order_by(AuditRow.at)
        actors = tx.session.scalars(query).all()
    assert actors[-1].startswith("cli:")
    assert actors[-2] == f"{actors[-1]} as maria@example.com"


@pytest.mark.parametrize("name", ["", "a\u202eb@example.com", "a\x1b[2Kb", "x" * 255])
def test_as_takes_no_name_that_is_not_what_it_looks_like(world: World, run: Run, name: str) -> None:
    """Nothing happens then."""
    result = run("orgs", "add", "Umbrella", "--as", name)
    assert result.exit_code == 2
    assert "name of who acts" in result.stderr
    assert "Umbrella" not in run("orgs", "list").stdout


def test_organisations_are_renamed_suspended_and_resumed(world: World, run: Run, read: Read) -> None:
    """Each verb answers with the organisation as it is then; a key of a suspended one is shown as such."""
    world.key()
    assert read("orgs", "rename", "Acme", "Acme Inc")["name"] == "Acme Inc"
    assert run("orgs", "suspend", "Acme Inc").exit_code == 1  # nobody to ask
    assert read("orgs", "suspend", "Acme Inc", "--yes", "--reason", "unpaid")["suspended"] is True
    assert read("keys", "show", "app")["org_suspended"] is True
    assert "ORG SUSPENDED" in run("keys", "list").stdout
    assert read("wallet", "show", "--org", "Acme Inc")["suspended"] is True
    assert read("orgs", "resume", "Acme Inc", "--yes")["suspended"] is False
    assert "ORG SUSPENDED" not in run("keys", "list").stdout


def test_operators_are_disabled_enabled_re_roled_and_removed(world: World, run: Run, read: Read) -> None:
    """Each verb asks first, and answers with the operator as it is then."""
    for email, role in (("root@example.com", "platform_admin"), ("eva@example.com", "analyst")):
        read("operators", "add", email, "--role", role, "--password-stdin", typed=PASSWORD)
    for verb in (["disable"], ["enable"], ["remove"]):
        assert "--yes" in run("operators", *verb, "eva@example.com").stderr
    assert read("operators", "disable", "Eva@example.com", "--yes")["disabled_at"]
    assert read("operators", "enable", "eva@example.com", "--yes")["disabled_at"] is None
    moved = read("operators", "set-role", "eva@example.com", "org_admin", "--org", "Acme", "--yes")
    assert (moved["role"], moved["org_id"]) == ("org_admin", world.org_id)
    assert "the last platform admin" in run("operators", "remove", "root@example.com", "--yes").stderr
    assert read("operators", "remove", "eva@example.com", "--yes", "--reason", "left")["email"] == "eva@example.com"
    assert "eva@example.com" not in run("operators", "list").stdout


def test_operators_sign_in_with_the_password_from_stdin(world: World, run: Run, read: Read) -> None:
    """A password is read from standard input; the operator can sign in with it and is in the list."""
    added = ["operators", "add", "Eva@Example.com", "--role", "org_admin", "--org", "Acme", "--password-stdin"]
    assert read(*added, typed=PASSWORD + "\n")["email"] == "eva@example.com"
    assert open_session(world.workspace.store, "eva@example.com", PASSWORD, "test")
    assert "eva@example.com" in run("operators", "list").stdout


def test_reset_password_ends_the_sessions(world: World, run: Run, read: Read) -> None:
    """After a reset the old password and every open session are dead."""
    read("operators", "add", "eva@example.com", "--role", "platform_admin", "--password-stdin", typed=PASSWORD)
    session = open_session(world.workspace.store, "eva@example.com", PASSWORD, "test")
    result = run("operators", "reset-password", "eva@example.com", "--password-stdin", typed="another long password\n")
    assert result.exit_code == 0, result.output
    assert sessions.find(world.workspace.store, session) is None
    assert open_session(world.workspace.store, "eva@example.com", "another long password", "test")


def test_a_password_is_not_asked_for_without_a_terminal(world: World, run: Run) -> None:
    """Without a terminal and --password-stdin nobody is added, and the option is named."""
    result = run("operators", "add", "eva@example.com", "--role", "analyst", typed=PASSWORD)
    assert result.exit_code == 1
    assert "--password-stdin" in result.stderr
    with world.workspace.read() as tx:
        assert tx.session.scalar(select(func.count()).select_from(Operator)) == 0


@pytest.mark.world
def test_a_password_is_typed_twice_and_not_shown(world: World, settings: Settings) -> None:
    """On a terminal the password is asked for twice and never echoed."""
    arguments = ["operators", "add", "eva@example.com", "--role", "analyst"]
    code, shown = on_terminal(settings, arguments, ("New password", PASSWORD), ("Once more", PASSWORD))
    assert code == 0, shown
    assert PASSWORD not in shown
    assert open_session(world.workspace.store, "eva@example.com", PASSWORD, "test")


def test_a_reference_is_credited_once(world: World, run: Run, read: Read) -> None:
    """The same payment booked twice is refused, and the balance stays."""
    credit = ["wallet", "credit", "--org", "Acme", "--amount", "20.5", "--reference", "inv-7"]
    assert run(*credit).exit_code == 0
    assert run(*credit).exit_code == 1
    read("wallet", "adjust", "--org", "Acme", "--amount", "-0.5", "--reference", "t-1", "--reason", "typo")
    assert read("wallet", "show", "--org", "Acme")["balance_usd"] == "120"
    entries = read("wallet", "entries", "--org", "Acme")
    assert [entry["amount_usd"] for entry in entries] == ["-0.5", "20.5", "100"]  # type: ignore[index]


@pytest.mark.usefixtures("workspace")
def test_set_up_of_a_provider(run: Run, read: Read) -> None:
    """Upstream, model with prices, plan: each is added and listed with what was given."""
    base = "https://api.openai.com/v1"
    upstream = ["upstreams", "add", "openai", "--dialect", "openai", "--base-url", base]
    assert read(*upstream, "--credential-env", "OPENAI_API_KEY")["credential_env"] == "OPENAI_API_KEY"
    prices = ["--input-price", "0.25", "--cached-input-price", "0.025", "--output-price", "2"]
    read("models", "add", "mini", "--upstream", "openai", "--upstream-model", "gpt-5-mini", *prices)
    read("plans", "add", "basic", "--multiplier", "1.1", "--models", "mini")
    (model,) = json.loads(run("models", "list", "--json").stdout)
    assert (model["input_price_usd"], model["cached_input_price_usd"], model["upstream_model"]) == (
        "0.25",
        "0.025",
        "gpt-5-mini",
    )
    assert "$0.025" in run("models", "list").stdout
    (plan,) = json.loads(run("plans", "list", "--json").stdout)
    assert (plan["multiplier"], plan["models"]) == ("1.10", ["mini"])
    assert base in run("upstreams", "list").stdout


def test_several_upstreams_serve_a_model(world: World, run: Run, read: Read) -> None:
    """In order, with weights, at another's prices; one alone ends it. What does not fit together is a usage error."""
    add = ["--dialect", "openai", "--base-url", "http://127.0.0.1:9", "--credential-env", "TEST_UPSTREAM_API_KEY"]
    read("upstreams", "add", "second", *add)
    route = ["models", "route", "gpt-test", "--upstream"]
    said = read(*route, "test-openai, second:gpt-b", "--price-of", "second=other-test")
    assert (said["upstream"], said["route"]) == (
        "test-openai",
        "test-openai:gpt-test, second:gpt-b at the prices of other-test",
    )
    both = [*route, "test-openai,second"]
    assert read(*both, "--weights", "3,1")["route"] == "test-openai:gpt-test (3), second:gpt-test (1)"
    assert "second:gpt-test (1)" in run("models", "list").stdout
    for wrong in ("3", "3,0", "3,x", "3,1,1"):
        assert run(*both, "--weights", wrong).exit_code == 2
    for wrong in ("third=other-test", "second", "second="):
        assert run(*both, "--price-of", wrong).exit_code == 2
    assert run("models", "update", "gpt-test", "--upstream", "second").exit_code == 1
    assert (read(*route, "second")["upstream"], read(*route, "second")["route"]) == ("second", None)


def test_a_plan_is_changed(world: World, run: Run, read: Read) -> None:
    """The whole list, or some added and some taken out; nothing given, or both ways at once, is a usage error."""
    read("plans", "add", "basic", "--multiplier", "1", "--models", "gpt-test,claude-test")
    plan = read("plans", "update", "basic", "--add-models", "gemini-test", "--remove-models", "gpt-test")
    assert (plan["multiplier"], plan["models"]) == ("1.00", ["claude-test", "gemini-test"])
    plan = read("plans", "update", "basic", "--multiplier", "1.5", "--models", "gpt-test")
    assert (plan["multiplier"], plan["models"]) == ("1.50", ["gpt-test"])
    assert "1.50× the base price of gpt-test" in run("plans", "update", "basic", "--multiplier", "1.5").stdout
    assert run("plans", "update", "basic").exit_code == 2
    assert run("plans", "update", "basic", "--models", "gpt-test", "--add-models", "gemini-test").exit_code == 2
    slip = run("plans", "update", "basic", "--remove-models", "gtp-test")
    assert (slip.exit_code, "does not include gtp-test" in slip.stderr) == (1, True)


def test_unknown_fields_are_an_option_of_upstreams_and_plans(world: World, run: Run, read: Read) -> None:
    """They pass unless something else is said; a change is listed and in the audit log, another word a usage error."""
    (before,) = [row for row in json.loads(run("upstreams", "list", "--json").stdout) if row["name"] == "test-openai"]
    assert before["unknown_fields"] == "pass"
    assert read("upstreams", "update", "test-openai", "--unknown-fields", "leave_out")["unknown_fields"] == "leave_out"
    assert (
        "unknown fields: leave_out" in run("upstreams", "update", "test-openai", "--unknown-fields", "leave_out").stdout
    )
    base = ["upstreams", "add", "u", "--dialect", "openai", "--base-url", "https://example.com/v1"]
    assert read(*base, "--credential-env", "U_API_KEY", "--unknown-fields", "refuse")["unknown_fields"] == "refuse"
    assert "leave_out" in run("upstreams", "list").stdout
    plan = ["plans", "add", "basic", "--multiplier", "1", "--models", "gpt-test"]
    assert read(*plan, "--unknown-fields", "leave_out")["unknown_fields"] == "leave_out"
    assert read("plans", "update", "basic", "--unknown-fields", "refuse")["unknown_fields"] == "refuse"
    assert read("plans", "update", "basic", "--multiplier", "2")["unknown_fields"] == "refuse"
    log = run("audit", "--json").stdout
    assert "leave_out" in log
    assert run("plans", "update", "basic", "--unknown-fields", "maybe").exit_code == 2
    assert run("upstreams", "update", "test-openai").exit_code == 2


def test_hosted_tools_are_an_option_of_plans_and_keys(world: World, run: Run, read: Read) -> None:
    """They are left out unless something else is said; that they cannot be allowed yet is said with the reason."""
    plan = ["plans", "add", "basic", "--multiplier", "1", "--models", "gpt-test"]
    assert read(*plan)["hosted_tools"] == "leave_out"
    assert read("plans", "update", "basic", "--hosted-tools", "refuse")["hosted_tools"] == "refuse"
    assert read("plans", "update", "basic", "--multiplier", "2")["hosted_tools"] == "refuse"
    assert "hosted tools: refuse" in run("plans", "update", "basic", "--multiplier", "2").stdout
    assert "refuse" in run("plans", "list").stdout
    assert create(read)["hosted_tools"] == "leave_out"
    assert create(read, "--hosted-tools", "refuse", name="strict")["hosted_tools"] == "refuse"
    assert read("keys", "update", "app", "--hosted-tools", "refuse")["hosted_tools"] == "refuse"
    assert read("keys", "update", "app", "--policy", "expected")["hosted_tools"] == "refuse"
    for allow in (["keys", "update", "app"], ["plans", "update", "basic"]):
        result = run(*allow, "--hosted-tools", "allow")
        assert (result.exit_code, "no price" in result.stderr) == (1, True)
    assert run("keys", "update", "app", "--hosted-tools", "maybe").exit_code == 2


def test_upstreams_that_refuse_our_account_are_shown(world: World, run: Run) -> None:
    """In the list and for one: since when and why, until a call succeeds; in JSON with all that is known."""
    assert json.loads(run("upstreams", "list", "--json").stdout)[0]["incidents"] == []
    at = datetime(2026, 11, 30, 12, 5, tzinfo=UTC)
    refused = {At("test-openai", AccountFault.CREDIT, ""): Refused(at, at, 3, "You exceeded your current quota")}
    with world.workspace.write() as tx:
        incidents.write(tx, refused, {})
    for words in (run("upstreams", "list").stdout, run("upstreams", "show", "test-openai").stdout):
        assert "since 2026-11-30 12:05 UTC: our account at the provider has no credit or quota left" in words
    rows = {row["name"]: row["incidents"] for row in json.loads(run("upstreams", "list", "--json").stdout)}
    (incident,) = rows.pop("test-openai")
    assert (incident["fault"], incident["model"], incident["calls"]) == ("credit", None, 3)
    assert incident["words"] == "You exceeded your current quota"
    assert set(map(str, rows.values())) == {"[]"}


def test_what_is_known_of_an_upstream_is_set_and_shown(world: World, run: Run, read: Read) -> None:
    """By options that say yes or no; what is not given is as usual at its host."""
    base = ["upstreams", "add", "own", "--dialect", "anthropic", "--base-url", "https://api.anthropic.com"]
    own = read(*base, "--credential-env", "U_API_KEY", "--on-leave", "read_on", "--no-pin-tier", "--reckon-rate", "50")
    names = ("on_leave", "refusal_free", "pin_tier", "reckon_rate")
    assert [own[name] for name in names] == ["read_on", True, False, 50]
    said = run("upstreams", "update", "own", "--pin-tier", "--no-refusal-free").stdout
    assert "no preset; on leave: read_on; refusal free: no; reckon rate: 50" in said
    assert [read("upstreams", "show", "own")[name] for name in names] == ["read_on", False, True, 50]
    shown = run("upstreams", "show", "own").stdout
    assert "read_on" in shown
    assert "reckon rate" in shown
    assert "read_on" in run("upstreams", "list").stdout
    assert run("upstreams", "update", "own", "--on-leave", "maybe").exit_code == 2
    assert run("upstreams", "update", "own", "--reckon-rate", "-1").exit_code == 2


def test_an_upstreams_bound_of_connections_is_shown(world: World, run: Run, read: Read) -> None:
    """And may be taken away again; without incidents it says so."""
    assert "calls at once: 4" in run("upstreams", "update", "test-openai", "--max-connections", "4").stdout
    assert read("upstreams", "show", "test-openai")["max_connections"] == 4
    shown = run("upstreams", "show", "test-openai").stdout
    assert re.search(r"max connections +4\n", shown)
    assert re.search(r"incidents +none\n", shown)
    said = run("upstreams", "update", "test-openai", "--max-connections", "0").stdout
    assert "calls at once" not in said
    refused = run("upstreams", "update", "test-openai", "--refusal-free")
    assert (refused.exit_code, "Anthropic's" in refused.stderr) == (1, True)
    assert run("upstreams", "show", "nothing").exit_code == 1


def test_a_provider_is_connected_by_its_name(world: World, run: Run, read: Read) -> None:
    """One command; what holds is shown with why, and what is given wins."""
    added = run("upstreams", "add", "mine", "--preset", "mistral")
    assert "at https://api.mistral.ai/v1; preset mistral." in added.stdout
    assert "Set MISTRAL_API_KEY where the gateway runs." in added.stdout
    shown = read("upstreams", "show", "mine")
    assert (shown["preset"], shown["output_bound"], shown["add_stream_options"]) == ("mistral", "max_tokens", False)
    assert read("upstreams", "update", "mine", "--on-leave", "cancel")["on_leave"] == "cancel"
    words = run("upstreams", "show", "mine").stdout
    assert "max_tokens (from preset mistral)" in words
    assert "https://api.mistral.ai/v1 (from preset mistral)" in words
    assert "cancel (given; from preset mistral: read_on)" in words
    assert shown["why"]["on_leave"] == "from preset mistral"  # type: ignore[index]
    assert "mistral" in run("upstreams", "list").stdout
    azure = ("upstreams", "add", "azure", "--preset", "azure-openai")
    assert "--base-url https://{resource}.openai.azure.com/openai/v1" in run(*azure).stderr
    url = "https://mine.openai.azure.com/openai"
    row = read(*azure, "--base-url", url, "--api-version", "2024-10-21", "--billed-errors", "408", "--no-add-store")
    assert (row["credential_header"], row["api_version"], row["billed_errors"]) == ("api-key", "2024-10-21", "408")
    assert row["add_store"] is False
    assert run("upstreams", "add", "x", "--preset", "grok").exit_code == 1
    assert "--preset" in run("upstreams", "add", "x").stderr


def test_the_presets_are_listed(run: Run) -> None:
    """For people and for programs; and one who connects a known host without its preset is told."""
    assert "https://api.groq.com/openai/v1" in run("upstreams", "presets").stdout
    rows = {row["name"]: row for row in json.loads(run("upstreams", "presets", "--json").stdout)}
    assert (rows["groq"]["on_leave"], rows["groq"]["price_list"]) == ("read_on", "groq")


def test_a_known_host_without_its_preset_is_named(world: World, run: Run) -> None:
    """With the command that sets what is known; nothing is said where that changes nothing."""
    base = ["--dialect", "openai", "--credential-env", "U_API_KEY", "--base-url"]
    assert (
        "`keydesk upstreams update u --preset groq`"
        in run("upstreams", "add", "u", *base, "https://api.groq.com/openai/v1").stdout
    )
    assert "--preset" not in run("upstreams", "add", "o", *base, "https://api.openai.com/v1").stdout


def test_a_model_is_moved_to_a_real_provider(world: World, run: Run, read: Read) -> None:
    """Its public id and price stay; nothing to change is a usage error."""
    upstream = ["upstreams", "add", "real", "--dialect", "openai", "--base-url", "https://api.openai.com/v1"]
    read(*upstream, "--credential-env", "OPENAI_API_KEY")
    model = read(
        "models", "update", "gpt-test", "--upstream", "real", "--upstream-model", "gpt-5", "--max-output", "9000"
    )
    assert (model["id"], model["upstream"], model["upstream_model"], model["max_output"]) == (
        "gpt-test",
        "real",
        "gpt-5",
        9000,
    )
    assert run("models", "update", "gpt-test").exit_code == 2


def test_where_a_models_price_is_from_is_said(world: World, run: Run) -> None:
    """Given by hand, or copied and from where."""
    given = run("models", "add", "a", "--upstream", "test-openai", "--input-price", "1", "--output-price", "2")
    assert given.stdout == "Added the model 'a' with the given prices.\n"
    copied = run("models", "add", "gpt-5-mini", "--upstream", "test-openai")
    assert "'gpt-5-mini', priced from genai-prices" in copied.stdout


@pytest.mark.usefixtures("workspace")
def test_prices_are_copied_and_superseded(run: Run, read: Read) -> None:
    """Without prices a model's are copied; a price set later is a second entry; refresh leaves given prices alone."""
    upstream = ["upstreams", "add", "o", "--dialect", "openai", "--base-url", "https://api.openai.com/v1"]
    read(*upstream, "--credential-env", "OPENAI_API_KEY")
    assert str(read("models", "add", "gpt-5-mini", "--upstream", "o")["price_source"]).startswith("genai-prices")
    read("prices", "set", "gpt-5-mini", "--input-price", "1", "--output-price", "3", "--from", "2099-01-01")
    entries = json.loads(run("prices", "list", "gpt-5-mini", "--json").stdout)
    assert [entry["output_usd"] for entry in entries] == ["2", "3"]
    assert entries[1]["valid_from"] == "2099-01-01T00:00:00+00:00"
    assert read("prices", "refresh") == []  # type: ignore[comparison-overlap]


def test_half_a_price_is_a_usage_error(world: World, run: Run) -> None:
    """An output price that was forgotten is not taken for zero."""
    assert run("models", "add", "m", "--upstream", "test-openai", "--input-price", "1").exit_code == 2
    assert run("prices", "set", "gpt-test").exit_code == 2


# -- usage --------------------------------------------------------------------------------------------------------


def test_spend_is_exact_in_json_and_rounded_for_people(world: World, run: Run, read: Read) -> None:
    """A cost to the nano-USD comes out whole in JSON; the table has a total."""
    key = world.key("app").key
    log_call(world, key, 1_234_567_891, "req_1")
    log_call(world, key, NANO, "req_2")
    (row,) = json.loads(run("spend", "--by", "key", "--json").stdout)
    assert (row["key"], row["calls"], row["cost_usd"]) == ("app", 2, "2.234567891")
    table = run("spend", "--by", "day").stdout
    assert "2026-11-05" in table
    assert table.splitlines()[-1].split() == ["total", "2", "2,400", "0", "68", "$2.23"]


@pytest.mark.parametrize(("start", "end", "calls"), [("2026-11-05", "2026-11-06", 1), ("2026-11-06", "2026-12-01", 0)])
def test_spend_of_a_period(world: World, run: Run, start: str, end: str, calls: int) -> None:
    """The period runs from its first moment up to, but not including, its last."""
    log_call(world, world.key("app").key, NANO)
    rows = json.loads(run("spend", "--by", "model", "--from", start, "--to", end, "--json").stdout)
    assert sum(row["calls"] for row in rows) == calls


def test_requests_of_a_deleted_key_are_found(world: World, run: Run, read: Read) -> None:
    """By the key's id and by the request's own, under the key's name."""
    key = world.key("app").key
    log_call(world, key, 5, "req_of_the_dead")
    read("keys", "delete", "app", "--yes")
    assert "app (deleted)" in run("requests", "--key", key.id).stdout
    found = read("requests", "--id", "req_of_the_dead")
    assert (found["key"], found["cost_usd"]) == ("app", "0.000000005")


def test_an_unknown_request_is_an_error(world: World, run: Run) -> None:
    """A request id that is not in the log does not look like an empty success."""
    assert run("requests", "--id", "req_nobody").exit_code == 1


def test_audit_says_what_changed(world: World, run: Run, read: Read) -> None:
    """A person reads old and new values of the fields that changed, and no others."""
    create(read, "--monthly-limit", "5", "--models", "gpt-test")
    read("keys", "update", "app", "--monthly-limit", "7.5", "--models", "all")
    (line,) = (line for line in run("audit").stdout.splitlines() if "key.update" in line)
    assert "models: gpt-test → all; monthly limit: 5 → 7.5" in line
    assert "version" not in line
    assert "plan:" not in line
    run("wallet", "credit", "--org", "Acme", "--amount", "20", "--reference", "inv-7")
    assert "balance: 100 → 120; amount: 20; reference: inv-7" in run("audit").stdout


def test_audit_of_one_key_and_of_one_organisation(world: World, run: Run) -> None:
    """Each filter takes its own acts, however many others are newer; together with --verify they make no sense."""
    key = world.key("app").key
    run("orgs", "add", "Umbrella")
    for name in ("b", "c"):
        world.key(name)
    by_key = json.loads(run("audit", "--key", "app", "--limit", "1", "--json").stdout)
    assert [(row["action"], row["subject"]) for row in by_key] == [("key.create", key.id)]
    by_org = json.loads(run("audit", "--org", "Umbrella", "--limit", "1", "--json").stdout)
    assert [(row["action"], row["org"]) for row in by_org] == [("org.add", "Umbrella")]
    assert json.loads(run("audit", "--org", "Umbrella", "--key", "app", "--json").stdout) == []
    assert run("audit", "--verify", "--key", "app").exit_code == 2


def test_audit_verify_finds_a_changed_row(world: World, run: Run) -> None:
    """An intact log passes; after a row was changed behind its back, verify fails and names it."""
    assert run("audit", "--verify").exit_code == 0
    with world.workspace.write() as tx:
        tx.session.execute(update(AuditRow).where(AuditRow.action == "org.add").values(actor="someone else"))
    result = run("audit", "--verify", "--json")
    assert result.exit_code == 1
    assert [link["problem"] for link in json.loads(result.stdout)["broken"]] == ["was changed"]


def test_audit_verify_finds_a_cut_tail(world: World, run: Run, tmp_path: Path) -> None:
    """Heads that were exported show that a later log, though whole in itself, is another one."""
    head = tmp_path / "head.json"
    assert run("audit", "--head", str(head)).exit_code == 0
    assert run("audit", "--verify", "--head", str(head)).exit_code == 0
    heads = json.loads(head.read_text())
    heads["platform"] = f"9999:{'0' * 64}"
    head.write_text(json.dumps(heads))
    assert run("audit", "--verify", "--head", str(head)).exit_code == 1


def test_reconcile_fails_on_money_that_does_not_add_up(world: World, run: Run) -> None:
    """Clean books pass; a balance that was tampered with is named and fails."""
    clean = run("reconcile")
    assert clean.exit_code == 0, clean.output
    assert clean.stdout.count(" ok\n") == len(clean.stdout.splitlines())
    with world.workspace.write() as tx:
        tx.session.execute(update(Organisation).values(credited=Organisation.credited + 1))
    broken = run("reconcile")
    assert broken.exit_code == 1
    assert "1 violation" in broken.stdout
    findings = json.loads(run("reconcile", "--json").stdout)
    assert [finding["invariant"] for finding in findings if finding["violations"]] == ["I3"]


def test_ledger_verbs(world: World, run: Run, read: Read, tmp_path: Path) -> None:
    """Rows move out of the outbox, the ledger holds, and an export has them all."""
    log_call(world, world.key("app").key, 5)
    assert read("ledger", "sync") == {"moved": 1}
    assert read("ledger", "verify")["intact"] is True
    assert run("ledger", "compact").exit_code == 0
    assert read("ledger", "export", str(tmp_path / "log.csv"))["rows"] == 1
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    assert run("ledger", "export", str(tmp_path / "log.xls")).exit_code == 2


def test_an_export_makes_no_folder_and_replaces_no_file(world: World, run: Run, tmp_path: Path) -> None:
    """A mistyped folder is an error, and a file that is there stays, unless --force is given."""
    log_call(world, world.key("app").key, 5)
    astray = run("ledger", "export", str(tmp_path / "reprots" / "log.csv"))
    assert (astray.exit_code, (tmp_path / "reprots").exists()) == (1, False)
    mine = tmp_path / "log.csv"
    mine.write_text("mine")
    refused = run("ledger", "export", str(mine))
    assert (refused.exit_code, mine.read_text()) == (1, "mine")
    assert "--force" in refused.stderr
    assert run("ledger", "export", str(mine), "--force").exit_code == 0
    assert len(mine.read_text().splitlines()) == 2


@pytest.mark.only_store("sqlite")
def test_ledger_follow_drains_what_comes_until_ctrl_c(world: World, run: Run) -> None:
    """It says how many rows it moved."""
    key = world.key("app").key

    def call() -> None:
        for request_id in ("req_1", "req_2"):
            log_call(world, key, 5, request_id)
            wait_until(lambda: _waiting(world.workspace.store) == 0, "the outbox to be drained")

    with doing(call):
        followed = run("ledger", "sync", "--follow")
    assert followed.stdout == "Moved 2 rows into the ledger.\n"


@pytest.mark.world
@pytest.mark.only_store("sqlite")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ledger_follow_drains_until_a_signal(world: World, settings: Settings, number: signal.Signals) -> None:
    """`ledger sync --follow` moves rows as they come, and a signal ends it cleanly."""
    key = world.key("app").key
    env = os.environ | variables_of(settings)
    command = [sys.executable, "-m", "toolkit.cli", "ledger", "sync", "--follow", "--json"]
    drain = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for request_id in ("req_1", "req_2"):
            log_call(world, key, 5, request_id)
            wait_until(lambda: _waiting(world.workspace.store) == 0, "the outbox to be drained")
        drain.send_signal(number)
        out, err = drain.communicate(timeout=20)
    finally:
        drain.kill()
        drain.communicate()
    assert (drain.returncode, json.loads(out), err) == (0, {"moved": 2}, "")


def _waiting(store: Store) -> int:
    with store.read(SYSTEM) as tx:
        return tx.session.scalar(select(func.count()).select_from(OutboxRow)) or 0


# -- output and values --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(max_size=12), st.integers(-(10**15), 10**15)), min_size=1, max_size=6))
def test_a_table_is_one_line_a_row_and_right_aligned_in_money(rows: list[tuple[str, int]]) -> None:
    """Whatever names hold, each row is one line, and amounts end in the same column."""
    shown = output.table([{"name": name, "cost": Usd(cost)} for name, cost in rows], {"name": "name", "cost": "cost"})
    lines = click.unstyle(shown).split("\n")
    assert len(lines) == len(rows) + 1
    assert len({len(line) for line in lines}) == 1


@given(st.integers(-(10**18), 10**18))
def test_money_in_json_is_exact(nano: int) -> None:
    """A decimal string that reads back as the same amount."""
    assert parse_usd(json.loads(output.to_json({"cost": Usd(nano)}))["cost"]) == nano


def test_control_characters_do_not_reach_the_terminal() -> None:
    """A name cannot move the cursor or start a new line."""
    assert output.text("a\x1b[2Jb\nc") == "a [2Jb c"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_argument_that_is_no_text_is_a_usage_error(run: Run, options: tuple[str, ...]) -> None:
    """Bytes that are not UTF-8 come from the shell as lone surrogates; they are told, not tried."""
    result = run("spend", "--org", "caf\udce9", *options)
    assert result.exit_code == 2
    assert r"caf\udce9 is not text in UTF-8." in result.stderr.replace("\\\\", "\\")


def test_control_characters_in_json_are_escapes() -> None:
    """JSON on a terminal moves no cursor either, and reads back as the same text."""
    name = "a\x1b[2J\x9b2J\u202eb\u2028c"
    written = output.to_json({"name": name})
    assert [character for character in written if not character.isprintable() and character != "\n"] == []
    assert json.loads(written) == {"name": name}


def test_control_characters_of_an_error_do_not_reach_the_terminal() -> None:
    """An error may quote a name that somebody else chose; its own lines stay lines."""
    failure = Failure("No key\x1b[2J.\nTry another.", type="not_found", as_json=False)
    assert failure.format_message() == "No key [2J.\nTry another."


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T09:00:00Z", datetime(2027, 1, 31, 9, tzinfo=UTC)),
        ("2027-01-31T09:00:00+01:00", datetime(2027, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_moments_are_utc_unless_they_say_otherwise(text: str, moment: datetime) -> None:
    """A date is its midnight in UTC; an offset is honoured."""
    assert Moment().convert(text, None, None) == moment


@pytest.mark.parametrize("text", ["yesterday", "2027-13-01", ""])
def test_a_wrong_moment_is_a_usage_error(text: str) -> None:
    """What is no moment is refused with an example of one."""
    with pytest.raises(click.BadParameter, match="2027-01-31"):
        Moment().convert(text, None, None)
