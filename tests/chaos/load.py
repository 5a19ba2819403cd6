"""Callers: what they send, what they are told, and when."""

import asyncio
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos.stage import DEFAULT_OUTPUT, MODEL, MULTIPLIER, SHEET, Caller
from tests.chaos.witness import Wish
from toolkit.core.money import parse_usd
from toolkit.core.pricing import charge
from toolkit.core.usage import Usage

CALL_WITHIN = 60.0

REST = 0.2
"""Seconds for which a gateway that broke a connection is left alone, if there are others."""

FITTED_AT_LEAST = 1_024
"""Tokens below which no output bound is lowered: what a call without a bound asks for at least."""

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """What the hold of a call depends on.

    Args:
        size: bytes of the request's body.
        bound: output tokens allowed; None leaves it to the gateway.
    """

    size: int
    bound: int | None

    @property
    def least(self) -> "Kind":
        """The kind with the smallest bound that this one could be admitted with."""
        return self if self.bound is not None else Kind(self.size, min(FITTED_AT_LEAST, DEFAULT_OUTPUT))

    def body(self, wish: Wish, *, stream: bool) -> bytes:
        """Return a request of this kind."""
        request: dict[str, Any] = {"model": MODEL}
        if self.bound is not None:
            request["max_tokens"] = self.bound
        if stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        request["messages"] = [{"role": "user", "content": f"{wish} "}]
        text = json.dumps(request)
        body = text.replace(f"{wish} ", f"{wish} " + "x" * (self.size - len(text))).encode()
        assert len(body) == self.size, "the size is too small for what must be said"
        return body


@dataclass(slots=True)
class Call:
    """A call as its caller saw it.

    Args:
        began, ended: seconds on the machine's monotonic clock; `began` is before anything was sent.
        sent, told: the same moments on the machine's wall clock, in milliseconds.
        status: what the gateway answered; 0 when the connection broke before that.
        whole: whether the answer was read to its end.
        cost: nano-USD that the answer's usage comes to; for a whole answer.
    """

    caller: Caller
    secret: str = field(repr=False)
    kind: Kind
    gateway: str
    began: float
    sent: float
    status: int = 0
    request_id: str = ""
    whole: bool = False
    cost: int = 0
    error: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0
    told: float = 0.0


class Callers:
    """A session of callers, who share connections as an SDK does.

    Args:
        urls: the gateways.
        seed: of what is asked for.
        longest_wait: milliseconds that the provider may take.
    """

    def __init__(self, urls: list[str], seed: int, longest_wait: int = 40) -> None:
        self.urls = urls
        self.calls: list[Call] = []
        self.answered = 0
        """Calls whose answer was read to its end."""
        self.random = random.Random(seed)
        self.longest_wait = longest_wait
        self.kinds = [
            Kind(size, bound) for size in (400, 900, 2_000, 6_000) for bound in (None, 16, 150, 700, 2_500, 4_000)
        ]
        self._resting = dict.fromkeys(urls, 0.0)

    async def __aenter__(self) -> "Callers":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=CALL_WITHIN)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def gateway(self) -> str:
        """Return a gateway that did not just break a connection, if there is one."""
        now = time.monotonic()
        return self.random.choice([url for url in self.urls if self._resting[url] <= now] or self.urls)

    async def call(
        self,
        caller: Caller,
        *,
        kind: Kind | None = None,
        secret: str | None = None,
        gateway: str | None = None,
        stream: bool | None = None,
    ) -> Call:
        """Make a call; what is not given is chosen at random."""
        pick = self.random
        kind = kind or pick.choice(self.kinds)
        stream = pick.random() < 0.4 if stream is None else stream
        wish = Wish(
            pick.randint(1, kind.size),
            pick.randint(1, kind.bound or FITTED_AT_LEAST),
            pick.randint(0, self.longest_wait),
        )
        body = kind.body(wish, stream=stream)
        secret = secret or caller.secret
        url = gateway or self.gateway()
        call = Call(caller, secret, kind, url, time.monotonic(), time.time() * 1000)
        self.calls.append(call)
        try:
            async with self._session.post(
                f"{url}/v1/chat/completions",
                data=body,
                headers={"authorization": f"Bearer {secret}", "content-type": "application/json"},
            ) as answer:
                call.status = answer.status
                call.request_id = answer.headers.get("x-request-id", "")
                text = await answer.read()
                if answer.status != 200:
                    call.error = _error(text)
                    if answer.status == 503:
                        self._rest(url)
                elif not stream or text.endswith(_DONE):
                    usage = _usage(text, stream=stream)
                    call.cost = charge(usage, SHEET, MULTIPLIER)
                    told = answer.headers.get("x-cost-usd")
                    if told is not None and parse_usd(told) != call.cost:
                        call.error = {"message": f"the gateway said {told} USD, the usage makes {call.cost} nano-USD"}
                    call.whole = True
                    self.answered += 1
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            self._rest(url)
        finally:
            call.ended, call.told = time.monotonic(), time.time() * 1000
        if all(until > call.ended for until in self._resting.values()):
            await asyncio.sleep(REST)  # a dead gateway refuses at once, and those that start need the processor
        return call

    def _rest(self, url: str) -> None:
        self._resting[url] = time.monotonic() + REST

    async def made_more(self, calls: int) -> None:
        """Wait until so many more calls have been begun."""
        calls += len(self.calls)
        while len(self.calls) < calls:  # noqa: ASYNC110 - callers have better things to do than to tell
            await asyncio.sleep(0.001)

    async def answered_more(self, calls: int) -> None:
        """Wait until so many more calls have got a whole answer."""
        calls += self.answered
        while self.answered < calls:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)


def _error(text: bytes) -> dict[str, Any]:
    try:
        error = json.loads(text)["error"]
        assert isinstance(error, dict)
    except (ValueError, KeyError, TypeError, AssertionError):
        return {"message": f"no error of the dialect: {text[:100]!r}"}
    return error


def _usage(text: bytes, *, stream: bool) -> Usage:
    if stream:
        events = [line for line in text.split(b"\n") if line.startswith(b"data: {")]
        usage = json.loads(events[-1].removeprefix(b"data: "))["usage"]
    else:
        usage = json.loads(text)["usage"]
    return Usage(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"])


def whole_costs(calls: Iterable[Call]) -> dict[str, int]:
    """Return what each call cost whose answer was read to its end, by request id."""
    return {call.request_id: call.cost for call in calls if call.whole}
