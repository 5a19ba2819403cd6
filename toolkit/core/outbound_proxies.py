"""Proxies on the way out: which one a connection to an upstream goes through. Pure.

The variables are the usual ones (curl, "Environment"; Go, "net/http: ProxyFromEnvironment"): `HTTPS_PROXY` for
upstreams of https, `HTTP_PROXY` for those of http, `NO_PROXY` for hosts that are called directly. This machine itself
is always called directly, as by Go: a proxy would reach its own machine in its place.
"""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_network
from urllib.parse import unquote_to_bytes, urlsplit

from toolkit.core.destinations import IPAddress, address_of
from toolkit.core.errors import InvalidInput

_HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A proxy that connects to upstreams in our stead; as a text it is named without its credential.

    Args:
        setting: the variable that names it.
        host, port: where it is.
        authorization: value of `Proxy-Authorization` (RFC 7617, Basic); empty without a user.
    """

    setting: str
    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"the proxy of {self.setting}"

    @classmethod
    def parse(cls, text: str, setting: str) -> "OutboundProxy | None":
        """Read a proxy's URL, such as "http://user:password@proxy.example:3128"; None if it is empty.

        Raises:
            InvalidInput: it is none. The message does not repeat it: it may hold a password.
        """
        if not text:
            return None
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port
            (parts.hostname or "").encode("idna")  # as it will be looked up
        except ValueError:
            parts, port = urlsplit(""), None
        plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
        if (
            parts.scheme != "http"
            or not parts.hostname
            or port == 0
            or not plain
            or not text.isprintable()
            or " " in text
        ):
            raise InvalidInput(
                f"{setting} is no address of an HTTP proxy. Write for example http://proxy.example:3128, with "
                "http://USER:PASSWORD@ if it asks for them (signs such as @ and : in them as %40 and %3A)."
            )
        authorization = ""
        if parts.username or parts.password:
            user = unquote_to_bytes(parts.username or "") + b":" + unquote_to_bytes(parts.password or "")
            authorization = f"Basic {b64encode(user).decode()}"
        return cls(setting, parts.hostname, port or _HTTP_PORT, authorization)


@dataclass(frozen=True, slots=True)
class OutboundProxies:
    """The proxies of one gateway, and the hosts that are called without.

    Args:
        https, http: for upstreams of each scheme.
        direct: entries of `NO_PROXY`.
    """

    https: OutboundProxy | None = None
    http: OutboundProxy | None = None
    direct: tuple[str, ...] = ()

    @classmethod
    def parse(cls, https: str, http: str, no_proxy: str) -> "OutboundProxies":
        """Read the three variables.

        Raises:
            InvalidInput: a proxy's address is none.
        """
        entries = (entry for entry in re.split(r"[,\s]+", no_proxy.lower()) if entry)
        return cls(OutboundProxy.parse(https, "HTTPS_PROXY"), OutboundProxy.parse(http, "HTTP_PROXY"), tuple(entries))

    def of(self, host: str, port: int, *, tls: bool) -> OutboundProxy | None:
        """Return the proxy through which a host is called; None if it is called directly.

        Args:
            host, port: of the upstream; an IPv6 address without brackets.
            tls: whether the upstream is one of https.
        """
        proxy = self.https if tls else self.http
        if proxy is None:
            return None
        name = host.lower().rstrip(".")
        address = _address(name)
        if name == "localhost" or name.endswith(".localhost"):
            return None
        if address is not None and (address.is_loopback or address.is_unspecified):
            return None
        return None if any(_covers(entry, name, address, port) for entry in self.direct) else proxy


def _covers(entry: str, name: str, address: IPAddress | None, port: int) -> bool:
    """Whether an entry of `NO_PROXY` names a host.

    It is `*`, a domain with all below it, an address, or a network; each may end in the only port that is meant.
    """
    if entry == "*":
        return True
    wanted, colon, number = entry.rpartition(":")
    if colon and number.isdecimal() and (":" not in wanted or wanted.endswith("]")):
        if int(number) != port:
            return False
        entry = wanted
    entry = entry.strip("[]")
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        domain = entry.lstrip("*.").rstrip(".")
        return bool(domain) and (name == domain or name.endswith(f".{domain}"))
    return address is not None and address in network


def _address(name: str) -> IPAddress | None:
    address = address_of(name)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
