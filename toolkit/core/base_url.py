"""Base URLs: where an upstream is, in the form that the provider's own SDK takes. Pure."""

import re
from urllib.parse import urlsplit

from toolkit.core.destinations import fault_of_host
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput

LONGEST = 512
"""Characters."""

_ENDPOINT = {
    Dialect.OPENAI: re.compile(r"/(chat/completions|completions|embeddings|responses)/?$"),
    Dialect.ANTHROPIC: re.compile(r"(/v1)?/messages(/count_tokens)?/?$"),
    Dialect.GEMINI: re.compile(r"(/v1\w*)?/models/[^/:]+:\w+/?$"),
}
"""The path of one endpoint at a URL's end: calls put it there themselves, so a base URL must not have it."""


def check_base_url(base_url: str, dialect: Dialect) -> None:
    """Refuse what cannot be the base URL of an upstream.

    Raises:
        InvalidInput: no URL of http or https, one with a query, a credential, words to fill in, or a host that is not
            in ASCII, that of a single endpoint, or of a place that is never called (`destinations`).
    """
    if len(base_url) > LONGEST:
        raise InvalidInput(f"The base URL has {len(base_url):,} characters; at most {LONGEST} are allowed.")
    try:
        parts = urlsplit(base_url)
        whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        whole = False
    if not whole or parts.query or parts.fragment or not base_url.isprintable() or " " in base_url:
        raise InvalidInput(f"The base URL {base_url!r} must look like https://api.example.com/v1.")
    if "{" in base_url:
        raise InvalidInput(f"The base URL {base_url!r} has words in braces: put your own in their place.")
    if not (parts.hostname or "").isascii():
        # IDNA 2003 and 2008 make different names of some letters, which may be different people's.
        raise InvalidInput(
            f"The base URL {base_url!r} has letters in its host that are not ASCII: write the host as the provider's "
            "certificate has it, such as xn--bcher-kva.example."
        )
    if fault := fault_of_host(parts.hostname or ""):
        raise InvalidInput(f"The base URL {base_url!r} cannot be used: {fault}, which is never called.")
    if parts.username or parts.password:
        raise InvalidInput("The base URL must hold no credential: name its variable with --credential-env.")
    base = _ENDPOINT[dialect].sub("", base_url)
    if base != base_url:
        raise InvalidInput(f"The base URL {base_url!r} is that of one endpoint. Give what stands before it: {base}")
