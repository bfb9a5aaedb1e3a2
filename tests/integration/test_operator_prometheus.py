"""What the operator asks Prometheus: a real server, and servers that answer what they should not."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from baleen_core.analysis.looks import Reading
from baleen_core.analysis.query import fill_in
from baleen_operator.adapters.prometheus import MAX_ANSWER_BYTES, MAX_AT_ONCE, QUERY_PATH, PrometheusProvider, Server
from baleen_operator.metrics import Metrics
from baleen_operator.plan.looks import Looked, Queries
from memory_cluster import FixedProvider
from prometheus_server import CANDIDATE, PrometheusServer, certificate, prometheus
from waiting import until

__all__ = ["prometheus"]

# One process starts the server.
pytestmark = pytest.mark.xdist_group("prometheus")

KEY = ("trust-safety", "community")
STABLE = "sha256:" + "5" * 64
TOKEN = "a-token-that-nobody-may-see"
ONE = {"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}}
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def queries(*texts: str, rollout: str = "r") -> Queries:
    return Queries(rollout=rollout, plan="p", texts=tuple((f"q{number}", text) for number, text in enumerate(texts)))


def make_provider(server: Server | None, heard: list[Any] | None = None) -> PrometheusProvider:
    on_change = (heard if heard is not None else []).append
    return PrometheusProvider(server, Metrics(), clock=lambda: datetime.now(UTC), on_change=on_change)


@contextlib.asynccontextmanager
async def asking(provider: PrometheusProvider) -> AsyncIterator[None]:
    task = asyncio.create_task(provider.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def ask(server: Server | None, *texts: str) -> list[Reading]:
    """Ask queries at one look, and return what they gave, in their order."""
    provider = make_provider(server)
    async with asking(provider):
        provider.ask(KEY, queries(*texts))
        await until(lambda: provider.looked(KEY).under_way is None)
    readings = provider.looked(KEY).readings
    return [readings[f"q{number}"] for number in range(len(texts))]


@contextlib.asynccontextmanager
async def serving(answer: Answering, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Run a server that answers every request so; yields its base address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


# A real server


async def test_a_number_is_read_whether_it_is_a_scalar_or_the_one_element_of_a_vector(prometheus: PrometheusServer):
    by_digest = fill_in('sum(up{revision="$candidate"}) + 0 * sum(up)', candidate=CANDIDATE, stable=STABLE)

    found = await ask(Server(url=prometheus.url), "0.02", "vector(-3) / 2", by_digest, "1e300 * 10")

    assert found == [Reading(value=each) for each in (0.02, -1.5, 1.0, 1e301)]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        pytest.param(
            fill_in('up{revision="$stable"}', candidate=CANDIDATE, stable=STABLE), "it has no result", id="no series"
        ),
        pytest.param("0 / 0", "its result is NaN, as when something is divided by nothing", id="no number"),
        pytest.param("1 / 0", "its result is +Inf", id="no end"),
        pytest.param('vector(1) or label_replace(vector(2), "a", "b", "", "")', "has 2 series: aggregate", id="series"),
        pytest.param("up[1m]", "its result is a matrix, and not one number", id="a range"),
        pytest.param("'words'", "its result is a string", id="a string"),
        pytest.param("sum(up", "the server says: invalid parameter", id="no query"),
        pytest.param("nothing()", "unknown function", id="a function that is none"),
        pytest.param('{__name__=~".+"}', "longer than 65536 bytes (MAX_ANSWER_BYTES): aggregate", id="everything"),
    ],
)
async def test_what_is_no_number_is_told_in_words(prometheus: PrometheusServer, query, problem):
    [found] = await ask(Server(url=prometheus.url), query)

    assert found.value is None
    assert problem in found.problem
    assert "127.0.0.1" not in found.problem


async def test_what_a_query_finds_of_others_is_not_told_with_what_is_wrong(prometheus: PrometheusServer):
    [found] = await ask(
        Server(url=prometheus.url), 'up * on(instance) {__name__=~"go_info|process_start_time_seconds"}'
    )

    assert found.problem == "the server says: found duplicate series for the match group…"


async def test_one_query_that_gives_nothing_keeps_no_other_from_its_number(prometheus: PrometheusServer):
    good, bad = await ask(Server(url=prometheus.url), "1", "sum(")

    assert good.value == 1
    assert bad.problem


# The port's promise, of the stand-in too


@pytest.mark.parametrize("kind", ["the real one", "the stand-in"])
async def test_queries_are_asked_once_at_a_time_and_what_they_gave_stays_known(prometheus: PrometheusServer, kind):
    heard: list[Any] = []
    provider: Any = make_provider(Server(url=prometheus.url), heard) if kind == "the real one" else FixedProvider()
    nothing = provider.looked(KEY)
    provider.ask(KEY, queries("1"))
    provider.ask(KEY, queries("1"))
    waiting = provider.looked(KEY)
    if kind == "the real one":
        async with asking(provider):
            await until(lambda: provider.looked(KEY).under_way is None)
    else:
        provider.answer(datetime.now(UTC), q0=Reading(value=1.0))
    found = provider.looked(KEY)
    provider.ask(KEY, queries("2"))
    again = provider.looked(KEY)

    assert nothing == Looked()
    assert (waiting.under_way, waiting.queries) == (queries("1"), None)
    assert (found.under_way, found.queries, found.readings) == (None, queries("1"), {"q0": Reading(value=1.0)})
    assert found.time is not None
    assert (again.under_way, again.queries) == (queries("2"), queries("1"))
    assert heard == ([{KEY}] if kind == "the real one" else [])


async def test_what_is_forgotten_while_it_is_asked_is_not_remembered_again(prometheus: PrometheusServer):
    heard: list[Any] = []
    provider = make_provider(Server(url=prometheus.url), heard)
    async with asking(provider):
        provider.ask(KEY, queries("1"))
        provider.ask(("other", "policy"), queries("2"))
        provider.forget(KEY)
        await until(lambda: bool(heard))

    assert heard == [{("other", "policy")}]
    assert provider.looked(KEY) == Looked()


# Servers that do not answer as they should


async def test_only_one_path_is_asked_for_a_whole_answer_and_nobody_follows_elsewhere():
    asked: list[tuple[str, str]] = []
    parameters: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.path))
        parameters.append(dict(request.query))
        raise web.HTTPFound("/elsewhere")

    async with serving(answer) as url:
        [found] = await ask(Server(url=url + "/prometheus"), "up")

    assert asked == [("GET", "/prometheus" + QUERY_PATH)]
    assert parameters == [{"query": "up", "timeout": "5000ms", "partial_response": "false"}]
    assert found.problem == "the server sends elsewhere (status 302), where nobody follows"


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        pytest.param(200, b"<html>", "none of Prometheus", id="no JSON"),
        pytest.param(200, b"[" * 60_000, "none of Prometheus", id="deep JSON"),
        pytest.param(200, b'{"status":"success"}', "none of Prometheus", id="no data"),
        pytest.param(
            200, b'{"status":"success","data":{"resultType":"scalar","result":[1,"x"]}}', "none of", id="no number"
        ),
        pytest.param(
            200,
            b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}',
            "a histogram",
            id="a histogram",
        ),
        pytest.param(
            200,
            b'{"status":"success","data":{"resultType":"\\u001b[2J<b>me</b>","result":[]}}',
            "answer is none of Prometheus",
            id="a result that is none",
        ),
        pytest.param(200, b" " * (MAX_ANSWER_BYTES + 1), "longer than 65536 bytes", id="no end"),
        pytest.param(401, b"who are you", "does not let the operator ask (status 401)", id="not let in"),
        pytest.param(500, b"{}", "answers with status 500", id="a fault"),
        pytest.param(400, b"no JSON", "answers with status 400", id="a fault of a proxy"),
        pytest.param(422, b'{"status":"error","error":"too\\nmany"}', "the server says: too many", id="a limit"),
    ],
)
async def test_what_a_server_should_not_answer_is_no_number(status, body, problem):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with serving(answer) as url:
        [found] = await ask(Server(url=url), "up")

    assert found.value is None
    assert problem in found.problem


@pytest.mark.parametrize(
    ("type", "error", "told"),
    [
        pytest.param("execution", 'many [{team="payments"}]', "many…", id="a range"),
        pytest.param(
            "execution", "receive series from Addr: 10.1.2.3:10901 LabelSets: {}", "receive series from Addr:…", id="IP"
        ),
        pytest.param("execution", "a" * 60_000, "aaaa" * 40, id="one long word"),
        pytest.param("internal", "lookup store.monitoring.svc on it", "lookup…", id="a name"),
        pytest.param("execution", "query timed out in expression evaluation", "query timed out in", id="all of it"),
        pytest.param("bad_data", '1:5: parse error: unexpected "}"', '1:5: parse error: unexpected "}"', id="its own"),
    ],
)
async def test_what_a_server_says_of_others_is_cut_but_not_what_it_says_of_the_query(type, error, told):
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"status": "error", "errorType": type, "error": error}, status=422)

    async with serving(answer) as url:
        [found] = await ask(Server(url=url), "up")

    assert found.problem.startswith(f"the server says: {told}")
    assert len(found.problem) < 200
    assert found.problem.endswith("…") is (told.endswith("…") or len(error) > 200)


async def test_a_server_that_does_not_answer_in_time_or_is_away_gives_no_number():
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with serving(answer) as url:
        [slow] = await ask(Server(url=url, timeout_seconds=0.2), "up")
    [away] = await ask(Server(url=url, timeout_seconds=5), "up")
    [none] = await ask(None, "up")

    assert slow.problem == "the server did not answer in 0.2 s"
    assert away.problem == "the server cannot be reached, or does not speak HTTP"
    assert none.problem == "the installation has no server to ask"


async def test_only_so_many_queries_are_asked_at_the_same_time():
    waiting, most, go_on = 0, 0, asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        if waiting == MAX_AT_ONCE:
            go_on.set()
        await go_on.wait()
        waiting -= 1
        return web.json_response(ONE)

    policies = [(f"team-{number % 3}", f"p{number}") for number in range(8)]
    async with serving(answer) as url:
        provider = make_provider(Server(url=url))
        async with asking(provider):
            for key in policies:
                provider.ask(key, queries(*["up"] * 4))
            await until(lambda: all(provider.looked(key).under_way is None for key in policies))

    assert all(provider.looked(key).readings["q3"] == Reading(value=1.0) for key in policies)
    assert most == MAX_AT_ONCE


async def test_whose_queries_are_slow_delays_nobody_of_another_namespace_for_long():
    heard: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        if request.query["query"] == "slow":
            await asyncio.Event().wait()
        return web.json_response(ONE)

    async with serving(answer) as url:
        provider = make_provider(Server(url=url, timeout_seconds=0.2), heard)
        async with asking(provider):
            for number in range(24):
                provider.ask(("slow", f"p{number}"), queries(*["slow"] * MAX_AT_ONCE))
            provider.ask(KEY, queries("up", "up"))
            await until(lambda: provider.looked(KEY).under_way is None)

    assert heard[:2] == [{("slow", "p0")}, {KEY}]
    assert provider.looked(KEY).readings["q1"] == Reading(value=1.0)
    late = provider.looked(("slow", "p0")).readings.values()
    assert {each.problem for each in late} == {"the server did not answer in 0.2 s"}


async def test_a_slow_query_keeps_no_other_of_its_policy_from_its_number():
    async def answer(request: web.Request) -> web.Response:
        if request.query["query"] == "slow":
            await asyncio.Event().wait()
        return web.json_response(ONE)

    async with serving(answer) as url:
        found = await ask(Server(url=url, timeout_seconds=0.5), *["slow"] * (MAX_AT_ONCE - 1), "up")

    assert found[-1] == Reading(value=1.0)
    assert {each.problem for each in found[:-1]} == {"the server did not answer in 0.5 s"}


# Whom to trust, and who asks


@contextlib.asynccontextmanager
async def closed_server(folder: Path, seen: list[str]) -> AsyncIterator[str]:
    """Run a server with a certificate, that repeats the token it got in what it says is wrong."""
    made = certificate()
    (folder / "ca.crt").write_bytes(made.authority)
    (folder / "tls.pem").write_bytes(made.certificate + made.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.pem")

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        error = f"no such thing, {request.headers.get('Authorization')}"
        return web.json_response({"status": "error", "error": error}, status=400)

    async with serving(answer, context) as url:
        yield url


async def test_the_token_is_sent_as_it_is_now_and_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    seen: list[str] = []
    async with closed_server(tmp_path, seen) as url:
        server = Server(url=url, ca_file=tmp_path / "ca.crt", token_file=tmp_path / "token")
        (tmp_path / "token").write_text(TOKEN + "\n")
        [found] = await ask(server, "up")
        (tmp_path / "token").write_text("the-next-one")
        await ask(server, "up")

    assert seen == [f"Bearer {TOKEN}", "Bearer the-next-one"]
    assert found.problem == "the server says: no such thing, Bearer …"
    assert TOKEN not in caplog.text


async def test_a_certificate_of_another_authority_is_not_trusted(tmp_path: Path):
    seen: list[str] = []
    async with closed_server(tmp_path, seen) as url:
        (tmp_path / "other.crt").write_bytes(certificate().authority)
        other = await ask(Server(url=url, ca_file=tmp_path / "other.crt"), "up")
        system = await ask(Server(url=url), "up")

    assert [each.problem for each in (*other, *system)] == ["the server's certificate is not trusted"] * 2
    assert seen == []


@pytest.mark.parametrize("token", [None, "", "two\nlines"])
async def test_without_its_token_nobody_is_asked(tmp_path: Path, token: str | None, caplog: pytest.LogCaptureFixture):
    if token is not None:
        (tmp_path / "token").write_text(token)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async with serving(answer) as url:
        [found] = await ask(Server(url=url, token_file=tmp_path / "token"), "up")

    assert "cannot read its token or authorities" in found.problem
    assert str(tmp_path) not in found.problem
    assert asked == []
