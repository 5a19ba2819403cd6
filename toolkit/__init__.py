"""Keydesk: issue, meter, cap and audit the API keys of an LLM gateway.

| question | where |
|---|---|
| How is a secret made, hashed, recognised? | `core.secrets`, `core.passwords`, `admin.peppers`, `admin.secret_lookup` |
| What does a call cost? What can it cost at most? | `core.pricing`, `core.money`, `billing.hold_estimate` |
| How do I create, rotate, disable, delete a key? | `admin.keys` |
| Who may do what? How do they come and go? | `admin.rights`, `admin.organisations`, `admin.operators` |
| When is a call admitted, and how is it charged? | `billing.rules`, run by `billing.batcher` |
| What happens when a gateway dies? | `billing.leases` |
| How do SQLite and PostgreSQL differ? | `store.engines`, `store.database`, `billing.stores` |
| What happens to a call on its way through? | `gateway` |
| How does each provider's wire format read? | `dialects` |
| Where do models, prices and plans come from? | `admin.upstreams`, `admin.models`, `admin.prices`, `admin.plans` |
| Who spent what? Why did it change? | `ledger`, `reports` |
| What will it cost? What is unlike the past? | `forecast` |
| What should be looked into, and by whom? | `checks.findings` |
| Does the money add up? | `checks.reconcile` |
| How is a month closed, and a provider's invoice checked? | `statements` |
| Who did what, and was the log changed? | `store.audit` |
| What does a new version do to an older store? | `store.migrations`, `store.steps`, `store.copies` |

Packages import downwards only, as `pyproject.toml` has it: `core` is at the bottom, front ends are at the top.

In a notebook: `import toolkit; workspace = toolkit.open()`, which only reads.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.workspace import Workspace

__version__ = "0.1.0"


def open(*, write: bool = False, actor: str | None = None) -> "Workspace":  # noqa: A001 - `toolkit.open()` is what an analyst types
    """Open Keydesk as the environment's settings say; the front door for notebooks.

    Args:
        write: whether anything may be changed. Without it the database itself refuses, and so does every service.
        actor: in whose name, such as an e-mail address; the audit log shows `cli:<user of the machine> as <actor>`.

    Raises:
        KeydeskError: a setting is wrong, or the key store cannot be opened.
    """
    from toolkit.store.actor import Actor
    from toolkit.workspace import Workspace

    return Workspace.open(actor=Actor.trusted(actor), write=write)
