"""Trusted proxies: whose word counts about where a connection really comes from. Pure.

A reverse proxy speaks to us in its callers' stead and says for whom in `X-Forwarded-For` and `X-Forwarded-Proto`.
Anybody can write these headers, so they count only on a connection whose other end is a proxy that
`KEYDESK_TRUSTED_PROXIES` names, and only as far as trusted proxies wrote them: each proxy appends whom it saw, hence
they are read from the right.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from toolkit.core.errors import InvalidInput

FORWARDED_FOR = b"x-forwarded-for"
FORWARDED_PROTO = b"x-forwarded-proto"

MOST_HOPS = 16
"""Entries of `X-Forwarded-For` that are read; what is left of them is not read."""

_MAPPED = "::ffff:"
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""What proxies say; for a websocket some name its own scheme."""


class Origin(NamedTuple):
    """Where a connection really comes from.

    Args:
        address: of the client, in its usual spelling; "" where the connection has none (a Unix socket).
        scheme: "http" or "https", as the client spoke it.
        trusted: whether the address is itself one of the trusted proxies.
    """

    address: str
    scheme: str
    trusted: bool


@dataclass(frozen=True, slots=True)
class Proxies:
    """The networks of the trusted proxies; none by default."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str, name: str) -> "Proxies":
        """Read networks in CIDR notation, or single addresses, with commas between.

        Args:
            text: e.g. "127.0.0.1, 10.0.0.0/8, fd00::/8".
            name: of the setting, for the message.

        Raises:
            InvalidInput: an entry is no network, or would be everybody.
        """
        return cls(tuple(_network(entry.strip(), name) for entry in text.split(",") if entry.strip()))

    def origin(self, peer: str, scheme: str, headers: Iterable[tuple[bytes, bytes]]) -> Origin:
        """Return where a connection comes from.

        Args:
            peer: address at the other end of the connection, "" if it has none.
            scheme: "http" or "https", as this connection speaks it.
            headers: of the request, names in lower case.
        """
        address = str(_parsed(peer) or peer) if peer.startswith(_MAPPED) else peer
        if not self.networks or not self._trusts(seen := _parsed(address)):
            return Origin(address, scheme, trusted=False)
        forwarded: list[bytes] = []
        schemes: list[bytes] = []
        for name, value in headers:
            if name == FORWARDED_FOR:
                forwarded.append(value)
            elif name == FORWARDED_PROTO:
                schemes.append(value)
        passed = 0
        trusted = True
        for hop in reversed(_last(forwarded)):
            # An entry that is no address ends the way: the proxy right of it is the last that we know.
            if not trusted or (said := _parsed(_without_port(hop))) is None:
                break
            seen, trusted = said, self._trusts(said)
            passed += 1
        said_schemes = _last(schemes)
        if said_schemes:
            # Proxies that append write one for each hop; those that replace leave a single one.
            place = min(max(passed, 1), len(said_schemes))
            scheme = _SCHEMES.get(said_schemes[-place].lower(), scheme)
        return Origin(str(seen), scheme, trusted)

    def _trusts(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self.networks)


def _network(text: str, name: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text, strict=False)
        exact = "/" not in text or int(ip_address(text.partition("/")[0])) == int(network.network_address)
    except ValueError:
        raise InvalidInput(
            f"{name}: {text!r} is no address and no network. Write for example 127.0.0.1, 10.0.0.0/8"
        ) from None
    if not exact:
        raise InvalidInput(f"{name}: {text} is one address in a network. Write {network}, or the address without /.")
    if network.prefixlen == 0:
        raise InvalidInput(f"{name}: {text} is everybody. Write the addresses of your proxies.")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen > 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # On a socket for both families an IPv4 peer looks like ::ffff:192.0.2.1.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _last(values: list[bytes]) -> list[str]:
    """Return the last entries of a header that may be sent several times."""
    entries = b",".join(values).decode("latin-1").rsplit(",", MOST_HOPS)[-MOST_HOPS:]
    return [entry.strip() for entry in entries] if values else []


def _without_port(hop: str) -> str:
    """Return the address of an entry; some proxies write 192.0.2.1:4711 or [2001:db8::1]:4711."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    address, colon, port = hop.partition(":")
    return address if colon and port.isdigit() and "." in address else hop
