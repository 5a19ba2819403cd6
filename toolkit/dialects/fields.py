"""Fields: what a request can ask for by name, what each changes, and what becomes of a name that nobody knows. Pure.

Each dialect has its rows in a file of its own (`openai_fields`, `anthropic_fields`, `gemini_fields`), header values in
`headers`. A row is data: `check` refuses what a row refuses and notes the unknown, `strip` leaves the unknown out.
`docs/fields.md` lists the rows that have an effect.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from toolkit.core.errors import Refusal
from toolkit.dialects.body import invalid, path, quoted, read_kind, shown, unsupported

AUDIO = "audio tokens have no price here"

MOST_UNKNOWN = 100
"""Unknown names noted of one request; further ones are left out or refused like them, but not named."""


class Effect(StrEnum):
    """What a field changes beside the words of the answer."""

    NONE = "none"
    CONTEXT = "context"
    """How many tokens the input or the output can have."""
    PRICE = "price"
    """What a token or a request costs, what is charged beside tokens, or whether usage is seen at all."""
    STATE = "state"
    """What is kept at the provider, or which account, container or server is used: it would cross tenants."""


@dataclass(frozen=True, slots=True)
class Field:
    """A known field, or a known value of a header or of a `type`.

    Args:
        effect: what it changes.
        refused: said to the caller where the effect has no price or bound here: why, or what to do instead.
        allowed: values that mean no more than leaving a refused field out.
        bare: whether an empty object asks for what is refused, too.
        covered: where the effect is not refused, how the hold or the charge covers it.
        whole_context: whether it makes more or other input of the body than its bytes bound, so that the model's whole
            context window is held.
        window: tokens of the context window that it opens; 0 where it opens none.
        dropped: whether it never goes on to the provider.
        inside: what is known of the object that it holds, or of each object in its array.
    """

    effect: Effect
    refused: str = ""
    allowed: tuple[object, ...] = ()
    bare: bool = False
    covered: str = ""
    whole_context: bool = False
    window: int = 0
    dropped: bool = False
    inside: "Fields | Kinds | None" = None

    def allows(self, value: object) -> bool:
        """Tell whether this value asks for nothing: null, an empty array or object, or an allowed one."""
        if not self.refused or value is None or (not self.bare and (value == [] or value == {})):
            return True
        return any(value == allowed and type(value) is type(allowed) for allowed in self.allowed)


def plain(*names: str) -> dict[str, Field]:
    """Return rows of fields that change nothing but the answer's words."""
    return dict.fromkeys(names, Field(Effect.NONE))


def covered(effect: Effect, how: str, *names: str) -> dict[str, Field]:
    """Return rows of fields whose effect is in the hold and the charge."""
    return dict.fromkeys(names, Field(effect, covered=how))


def dropped(effect: Effect, why: str, *names: str) -> dict[str, Field]:
    """Return rows of headers that never go on."""
    return dict.fromkeys(names, Field(effect, covered=f"not sent on: {why}", dropped=True))


def refused(
    effect: Effect, reason: str, *names: str, allowed: tuple[object, ...] = (), bare: bool = False
) -> dict[str, Field]:
    """Return rows of fields that are refused for their effect."""
    return dict.fromkeys(names, Field(effect, reason, allowed, bare))


class Fields:
    """What is known of one kind of object.

    Args:
        rows: known fields by name, several groups of them.
        others: the row of every name that has none; None where such a name is unknown.
        protobuf: the object is a protocol buffer in JSON: a field may be spelled `cachedContent` or `cached_content`,
            and its enums are compared without regard to case.
    """

    def __init__(self, *rows: Mapping[str, Field], others: Field | None = None, protobuf: bool = False) -> None:
        self.rows = {name: row for group in rows for name, row in group.items()}
        spelled = dict(self.rows)
        self._snake: dict[str, str] = {}
        if protobuf:
            self._snake = {name: snake for name in self.rows if (snake := snake_case(name)) != name}
            spelled |= {snake: self.rows[name] for name, snake in self._snake.items()}
        self.names = frozenset(spelled)
        self._others = others
        self._protobuf = protobuf
        self._whole = frozenset(name for name, row in spelled.items() if row.whole_context)
        self._looked_at = {name: row for name, row in spelled.items() if row.refused or row.inside is not None}
        self._looked_names = frozenset(self._looked_at)
        nested = {name: row.inside for name, row in self.rows.items() if row.inside is not None and not row.refused}
        self._nested = tuple(nested.items())
        self._settled = frozenset(name for name, row in self.rows.items() if not row.refused)
        self._guarded = {
            name.casefold(): name
            for name, row in spelled.items()
            if row.effect is not Effect.NONE or row.inside is not None or name == "type"
        }

    def check(self, obj: Mapping[str, Any], where: str, unknown: list[str]) -> None:
        """Refuse the first field of `obj` that may not be, and note the names that nobody knows.

        Args:
            obj: an object of this kind.
            where: its path; empty for the body itself.
            unknown: paths of unknown names are added, with `[*]` for the place in an array.

        Raises:
            Refusal: `unsupported_feature` with the field's path as param; `invalid_request` for a name that is a known
                one in all but upper and lower case, and for a protocol buffer's field in both spellings.
        """
        if not self.names.issuperset(obj):
            self._note(obj, where, unknown)
        if not self._looked_names.isdisjoint(obj):
            self._look(obj, where, unknown)
        for name, snake in self._snake.items() if self._snake and not self.rows.keys() >= obj.keys() else ():
            if snake in obj and name in obj:
                raise invalid(
                    f"'{path(where, name)}' and '{path(where, snake)}' are the same field.", path(where, name)
                )

    def fine(self, obj: Mapping[str, Any]) -> bool:
        """Tell quickly, without a path to name, that an object is as most are: `check` would find nothing.

        False says nothing.
        """
        if not self._settled.issuperset(obj):
            return False
        for name, inside in self._nested:
            if name in obj and (type(obj[name]) is not dict or not inside.fine(obj[name])):
                return False
        return True

    def refuse(self, obj: Mapping[str, Any], where: str) -> None:
        """Refuse the first field of `obj` that may not be, as `check`; but without noting what is unknown."""
        if not self.names.issuperset(obj):
            self._note(obj, where, [])
        if not self._looked_names.isdisjoint(obj):
            self._look(obj, where, [])

    def refused_in(self, obj: Mapping[str, Any]) -> list[str]:
        """Return the names of the fields of `obj` that `check` would refuse."""
        rows = ((name, self._looked_at.get(name) if name in self.names else self._others) for name in obj)
        return [name for name, row in rows if row is not None and row.refused and not self._allows(row, obj[name])]

    def whole_context(self, obj: Mapping[str, Any]) -> bool:
        """Tell whether a field is given that makes more input of the body than its bytes bound."""
        return not self._whole.isdisjoint(obj) and any(obj[name] for name in self._whole.intersection(obj))

    def strip(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Return an object of this kind without what is unknown: the same one if there is nothing."""
        changes: dict[str, Any] = {}
        for name, row in self._looked_at.items():
            if row.inside is not None and name in obj:
                value = _stripped(row.inside, obj[name])
                if value is not obj[name]:
                    changes[name] = value
        if self._others is None and not self.names.issuperset(obj):
            return {name: changes.get(name, value) for name, value in obj.items() if name in self.names}
        return {**obj, **changes} if changes else obj

    def _note(self, obj: Mapping[str, Any], where: str, unknown: list[str]) -> None:
        for name in obj:
            if name in self.names:
                continue
            right = self._guarded.get(name.casefold()) if len(name) <= _LONGEST_NAME else None
            if right is not None:
                # Some JSON readers match names without regard to case, by Unicode's case folding, so `Model` could be
                # judged as unknown here and obeyed there.
                raise invalid(f"Unknown field {quoted(name)}; did you mean '{path(where, right)}'?", path(where, name))
            if self._others is not None:
                if not self._others.allows(obj[name]):
                    raise unsupported(path(where, name[:_LONGEST_NAME]), self._others.refused)
            elif len(unknown) < MOST_UNKNOWN:
                field = _INDEX.sub("[*]", path(where, name[:_LONGEST_NAME]))
                if field not in unknown:
                    unknown.append(field)

    def _look(self, obj: Mapping[str, Any], where: str, unknown: list[str]) -> None:
        for name, value in obj.items():
            row = self._looked_at.get(name)
            if row is None:
                continue
            if row.refused and not self._allows(row, value):
                raise self._refusal(obj, where)
            if row.inside is not None and value is not None:
                if isinstance(value, dict):
                    row.inside.check(value, path(where, name), unknown)
                elif isinstance(value, list):
                    row.inside.check_all(value, path(where, name), unknown)
                else:
                    raise invalid(f"'{path(where, name)}' must be an object, not {shown(value)}.", path(where, name))

    def _allows(self, row: Field, value: object) -> bool:
        return row.allows(value.lower() if self._protobuf and isinstance(value, str) else value)

    def _refusal(self, obj: Mapping[str, Any], where: str) -> Refusal:
        """Return the refusal of what comes first in the table, in whichever order the caller has it."""
        rows = self._looked_at.items()
        name, row = next((n, row) for n, row in rows if n in obj and row.refused and not self._allows(row, obj[n]))
        return unsupported(path(where, name), row.refused)

    def check_all(self, items: Sequence[Any], where: str, unknown: list[str]) -> None:
        """Check each object of an array."""
        for index, item in enumerate(items):
            if isinstance(item, dict) and not self.fine(item):
                self.check(item, f"{where}[{index}]", unknown)


class Kinds:
    """Objects that are known by their `type`, such as tools.

    Args:
        rows: by type.
        others: the row of every other type.
        default: the type of an object that names none; None where it must name one.
        stem: what of a type is looked up, where it carries a date.
    """

    def __init__(
        self,
        *rows: Mapping[str, Field],
        others: Field,
        default: str | None = None,
        stem: Callable[[str], str] = str,
    ) -> None:
        self.rows = {name: row for group in rows for name, row in group.items()}
        self.others = others
        self._default = default
        self._stem = stem

    def row(self, kind: str) -> Field:
        """Return the row of a type."""
        row = self.rows.get(kind)
        return self.rows.get(self._stem(kind), self.others) if row is None else row

    def check(self, obj: Mapping[str, Any], where: str, unknown: list[str]) -> None:
        """Refuse an object whose type may not be, and check its fields; as `Fields.check`.

        Raises:
            Refusal: also `invalid_request` for a type that is missing or no string.
        """
        kind = read_kind(obj, where) or self._default
        if kind is None:
            raise invalid(f"'{where}.type' is missing; it must be a string, e.g. 'function'.", f"{where}.type")
        row = self.row(kind)
        if row.refused:
            raise unsupported(f"{where}.type", f"{shown(kind)}: {row.refused}")
        if row.inside is not None:
            row.inside.check(obj, where, unknown)

    def fine(self, obj: Mapping[str, Any]) -> bool:
        """Tell quickly that an object is as most are; as `Fields.fine`."""
        kind = obj.get("type", self._default)
        row = self.rows.get(kind) if type(kind) is str else None
        return row is not None and not row.refused and row.inside is not None and row.inside.fine(obj)

    def check_all(self, items: Sequence[Any], where: str, unknown: list[str]) -> None:
        """Check each object of an array."""
        for index, item in enumerate(items):
            if isinstance(item, dict) and not self.fine(item):
                self.check(item, f"{where}[{index}]", unknown)

    def strip(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Return an object without what is unknown of its type: the same one if there is nothing."""
        kind = obj.get("type") or self._default
        inside = self.row(kind).inside if isinstance(kind, str) else None
        return obj if inside is None else inside.strip(obj)


_LONGEST_NAME = 64
"""Characters of a name that are read: no known one is longer, folding makes none shorter, and more is not shown."""

_LONGEST_LIST = 1_000
"""Characters of a header that lists names."""

_INDEX = re.compile(r"\[\d+\]")
_DATE = re.compile(r"[-_]\d{4}-?\d{2}-?\d{2}$")


def undated(name: str) -> str:
    """Return a beta's or a tool's name without the date at its end: a new date changes details, not the effect."""
    return _DATE.sub("", name)


def snake_case(name: str) -> str:
    """Return the snake-case spelling of a camel-case name."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def readable(name: str) -> str:
    """Return a name as it can be stored, listed and shown: printable, and at most 64 characters."""
    return "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME])


def named(names: Iterable[str]) -> str:
    """Return names as the value of a header: with commas between them, in ASCII, of at most 1 kB."""
    text = ""
    for name in names:
        shown_name = readable(name).encode("ascii", "replace").decode().replace(",", "?")
        longer = f"{text}, {shown_name}" if text else shown_name
        if len(longer) > _LONGEST_LIST - 5:
            return f"{text}, ..."
        text = longer
    return text


def merged(body: Fields) -> Fields:
    """Return what is known of an object whose fields some servers merge into the body, such as `extra_body`.

    Nothing that is read at the body's own level may stand there.
    """
    elsewhere = "some servers merge it into the request; give it at the request's own level, where it is judged"

    def inner(row: Field) -> Field:
        return row if row.effect is Effect.NONE or row.refused else replace(row, refused=elsewhere, inside=None)

    return Fields({name: inner(row) for name, row in body.rows.items()}, refused(Effect.PRICE, elsewhere, "extra_body"))


def _stripped(known: "Fields | Kinds", value: Any) -> Any:
    if isinstance(value, dict):
        return known.strip(value)
    if isinstance(value, list):
        items = [known.strip(item) if isinstance(item, dict) else item for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value
