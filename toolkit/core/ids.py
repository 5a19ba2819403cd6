"""Public ids: of what the store keeps, and of requests, whose ids sort by time. Pure but for random bytes."""

import secrets

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_NOISE = 10
"""Random bytes of a request id; six of their bits are left over."""

_48_BITS = (1 << 48) - 1

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit that says by its first two bits which kind of UUID it is, and is random in the others."""


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
    return _request_id(milliseconds, secrets.token_hex(_NOISE))


class RequestIds:
    """Request ids, many at a time: the operating system is asked for random bytes once for a hundred of them."""

    def __init__(self) -> None:
        self._noise: list[str] = []

    def next(self, milliseconds: int) -> str:
        """Return a fresh id, as `new_request_id`."""
        if not self._noise:
            noise = secrets.token_hex(_NOISE * 100)
            self._noise = [noise[at : at + 2 * _NOISE] for at in range(0, len(noise), 2 * _NOISE)]
        return _request_id(milliseconds, self._noise.pop())


def _request_id(milliseconds: int, noise: str) -> str:
    # Not from the module `random`: whatever library seeds it would make ids occur again.
    return f"req_{milliseconds & _48_BITS:012x}7{noise[:3]}{_VARIANT[noise[3]]}{noise[4:19]}"
