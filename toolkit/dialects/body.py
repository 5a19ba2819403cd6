"""Read request bodies, which come from strangers: JSON, within bounds, with errors that name the field.

Two parsers must never disagree about a body that is judged by one and charged by the other, so what JSON
leaves open (a key given twice, a byte order mark, NaN, numbers of a thousand digits) is refused.
"""

import json
import re
from collections.abc import Mapping
from math import isinf
from typing import Any, NoReturn

from toolkit.core.errors import Refusal, RefusalType

MAX_DEPTH = 128
"""Levels of nesting; protocol buffers stop at 100, and no JSON schema that a model follows is deeper."""

MAX_VALUES = 500_000
"""Values of one body: each costs fifty to a few hundred bytes of memory once it is read, whatever it says."""

MAX_NUMBERS = 2_048 * 8_192
"""Values of an embedding request, whose inputs may be token ids: 2,048 inputs of 8,192 tokens; OpenAI, "Create
embeddings". What is no number is bounded by `MAX_VALUES` there, too."""

MAX_NAMES = 10_000
"""Names in one object; the largest that a request has, a schema's properties, has a few thousand."""

MAX_OUTPUT_BOUND = 10_000_000
"""Output tokens; ten times the largest context window on offer, so a larger bound is a mistake."""

MAX_INPUTS = 2_048
"""Inputs of one embedding request; OpenAI, "Create embeddings"."""

MAX_MODEL_LENGTH = 256

_ONE_WORD = re.compile(r"[\w.:/+-]{0,40}")

# Possessive: a string is passed over once, whatever it holds, and one that has no end is not tried again.
_STRING_OR_NOT = re.compile(rb'"(?>[^"\\]++|\\.)*+"?|[^"]++', re.DOTALL)


def invalid(message: str, param: str | None = None) -> Refusal:
    """Return the refusal of a malformed request; the message names the field and what is right."""
    return Refusal(RefusalType.INVALID_REQUEST, _encodable(message), param=param and _encodable(param))


def unsupported(param: str, reason: str) -> Refusal:
    """Return the refusal of a feature that cannot be metered or kept apart from other tenants."""
    param = _encodable(param)
    return Refusal(RefusalType.UNSUPPORTED_FEATURE, f"'{param}' is not supported here: {reason}", param=param)


def _encodable(text: str) -> str:
    # JSON can escape half of a surrogate pair in a field's name; neither an answer nor a log could hold it.
    return text.encode("utf-8", "replace").decode()


def shown(value: object) -> str:
    """Return a value as an error message may show it: messages are logged, so it is never words of a prompt."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str) and _ONE_WORD.fullmatch(value) is None:
        return "a string"
    return quoted(value)


def quoted(value: object) -> str:
    """Return a field's name, a number or a word as JSON, cut to 40 characters."""
    text = json.dumps(value[:40] if isinstance(value, str) else value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def path(where: str, name: str) -> str:
    """Return the dotted path of a field below `where`."""
    return f"{where}.{name}" if where else name


def parse_object(body: bytes, most_values: int = MAX_VALUES) -> dict[str, Any]:
    """Parse a request body that must be one JSON object.

    Args:
        body: as it came.
        most_values: values that it may have, numbers and all.

    Raises:
        Refusal: `invalid_request` for an empty body, bytes that are not UTF-8, a byte order mark, anything
            that is not JSON or not an object, a key given twice in any object (compared after decoding
            escapes), NaN and infinities, numbers too large to read, nesting beyond `MAX_DEPTH`, more than
            `MAX_NAMES` names in an object, and more than `most_values` values.
    """
    if not body:
        raise invalid("The request body is empty; send a JSON object.")
    if len(body) > 2 * MAX_VALUES and _has_more_values(body, most_values):  # a value and its comma are two bytes
        raise invalid(f"The request body has more than {most_values:,} values. Send less in one request.")
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise invalid(f"The request body is not UTF-8: byte {error.start} is not valid.") from None
    except json.JSONDecodeError as error:
        if body.startswith(b"\xef\xbb\xbf"):
            raise invalid("The request body starts with a byte order mark; send UTF-8 without one.") from None
        raise invalid(
            f"The request body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # int() refuses more digits than `sys.get_int_max_str_digits()`
        raise invalid("The request body holds a number that is too large.") from None
    if not isinstance(value, dict):
        raise invalid(f"The request body must be a JSON object, not {shown(value)}.")
    # Brackets in strings are counted too, which only means that depth is then measured for nothing.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise _too_deep()
    return value


def dump_object(value: Mapping[str, Any]) -> bytes:
    """Serialise a body that policy changed, as compact UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair has no UTF-8, but JSON can escape it
        return json.dumps(value, separators=(",", ":")).encode()


def count_values(body: bytes) -> int:
    """Return how many values a JSON text can have at most, without reading it: commas inside strings count, too."""
    return 1 + body.count(b",") + body.count(b"[") + body.count(b"{")


def _has_more_values(body: bytes, most: int) -> bool:
    """Tell it before anything is built: values cost many times the bytes that they are written in."""
    if count_values(body) <= min(most, MAX_VALUES):
        return False
    values, no_numbers = 1, 0
    for match in _STRING_OR_NOT.finditer(body):
        start, end = match.span()
        if body[start] == 34:  # a quote
            no_numbers += 1
            continue
        opened = body.count(b"[", start, end) + body.count(b"{", start, end)
        empty = body.count(b"[]", start, end) + body.count(b"{}", start, end)
        values += opened - empty + body.count(b",", start, end)
        no_numbers += opened
        if values > most or no_numbers > 2 * MAX_VALUES:  # strings are names or values
            return True
    return False


def text_bytes(value: object) -> int:
    """Return the UTF-8 length of all strings in a value, names left out; a number counts as one byte."""
    total = 0
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item) if item.isascii() else len(item.encode("utf-8", "surrogatepass"))
        elif isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, list):
            rest += item
        else:
            total += 1
    return total


def check_inputs(count: int, where: str) -> None:
    """Refuse more inputs than an embedding request may have."""
    if count > MAX_INPUTS:
        raise invalid(f"'{where}' has {count:,} inputs; one request may have {MAX_INPUTS:,}. Send several.", where)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_NAMES:
        raise invalid(f"An object in the request body has more than {MAX_NAMES:,} names. Send fewer.")
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise invalid(f"The key {quoted(twice)} is given twice in the same object.", twice[:64])
    return found


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise invalid(f"The request body holds a number that is too large: {text[:40]}.")
    return number


def _no_constant(name: str) -> NoReturn:
    raise invalid(f"The request body holds {name}, which JSON does not have.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def _too_deep() -> Refusal:
    return invalid(f"The request body is nested deeper than {MAX_DEPTH} levels.")


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def read_text(obj: Mapping[str, Any], name: str, where: str = "") -> str:
    """Return a string that must be there, not be empty and be printable, e.g. a model id."""
    value = obj.get(name)
    if not isinstance(value, str):
        raise _wrong(obj, name, where, "a string")
    if not 0 < len(value) <= MAX_MODEL_LENGTH or not value.isprintable():
        raise invalid(f"'{path(where, name)}' must be 1 to {MAX_MODEL_LENGTH} printable characters.", path(where, name))
    return value


def read_count(obj: Mapping[str, Any], name: str, low: int, high: int, where: str = "") -> int | None:
    """Return an integer from `low` to `high`, or None where the field is absent or null."""
    value = obj.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise _wrong(obj, name, where, f"an integer from {low} to {high}")
    return value


def read_flag(obj: Mapping[str, Any], name: str, where: str = "") -> bool:
    """Return a boolean; False where the field is absent or null."""
    value = obj.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _wrong(obj, name, where, "true or false")


def read_kind(obj: Mapping[str, Any], where: str) -> str:
    """Return the `type` that tells what an object is; empty where it has none."""
    value = obj.get("type")
    if value is None or isinstance(value, str):
        return value or ""
    raise _wrong(obj, "type", where, "a string")


def read_object(obj: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any]:
    """Return an object; an empty one where the field is absent or null."""
    value = obj.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(obj, name, where, "an object")
    return value


def read_objects(obj: Mapping[str, Any], name: str, where: str = "") -> list[dict[str, Any]]:
    """Return an array of objects; an empty one where the field is absent or null."""
    value = obj.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(obj, name, where, "an array")
    return check_objects(value, path(where, name))


def read_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a chat.

    Raises:
        Refusal: there are none, or one is no object.
    """
    messages = read_objects(body, "messages")
    if not messages:
        raise invalid("'messages' must be an array with at least one message.", "messages")
    return messages


def check_objects(values: list[Any], where: str) -> list[dict[str, Any]]:
    """Return an array as it is, each item of which must be an object."""
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise invalid(f"'{where}[{index}]' must be an object, not {shown(value)}.", f"{where}[{index}]")
    return values


def _wrong(obj: Mapping[str, Any], name: str, where: str, right: str) -> Refusal:
    field = path(where, name)
    if name not in obj:
        return invalid(f"'{field}' is missing; it must be {right}.", field)
    return invalid(f"'{field}' must be {right}, not {shown(obj[name])}.", field)
