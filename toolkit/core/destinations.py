"""Where the gateway never sends a request, whatever an upstream's row says. Pure.

Link-local addresses are those of the machine's own network link, and of the services that clouds put there: they hand
out the machine's credentials to whoever asks. Loopback and private networks are allowed: local model servers are there.

| address | of |
|---|---|
| 169.254.0.0/16, fe80::/10 | the link (RFC 3927, RFC 4291), and most clouds' metadata at 169.254.169.254 |
| fd00:ec2::/32 | AWS ("Use the Instance Metadata Service": ::254; "Set up the Amazon EKS Pod Identity Agent": ::23) |
| fd20:ce::254 | Google Cloud ("About VM metadata": its IPv6 address) |
| 100.100.100.200 | Alibaba Cloud ("View instance metadata") |
| 192.0.0.192 | Oracle Cloud's older one ("Getting Instance Metadata", endpoints) |
| 168.63.129.16 | Azure ("What is IP address 168.63.129.16?") |
"""

import ipaddress
import socket
from urllib.parse import urlsplit

_NETWORKS = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("100.100.100.200/32"),
    ipaddress.ip_network("192.0.0.192/32"),
    ipaddress.ip_network("168.63.129.16/32"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::/32"),
    ipaddress.ip_network("fd20:ce::254/128"),
)
_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
"""Names of metadata services: of Google Cloud, and of AWS inside its own networks."""

_TRANSLATED = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("::ffff:0:0:0/96"),
    ipaddress.ip_network("::/96"),
)
"""Addresses that stand for the IPv4 address in their last 32 bits (RFC 6052, RFC 8215, RFC 2765, RFC 4291, 2.5.5.1)."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def fault_of_url(url: str) -> str | None:
    """Return why a URL is never called, in words; None if it may be. As `fault_of_host`."""
    return fault_of_host(urlsplit(url).hostname or "")


def fault_of_host(host: str, *, public_only: bool = False) -> str | None:
    """Return why a host of a URL is never called, in words; None if it may be, as far as its spelling tells.

    A name may resolve to anything, so the address that it resolves to is judged again when connecting.

    Args:
        host: of a URL.
        public_only: whether loopback and private networks are not called either.
    """
    name = host.rstrip(".").lower()
    if name in _NAMES:
        return f"{host} is a cloud's metadata service"
    if public_only and (name == "localhost" or name.endswith(".localhost")):
        return f"{host} is this machine"
    address = address_of(name)
    return None if address is None else fault_of_address(address, public_only=public_only)


def fault_of_address(address: IPAddress | str, *, public_only: bool = False) -> str | None:
    """Return why an address is never called, in words; None if it may be.

    Args:
        address: as it was resolved; may have a zone, such as fe80::1%eth0.
        public_only: whether only addresses of the public internet are called (IANA, "Special-Purpose Address
            Registry": those that are globally reachable, and no multicast).
    """
    if isinstance(address, str):
        address = ipaddress.ip_address(address)
    for meant in _meant(address):
        if any(meant in network for network in _NETWORKS if network.version == meant.version):
            return f"{address} is a link-local or metadata address"
        if public_only and (not meant.is_global or meant.is_multicast):
            return f"{address} is no address of the public internet"
    return None


def _meant(address: IPAddress) -> list[IPAddress]:
    """Return an address and those in IPv4 that it stands for: mapped, compatible, translated, or tunnelled (6to4)."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    plain = ipaddress.IPv6Address(int(address))  # without its zone, which no network contains
    meant: list[IPAddress] = [plain]
    if any(plain in network for network in _TRANSLATED):
        meant.append(ipaddress.IPv4Address(int(plain) & 0xFFFF_FFFF))
    meant += [embedded for embedded in (plain.ipv4_mapped, plain.sixtofour) if embedded is not None]
    return meant


def address_of(host: str) -> IPAddress | None:
    """Return the address that a host spells, in any form that a resolver takes for one: 2852039166, 0xa9fea9fe."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
