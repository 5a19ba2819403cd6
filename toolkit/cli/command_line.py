"""Commands that Keydesk prints to be pasted: they must run this installation, on this data folder."""

import re
import shlex
import shutil
import sys
from pathlib import Path

from toolkit import environment
from toolkit.core.errors import KeydeskError

_COMMAND = re.compile(r"(?<![\w/.-])keydesk(?= [a-z])")
"""Prose writes Keydesk, so what is in lower case and has a word behind it is a command."""


def keydesk() -> str:
    """Return what runs this `keydesk`: its name where a shell finds it by that, else its place as seen from here."""
    mine = Path(sys.executable).with_name("keydesk")
    found = shutil.which("keydesk")
    if not mine.exists() or (found and Path(found).resolve() == mine.resolve()):
        return "keydesk"
    return shlex.quote(str(short(mine)))


def short(path: Path) -> Path:
    """Return a path as one would type it from the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def to_paste(words: str) -> str:
    """Return words whose commands can be pasted: they carry the data folder, unless any shell finds it by itself."""
    command = keydesk()
    try:
        settings = environment.read_settings()
    except KeydeskError:  # of which these words may be the report
        return words
    if not environment.found_anywhere(settings):
        command = f"KEYDESK_DATA_DIR={shlex.quote(str(settings.data_dir))} {command}"
    return _COMMAND.sub(lambda _: command, words)
