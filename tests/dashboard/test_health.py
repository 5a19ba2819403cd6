"""The page Settings & health: who has it, and what it says."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.conftest import World
from tests.dashboard.conftest import Visit
from toolkit import environment
from toolkit.billing import leases
from toolkit.core.policy import Role
from toolkit.dashboard.pages import titled

Open = Callable[..., Visit]


def test_it_says_what_runs_and_what_is_set(visit: Open, world: World) -> None:
    """A gateway with its version; what is missing with the command; settings with where they come from."""
    with world.workspace.write() as tx:
        leases.renew(tx, "instance_seen", timedelta(minutes=1), environment.version())
    page = visit("health")
    assert f"instance_seen alive {environment.version()}" in page.text
    assert "Nobody sends alerts: start keydesk alerts run" in page.text
    settings = page.app.dataframe[0].value.set_index("Setting")
    assert settings.loc["KEYDESK_DATA_DIR", "From"] == "environment"
    assert settings.loc["KEYDESK_HOST", "From"] == "default"


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_no_other_role_has_it(visit: Open, world: World, role: Role) -> None:
    """It is not in the menu, and there is no such page."""
    assert titled("Settings & health", role) is None
    page = visit("overview", role, world.org_id)
    with pytest.raises(ValueError, match="Could not find a navigation page"):
        page.app.switch_page("toolkit/dashboard/health.py")
