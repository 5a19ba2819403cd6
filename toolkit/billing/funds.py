"""Is there anything left to pay a call with? Asked before a body is read whose call cannot be free. Pure."""

from dataclasses import dataclass

from toolkit.billing.refusal_messages import quota_exceeded, wallet_shortfall
from toolkit.billing.state import BatchState, Month, RowsWanted
from toolkit.core.policy import KeyFacts


@dataclass(slots=True)
class Afford:
    """Refuse a call that no hold can be placed for, however small.

    Args:
        month: billing month.
        catalog_version: of the catalog by which no model is free that the key may call.
    """

    key: KeyFacts
    month: str
    catalog_version: int

    def want(self, wanted: RowsWanted) -> None:
        """Ask for the wallet, the key and its month."""
        wanted.orgs.add(self.key.org_id)
        wanted.keys.add(self.key.key_id)
        wanted.months.add((self.key.key_id, self.month))

    def judge(self, batch: BatchState) -> None:
        """Look at what is left; nothing is held.

        Raises:
            Stale: key or catalog have changed; look up and try again.
            Refusal: the monthly limit or the wallet has nothing left.
        """
        limit = batch.require_current(self.key, self.catalog_version).monthly_limit
        month = batch.months.get((self.key.key_id, self.month)) or Month()
        if limit is not None and limit - month.counted - month.held <= 0:
            raise quota_exceeded(limit, month.counted, month.held, None, self.month, None)
        wallet = batch.wallets[self.key.org_id]
        if wallet.balance - wallet.held <= 0:
            raise wallet_shortfall(wallet.balance, wallet.held, None, None)
