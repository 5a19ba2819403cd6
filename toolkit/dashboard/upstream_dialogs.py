"""The dialogs of the page Upstreams: look at one, add, change and retire it. Trying one is `upstream_trial`.

No credential is in them: a credential is named here, and stands where the gateway runs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from html import escape
from typing import Any

import streamlit as st

from toolkit.admin import catalog, organisations, upstream_credentials, upstreams
from toolkit.core.account_fault import CURES, AccountFault, sentence_of
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput
from toolkit.core.gateway_report import CredentialKind, GatewayReport, SetAside
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import MOST_RECKON_RATE, CredentialHeader, OnLeave, OutputBound
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, shared, upstream_trial
from toolkit.providers import presets
from toolkit.store.tables import Upstream, UpstreamIncident
from toolkit.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Seen:
    """An upstream with what belongs to it.

    Args:
        upstream: the upstream.
        owner: the organisation whose own account it is; None if it is everybody's.
        credentials: their names.
        models: public ids of those that it serves.
        incidents: that last.
        fault: why no gateway calls it, in words; None if it is called.
        reports: of the living gateways.
    """

    upstream: Upstream
    owner: str | None
    credentials: list[str]
    models: list[str]
    incidents: list[UpstreamIncident]
    fault: str | None
    reports: list[GatewayReport]

    @property
    def aside(self) -> list[SetAside]:
        """What of it gateways have set aside, what stays so longest first; one that several have stands there once."""
        found = {each[:-1]: each for report in self.reports for each in report.aside if self._is_mine(each)}
        return sorted(found.values(), key=lambda each: each.until, reverse=True)

    def _is_mine(self, each: SetAside) -> bool:
        return each.upstream == self.upstream.name

    def kinds(self, credential: str) -> set[CredentialKind]:
        """Return how gateways have a credential; empty if none has told."""
        told = (report.credentials.get(credential) for report in self.reports)
        return {kind for kind in told if kind is not None}

    @property
    def state(self) -> str:
        """In a few words."""
        if self.fault:
            return "Never called"
        if self.incidents:
            return "Refuses us"
        if self.aside:
            return "Set aside"
        return "In use" if self.models else "Serves no model"


_TONES = {"Never called": "bad", "Refuses us": "bad", "Set aside": "warn", "In use": "good", "Serves no model": "quiet"}

_LABELS = {
    "base_url": "Base URL",
    "credential_env": "Credential",
    "unknown_fields": "Fields that Keydesk does not know",
    "on_leave": "When a caller leaves a stream",
    "refusal_free": "A refusal before any output is free",
    "pin_tier": "Ask for the tier that is priced",
    "reckon_rate": "Tokens a second that are made unseen",
    "credential_header": "Header of the credential",
    "api_version": "API version (Azure's older API)",
    "output_bound": "Name of a chat's bound on output",
    "add_stream_options": "Ask for a stream's usage",
    "add_store": "Say store: false of a response",
    "add_include": "Ask for reasoning in encrypted form",
    "billed_errors": "Errors that are billed",
}
_CHOICES: dict[str, type[StrEnum]] = {
    "on_leave": OnLeave,
    "credential_header": CredentialHeader,
    "output_bound": OutputBound,
}
_OF_OPENAI = frozenset({"api_version", "output_bound", "add_stream_options", "add_store", "add_include"})


def draw(seen: Mapping[str, Seen]) -> None:
    """Draw the dialog that is open, if any."""
    name, subject = dialog.shown() or ("", "")
    if name == "Add upstream":
        add_dialog()
    elif subject in seen and name in DIALOGS:
        DIALOGS[name](seen[subject])


@st.dialog("Upstream", width="large", position="right", on_dismiss=dialog.close)
def details_dialog(seen: Seen) -> None:
    """Show all of an upstream, with what is known of it and why that holds."""
    upstream, text = seen.upstream, escape
    with st.container(horizontal=True):
        for name, icon in _ACTS.items():
            if st.button(
                name,
                icon=f":material/{icon}:",
                type="primary" if name == "Try it" else "secondary",
                key=f"upstream_{name.split()[0].lower()}",
            ):
                dialog.show(name, upstream.name)
                st.rerun()
    models = ", ".join(f"<code>{text(model)}</code>" for model in seen.models)
    st.html(
        shared.facts(
            [
                ("Name", f"<b>{text(upstream.name)}</b> {shared.badge(seen.state, _TONES[seen.state])}"),
                ("Account of", text(seen.owner or "everybody")),
                ("Preset", text(upstream.preset or "none")),
                ("Dialect", text(upstream.dialect)),
                ("Base URL", f"<code>{text(upstream.base_url)}</code>"),
                ("Credentials", "<br>".join(_credential(seen, name) for name in seen.credentials)),
                ("Calls at once", f"{upstream.max_connections:,}" if upstream.max_connections else "any number"),
                ("Models", models or "none: a test lists those that it has"),
                ("Added", f"{shared.utc(upstream.created_at)} by {text(upstream.created_by)}"),
            ]
        )
    )
    if seen.fault:
        st.error(f"No gateway calls it: {shared.plain(seen.fault)}.", icon=":material/error:")
    for incident in seen.incidents:
        _incident(incident)
    for each in seen.aside:
        st.html(
            f'<div class="kd-warning"><b>Set aside until {shared.utc(each.until)}:</b> {text(each.what)}. It has just '
            f"failed; calls that another upstream or credential can serve go there{_whose(each)}.</div>"
        )
    shared.heading("What is known of it", "and why it holds")
    known = upstreams.where_holds(upstream) + upstreams.what_holds(upstream)
    rows = [
        [text(_LABELS[one.name]), f"<b>{text(one.word)}</b>" if one.is_given else text(one.word), text(one.why)]
        for one in known
    ]
    st.html(shared.table([("", "left"), ("Value", "left"), ("Holds because", "left")], rows, css="kd-changes"))


def _credential(seen: Seen, name: str) -> str:
    faults = [AccountFault(one.fault) for one in seen.incidents if one.credential == name]
    badges = " ".join(shared.badge(sentence_of(fault, ""), "bad") for fault in faults)
    kinds = seen.kinds(name)
    if CredentialKind.COMMAND in kinds:
        badges += shared.badge("printed by a command", "info")
    if CredentialKind.MISSING in kinds:
        badges += shared.badge("not set where a gateway runs", "bad")
    return f"<code>{escape(name)}</code> {badges}"


def _whose(each: SetAside) -> str:
    return ", those of one organisation alone" if each.org_id else ""


def _incident(incident: UpstreamIncident) -> None:
    fault = AccountFault(incident.fault)
    said = f"Since {shared.utc(incident.first_at)} {counted(incident.calls, 'call')} failed: "
    cure = CURES[fault].format(upstream=incident.upstream)
    st.html(
        f'<div class="kd-warning"><b>{escape(sentence_of(fault, incident.model).capitalize())}.</b> {escape(said)}'
        f"it said “{escape(incident.words)}”<br>{shared.prose(cure)}</div>"
    )


@st.dialog("Add an upstream", width="medium", on_dismiss=dialog.close)
def add_dialog() -> None:
    """Ask which provider, and where its credential is."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    with workspace.read() as tx:
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
    chosen = st.selectbox(
        "Provider",
        ["", *presets.PRESETS],
        format_func=lambda name: presets.PRESETS[name].title if name else "Another one, by its address",
        index=1,
        key="upstream_preset",
        help="Says all that is known of it: its address, how it is asked, what it bills.",
    )
    forms = [form for form in presets.FORMS.values() if form.name == chosen]
    dialect = Dialect(
        st.selectbox("Dialect", [form.dialect for form in forms] or list(Dialect), key=f"upstream_dialect_{chosen}")
    )
    preset = presets.find(chosen, dialect) if chosen else None
    with st.form("add_upstream_form", border=False):
        name = st.text_input("Name", value=chosen, key=f"upstream_name_{chosen}", autocomplete="off")
        base_url = st.text_input(
            "Base URL",
            key="upstream_base_url",
            placeholder=preset.base_url if preset else "https://models.example.com/v1",
            autocomplete="off",
            help="As the provider's own SDK has it. Empty is the provider's usual one." if preset else None,
        )
        credential = st.text_input(
            "Name of its credential",
            key="upstream_credential",
            placeholder=preset.credential_env if preset else "MODELS_API_KEY",
            autocomplete="off",
            help="The name of the variable, or of the line in the secrets file, where the gateway runs. Never the "
            "credential itself.",
        )
        org = st.selectbox(
            "Account of",
            ["", *orgs],
            format_func=lambda each: orgs[each] if each else "Everybody",
            key="upstream_org",
            help="An organisation's own account serves its keys alone, with a credential of its own. It stays so.",
        )
        pressed = _acts("Add upstream")
    if preset is not None and preset.note:
        st.caption(shared.plain(preset.note))
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                made = upstreams.add_upstream(
                    tx,
                    name,
                    dialect,
                    base_url.strip() or None,
                    credential.strip() or None,
                    preset=chosen or None,
                    org=org or None,
                )
                added = made.name, made.credential_env
            shared.flash(f"{added[0]} is added. Set {added[1]} where the gateway runs, then try it.")
            dialog.show("Upstream", added[0])
            st.rerun()


@st.dialog("Change the upstream", width="large", on_dismiss=dialog.close)
def change_dialog(seen: Seen) -> None:
    """Change where an upstream is, its credentials, or what is known of it."""
    dialog.leave_if_closed()
    workspace, upstream = shared.workspace(), seen.upstream
    facts = dialog.as_opened((upstreams.described(upstream), list(seen.credentials)))
    dialect = Dialect(upstream.dialect)
    why = {one.name: one.why for one in upstreams.where_holds(upstream) + upstreams.what_holds(upstream)}
    before = asdict(catalog.traits_of(upstream))
    with st.form("change_upstream_form", border=False):
        base_url = st.text_input("Base URL", value=upstream.base_url, key="change_base_url", help=why.get("base_url"))
        credentials = st.text_input(
            "Names of its credentials, with commas between",
            value=", ".join(seen.credentials),
            key="change_credentials",
            help="Variables, or lines of the secrets file, where the gateway runs. API keys are spread over them.",
        )
        left, right = st.columns(2)
        unknown = left.selectbox(
            _LABELS["unknown_fields"],
            list(UnknownFields),
            index=list(UnknownFields).index(UnknownFields(upstream.unknown_fields)),
            key="change_unknown_fields",
            help=why["unknown_fields"],
        )
        at_once = right.number_input(
            "Calls at once",
            0,
            upstreams.MOST_CONNECTIONS,
            upstream.max_connections,
            key="change_max_connections",
            help="Of one gateway process; 0 is any number.",
        )
        after: dict[str, Any] = {}
        places = [left, right]
        shown = [name for name in before if _has(dialect, name)]
        for position, name in enumerate(shown):
            with places[position % 2]:
                after[name] = _field(name, before[name], why[name])
        reason = st.text_input("Reason (for the audit log)", key="reason", placeholder="optional")
        pressed = _acts("Save")
    if pressed:
        changes = {name: value for name, value in after.items() if value != before[name]}
        names = [each.strip() for each in credentials.split(",") if each.strip()]
        with shared.problems():
            _save(
                workspace,
                upstream.name,
                facts,
                names,
                base_url=base_url.strip() if base_url.strip() != upstream.base_url else None,
                unknown_fields=unknown if unknown != upstream.unknown_fields else None,
                max_connections=int(at_once) if int(at_once) != upstream.max_connections else None,
                reason=reason,
                **changes,
            )
            dialog.finish(f"{upstream.name} is changed. The next call goes by it.")


def _save(
    workspace: Workspace, name: str, seen: tuple[dict[str, Any], list[str]], credentials: list[str], **changes: Any
) -> None:
    """Change an upstream and its credentials together, unless either is not any more what the form was made from."""
    facts, before = seen
    with workspace.write() as tx:
        if upstream_credentials.credentials_of(tx, name) != before:
            raise InvalidInput(f"Somebody has changed the credentials of {name!r} meanwhile. Look at it again.")
        upstreams.update_upstream(tx, name, seen=facts, **changes)
        if credentials != before:
            upstream_credentials.set_credentials(tx, name, credentials)


def _has(dialect: Dialect, name: str) -> bool:
    """Whether an upstream of a dialect can have a trait."""
    if name == "refusal_free":
        return dialect is Dialect.ANTHROPIC
    if name == "pin_tier":
        return dialect is not Dialect.GEMINI
    return dialect is Dialect.OPENAI or name not in _OF_OPENAI


def _field(name: str, value: Any, why: str) -> Any:
    """Draw the field of a trait, with why its value holds; return what it holds now."""
    label, key, help_ = _LABELS[name], f"change_{name}", f"Holds because: {why}"
    if name in _CHOICES:
        options = list(_CHOICES[name])
        return st.selectbox(label, options, index=options.index(_CHOICES[name](value)), key=key, help=help_)
    if isinstance(value, bool):
        return st.toggle(label, value=value, key=key, help=help_)
    if isinstance(value, int):
        return int(st.number_input(label, 0, MOST_RECKON_RATE, value, key=key, help=help_))
    return st.text_input(label, value=value, key=key, help=help_).strip()


@st.dialog("Retire the upstream", on_dismiss=dialog.close)
def retire_dialog(seen: Seen) -> None:
    """Confirm by typing the name, then take it away."""
    dialog.leave_if_closed()
    workspace, name = shared.workspace(), seen.upstream.name
    st.html(
        '<div class="kd-warning">Its settings and the names of its credentials are gone. Calls that went there stay in '
        f"the logs and charts under its name.</div><p>To confirm, type its name: <b>{escape(name)}</b></p>"
    )
    with st.form("retire_upstream_form", border=False):
        typed = st.text_input("Name of the upstream", key="confirm_name", autocomplete="off")
        reason = st.text_input("Reason (for the audit log)", key="reason", placeholder="optional")
        pressed = _acts("Retire")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                upstreams.retire_upstream(tx, name, confirm=typed, reason=reason)
            dialog.finish(f"{name} is retired.")


def _acts(label: str) -> bool:
    """Draw the button that acts, which Enter presses too; return whether it was pressed."""
    with st.container(horizontal=True, horizontal_alignment="right"):
        return st.form_submit_button(label, type="primary", key="confirm")


@st.dialog("Try the upstream", width="large", on_dismiss=dialog.close)
def trial_dialog(seen: Seen) -> None:
    """Have a gateway make a few short calls, and say what it found."""
    upstream_trial.draw(seen.upstream.name, seen.models)


_ACTS = {"Try it": "play_arrow", "Change": "edit", "Retire": "delete"}
"""Acts of the dialog of one upstream, and their icons."""

DIALOGS = {"Upstream": details_dialog, "Try it": trial_dialog, "Change": change_dialog, "Retire": retire_dialog}
