"""The forms that option values take: money, moments, lists of names."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

import click

from toolkit.core.errors import InvalidInput
from toolkit.core.money import parse_usd
from toolkit.core.pricing import parse_multiplier

Word = TypeVar("Word", bound=StrEnum)

PORT = click.IntRange(1, 65535)


class Usd(click.ParamType[int | None]):
    """An amount in USD, kept as nano-USD; with `none`, that word is None."""

    name = "usd"

    def __init__(self, *, none: bool = False) -> None:
        self.none = none

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read "12.50"; anything that is no text is a default."""
        if not isinstance(value, str):
            assert value is None or isinstance(value, int)  # noqa: S101
            return value
        if self.none and value.lower() == "none":
            return None
        try:
            return parse_usd(value)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


class Multiplier(click.ParamType[int]):
    """A price multiplier, kept in millionths."""

    name = "multiplier"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read "1.25"."""
        if isinstance(value, int):
            return value
        try:
            return parse_multiplier(str(value))
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[datetime | None]):
    """A moment in ISO 8601, UTC unless it says otherwise; with `never`, that word is None."""

    name = "time"

    def __init__(self, *, never: bool = False) -> None:
        self.never = never

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime | None:
        """Read "2027-01-31" (midnight, UTC) or "2027-01-31T09:00:00+01:00"."""
        if value is None or isinstance(value, datetime):
            return value
        text = str(value)
        if self.never and text.lower() == "never":
            return None
        try:
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):  # the latter if there is no such moment in UTC
            self.fail(f"{text!r} is not a moment. Write it like 2027-01-31 or 2027-01-31T09:00:00Z.", param, ctx)


class Names(click.ParamType[list[str]]):
    """A list `A,B,C`; with `all`, that word is the empty list."""

    name = "names"

    def __init__(self, *, all: bool = False) -> None:  # noqa: A002 - the word that people type
        self.all = all

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> list[str]:
        """Read "A,B,C"; spaces around names do not count. Nothing is no list: only `all` means all."""
        if isinstance(value, list):
            return value
        if self.all and str(value).lower() == "all":
            return []
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        if not names:
            example = "Write it like A,B, or `all`." if self.all else "Write it like A,B."
            self.fail(f"an empty list names nothing. {example}", param, ctx)
        return names


class OneOf(click.Choice[Word]):
    """One member of an enumeration, by its value: `OneOf(OnLeave)`."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:  # noqa: ARG002 - click gives it
        """Return what is typed for a choice: its value, where click's own has its name."""
        return str(choice)
