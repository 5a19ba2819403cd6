"""The page where the holder of an API key looks it up: a form for its secret, answered with what the key may and did.

It has no script and no session, and the secret is in the form's body alone: no URL, page, header or log has it. It is
there if `KEYDESK_KEY_PAGE` is on.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

from anyio import CapacityLimiter, fail_after, to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from toolkit.admin import catalog, key_standing, secret_lookup, sign_in_throttle
from toolkit.admin.key_standing import Standing
from toolkit.core.errors import KeydeskError, SignInFailed
from toolkit.core.money import NANO, show_usd
from toolkit.core.period import Period
from toolkit.core.policy import OrganisationSuspended, Role
from toolkit.core.secrets import is_well_formed
from toolkit.dashboard import forms, identity
from toolkit.dashboard.headers import KEY
from toolkit.dashboard.plain_page import page, problem
from toolkit.dashboard.visitor import Visitor
from toolkit.dialects.openai_fields import CHAT
from toolkit.gateway.call_price import always_costs
from toolkit.gateway.connection_limits import prove
from toolkit.reports import spend
from toolkit.store.actor import SYSTEM, Actor

LOOKED_UP_AT_ONCE = 2
MOST_WAITING = 16
"""Who waits for a turn; more are told to come again."""

USAGE_KEPT = 60.0
"""Seconds for which the ledger is not asked again for the same key."""

MOST_KEPT = 1_000
"""Keys whose usage is kept for that time."""

USAGE_WITHIN = 20.0
"""Seconds that the ledger gets to answer; the rest of the page comes without it."""

WRONG = (
    "This is not a valid API key. It may be mistyped, rotated, disabled, expired or deleted. "
    "Ask whoever gave it to you."
)
_BUSY = "Too many people are looking up keys at this moment. Try again in a few seconds."
_UNREACHABLE = "Keydesk cannot reach its key store just now. Try again shortly."


@dataclass(frozen=True, slots=True)
class Usage:
    """What the ledger has of a key in a month: amounts of money (nano-USD) and calls.

    Args:
        month: billing month.
        as_of: when it was read, UTC.
        models, days: (name, calls, cost) of each, the costliest model first, days in order.
    """

    month: str
    as_of: datetime
    models: list[tuple[str, int, int]]
    days: list[tuple[str, int, int]]


class KeyPages:
    """The page's routes, and what is bounded about it."""

    def __init__(self) -> None:
        self._turns = CapacityLimiter(LOOKED_UP_AT_ONCE)
        self._ledger_turn = CapacityLimiter(1)
        self._here = 0
        self._usage: dict[str, tuple[float, Usage]] = {}

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route(KEY, self.form, methods=["GET"]), Route(KEY, self.show, methods=["POST"])]

    async def form(self, _request: Request) -> Response:
        """GET /key: the form."""
        return _page(_form()) if identity.workspace().settings.key_page else _off()

    async def show(self, request: Request) -> Response:
        """POST /key: what the key may do and has spent."""
        visitor = Visitor.of(request.scope, identity.workspace().settings)
        if not identity.workspace().settings.key_page:
            return _off()
        if visitor.own_page is False:
            return PlainTextResponse("Look up a key from the page itself.", 403)
        fields = await forms.read(request)
        if fields is None:
            return PlainTextResponse("The form is too large.", 413)
        if self._here >= LOOKED_UP_AT_ONCE + MOST_WAITING:
            return _page(_form(_BUSY), 503, wait=5)
        self._here += 1
        try:
            secret, address = fields.get("secret", "").strip(), visitor.address or "unknown"
            standing = await to_thread.run_sync(_look_up, secret, address, limiter=self._turns)
            prove(request.scope)
            return _page(_shown(standing, await self._usage_of(standing)))
        except SignInFailed as error:
            return _page(_form(str(error)), 401)
        except OrganisationSuspended as error:
            return _page(_form(str(error)), 403)
        except KeydeskError:
            return _page(_form(_UNREACHABLE), 503, wait=5)
        finally:
            self._here -= 1

    async def _usage_of(self, standing: Standing) -> Usage | None:
        """Return this month's usage, no older than `USAGE_KEPT`; None if the ledger does not answer in time."""
        key_id, month = standing.key.key_id, standing.totals.month
        try:
            with fail_after(USAGE_WITHIN):
                return await to_thread.run_sync(
                    self._kept_usage, key_id, month, limiter=self._ledger_turn, abandon_on_cancel=True
                )
        except (TimeoutError, KeydeskError):
            return None

    def _kept_usage(self, key_id: str, month: str) -> Usage:
        now = time.monotonic()
        kept = self._usage.get(key_id)
        if kept is not None and now - kept[0] < USAGE_KEPT and kept[1].month == month:
            return kept[1]
        usage = _usage(key_id, month)
        self._usage.pop(key_id, None)
        while self._usage:
            oldest = next(iter(self._usage))
            if now - self._usage[oldest][0] < USAGE_KEPT and len(self._usage) < MOST_KEPT:
                break
            del self._usage[oldest]
        self._usage[key_id] = now, usage
        return usage


def _look_up(secret: str, address: str) -> Standing:
    """Return the standing of the key that a secret admits.

    Raises:
        SignInFailed: it admits none, or there were too many failures; which of all reasons is not told.
        OrganisationSuspended: its organisation is.
        KeydeskError: the key store cannot be reached.
    """
    workspace = identity.workspace()
    store = workspace.store
    network = sign_in_throttle.network(address)
    with store.read(SYSTEM) as tx:  # whoever must wait is told so without a write
        sign_in_throttle.require_key_turn(tx, network)
    with store.write(SYSTEM) as tx:  # counted as wrong until it was right, so that no number at once gets past
        counted = sign_in_throttle.take_key_turn(tx, network)
    digests = workspace.keyring.values(secret) if is_well_formed(secret) else []
    with store.read(SYSTEM) as tx:
        key = secret_lookup.find_live(tx, digests)
        if key is None or not key.is_live(tx.now):
            raise SignInFailed(WRONG)
        totals, known = key_standing.totals(tx, key.key_id), catalog.load(tx)
    if totals is None:
        raise SignInFailed(WRONG)
    with store.write(SYSTEM) as tx:
        sign_in_throttle.forgive_key(tx, counted)
    if key.org_suspended:
        raise OrganisationSuspended(key)
    return Standing(key, known, totals, always_costs(known, key, CHAT, totals.as_of))


def _usage(key_id: str, month: str) -> Usage:
    ledger = identity.workspace_of(Actor("key page", Role.ANALYST, None)).ledger
    rows = spend.table(ledger, ["day", "model"], Period.month(month), key=key_id).to_dict("records")
    models = _summed((str(row["model"]), row) for row in rows)
    days = _summed((str(row["day"])[:10], row) for row in rows)
    return Usage(month, datetime.now(UTC), sorted(models, key=lambda one: (-one[2], one[0])), sorted(days))


def _summed(rows: Iterable[tuple[str, Mapping[Any, Any]]]) -> list[tuple[str, int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for name, row in rows:
        calls, cost = sums.get(name, (0, 0))
        sums[name] = calls + int(row["calls"]), cost + int(row["cost"])
    return [(name, *both) for name, both in sums.items()]


def _page(content: str, status: int = 200, *, wait: int | None = None) -> Response:
    return page("Your API key · Keydesk", content, status, wait=wait)


def _off() -> Response:
    return PlainTextResponse("There is no such page here: KEYDESK_KEY_PAGE is off.", 404)


def _form(wrong: str = "") -> str:
    return (
        f'<form method="post" action="{KEY[1:]}"><h1>Look up an API key</h1>'
        '<p class="lead">What it may call, what it has spent this month, and what is left.</p>'
        f'{problem(wrong)}<label for="secret">API key</label>'
        '<input id="secret" name="secret" type="password" autocomplete="off" required maxlength="256" autofocus>'
        '<button type="submit">Show</button></form>'
    )


def _shown(standing: Standing, usage: Usage | None) -> str:
    key, totals = standing.key, standing.totals
    facts = standing.facts()
    amounts = [amount for amount in (key.monthly_limit, totals.counted, totals.held, standing.left) if amount]
    money = _money(amounts)
    bounds = [
        ("Monthly limit", "none" if key.monthly_limit is None else money(key.monthly_limit)),
        ("Spent", money(totals.counted)),
        ("Held for calls under way", money(totals.held)),
        ("Left", "no limit" if standing.left is None else money(standing.left)),
        ("Starts anew", _moment(facts["resets_at"])),
        ("Calls", f"{totals.calls:,}"),
    ]
    about = [
        ("Organisation", totals.org_name),
        ("Plan", facts["plan"]),
        ("Key", totals.display),
        ("Expires", _moment(facts["expires_at"]) if facts["expires_at"] else "never"),
    ]
    hindrance = standing.hindrance
    state = (
        f'<p class="problem"><strong>No call is possible now.</strong> {escape(hindrance[1])}</p>'
        if hindrance
        else '<p class="fine">Calls are possible.</p>'
    )
    models = "".join(f"<li><code>{escape(model['id'])}</code></li>" for model in facts["callable_models"])
    return (
        f"<h1>{escape(totals.name)}</h1>{state}"
        f"<section><h2>{_month(totals.month)}</h2>{_facts(bounds)}</section>"
        f"{_breakdown(usage)}"
        f'<section><h2>Models it may call</h2><ul class="models">{models or "<li>none</li>"}</ul></section>'
        f"<section><h2>About the key</h2>{_facts(about)}</section>"
        f'<p class="foot">As of {_moment(facts["as_of"])}. <a href="{KEY[1:]}">Look up another key</a></p>'
    )


def _breakdown(usage: Usage | None) -> str:
    if usage is None:
        return "<section><h2>By model and day</h2><p>Not to be had just now. Look again in a minute.</p></section>"
    as_of = f'<p class="foot">As of {usage.as_of:%Y-%m-%d %H:%M:%S} UTC</p>'
    if not usage.days:
        return f"<section><h2>By model and day</h2><p>No call this month yet.</p>{as_of}</section>"
    by_model = _table("By model", "Model", usage.models)
    by_day = _table("By day", "Day (UTC)", usage.days, _bars(usage))
    return f"<section>{by_model}</section><section>{by_day}{as_of}</section>"


def _table(title: str, first: str, rows: list[tuple[str, int, int]], picture: str = "") -> str:
    money = _money([cost for *_, cost in rows])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{calls:,}</td><td>{money(cost)}</td></tr>'
        for name, calls, cost in rows
    )
    total = f"<td>{sum(calls for _, calls, _ in rows):,}</td><td>{money(sum(cost for *_, cost in rows))}</td>"
    return (
        f'<h2>{title}</h2>{picture}<table><thead><tr><th scope="col">{first}</th><th scope="col">Calls</th>'
        f'<th scope="col">Cost</th></tr></thead><tbody>{body}</tbody>'
        f'<tfoot><tr><th scope="row">Total</th>{total}</tr></tfoot></table>'
    )


def _bars(usage: Usage) -> str:
    """Return a bar for each day of the month; the table below it has the numbers."""
    costs = {int(day[-2:]): cost for day, _, cost in usage.days}
    most = max(costs.values()) or 1
    bars = "".join(
        f'<rect x="{(day - 1) * 10 + 1}" y="{60 - height}" width="8" height="{height}" rx="1"/>'
        for day, cost in costs.items()
        if (height := max(round(58 * cost / most), 1 if cost else 0))
    )
    return (
        f'<svg class="bars" viewBox="0 0 310 61" role="img" aria-label="Cost of each day; the table has the numbers">'
        f'{bars}<path d="M0 60.5h310"/></svg>'
    )


def _facts(pairs: list[tuple[str, str]]) -> str:
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>' for name, value in pairs)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def _money(amounts: list[int]) -> Callable[[int], str]:
    """Return how all amounts of a table are written: with the same decimals, enough for the smallest."""
    small = [amount for amount in amounts if 0 < abs(amount) < NANO // 100]
    return lambda nano: show_usd(nano, 6 if small else 2)


def _moment(iso: str) -> str:
    return f"{iso[:10]} {iso[11:16]} UTC"


def _month(month: str) -> str:
    return f"{datetime.fromisoformat(f'{month}-01'):%B %Y}"
