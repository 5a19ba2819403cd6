"""The rules of money: admit (hold), settle (charge and release), refuse, abandon. Pure: no I/O, no clock.

Many calls share one transaction of the key store (`batcher`). A billing store (`stores`) locks and reads what they ask
about, as a `BatchState`; each is judged in turn from what the ones before it left; the billing store writes what has
changed and commits. So the strict rules cost microseconds a call, and no cache weakens them.

Hold → settle → release: an admission puts aside the most that the call can cost; its settlement takes the hold
away (and goes on only if there was one), charges the real usage, and appends the request-log row, all at once. So
each admitted call is charged exactly once or, if its gateway died, written off exactly once.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.billing.call import Call, Ending
from toolkit.billing.hold_estimate import HoldBound
from toolkit.billing.log_row import log_row
from toolkit.billing.refusal_messages import quota_exceeded, wallet_shortfall
from toolkit.billing.state import BatchState, Hold, LogRow, Month, RowsWanted
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.moments import micros
from toolkit.core.policy import HoldPolicy, KeyFacts, Outcome
from toolkit.core.pricing import charge

REFUSAL_ROWS_PER_MINUTE = 60
"""Rows of the request log that one key gets for one reason in one minute; further refusals are only counted."""

RECENT_WEIGHT = 8
"""Weight of the past in the moving average of policy `expected`: about the last dozen calls."""


@dataclass(slots=True)
class Admitted:
    """A hold was placed.

    Args:
        hold: against the wallet, nano-USD.
        output_bound: what one choice may produce; the caller's own, the default, or what was fitted.
        fitted: whether the default bound was lowered to fit what is left.
    """

    hold: int
    output_bound: int
    fitted: bool


@dataclass(slots=True)
class Receipt:
    """What a settled call cost, nano-USD."""

    cost: int
    overrun: int = 0


# -- the jobs ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Admit:
    """Place a hold for a call, or refuse it.

    Args:
        call: with its price and multiplier.
        bound: the most it can cost, as a function of its output bound.
        catalog_version: of the catalog that call and bound were made from.
        instance_id: the gateway that will settle it.
    """

    call: Call
    bound: HoldBound
    catalog_version: int
    instance_id: str

    def want(self, wanted: RowsWanted) -> None:
        """Ask for the wallet, the key and its month."""
        key = self.call.key
        wanted.orgs.add(key.org_id)
        wanted.keys.add(key.key_id)
        wanted.months.add((key.key_id, self.call.month))
        if key.hold_policy is HoldPolicy.EXPECTED:
            wanted.recent.add((key.key_id, self.call.model or ""))

    def judge(self, batch: BatchState) -> Admitted:
        """Place the hold.

        Raises:
            Stale: key or catalog have changed; look up and try again.
            Refusal: the monthly limit or the wallet does not allow it. Nothing is held.
            ValueError: the request id has a hold.
        """
        call, bound = self.call, self.bound
        key = call.key
        limit = batch.require_current(key, self.catalog_version).monthly_limit
        wallet, name = batch.wallets[key.org_id], call.month
        month = batch.months.get((key.key_id, name)) or Month()
        limit_room = None if limit is None else limit - month.counted - month.held
        wallet_room = wallet.balance - wallet.held
        amount = bound.amount()
        # The batch may know it though this policy does not ask: it settles a call that was made under an older one.
        expected = key.hold_policy is HoldPolicy.EXPECTED
        recent = batch.recent.get((key.key_id, call.model or "")) if expected else None
        likely = None if recent is None else min(amount, max(recent, 1))

        if amount == 0:
            output_bound: int | None = bound.output_bound
        elif likely is not None:
            if limit_room is not None and likely > limit_room:
                raise quota_exceeded(limit or 0, month.counted, month.held, likely, name, None)
            output_bound = bound.fitted(wallet_room)
        else:
            if limit_room is not None and bound.fitted(limit_room) is None:
                fits = bound.would_fit(limit_room)
                raise quota_exceeded(limit or 0, month.counted, month.held, bound.least(), name, fits)
            output_bound = bound.fitted(wallet_room if limit_room is None else min(limit_room, wallet_room))
        if output_bound is None:
            raise wallet_shortfall(wallet.balance, wallet.held, bound.least(), bound.would_fit(wallet_room))

        fitted = output_bound < bound.output_bound
        hold = bound.amount(output_bound) if fitted else amount
        limit_hold = hold if likely is None else min(hold, likely)
        batch.place(
            Hold(
                call.request_id,
                self.instance_id,
                key.org_id,
                key.key_id,
                key.plan_id,
                name,
                micros(call.received_at),
                hold,
                limit_hold,
                call.dialect,
                call.endpoint,
                call.stream,
                call.model or "",
                call.upstream or "",
                call.price_id or "",
                call.multiplier,
                None,  # nothing has come yet
                None,
                call.credential,
            )
        )
        return Admitted(hold, output_bound, fitted)


@dataclass(slots=True)
class Settle:
    """Charge an admitted call and release its hold.

    The whole real cost is charged; what exceeds the hold is recorded as an overrun.
    """

    call: Call
    ending: Ending

    def want(self, wanted: RowsWanted) -> None:
        """Ask for the hold, and the totals it stands in."""
        key = self.call.key
        wanted.orgs.add(key.org_id)
        wanted.months.add((key.key_id, self.call.month))
        wanted.holds.append(self.call.request_id)
        if key.hold_policy is HoldPolicy.EXPECTED:
            wanted.recent.add((key.key_id, self.call.model or ""))

    def judge(self, batch: BatchState) -> Receipt | None:
        """Charge the call; None if it holds nothing any more (swept: a lost settlement)."""
        hold = batch.holds.get(self.call.request_id)
        if hold is None:
            return None
        call, ending = self.call, self.ending
        cost = cost_of(call, ending)
        overrun = max(cost - hold.amount, 0)
        row = log_row(call, ending, cost, hold.amount, overrun)
        batch.release(hold, cost)
        if (
            call.key.hold_policy is HoldPolicy.EXPECTED
            and ending.outcome is Outcome.COMPLETED
            and ending.usage is not None
            and call.sheet is not None
        ):
            at = (call.key.key_id, call.model or "")
            past = batch.recent.get(at)
            batch.recent[at] = batch.new_recent[at] = (
                cost if past is None else (past * (RECENT_WEIGHT - 1) + cost) // RECENT_WEIGHT
            )
        batch.new_rows.append(row)
        return Receipt(cost, overrun)


_OUTCOMES = {RefusalType.UPSTREAM_OVERLOADED: Outcome.QUEUE_FULL}
"""Outcomes of calls that never began for a reason that is not their own."""


@dataclass(slots=True)
class Refuse:
    """Log the refusal of a known key's call at cost 0: at most 60 rows a key, reason and minute, the rest counted.

    Args:
        now: UTC.
        catalog_version: what the refusal was judged by; None when it does not depend on key or catalog facts.
    """

    call: Call
    refusal: Refusal
    now: datetime
    catalog_version: int | None

    def want(self, wanted: RowsWanted) -> None:
        """Ask for the count of this minute, and for what proves the facts."""
        wanted.orgs.add(self.call.key.org_id)  # its lock keeps another process from counting the same row
        wanted.keys.add(self.call.key.key_id)
        wanted.refused.add(self.at)

    @property
    def at(self) -> tuple[str, str, int]:
        """What is counted: key, reason, and minute since 1970."""
        return self.call.key.key_id, self.refusal.type, micros(self.now) // 60_000_000

    def judge(self, batch: BatchState) -> bool:
        """Log it; whether it became a row.

        Raises:
            Stale: the key or the catalog has changed; the call must be judged anew.
        """
        if self.catalog_version is not None:
            batch.require_current(self.call.key, self.catalog_version)
        at = self.at
        count = batch.refused.get(at, 0) + 1
        is_row = count <= REFUSAL_ROWS_PER_MINUTE
        if is_row:
            ending = Ending(
                _OUTCOMES.get(self.refusal.type, Outcome.REFUSED),
                self.now,
                self.refusal.status,
                refusal=self.refusal.type,
                error=self.refusal.message,
            )
            batch.new_rows.append(log_row(self.call, ending, 0, 0, 0))
        batch.refused[at] = count
        batch.new_refused[at] = batch.new_refused.get(at, 0) + 1
        return is_row


@dataclass(slots=True)
class Confirm:
    """Make sure that what a call was judged by is still true. It locks and writes nothing."""

    key: KeyFacts
    catalog_version: int

    def want(self, wanted: RowsWanted) -> None:
        """Ask for what proves the facts."""
        wanted.keys.add(self.key.key_id)

    def judge(self, batch: BatchState) -> None:
        """Say nothing.

        Raises:
            Stale: the key or the catalog has changed; the call must be judged anew.
        """
        batch.require_current(self.key, self.catalog_version)


@dataclass(slots=True)
class Abandon:
    """Release a hold that nobody will settle and write its call off, at cost 0.

    Args:
        hold: as it was found.
        now: UTC.
        why: for operators.
    """

    hold: Hold
    now: datetime
    why: str

    def want(self, wanted: RowsWanted) -> None:
        """Ask for the hold, and the totals it stands in."""
        wanted.orgs.add(self.hold.org_id)
        wanted.months.add((self.hold.key_id, self.hold.month))
        wanted.holds.append(self.hold.request_id)

    def judge(self, batch: BatchState) -> bool:
        """Write the call off; False if it has been settled or written off meanwhile."""
        hold = batch.holds.get(self.hold.request_id)
        if hold is None:
            return False
        values: dict[str, Any] = {name: getattr(hold, name) for name in _SHARED}
        values |= dict.fromkeys(_COUNTS, 0) | dict.fromkeys(_UNKNOWN)
        values |= {"settled_at": micros(self.now), "outcome": Outcome.ABANDONED, "status": 0, "held": hold.amount}
        row = LogRow(**values, error=self.why)
        batch.release(hold, 0)
        batch.new_rows.append(row)
        return True


def cost_of(call: Call, ending: Ending) -> int:
    """Return what a call is charged, in nano-USD."""
    return charge(ending.usage, call.sheet, call.multiplier) if ending.usage and call.sheet else 0


_SHARED = [name for name in LogRow._fields if name in Hold._fields]

_COUNTS = [name for name in LogRow._fields if name.endswith(("_tokens", "_price"))] + ["cost", "overrun"]

_UNKNOWN = ["refusal", "usage_source", "first_byte_ms", "duration_ms", "tags"]
_UNKNOWN += ["usage_doubt", "overrun_reason", "provider_usage", "resent", "service_tier", "inference_geo"]
