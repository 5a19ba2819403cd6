"""Cut a streamed answer into whole events without changing a byte of it.

Two framings: server-sent events (WHATWG HTML, "Server-sent events") and a JSON array sent element by element,
which is what Gemini sends when `alt=sse` is not asked for.
"""

import re
from enum import Enum, auto

MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one event; more than any provider sends, and little enough to keep in memory."""

# The groups are atomic: without that, "\r\n" alone would match as "\r" followed by "\n". After a line that ended
# in "\n", a "\r" at the end of what has come is taken for the first half of "\r\n".
_BLANK_LINE = re.compile(rb"(?>\r\n|\n)(?>\r\n|\n|\r(?!\Z))|\r(?>\r\n|\r)")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_LONGEST_BLANK_LINE = 4

_NAME = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\r\n])event:[ ]?+([^\r\n]*+)")

# The group is empty in a string that has no end yet.
_REST_OF_STRING = re.compile(rb'(?>[^"\\]++|\\.)*+("?)', re.DOTALL)
_TOKEN = re.compile(rb'"(?>[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)


BOM = b"\xef\xbb\xbf"
"""May stand before the first event; WHATWG HTML, "Parsing an event stream"."""

_BEFORE_ELEMENT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+\[?[ \t\r\n]*+,?[ \t\r\n]*+")

_FIELD = re.compile(rb"(?:data|event|id|retry)(?:[:\r\n]|\Z)|:")
_FIELDS = (b"data", b"event", b"id", b"retry")


class Framing(Enum):
    """What a body is by how it begins, whatever its content type says."""

    EVENTS = auto()
    ARRAY = auto()
    OBJECT = auto()


def framing_of(beginning: bytes) -> Framing | None:
    """Return what a body is; None if its beginning is nothing that a provider answers, or has not come yet."""
    text = beginning.removeprefix(BOM).lstrip()
    if text[:1] == b"{":
        return Framing.OBJECT
    if text[:1] == b"[":
        return Framing.ARRAY
    if _FIELD.match(text) or (text and any(field.startswith(text) for field in _FIELDS)):
        return Framing.EVENTS
    return None


def has_begun(beginning: bytes) -> bool:
    """Whether `framing_of` can tell by what has come."""
    text = beginning.lstrip()
    return bool(text.removeprefix(BOM).lstrip()) and not BOM.startswith(text)


class EventSplitter:
    """Whole server-sent events from chunks of any size.

    Empty lines before an event belong to it, so that nothing is lost and no event is empty.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._scanned = 0
        self._at_ends = True
        """Whether nothing but line ends has come of the next event."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that this chunk completes, each with the empty line that ends it.

        Raises:
            ValueError: an event is longer than `MAX_EVENT`.
        """
        pending = self._pending
        if not pending and _is_one_event(chunk):
            return [chunk]
        data: bytes | bytearray = chunk
        if pending:
            pending += chunk
            data = pending
        events: list[bytes] = []
        start = 0
        position = self._scanned
        while start < len(data):
            if self._at_ends:
                ends = _past_line_ends(data, max(start, position))
                position = max(position, ends)
                self._at_ends = ends == len(data)
            end = _past_blank_line(data, position)
            if end < 0:
                break
            events.append(_cut(data, start, end))
            start = position = end
            self._at_ends = True
        if data is pending:
            del pending[:start]
        elif start < len(chunk):
            pending += chunk[start:]
        # What was searched need not be searched again, except that it may end in part of an empty line.
        self._scanned = max(len(pending) - _LONGEST_BLANK_LINE + 1, position - start)
        if len(pending) > MAX_EVENT:
            raise ValueError("an event of the stream is longer than 16 MiB")
        return events

    def rest(self) -> bytes:
        """Return what has come of an event that is not finished."""
        return bytes(self._pending)


def data_of(event: bytes) -> bytes | None:
    """Return an event's data, its lines joined by newlines; None if it has none."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in event.removeprefix(BOM).splitlines() if line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None


def name_of(event: bytes) -> bytes | None:
    """Return an event's name; None if it has none."""
    match = _NAME.search(event)
    return match.group(1) if match else None


class ArraySplitter:
    """The elements of a streamed JSON array of objects, from chunks of any size.

    A piece ends with a whole element and starts with what stood before it, `[` or `,`; the closing `]` is a
    piece of its own.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the pieces that this chunk completes.

        Raises:
            ValueError: an element is longer than `MAX_EVENT`.
        """
        pending = self._pending
        pending += chunk
        if len(pending) > MAX_EVENT + len(chunk):
            raise ValueError("an element of the stream is longer than 16 MiB")
        new = bytes(memoryview(pending)[self._scanned :])  # each byte is looked at once
        position = 0
        if self._in_string:
            rest = _REST_OF_STRING.match(new)
            position = rest.end() if rest else 0
            self._in_string = not (rest and rest.group(1))
        pieces: list[bytes] = []
        start = 0
        seen = position
        for match in () if self._in_string else _TOKEN.finditer(new, position):
            token = match.group()[:1]
            if token == b'"':
                if not match.group(1):
                    self._in_string = True
                    seen = match.end()
            elif token in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 1:
                    end = self._scanned + match.end()
                    pieces.append(_cut(pending, start, end))
                    start = end
        self._scanned += seen if self._in_string else len(new)
        del pending[:start]
        self._scanned -= start
        return pieces

    def rest(self) -> bytes:
        """Return what has come of an element that is not finished."""
        return bytes(self._pending)


def element_of(piece: bytes) -> bytes:
    """Return the element of a piece, without what stood before it; empty for the closing bracket.

    Before it stood the array's own bracket, or a comma: what brackets follow are the element's.
    """
    element = piece[_BEFORE_ELEMENT.match(piece).end() :].rstrip()  # type: ignore[union-attr]  # it may match nothing
    return b"" if element == b"]" else element


def _cut(data: bytes | bytearray, start: int, end: int) -> bytes:
    with memoryview(data) as view:  # copied once: it may be large
        return bytes(view[start:end])


# Most chunks are just this, and regular expressions cost several times as much.
def _is_one_event(chunk: bytes) -> bool:
    size = len(chunk)
    return chunk.find(b"\n\n") == size - 2 and size > 2 and chunk[0] != 10 and b"\r" not in chunk


def _past_line_ends(data: bytes | bytearray, start: int) -> int:
    match = _LINE_ENDS.match(data, start)
    return match.end() if match else start


# A match keeps a bytearray from being resized, so none may outlive the search.
def _past_blank_line(data: bytes | bytearray, start: int) -> int:
    match = _BLANK_LINE.search(data, start)
    return match.end() if match else -1
