"""The forms of a statement: what was hashed, what a spreadsheet may open, what is printed."""

import csv
import hashlib
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import examples
from toolkit.core.money import parse_usd, usd
from toolkit.statements.figures import TOKENS, Figures, canonical
from toolkit.statements.render import FORMS, framed, to_csv, to_html, written

NASTY = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "<script>alert(1)</script>", 'a"b,c', "naïve ☃")


def money(**amounts: int) -> dict[str, Any]:
    """Return amounts as figures have them."""
    return {**amounts, **{f"{name}_usd": usd(amount) for name, amount in amounts.items()}}


def group(charged: int, **labels: str) -> dict[str, Any]:
    """Return the sums of some calls."""
    sums = money(list_cost=charged - 1, multiplier_effect=1, charged=charged)
    return {**labels, "calls": 1, **dict.fromkeys(TOKENS, 7), **sums}


def figures(*names: str, closed_at: str | None = "2026-11-02T08:00:00+00:00") -> Figures:
    """Return figures of keys, of one model each, and of wallet entries with these names."""
    keys = [group(10 + number, key_id=f"key_{number}", key=name) for number, name in enumerate(names)]
    total = sum(key["charged"] for key in keys)
    closing = 5 * len(keys) - 5 - total
    entry = {"at": "2026-10-03T00:00:00+00:00", "by": "a@b.example", "id": "entry_1", **money(amount=5)}
    lines = [entry | {"kind": "credit", "reference": name, "reason": name} for name in names]
    about: dict[str, Any] = {"kind": "adjustment", "corrects": "2026-09", "key_id": None, "calls": 3}
    return {
        "form": 1,
        "org": {"id": "org_1", "name": names[0]},
        "month": "2026-10",
        "from": "2026-10-01T00:00:00+00:00",
        "until": "2026-11-01T00:00:00+00:00",
        "totals": group(total) | {"calls": len(keys)},
        "keys": keys,
        "models": [group(total, model=names[-1])],
        "keys_and_models": [key | {"model": name} for key, name in zip(keys, names, strict=True)],
        "wallet": money(opening=0, credits=5 * len(names), adjustments=-5, charged=total, closing=closing),
        "credits": lines,
        "adjustments": [entry | about | {"reference": "r", "reason": "2026-09 was wrong"} | money(amount=-5)],
        "since": money(entries=0, charged=0, balance=closing),
        "before": None,
        "previous_sha256": None,
        "closed_at": closed_at,
        "closed_by": closed_at and "a@b.example",
    }


def rows(text: str) -> list[dict[str, str]]:
    """Return a CSV's rows."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


class Page(HTMLParser):
    """The elements and the words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in {"src", "href"} or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        """Note words."""
        self.words += data


def test_json_is_the_text_that_was_hashed() -> None:
    """To the byte: whoever has the file can compute the hash with any tool."""
    stated = figures("app")
    assert written(stated, "json") == canonical(stated)
    assert not written(stated, "json").endswith("\n")


def test_csv_sums_to_the_totals_and_to_the_closing_balance() -> None:
    """One table; its sections are told by a column, and the amounts of the bridge add up."""
    stated = figures("app", "job")
    found = rows(to_csv(stated))
    sections = ["key and model"] * 2 + ["key"] * 2 + ["model", "total", "opening balance"]
    assert [row["section"] for row in found] == [
        *sections,
        "credit",
        "credit",
        "adjustment",
        "charged",
        "closing balance",
    ]
    for section in ("key and model", "key", "model", "total"):
        charged = sum(parse_usd(row["charged_usd"]) for row in found if row["section"] == section)
        assert charged == stated["totals"]["charged"], section
    *parts, closing = [parse_usd(row["amount_usd"]) for row in found if row["amount_usd"]]
    assert sum(parts) == closing == stated["wallet"]["closing"]
    assert {row["calls"] for row in found if row["section"] in {"credit", "adjustment"}} == {""}


@pytest.mark.parametrize("name", NASTY)
def test_csv_holds_no_formula(name: str) -> None:
    """Text that a spreadsheet would run gets an apostrophe; amounts below zero stay numbers."""
    found = rows(to_csv(figures(name)))
    shown = f"'{name}" if name[0] in "=+-@\t\r\n" else name
    assert {row["key"] for row in found if row["section"] == "key"} == {shown}
    assert {row["org"] for row in found} == {shown}
    (credit,) = [row for row in found if row["section"] == "credit"]
    assert (credit["reference"], credit["reason"], credit["amount_usd"]) == (shown, shown, "0.000000005")
    assert {row["amount_usd"] for row in found if row["section"] == "adjustment"} == {"-0.000000005"}


@examples(50)
@given(st.text(min_size=1, max_size=20))
def test_any_name_survives_csv_and_html(name: str) -> None:
    """No cell but a number begins like a formula; no name becomes an element, and none is lost."""
    stated = figures(name, "b")
    for row in csv.reader(io.StringIO(to_csv(stated), newline="")):
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) or re.fullmatch(r"-[\d.]+", cell)
    page = Page(to_html(stated))
    assert "script" not in page.tags
    assert "".join(name.split()) in "".join(page.words.split()).replace("\r", "") or "\r" in name or "\0" in name


def test_the_page_needs_nothing_else() -> None:
    """No script, no link, nothing to load; every name is escaped."""
    page = Page(to_html(figures(*NASTY)))
    assert not page.tags & {"script", "link", "img", "iframe", "object", "a"}
    assert page.links == []
    for name in NASTY:
        assert name.strip() in page.words


def test_the_page_says_how_to_check_it() -> None:
    """The hash is that of the JSON form; the commands name month and organisation."""
    stated = figures("Acme & Co")
    page = Page(to_html(stated))
    assert hashlib.sha256(written(stated, "json").encode()).hexdigest() in page.words
    assert "keydesk month show 2026-10 --org 'Acme & Co' --verify" in page.words
    assert "Statement for October 2026" in page.words
    assert "Closed 2026-11-02 08:00 UTC by a@b.example" in page.words
    assert "corrects 2026-09 · 2026-09 was wrong" in page.words


@pytest.mark.parametrize("name", ['x"; id; "', "$(id)", "a'b; `id`", "Acme", *NASTY])
def test_the_commands_on_the_page_name_the_organisation_and_do_nothing_else(name: str) -> None:
    """Whoever copies them into a shell runs keydesk, whatever the organisation is called."""
    (command,) = re.findall("keydesk month show 2026-10 .*?--verify", Page(to_html(figures(name))).words, re.DOTALL)
    assert shlex.split(command) == ["keydesk", "month", "show", "2026-10", "--org", name, "--verify"]


def test_amounts_on_the_page_are_rounded_to_cents_with_the_exact_one_below() -> None:
    """The same cents in the tile, the bridge and the tables; whole cents need nothing below."""
    stated = figures("app")
    stated["wallet"] |= money(charged=599_427_187_696, closing=-12_340_000_000)
    stated["totals"] |= money(charged=599_427_187_696)
    page = to_html(stated)
    assert page.count(">$599.43<i>599.427187696</i>") == 4  # the tile and three totals
    assert page.count(">−$599.43<i>−599.427187696</i>") == 1
    assert "$599.42" not in page
    assert "<b>−$12.34</b>" in page
    assert "$0.00<i>0.00000001</i>" in page


def test_what_the_multiplier_added_is_called_that() -> None:
    """It is an amount, not a factor; cents that seem not to sum are explained."""
    words = Page(to_html(figures("app"))).words
    assert words.count("Added by multiplier") == 3
    assert words.count("Cents are rounded") == 1


def test_a_draft_says_so() -> None:
    """It has no hash: it is in no audit log."""
    words = Page(to_html(figures("app", closed_at=None))).words
    assert "Draft: this month is not closed" in words
    assert "SHA-256" not in words


def test_each_form_is_text() -> None:
    """And there is no other."""
    assert all(written(figures("app"), form) for form in FORMS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, if there is one."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.world
def test_pages_within_a_page_have_their_whole_height(browser: Browser) -> None:
    """Each organisation's page unfolds; nothing of it is cut off, at any width, and names stay text."""
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.set_content(framed([figures("<b>x</b>", *["k"] * 30), figures("other"), figures("draft", closed_at=None)]))
    summaries = page.locator("summary")
    assert [text.rstrip() for text in summaries.all_inner_texts()] == [
        "<b>x</b> · 2026-10",
        "other · 2026-10",
        "draft · 2026-10 · draft",
    ]
    summaries.nth(1).click()
    for place, name in ((0, "<b>x</b>"), (1, "other")):
        frame = page.frame_locator("iframe").nth(place)
        assert frame.locator("h1").inner_text() == name
        page.wait_for_function(
            "place => { const f = document.querySelectorAll('iframe')[place]; const d = f.contentDocument;"
            " return d.readyState == 'complete' && d.body.getBoundingClientRect().height > 500"
            " && f.clientHeight >= d.documentElement.scrollHeight && f.clientHeight < d.body.scrollHeight + 100 }",
            arg=place,
            timeout=10_000,
        )
    page.close()


@pytest.mark.world
@pytest.mark.parametrize("width", [688, 712])
def test_the_page_fits_paper(browser: Browser, tmp_path: Path, width: int) -> None:
    """A4 and Letter, inside the margins: long names and large amounts wrap, nothing is cut off."""
    stated = figures("x" * 80, *["search " * 10] * 40)
    for row in (*stated["keys"], *stated["keys_and_models"], stated["totals"]):
        row |= {
            "calls": 9_999_999,
            "input_tokens": 10**12,
            **money(list_cost=10**15, multiplier_effect=-(10**14), charged=10**15),
        }
    path = tmp_path / "statement.html"
    path.write_text(to_html(stated))
    page = browser.new_page(viewport={"width": width, "height": 1_000})
    page.goto(path.as_uri())
    page.emulate_media(media="print")
    widest = page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(e => e.getBoundingClientRect().right))")
    assert widest <= width
    pdf = page.pdf(format="A4", print_background=True)
    page.close()
    assert pdf.startswith(b"%PDF")
