"""The forms of a statement: JSON as it was hashed, CSV for spreadsheets, a page to print. Pure: figures in, text out.

The page is one HTML file that needs nothing else: no script, no font, no picture from elsewhere, and every name in it
is escaped. Amounts are exact everywhere; the page has them in cents as well.
"""

import csv
import io
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from toolkit.core.money import show_usd, usd
from toolkit.core.spreadsheet import FORMULA
from toolkit.statements.figures import MONEY, TOKENS, Figures, canonical, digest

FORMS = ("json", "csv", "html")
"""Endings of the files that a statement can be written into."""

_CALLS = ("calls", *TOKENS, *(f"{name}_usd" for name in MONEY))
_COLUMNS = (
    *("org", "month", "section", "key_id", "key", "model"),
    *_CALLS,
    *("at", "by", "reference", "reason", "corrects", "amount_usd"),
)
_SECTIONS = {"keys_and_models": "key and model", "keys": "key", "models": "model"}
_CENT = 10_000_000  # nano-USD


def written(figures: Figures, form: str) -> str:
    """Return a statement in one of `FORMS`.

    Args:
        figures: as frozen, or a draft's.
        form: "json" is the text that was hashed, to the byte.
    """
    forms: dict[str, Callable[[Figures], str]] = {"json": canonical, "csv": to_csv, "html": to_html}
    return forms[form](figures)


def to_csv(figures: Figures) -> str:
    """Return a statement as one table: calls by key and model, by key, by model and in all, then the wallet's bridge.

    The column `section` says which line is which, so a spreadsheet filters by it. Text that a spreadsheet would take
    for a formula gets an apostrophe in front; numbers are numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    shared = {"org": figures["org"]["name"], "month": figures["month"]}
    for line in _lines(figures):
        writer.writerow([_cell(name, (shared | line).get(name)) for name in _COLUMNS])
    return text.getvalue()


def _lines(figures: Figures) -> Iterator[dict[str, Any]]:
    for part, section in _SECTIONS.items():
        for group in figures[part]:
            yield {"section": section} | group
    yield {"section": "total"} | figures["totals"]
    bridge = figures["wallet"]
    yield {"section": "opening balance", "amount_usd": bridge["opening_usd"]}
    for line in (*figures["credits"], *figures["adjustments"]):
        yield {key: value for key, value in line.items() if key != "calls"} | {"section": line["kind"]}
    yield {"section": "charged", "amount_usd": f"{'-' if bridge['charged'] else ''}{bridge['charged_usd']}"}
    yield {"section": "closing balance", "amount_usd": bridge["closing_usd"]}


def _cell(column: str, value: Any) -> Any:
    if value is None:
        return ""
    number = column in _CALLS or column == "amount_usd"  # by what the column is: a key may be named "-1"
    return f"'{value}" if not number and str(value).startswith(FORMULA) else value


def to_html(figures: Figures) -> str:
    """Return a statement as a page to read and to print, on A4 or Letter."""
    text = canonical(figures)
    org, month = escape(figures["org"]["name"]), figures["month"]
    title = f"{datetime.fromisoformat(figures['from']):%B %Y}"
    totals, bridge = figures["totals"], figures["wallet"]
    draft = figures["closed_at"] is None
    return _PAGE.format(
        title=f"{org} · {month}",
        style=_STYLE,
        draft=' class="draft"' if draft else "",
        org=org,
        month=title,
        closed="Draft: this month is not closed" if draft else f"Closed {_moment(figures['closed_at'])}",
        by="" if draft else f" by {escape(figures['closed_by'])}",
        org_id=escape(figures["org"]["id"]),
        charged=_money(totals["charged"]),
        calls=f"{totals['calls']:,}",
        tokens=f"{totals['input_tokens'] + totals['output_tokens']:,}",
        closing=_money(bridge["closing"]),
        wallet=_bridge(figures),
        keys=_calls_table("Key", figures["keys"], ("key",), totals),
        models=_calls_table("Model", figures["models"], ("model",), totals),
        both=_calls_table("Key, model", figures["keys_and_models"], ("key", "model"), totals),
        check=_check(figures, digest(text)),
    )


def framed(statements: Sequence[Figures]) -> str:
    """Return pages within a page, as a notebook shows them: each unfolds to its whole height, the first one is open."""
    fit = "this.style.height=0;this.style.height=this.contentDocument.documentElement.scrollHeight+'px'"
    style = "width: 100%; height: 62em; border: 0"  # until it has loaded, or where nothing may fit it
    return "".join(
        f'<details{"" if place else " open"} ontoggle="this.lastChild.onload()">'
        f"<summary>{escape(figures['org']['name'])} · {figures['month']}"
        f"{' · draft' if figures['closed_at'] is None else ''}</summary>"
        f'<iframe srcdoc="{escape(to_html(figures))}" title="Statement" style="{style}" onload="{fit}"></iframe>'
        "</details>"
        for place, figures in enumerate(statements)
    )


def _moment(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def _cents(nano: int) -> str:
    return show_usd(nano, 2).replace("-", "\N{MINUS SIGN}")


def _exact(nano: int) -> str:
    """Return an amount with all its decimals, two at least."""
    whole, _, part = usd(nano).replace("-", "\N{MINUS SIGN}").partition(".")
    return f"{whole}.{part:0<2}"


def _money(nano: int) -> str:
    """Return an amount in cents, and below it what it is exactly, where that is more."""
    return _cents(nano) if nano % _CENT == 0 else f"{_cents(nano)}<i>{_exact(nano)}</i>"


def _row(cells: Sequence[str], *, kind: str = "", tag: str = "td") -> str:
    return f"<tr{kind and f' class={kind}'}>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _bridge(figures: Figures) -> str:
    bridge = figures["wallet"]
    rows = [_row(["Opening balance", "", _money(bridge["opening"])], kind="strong")]
    for line in (*figures["credits"], *figures["adjustments"]):
        what = f"{line['kind'].capitalize()} {escape(line['reference'])}".strip()
        about = f", corrects {line['corrects']}" if line.get("corrects") else ""
        why = f"<small>{line['at'][:10]}{about}{' · ' if line['reason'] else ''}{escape(line['reason'])}</small>"
        rows.append(_row([what, why, _money(line["amount"])]))
    rows.append(_row(["Charged for calls", "", _money(-bridge["charged"])]))
    rows.append(_row(["Closing balance", "", _money(bridge["closing"])], kind="total"))
    return f'<table class="bridge"><tbody>{"".join(rows)}</tbody></table>'


def _calls_table(title: str, groups: Sequence[Mapping[str, Any]], labels: Sequence[str], total: Figures) -> str:
    heads = [title, "Calls", "Input", "Cached", "Output", "At list price", "Added by multiplier", "Charged"]
    if not groups:
        return '<p class="none">No calls in this month.</p>'

    def cells(name: str, group: Mapping[str, Any]) -> list[str]:
        counts = ("calls", "input_tokens", "cached_input_tokens", "output_tokens")
        return [name, *(f"{group[count]:,}" for count in counts), *(_money(group[amount]) for amount in MONEY)]

    body = [_row(cells("<br>".join(escape(group[label]) or "&ndash;" for label in labels), group)) for group in groups]
    foot = _row(cells("Total", total), kind="total")
    return f'<table class="calls"><thead>{_row(heads, tag="th")}</thead><tbody>{"".join(body)}{foot}</tbody></table>'


def _check(figures: Figures, sha256: str) -> str:
    org, month = escape(shlex.quote(figures["org"]["name"]), quote=False), figures["month"]
    if figures["closed_at"] is None:
        return "<p>A draft has no place in the audit log. The figures may change until the month is closed.</p>"
    previous = figures["previous_sha256"] or "none: this is the first statement"
    since = figures["since"]
    return (
        f"<p><code>{sha256}</code></p>"
        "<p>This is the SHA-256 of the statement's JSON form, and stands in the audit log, whose rows are chained by "
        f"hash. <code>keydesk month show {month} --org {org} --verify</code> compares the two. To check it yourself, "
        f"write <code>keydesk month export {month} statement.json --org {org}</code>, compute the file's SHA-256, and "
        "compare its figures with these.</p>"
        f"<p>The statement before this one: <code>{previous}</code></p>"
        f"<p>When it was closed, the wallet had {_exact(since['balance'])} USD: the closing balance, "
        f"{_exact(since['entries'])} of later credits and adjustments, and {_exact(-since['charged'])} for calls of "
        "later months.</p>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body{draft}>
<main>
<header>
<div><h1>{org}</h1><p>Statement for {month}</p></div>
<p class="closed">{closed}{by}<br>{org_id}</p>
</header>
<ul class="tiles">
<li><b>{charged}</b>charged</li>
<li><b>{calls}</b>calls</li>
<li><b>{tokens}</b>tokens in and out</li>
<li><b>{closing}</b>closing balance</li>
</ul>
<section><h2>Wallet</h2>{wallet}</section>
<section><h2>By key</h2>{keys}</section>
<section><h2>By model</h2>{models}</section>
<section><h2>By key and model</h2>{both}</section>
<section class="check"><h2>How to check it</h2>{check}
<p>Amounts are in USD. Cents are rounded, so they may seem to miss a sum by one; below them, in small type, stands the
exact amount, and the exact amounts sum. The JSON and CSV forms have nano-USD. A month is a calendar month in UTC, and a
call belongs to the month in which it was admitted. Cached input is part of the input.</p></section>
</main>
</body>
</html>
"""

_STYLE = """
@page { margin: 16mm 14mm 18mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt system-ui; color: #5b6677 } }
* { box-sizing: border-box }
body { margin: 0; background: #eef1f6; color: #1b2333;
  font: 10pt/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; font-variant-numeric: tabular-nums;
  -webkit-print-color-adjust: exact; print-color-adjust: exact }
main { max-width: 210mm; margin: 8mm auto; padding: 14mm; background: #fff; border-radius: 3mm }
header { display: flex; justify-content: space-between; gap: 8mm; padding-bottom: 4mm;
  border-bottom: 1mm solid #3f63b5 }
h1 { margin: 0; font-size: 18pt; line-height: 1.15; overflow-wrap: anywhere }
header p { margin: 1mm 0 0; font-size: 12pt; color: #5b6677 }
header .closed { font-size: 8pt; text-align: right; flex: none; max-width: 65mm; overflow-wrap: anywhere }
.draft header { border-color: #b8860b } .draft .closed { color: #8a5a00 }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 3mm; list-style: none; margin: 5mm 0 0; padding: 0 }
.tiles li { background: #f3f6fb; border-radius: 2mm; padding: 3mm 4mm; font-size: 8pt; color: #5b6677 }
.tiles b { display: block; font-size: 13pt; color: #1b2333 }
h2 { margin: 8mm 0 2mm; font-size: 11pt; break-after: avoid }
table { width: 100%; border-collapse: collapse; font-size: 8pt }
th { text-align: right; font-weight: 600; color: #5b6677; border-bottom: .3mm solid #9aa5b5; vertical-align: bottom }
th, td { padding: 1.1mm 0 1.1mm 2.4mm }
td { text-align: right; border-bottom: .2mm solid #e3e8ef }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere }
.calls td:first-child { min-width: 24mm }
.bridge td:nth-child(2) { text-align: left; overflow-wrap: anywhere; color: #5b6677 }
.bridge td:first-child { width: 48mm } .bridge td:last-child { white-space: nowrap }
tr { break-inside: avoid } thead { display: table-header-group }
.total td { font-weight: 600; border-top: .5mm solid #5b6677; border-bottom: 0 }
.strong td { font-weight: 600 }
i { display: block; font-style: normal; font-weight: 400; font-size: 6.5pt; line-height: 1.2; color: #5b6677 }
.none { color: #5b6677 }
.check { break-inside: avoid; font-size: 8.5pt } .check p { margin: 0 0 2mm }
code { font: 8pt ui-monospace, Consolas, monospace; background: #f3f6fb; padding: .3mm 1mm; overflow-wrap: anywhere }
@media print { body { background: none } main { max-width: none; margin: 0; padding: 0; border-radius: 0 } }
@media screen and (max-width: 700px) {
  main { padding: 6mm; overflow-x: auto } .tiles { grid-template-columns: 1fr 1fr } }
"""
