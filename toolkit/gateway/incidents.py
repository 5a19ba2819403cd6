"""Incidents as a gateway sees them: whose provider does not serve our account, until a call succeeds again."""

import logging
import threading
from datetime import datetime

from toolkit.core.account_fault import OF_ONE_MODEL, AccountFault, sentence_of
from toolkit.core.errors import Unavailable
from toolkit.core.secrets import redact
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.incidents import At, Refused, open_incidents, write
from toolkit.store.tally import Tallies

logger = logging.getLogger("keydesk.gateway")

LONGEST_WORDS = 500
"""Characters of what a provider said that are kept."""


class Incidents:
    """Notes incidents in memory; they are written soon after they begin and end, and else once a minute.

    Those that other gateways have noted, or this one before it was started, are read at the same times.

    Args:
        tallies: with which they are written.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._lock = threading.Lock()
        self._refused: dict[At, Refused] = {}
        self._answered: dict[At, datetime] = {}
        self._open: frozenset[At] = frozenset()
        tallies.keep(self)

    def refused(
        self, upstream: str, fault: AccountFault, model: str, words: str, at: datetime, credential: str = ""
    ) -> None:
        """Note that a provider refused a call.

        Args:
            upstream: its name.
            fault: why.
            model: the upstream's name of it.
            words: the provider's, scrubbed.
            at: UTC.
            credential: the name of ours that the provider was shown, or would have been.
        """
        incident = At(upstream, fault, model if fault in OF_ONE_MODEL else "", credential)
        words = redact(words)[:LONGEST_WORDS].encode(errors="replace").decode().replace("\0", "?")
        with self._lock:
            past = self._refused.get(incident)
            self._refused[incident] = Refused(past.first_at if past else at, at, (past.calls if past else 0) + 1, words)
            self._answered.pop(incident, None)
            is_new = incident not in self._open
            self._open |= {incident}
        if is_new:
            logger.warning("upstream %s: %s; it said: %s", upstream, sentence_of(fault, incident.model), words)
            self._tallies.hurry()

    def answered(self, upstream: str, model: str, at: datetime, credential: str = "") -> None:
        """Note that a provider has answered a call, which ends the incidents that it could have met."""
        if not self._open:
            return
        with self._lock:
            ended = {
                one
                for one in self._open
                if one.upstream == upstream and one.model in {"", model} and one.credential in {"", credential}
            }
            self._open -= ended
            self._answered.update(dict.fromkeys(ended, at))
        if ended:
            logger.info("upstream %s has answered a call again", upstream)
            self._tallies.hurry()

    def flush(self, store: Store) -> None:
        """Write what has been noted, and read what is open.

        Raises:
            Unavailable: the store cannot be reached; then it stays noted.
        """
        with self._lock:
            refused, self._refused = self._refused, {}
            answered, self._answered = self._answered, {}
        try:
            if refused or answered:
                with store.write(SYSTEM) as tx:
                    write(tx, refused, answered)
            with store.read(SYSTEM) as tx:
                found = open_incidents(tx)
        except Unavailable:
            with self._lock:
                self._put_back(refused, answered)
            raise
        with self._lock:
            known = {At(one.upstream, AccountFault(one.fault), one.model, one.credential) for one in found}
            self._open = frozenset((known | self._refused.keys()) - self._answered.keys())

    def _put_back(self, refused: dict[At, Refused], answered: dict[At, datetime]) -> None:
        for incident, past in refused.items():
            now = self._refused.get(incident)
            self._refused[incident] = (
                Refused(past.first_at, now.last_at, past.calls + now.calls, now.words) if now else past
            )
        for incident, at in answered.items():
            if incident not in self._refused or self._refused[incident].last_at <= at:
                self._answered.setdefault(incident, at)
