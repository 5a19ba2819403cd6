"""The scenario of the demo data: its models, plans, organisations and keys, and how each key is used. Only facts."""

from dataclasses import dataclass

from toolkit.core.dialect import Dialect
from toolkit.core.policy import HoldPolicy
from toolkit.core.pricing import MILLION

DAYS = 90
"""Length of the demo data, up to now."""


@dataclass(frozen=True, slots=True)
class DemoModel:
    """A model, and what a usual call to it looks like.

    Args:
        id: public id; prices are copied from genai-prices for it.
        context_window, max_output: tokens.
        input_tokens, output_tokens: medians of a call.
        cached_share: of the input, on a call whose prompt the provider has cached.
        tokens_per_second: output speed.
    """

    id: str
    dialect: Dialect
    context_window: int
    max_output: int
    input_tokens: int
    output_tokens: int
    cached_share: float
    tokens_per_second: int


MODELS = (
    DemoModel("gpt-5", Dialect.OPENAI, 400_000, 128_000, 6_000, 1_400, 0.55, 70),
    DemoModel("gpt-5-mini", Dialect.OPENAI, 400_000, 128_000, 2_800, 520, 0.45, 120),
    DemoModel("text-embedding-3-small", Dialect.OPENAI, 8_192, 1, 2_400, 0, 0, 100),
    DemoModel("claude-sonnet-4-5", Dialect.ANTHROPIC, 200_000, 64_000, 21_000, 1_300, 0.75, 80),
    DemoModel("claude-haiku-4-5", Dialect.ANTHROPIC, 200_000, 64_000, 3_600, 480, 0.5, 150),
    DemoModel("gemini-2.5-flash", Dialect.GEMINI, 1_048_576, 65_536, 5_200, 640, 0.3, 200),
    DemoModel("gemini-2.5-pro", Dialect.GEMINI, 1_048_576, 65_536, 26_000, 2_100, 0.4, 90),
)

SMALL_MODELS = ["gpt-5-mini", "claude-haiku-4-5", "gemini-2.5-flash", "text-embedding-3-small"]
PLANS = {
    "starter": (MILLION * 6 // 5, SMALL_MODELS),
    "team": (MILLION * 21 // 20, [model.id for model in MODELS]),
    "enterprise": (MILLION, [model.id for model in MODELS]),
}
"""Multiplier in millionths, and models."""


@dataclass(frozen=True, slots=True)
class DemoKey:
    """How one key behaves.

    Args:
        share: its part of all calls, relative to the other keys.
        models: what it calls, with weights.
        limit: USD a month; None is none.
        growth: calls on the last day for each one on the first.
        office: how much of it follows office hours and working days; 0 is a machine that never sleeps.
        size: factor on the usual tokens of a call.
        since, until: days of its life, counted from the first; it is deleted when `until` has come.
        surge: a day on which it runs away, for three days, at twelve times its pace.
    """

    org: str
    name: str
    plan: str
    share: float
    models: dict[str, float]
    limit: int | None = None
    growth: float = 1.0
    office: float = 0.5
    size: float = 1.0
    since: int = 0
    until: int = DAYS
    surge: int | None = None
    policy: HoldPolicy = HoldPolicy.STRICT


@dataclass(frozen=True, slots=True)
class DemoTags:
    """What the callers of a key say that its calls are for.

    Args:
        uses: teams and their features, with weights.
        people: how many use the app; each is named where the provider's API has a field for that.
        share: of the calls, those that are tagged; the rest comes from code that nobody has changed yet.
    """

    uses: dict[tuple[str, str], float]
    people: int = 0
    share: float = 1.0


NORTHWIND, LUMEN, PAPER_STREET = "Northwind Robotics", "Lumen Health", "Paper Street Press"

KEYS = (
    DemoKey(NORTHWIND, "support-chat", "enterprise", 18, {"gpt-5-mini": 8, "gpt-5": 2}, 25, growth=1.8, office=0.6),
    DemoKey(NORTHWIND, "code-review", "enterprise", 9, {"claude-sonnet-4-5": 9, "gpt-5": 1}, 120, 1.4, office=0.95),
    DemoKey(NORTHWIND, "nightly-reports", "enterprise", 4, {"gemini-2.5-pro": 1}, 60, office=0.0, size=1.4),
    DemoKey(NORTHWIND, "search-index", "enterprise", 13, {"text-embedding-3-small": 1}, 1, 1.2, office=0.1, size=1.5),
    DemoKey(
        NORTHWIND,
        "agent-sandbox",
        "enterprise",
        4,
        {"claude-sonnet-4-5": 3, "gpt-5": 2},
        office=0.2,
        size=1.3,
        since=40,
        surge=82,
        policy=HoldPolicy.EXPECTED,
    ),
    DemoKey(NORTHWIND, "old-prototype", "enterprise", 3, {"gpt-5-mini": 1}, 5, growth=0.4, office=0.7, until=41),
    DemoKey(LUMEN, "triage-assistant", "team", 11, {"claude-haiku-4-5": 6, "claude-sonnet-4-5": 2}, 50, 1.6, 0.8),
    DemoKey(LUMEN, "letter-drafts", "team", 6, {"claude-sonnet-4-5": 1}, 80, growth=1.1, office=0.95),
    DemoKey(LUMEN, "document-intake", "team", 5, {"gemini-2.5-flash": 5, "gemini-2.5-pro": 1}, 25, 1.3, size=1.6),
    DemoKey(LUMEN, "research-notebooks", "team", 3, {"gpt-5": 3, "gemini-2.5-pro": 2}, 60, office=0.9, size=1.2),
    DemoKey(LUMEN, "spare-key", "team", 0, {"gpt-5-mini": 1}, 10),
    DemoKey(PAPER_STREET, "headline-writer", "starter", 9, {"gpt-5-mini": 3, "gemini-2.5-flash": 1}, 5, 1.2, 0.85),
    DemoKey(PAPER_STREET, "translation", "starter", 7, {"gemini-2.5-flash": 4, "claude-haiku-4-5": 2}, 8, 1.5, 0.7),
    DemoKey(PAPER_STREET, "archive-tagging", "starter", 6, {"gemini-2.5-flash": 1}, 4, office=0.0, since=12),
    DemoKey(
        PAPER_STREET, "editor-plugin", "starter", 4, {"claude-haiku-4-5": 1}, 12, growth=2.2, office=0.95, since=20
    ),
)

TAGS = {
    "support-chat": DemoTags({("support", "answer"): 6, ("support", "summary"): 2, ("search", "rerank"): 1}, 14, 0.9),
    "code-review": DemoTags({("platform", "review"): 8, ("platform", "tests"): 3}, people=9),
    "search-index": DemoTags({("search", "index"): 1}),
    "agent-sandbox": DemoTags({("platform", "agents"): 3, ("search", "experiments"): 1}, share=0.7),
    "triage-assistant": DemoTags({("clinic", "triage"): 5, ("clinic", "summary"): 2}, people=11),
    "letter-drafts": DemoTags({("clinic", "letters"): 1}, people=8),
    "document-intake": DemoTags({("records", "intake"): 4, ("records", "coding"): 1}, share=0.85),
    "headline-writer": DemoTags({("newsroom", "headline"): 4, ("newsroom", "teaser"): 2}, share=0.8),
    "archive-tagging": DemoTags({("archive", "subjects"): 1}),
    "editor-plugin": DemoTags({("newsroom", "rewrite"): 1}, people=6),
}
"""The tags of keys' calls, by the key's name; the other keys' callers give none."""

NEAR_LIMIT = next(key for key in KEYS if key.name == "research-notebooks")
"""The key whose limit ends up just above what it has spent this month."""

ROTATED = next(key for key in KEYS if key.name == "headline-writer")
"""The key that was rotated half-way while one of its users still has the old secret."""

CREDITS = {NORTHWIND: 500, LUMEN: 300, PAPER_STREET: 40}
"""USD that each organisation pays in, three times."""
