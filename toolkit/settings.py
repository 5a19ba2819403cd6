"""Settings: read once from the environment, checked, and passed along. Only this file spells paths.

Every setting is a row of `TABLE` (name, default, help); `docs/settings.md` is tested against it.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from toolkit import permissions
from toolkit.addresses import parse_origins, parse_url
from toolkit.credentials import Keyring
from toolkit.errors import InvalidInput
from toolkit.proxies import Proxies

_CHECKOUT = Path(__file__).parent.parent
"""Where `data` is sought unless told otherwise, so that a notebook and a command in any folder find one store."""


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
        "The dashboard's origins as browsers see them, the main one first, with commas between; empty: the host asked.",
    ),
    Setting("KEYDESK_GATEWAY_PORT", "8080", "Port of the gateway."),
    Setting("KEYDESK_DASHBOARD_PORT", "8501", "Port of the dashboard."),
    Setting("KEYDESK_DEMO_PORT", "8090", "Port of the embedded demo upstream."),
    Setting("KEYDESK_BODY_LIMIT", "33554432", "Largest request body the gateway takes, in bytes."),
    Setting("KEYDESK_CONNECT_TIMEOUT", "10", "Seconds to connect to an upstream."),
    Setting("KEYDESK_FIRST_BYTE_TIMEOUT", "600", "Seconds until an upstream's first byte."),
    Setting("KEYDESK_IDLE_TIMEOUT", "120", "Seconds between two bytes of an upstream's answer, or of a caller's body."),
    Setting("KEYDESK_CALL_TIMEOUT", "3600", "Seconds for a whole call."),
    Setting("KEYDESK_SHUTDOWN_GRACE", "20", "Seconds that calls under way get to finish when the gateway is stopped."),
    Setting("KEYDESK_LEASE", "30", "Seconds after which the holds of a gateway that died are released."),
    Setting(
        "KEYDESK_SQLITE_SYNCHRONOUS",
        "FULL",
        "FULL: a power cut loses no commit. NORMAL: it may lose the last ones.",
    ),
)
_DEFAULTS = {setting.name: setting.default for setting in TABLE}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a Keydesk process needs to know; times in seconds, sizes in bytes."""

    data_dir: Path
    data_group: str
    store_url: str
    ledger_root: Path | str  # a string is s3://BUCKET/PREFIX
    secrets_file: Path | None
    upstream_credentials: frozenset[str]
    host: str
    trusted_proxies: Proxies
    public_url: str  # empty where it follows from host and port
    dashboard_origins: tuple[str, ...]
    gateway_port: int
    dashboard_port: int
    demo_port: int
    body_limit: int
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    call_timeout: float
    shutdown_grace: float
    lease: float
    sqlite_synchronous: str
    pepper_text: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings.

        Raises:
            InvalidInput: a value cannot be used, or a KEYDESK_ variable is not one of ours (a likely typo).
        """
        given = os.environ if environ is None else environ
        for name in given:
            if name.startswith("KEYDESK_") and not name.startswith("KEYDESK_TEST_") and name not in _DEFAULTS:
                raise InvalidInput(f"{name} is not a setting of Keydesk. Known ones: {', '.join(_DEFAULTS)}.")

        def text(name: str) -> str:
            return given.get(name) or _DEFAULTS[name]

        def number(name: str, low: float, high: float) -> float:
            try:
                value = float(text(name))
            except ValueError:
                raise InvalidInput(f"{name}={text(name)!r} is not a number.") from None
            if not low <= value <= high:
                raise InvalidInput(f"{name}={text(name)} must lie between {low:g} and {high:g}.")
            return value

        def whole(name: str, low: int, high: int) -> int:
            value = number(name, low, high)
            if not value.is_integer():
                raise InvalidInput(f"{name}={text(name)} must be a whole number.")
            return int(value)

        in_checkout = not given.get("KEYDESK_DATA_DIR") and (_CHECKOUT / "pyproject.toml").exists()
        data_dir = (_CHECKOUT if in_checkout else Path()) / Path(text("KEYDESK_DATA_DIR")).expanduser()
        data_dir = data_dir.resolve()
        synchronous = text("KEYDESK_SQLITE_SYNCHRONOUS").upper()
        if synchronous not in {"FULL", "NORMAL"}:
            raise InvalidInput(f"KEYDESK_SQLITE_SYNCHRONOUS={synchronous!r} must be FULL or NORMAL.")
        secrets_file, public_url = text("KEYDESK_SECRETS_FILE"), text("KEYDESK_PUBLIC_URL")
        return cls(
            data_dir=data_dir,
            data_group=text("KEYDESK_DATA_GROUP"),
            store_url=text("KEYDESK_STORE_URL") or f"sqlite:///{quote(str(data_dir / 'keydesk.db'))}",
            ledger_root=_ledger_root(text("KEYDESK_LEDGER_ROOT"), data_dir),
            secrets_file=Path(secrets_file).expanduser().resolve() if secrets_file else None,
            upstream_credentials=frozenset(
                filter(None, map(str.strip, text("KEYDESK_UPSTREAM_CREDENTIALS").split(",")))
            ),
            host=text("KEYDESK_HOST"),
            trusted_proxies=Proxies.parse(text("KEYDESK_TRUSTED_PROXIES"), "KEYDESK_TRUSTED_PROXIES"),
            public_url=public_url and parse_url(public_url, "KEYDESK_PUBLIC_URL"),
            dashboard_origins=parse_origins(text("KEYDESK_DASHBOARD_URL"), "KEYDESK_DASHBOARD_URL"),
            gateway_port=whole("KEYDESK_GATEWAY_PORT", 1, 65535),
            dashboard_port=whole("KEYDESK_DASHBOARD_PORT", 1, 65535),
            demo_port=whole("KEYDESK_DEMO_PORT", 1, 65535),
            body_limit=whole("KEYDESK_BODY_LIMIT", 1024, 2**31),
            connect_timeout=number("KEYDESK_CONNECT_TIMEOUT", 0.01, 3600),
            first_byte_timeout=number("KEYDESK_FIRST_BYTE_TIMEOUT", 0.01, 86400),
            idle_timeout=number("KEYDESK_IDLE_TIMEOUT", 0.01, 86400),
            call_timeout=number("KEYDESK_CALL_TIMEOUT", 0.01, 86400),
            shutdown_grace=number("KEYDESK_SHUTDOWN_GRACE", 1, 3600),
            lease=number("KEYDESK_LEASE", 1, 3600),
            sqlite_synchronous=synchronous,
            pepper_text=text("KEYDESK_PEPPER"),
        )

    def __repr__(self) -> str:
        return f"Settings(data_dir={str(self.data_dir)!r})"  # store_url may hold a password

    @property
    def found_anywhere(self) -> bool:
        """Whether a shell in any folder, with none of our variables set, would find this data folder."""
        return (_CHECKOUT / "pyproject.toml").exists() and self.data_dir == (_CHECKOUT / "data").resolve()

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

    @property
    def has_pepper(self) -> bool:
        """Whether there is a pepper: one that is missing may only be made where no key needs it."""
        return bool(self.pepper_text) or self.pepper_file.exists()

    def keep_private(self) -> list[str]:
        """Take from everybody else what they may read of the data folder and the ledger, but for KEYDESK_DATA_GROUP.

        Returns:
            What was changed, and what a person should see to, for the log.

        Raises:
            InvalidInput: there is no such group, or nothing can be handed to it.
        """
        group = permissions.find_group(self.data_group) if self.data_group else None
        ledger = self.ledger_root if isinstance(self.ledger_root, Path) else None
        if group is None or ledger is None:
            done = [permissions.keep(folder) for folder in (self.data_dir, ledger) if folder is not None]
        elif self.data_dir.is_relative_to(ledger):
            raise InvalidInput("KEYDESK_DATA_GROUP would read the whole data folder: give KEYDESK_LEDGER_ROOT its own.")
        else:
            if self.data_dir.exists():
                permissions.make_folder(ledger)
            passing = ledger.is_relative_to(self.data_dir)
            mode = permissions.PASSAGE if passing else permissions.FOLDER
            done = [
                permissions.keep(ledger, permissions.SHARED_FOLDER, group),
                permissions.keep(self.data_dir, mode, group if passing else None, but=ledger),
            ]
        return [line for line in (*done, self._open_store()) if line]

    def _open_store(self) -> str | None:
        """Return a warning if the key store is a file that others may read."""
        path = Path(unquote(self.store_url.removeprefix("sqlite:///")))
        with suppress(OSError):
            if self.store_url.startswith("sqlite:///") and path.stat().st_mode & 0o077:
                return f"Others may read the key store {path}. Run: chmod 600 {path}"
        return None

    def keyring(self) -> Keyring:
        """Return the peppers from KEYDESK_PEPPER, else from the file `pepper` (made at first use, mode 0600).

        Processes ask `peppers.open_keyring`, which knows whether one may be made.

        Raises:
            InvalidInput: a pepper is not hex or too short, or the file may be read by others.
        """
        if self.pepper_text:
            return _keyring_from(self.pepper_text.replace(",", "\n"), "KEYDESK_PEPPER")
        path = self.pepper_file
        if not path.exists():
            write_private(path, secrets.token_hex(32) + "\n", replace=False)
        if path.stat().st_mode & 0o077:
            raise InvalidInput(f"{path} may be read by others. Run: chmod 600 {path}")
        return _keyring_from(path.read_text(), str(path))

    def credential_names(self, environ: Mapping[str, str]) -> set[str]:
        """Return the names of variables that an upstream's credential may stand in, and those of the secrets file."""
        names = {name for name in environ if name.endswith("_API_KEY")} | self.upstream_credentials
        with suppress(OSError):
            names |= self._secrets().keys()
        return names

    def upstream_credential(self, reference: str) -> str | None:
        """Return the upstream credential named `reference`, as it is now: it may be rotated without a restart.

        Whether it may be sent at all, `credential_fault` says.
        """
        held = self._secrets()
        return held[reference] if reference in held else os.environ.get(reference)

    def credential_fault(self, reference: str) -> str | None:
        """Return why what is named `reference` is never sent to an upstream, in words; None if it may be.

        A row of the key store says which variable an upstream gets: it must not be able to name each that is here.
        """
        if reference.upper().startswith("KEYDESK_"):
            return f"{reference} is a setting of Keydesk and never sent to an upstream"
        if reference.endswith("_API_KEY") or reference in self.upstream_credentials or reference in self._secrets():
            return None
        return (
            f"{reference} is not the name of an upstream's credential: those end in _API_KEY, stand in the file that "
            "KEYDESK_SECRETS_FILE names, or are listed in KEYDESK_UPSTREAM_CREDENTIALS"
        )

    def _secrets(self) -> Mapping[str, str]:
        if self.secrets_file is None:
            return {}
        try:
            seen = self.secrets_file.stat()
        except FileNotFoundError:
            return {}
        return _credentials(self.secrets_file, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino)


@lru_cache(maxsize=1)
def _credentials(path: Path, *_seen: int) -> Mapping[str, str]:
    """Return what a secrets file holds; a changed file is seen by its times, size or inode, and read again."""
    held: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator:
            held.setdefault(name.strip(), value.strip())
    return held


def _ledger_root(text: str, data_dir: Path) -> Path | str:
    if text.startswith("s3://"):
        return text
    if "://" in text:
        raise InvalidInput(f"KEYDESK_LEDGER_ROOT={text} must be a folder, or look like s3://BUCKET/PREFIX.")
    return Path(text or data_dir / "ledger").expanduser().resolve()


def _keyring_from(text: str, where: str) -> Keyring:
    try:
        return Keyring([bytes.fromhex(line) for line in text.split()])
    except ValueError:
        raise InvalidInput(
            f"{where} must hold peppers of at least 64 hexadecimal digits, with commas or line breaks between."
        ) from None


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a file that only its owner may read (mode 0600 from the first byte).

    With `replace=False` an existing file stays as it is: of two processes that start at once, one wins.
    """
    permissions.make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace:
            temporary.replace(path)
        elif not path.exists():
            os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
