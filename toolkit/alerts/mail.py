"""Mail: an alert as a message, and how it is handed to a mail server (RFC 5321).

The server is one that a platform admin named. Its password is read when it is needed, from a file of its own; what the
server answers is told by its code alone.
"""

import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum
from typing import Any

from toolkit.core.destinations import fault_of_address, fault_of_host
from toolkit.core.errors import InvalidInput

PATIENCE = 10.0
"""Seconds for each of a mail server's answers."""

WHOLE = 30.0
"""Seconds for all of them."""

MOST_RECIPIENTS = 20
"""Of one mailbox."""

_LONGEST_SUBJECT = 180
_LONGEST = 254
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?|::1")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,180}[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_READY = 220
_TAKEN = (250, 251)


class Security(StrEnum):
    """How a connection to a mail server is kept from others."""

    TLS = "tls"
    """From the first byte (RFC 8314), as a rule at port 465."""
    STARTTLS = "starttls"
    """Agreed on before anything is said (RFC 3207), as a rule at port 587; without it nothing is sent."""
    NONE = "none"
    """Not at all: for a relay on the same machine. No password is shown."""


PORTS = {Security.TLS: 465, Security.STARTTLS: 587, Security.NONE: 25}
"""Where a mail server listens as a rule."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """How alerts are mailed.

    Args:
        host, port: of the mail server.
        security: of the connection.
        login: the user that it wants; None for none.
        password_name: the line of the secrets file with the user's password.
        sender, recipients: addresses.
    """

    host: str
    port: int
    security: Security
    login: str | None
    password_name: str | None
    sender: str
    recipients: tuple[str, ...]


def message(mailbox: Mailbox, alert: dict[str, Any], noticed: datetime) -> EmailMessage:
    """Return an alert as a message. Its id is the same over all tries, so that a mailbox shows it once.

    Args:
        mailbox: from and to whom.
        alert: as `messages.body` has it.
        noticed: UTC.
    """
    data: dict[str, Any] = alert["data"]
    sentence = " ".join(str(data["message"]).split())
    made = EmailMessage(policy=SMTP.clone(cte_type="7bit"))  # any server takes that
    made["From"] = mailbox.sender
    made["To"] = ", ".join(mailbox.recipients)
    made["Subject"] = f"Keydesk: {sentence}"[:_LONGEST_SUBJECT]
    made["Date"] = format_datetime(noticed)
    made["Message-ID"] = f"<{data['id']}@{mailbox.sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's "out of office" answers
    made["X-Keydesk-Type"] = alert["type"]
    lines = [sentence, ""]
    if help_ := data.get("help"):
        lines += [str(help_), ""]
    lines += [f"{alert['type']} · {noticed:%Y-%m-%d %H:%M:%S} UTC · {data['id']}"]
    made.set_content("\n".join(lines) + "\n")
    return made


class Sending:
    """One message on its way to a mail server; made and run in a thread, ended from another one.

    Args:
        mailbox: by which server, from and to whom.
        password: of the mailbox's user, if it has one.
        context: whose authorities are believed.
    """

    def __init__(self, mailbox: Mailbox, password: str | None, context: ssl.SSLContext) -> None:
        self._mailbox = mailbox
        self._password = password
        self._context = context
        self._server: smtplib.SMTP | None = None
        self._wire: socket.socket | None = None

    def run(self, made: EmailMessage) -> str | None:
        """Hand a message to the server; return why it was not taken, in words, or None.

        It goes to all recipients or to none: what is sent again must reach nobody twice.
        """
        try:
            self._server = _Server(self)
            return self._hand_over(self._server, made)
        except smtplib.SMTPNotSupportedError:
            return "it offers no STARTTLS, or no sign-in by user and password"
        except smtplib.SMTPResponseException as error:
            wrong = isinstance(error, smtplib.SMTPAuthenticationError)
            return f"it {'does not take the user and password' if wrong else 'answered'} ({error.smtp_code})"
        except smtplib.SMTPException as error:
            if isinstance(error.__context__, TimeoutError):
                return _fault(error.__context__)
            return "it hung up before it had taken the message"
        except (OSError, UnicodeError) as error:
            return _fault(error)
        finally:
            self._leave()

    def abort(self) -> None:
        """Hang up, whatever is under way."""
        for wire in (self._wire, getattr(self._server, "sock", None)):
            if wire is not None:
                with suppress(OSError):
                    wire.shutdown(socket.SHUT_RDWR)

    def connect(self, timeout: float) -> socket.socket:
        """Connect to the server, unless an address that it resolves to is one that is never called.

        Raises:
            OSError: no connection can be made.
        """
        host, port = self._mailbox.host, self._mailbox.port
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for *_, address in found:
            if fault := fault_of_address(str(address[0])):
                raise Unfit(f"{fault}, which is never called")
        # What was judged is what is connected to: it is not looked up again.
        self._wire = _first_of([(str(address[0]), int(address[1])) for *_, address in found], timeout)
        if self._mailbox.security is Security.TLS:
            self._wire = self._context.wrap_socket(self._wire, server_hostname=host)
        return self._wire

    def _leave(self) -> None:
        """Take leave of the server; what it says to that changes nothing."""
        if self._server is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._server.quit()
            self._server.close()

    def _hand_over(self, server: smtplib.SMTP, made: EmailMessage) -> str | None:
        mailbox = self._mailbox
        code, _ = server.connect(mailbox.host, mailbox.port)
        if code != _READY:
            return f"it answered ({code}) before anything was said"
        if mailbox.security is Security.STARTTLS:
            server.starttls(context=self._context)
        if mailbox.login is not None:
            server.login(mailbox.login, self._password or "")
        server.ehlo_or_helo_if_needed()
        code, _ = server.mail(mailbox.sender)
        if code not in _TAKEN:
            return f"it does not take mail from {mailbox.sender} ({code})"
        for recipient in mailbox.recipients:
            code, _ = server.rcpt(recipient)
            if code not in _TAKEN:
                return f"it does not take mail to {recipient} ({code})"
        code, _ = server.data(made.as_bytes())
        return None if code in _TAKEN else f"it answered with {code} to the message"


class Unfit(OSError):
    """An address that is never called; says why."""


class _Server(smtplib.SMTP):
    """The library's client, over a connection whose address was judged."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        super().__init__(local_hostname=socket.gethostname(), timeout=PATIENCE)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 - the library's
        self._host = host  # what STARTTLS's certificate is for
        return self._sending.connect(timeout)


def _first_of(addresses: Sequence[tuple[str, int]], timeout: float) -> socket.socket:
    """Return a connection to the first address that can be connected to."""
    for address in addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection(address, timeout)
    return socket.create_connection(addresses[-1], timeout)


def _fault(error: Exception) -> str:
    """Return why no connection to a mail server can be had, in words."""
    if isinstance(error, Unfit):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"it did not answer within {PATIENCE:g} s"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "its host's name cannot be looked up"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at its address and port"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed ({error.verify_message}); SSL_CERT_FILE may name your own authorities"
    if isinstance(error, ssl.SSLError):
        return f"no TLS could be agreed on ({error.reason or 'no reason'}): is its port or its security another one?"
    return f"it cannot be connected to, or hung up ({type(error).__name__})"


def check(mailbox: Mailbox) -> None:
    """Refuse what cannot be a mailbox.

    Raises:
        InvalidInput: says what is wrong with it.
    """
    if _HOST.fullmatch(mailbox.host) is None:
        raise InvalidInput("The mail server must be a host's name or address, such as mail.example.com.")
    if fault := fault_of_host(mailbox.host):
        raise InvalidInput(f"Alerts cannot be sent there: {fault}.")
    if not 1 <= mailbox.port <= 65_535:
        raise InvalidInput("The mail server's port lies between 1 and 65535.")
    if not 1 <= len(mailbox.recipients) <= MOST_RECIPIENTS:
        raise InvalidInput(f"A mailbox has 1 to {MOST_RECIPIENTS} recipients.")
    for address in (mailbox.sender, *mailbox.recipients):
        if _ADDRESS.fullmatch(address) is None:
            raise InvalidInput(f"{address!r} is no e-mail address in ASCII.")
    if (mailbox.login is None) is not (mailbox.password_name is None):
        raise InvalidInput("Give the user and the name of its password, or neither.")
    if mailbox.login is not None and mailbox.security is Security.NONE:
        raise InvalidInput("Without TLS no password is shown: choose tls or starttls, or leave the user out.")
    if mailbox.login is not None and not (mailbox.login.isprintable() and len(mailbox.login) <= _LONGEST):
        raise InvalidInput("The mail server's user cannot be read.")
    if mailbox.password_name is not None and _NAME.fullmatch(mailbox.password_name) is None:
        raise InvalidInput(f"{mailbox.password_name!r} cannot be the name of a password. Give the name, not the value.")
