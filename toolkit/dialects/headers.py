"""Headers: which of a caller's go on to the provider, and what their values ask for. Pure.

The rows stand with the body's: `HEADERS` and `BETAS` of each dialect's file. A known header goes on unless its row says
that it never does; of the unknown those go on that begin as the provider's own do, unless unknown fields are left out.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from toolkit.core.dialect import Dialect
from toolkit.dialects import anthropic_fields, gemini_fields, openai_fields
from toolkit.dialects.fields import MOST_UNKNOWN, Field, undated
from toolkit.dialects.shape import Window

ALWAYS = frozenset({b"accept", b"user-agent"})
"""Headers that go on whatever the dialect."""

KNOWN: Mapping[Dialect, Mapping[str, Field]] = {
    Dialect.OPENAI: openai_fields.HEADERS,
    Dialect.ANTHROPIC: anthropic_fields.HEADERS,
    Dialect.GEMINI: gemini_fields.HEADERS,
}
BETAS: Mapping[str, Mapping[str, Field]] = {
    "anthropic-beta": anthropic_fields.BETAS,
    "openai-beta": openai_fields.BETAS,
}
"""Headers that are lists of values, with the rows of the values."""

_PREFIX = {Dialect.OPENAI: b"openai-", Dialect.ANTHROPIC: b"anthropic-", Dialect.GEMINI: b"x-goog-"}
_ONWARD = {
    dialect: ALWAYS.union(
        name.encode()
        for name, row in rows.items()
        if not row.dropped and not name.encode().startswith(_PREFIX[dialect])
    )
    for dialect, rows in KNOWN.items()
}
"""What goes on as it is: a row that begins otherwise than the dialect's own headers is read nowhere else."""

_UNKNOWN_GO_ON = frozenset({Dialect.OPENAI, Dialect.ANTHROPIC})
_LONGEST_REMEMBERED = 1_000


class Betas(NamedTuple):
    """What a list of betas asks for.

    Args:
        unknown: those that no table has, in their order.
        known: the list without them, as a header has it.
        window: the largest context window that one of them opens, where one does.
    """

    unknown: tuple[str, ...]
    known: str
    window: Window | None


class Onward(NamedTuple):
    """A caller's headers that go on.

    Args:
        headers: as they go on where unknown fields pass.
        unknown: names of unknown headers and betas, the latter as `anthropic-beta=NAME`.
        known: as they go on where unknown fields are left out.
        window: the context window that a beta opens, where one does.
    """

    headers: dict[str, str]
    unknown: tuple[str, ...]
    known: dict[str, str]
    window: Window | None


def read(dialect: Dialect, headers: Iterable[tuple[bytes, bytes]]) -> Onward:
    """Return the headers of a request that go on to an upstream of this dialect.

    Args:
        dialect: of the path that was called.
        headers: names in lower case.
    """
    onward: dict[str, str] = {}
    own: list[tuple[bytes, bytes]] = []
    size, prefix, always = 0, _PREFIX[dialect], _ONWARD[dialect]
    for name, value in headers:
        if name in always:
            _join(onward, name, value)
        elif name.startswith(prefix):
            own.append((name, value))
            size += len(name) + len(value)
    if not own:
        return Onward(onward, (), onward, None)
    # A client sends the same with each of its calls.
    judged = (_remembered if size <= _LONGEST_REMEMBERED else _judged)(dialect, tuple(own))
    passed = {**onward, **judged.headers}
    known = {**onward, **judged.known} if judged.unknown else passed
    return Onward(passed, judged.unknown, known, judged.window)


def _join(joined: dict[str, str], name: bytes, value: bytes) -> None:
    known, text = name.decode("latin-1"), value.decode("latin-1")
    joined[known] = f"{joined[known]}, {text}" if known in joined else text


def _judged(dialect: Dialect, own: tuple[tuple[bytes, bytes], ...]) -> Onward:
    joined: dict[str, str] = {}
    for name, value in own:
        _join(joined, name, value)
    passed: dict[str, str] = {}
    known: dict[str, str] = {}
    unknown: list[str] = []
    window: Window | None = None
    for header, text in joined.items():
        row = KNOWN[dialect].get(header)
        if row is None:
            if dialect in _UNKNOWN_GO_ON:
                unknown.append(header)
                passed[header] = text
        elif not row.dropped:
            passed[header] = known[header] = text
            if header in BETAS:
                betas = read_betas(header, text)
                unknown += [f"{header}={beta}" for beta in betas.unknown]
                window = betas.window or window
                known[header] = betas.known
                if not betas.known:
                    del known[header]
    return Onward(passed, tuple(unknown[:MOST_UNKNOWN]), known, window)


_remembered = lru_cache(maxsize=256)(_judged)


def read_betas(header: str, text: str) -> Betas:
    """Return what the values of a header ask for.

    Args:
        header: a name in `BETAS`.
        text: its values, with commas between them.
    """
    rows = BETAS[header]
    unknown: dict[str, None] = {}
    known: list[str] = []
    window: Window | None = None
    for value in filter(None, map(str.strip, text.split(","))):
        row = rows.get(value.lower()) or rows.get(undated(value.lower()))
        if row is None:
            unknown[value] = None
            continue
        known.append(value)
        if row.window > (window.tokens if window else 0):
            window = Window(row.window, f"{header}: {value}")
    return Betas(tuple(unknown), ",".join(known), window)
