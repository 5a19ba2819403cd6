"""The rules of money, on the driver's own connection: look up, admit, settle, refuse, sweep."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import GEMINI_SHEET, OPENAI_SHEET, World, usd
from toolkit import accounts, billing, catalog, credentials, keys, plans
from toolkit.billing import Admitted, Call, Ending, Receipt, Stale
from toolkit.database import utc_now
from toolkit.errors import Refusal, RefusalType
from toolkit.estimate import SMALLEST_FITTED_BOUND, HoldBound
from toolkit.models import Organisation, micros, moment
from toolkit.policy import HoldPolicy, KeyFacts, KeyStatus, Outcome
from toolkit.pricing import MILLION, PriceSheet, billing_month
from toolkit.usage import Usage, UsageSource

PART = MILLION * MILLION
MULTIPLIER = MILLION * 5 // 4
INSTANCE = "gateway_test"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def fixed(amount: int, *, explicit: bool = True) -> HoldBound:
    """Return the bound of a call that can cost at most `amount`, whatever it puts out."""
    return HoldBound(base=amount * PART, each=0, output_bound=0, explicit=explicit)


def by_token(base: int, each: int, output_bound: int, *, explicit: bool) -> HoldBound:
    """Return a bound of `base` plus `each` nano-USD for every token of output."""
    return HoldBound(base * PART, each * PART, output_bound, explicit)


def dollars(amount: int) -> PriceSheet:
    """Return a sheet under which each request costs `amount` at multiplier 1, and tokens nothing."""
    return PriceSheet.flat(input=0, output=0, request=amount)


@dataclass
class Till:
    """One gateway's connection to the key store, and the key whose calls it bills."""

    world: World
    connection: sqlite3.Connection
    secret: str = field(repr=False)
    key_id: str

    def facts(self) -> KeyFacts:
        """Look the key up, as the gateway does for each call."""
        digests = [digest.value for digest in self.world.desk.keyring.digests(self.secret)]
        found = billing.lookup(self.connection, digests)
        assert found is not None
        return found

    @property
    def catalog_version(self) -> int:
        """The catalog's version now."""
        (version,) = self.connection.execute("SELECT version FROM catalog_version").fetchone()
        return int(version)

    def call(self, **changes: Any) -> Call:
        """Return a call by the key as it stands now."""
        at = changes.pop("received_at", NOW)
        call = Call(
            request_id=credentials.new_request_id(micros(at) // 1000),
            key=self.facts(),
            received_at=at,
            dialect="openai",
            endpoint="chat/completions",
            stream=False,
            model="gpt-test",
            upstream="test-openai",
            price_id="price_test",
            sheet=OPENAI_SHEET,
            multiplier=MULTIPLIER,
        )
        return replace(call, **changes)

    def admit(self, call: Call, bound: HoldBound, instance: str = INSTANCE) -> Admitted:
        """Admit a call against the present catalog."""
        return billing.admit(self.connection, call, bound, catalog_version=self.catalog_version, instance_id=instance)

    def spend(self, amount: int, hold: int | None = None) -> Receipt:
        """Admit and settle a call that costs `amount`."""
        call = self.call(sheet=dollars(amount), multiplier=MILLION)
        self.admit(call, fixed(amount if hold is None else hold))
        receipt = billing.settle(self.connection, call, ended(Usage()))
        assert receipt is not None
        return receipt

    def refused(self, call: Call, bound: HoldBound) -> Refusal:
        """Return the refusal that an admission meets."""
        with pytest.raises(Refusal) as caught:
            self.admit(call, bound)
        return caught.value

    def row(self, query: str, *values: object) -> dict[str, Any]:
        """Return the one row of a query."""
        (row,) = self.connection.execute(query, values).fetchall()
        return dict(row)

    def org(self) -> dict[str, Any]:
        """The organisation's running totals."""
        return self.row("SELECT credited, settled, held FROM organisation WHERE id = ?", self.world.org_id)

    def month(self, month: str = "2026-11") -> dict[str, Any]:
        """The key's running totals of a month."""
        query = "SELECT calls, spent, held, last_call_at FROM key_month WHERE key_id = ? AND month = ?"
        return self.row(query, self.key_id, month)

    def log(self) -> list[dict[str, Any]]:
        """The request log, in order of time."""
        return [dict(row) for row in self.connection.execute("SELECT * FROM outbox ORDER BY rowid")]

    def update(self, **options: Any) -> None:
        """Change the key's options as an operator does."""
        with self.world.desk.write() as tx:
            keys.update(tx, self.key_id, **options)


def ended(usage: Usage | None, outcome: Outcome = Outcome.COMPLETED, status: int = 200) -> Ending:
    """Return the ending of a call."""
    return Ending(outcome, NOW + timedelta(seconds=2), status, usage, duration_ms=2000)


def till_of(world: World, **options: Any) -> Iterator[Till]:
    """Open a till for a fresh key."""
    new = world.key(**options)
    with closing(world.desk.store.connect()) as connection:
        yield Till(world, connection, new.secret, new.key.id)


@pytest.fixture
def till(world: World) -> Iterator[Till]:
    """A till of an organisation with 100 USD and a key without a limit."""
    yield from till_of(world)


# -- look-up ------------------------------------------------------------------------------------------------------


def test_lookup_returns_the_facts_of_the_key(world: World) -> None:
    """A look-up by digest gives every fact that a call is judged by."""
    expiry = utc_now() + timedelta(days=3)
    for till in till_of(
        world,
        models=["gpt-test"],
        monthly_limit=usd(7),
        expires_at=expiry,
        hold_policy=HoldPolicy.EXPECTED,
    ):
        assert till.facts() == KeyFacts(
            key_id=till.key_id,
            org_id=world.org_id,
            plan_id=world.plan_id,
            version=1,
            status=KeyStatus.ACTIVE,
            org_suspended=False,
            scope=frozenset({"gpt-test"}),
            monthly_limit=usd(7),
            hold_policy=HoldPolicy.EXPECTED,
            expires_at=expiry,
        )


def test_lookup_of_an_unknown_digest_finds_nothing(till: Till) -> None:
    """A digest that is not in the table of live secrets admits nothing."""
    assert billing.lookup(till.connection, ["0" * 64]) is None
    assert billing.lookup(till.connection, []) is None


def test_lookup_tries_every_digest(till: Till) -> None:
    """A secret that was stored under an older pepper is still found."""
    (right,) = [digest.value for digest in till.world.desk.keyring.digests(till.secret)]
    found = billing.lookup(till.connection, ["0" * 64, right])
    assert found is not None
    assert found.key_id == till.key_id


def test_lookup_of_a_rotated_secret_finds_nothing_but_is_counted(till: Till) -> None:
    """A retired secret admits nothing; its uses are counted for operators."""
    with till.world.desk.write() as tx:
        keys.rotate(tx, till.world.desk.keyring, till.key_id, confirm="app")
    digests = [digest.value for digest in till.world.desk.keyring.digests(till.secret)]
    assert billing.lookup(till.connection, digests) is None
    billing.note_retired(till.connection, digests, NOW)
    billing.note_retired(till.connection, digests, NOW + timedelta(hours=1))
    retired = till.row("SELECT uses, last_used_at FROM retired_secret")
    assert retired == {"uses": 2, "last_used_at": micros(NOW + timedelta(hours=1))}


# -- admission ----------------------------------------------------------------------------------------------------


def test_an_admission_holds_against_wallet_and_limit(till: Till) -> None:
    """An admitted call's hold stands in the hold table, the wallet and the key's month."""
    call = till.call()
    assert till.admit(call, fixed(usd(3))) == Admitted(hold=usd(3), output_bound=0, fitted=False)
    assert till.org() == {"credited": usd(100), "settled": 0, "held": usd(3)}
    assert till.month() == {"calls": 0, "spent": 0, "held": usd(3), "last_call_at": micros(NOW)}
    hold = till.row("SELECT * FROM hold")
    assert (hold["request_id"], hold["instance_id"], hold["amount"], hold["limit_amount"]) == (
        call.request_id,
        INSTANCE,
        usd(3),
        usd(3),
    )
    assert (hold["month"], hold["multiplier"], hold["price_id"]) == ("2026-11", MULTIPLIER, "price_test")


def test_the_wallet_may_be_held_to_the_last_nano_and_no_further(till: Till) -> None:
    """A hold equal to what is left is admitted; one nano-USD more is a billing shortfall."""
    refusal = till.refused(till.call(), fixed(usd(100) + 1))
    assert refusal.type is RefusalType.BILLING_SHORTFALL
    assert till.connection.execute("SELECT count(*) FROM hold").fetchone()[0] == 0
    till.admit(till.call(), fixed(usd(100)))
    refusal = till.refused(till.call(), fixed(1))
    assert refusal.details == {
        "limit": "wallet",
        "balance_usd": "100",
        "held_usd": "100",
        "needed_usd": "0.000000001",
    }


def test_the_limit_may_be_held_to_the_last_nano_and_no_further(till: Till) -> None:
    """Spent + held + this hold may equal the monthly limit; one nano-USD more is refused, and says why."""
    till.update(monthly_limit=usd(10))
    till.spend(usd(4))
    till.admit(till.call(), fixed(usd(1)))
    refusal = till.refused(till.call(), fixed(usd(5) + 1))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert refusal.details == {
        "limit": "monthly_limit",
        "limit_usd": "10",
        "spent_usd": "4",
        "held_usd": "1",
        "needed_usd": "5.000000001",
        "resets_at": "2026-12-01T00:00:00Z",
    }
    till.admit(till.call(), fixed(usd(5)))
    assert till.month()["held"] == usd(6)


def test_the_limit_is_named_before_the_wallet(till: Till) -> None:
    """A call that neither the limit nor the wallet allows is refused for the limit."""
    till.update(monthly_limit=usd(1))
    assert till.refused(till.call(), fixed(usd(500))).type is RefusalType.API_KEY_QUOTA_EXCEEDED


def test_a_zero_limit_admits_what_is_free_and_nothing_paid(till: Till) -> None:
    """Under a limit of 0 a call that cannot cost anything passes; one of a nano-USD does not."""
    till.update(monthly_limit=0)
    assert till.admit(till.call(), fixed(0)).hold == 0
    assert till.refused(till.call(), fixed(1)).type is RefusalType.API_KEY_QUOTA_EXCEEDED


def test_a_free_call_passes_an_empty_wallet(till: Till) -> None:
    """Token counting works for an organisation that has no money left."""
    till.admit(till.call(), fixed(usd(100)))
    assert till.admit(till.call(), fixed(0)).hold == 0


def test_a_limit_below_what_is_spent_refuses_and_says_so(till: Till) -> None:
    """After the limit was lowered under the spend, the next paid call is refused."""
    till.spend(usd(5))
    till.update(monthly_limit=usd(2))
    refusal = till.refused(till.call(), by_token(usd(1), 10, 5000, explicit=True))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert "largest_output_bound" not in refusal.details


def test_a_default_bound_is_lowered_to_what_fits(till: Till) -> None:
    """Without a bound of the caller's own, the injected one is lowered to the most that the room allows."""
    till.update(monthly_limit=usd(1))
    each = usd(1) // 2000
    admitted = till.admit(till.call(), by_token(0, each, 8000, explicit=False))
    assert admitted == Admitted(hold=usd(1), output_bound=2000, fitted=True)


def test_a_default_bound_is_fitted_to_the_smaller_of_limit_and_wallet(till: Till) -> None:
    """The wallet can be what a bound is lowered for, though the limit has more room."""
    till.update(monthly_limit=usd(500))
    admitted = till.admit(till.call(), by_token(0, usd(100) // 3000, 8000, explicit=False))
    assert (admitted.output_bound, admitted.fitted) == (3000, True)


def test_a_default_bound_is_not_lowered_below_the_smallest(till: Till) -> None:
    """What would fit less than 1,024 tokens is refused, and the refusal names the hold that 1,024 need."""
    till.update(monthly_limit=usd(1))
    each = usd(1) // (SMALLEST_FITTED_BOUND - 1)
    refusal = till.refused(till.call(), by_token(0, each, 8000, explicit=False))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert "largest_output_bound" not in refusal.details


def test_an_explicit_bound_is_never_lowered(till: Till) -> None:
    """A caller's own bound that does not fit is refused with the bound that would."""
    till.update(monthly_limit=usd(1))
    each = usd(1) // 2000
    refusal = till.refused(till.call(), by_token(0, each, 2001, explicit=True))
    assert refusal.details["largest_output_bound"] == "2000"
    assert "2,000 tokens" in refusal.message
    assert not till.admit(till.call(), by_token(0, each, 2000, explicit=True)).fitted


def test_a_shortfall_names_the_bound_that_would_fit_the_wallet(till: Till) -> None:
    """The suggestion of a billing shortfall is computed from the wallet's room."""
    refusal = till.refused(till.call(), by_token(usd(1), usd(1), 500, explicit=True))
    assert refusal.type is RefusalType.BILLING_SHORTFALL
    assert refusal.details["largest_output_bound"] == "99"


def test_a_changed_key_makes_the_admission_stale(till: Till) -> None:
    """Facts read before an update, a disable or a rotation admit nothing."""
    call = till.call()
    till.update(monthly_limit=usd(50))
    with pytest.raises(Stale):
        till.admit(call, fixed(1))
    call = till.call()
    with till.world.desk.write() as tx:
        keys.disable(tx, till.key_id, confirm="app")
    with pytest.raises(Stale):
        till.admit(call, fixed(1))
    call = till.call()
    with till.world.desk.write() as tx:
        keys.rotate(tx, till.world.desk.keyring, till.key_id, confirm="app")
    with pytest.raises(Stale):
        till.admit(call, fixed(1))


def test_a_changed_catalog_makes_the_admission_stale(till: Till) -> None:
    """A price entered after the catalog was read sends the call back to be priced anew."""
    version, call = till.catalog_version, till.call()
    with till.world.desk.write() as tx:
        catalog.set_price(tx, "gpt-test", dollars(5))
    with pytest.raises(Stale):
        billing.admit(till.connection, call, fixed(1), catalog_version=version, instance_id=INSTANCE)


def test_a_suspended_organisation_makes_the_admission_stale(till: Till) -> None:
    """A suspension between look-up and admission is noticed."""
    call = till.call()
    till.connection.execute("UPDATE organisation SET suspended = TRUE")
    with pytest.raises(Stale):
        till.admit(call, fixed(1))


def test_a_key_that_is_not_there_makes_the_admission_stale(till: Till) -> None:
    """Facts of a key that the store does not hold admit nothing."""
    call = till.call()
    with pytest.raises(Stale):
        till.admit(replace(call, key=replace(call.key, key_id="key_none")), fixed(1))


def test_each_month_has_its_own_room(till: Till) -> None:
    """The limit starts anew with the first instant of a month, UTC; a late settlement stays in its own."""
    till.update(monthly_limit=usd(10))
    last = datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    late = till.call(received_at=last, sheet=dollars(usd(10)), multiplier=MILLION)
    till.admit(late, fixed(usd(10)))
    assert till.refused(till.call(received_at=last), fixed(1)).details["resets_at"] == "2026-12-01T00:00:00Z"
    till.admit(till.call(received_at=last + timedelta(microseconds=1)), fixed(usd(10)))
    ending = Ending(Outcome.COMPLETED, last + timedelta(minutes=5), 200, Usage())
    assert billing.settle(till.connection, late, ending) == Receipt(usd(10), 0)
    assert (till.month("2026-11")["spent"], till.month("2026-12")["spent"]) == (usd(10), 0)


def test_december_resets_in_january(till: Till) -> None:
    """A refusal in December names the next year's first month."""
    till.update(monthly_limit=0)
    refusal = till.refused(till.call(received_at=datetime(2026, 12, 31, tzinfo=UTC)), fixed(1))
    assert refusal.details["resets_at"] == "2027-01-01T00:00:00Z"


def test_the_same_request_id_is_not_admitted_twice(till: Till) -> None:
    """A request id names one hold."""
    call = till.call()
    till.admit(call, fixed(1))
    with pytest.raises(sqlite3.IntegrityError):
        till.admit(call, fixed(1))


# -- policy `expected` --------------------------------------------------------------------------------------------


def test_expected_is_strict_until_there_is_a_recent_call(till: Till) -> None:
    """With no call to learn from, the limit is held in full."""
    till.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(10))
    assert till.refused(till.call(), fixed(usd(11))).type is RefusalType.API_KEY_QUOTA_EXCEEDED
    till.admit(till.call(), fixed(usd(9)))
    assert till.month()["held"] == usd(9)


def test_expected_holds_the_likely_cost_against_the_limit_and_all_against_the_wallet(till: Till) -> None:
    """After a call of 1 USD, calls that may cost 40 hold 1 each against the limit and 40 each against the wallet."""
    till.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(60))
    till.spend(usd(1))
    till.admit(till.call(), fixed(usd(40)))
    till.admit(till.call(), fixed(usd(40)))
    assert (till.month()["held"], till.org()["held"]) == (usd(2), usd(80))
    assert till.refused(till.call(), fixed(usd(40))).type is RefusalType.BILLING_SHORTFALL


def test_expected_refuses_when_the_likely_cost_does_not_fit(till: Till) -> None:
    """The likely cost, too, must fit what is left of the limit."""
    till.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(5))
    till.spend(usd(4))
    refusal = till.refused(till.call(), fixed(usd(4)))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert refusal.details["needed_usd"] == "4"


def test_expected_admits_a_likely_cost_that_just_fits(till: Till) -> None:
    """The last of the limit may be held, to the nano-USD."""
    till.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(4))
    till.spend(usd(2))
    till.admit(till.call(), fixed(usd(50)))
    assert till.month()["held"] == usd(2)


def test_expected_never_holds_more_than_strict(till: Till) -> None:
    """A call that can cost less than the recent ones holds no more than it can cost."""
    till.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(50))
    till.spend(usd(10))
    till.admit(till.call(), fixed(usd(2)))
    assert till.month()["held"] == usd(2)


def test_expected_passes_nothing_paid_once_the_limit_is_reached(till: Till) -> None:
    """After calls that cost nothing, a call still counts as one nano-USD: a reached limit refuses it."""
    till.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(5))
    till.spend(0, hold=0)
    till.spend(usd(5), hold=usd(5))
    till.connection.execute("UPDATE recent_cost SET cost = 0")
    assert till.refused(till.call(), fixed(usd(1))).type is RefusalType.API_KEY_QUOTA_EXCEEDED


def test_expected_releases_what_it_held(till: Till) -> None:
    """A settlement takes back exactly what the admission held against limit and wallet."""
    till.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(50))
    till.spend(usd(1))
    till.spend(usd(3), hold=usd(40))
    assert (till.month()["held"], till.org()["held"], till.month()["spent"]) == (0, 0, usd(4))


def test_the_likely_cost_is_a_moving_average(till: Till) -> None:
    """Seven parts of the past and one of the last call."""
    till.spend(8000)
    till.spend(0, hold=0)
    assert till.row("SELECT cost FROM recent_cost") == {"cost": 7000}


# -- settlement ---------------------------------------------------------------------------------------------------


def test_a_settlement_charges_tokens_times_prices_times_multiplier(till: Till) -> None:
    """1,000 fresh at 2, 500 cached at 0.5 and 200 out at 10 USD a million, times 1.25, is 5,312,500 nano-USD."""
    call = till.call()
    till.admit(call, fixed(usd(1)))
    usage = Usage(input_tokens=1500, cached_input_tokens=500, output_tokens=200, reasoning_tokens=50)
    assert billing.settle(till.connection, call, ended(usage)) == Receipt(cost=5_312_500, overrun=0)
    assert till.org() == {"credited": usd(100), "settled": 5_312_500, "held": 0}
    assert till.month() == {"calls": 1, "spent": 5_312_500, "held": 0, "last_call_at": micros(NOW)}
    (row,) = till.log()
    expected = {
        "request_id": call.request_id,
        "org_id": till.world.org_id,
        "key_id": till.key_id,
        "plan_id": till.world.plan_id,
        "admitted_at": micros(NOW),
        "settled_at": micros(NOW + timedelta(seconds=2)),
        "outcome": "completed",
        "refusal": None,
        "status": 200,
        "usage_source": "reported",
        "input_tokens": 1500,
        "cached_input_tokens": 500,
        "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0,
        "output_tokens": 200,
        "reasoning_tokens": 50,
        "multiplier": MULTIPLIER,
        "input_price": usd(2),
        "cached_input_price": usd(0.5),
        "output_price": usd(10),
        "cost": 5_312_500,
        "held": usd(1),
        "overrun": 0,
        "duration_ms": 2000,
    }
    assert {name: row[name] for name in expected} == expected


def test_money_columns_hold_integers(till: Till) -> None:
    """SQLite keeps every amount as an integer, never as a real."""
    till.spend(usd(1) + 1)
    amounts = till.row(
        "SELECT typeof(o.settled) a, typeof(o.held) b, typeof(m.spent) c, typeof(x.cost) d, typeof(r.cost) e"
        " FROM organisation o, key_month m, outbox x, recent_cost r"
    )
    assert set(amounts.values()) == {"integer"}


def test_the_tier_of_the_total_input_prices_the_row(till: Till) -> None:
    """Above 2,000 input tokens all tokens cost the second tier's prices, and the row says which those were."""
    call = till.call(sheet=GEMINI_SHEET, multiplier=MILLION)
    till.admit(call, fixed(usd(1)))
    usage = Usage(input_tokens=2001, cached_input_tokens=1000, output_tokens=10)
    receipt = billing.settle(till.connection, call, ended(usage))
    assert receipt == Receipt(1001 * 2_000 + 1000 * 500 + 10 * 12_000)
    assert (till.log()[0]["input_price"], till.log()[0]["output_price"]) == (usd(2), usd(12))


def test_a_cost_above_the_hold_is_charged_in_full_and_recorded(till: Till) -> None:
    """What exceeds the hold is an overrun: charged, and named."""
    till.update(monthly_limit=usd(2))
    assert till.spend(usd(3), hold=usd(2)) == Receipt(cost=usd(3), overrun=usd(1))
    assert till.log()[0]["overrun"] == usd(1)
    assert till.month()["spent"] == usd(3)


def test_an_overrun_may_take_the_wallet_below_zero(till: Till) -> None:
    """The real cost is charged even if the wallet has less; nothing paid is admitted after it."""
    till.spend(usd(101), hold=usd(100))
    org = till.org()
    assert org["credited"] - org["settled"] == -usd(1)
    assert till.refused(till.call(), fixed(1)).details["balance_usd"] == "-1"


def test_an_ending_without_usage_charges_nothing(till: Till) -> None:
    """An upstream that broke without output costs nothing; the call counts and its hold is gone."""
    call = till.call()
    till.admit(call, fixed(usd(1)))
    ending = replace(ended(None, Outcome.UPSTREAM_ERROR, 502), refusal=RefusalType.UPSTREAM_ERROR, error="it broke")
    assert billing.settle(till.connection, call, ending) == Receipt(0, 0)
    (row,) = till.log()
    assert (row["cost"], row["held"], row["usage_source"], row["refusal"]) == (0, usd(1), None, "upstream_error")
    assert (till.month()["calls"], till.month()["held"], till.org()["held"]) == (1, 0, 0)
    assert till.connection.execute("SELECT count(*) FROM recent_cost").fetchone()[0] == 0


def test_estimated_usage_is_charged_and_named(till: Till) -> None:
    """A call whose caller left is charged by estimate, says so, and does not teach policy `expected`."""
    call = till.call()
    till.admit(call, fixed(usd(1)))
    usage = Usage(input_tokens=1000, output_tokens=0, source=UsageSource.ESTIMATED)
    assert billing.settle(till.connection, call, ended(usage, Outcome.ABORTED, 499)) == Receipt(2_500_000)
    assert till.log()[0]["usage_source"] == "estimated"
    assert till.connection.execute("SELECT count(*) FROM recent_cost").fetchone()[0] == 0


def test_a_free_call_is_settled_at_zero(till: Till) -> None:
    """A call without a price sheet costs nothing whatever it used."""
    call = till.call(sheet=None)
    till.admit(call, fixed(0))
    assert billing.settle(till.connection, call, ended(Usage(input_tokens=10**6))) == Receipt(0)
    assert till.log()[0]["input_price"] == 0


def test_a_second_settlement_writes_nothing(till: Till) -> None:
    """A call is charged once: the second settlement finds no hold and changes no table."""
    call = till.call()
    till.admit(call, fixed(usd(1)))
    billing.settle(till.connection, call, ended(Usage(input_tokens=10)))
    before = (till.org(), till.month(), till.log())
    assert billing.settle(till.connection, call, ended(Usage(input_tokens=10))) is None
    assert (till.org(), till.month(), till.log()) == before


def test_a_settlement_charges_what_was_fixed_at_admission(till: Till) -> None:
    """A new price, a lowered limit and a deleted key after admission do not change the charge."""
    call = till.call()
    till.admit(call, fixed(usd(1)))
    with till.world.desk.write() as tx:
        catalog.set_price(tx, "gpt-test", dollars(usd(50)))
        keys.update(tx, till.key_id, monthly_limit=0)
        keys.delete(tx, till.key_id, confirm="app")
    assert billing.settle(till.connection, call, ended(Usage(input_tokens=1000))) == Receipt(2_500_000)
    assert till.month()["spent"] == 2_500_000


# -- refusals -----------------------------------------------------------------------------------------------------


def test_a_refusal_is_a_row_at_no_cost(till: Till) -> None:
    """A refused call is logged with its reason and counts neither as a call nor as spend."""
    refusal = till.refused(call := till.call(), fixed(usd(1000)))
    billing.refuse(till.connection, call, refusal, NOW, catalog_version=till.catalog_version)
    (row,) = till.log()
    assert (row["outcome"], row["refusal"], row["status"], row["cost"], row["held"]) == (
        "refused",
        "billing_shortfall",
        402,
        0,
        0,
    )
    assert till.connection.execute("SELECT count(*) FROM key_month").fetchone()[0] == 0


def test_a_refusal_by_old_facts_is_stale(till: Till) -> None:
    """A refusal that a change of the key may have undone is judged again instead of logged."""
    refusal = till.refused(call := till.call(), fixed(usd(1000)))
    till.update(monthly_limit=usd(5))
    with pytest.raises(Stale):
        billing.refuse(till.connection, call, refusal, NOW, catalog_version=till.catalog_version)
    billing.refuse(till.connection, call, refusal, NOW, catalog_version=None)
    assert len(till.log()) == 1


def test_refusal_rows_are_capped_by_key_reason_and_minute(till: Till) -> None:
    """The 61st refusal of a minute is counted but not logged; another reason or minute starts anew."""
    missing = Refusal(RefusalType.MODEL_NOT_FOUND, "no such model")
    for _ in range(billing.REFUSAL_ROWS_PER_MINUTE + 5):
        billing.refuse(till.connection, till.call(), missing, NOW, catalog_version=None)
    assert len(till.log()) == billing.REFUSAL_ROWS_PER_MINUTE
    assert till.row("SELECT refused FROM refusal_count") == {"refused": 65}
    other = Refusal(RefusalType.MODEL_NOT_ALLOWED, "not in the plan")
    billing.refuse(till.connection, till.call(), other, NOW, catalog_version=None)
    billing.refuse(till.connection, till.call(), missing, NOW + timedelta(minutes=1), catalog_version=None)
    assert len(till.log()) == billing.REFUSAL_ROWS_PER_MINUTE + 2


# -- leases and sweeps --------------------------------------------------------------------------------------------


def test_a_sweep_writes_off_the_calls_of_a_dead_gateway(till: Till) -> None:
    """Its holds are released and its calls logged as abandoned at cost 0; a late settlement is lost."""
    billing.renew_lease(till.connection, "gateway_dead", NOW, NOW + timedelta(seconds=30))
    billing.renew_lease(till.connection, INSTANCE, NOW, NOW + timedelta(minutes=5))
    dead, alive = till.call(stream=True), till.call()
    till.admit(dead, fixed(usd(3)), "gateway_dead")
    till.admit(alive, fixed(usd(4)))
    assert billing.sweep(till.connection, NOW + timedelta(seconds=30)) == 0
    assert billing.sweep(till.connection, NOW + timedelta(seconds=31)) == 1
    assert (till.org()["held"], till.month()["held"], till.month()["calls"]) == (usd(4), usd(4), 1)
    (row,) = till.log()
    expected = {
        "request_id": dead.request_id,
        "key_id": till.key_id,
        "org_id": till.world.org_id,
        "plan_id": till.world.plan_id,
        "outcome": "abandoned",
        "status": 0,
        "stream": 1,
        "model": "gpt-test",
        "upstream": "test-openai",
        "cost": 0,
        "held": usd(3),
        "overrun": 0,
        "multiplier": MULTIPLIER,
        "price_id": "price_test",
        "input_tokens": 0,
        "output_price": 0,
        "usage_source": None,
        "admitted_at": micros(NOW),
    }
    assert {name: row[name] for name in expected} == expected
    assert billing.settle(till.connection, dead, ended(Usage(input_tokens=5))) is None
    assert billing.settle(till.connection, alive, ended(Usage(input_tokens=5))) is not None


def test_a_renewed_lease_keeps_the_holds(till: Till) -> None:
    """A heartbeat moves the end of the lease; the first start stays."""
    billing.renew_lease(till.connection, INSTANCE, NOW, NOW + timedelta(seconds=30))
    billing.renew_lease(till.connection, INSTANCE, NOW + timedelta(seconds=20), NOW + timedelta(seconds=50))
    till.admit(till.call(), fixed(1))
    assert billing.sweep(till.connection, NOW + timedelta(seconds=45)) == 0
    started = till.row("SELECT started_at FROM gateway_instance")["started_at"]
    assert moment(started) == NOW


def test_a_gateway_that_said_goodbye_is_swept_at_once(till: Till) -> None:
    """What a stopped instance still holds does not wait for its lease."""
    billing.renew_lease(till.connection, INSTANCE, NOW, NOW + timedelta(hours=1))
    till.admit(till.call(), fixed(usd(2)))
    billing.end_instance(till.connection, INSTANCE)
    assert billing.sweep(till.connection, NOW) == 1
    assert till.org()["held"] == 0


def test_two_organisations_share_nothing(till: Till) -> None:
    """Another organisation's holds and money do not count."""
    with till.world.desk.write() as tx:
        other = accounts.add_org(tx, "Other")
        plan = plans.find(tx, "standard")
        keys.create(tx, till.world.desk.keyring, org=other.id, name="app", plan=plan.id)
    till.admit(till.call(), fixed(usd(100)))
    with till.world.desk.read() as tx:
        found = tx.session.get(Organisation, other.id)
        assert found is not None
        assert (found.held, found.balance) == (0, 0)


def test_billing_months_are_the_rows_months(till: Till) -> None:
    """The month that a call is held in is the month of its row's admission."""
    call = till.call(received_at=datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC))
    till.admit(call, fixed(1))
    billing.settle(till.connection, call, ended(Usage()))
    assert billing_month(moment(till.log()[0]["admitted_at"])) == till.row("SELECT month FROM key_month")["month"]
