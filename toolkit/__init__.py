"""Keydesk: issue, meter, cap and audit the API keys of an LLM gateway.

| question | module |
|---|---|
| How is a secret made, hashed, recognised? | `credentials` |
| What does a call cost? What can it cost at most? | `pricing`, `estimate` |
| How do I create, rotate, disable, delete a key? | `keys` |
| Who may do what? | `accounts` |
| When is a call admitted, and how is it charged? | `billing`, run by the `cashier` |
| What happens when a gateway dies? | `leases` |
| How do SQLite and PostgreSQL differ? | `engines`, `database`, `tills` |
| What happens to a call on its way through? | `gateway` |
| How does each provider's wire format read? | `dialects` |
| Where do models, prices and plans come from? | `catalog`, `plans` |
| Who spent what? | `ledger`, `reports`, `charts` |
| Do the books balance? What is still held? | `reconcile`, `caps`, `holds` |
| Who did what, and was the log changed? | `audit` |

In a notebook: `import toolkit; desk = toolkit.open()`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.desk import Desk

__version__ = "0.1.0"


def open() -> "Desk":  # noqa: A001 - `toolkit.open()` is what an analyst types
    """Open Keydesk as the environment's settings say; the front door for notebooks.

    Raises:
        KeydeskError: a setting is wrong, or the key store cannot be opened.
    """
    from toolkit.desk import Desk

    return Desk.open()
