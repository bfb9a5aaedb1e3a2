"""The gateway's second listener: the policy stream and what belongs to it, for callers with a ServiceAccount's token.

Plain ASGI, as the hot route is: the same bytes go to a thousand sidecars. See `baleen_core.policy_stream` for what is
said here.
"""

import asyncio
import hashlib
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import msgspec
from msgspec import structs

from baleen_core.decision.backtest import Backtest, Ended
from baleen_core.decision.backtest_share import write_share
from baleen_core.errors import BaleenError, ContentError, LimitExceeded, NotFound, Overloaded, Problem, UpstreamError
from baleen_core.policy.grants import Grants
from baleen_core.policy.lists import name_list
from baleen_core.policy.schema import MAX_LIST_BYTES, ListType
from baleen_core.policy_stream import (
    ACKNOWLEDGEMENTS_PATH,
    BACKTESTS_PATH,
    CONVERGENCE_PATH,
    FILES_PATH,
    HEARTBEAT_SECONDS,
    LISTS_PATH,
    MAX_BACKTEST_BYTES,
    MAX_RECORDS,
    MAX_RECORDS_BYTES,
    RECORDS_PATH,
    REPLICA_HEADER,
    SHA256_HEADER,
    SNAPSHOT_PATH,
    STREAM_PATH,
    Acknowledgement,
    BacktestQuestion,
    Convergence,
    Heartbeat,
    Hello,
    Load,
    RecordBatch,
    TrialCounts,
)
from baleen_core.records import decode_record
from baleen_sidecar.flow.broadcast import Broadcast, Reader, encode
from baleen_sidecar.flow.convergence import Standings
from baleen_sidecar.ports import Adopted, Authenticator, Key, Published, ServiceAccount
from baleen_sidecar.usecases.take_records import TakeRecords
from baleen_sidecar.web.errors import describe, describe_status, retry_after, unexpected
from baleen_sidecar.web.hot import Message, Receive, Scope, Send, read_request_id, refuse, respond
from baleen_sidecar.web.request_body import ClientGone, RequestBody

log = logging.getLogger(__name__)

HEALTH_PATH: Final = "/health"
PIECE_BYTES: Final = 64 * 1024
"""What is written at once: a connection holds about so much, however slow its reader is."""
ACKNOWLEDGEMENT_BYTES: Final = 8 * 1024 * 1024
REPLICA: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")
NAME: Final = re.compile(r"sha256:[0-9a-f]{64}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
FILE_SECONDS: Final = 60.0
FILES_AT_ONCE: Final = 4
"""How many of the models' files, of megabytes each, are in memory at the same time."""
OPERATOR: Final = ("baleen-system", "baleen-operator")
_ENCODER: Final = msgspec.json.Encoder()
_ACKNOWLEDGEMENT: Final = msgspec.json.Decoder(Acknowledgement)
_RECORDS: Final = msgspec.json.Decoder(RecordBatch)
_QUESTION: Final = msgspec.json.Decoder(BacktestQuestion)

ReadList = Callable[[str, str, ListType], Awaitable[str | None]]
"""Namespace, digest and type of a list to its canonical text, not verified; None when it is not there."""
ReadFile = Callable[[str], Awaitable[bytes | None]]
"""The SHA-256 of a file that a model names to the file; None when no model names it, or it is not at hand."""
Headers = Iterable[tuple[bytes, bytes]]


class Followed(Protocol):
    """The part of a PolicySource that is passed on to sidecars."""

    def published(self) -> AsyncGenerator[Published, None]:
        """Yield everything once it is known whole, and again after each change."""

    @property
    def problem(self) -> str:
        """Say what keeps the source from being followed now; empty when it is followed."""


class Compare(Protocol):
    """Judges the decision log again by two revisions."""

    async def __call__(
        self, question: BacktestQuestion, *, is_wanted: Callable[[], Awaitable[bool]]
    ) -> tuple[Backtest, Ended]:
        """Answer; `is_wanted` is asked every few milliseconds.

        Raises:
            ContentError: the question is wrong. Overloaded: another one is being answered. StateError: no log.
        """


class Copy(Protocol):
    """A copy of the state in a file."""

    @property
    def size_bytes(self) -> int:
        """How long it is."""

    @property
    def sha256(self) -> str:
        """What it hashes to, in hexadecimal."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes in pieces."""


class Copies(Protocol):
    """Makes copies of the state."""

    def make(self) -> AbstractAsyncContextManager[Copy]:
        """Have one until the block ends.

        Raises:
            Overloaded: one is being made already, or there is no room. StateError: it cannot be made.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """Who this replica is, who may ask it what, and how much."""

    replica: str
    """How the operator knows this replica: its pod's name."""
    address: str = ""
    """Where sidecars reach this very replica, such as http://10.244.0.7:8081; empty: where they reach any."""
    grants: Grants = field(default_factory=Grants)
    operators: frozenset[tuple[str, str]] = frozenset({OPERATOR})
    """Namespaces and names of the ServiceAccounts that may ask for the convergence, and for backtests."""
    backup_accounts: frozenset[tuple[str, str]] = frozenset()
    """Namespaces and names of the ServiceAccounts that may have a copy of the whole state."""
    limit_streams: int = 2_000
    limit_streams_per_caller: int = 8
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    stream_seconds: float = 3600.0
    """After this time, or up to a fifth less, a sidecar has to come again, with a token that is good then."""
    limit_list_cache_bytes: int = 2 * MAX_LIST_BYTES
    limit_batch_bytes: int = 8 * MAX_RECORDS_BYTES
    """How many bytes of decisions are taken in at the same time."""
    limit_batches_per_caller: int = 4


class _Refused(Exception):
    """An answer that is no error of ours."""

    def __init__(self, status: int, detail: str, headers: Headers = ()) -> None:
        self.status, self.detail, self.headers = status, detail, headers
        super().__init__(detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request whose caller is known."""

    scope: Scope
    headers: Mapping[bytes, bytes]
    request_id: str
    caller: ServiceAccount
    token: bytes
    body: RequestBody
    receive: Receive
    send: Send

    @property
    def replica(self) -> str:
        """Name the sidecar within its namespace."""
        return f"{self.caller.namespace}/{self.own_name}"

    @property
    def own_name(self) -> str:
        """Name the sidecar: by its pod, which the token proves, else as it calls itself, within its ServiceAccount."""
        given = self.headers.get(REPLICA_HEADER.encode(), b"").decode("latin-1")
        return self.caller.pod or (given if REPLICA.fullmatch(given) else self.caller.name)


class PolicyStream:
    """The ASGI application; `run` follows the source and belongs to the application's task group."""

    def __init__(
        self,
        source: Followed,
        authenticator: Authenticator,
        *,
        read_list: ReadList,
        read_file: ReadFile,
        adopted: Callable[[], Mapping[Key, Adopted]],
        records: TakeRecords,
        settings: StreamSettings,
        chance: Callable[[int], bytes],
        log_id: Callable[[], Awaitable[str]],
        decisions: Callable[[str], Mapping[str, int]] = lambda digest: {},
        trial: Callable[[str, str, str], TrialCounts | None] = lambda rollout, stable, candidate: None,
        load: Callable[[], Load | None] = lambda: None,
        copies: Copies | None = None,
        compare: Compare | None = None,
    ) -> None:
        """`decisions` says what this replica decided with a revision, by its digest; `load`, how busy it is.

        `trial` says what was seen of a rollout, by its name and the digests of its sides.
        `copies` are of its state, where it keeps one; `compare` answers where the decision log is, and `log_id` is that
        of DecisionHistory.
        """
        self._source = source
        self._authenticator = authenticator
        self._adopted = adopted
        self._records = records
        self._settings = settings
        self._chance = chance
        self._decisions = decisions
        self._trial = trial
        self._load = load
        self._copies = copies
        self._compare = compare
        self._log_id = log_id
        self._lists = _ListCache(read_list, settings.limit_list_cache_bytes)
        self._broadcast = Broadcast(settings.grants.may_read, is_shared=not settings.grants.tenants)
        self._standings = Standings(settings.grants.may_read)
        self._streams: Counter[str] = Counter()
        self._following: dict[bytes, ServiceAccount] = {}
        self._opened: Counter[bytes] = Counter()
        self._read_file = read_file
        self._file_gate = asyncio.Semaphore(FILES_AT_ONCE)
        self._batches: Counter[ServiceAccount] = Counter()
        self._batch_bytes = 0
        self._routes: Mapping[str, tuple[str, Callable[[_Request], Awaitable[None]]]] = {
            STREAM_PATH: ("GET", self._stream),
            ACKNOWLEDGEMENTS_PATH: ("POST", self._acknowledge),
            CONVERGENCE_PATH: ("GET", self._report),
            RECORDS_PATH: ("POST", self._record),
            BACKTESTS_PATH: ("POST", self._backtest),
            SNAPSHOT_PATH: ("GET", self._copy),
        }

    async def run(self) -> None:
        """Pass on what the source says, until cancelled."""
        async for published in self._source.published():
            self._broadcast.update(published.policies, published.deployments, published.problems)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        request_id = read_request_id(headers, self._chance)
        body = RequestBody(headers, receive)
        try:
            await self._route(scope, headers, request_id, body, receive, send)
        except ClientGone:
            return
        except _Refused as exc:
            await refuse(send, describe_status(exc.status, exc.detail, request_id), body, exc.headers)
        except BaleenError as exc:
            seconds = 1 if isinstance(exc, UpstreamError) else retry_after(exc)
            more = [] if seconds is None else [(b"retry-after", b"%d" % seconds)]
            await refuse(send, describe(exc, request_id), body, more)
        except Exception:
            log.exception("request failed", extra={"request_id": request_id})
            await refuse(send, unexpected(request_id), body)

    async def _route(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        request_id: str,
        body: RequestBody,
        receive: Receive,
        send: Send,
    ) -> None:
        path = scope["path"]
        if path == HEALTH_PATH:
            return await respond(send, 200, b"application/json", b'{"status":"ok"}', request_id)
        folders = {LISTS_PATH: self._list, FILES_PATH: self._file}
        found = next((handle for folder, handle in folders.items() if path.startswith(folder)), None)
        method, handle = ("GET", found) if found else self._routes.get(path, ("", None))
        # Before anything else is said: strangers learn nothing.
        token, caller = await self._authenticate(headers, path)
        if handle is None:
            raise _Refused(404, f"there is no {path[:200]} here")
        if scope["method"] != method:
            raise _Refused(405, f"{path[:200]} takes {method}", [(b"allow", method.encode())])
        await handle(
            _Request(
                scope=scope,
                headers=headers,
                request_id=request_id,
                caller=caller,
                token=token,
                body=body,
                receive=receive,
                send=send,
            )
        )

    async def _authenticate(self, headers: Mapping[bytes, bytes], path: str) -> tuple[bytes, ServiceAccount]:
        """Return the token's SHA-256 and whose it is."""
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        challenge = [(b"www-authenticate", b"Bearer")]
        if scheme.lower() != "bearer" or not token.strip():
            raise _Refused(401, "send a ServiceAccount's token as Authorization: Bearer", challenge)
        name = hashlib.sha256(token.strip().encode("latin-1")).digest()
        if path in (ACKNOWLEDGEMENTS_PATH, RECORDS_PATH) and name in self._following:
            # Whoever holds the stream that is open may answer it, without the API server being asked again.
            return name, self._following[name]
        caller = await self._authenticator.authenticate(token.strip())
        if caller is None:
            detail = "the token is nobody's, has expired, or is for another audience than baleen-gateway"
            raise _Refused(401, detail, challenge)
        return name, caller

    async def _stream(self, request: _Request) -> None:
        replica, namespace = request.replica, request.caller.namespace
        with self._counted(replica), self._known(request):
            woken = asyncio.Event()
            reader = self._broadcast.join(namespace, woken.set)
            self._standings.connected(replica, namespace)
            log.info("sidecar follows", extra={"sidecar": replica})
            try:
                async with asyncio.TaskGroup() as group:
                    sending = group.create_task(self._send_stream(request, reader, woken))
                    leaving = group.create_task(_until_gone(request.receive, sending))
                    sending.add_done_callback(lambda _: leaving.cancel())
            finally:
                self._broadcast.leave(reader)
                self._standings.disconnected(replica)
                log.info("sidecar left", extra={"sidecar": replica})

    async def _send_stream(self, request: _Request, reader: Reader, woken: asyncio.Event) -> None:
        """Send what is new, and a heartbeat when nothing is, until the stream is old."""
        loop, send = asyncio.get_running_loop(), request.send
        share = int.from_bytes(self._chance(2), "big") / 2**16
        end = loop.time() + self._settings.stream_seconds * (1 - 0.2 * share)
        headers = [
            (b"content-type", b"application/x-ndjson"),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request.request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        hello = Hello(replica=self._settings.replica, address=self._settings.address)
        await _send_piece(send, encode(hello) + self._heartbeat())
        beat = loop.time() + self._settings.heartbeat_seconds
        while (now := loop.time()) < end:
            woken.clear()
            for piece in pieces(self._broadcast.take(reader)):
                await _send_piece(send, piece)
            if now >= beat:
                await _send_piece(send, self._heartbeat())
                beat = now + self._settings.heartbeat_seconds
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(beat, end)):
                    await woken.wait()
        await send({"type": "http.response.body", "body": b""})

    @contextmanager
    def _known(self, request: _Request) -> Iterator[None]:
        """Know the token for as long as a stream was opened with it."""
        self._following[request.token] = request.caller
        self._opened[request.token] += 1
        try:
            yield
        finally:
            self._opened[request.token] -= 1
            if not self._opened[request.token]:
                del self._opened[request.token], self._following[request.token]

    def _heartbeat(self) -> bytes:
        return encode(Heartbeat(problem=self._source.problem))

    @contextmanager
    def _counted(self, replica: str) -> Iterator[None]:
        """Admit a stream.

        Raises:
            LimitExceeded: the caller has its streams. Overloaded: the gateway has its streams.
        """
        limits = self._settings
        if self._streams[replica] >= limits.limit_streams_per_caller:
            raise LimitExceeded(f"{replica} has its {limits.limit_streams_per_caller} streams open; close one")
        if self._streams.total() >= limits.limit_streams:
            raise Overloaded(f"the gateway has its {limits.limit_streams} streams open; another one may have room")
        self._streams[replica] += 1
        try:
            yield
        finally:
            self._streams[replica] -= 1
            if not self._streams[replica]:
                del self._streams[replica]

    async def _list(self, request: _Request) -> None:
        digest = request.scope["path"].removeprefix(LISTS_PATH)
        if not NAME.fullmatch(digest):
            raise _Refused(422, "a list is named by its digest: sha256: and 64 hexadecimal digits")
        places = self._broadcast.find_list(request.caller.namespace, digest)
        text = await self._lists.get(digest, places) if places else None
        if text is None:
            raise NotFound(f"there is no list {digest} that a policy for namespace {request.caller.namespace} names")
        await self._answer(request, b"text/plain; charset=utf-8", text)

    async def _file(self, request: _Request) -> None:
        sha256 = request.scope["path"].removeprefix(FILES_PATH)
        if not SHA256.fullmatch(sha256):
            raise _Refused(422, "a file is named by its SHA-256: 64 hexadecimal digits")
        async with self._file_gate:
            data = await self._read_file(sha256)
            if data is None:
                raise NotFound(f"there is no file with SHA-256 {sha256} that a model names here")
            try:
                async with asyncio.timeout(FILE_SECONDS):
                    await self._answer(request, b"application/octet-stream", data)
            except TimeoutError:
                # Whoever reads slowly must not keep the others waiting for ever.
                raise ClientGone from None

    async def _answer(self, request: _Request, media_type: bytes, data: bytes) -> None:
        headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(data)),
            (b"x-request-id", request.request_id.encode()),
        ]
        await request.send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces([data]):
            await _send_piece(request.send, piece)
        await request.send({"type": "http.response.body", "body": b""})

    async def _acknowledge(self, request: _Request) -> None:
        data = await request.body.read("acknowledgement", ACKNOWLEDGEMENT_BYTES)
        try:
            said = _ACKNOWLEDGEMENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ContentError([Problem(field="", message=f"the acknowledgement cannot be read: {exc}")]) from None
        keys = {name: (namespace, rest) for name in said.policies for namespace, _, rest in [name.partition("/")]}
        # Only what the caller may read is kept: what anybody may send must not fill the memory.
        readable = {
            keys[name]: policy
            for name, policy in said.policies.items()
            if (scope := self._broadcast.scope_of(keys[name])) is not None
            and self._settings.grants.may_read(request.caller.namespace, scope)
        }
        if not self._standings.acknowledge(request.replica, readable):
            raise _Refused(409, f"{request.replica} has no stream of this gateway; acknowledge where the stream is")
        await respond(request.send, 200, b"application/json", b"{}", request.request_id)

    async def _record(self, request: _Request) -> None:
        caller = request.caller
        with self._held(request):
            data = await request.body.read("decision records", MAX_RECORDS_BYTES)
            try:
                batch = _RECORDS.decode(data)
                if len(batch.records) > MAX_RECORDS:
                    message = f"{len(batch.records)} records are too many; the limit is {MAX_RECORDS}"
                    raise ContentError([Problem(field="records", message=message)])
                records = [decode_record(bytes(each)) for each in batch.records]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                message = f"the decision records cannot be read by this release: {exc}"
                raise ContentError([Problem(field="", message=message)]) from None
            recorded = await self._records.take(
                records,
                batch.revisions,
                namespace=caller.namespace,
                origin=f"{caller.namespace}/{caller.name}/{request.own_name}",
            )
        await respond(request.send, 200, b"application/json", _ENCODER.encode(recorded), request.request_id)

    @contextmanager
    def _held(self, request: _Request) -> Iterator[None]:
        """Admit a batch, whose body is held in memory.

        Raises:
            LimitExceeded: the caller has its batches. Overloaded: the gateway has its bytes.
        """
        limits, caller = self._settings, request.caller
        claimed = request.headers.get(b"content-length", b"")
        # A body over the limit is refused before it is read.
        size = min(int(claimed), MAX_RECORDS_BYTES) if claimed.isdigit() else MAX_RECORDS_BYTES
        if self._batches[caller] >= limits.limit_batches_per_caller:
            raise LimitExceeded(f"{request.replica} has its {limits.limit_batches_per_caller} batches under way")
        if self._batch_bytes + size > limits.limit_batch_bytes:
            raise Overloaded(f"the gateway has its {limits.limit_batch_bytes} bytes of decisions in hand; come again")
        self._batches[caller] += 1
        self._batch_bytes += size
        try:
            yield
        finally:
            self._batch_bytes -= size
            self._batches[caller] -= 1
            if not self._batches[caller]:
                del self._batches[caller]

    async def _copy(self, request: _Request) -> None:
        caller = request.caller
        if (caller.namespace, caller.name) not in self._settings.backup_accounts or self._copies is None:
            raise _Refused(403, f"ServiceAccount {caller.namespace}/{caller.name} keeps no backups")
        async with self._copies.make() as copy:
            headers = [
                (b"content-type", b"application/vnd.sqlite3"),
                (b"content-length", b"%d" % copy.size_bytes),
                (b"cache-control", b"no-store"),
                (REPLICA_HEADER.encode(), self._settings.replica.encode()),
                (SHA256_HEADER.encode(), copy.sha256.encode()),
                (b"x-request-id", request.request_id.encode()),
            ]
            await request.send({"type": "http.response.start", "status": 200, "headers": headers})
            async for chunk in copy.chunks():
                for piece in pieces([chunk]):
                    await _send_piece(request.send, piece)
            await request.send({"type": "http.response.body", "body": b""})
        log.info("state copied", extra={"caller": f"{caller.namespace}/{caller.name}", "bytes": copy.size_bytes})

    async def _backtest(self, request: _Request) -> None:
        self._admit_operator(request.caller)
        if self._compare is None:
            raise NotFound("there is no decision log here")
        data = await request.body.read("backtest", MAX_BACKTEST_BYTES)
        try:
            question = _QUESTION.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ContentError([Problem(field="", message=f"the question cannot be read: {exc}")]) from None
        found, ended = await self._compare(question, is_wanted=lambda: _is_there(request.receive))
        body = _ENCODER.encode(write_share(self._settings.replica, found, ended, await self._log_id()))
        await respond(request.send, 200, b"application/json", body, request.request_id)

    def _admit_operator(self, caller: ServiceAccount) -> None:
        if (caller.namespace, caller.name) not in self._settings.operators:
            raise _Refused(403, f"ServiceAccount {caller.namespace}/{caller.name} is not the operator's")

    async def _report(self, request: _Request) -> None:
        self._admit_operator(request.caller)
        adopted = self._adopted()
        self._standings.enforce(adopted, self._broadcast.scope_of)
        rollouts = {"/".join(key): each for key, each in adopted.items() if each.candidate}
        policies = {
            name: structs.replace(
                enforced,
                decisions=dict(self._decisions(enforced.digest)),
                trial=self._find_trial(rollouts.get(name)),
            )
            for name, enforced in self._standings.report().items()
        }
        answer = Convergence(replica=self._settings.replica, policies=policies, load=self._load())
        body = _ENCODER.encode(answer)
        await respond(request.send, 200, b"application/json", body, request.request_id)

    def _find_trial(self, found: Adopted | None) -> TrialCounts | None:
        return None if found is None else self._trial(found.rollout, found.digest, found.candidate)


class _ListCache:
    """Lists that were asked for last, each as the bytes that all who ask share; read once, however many ask at once."""

    def __init__(self, read_list: ReadList, limit_bytes: int) -> None:
        self._read_list = read_list
        self._limit_bytes = limit_bytes
        self._texts: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        # A lock is there for as long as anybody holds it or waits for it.
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, digest: str, places: Iterable[tuple[str, ListType]]) -> bytes | None:
        """Return a list's text in UTF-8, from the first of the places that has it; None when none has.

        Raises:
            BaleenError: none has it, and one could not be read.
        """
        lock = self._reading.setdefault(digest, asyncio.Lock())
        async with lock:
            if digest in self._texts:
                self._texts.move_to_end(digest)
                return self._texts[digest]
            data = await self._read(digest, places)
            if data is not None:
                self._keep(digest, data)
            return data

    async def _read(self, digest: str, places: Iterable[tuple[str, ListType]]) -> bytes | None:
        # All who ask for a digest share one text: whoever may write in one place must not spoil it for the others.
        failure: BaleenError | None = None
        for namespace, type in places:
            try:
                data = await self._read_verified(namespace, digest, type)
            except BaleenError as exc:
                failure = failure or exc
                continue
            if data is not None:
                return data
        if failure is not None:
            raise failure
        return None

    async def _read_verified(self, namespace: str, digest: str, type: ListType) -> bytes | None:
        text = await self._read_list(namespace, digest, type)
        if text is None:
            return None
        if await asyncio.to_thread(name_list, type, text) != digest:
            log.warning("list is not what its digest names", extra={"namespace": namespace, "digest": digest})
            return None
        return text.encode(errors="replace")

    def _keep(self, digest: str, data: bytes) -> None:
        self._size += len(data) - len(self._texts.pop(digest, b""))
        self._texts[digest] = data
        while self._size > self._limit_bytes and self._texts:
            self._size -= len(self._texts.popitem(last=False)[1])


def pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join what is short and cut what is long, so that about PIECE_BYTES are written at once."""
    joined: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > PIECE_BYTES and joined:
            yield b"".join(joined)
            joined, size = [], 0
        if len(line) > PIECE_BYTES:
            yield from (line[start : start + PIECE_BYTES] for start in range(0, len(line), PIECE_BYTES))
            continue
        joined.append(line)
        size += len(line)
    if joined:
        yield b"".join(joined)


async def _send_piece(send: Send, piece: bytes) -> None:
    # Waits while the connection's buffer is full; the protocol ends a connection that stays so.
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _is_there(receive: Receive) -> bool:
    """Say whether a caller whose request was read whole still waits for the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            message: Message = await receive()
            return bool(message["type"] != "http.disconnect")
    return True


async def _until_gone(receive: Receive, sending: asyncio.Task[Any]) -> None:
    """End the stream of a caller who hung up: what is sent to nobody is no error."""
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            sending.cancel()
            return
