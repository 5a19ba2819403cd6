"""The fields of a key's options, as the dialogs that create and edit a key show them."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime

import streamlit as st

from toolkit.admin import catalog, key_options
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.money import parse_usd, usd
from toolkit.core.policy import HoldPolicy, Role
from toolkit.core.pricing import show_multiplier
from toolkit.store.tables import ApiKey
from toolkit.workspace import Workspace

POLICIES = {
    HoldPolicy.STRICT: "Strict: the monthly limit is never exceeded",
    HoldPolicy.EXPECTED: "Expected: parallel calls near the limit may overshoot it",
}
HOSTED_TOOLS = {
    HostedTools.LEAVE_OUT: "Leave out: calls go on without them, and the answer says so",
    HostedTools.REFUSE: "Refuse: calls that offer them are refused",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the form of create and edit holds, as typed; `limit` in USD, empty for none."""

    name: str
    plan: str | None
    models: list[str]
    limit: str
    expires_at: datetime | None
    policy: HoldPolicy
    hosted_tools: HostedTools
    owner: str = ""
    environment: str = ""
    labels: list[str] = field(default_factory=list)
    note: str = ""

    @classmethod
    def of(cls, key: ApiKey) -> "Options":
        """Return a key's present options as the form shows them; the expiry without the seconds it has no place for."""
        limit = usd(key.monthly_limit) if key.monthly_limit is not None else ""
        expires_at = key.expires_at.astimezone(UTC).replace(second=0, microsecond=0) if key.expires_at else None
        return cls(
            key.name,
            key.plan_id,
            json.loads(key.scope),
            limit,
            expires_at,
            HoldPolicy(key.hold_policy),
            HostedTools(key.hosted_tools),
            key.owner,
            key.environment,
            json.loads(key.labels),
            key.note,
        )

    def monthly_limit(self) -> int | None:
        """Return the limit in nano-USD, None for none.

        Raises:
            InvalidInput: not an amount.
        """
        return parse_usd(self.limit, "monthly limit") if self.limit.strip() else None


NEW = Options("", None, [], "", None, HoldPolicy.STRICT, HostedTools.LEAVE_OUT)
"""Where the form of a new key starts."""


def draw(workspace: Workspace, org_id: str, start: Options) -> Options:
    """Draw the fields, filled with the options to start from; return what they hold."""
    with workspace.read() as tx:
        known = catalog.load(tx)
        offered = set(known.plans)
        if workspace.actor.role is not Role.PLATFORM_ADMIN:
            offered = key_options.assigned_plans(tx, org_id)
    name = st.text_input("Name", value=start.name, key="key_name", placeholder="billing-bot, ci, alice …")
    by_name = sorted(offered, key=lambda plan_id: known.plans[plan_id].name)
    if not by_name:
        st.warning("No plan is assigned to this organisation yet. A platform admin creates its first key.")
    plan = st.selectbox(
        "Plan",
        by_name,
        index=by_name.index(start.plan) if start.plan in by_name else 0 if by_name else None,
        format_func=lambda plan_id: (
            f"{known.plans[plan_id].name} · {show_multiplier(known.plans[plan_id].multiplier)} base price"
        ),
        key="key_plan",
    )
    included = sorted(name for name in known.plans[plan].models if known.model(name, org_id)) if plan else []
    # What the scope has stays in it though nobody serves it now: a scope emptied by the form would allow all models.
    offered_models = sorted({*included, *start.models}) if plan == start.plan else included
    models = st.multiselect(
        "Model scope",
        offered_models,
        default=[model for model in start.models if model in offered_models],
        key=f"key_models_{plan}",
        placeholder=f"All {len(included)} models of the plan",
        help="Leave empty to allow every model of the plan, also those added later.",
    )
    left, right = st.columns(2)
    limit = left.text_input(
        "Monthly limit (USD)",
        value=start.limit,
        key="key_limit",
        placeholder="No limit",
        help="Per calendar month in UTC. Empty is no limit; 0 allows nothing paid.",
    )
    expires = right.datetime_input(
        "Expires (UTC)",
        value=start.expires_at.replace(tzinfo=None) if start.expires_at else None,
        min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - the input knows no time zones
        max_value=datetime(2199, 12, 31),  # noqa: DTZ001
        format="YYYY-MM-DD",
        key="key_expires",
        help="Empty is never.",
    )
    policy = st.radio(
        "Hold policy",
        list(POLICIES),
        index=list(POLICIES).index(start.policy),
        format_func=POLICIES.__getitem__,
        key="key_policy",
    )
    hosted = st.radio(
        "Tools that the provider would run",
        list(HOSTED_TOOLS),
        index=list(HOSTED_TOOLS).index(start.hosted_tools),
        format_func=HOSTED_TOOLS.__getitem__,
        key="key_hosted_tools",
        help="Such as its web search. They have no price here, so none can be used; the plan may be stricter.",
    )
    expires_at = expires.replace(tzinfo=UTC) if expires else None
    return Options(name, plan, models, limit, expires_at, HoldPolicy(policy), HostedTools(hosted), *_details(start))


def _details(start: Options) -> tuple[str, str, list[str], str]:
    """Draw what people note of a key; return owner, environment, labels and note."""
    with st.expander("Owner, environment, labels, note", icon=":material/label:"):
        left, right = st.columns(2)
        owner = left.text_input("Owner", start.owner, key="key_owner", placeholder="search team, ada@example.com …")
        environment = right.text_input(
            "Environment", start.environment, key="key_environment", placeholder="production, staging …"
        )
        labels = st.multiselect(
            "Labels", start.labels, start.labels, key="key_labels", accept_new_options=True, placeholder="team=search"
        )
        note = st.text_area("Note", start.note, key="key_note", height=80)
    return owner, environment, list(labels), note
