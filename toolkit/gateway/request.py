"""A request to call a model, as it is judged and forwarded."""

from dataclasses import dataclass

from starlette.types import Receive

from toolkit.core.dialect import Dialect
from toolkit.gateway.large_bodies import LargeBody


@dataclass(slots=True)
class CallRequest:
    """One HTTP request, read and authenticated as far as that goes without the store. Its body is read last.

    Args:
        id: ours.
        endpoint: as in `dialects.shape.Shape`, or "models" for listings.
        model: the model that the path names; None if the body does.
        digests: what the caller's secret is looked up by.
        headers: names in lower case.
        wants_sse: as `credentials.wants_sse`.
    """

    id: str
    dialect: Dialect
    endpoint: str
    model: str | None
    digests: list[str]
    headers: list[tuple[bytes, bytes]]
    body: bytes | LargeBody
    wants_sse: bool


async def caller_leaves(receive: Receive) -> None:
    """Return when the caller of a request has left whose body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass
