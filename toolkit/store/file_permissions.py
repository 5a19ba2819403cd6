"""Who of a machine's users may read what Keydesk writes: the one it runs as, whatever the umask.

One group more may read the ledger's segments, where `KEYDESK_DATA_GROUP` names it: its folder then belongs to that
group, and files and folders made in it follow it.
"""

import grp
import os
import stat
from contextlib import suppress
from pathlib import Path

from toolkit.core.errors import InvalidInput

FOLDER, FILE = 0o700, 0o600
SHARED_FOLDER, SHARED_FILE = 0o2750, 0o640
"""What a group reads: the folder's set-group-ID bit hands the group on to what is made in it."""

PASSAGE = 0o710
"""A folder that a group may pass through, but not list."""


def make_folder(path: Path, mode: int = FOLDER) -> None:
    """Make a folder, unless it is there; those above it get the rights that the umask leaves.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode)
        path.chmod(mode)
    except FileExistsError:
        if not path.is_dir():  # else another process was quicker
            raise


def append_to(path: Path) -> int:
    """Return a descriptor that appends to a private file, which is made if it is not there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE)
    os.fchmod(descriptor, FILE)
    return descriptor


def file_mode(folder: Path) -> int:
    """Return the rights of a file that is made in a folder: the group reads it that reads the folder."""
    return SHARED_FILE if folder.stat().st_mode & stat.S_IRGRP else FILE


def make_below(root: Path, folder: Path) -> list[Path]:
    """Make a folder below a root, and the root if need be, each with the root's rights; return those that were made."""
    missing = [path for path in (folder, *folder.parents) if path.is_relative_to(root) and not path.exists()]
    for path in reversed(missing):
        make_folder(path, FOLDER if path == root else stat.S_IMODE(root.stat().st_mode))
    return missing


def find_group(text: str) -> int:
    """Return the id of a group that is given by name or id.

    Raises:
        InvalidInput: there is none of this name.
    """
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise InvalidInput(f"KEYDESK_DATA_GROUP={text}: this machine has no group of this name.") from None


def keep(folder: Path, mode: int = FOLDER, group: int | None = None, *, but: Path | None = None) -> str | None:
    """Give a folder its rights, and what is in it those that go with them, unless it has them already.

    Args:
        folder: need not be there.
        mode: FOLDER, PASSAGE or SHARED_FOLDER.
        group: who else may pass or read.
        but: a folder below it that has rights of its own.

    Returns:
        What was changed, for the log; None if nothing was.

    Raises:
        InvalidInput: this process may not hand files to the group.
    """
    try:
        found = folder.stat()
    except OSError:
        return None
    if found.st_uid != os.geteuid():
        return None  # somebody else's, who starts Keydesk under another name
    if stat.S_IMODE(found.st_mode) == mode and group in {None, found.st_gid}:
        return None
    shared = group if mode == SHARED_FOLDER else None
    _set(folder, mode, group)  # first, since what others make in it meanwhile goes by it
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) != but]
        for path in (Path(parent, name) for name in files):
            _set(path, FILE if shared is None else SHARED_FILE, shared)
        if Path(parent) != folder:
            _set(Path(parent), FOLDER if shared is None else SHARED_FOLDER, shared)
    if group is None:
        return f"{folder} is for this user alone to read now, and all that is in it."
    if shared is None:
        return f"{folder} is for this user alone to read now; group {group} may pass through it."
    return f"{folder} is for this user and group {group} to read now, and for nobody else."


def _set(path: Path, mode: int, group: int | None) -> None:
    with suppress(FileNotFoundError):  # what a process at work has just removed
        if path.is_symlink():
            return
        try:
            if group is not None:
                os.chown(path, -1, group)
        except PermissionError:
            raise InvalidInput(
                f"KEYDESK_DATA_GROUP: {path} cannot be handed to group {group}. See that the user that Keydesk runs as "
                "is a member of it."
            ) from None
        with suppress(PermissionError):  # a file of somebody else's, in a folder that nobody else may enter now
            path.chmod(mode)
