"""Thresholds: from when on something is a finding."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From when on something is a finding.

    Args:
        period: days of acts, prices and calls that are looked back on.
        new: days for which a key may wait for its first use.
        unused: days without a call.
        rotation: days for which a secret may stay; `rotation_soon`: how many days before that it is due soon.
        scope: days in which the models in use are looked for; `scope_times`: models a key may call for each that it
            uses. Keys younger than the period are not judged.
        limit_times: times a usual month that a limit may be.
        limit_near: share of the limit from which on a key is near it.
        old_secret: days for which a use of a rotated or deleted secret counts.
        burst: secrets that one actor reveals within an hour.
        usual: acts before the period from which on an actor's usual hours are known.
        jump: share by which a price or multiplier may change without being more than a note.
        least_calls: calls below which no share is judged; `estimated`, `abandoned`: shares from which on they are.
        reconciled: days after which books should be reconciled again.
    """

    period: int = 30
    new: int = 7
    unused: int = 30
    rotation: int = 90
    rotation_soon: int = 14
    scope: int = 90
    scope_times: int = 3
    limit_times: int = 10
    limit_near: Decimal = Decimal("0.9")
    old_secret: int = 30
    burst: int = 5
    usual: int = 20
    jump: Decimal = Decimal("0.5")
    least_calls: int = 20
    estimated: Decimal = Decimal("0.05")
    abandoned: Decimal = Decimal("0.01")
    reconciled: int = 7
