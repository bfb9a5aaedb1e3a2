"""What is published, from a gateway's stream: the PolicySource of a sidecar that has no rights in the cluster."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from baleen_core.errors import Overloaded, Problem, UpstreamError
from baleen_core.policy.schema import MAX_LIST_BYTES, ListType
from baleen_core.policy_stream import (
    ACKNOWLEDGEMENTS_PATH,
    LISTS_PATH,
    LOST_SECONDS,
    MAX_LINE_BYTES,
    RECORDS_PATH,
    REPLICA_HEADER,
    STREAM_PATH,
    Acknowledged,
    Acknowledgement,
    AnyMessage,
    Delete,
    Heartbeat,
    Hello,
    Models,
    Put,
    RecordBatch,
    Recorded,
    Synced,
)
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.adapters.kube_client import open_transport
from baleen_sidecar.adapters.latest import Latest
from baleen_sidecar.adapters.token_file import TokenFile
from baleen_sidecar.flow.backoff import BackoffRules, next_failures, wait_seconds
from baleen_sidecar.flow.lines import LineSplitter, LineTooLong
from baleen_sidecar.ports import Adopted, Key, Published

log = logging.getLogger(__name__)

BACKOFF: Final = BackoffRules(first_seconds=0.2, highest_seconds=5.0, spread=1.0, settled_seconds=10.0)
"""Full jitter: a gateway that ends must not have all its sidecars come to the others at once."""
ANSWER_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 5.0
MAX_UNREADABLE: Final = 20
MAX_RETRY_AFTER_SECONDS: Final = 60
_SHOWN: Final = 400
_DECODER: Final[msgspec.json.Decoder[AnyMessage]] = msgspec.json.Decoder(AnyMessage)
_RECORDED: Final = msgspec.json.Decoder(Recorded)
_ENCODER: Final = msgspec.json.Encoder()


@dataclass(slots=True, kw_only=True)
class _Draft:
    """What will be known with the next Synced; `unreadable` is what could not be read on this connection."""

    policies: dict[Key, PublishedPolicy]
    deployments: tuple[Mapping[str, Any], ...] = ()
    unreadable: tuple[Problem, ...] = ()


class StreamSource:
    """Follows one gateway at a time; `run` does it and belongs to the application's task group."""

    def __init__(
        self,
        url: str,
        token_file: Path,
        *,
        replica: str,
        ca_file: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        lost_seconds: float = LOST_SECONDS,
        backoff: BackoffRules = BACKOFF,
    ) -> None:
        self._url = url.rstrip("/")
        self._token = TokenFile(token_file)
        self._replica = replica
        self._lost_seconds = lost_seconds
        self._backoff = backoff
        self._client = httpx.AsyncClient(
            transport=transport or open_transport(ca_file),
            headers={"Accept-Encoding": "identity", "User-Agent": "baleen", REPLICA_HEADER: replica},
            trust_env=False,
            follow_redirects=False,
        )
        self._known = Published()
        self._latest: Latest[Published] = Latest()
        self._lost = f"the gateway at {self._url} was not reached yet"
        self._gateway_problem = ""
        self._peer = ""
        self._adopted: Mapping[Key, Adopted] = {}
        self._acknowledged: Mapping[Key, Adopted] = {}
        self._has_report = asyncio.Event()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def run(self) -> None:
        """Follow a gateway until cancelled; what ends is begun again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._acknowledge())

    def published(self) -> AsyncGenerator[Published, None]:
        """Yield the newest state whenever asked and there is one; for any number of readers."""
        return self._latest.follow()

    async def read_list(self, namespace: str, digest: str, type: ListType) -> str | None:
        """Ask the gateway for a list's text; see the port for what is raised."""
        address = f"{self._peer or self._url}{LISTS_PATH}{digest}"
        async with self._asked("GET", address) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            body = await _read(response, MAX_LIST_BYTES)
            self._check(response, body)
            try:
                return body.decode()
            except UnicodeDecodeError as exc:
                raise UpstreamError(f"the gateway's list {digest} is not UTF-8: {exc.reason}") from None

    async def put_on_record(self, records: Sequence[bytes], revisions: Mapping[str, str]) -> Recorded:
        """Have the gateway keep decisions, the replica that is followed if one is; see the port for what is raised."""
        batch = RecordBatch(records=tuple(map(msgspec.Raw, records)), revisions=dict(revisions))
        address = (self._peer or self._url) + RECORDS_PATH
        async with self._asked("POST", address, content=_ENCODER.encode(batch)) as response:
            body = await _read(response, MAX_LINE_BYTES)
            if response.status_code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                wait = response.headers.get("retry-after", "")
                seconds = min(int(wait), MAX_RETRY_AFTER_SECONDS) if wait.isdecimal() and len(wait) < 10 else 1
                raise Overloaded(self._said(response, body), retry_after_seconds=seconds)
            self._check(response, body)
        try:
            return _RECORDED.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UpstreamError(f"what the gateway at {self._url} says of decisions cannot be read: {exc}") from None

    async def report(self, adopted: Mapping[Key, Adopted]) -> None:
        """Have the gateway told, as soon as there is one."""
        self._adopted = adopted
        self._has_report.set()

    @property
    def problem(self) -> str:
        """Say what keeps the gateway from being followed, or the gateway from following the API server."""
        if self._lost:
            return self._lost
        return f"the gateway at {self._url} says: {self._gateway_problem}" if self._gateway_problem else ""

    async def _follow(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self._stream()
                lost = f"the gateway at {self._url} ended the stream"
            except UpstreamError as exc:
                lost = str(exc)
            except Exception as exc:
                log.exception("following failed", extra={"gateway": self._url})
                lost = f"the stream of the gateway at {self._url} could not be followed: {type(exc).__name__}"
            if lost != self._lost:
                log.warning("not followed", extra={"problem": lost})
            self._lost, self._peer = lost, ""
            failures = next_failures(failures, ran_seconds=time.monotonic() - started, rules=self._backoff)
            await asyncio.sleep(wait_seconds(failures, jitter=random.random(), rules=self._backoff))  # noqa: S311

    async def _stream(self) -> None:
        # Deletions are seen by absence: a new connection begins with nothing, and counts once it is whole.
        draft, is_first = _Draft(policies={}), True
        splitter = LineSplitter(MAX_LINE_BYTES)
        async with self._asked("GET", self._url + STREAM_PATH, read_seconds=self._lost_seconds) as response:
            if response.status_code != HTTPStatus.OK:
                self._check(response, await _read(response, _SHOWN * 16))
            async for chunk in response.aiter_raw():
                for line in splitter.feed(chunk):
                    message = _decode(line)
                    if isinstance(message, Synced):
                        self._adopt(draft, message, is_first=is_first)
                        is_first = False
                        draft = replace(draft, policies=dict(self._known.policies), deployments=self._known.deployments)
                    else:
                        self._take(message, draft)

    def _take(self, message: AnyMessage | Problem, draft: _Draft) -> None:
        match message:
            case Problem():
                draft.unreadable = (*draft.unreadable, message)[:MAX_UNREADABLE]
            case Put(policy=policy):
                draft.policies[policy.key] = policy
            case Delete(namespace=namespace, name=name):
                draft.policies.pop((namespace, name), None)
            case Models(deployments=deployments):
                draft.deployments = deployments
            case Heartbeat(problem=problem):
                self._gateway_problem = problem
            # The token goes there too: never with less protection than where we asked.
            case Hello(address=address) if address.startswith(("https://", self._url.partition("/")[0] + "//")):
                self._peer = address.rstrip("/")

    def _adopt(self, draft: _Draft, synced: Synced, *, is_first: bool) -> None:
        before = self._known.policies
        # What is equal stays the same object, so that nobody looks at it again.
        policies = {
            key: known if (known := before.get(key)) is not None and known == policy else policy
            for key, policy in draft.policies.items()
        }
        problems = (*synced.problems, *draft.unreadable)
        if is_first and draft.unreadable:
            # What this release cannot read may be any policy, so that what was known of it stays.
            policies = {**before, **policies}
        published = Published(policies=policies, deployments=draft.deployments, problems=problems)
        if is_first:
            self._lost = ""
            self._acknowledged = {}
            self._has_report.set()
            log.info("gateway followed", extra={"gateway": self._url, "policies": len(policies)})
        self._known = published
        self._latest.put(published)

    async def _acknowledge(self) -> None:
        """Tell the gateway what changed since it was told last, and again everything when it is another one."""
        failures = 0
        while True:
            await self._has_report.wait()
            self._has_report.clear()
            if self._lost:
                continue
            adopted, told = self._adopted, self._acknowledged
            changed = {key: value for key, value in adopted.items() if told.get(key) != value}
            try:
                if changed:
                    await self._post(changed)
                if told is self._acknowledged:
                    self._acknowledged = adopted
                failures = 0
            except UpstreamError as exc:
                failures += 1
                log.log(
                    logging.WARNING if failures == 1 else logging.DEBUG,
                    "not acknowledged",
                    extra={"gateway": self._url, "cause": str(exc)},
                )
                self._has_report.set()
                await asyncio.sleep(wait_seconds(failures, jitter=random.random(), rules=self._backoff))  # noqa: S311

    async def _post(self, changed: Mapping[Key, Adopted]) -> None:
        said = {
            "/".join(key): Acknowledged(epoch=value.epoch, digest=value.digest, pending=value.pending)
            for key, value in changed.items()
        }
        body = _ENCODER.encode(Acknowledgement(replica=self._replica, policies=said))
        address = (self._peer or self._url) + ACKNOWLEDGEMENTS_PATH
        async with self._asked("POST", address, content=body) as response:
            self._check(response, await _read(response, _SHOWN * 16))

    @asynccontextmanager
    async def _asked(
        self, method: str, address: str, *, content: bytes | None = None, read_seconds: float = ANSWER_SECONDS
    ) -> AsyncIterator[httpx.Response]:
        headers = {"Authorization": f"Bearer {self._token.read()}"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=read_seconds, pool=None)
        request = self._client.build_request(method, address, headers=headers, content=content, timeout=timeout)
        with self._translated():
            response = await self._client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()

    def _check(self, response: httpx.Response, body: bytes) -> None:
        if not response.is_success:
            raise UpstreamError(self._said(response, body))

    def _said(self, response: httpx.Response, body: bytes) -> str:
        said = body[:_SHOWN].decode(errors="replace")
        return f"the gateway at {self._url} answered {response.status_code}: {said}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Keep the errors of httpx from leaking past this module."""
        try:
            yield
        except httpx.ReadTimeout as exc:
            raise UpstreamError(f"the gateway at {self._url} said nothing in time") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UpstreamError(f"the gateway at {self._url} did not answer: {type(exc).__name__} {exc}") from exc
        except LineTooLong as exc:
            raise UpstreamError(f"the stream of the gateway at {self._url}: {exc}") from exc


def _decode(line: bytes) -> AnyMessage | Problem:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return Problem(field="the gateway's stream", message=f"a message cannot be read by this release: {exc}")


async def _read(response: httpx.Response, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    total = 0
    async for chunk in response.aiter_raw():
        total += len(chunk)
        if total > limit_bytes:
            raise UpstreamError(f"{response.url.path}: the answer is longer than {limit_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
