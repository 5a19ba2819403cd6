"""Copies of a SQLite key store, made before its schema changes: they lie beside it and bear the schema's version."""

import os
import re
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from toolkit.core.errors import Unavailable
from toolkit.store.file_permissions import FILE

_NAME = re.compile(r"\.schema-(\d+)\.\d{8}T\d{6}Z")


def make(store: Path, version: int, now: datetime) -> Path:
    """Copy a key store; return where the copy is, for this user alone to read.

    Args:
        store: its file. What has been committed is copied, also while others read, or one is about to write.
        version: of its schema.
        now: the moment, UTC, for the copy's name.

    Raises:
        Unavailable: there is no room for it, or the folder cannot be written to.
    """
    copy = store.with_name(f"{store.name}.schema-{version}.{now:%Y%m%dT%H%M%SZ}")
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    try:
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE))
        with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(unfinished)) as target:
            source.backup(target)
        unfinished.replace(copy)
    except (OSError, sqlite3.Error) as error:
        unfinished.unlink(missing_ok=True)
        raise Unavailable(
            f"The key store {store} has schema {version}, and no copy of it can be made before it is brought up to "
            f"date: {error}. Nothing was changed. See that its folder has room for it a second time."
        ) from error
    return copy


def newest(store: Path, version: int) -> Path | None:
    """Return the newest copy of a key store whose schema is of this version or an older one; None if there is none."""
    found = [
        (int(match[1]), path)
        for path in store.parent.iterdir()
        if path.name.startswith(store.name)
        and (match := _NAME.fullmatch(path.name.removeprefix(store.name)))
        and int(match[1]) <= version
    ]
    return max(found)[1] if found else None
