"""Moments: UTC, as microseconds since 1970 wherever they are kept. Pure."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Return a UTC moment as microseconds since 1970, the form all stores keep."""
    since = moment - _EPOCH  # its parts: dividing it takes ten times as long
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a UTC datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)
