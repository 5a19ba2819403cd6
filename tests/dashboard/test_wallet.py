"""The page Wallet: who may book what, and what each role sees."""

import json
from collections.abc import Callable

import pytest

from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from toolkit.admin import organisations, wallet
from toolkit.core.policy import Role
from toolkit.store.tables import Organisation

Open = Callable[..., Visit]


def wallet_of(world: World, name: str = "Acme") -> Organisation:
    with world.workspace.read() as tx:
        return organisations.find(tx, name)


def seen(page: Visit) -> str:
    """Return the tables' cells."""
    return " ".join(str(frame.value.to_csv()) for frame in page.app.dataframe)


def opened(page: Visit, dialog: str, subject: str = "") -> Visit:
    """Open a dialog, as its button or choosing a row does."""
    page.app.session_state["dialog"] = (dialog, subject)
    return page.run()


def of(page: Visit, org_id: str) -> Visit:
    """Choose an organisation, as choosing its row does."""
    page.app.query_params["org"] = org_id
    return page.run()


def test_a_payment_is_booked_once(visit: Open, world: World) -> None:
    """However often the form is sent: the second time says that its reference was used."""
    before = wallet_of(world).balance
    page = of(visit("wallet"), world.org_id).click("credit")
    page.type("amount", "12.34")
    page.type("reference", "INV-7")
    assert "credited to Acme" in page.click("confirm").text
    page.click("credit")
    page.type("amount", "12.34")
    page.type("reference", "inv-7")
    assert "was already used for a credit of $12.34" in page.click("confirm").text
    assert wallet_of(world).balance == before + usd(12.34)
    assert "INV-7" in seen(page)


def test_one_payment_for_two_organisations_must_be_said(visit: Open, world: World) -> None:
    """The error names the box of the form, not an option of a command."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
        wallet.credit(tx, other, usd(5), "INV-8")
    page = of(visit("wallet"), world.org_id).click("credit")
    page.type("amount", "5")
    page.type("reference", "INV-8")
    text = page.click("confirm").text
    assert "by the box above" in text
    assert "--same-reference" not in text
    page.app.checkbox(key="same_reference").check()
    assert "credited to Acme" in page.click("confirm").text


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("-1", "must be above zero"),
        pytest.param("", "not a", marks=pytest.mark.world),
        pytest.param("1,5", "not a", marks=pytest.mark.world),
    ],
)
def test_an_amount_that_is_none_books_nothing(visit: Open, world: World, amount: str, words: str) -> None:
    """And what was typed stays in the form."""
    before = wallet_of(world).balance
    page = of(visit("wallet"), world.org_id).click("credit")
    page.type("amount", amount)
    page.type("reference", "INV-9")
    assert words in page.click("confirm").text
    assert page.app.text_input(key="reference").value == "INV-9"
    assert wallet_of(world).balance == before


def test_an_adjustment_and_the_low_balance(visit: Open, world: World) -> None:
    """An adjustment takes money out, with a reason; the threshold is shown and can be taken away."""
    before = wallet_of(world).balance
    page = of(visit("wallet"), world.org_id).click("adjust")
    page.type("amount", "-2.50")
    page.type("reference", "T-1")
    assert "needs a reason" in page.click("confirm").text
    page.type("reason", "booked twice")
    page.click("confirm")
    assert wallet_of(world).balance == before - usd(2.5)
    page.click("low")
    page.type("low_below", "1000000")
    page.click("confirm")
    assert "low below $1,000,000.00" in page.text
    page.click("low")
    page.type("low_below", "")
    assert "no threshold is set" in page.click("confirm").text


def test_each_role_sees_and_does_what_it_may(visit: Open, world: World) -> None:
    """Another organisation's wallet is "not found"; dialogs of another role do not open."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
        wallet.credit(tx, other, usd(777), "theirs")
    for role, buttons in ((Role.ORG_ADMIN, {"low"}), (Role.ANALYST, set())):
        page = visit("wallet", role, world.org_id)
        assert {name for name in ("credit", "adjust", "low") if page.has_button(name)} == buttons
        assert "theirs" not in seen(page)
        assert "777" not in page.text
        for name in ("Credit", "Adjust"):
            assert not opened(page, name).has_button("confirm")
        assert opened(page, "Low balance").has_button("confirm") == ("low" in buttons)
    platform = visit("wallet")
    assert "Borealis" in seen(platform)
    assert "Not found." in of(platform, "org_of_nobody").text


def test_an_entry_of_another_organisation_is_not_shown(visit: Open, world: World) -> None:
    """Whatever id a browser sends."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
        entry = wallet.credit(tx, other, usd(777), "theirs").id
    page = opened(visit("wallet", Role.ORG_ADMIN, world.org_id), "Entry", entry)
    assert "theirs" not in page.text
    assert "There is no such entry." in " ".join(info.value for info in page.app.info)


def test_every_column_is_shown(visit: Open, world: World) -> None:
    """Streamlit hides a column that is configured as None."""
    page = of(visit("wallet"), world.org_id)
    (frame,) = page.app.dataframe
    assert None not in json.loads(frame.proto.columns).values()


def test_low_empty_and_suspended_wallets_say_so(visit: Open, world: World) -> None:
    """In the list of all, the emptiest first, and on their own."""
    with world.workspace.write() as tx:
        empty = organisations.add(tx, "Borealis").id
        off = organisations.add(tx, "Corvus").id
        wallet.credit(tx, off, usd(5), "INV-1")
        organisations.suspend(tx, off, confirm="Corvus")
        wallet.set_low_balance(tx, world.org_id, usd(1000))
    page = visit("wallet")
    assert page.app.dataframe[0].value["State"].tolist() == ["empty", "suspended", "low"]
    own = of(page, empty).text
    assert "calls are refused until it is credited" in own
    assert "Nothing was booked yet." in own
    assert "suspended: all calls are refused" in of(page, off).text
    analyst = visit("wallet", Role.ANALYST, empty)
    assert "A platform admin books payments." in analyst.text


def test_an_entry_is_shown_with_who_booked_it(visit: Open, world: World) -> None:
    """Reference, reason and id."""
    with world.workspace.write() as tx:
        entry = wallet.credit(tx, world.org_id, usd(5), "INV-5", "for May").id
    page = opened(visit("wallet", Role.ANALYST, world.org_id), "Entry", entry)
    for part in ("INV-5", "for May", entry, "$5.00"):
        assert part in page.text
