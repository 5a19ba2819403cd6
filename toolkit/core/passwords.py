"""Operators' passwords: how strong, and their slow hash (bcrypt, for what people choose). Pure: no I/O, no clock."""

import base64
import hashlib

import bcrypt

from toolkit.core.errors import InvalidInput

PASSWORD_MINIMUM = 12
BCRYPT_COST = 12


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
        raise InvalidInput("Give the password's hash, made before the transaction: passwords.hash_password(password).")
    return str(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether `password` matches. An unknown operator (`stored` None) costs the same time and is always False."""
    if stored is None:
        bcrypt.checkpw(_prehash(password), _DUMMY_HASH)
        return False
    return bcrypt.checkpw(_prehash(password), stored.encode())


# A well-formed hash at BCRYPT_COST that no password was chosen for.
_DUMMY_HASH = b"$2b$12$C6UzMDM.H6dfI/f/IKcEeO7ZbPtL8tGmN0Jt0vYx5d5h9pYk1Kx6W"
