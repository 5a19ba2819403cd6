"""A bucket for the tests: moto's S3 server, in a thread of this process, asked over HTTP by the real client."""

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from pyarrow import fs

from toolkit.ledger.s3 import S3Storage
from toolkit.ledger.storage import FolderStorage, Storage

NAME = "keydesk-tests"
_prefixes = itertools.count()


@contextmanager
def serving() -> Iterator[dict[str, str]]:
    """Run a server with one empty bucket; give the variables by which clients find it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    maker = fs.S3FileSystem(
        access_key="any", secret_key="any", region="us-east-1", endpoint_override=endpoint, allow_bucket_creation=True
    )
    maker.create_dir(NAME)
    yield {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    server.stop()


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[dict[str, str]]:
    """The server of this process's tests."""
    with serving() as variables:
        yield variables


@pytest.fixture
def bucket(bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The root of an empty ledger in a bucket."""
    for name, value in bucket_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://{NAME}/ledger-{next(_prefixes)}"


def set_written_at(storage: Storage, path: str, moment: datetime) -> None:
    """Make a file on a storage look as if it had been written at some moment."""
    if isinstance(storage, FolderStorage):
        os.utime(Path(str(storage)) / path, (moment.timestamp(), moment.timestamp()))
        return
    assert isinstance(storage, S3Storage)
    key = f"{storage.root.removeprefix(f's3://{NAME}/')}/{path}"
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[NAME].keys[key].last_modified = moment
