"""What a person can do about a finding: which dialog of a key, or which page, has the act that it asks for."""

import re
from typing import NamedTuple

from toolkit.checks.finding import Finding
from toolkit.core.policy import Role
from toolkit.dashboard import pages
from toolkit.dashboard.pages import Page

_COMMAND = re.compile(r"`(keydesk [^`]+)`")

_OF_KEYS = {
    "key-never-used": ("Delete", "Disable"),
    "key-unused": ("Disable",),
    "key-no-limit": ("Edit",),
    "key-limit-high": ("Edit",),
    "key-limit-near": ("Edit",),
    "key-scope-wide": ("Edit",),
    "key-not-rotated": ("Rotate",),
    "key-expired": ("Delete", "Edit"),
    "key-secret-in-url": ("Rotate",),
    "key-old-secret-used": ("Details",),
    "key-plan-change": ("Edit",),
}
"""The dialogs of `key_dialogs` that a finding on a key opens, the most fitting first."""

_LABELS = {
    "Details": ("Show the key", "info"),
    "Edit": ("Edit options", "edit"),
    "Rotate": ("Rotate secret", "autorenew"),
    "Disable": ("Disable the key", "pause_circle"),
    "Delete": ("Delete the key", "delete"),
}

_PAGE_OF = {
    "plan": "Plans",
    "model": "Models & prices",
    "upstream": "Upstreams",
    "operator": "Operators",
    "organisation": "Organisations",
    "gateway": "Reconciliation",
    "books": "Reconciliation",
    "chain": "Audit log",
}
"""Titles of the pages on which something is done about a subject, by its kind."""

_PAGE_OF_CHECK = {"payment-repeated": "Wallet", "operator-trusted-acts": "Audit log"}


class Dialog(NamedTuple):
    """A button that opens a dialog of a key.

    Args:
        name: in `key_dialogs.DIALOGS`.
        label, icon: of the button.
    """

    name: str
    label: str
    icon: str


def dialogs_for(finding: Finding, role: Role) -> list[Dialog]:
    """Return the dialogs that somebody with this role may act in, the most fitting first; none for what is no key's."""
    if finding.kind != "key":
        return []
    names = _OF_KEYS.get(finding.check, ("Details",))
    if role is Role.ANALYST or finding.subject.endswith(" (deleted)"):
        names = ("Details",)
    return [Dialog(name, *_LABELS[name]) for name in names]


def page_for(finding: Finding, role: Role) -> Page | None:
    """Return the page on which something is done about a finding, if this role has it."""
    title = _PAGE_OF_CHECK.get(finding.check) or _PAGE_OF.get(finding.kind)
    return pages.titled(title, role) if title else None


def address_of(finding: Finding, page: Page) -> dict[str, str]:
    """Return the parameters under which a page shows what a finding is about."""
    if page.title == "Audit log" and finding.kind == "operator":
        return {"actor": finding.subject, "period": "All"}
    return {page.name.removesuffix("s"): finding.subject_id} if page.title == "Upstreams" else {}


def commands_in(action: str) -> list[str]:
    """Return the commands that an action names and that can be run as they are: those without a word to fill in."""
    return [command for command in dict.fromkeys(_COMMAND.findall(action)) if not re.search(r"\b[A-Z]{3,}\b", command)]
