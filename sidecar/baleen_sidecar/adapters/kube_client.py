"""Talk to the API server: verified, bounded, with a token that may be replaced at any time, and errors in words.

httpx and not the official client: a gateway needs five verbs, and must not carry a client for everything.
"""

import socket
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Any, Final, Self

import httpx
import msgspec

from baleen_core.errors import ClusterError, InvalidError, Problem
from baleen_sidecar.adapters.token_file import TokenFile
from baleen_sidecar.flow.lines import LineSplitter, LineTooLong
from baleen_sidecar.settings import ACCOUNT_FOLDER

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 15.0
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""etcd keeps objects of at most 1.5 MiB; escaped as JSON once more they can be longer."""
_SHOWN: Final = 400
_DECODER: Final = msgspec.json.Decoder()
_ENCODER: Final = msgspec.json.Encoder()

KEEP_ALIVE: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A peer that vanished without a word is noticed within 25 s, though a quiet watch says something only each minute."""


class Refused(ClusterError):
    """The API server answered, and said no."""

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


class AnswerTooLarge(ClusterError):
    """The answer is over the limit that was set for it."""


class Garbled(ClusterError):
    """What came from the API server makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAccess:
    """Where the API server is, the authority that vouches for it (None: the system's), and the file of our token."""

    url: str
    token_file: Path
    ca_file: Path | None = None

    @classmethod
    def in_cluster(cls, env: Mapping[str, str], *, folder: Path = ACCOUNT_FOLDER) -> Self:
        """Take what every pod is given.

        Raises:
            InvalidError: this is no pod.
        """
        host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port:
            message = (
                "is not set: this is no pod; set BALEEN_KUBERNETES_URL, BALEEN_KUBERNETES_CA_FILE and "
                "BALEEN_KUBERNETES_TOKEN_FILE, or BALEEN_GATEWAY_URL to follow a gateway"
            )
            raise InvalidError([Problem(field="KUBERNETES_SERVICE_HOST", message=message)])
        address = f"[{host}]" if ":" in host else host
        return cls(url=f"https://{address}:{port}", ca_file=folder / "ca.crt", token_file=folder / "token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked, in the words of a role: the verb, the resource and its group, and where."""

    verb: str
    resource: str
    path: str
    group: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name}" + (f" in namespace {self.namespace}" if self.namespace else "")


class KubeClient:
    """One pool of connections; every request carries the token as its file has it then."""

    def __init__(self, access: ClusterAccess, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._token = TokenFile(access.token_file)
        self._url = access.url
        self._client = httpx.AsyncClient(
            base_url=access.url,
            transport=transport or open_transport(access.ca_file),
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "baleen"},
            trust_env=False,
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(
        self, call: Call, params: Mapping[str, str] | None = None, *, limit_bytes: int = MAX_ANSWER_BYTES
    ) -> Any:
        """Return the decoded answer.

        Raises:
            Refused: the API server said no. AnswerTooLarge: the answer is over the limit.
            ClusterError: it did not answer, or nonsense; the message names verb and resource.
        """
        request = self._client.build_request("GET", call.path, params=dict(params or {}))
        return await self._ask(call, request, limit_bytes)

    async def create(self, call: Call, body: Mapping[str, Any]) -> Any:
        """Send an object and return the decoded answer; raises as `get` does."""
        request = self._client.build_request(
            "POST", call.path, content=_ENCODER.encode(body), headers={"Content-Type": "application/json"}
        )
        return await self._ask(call, request, MAX_ANSWER_BYTES)

    @asynccontextmanager
    async def watch(
        self, call: Call, params: Mapping[str, str], *, silence_seconds: float
    ) -> AsyncGenerator[AsyncGenerator[list[Any], None], None]:
        """Open a watch; what it gives are the decoded events, as many as came at once.

        Raises:
            Refused: the API server said no. ClusterError: it did not answer, said nonsense, or nothing for
            `silence_seconds`; all of it may be raised by the iterator too.
        """
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=silence_seconds, pool=None)
        request = self._client.build_request("GET", call.path, params=dict(params), timeout=timeout)
        async with self._sent(call, request) as response:
            yield self._events(call, response)

    async def _events(self, call: Call, response: httpx.Response) -> AsyncGenerator[list[Any], None]:
        splitter = LineSplitter(MAX_LINE_BYTES)
        with _translated(call, self._url):
            async for chunk in response.aiter_raw():
                if lines := splitter.feed(chunk):
                    yield [_DECODER.decode(line) for line in lines]

    async def _ask(self, call: Call, request: httpx.Request, limit_bytes: int) -> Any:
        with _translated(call, self._url):
            async with self._sent(call, request) as response:
                return _DECODER.decode(await _read(call, response, limit_bytes))

    @asynccontextmanager
    async def _sent(self, call: Call, request: httpx.Request) -> AsyncGenerator[httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token.read()}"
        with _translated(call, self._url):
            response = await self._client.send(request, stream=True)
        try:
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                with _translated(call, self._url):
                    raise _refusal(call, response.status_code, await _read(call, response, MAX_LINE_BYTES))
            yield response
        finally:
            await response.aclose()


def open_transport(ca_file: Path | None) -> httpx.AsyncHTTPTransport:
    """Open a pool of HTTP/1.1 connections that trusts one authority and notices dead peers."""
    return httpx.AsyncHTTPTransport(
        verify=trust(ca_file),
        trust_env=False,
        # Watches hold their connections; what is asked beside them must not wait for one.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=60),
        socket_options=KEEP_ALIVE,
    )


def trust(ca_file: Path | None) -> SSLContext:
    """Verify peers by this authority, or by the system's.

    Raises:
        InvalidError: the file is no certificate.
    """
    if ca_file is None:
        return _trust_system()
    try:
        return create_default_context(cafile=ca_file)
    except OSError as exc:
        message = f"{ca_file} cannot be read as PEM certificates: {exc.strerror or exc}"
        raise InvalidError([Problem(field="the CA's file", message=message)]) from exc


@cache
def _trust_system() -> SSLContext:
    # Reading all its authorities takes some 50 ms, and it is the same for everybody.
    return create_default_context()


@contextmanager
def _translated(call: Call, url: str) -> Iterator[None]:
    """Keep the errors of httpx and msgspec from leaking past this module."""
    try:
        yield
    except (httpx.ReadTimeout, httpx.WriteTimeout) as exc:
        raise ClusterError(f"{call}: the API server at {url} said nothing in time") from exc
    except httpx.HTTPError as exc:
        raise ClusterError(f"{call}: the API server at {url} did not answer: {type(exc).__name__} {exc}") from exc
    except LineTooLong as exc:
        raise Garbled(f"{call}: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Garbled(f"{call}: the API server's answer is not JSON: {exc}") from exc


async def _read(call: Call, response: httpx.Response, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    total = 0
    async for chunk in response.aiter_raw():
        total += len(chunk)
        if total > limit_bytes:
            raise AnswerTooLarge(f"{call}: the answer is longer than {limit_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _refusal(call: Call, status: int, body: bytes) -> Refused:
    try:
        answer = _DECODER.decode(body)
        said = answer.get("message", "") if isinstance(answer, Mapping) else ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = body.decode(errors="replace")
    what = {
        401: "the API server does not take our token",
        403: "our role does not allow it",
        404: "there is no such resource",
    }.get(status, "the API server refused")
    return Refused(f"{call}: {what} ({status}): {str(said)[:_SHOWN]}", status=status)
