"""The menu and the addresses: one row of `pages.PAGES` for each page, and one table of tests over them."""

from collections.abc import Callable

import pytest

from tests.conftest import World
from tests.dashboard.conftest import Visit
from toolkit.core.policy import Role
from toolkit.dashboard.pages import PAGES, by_section

Open = Callable[..., Visit]


def test_every_page_has_its_own_address_and_title() -> None:
    """No two share one, each has its file, and a section's pages stand together."""
    assert len({page.name for page in PAGES}) == len({page.title for page in PAGES}) == len(PAGES)
    assert all(page.file.is_file() for page in PAGES)
    assert [page for pages in by_section(Role.PLATFORM_ADMIN).values() for page in pages] == list(PAGES)


@pytest.mark.parametrize("role", Role)
def test_every_page_opens_for_each_role_under_its_title(visit: Open, world: World, role: Role) -> None:
    """On an installation without calls each page is drawn, with its title as heading."""
    world.key("watched")
    org = None if role is Role.PLATFORM_ADMIN else world.org_id
    page = visit("overview", role, org)
    for each in PAGES:
        if role not in each.roles:
            continue
        page.app.switch_page(f"toolkit/dashboard/{each.name}.py")
        page.run()
        assert [title.value for title in page.app.title] == [each.title]
        assert [menu.label for menu in page.app.menu_button] == (["Actions for watched"] if each.name == "keys" else [])
