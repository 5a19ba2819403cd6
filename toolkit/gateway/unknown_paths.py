"""What a caller is told whose path or method no route takes, and in whose envelope. Pure.

OpenAI lives under /v1, as Azure has it under /openai and /openai/v1; Anthropic under /v1 and /anthropic/v1; Gemini
under /v1, /v1beta and both below /gemini. One /v1 or slash too many or too few in a base URL is the commonest mistake,
and is pointed out. It is not mended: a path means one thing, to us and to whatever stands before us.
"""

import re
from collections.abc import Callable

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.dialects import anthropic, gemini, openai

_LONGEST_HINTED = 256
"""Bytes of a path that could be one of ours with a segment too many or too few."""

_SEGMENTS_HINTED = 4
"""First segments of a path among which one too many is looked for; the longest prefix, /gemini/v1beta, has two."""

_OF_PREFIXES = frozenset({"v1", "v1beta", "openai", "anthropic", "gemini"})

_GEMINI_CALL = re.compile(r"/models/[^/:]+:\w+$")

_OPENAI = tuple(f"/{endpoint}" for endpoint in openai.ENDPOINTS)
_ANTHROPIC = tuple(f"/{endpoint}" for endpoint in anthropic.ENDPOINTS)


def likely_dialect(path: str) -> Dialect | None:
    """Return in whose envelope to answer for a path, ours or not; None where the caller's headers decide."""
    path = f"/{path.strip('/')}"
    if path.startswith("/anthropic") or path.endswith(_ANTHROPIC):
        return Dialect.ANTHROPIC
    if path.startswith(("/gemini", "/v1beta")) or path.rpartition(":")[2] in gemini.ENDPOINTS:
        return Dialect.GEMINI
    return Dialect.OPENAI if path.startswith("/openai") or path.endswith(_OPENAI) else None


def has_stray_slash(path: str) -> bool:
    """Tell whether a path has a slash that separates nothing: none of ours has."""
    return "//" in path or path.endswith("/")


def no_such_path(path: str, is_offered: Callable[[str], bool]) -> Refusal:
    """Return what is told of a path that is not ours; says when one /v1 too many or too few is the likely cause.

    Args:
        path: still percent-encoded.
        is_offered: whether a path is one of ours.
    """
    return Refusal(RefusalType.NOT_FOUND, f"There is nothing at {_shown(path)}.{_hint(path, is_offered)}")


def no_such_action(action: str) -> Refusal:
    """Return what is told of a model's action that does not exist."""
    return Refusal(
        RefusalType.NOT_FOUND,
        f"There is no action {_shown(action)!r} of models. There are: {', '.join(sorted(gemini.ENDPOINTS))}.",
    )


def wrong_method(method: str, path: str, allowed: str) -> Refusal:
    """Return what is told of a path that takes other methods: those in `allowed`, as the header `Allow` names them."""
    return Refusal(
        RefusalType.METHOD_NOT_ALLOWED,
        f"{_shown(path)} takes {allowed.replace(', ', ' or ')}, not {_shown(method)}.",
        headers={"allow": allowed},
    )


def _shown(text: str) -> str:
    return text if len(text) <= 120 and text.isprintable() else text[:120].encode("unicode_escape").decode() + "…"


def _hint(path: str, is_offered: Callable[[str], bool]) -> str:
    if len(path) > _LONGEST_HINTED:
        return " It is longer than any path here; docs/gateway.md lists what is offered."
    segments = ["", *filter(None, path.split("/"))]
    plain = "/".join(segments)
    if plain != path and is_offered(plain):
        where = " Take it off the base URL." if "//" in path else ""
        return f" A slash too many: the path is {plain}.{where}"
    for place, segment in enumerate(segments[: _SEGMENTS_HINTED + 1]):
        if segment not in _OF_PREFIXES:
            continue
        shorter = "/".join(segments[:place] + segments[place + 1 :])
        if is_offered(shorter):
            return f" One /{segment} too many: the path is {shorter}. Take /{segment} off the base URL."
    for prefix in ("", "/anthropic", "/gemini", "/openai"):
        for version in ("/v1", "/v1beta"):
            longer = f"{prefix}{version}{plain.removeprefix(prefix)}" if plain.startswith(prefix) else ""
            if longer and is_offered(longer):
                return f" One {version} too few: the path is {longer}. Add {version} to the base URL."
    if ours := _path_at_end(plain):
        return f" The path is {ours}, right behind this gateway's address; the base URL has something between them."
    if segments[1:2] in (["v1"], ["v1beta"]):
        return " The base URL is right, but this is not offered here; docs/gateway.md lists what is."
    return (
        " The base URL is this gateway's address, with /v1 for OpenAI's SDK and without for Anthropic's and Google's."
    )


def _path_at_end(path: str) -> str | None:
    """Return the path of ours that another one ends with: behind a foreign prefix, or behind itself."""
    for endpoint in (*_OPENAI, *_ANTHROPIC, "/models"):
        if path.endswith(endpoint):
            deployment = path.rfind("/openai/deployments/")
            return path[deployment:] if deployment > 0 and endpoint in _OPENAI else f"/v1{endpoint}"
    call = _GEMINI_CALL.search(path)
    return f"/v1beta{call[0]}" if call and call[0].rpartition(":")[2] in gemini.ENDPOINTS else None
