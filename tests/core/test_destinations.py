"""Where no request is ever sent, in whatever spelling, and where local servers stay reachable."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.base_url import check_base_url
from toolkit.core.destinations import fault_of_address, fault_of_host
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput

NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "169.16689662",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fe80::1]",
    "[febf::1]",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[::ffff:0:169.254.169.254]",
    "[fd20:ce::254]",
    "100.100.100.200",
    "192.0.0.192",
    "[::ffff:100.100.100.200]",
    "168.63.129.16",
    "metadata.google.internal",
    "METADATA.google.internal.",
    "metadata",
]
ALLOWED = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    "10.0.0.5",
    "192.168.1.2",
    "172.16.0.9",
    "[fd12::1]",
    "100.64.0.1",
    "a.example",
]


@pytest.mark.parametrize("host", NEVER)
def test_link_local_and_metadata_are_no_upstreams(host: str) -> None:
    """However they are spelled; the message names the host."""
    with pytest.raises(InvalidInput, match="never called"):
        check_base_url(f"http://{host}/v1", Dialect.OPENAI)


@pytest.mark.parametrize("host", ALLOWED)
def test_local_servers_are_upstreams(host: str) -> None:
    """Loopback and private networks: a model may be served there."""
    check_base_url(f"http://{host}:8000/v1", Dialect.OPENAI)


@given(st.integers(0, 2**16 - 1))
def test_every_link_local_address_is_refused_in_every_form(low: int) -> None:
    """Plain, mapped into IPv6, translated, and with a zone."""
    address = ipaddress.IPv4Address((169 << 24) + (254 << 16) + low)
    for form in (str(address), f"::ffff:{address}", f"64:ff9b::{address}", str(int(address))):
        assert fault_of_host(form), form
    assert fault_of_address(f"fe80::{low:x}%eth0")


@given(st.ip_addresses())
def test_what_is_refused_is_link_local_or_listed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Python's own judgement of link-local is never contradicted."""
    if address.is_link_local:
        assert fault_of_address(address)
    if isinstance(address, ipaddress.IPv4Address) and (address.is_loopback or str(address).startswith("10.")):
        assert fault_of_address(address) is None


@pytest.mark.parametrize("host", ["straße.example", "ｍetadata.google.internal", "api。example"])
def test_a_host_is_written_in_ascii(host: str) -> None:
    """The two standards of other letters make different names of some, and one of them makes ASCII of many."""
    with pytest.raises(InvalidInput, match="not ASCII: write the host as"):
        check_base_url(f"https://{host}/v1", Dialect.OPENAI)


def test_a_base_url_has_a_length() -> None:
    """The message says which."""
    with pytest.raises(InvalidInput, match="at most 512"):
        check_base_url("https://a.example/" + "x" * 512, Dialect.OPENAI)
