"""Settings: what a Keydesk process needs to know, and the table of the variables that say it. Pure.

`environment` reads them. Every setting is a row of `TABLE` (name, default, help); `docs/settings.md` is tested
against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from toolkit.core.addresses import split_page
from toolkit.core.proxies import Proxies


class Setting(NamedTuple):
    """One environment variable: its name, what holds without it, and what it does."""

    name: str
    default: str
    help: str


TABLE = (
    Setting("KEYDESK_DATA_DIR", "data", "Folder of everything Keydesk writes; by default the one of the checkout."),
    Setting(
        "KEYDESK_DATA_GROUP",
        "",
        "Group (name or id) that may read the ledger's segments; empty: nobody but the user that Keydesk runs as.",
    ),
    Setting(
        "KEYDESK_STORE_URL",
        "",
        "Key store: postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///PATH; empty: keydesk.db in the data folder.",
    ),
    Setting(
        "KEYDESK_LEDGER_ROOT",
        "",
        "Ledger's segments: a folder, or s3://BUCKET/PREFIX; empty: ledger/ in the data folder.",
    ),
    Setting("KEYDESK_PEPPER", "", "Peppers as hex, the current one first, comma-separated; empty: the file `pepper`."),
    Setting(
        "KEYDESK_SECRETS_FILE",
        "",
        "File of NAME=VALUE lines with upstream credentials, read before the environment.",
    ),
    Setting(
        "KEYDESK_ALERTS_SECRETS_FILE",
        "",
        "File of NAME=VALUE lines with passwords of mail servers, for alerts by e-mail; mode 0600.",
    ),
    Setting(
        "KEYDESK_CLIENT_CERTIFICATE",
        "",
        "PEM file with the certificate, and its key, that the gateway shows to upstreams that ask for one (mTLS).",
    ),
    Setting("KEYDESK_CLIENT_KEY", "", "PEM file with the key of that certificate, if it is in a file of its own."),
    Setting(
        "KEYDESK_UPSTREAM_CERTIFICATES",
        "",
        "Other certificates for single upstreams, with commas between: NAME=FILE, a PEM file that has the key, too.",
    ),
    Setting(
        "SSL_CERT_FILE",
        "",
        "PEM file with the authorities whose certificates upstreams may have; empty: this machine's.",
    ),
    Setting(
        "SSL_CERT_DIR",
        "",
        "Folders with one PEM file for each authority, under the names of `openssl rehash`; empty: this machine's.",
    ),
    Setting("HTTPS_PROXY", "", "Proxy to upstreams of https: http://PROXY:PORT or http://USER:PASSWORD@PROXY:PORT."),
    Setting("HTTP_PROXY", "", "Proxy to upstreams of http, which reads what they are asked and passes it on."),
    Setting(
        "NO_PROXY",
        "",
        "Hosts that are called without a proxy, with commas between: domains, addresses, networks, or *.",
    ),
    Setting(
        "KEYDESK_UPSTREAM_CREDENTIALS",
        "",
        "Names of upstream credentials, comma-separated, that do not end in _API_KEY and are not in the secrets file.",
    ),
    Setting("KEYDESK_HOST", "127.0.0.1", "Address that gateway and dashboard listen on."),
    Setting(
        "KEYDESK_TRUSTED_PROXIES",
        "",
        "Networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, with commas between.",
    ),
    Setting(
        "KEYDESK_PUBLIC_URL",
        "",
        "The gateway's address as callers see it, for the commands and examples that Keydesk shows.",
    ),
    Setting(
        "KEYDESK_DASHBOARD_URL",
        "",
        "The dashboard's addresses as browsers see them, the main one first, commas between; empty: the host asked.",
    ),
    Setting(
        "KEYDESK_KEY_PAGE",
        "off",
        "on: the dashboard has a page /key that tells who has an API key what it may call, what is spent and left.",
    ),
    Setting(
        "KEYDESK_CORS_ORIGINS",
        "",
        "Origins of web pages that may call the gateway from a browser (CORS), with commas between; empty: none.",
    ),
    Setting("KEYDESK_GATEWAY_PORT", "8080", "Port of the gateway."),
    Setting("KEYDESK_DASHBOARD_PORT", "8501", "Port of the dashboard."),
    Setting("KEYDESK_DEMO_PORT", "8090", "Port of the embedded demo upstream."),
    Setting("KEYDESK_BODY_LIMIT", "33554432", "Largest request body the gateway takes, in bytes."),
    Setting("KEYDESK_CONNECT_TIMEOUT", "10", "Seconds to connect to an upstream."),
    Setting("KEYDESK_FIRST_BYTE_TIMEOUT", "600", "Seconds until an upstream's first byte."),
    Setting("KEYDESK_IDLE_TIMEOUT", "300", "Seconds between two bytes of an upstream's answer."),
    Setting(
        "KEYDESK_STREAM_SILENCE",
        "15",
        "Seconds that a stream may be silent; then its head is sent, or a sign of life where SDKs bear one.",
    ),
    Setting("KEYDESK_CALL_TIMEOUT", "3600", "Seconds for a whole call."),
    Setting("KEYDESK_SHUTDOWN_GRACE", "20", "Seconds that calls under way get to finish when the gateway is stopped."),
    Setting("KEYDESK_LEASE", "30", "Seconds after which the holds of a gateway that died are released."),
    Setting(
        "KEYDESK_SQLITE_SYNCHRONOUS",
        "FULL",
        "FULL: a power cut loses no commit. NORMAL: it may lose the last ones.",
    ),
)
DEFAULTS = {setting.name: setting.default for setting in TABLE}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a Keydesk process needs to know; times in seconds, sizes in bytes."""

    data_dir: Path
    data_group: str
    store_url: str
    ledger_root: Path | str  # a string is s3://BUCKET/PREFIX
    secrets_file: Path | None
    alerts_secrets_file: Path | None
    client_certificate: Path | None
    client_key: Path | None
    upstream_certificates: Mapping[str, Path] = field(hash=False)  # by the upstream's name
    cert_file: Path | None
    cert_dir: str  # several with colons between, as OpenSSL has it
    https_proxy: str  # may hold a password, as the next one; read where it is used: other processes do without
    http_proxy: str
    no_proxy: str
    upstream_credentials: frozenset[str]
    host: str
    trusted_proxies: Proxies
    public_url: str  # empty where it follows from host and port
    dashboard_urls: tuple[str, ...]
    key_page: bool
    cors_origins: tuple[str, ...]
    gateway_port: int
    dashboard_port: int
    demo_port: int
    body_limit: int
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    stream_silence: float
    call_timeout: float
    shutdown_grace: float
    lease: float
    sqlite_synchronous: str
    pepper_text: str

    def __repr__(self) -> str:
        return f"Settings(data_dir={str(self.data_dir)!r})"  # store_url may hold a password

    @property
    def dashboard_origins(self) -> tuple[str, ...]:
        """Whose pages are the dashboard's."""
        return tuple(dict.fromkeys(split_page(page)[0] for page in self.dashboard_urls))

    @property
    def dashboard_paths(self) -> tuple[str, ...]:
        """Below which paths proxies ask for the dashboard, the longest first."""
        found = {split_page(page)[1] for page in self.dashboard_urls} - {""}
        return tuple(sorted(found, key=lambda path: (-len(path), path)))

    @property
    def logs_dir(self) -> Path:
        """Folder of what the processes of `keydesk up` print."""
        return self.data_dir / "logs"

    @property
    def lock_file(self) -> Path:
        """Held by the one `keydesk up` that may run on a data folder."""
        return self.data_dir / "up.lock"

    @property
    def first_start_file(self) -> Path:
        """The first sign-in, where `keydesk up` has no terminal to print it to."""
        return self.data_dir / "first-start.txt"

    @property
    def pepper_file(self) -> Path:
        """Where the peppers are, unless KEYDESK_PEPPER has them."""
        return self.data_dir / "pepper"
