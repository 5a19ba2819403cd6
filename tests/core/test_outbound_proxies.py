"""Which proxy a connection to an upstream goes through, and how one is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import InvalidInput
from toolkit.core.outbound_proxies import OutboundProxies, OutboundProxy

SECURE, PLAIN = "http://secure.example:3128", "http://plain.example"


def through(host: str, no_proxy: str, port: int = 443) -> bool:
    """Whether a host is called through the proxy."""
    return OutboundProxies.parse(SECURE, "", no_proxy).of(host, port, tls=True) is not None


@pytest.mark.parametrize(
    ("text", "host", "port", "authorization"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128, ""),
        ("http://proxy.example/", "proxy.example", 80, ""),
        ("proxy.example:8080", "proxy.example", 8080, ""),
        ("http://[2001:db8::1]:3128", "2001:db8::1", 3128, ""),
        # RFC 7617's own example, and signs that a URL cannot have as they are.
        ("http://Aladdin:open%20sesame@proxy.example:1", "proxy.example", 1, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("http://a%40b:c%3Ad@proxy.example:1", "proxy.example", 1, "Basic YUBiOmM6ZA=="),
        ("http://user@proxy.example:1", "proxy.example", 1, "Basic dXNlcjo="),
        # Bytes of no text, as curl sends them; and letters that are written as UTF-8.
        ("http://u:%FF@proxy.example:1", "proxy.example", 1, "Basic dTr/"),
        ("http://u:ü@proxy.example:1", "proxy.example", 1, "Basic dTrDvA=="),
    ],
)
def test_a_proxy_is_read(text: str, host: str, port: int, authorization: str) -> None:
    """Its scheme may be left out, as curl has it."""
    proxy = OutboundProxy.parse(text, "HTTPS_PROXY")
    assert proxy is not None
    assert (proxy.host, proxy.port, proxy.authorization) == (host, port, authorization)


@pytest.mark.parametrize(
    "text",
    [
        "socks5://hunter2@proxy.example:1080",
        "https://u:hunter2@proxy.example",
        "http://u:hunter2@",
        "http://u:hunter2@proxy.example:0",
        "http://u:hunter2@proxy.example:port",
        "http://u:hunter2@proxy.example/path",
        "http://u:hunter2@proxy.example?x",
        "http://u:hunter2@proxy.example\r\nX: y",
        "hunter2 proxy",
        "http://[hunter2",
        "http://u:hunter2@proxy..example:3128",
    ],
)
def test_what_is_no_proxy_is_refused_without_repeating_it(text: str) -> None:
    """The variable is named and an example given; the value may hold a password."""
    with pytest.raises(InvalidInput, match=r"HTTPS_PROXY is no address .* http://proxy\.example:3128") as caught:
        OutboundProxies.parse(text, "", "")
    assert "hunter2" not in str(caught.value)


@given(st.one_of(st.text(), st.from_regex(r"http://[^/]{0,20}(:\d{0,6})?", fullmatch=True)))
def test_whatever_stands_there_is_read_or_refused(text: str) -> None:
    """No text ends in another error, and what is read can be connected to and asked."""
    try:
        proxy = OutboundProxy.parse(text, "HTTPS_PROXY")
    except InvalidInput:
        return
    assert (proxy is None) is (text == "")
    if proxy is not None:
        assert proxy.host
        assert 0 < proxy.port < 65536
        assert proxy.authorization.isascii()
        assert proxy.authorization.isprintable()


def test_a_proxy_is_shown_without_its_credential() -> None:
    """Not by its name in an error, nor by its repr."""
    proxy = OutboundProxy.parse("http://u:hunter2@proxy.example:1", "HTTPS_PROXY")
    assert proxy is not None
    for shown in (str(proxy), repr(proxy), repr(OutboundProxies(proxy))):
        assert "hunter2" not in shown
        assert proxy.authorization not in shown


def test_each_scheme_has_its_own_proxy() -> None:
    """HTTPS_PROXY is for upstreams of https, HTTP_PROXY for those of http; without one they are called directly."""
    both, one = OutboundProxies.parse(SECURE, PLAIN, ""), OutboundProxies.parse("", PLAIN, "")
    found = [proxies.of("api.example", 443, tls=tls) for proxies in (both, one) for tls in (True, False)]
    assert [proxy and proxy.host for proxy in found] == ["secure.example", "plain.example", None, "plain.example"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "models.localhost",
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "127.1",
        "0x7f000001",
        "0.0.0.0",
        "::",
    ],
)
def test_this_machine_is_never_called_through_a_proxy(host: str) -> None:
    """The proxy would call its own; a local model server works beside any proxy."""
    assert not through(host, "")


@pytest.mark.parametrize(
    ("entry", "covered", "not_covered"),
    [
        ("*", ["api.example", "10.0.0.1"], []),
        ("example.com", ["example.com", "api.example.com", "API.Example.com."], ["notexample.com", "example.com.org"]),
        (".example.com", ["example.com", "a.b.example.com"], ["anexample.com"]),
        ("*.example.com", ["api.example.com"], ["example.org"]),
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3", "10.258"], ["11.0.0.1", "10.example"]),
        ("192.168.1.5", ["192.168.1.5"], ["192.168.1.50"]),
        ("fd00::/8", ["fd00::1"], ["fe00::1"]),
        ("[fd00::1]", ["fd00::1"], ["fd00::2"]),
        ("fd00::1", ["fd00::1"], ["fd00::2"]),
        ("example.com:443", ["example.com"], []),
        ("example.com:8443, [fd00::1]:8443, .", [], ["example.com", "fd00::1"]),
        (" a.example  b.example,,c.example ", ["a.example", "b.example", "c.example"], ["d.example"]),
    ],
)
def test_hosts_without_a_proxy(entry: str, covered: list[str], not_covered: list[str]) -> None:
    """Domains with all below them, addresses, networks, one port of them, or all."""
    assert [through(host, entry) for host in covered] == [False] * len(covered)
    assert [through(host, entry) for host in not_covered] == [True] * len(not_covered)
