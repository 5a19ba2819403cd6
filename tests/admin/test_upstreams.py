"""Upstreams: which base URLs and names of credentials are taken, and what is known of them."""

import pytest

from tests.conftest import World
from toolkit.admin import catalog
from toolkit.admin.upstreams import add_upstream, find, update_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.upstream_traits import OnLeave, UpstreamTraits
from toolkit.store import audit
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://api.example.com",
        "https://",
        "https:///v1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/#x",
        "https://user:secret@api.example.com",
        "https://api.example.com:99999/v1",
        "https://api.example.com:x/v1",
        "http://[::1/v1",
        "https://api.example.com/v1\n",
        "https://api.example.com/a b",
    ],
)
def test_a_base_url_that_cannot_be_is_refused(workspace: Workspace, url: str) -> None:
    """Not a web address, or one with a query or a credential in it."""
    with workspace.write() as tx, pytest.raises(InvalidInput, match="base URL"):
        add_upstream(tx, "mine", Dialect.OPENAI, url, "SOME_API_KEY")


@pytest.mark.parametrize(
    ("dialect", "url", "base"),
    [
        (Dialect.OPENAI, "https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
        (Dialect.OPENAI, "http://127.0.0.1:8000/v1/embeddings/", "http://127.0.0.1:8000/v1"),
        (Dialect.ANTHROPIC, "https://api.anthropic.com/v1/messages", "https://api.anthropic.com"),
        (Dialect.GEMINI, "https://g.example/v1beta/models/gemini-2.5-pro:generateContent", "https://g.example"),
    ],
)
def test_the_url_of_an_endpoint_is_no_base_url(workspace: Workspace, dialect: Dialect, url: str, base: str) -> None:
    """The right base URL is suggested, whether an upstream is added or changed."""
    with workspace.write() as tx:
        with pytest.raises(InvalidInput) as refused:
            add_upstream(tx, "mine", dialect, url, "SOME_API_KEY")
        assert str(refused.value).endswith(f": {base}")
        add_upstream(tx, "mine", dialect, base, "SOME_API_KEY")
        with pytest.raises(InvalidInput, match="one endpoint"):
            update_upstream(tx, "mine", base_url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8090/openai/v1/", "https://api.example.com", "http://[::1]:80/v1"])
def test_a_base_url_is_kept_without_its_last_slash(workspace: Workspace, url: str) -> None:
    """So that paths can be put behind it."""
    with workspace.write() as tx:
        assert add_upstream(tx, "mine", Dialect.OPENAI, url, "SOME_API_KEY").base_url == url.rstrip("/")


@pytest.mark.parametrize("variable", ["", "sk-proj-abc", "A B", "1X", "X" * 129, "Ключ"])
def test_a_credential_is_named_not_given(workspace: Workspace, variable: str) -> None:
    """A value in place of a variable's name is refused before it reaches the store."""
    with workspace.write() as tx, pytest.raises(InvalidInput, match="Give the name, not the value"):
        add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", variable)


def test_an_upstreams_name_is_taken_once(world: World) -> None:
    """The message names it."""
    with world.workspace.write() as tx, pytest.raises(Conflict, match="test-openai"):
        add_upstream(tx, "test-openai", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")


@pytest.mark.parametrize("name", ["PATH", "KEYDESK_PEPPER", "KEYDESK_PEPPER_API_KEY", "SECRET"])
def test_a_credential_that_would_send_something_else_is_refused(workspace: Workspace, name: str) -> None:
    """When an upstream is added and when it is changed; the message says what would be right."""
    with workspace.write() as tx:
        with pytest.raises(InvalidInput, match=name):
            add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", name)
        add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")
        with pytest.raises(InvalidInput, match=name):
            update_upstream(tx, "mine", credential_env=name)


def test_an_upstream_is_moved_to_no_metadata_service(workspace: Workspace) -> None:
    """Nor added there."""
    with workspace.write() as tx:
        add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")
        with pytest.raises(InvalidInput, match="never called"):
            update_upstream(tx, "mine", base_url="http://169.254.169.254/latest")


OWN, OTHER = "https://api.anthropic.com", "https://claude.example.com"


def traits(workspace: Workspace, name: str = "mine") -> UpstreamTraits:
    """Return what is known of an upstream."""
    with workspace.read() as tx:
        return catalog.traits_of(find(tx, name))


def test_what_is_known_of_an_upstream_is_what_is_usual_unless_it_is_said(workspace: Workspace) -> None:
    """Said is also that it is not so."""
    with workspace.write() as tx:
        add_upstream(tx, "mine", Dialect.ANTHROPIC, OWN, "SOME_API_KEY")
        add_upstream(
            tx,
            "told",
            Dialect.ANTHROPIC,
            OWN,
            "SOME_API_KEY",
            on_leave=OnLeave.READ_ON,
            refusal_free=False,
            pin_tier=False,
            reckon_rate=50,
        )
        add_upstream(tx, "other", Dialect.ANTHROPIC, OTHER, "SOME_API_KEY", refusal_free=True)
    assert traits(workspace) == UpstreamTraits(OnLeave.CANCEL, True, True, 200)
    assert traits(workspace, "told") == UpstreamTraits(OnLeave.READ_ON, False, False, 50)
    assert traits(workspace, "other") == UpstreamTraits(OnLeave.CANCEL, True, False, 200)


def test_an_upstream_that_moves_has_what_is_usual_where_it_is(workspace: Workspace) -> None:
    """But what was said of it stays, and what is said with the move holds."""
    with workspace.write() as tx:
        add_upstream(tx, "mine", Dialect.ANTHROPIC, OWN, "SOME_API_KEY", reckon_rate=50)
        update_upstream(tx, "mine", base_url=OTHER)
    assert traits(workspace) == UpstreamTraits(reckon_rate=50)
    with workspace.write() as tx:
        update_upstream(tx, "mine", base_url=OWN, pin_tier=False)
    assert traits(workspace) == UpstreamTraits(refusal_free=True, reckon_rate=50)
    with workspace.write() as tx:
        update_upstream(tx, "mine", base_url=f"{OWN}/")
    assert traits(workspace) == UpstreamTraits(refusal_free=True, reckon_rate=50)


def test_a_change_of_what_is_known_is_in_the_audit_log_and_told_to_gateways(workspace: Workspace) -> None:
    """Before and after; what changes nothing leaves no trace."""
    with workspace.write() as tx:
        add_upstream(tx, "mine", Dialect.OPENAI, OTHER, "SOME_API_KEY")
        before = catalog.load(tx).version
        update_upstream(tx, "mine", on_leave=OnLeave.READ_ON)
        changed = catalog.load(tx).version
        update_upstream(tx, "mine", on_leave=OnLeave.READ_ON)
        assert before < changed == catalog.load(tx).version
    with workspace.read() as tx:
        (row,) = [row for row in audit.rows(tx) if row.action == "upstream.update"]
    assert '"on_leave":"cancel"' in (row.before or "").replace(" ", "")
    assert '"on_leave":"read_on"' in (row.after or "").replace(" ", "")


def test_a_bound_of_connections_is_audited_and_told_to_gateways(workspace: Workspace) -> None:
    """None is the usual, and may be had again."""
    with workspace.write() as tx:
        add_upstream(tx, "mine", Dialect.OPENAI, OTHER, "SOME_API_KEY")
        assert find(tx, "mine").max_connections == 0
        for count in (5, 0):
            update_upstream(tx, "mine", max_connections=count)
            assert find(tx, "mine").max_connections == count
        for count in (-1, 10_001):
            with pytest.raises(InvalidInput, match="between 1 and 10,000; 0 is none"):
                update_upstream(tx, "mine", max_connections=count)
    with workspace.read() as tx:
        rows = [row for row in audit.rows(tx) if row.action == "upstream.update"]
    assert ["max_connections" in (row.after or "") for row in rows] in ([True, False], [False, True])


def test_what_cannot_be_known_of_an_upstream_is_refused(workspace: Workspace) -> None:
    """Nothing is added or changed."""
    with workspace.write() as tx:
        with pytest.raises(InvalidInput, match="Free refusals"):
            add_upstream(tx, "mine", Dialect.OPENAI, OTHER, "SOME_API_KEY", refusal_free=True)
        with pytest.raises(NotFound, match="no upstream named 'mine'"):
            find(tx, "mine")
        add_upstream(tx, "mine", Dialect.OPENAI, OTHER, "SOME_API_KEY")
        with pytest.raises(InvalidInput, match="tokens a second"):
            update_upstream(tx, "mine", reckon_rate=-5)
    assert traits(workspace) == UpstreamTraits()
