"""Tokens that commands of this machine print: kept for their time, and fetched anew before it is over.

A token serves until its told end, or, where nothing tells, is fetched anew after a while. Each command runs once at a
time, in a thread of its own pool, and callers go on with the last token as long as it lives.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from toolkit import environment
from toolkit.core.settings import Settings
from toolkit.core.token_command import NoToken, Token, TokenCommand, token_in
from toolkit.gateway.command_run import LONGEST_RUN, CommandFailed, output_of

logger = logging.getLogger("keydesk.gateway")

KEPT = 300.0
"""Seconds after which a token of untold life is waited for anew."""

AHEAD = 120.0
"""Seconds before its end from which a token is fetched anew, beside the calls; a fifth of its life if that is less."""

PAUSE = 10.0
"""Seconds from a failure, or from one refused token, until a command is run again."""

MOST_AT_ONCE = 4
"""Commands that run at once."""

_MOST_KEPT = 64


class CredentialRenewed(Exception):
    """A provider refused a token, there is a new one, and the call is to be sent again with it."""


@dataclass(slots=True)
class _Held:
    """What a command has given; moments by the clock of `TokenCommands`."""

    token: str = ""
    is_dated: bool = False
    renew_at: float = 0.0
    until: float = 0.0
    failure: str = ""
    rests_until: float = 0.0
    refused_until: float = 0.0
    fetching: "asyncio.Task[None] | None" = None


class TokenCommands:
    """The tokens of one gateway process.

    Args:
        settings: whose secrets are kept from commands.
        longest: seconds that a command may take.
        clock: in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        longest: float = LONGEST_RUN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._longest = longest
        self._stop = threading.Event()
        self._clock = clock
        self._held: dict[TokenCommand, _Held] = {}
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="token-command")

    def close(self) -> None:
        """End the commands that run, and begin no more."""
        self._stop.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def token(self, command: TokenCommand) -> str:
        """Return a command's token; waits only if there is none that lives.

        Raises:
            NoToken: there is none; says why.
        """
        held = self._held.get(command)
        if held is None:
            if len(self._held) >= _MOST_KEPT:  # of commands that no longer stand in the file
                self._held.clear()
            held = self._held[command] = _Held()
        now = self._clock()
        if now >= held.renew_at:
            if held.fetching is None and now >= held.rests_until:
                held.fetching = asyncio.create_task(self._fetch(command, held))
            if now >= held.until and held.fetching is not None:
                await asyncio.shield(held.fetching)
        if held.token and (not held.is_dated or self._clock() < held.until):
            return held.token
        raise NoToken(held.failure or "the token that it printed has expired")

    async def renewed(self, command: TokenCommand, refused: str) -> bool:
        """Whether there is another token than one that a provider has refused; fetches it if need be.

        Not more often than once in `PAUSE`: a new token may be refused, too.
        """
        held = self._held.get(command)
        if held is None:
            return False
        now = self._clock()
        if held.token == refused:
            if held.fetching is None and now >= held.refused_until:
                held.fetching = asyncio.create_task(self._fetch(command, held))
            if held.fetching is None:
                return False
            held.refused_until = now + PAUSE
            await asyncio.shield(held.fetching)
        return held.token not in ("", refused)

    async def _fetch(self, command: TokenCommand, held: _Held) -> None:
        """Run a command, and keep what it gives, or why it gave nothing."""
        loop = asyncio.get_running_loop()
        try:
            token = await loop.run_in_executor(self._threads, self._printed, command)
        except NoToken as error:
            held.failure = str(error)
            held.rests_until = self._clock() + PAUSE
            said = error.complaint if isinstance(error, CommandFailed) else ""
            logger.warning(
                "the token command of %s failed: %s%s", command.name, error, f"; it said: {said}" if said else ""
            )
        else:
            now, life = self._clock(), KEPT if token.life is None else token.life
            held.token, held.is_dated, held.failure = token.text, token.life is not None, ""
            held.until = now + life
            held.renew_at = held.until - min(AHEAD, life / 5)
        finally:
            held.fetching = None

    def _printed(self, command: TokenCommand) -> Token:
        hidden = environment.credential_names(self._settings, os.environ)
        given = {
            name: value
            for name, value in os.environ.items()
            if name not in hidden and not name.upper().startswith("KEYDESK_")
        }
        return token_in(output_of(command.argv, given, self._longest, self._stop), datetime.now(UTC))
