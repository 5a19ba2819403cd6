"""Which fields of a request a provider's error is about, as far as it says so for programs. Pure.

That is a field of the error that holds a path, or a sentence that each of these servers makes in one form and begins
with. What stands anywhere else in an error may be a caller's own words, sent back, and counts for nothing.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from toolkit.dialects.reading import object_of, objects_of
from toolkit.gateway.account_faults import LONGEST_WORDS, details_of, words_of

STATUSES = frozenset({400, 422})
"""With which servers refuse a field; 422 is FastAPI's, "Handling Errors"."""

_MOST = 20
"""Fields, lines and details that are looked at."""

_LONGEST_PATH = 120

_CODES = frozenset(
    {
        *("unknown_parameter", "unsupported_parameter", "unrecognized_parameter", "unknown_field", "unsupported_field"),
        *("extra_forbidden", "value_error.extra"),
    }
)
"""Codes and types that say that a field is not known: OpenAI, "Error codes"; Pydantic, "Validation errors"."""

_NAME = r"(?P<name>[A-Za-z_][\w.\[\]-]{0,79})"
_NAMES = r"(?P<name>[\w.,' \[\]-]{1,300})"
_NOT_PERMITTED = "extra (?:inputs|fields) (?:are )?not permitted"
_QUOTED = rf"[\"'`]?{_NAME}[\"'`]?"
WRAPPED = r"(?:(?:litellm\.)?\w{0,40}(?:Error|Exception)\s?[:-]?\s){0,3}(?:Error code: \d{3} - )?"
"""What LiteLLM writes before a provider's sentence; LiteLLM, "Exception mapping"."""

# Each from the beginning of a sentence, in whichever case. OpenAI and Azure OpenAI; xAI; Groq and Cerebras; Fireworks;
# Anthropic, Amazon Bedrock and Azure's "On your data"; Amazon Bedrock's own models; Google's APIs; serde and Go's JSON,
# in which several servers are written; JSON Schema; LiteLLM; Azure AI Foundry's model inference.
_SENTENCES = (
    rf"unrecognized request arguments? supplied: {_NAMES}",
    rf"(?:unknown|unsupported|unrecognized|unexpected) (?:parameter|argument|field|property|key)s?:? {_QUOTED}",
    rf"argument not supported on this model: {_QUOTED}",
    rf"(?:[\w.]{{1,80}}: )?property '{_NAME}' is unsupported",
    rf"extra inputs are not permitted, field: {_QUOTED}",
    rf"(?:the model returned the following errors: |validation error at #/){{0,2}}{_NAME}: {_NOT_PERMITTED}",
    rf"malformed input request: #: extraneous key \[{_NAME}\] is not permitted",
    rf"invalid json payload received\. unknown name \"{_NAME}\"(?: at '(?P<at>[\w.\[\]]{{1,80}})')?: cannot find field",
    rf"failed to deserialize the json body into the target type: unknown field `{_NAME}`",
    rf"json: unknown field \"{_NAME}\"",
    rf"additional properties are not allowed \('{_NAME}' was unexpected\)",
    rf"\S{{1,60}} does not support parameters: \[{_NAMES}\]",
    rf"extra parameters \[{_NAMES}\] are not allowed",
    # vLLM and others that send Pydantic's errors as Python writes them, and as Pydantic does.
    rf"\[\{{'type': 'extra_forbidden', 'loc': \('body', '{_NAME}'\)",
    rf"\d{{1,3}} validation errors? for \w{{1,80}}\s+{_NAME}\s+{_NOT_PERMITTED}",
)
_FORMS = tuple(re.compile(rf"\W{{0,3}}{WRAPPED}{sentence}", re.IGNORECASE) for sentence in _SENTENCES)
_UNSUPPORTED = re.compile(
    r"\b(?:not|n't) (?:be )?(?:supported|allowed|permitted|available|recogni[sz]ed)\b|unsupported", re.IGNORECASE
)


class Blamed(NamedTuple):
    """Fields that an error is about, by their paths from the top of the request: `store`, `generationConfig.topK`.

    Args:
        unknown: it says in a form of its own that they are not known.
        unsupported: it names them, and its sentence says that something is not supported or allowed.
        other: it names them for whatever else, such as a value.
    """

    unknown: frozenset[str] = frozenset()
    unsupported: frozenset[str] = frozenset()
    other: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        """All of them."""
        return self.unknown | self.unsupported | self.other


def key_of(path: str) -> str:
    """Return a path such that its spellings are the same; protocol buffers have two for each name."""
    return path.replace("_", "").casefold()


def blamed(answer: Any) -> Blamed:
    """Return which fields an error answer is about.

    Args:
        answer: its body, parsed: an object, or the list of one that Gemini streams.
    """
    whole = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(whole, dict):
        return Blamed()
    error = whole.get("error") or whole
    words = words_of(error) or words_of(whole)
    unknown, unsupported, other = set(_told_in_words(words)), set[str](), set[str]()
    inner = error if isinstance(error, dict) else {}
    for violation in _violations(inner):
        unknown |= set(_told_in_words(violation))
    if name := _path(inner.get("param")):
        is_unknown = bool(_CODES & {str(inner.get("code")), str(inner.get("type"))})
        is_unsupported = _UNSUPPORTED.search(words[:LONGEST_WORDS]) is not None
        (unknown if is_unknown else unsupported if is_unsupported else other).add(name)
    for detail in (*_details(whole), *_details(inner)):
        if name := _path(detail.get("loc")):
            (unknown if str(detail.get("type")) in _CODES else other).add(name)
    return Blamed(frozenset(unknown), frozenset(unsupported - unknown), frozenset(other - unknown))


def _told_in_words(words: str) -> Iterator[str]:
    """Yield the fields that a sentence says are not known; of several lines, as long as each begins as one of these."""
    words = words[:LONGEST_WORDS]
    lines = [words, *words.split("\n")[1:_MOST]]
    for line in lines:
        match = next((match for form in _FORMS if (match := form.match(line))), None)
        if match is None:
            return
        found = match.groupdict()
        for name in found["name"].split(",")[:_MOST]:
            if path := _path(".".join(filter(None, (found.get("at"), name.strip(" '\"."))))):
                yield path


def _violations(error: dict[str, Any]) -> Iterator[str]:
    """Yield the sentences of Google's `google.rpc.BadRequest`."""
    for detail in details_of(error):
        for violation in islice(objects_of(detail, "fieldViolations"), _MOST):
            yield words_of({"message": violation.get("description")})


def _details(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield Pydantic's errors, which FastAPI has under `detail`, and Mistral and others under `message`, too."""
    for holder in (error, object_of(error, "message")):
        for name in ("detail", "details", "message"):
            yield from (one for one in islice(objects_of(holder, name), _MOST) if "loc" in one)


def _path(said: Any) -> str:
    """Return a path without what stands for the body, such as `body.store` or `["body", "store"]`; or nothing."""
    if isinstance(said, list):
        said = ".".join(map(str, said[:_MOST]))
    if not isinstance(said, str) or len(said) > _LONGEST_PATH:
        return ""
    return said.replace("/", ".").lstrip("$#.").removeprefix("body.")
