"""Why no connection to an upstream can be had, in words for operators. Pure.

The words name no host and nothing that the other side said: they stand in the request log and among the incidents.
"""

import errno
import socket
import ssl
from urllib.parse import urljoin, urlsplit

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Statuses that send elsewhere (RFC 9110, 15.4)."""

# OpenSSL, "X509_STORE_CTX_get_error".
_NOT_YET, _EXPIRED, _REVOKED = 9, 10, 23
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says where a server answers with what is no TLS."""

_ABOUT_OURS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""Parts of the alerts by which a server says that it does not take our certificate, or wants one (RFC 8446, 6.2)."""


_CONNECTING = {
    errno.ECONNREFUSED: "nothing listens at its address",
    errno.ENETUNREACH: "no network leads to its address: must HTTPS_PROXY name a proxy?",
    errno.EHOSTUNREACH: "no network leads to its address: must HTTPS_PROXY name a proxy?",
    errno.ETIMEDOUT: "what is at its address does not answer: must HTTPS_PROXY name a proxy?",
}


class Misconfigured(ConnectionError):
    """No connection can be had until an operator has mended something: the words say what."""


def fault_of_connecting(error: Exception) -> ConnectionError:
    """Return why an upstream cannot be connected to."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return ConnectionError(
            "its host's name cannot be looked up: is its base URL right, or must HTTPS_PROXY name a proxy?"
        )
    number = getattr(error, "errno", None)
    return ConnectionError(_CONNECTING.get(number or 0, f"it cannot be connected to ({type(error).__name__})"))


def fault_of_handshake(error: ssl.SSLError) -> ConnectionError:
    """Return what went wrong when TLS was agreed on."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Misconfigured(_of_certificate(error.verify_code, error.verify_message))
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ConnectionError("it hung up while TLS was agreed on")
    reason = error.reason or ""
    if reason in _NO_TLS:
        return Misconfigured("what answers there speaks no TLS: its base URL begins with http, or has another port")
    return _of_alert(reason) or Misconfigured(
        f"it and the gateway could not agree on TLS ({reason or 'no reason'}): it may want another version "
        "of it, or a client certificate (KEYDESK_CLIENT_CERTIFICATE)"
    )


def fault_of_break(error: Exception | None) -> ConnectionError:
    """Return what ended a connection that was there: a server of TLS 1.3 may refuse our certificate only then."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return _of_alert(reason) or ConnectionError("closed before the end")


def _of_alert(reason: str) -> Misconfigured | None:
    if "ALERT" not in reason or not any(part in reason for part in _ABOUT_OURS):
        return None
    return Misconfigured(
        f"it wants a client certificate that it knows ({reason}): KEYDESK_CLIENT_CERTIFICATE names the one to show, or "
        "KEYDESK_UPSTREAM_CERTIFICATES for this upstream alone"
    )


def _of_certificate(code: int, message: str) -> str:
    """Return why a certificate is not believed, and what to do."""
    if code in _OTHER_NAME:
        return "its certificate is for another host than the base URL's: mend the base URL, or what answers there"
    if code in _UNKNOWN_AUTHORITY:
        return (
            "its certificate is of an authority that this machine does not know: if it is your own, let SSL_CERT_FILE "
            "name a PEM file that has it"
        )
    if code == _EXPIRED:
        return "its certificate has expired: whoever runs it must renew it, or this machine's clock is wrong"
    if code == _NOT_YET:
        return "its certificate does not hold yet: is this machine's clock right?"
    if code == _REVOKED:
        return "its certificate was revoked: whoever runs it must renew it"
    return f"its certificate is not believed ({message})"


def redirected(url: str, status: int, location: str) -> str:
    """Return what is wrong with an upstream that sends elsewhere: it would get our credential there.

    Args:
        url: that was asked.
        status: of its answer.
        location: whereto; of it only the kind is told.
    """
    asked = urlsplit(url)
    try:
        to = urlsplit(urljoin(url, location))
        kind = "another host" if to.hostname != asked.hostname else "another path or port"
        if to.hostname == asked.hostname and (asked.scheme, to.scheme) == ("http", "https"):
            kind = "https at the same host"
    except ValueError:
        kind = "no address"
    return f"it redirects ({status}) to {kind}, which is not followed: mend its base URL"
