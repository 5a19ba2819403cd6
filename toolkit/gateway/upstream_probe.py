"""What a test asks an upstream: its list of models, and a call of a few tokens in each form that its dialect has.

The calls are written as those of callers are, with all that is added to them, and read as theirs are. Nobody is charged
for them: they are the operator's own. What comes back is read in a thread, for callers' calls go on meanwhile.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from toolkit.core.account_fault import sentence_of
from toolkit.core.catalog import ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.core.pricing import MILLION, charge
from toolkit.core.scrub import Scrubber
from toolkit.core.service_tier import NOT_SAID, unpriced
from toolkit.core.upstream_test import Found, TriedCall
from toolkit.core.usage import Report
from toolkit.dialects import MODULES, anthropic_request, gemini, gemini_request, openai_fields
from toolkit.dialects.additions import paths_added
from toolkit.dialects.body import dump_object
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.reading import objects_of, tells_error
from toolkit.dialects.sse import Framing, framing_of
from toolkit.gateway import field_errors, upstream_errors
from toolkit.gateway.added_fields import is_left_out_in_vain, refused_by, without_fields
from toolkit.gateway.upstream_exchange import Exchange, UpstreamBroke, UpstreamSlow
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.gateway.upstream_request import credential_of, headers_of, url_of

PATIENCE = 60.0
"""Seconds that one call may take."""

LARGEST_LIST = 4 * 1024 * 1024
"""Bytes of a list of models that are read; OpenRouter's has one."""

LARGEST_ANSWER = 512 * 1024
"""Bytes of an answer that are read: what a call's few tokens take is far less."""

MOST_MODELS = 2_000
"""Models of a list that are kept; OpenRouter's has hundreds."""

LONGEST = 300
"""Characters of what an upstream says that are kept."""

NOBODYS = ""
"""In whose turn a test waits for a place at an upstream: in that of no organisation."""

_BOUND = 64
"""Output tokens of a call; a model that reasons needs some, and Responses takes no fewer than 16."""

_WORDS = "Count from 1 to 60, and write every number out in words."
"""Its answer is longer than the bound, so that an upstream which ignores the bound is found out."""

_FORMS: dict[Dialect, tuple[tuple[str, str], ...]] = {
    Dialect.OPENAI: ((openai_fields.CHAT, openai_fields.CHAT), (openai_fields.RESPONSES, openai_fields.RESPONSES)),
    Dialect.ANTHROPIC: ((anthropic_request.MESSAGES, anthropic_request.MESSAGES),),
    Dialect.GEMINI: ((gemini_request.GENERATE, gemini_request.STREAM),),
}
"""Endpoints, whole and streamed."""

_LISTS = {
    Dialect.OPENAI: "/models",
    Dialect.ANTHROPIC: "/v1/models?limit=1000",
    Dialect.GEMINI: "/v1beta/models?pageSize=1000",
}
"""OpenAI, "List models"; Anthropic, "List models"; Google, "models.list"."""


class Probe:
    """A test of one upstream.

    Args:
        upstreams: the way to it, and our credential.
        model: that is called, as the upstream serves it; without a name none is.
        now: UTC; the price that holds then is reckoned with.
    """

    def __init__(self, upstreams: UpstreamPool, model: ModelFacts, now: datetime) -> None:
        self._upstreams = upstreams
        self._model = model
        self._dialect = MODULES[model.dialect]
        dated = model.price(now)
        self._sheet = dated.sheet if dated else None
        self._credential = ""
        self._scrubber = Scrubber("", model.base_url)
        self._fault: str | None = None

    async def run(self) -> Found:
        """Ask for the list, and make the calls.

        Raises:
            NotConfigured: our credential is missing.
        """
        self._credential = await credential_of(self._model, self._upstreams)
        self._scrubber = Scrubber(self._credential, self._model.base_url)
        models, said = await self._list()
        calls: list[TriedCall] = []
        if self._model.upstream_model:
            for whole, streamed in _FORMS[self._model.dialect]:
                calls += [await self._try(whole, stream=False), await self._try(streamed, stream=True)]
                if self._fault:
                    break
        return Found(models, said, self._model.upstream_model or None, tuple(calls), self._fault)

    async def _list(self) -> tuple[tuple[str, ...] | None, str | None]:
        """Return the upstream's models, or why they are not known."""
        version = self._model.traits.api_version
        path = _LISTS[self._model.dialect] + (f"?api-version={version}" if version else "")
        is_gemini = self._model.dialect is Dialect.GEMINI
        url = gemini.url_below(self._model.base_url, path) if is_gemini else self._model.base_url + path
        try:
            async with asyncio.timeout(PATIENCE):
                async with self._asking(url, headers_of(self._model, self._credential), b"", "GET") as exchange:
                    await exchange.send()
                    answer = await exchange.read_error(LARGEST_LIST)
        except TimeoutError:
            return None, "it did not answer in time"
        except (UpstreamBroke, UpstreamSlow, Refusal) as error:
            return None, str(error)
        if len(answer) > LARGEST_LIST:
            return None, f"{exchange.status}: its list is longer than {LARGEST_LIST:,} bytes"
        models = await asyncio.to_thread(models_in, answer) if exchange.status < 300 else None
        if models is None:
            return None, self._said(exchange.status, answer)
        return tuple(name for name in models if self._credential not in name), None

    async def _try(self, endpoint: str, *, stream: bool) -> TriedCall:
        """Make a call; again without the fields of ours that the upstream refuses."""
        model, gone = self._model, frozenset[str]()
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    async with self._asking(*self._request(model, endpoint, stream)) as exchange:
                        await exchange.send()
                        if exchange.status < 300:
                            return await self._read(exchange, endpoint, stream, gone)
                        answer = await exchange.read_error(upstream_errors.LARGEST_ERROR)
            except TimeoutError:
                return TriedCall(endpoint, stream, works=False, said="it did not answer in time")
            except (UpstreamBroke, UpstreamSlow, ValueError, Refusal) as error:
                return TriedCall(endpoint, stream, works=False, said=str(error)[:LONGEST])
            body, sent = self._bodies(model, endpoint, stream)
            refused = frozenset[str]()
            if exchange.status in field_errors.STATUSES:
                refused = refused_by(answer, paths_added(body, sent)).fields
            if not refused or is_left_out_in_vain(refused, gone):
                return self._failed(exchange, answer, endpoint, stream, gone)
            model, gone = without_fields(model, refused), gone | refused

    @asynccontextmanager
    async def _asking(self, *asked: Any) -> AsyncIterator[Exchange]:
        """Prepare a request, which takes a place as a call does where the upstream takes only so many at once."""
        model, place = self._model, None
        if model.max_connections:
            place = await self._upstreams.queues.enter(model.upstream, model.max_connections, NOBODYS)
        try:
            with self._upstreams.exchange(*asked, upstream=model.upstream) as exchange:
                yield exchange
        finally:
            if place is not None:
                place.leave()

    def _failed(
        self, exchange: Exchange, answer: bytes, endpoint: str, stream: bool, gone: frozenset[str]
    ) -> TriedCall:
        found = upstream_errors.of_answer(exchange.status, answer, {}, self._model.upstream_model, self._scrubber)
        absent = found.rule.words == "absent"
        if found.fault is not None and not absent:
            self._fault = str(found.fault)
        said = self._said(exchange.status, answer)
        if found.fault is not None:
            said = f"{sentence_of(found.fault, self._model.upstream_model)}: {said}"
        return TriedCall(endpoint, stream, works=False, absent=absent, said=said, left_out=tuple(sorted(gone)))

    def _request(self, model: ModelFacts, endpoint: str, stream: bool) -> tuple[str, dict[str, str], bytes]:
        url = url_of(model, endpoint, stream=stream, alt_sse=True)
        return url, headers_of(model, self._credential), dump_object(self._bodies(model, endpoint, stream)[1])

    def _bodies(self, model: ModelFacts, endpoint: str, stream: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a caller's body, and what becomes of it."""
        body: dict[str, Any] = {"model": model.upstream_model}
        if model.dialect is Dialect.GEMINI:
            body = {"contents": [{"role": "user", "parts": [{"text": _WORDS}]}]}
        elif endpoint == openai_fields.RESPONSES:
            body["input"] = _WORDS
        else:
            body["messages"] = [{"role": "user", "content": _WORDS}]
        if model.dialect is Dialect.ANTHROPIC:
            body["max_tokens"] = _BOUND
        if stream and model.dialect is not Dialect.GEMINI:
            body["stream"] = True
        tier = self._dialect.inspect(endpoint, body, 0, model.upstream_model).standard_tier
        sent = self._dialect.rewrite(
            endpoint,
            body,
            upstream_model=model.upstream_model,
            output_bound=_BOUND,
            include_usage=stream,
            service_tier=(tier or None) if model.traits.pin_tier else None,
            traits=model.traits,
        )
        return body, sent or body

    async def _read(self, exchange: Exchange, endpoint: str, stream: bool, gone: frozenset[str]) -> TriedCall:
        """Read an answer, whatever it came as."""
        answer = await exchange.read_error(LARGEST_ANSWER)
        if len(answer) > LARGEST_ANSWER:
            said = f"{exchange.status}: its answer is longer than {LARGEST_ANSWER:,} bytes"
            return TriedCall(endpoint, stream, works=False, said=said, left_out=tuple(sorted(gone)))
        return await asyncio.to_thread(self._judged, exchange.status, answer, endpoint, stream, gone)

    def _judged(self, status: int, answer: bytes, endpoint: str, stream: bool, gone: frozenset[str]) -> TriedCall:
        framing = framing_of(answer)
        is_stream = framing is Framing.EVENTS or (framing is Framing.ARRAY and self._model.dialect is Dialect.GEMINI)
        odd = [] if is_stream is stream else ["it came whole" if stream else "it came as a stream"]
        meter = None
        if is_stream:
            meter = self._dialect.Meter(endpoint, sse=framing is Framing.EVENTS)
            works = _is_whole(meter, answer)
            report, served = meter.report, meter.served
            odd += meter.oddities
        else:
            value = upstream_errors.parsed(answer)
            works = isinstance(value, dict) and not tells_error(value)
            report = self._dialect.usage_of(endpoint, value) if works else None
            served = self._dialect.served_by(value) if works else NOT_SAID
        usage = _counts(report)
        return TriedCall(
            endpoint,
            stream,
            works=works,
            said=None if works else self._said(status, answer),
            usage=usage,
            cost=charge(report.usage, self._sheet, MILLION) if report and self._sheet and usage else None,
            left_out=tuple(sorted(gone)),
            unpriced=tuple(unpriced(self._model.dialect, served)),
            odd=tuple(odd),
            beyond_bound=usage is not None and usage["output"] - usage.get("reasoning", 0) > _BOUND,
        )

    def _said(self, status: int, answer: bytes) -> str:
        """Return what an upstream answered, as the operator may read it."""
        words = upstream_errors.words_in(answer) or self._scrubber.for_operators(answer[: 4 * LONGEST])
        printable = "".join(letter if letter.isprintable() else " " for letter in self._scrubber.text(words))
        return f"{status}: {' '.join(printable.split())[:LONGEST]}"


def models_in(answer: bytes) -> tuple[str, ...] | None:
    """Return the models that a list names, each once; None if it is no list.

    It is an object with `data` (OpenAI, Anthropic) or `models` (Google), or the bare list (Together, "List models").
    """
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list):
        value = {"data": value}
    if not isinstance(value, dict):
        return None
    rows = (model for name in ("data", "models") for model in objects_of(value, name))
    return tuple(dict.fromkeys(_names(model.get("id") or model.get("name") for model in rows)))[:MOST_MODELS]


def _names(found: Iterable[object]) -> Iterable[str]:
    """Yield what can be a model's name; control characters and marks that turn the text around are in none."""
    for name in found:
        if isinstance(name, str) and 0 < len(name) <= LONGEST and name.isprintable():
            yield name.removeprefix("models/")


def _is_whole(meter: StreamMeter, answer: bytes) -> bool:
    """Read a stream; return whether it came to its end."""
    meter.feed(answer)
    while meter.heavy is not None:
        meter.resume(meter.heavy, 0)
    meter.end()
    meter.finish()
    return meter.complete and not meter.failed


def _counts(report: Report | None) -> dict[str, int] | None:
    """Return what a report counts; None if it says nothing of either side."""
    if report is None or not (report.usage.input_tokens or report.usage.output_tokens):
        return None
    used = report.usage
    counts = {
        "input": used.input_tokens,
        "cached": used.cached_input_tokens,
        "written to the cache": used.cache_write_5m_tokens + used.cache_write_1h_tokens,
        "output": used.output_tokens,
        "reasoning": used.reasoning_tokens,
    }
    return {name: count for name, count in counts.items() if count or name in ("input", "output")}
