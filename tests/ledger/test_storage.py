"""A storage keeps files for good, in a folder and in a bucket alike."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto import settings as moto_settings

from tests.buckets import NAME, bucket, bucket_server
from tests.conftest import ROOT, at_once, free_port
from tests.ledgers import root
from toolkit import environment
from toolkit.core.errors import InvalidInput, Unavailable
from toolkit.core.settings import Settings
from toolkit.ledger.storage import FolderStorage, Storage, at

ROWS = 200_000


@pytest.fixture
def storage(root: Path | str) -> Storage:
    """An empty storage."""
    return at(root)


def test_file_is_read_as_it_was_written(storage: Storage) -> None:
    """What was written is there, byte by byte, small or larger than what a bucket takes in one part."""
    for name, content in (("a/small", b"\x00\xff"), ("a/large", os.urandom(12 << 20))):
        storage.write(name, content)
        assert storage.read(name) == content


def test_missing_file_is_told_as_missing(storage: Storage) -> None:
    """A file that is not there is no trouble of the storage: the caller knows what it means."""
    with pytest.raises(FileNotFoundError):
        storage.read("a/none")


def test_files_have_ages(storage: Storage) -> None:
    """All files below a folder are found with their ages; an empty storage has none."""
    assert storage.ages("a") == {}
    for name in ("a/b=1/one", "a/two", "elsewhere/three"):
        storage.write(name, b"x")
    ages = storage.ages("a")
    assert set(ages) == {"a/b=1/one", "a/two"}
    assert all(-1 < age < 60 for age in ages.values())


def test_removing_what_is_gone_is_no_error(storage: Storage) -> None:
    """Two sweeps may remove the same file."""
    storage.write("a/one", b"x")
    storage.remove(["a/none", "a/one"])
    storage.remove(["a/one"])
    assert storage.ages("a") == {}


def test_folder_keeps_nothing_half_written(tmp_path: Path) -> None:
    """A name appears once the content is whole: what is being written has another name, and is never written over."""
    storage = FolderStorage(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.tmp").write_bytes(b"of somebody else")
    with pytest.raises(Unavailable, match=r"one\.parquet cannot be written: File exists"):
        storage.write("a/one.parquet", b"x")
    assert (tmp_path / "a" / "one.tmp").read_bytes() == b"of somebody else"
    assert not (tmp_path / "a" / "one.parquet").exists()


def test_folder_in_trouble_is_unavailable(tmp_path: Path) -> None:
    """What a disk refuses is told with the file and the cause; only a file that is missing is a matter of its own."""
    root = tmp_path / "ledger"
    root.write_bytes(b"no folder")
    storage = FolderStorage(root)
    acts: dict[str, Callable[[], object]] = {
        "written": lambda: storage.write("a/one", b"x"),
        "read": lambda: storage.read("a/one"),
        "listed": lambda: storage.ages("a"),
        "removed": lambda: storage.remove(["a/one"]),
    }
    for done, act in acts.items():
        with pytest.raises(Unavailable, match=f"ledger/a.* cannot be {done}: (Not a directory|File exists)"):
            act()
    root.unlink()
    assert storage.ages("a") == {}
    storage.write("a/one", b"x")
    assert storage.read("a/one") == b"x"


FILL = """
import resource, sys
from pathlib import Path
from toolkit.core.errors import Unavailable
from toolkit.ledger.storage import FolderStorage
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    FolderStorage(Path(sys.argv[1])).write("a/one.parquet", bytes(2 << 20))
except Unavailable as error:
    print(error)
"""


def test_folder_keeps_nothing_of_what_did_not_fit(tmp_path: Path) -> None:
    """A file that cannot be written whole leaves nothing behind: who tries again and again would fill the disk."""
    command = [sys.executable, "-c", FILL, str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert "one.parquet cannot be written: File too large" in told.stdout
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.world
def test_duckdb_reads_with_several_threads(storage: Storage) -> None:
    """Threads that read one file at once each get the bytes that they asked for."""
    sizes = {}
    for number in range(3):
        sink = pa.BufferOutputStream()
        values = pa.array(range(number * ROWS, (number + 1) * ROWS))
        pq.write_table(pa.table({"n": values, "t": values.cast(pa.string())}), sink, row_group_size=10_000)
        content = sink.getvalue().to_pybytes()
        storage.write(f"a/{number}.parquet", content)
        sizes[f"a/{number}.parquet"] = len(content)
    addresses = ", ".join(f"'{address}'" for address in storage.addresses(sizes))
    with duckdb.connect(config={"threads": 8}) as connection:
        storage.connect(connection)
        storage.connect(connection)  # a second ledger of the process

        def ask() -> tuple[int, int]:
            with connection.cursor() as cursor:
                (row,) = cursor.execute(f"SELECT sum(n), sum(t::BIGINT) FROM read_parquet([{addresses}])").fetchall()
                return row

        expected = 3 * ROWS * (3 * ROWS - 1) // 2
        assert at_once(*[ask] * 4) == [(expected, expected)] * 4


@pytest.mark.parametrize("name", ["s3://", "s3:///prefix", "s3://UPPER/x", "s3://a"])
def test_what_can_be_no_bucket_is_refused(name: str) -> None:
    """The message names the setting."""
    with pytest.raises(InvalidInput, match="KEYDESK_LEDGER_ROOT"):
        at(name)


def test_settings_name_a_folder_or_a_bucket(tmp_path: Path) -> None:
    """KEYDESK_LEDGER_ROOT is a folder, made absolute, or a bucket's address as it stands; nothing else."""
    environ = {"KEYDESK_DATA_DIR": str(tmp_path)}
    assert environment.read_settings(environ).ledger_root == tmp_path / "ledger"
    bucket = "s3://bucket/pre fix"
    for given, expected in ((f"{tmp_path}/../x", tmp_path.parent / "x"), (bucket, bucket)):
        assert environment.read_settings(environ | {"KEYDESK_LEDGER_ROOT": given}).ledger_root == expected
    with pytest.raises(InvalidInput, match="s3://BUCKET/PREFIX"):
        environment.read_settings(environ | {"KEYDESK_LEDGER_ROOT": "gs://bucket/prefix"})


def test_missing_bucket_is_named(bucket: str) -> None:
    """A misspelt bucket is told from other troubles."""
    with pytest.raises(Unavailable, match=r"keydesk-tested .*none of that name.*KEYDESK_LEDGER_ROOT"):
        at("s3://keydesk-tested/ledger").write("a/one", b"x")


@pytest.mark.world
def test_bucket_that_cannot_be_reached_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server there, the message names the setting that says where it is."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    for act in (lambda: at(f"s3://{NAME}/x").write("a", b"x"), lambda: at(f"s3://{NAME}/x").ages("a")):
        with pytest.raises(Unavailable, match=r"cannot be reached.*AWS_ENDPOINT_URL"):
            act()


def test_wrong_credentials_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses the credentials is told from one that is away."""
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # moto begins to check
    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        at(bucket).write("a/one", b"x")
