"""A scripted model server with the API of OpenAI, which also fails on demand.

In a test: `async with ModelServer() as models:` (on the loop of the test) or `with ModelServer() as models:` (in a
thread of its own), then `models.on("add up", Text("42"))`. As a process: `python -m model_server --script FILE`
prints its URL; `read_rules` describes the file. Nothing here imports `openai`.
"""

import asyncio
import contextlib
import inspect
import json
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Self

from model_server.connection import Wire, read_request
from model_server.endless import Endless
from model_server.replies import (
    STATUS,
    Answer,
    Fault,
    Raw,
    Reply,
    Rule,
    When,
    error_of,
    turn_of,
)
from model_server.requests import CHAT, RESPONSES, Request, WireError, check
from model_server.wire import CREATED, Turn, tokens

PATIENCE_S = 20.0
MODEL = "test-model"


class ModelServer:
    """Listens on a loopback port, which stays the same after a restart.

    `key` is the required API key, `known` the available models (None: any), `levels` the supported formats, `delay_s`
    the delay before each answer, and `context_tokens` the context limit; with `tells_usage` it reports tokens. All may
    be changed while it runs. `requests` are all received requests, and `abandoned` those whose client left before the
    end of the answer.
    """

    def __init__(self, *, port: int = 0, key: str | None = None, delay_s: float = 0.0) -> None:
        self.port = port
        self.key = key
        self.delay_s = delay_s
        self.known: set[str] | None = None
        self.levels = {"json_object", "json_schema"}
        self.context_tokens: int | None = None
        self.tells_usage = True
        self.silent_lists = False
        self.requests: list[Request] = []
        self.abandoned: list[Request] = []
        self._rules: list[tuple[Rule, list[Request]]] = []
        self._next: list[Reply] = []
        self._mistakes: list[Exception] = []
        self._news = threading.Condition()
        self._gate: asyncio.Event = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The value for OPENAI_BASE_URL."""
        return f"{self.url}/v1"

    def on(self, when: When, *replies: Reply) -> None:
        """Add a rule. The first rule that matches a request answers it."""
        self._rules.append((Rule(when, replies), []))

    def script(self, rules: Iterable[Rule]) -> None:
        """Replace all rules."""
        self._rules = [(rule, []) for rule in rules]

    def next(self, *replies: Reply) -> None:
        """Answer the next requests with these replies, before any rule."""
        self._next += replies

    def find_requests(self, text: str = "") -> list[Request]:
        """Return the requests to the model with this text anywhere in the conversation."""
        return [
            request for request in list(self.requests) if request.path in {RESPONSES, CHAT} and text in request.text
        ]

    def wait_for_requests(self, count: int, within_s: float = PATIENCE_S) -> None:
        """Block until this number of requests has arrived; call it in a thread if a loop runs. Raises: TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.requests) >= count, within_s):
                raise TimeoutError(f"{len(self.requests)} requests came, not {count}")

    def wait_for_abandoned(self, count: int, within_s: float = PATIENCE_S) -> None:
        """Block until this number of clients has left before the end of their answer. Raises: TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.abandoned) >= count, within_s):
                raise TimeoutError(f"{len(self.abandoned)} clients went, not {count}")

    def release(self) -> None:
        """Continue all hanging and stalled answers, now and until `hold`. Thread-safe."""
        assert self._loop
        self._loop.call_soon_threadsafe(self._gate.set)

    def hold(self) -> None:
        """Have answers hang and stall again. Thread-safe."""
        assert self._loop
        self._loop.call_soon_threadsafe(self._gate.clear)

    async def start(self) -> None:
        self._loop, self._gate = asyncio.get_running_loop(), asyncio.Event()
        self._server = await asyncio.start_server(self._serve_connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and all connections."""
        if self._server:
            self._server.close()
            for connection in self._connections:
                connection.cancel()
            if self._connections:
                await asyncio.wait(self._connections, timeout=PATIENCE_S)
            await asyncio.wait_for(self._server.wait_closed(), PATIENCE_S)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop. Raises: what a callable of the script raised."""
        await self.stop()
        if self._mistakes:
            raise self._mistakes[0]

    def __enter__(self) -> Self:
        started = threading.Event()
        failures: list[BaseException] = []

        async def run() -> None:
            self._ended = asyncio.Event()
            await self.start()
            started.set()
            await self._ended.wait()
            await self.stop()

        def thread() -> None:
            try:
                asyncio.run(run())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                failures.append(error)
            started.set()

        self._thread = threading.Thread(target=thread, name="models", daemon=True)
        self._thread.start()
        assert started.wait(PATIENCE_S)
        if failures:
            raise failures[0]
        return self

    def __exit__(self, *_: object) -> None:
        """Stop. Raises: what a callable of the script raised."""
        assert self._loop
        assert self._thread
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self._mistakes:
            raise self._mistakes[0]

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            # The client may leave, and the server stop, at any time.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Return True if the connection can be reused."""
        method, target, headers, body = await read_request(reader)
        path, _, query = target.partition("?")
        request, refused = Request(len(self.requests), path, headers, body or {}, query=query), None
        if body is None:
            refused = WireError(400, "We could not parse the JSON body of your request.")
        elif method == "POST" and path in {RESPONSES, CHAT}:
            try:
                request = replace(request, items=check(path, body))
            except WireError as error:
                refused = error
        with self._news:
            self.requests.append(request)
            self._news.notify_all()
        wire = Wire(writer, request)
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(self._answer(wire, method, refused))
            watching = group.create_task(self._watch(reader, wire, answering))
            answering.add_done_callback(lambda _: watching.cancel())
        return wire.reusable

    async def _watch(self, reader: asyncio.StreamReader, wire: Wire, answering: asyncio.Task[None]) -> None:
        """End the answer when the client leaves. Pipelined requests are not supported."""
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        if not wire.complete:
            with self._news:
                self.abandoned.append(wire.request)
                self._news.notify_all()
            answering.cancel()

    async def _answer(self, wire: Wire, method: str, refused: WireError | None) -> None:
        request = wire.request
        with contextlib.suppress(ConnectionError):
            try:
                self._admit(request)
                if method == "GET" and request.path == "/v1/models":
                    if self.silent_lists:
                        await self._gate.wait()
                    await wire.send(200, self._encode_models())
                elif method == "POST" and request.path in {RESPONSES, CHAT}:
                    self._accept(request, refused)
                    await asyncio.sleep(self.delay_s)
                    await self._say(wire, await self._choose_reply(request))
                else:
                    await wire.send(404, WireError(404, f"Invalid URL ({method} {request.path})").body)
            except WireError as error:
                await wire.send(error.status, error.body)

    def _encode_models(self) -> bytes:
        names = sorted(self.known) if self.known else [MODEL]
        listed = [{"id": name, "object": "model", "created": CREATED, "owned_by": "tests"} for name in names]
        return json.dumps({"object": "list", "data": listed}).encode()

    def _admit(self, request: Request) -> None:
        """Check the key. Raises: WireError."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and given != self.key:
            message = f"Incorrect API key provided: {given[:4]}****." if given else "You didn't provide an API key."
            raise WireError(401, message, code="invalid_api_key")

    def _accept(self, request: Request, refused: WireError | None) -> None:
        """Check that the request is valid, and that this model supports it. Raises: WireError."""
        if refused:
            raise refused
        if self.known is not None and request.model not in self.known:
            raise error_of("unknown_model", request)
        if request.format != "text" and request.format not in self.levels:
            raise error_of("no_json_schema", request)
        if self.context_tokens is not None and tokens(request.text) > self.context_tokens:
            raise error_of("context_overflow", request)

    async def _choose_reply(self, request: Request) -> Answer:
        """Return the scripted answer to this request. Raises: WireError."""
        try:
            reply = self._pick_reply(request)
            while callable(reply):
                answer = reply(request)
                reply = await answer if inspect.isawaitable(answer) else answer
        except WireError:
            raise
        except Exception as error:  # a mistake of the test, reported at its end
            self._mistakes.append(error)
            raise WireError(500, f"The script of the test failed: {error!r}") from error
        return reply

    def _pick_reply(self, request: Request) -> Reply:
        if self._next:
            return self._next.pop(0)
        for rule, met in self._rules:
            if rule.matches(request):
                met.append(request)
                return rule.replies[min(len(met), len(rule.replies)) - 1]
        message = f"The test model server has no rule for this request; its prompt is: {request.prompt!r}"
        raise WireError(400, message, code="no_rule")

    async def _say(self, wire: Wire, answer: Answer) -> None:
        request = wire.request
        if isinstance(answer, Raw):
            content = answer.content if isinstance(answer.content, str) else json.dumps(answer.content)
            await wire.send(answer.status, content.encode(), {"content-type": answer.kind})
            return
        if isinstance(answer, Endless):
            await wire.send_on(answer.pieces(request), answer.pause_s)
            return
        if not isinstance(answer, Fault):
            await wire.send_turn(self._with_usage(turn_of(answer, request)))
            return
        if answer.kind in STATUS:
            error = error_of(answer.kind, request)
            after = {} if answer.retry_after is None else {"retry-after": str(answer.retry_after)}
            await wire.send(error.status, error.body, after)
            return
        turn = self._with_usage(Turn(answer.text, usage=answer.usage))
        match answer.kind:
            case "bad_gateway":
                page = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
                await wire.send(502, page, {"content-type": "text/html"})
            case "drop":
                wire.reusable = False
            case "hang":
                await self._gate.wait()
                await wire.send_turn(turn)
            case "slow":
                await asyncio.sleep(answer.delay_s)
                await wire.send_turn(turn)
            case "empty":
                await wire.send_turn(replace(turn, text=""))
            case "truncated":
                await wire.send_turn(replace(turn, finish="length"))
            case "filtered":
                await wire.send_turn(replace(turn, finish="content_filter"))
            case "refusal":
                await wire.send_turn(replace(turn, text="", refusal=answer.text))
            case "huge":
                await wire.send_turn(replace(turn, text="".join(map(str, range(answer.size)))[: answer.size]))
            case "cut_stream":
                await wire.send_half(turn)
                wire.reusable = False
            case "stall_stream":
                rest = await wire.send_half(turn)
                await self._gate.wait()
                await wire.send_rest(rest)
            case "unfinished_stream":
                await wire.send_unfinished(turn)
            case "stream_error":
                await wire.send_broken(turn)
            case "garbage":
                await wire.send_garbage(turn)

    def _with_usage(self, turn: Turn) -> Turn:
        return replace(turn, counted=self.tells_usage)
