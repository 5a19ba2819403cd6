"""The processes that make up a running Keydesk: how each is started, and where it answers."""

import http.client
from dataclasses import dataclass

from toolkit.core.settings import Settings
from toolkit.gateway.listening import EVERYWHERE


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a running Keydesk.

    Args:
        name: of its log, and for people.
        arguments: of `keydesk`.
        host, port: where it answers; alerts and the ledger's drain have none.
        health: path that answers 200 once it is ready.
        setting: the setting that moves its port.
        last: whether it ends after the others, which may still need it.
        calls: whether it is the one that calls upstreams, and without which nothing else is worth starting.
        mails: whether it is the one that sends mail.
    """

    name: str
    arguments: tuple[str, ...]
    host: str = ""
    port: int | None = None
    health: str = ""
    setting: str = ""
    last: bool = False
    calls: bool = False
    mails: bool = False


def parts(settings: Settings) -> list[Part]:
    """Return the processes that make up a running Keydesk, in the order in which they start."""
    return [
        Part(
            "demo upstream",
            ("demo",),
            "127.0.0.1",
            settings.demo_port,
            "/demo/calls",
            "KEYDESK_DEMO_PORT",
            last=True,
        ),
        Part(
            "gateway",
            ("gateway",),
            settings.host,
            settings.gateway_port,
            "/healthz",
            "KEYDESK_GATEWAY_PORT",
            calls=True,
        ),
        Part(
            "dashboard",
            ("dashboard",),
            settings.host,
            settings.dashboard_port,
            "/_stcore/health",
            "KEYDESK_DASHBOARD_PORT",
        ),
        Part("alerts", ("alerts", "run"), mails=True),
        Part("ledger drain", ("ledger", "sync", "--follow"), last=True),
    ]


def reachable(host: str) -> str:
    """Return an address that this machine reaches `host` by: "every address" is none to connect to."""
    return {"0.0.0.0": "127.0.0.1", EVERYWHERE: "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def url(host: str, port: int) -> str:
    """Return the address to type into a browser."""
    host = reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def answers(part: Part) -> bool:
    """Whether a part's health check answers 200."""
    connection = http.client.HTTPConnection(reachable(part.host), part.port, timeout=2)
    try:
        connection.request("GET", part.health)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
