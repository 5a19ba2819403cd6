"""Reads large request bodies and answers in a process of its own, so that the gateway's loop goes on meanwhile.

A thread would not do: `json.loads` keeps the interpreter's lock from its first byte to its last. The process is given
no secret and no store; it knows the dialects and what stands in the bytes that it gets.

Both sides talk over one socket, the process's standard input, in frames: eight bytes that tell the length of what
follows, a pickle. A frame may announce bytes that follow it (`Ask.size`, `Told.size`). Each question gets one answer;
a body that was inspected is kept until it has been rewritten or is to be forgotten.
"""

import os
import pickle
import signal
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from toolkit.core import tags
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.dialects import MODULES
from toolkit.dialects.additions import paths_added
from toolkit.dialects.body import MAX_NUMBERS, MAX_VALUES, dump_object, parse_object
from toolkit.dialects.shape import EMBEDDING_ENDPOINTS, Shape
from toolkit.dialects.skim import skim, stand_in
from toolkit.gateway.memory import free_large_pieces_at_once
from toolkit.gateway.processes import end_with

LENGTH = struct.Struct("!Q")

CPU_LIMIT = 10.0
"""Seconds of its own CPU time that one question may take; the largest body takes about one."""

LARGEST = 300 * 1024 * 1024
"""Bytes of resident memory with which a process takes another question."""

Headers = list[tuple[bytes, bytes]]

_TAGS = tags.SESSION_HEADERS | {tags.HEADER}


@dataclass(slots=True)
class Reading:
    """What a gateway needs to know of a request body.

    Args:
        body: the parsed body, for `rewrite`.
        tags: as `tags.read` gives them.
    """

    body: dict[str, Any]
    shape: Shape
    tags: str | None


def read_request(dialect: Dialect, endpoint: str, model: str | None, headers: Headers, raw: bytes) -> Reading:
    """Read a request body.

    Args:
        dialect, endpoint, model: as the path says.
        headers: of the request; tags stand there, too.
        raw: the body as it came.

    Raises:
        Refusal: it cannot be read, metered, or kept apart from other tenants.
    """
    body = parse_object(raw, MAX_NUMBERS if endpoint in EMBEDDING_ENDPOINTS else MAX_VALUES)
    body, left_out = MODULES[dialect].without_hosted_tools(endpoint, body)
    try:
        shape = MODULES[dialect].inspect(endpoint, body, len(raw), model)
    except Refusal:
        body, said_as_text = MODULES[dialect].with_hosted_items_as_text(endpoint, body)
        if not said_as_text:
            raise
        left_out += said_as_text
        shape = MODULES[dialect].inspect(endpoint, body, len(dump_object(body)), model)
    shape.left_out = left_out
    return Reading(body, shape, tags.read(dialect, body, headers))


def rewrite_request(
    dialect: Dialect, endpoint: str, body: dict[str, Any], *, left_out: bool, **changes: Any
) -> dict[str, Any] | None:
    """Return the body to forward, or None if it can go on as it came.

    Args:
        dialect, endpoint: as the path says.
        body: as `read_request` read it.
        left_out: whether something was left out of it then.
        changes: as the dialect's `rewrite` takes them.
    """
    return MODULES[dialect].rewrite(endpoint, body, **changes) or (body if left_out else None)


def fields_added(dialect: Dialect, endpoint: str, body: dict[str, Any], **changes: Any) -> set[str]:
    """Return the paths of what a body is given on its way, as `paths_added` has them.

    Args:
        dialect, endpoint, body, changes: as `rewrite_request` takes them.
    """
    return paths_added(body, MODULES[dialect].rewrite(endpoint, body, **changes) or body)


def is_public(header: bytes) -> bool:
    """Whether a header may be shown to the process that reads: none that may hold a credential."""
    return header in _TAGS or header == b"openai-beta" or header.startswith(b"anthropic-")


@dataclass(slots=True)
class Ask:
    """A question.

    Args:
        what: the name of a method of `_Reader`.
        arguments: its own.
        size: bytes that follow.
    """

    what: str
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int = 0


@dataclass(slots=True)
class Told:
    """An answer.

    Args:
        value: what was asked for.
        refusal: or why there is none: the arguments of a `Refusal`.
        size: bytes that follow.
        last: whether the process has grown so large that another one should take the next question.
    """

    value: Any = None
    refusal: dict[str, Any] | None = None
    size: int = 0
    last: bool = False


class _Reader:
    """What the process can be asked; each method gets the bytes that followed its question."""

    def __init__(self) -> None:
        self._kept: tuple[Dialect, str, dict[str, Any], bool] | None = None

    @property
    def is_free(self) -> bool:
        """Whether no body is kept."""
        return self._kept is None

    def inspect(
        self, raw: bytes, *, dialect: Dialect, endpoint: str, model: str | None, headers: Headers
    ) -> tuple[Any, bytes]:
        """Return shape and tags of a request body, and keep it."""
        reading = read_request(dialect, endpoint, model, headers, raw)
        self._kept = dialect, endpoint, reading.body, bool(reading.shape.left_out)
        return (reading.shape, reading.tags), b""

    def rewrite(self, _: bytes, **arguments: Any) -> tuple[Any, bytes]:
        """Return whether policy changes the body that is kept, and the changed one; forget it."""
        assert self._kept is not None  # noqa: S101 - asked after `inspect`
        (dialect, endpoint, body, left_out), self._kept = self._kept, None
        changed = rewrite_request(dialect, endpoint, body, left_out=left_out, **arguments)
        return changed is not None, b"" if changed is None else dump_object(changed)

    def fields_added(self, _: bytes, **arguments: Any) -> tuple[Any, bytes]:
        """Return the paths of what policy adds to the body that is kept; keep it."""
        assert self._kept is not None  # noqa: S101 - asked after `inspect`
        dialect, endpoint, body, _left_out = self._kept
        return fields_added(dialect, endpoint, body, **arguments), b""

    def forget(self, _: bytes) -> tuple[Any, bytes]:
        """Forget the body that is kept."""
        self._kept = None
        return None, b""

    def skim(self, raw: bytes) -> tuple[Any, bytes]:
        """Return a JSON object without what is long in it, and how many bytes that is."""
        return skim(raw), b""

    def stand_in(self, raw: bytes, *, sse: bool) -> tuple[Any, bytes]:
        """Return a short piece of a stream that says the same as a long one, and how many bytes of text it lacks."""
        return stand_in(raw, sse=sse), b""


def _answer(reader: _Reader, ask: Ask, raw: bytes) -> tuple[Told, bytes]:
    # Whoever takes longer is ended by the kernel; the timer counts the time that this process computes.
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT)
    try:
        value, more = getattr(reader, ask.what)(raw, **ask.arguments)
        return Told(value, size=len(more)), more
    except Refusal as refusal:
        said = {name: getattr(refusal, name) for name in ("type", "message", "param", "details", "headers")}
        return Told(refusal=said), b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _resident() -> int:
    """Return this process's resident memory in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _serve(asked: IO[bytes], told: socket.socket) -> None:
    """Answer questions until there are no more."""
    reader = _Reader()
    while head := asked.read(LENGTH.size):
        ask: Ask = pickle.loads(asked.read(LENGTH.unpack(head)[0]))  # noqa: S301 - by the gateway
        answer, more = _answer(reader, ask, asked.read(ask.size))
        answer.last = reader.is_free and _resident() - len(more) > LARGEST
        frame = pickle.dumps(answer)
        told.sendall(LENGTH.pack(len(frame)) + frame)
        told.sendall(more)


def main(parent: int) -> None:
    """Serve the gateway that started this process, on standard input; end with it."""
    end_with(parent, signal.SIGKILL)()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which lets calls finish
    free_large_pieces_at_once()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # should memory run out: this process, not the gateway
    with socket.socket(fileno=os.dup(0)) as wire, open(0, "rb", 1 << 18) as asked:
        _serve(asked, wire)
