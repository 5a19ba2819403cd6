"""What this machine's other users may read of a Keydesk: nothing, but for the ledger and one group."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ADMIN, Run
from toolkit import environment
from toolkit.core.errors import InvalidInput
from toolkit.core.settings import Settings
from toolkit.environment import write_private
from toolkit.ledger import duckdb_engine
from toolkit.ledger.storage import FolderStorage
from toolkit.store import file_permissions
from toolkit.workspace import Workspace

NOBODY = 65534
GROUP = 54321
"""A group that no user of the machine is in; only root may hand files to it."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="hands files to another group, and reads as another user")


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    """Whatever is private is so by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """Return the rights of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    """Return the rights of all that is in a folder, by relative path, and of the folder."""
    return {str(path.relative_to(folder)): mode(path) for path in (folder, *folder.rglob("*"))}


def settings_of(folder: Path, **given: str) -> Settings:
    """Return settings for a data folder."""
    return environment.read_settings({"KEYDESK_DATA_DIR": str(folder)} | given)


def segments(settings: Settings, *names: str) -> None:
    """Write files as the ledger does."""
    assert isinstance(settings.ledger_root, Path)
    for name in names:
        FolderStorage(settings.ledger_root).write(name, b"rows")


def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """Data folder, key store, pepper and segments are for one user from their first moment."""
    settings = settings_of(tmp_path / "a" / "data")
    workspace = Workspace.open(settings, ADMIN, make=True)
    workspace.keyring  # noqa: B018 - makes the pepper
    segments(settings, "usage/day=2026-11-30/1.parquet")
    found = modes(settings.data_dir)
    workspace.close()
    assert {name for name in found if name.endswith((".db", "pepper", ".parquet"))} == {
        "keydesk.db",
        "pepper",
        "ledger/usage/day=2026-11-30/1.parquet",
    }
    assert set(found.values()) == {0o600, 0o700}
    assert environment.keep_private(settings) == []


def test_an_open_installation_is_closed_with_a_line_in_the_log(tmp_path: Path) -> None:
    """Folders and files of older versions lose what others could read; links and their targets stay as they are."""
    settings = settings_of(tmp_path / "data")
    foreign = tmp_path / "foreign"
    foreign.write_text("not ours")
    foreign.chmod(0o644)
    for folder in ("logs", "ledger/usage/day=2026-11-30"):
        (settings.data_dir / folder).mkdir(parents=True)
    for file in ("logs/gateway.log", "ledger/usage/day=2026-11-30/1.parquet", "keydesk.db"):
        (settings.data_dir / file).touch()
    (settings.data_dir / "link").symlink_to(foreign)
    (line,) = environment.keep_private(settings)
    assert line == f"{settings.data_dir} is for this user alone to read now, and all that is in it."
    (settings.data_dir / "link").unlink()
    assert set(modes(settings.data_dir).values()) == {0o600, 0o700}
    assert mode(foreign) == 0o644
    assert environment.keep_private(settings) == []


def test_a_ledger_elsewhere_is_closed_too(tmp_path: Path) -> None:
    """The segments are as private where KEYDESK_LEDGER_ROOT puts them."""
    settings = settings_of(tmp_path / "data", KEYDESK_LEDGER_ROOT=str(tmp_path / "segments"))
    (tmp_path / "segments" / "usage").mkdir(parents=True)
    (tmp_path / "segments" / "usage" / "1.parquet").touch()
    assert len(environment.keep_private(settings)) == 1
    assert set(modes(tmp_path / "segments").values()) == {0o600, 0o700}


@as_root
def test_one_group_may_read_the_ledger_and_nothing_else(tmp_path: Path) -> None:
    """Segments that are there and those that come belong to it; the data folder it may only pass through."""
    settings = settings_of(tmp_path / "data", KEYDESK_DATA_GROUP=str(GROUP))
    write_private(settings.data_dir / "pepper", "secret")
    segments(settings, "usage/day=2026-11-29/1.parquet")
    assert len(environment.keep_private(settings)) == 2
    segments(settings, "usage/day=2026-11-30/2.parquet", "usage/day=2026-11-29/3.parquet")
    ledger = settings.data_dir / "ledger"
    for path in (ledger, *ledger.rglob("*")):
        assert (mode(path), path.stat().st_gid) == (0o640 if path.is_file() else 0o2750, GROUP), path
    assert (mode(settings.data_dir), settings.data_dir.stat().st_gid) == (0o710, GROUP)
    assert mode(settings.data_dir / "pepper") == 0o600
    assert environment.keep_private(settings) == []

    assert len(environment.keep_private(settings_of(tmp_path / "data"))) == 1
    assert mode(ledger / "usage/day=2026-11-30/2.parquet") == 0o600


@pytest.mark.world
@as_root
def test_a_reader_in_the_group_is_told_what_it_takes(tmp_path: Path) -> None:
    """It reads segments with any tool; `toolkit.open()`, which needs the key store, says so in a sentence."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        settings = settings_of(Path(folder) / "data", KEYDESK_DATA_GROUP=str(GROUP))
        Workspace.open(settings, ADMIN, make=True).close()
        segments(settings, "usage/1.parquet")
        environment.keep_private(settings)
        assert read_as_nobody(settings, "pathlib.Path(settings.ledger_root, 'usage/1.parquet').read_bytes()") == "rows"
        told = read_as_nobody(settings, "toolkit.open()")
        assert "is not for this user to read or make" in told
        assert "KEYDESK_DATA_GROUP" in told
        (settings.data_dir / "ledger").chmod(0o700)
        settings.data_dir.chmod(0o700)
        assert "is not for this user to read or make" in read_as_nobody(settings, "toolkit.open()")


def read_as_nobody(settings: Settings, expression: str) -> str:
    """Return what an expression gives, or the error it ends in, for a user who is in the group alone."""
    script = f"""
import os, pathlib, toolkit, toolkit.workspace, toolkit.store.migrations
from toolkit.core.errors import KeydeskError
from toolkit import environment
settings = environment.read_settings()
os.setgroups([]); os.setgid({GROUP}); os.setuid({NOBODY})
try:
    found = {expression}
    print(found.decode() if isinstance(found, bytes) else found)
except KeydeskError as error:
    print(error)
"""
    env = os.environ | {"KEYDESK_DATA_DIR": str(settings.data_dir), "KEYDESK_STORE_URL": settings.store_url}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout.strip()


def test_a_group_must_be_one(tmp_path: Path) -> None:
    """A name that the machine does not know is said, and so is a group that would read more than the ledger."""
    with pytest.raises(InvalidInput, match="KEYDESK_DATA_GROUP=no-such-group"):
        environment.keep_private(settings_of(tmp_path / "data", KEYDESK_DATA_GROUP="no-such-group"))
    whole = {"KEYDESK_DATA_GROUP": str(os.getgid()), "KEYDESK_LEDGER_ROOT": str(tmp_path / "data")}
    with pytest.raises(InvalidInput, match="whole data folder"):
        environment.keep_private(settings_of(tmp_path / "data", **whole))


def test_a_key_store_that_others_may_read_is_a_warning(workspace: Workspace, run: Run) -> None:
    """Each start says so, with the command that mends it."""
    path = workspace.settings.data_dir / "keydesk.db"
    environment.keep_private(workspace.settings)
    path.chmod(0o640)
    result = run("ledger", "sync")
    assert result.exit_code == 0
    assert f"Others may read the key store {path}. Run: chmod 600 {path}" in result.stderr
    path.chmod(0o600)
    assert run("ledger", "sync").stderr == ""


def test_what_queries_spill_is_private() -> None:
    """Rows that a large query writes to the disk are in a folder for this user alone."""
    with duckdb_engine.engine() as connection:
        (folder,) = connection.execute("SELECT current_setting('temp_directory')").fetchone() or ("",)
    assert mode(Path(folder)) == 0o700


def test_nobody_elses_folder_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command under another name leaves the service's folders as they are."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert file_permissions.keep(folder) is None
    assert mode(folder) == 0o755
