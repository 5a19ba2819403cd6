"""`keydesk upstreams` and `keydesk models`: whose account an upstream is, and which credentials a command prints."""

import json
from pathlib import Path

import pytest

from tests.conftest import Run, World

OWN = "acme-openai"
HERE = "test-openai"


def test_an_organisations_own_account_says_whose_it_is(world: World, run: Run) -> None:
    """When it is added, in lists, and of models that it alone serves."""
    command = f"upstreams add {OWN} --preset openai --credential-env ACME_API_KEY --org Acme"
    added = run(*command.split()).stdout
    assert "for API keys of 'Acme' alone; preset openai." in added
    (row,) = [row for row in json.loads(run("upstreams", "list", "--json").stdout) if row["name"] == OWN]
    assert (row["org"], row["org_id"]) == ("Acme", world.org_id)
    assert json.loads(run("upstreams", "show", HERE, "--json").stdout)["org"] is None
    prices = ["--input-price", "1", "--output-price", "2"]
    only = run("models", "add", "acme-only", "--upstream", OWN, *prices).stdout
    assert only == "Added the model 'acme-only' with the given prices, for API keys of Acme alone.\n"
    routed = run("models", "route", "gpt-test", "--upstream", f"{OWN},{HERE}").stdout
    assert routed == f"The model 'gpt-test' is served by {OWN}:gpt-test for Acme alone, {HERE}:gpt-test.\n"
    assert ", for API keys of Acme alone." in run("models", "update", "other-test", "--upstream", OWN).stdout
    found = {row["id"]: row["orgs"] for row in json.loads(run("models", "list", "--json").stdout)}
    assert (found["acme-only"], found["other-test"], found["gpt-test"]) == (["Acme"], ["Acme"], None)
    without = run("upstreams", "add", "more", "--preset", "openai", "--org", "Acme")
    assert (without.exit_code, "--credential-env" in without.stderr) == (1, True)


@pytest.mark.usefixtures("world")
def test_a_credential_that_a_command_prints_is_named_as_such(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the machine that has the file; nothing of the command is shown."""
    secrets = tmp_path / "secrets"
    secrets.write_text("PRINTED!=print-it --of=nobody\nPLAIN=value-of-it\n")
    secrets.chmod(0o600)
    monkeypatch.setenv("KEYDESK_SECRETS_FILE", str(secrets))
    told = run("upstreams", "credentials", HERE, "PRINTED", "PLAIN", "--json").stdout
    assert json.loads(told)["credentials"] == [
        {"name": "PRINTED", "command": True, "faults": []},
        {"name": "PLAIN", "command": False, "faults": []},
    ]
    for words in (run("upstreams", "list").stdout, run("upstreams", "show", HERE).stdout):
        assert "PRINTED (printed by a command), PLAIN" in words
        assert "print-it" not in words
        assert "value-of-it" not in words


@pytest.mark.usefixtures("world")
def test_one_that_serves_no_model_can_be_retired(run: Run) -> None:
    """One that does is not, and names them; nor is it without a confirmation. The audit log keeps what it was."""
    run("upstreams", "add", "spare", "--preset", "openai")
    serving = run("upstreams", "retire", HERE, "--yes")
    assert (serving.exit_code, "gpt-test" in serving.stderr) == (1, True)
    assert run("upstreams", "retire", "spare").exit_code == 1
    assert run("upstreams", "retire", "spare", "--yes", "--reason", "contract ended").exit_code == 0
    assert "spare" not in [row["name"] for row in json.loads(run("upstreams", "list", "--json").stdout)]
    [act] = [row for row in json.loads(run("audit", "--json").stdout) if row["action"] == "upstream.retire"]
    assert (act["subject"], act["reason"]) == ("spare", "contract ended")
    assert run("upstreams", "add", "spare", "--preset", "openai").exit_code == 0
