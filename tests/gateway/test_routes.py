"""The routes of the application are the paths that docs/gateway.md names."""

import re

from starlette.routing import Route

from tests.conftest import ROOT, World
from toolkit.gateway.app import create_app

DOCUMENT = (ROOT / "docs/gateway.md").read_text()


def documented() -> set[tuple[str, str]]:
    """Return each method and path of the tables under Paths and Health."""
    found = {("GET", path) for path in re.findall(r"^\| `(/[a-z/]*)` \|", DOCUMENT, re.MULTILINE)}
    for method, path, below in re.findall(r"^\| \w+ \| (GET|POST) \| `(.+?)`.* \| (`.*`) \|$", DOCUMENT, re.MULTILINE):
        found |= {(method, prefix + path) for prefix in re.findall(r"`(.+?)`", below)}
    return found


def test_each_documented_path_is_a_route_and_each_route_is_documented(world: World) -> None:
    """Neither is there without the other; the listing that the SDKs share is one route."""
    routes = create_app(world.workspace.settings).routes
    served = set()
    for route in routes:
        assert isinstance(route, Route)
        assert route.methods is not None
        path = route.path.replace("{model:path}", "{model}")  # which may have a slash in its name
        served |= {(method, path) for method in route.methods - {"HEAD"}}
    assert served == documented()
    assert len(served) == len(routes) == 59
