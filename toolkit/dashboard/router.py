"""The frame of every page: identity, navigation, sidebar; then the page itself."""

from html import escape

import streamlit as st

from toolkit.admin import organisations
from toolkit.dashboard import dialog, shared
from toolkit.dashboard.pages import PAGES, by_section
from toolkit.workspace import Workspace

_PAGE = "page"


def main() -> None:
    """Run one script run of the dashboard."""
    st.set_page_config("Keydesk", page_icon=str(shared.LOGO), layout="wide")
    st.html(shared.STYLE)
    if shared.is_dark():
        st.html(shared.DARK)
    st.logo(str(shared.LOGO), size="large")
    with shared.problems():
        workspace = shared.workspace()
        page = st.navigation(
            {
                section: [
                    st.Page(
                        each.file,
                        title=each.title,
                        icon=f":material/{each.icon}:",
                        url_path=each.name,
                        default=each is PAGES[0],
                        help=each.help,
                        visibility="hidden" if each.hidden else "visible",
                    )
                    for each in pages
                ]
                for section, pages in by_section(workspace.actor.role).items()
            },
            expanded=True,
        )
        st.set_page_config(f"{page.title} · Keydesk")
        if st.session_state.get(_PAGE) != page.title:
            st.session_state[_PAGE] = page.title
            dialog.close()
        _sidebar(workspace)
        shared.show_flash()
        page.run()


def _sidebar(workspace: Workspace) -> None:
    org = "All organisations"
    if workspace.actor.org_id is not None:
        with workspace.read() as tx:
            org = organisations.find(tx, workspace.actor.org_id).name
    name = escape(workspace.actor.name)
    st.sidebar.html(
        '<div class="kd-me">'
        f'<a class="kd-me-name" href="account" {shared.SAME_TAB} title="Your account">{name}</a>'
        f'<div class="kd-me-role">{shared.ROLES[workspace.actor.role]} · {escape(org)}</div>'
        '<form method="post" action="auth/sign-out"><button type="submit">Sign out</button></form></div>'
    )
