"""Reading the forms of our own pages, which come from people without a session."""

from urllib.parse import parse_qs

from starlette.requests import Request

LARGEST_FORM = 16_384
"""Bytes of a form; e-mail, password and the page to go to, or a key, need far less."""


async def read(request: Request) -> dict[str, str] | None:
    """Return the fields of a form, of one that stands there twice the last; None if it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            return None
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
