"""API-key secrets, their digests, and operators' passwords. Pure: no I/O, no clock.

A secret is `sk-` + 43 random base62 characters (256 bits) + 6 base62 characters of CRC-32 over what precedes,
so a typo is recognised before any store is asked. Stored is HMAC-SHA256 under a server-side pepper: 256 random
bits need no slow hash. Slow hashing (bcrypt) is for what people choose.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

import bcrypt

from toolkit.core.errors import InvalidInput

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE = {digit: value for value, digit in enumerate(ALPHABET)}
PREFIX = "sk-"
RANDOM_LENGTH = 43
CHECKSUM_LENGTH = 6
SECRET_LENGTH = len(PREFIX) + RANDOM_LENGTH + CHECKSUM_LENGTH
SECRET_PATTERN = re.compile(rf"sk-[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}}")

PASSWORD_MINIMUM = 12
BCRYPT_COST = 12


def random_text(length: int) -> str:
    """Return `length` random base62 characters from the operating system's generator."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def new_id(kind: str) -> str:
    """Return a fresh public id such as `key_8sJ2mQx4TzLw`: the kind and 12 random characters (71 bits)."""
    return f"{kind}_{random_text(12)}"


def new_request_id(milliseconds: int) -> str:
    """Return a request id: `req_` + a UUIDv7 in hex (RFC 9562), so that ids sort by time.

    Args:
        milliseconds: the moment of admission, since 1970, UTC.
    """
    return _request_id(milliseconds, secrets.token_bytes(10))


class RequestIds:
    """Request ids, many at a time: the operating system is asked for random bytes once for a hundred of them."""

    def __init__(self) -> None:
        self._noise = memoryview(b"")

    def next(self, milliseconds: int) -> str:
        """Return a fresh id, as `new_request_id`."""
        if not self._noise:
            self._noise = memoryview(secrets.token_bytes(10 * 100))
        noise, self._noise = self._noise[:10], self._noise[10:]
        return _request_id(milliseconds, noise)


def _request_id(milliseconds: int, random: bytes | memoryview) -> str:
    # Not from the module `random`: whatever library seeds it would make ids occur again.
    noise = int.from_bytes(random, "big") >> 6
    high = (milliseconds & (1 << 48) - 1) << 16 | 0x7000 | noise >> 62
    low = 0b10 << 62 | noise & (1 << 62) - 1
    return f"req_{high << 64 | low:032x}"


def _checksum(text: str) -> str:
    number = binascii.crc32(text.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new_secret() -> str:
    """Return a fresh API-key secret. It is shown once and never stored."""
    body = PREFIX + random_text(RANDOM_LENGTH)
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether `secret` has the form of ours and its checksum holds. White space is not trimmed."""
    if SECRET_PATTERN.fullmatch(secret) is None:
        return False
    number = 0
    for digit in secret[-CHECKSUM_LENGTH:]:
        number = number * len(ALPHABET) + _VALUE[digit]
    return number == binascii.crc32(secret[:-CHECKSUM_LENGTH].encode())


def display_form(secret: str) -> str:
    """Return what may be shown of a secret for ever: `sk-AbCd…wxyz`."""
    return f"{secret[:7]}…{secret[-4:]}"


def redact(text: str) -> str:
    """Replace every API-key secret in `text` by its display form."""
    return SECRET_PATTERN.sub(lambda match: display_form(match.group()), text)


@dataclass(frozen=True, slots=True)
class Digest:
    """What is stored of a secret: its HMAC and the id of the pepper it was made under."""

    value: str
    pepper_id: str


class Keyring:
    """The server-side peppers: the first signs new secrets, all verify old ones.

    Args:
        peppers: at least one, each 32 bytes or more.

    Raises:
        InvalidInput: no pepper, or one that is too short.
    """

    def __init__(self, peppers: list[bytes]) -> None:
        if not peppers or any(len(pepper) < 32 for pepper in peppers):
            raise InvalidInput(
                "A pepper must have at least 32 bytes. Restore it from the backup: without it no API key works."
            )
        self._peppers = [(hashlib.sha256(b"keydesk pepper id:" + p).hexdigest()[:8], p) for p in peppers]
        # Begun once and copied: `hmac.digest` lets go of the interpreter's lock, which costs more than the digest.
        self._begun = [(hmac.new(pepper, digestmod="sha256"), name) for name, pepper in self._peppers]

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.pepper_ids)})"

    @property
    def pepper_ids(self) -> list[str]:
        """Ids of the peppers, the current one first."""
        return [name for name, _ in self._peppers]

    def digest(self, secret: str) -> Digest:
        """Return the digest of `secret` under the current pepper."""
        return self.digests(secret)[0]

    def digests(self, secret: str) -> list[Digest]:
        """Return the digest of `secret` under each pepper, the current one first."""
        digests = []
        for begun, name in self._begun:
            mac = begun.copy()
            mac.update(secret.encode("utf-8", "surrogateescape"))
            digests.append(Digest(mac.hexdigest(), name))
        return digests

    def signing_keys(self, purpose: str) -> list[bytes]:
        """Return keys for another purpose (the session cookie), one of each pepper, that of the current one last.

        So what was signed under an older pepper holds as long as the API keys made under it.
        """
        info = f"keydesk {purpose}".encode()
        return [hmac.digest(pepper, info, "sha256") for _, pepper in reversed(self._peppers)]


def _prehash(password: str) -> bytes:
    # bcrypt refuses more than 72 bytes and stops at NUL; base64 of a SHA-256 has neither problem.
    return base64.b64encode(hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest())


def check_password_strength(password: str) -> None:
    """Raise InvalidInput unless the password has at least 12 characters, not all alike."""
    if len(password) < PASSWORD_MINIMUM:
        raise InvalidInput(f"The password is too short: use at least {PASSWORD_MINIMUM} characters.")
    if len(set(password)) < 4:
        raise InvalidInput("The password repeats the same few characters: use more different ones.")


class PasswordHash(str):
    """What `hash_password` returns: a type of its own, so that no plain password is stored in its place."""

    __slots__ = ()


def hash_password(password: str, cost: int = BCRYPT_COST) -> PasswordHash:
    """Return the bcrypt hash of a password.

    About 0.25 s at the default cost: never on an event loop, nor inside a write transaction, which on SQLite every call
    of the gateway would wait for.

    Raises:
        InvalidInput: the password is too weak.
    """
    check_password_strength(password)
    return PasswordHash(bcrypt.hashpw(_prehash(password), bcrypt.gensalt(cost)).decode())


def require_hash(password: object) -> str:
    """Return a hash made by `hash_password`, as the store keeps it.

    Raises:
        InvalidInput: it is anything else, such as the password itself.
    """
    if not isinstance(password, PasswordHash):
        raise InvalidInput(
            "Give the password's hash, made before the transaction: credentials.hash_password(password)."
        )
    return str(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether `password` matches. An unknown operator (`stored` None) costs the same time and is always False."""
    if stored is None:
        bcrypt.checkpw(_prehash(password), _DUMMY_HASH)
        return False
    return bcrypt.checkpw(_prehash(password), stored.encode())


# A well-formed hash at BCRYPT_COST that no password was chosen for.
_DUMMY_HASH = b"$2b$12$C6UzMDM.H6dfI/f/IKcEeO7ZbPtL8tGmN0Jt0vYx5d5h9pYk1Kx6W"
