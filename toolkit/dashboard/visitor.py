"""Where a connection to the dashboard comes from: its address, over TLS or not, and whose page opened it."""

from dataclasses import dataclass
from typing import Any, Self

from starlette.datastructures import Headers

from toolkit.core import addresses
from toolkit.core.proxies import FORWARDED_PROTO
from toolkit.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Visitor:
    """One connection's other end.

    Args:
        address: of the client; a proxy's word counts only if `KEYDESK_TRUSTED_PROXIES` names it.
        https: whether the browser is known to speak TLS: to us, to a trusted proxy, or to the origin that
            `KEYDESK_DASHBOARD_URL` has for this host.
        secure: whether its cookie may be Secure. Here anybody's `X-Forwarded-Proto: https` counts, so that TLS by a
            proxy on the same machine needs no setting: whoever lies gets a cookie that its own browser does not send.
        own_page: whether the page that speaks is ours; None where there is no page, as with programs.
    """

    address: str
    https: bool
    secure: bool
    own_page: bool | None

    @classmethod
    def of(cls, scope: dict[str, Any] | Any, settings: Settings) -> Self:
        """Return who is at the other end of an ASGI connection."""
        headers = Headers(scope=scope)
        peer = scope.get("client") or ("", 0)
        scheme = "https" if scope.get("scheme") in {"https", "wss"} else "http"
        origin = settings.trusted_proxies.origin(peer[0], scheme, scope["headers"])
        host = headers.get("host", "")
        here = [page for page in settings.dashboard_origins if addresses.is_of_host(page, host)]
        pages = here or settings.dashboard_origins
        https = origin.scheme == "https" or (bool(pages) and all(page.startswith("https:") for page in pages))
        said = headers.get(FORWARDED_PROTO.decode(), "").lower()
        return cls(origin.address, https, https or "https" in said, _own_page(headers, host, settings))


def _own_page(headers: Headers, host: str, settings: Settings) -> bool | None:
    site, sent = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in {None, "same-origin", "none"}:
        return False
    if sent is None:
        return None if site is None else True
    page = addresses.origin(sent)
    if page is None:
        return False
    return page in settings.dashboard_origins if settings.dashboard_origins else addresses.is_of_host(page, host)
