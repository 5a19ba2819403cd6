"""What all tables share: how moments, money and texts are kept."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, MetaData, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase

from toolkit.core.moments import micros, moment


class Moment(TypeDecorator[datetime]):
    """A UTC datetime kept as an integer of microseconds: exact, ordered, and alike on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else micros(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else moment(value)


class Base(DeclarativeBase):
    """Base of all tables. Keys and references have the names that PostgreSQL would give them, on SQLite too."""

    metadata = MetaData(naming_convention={"pk": "%(table_name)s_pkey", "fk": "%(table_name)s_%(column_0_name)s_fkey"})

    type_annotation_map = {str: Text, int: BigInteger, bool: Boolean, datetime: Moment}  # noqa: RUF012 - SQLAlchemy's own form
