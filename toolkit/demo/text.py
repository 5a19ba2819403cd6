"""What the demo upstream says and how it counts: tokens, prose, values for a tool's schema, directives.

All of it is a pure function of its arguments, so that the same prompt gets the same answer.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

_TOKEN = re.compile(r"\s?[A-Za-z]{1,12}|\s?[0-9]{1,3}|\s?[^\sA-Za-z0-9]|\s{1,4}")
"""One token: a short word, up to three digits or a sign, with the space before it. No lookahead: a text that is
cut between two tokens then splits into the same tokens as before."""

_DIRECTIVE = re.compile(r"(?<!\s)\s*\[\[demo\b([^][]*)\]\]")
"""With the white space before it. No part of a text is looked at twice, however often a match begins and fails."""

MOST_TOKENS = 200_000
"""The longest text that a directive can ask for."""

_ANSWERS = (
    "The short answer on {topic} is that it depends on what you want to do with it, and the rest follows from there.",
    "Start with the smallest case of {topic} that you can check by hand, then add one thing at a time.",
    "Most of the work is in the details, and they are easier to see when they are written down.",
    "A good first step is to list what you know, what you assume and what you still need to find out.",
    "People often look at the average here, but the slow and rare cases tell you more.",
    "If two sources disagree about {topic}, trust the one that shows how it was measured.",
    "It helps to name the person who will read the result, since that decides how much to explain.",
    "There are three parts to it: what goes in, what comes out, and who pays when it goes wrong.",
    "In practice the simple way is fast enough, and it is far easier to change later.",
    "Keep a record of each choice and its reason, so that nobody has to guess next year.",
    "The numbers look large at first, but most of the cost comes from a few busy hours of the day.",
    "One way to think about {topic} is as a promise: say what will hold, then test that it does.",
    "You can try this on a copy first, compare both results, and only then switch over.",
    "When time is short, fix the part that hurts most and leave the rest as it is.",
    "A clear limit is kinder than a surprise, so agree on one before the work begins.",
    "Ask what would have to be true for the opposite to be right; the answer is often useful.",
    "For a small team, one shared page about {topic} is worth more than a long report.",
    "Some of this will change over time, so plan a date on which you look at it again.",
    "The usual mistake is to do two steps at once and then not know which of them helped.",
    "Check the result with a second method, even a rough one, before you rely on it.",
    "Where {topic} meets older systems, leave room for names and dates that do not fit the new rules.",
    "A short example says more than a rule, so here it is best to show one and then explain it.",
    "If that is not enough, tell me more about your case and I will go into the parts that matter.",
)
_THOUGHTS = (
    "The question is about {topic}, so first I look at what is really being asked.",
    "There may be more than one reading; the plain one seems right.",
    "Let me check the order of the steps before I write them down.",
    "A direct answer comes first, then the reason, then a caveat if there is one.",
    "That could be wrong for large inputs, so I should not claim too much.",
    "I compare two ways and keep the one that is easier to explain.",
    "Nothing here contradicts what was said before, so this can stay short.",
)
_COMMON = frozenset(
    """
    about after also because before could does from give have here into just like make more please should some than
    that their them then there these they this tool what when where which will with would write your
    """.split()  # noqa: SIM905 - a list of words reads better as words
)


def tokens(text: str) -> Iterator[str]:
    """Split a text into tokens, about four bytes each; joined, they are the text again."""
    return (match[0] for match in _TOKEN.finditer(text))


def count(text: str) -> int:
    """Count the tokens of a text: never more than its UTF-8 bytes."""
    return sum(1 for _ in _TOKEN.finditer(text))


def cut(text: str, limit: int) -> str:
    """Return the beginning of the text that is `limit` tokens long, or all of it when it is shorter."""
    end = 0
    for number, match in enumerate(_TOKEN.finditer(text)):
        if number == limit:
            return text[:end]
        end = match.end()
    return text


def chunks(text: str, size: int = 2) -> Iterator[tuple[str, int]]:
    """Split a text into the pieces that a stream sends: each with its number of tokens, `size` but for the last."""
    held: list[str] = []
    for token in tokens(text):
        held.append(token)
        if len(held) == size:
            yield "".join(held), size
            held.clear()
    if held:
        yield "".join(held), len(held)


def seed(*parts: str) -> int:
    """Make a number that depends on every character of the parts, the same in every process."""
    digest = hashlib.blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


def topic(prompt: str) -> str:
    """Return the word of the prompt that its answer should mention."""
    words = [word for word in re.findall(r"\b[A-Za-z]{4,12}\b", prompt[:2_000]) if word.lower() not in _COMMON]
    return max(words, key=len, default="this").lower()


def answer(prompt: str, number: int, length: int | None) -> str:
    """Write an answer to the prompt.

    Args:
        prompt: the text to answer.
        number: a seed; it decides which sentences are used.
        length: tokens the answer has exactly; without one it is 3 to 7 sentences long.
    """
    if length is None:
        return _prose(_ANSWERS, prompt, number, sentences=3 + number % 5)
    text = _prose(_ANSWERS, prompt, number, sentences=2 + length // 12)
    return cut(text, length - 1) + "." if length else ""


def thoughts(prompt: str, number: int, length: int) -> str:
    """Write reasoning about the prompt that is exactly `length` tokens long."""
    return cut(_prose(_THOUGHTS, prompt, number, sentences=2 + length // 10), length)


def _prose(bank: tuple[str, ...], prompt: str, number: int, sentences: int) -> str:
    # The banks' lengths are prime, so every step visits all sentences before one comes again.
    step = 1 + number // 7 % (len(bank) - 1)
    subject = topic(prompt)
    written = []
    for place in range(sentences):
        between = "" if place == 0 else "\n\n" if place % 5 == 0 else " "
        written.append(between + bank[(number + place * step) % len(bank)].format(topic=subject))
    return "".join(written)


def example(schema: Any, prompt: str, root: Any = None, depth: int = 0) -> Any:
    """Make a value that fits a JSON schema, in JSON Schema's or Gemini's spelling of types.

    Args:
        schema: the schema, as the request holds it; anything that is no schema gives an object.
        prompt: the text that free strings are taken from.
        root: the schema that `$ref` points into; the outermost one when left out.
        depth: how deep the value lies; schemas that contain themselves end at 8.
    """
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > 8:
        return {} if depth == 0 else None
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target = root
        for name in reference[2:].split("/"):
            target = target.get(name) if isinstance(target, dict) else None
        return example(target, prompt, root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return example(schema[key][0], prompt, root, depth + 1)

    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    kind = str(kind or ("object" if depth == 0 or "properties" in schema else "string")).lower()
    match kind:
        case "object":
            properties = schema.get("properties")
            names = properties if isinstance(properties, dict) else {}
            return {name: example(part, prompt, root, depth + 1) for name, part in names.items()}
        case "array":
            items = max(1, _whole(schema.get("minItems"), 1))
            return [example(schema.get("items", {}), prompt, root, depth + 1) for _ in range(min(items, 16))]
        case "integer" | "number":
            return schema.get("minimum", min(3, schema.get("maximum", 3)))
        case "boolean":
            return True
        case "null":
            return None
    return _string(schema, prompt)


def _string(schema: dict[str, Any], prompt: str) -> str:
    known = {
        "date": "2026-01-15",
        "date-time": "2026-01-15T09:30:00Z",
        "time": "09:30:00Z",
        "email": "ada@example.com",
        "uri": "https://example.com/",
        "uuid": "00000000-0000-4000-8000-000000000000",
    }.get(str(schema.get("format")))
    text = known or topic(prompt)
    text = text.ljust(min(_whole(schema.get("minLength"), 0), 1_000), "x")
    return text[: _whole(schema.get("maxLength"), len(text))]


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise


@dataclass(frozen=True, slots=True)
class Directives:
    """What a prompt tells the demo upstream to do; `toolkit.demo.upstream` describes each one."""

    status: int | None = None
    tokens: int | None = None
    calls: int | None = None
    delay: float = 0.0
    chunk_delay: float | None = None
    break_: int | None = None
    truncate: int | None = None
    error_event: int | None = None
    nousage: bool = False
    input: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None

    @classmethod
    def read(cls, text: str) -> "Directives":
        """Read the directives in a text.

        Raises:
            ValueError: a directive does not exist, or its value is no number that it could take.
        """
        names = {field.name.rstrip("_") for field in fields(cls)}
        found: dict[str, Any] = {}
        for word in " ".join(_DIRECTIVE.findall(text)).replace(",", " ").split():
            name, _, value = word.partition("=")
            if name not in names:
                raise ValueError(f"[[demo {word}]]: no such directive; there are {', '.join(sorted(names))}")
            found["break_" if name == "break" else name] = _value(name, value)
        return cls(**found)


def _value(name: str, value: str) -> int | float | bool:
    if name == "nousage" and not value:
        return True
    if name in {"delay", "chunk_delay"} and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        return float(value)
    if name not in {"nousage", "delay", "chunk_delay"} and re.fullmatch(r"[0-9]{1,15}", value):
        number = int(value)
        most = {"tokens": MOST_TOKENS, "reasoning": MOST_TOKENS, "calls": 100, "status": 599}.get(name, number)
        if (400 if name == "status" else 0) <= number <= most:
            return number
    raise ValueError(f"[[demo {name}={value}]]: not a value that {name} can take")


def without_directives(text: str) -> str:
    """Return the text as the model is meant to see it."""
    return _DIRECTIVE.sub("", text)
