"""What lies between a gateway and a provider: an authority with its certificates, and a proxy that makes tunnels."""

import contextlib
import hashlib
import socket
import ssl
import struct
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from toolkit.core.outbound_proxies import OutboundProxy

USER, PASSWORD = "keydesk", "pass:word@of the proxy"
WRITTEN = "keydesk:pass%3Aword%40of%20the%20proxy"
"""User and password of the proxy, as they stand in its URL."""

PROVIDER = "provider.test"
"""A host that this machine cannot look up; the proxy can."""

RESET = b"reset"
"""An answer of a `ConnectProxy` that is none: the connection is reset."""

PEM = serialization.Encoding.PEM
YEAR = timedelta(days=365)


class Authority:
    """An authority that makes certificates.

    Args:
        folder: where its files are written.
        name: its own.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key, datetime.now(UTC) + YEAR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))

    @property
    def hashed_name(self) -> str:
        """The name of its file in a folder of authorities: a hash of its own name (OpenSSL, "X509_NAME_hash")."""
        name = self._name.rfc4514_string().removeprefix("CN=").encode()
        told = b"\x0c" + bytes([len(name)]) + name  # a text of UTF-8, which is COMMON_NAME's
        pair = b"\x06\x03\x55\x04\x03" + told
        whole = bytes([0x31, len(pair) + 2, 0x30, len(pair)]) + pair
        return f"{int.from_bytes(hashlib.sha1(whole).digest()[:4], 'little'):08x}.0"

    def issue(self, *names: str, expired: bool = False, password: bytes = b"") -> Path:
        """Return a PEM file with a certificate for some hosts or addresses, and its key.

        Args:
            names: whom it is for.
            expired: whether it holds no longer.
            password: of the key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        until = datetime.now(UTC) - timedelta(days=1) if expired else datetime.now(UTC) + YEAR
        builder = self._builder(subject, key, until)
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), False)
        protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        file = self._folder / f"{key.public_key().public_numbers().x:x}.pem"
        file.write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, protection)
            + builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)
        )
        return file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(until - 2 * YEAR)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def server(self, *names: str, expired: bool = False, asks: "Authority | None" = None) -> ssl.SSLContext:
        """Return how a server speaks TLS that has a certificate for some names.

        Args:
            names, expired: as for `issue`.
            asks: whose certificates its clients must show.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*names, expired=expired))
        if asks is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(asks.file)
        return context

    def believed(self) -> ssl.SSLContext:
        """Return how a client speaks TLS that believes this authority alone."""
        return ssl.create_default_context(cafile=self.file)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class ConnectProxy:
    """A proxy that connects whoever asks to a port of this machine, whatever the host's name.

    Args:
        answer: what it answers in place of that.
        wants: `Proxy-Authorization` that it asks for.

    Attributes:
        heads: of the requests that came.
    """

    def __init__(self, answer: bytes | None = None, wants: str = "") -> None:
        self._answer = answer
        self._wants = wants
        self._server = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self.port: int = self._server.getsockname()[1]
        self.heads: list[bytes] = []

    def __enter__(self) -> "ConnectProxy":
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._accepting.join(60)

    def known(self, setting: str = "HTTP_PROXY", user: str = "") -> OutboundProxy:
        """Return it as the gateway knows it."""
        proxy = OutboundProxy.parse(f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}", setting)
        assert proxy is not None
        return proxy

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(20)
            head = b""
            while not head.endswith(b"\r\n\r\n"):  # nobody says more before the tunnel is there
                part = client.recv(65_536)
                if not part:
                    return
                head += part
            self.heads.append(head)
            if self._answer == RESET:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if self._answer is not None:
                client.sendall(self._answer)
                return
            if self._wants and f"\r\nProxy-Authorization: {self._wants}\r\n".encode() not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            port = int(head.split(b" ")[1].rpartition(b":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=20) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pass, args=(server, client), daemon=True)
                back.start()
                _pass(client, server)
                back.join(60)


def _pass(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on until one side ends."""
    with contextlib.suppress(OSError):
        while part := one.recv(65_536):
            other.sendall(part)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)


class Network:
    """A gateway's network: whom it believes, what it shows, and its proxy.

    Args:
        folder: of its files.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.proxy = ConnectProxy(wants=f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}")
        self.variables = {
            "SSL_CERT_FILE": str(self.authority.file),
            "KEYDESK_CLIENT_CERTIFICATE": str(self.authority.issue("gateway.test")),
            "HTTPS_PROXY": f"http://{WRITTEN}@127.0.0.1:{self.proxy.port}",
            "HTTP_PROXY": "",
            "NO_PROXY": "direct.test, 10.0.0.0/8",
            **dict.fromkeys(("https_proxy", "http_proxy", "no_proxy"), ""),
        }

    def __enter__(self) -> "Network":
        self.proxy.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.proxy.__exit__(kind, error, trace)
