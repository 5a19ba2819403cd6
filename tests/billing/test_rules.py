"""The rules of money, judged by a real billing store of a real key store: admit, settle, refuse."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.account import (
    INSTANCE,
    MULTIPLIER,
    NOW,
    UNIQUE,
    Account,
    account,
    billing_store,
    by_token,
    dollars,
    ended,
    fixed,
)
from tests.conftest import GEMINI_SHEET, OPENAI_SHEET, examples, usd
from toolkit.admin import keys, organisations, plans
from toolkit.admin.prices import set_price
from toolkit.billing import rules
from toolkit.billing.call import Ending
from toolkit.billing.hold_estimate import SMALLEST_FITTED_BOUND
from toolkit.billing.rules import Admit, Admitted, Receipt
from toolkit.billing.state import Hold, LogRow, Stale
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.moments import micros, moment
from toolkit.core.period import billing_month
from toolkit.core.policy import HoldPolicy, Outcome
from toolkit.core.pricing import MILLION, charge
from toolkit.core.usage import OverrunReason, Usage, UsageSource
from toolkit.store.tables import HoldRow, Organisation, OutboxRow

__all__ = ["account", "billing_store"]  # fixtures

pytestmark = pytest.mark.both_stores

# -- admission ----------------------------------------------------------------------------------------------------


def test_an_admission_holds_against_wallet_and_limit(account: Account) -> None:
    """An admitted call's hold stands in the hold table, the wallet and the key's month."""
    call = account.call()
    assert account.admit(call, fixed(usd(3))) == Admitted(hold=usd(3), output_bound=0, fitted=False)
    assert account.org() == {"credited": usd(100), "settled": 0, "held": usd(3)}
    assert account.month() == {"calls": 0, "spent": 0, "held": usd(3), "last_call_at": micros(NOW)}
    (hold,) = account.holds()
    assert (hold["request_id"], hold["instance_id"], hold["amount"], hold["limit_amount"]) == (
        call.request_id,
        INSTANCE,
        usd(3),
        usd(3),
    )
    assert (hold["month"], hold["multiplier"], hold["price_id"]) == ("2026-11", MULTIPLIER, "price_test")


def test_the_wallet_may_be_held_to_the_last_nano_and_no_further(account: Account) -> None:
    """A hold equal to what is left is admitted; one nano-USD more is a billing shortfall."""
    refusal = account.refused(account.call(), fixed(usd(100) + 1))
    assert refusal.type is RefusalType.BILLING_SHORTFALL
    assert account.count("hold") == 0
    account.admit(account.call(), fixed(usd(100)))
    refusal = account.refused(account.call(), fixed(1))
    assert refusal.details == {
        "limit": "wallet",
        "balance_usd": "100",
        "held_usd": "100",
        "needed_usd": "0.000000001",
    }


def test_the_limit_may_be_held_to_the_last_nano_and_no_further(account: Account) -> None:
    """Spent + held + this hold may equal the monthly limit; one nano-USD more is refused, and says why."""
    account.update(monthly_limit=usd(10))
    account.spend(usd(4))
    account.admit(account.call(), fixed(usd(1)))
    refusal = account.refused(account.call(), fixed(usd(5) + 1))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert refusal.details == {
        "limit": "monthly_limit",
        "limit_usd": "10",
        "spent_usd": "4",
        "held_usd": "1",
        "needed_usd": "5.000000001",
        "resets_at": "2026-12-01T00:00:00Z",
    }
    account.admit(account.call(), fixed(usd(5)))
    assert account.month()["held"] == usd(6)


def test_the_limit_is_named_before_the_wallet(account: Account) -> None:
    """A call that neither the limit nor the wallet allows is refused for the limit."""
    account.update(monthly_limit=usd(1))
    assert account.refused(account.call(), fixed(usd(500))).type is RefusalType.API_KEY_QUOTA_EXCEEDED


def test_a_zero_limit_admits_what_is_free_and_nothing_paid(account: Account) -> None:
    """Under a limit of 0 a call that cannot cost anything passes; one of a nano-USD does not."""
    account.update(monthly_limit=0)
    assert account.admit(account.call(), fixed(0)).hold == 0
    assert account.refused(account.call(), fixed(1)).type is RefusalType.API_KEY_QUOTA_EXCEEDED


def test_a_free_call_passes_an_empty_wallet(account: Account) -> None:
    """Token counting works for an organisation that has no money left."""
    account.admit(account.call(), fixed(usd(100)))
    assert account.admit(account.call(), fixed(0)).hold == 0


def test_a_limit_below_what_is_spent_refuses_and_says_so(account: Account) -> None:
    """After the limit was lowered under the spend, the next paid call is refused."""
    account.spend(usd(5))
    account.update(monthly_limit=usd(2))
    refusal = account.refused(account.call(), by_token(usd(1), 10, 5000, fixed=True))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert "largest_output_bound" not in refusal.details


def test_a_default_bound_is_lowered_to_what_fits(account: Account) -> None:
    """Without a bound of the caller's own, the injected one is lowered to the most that the room allows."""
    account.update(monthly_limit=usd(1))
    each = usd(1) // 2000
    admitted = account.admit(account.call(), by_token(0, each, 8000, fixed=False))
    assert admitted == Admitted(hold=usd(1), output_bound=2000, fitted=True)


def test_a_default_bound_is_fitted_to_the_smaller_of_limit_and_wallet(account: Account) -> None:
    """The wallet can be what a bound is lowered for, though the limit has more room."""
    account.update(monthly_limit=usd(500))
    admitted = account.admit(account.call(), by_token(0, usd(100) // 3000, 8000, fixed=False))
    assert (admitted.output_bound, admitted.fitted) == (3000, True)


def test_a_default_bound_is_not_lowered_below_the_smallest(account: Account) -> None:
    """What would fit less than 1,024 tokens is refused, and the refusal names the hold that 1,024 need."""
    account.update(monthly_limit=usd(1))
    each = usd(1) // (SMALLEST_FITTED_BOUND - 1)
    refusal = account.refused(account.call(), by_token(0, each, 8000, fixed=False))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert "largest_output_bound" not in refusal.details


def test_an_explicit_bound_is_never_lowered(account: Account) -> None:
    """A caller's own bound that does not fit is refused with the bound that would."""
    account.update(monthly_limit=usd(1))
    each = usd(1) // 2000
    refusal = account.refused(account.call(), by_token(0, each, 2001, fixed=True))
    assert refusal.details["largest_output_bound"] == "2000"
    assert "2,000 tokens" in refusal.message
    assert not account.admit(account.call(), by_token(0, each, 2000, fixed=True)).fitted


def test_a_shortfall_names_the_bound_that_would_fit_the_wallet(account: Account) -> None:
    """The suggestion of a billing shortfall is computed from the wallet's room."""
    refusal = account.refused(account.call(), by_token(usd(1), usd(1), 500, fixed=True))
    assert refusal.type is RefusalType.BILLING_SHORTFALL
    assert refusal.details["largest_output_bound"] == "99"


def test_a_changed_key_makes_the_admission_stale(account: Account) -> None:
    """Facts read before an update, a disable or a rotation admit nothing."""
    call = account.call()
    account.update(monthly_limit=usd(50))
    with pytest.raises(Stale) as stale:
        account.admit(call, fixed(1))
    assert (stale.value.key, stale.value.catalog) == (True, False)
    call = account.call()
    with account.world.workspace.write() as tx:
        keys.disable(tx, account.key_id, confirm="app")
    with pytest.raises(Stale):
        account.admit(call, fixed(1))
    call = account.call()
    with account.world.workspace.write() as tx:
        keys.rotate(tx, account.world.workspace.keyring, account.key_id, confirm="app")
    with pytest.raises(Stale):
        account.admit(call, fixed(1))


def test_a_changed_catalog_makes_the_admission_stale(account: Account) -> None:
    """A price entered after the catalog was read sends the call back to be priced anew."""
    version, call = account.catalog_version, account.call()
    with account.world.workspace.write() as tx:
        set_price(tx, "gpt-test", dollars(5))
    with pytest.raises(Stale) as stale:
        account.do(Admit(call, fixed(1), version, INSTANCE))
    assert (stale.value.key, stale.value.catalog) == (False, True)


def test_a_suspended_organisation_makes_the_admission_stale(account: Account) -> None:
    """A suspension between look-up and admission is noticed."""
    call = account.call()
    account.execute("UPDATE organisation SET suspended = TRUE")
    with pytest.raises(Stale):
        account.admit(call, fixed(1))


def test_a_key_that_is_not_there_makes_the_admission_stale(account: Account) -> None:
    """Facts of a key that the store does not hold admit nothing."""
    call = account.call()
    with pytest.raises(Stale):
        account.admit(replace(call, key=replace(call.key, key_id="key_none")), fixed(1))


def test_each_month_has_its_own_room(account: Account) -> None:
    """The limit starts anew with the first instant of a month, UTC; a late settlement stays in its own."""
    account.update(monthly_limit=usd(10))
    last = datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    late = account.call(received_at=last, sheet=dollars(usd(10)), multiplier=MILLION)
    account.admit(late, fixed(usd(10)))
    assert account.refused(account.call(received_at=last), fixed(1)).details["resets_at"] == "2026-12-01T00:00:00Z"
    account.admit(account.call(received_at=last + timedelta(microseconds=1)), fixed(usd(10)))
    ending = Ending(Outcome.COMPLETED, last + timedelta(minutes=5), 200, Usage())
    assert account.settle(late, ending) == Receipt(usd(10), 0)
    assert (account.month("2026-11")["spent"], account.month("2026-12")["spent"]) == (usd(10), 0)


def test_december_resets_in_january(account: Account) -> None:
    """A refusal in December names the next year's first month."""
    account.update(monthly_limit=0)
    refusal = account.refused(account.call(received_at=datetime(2026, 12, 31, tzinfo=UTC)), fixed(1))
    assert refusal.details["resets_at"] == "2027-01-01T00:00:00Z"


def test_the_same_request_id_is_not_admitted_twice(account: Account) -> None:
    """A request id names one hold."""
    call = account.call()
    account.admit(call, fixed(1))
    with pytest.raises(UNIQUE):
        account.admit(call, fixed(1))
    assert (account.count("hold"), account.org()["held"]) == (1, 1)


# -- policy `expected` --------------------------------------------------------------------------------------------


def test_expected_is_strict_until_there_is_a_recent_call(account: Account) -> None:
    """With no call to learn from, the limit is held in full."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(10))
    assert account.refused(account.call(), fixed(usd(11))).type is RefusalType.API_KEY_QUOTA_EXCEEDED
    account.admit(account.call(), fixed(usd(9)))
    assert account.month()["held"] == usd(9)


def test_expected_holds_the_likely_cost_against_the_limit_and_all_against_the_wallet(account: Account) -> None:
    """After a call of 1 USD, calls that may cost 40 hold 1 each against the limit and 40 each against the wallet."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(60))
    account.spend(usd(1))
    account.admit(account.call(), fixed(usd(40)))
    account.admit(account.call(), fixed(usd(40)))
    assert (account.month()["held"], account.org()["held"]) == (usd(2), usd(80))
    assert account.refused(account.call(), fixed(usd(40))).type is RefusalType.BILLING_SHORTFALL


def test_expected_refuses_when_the_likely_cost_does_not_fit(account: Account) -> None:
    """The likely cost, too, must fit what is left of the limit."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(5))
    account.spend(usd(4))
    refusal = account.refused(account.call(), fixed(usd(4)))
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert refusal.details["needed_usd"] == "4"


def test_expected_admits_a_likely_cost_that_just_fits(account: Account) -> None:
    """The last of the limit may be held, to the nano-USD."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(4))
    account.spend(usd(2))
    account.admit(account.call(), fixed(usd(50)))
    assert account.month()["held"] == usd(2)


def test_expected_never_holds_more_than_strict(account: Account) -> None:
    """A call that can cost less than the recent ones holds no more than it can cost."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(50))
    account.spend(usd(10))
    account.admit(account.call(), fixed(usd(2)))
    assert account.month()["held"] == usd(2)


def test_expected_passes_nothing_paid_once_the_limit_is_reached(account: Account) -> None:
    """After calls that cost nothing, a call still counts as one nano-USD: a reached limit refuses it."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(5))
    account.spend(0, hold=0)
    account.spend(usd(5), hold=usd(5))
    account.execute("UPDATE recent_cost SET cost = 0")
    assert account.refused(account.call(), fixed(usd(1))).type is RefusalType.API_KEY_QUOTA_EXCEEDED


def test_expected_releases_what_it_held(account: Account) -> None:
    """A settlement takes back exactly what the admission held against limit and wallet."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(50))
    account.spend(usd(1))
    account.spend(usd(3), hold=usd(40))
    assert (account.month()["held"], account.org()["held"], account.month()["spent"]) == (0, 0, usd(4))


def test_the_likely_cost_is_a_moving_average(account: Account) -> None:
    """Seven parts of the past and one of the last call."""
    account.update(hold_policy=HoldPolicy.EXPECTED)
    account.spend(8000)
    account.spend(0, hold=0)
    assert account.row("SELECT cost FROM recent_cost") == {"cost": 7000}


def test_a_strict_key_learns_no_likely_cost(account: Account) -> None:
    """What only policy `expected` asks for is written for its keys alone."""
    account.spend(8000)
    assert account.count("recent_cost") == 0


def test_the_likely_cost_is_of_one_model(account: Account) -> None:
    """What a cheap model cost says nothing of another one: that is held in full."""
    account.update(hold_policy=HoldPolicy.EXPECTED)
    account.spend(8000)
    account.admit(account.call(model="other-test"), fixed(usd(5)))
    account.admit(account.call(), fixed(usd(5)))
    assert account.month()["held"] == usd(5) + 8000


# -- settlement ---------------------------------------------------------------------------------------------------


def test_a_settlement_charges_tokens_times_prices_times_multiplier(account: Account) -> None:
    """1,000 fresh at 2, 500 cached at 0.5 and 200 out at 10 USD a million, times 1.25, is 5,312,500 nano-USD."""
    call = account.call()
    account.admit(call, fixed(usd(1)))
    usage = Usage(input_tokens=1500, cached_input_tokens=500, output_tokens=200, reasoning_tokens=50)
    assert account.settle(call, ended(usage)) == Receipt(cost=5_312_500, overrun=0)
    assert account.org() == {"credited": usd(100), "settled": 5_312_500, "held": 0}
    assert account.month() == {"calls": 1, "spent": 5_312_500, "held": 0, "last_call_at": micros(NOW)}
    (row,) = account.log()
    expected = {
        "request_id": call.request_id,
        "org_id": account.world.org_id,
        "key_id": account.key_id,
        "plan_id": account.world.plan_id,
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


def test_money_columns_hold_integers(account: Account) -> None:
    """The store keeps every amount as an integer, never as a real."""
    account.update(hold_policy=HoldPolicy.EXPECTED)
    account.spend(usd(1) + 1)
    kind = "CAST(pg_typeof({0}) AS text)" if account.world.workspace.store.is_postgres else "typeof({0})"
    amounts = ("o.settled", "o.held", "m.spent", "m.held", "x.cost", "x.held", "r.cost")
    columns = ", ".join(f"{kind.format(name)} AS kind_{number}" for number, name in enumerate(amounts))
    kinds = account.row(f"SELECT {columns} FROM organisation o, key_month m, outbox x, recent_cost r")
    assert set(kinds.values()) <= {"integer", "bigint"}


def test_the_tier_of_the_total_input_prices_the_row(account: Account) -> None:
    """Above 2,000 input tokens all tokens cost the second tier's prices, and the row says which those were."""
    call = account.call(sheet=GEMINI_SHEET, multiplier=MILLION)
    account.admit(call, fixed(usd(1)))
    usage = Usage(input_tokens=2001, cached_input_tokens=1000, output_tokens=10)
    receipt = account.settle(call, ended(usage))
    assert receipt == Receipt(1001 * 2_000 + 1000 * 500 + 10 * 12_000)
    assert (account.log()[0]["input_price"], account.log()[0]["output_price"]) == (usd(2), usd(12))


def test_a_cost_above_the_hold_is_charged_in_full_and_recorded(account: Account) -> None:
    """What exceeds the hold is an overrun: charged, and named."""
    account.update(monthly_limit=usd(2))
    assert account.spend(usd(3), hold=usd(2)) == Receipt(cost=usd(3), overrun=usd(1))
    assert account.log()[0]["overrun"] == usd(1)
    assert account.month()["spent"] == usd(3)


@pytest.mark.parametrize(
    ("cost", "unknown_fields", "reason"),
    [(3, False, "context_window"), (3, True, "unknown_field"), (2, True, None)],
)
def test_an_overrun_says_why(account: Account, cost: int, unknown_fields: bool, reason: str | None) -> None:
    """A cost above the hold has the ending's reason, or that unknown fields were passed; one within it has none."""
    call = account.call(sheet=dollars(usd(cost)), multiplier=MILLION, unknown_fields=unknown_fields)
    account.admit(call, fixed(usd(2)))
    account.settle(call, replace(ended(Usage()), overrun_reason=OverrunReason.CONTEXT_WINDOW))
    assert account.log()[0]["overrun_reason"] == reason


def test_a_doubt_and_what_the_provider_reported_are_kept(account: Account) -> None:
    """The row of a call whose usage is doubtful has a reason, and the provider's report without our keys."""
    call = account.call()
    account.admit(call, fixed(usd(1)))
    reported = f'{{"input_tokens":-5,"{account.secret}":1}}'
    account.settle(call, replace(ended(Usage()), usage_doubt="input_tokens is -5", provider_usage=reported))
    (row,) = account.log()
    assert row["usage_doubt"] == "input_tokens is -5"
    assert row["provider_usage"].startswith('{"input_tokens":-5,')
    assert account.secret not in row["provider_usage"]


def test_an_overrun_may_take_the_wallet_below_zero(account: Account) -> None:
    """The real cost is charged even if the wallet has less; nothing paid is admitted after it."""
    account.spend(usd(101), hold=usd(100))
    org = account.org()
    assert org["credited"] - org["settled"] == -usd(1)
    assert account.refused(account.call(), fixed(1)).details["balance_usd"] == "-1"


def test_an_ending_without_usage_charges_nothing(account: Account) -> None:
    """An upstream that broke without output costs nothing; the call counts and its hold is gone."""
    call = account.call()
    account.admit(call, fixed(usd(1)))
    ending = replace(ended(None, Outcome.UPSTREAM_ERROR, 502), refusal=RefusalType.UPSTREAM_ERROR, error="it broke")
    assert account.settle(call, ending) == Receipt(0, 0)
    (row,) = account.log()
    assert (row["cost"], row["held"], row["usage_source"], row["refusal"]) == (0, usd(1), None, "upstream_error")
    assert (account.month()["calls"], account.month()["held"], account.org()["held"]) == (1, 0, 0)
    assert account.count("recent_cost") == 0


def test_estimated_usage_is_charged_and_named(account: Account) -> None:
    """A call whose caller left is charged by estimate, says so, and does not teach policy `expected`."""
    call = account.call()
    account.admit(call, fixed(usd(1)))
    usage = Usage(input_tokens=1000, output_tokens=0, source=UsageSource.ESTIMATED)
    assert account.settle(call, ended(usage, Outcome.ABORTED, 499)) == Receipt(2_500_000)
    assert account.log()[0]["usage_source"] == "estimated"
    assert account.count("recent_cost") == 0


def test_a_free_call_is_settled_at_zero(account: Account) -> None:
    """A call without a price sheet costs nothing whatever it used."""
    call = account.call(sheet=None)
    account.admit(call, fixed(0))
    assert account.settle(call, ended(Usage(input_tokens=10**6))) == Receipt(0)
    assert account.log()[0]["input_price"] == 0


def test_a_second_settlement_writes_nothing(account: Account) -> None:
    """A call is charged once: the second settlement finds no hold and changes no table."""
    call = account.call()
    account.admit(call, fixed(usd(1)))
    account.settle(call, ended(Usage(input_tokens=10)))
    before = (account.org(), account.month(), account.log())
    assert account.settle(call, ended(Usage(input_tokens=10))) is None
    assert (account.org(), account.month(), account.log()) == before


def test_a_settlement_charges_what_was_fixed_at_admission(account: Account) -> None:
    """A new price, a lowered limit and a deleted key after admission do not change the charge."""
    call = account.call()
    account.admit(call, fixed(usd(1)))
    with account.world.workspace.write() as tx:
        set_price(tx, "gpt-test", dollars(usd(50)))
        keys.update(tx, account.key_id, monthly_limit=0)
        keys.delete(tx, account.key_id, confirm="app")
    assert account.settle(call, ended(Usage(input_tokens=1000))) == Receipt(2_500_000)
    assert account.month()["spent"] == 2_500_000


# -- refusals -----------------------------------------------------------------------------------------------------


def test_a_refusal_is_a_row_at_no_cost(account: Account) -> None:
    """A refused call is logged with its reason and counts neither as a call nor as spend."""
    refusal = account.refused(call := account.call(), fixed(usd(1000)))
    account.refuse(call, refusal, NOW, catalog_version=account.catalog_version)
    (row,) = account.log()
    assert (row["outcome"], row["refusal"], row["status"], row["cost"], row["held"]) == (
        "refused",
        "billing_shortfall",
        402,
        0,
        0,
    )
    assert account.count("key_month") == 0


def test_a_refusal_by_old_facts_is_stale(account: Account) -> None:
    """A refusal that a change of the key may have undone is judged again instead of logged."""
    refusal = account.refused(call := account.call(), fixed(usd(1000)))
    account.update(monthly_limit=usd(5))
    with pytest.raises(Stale):
        account.refuse(call, refusal, NOW, catalog_version=account.catalog_version)
    account.refuse(call, refusal, NOW, catalog_version=None)
    assert len(account.log()) == 1


def test_refusal_rows_are_capped_by_key_reason_and_minute(account: Account) -> None:
    """The 61st refusal of a minute is counted but not logged; another reason or minute starts anew."""
    missing = Refusal(RefusalType.MODEL_NOT_FOUND, "no such model")
    for _ in range(rules.REFUSAL_ROWS_PER_MINUTE + 5):
        account.refuse(account.call(), missing, NOW, catalog_version=None)
    assert len(account.log()) == rules.REFUSAL_ROWS_PER_MINUTE
    assert account.row("SELECT refused FROM refusal_count") == {"refused": 65}
    other = Refusal(RefusalType.MODEL_NOT_ALLOWED, "not in the plan")
    account.refuse(account.call(), other, NOW, catalog_version=None)
    account.refuse(account.call(), missing, NOW + timedelta(minutes=1), catalog_version=None)
    assert len(account.log()) == rules.REFUSAL_ROWS_PER_MINUTE + 2


def test_a_refusal_of_a_dead_key_needs_no_current_facts(account: Account) -> None:
    """A call with a deleted key is still logged, by the facts that its secret once had."""
    call = account.call()
    with account.world.workspace.write() as tx:
        keys.delete(tx, account.key_id, confirm="app")
    account.refuse(call, Refusal(RefusalType.UNAUTHORIZED, "dead"), NOW, catalog_version=None)
    assert [row["refusal"] for row in account.log()] == ["unauthorized"]


# -- what is written ----------------------------------------------------------------------------------------------


def test_a_secret_in_a_models_name_or_an_error_is_not_logged(account: Account) -> None:
    """A caller may mistake their secret for a model's name, and an upstream repeat it in its error."""
    call = account.call(model=account.secret)
    account.admit(call, fixed(1))
    account.settle(call, replace(ended(None, Outcome.UPSTREAM_ERROR, 502), error=f"no model {account.secret}"))
    account.refuse(
        account.call(model=account.secret),
        Refusal(RefusalType.MODEL_NOT_FOUND, f"no model {account.secret}"),
        NOW,
        catalog_version=None,
    )
    assert len(account.log()) == 2
    assert not any(account.secret in str(row.values()) for row in account.log())


TEXTS = st.one_of(
    st.none(), st.text(max_size=20), st.sampled_from(["\0", "a\0b", "\ud800", "\U0001f511", "'; --", "{,}"])
)
COUNTS = st.integers(0, 10**7)
TOKENS = ["input", "cached_input", "cache_write_5m", "cache_write_1h", "output", "reasoning"]
USAGES = st.builds(Usage, **{f"{name}_tokens": COUNTS for name in TOKENS})


@examples(25)
@given(response_id=TEXTS, error=TEXTS, usage=USAGES, milliseconds=COUNTS)
def test_whatever_an_upstream_says_can_be_charged(
    account: Account, response_id: str | None, error: str | None, usage: Usage, milliseconds: int
) -> None:
    """No answer can keep its own charge from being written, and the row holds the very numbers that were charged."""
    call = account.call()
    account.admit(call, fixed(0))
    ending = replace(ended(usage), response_id=response_id, error=error, first_byte_ms=milliseconds)
    cost = charge(usage, OPENAI_SHEET, MULTIPLIER)
    assert account.settle(call, ending) == Receipt(cost, overrun=cost)
    row = account.row("SELECT * FROM outbox WHERE request_id = :id", id=call.request_id)
    assert (row["cost"], row["first_byte_ms"]) == (cost, milliseconds)
    assert all(row[f"{name}_tokens"] == getattr(usage, f"{name}_tokens") for name in TOKENS)
    for kept, said in ((row["response_id"], response_id), (row["error"], error)):
        assert len(kept or "") == len(said or "")
        if said and said.isprintable():
            assert kept == said


@pytest.mark.parametrize(("row", "table"), [(Hold, HoldRow), (LogRow, OutboxRow)])
def test_rows_have_the_columns_of_their_table(row: Any, table: Any) -> None:
    """Rows are written by position: the tuple's fields are the table's columns, in order, null where it may be."""
    assert list(row._fields) == [column.name for column in table.__table__.columns]
    optional = [name for name, kind in row.__annotations__.items() if not isinstance(kind, type)]
    assert optional == [column.name for column in table.__table__.columns if column.nullable]


def test_two_organisations_share_nothing(account: Account) -> None:
    """Another organisation's holds and money do not count."""
    with account.world.workspace.write() as tx:
        other = organisations.add(tx, "Other")
        plan = plans.find(tx, "standard")
        keys.create(tx, account.world.workspace.keyring, org=other.id, name="app", plan=plan.id)
    account.admit(account.call(), fixed(usd(100)))
    with account.world.workspace.read() as tx:
        found = tx.session.get(Organisation, other.id)
        assert found is not None
        assert (found.held, found.balance) == (0, 0)


def test_billing_months_are_the_rows_months(account: Account) -> None:
    """The month that a call is held in is the month of its row's admission."""
    call = account.call(received_at=datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC))
    account.admit(call, fixed(1))
    account.settle(call, ended(Usage()))
    assert billing_month(moment(account.log()[0]["admitted_at"])) == account.row("SELECT month FROM key_month")["month"]
