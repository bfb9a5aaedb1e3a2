"""Asks the installation's Prometheus the queries of rollouts: in the background, a few at a time, by one path alone.

A query is an author's text, and an answer may come from anywhere that the address leads. So redirects are not followed,
answers are bounded, and what authors are told names neither the address nor the token.
"""

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from baleen_core.analysis.looks import Reading
from baleen_core.policy.schema import MAX_QUERIES
from baleen_operator.adapters.gateways import read_bounded
from baleen_operator.metrics import Metrics
from baleen_operator.plan.conditions import shorten
from baleen_operator.plan.looks import Looked, Queries
from baleen_operator.reconcile.ports import Key

logger = logging.getLogger(__name__)

QUERY_PATH: Final = "/api/v1/query"
MAX_ANSWER_BYTES: Final = 65_536
MAX_TOKEN_BYTES: Final = 65_536
MAX_AT_ONCE: Final = MAX_QUERIES
"""Queries that are asked at the same time, of all policies together; those of one policy's look always are."""
MAX_REASON: Final = 180
_MAX_SEARCHED: Final = 1024
_NO_NUMBERS: Final = frozenset({"matrix", "string"})
"""The results of Prometheus, beside scalars and vectors."""
_NOT_ITS_OWN: Final = "the server's answer is none of Prometheus"
_SAYS_WHY: Final = frozenset({400, 422, 503})
"""The statuses with which the server itself says what is wrong with a query."""
_OF_THE_QUERY: Final = "bad_data"
"""The type of errors that say nothing but what is wrong with the query's own text."""
_OF_OTHERS: Final = re.compile(r"[{\[]|\S*(?:\w\.\w|:\d)")
"""Where labels of series begin, or a name or an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where to ask, as `https://prometheus.example` with or without a path, whom to trust, and who asks."""

    url: str
    ca_file: Path | None = None
    token_file: Path | None = None
    timeout_seconds: float = 5.0


class _Data(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    status: str
    data: _Data | None = None
    error_type: str = ""
    error: str = ""


class _Series(msgspec.Struct, frozen=True, kw_only=True):
    value: tuple[float, str] | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_SCALAR: Final = msgspec.json.Decoder(tuple[float, str])
_VECTOR: Final = msgspec.json.Decoder(list[_Series])


class _NoNumber(Exception):
    """Why a query gave no number, in words for its author."""


class PrometheusProvider:
    """Asks in the background; `on_change` hears of each policy whose queries were answered, or cannot be."""

    def __init__(
        self,
        server: Server | None,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        on_change: Callable[[Collection[Key]], None],
    ) -> None:
        self._server = server
        self._metrics = metrics
        self._clock = clock
        self._on_change = on_change
        self._waiting: dict[str, dict[Key, Queries]] = {}
        self._asked = 0
        self._told: dict[Key, Looked] = {}
        self._woken = asyncio.Event()

    def looked(self, key: Key) -> Looked:
        """Return what came of asking for a policy."""
        return self._told.get(key, Looked())

    def ask(self, key: Key, queries: Queries) -> None:
        """Ask when it is their turn; others for the same policy are forgotten for these."""
        before = self.looked(key)
        if before.under_way == queries:
            return
        self._waiting.setdefault(key[0], {})[key] = queries
        self._told[key] = replace(before, under_way=queries)
        self._woken.set()

    def forget(self, key: Key) -> None:
        """Drop what is known about a policy."""
        waiting = self._waiting.get(key[0], {})
        waiting.pop(key, None)
        if not waiting:
            self._waiting.pop(key[0], None)
        self._told.pop(key, None)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while (turn := self._next_turn()) is not None:
                    group.create_task(self._take_turn(*turn))

    def _next_turn(self) -> tuple[Key, Queries] | None:
        """Return whose look is next, if there is room for all of its queries: namespaces have turns, one look each.

        So whoever has many slow queries delays none of another namespace by more than the looks under way and its next.
        """
        if not self._waiting:
            return None
        namespace, waiting = next(iter(self._waiting.items()))
        key, queries = next(iter(waiting.items()))
        if self._asked and self._asked + len(queries.texts) > MAX_AT_ONCE:
            return None
        self._asked += len(queries.texts)
        del waiting[key], self._waiting[namespace]
        if waiting:
            self._waiting[namespace] = waiting
        return key, queries

    async def _take_turn(self, key: Key, queries: Queries) -> None:
        try:
            await self._answer(key, queries)
        finally:
            self._asked -= len(queries.texts)
            self._woken.set()

    async def _answer(self, key: Key, queries: Queries) -> None:
        time = self._clock()
        try:
            readings = await self._ask_all(queries)
        except Exception:
            # Ended, it would end the operator, and the next one that leads would ask the same.
            logger.exception("the queries of a policy could not be asked", extra={"policy": "/".join(key)})
            problem = "it could not be asked, by a fault of the operator's own, which its log has"
            readings = _read_none(queries, problem)
        before = self._told.get(key)
        if before is None:
            return
        self._told[key] = Looked(
            under_way=None if before.under_way == queries else before.under_way,
            queries=queries,
            readings=readings,
            time=time,
        )
        self._on_change({key})

    async def _ask_all(self, queries: Queries) -> dict[str, Reading]:
        server = self._server
        if server is None:
            problem = "the installation has no server to ask"
            return _read_none(queries, problem)
        try:
            headers, context = await asyncio.to_thread(_read_files, server)
        except (OSError, ValueError) as exc:
            # An ssl.SSLError is an OSError. Which file it is, is no matter of authors.
            logger.warning("what it takes to ask Prometheus cannot be read", extra={"reason": str(exc)})
            problem = "the operator cannot read its token or authorities, which its log tells more of"
            return _read_none(queries, problem)
        connector = aiohttp.TCPConnector(ssl=context) if context else None
        async with (
            aiohttp.ClientSession(
                connector=connector,
                headers={**headers, "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=server.timeout_seconds),
                trust_env=False,
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            tasks = {name: group.create_task(self._try(session, server, name, text)) for name, text in queries.texts}
        return {name: task.result() for name, task in tasks.items()}

    async def _try(self, session: aiohttp.ClientSession, server: Server, name: str, query: str) -> Reading:
        try:
            reading = Reading(value=await _ask(session, server, query))
        except _NoNumber as exc:
            reading = Reading(problem=str(exc))
        self._metrics.queries.labels("failed" if reading.problem else "answered").inc()
        return reading


def _read_none(queries: Queries, problem: str) -> dict[str, Reading]:
    return {name: Reading(problem=problem) for name, _ in queries.texts}


def _read_files(server: Server) -> tuple[dict[str, str], ssl.SSLContext | None]:
    """Return the header that shows who asks, and whom to trust; None for whom the system trusts.

    Raises:
        OSError: a file cannot be read, or has no certificates. ValueError: the token cannot be one.
    """
    headers = {}
    if server.token_file is not None:
        with server.token_file.open("rb") as file:
            token = file.read(MAX_TOKEN_BYTES + 1).strip()
        if not token or len(token) > MAX_TOKEN_BYTES or not all(32 < each < 127 for each in token):
            raise ValueError(f"{server.token_file} has no token: one line of printable characters")
        headers["Authorization"] = f"Bearer {token.decode()}"
    if server.ca_file is None:
        return headers, None
    return headers, ssl.create_default_context(cafile=str(server.ca_file))


async def _ask(session: aiohttp.ClientSession, server: Server, query: str) -> float:
    """Ask one query, and return its number.

    Raises:
        _NoNumber: there is none.
    """
    # Of Thanos, whose answer is without the stores that are away else, and looks like any other.
    whole = {"partial_response": "false"}
    parameters = {"query": query, "timeout": f"{max(1, int(server.timeout_seconds * 1000))}ms"} | whole
    address = server.url + QUERY_PATH
    async with _in_words(server), session.get(address, params=parameters, allow_redirects=False) as response:
        status, body = response.status, await _read(response)
    if status == 200:
        return _read_number(body)
    if status in _SAYS_WHY and (said := _read_error(body, session.headers.get("Authorization", ""))):
        raise _NoNumber(f"the server says: {said}")
    if status in (401, 403):
        raise _NoNumber(
            f"the server does not let the operator ask (status {status}): who runs it has to give it a token"
        )
    if 300 <= status < 400:
        raise _NoNumber(f"the server sends elsewhere (status {status}), where nobody follows")
    raise _NoNumber(f"the server answers with status {status}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await read_bounded(response, MAX_ANSWER_BYTES)
    except ValueError:
        limit = f"{MAX_ANSWER_BYTES} bytes (MAX_ANSWER_BYTES)"
        raise _NoNumber(f"its answer is longer than {limit}: aggregate, such as by sum(), to one number") from None


@contextlib.asynccontextmanager
async def _in_words(server: Server) -> AsyncIterator[None]:
    """Say what kept a server from answering, to authors without its address, and to the log with all of it."""
    try:
        yield
    except TimeoutError:
        raise _NoNumber(f"the server did not answer in {server.timeout_seconds:g} s") from None
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as exc:
        logger.warning("the certificate of Prometheus is not trusted", extra={"reason": str(exc)})
        raise _NoNumber("the server's certificate is not trusted") from None
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        logger.warning("Prometheus does not answer", extra={"reason": str(exc) or type(exc).__name__})
        raise _NoNumber("the server cannot be reached, or does not speak HTTP") from None


def _read_number(body: bytes) -> float:
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _NoNumber(_NOT_ITS_OWN) from None
    if answer.status != "success" or answer.data is None:
        raise _NoNumber(_NOT_ITS_OWN)
    text = _read_text(answer.data)
    try:
        number = float(text)
    except ValueError:
        raise _NoNumber(_NOT_ITS_OWN) from None
    if not isfinite(number):
        raise _NoNumber(f"its result is {text[:8]}, as when something is divided by nothing")
    return number


def _read_text(data: _Data) -> str:
    """Return the one number that was found, as the server writes it."""
    try:
        if data.result_type == "scalar":
            return _SCALAR.decode(data.result)[1]
        if data.result_type != "vector":
            is_known = data.result_type in _NO_NUMBERS
            raise _NoNumber(f"its result is a {data.result_type}, and not one number" if is_known else _NOT_ITS_OWN)
        found = _VECTOR.decode(data.result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _NoNumber(_NOT_ITS_OWN) from None
    if not found:
        raise _NoNumber("it has no result: no series is what it asks for")
    if len(found) > 1:
        raise _NoNumber(f"its result has {len(found)} series: aggregate, such as by sum(), to one number")
    if found[0].value is None:
        raise _NoNumber("its result is a histogram, and not one number")
    return found[0].value[1]


def _read_error(body: bytes, secret: str) -> str:
    """Return what the server says is wrong, on one line; whatever stands between it and us may repeat the token.

    Errors of an evaluation tell labels of series that the query found, and Thanos' tell its stores: that is left out.
    """
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    token, error = secret.removeprefix("Bearer "), answer.error
    if token:
        error = error.replace(token, "…")
    # Not all of it, which may be long: the search takes as long as its square.
    said = " ".join("".join(each if each.isprintable() else " " for each in error).split())[:_MAX_SEARCHED]
    if answer.error_type != _OF_THE_QUERY and (found := _OF_OTHERS.search(said)):
        said = f"{said[: found.start()].rstrip()}…"
    return shorten(said, MAX_REASON)
