"""What reports group and filter by: dimensions, tags, periods, organisations and keys, as SQL over the view `usage`."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from toolkit.admin import keys, organisations
from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period
from toolkit.core.tags import carried, written
from toolkit.ledger.ledger import Ledger

if TYPE_CHECKING:
    import pandas as pd

DIMENSIONS = {
    "key": ("key_id", "key", "key_label", "org"),
    "model": ("model",),
    "org": ("org_id", "org"),
    "plan": ("plan",),
    "owner": ("coalesce(nullif(key_owner, ''), '(none)') AS owner",),
    "environment": ("coalesce(nullif(key_environment, ''), '(none)') AS environment",),
    "upstream": ("coalesce(upstream, '(none)') AS upstream",),
    "dialect": ("dialect",),
    "hour": ("date_trunc('hour', admitted_at) AS hour",),
    "day": ("day",),
    "week": ("date_trunc('week', day)::DATE AS week",),
    "month": ("month",),
}
"""What reports can group by, with the columns that each gives; `tag:NAME` besides, for the value of a tag. Weeks are
those of ISO 8601: `week` is the Monday that one begins with."""

TIMES = ("hour", "day", "week", "month")
"""The dimensions that are times."""

UNTAGGED = "(none)"
"""What a report says of calls that do not have the tag it groups by."""

_NAMES = ("key", "key_label", "org")
"""Columns that say what an id before them is called: taken once for each id, not compared in every call."""


def grouped(what: str, by: Sequence[str]) -> list[str]:
    """Return the columns of the dimensions to group by, as SQL for a query with `GROUP BY ALL`.

    Args:
        what: the report, to be named when it cannot.
        by: of `DIMENSIONS`, or `tag:NAME`, whose column has that very name.

    Raises:
        InvalidInput: no dimension, an unknown one, or one twice.
    """
    unknown = [name for name in by if name not in DIMENSIONS and not (name.startswith("tag:") and name != "tag:")]
    if unknown or not by or len(set(by)) < len(by):
        known = f"{', '.join(DIMENSIONS)}, tag:NAME"
        raise InvalidInput(f"{what} is grouped by one or more of {known}; got {', '.join(by) or '-'}.")
    columns = [column for name in by for column in DIMENSIONS.get(name) or (_tag(name),)]
    columns = [f"any_value({column}) AS {column}" if column in _NAMES else column for column in columns]
    return list(dict.fromkeys(columns))  # `org` may come twice


def ordered(by: Sequence[str], columns: Sequence[str], else_by: str) -> str:
    """Return the order of a report's rows, as SQL: by time if the first dimension is one, else as the report says.

    Args:
        by: the dimensions.
        columns: from `grouped`, to stand first in the query; rows that are alike otherwise go by them.
        else_by: such as "cost DESC".
    """
    first = [by[0]] if by[0] in TIMES else []
    return ", ".join([*first, else_by, *(str(position + 1) for position in range(len(columns)))])


def with_decimals(frame: "pd.DataFrame", column: str, places: int) -> "pd.DataFrame":
    """Return the frame with a column of whole numbers as Decimals of so many places; what is missing is None."""
    parts = frame[column].astype(object).where(frame[column].notna(), None)
    frame[column] = parts.map(lambda number: Decimal(int(number)).scaleb(-places), na_action="ignore")
    return frame


def _tag(dimension: str) -> str:
    """Return the column of `tag:NAME`: the value of that tag in the JSON object `tags`."""
    name = dimension.removeprefix("tag:").replace("~", "~0").replace("/", "~1")  # a JSON pointer, RFC 6901
    pointer, column = "/" + name.replace("'", "''"), dimension.replace('"', '""')
    return f"coalesce(json_extract_string(tags, '{pointer}'), '{UNTAGGED}') AS \"{column}\""


def chosen(ledger: Ledger, org: str | None = None, key: str | None = None) -> dict[str, str | None]:
    """Return the ids of an organisation and a key, given by id or name or not at all, for `condition`.

    Raises:
        NotFound: the ledger's actor sees no such one: a sum of nothing would pass for an answer.
        Conflict: several keys have that name.
    """
    if org is None and key is None:
        return {}
    with ledger.store.read(ledger.actor) as tx:
        org_id = None if org is None else organisations.find(tx, org).id
        return {"org_id": org_id, "key_id": None if key is None else keys.find(tx, key).id}


def condition(
    period: Period | None, tags: Mapping[str, str] | None = None, **equal: str | None
) -> tuple[str, list[Any]]:
    """Return the condition that a period, tags and the columns given set, with its values."""
    where, values = (period or Period.all()).where()
    if tags:
        where, values = f"{where} AND {carried('?')}", [*values, written(tags)]
    given = {column: value for column, value in equal.items() if value is not None}
    return " AND ".join([where, *(f"{column} = ?" for column in given)]), [*values, *given.values()]
