"""The runner: looks for what there is to tell and sends it. Of several, the one that has the lease does.

Each destination is sent to by a task of its own, one alert at a time. So one that hangs delays no other.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from toolkit import environment
from toolkit.alerts import destinations, evaluation, mail, queue, webhook
from toolkit.alerts.mail import Mailbox
from toolkit.alerts.queue import Delivery
from toolkit.core.errors import InvalidInput, Unavailable
from toolkit.core.ids import new_id
from toolkit.core.moments import moment
from toolkit.core.outbound_proxies import OutboundProxies
from toolkit.core.secrets import Keyring
from toolkit.core.settings import Settings
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.upstream_tls import tls_context
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.transaction import Transaction

logger = logging.getLogger("keydesk.alerts")

T = TypeVar("T")

LOOK_EVERY = 10.0
"""Seconds between two looks at what there is to tell."""

ROUND_EVERY = 1.0
"""Seconds between two looks at the queue."""


class Runner:
    """A process that looks for alerts and sends them; made in the running event loop.

    Args:
        store: the key store.
        settings: proxies, authorities, and the length of the lease.
        keyring: the peppers, which sign.

    Raises:
        InvalidInput: a proxy or a certificate cannot be used.
    """

    def __init__(self, store: Store, settings: Settings, keyring: Keyring) -> None:
        self._store = store
        self._lease = timedelta(seconds=settings.lease)
        self._keyring = keyring
        self._clock = asyncio.get_running_loop().time
        # The gateway's certificate is for upstreams; receivers need not know who we are but by the signature.
        self._settings = settings
        # Threads of their own, one for each destination: a mail server that hangs keeps nobody else waiting.
        self._mailers = ThreadPoolExecutor(2 * destinations.MOST, "mail")
        self._context = context = tls_context(replace(settings, client_certificate=None, client_key=None))
        proxies = OutboundProxies.parse(settings.https_proxy, settings.http_proxy, settings.no_proxy)
        self._pools = {
            any_address: ConnectionPool(context, proxies, public_only=not any_address) for any_address in (True, False)
        }
        self._id = new_id("runner")
        self._renew_at = self._look_at = 0.0  # on the loop's clock
        self._sending: dict[str, asyncio.Task[None]] = {}

    async def run(self, is_stopped: Callable[[], object]) -> None:
        """Look and send until told to stop."""
        try:
            while not is_stopped():
                try:
                    await self.round()
                except Unavailable as error:
                    logger.warning("alerts wait: %s", error)
                await asyncio.sleep(ROUND_EVERY)
        finally:
            await self.close()

    async def round(self) -> bool:
        """Look at what there is to tell, if it is time, and begin to send what is due.

        Returns:
            Whether this runner has the lease; without it nothing is done.

        Raises:
            Unavailable: the store cannot be reached.
        """
        now = self._clock()
        if now >= self._renew_at:
            if not await asyncio.to_thread(self._take_lease):
                return False
            self._renew_at = now + self._lease.total_seconds() / 3
        if now >= self._look_at:
            await asyncio.to_thread(evaluation.tell, self._store, self._id)
            self._look_at = now + LOOK_EVERY
        self._sending = {to: task for to, task in self._sending.items() if not task.done()}
        for to, waiting in (await asyncio.to_thread(self._due)).items():
            self._sending[to] = asyncio.create_task(self._send_all(waiting))
        return True

    async def sent(self) -> None:
        """Wait until what has been begun is over."""
        await asyncio.gather(*self._sending.values())

    async def close(self) -> None:
        """Stop sending, and leave the lease to another."""
        for task in self._sending.values():
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)
        for pool in self._pools.values():
            pool.close()
        self._mailers.shutdown(wait=False, cancel_futures=True)
        try:
            await asyncio.to_thread(self._write, lambda tx: queue.end_lease(tx, self._id))
        except Unavailable as error:
            logger.warning("the lease of alerts ends by itself: %s", error)

    def _take_lease(self) -> bool:
        with self._store.read(SYSTEM) as tx:
            if not (queue.is_free(tx) or queue.is_of(tx, self._id)):
                return False
        return self._write(lambda tx: queue.take_lease(tx, self._id, self._lease))

    def _due(self) -> dict[str, list[Delivery]]:
        with self._store.read(SYSTEM) as tx:
            return queue.due(tx, self._sending.keys())

    async def _send_all(self, waiting: list[Delivery]) -> None:
        """Send to one destination until something fails."""
        for delivery in waiting:
            try:
                if not await self._send(delivery):
                    return
            except Unavailable as error:  # it is sent again: with the same id
                logger.warning("alerts wait: %s", error)
                return

    async def _send(self, delivery: Delivery) -> bool:
        failure = await (self._post(delivery) if delivery.mailbox is None else self._mail(delivery, delivery.mailbox))
        if failure is None:
            await asyncio.to_thread(self._write, lambda tx: queue.taken(tx, delivery))
            return True
        logger.warning("alert %s was not taken by %s: %s", delivery.alert_id, delivery.destination_id, failure)
        await asyncio.to_thread(self._write, lambda tx: queue.failed(tx, delivery, failure))
        return False

    async def _post(self, delivery: Delivery) -> str | None:
        """Send an alert as a webhook; return why it was not taken, or None."""
        body = delivery.body.encode()
        keys = webhook.keys_of(self._keyring, delivery.destination_id)
        headers = webhook.signed(keys, delivery.alert_id, body)
        return await webhook.send(self._pools[bool(delivery.any_address)], delivery.url, headers, body)

    async def _mail(self, delivery: Delivery, mailbox: Mailbox) -> str | None:
        """Send an alert by e-mail; return why it was not taken, or None."""
        password = None
        if mailbox.password_name is not None:
            try:
                password = environment.mail_password(self._settings, mailbox.password_name)
            except InvalidInput as error:
                return str(error)
        made = mail.message(mailbox, json.loads(delivery.body), moment(delivery.fired_at))
        sending = mail.Sending(mailbox, password, self._context)
        running = asyncio.get_running_loop().run_in_executor(self._mailers, sending.run, made)
        try:
            return await asyncio.wait_for(asyncio.shield(running), mail.WHOLE)
        except TimeoutError:
            return f"it had not taken it after {mail.WHOLE:g} s"
        finally:
            sending.abort()

    def _write(self, act: Callable[[Transaction], T]) -> T:
        with self._store.write(SYSTEM) as tx:
            return act(tx)
