"""`python -m baleen_sidecar` without any cluster: what it refuses to start with, and what it does while it is alone."""

import asyncio
import contextlib
import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import plain_http
from baleen_core.api_keys import hash_key, make_key
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.schema import ListType
from baleen_sidecar.adapters.last_good import FILE, FileLastGood
from baleen_sidecar.adapters.store import SqliteRevisionStore, StateFolder, migrate
from baleen_sidecar.main import bind
from baleen_sidecar.ports import Kept, KeptPolicy
from baleen_sidecar.web.grpc import moderation_pb2 as pb
from gateway_process import RunningGateway
from grpc_calls import SECONDS, connected_to, text
from publishing import publication
from redis_server import RedisServer
from serving import until

KEYS = [make_key(bytes([number]) * 32) for number in range(2)]
TERMS = read_list(ListType.TERMS, "idiot")
SOURCE = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
LISTED = publication(
    "trust-safety",
    "community",
    {"lists": [{"name": "slurs", "type": "Terms", "action": "Block", "source": SOURCE}]},
    epoch=7,
    lists={"slurs": TERMS},
)


@pytest.fixture(autouse=True)
def no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may do so in a pod."""
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses every connection, and that nobody else takes meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def alone(tmp_path: Path, closed_port: int) -> dict[str, object]:
    """Settings of a gateway whose API server is out of reach."""
    (tmp_path / "token").write_text("a token")
    return {
        "kubernetes_url": f"https://127.0.0.1:{closed_port}",
        "kubernetes_ca_file": certifi.where(),
        "kubernetes_token_file": tmp_path / "token",
        "state": tmp_path / "state",
        "port": 0,
        "stream_host": "127.0.0.1",
        "stream_port": 0,
    }


@pytest.fixture
def alone_as_sidecar(tmp_path: Path, closed_port: int) -> dict[str, object]:
    """Settings of a sidecar whose gateway is out of reach."""
    (tmp_path / "token").write_text("a token")
    return {
        "gateway_url": f"http://127.0.0.1:{closed_port}",
        "gateway_token_file": tmp_path / "token",
        "durability": "Interval",
        "state": tmp_path / "state",
        "port": 0,
    }


def end_of(process: RunningGateway) -> tuple[int, list[dict[str, Any]]]:
    """Return the code that it ends with by itself, and the errors that it logged; each line must be JSON."""
    code = process.wait_for_end(seconds=60)
    assert process.other_lines == []
    return code, [event for event in process.events if event["level"] == "error"]


async def fill(state: Path) -> None:
    """Leave behind in a state folder what a process would that had adopted a policy."""
    with StateFolder(state) as folder:
        await asyncio.to_thread(migrate, folder.database)
        store = SqliteRevisionStore(folder.database)
        ((version, revision),) = LISTED.revisions
        await store.put_revision("trust-safety/community", revision)
        await store.put_list(TERMS.digest, canonical_list(TERMS))
        kept = KeptPolicy(route=LISTED.route, digest=revision.digest, version=version)
        await FileLastGood(state).save(Kept(policies={LISTED.policy.key: kept}))


def test_wrong_settings_end_it_at_once_each_named_in_a_line_of_json(tmp_path: Path) -> None:
    wrong = {"host": "0.0.0.0", "port": "x", "policies": "policies", "gateway_url": "gateway:8081", "log_level": "loud"}
    with RunningGateway(state=tmp_path / "state", **wrong) as process:
        code, events = end_of(process)

    assert code == 2
    assert {event["event"] for event in events} == {"a setting is wrong"}
    assert {event["setting"]: re.split("; there are|: make some", event["problem"])[0] for event in events} == {
        "BALEEN_HOST": "0.0.0.0 is not loopback; without API keys only 127.0.0.1 or ::1 is served",
        "BALEEN_PORT": "'x' is not valid: invalid literal for int() with base 10: 'x'",
        "BALEEN_POLICIES": "is not a setting",
        "BALEEN_GATEWAY_URL": "'gateway:8081' is not valid: 'gateway:8081' is no address such as http://10.0.0.7:8081",
        "BALEEN_LOG_LEVEL": "'loud' is not valid: a level is DEBUG, INFO, WARNING or ERROR",
    }
    assert not (tmp_path / "state").exists()


def test_outside_a_cluster_it_says_what_to_set(tmp_path: Path) -> None:
    with RunningGateway(state=tmp_path / "state", port=0) as process:
        code, (event,) = end_of(process)

    assert (code, event["event"], event["setting"]) == (2, "a setting is wrong", "KUBERNETES_SERVICE_HOST")
    assert event["problem"] == (
        "is not set: this is no pod; set BALEEN_KUBERNETES_URL, BALEEN_KUBERNETES_CA_FILE and "
        "BALEEN_KUBERNETES_TOKEN_FILE, or BALEEN_GATEWAY_URL to follow a gateway"
    )


def test_certificates_that_are_none_end_it_and_their_file_is_named(alone: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    with RunningGateway(**{**alone, "kubernetes_ca_file": tmp_path / "ca.crt"}) as process:
        code, (event,) = end_of(process)

    assert code == 2
    assert f"{tmp_path / 'ca.crt'} cannot be read as PEM certificates" in event["problem"]


def test_a_file_of_api_keys_that_is_wrong_ends_it_and_each_entry_is_named(
    alone: dict[str, object], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(json.dumps({"keys": [{"name": "shop", "sha256": KEYS[0], "roles": ["moderate"]}, {}]}))
    with RunningGateway(**alone, host="0.0.0.0", api_keys_file=keys) as process:
        code, events = end_of(process)

    assert code == 2
    assert [event["setting"] for event in events] == [
        f"{keys}: keys[0].sha256",
        f"{keys}: keys[1].roles",
        f"{keys}: keys[1].name",
        f"{keys}: keys[1].sha256",
    ]
    assert KEYS[0] not in process.said()
    assert not (tmp_path / "state").exists()


def test_beyond_loopback_it_answers_those_with_a_key_and_follows_a_mounted_secret(
    alone: dict[str, object], tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted"
    mount(mounted, "1", good_keys(KEYS[0]))
    with RunningGateway(**alone, host="0.0.0.0", api_keys_file=mounted / "keys.yaml") as process:

        def lets_in() -> list[bool]:
            answers = [process.client.get("/v1/policies", headers={"X-API-Key": key}) for key in KEYS]
            assert {answer.status_code for answer in answers} <= {200, 401}
            return [answer.is_success for answer in answers]

        assert lets_in() == [True, False]
        mount(mounted, "2", good_keys(*KEYS))
        until(lambda: lets_in() == [True, True])
        mount(mounted, "3", good_keys(KEYS[1]))
        until(lambda: lets_in() == [False, True])
        mount(mounted, "4", f"keys: [{KEYS[1]}]")
        event = process.wait_for("API keys not read; the last good ones count")
        assert event["problem"] == f"{mounted / 'keys.yaml'}: keys[0]: 'baleen_…' is not a mapping of fields"
        assert lets_in() == [False, True]
        assert "api-keys" in process.ready()[1]["degraded"]
        mount(mounted, "5", good_keys(KEYS[1]))
        until(lambda: "api-keys" not in process.ready()[1]["degraded"])
        assert not any(key in process.said() for key in KEYS)


def good_keys(*keys: str) -> str:
    """Return a file of keys that may read policies."""
    return json.dumps({"keys": [{"name": "shop", "sha256": hash_key(key), "roles": ["review"]} for key in keys]})


def mount(folder: Path, version: str, text: str) -> None:
    """Put a Secret's file where it is mounted, as the kubelet does: by another link to a folder of its own."""
    (folder / f"..{version}").mkdir(parents=True)
    (folder / f"..{version}/keys.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(f"..{version}")
    (folder / "..data_tmp").replace(folder / "..data")
    if not (folder / "keys.yaml").is_symlink():
        (folder / "keys.yaml").symlink_to("..data/keys.yaml")


def test_a_state_folder_in_use_ends_it_and_says_by_whom(alone: dict[str, object]) -> None:
    with RunningGateway(**alone) as first:
        first.wait_for("answering")
        with RunningGateway(**alone) as second:
            code, (event,) = end_of(second)

        assert (code, event["event"]) == (1, "cannot start")
        assert f"is in use by process {first.pid}: stop it, or set another folder" in event["reason"]
        assert plain_http.get(f"{first.url}/health").status_code == 200


@pytest.mark.parametrize("settings", ["alone", "alone_as_sidecar"])
def test_metrics_have_a_port_of_their_own_where_one_is_set(request: pytest.FixtureRequest, settings: str) -> None:
    with RunningGateway(**request.getfixturevalue(settings), metrics_port=0) as process:
        urls = process.wait_for("answering")["urls"]
        with plain_http.client(base_url=urls[-1]) as client:
            exposed, head = client.get("/metrics"), client.head("/metrics")
            answers = [client.get("/ready"), client.post("/v1/moderate", json={}), client.post("/metrics")]
        elsewhere = process.client.get("/metrics")

    assert exposed.status_code == head.status_code == 200
    assert (head.content, head.headers["content-type"]) == (b"", exposed.headers["content-type"])
    assert exposed.headers["content-type"] == elsewhere.headers["content-type"]
    assert "# TYPE baleen_policy_source_connected gauge" in exposed.text
    assert re.findall("^# TYPE .*", exposed.text, re.M) == re.findall("^# TYPE .*", elsewhere.text, re.M)
    assert [each.status_code for each in answers] == [404, 404, 405]
    assert answers[0].text == "this port has /metrics alone\n"


def test_it_looks_at_the_machine_and_follows_its_quotas_and_its_redis(
    alone: dict[str, object], tmp_path: Path, redis_server: RedisServer
) -> None:
    quota = {"name": "photos", "per": "Author", "limit": 30, "windowSeconds": 86400}
    quotas, url = tmp_path / "quotas.yaml", tmp_path / "redis-url"
    quotas.write_text(json.dumps({"quotas": [quota]}))
    url.write_text(redis_server.url)
    with RunningGateway(**alone, quotas_file=quotas, redis_url_file=url) as process:
        until(lambda: process.client.get("/v1/governor").json()["allowed"])
        with redis_server.client() as client:
            until(lambda: client.zcard("{baleen-quotas}:replicas") == 1)
        beside = tmp_path / "beside"
        beside.write_text(json.dumps({"quotas": [quota | {"limit": 0}]}))
        beside.replace(quotas)
        until(lambda: "quotas" in process.ready()[1]["degraded"])
        code = process.stop()

    assert "quotas[0].limit" in process.wait_for("quotas not read; the last good ones count")["problem"]
    assert code == 0
    assert process.other_lines == []


@pytest.mark.parametrize("setting", ["port", "stream_port", "metrics_port"])
def test_a_port_that_is_taken_ends_it_and_is_named(alone: dict[str, object], closed_port: int, setting: str) -> None:
    with RunningGateway(**{**alone, setting: closed_port}) as process:
        code, (event,) = end_of(process)

    assert (code, event["event"]) == (1, "cannot start")
    assert event["reason"] == f"cannot listen on 127.0.0.1 port {closed_port}: Address already in use"


@pytest.mark.parametrize("settings", ["alone", "alone_as_sidecar"])
def test_with_nobody_to_follow_it_runs_refuses_every_request_and_says_why(
    request: pytest.FixtureRequest, settings: str
) -> None:
    with RunningGateway(**request.getfixturevalue(settings)) as process:
        assert process.client.get("/health").status_code == 200
        process.wait_for("policy source lost")
        status, report = process.ready()
        refused = process.moderate("anything")
        code = process.stop()

    assert status == 503
    assert report["degraded"] == ["policies", "source"]
    (source,) = (each for each in report["components"] if each["name"] == "source")
    assert not source["healthy"]
    assert "lost since" in source["detail"]
    assert refused.status_code == 503
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["type"].endswith("no-policy")
    assert "Retry-After" in refused.headers
    assert code == 0
    assert process.other_lines == []


@pytest.mark.parametrize("settings", ["alone", "alone_as_sidecar"])
async def test_with_nobody_to_follow_it_enforces_what_was_good_last_and_says_that_it_may_be_old(
    request: pytest.FixtureRequest, settings: str, tmp_path: Path
) -> None:
    await fill(tmp_path / "state")
    with RunningGateway(**request.getfixturevalue(settings)) as process:
        adopted = process.wait_for("policy adopted")
        decision = process.decide("you idiot")
        status, report = process.ready()
        code = process.stop()

    assert (adopted["policy"], adopted["epoch"]) == ("trust-safety/community", 7)
    assert decision["decision"] == "Block"
    assert decision["policies"][0]["digest"] == LISTED.route.route.stable
    assert decision["degraded"] == ["PolicySource"]
    assert (status, report["degraded"]) == (200, ["source"])
    assert code == 0


async def test_a_last_good_state_that_is_damaged_is_said_and_enforces_nothing(
    alone: dict[str, object], tmp_path: Path
) -> None:
    await fill(tmp_path / "state")
    with (tmp_path / "state" / FILE).open("ab") as file:
        file.write(b"}")
    with RunningGateway(**alone) as process:
        event = process.wait_for("last good state not read")
        refused = process.moderate("you idiot")

    assert f"{FILE} is damaged" in event["cause"]
    assert refused.status_code == 503


def test_callers_with_open_connections_are_answered_and_sent_away_before_it_ends(alone: dict[str, object]) -> None:
    with RunningGateway(**alone, drain_seconds=20) as process, contextlib.ExitStack() as connections:
        process.wait_for("answering")
        callers = [
            connections.enter_context(contextlib.closing(http.client.HTTPConnection(urlsplit(process.url).netloc)))
            for _ in range(5)
        ]
        before = [ask(caller) for caller in callers]
        process.process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + 20
        while plain_http.get(f"{process.url}/health").headers.get("connection") != "close":
            assert time.monotonic() < give_up
        # Each is asking on a connection that a server which only ends would have closed by now.
        after = [ask(caller) for caller in callers]
        code = process.wait_for_end(seconds=10)

    assert before == [(200, None)] * len(callers)
    assert after == [(200, "close")] * len(callers)
    assert code == 0


async def test_calls_over_grpc_are_answered_while_it_drains_and_health_checks_send_their_callers_away(
    alone: dict[str, object], tmp_path: Path
) -> None:
    await fill(tmp_path / "state")
    with RunningGateway(**alone, grpc_port=0, drain_seconds=120) as process:
        process.wait_until_ready()
        (port,) = process.wait_for("answering")["grpc_ports"]
        with connected_to(port) as client:
            health = health_pb2_grpc.HealthStub(client.channel)
            watched = health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            before = next(watched).status
            process.process.send_signal(signal.SIGTERM)
            after = next(watched).status
            # Whoever connects now has not heard of it yet.
            with connected_to(port) as late:
                answers = [
                    each.moderate(text("you idiot"), timeout=SECONDS).decision.verdict for each in (client, late)
                ]
            process.process.send_signal(signal.SIGINT)
            code = process.wait_for_end(seconds=60)

    assert (before, after) == (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)
    assert answers == [pb.VERDICT_BLOCK, pb.VERDICT_BLOCK]
    assert code == 0


async def test_no_packet_of_an_answer_waits_for_an_acknowledgement_of_the_one_before() -> None:
    seen: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        seen.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with bind("127.0.0.1", 0) as listening:
        async with await asyncio.start_server(answer, sock=listening):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.read()
            writer.close()

    assert seen == [1]


def ask(caller: http.client.HTTPConnection) -> tuple[int, str | None]:
    caller.request("GET", "/health")
    answer = caller.getresponse()
    answer.read()
    return answer.status, answer.headers.get("connection")
