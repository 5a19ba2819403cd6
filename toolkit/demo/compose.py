"""Compose the demo upstream's answers: what is said, and what is reported as used and as cached."""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from toolkit.demo import text
from toolkit.demo.agent import Step, next_step
from toolkit.demo.answer import Answer, Ask, Choice, Counts, Tool, ToolCall, dump


class PromptCache:
    """The prompts this process has seen, the oldest forgotten first; nothing expires by time."""

    _LEAST, _STEP, _KEPT = 1_024, 128, 50_000

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def _meet(self, digest: bytes) -> bool:
        known = digest in self._seen
        self._seen[digest] = None
        self._seen.move_to_end(digest)
        if len(self._seen) > self._KEPT:
            self._seen.popitem(last=False)
        return known

    def automatic(self, ask: Ask) -> int:
        """Return how many tokens of the prompt's beginning were seen before: 0, or 1,024 and steps of 128.

        Source: OpenAI, "Prompt caching".
        """
        if sum(block.tokens for block in ask.prompt) < self._LEAST:
            return 0
        hasher = hashlib.blake2b(ask.model.encode("utf-8", "replace"))
        pieces = list(text.tokens("\x00".join(block.text for block in ask.prompt)))
        known = done = 0
        for end in range(self._LEAST, len(pieces) + 1, self._STEP):
            hasher.update("".join(pieces[done:end]).encode("utf-8", "replace"))
            done = end
            if self._meet(hasher.digest()):
                known = end
        return known

    def explicit(self, ask: Ask) -> dict[str, int]:
        """Return tokens read from (`read`) and written to (`5m`, `1h`) the cache by the prompt's marked blocks.

        Any length can be cached here, while the provider asks for some 1,024 tokens.
        Source: Anthropic, "Prompt caching".
        """
        hasher = hashlib.blake2b(ask.model.encode("utf-8", "replace"))
        points: list[tuple[bytes, int, str | None]] = []
        total = 0
        for block in ask.prompt:
            hasher.update(block.text.encode("utf-8", "replace") + b"\x00")
            total += block.tokens
            points.append((hasher.digest(), total, block.ttl))
        marks = [place for place, (_, _, ttl) in enumerate(points) if ttl]
        reachable = points[: marks[-1] + 1] if marks else []
        done = read = max((end for digest, end, _ in reachable if digest in self._seen), default=0)
        written = {"read": read, "5m": 0, "1h": 0}
        for digest, end, ttl in reachable:
            if ttl:
                self._meet(digest)
                written[ttl] += max(end - done, 0)
                done = max(end, done)
        return written


def compose(ask: Ask, orders: text.Directives, cache: PromptCache, *, marked_cache: bool) -> Answer:
    """Answer a request.

    Args:
        ask: the request.
        orders: what its directives dictate.
        cache: the prompts seen before; this one is added.
        marked_cache: as the dialect says.
    """
    choices = tuple(_choice(ask, orders, place) for place in range(ask.choices))
    total = sum(block.tokens for block in ask.prompt)
    if marked_cache:
        found = cache.explicit(ask)
        cached, short, long = found["read"], found["5m"], found["1h"]
        total -= cached + short + long
    else:
        cached, short, long = (cache.automatic(ask) if ask.choices else 0), 0, 0
        cached = min(cached, total if orders.input is None else orders.input)
    cached = cached if orders.cached is None else orders.cached
    short = short if orders.cache_write_5m is None else orders.cache_write_5m
    long = long if orders.cache_write_1h is None else orders.cache_write_1h
    if not marked_cache:
        total = max(total, cached + short + long)
    counts = Counts(
        input=total if orders.input is None else orders.input,
        cached=cached,
        cache_write_5m=short,
        cache_write_1h=long,
        visible=sum(choice.visible_tokens for choice in choices),
        reasoning=sum(choice.reasoning_tokens for choice in choices),
    )
    return Answer(choices, None if orders.nousage else counts)


def _choice(ask: Ask, orders: text.Directives, place: int) -> Choice:
    prompt = text.without_directives(ask.last_user_text)
    number = text.seed(ask.model, *(block.text for block in ask.prompt)) + place
    wanted = ask.reasoning if orders.reasoning is None else orders.reasoning
    step = next_step(ask)
    if step and wanted:
        wanted += step.thought
    if ask.limit is not None:
        # Reasoning that was not dictated leaves room for an answer.
        wanted = min(wanted, ask.limit if orders.reasoning is not None else ask.limit // 2)
    reasoning = text.thoughts(prompt, number, wanted)
    left = None if ask.limit is None else ask.limit - wanted

    calls = _calls(ask, orders, prompt, step)
    choice = Choice(reasoning, "", calls, "tool_calls")
    if calls and (left is None or choice.visible_tokens <= left):
        return choice
    length = orders.tokens
    if calls and length is None:
        length = choice.visible_tokens
    if step and step.words:
        written = step.words
    elif ask.schema is not None and orders.tokens is None:
        written = dump(text.example(ask.schema, prompt))
    else:
        written = text.answer(prompt, number, length)
    if left is not None and text.count(written) > left:
        return Choice(reasoning, text.cut(written, left), (), "length")
    return Choice(reasoning, written, (), "stop")


def _calls(ask: Ask, orders: text.Directives, prompt: str, step: Step | None) -> tuple[ToolCall, ...]:
    if step and step.tool:
        return (_call(step.tool, step.arguments, 0),)
    asked = orders.calls or (not step and "use the tool" in prompt.lower() and not ask.answers_tool)
    if not ask.tools or (ask.must_call is None and not asked):
        return ()
    callable_: Sequence[Tool] = [tool for tool in ask.tools if tool.name == ask.must_call] or ask.tools
    times = (orders.calls or 1) if ask.parallel else 1
    called = (callable_[place % len(callable_)] for place in range(times))
    return tuple(
        _call(tool, prompt if tool.freeform else dump(text.example(tool.schema, prompt)), place)
        for place, tool in enumerate(called)
    )


def _call(tool: Tool, arguments: str, place: int) -> ToolCall:
    return ToolCall(f"{secrets.token_hex(10)}{place:02}", tool, arguments)
