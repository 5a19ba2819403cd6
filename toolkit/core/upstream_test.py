"""What a test of an upstream found: its list of models, and a short call in each form that its dialect has. Pure."""

import json
from dataclasses import asdict, dataclass
from typing import Any

_TUPLES = ("left_out", "unpriced", "odd")


@dataclass(frozen=True, slots=True)
class TriedCall:
    """A call that a test made.

    Args:
        form: the endpoint, as the dialect names it.
        stream: whether a stream was asked for.
        works: whether an answer came, whole.
        absent: whether the upstream has no such endpoint.
        said: why it does not work, in words; without our credential.
        usage: tokens by kind, as the answer reported them; None if it did not.
        cost: what it would have been charged, in nano-USD, at a multiplier of 1; None without a price or usage.
        left_out: fields that Keydesk adds and the upstream refuses; a bound is called by its other name then.
        unpriced: the tier and region that served, as far as they are not those that the price book prices.
        odd: what was odd about the answer, in words.
        beyond_bound: whether more output was reported, beside reasoning, than the bound that was asked for.
    """

    form: str
    stream: bool
    works: bool
    absent: bool = False
    said: str | None = None
    usage: dict[str, int] | None = None
    cost: int | None = None
    left_out: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    beyond_bound: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a test of an upstream found.

    Args:
        models: as the upstream lists them; None if it does not.
        listing_said: why there is no list, in words.
        model: the upstream's name of the model that was called; None if none was.
        calls: in the order in which they were made.
        fault: an `AccountFault`, if the upstream does not serve our account.
    """

    models: tuple[str, ...] | None
    listing_said: str | None
    model: str | None
    calls: tuple[TriedCall, ...] = ()
    fault: str | None = None

    def to_json(self) -> str:
        """Return it as the store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Found":
        """Return what `to_json` was made of."""
        data: dict[str, Any] = json.loads(text)
        calls = [TriedCall(**call | {name: tuple(call[name]) for name in _TUPLES}) for call in data["calls"]]
        models = data["models"]
        return cls(**data | {"models": None if models is None else tuple(models), "calls": tuple(calls)})
