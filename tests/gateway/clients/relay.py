"""A relay before the gateway that counts the calls a client makes, answered or not."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_CALL = re.compile(rb"^POST (\S+) HTTP/1\.1\r$", re.MULTILINE)


@dataclass
class Relay:
    """A relay that runs.

    Args:
        url: its address.
        calls: paths of the POST requests that came, in order.
    """

    url: str
    calls: list[str] = field(default_factory=list)


@contextlib.contextmanager
def relay(gateway: str) -> Iterator[Relay]:
    """Run a relay to a gateway."""
    address = urlsplit(gateway)
    server = socket.create_server(("127.0.0.1", 0))
    running = Relay(f"http://127.0.0.1:{server.getsockname()[1]}")
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = []

    def start(act: object, *given: object) -> None:
        assert callable(act)
        threads.append(threading.Thread(target=act, args=given, daemon=True))
        threads[-1].start()

    def copy(source: socket.socket, sink: socket.socket, count: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**20):
                if count:
                    running.calls += [path.decode() for path in _CALL.findall(data)]
                sink.sendall(data)
        for end in (source, sink):  # what one side has closed is over for the other, too
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                theirs = socket.create_connection((address.hostname or "", address.port or 80))
                open_sockets.extend((client, theirs))
                start(copy, client, theirs, True)
                start(copy, theirs, client, False)

    start(accept)
    try:
        yield running
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        threads[0].join(60)
        for end in open_sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads[1:]:
            thread.join(60)
        for end in open_sockets:
            end.close()
