"""TLS to upstreams: which authorities the gateway believes, and which certificate it shows."""

import os
import re
import ssl
from pathlib import Path

from toolkit.core.errors import InvalidInput
from toolkit.core.settings import Settings

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
"""Names under which OpenSSL looks for authorities in a folder ("X509_LOOKUP_hash_dir")."""


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return how connections to upstreams are secured; the gateway's own certificate is shown to those that ask.

    Raises:
        InvalidInput: a file or a folder cannot be used.
    """
    context = _believing(settings)
    if settings.client_certificate is not None:
        _show(context, settings.client_certificate, settings.client_key, "KEYDESK_CLIENT_CERTIFICATE")
    elif settings.client_key is not None:
        raise InvalidInput("KEYDESK_CLIENT_KEY is of no use alone: set KEYDESK_CLIENT_CERTIFICATE, too.")
    return context


def own_tls_contexts(settings: Settings) -> dict[str, ssl.SSLContext]:
    """Return the same for upstreams that are shown a certificate of their own, by their names.

    Raises:
        InvalidInput: a file or a folder cannot be used.
    """
    contexts: dict[str, ssl.SSLContext] = {}
    for upstream, certificate in settings.upstream_certificates.items():
        contexts[upstream] = _believing(settings)
        _show(contexts[upstream], certificate, None, "KEYDESK_UPSTREAM_CERTIFICATES")
    return contexts


def _believing(settings: Settings) -> ssl.SSLContext:
    """Return what believes this machine's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.

    OpenSSL, "SSL_CTX_set_default_verify_paths"; by itself it passes over wrong ones without a word.
    """
    context = ssl.create_default_context()
    if settings.cert_file is not None:
        try:
            context.load_verify_locations(settings.cert_file)
        except OSError as error:
            why = _why(error, "it holds no certificate in PEM form")
            raise InvalidInput(f"SSL_CERT_FILE: {settings.cert_file} cannot be used: {why}.") from None
    if settings.cert_dir:
        folders = [Path(folder) for folder in settings.cert_dir.split(os.pathsep) if folder and Path(folder).is_dir()]
        if not any(_HASHED.fullmatch(file.name) for folder in folders for file in folder.iterdir()):
            raise InvalidInput(
                f"SSL_CERT_DIR: {settings.cert_dir} cannot be used: no folder there has a certificate under the name "
                "by which OpenSSL looks for it. `openssl rehash FOLDER` makes these names."
            )
        for folder in folders:
            context.load_verify_locations(capath=folder)
    return context


def _show(context: ssl.SSLContext, certificate: Path, key: Path | None, setting: str) -> None:
    try:
        # A password that is given, though it is empty, keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        why = _why(error, "certificate and key must be in PEM form, belong together, and have no password")
        both = f"{certificate} cannot be used with the key in {key}" if key else f"{certificate} cannot be used"
        may_be_apart = key is None and setting == "KEYDESK_CLIENT_CERTIFICATE"
        hint = " A key in a file of its own is named by KEYDESK_CLIENT_KEY." if may_be_apart else ""
        raise InvalidInput(f"{setting}: {both}: {why}.{hint}") from None


def _why(error: OSError, otherwise: str) -> str:
    return otherwise if isinstance(error, ssl.SSLError) else str(error.strerror)
