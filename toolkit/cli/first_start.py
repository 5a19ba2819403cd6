"""The first start of `keydesk up`: demo data, the first platform admin, and a key to try.

Interrupted at any moment, it is finished by the next start: the admin comes last, and until there is one every start
is the first. So that its password is not lost, the admin is made only when everything runs and can be shown.
"""

import os
import sys
from dataclasses import dataclass, field

import click

from toolkit.admin import keys, operators, organisations, plans
from toolkit.core.errors import InvalidInput
from toolkit.core.ids import random_text
from toolkit.core.money import NANO
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.demo import data
from toolkit.demo.scenario import CREDITS
from toolkit.store.actor import SYSTEM
from toolkit.store.locks import lock_catalog, lock_orgs
from toolkit.workspace import Workspace

ADMIN = "admin@keydesk.local"
KEY_NAME = "first-steps"
MODEL = "gpt-5-mini"
MONTHLY_LIMIT = 5 * NANO
BAR = 24


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a person needs after the first start; shown once, and in no repr.

    Args:
        email, password: the sign-in.
        curl: a call with a fresh key, ready to paste; None where no plan includes the demo model.
    """

    email: str
    password: str = field(repr=False)
    curl: str | None = field(repr=False)

    def text(self) -> str:
        """Return it for people."""
        lines = [f"  Sign in     {self.email}", f"  Password    {self.password}"]
        return "\n".join([*lines, "", "  A first call:", "", self.curl] if self.curl else lines)


def is_due(workspace: Workspace) -> bool:
    """Whether nobody can administer this Keydesk yet."""
    with workspace.read() as tx:
        return all(operator.role != Role.PLATFORM_ADMIN for operator in operators.list_all(tx))


def prepare(workspace: Workspace, *, quiet: bool) -> None:
    """Make the demo data; a key store that somebody has set up already gets none."""
    with workspace.read() as tx:
        names = {org.name for org in organisations.list_all(tx)}
    if not data.is_loaded(workspace) and (not names or names >= CREDITS.keys()):
        load_demo(workspace, quiet=quiet)


def load_demo(workspace: Workspace, *, quiet: bool) -> int:
    """Load the demo data, or what of it is missing, with a progress bar on a terminal; return the number of calls.

    Raises:
        InvalidInput: KEYDESK_TEST_DEMO_CALLS is not a number.
    """
    wanted = os.environ.get("KEYDESK_TEST_DEMO_CALLS", str(data.CALLS))
    if not wanted.isdigit():
        raise InvalidInput(f"KEYDESK_TEST_DEMO_CALLS={wanted!r} is not a number.")
    on_terminal = sys.stdout.isatty()

    def progress(done: int, total: int) -> None:
        if quiet or not on_terminal:
            return
        filled = BAR * done // max(total, 1)
        click.echo(f"\r  Demo data       {'█' * filled}{'░' * (BAR - filled)}  {done:,} of {total:,} calls", nl=False)

    if not quiet and not on_terminal:
        click.echo("  Demo data       loading …")
    calls = data.load(workspace, progress, calls=int(wanted))
    if not quiet:
        ready = f"  Demo data       {calls:,} calls of 90 days"
        click.echo(f"\r{ready:<76}" if on_terminal else ready)
    return calls


def finish(workspace: Workspace, gateway_url: str) -> Welcome:
    """Make the first platform admin and a key to try, in one transaction.

    Args:
        workspace: with the demo data loaded.
        gateway_url: what the call is to go to.
    """
    workspace = workspace.acting_as(SYSTEM)
    keyring = workspace.keyring
    password = random_text(16)
    hashed = hash_password(password)
    with workspace.write() as tx:
        lock_catalog(tx)
        suited = [plan for plan in plans.list_all(tx) if MODEL in plans.models(tx, plan.id)]
        payer = max(organisations.list_all(tx), key=lambda org: org.available, default=None)
        if payer is not None:
            lock_orgs(tx, payer.id)  # before the locks that the admin's row takes
        operators.add(tx, ADMIN, Role.PLATFORM_ADMIN, hashed)
        if not suited or payer is None or payer.available <= 0:
            return Welcome(ADMIN, password, None)
        new = keys.create(
            tx,
            keyring,
            org=payer.id,
            name=KEY_NAME,
            plan=min(suited, key=lambda plan: plan.multiplier).id,
            monthly_limit=MONTHLY_LIMIT,
        )
    return Welcome(ADMIN, password, _curl(gateway_url, new.secret))


def _curl(gateway_url: str, secret: str) -> str:
    return (
        f"curl {gateway_url}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {secret}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"""  -d '{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'"""
    )
