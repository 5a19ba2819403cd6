"""Before a body is read: a key with nothing left is told so, by the state of that moment."""

from dataclasses import replace

import pytest

from tests.account import NOW, Account, account, billing_store, fixed
from tests.conftest import usd
from toolkit.admin import plans, wallet
from toolkit.billing.funds import Afford
from toolkit.billing.state import Stale
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.period import billing_month
from toolkit.core.pricing import PriceSheet, Tier

__all__ = ["account", "billing_store"]  # fixtures

pytestmark = pytest.mark.both_stores


def afford(account: Account) -> None:
    """Ask by the facts as they are now."""
    account.do(Afford(account.facts(), billing_month(NOW), account.catalog_version))


def refused(account: Account) -> Refusal:
    """Ask, and be refused."""
    with pytest.raises(Refusal) as caught:
        afford(account)
    return caught.value


def test_a_wallet_without_a_nano_left_is_refused_until_the_next_credit(account: Account) -> None:
    """What is held is not left; the refusal is the wallet's, without what the call would need."""
    account.admit(account.call(), fixed(usd(100) - 1))
    afford(account)
    account.admit(account.call(), fixed(1))
    refusal = refused(account)
    assert refusal.type is RefusalType.BILLING_SHORTFALL
    assert refusal.details == {"limit": "wallet", "balance_usd": "100", "held_usd": "100"}
    assert "nothing is left" in refusal.message
    with account.world.workspace.write() as tx:
        wallet.credit(tx, account.world.org_id, 1, "one nano-USD")
    afford(account)
    assert account.count("hold") == 2  # asking holds nothing


def test_a_limit_without_a_nano_left_is_refused_until_it_is_raised(account: Account) -> None:
    """Spent and held together may reach the limit; then the refusal is the limit's."""
    account.update(monthly_limit=usd(10))
    account.spend(usd(4))
    account.admit(account.call(), fixed(usd(6) - 1))
    afford(account)
    account.admit(account.call(), fixed(1))
    refusal = refused(account)
    assert refusal.type is RefusalType.API_KEY_QUOTA_EXCEEDED
    assert refusal.details == {
        "limit": "monthly_limit",
        "limit_usd": "10",
        "spent_usd": "4",
        "held_usd": "6",
        "resets_at": "2026-12-01T00:00:00Z",
    }
    account.update(monthly_limit=usd(10) + 1)
    afford(account)


def test_old_facts_refuse_nobody(account: Account) -> None:
    """A key or a catalog that changed since it was read is read anew first: a model may be free by now."""
    account.update(monthly_limit=0)
    facts, version = account.facts(), account.catalog_version
    account.update(monthly_limit=1)
    with pytest.raises(Stale):
        account.do(Afford(facts, billing_month(NOW), version))
    with account.world.workspace.write() as tx:
        plans.update(tx, account.world.plan_id, multiplier=0)
    with pytest.raises(Stale):
        account.do(Afford(account.facts(), billing_month(NOW), version))


FREE = PriceSheet.flat(input=0, output=0)


@pytest.mark.parametrize(
    ("sheet", "chat", "embeddings"),
    [
        (FREE, False, False),
        (replace(FREE, request=1), True, True),
        (PriceSheet.flat(input=1, output=0), True, True),
        (PriceSheet.flat(input=0, output=1), True, False),
        (PriceSheet((Tier(0, 0, 0, 0, 0, 0), Tier(10, 5, 5, 5, 5, 5))), False, False),
    ],
)
def test_what_always_costs(sheet: PriceSheet, *, chat: bool, embeddings: bool) -> None:
    """A model always costs something if each of its tiers does, whatever the call has."""
    assert (sheet.always_costs(output=True), sheet.always_costs(output=False)) == (chat, embeddings)
