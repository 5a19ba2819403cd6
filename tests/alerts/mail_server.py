"""A mail server on a real socket, which keeps what it gets and behaves as it is told."""

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from tests.conftest import free_port

USER, PASSWORD = "keydesk", "of-the-mail-server"


@dataclass
class MailServer:
    """What a mail server does and has got.

    Args:
        port: where it listens.
        refused: recipients that it does not take mail for.
        answer: to a message; 250 takes it.
        got: envelope's recipients, and the message, of each that it took.
        sign_ins: users that signed in.
    """

    port: int
    refused: set[str] = field(default_factory=set)
    answer: str = "250 taken"
    got: list[tuple[list[str], Message]] = field(default_factory=list)
    sign_ins: list[str] = field(default_factory=list)

    async def handle_RCPT(self, _server: Any, _session: Session, envelope: Envelope, address: str, _: Any) -> str:  # noqa: N802
        """Take a recipient or not."""
        if address in self.refused:
            return "550 nobody of that name, and this text may hold anything"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a message or not."""
        if self.answer.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            self.got.append((envelope.rcpt_tos, BytesParser().parsebytes(content)))
        return self.answer


@contextlib.contextmanager
def mail_server(
    tls: ssl.SSLContext | None = None, *, from_the_start: bool = False, signed_in: bool = False
) -> Iterator[MailServer]:
    """Run a mail server until the block ends.

    Args:
        tls: with its certificate; without one it speaks no TLS.
        from_the_start: whether TLS begins with the first byte; else by STARTTLS, without which nothing is taken.
        signed_in: whether `USER` must sign in.
    """
    server = MailServer(free_port())

    def sign_in(_server: Any, _session: Session, _envelope: Envelope, _mechanism: str, said: Any) -> AuthResult:
        assert isinstance(said, LoginPassword)
        server.sign_ins.append(said.login.decode())
        return AuthResult(success=said.password.decode() == PASSWORD, handled=False)

    controller = Controller(
        server,
        "127.0.0.1",
        server.port,
        ssl_context=tls if from_the_start else None,
        tls_context=None if from_the_start else tls,
        require_starttls=tls is not None and not from_the_start,
        auth_required=signed_in,
        auth_require_tls=not from_the_start,
        authenticator=sign_in,
    )
    controller.start()
    try:
        yield server
    finally:
        controller.stop()
