"""A demo upstream in a thread of the tests' own process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
import uvicorn

from toolkit.demo.disguise import Disguise
from toolkit.demo.upstream import create_app


@contextmanager
def running(pace: float, disguise: Disguise | None = None) -> Iterator[str]:
    """Run a demo upstream on a free port and give its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(pace, disguise), log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with running(0) as address:
        yield address


@pytest.fixture
def http(base: str) -> Iterator[httpx2.Client]:
    """A plain client with every provider's credential; the witness starts empty."""
    headers = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k", "x-request-id": "call-1"}
    with httpx2.Client(base_url=base, headers=headers, timeout=60) as client:
        client.delete("/demo/calls")
        yield client
