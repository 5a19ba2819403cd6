"""Caps hold with several gateways and many callers, on both stores; and the judge who says so is no fool."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import caps
from tests.chaos.journal import Line
from tests.chaos.load import Call, Kind
from tests.chaos.replay import Replay, judge, replay
from tests.chaos.stage import Caller
from tests.chaos.stores import Place
from toolkit.core.money import usd

KIND = Kind(400, 16)


@pytest.mark.world
def test_nothing_goes_over_and_every_402_is_justified(place: Place, tmp_path: Path) -> None:
    """Four gateway processes and 200 callers on tight limits and small wallets: not one nano-USD too much."""
    report = caps.run(place, tmp_path, calls=1_500, callers=200)
    assert not report.violations, report
    assert report.figures["402 by a monthly limit"] > 50, report
    assert report.figures["402 by a wallet"] > 50, report
    assert report.figures["answered whole"] > 300, report
    assert report.figures["snapshots by the watcher"] > 20, report


# -- the judge ------------------------------------------------------------------------------------------------------

LIMIT, HOLD, COST = 1_000, 400, 150
RESETS_AT = "2026-12-01T00:00:00Z"

# A key with a limit of 1,000: one hold of 400; then in one transaction a second one placed and the first one settled.
LINES = [
    Line(1, 0, "wallet", "org", "", "", "", "", 10_000, 0, 0),
    Line(2, 1, "key", "org", "key", "", "", "", LIMIT, 0, 0),
    Line(3, 10, "hold", "org", "key", "2026-11", "one", "", HOLD, HOLD, 0),
    Line(4, 10, "wallet", "org", "", "", "", "", 10_000, 0, HOLD),
    Line(5, 10, "month", "", "key", "2026-11", "", "", 0, 0, HOLD),
    Line(6, 20, "release", "org", "key", "2026-11", "one", "", HOLD, HOLD, 0),
    Line(7, 20, "hold", "org", "key", "2026-11", "two", "", HOLD, HOLD, 0),
    Line(8, 20, "row", "org", "key", "", "one", "completed", COST, HOLD, 0),
    Line(9, 20, "wallet", "org", "", "", "", "", 10_000, COST, HOLD),
    Line(10, 20, "month", "", "key", "2026-11", "", "", 1, COST, HOLD),
]


def _call(request_id: str, status: int, sent: float, told: float, **amounts: int) -> Call:
    call = Call(Caller("key", "org", "key", "sk-"), "sk-", KIND, "", 0, sent, status, request_id, told=told)
    if amounts:
        names = {"limit": LIMIT, "spent": 0, "held": 2 * HOLD, "needed": HOLD} | amounts
        details = {f"{name}_usd": usd(amount) for name, amount in names.items()}
        call.error = {
            "code": "api_key_quota_exceeded",
            "details": details | {"limit": "monthly_limit", "resets_at": RESETS_AT},
        }
    return call


def _judged(refused: Call, lines: list[Line] = LINES) -> Replay:
    done = replay(lines)
    judge(done, [_call("one", 200, 5, 25), refused])
    return done


def test_a_402_between_two_verdicts_of_one_transaction_is_justified() -> None:
    """The second hold was placed, the first one not settled yet: 800 of 1,000 held, and 400 do not fit."""
    assert not _judged(_call("no", 402, 5, 30, held=2 * HOLD)).violations


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (_call("no", 402, 5, 30, held=2 * HOLD - 1), "never were together"),
        (_call("no", 402, 5, 30, spent=COST, held=HOLD), "were left"),
        (_call("no", 402, 30, 40, held=2 * HOLD), "never were together"),
        (_call("no", 402, 5, 30, limit=LIMIT - 1), "not in force"),
        (_call("no", 402, 5, 30, needed=HOLD + 1), "calls like it held"),
    ],
    ids=["a state that never was", "what fits", "a state of the past", "a wrong limit", "a wrong need"],
)
def test_an_unjustified_402_is_found(refused: Call, says: str) -> None:
    """Whatever a 402 has wrong is a violation, by one nano-USD."""
    (violation,) = _judged(refused).violations
    assert says in violation


def _changed(number: int, **values: int) -> list[Line]:
    lines = copy.copy(LINES)
    line = lines[number - 1]
    old = {name: getattr(line, name) for name in Line.__slots__}
    lines[number - 1] = Line(**old | values)
    return lines


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (lambda: _changed(2, a=COST + HOLD - 1), "has spent 150 and holds 400 of 549"),
        (lambda: _changed(9, b=COST + 1), "its calls make"),
        (lambda: _changed(10, c=HOLD - 1), "its calls make"),
        (lambda: [line for line in LINES if line.seq != 6], "held nothing"),
        (lambda: [line for line in LINES if line.seq != 8], "has no row"),
        (lambda: LINES[:-1], "never took in"),
    ],
    ids=["over the limit", "a charge too much", "a hold too little", "charged twice", "a lost row", "a lost total"],
)
def test_a_wrong_commit_is_found(lines: Callable[[], list[Line]], says: str) -> None:
    """The replay finds a commit that goes over by one nano-USD, and totals that its calls do not make."""
    assert any(says in violation for violation in replay(lines()).violations)
