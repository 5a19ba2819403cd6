"""The table of what a caller gets for which failure of a provider. Pure; `docs/gateway.md` has it, row by row.

The official SDKs try again after 408, 409, 429 and 5xx, and do as `x-should-retry`, `retry-after-ms` and `Retry-After`
say. So what they would do without us between works: only what would be paid twice, or cannot help, is marked.
"""

from dataclasses import dataclass

from toolkit.core.account_fault import AccountFault
from toolkit.core.errors import RefusalType
from toolkit.gateway.account_faults import is_callers

BUSY = {503: None, 529: None, 498: 503}
"""Statuses by which a provider says that it has too much to do, and what callers get for one that no SDK knows.

529 is Anthropic's ("Errors"); 498 is Groq's ("Error codes").
"""

CALLERS = frozenset({400, 413, 422})
"""Statuses by which a provider blames the request; and 404, when it is about a model."""

WORKED_ON = frozenset({502, 504, 520, 522, 524})
"""Statuses by which a proxy says that the server behind it gave no answer, or none in time, and may have made one.

RFC 9110, 15.6; Cloudflare, "5xx errors".
"""

_NO_ENDPOINT = frozenset({404, 405})
"""Statuses of servers that do not have a path; few that speak OpenAI's dialect have all of its paths."""

_OUT_OF_TIME = frozenset({"timeout_error", "deadline_exceeded"})


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table.

    Args:
        when: what the provider did.
        status: what the caller gets; None if it is the provider's.
        type: of the refusal, and in the request log.
        words: whose they are: one of our sentences, or the caller's own fault in the provider's words.
        tells_when: whether `Retry-After` and `retry-after-ms` pass; no other header of the provider's limits does.
        should_not_retry: whether `x-should-retry: false` is sent.
        other_way: whether another upstream of the model is tried, where there is one: it is certain that nothing was
            made of the call, so that nobody can bill it, and another one may do better.
    """

    when: str
    status: int | None
    type: RefusalType
    words: str
    tells_when: bool = False
    should_not_retry: bool = False
    other_way: bool = False

    @property
    def is_callers(self) -> bool:
        """Whether the request is to blame, in the provider's own words."""
        return self.words == "callers"


ACCOUNT = Rule(
    "refuses our account, whatever its status says: wrong or expired key, no credit or quota, region, organisation or "
    "project, a model that is not open to us; every 401, 402 and 403 that is not about the request",
    502,
    RefusalType.UPSTREAM_ERROR,
    "account",
    should_not_retry=True,
    other_way=True,
)
LIMITED = Rule("429", None, RefusalType.UPSTREAM_RATE_LIMITED, "limited", tells_when=True, other_way=True)
OVERLOADED = Rule("503, 529", None, RefusalType.UPSTREAM_OVERLOADED, "busy", tells_when=True, other_way=True)
OVERLOADED_OTHERWISE = Rule("498 (Groq)", 503, RefusalType.UPSTREAM_OVERLOADED, "busy", tells_when=True, other_way=True)
CALLERS_FAULT = Rule(
    "400, 413, 422; 404 of a model; 403 of an input that it flags or that is too long",
    None,
    RefusalType.UPSTREAM_ERROR,
    "callers",
)
ADDED = Rule(
    "400, 422 that names a field which Keydesk has to add: a bound on the output that it takes under no other name",
    502,
    RefusalType.UPSTREAM_ERROR,
    "added",
    should_not_retry=True,
    other_way=True,
)
TIMED_OUT = Rule("408", None, RefusalType.UPSTREAM_ERROR, "callers", should_not_retry=True)
MAY_HAVE_BILLED = Rule(
    "502, 504, 520, 522, 524, or an error that names a timeout: it may have billed the call",
    502,
    RefusalType.UPSTREAM_ERROR,
    "failed",
    should_not_retry=True,
)
FAILED = Rule("another 5xx, before any output", 502, RefusalType.UPSTREAM_ERROR, "failed", other_way=True)
ABSENT = Rule(
    "404 of anything else, 405: it has no such endpoint, or its base URL is wrong here",
    502,
    RefusalType.UPSTREAM_ERROR,
    "absent",
    should_not_retry=True,
    other_way=True,
)
ODD = Rule("any other status", 502, RefusalType.UPSTREAM_ERROR, "failed", should_not_retry=True)

UNREACHED = Rule("cannot be reached", 502, RefusalType.UPSTREAM_ERROR, "ours", other_way=True)
LOST = Rule(
    "ends the connection before an answer, or with what is none", 502, RefusalType.UPSTREAM_ERROR, "ours", False, True
)
BROKEN = Rule(
    "begins a whole answer that does not come to its end: it is charged by an estimate",
    502,
    RefusalType.UPSTREAM_ERROR,
    "ours",
    should_not_retry=True,
)
SLOW = Rule("passes a time limit", 504, RefusalType.UPSTREAM_TIMEOUT, "ours", should_not_retry=True)

RULES = (
    ACCOUNT,
    LIMITED,
    OVERLOADED,
    OVERLOADED_OTHERWISE,
    ADDED,
    CALLERS_FAULT,
    TIMED_OUT,
    MAY_HAVE_BILLED,
    ABSENT,
    FAILED,
    ODD,
    UNREACHED,
    LOST,
    BROKEN,
    SLOW,
)
"""The table; the first row that fits holds. `rule_of` finds it for an error answer, `call_failures` for none."""


def rule_of(status: int, fault: AccountFault | None, named: set[str], error: object, *, of_a_model: bool) -> Rule:
    """Return the row that a provider's error falls under.

    Args:
        status: the provider's.
        fault: what is wrong with our account.
        named: the types and codes that its error has.
        error: its error.
        of_a_model: whether it is about a model.
    """
    if fault is not None:
        return ACCOUNT
    if status == 429:
        return LIMITED
    if status in BUSY:
        return OVERLOADED_OTHERWISE if BUSY[status] else OVERLOADED
    if status in CALLERS or (status == 404 and of_a_model) or is_callers(status, error):
        return CALLERS_FAULT
    if status == 408:
        return TIMED_OUT
    if status in WORKED_ON or named & _OUT_OF_TIME:
        return MAY_HAVE_BILLED
    if status in _NO_ENDPOINT:
        return ABSENT
    return FAILED if 500 <= status < 600 else ODD
