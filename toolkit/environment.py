"""The environment: settings, peppers and upstream credentials, read from variables and files, and who may read those.

What the settings are, `core.settings` says; only these two files spell paths.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, unquote

from toolkit.core.addresses import parse_origins, parse_pages, parse_url
from toolkit.core.errors import InvalidInput
from toolkit.core.proxies import Proxies
from toolkit.core.secrets import Keyring
from toolkit.core.settings import DEFAULTS, TABLE, Settings
from toolkit.core.token_command import NoToken, TokenCommand
from toolkit.store import file_permissions

_USUAL = frozenset({"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"})
"""Variables that are read in small letters first."""

_CHECKOUT = Path(__file__).parent.parent
"""Where `data` is sought unless told otherwise, so that a notebook and a command in any folder find one store."""


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        InvalidInput: a value cannot be used, or a KEYDESK_ variable is not one of ours (a likely typo).
    """
    given = os.environ if environ is None else environ
    for name in given:
        if name.startswith("KEYDESK_") and not name.startswith("KEYDESK_TEST_") and name not in DEFAULTS:
            raise InvalidInput(f"{name} is not a setting of Keydesk. Known ones: {', '.join(DEFAULTS)}.")

    def text(name: str) -> str:
        return given.get(name) or DEFAULTS[name]

    def path(name: str) -> Path | None:
        return Path(text(name)).expanduser().resolve() if text(name) else None

    def usual(name: str) -> str:
        return given.get(name.lower()) or text(name)  # curl and Go read both, and small letters first

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
    key_page = text("KEYDESK_KEY_PAGE").lower()
    if key_page not in {"on", "off"}:
        raise InvalidInput(f"KEYDESK_KEY_PAGE={key_page!r} must be on or off.")
    public_url = text("KEYDESK_PUBLIC_URL")
    return Settings(
        data_dir=data_dir,
        data_group=text("KEYDESK_DATA_GROUP"),
        store_url=text("KEYDESK_STORE_URL") or f"sqlite:///{quote(str(data_dir / 'keydesk.db'))}",
        ledger_root=_ledger_root(text("KEYDESK_LEDGER_ROOT"), data_dir),
        secrets_file=path("KEYDESK_SECRETS_FILE"),
        alerts_secrets_file=path("KEYDESK_ALERTS_SECRETS_FILE"),
        client_certificate=path("KEYDESK_CLIENT_CERTIFICATE"),
        client_key=path("KEYDESK_CLIENT_KEY"),
        upstream_certificates=_certificates(text("KEYDESK_UPSTREAM_CERTIFICATES")),
        cert_file=path("SSL_CERT_FILE"),
        cert_dir=text("SSL_CERT_DIR"),
        https_proxy=usual("HTTPS_PROXY"),
        http_proxy=usual("HTTP_PROXY"),
        no_proxy=usual("NO_PROXY"),
        upstream_credentials=frozenset(filter(None, map(str.strip, text("KEYDESK_UPSTREAM_CREDENTIALS").split(",")))),
        host=text("KEYDESK_HOST"),
        trusted_proxies=Proxies.parse(text("KEYDESK_TRUSTED_PROXIES"), "KEYDESK_TRUSTED_PROXIES"),
        public_url=public_url and parse_url(public_url, "KEYDESK_PUBLIC_URL"),
        dashboard_urls=parse_pages(text("KEYDESK_DASHBOARD_URL"), "KEYDESK_DASHBOARD_URL"),
        key_page=key_page == "on",
        cors_origins=parse_origins(text("KEYDESK_CORS_ORIGINS"), "KEYDESK_CORS_ORIGINS", of_apps=True),
        gateway_port=whole("KEYDESK_GATEWAY_PORT", 1, 65535),
        dashboard_port=whole("KEYDESK_DASHBOARD_PORT", 1, 65535),
        demo_port=whole("KEYDESK_DEMO_PORT", 1, 65535),
        body_limit=whole("KEYDESK_BODY_LIMIT", 1024, 2**31),
        connect_timeout=number("KEYDESK_CONNECT_TIMEOUT", 0.01, 3600),
        first_byte_timeout=number("KEYDESK_FIRST_BYTE_TIMEOUT", 0.01, 86400),
        idle_timeout=number("KEYDESK_IDLE_TIMEOUT", 0.01, 86400),
        stream_silence=number("KEYDESK_STREAM_SILENCE", 0.01, 86400),
        call_timeout=number("KEYDESK_CALL_TIMEOUT", 0.01, 86400),
        shutdown_grace=number("KEYDESK_SHUTDOWN_GRACE", 1, 3600),
        lease=number("KEYDESK_LEASE", 1, 3600),
        sqlite_synchronous=synchronous,
        pepper_text=text("KEYDESK_PEPPER"),
    )


def _certificates(text: str) -> dict[str, Path]:
    """Read which file has the certificate for which upstream."""
    found: dict[str, Path] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, file = map(str.strip, entry.partition("="))
        if not name or not file or name in found:
            raise InvalidInput(
                f"KEYDESK_UPSTREAM_CERTIFICATES: {entry!r} is no NAME=FILE, or names an upstream again. Write each "
                "upstream once, such as models=/etc/keydesk/models.pem, with commas between."
            )
        found[name] = Path(file).expanduser().resolve()
    return found


@cache
def version() -> str:
    """Return the version of Keydesk that is installed; "unknown" where it runs from a folder that is not."""
    try:
        return metadata.version("keydesk")
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class InForce:
    """A setting as it holds in this process.

    Args:
        name: of its variable.
        value: in words; nothing secret is in it.
        is_given: whether the environment says it; else it is the default.
        help: what it does.
    """

    name: str
    value: str
    is_given: bool
    help: str


def in_force(environ: Mapping[str, str] | None = None) -> list[InForce]:
    """Return the settings that hold in this process, in the order of their table. No secret is among the values.

    Raises:
        InvalidInput: as `read_settings`.
    """
    given = os.environ if environ is None else environ
    settings = read_settings(given)
    places = {
        "KEYDESK_DATA_DIR": str(settings.data_dir),
        "KEYDESK_STORE_URL": _without_user(settings.store_url),
        "KEYDESK_LEDGER_ROOT": str(settings.ledger_root),
        "KEYDESK_PEPPER": "set, not shown" if settings.pepper_text else f"the file {settings.pepper_file}",
        "HTTPS_PROXY": _without_user(settings.https_proxy),
        "HTTP_PROXY": _without_user(settings.http_proxy),
        "NO_PROXY": settings.no_proxy,
    }
    found = []
    for setting in TABLE:
        is_given = bool(given.get(setting.name) or (setting.name in _USUAL and given.get(setting.name.lower())))
        value = places.get(setting.name, given.get(setting.name) or setting.default)
        found.append(InForce(setting.name, value, is_given, setting.help))
    return found


def _without_user(url: str) -> str:
    """Return a URL without what may hold a password: what stands before the host, and its parameters."""
    if "://" not in url:
        return url and "set, not shown"
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def found_anywhere(settings: Settings) -> bool:
    """Whether a shell in any folder, with none of our variables set, would find this data folder."""
    return (_CHECKOUT / "pyproject.toml").exists() and settings.data_dir == (_CHECKOUT / "data").resolve()


def has_pepper(settings: Settings) -> bool:
    """Whether there is a pepper: one that is missing may only be made where no key needs it."""
    return bool(settings.pepper_text) or settings.pepper_file.exists()


def keep_private(settings: Settings) -> list[str]:
    """Take from everybody else what they may read of the data folder and the ledger, but for KEYDESK_DATA_GROUP.

    Returns:
        What was changed, and what a person should see to, for the log.

    Raises:
        InvalidInput: there is no such group, or nothing can be handed to it.
    """
    group = file_permissions.find_group(settings.data_group) if settings.data_group else None
    ledger = settings.ledger_root if isinstance(settings.ledger_root, Path) else None
    if group is None or ledger is None:
        done = [file_permissions.keep(folder) for folder in (settings.data_dir, ledger) if folder is not None]
    elif settings.data_dir.is_relative_to(ledger):
        raise InvalidInput("KEYDESK_DATA_GROUP would read the whole data folder: give KEYDESK_LEDGER_ROOT its own.")
    else:
        if settings.data_dir.exists():
            file_permissions.make_folder(ledger)
        passing = ledger.is_relative_to(settings.data_dir)
        mode = file_permissions.PASSAGE if passing else file_permissions.FOLDER
        done = [
            file_permissions.keep(ledger, file_permissions.SHARED_FOLDER, group),
            file_permissions.keep(settings.data_dir, mode, group if passing else None, but=ledger),
        ]
    return [line for line in (*done, _open_store(settings)) if line]


def _open_store(settings: Settings) -> str | None:
    """Return a warning if the key store is a file that others may read."""
    path = Path(unquote(settings.store_url.removeprefix("sqlite:///")))
    with suppress(OSError):
        if settings.store_url.startswith("sqlite:///") and path.stat().st_mode & 0o077:
            return f"Others may read the key store {path}. Run: chmod 600 {path}"
    return None


def keyring(settings: Settings) -> Keyring:
    """Return the peppers from KEYDESK_PEPPER, else from the file `pepper` (made at first use, mode 0600).

    Processes ask `peppers.open_keyring`, which knows whether one may be made.

    Raises:
        InvalidInput: a pepper is not hex or too short, or the file may be read by others.
    """
    if settings.pepper_text:
        return _keyring_from(settings.pepper_text.replace(",", "\n"), "KEYDESK_PEPPER")
    path = settings.pepper_file
    if not path.exists():
        write_private(path, secrets.token_hex(32) + "\n", replace=False)
    if path.stat().st_mode & 0o077:
        raise InvalidInput(f"{path} may be read by others. Run: chmod 600 {path}")
    return _keyring_from(path.read_text(), str(path))


def credential_names(settings: Settings, environ: Mapping[str, str]) -> set[str]:
    """Return the names of variables that may have an upstream's credential, and those of the secrets file."""
    names = {name for name in environ if name.endswith("_API_KEY")} | settings.upstream_credentials
    with suppress(OSError):
        names |= _secrets(settings).keys()
    return names


def upstream_credential(settings: Settings, reference: str) -> str | TokenCommand | None:
    """Return the upstream credential named `reference`, as it is now: it may be rotated without a restart.

    A command is one that prints it. Whether it may be sent at all, `credential_fault` says.
    """
    held = _secrets(settings)
    return held[reference] if reference in held else os.environ.get(reference)


def mail_password(settings: Settings, reference: str) -> str:
    """Return the password of a mail server that is named `reference`, as it is now.

    It is looked for in one file alone: a row of the key store must not be able to name whatever a process knows.

    Raises:
        InvalidInput: says why there is none, in words without the file's place.
    """
    path = settings.alerts_secrets_file
    if path is None:
        raise InvalidInput(f"KEYDESK_ALERTS_SECRETS_FILE names no file, so there is no password {reference}")
    held = _held(path)
    if path.exists() and path.stat().st_mode & 0o077:
        raise InvalidInput("others may read the file that KEYDESK_ALERTS_SECRETS_FILE names: run chmod 600 on it")
    password = held.get(reference)
    if not isinstance(password, str):
        raise InvalidInput(f"the file that KEYDESK_ALERTS_SECRETS_FILE names has no line {reference}=…")
    return password


def credential_fault(settings: Settings, reference: str) -> str | None:
    """Return why what is named `reference` is never sent to an upstream, in words; None if it may be.

    A row of the key store says which variable an upstream gets: it must not be able to name each that is here.
    """
    if reference.upper().startswith("KEYDESK_"):
        return f"{reference} is a setting of Keydesk and never sent to an upstream"
    held = _secrets(settings).get(reference)
    if isinstance(held, TokenCommand):
        return _command_fault(settings, held)
    if reference.endswith("_API_KEY") or reference in settings.upstream_credentials or held is not None:
        return None
    return (
        f"{reference} is not the name of an upstream's credential: those end in _API_KEY, stand in the file that "
        "KEYDESK_SECRETS_FILE names, or are listed in KEYDESK_UPSTREAM_CREDENTIALS"
    )


def _command_fault(settings: Settings, command: TokenCommand) -> str | None:
    """Return why a command is not run, in words; None if it is."""
    path = settings.secrets_file
    if path is None or path.stat().st_mode & 0o022:
        return f"the command of {command.name} is not run, for others may write {path}. Run: chmod go-w {path}"
    try:
        command.argv  # noqa: B018 - it is read, and not run
    except NoToken as error:
        return f"the command of {command.name} in {path} cannot be used: {error}"
    return None


def _secrets(settings: Settings) -> Mapping[str, str | TokenCommand]:
    return {} if settings.secrets_file is None else _held(settings.secrets_file)


def _held(path: Path) -> Mapping[str, str | TokenCommand]:
    """Return what a secrets file holds just now; nothing if it is not there."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return {}
    return _credentials(path, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino)


@lru_cache(maxsize=2)
def _credentials(path: Path, *_seen: int) -> Mapping[str, str | TokenCommand]:
    """Return what a secrets file holds, `NAME=VALUE` or `NAME!=COMMAND`.

    A changed file is seen by its times, size or inode, and read again.
    """
    held: dict[str, str | TokenCommand] = {}
    for line in path.read_text().splitlines():
        name, separator, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if separator and name.endswith("!"):
            name = name[:-1].rstrip()
            held.setdefault(name, TokenCommand(name, value))
        elif separator:
            held.setdefault(name, value)
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
    file_permissions.make_folder(path.parent)
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
