"""The frame of our own plain pages, for people without a session: no script, no font, light or dark as they like it."""

from functools import cache
from html import escape
from pathlib import Path
from string import Template

from starlette.responses import HTMLResponse, Response


@cache
def _template() -> Template:
    return Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))


def page(title: str, content: str, status: int = 200, *, wait: int | None = None) -> Response:
    """Return a page.

    Args:
        title: of the browser's tab (text).
        content: HTML.
        status: of the answer.
        wait: seconds after which the visitor may come again.
    """
    retry = {"Retry-After": str(wait)} if wait is not None else None
    return HTMLResponse(_template().substitute(title=escape(title), content=content), status, headers=retry)


def problem(text: str) -> str:
    """Return what is wrong (text) as HTML; nothing for nothing."""
    return f'<p class="problem" role="alert">{escape(text)}</p>' if text else ""
