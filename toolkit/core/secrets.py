"""API-key secrets and their digests. Pure: no I/O, no clock.

A secret is `sk-` + 43 random base62 characters (256 bits) + 6 base62 characters of CRC-32 over what precedes,
so a typo is recognised before any store is asked. Stored is HMAC-SHA256 under a server-side pepper: 256 random
bits need no slow hash.
"""

import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from operator import mul

from toolkit.core.errors import InvalidInput
from toolkit.core.ids import ALPHABET, random_text

_BASE = len(ALPHABET)
_VALUES = bytes.maketrans(ALPHABET.encode(), bytes(range(_BASE)))
PREFIX = "sk-"
RANDOM_LENGTH = 43
CHECKSUM_LENGTH = 6
_WEIGHTS = [_BASE**place for place in reversed(range(CHECKSUM_LENGTH))]
SECRET_LENGTH = len(PREFIX) + RANDOM_LENGTH + CHECKSUM_LENGTH
SECRET_PATTERN = re.compile(rf"sk-[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}}")


def _checksum(text: str) -> str:
    number = binascii.crc32(text.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, _BASE)
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
    text = secret.encode()
    number = sum(map(mul, text[-CHECKSUM_LENGTH:].translate(_VALUES), _WEIGHTS))
    return bool(number == binascii.crc32(text[:-CHECKSUM_LENGTH]))


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
        self._begun = [hmac.new(pepper, digestmod="sha256") for _, pepper in self._peppers]

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
        return [Digest(value, name) for value, name in zip(self.values(secret), self.pepper_ids, strict=True)]

    def values(self, secret: str) -> list[str]:
        """Return the values alone of what `digests` returns."""
        values = []
        for begun in self._begun:
            mac = begun.copy()
            mac.update(secret.encode("utf-8", "surrogateescape"))
            values.append(mac.hexdigest())
        return values

    def signing_keys(self, purpose: str) -> list[bytes]:
        """Return keys for another purpose (the session cookie), one of each pepper, that of the current one last.

        So what was signed under an older pepper holds as long as the API keys made under it.
        """
        info = f"keydesk {purpose}".encode()
        return [hmac.digest(pepper, info, "sha256") for _, pepper in reversed(self._peppers)]
