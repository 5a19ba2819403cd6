"""Addresses as people write them into settings and as browsers send them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core import addresses
from toolkit.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://llm.example.com", "https://llm.example.com"),
        ("HTTPS://LLM.Example.com:443/", "https://llm.example.com"),
        ("http://10.0.0.7:8080/Keydesk/", "http://10.0.0.7:8080/Keydesk"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_urls_lose_what_says_nothing(text: str, url: str) -> None:
    """The scheme's own port and the last slash go; the path keeps its letters."""
    assert addresses.parse_url(text, "KEYDESK_PUBLIC_URL") == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "llm.example.com",
        "ftp://llm.example.com",
        "https://",
        "https://user:password@llm.example.com",
        "https://llm.example.com?x=1",
        "https://llm.example.com/#x",
        "https://llm.example.com:port",
        "https://llm.example.com:99999",
        "https://a b",
        "https://a\\b",
        "https://ключ.example",
    ],
)
def test_what_is_no_address_is_named(text: str) -> None:
    """The message names the setting and shows how it is written."""
    with pytest.raises(InvalidInput, match=r"KEYDESK_PUBLIC_URL.*for example"):
        addresses.parse_url(text, "KEYDESK_PUBLIC_URL")


def test_pages_are_a_list_with_paths() -> None:
    """Each is there once, without a slash at its end; origin and path can be had apart."""
    pages = addresses.parse_pages("https://A.example/Keydesk/ , http://b.example:80,https://a.example/Keydesk", "X")
    assert pages == ("https://a.example/Keydesk", "http://b.example")
    assert [addresses.split_page(page) for page in pages] == [
        ("https://a.example", "/Keydesk"),
        ("http://b.example", ""),
    ]
    assert addresses.split_page("http://[::1]:8501/a/b") == ("http://[::1]:8501", "/a/b")
    assert addresses.parse_pages("", "X") == ()


@pytest.mark.parametrize("path", ["/../x", "/a/./b", "/a//b", "/a%20b", "/a;b", "/ä", "/a?b"])
def test_odd_paths_of_pages_are_refused(path: str) -> None:
    """No proxy and no browser need agree with us on what they mean."""
    with pytest.raises(InvalidInput, match=r"X: .* is no address of a dashboard"):
        addresses.parse_pages(f"https://a.example{path}", "X")


def test_origins_are_a_list() -> None:
    """Each is there once, and one with a path is refused."""
    assert addresses.parse_origins(" https://a.example , http://b.example:80,https://A.example:443/ ", "X") == (
        "https://a.example",
        "http://b.example",
    )
    assert addresses.parse_origins("", "X") == ()
    with pytest.raises(InvalidInput, match=r"X: 'https://a\.example/workspace' is no origin"):
        addresses.parse_origins("https://a.example/workspace", "X")


@pytest.mark.parametrize(
    "origin", ["app://obsidian.md", "chrome-extension://abcdef", "tauri://localhost", "https://a.example:8443"]
)
def test_origins_of_applications_are_taken_where_they_may_be(origin: str) -> None:
    """Desktop applications and extensions have schemes of their own; nowhere else is one taken."""
    assert addresses.parse_origins(f"{origin.upper()}/", "X", of_apps=True) == (origin,)
    if not origin.startswith("http"):
        with pytest.raises(InvalidInput, match="is no origin"):
            addresses.parse_origins(origin, "X")


@pytest.mark.parametrize("text", ["*", "null", "https://*.example.com", "file://", "a.example", "https://a.example/x"])
def test_no_list_of_origins_takes_everybody_in(text: str) -> None:
    """What would mean any page, or none in particular, is refused."""
    with pytest.raises(InvalidInput, match="is no origin"):
        addresses.parse_origins(text, "X", of_apps=True)


@pytest.mark.parametrize(
    ("page", "host", "same"),
    [
        ("https://workspace.example", "workspace.example", True),
        ("https://workspace.example", "Workspace.Example:443", True),
        ("http://workspace.example", "workspace.example:443", False),
        ("http://127.0.0.1:8501", "127.0.0.1:8501", True),
        ("http://127.0.0.1:8502", "127.0.0.1:8501", False),
        ("http://127.0.0.1", "127.0.0.1:8501", False),
        ("http://[::1]:8501", "[::1]:8501", True),
        ("http://workspace.example", "workspace.example.evil.test", False),
        ("http://workspace.example", "workspace.example/x", False),
        ("http://workspace.example", "user@workspace.example", False),
        ("http://workspace.example", "", False),
    ],
)
def test_a_page_is_of_the_host_that_was_asked(page: str, host: str, same: bool) -> None:
    """Host and port must be the same; without a port it is the scheme's own."""
    assert addresses.is_of_host(page, host) is same


@given(st.text(max_size=60))
def test_anything_may_come_as_an_origin(text: str) -> None:
    """Whatever is sent, it is an origin in its usual spelling or none."""
    found = addresses.origin(text)
    assert found is None or addresses.origin(found) == found
