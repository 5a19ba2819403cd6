"""Operators: who may sign in, with which role; invite, change, sign out, remove."""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from toolkit.admin import invitations, operators, organisations, sessions
from toolkit.core.policy import Role
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, filters, operator_dialogs, shared, table
from toolkit.store import audit
from toolkit.store.tables import Invitation, Operator

STATES = {"All": None, "Active": False, "Disabled": True}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Operators", anchor=False)
        st.space("stretch")
        if st.button("Invite", type="primary", icon=":material/person_add:", key="invite", help="By a one-time link"):
            dialog.show("Invite")
    with workspace.read() as tx:
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
        people = operators.list_all(tx)
        signed_in, invited = sessions.of_operators(tx), invitations.list_open(tx)
        shown, now = audit.names_shown(tx), tx.now
    several = workspace.actor.org_id is None
    state = STATES[filters.one_of("state", "State", list(STATES), "All")]
    org = None
    if several:
        org = filters.choice(st.columns([1, 2])[0], "org", "Organisation", orgs, "Any organisation")
    listed = [each for each in people if state in {None, each.disabled_at is not None} and org in {None, each.org_id}]
    if not listed:
        shared.empty("Nobody matches.", "Take a filter away, or press <b>Invite</b>.")
    else:
        table.draw(
            [_cells(each, orgs, len(signed_in.get(each.id, ())), shown(each.created_by), several) for each in listed],
            key="operators",
            alt="People who may sign in, by e-mail",
            on_open=lambda position: dialog.show("Operator", listed[position].id),
        )
    _invited([each for each in invited if org in {None, each.org_id}], orgs, shown, several)
    operator_dialogs.draw(
        {each.id: each for each in people}, {each.id: each for each in invited}, signed_in, orgs, shown, now
    )


def _cells(operator: Operator, orgs: Mapping[str, str], open_sessions: int, by: str, several: bool) -> dict[str, Any]:
    org = {"Organisation": orgs[operator.org_id] if operator.org_id else "All"} if several else {}
    return {
        "E-mail": operator.email,
        "Role": shared.ROLES[Role(operator.role)],
        **org,
        "State": "disabled" if operator.disabled_at else "active",
        "Last signed in": operator.last_sign_in_at,
        "Signed in now": open_sessions,
        "Added": operator.created_at,
        "By": by,
    }


def _invited(invited: list[Invitation], orgs: Mapping[str, str], shown: Callable[[str], str], several: bool) -> None:
    """Draw the links that have not been used yet."""
    if not invited:
        return
    shared.heading("Open links", f"{counted(len(invited), 'link')} not used yet")
    table.draw(
        [
            {
                "E-mail": each.email,
                "For": "a new password" if each.operator_id else shared.ROLES[Role(each.role)],
                **({"Organisation": orgs[each.org_id] if each.org_id else "All"} if several else {}),
                "Made": each.created_at,
                "Ends": each.expires_at,
                "By": shown(each.created_by),
            }
            for each in invited
        ],
        key="invitations",
        alt="Links that have not been used yet, the newest first",
        on_open=lambda position: dialog.show("Link", invited[position].id),
    )


if __name__ == "__main__":
    main()
