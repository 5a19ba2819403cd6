"""Buckets: a storage on S3, or on anything that speaks its protocol. Imported only where a ledger is kept in one.

Arrow's own S3 client does the work, so nothing but `fsspec` is needed for it: the interface by which DuckDB reads
files that are not its own. Credentials, region and endpoint come from where the AWS tools look for them:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, ~/.aws, or the machine's
role.

An object appears when its upload is complete, and then at once in every listing; large ones go up in parts. Names are
never used twice, so a conditional write would guard against nothing.
"""

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import fsspec
from pyarrow import fs

from toolkit.core.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    import duckdb

CONNECT_TIMEOUT = 5.0
"""Seconds to reach the server, for each of three tries."""

PROTOCOL = "s3"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGISTERING = threading.Lock()


class S3Storage:
    """A storage in a bucket.

    Args:
        root: `s3://BUCKET/PREFIX`; the prefix may be empty.

    Raises:
        InvalidInput: there can be no bucket of that name.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._base = self.root.removeprefix(f"{PROTOCOL}://")
        self._bucket = self._base.partition("/")[0]
        if not _NAME.fullmatch(self._bucket):
            raise InvalidInput(f"{root} names no bucket. KEYDESK_LEDGER_ROOT must look like s3://BUCKET/PREFIX.")

    def __str__(self) -> str:
        return self.root

    def write(self, path: str, content: bytes) -> None:
        """Put a new object there."""
        with _clearly("written to", self._bucket), _client().open_output_stream(f"{self._base}/{path}") as stream:
            stream.write(content)

    def read(self, path: str) -> bytes:
        """Return an object."""
        with _clearly("read", self._bucket), _client().open_input_file(f"{self._base}/{path}") as file:
            content: bytes = file.read()
            return content

    def ages(self, folder: str) -> dict[str, float]:
        """Return all objects below a folder, with their ages by the server's moment of writing and our clock."""
        selector = fs.FileSelector(f"{self._base}/{folder}", allow_not_found=True, recursive=True)
        with _clearly("listed", self._bucket):
            found = _client().get_file_info(selector)
        now = datetime.now(UTC)
        return {
            info.path.removeprefix(f"{self._base}/"): (now - info.mtime).total_seconds()
            for info in found
            if info.type is fs.FileType.File
        }

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects."""
        with _clearly("cleaned", self._bucket):
            for path in paths:
                try:
                    _client().delete_file(f"{self._base}/{path}")
                except FileNotFoundError:
                    continue

    def addresses(self, sizes: dict[str, int]) -> list[str]:
        """Return the objects' addresses; their sizes are remembered, so that nobody has to ask the server."""
        _SIZES.update({f"{self._base}/{path}": size for path, size in sizes.items()})
        return [f"{self.root}/{path}" for path in sizes]

    def connect(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Let DuckDB read objects, and keep what it has read: they never change."""
        with _REGISTERING:
            if PROTOCOL not in connection.list_filesystems():
                connection.register_filesystem(_Objects())
                connection.execute("SET GLOBAL validate_external_file_cache = 'NO_VALIDATION'")


@contextmanager
def _clearly(done: str, bucket: str) -> Iterator[None]:
    """Turn the client's errors into sentences that name the setting at fault."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unavailable(f"The bucket {bucket} cannot be {done}: {_explain(str(error))}") from error


def _explain(error: str) -> str:
    """Return what an error of the S3 client means, and what to do about it."""
    for sign, meaning in _MEANINGS.items():
        if sign in error:
            return meaning
    return error.partition("\n")[0]


_MEANINGS = {
    "NO_SUCH_BUCKET": "there is none of that name. Make it, or correct KEYDESK_LEDGER_ROOT.",
    "NoSuchBucket": "there is none of that name. Make it, or correct KEYDESK_LEDGER_ROOT.",
    "ACCESS_DENIED": "these credentials do not allow it, or there are none. Set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or give the machine a role that may get, put, list and delete objects.",
    "INVALID_ACCESS_KEY_ID": "the server does not know AWS_ACCESS_KEY_ID.",
    "InvalidAccessKeyId": "the server does not know AWS_ACCESS_KEY_ID.",
    "SIGNATURE_DOES_NOT_MATCH": "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID.",
    "NETWORK_CONNECTION": "its server cannot be reached. See that AWS_ENDPOINT_URL is right (empty for AWS itself), "
    "AWS_REGION too, and the network is up.",
}


def _client() -> fs.S3FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
    # Elsewhere than at AWS the region means nothing, but the client would ask the machine's cloud for one.
    return _client_of(endpoint, region or ("us-east-1" if endpoint else None))


@cache
def _client_of(endpoint: str | None, region: str | None) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=CONNECT_TIMEOUT,
        allow_delayed_open=True,  # a small object is one request
    )


_SIZES: dict[str, int] = {}
"""Size of each object that was given an address, by bucket and key."""

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class _Objects(fsspec.AbstractFileSystem):  # type: ignore[misc]  # it has no types
    """What DuckDB reads objects through. That they exist, and how long they are, the list of segments says."""

    protocol = PROTOCOL
    cachable = False

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_Object":  # noqa: ARG002 - fsspec's signature
        return _Object(path)

    def size(self, path: str) -> int:
        return _SIZES[self._strip_protocol(path)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self.size(path), "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        return self._strip_protocol(path) in _SIZES

    def glob(self, path: str, **_: Any) -> list[str]:
        return [self._strip_protocol(path)]

    def modified(self, path: str) -> datetime:  # noqa: ARG002
        return _LONG_AGO


class _Object:
    """An object, open for reading by several threads at once.

    DuckDB shares one between its threads, and each seeks before it reads: every thread has a position of its own.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._here = threading.local()

    def seek(self, position: int) -> int:
        self._here.position = position
        return position

    def read(self, size: int) -> bytes:
        try:
            with _clearly("read", self._path.partition("/")[0]):
                content: bytes = _opened(self._path).read_at(size, self._here.position)
        except FileNotFoundError:
            raise Unavailable(f"The object s3://{self._path} is missing.") from None
        self._here.position += len(content)
        return content

    def close(self) -> None:
        """Do nothing: what is open is no connection, only the knowledge that the object is there."""


@lru_cache(4096)
def _opened(path: str) -> Any:
    # Opening asks the server once; what DuckDB has in its memory is read without.
    return _client().open_input_file(path)
