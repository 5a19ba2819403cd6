"""The page where a key's holder looks it up: off by default, silent about what it was given, bounded."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from tests.conftest import World, usd, variables_of
from tests.dashboard.test_gate import served
from tests.rows import append, row
from toolkit.admin import keys, organisations, sign_in_throttle
from toolkit.admin.keys import NewSecret
from toolkit.core.secrets import new_secret
from toolkit.dashboard.headers import SIGN_IN_POLICY


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser without a session, at a dashboard that has the page."""
    for name, value in (variables_of(world.workspace.settings) | {"KEYDESK_KEY_PAGE": "on"}).items():
        monkeypatch.setenv(name, value)
    with served() as client:
        yield client


@pytest.fixture
def new(world: World) -> NewSecret:
    """A key with a limit."""
    return world.key("<b>app</b>", monthly_limit=usd(5))


def test_there_is_no_such_page_unless_the_setting_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it is behind the sign-in like all else."""
    for name, value in variables_of(world.workspace.settings).items():
        monkeypatch.setenv(name, value)
    with served() as client:
        assert client.get("/key", headers={"accept": "text/html"}).headers["location"].startswith("./sign-in")
        assert client.post("/key", data={"secret": new_secret()}).status_code == 401


def test_the_holder_sees_limit_models_and_spend(client: TestClient, new: NewSecret) -> None:
    """In words; what an admin called the key is text, and the secret is nowhere."""
    answer = client.post("/key", data={"secret": f" {new.secret}\n"})
    assert answer.status_code == 200
    assert "<h1>&lt;b&gt;app&lt;/b&gt;</h1>" in answer.text
    assert '<th scope="row">Left</th><td>$5.00</td>' in answer.text
    assert "gpt-test" in answer.text
    assert "No call this month yet." in answer.text
    assert new.secret not in answer.text + str(answer.headers) + str(answer.url)


def test_nothing_of_it_is_kept_run_or_loaded(client: TestClient, new: NewSecret) -> None:
    """No store of the browser has it, and no script, cookie or foreign source is on it."""
    for answer in (client.get("/key"), client.post("/key", data={"secret": new.secret})):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"] == SIGN_IN_POLICY
        assert "set-cookie" not in answer.headers
        assert not re.search(r"<script|javascript:|\son\w+=|https?://", answer.text)


def test_all_keys_that_admit_nothing_get_the_same_answer(client: TestClient, world: World, new: NewSecret) -> None:
    """Malformed, unknown, rotated, disabled, deleted: nobody learns which keys exist or existed."""
    gone, off = world.key("gone"), world.key("off")
    with world.workspace.write() as tx:
        keys.rotate(tx, world.workspace.keyring, new.key.id, confirm=new.key.name)
        keys.delete(tx, gone.key.id, confirm="gone")
        keys.disable(tx, off.key.id, confirm="off")
    secrets = ["", "sk-", new_secret(), new.secret, gone.secret, off.secret]
    answers = {(reply.status_code, reply.text) for reply in (client.post("/key", data={"secret": s}) for s in secrets)}
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401


def test_a_suspended_organisation_is_told(client: TestClient, world: World, new: NewSecret) -> None:
    """As at a call: the key is right."""
    with world.workspace.write() as tx:
        organisations.suspend(tx, world.org_id, confirm="Acme")
    answer = client.post("/key", data={"secret": new.secret})
    assert answer.status_code == 403
    assert "suspended" in answer.text


def test_too_many_wrong_keys_of_an_address_must_wait(client: TestClient, new: NewSecret) -> None:
    """A right one counts for nothing; after forty wrong ones it, too, waits."""
    for _ in range(2):
        assert client.post("/key", data={"secret": new.secret}).status_code == 200
    for _ in range(sign_in_throttle.ADDRESS.tries):
        assert "not a valid API key" in client.post("/key", data={"secret": "wrong"}).text
    assert "Too many failed tries" in client.post("/key", data={"secret": new.secret}).text


def test_the_form_is_taken_from_the_page_alone_and_bounded(client: TestClient) -> None:
    """Another site's page cannot send it, and nobody a large one."""
    assert client.post("/key", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/key", data={"secret": "x" * 20_000}).status_code == 413
    assert client.put("/key").status_code == 405


def test_the_ledger_is_asked_once_a_minute_and_key(client: TestClient, world: World, new: NewSecret) -> None:
    """Spend by model and by day; who reloads gets what was read, and a call since then shows in the next minute."""
    today = datetime.now(UTC)
    other = world.key("other")
    append(world.workspace.store, [row(new.key, today, model="gpt-test", cost=usd(1.5)) for _ in range(3)])
    append(world.workspace.store, [row(other.key, today, model="claude-test", cost=usd(1))])
    for _ in range(2):
        text = client.post("/key", data={"secret": new.secret}).text
        assert '<th scope="row">gpt-test</th><td>3</td><td>$4.50</td>' in text
        assert f'<th scope="row">{today:%Y-%m-%d}</th><td>3</td><td>$4.50</td>' in text
        assert ">claude-test</th>" not in text
        append(world.workspace.store, [row(new.key, today, model="gpt-test", cost=usd(1))])
