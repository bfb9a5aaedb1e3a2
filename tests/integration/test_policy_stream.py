"""The policy stream over real connections: what sidecars get, who may ask, and what happens when one end is away."""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs

from baleen_core.errors import ClusterError, NotFound, Problem, UpstreamError
from baleen_core.policy.grants import Grants
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.schema import ListType, Verdict
from baleen_core.policy_stream import FILES_PATH, LISTS_PATH, RECORDS_PATH, Convergence, TrialCounts
from baleen_core.records import Trial
from baleen_sidecar.adapters.gateway_files import GatewayFiles
from baleen_sidecar.adapters.stream_source import StreamSource
from baleen_sidecar.flow.backoff import BackoffRules
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.ports import Adopted, ServiceAccount
from baleen_sidecar.web import policy_stream
from baleen_sidecar.web.stream_protocol import PolicyStreamProtocol
from decision_records import make_record
from following import following
from gateways import TOKENS, FedSource, Gateway, KnownTokens, gateway
from policies import CATEGORY
from publishing import STRICTER, Publication, publication
from waiting import until

QUICK = BackoffRules(first_seconds=0.05, highest_seconds=0.3, spread=1.0, settled_seconds=10)
TENANTS = Grants(tenants={"shop": frozenset({"acme"}), "bank": frozenset({"bank"})})
ONE = publication("trust-safety", "one")
TWO = publication("trust-safety", "two")


@pytest.fixture
async def served() -> AsyncIterator[Gateway]:
    async with gateway() as made:
        yield made


@contextlib.asynccontextmanager
async def sidecar(made: Gateway, folder: Path, token: str = "shop-token", **more: Any) -> AsyncIterator[StreamSource]:
    """Make the client of a sidecar."""
    file = folder / token
    file.write_text(token)
    source = StreamSource(made.url, file, replica=f"replica-of-{token}", **({"backoff": QUICK} | more))
    try:
        yield source
    finally:
        await source.aclose()


def with_list(namespace: str = "trust-safety") -> tuple[Publication, str, str]:
    content = read_list(ListType.TERMS, "\n".join(f"term {number}" for number in range(30_000)))
    each = {"name": "slurs", "type": "Terms", "action": "Review"}
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms"}
    policy = {"categories": [CATEGORY], "lists": [each | {"source": source}]}
    published = publication(namespace, "words", policy, scope={"tenant": "acme"}, lists={"slurs": content})
    return published, content.digest, canonical_list(content)


async def test_a_sidecar_gets_everything_then_edits_then_removals(served: Gateway, tmp_path: Path) -> None:
    served.source.say(ONE.policy, TWO.policy, deployments=({"kind": "ModelDeployment", "spec": {"replicas": 2}},))
    async with sidecar(served, tmp_path) as source, following(source) as follower:
        found = await follower.until(lambda published: published.policies)

        assert found == served.source.state
        edited = publication("trust-safety", "one", {"categories": [STRICTER]}, epoch=2)
        served.source.say(edited.policy, TWO.policy)
        found = await follower.until(lambda published: published.policies[ONE.policy.key] == edited.policy)
        assert found == served.source.state
        served.source.say(TWO.policy)
        found = await follower.until(lambda published: len(published.policies) == 1)
        assert found == served.source.state
        assert follower.source.problem == ""


async def test_nothing_is_published_before_the_gateway_knows_everything(served: Gateway, tmp_path: Path) -> None:
    served.source.problem = "list moderationroutes: refused"
    async with sidecar(served, tmp_path) as source, following(source) as follower:
        await follower.until_problem("was not reached yet")
        served.source.problem = ""
        served.source.say()
        await follower.until(lambda published: True)

        assert follower.count == 1


async def test_what_keeps_the_gateway_from_following_is_known_to_its_sidecars(served: Gateway, tmp_path: Path) -> None:
    served.source.say(ONE.policy)
    async with sidecar(served, tmp_path) as source, following(source) as follower:
        await follower.until(lambda published: published.policies)
        served.source.problem = "watch moderationroutes: the API server did not answer"

        assert "says: watch moderationroutes" in await follower.until_problem("did not answer")
        served.source.problem = ""
        await follower.until_problem("")
        served.source.complain(Problem(field="ModerationRoute a/b: spec", message="is missing"))
        found = await follower.until(lambda published: published.problems)
        assert found == served.source.state


async def test_a_sidecar_keeps_its_state_while_the_gateway_is_away_and_sees_what_was_deleted_meanwhile(
    served: Gateway, tmp_path: Path
) -> None:
    served.source.say(ONE.policy, TWO.policy)
    async with sidecar(served, tmp_path) as source, following(source) as follower:
        before = await follower.until(lambda published: published.policies)
        await served.stop()
        await follower.until_problem("the gateway at")

        assert follower.published is before
        served.source.say(TWO.policy)
        await served.start()
        found = await follower.until(lambda published: len(published.policies) == 1)
        assert found.policies[TWO.policy.key] is before.policies[TWO.policy.key]
        await follower.until_problem("")


async def test_a_sidecar_gets_only_what_its_namespace_may_read(tmp_path: Path) -> None:
    ours, theirs = (publication("trust-safety", name, scope={"tenant": name}) for name in ("acme", "bank"))
    async with gateway(grants=TENANTS) as made, sidecar(made, tmp_path) as source, following(source) as follower:
        made.source.say(ONE.policy, ours.policy, theirs.policy)
        found = await follower.until(lambda published: published.policies)

        assert sorted(key[1] for key in found.policies) == ["acme", "one"]


async def test_a_list_comes_whole_is_read_once_and_only_by_those_whose_policy_names_it(tmp_path: Path) -> None:
    published, digest, text = with_list()
    async with gateway(grants=TENANTS) as made:
        made.source.say(published.policy)
        made.source.lists[digest] = text
        async with sidecar(made, tmp_path) as ours, sidecar(made, tmp_path, "bank-token") as theirs:
            asked = (ours.read_list("trust-safety", digest, ListType.TERMS) for _ in range(20))

            assert set(await asyncio.gather(*asked)) == {text}
            assert made.source.list_reads == [digest]
            assert await theirs.read_list("trust-safety", digest, ListType.TERMS) is None
            assert await ours.read_list("trust-safety", "sha256:" + "0" * 64, ListType.TERMS) is None


@pytest.mark.parametrize(
    "found",
    [
        pytest.param("another", id="another text"),
        pytest.param(None, id="nothing"),
        pytest.param(ClusterError("ConfigMap a-team/x is not a list as the operator writes it"), id="not a list"),
    ],
)
async def test_what_one_namespace_has_instead_of_a_list_does_not_keep_it_from_those_of_another(
    served: Gateway, tmp_path: Path, found: str | ClusterError | None
) -> None:
    (first, digest, text), (second, _, _) = with_list("a-team"), with_list()
    served.source.say(first.policy, second.policy)
    served.source.lists[digest] = text
    served.source.lists_of["a-team"] = found
    async with sidecar(served, tmp_path) as source:
        assert await source.read_list("trust-safety", digest, ListType.TERMS) == text
        assert await source.read_list("trust-safety", digest, ListType.TERMS) == text

    assert served.source.list_reads == [digest, digest]


async def test_a_text_that_is_not_what_the_digest_names_is_no_list_and_not_kept(
    served: Gateway, tmp_path: Path
) -> None:
    published, digest, text = with_list()
    served.source.say(published.policy)
    served.source.lists[digest] = text + "!"
    async with sidecar(served, tmp_path) as source:
        assert await source.read_list("trust-safety", digest, ListType.TERMS) is None
        served.source.lists[digest] = text
        assert await source.read_list("trust-safety", digest, ListType.TERMS) == text


async def test_a_models_file_comes_whole_by_its_digest_to_whoever_shows_a_token(
    served: Gateway, tmp_path: Path
) -> None:
    data = os.urandom(1_000_000)
    sha256 = hashlib.sha256(data).hexdigest()
    served.files[sha256] = data
    (tmp_path / "token").write_text(next(iter(TOKENS)))
    (tmp_path / "nobody").write_text("nobody")
    known, stranger = (GatewayFiles(served.url, tmp_path / name) for name in ("token", "nobody"))

    assert await asyncio.to_thread(known.fetch, sha256) == data
    with pytest.raises(NotFound, match="no file with SHA-256"):
        await asyncio.to_thread(known.fetch, "0" * 64)
    with pytest.raises(UpstreamError, match="status 422"):
        await asyncio.to_thread(known.fetch, "nothing")
    with pytest.raises(UpstreamError, match="status 401"):
        await asyncio.to_thread(stranger.fetch, sha256)


async def test_callers_who_do_not_read_the_files_they_asked_for_keep_nobody_waiting(
    served: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_stream, "FILE_SECONDS", 0.3)
    data = os.urandom(20_000_000)
    sha256, token = hashlib.sha256(data).hexdigest(), next(iter(TOKENS))
    served.files[sha256] = data
    (tmp_path / "token").write_text(token)
    asked = f"GET {FILES_PATH}{sha256} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(policy_stream.FILES_AT_ONCE):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            await asyncio.get_running_loop().run_in_executor(None, idle.sendall, asked)
        async with asyncio.timeout(20):
            found = await asyncio.to_thread(GatewayFiles(served.url, tmp_path / "token").fetch, sha256)

    assert found == data


async def test_a_gateway_that_does_not_answer_for_a_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")

    with pytest.raises(UpstreamError, match="did not answer"):
        await asyncio.to_thread(GatewayFiles("http://127.0.0.1:1", tmp_path / "token").fetch, "0" * 64)


async def test_a_list_that_cannot_be_read_now_is_an_error_and_not_a_missing_one(
    served: Gateway, tmp_path: Path
) -> None:
    published, digest, _ = with_list()
    other, _, _ = with_list("a-team")
    refused = ClusterError("get configmaps in namespace trust-safety: our role does not allow it (403)")
    served.source.lists_of = {"trust-safety": refused, "a-team": None}
    served.source.say(published.policy, other.policy)
    async with sidecar(served, tmp_path) as source:
        with pytest.raises(UpstreamError, match="get configmaps"):
            await source.read_list("trust-safety", digest, ListType.TERMS)


async def test_the_operator_sees_who_enforces_what(served: Gateway, tmp_path: Path) -> None:
    served.source.say(ONE.policy, TWO.policy)
    own = {ONE.policy.key: Adopted(epoch=3, digest="sha256:b"), TWO.policy.key: Adopted(epoch=1, digest="sha256:c")}
    served.source.adopted = own
    served.concurrency = Concurrency(lambda: 7.0)
    served.concurrency.enter()
    async with (
        sidecar(served, tmp_path) as current,
        sidecar(served, tmp_path, "shop-2-token") as stale,
        following(current) as first,
        following(stale) as second,
        served.client("operator-token") as operator,
    ):
        await first.until(lambda published: published.policies)
        await second.until(lambda published: published.policies)
        await current.report(own)
        await stale.report(own | {ONE.policy.key: Adopted(epoch=2, digest="sha256:a", pending="a list is missing")})

        async def seen() -> Any:
            return (await operator.get("/v1/convergence")).json()

        async def is_two_and_one() -> bool:
            counts = [each["sidecars"]["current"] for each in (await seen())["policies"].values()]
            return sorted(counts) == [1, 2]

        await until(is_two_and_one)
        assert await seen() == {
            "replica": "gateway-1",
            "policies": {
                "trust-safety/one": {
                    "epoch": 3,
                    "digest": "sha256:b",
                    "pending": "",
                    "sidecars": {"total": 2, "current": 1, "stale": ["shop/shop-2"]},
                    "decisions": {"Allow": 3},
                    "trial": None,
                },
                "trust-safety/two": {
                    "epoch": 1,
                    "digest": "sha256:c",
                    "pending": "",
                    "sidecars": {"total": 2, "current": 2, "stale": []},
                    "decisions": {},
                    "trial": None,
                },
            },
            "load": {"in_flight": 1, "request_seconds": 0.0, "measured_seconds": 0.0},
        }
        await stale.report(own)

        async def is_converged() -> bool:
            return all(not each["sidecars"]["stale"] for each in (await seen())["policies"].values())

        await until(is_converged)


async def test_the_operator_is_told_what_both_sides_of_a_rollout_said(served: Gateway) -> None:
    rollout = publication("trust-safety", "one", candidate={"categories": [STRICTER]})
    routed = rollout.route.route
    assert routed.candidate is not None
    sides = {"stable": routed.stable, "candidate": routed.candidate.digest}
    served.source.say(rollout.policy, TWO.policy)
    served.source.adopted = {
        rollout.policy.key: Adopted(epoch=1, digest=sides["stable"], candidate=sides["candidate"], rollout="r"),
        TWO.policy.key: Adopted(epoch=1, digest="sha256:c"),
    }
    trial = Trial(
        name="one", **sides, stable_verdict=Verdict.ALLOW, candidate_verdict=Verdict.REVIEW, group=9, rollout="r"
    )
    async with served.client("operator-token") as operator:

        async def seen() -> Convergence:
            return msgspec.json.decode((await operator.get("/v1/convergence")).content, type=Convergence)

        before = (await seen()).policies["trust-safety/one"].trial
        made = make_record()
        served.rollouts.count(structs.replace(made, decision=structs.replace(made.decision, trials=(trial,))))
        after = await seen()

    flips = [0] * 576
    nothing = TrialCounts(**sides, rollout="r", process="process-1", flips=tuple(flips), cohorts={})
    flips[9 * 9 + 1] = 1
    assert before == nothing
    assert after.policies["trust-safety/one"].trial == structs.replace(
        nothing, flips=tuple(flips), cohorts={"Stable": 1}, made={"Stable": 1}
    )
    assert after.policies["trust-safety/two"].trial is None


async def test_a_sidecar_that_left_does_not_count_any_more(served: Gateway, tmp_path: Path) -> None:
    served.source.say(ONE.policy)
    served.source.adopted = {ONE.policy.key: Adopted(epoch=1, digest="sha256:b")}
    async with served.client("operator-token") as operator:

        async def total() -> int:
            answer = (await operator.get("/v1/convergence")).json()
            return int(answer["policies"]["trust-safety/one"]["sidecars"]["total"])

        async def is_one() -> bool:
            return await total() == 1

        async def is_none() -> bool:
            return await total() == 0

        async with sidecar(served, tmp_path) as source, following(source):
            await until(is_one)
        await until(is_none)


async def test_who_holds_an_open_stream_acknowledges_without_the_api_server_being_asked_again(
    served: Gateway, tmp_path: Path
) -> None:
    served.source.say(ONE.policy)
    own = {ONE.policy.key: Adopted(epoch=1, digest="sha256:b")}
    served.source.adopted = own
    said = {"replica": "x", "policies": {"trust-safety/one": {"epoch": 1, "digest": "sha256:b"}}}
    async with sidecar(served, tmp_path) as source, following(source) as follower, served.client("shop-token") as shop:
        await follower.until(lambda published: published.policies)
        served.tokens.failure = ClusterError("create tokenreviews.authentication.k8s.io: did not answer")
        known = await shop.post("/v1/acknowledgements", json=said)
        unknown = await shop.post("/v1/acknowledgements", json=said, headers={"Authorization": "Bearer bank-token"})
        other = await shop.get("/v1/convergence")

    async def is_left() -> bool:
        async with served.client("shop-token") as shop:
            return (await shop.post("/v1/acknowledgements", json=said)).status_code == 503

    assert [each.status_code for each in (known, unknown, other)] == [200, 503, 503]
    await until(is_left)


async def test_after_the_gateway_was_away_a_sidecar_acknowledges_everything_again(
    served: Gateway, tmp_path: Path
) -> None:
    served.source.say(ONE.policy)
    own = {ONE.policy.key: Adopted(epoch=1, digest="sha256:b")}
    served.source.adopted = own
    async with sidecar(served, tmp_path) as source, following(source) as follower:
        await follower.until(lambda published: published.policies)
        await source.report(own)
        for _ in range(2):
            async with served.client("operator-token") as operator:

                async def is_current(operator: httpx.AsyncClient = operator) -> bool:
                    answer = (await operator.get("/v1/convergence")).json()
                    return answer["policies"]["trust-safety/one"]["sidecars"] == {"total": 1, "current": 1, "stale": []}

                await until(is_current)
            await served.stop()
            await served.start()


PATHS = [
    "/v1/policy-stream",
    LISTS_PATH + "sha256:" + "0" * 64,
    "/v1/acknowledgements",
    "/v1/convergence",
    RECORDS_PATH,
    "/nothing",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header",
    [
        pytest.param({}, id="no token"),
        pytest.param({"Authorization": "Bearer"}, id="an empty one"),
        pytest.param({"Authorization": "Basic c2hvcDp4"}, id="another scheme"),
        pytest.param({"Authorization": "Bearer nobody"}, id="nobody's"),
    ],
)
async def test_nothing_is_said_to_strangers(served: Gateway, path: str, header: dict[str, str]) -> None:
    async with served.client() as stranger:
        answer = await stranger.get(path, headers=header)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:baleen:problem:unauthenticated"


@pytest.mark.parametrize(
    ("method", "path", "token", "body", "status", "said"),
    [
        ("GET", "/v1/convergence", "shop-token", None, 403, "shop/default is not the operator's"),
        ("POST", "/v1/convergence", "operator-token", {}, 405, "takes GET"),
        ("GET", "/v1/acknowledgements", "shop-token", None, 405, "takes POST"),
        ("GET", "/nothing", "shop-token", None, 404, "there is no /nothing here"),
        ("GET", LISTS_PATH + "slurs", "shop-token", None, 422, "sha256:"),
        ("POST", "/v1/acknowledgements", "shop-token", {"replica": 1}, 422, "cannot be read"),
        ("POST", "/v1/acknowledgements", "shop-token", {"replica": "x", "policies": {}}, 409, "has no stream"),
        ("POST", "/v1/acknowledgements", "shop-token", {"x": "x" * 9_000_000}, 413, "8388608 bytes"),
    ],
    ids=["not the operator", "post to get", "get to post", "no path", "no digest", "not one", "no stream", "too large"],
)
async def test_what_may_not_be_asked_is_refused_in_words(
    served: Gateway, method: str, path: str, token: str, body: Any, status: int, said: str
) -> None:
    async with served.client(token) as client:
        answer = await client.request(method, path, json=body)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


async def test_without_the_api_server_callers_are_told_to_come_again_and_health_is_not_asked_for_a_token(
    served: Gateway,
) -> None:
    served.tokens.failure = ClusterError("create tokenreviews.authentication.k8s.io: did not answer")
    async with served.client("shop-token") as client:
        answer = await client.get("/v1/policy-stream")
        health = await client.get("/health")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert health.json() == {"status": "ok"}


async def test_streams_over_the_limits_are_refused_and_the_limit_is_named(tmp_path: Path) -> None:
    async with gateway(limit_streams=2, limit_streams_per_caller=1) as made, contextlib.AsyncExitStack() as stack:
        statuses = []
        for token in ("shop-token", "shop-token", "shop-2-token", "bank-token"):
            client = await stack.enter_async_context(made.client(token))
            answer = await stack.enter_async_context(client.stream("GET", "/v1/policy-stream"))
            statuses.append(answer.status_code)

        assert statuses == [200, 429, 200, 503]


async def test_a_stream_ends_in_time_and_the_sidecar_comes_again(tmp_path: Path) -> None:
    async with (
        gateway(stream_seconds=0.5) as made,
        sidecar(made, tmp_path) as source,
        following(source) as follower,
    ):
        made.source.say(ONE.policy)
        await follower.until(lambda published: published.policies)
        await until(lambda: follower.count >= 3)

        assert follower.published == made.source.state


async def test_a_gateway_that_says_nothing_any_more_is_lost(tmp_path: Path) -> None:
    async with (
        gateway(heartbeat_seconds=600) as made,
        sidecar(made, tmp_path, lost_seconds=0.5) as source,
        following(source) as follower,
    ):
        made.source.say(ONE.policy)
        await follower.until(lambda published: published.policies)

        assert "said nothing in time" in await follower.until_problem("said nothing")
        await until(lambda: follower.count >= 2)


async def test_a_reader_that_stalls_is_cut_off_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyStreamProtocol, "stall_seconds", 0.5)
    async with gateway() as made, sidecar(made, tmp_path) as source, following(source) as follower:
        large = [replace(ONE.policy, route=replace(ONE.route, name=f"p{number}")) for number in range(20_000)]
        made.source.say(*large)
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", made.port))
            stalled.sendall(b"GET /v1/policy-stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer shop-2-token\r\n\r\n")
            await until(lambda: made.app._streams.total() == 2)
            await until(lambda: made.app._streams.total() == 1)
        found = await follower.until(lambda published: len(published.policies) == 20_000)

        assert found.policies == made.source.state.policies


async def test_a_message_of_a_later_release_is_a_problem_and_takes_nothing_away(tmp_path: Path) -> None:
    lines = [
        {"type": "Hello", "replica": "later", "colour": "blue"},
        {"type": "Weather", "rain": True},
        {"type": "Synced"},
    ]

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, stream=httpx.ByteStream(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        )

    (tmp_path / "token").write_text("token")
    source = StreamSource(
        "http://gateway", tmp_path / "token", replica="x", transport=httpx.MockTransport(answer), backoff=QUICK
    )
    async with following(source) as follower:
        found = await follower.until(lambda published: True)

    assert "Weather" in found.problems[0].message
    await source.aclose()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not json\n", id="no json"),
        pytest.param(b'{"type":"Hello","replica":"x"}\n{"type":"Put"', id="half a message"),
    ],
)
async def test_a_stream_that_ends_before_it_is_whole_publishes_nothing(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "token").write_text("token")
    calls = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(200, stream=httpx.ByteStream(body))

    source = StreamSource(
        "http://gateway", tmp_path / "token", replica="x", transport=httpx.MockTransport(answer), backoff=QUICK
    )
    async with following(source) as follower:
        await until(lambda: calls >= 3)

        assert not follower.has_published
        assert "ended the stream" in source.problem
    await source.aclose()


async def test_a_token_file_that_is_missing_is_said(served: Gateway, tmp_path: Path) -> None:
    source = StreamSource(served.url, tmp_path / "absent", replica="x", backoff=QUICK)
    async with following(source) as follower:
        assert "absent cannot be read" in await follower.until_problem("the token file")
    await source.aclose()


async def test_an_edit_reaches_many_sidecars_of_one_gateway(tmp_path: Path) -> None:
    pods = {
        f"token-{number}": ServiceAccount(namespace="shop", name="default", pod=f"pod-{number}") for number in range(60)
    }
    source = FedSource()
    async with gateway(source, tokens=KnownTokens(pods)) as made, contextlib.AsyncExitStack() as stack:
        source.say(ONE.policy)
        clients = [await stack.enter_async_context(sidecar(made, tmp_path, token)) for token in pods]
        followers = [await stack.enter_async_context(following(each)) for each in clients]
        for follower in followers:
            await follower.until(lambda published: published.policies)
        edited = publication("trust-safety", "one", {"categories": [STRICTER]}, epoch=2)
        source.say(edited.policy)
        for follower in followers:
            await follower.until(lambda published: published.policies[ONE.policy.key] == edited.policy)

        assert all(follower.count == 2 for follower in followers)
