"""Moments: UTC, as microseconds since 1970 wherever they are kept. Pure."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Return a UTC moment as microseconds since 1970, the form all stores keep."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a UTC datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)
