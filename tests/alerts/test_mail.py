"""Alerts by e-mail: to a real server, over TLS, with a password from a file of its own, to all recipients or none."""

import asyncio
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from tests.alerts.mail_server import PASSWORD, USER, mail_server
from tests.conftest import Run, World, examples, usd
from tests.gateway.network import Authority
from toolkit.admin import organisations
from toolkit.alerts import destinations, mail
from toolkit.alerts import runner as runner_module
from toolkit.alerts.mail import Mailbox, Security
from toolkit.alerts.runner import Runner
from toolkit.core.errors import Conflict, Forbidden, InvalidInput
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import AlertDelivery, AlertMailbox, KeyMonth
from toolkit.store.transaction import utc_now

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # TLS is there already

TO = ("ops@example.com", "boss@example.com")
NAME = "MAIL_PASSWORD"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority, which the sender of alerts believes."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _believed(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    monkeypatch.setattr(runner_module, "tls_context", lambda _settings: context)


def served(authority: Authority, name: str = "localhost") -> ssl.SSLContext:
    """Return what a mail server of this name shows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.issue(name))
    return context


def add(world: World, port: int, security: Security = Security.NONE, login: str | None = None, **fields: str) -> str:
    """Add a mailbox as the platform; return its destination's id."""
    named = NAME if login else None
    mailbox = Mailbox(fields.get("host", "localhost"), port, security, login, named, "keydesk@example.com", TO)
    with world.workspace.write() as tx:
        return destinations.add_mailbox(tx, "ops", mailbox).id


def notice(world: World) -> None:
    """Let a key spend 80 % of its limit."""
    key_id = world.key("Schlüssel", monthly_limit=usd(10)).key.id
    with world.workspace.write() as tx:
        month = f"{tx.now:%Y-%m}"
        tx.session.add(KeyMonth(key_id=key_id, month=month, calls=1, spent=usd(8), held=0, last_call_at=tx.now))


def send(world: World, secrets: Path | None = None) -> str | None:
    """Look and send, as `keydesk alerts run` does; return why the first alert was not taken, or None."""

    async def work() -> None:
        workspace = world.workspace
        runner = Runner(workspace.store, replace(workspace.settings, alerts_secrets_file=secrets), workspace.keyring)
        await runner.round()
        await runner.sent()
        await runner.close()

    with world.workspace.write() as tx:
        tx.session.execute(update(AlertDelivery).values(due_at=tx.now))
    asyncio.run(work())
    with world.workspace.read() as tx:
        return tx.session.scalars(select(AlertDelivery.failure).order_by(AlertDelivery.queued_at)).first()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The file with the password."""
    file = tmp_path / "mail-secrets"
    file.write_text(f"{NAME}={PASSWORD}\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_an_alert_is_mailed_once_over_tls_to_whom_it_concerns(
    world: World, authority: Authority, secrets: Path, security: Security
) -> None:
    """Signed in, to each recipient, in words with what helps; its id is the same over all tries."""
    with mail_server(served(authority), from_the_start=security is Security.TLS, signed_in=True) as server:
        add(world, server.port, security, USER)
        notice(world)
        server.answer = "451 later"
        assert send(world, secrets) == "it answered with 451 to the message"
        server.answer = "250 taken"
        assert send(world, secrets) is None
        assert send(world, secrets) is None
        ((recipients, message),) = server.got
        assert server.sign_ins == [USER, USER]
    assert recipients == list(TO)
    with world.workspace.read() as tx:
        [one] = destinations.history(tx)
    assert message["Message-ID"] == f"<{one.alert.id}@example.com>"
    assert (message["From"], message["Auto-Submitted"]) == ("keydesk@example.com", "auto-generated")
    text = message.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert "API key 'Schlüssel' of 'Acme' has spent $8.00 of its limit of $10.00" in text.decode()
    assert "keydesk keys update" in text.decode()
    assert PASSWORD not in message.as_string()


def test_why_it_is_not_taken_is_told_by_codes_alone(world: World, authority: Authority, secrets: Path) -> None:
    """A wrong password, a foreign certificate, no TLS, nobody there, a wrong file; never in the server's own words."""
    with mail_server(served(authority), signed_in=True) as server:
        destination = add(world, server.port, Security.STARTTLS, USER)
        notice(world)
        secrets.write_text(f"{NAME}=another\n")
        assert send(world, secrets) == "it does not take the user and password (535)"
        secrets.write_text("ANOTHER=x\n")
        assert "has no line MAIL_PASSWORD" in str(send(world, secrets))
        secrets.chmod(0o644)
        assert "others may read the file" in str(send(world, secrets))
        assert "names no file" in str(send(world, None))
    set_row(world, destination, login=None, password_name=None)
    assert send(world) == "nothing listens at its address and port"
    with mail_server(served(authority, "another.example")) as server:
        set_row(world, destination, port=server.port)
        assert "its certificate is not believed" in str(send(world))
    with mail_server() as server:
        set_row(world, destination, port=server.port)
        assert send(world) == "it offers no STARTTLS, or no sign-in by user and password"
        set_row(world, destination, security=Security.TLS)
        assert "no TLS could be agreed on" in str(send(world))
        set_row(world, destination, security=Security.NONE)
        server.refused = {TO[1]}
        assert send(world) == f"it does not take mail to {TO[1]} (550)"
        assert server.got == []  # neither to the one that it would have taken
        server.refused = set()
        assert send(world) is None
        assert len(server.got) == 1


def set_row(world: World, destination: str, **columns: object) -> None:
    """Change a mailbox's row."""
    with world.workspace.write() as tx:
        tx.session.execute(update(AlertMailbox).where(AlertMailbox.destination_id == destination).values(**columns))


@pytest.mark.parametrize("bound", ["PATIENCE", "WHOLE"])
def test_a_server_that_says_nothing_is_left(world: World, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """After its time for one answer, or for all."""
    monkeypatch.setattr(mail, bound, 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        add(world, silent.getsockname()[1], host="127.0.0.1")
        notice(world)
        assert "0.2 s" in str(send(world))


def test_an_address_that_is_never_called_is_not_called(world: World) -> None:
    """By its spelling when it is added, and by what it resolves to when it is sent to."""
    with pytest.raises(InvalidInput, match="metadata"):
        add(world, 25, host="169.254.169.254")
    destination = add(world, 25)
    set_row(world, destination, host="169.254.169.254")
    notice(world)
    assert "which is never called" in str(send(world))


def test_platform_admins_alone_name_mail_servers(world: World) -> None:
    """An organisation's people see the recipients of theirs, and neither server nor secret."""
    mailbox = Mailbox("localhost", 25, Security.NONE, None, None, "keydesk@example.com", TO)
    own = Actor("eve@acme.example", Role.ORG_ADMIN, world.org_id)
    with pytest.raises(Forbidden), world.workspace.store.write(own) as tx:
        destinations.add_mailbox(tx, "mine", mailbox)
    with world.workspace.write() as tx:
        row = destinations.add_mailbox(tx, "theirs", mailbox, world.org_id)
        other = organisations.add(tx, "Borealis").id
        with pytest.raises(Conflict, match="not signed"):
            destinations.secret(tx, world.workspace.keyring, row.id)
    with world.workspace.store.read(own) as tx:
        [seen] = destinations.list_all(tx)
        assert destinations.shown_url(tx, seen) == f"mailto:{','.join(TO)}"
        assert destinations.mailbox_of(tx, seen) is None
    with world.workspace.store.read(Actor("eve", Role.ORG_ADMIN, other)) as tx:
        assert destinations.list_all(tx) == []
    with world.workspace.write() as tx:
        destinations.remove(tx, row.id)
        assert tx.session.get(AlertMailbox, row.id) is None
        assert [act.action for act in audit.rows(tx, subject=row.id)] == ["destination.remove", "destination.add"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"host": "mail example"}, "host's name"),
        ({"port": 0}, "port"),
        ({"recipients": ()}, "recipients"),
        ({"recipients": ("ops",)}, "no e-mail address"),
        ({"sender": "a@b.example\r\nBcc: c@d.example"}, "no e-mail address"),
        ({"login": "user"}, "or neither"),
        ({"login": "user", "password_name": NAME}, "no password is shown"),
        ({"login": "user", "password_name": "s3cret value", "security": Security.TLS}, "not the value"),
    ],
)
def test_what_cannot_be_a_mailbox_is_refused(columns: dict[str, object], words: str) -> None:
    """In words that say what to do."""
    good = Mailbox("mail.example.com", 25, Security.NONE, None, None, "keydesk@example.com", TO)
    mail.check(good)
    with pytest.raises(InvalidInput, match=words):
        mail.check(replace(good, **columns))  # type: ignore[arg-type]


@given(st.text())
@examples(30)
def test_no_alert_adds_a_header(sentence: str) -> None:
    """Whatever a key or an organisation is called."""
    mailbox = Mailbox("mail.example.com", 25, Security.NONE, None, None, "keydesk@example.com", TO)
    alert = {"type": "key.limit", "data": {"id": "alert_1", "message": sentence}}
    made = mail.message(mailbox, alert, utc_now())
    head = made.as_bytes().partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert sorted(set(names)) == sorted(names)
    assert set(names) <= {
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"X-Keydesk-Type", b"MIME-Version",
        b"Content-Type", b"Content-Transfer-Encoding",
    }  # fmt: skip


def test_the_command_names_a_mail_server(world: World, run: Run) -> None:
    """With the usual port of its security."""
    told = run(
        "alerts", "add-mail", "ops", "--to", "a@example.com, b@example.com", "--from", "k@example.com", "--host",
        "mail.example.com", "--security", "tls", "--user", USER, "--password-name", NAME,
    )  # fmt: skip
    assert told.exit_code == 0
    with world.workspace.read() as tx:
        [row] = destinations.list_all(tx)
        found = destinations.mailbox_of(tx, row)
    assert found == Mailbox(
        "mail.example.com", 465, Security.TLS, USER, NAME, "k@example.com", ("a@example.com", "b@example.com")
    )
