"""Credentials that commands of the gateway's machine print, by real scripts."""

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import Gate, RawUpstream, raw_upstream
from tests.gateway.test_several_credentials import incidents
from tests.gateway.test_several_upstreams import GOOD_STREAM, TOKENS, failure, good
from toolkit import environment
from toolkit.core.settings import Settings
from toolkit.core.token_command import NoToken, TokenCommand
from toolkit.gateway.token_commands import KEPT, PAUSE, TokenCommands
from toolkit.gateway.upstream_exchange import NotConfigured
from toolkit.gateway.upstream_pool import UpstreamPool


class Script:
    """A command that notes each run and prints what stands in a file, and the tokens that it gives."""

    def __init__(self, folder: Path, settings: Settings, longest: float = 30) -> None:
        self.out = folder / "out"
        self.runs = folder / "runs"
        self.now = 1000.0
        self.program = folder / "token.sh"
        self.does(f"cat {shlex.quote(str(self.out))}")
        self.command = TokenCommand("A_TOKEN", shlex.quote(str(self.program)))
        self.tokens = TokenCommands(settings, longest, lambda: self.now)

    def does(self, line: str) -> None:
        """Say what it does from now on."""
        new = self.program.with_suffix(".new")
        new.write_text(f"#!/bin/sh\necho >> {shlex.quote(str(self.runs))}\n{line}\n")
        new.chmod(0o700)
        new.replace(self.program)

    def prints(self, text: str) -> None:
        """Say what it prints from now on."""
        self.out.write_text(text)

    @property
    def count(self) -> int:
        """How often it has run."""
        return self.runs.read_text().count("\n") if self.runs.exists() else 0

    async def token(self) -> str:
        """Return the token as a call gets it."""
        return await self.tokens.token(self.command)

    async def settled(self) -> None:
        """Wait for what is fetched beside the calls."""
        if (fetching := self.tokens._held[self.command].fetching) is not None:
            await fetching

    async def failure(self) -> str:
        """Return why there is no token."""
        with pytest.raises(NoToken) as failed:
            await self.token()
        return str(failed.value)


Try = Callable[[Callable[[Script], Awaitable[None]]], None]


@pytest.fixture
def attempt(tmp_path: Path) -> Try:
    """Runs something with a script."""

    def run(work: Callable[[Script], Awaitable[None]]) -> None:
        script = Script(tmp_path, environment.read_settings({"KEYDESK_DATA_DIR": str(tmp_path)}))
        try:
            asyncio.run(work(script))  # type: ignore[arg-type]
        finally:
            script.tokens.close()

    return run


def test_a_token_is_kept_and_fetched_anew_ahead_of_its_end(attempt: Try) -> None:
    """Who asks meanwhile gets the old one at once; all who wait for the first wait for one run."""

    async def work(script: Script) -> None:
        script.prints(json.dumps({"token": "one", "expires_in": 1000}))
        assert await asyncio.gather(*(script.token() for _ in range(20))) == ["one"] * 20
        script.prints(json.dumps({"token": "two", "expires_in": 1000}))
        script.now += 800
        assert (await script.token(), script.count) == ("one", 1)
        script.now += 150
        assert await script.token() == "one"
        await script.settled()
        assert (await script.token(), script.count) == ("two", 2)

    attempt(work)


def test_a_token_past_its_end_is_never_shown(attempt: Try) -> None:
    """Not even when the command fails; then it is not run for each call, and mended it serves again."""

    async def work(script: Script) -> None:
        script.prints(json.dumps({"token": "one", "expires_in": 100}))
        assert await script.token() == "one"
        script.does("exit 3")
        script.now += 95
        assert await script.token() == "one"
        await script.settled()
        assert (await script.token(), script.count) == ("one", 2)
        script.now += PAUSE + 1
        assert await script.failure() == "it ended with status 3"
        assert await script.failure() == "it ended with status 3"
        assert script.count == 3
        script.does("echo two")
        script.now += PAUSE
        assert await script.token() == "two"

    attempt(work)


def test_a_token_of_untold_end_serves_while_the_command_fails(attempt: Try) -> None:
    """Only the provider knows whether it has ended."""

    async def work(script: Script) -> None:
        script.prints("one\n")
        assert await script.token() == "one"
        script.does("exit 1")
        script.now += KEPT + 1
        assert (await script.token(), script.count) == ("one", 2)

    attempt(work)


def test_a_refused_token_is_fetched_anew_once(attempt: Try) -> None:
    """By one run for all calls that met it, and not again for a while."""

    async def work(script: Script) -> None:
        script.prints("one")
        await script.token()
        script.prints("two")
        found = await asyncio.gather(*(script.tokens.renewed(script.command, "one") for _ in range(5)))
        assert (found, script.count, await script.token()) == ([True] * 5, 2, "two")
        assert not await script.tokens.renewed(script.command, "two")
        assert script.count == 2
        script.now += PAUSE
        assert not await script.tokens.renewed(script.command, "two")
        assert script.count == 3

    attempt(work)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("true", "it printed nothing"),
        ("echo one; echo two", "it printed more than one word"),
        ("printf 'schl\\303\\274ssel'", "it printed something that is not ASCII"),
        ("yes token", "it printed more than 65,536 bytes"),
        ("kill -9 $$", "it was ended by signal 9"),
        ("echo token; exit 1", "it ended with status 1"),
    ],
)
def test_what_gives_no_token_is_said_in_words(attempt: Try, line: str, why: str) -> None:
    """Without what it printed."""

    async def work(script: Script) -> None:
        script.does(line)
        assert await script.failure() == why

    attempt(work)


def test_a_program_that_is_not_there_is_said_in_words(attempt: Try) -> None:
    """As is one that may not be run."""

    async def work(script: Script) -> None:
        script.program.unlink()
        assert await script.failure() == "it cannot be run (FileNotFoundError)"

    attempt(work)


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path, settings: Settings) -> None:
    """The event loop goes on meanwhile."""
    script = Script(tmp_path, settings, longest=0.5)
    child = tmp_path / "child"
    script.does(f"sleep 600 & echo $! > {shlex.quote(str(child))}; wait")

    async def work() -> None:
        fetch = asyncio.ensure_future(script.failure())
        ticks = 0
        while not fetch.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 3
        assert await fetch == "it took too long"

    asyncio.run(work())
    script.tokens.close()
    wait_until(lambda: is_gone(int(child.read_text())), "the end of what it started")


def test_what_a_command_leaves_behind_is_not_waited_for(attempt: Try) -> None:
    """It may hold the output open."""

    async def work(script: Script) -> None:
        script.does("sleep 2 & echo token")
        assert await script.token() == "token"

    attempt(work)


def test_the_end_of_the_gateway_ends_commands(attempt: Try) -> None:
    """Else it would wait for them."""

    async def work(script: Script) -> None:
        script.does("sleep 600")
        fetch = asyncio.ensure_future(script.failure())
        await asyncio.to_thread(wait_until, lambda: script.count, "its start")
        script.tokens.close()
        assert await fetch == "the gateway was stopped"

    attempt(work)


def test_what_a_command_complains_of_is_logged_without_secrets(
    attempt: Try, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it see the gateway's own."""
    monkeypatch.setenv("KEYDESK_PEPPER", "pepper-of-ours")
    monkeypatch.setenv("OTHER_API_KEY", "key-of-ours")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    token = "eyJhbGciOiJIUzI1NiJ9.e30.abc"

    async def work(script: Script) -> None:
        script.does(f'echo tok-42; echo "sign in again, tok-42 {token} $GOOGLE_CLOUD_PROJECT" >&2; env >&2; exit 1')
        assert await script.failure() == "it ended with status 1"

    attempt(work)
    assert "sign in again, [removed] [removed] mine" in caplog.text
    for secret in (token, "tok-42", "pepper-of-ours", "key-of-ours"):
        assert secret not in caplog.text


def secrets(tmp_path: Path, text: str, mode: int = 0o600) -> Settings:
    """Return settings with a secrets file."""
    file = tmp_path / "secrets"
    file.write_text(text)
    file.chmod(mode)
    return replace(environment.read_settings({"KEYDESK_DATA_DIR": str(tmp_path)}), secrets_file=file)


def test_the_secrets_file_names_commands(tmp_path: Path) -> None:
    """As the file is now; a value that looks like one is none."""
    program = f"{shlex.quote(sys.executable)} -c 'print(\"a=b\")'"
    settings = secrets(tmp_path, f"A_TOKEN != {program}\nB_TOKEN=!{program}\n")
    assert environment.upstream_credential(settings, "A_TOKEN") == TokenCommand("A_TOKEN", program)
    assert environment.upstream_credential(settings, "B_TOKEN") == f"!{program}"

    async def work() -> None:
        upstreams = UpstreamPool(settings)
        assert await upstreams.credential("A_TOKEN") == "a=b"
        secrets(tmp_path, "A_TOKEN=plain\n")
        assert await upstreams.credential("A_TOKEN") == "plain"
        secrets(tmp_path, "A_TOKEN!=false\n")
        with pytest.raises(NotConfigured, match="the token command of A_TOKEN failed: it ended with status 1"):
            await upstreams.credential("A_TOKEN")
        await upstreams.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("A_TOKEN!=touch RAN\n", 0o620, "others may write"),
        ("A_TOKEN!=touch RAN\n", 0o602, "others may write"),
        ("A_TOKEN!=touch 'RAN\n", 0o600, "no closing quotation"),
        ("A_TOKEN!=\n", 0o600, "it is empty"),
        ("KEYDESK_TOKEN!=touch RAN\n", 0o600, "setting of Keydesk"),
    ],
)
def test_a_command_that_cannot_be_trusted_is_not_run(tmp_path: Path, text: str, mode: int, why: str) -> None:
    """Whoever could write the file would run what he likes."""
    settings = secrets(tmp_path, text.replace("RAN", str(tmp_path / "ran")), mode)
    name = text.split("!", maxsplit=1)[0]
    assert why in (environment.credential_fault(settings, name) or "")

    async def work() -> None:
        with pytest.raises(NotConfigured, match=why):
            await UpstreamPool(settings).credential(name)

    asyncio.run(work())
    assert not (tmp_path / "ran").exists()


class Renewing(list[bytes]):
    """What an upstream answers that takes one token: of the others it says 401, as Google does."""

    def __init__(self, token: str, answer: bytes) -> None:
        super().__init__()
        self.upstream: RawUpstream | None = None
        self.token, self.answer = token, answer

    def __iter__(self) -> Iterator[bytes]:
        assert self.upstream is not None
        head = self.upstream.requests[-1].split(b"\r\n\r\n")[0]
        yield self.answer if f"Bearer {self.token}\r\n".encode() in head + b"\r\n" else failure(401, "Unauthenticated")


@pytest.mark.parametrize("form", ["whole", "stream", "large"])
def test_a_call_whose_token_is_refused_is_sent_again_with_a_new_one(gate: Gate, tmp_path: Path, form: str) -> None:
    """Its caller notices nothing and pays once; the row says it. A new token that is refused, too, is an incident."""
    name, printed = f"{form.upper()}_TOKEN_API_KEY", tmp_path / "token"
    printed.write_text("first")
    gate.running.log.with_name("secrets").write_text(f"{name}!=cat {shlex.quote(str(printed))}\n")
    script = Renewing("first", GOOD_STREAM if form == "stream" else good())
    with raw_upstream(script) as upstream:
        script.upstream = upstream
        behind = gate.behind(upstream.url, credential_env=name)
        text = "x" * 600_000 if form == "large" else "hello"
        assert behind.ask("chat", text, stream=form == "stream").status == 200
        printed.write_text("second")
        script.token = "second"
        reply = behind.ask("chat", text, stream=form == "stream")
        assert (reply.status, len(upstream.requests)) == (200, 3)
        bodies = [request.split(b"\r\n\r\n", 1)[1] for request in upstream.requests]
        assert bodies[1] == bodies[2]
        script.token = "third"
        assert behind.ask("chat", text, stream=form == "stream").status == 502
    assert [row.error for row in behind.gate.rows()][:2] == [
        None,
        "sent again with a new token, for the provider refused the one before",
    ]
    assert behind.gate.totals() == (2 * TOKENS, 0)
    wait_until(lambda: incidents(behind), "the incident")
    assert incidents(behind) == {name: ("credential", True)}


def test_a_failing_command_is_an_incident(gate: Gate, tmp_path: Path) -> None:
    """In words without what it printed; nothing is charged, and nobody is asked."""
    gate.running.log.with_name("secrets").write_text("FAILING_TOKEN_API_KEY!=sh -c 'echo my-secret; exit 3'\n")
    with raw_upstream([good()]) as upstream:
        behind = gate.behind(upstream.url, credential_env="FAILING_TOKEN_API_KEY")
        assert behind.ask("chat").status == 502
        assert not upstream.requests
    wait_until(lambda: incidents(behind), "the incident")
    assert incidents(behind) == {"FAILING_TOKEN_API_KEY": ("unconfigured", True)}
    assert behind.gate.totals() == (0, 0)
    said = behind.gate.row().error or ""
    assert "the token command of FAILING_TOKEN_API_KEY failed: it ended with status 3" in said
    assert "my-secret" not in gate.running.log.read_text() + said
