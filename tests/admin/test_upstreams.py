"""Upstreams: which base URLs and names of credentials are taken."""

import pytest

from tests.conftest import World
from toolkit.admin.upstreams import add_upstream, update_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput
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
