"""A provider's invoice against our own request log: one upstream, one month, and why the two amounts differ.

Ours is the cost at list price: tokens × the prices of admission, rounded once a call, the plans' multipliers left out.
The gap is split into named causes that sum to it exactly. `docs/month-close.md` says how each cause is told.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from heapq import nlargest

from sqlalchemy import select

from toolkit.admin.model_routes import names_at
from toolkit.core.errors import Forbidden, InvalidInput, NotFound
from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger
from toolkit.statements.invoice_calls import OurCalls, our_calls
from toolkit.statements.invoice_gaps import Cause, Comparison, Gap
from toolkit.statements.invoice_lines import Invoice, InvoiceLine
from toolkit.store.tables import Upstream

MOST_SHOWN = 20
"""Calls that are named as evidence of one cause."""

_DATED = re.compile(r"[-@](\d{4}-?\d{2}-?\d{2})$")


@dataclass(slots=True)
class _Tally:
    """The sums of one model, while lines are compared."""

    calls: int = 0
    lines: int = 0
    ours: int = 0
    theirs: int = 0
    causes: Counter[Cause] = field(default_factory=Counter)


def compare(
    ledger: Ledger,
    invoice: Invoice,
    upstream: str,
    month: str,
    *,
    models: Mapping[str, str] | None = None,
    input_has_cached: bool | None = None,
) -> Comparison:
    """Compare an invoice with what our log says that a month at an upstream cost.

    With response ids the two are matched call by call, else model by model.

    Args:
        ledger: of an actor who sees all organisations.
        invoice: from `invoice_lines.read`.
        upstream: name of the upstream that the provider bills.
        month: such as "2026-10", UTC.
        models: the provider's name of a model → our public id, for those that are not known by either name.
        input_has_cached: whether the invoice's input tokens include cached ones; by default as the dialect counts
            them (not with Anthropic), unless the headings tell.

    Raises:
        NotFound: no such upstream.
        InvalidInput: not a month, or a line is of another one.
        Forbidden: the actor sees one organisation only.
    """
    dialect = _dialect(ledger, upstream)
    period = Period.month(month)
    for line in invoice.lines:
        if line.day is not None and f"{line.day:%Y-%m}" != month:
            raise InvalidInput(
                f"Line {line.number} is of {line.day}, which is not in {month}. Months are compared one by one, in "
                "UTC: take the lines of other months out."
            )
    with ledger.store.read(ledger.actor) as tx:
        named = names_at(tx, upstream)
    if input_has_cached is None:
        input_has_cached = invoice.input_has_cached
    if input_has_cached is None:
        input_has_cached = dialect != "anthropic"
    comparing = _Comparing(invoice, named, models or {}, has_cached=input_has_cached)
    by_call = "response_id" in invoice.columns
    ours = our_calls(ledger, upstream, period, named, by_call=by_call)
    if by_call:
        comparing.by_call(ours)
    else:
        comparing.by_model(ours)
    return comparing.result(upstream, month)


def obstacle(ledger: Ledger, upstream: str | None) -> str:
    """Return why no invoice of an upstream can be compared, as `compare` would raise it; empty if one can."""
    try:
        _dialect(ledger, upstream)
    except (Forbidden, NotFound) as error:
        return str(error)
    return ""


def _dialect(ledger: Ledger, upstream: str | None) -> str:
    """Return how an upstream counts, for an actor who may compare its invoice."""
    if ledger.actor.org_id is not None:
        raise Forbidden(
            "A provider bills all organisations together: only who sees them all, with no single one chosen, can "
            "compare."
        )
    with ledger.store.read(ledger.actor) as tx:
        dialects = dict(tx.session.execute(select(Upstream.name, Upstream.dialect)).all())
    if upstream not in dialects:
        there = ", ".join(sorted(dialects)) or "none yet"
        what = f"There is no upstream {upstream!r}." if upstream else "Name the upstream that the invoice bills."
        raise NotFound(f"{what} There are: {there}.")
    return dialects[upstream]


class _Comparing:
    """The work of one comparison."""

    def __init__(
        self, invoice: Invoice, named: Mapping[str, str], models: Mapping[str, str], *, has_cached: bool
    ) -> None:
        self._invoice = invoice
        self._named = named
        self._models = models
        self._has_cached = has_cached
        self._known = set(named.values())
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)
        self._evidence: dict[Cause, list[tuple[int, str]]] = defaultdict(list)

    def by_model(self, ours: Iterable[OurCalls]) -> None:
        """Compare what a model's lines sum to with what its calls do."""
        billed: dict[str, list[InvoiceLine]] = defaultdict(list)
        for line in self._invoice.lines:
            billed[self._name(line.model)].append(line)
        groups: dict[str, OurCalls] = {}
        for group in ours:
            self._count(group)
            if group.model in groups:
                groups[group.model].add(group)
            else:
                groups[group.model] = group
        for model, lines in billed.items():
            for line in lines:
                self._bill(model, line)
            if model in groups:
                self._explain(model, lines, groups[model])
            else:
                self._book(model, Cause.MISSING_FROM_US, sum(line.amount for line in lines))
        for model in groups.keys() - billed.keys():
            self._book(model, Cause.MISSING_FROM_THEM, -groups[model].cost)

    def by_call(self, ours: Iterable[OurCalls]) -> None:
        """Compare each billed call with the one of ours that has its id."""
        billed = self._billed_calls()
        nameless: dict[tuple[str, date | None], list[OurCalls]] = defaultdict(list)
        with_days = "date" in self._invoice.columns
        for call in ours:
            self._count(call)
            if lines := billed.pop(call.name, None):
                for line in lines:
                    self._bill(call.model, line)
                self._explain(call.model, lines, call)
            elif call.response_id is None and call.unfinished[1]:
                nameless[call.model, call.day if with_days else None].append(call)
            else:
                self._book(call.model, Cause.MISSING_FROM_THEM, -call.cost, call.name)
        for response_id, lines in billed.items():
            model, amount = self._name(lines[0].model), sum(line.amount for line in lines)
            for line in lines:
                self._bill(model, line)
            # An abandoned call has no id of the provider's: one of that model and day, whose hold covers the amount.
            waiting = nameless[model, lines[0].day]
            found = next((call for call in waiting if amount <= call.cost + call.unfinished[1]), None)
            words = f"line {lines[0].number}: {response_id}"
            if found is None:
                self._book(model, Cause.MISSING_FROM_US, amount, words)
            else:
                waiting.remove(found)
                self._book(model, Cause.UNFINISHED, amount - found.cost, f"{words}, taken to be {found.name}")
        for waiting in nameless.values():
            for call in waiting:
                self._book(call.model, Cause.MISSING_FROM_THEM, -call.cost, call.name)

    def _billed_calls(self) -> dict[str, list[InvoiceLine]]:
        """Return the lines of each billed call; those that are billed again, or are of no call, are booked at once."""
        billed: dict[str, list[InvoiceLine]] = {}
        for line in self._invoice.lines:
            before = billed.get(line.response_id or "", [])
            if line.response_id is None:
                self._bill(self._name(line.model), line)
                words = f"line {line.number}: {line.model}, of no call"
                self._book(self._name(line.model), Cause.UNEXPLAINED, line.amount, words)
            elif any((line.model, line.tokens, line.amount) == (b.model, b.tokens, b.amount) for b in before):
                self._bill(self._name(line.model), line)
                words = f"line {line.number}: {line.response_id}, as in line {before[0].number}"
                self._book(self._name(line.model), Cause.BILLED_TWICE, line.amount, words)
            else:
                billed.setdefault(line.response_id, []).append(line)
        return billed

    def _explain(self, model: str, lines: list[InvoiceLine], ours: OurCalls) -> None:
        """Split what lines bill beyond the calls of ours that they are for."""
        billed = sum(line.amount for line in lines)
        tokens = self._tokens(lines, ours)
        name = lines[0].response_id and f"line {lines[0].number}: {lines[0].response_id}"
        self._book(model, Cause.ROUNDING, ours.exact - ours.cost)  # our own, once a call
        worth = ours.worth(tokens)
        beyond = (billed if worth is None else worth) - ours.exact
        for cause, (least, most) in ((Cause.UNFINISHED, ours.unfinished), (Cause.ESTIMATED, ours.estimated)):
            part = max(least, min(beyond, most))
            self._book(model, cause, part, name)
            beyond -= part
        self._book(model, Cause.UNEXPLAINED if worth is None else Cause.TOKENS, beyond, name)
        if worth is not None:
            rest = billed - worth
            if abs(rest) <= self._invoice.last_place * len(lines):
                self._book(model, Cause.ROUNDING, rest)
            else:
                self._book(model, Cause.PRICES if any(map(_counts_tokens, lines)) else Cause.UNEXPLAINED, rest, name)

    def _tokens(self, lines: list[InvoiceLine], ours: OurCalls) -> list[int]:
        """Return what lines count, by kind; a kind that the invoice has no column of is taken to be as we count it."""
        counts = [
            mine if lines[0].tokens[kind] is None else sum(line.tokens[kind] or 0 for line in lines)
            for kind, mine in enumerate(ours.tokens)
        ]
        if self._has_cached and lines[0].tokens[0] is not None:
            counts[0] -= sum(counts[1:4])
            if counts[0] < 0:
                raise InvalidInput(
                    f"Line {lines[0].number} counts fewer input tokens than cached ones: its input seems not to "
                    "include them. Say so with --input-without-cached (input_has_cached=False)."
                )
        return counts

    def _name(self, model: str) -> str:
        """Return the upstream's name of a model as an invoice names it, which may have a date at its end."""
        for name in (self._models.get(model, model), _DATED.sub("", model.removeprefix("models/"))):
            if name in self._known:
                return name
            if name in self._named:
                return self._named[name]
        return model

    def _count(self, ours: OurCalls) -> None:
        tally = self._tallies[ours.model]
        tally.calls += ours.calls
        tally.ours += ours.cost

    def _bill(self, model: str, line: InvoiceLine) -> None:
        tally = self._tallies[model]
        tally.lines += 1
        tally.theirs += line.amount

    def _book(self, model: str, cause: Cause, amount: int, evidence: str | None = None) -> None:
        self._tallies[model].causes[cause] += amount
        if evidence and amount:
            self._evidence[cause].append((amount, evidence))

    def result(self, upstream: str, month: str) -> Comparison:
        """Return what was found."""
        total = _Tally()
        for tally in self._tallies.values():
            total.calls += tally.calls
            total.lines += tally.lines
            total.ours += tally.ours
            total.theirs += tally.theirs
            total.causes.update(tally.causes)  # a counter's update adds
        gaps = [_gap(model, tally) for model, tally in self._tallies.items()]
        gaps.sort(key=lambda gap: (-abs(gap.gap), gap.model))
        evidence = {
            cause: [
                f"{words}, {_usd(amount).normalize():f} USD"
                for amount, words in nlargest(MOST_SHOWN, self._evidence[cause], key=lambda found: abs(found[0]))
            ]
            for cause in Cause
            if self._evidence[cause]
        }
        return Comparison(upstream, month, gaps, _gap("", total), evidence)


def _counts_tokens(line: InvoiceLine) -> bool:
    return any(line.tokens)


def _gap(model: str, tally: _Tally) -> Gap:
    causes = {cause: _usd(tally.causes[cause]) for cause in Cause if tally.causes[cause]}
    return Gap(model, tally.calls, tally.lines, _usd(tally.ours), _usd(tally.theirs), causes)


def _usd(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-15)
