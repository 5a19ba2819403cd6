"""The pages: one row for each, from which the menu, the addresses and the tests go."""

from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from toolkit.core.policy import Role


class Page(NamedTuple):
    """One page.

    Args:
        name: of its file in this folder, and its address: `/keys` is drawn by `keys.py`.
        title: in the menu and on the browser's tab.
        section: of the menu; pages of one section stand together.
        icon: a name of Material Symbols.
        help: one sentence on what it answers, shown in the menu under the mouse.
        roles: who has it in the menu; for others there is no such page.
        hidden: whether the menu leaves it out: something else leads there.
    """

    name: str
    title: str
    section: str
    icon: str
    help: str
    roles: tuple[Role, ...] = tuple(Role)
    hidden: bool = False

    @property
    def file(self) -> Path:
        """The file that draws it."""
        return Path(__file__).with_name(f"{self.name}.py")


PAGES = (
    Page("overview", "Overview", "Watch", "monitoring", "Wallet, this month's spend, and why calls were refused."),
    Page("spend", "Spend", "Watch", "query_stats", "Who and what it went to, what changed, and what is to come."),
    Page("requests", "Requests", "Watch", "receipt_long", "Each call: what it used, and what it cost."),
    Page("findings", "Findings", "Watch", "policy_alert", "What the audits found, how grave it is, and what to do."),
    Page("keys", "Keys", "Manage", "key", "Create, change, rotate and stop API keys."),
    Page("wallet", "Wallet", "Manage", "account_balance_wallet", "What there is, how long it lasts, what was booked."),
    Page("models", "Models & prices", "Manage", "sell", "What keys may call, what it costs, and what a call would."),
    Page("plans", "Plans", "Manage", "style", "Which models a key may call, and at which multiple of the price."),
    Page(
        "upstreams",
        "Upstreams",
        "Manage",
        "dns",
        "The providers that calls go to: how each does, and what is known of it.",
        (Role.PLATFORM_ADMIN,),
    ),
    Page("alerts", "Alerts", "Manage", "notifications", "Who is told when a threshold is passed, and what was told."),
    Page(
        "organisations",
        "Organisations",
        "Govern",
        "domain",
        "Who they are, what they have and spend, and whether their keys may call.",
        (Role.PLATFORM_ADMIN,),
    ),
    Page(
        "operators",
        "Operators",
        "Govern",
        "group",
        "Who may sign in, with which role; invite, change, remove.",
        (Role.PLATFORM_ADMIN, Role.ORG_ADMIN),
    ),
    Page("month_close", "Month close", "Govern", "event_available", "Which months wait, and what statements say."),
    Page("reconciliation", "Reconciliation", "Govern", "balance", "Whether the books balance, and stuck holds."),
    Page("audit_log", "Audit log", "Govern", "history", "Who did what, with the facts before and after."),
    Page(
        "health",
        "Settings & health",
        "Govern",
        "monitor_heart",
        "Which gateways run, how the stores stand, and which settings hold.",
        (Role.PLATFORM_ADMIN,),
    ),
    Page("account", "Account", "Govern", "person", "Where you are signed in, and your password.", hidden=True),
)
"""In the menu's order. The first is the front page, at the address `/`."""


def by_section(role: Role) -> dict[str, list[Page]]:
    """Return the pages that a role has, by the menu's sections."""
    mine = [page for page in PAGES if role in page.roles]
    return {section: list(pages) for section, pages in groupby(mine, lambda page: page.section)}


def titled(title: str, role: Role) -> Page | None:
    """Return the page with this title, if there is one that a role has."""
    return next((page for page in PAGES if page.title == title and role in page.roles), None)
