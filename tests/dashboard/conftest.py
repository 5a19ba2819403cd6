"""A person at a page: AppTest through `app.py`, signed in by a real session's cookie."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.context import ContextProxy
from streamlit.testing.v1 import AppTest

from tests.conftest import ROOT, World, variables_of
from toolkit.admin import operators
from toolkit.admin.sign_in import open_session
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.dashboard import identity, streamlit_sessions

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True, scope="session")
def _quick_streamlit() -> Iterator[None]:
    """Streamlit looks through all installed packages when a runtime starts, and for all garbage when a script ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            manifest_scanner, "scan_component_manifests", functools.cache(manifest_scanner.scan_component_manifests)
        )
        patch.setenv("STREAMLIT_RUNNER_POST_SCRIPT_GC", "false")
        yield


@dataclass
class Visit:
    """A page in front of somebody."""

    app: AppTest

    @property
    def text(self) -> str:
        """Everything that can be read on the page, without tags and Markdown's escapes."""
        app = self.app
        parts = [element.value for element in app.html if not element.value.lstrip().startswith("<style")]
        for kind in (app.title, app.markdown, app.error, app.warning, app.toast, app.code):
            parts += [str(element.value) for element in kind]
        parts += [widget.label for widget in (*app.button, *app.text_input)]
        words = (
            re.sub(r"<[^>]+>", " ", re.sub(r"</?(a|b|code)\b[^>]*>", "", " ".join(parts)))
            .replace("\\", "")
            .replace("\u202f", " ")
        )
        return re.sub(r"\s+", " ", unescape(words))

    def run(self) -> "Visit":
        """Run the page again, as after a click; fails if the script failed."""
        self.app.run()
        assert not self.app.exception, self.app.exception
        return self

    def click(self, key: str) -> "Visit":
        """Press a button."""
        self.app.button(key=key).click()
        return self.run()

    def choose(self, key_id: str, action: str) -> "Visit":
        """Choose an action from the menu of a key's row."""
        self.app.menu_button(key=f"menu_{key_id}").click(action)
        return self.run()

    def type(self, key: str, text: str) -> None:
        """Type into a field; the next click sends it."""
        self.app.text_input(key=key).set_value(text)

    def actions(self, key_id: str) -> list[str]:
        """Return what the menu of a key's row offers."""
        menus = [menu for menu in self.app.menu_button if menu.key == f"menu_{key_id}"]
        return [option.partition(": ")[2] for menu in menus for option in menu.options]

    def has_button(self, key: str) -> bool:
        """Whether there is a button with this key."""
        return any(button.key == key for button in self.app.button)


@pytest.fixture
def visit(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Visit]]:
    """Open a page (by its module's name) as somebody with a role."""
    for name, value in variables_of(world.workspace.settings).items():
        monkeypatch.setenv(name, value)

    def open_page(page: str, role: Role = Role.PLATFORM_ADMIN, org_id: str | None = None) -> Visit:
        email = f"{role}-{org_id}@keydesk.test".lower()
        with world.workspace.write() as tx:
            if operators.with_email(tx, email) is None:
                operators.add(tx, email, role, hash_password(PASSWORD), org_id=org_id)
        cookie = identity.seal(open_session(world.workspace.store, email, PASSWORD, "test"))
        monkeypatch.setattr(ContextProxy, "headers", {streamlit_sessions.HEADER: cookie})
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
        if page != "overview":
            app.switch_page(f"toolkit/dashboard/{page}.py")
        app.run()
        assert not app.exception, app.exception
        return Visit(app)

    yield open_page
    identity.workspace().close()
    st.cache_data.clear()
