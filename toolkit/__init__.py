"""Keydesk: issue, meter, cap and audit the API keys of an LLM gateway.

| question | module |
|---|---|
| How is a secret made, hashed, recognised? | `credentials`, `peppers` |
| What does a call cost? What can it cost at most? | `pricing`, `estimate` |
| How do I create, rotate, disable, delete a key? | `keys` |
| Who may do what? How do they come and go? | `accounts`, `operators` |
| When is a call admitted, and how is it charged? | `billing`, run by the `cashier` |
| What happens when a gateway dies? | `leases` |
| How do SQLite and PostgreSQL differ? | `engines`, `database`, `tills` |
| What happens to a call on its way through? | `gateway` |
| How does each provider's wire format read? | `dialects` |
| Where do models, prices and plans come from? | `catalog`, `plans` |
| Who spent what? | `ledger`, `reports`, `charts` |
| Why did it change? What did caching save? | `attribution`, with `effects` |
| What would it have cost under another plan? | `whatif` |
| What will it cost? What is unlike the past? | `forecast` (`outlook`, `prediction`), `anomalies` |
| What should be looked into, and by whom? | `findings` (`hygiene`, `activity`, `soundness`, `doubts`, `repricing`) |
| How is a month closed, and a provider's invoice checked? | `statements`, `invoices` |
| How does the request log get out? | `exports`, `focus` |
| Which team or feature was it? | `tags` |
| Do the books balance? What is still held? | `reconcile`, `caps`, `holds` |
| Who did what, and was the log changed? | `audit` |

In a notebook: `import toolkit; desk = toolkit.open()`, which only reads.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.workspace import Desk

__version__ = "0.1.0"


def open(*, write: bool = False, actor: str | None = None) -> "Desk":  # noqa: A001 - `toolkit.open()` is what an analyst types
    """Open Keydesk as the environment's settings say; the front door for notebooks.

    Args:
        write: whether anything may be changed. Without it the database itself refuses, and so does every service.
        actor: in whose name, such as an e-mail address; the audit log shows `cli:<user of the machine> as <actor>`.

    Raises:
        KeydeskError: a setting is wrong, or the key store cannot be opened.
    """
    from toolkit.store.database import Actor
    from toolkit.workspace import Desk

    return Desk.open(actor=Actor.trusted(actor), write=write)
