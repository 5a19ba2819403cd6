"""Read the short values (usage, ids, reasons) of JSON that is too large to be parsed as a whole. Pure.

What a provider sends is input from outside, too. A long string becomes an empty one, and of a long array or object the
first items are kept; what is left out is passed over without building anything.
"""

import json
import re
from typing import Any

from toolkit.dialects.body import MAX_DEPTH, count_values
from toolkit.dialects.sse import data_of, element_of, name_of

LONGEST_STRING = 1_024
"""Bytes of a string that is kept."""

MOST_ITEMS = 128
"""Items of an array or object that are kept; as many as there may be choices."""

MOST_TOKENS = 20_000
"""Strings, brackets and commas after which only the outer two levels are kept, and what is named as usage is."""

MOST_NAMED = 64
"""Objects that are kept all the same, deeper than that, because they are named as usage is."""

_MOST_STEPS = 4_000_000
"""Tokens looked at one by one; a text with more of them is an attack."""

ALWAYS_LIGHT, LIGHT_SIZE, LIGHT_VALUES = 32 * 1024, 512 * 1024, 8_000
"""Bytes of a JSON text that is read at once whatever it holds; bytes and values of one that is light all the same."""

_STRING = rb'"(?>[^"\\]++|\\.)*+"'
_TOKEN = re.compile(_STRING + rb'|[{}\[\],]|"', re.DOTALL)


def _balanced(levels: int) -> bytes:
    """Return the pattern of a bracket's content, with so many levels of brackets in it.

    What is repeated is an atomic group: before Python 3.11.5 a possessive repetition that failed half-way was counted
    as far as it had come (python/cpython, issue 106052).
    """
    flat = rb'[^"{}\[\]]++|' + _STRING
    if levels:
        inner = _balanced(levels - 1)
        flat += rb"|\[" + inner + rb"\]|\{" + inner + rb"\}"
    return rb"(?>" + flat + rb")*+"


# What stands before an object that may report usage: it comes last, behind all that is long.
_USAGE = re.compile(rb'"(?:usage|usageMetadata|cache_creation|\w{1,32}_details)"\s{0,8}:\s{0,8}\Z')
_LONGEST_BEFORE = 64
_DEEPEST_USAGE = 4  # response.usage.input_tokens_details

# Passes over what is not kept by the thousand brackets: each by itself would take half a microsecond.
_SKIPPED = re.compile(_balanced(3), re.DOTALL)
_REST = re.compile(rb"\s*+\Z")

_LONGEST_NUMBER = 300
"""Digits of a whole number that is read as one; Python reads no more than 4,300."""


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else float(digits)


_DECODER = json.JSONDecoder(parse_int=_whole)


def is_light(text: bytes) -> bool:
    """Whether reading a JSON text takes a few milliseconds at most."""
    size = len(text)
    return size <= ALWAYS_LIGHT or (size <= LIGHT_SIZE and count_values(text) <= LIGHT_VALUES)


def skim(text: bytes) -> tuple[dict[str, Any] | None, int]:
    """Return a JSON object without what is long in it, and how many bytes were left out.

    None if it is no object or ends too early. What is left out, such as what is nested deeply, is not checked.
    """
    kept: list[bytes] = []
    items: list[int] = []  # of each open array and object
    left_out = tokens = named = start = position = 0
    skipping = 0  # how many levels were open where it began; 0: nothing is skipped
    while match := _TOKEN.search(text, _SKIPPED.match(text, position).end() if skipping else position):  # type: ignore[union-attr]
        begin, position = match.span()
        token = text[begin]
        tokens += 1
        if token == 34:  # a quote
            if position - begin == 1:
                return None, 0  # it has no end
            if not skipping and position - begin > LONGEST_STRING:
                kept += [text[start:begin], b'""']
                left_out += position - begin
                start = position
        elif token in b"{[":
            items.append(0)
            if skipping or (len(items) <= MAX_DEPTH and (tokens <= MOST_TOKENS or len(items) <= 2)):
                continue
            reports = len(items) <= _DEEPEST_USAGE and _USAGE.search(text, max(begin - _LONGEST_BEFORE, 0), begin)
            if reports and named < MOST_NAMED:
                named += 1
                continue
            kept.append(text[start:position])
            skipping, start = len(items), position
        elif token in b"}]":
            if skipping == len(items):
                left_out += begin - start
                skipping, start = 0, begin
            if items:
                items.pop()
            if not items:
                break
        elif items and not skipping:
            items[-1] += 1
            if items[-1] >= MOST_ITEMS:
                kept.append(text[start:begin])
                skipping, start = len(items), begin
        if not items or tokens > _MOST_STEPS:
            return None, 0
    if items or _REST.match(text, position) is None:
        return None, 0
    kept.append(text[start:position])
    try:
        value = _DECODER.decode(b"".join(kept).decode(errors="replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None, 0
    return (value, left_out) if isinstance(value, dict) else (None, 0)


def stand_in(piece: bytes, *, sse: bool) -> tuple[bytes, int]:
    """Return a piece of a stream that says the same as a long one in short, and how many bytes it leaves out.

    Args:
        piece: as the splitters of `sse` give it.
        sse: whether it is a server-sent event; else it is an element of an array.
    """
    value, left_out = skim((data_of(piece) if sse else element_of(piece)) or b"")
    data = b"" if value is None else json.dumps(value).encode()
    if not sse:
        return data or b"0", left_out
    name = name_of(piece)
    return (b"" if name is None else b"event: " + name[:LONGEST_STRING] + b"\n") + b"data: " + data + b"\n\n", left_out
