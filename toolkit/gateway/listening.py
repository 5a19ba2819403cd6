"""Ports that servers listen on: taken before anything else is opened, and for both families of addresses."""

import errno
import socket
from typing import Any

from toolkit.core.errors import Conflict, InvalidInput

EVERYWHERE = "::"
"""Every address of this machine, IPv4 as well as IPv6."""

_NO_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""What a machine without IPv6 answers when it is asked for one of its addresses."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Return sockets that are bound to an address and port, not yet listening; several for a name with several.

    Raises:
        Conflict: the port is in use.
        InvalidInput: the host is not an address of this machine, or the port needs special rights.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        found = []
    places = [(family, address) for family, _, _, _, address in dict.fromkeys(found)]
    bound: list[socket.socket] = []
    try:
        for family, address in places:
            try:
                bound.append(_bind(family, address, both=host == EVERYWHERE))
            except OSError as error:
                if error.errno not in _NO_FAMILY:
                    raise
        if not bound and host == EVERYWHERE:
            bound.append(_bind(socket.AF_INET, ("0.0.0.0", port), both=False))  # noqa: S104 - asked for
    except OSError as error:
        for taken in bound:
            taken.close()
        if error.errno == errno.EACCES:
            raise InvalidInput(f"Port {port} needs special rights. Choose one above 1023.") from None
        raise Conflict(f"Port {port} is in use. Stop what uses it, or choose another one.") from None
    if not bound:
        raise InvalidInput(f"KEYDESK_HOST={host} is not an address of this machine.")
    return bound


def _bind(family: int, address: tuple[Any, ...], *, both: bool) -> socket.socket:
    # asyncio sends small answers at once on what it knows to be TCP alone.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # What a closed connection left behind does not count; a listener does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        listener.bind(address)
        listener.set_inheritable(True)  # for workers
    except BaseException:
        listener.close()
        raise
    return listener
