"""A visitor of the dashboard: signs in, has a page made, signs out, over and over. Each sign-in is an audited write."""

import asyncio
import contextlib

import aiohttp

from tests.chaos.stage import OPERATOR, PASSWORD

PATIENCE = 20.0
REST = 0.5
"""Seconds between two visits: a password's check takes a processor for a third of one."""


class Visitor:
    """A person at the dashboard, who tries again when it is gone.

    Args:
        url: of the dashboard.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.visits = 0
        """Pages that were made to their end."""

    async def visit(self, stop: asyncio.Event) -> None:
        """Come again and again until told to stop."""
        while not stop.is_set():
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                jar = aiohttp.CookieJar(unsafe=True)  # which takes cookies of an IP address, too
                async with asyncio.timeout(PATIENCE), aiohttp.ClientSession(self.url, cookie_jar=jar) as session:
                    await self._once(session)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REST)

    async def _once(self, session: aiohttp.ClientSession) -> None:
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        form = {"email": OPERATOR, "password": PASSWORD, "next": "/"}
        async with session.post("/auth/sign-in", data=form, allow_redirects=False) as answer:
            if answer.status != 303:
                raise aiohttp.ClientError(f"sign-in: {answer.status}")
        async with session.ws_connect("/_stcore/stream", protocols=["streamlit"]) as socket:
            rerun = BackMsg()
            rerun.rerun_script.query_string = ""
            await socket.send_bytes(rerun.SerializeToString())
            async for message in socket:
                told = ForwardMsg()
                told.ParseFromString(message.data)
                if told.WhichOneof("type") == "script_finished":
                    self.visits += 1
                    break
        async with session.post("/auth/sign-out", allow_redirects=False):
            pass
