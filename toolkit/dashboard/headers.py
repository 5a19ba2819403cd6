"""The headers of each answer of the dashboard: what a browser may load, frame, send and keep."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

import streamlit

from toolkit.dashboard.visitor import Visitor

SIGN_IN = "/sign-in"
FORMS = ("/auth/sign-in", "/auth/sign-out")
KEY = "/key"
INVITATION = "/invitation"
_OWN_PAGES = {SIGN_IN, *FORMS, KEY, INVITATION}

STATIC = "/static/"
"""Streamlit's bundle: the same for everybody, under names that change with its content."""

SIGN_IN_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; font-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The pages for people without a session load nothing but a font; style and picture are part of them."""


def static_folder() -> Path:
    """Return where Streamlit keeps its bundle."""
    return Path(streamlit.__file__).parent / "static"


@cache
def pages_policy() -> str:
    """Return the content security policy of Streamlit's page: nothing from or to another host, no frames, no plugins.

    Exceptions, each for what a page of ours needs:
        the hash: the one inline script of Streamlit's `index.html`, whatever it is in this version;
        `wasm-unsafe-eval`: Streamlit's protobuf reader computes with 64-bit numbers in WebAssembly; no `eval` of text;
        `blob:` scripts: Streamlit loads the code of our copy button from one;
        inline styles: Streamlit styles its elements by `style` tags that it makes as it runs, and Plotly too;
        `data:` pictures and fonts: icons in the bundle's styles; Plotly draws through pictures of its own, `blob:`.
    """
    inline = re.findall(
        r"<script>(.*?)</script>", (static_folder() / "index.html").read_text(encoding="utf-8"), re.DOTALL
    )
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    return "; ".join(
        (
            "default-src 'self'",
            " ".join(("script-src 'self' 'wasm-unsafe-eval' blob:", *(f"'sha256-{digest}'" for digest in hashes))),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "frame-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def of(path: str, visitor: Visitor) -> dict[bytes, bytes]:
    """Return the headers that every answer gets, in place of its own of the same names.

    Pages and data are kept by no browser, so that nothing of them is left to look at, by the Back button for one, after
    signing out.
    """
    headers = {
        b"content-security-policy": (SIGN_IN_POLICY if path in _OWN_PAGES else pages_policy()).encode(),
        b"x-frame-options": b"DENY",  # for browsers that do not know frame-ancestors
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"same-origin",
    }
    if not path.startswith(STATIC):
        headers[b"cache-control"] = b"no-store"
    if visitor.https:
        headers[b"strict-transport-security"] = b"max-age=31536000"
    return headers
