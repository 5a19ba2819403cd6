"""Webhooks, as Standard Webhooks 1.0 describes them: how an alert is signed, and sent to its receiver.

Three headers go along: `webhook-id`, the same over all tries; `webhook-timestamp`, seconds since 1970; and
`webhook-signature`, which has `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`, for each key in force one,
with spaces between ("Signature scheme"). A receiver's secret is `whsec_` and the key in base64.
"""

import asyncio
import base64
import hmac
import time
from collections.abc import Sequence

from toolkit.core.secrets import Keyring
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.request_writing import absolute, request_bytes, split_url

PATIENCE = 10.0
"""Seconds that a receiver has for everything: to be looked up, connected to, and to answer with a status."""

_AGENT = "Keydesk"


def keys_of(keyring: Keyring, destination_id: str) -> list[bytes]:
    """Return the keys that sign what goes to a destination, the present one first: one of each pepper."""
    return keyring.signing_keys(f"alerts {destination_id}")[::-1]


def secret_of(keyring: Keyring, destination_id: str) -> str:
    """Return what a receiver verifies signatures with."""
    return "whsec_" + base64.b64encode(keys_of(keyring, destination_id)[0]).decode()


def signed(keys: Sequence[bytes], alert_id: str, body: bytes) -> dict[str, str]:
    """Return the headers that a webhook carries.

    Args:
        keys: in force, the present one first.
        alert_id: of the alert.
        body: as it is sent.
    """
    when = str(int(time.time()))
    content = f"{alert_id}.{when}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)
    return {
        "content-type": "application/json",
        "user-agent": _AGENT,
        "webhook-id": alert_id,
        "webhook-timestamp": when,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


async def send(pool: ConnectionPool, url: str, headers: dict[str, str], body: bytes) -> str | None:
    """Send a webhook; return why it was not taken, in words that tell nothing of the answer, or None.

    It is taken if the receiver answers with a status from 200 to 299. No redirect is followed, and of the answer no
    more than the head is read.

    Args:
        pool: makes the connection; judges the addresses that the host resolves to.
        url: of the receiver.
        headers, body: as `signed`.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + PATIENCE
    try:
        address, opening = split_url(url)
        if pool.forwards and not address.tls and (proxy := pool.forwarder_of(address)) is not None:
            opening = absolute(opening)
            if proxy.authorization:
                headers = {**headers, "proxy-authorization": proxy.authorization}
        connection = await pool.connect(address, limit)
        try:
            connection.send(request_bytes(opening, headers, body))
            await connection.read_head(limit)
            status = connection.status
        finally:
            connection.abort()
    except TimeoutError:
        return f"it did not answer within {PATIENCE:g} s"
    except (OSError, ValueError) as error:
        said = str(error) if isinstance(error, ConnectionError) else ""
        return said.replace("base URL", "URL") or type(error).__name__  # those words are made for upstreams
    if 300 <= status < 400:
        return f"it answered with status {status}, which sends elsewhere: no redirect is followed"
    return None if 200 <= status < 300 else f"it answered with status {status}"
