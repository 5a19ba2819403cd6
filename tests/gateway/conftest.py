"""One gateway for all tests that need none of their own, and a fresh organisation and key for each test."""

import contextlib
import functools
import http.client
import itertools
import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from tests.conftest import (
    ADMIN,
    CREDENTIAL,
    GEMINI_SHEET,
    Running,
    free_port,
    gateway_process,
    make_world,
    prepare_workspace,
    settings_for,
    usd,
)
from tests.gateway.network import Network
from tests.stores import StoreKind, Stores
from toolkit.admin import keys, organisations, plans, wallet
from toolkit.admin.keys import NewSecret
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.store.tables import ApiKey, HoldRow, KeyMonth, Organisation, OutboxRow
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    import anthropic
    import openai
    from google import genai

PAGE = "http://page.example"
"""The origin whose pages may call the shared gateway."""

SECOND_CREDENTIAL = f"{CREDENTIAL[:-1]}2"
"""What the shared gateway has under TEST_SECOND_API_KEY."""

PLANNED = ["gpt-test", "claude-test", "gemini-test", "embed-test", "gemini-embed-test", "cent-test"]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Reply:
    """A whole HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an error, in whichever envelope."""
        return str(self.json["error"]["message"])

    @property
    def type(self) -> str:
        """Our type of an error, in whichever envelope."""
        error = self.json["error"]
        if "code" in error and isinstance(error["code"], int):
            return str(error["details"][0]["reason"])
        return str(error["details"]["error_code"] if "details" in error and "code" not in error else error["type"])

    @property
    def request_id(self) -> str:
        """Ours."""
        return self.headers["x-request-id"]


def request_of(kind: str, text: str, *, stream: bool = False, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Return path and body of a request that asks `text`.

    Args:
        kind: chat, responses, messages, generate (streams as events) or array (streams as a JSON array).
        text: the prompt, with directives for the demo upstream.
        stream: ask for a stream.
        fields: further fields of the body, which win.
    """
    messages = [{"role": "user", "content": text}]
    flag = {"stream": True} if stream else {}
    if kind == "chat":
        return "/v1/chat/completions", {"model": "gpt-test", "messages": messages, **flag, **fields}
    if kind == "responses":
        return "/v1/responses", {"model": "gpt-test", "input": text, **flag, **fields}
    if kind == "messages":
        body = {"model": "claude-test", "max_tokens": 1000, "messages": messages, **flag, **fields}
        return "/v1/messages", body
    verb = "streamGenerateContent" if stream else "generateContent"
    query = "?alt=sse" if stream and kind == "generate" else ""
    return f"/v1beta/models/gemini-test:{verb}{query}", {"contents": [{"parts": [{"text": text}]}], **fields}


KINDS = ["chat", "responses", "messages", "generate", "array"]
"""Every way to ask for an answer; each can stream."""


def dialect_of(kind: str) -> Dialect:
    """Return the dialect of a kind of request."""
    return {"chat": Dialect.OPENAI, "responses": Dialect.OPENAI, "messages": Dialect.ANTHROPIC}.get(
        kind, Dialect.GEMINI
    )


@dataclass(frozen=True)
class Gate:
    """A key of an organisation of its own, at a running gateway."""

    running: Running
    org_id: str
    plan_id: str
    key: NewSecret

    @property
    def workspace(self) -> Workspace:
        """The key store behind the gateway."""
        return self.running.world.workspace

    @property
    def url(self) -> str:
        """The gateway's address."""
        return self.running.url

    @property
    def secret(self) -> str:
        """The key's secret."""
        return self.key.secret

    @property
    def key_id(self) -> str:
        """The key's id."""
        return self.key.key.id

    # -- calling ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def connection(self, timeout: float = 30) -> Iterator[http.client.HTTPConnection]:
        """Connect to the gateway."""
        port = urlsplit(self.url).port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            yield connection
        finally:
            connection.close()

    def send(
        self,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        *,
        method: str = "POST",
        secret: str | None = "",
    ) -> Reply:
        """Send one request; `body` is JSON unless it is bytes.

        Args:
            path, body, headers, method: of the request.
            secret: another credential than this key's; None sends none.
        """
        sent = {"Content-Type": "application/json"}
        if secret is not None:
            sent["Authorization"] = f"Bearer {secret or self.secret}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with self.connection() as connection:
            connection.request(method, path, data, sent | (headers or {}))
            return read_reply(connection)

    def ask(self, kind: str, text: str, *, stream: bool = False, secret: str = "", **fields: Any) -> Reply:
        """Ask something in one of the kinds of `request_of`."""
        path, body = request_of(kind, text, stream=stream, **fields)
        return self.send(path, body, secret=secret)

    @contextlib.contextmanager
    def streaming(
        self, kind: str, text: str, **fields: Any
    ) -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
        """Ask for a stream and read its head; leaving the block hangs up."""
        path, body = request_of(kind, text, stream=True, **fields)
        with self.connection() as connection:
            connection.request(
                "POST",
                path,
                json.dumps(body),
                {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            try:
                yield connection, answer
            finally:
                answer.close()

    @contextlib.contextmanager
    def openai(self, secret: str | None = None, path: str = "/v1") -> "Iterator[openai.OpenAI]":
        """OpenAI's SDK, changed only in base URL and key."""
        import openai

        with openai.OpenAI(base_url=self.url + path, api_key=secret or self.secret, max_retries=0) as client:
            yield client

    @contextlib.contextmanager
    def anthropic(self, secret: str | None = None, path: str = "") -> "Iterator[anthropic.Anthropic]":
        """Anthropic's SDK, changed only in base URL and key."""
        import anthropic

        with anthropic.Anthropic(base_url=self.url + path, api_key=secret or self.secret, max_retries=0) as client:
            yield client

    @contextlib.contextmanager
    def genai(self, secret: str | None = None, path: str = "") -> "Iterator[genai.Client]":
        """Google's SDK, changed only in base URL and key."""
        from google import genai

        options = genai.types.HttpOptions(base_url=self.url + path)
        with genai.Client(api_key=secret or self.secret, http_options=options) as client:
            yield client

    # -- looking ------------------------------------------------------------------------------------------------

    def rows(self) -> list[OutboxRow]:
        """Return this key's rows of the request log, oldest first."""
        with self.workspace.read() as tx:
            query = select(OutboxRow).where(OutboxRow.key_id == self.key_id).order_by(OutboxRow.request_id)
            return list(tx.session.scalars(query))

    def row(self) -> OutboxRow:
        """Return this key's only row."""
        rows = self.rows()
        assert len(rows) == 1, [(row.outcome, row.refusal, row.error) for row in rows]
        return rows[0]

    def totals(self) -> tuple[int, int]:
        """Return what the key has spent this month and what is held, nano-USD; the organisation's must agree."""
        with self.workspace.read() as tx:
            org = tx.session.get_one(Organisation, self.org_id)
            months = list(tx.session.scalars(select(KeyMonth).where(KeyMonth.key_id == self.key_id)))
            holds = list(tx.session.scalars(select(HoldRow).where(HoldRow.org_id == self.org_id)))
        spent, held = sum(month.spent for month in months), sum(month.held for month in months)
        assert org.held == sum(hold.amount for hold in holds)
        assert held == sum(hold.limit_amount for hold in holds)
        assert org.settled == spent
        return spent, held

    def held_calls(self) -> list[str]:
        """Return the ids of the organisation's calls under way."""
        with self.workspace.read() as tx:
            return list(tx.session.scalars(select(HoldRow.request_id).where(HoldRow.org_id == self.org_id)))

    def witness(self, request_id: str) -> dict[str, Any] | None:
        """Return what the demo upstream says of a call; None if it never came there."""
        with urllib.request.urlopen(f"{self.running.upstream}/demo/calls", timeout=60) as answer:
            calls: list[dict[str, Any]] = json.load(answer)
        return next((call for call in calls if call["request_id"] == request_id), None)

    # -- changing -----------------------------------------------------------------------------------------------

    def update(self, **options: Any) -> None:
        """Change the key's options."""
        with self.workspace.write() as tx:
            keys.update(tx, self.key_id, **options)

    def another(self, name: str, **options: Any) -> "Gate":
        """Return a further key of the same organisation."""
        with self.workspace.write() as tx:
            plan = options.pop("plan", self.plan_id)
            key = keys.create(tx, self.workspace.keyring, org=self.org_id, name=name, plan=plan, **options)
        return replace(self, key=key)

    def behind(
        self,
        upstream: str,
        dialect: Dialect = Dialect.OPENAI,
        *,
        credential_env: str = "TEST_UPSTREAM_API_KEY",
        upstream_model: str | None = None,
        **traits: Any,
    ) -> "Behind":
        """Add a model that another upstream serves, of which this is known; return its name and a key for it."""
        number = next(_numbers)
        name, model = f"upstream-{number}", f"model-{number}"
        with self.workspace.write() as tx:
            add_upstream(tx, name, dialect, upstream, credential_env, **traits)
            add_model(
                tx,
                model,
                name,
                upstream_model=upstream_model,
                sheet=GEMINI_SHEET,
                context_window=100_000,
                default_output=4_096,
                max_output=8_192,
            )
            plan = plans.add(tx, name, MILLION, [model])
        return Behind(model, self.another(name, plan=plan.id))


@dataclass(frozen=True)
class Behind:
    """A model on an upstream of the test's own, and a key that may call it."""

    model: str
    gate: Gate

    def ask(self, kind: str, text: str = "hello", *, stream: bool = False, **fields: Any) -> Reply:
        """Ask that model something."""
        path, body = request_of(kind, text, stream=stream, **fields)
        if "model" in body:
            body["model"] = self.model
        return self.gate.send(path.replace("gemini-test", self.model), body)


def read_reply(connection: http.client.HTTPConnection) -> Reply:
    """Read one whole answer."""
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, headers, answer.read())


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The authority, the client certificate and the proxy of the shared gateways; they call this machine without."""
    with Network(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture(scope="session")
def gateways(
    upstream: str, stores: Stores, network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Running]]:
    """Starts a gateway on a kind of store, of some number of processes, once: for tests that need none of their own."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(kind: StoreKind, *, workers: int) -> Running:
            folder = tmp_path_factory.mktemp("gateway")
            store_url = stores.copy(kind, folder / "data", "workspace", prepare_workspace)
            stack.callback(stores.drop, store_url)
            workspace = Workspace.open(
                replace(settings_for(folder / "data", store_url), gateway_port=free_port()), ADMIN, make=True
            )
            stack.callback(workspace.close)
            world = make_world(workspace, upstream)
            with workspace.write() as tx:
                # One cent a million tokens: at 1.25 times that a token costs 12.5 nano-USD.
                add_model(
                    tx,
                    "cent-test",
                    "test-openai",
                    sheet=PriceSheet.flat(input=usd(0.01), output=0),
                    context_window=100_000,
                    default_output=4_096,
                    max_output=8_192,
                )
                plan = plans.add(tx, "gateway tests", MILLION * 5 // 4, PLANNED)
            log = folder / "gateway.log"
            spoiled = {"TEST_SPOILED_API_KEY": f"{CREDENTIAL}\n", "TEST_BROKEN_API_KEY": "one\ntwo"}
            second = {"TEST_SECOND_API_KEY": SECOND_CREDENTIAL}
            secrets = {"KEYDESK_SECRETS_FILE": str(log.with_name("secrets"))}  # for tests that write one
            own = spoiled | second | secrets | network.variables | {"KEYDESK_CORS_ORIGINS": f"{PAGE}, app://notes"}
            server = stack.enter_context(gateway_process(workspace.settings, log, own, workers=workers))
            url = f"http://127.0.0.1:{workspace.settings.gateway_port}"
            return Running(replace(world, plan_id=plan.id), url, upstream, log, server)

        yield start


@pytest.fixture
def shared(gateways: Callable[..., Running], store_kind: StoreKind) -> Running:
    """A gateway for all tests that need none of their own."""
    return gateways(store_kind, workers=1)


def make_gate(running: Running, money: int = usd(100), **options: Any) -> Gate:
    """Make an organisation with money and a key."""
    workspace = running.world.workspace
    with workspace.write() as tx:
        org = organisations.add(tx, f"Org {next(_numbers)}")
        if money:
            wallet.credit(tx, org.id, money, f"first payment of {org.id}")
        key = keys.create(
            tx, workspace.keyring, org=org.id, name="app", plan=options.pop("plan", running.world.plan_id), **options
        )
    return Gate(running, org.id, running.world.plan_id, key)


@pytest.fixture
def gate(shared: Running) -> Gate:
    """A fresh key with 100 USD behind it, at the shared gateway."""
    return make_gate(shared)


@dataclass
class RawUpstream:
    """An upstream that says exactly what a test tells it, byte by byte.

    Args:
        url: its address.
        requests: the requests that came, head and body.
        open: set while a connection is being served; clear again once the other side has hung up.
    """

    url: str
    requests: list[bytes] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)


Script = Sequence[bytes | Callable[[], object]]
"""What a raw upstream sends: bytes, and between them calls that wait or note something."""


def http_answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}", "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.contextmanager
def raw_upstream(script: Script, *, linger: bool = False, tls: ssl.SSLContext | None = None) -> Iterator[RawUpstream]:
    """Run an upstream that answers every request with `script` and closes.

    Args:
        script: what it sends.
        linger: whether it waits for the other side to close first.
        tls: how it speaks TLS, if it does.
    """
    server = socket.create_server(("127.0.0.1", 0))
    upstream = RawUpstream(f"{'https' if tls else 'http'}://127.0.0.1:{server.getsockname()[1]}")

    def serve(wire: socket.socket) -> None:
        wire.settimeout(20)
        if tls is None:
            answer(wire)
            return
        with wire.dup() as below, contextlib.suppress(OSError):
            try:
                client = tls.wrap_socket(wire, server_side=True)
            except OSError:  # one side does not believe the other, and is told so before the connection ends
                below.shutdown(socket.SHUT_WR)
                while below.recv(65_536):
                    pass
            else:
                answer(client)

    def answer(client: socket.socket) -> None:
        with client:
            received = b""
            while b"\r\n\r\n" not in received:
                part = client.recv(65_536)
                if not part:
                    return
                received += part
            head, _, body = received.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            # Who starts a process on a port that was free waits for its health there; if the port is ours by now, that
            # comes here. A gateway says the length of each request, and shows a credential.
            if not lengths and CREDENTIAL[:-1].encode() not in head:
                return
            while len(body) < int(lengths[0].split(b":")[1]):
                body += client.recv(65_536)
            upstream.requests.append(head + b"\r\n\r\n" + body)
            with contextlib.suppress(OSError):
                for step in script:
                    if isinstance(step, bytes):
                        client.sendall(step)
                    else:
                        step()
                if linger:
                    client.recv(1)
            upstream.hung_up.set()

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(60)


def key_row(gate: Gate) -> ApiKey:
    """Return the key as the store has it."""
    with gate.workspace.read() as tx:
        return tx.session.get_one(ApiKey, gate.key_id)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file in a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
