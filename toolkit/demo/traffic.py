"""The demo data's calls, drawn from a fixed seed: when, by which key, to which model, how large, how ended. Pure."""

import math
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit.core import tags
from toolkit.core.dialect import Dialect
from toolkit.core.policy import Outcome
from toolkit.demo.scenario import DAYS, KEYS, MODELS, TAGS, DemoKey, DemoModel

SEED = 20_240_229

_MODEL = {model.id: model for model in MODELS}
_OFFICE_HOURS = [1, 1, 1, 1, 1, 2, 4, 9, 20, 30, 32, 30, 22, 26, 32, 31, 28, 20, 11, 7, 5, 4, 2, 1]
_WORKING_DAYS = [1.0, 1.08, 1.1, 1.05, 0.92, 0.18, 0.12]


@dataclass(frozen=True, slots=True)
class DemoCall:
    """One call to come.

    Args:
        at: admission, UTC; all calls differ in it.
        outcome: what will become of it if it is admitted.
        mistaken: it names a model that its plan does not include.
        tags: as `tags.read` would give them.
        seconds: from admission to settlement.
    """

    at: datetime
    key: DemoKey
    model: DemoModel
    stream: bool
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    outcome: Outcome
    mistaken: bool
    tags: str | None
    seconds: float


def draw(start: datetime, count: int) -> list[DemoCall]:
    """Return about `count` calls of the 90 days from `start` (midnight, UTC), in order of time."""
    rng = random.Random(SEED)  # noqa: S311 - believable, not secret
    tagging = random.Random(SEED + 1)  # noqa: S311 - its own, so that tags change no call
    whole = sum(key.share for key in KEYS)
    calls = []
    for key in KEYS:
        days = range(key.since, key.until)
        weights = [_day_weight(key, day, (start + timedelta(days=day)).weekday()) for day in days]
        hours = [key.office * hour / 13.2 + (1 - key.office) for hour in _OFFICE_HOURS]
        own = round(count * key.share / whole)
        for day, hour in zip(rng.choices(days, weights, k=own), rng.choices(range(24), hours, k=own), strict=True):
            at = start + timedelta(days=day, hours=hour, seconds=rng.uniform(0, 3600))
            calls.append(_draw_call(rng, tagging, key, at))
    calls.sort(key=lambda call: call.at)
    return calls


def _day_weight(key: DemoKey, day: int, weekday: int) -> float:
    growth = math.exp(math.log(key.growth) * day / DAYS)
    week = key.office * _WORKING_DAYS[weekday] + (1 - key.office)
    surge = 12 if key.surge is not None and key.surge <= day < key.surge + 3 else 1
    return growth * week * surge


def _draw_call(rng: random.Random, tagging: random.Random, key: DemoKey, at: datetime) -> DemoCall:
    model = _MODEL[rng.choices(list(key.models), list(key.models.values()))[0]]
    input_tokens = _around(rng, model.input_tokens * key.size, 0.6, model.context_window // 2)
    output_tokens = (
        _around(rng, model.output_tokens * key.size, 0.55, model.max_output // 4) if model.output_tokens else 0
    )
    cached = round(input_tokens * model.cached_share * rng.uniform(0.7, 1.1)) if rng.random() < 0.65 else 0
    written = round(input_tokens * 0.2) if model.dialect == "anthropic" and not cached else 0
    luck = rng.random()
    outcome = Outcome.COMPLETED
    if luck < 0.011:
        outcome = Outcome.UPSTREAM_ERROR
    elif luck < 0.019 and output_tokens:
        outcome = Outcome.ABORTED
        output_tokens = max(round(output_tokens * rng.random()), 1)
    return DemoCall(
        at=at,
        key=key,
        model=model,
        stream=bool(output_tokens) and (outcome is Outcome.ABORTED or rng.random() < 0.6),
        input_tokens=input_tokens,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output_tokens,
        reasoning_tokens=round(output_tokens * rng.uniform(0.2, 0.6)) if model.id in {"gpt-5", "gemini-2.5-pro"} else 0,
        outcome=outcome,
        mistaken=key.plan == "starter" and rng.random() < 0.004,
        tags=_draw_tags(tagging, key, model),
        seconds=0.3 + rng.random() + output_tokens / model.tokens_per_second,
    )


def _draw_tags(rng: random.Random, key: DemoKey, model: DemoModel) -> str | None:
    own = TAGS.get(key.name)
    if own is None or rng.random() >= own.share:
        return None
    ((team, feature),) = rng.choices(list(own.uses), list(own.uses.values()))
    drawn = {"team": team, "feature": feature}
    if own.people and model.dialect is not Dialect.GEMINI:  # which has no field for it
        drawn["user"] = f"{team}-{1 + int(own.people * rng.random() ** 2):02}"
    return tags.written(drawn)


def _around(rng: random.Random, median: float, sigma: float, most: int) -> int:
    return max(1, min(round(rng.lognormvariate(math.log(median), sigma)), most))
