"""Storage: where the ledger's segments stand, a folder or an S3-compatible bucket.

A file appears in a storage whole or not at all, is there for good once `write` has returned, and never changes. Its
name is never used twice, so nothing is overwritten, and neither storage needs a lock. Paths are relative to the
storage's root and have slashes.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from toolkit.core.errors import Unavailable
from toolkit.store import file_permissions

if TYPE_CHECKING:
    import duckdb

BUCKET = "s3://"
"""What the root of a ledger in a bucket begins with: `s3://BUCKET/PREFIX`."""


class Storage(Protocol):
    """Where files stand.

    Raises:
        Unavailable: by each method, if the place cannot be reached or refuses; the message says what to do.
    """

    def write(self, path: str, content: bytes) -> None:
        """Put a new file there; once this returns, a power cut loses neither it nor its name."""

    def read(self, path: str) -> bytes:
        """Return a file.

        Raises:
            FileNotFoundError: it is not there.
        """

    def ages(self, folder: str) -> dict[str, float]:
        """Return all files below a folder: path → seconds since it was written, by the clocks at hand."""

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error."""

    def addresses(self, sizes: dict[str, int]) -> list[str]:
        """Return where DuckDB finds files, as `read_parquet` takes it; `sizes` has their sizes in bytes."""

    def connect(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Let DuckDB read from this storage."""


def at(root: Path | str) -> Storage:
    """Return the storage at a folder, or at `s3://BUCKET/PREFIX`.

    Raises:
        InvalidInput: there can be no bucket of that name.
    """
    if isinstance(root, str) and root.startswith(BUCKET):
        from toolkit.ledger.s3 import S3Storage

        return S3Storage(root)
    return FolderStorage(Path(root))


class FolderStorage:
    """A folder of this machine, or one that machines share.

    Args:
        root: need not be there; whoever may read it may read what is made in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def write(self, path: str, content: bytes) -> None:
        """Put a new file there: under a temporary name, flushed, renamed, and the name flushed."""
        target = self.root / path
        with _clearly("written", target):
            made = file_permissions.make_below(self.root, target.parent)
            folders = dict.fromkeys((target.parent, *(path.parent for path in made)))
            temporary = target.with_suffix(".tmp")
            mode = file_permissions.file_mode(self.root)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    os.fchmod(descriptor, mode)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(target)
            except BaseException:
                # Whoever tries again takes another name: a full disk would fill up with what did not fit.
                with suppress(OSError):
                    temporary.unlink()
                raise
            for folder in folders:
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def read(self, path: str) -> bytes:
        """Return a file."""
        with _clearly("read", self.root / path, but=FileNotFoundError):
            return (self.root / path).read_bytes()

    def ages(self, folder: str) -> dict[str, float]:
        """Return all files below a folder, with their ages in seconds."""
        now = time.time()
        found = {}
        with _clearly("listed", self.root / folder):
            for parent, _, names in os.walk(self.root / folder, onerror=_unless_gone):
                for path in (Path(parent, name) for name in names):
                    try:
                        found[path.relative_to(self.root).as_posix()] = now - path.stat().st_mtime
                    except FileNotFoundError:  # another sweep was quicker
                        continue
        return found

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files."""
        for path in paths:
            with _clearly("removed", self.root / path):
                (self.root / path).unlink(missing_ok=True)

    def addresses(self, sizes: dict[str, int]) -> list[str]:
        """Return the files' names, with characters escaped that DuckDB would read as a pattern."""
        return [
            "".join(f"[{character}]" if character in "*?[" else character for character in str(self.root / path))
            for path in sizes
        ]

    def connect(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Do nothing: DuckDB reads folders by itself."""


@contextmanager
def _clearly(done: str, path: Path, *, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turn the system's errors into sentences that name the file and the cause, all but what the caller knows."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise Unavailable(f"{path} cannot be {done}: {error.strerror or error}.") from error


def _unless_gone(error: OSError) -> None:
    """Raise what the listing of a folder met, unless that is not there: not yet, or not any more."""
    if not isinstance(error, FileNotFoundError):
        raise error
