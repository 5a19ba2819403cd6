"""What becomes of a call for the fields, betas and headers that it has: those that nobody knows, and larger windows.

What is known to change a price or to cross tenants has been refused by then; see `dialects.fields`.
"""

import shlex
from datetime import datetime

from toolkit.billing.hold_estimate import input_bound
from toolkit.core.catalog import ModelFacts, PlanFacts
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.policy import KeyFacts
from toolkit.core.strictness import stricter
from toolkit.core.unknown_fields import UnknownFields
from toolkit.dialects.body import unsupported
from toolkit.dialects.fields import readable
from toolkit.dialects.headers import Onward
from toolkit.dialects.shape import Shape
from toolkit.store import unknown_fields
from toolkit.store.tally import Tallies


class UnknownNames:
    """Counts the names that calls have and nobody knows, in memory; they are added to the store once a minute.

    Args:
        tallies: where.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._tally = tallies.tally(unknown_fields.add)

    def count(self, unknown: tuple[str, ...], upstream: str, plan_id: str, at: datetime) -> None:
        """Count the names of one call at `at` (UTC)."""
        for name in unknown:
            self._tally.count((upstream, plan_id, readable(name)), at)


def judge_unknown(unknown: tuple[str, ...], model: ModelFacts, plan: PlanFacts) -> tuple[str, ...]:
    """Return what is left out of what a request has that nobody knows: all of it, or nothing.

    Args:
        unknown: names, at least one.
        model: whose upstream has a say.
        plan: of the key; the stricter of both wins.

    Raises:
        Refusal: upstream or plan refuse what is unknown; names the first field and who can let it pass.
    """
    wanted = stricter(model.unknown_fields, plan.unknown_fields)
    if wanted is not UnknownFields.REFUSE:
        return unknown if wanted is UnknownFields.LEAVE_OUT else ()
    if model.unknown_fields is UnknownFields.REFUSE:
        who, command = f"the upstream '{model.upstream}'", f"upstreams update {shlex.quote(model.upstream)}"
    else:
        who, command = f"the plan '{plan.name}'", f"plans update {shlex.quote(plan.name)}"
    raise unsupported(
        unknown[0],
        f"Keydesk does not know what it changes, and {who} refuses such fields. Leave it out, or ask a platform admin, "
        f"who can let it pass: keydesk {command} --unknown-fields pass",
    )


def judge_hosted(left_out: tuple[str, ...], key: KeyFacts, plan: PlanFacts) -> None:
    """Judge a request that tools of the provider were left out of.

    Args:
        left_out: their names, at least one.
        key: that calls.
        plan: of the key; the stricter of both wins.

    Raises:
        Refusal: key or plan refuse such requests; names the first tool and who can have it left out instead.
    """
    if stricter(key.hosted_tools, plan.hosted_tools) is not HostedTools.REFUSE:
        return
    if plan.hosted_tools is HostedTools.REFUSE:
        who, whom = f"the plan '{plan.name}'", "a platform admin"
        command = f"plans update {shlex.quote(plan.name)}"
    else:
        who, whom, command = "this API key", "an org admin", f"keys update {key.key_id}"
    raise unsupported(
        readable(left_out[0]),
        f"the provider runs this tool, which has no price here, and {who} refuses requests that have one. Do not send "
        f"it, or ask {whom}, who can have such tools left out: keydesk {command} --hosted-tools leave_out",
    )


def check_window(shape: Shape, onward: Onward, model: ModelFacts) -> None:
    """Refuse a call that asks for a larger context window than the model is known with, if it could fill one.

    What it costs at most is bounded by the window that the model has here, and so are the price tiers that are held.

    Raises:
        Refusal: unsupported_feature; names the beta or field, and the command that raises the window.
    """
    for asked in filter(None, (shape.window, onward.window)):
        window = model.context_window
        if asked.tokens > window < input_bound(model.dialect, shape, asked.tokens, model.upstream_model):
            raise Refusal(
                RefusalType.UNSUPPORTED_FEATURE,
                f"'{asked.asked_by}' lets this call have up to {asked.tokens:,} tokens of context, but '{model.id}' "
                f"has {window:,} here, and no more is held. Leave it out or send less; a platform admin can raise the "
                f"window: keydesk models update {model.id} --context-window {asked.tokens}",
                param=asked.asked_by.partition(":")[0],
            )
