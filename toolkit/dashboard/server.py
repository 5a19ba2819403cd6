"""The dashboard's server: Streamlit's application behind the gateway's own connections, with their limits.

Streamlit's own runner takes no `http=` for uvicorn. Beside the options below it would look for another port when its
own is taken, and reload its configuration when a file changes; neither is wanted here.
"""

import logging
import sys
from pathlib import Path

from streamlit import config
from streamlit.web import bootstrap
from uvicorn.config import Config

from toolkit.core.errors import Refusal
from toolkit.core.settings import Settings
from toolkit.dashboard import base_path
from toolkit.dashboard.gate import LARGEST_MESSAGE
from toolkit.gateway.head_parsing import Headers
from toolkit.gateway.server import protocol, run

PING = 30.0
"""Seconds between two signs of life on a websocket, as Streamlit has it."""

STOP_WITHIN = 5
"""Seconds that requests under way get to finish when the dashboard is stopped."""


def serve(settings: Settings, script: Path) -> None:
    """Run the dashboard until it is told to stop.

    Args:
        settings: whose host and port it listens on.
        script: the file that has the application, and that each session runs.

    Raises:
        InvalidInput: the dashboard cannot lie below the path of its setting.
    """
    base_path.check(settings.dashboard_paths)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    load_options(settings, script)
    sys.path.insert(0, str(script.parent))
    run(
        Config(
            f"{script.stem}:app",
            host=settings.host,
            port=settings.dashboard_port,
            http=protocol(plain_refusal, settings.trusted_proxies),
            ws="websockets-sansio",
            ws_max_size=LARGEST_MESSAGE,
            ws_ping_interval=PING,
            ws_ping_timeout=PING,
            ws_per_message_deflate=False,
            access_log=False,
            log_level="warning",
            use_colors=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_WITHIN,
        )
    )


def load_options(settings: Settings, script: Path) -> None:
    """Read Streamlit's options from `.streamlit` beside the script, wherever the dashboard was started from."""
    config._main_script_path = str(script)  # noqa: SLF001 - as Streamlit's own runner tells it
    bootstrap.load_config_options(
        {
            "server_address": settings.host,
            "server_port": settings.dashboard_port,
            "server_headless": True,
            "server_fileWatcherType": "none",
            "browser_gatherUsageStats": False,
        }
    )


def plain_refusal(refusal: Refusal, _path: str, _headers: Headers) -> tuple[Headers, bytes]:
    """Return headers and body of a refusal that arises before a request has been read."""
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
    return [(b"content-type", b"text/plain; charset=utf-8"), *headers], refusal.message.encode()
