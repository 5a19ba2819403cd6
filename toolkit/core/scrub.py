"""A provider's words as others may read them: without credentials, accounts, people and machines. Pure.

Everything here is linear in what it reads, and bounded: a provider's text may be as long as it likes.
"""

import json
import re
from typing import Any
from urllib.parse import quote, urlsplit

REMOVED = "[removed]"

LONGEST_READ = 20_000
"""Characters of one text that are looked at; the rest is cut off."""

LONGEST_TEXT = 4_000
"""Characters of one text that are kept."""

MOST_TEXT = 16_000
"""Characters that are kept of all texts of one value."""

MOST_ITEMS, DEEPEST = 50, 8
"""Items of one list or object, and levels, that are kept of a value."""

_ID = r"[A-Za-z0-9]{6,}(?:[-_][A-Za-z0-9]+)*"
_DOMAINS = "com|net|org|io|ai|dev|cloud|internal|local|svc|lan|corp|app|cn|eu"
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        r"\b(?:https?|wss?|grpcs?)://[^\s\"'<>]+",
        r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
        r"\barn:[\w-]{1,20}:[^\s\"'<>,]+",
        # Ids of organisations and projects (OpenAI, "Production best practices"), and what gateways and clouds call so.
        rf"\b(?:org|proj|acct|wrkspc)[-_]{_ID}",
        rf"\b(?:organization|project|account|workspace|team|tenant|req|request|user|customer)[-_](?=[A-Za-z]*\d){_ID}",
        r"\b(?:projects|organizations|folders|billingAccounts|subscriptions|resourceGroups|tenants)/[^\s\"'<>,;)]+",
        r"(?i)\b(?:project|account|organization|subscription|tenant)(?: ?(?:id|number))?[ :=#'\"]{1,4}\d[\w-]{5,}",
        r"(?i)\b(?:project|account|organization|subscription|tenant|request|trace)[ _-]?id[ :=#'\"]{1,4}[\w-]{6,}",
        r"\b[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\b",
        r"(?<![\w.])\d{12}(?!\w|\.\d)",  # an account of AWS
        r"\b(?:sk|pk|rk|gsk|xai|AKIA|ASIA|AIza|ya29|Bearer )[-_.A-Za-z0-9*]{8,}",
        r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?!\w|\.\d)",
        r"\[[0-9A-Fa-f:]{2,39}\](?::\d{1,5})?",
        rf"(?i)(?<![\w.-])(?:[a-z0-9-]{{1,63}}\.){{1,8}}(?:{_DOMAINS})(?::\d{{1,5}})?(?![\w-])",
        r"\blocalhost(?::\d{1,5})?\b",
    )
]
_CANONICAL_TYPE = re.compile(r"type\.googleapis\.com/[\w.]{1,100}")

_UNNAMED = {
    *("requestid", "xrequestid", "traceid", "organization", "organizationid", "organisation", "org", "orgid"),
    *("account", "accountid", "accountemail", "project", "projectid", "projectnumber", "tenantid", "subscriptionid"),
    *("userid", "useremail", "customerid", "consumer", "team", "teamid", "workspaceid", "sessionid", "email"),
    *("host", "hostname", "servername", "url", "uri", "href", "endpoint"),
}
"""Names, in lower case and without separators, whose values say who we are to the provider or where it lives."""


class Scrubber:
    """Removes from a provider's words what is ours or the provider's own.

    Args:
        credential: ours for this provider.
        base_url: where the provider is reached.
    """

    def __init__(self, credential: str, base_url: str) -> None:
        host = urlsplit(base_url).hostname or ""
        words = [credential, quote(credential, safe=""), host]
        found = sorted({word for word in words if len(word) > 2}, key=len, reverse=True)
        self._ours = re.compile("|".join(map(re.escape, found)), re.IGNORECASE) if found else None
        self._credential = credential
        self._left = MOST_TEXT

    def text(self, words: str) -> str:
        """Return a text without credentials, ids of accounts, people and requests, addresses and hosts; cut if long."""
        words = words[:LONGEST_READ]
        if self._ours is not None:
            words = self._ours.sub(REMOVED, words)
        for pattern in _PATTERNS:
            words = pattern.sub(REMOVED, words)
        return words if len(words) <= LONGEST_TEXT else f"{words[:LONGEST_TEXT]}…"

    def value(self, found: Any) -> Any:
        """Return a JSON value whose texts are scrubbed, without the members that name accounts, people or machines.

        It is bounded in depth, members and text; what is beyond is left out.
        """
        self._left = MOST_TEXT
        return self._value(found, 0)

    def _value(self, found: Any, level: int) -> Any:
        if isinstance(found, str):
            words = self.text(found)[: max(self._left, 0)]
            self._left -= len(words)
            return words
        self._left -= 8
        if isinstance(found, list | dict) and (level >= DEEPEST or self._left <= 0):
            return None
        if isinstance(found, list):
            return [self._value(item, level + 1) for item in found[:MOST_ITEMS]]
        if isinstance(found, dict):
            kept = {}
            for name, member in list(found.items())[:MOST_ITEMS]:
                if name == "@type" and isinstance(member, str) and _CANONICAL_TYPE.fullmatch(member):
                    kept[name] = member
                elif re.sub("[-_ ]", "", name[:100]).lower() not in _UNNAMED:
                    kept[self.text(name)[:100]] = self._value(member, level + 1)
            return kept
        return found

    def for_operators(self, words: bytes) -> str:
        """Return what a provider said without our credential alone, however it is escaped; for the request log."""
        text = words[: 4 * LONGEST_READ].decode(errors="replace")
        if not self._credential:
            return text
        if "\\" in text:
            try:
                text = json.dumps(json.loads(text), ensure_ascii=False)
            except (ValueError, RecursionError):
                text = _unescaped(text)
        return text.replace(self._credential, REMOVED)


_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})|\\(.)", re.DOTALL)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def _unescaped(text: str) -> str:
    """Return text that is not JSON as a whole, such as an event of a stream, with JSON's escapes undone."""
    return (
        _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else _CONTROLS.get(found[2], found[2]), text)
        .encode(errors="replace")
        .decode()
    )
