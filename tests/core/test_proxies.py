"""Trusted proxies: their word counts, nobody else's, however the headers are written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import InvalidInput
from toolkit.core.proxies import MOST_HOPS, Origin, Proxies

PROXIES = Proxies.parse("127.0.0.1, 10.0.0.0/8,fd00::/8", "KEYDESK_TRUSTED_PROXIES")

addresses = st.ip_addresses().map(str)
trusted = st.ip_addresses(network="10.0.0.0/8").map(str) | st.ip_addresses(network="fd00::/8").map(str)


def trusts(proxies: Proxies, address: str) -> bool:
    return proxies.origin(address, "http", []).trusted


strangers = addresses.filter(lambda address: not trusts(PROXIES, address))
headers = st.lists(
    st.tuples(
        st.sampled_from([b"x-forwarded-for", b"x-forwarded-proto", b"host"]),
        st.binary(max_size=60) | st.lists(addresses, max_size=5).map(lambda hops: ", ".join(hops).encode()),
    ),
    max_size=6,
)


def usual(address: str) -> str:
    """Return an address as it is spelled everywhere: ::ffff:192.0.2.1 is 192.0.2.1."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def origin(peer: str, *forwarded: str, proto: str | None = None, scheme: str = "http") -> Origin:
    """Return where a connection comes from, with these values of X-Forwarded-For."""
    sent = [(b"host", b"x"), *((b"x-forwarded-for", value.encode()) for value in forwarded)]
    if proto is not None:
        sent.append((b"x-forwarded-proto", proto.encode()))
    return PROXIES.origin(peer, scheme, sent)


@given(peer=strangers, sent=headers, scheme=st.sampled_from(["http", "https"]))
def test_what_a_stranger_claims_counts_for_nothing(peer: str, sent: list[tuple[bytes, bytes]], scheme: str) -> None:
    """Without trusted proxies nobody is believed, with them only they are."""
    expected = usual(peer)
    assert PROXIES.origin(peer, scheme, sent) == Origin(expected, scheme, trusted=False)
    assert Proxies().origin(peer, scheme, sent) == Origin(expected, scheme, trusted=False)


@given(
    client=strangers, claimed=st.lists(addresses | st.text("0123456789.:, x", max_size=9), max_size=20), hops=st.data()
)
def test_a_client_cannot_write_himself_another_address(client: str, claimed: list[str], hops: st.DataObject) -> None:
    """Whatever he sends stands left of what the first trusted proxy appended, and is not read."""
    chain = hops.draw(st.lists(trusted, max_size=MOST_HOPS - 1))
    peer = hops.draw(trusted)
    found = origin(peer, ", ".join([*claimed, client, *chain]))
    assert found.address == usual(client)
    assert not found.trusted


@given(peer=trusted, sent=headers)
def test_no_header_breaks_the_reading(peer: str, sent: list[tuple[bytes, bytes]]) -> None:
    """Any bytes give an address and a scheme."""
    found = PROXIES.origin(peer, "http", sent)
    assert ipaddress.ip_address(found.address)
    assert found.scheme in {"http", "https"}
    assert found.trusted is trusts(PROXIES, found.address)


def test_entries_may_have_ports_and_stand_in_several_headers() -> None:
    """As some proxies write them; the last header is the last proxy's."""
    assert origin("10.0.0.1", "203.0.113.9:4711").address == "203.0.113.9"
    assert origin("10.0.0.1", "[2001:db8::7]:4711").address == "2001:db8::7"
    assert origin("10.0.0.1", "[2001:db8::7]").address == "2001:db8::7"
    assert origin("10.0.0.1", "198.51.100.1", "203.0.113.9, 10.1.1.1").address == "203.0.113.9"
    assert origin("::ffff:10.0.0.1", "::ffff:203.0.113.9").address == "203.0.113.9"


def test_a_client_among_the_trusted_is_the_leftmost() -> None:
    """And is said to be trusted, so that who counts by address does not count him."""
    assert origin("10.0.0.1", "10.0.0.9, 10.0.0.2") == Origin("10.0.0.9", "http", trusted=True)
    assert origin("10.0.0.1") == Origin("10.0.0.1", "http", trusted=True)
    assert origin("10.0.0.1", "unknown, 10.0.0.2") == Origin("10.0.0.2", "http", trusted=True)


def test_the_scheme_is_what_the_outermost_trusted_proxy_saw() -> None:
    """Written once, or once for each hop."""
    assert origin("10.0.0.1", "203.0.113.9", proto="https").scheme == "https"
    assert origin("10.0.0.1", "203.0.113.9", proto="HTTPS").scheme == "https"
    assert origin("10.0.0.1", "203.0.113.9", proto="wss").scheme == "https"
    assert origin("10.0.0.1", "203.0.113.9", proto="http", scheme="https").scheme == "http"
    assert origin("10.0.0.1", "203.0.113.9, 10.0.0.2", proto="https, http").scheme == "https"
    assert origin("10.0.0.1", "1.1.1.1, 203.0.113.9", proto="https, http").scheme == "http"
    assert origin("10.0.0.1", proto="https").scheme == "https"
    assert origin("10.0.0.1", "203.0.113.9", proto="gopher").scheme == "http"


def test_a_connection_without_an_address_has_none() -> None:
    """A Unix socket: it is in no network."""
    assert origin("", "203.0.113.9", proto="https") == Origin("", "http", trusted=False)


def test_few_entries_are_read() -> None:
    """However long the header is."""
    read: list[object] = []
    counting = Proxies((ipaddress.ip_network("10.0.0.0/8"),))
    object.__setattr__(counting, "networks", (_Counting(read),))
    counting.origin("10.0.0.1", "http", [(b"x-forwarded-for", b"10.0.0.2," * 30_000 + b"10.0.0.2")])
    assert len(read) == MOST_HOPS + 1


class _Counting:
    """A network that everybody is in; it notes who was looked up."""

    def __init__(self, read: list[object]) -> None:
        self._read = read

    def __contains__(self, address: object) -> bool:
        self._read.append(address)
        return True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nginx", "'nginx' is no address and no network"),
        ("10.0.0.0/33", "no network"),
        ("*", "no network"),
        ("10.0.0.1/8", "Write 10.0.0.0/8"),
        ("0.0.0.0/0", "everybody"),
        ("127.0.0.1, ::/0", "everybody"),
        ("127.0.0.1; 10.0.0.0/8", "no network"),
    ],
)
def test_a_wrong_network_is_refused(text: str, words: str) -> None:
    """By the setting's name, with what would be right."""
    with pytest.raises(InvalidInput, match=rf"KEYDESK_TRUSTED_PROXIES.*{words}"):
        Proxies.parse(text, "KEYDESK_TRUSTED_PROXIES")


def test_networks_in_the_form_of_a_socket_for_both_families() -> None:
    """::ffff:10.0.0.0/104 is 10.0.0.0/8."""
    assert trusts(Proxies.parse("::ffff:10.0.0.0/104", "X"), "10.1.2.3")
    assert not trusts(Proxies.parse("", "X"), "127.0.0.1")
