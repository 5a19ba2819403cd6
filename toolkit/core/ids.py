"""Public ids: of what the store keeps, and of requests, whose ids sort by time. Pure but for random bytes."""

import secrets

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


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
