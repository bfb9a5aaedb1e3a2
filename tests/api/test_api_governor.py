"""The governor over HTTP: who is let in while the machine is busy, and what everybody else is told."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from baleen_core.api_keys import make_key
from baleen_core.priority import Priority
from baleen_sidecar.flow.governor import LEVELS, GovernorRules
from baleen_sidecar.ports import Usage
from baleen_sidecar.usecases.govern import Governor
from grpc_calls import SECONDS, connected, text
from keyed import api_key, write_key_file
from sidecars import RunningSidecar, StartSidecar, post

HELLO = {"type": "text", "text": "hello"}
PERCENT = dict(zip(LEVELS, (10, 76, 83, 90, 99), strict=True))
"""Of memory, which is not smoothed, for each level."""


class Resources:
    """Says what a test set, and that a second has passed at each look."""

    memory = 10.0
    now = 0.0

    def read(self) -> Usage:
        self.now += 1
        return Usage(
            cpu_percent=12.5,
            memory_percent=self.memory,
            cpus=0.5,
            memory_bytes=2**28,
            cpu_source="cgroup-v2",
            memory_source="cgroup-v2",
        )


SetLevel = Callable[[float], None]


@pytest.fixture
def governed(start_sidecar: StartSidecar) -> tuple[RunningSidecar, SetLevel]:
    resources = Resources()
    governor = Governor(
        resources, rules=GovernorRules(), monotonic_seconds=lambda: resources.now, chance=lambda count: bytes(count)
    )
    running = start_sidecar(ports={"governor": governor})

    async def look() -> None:
        governor.look()

    def set_level(level: float) -> None:
        resources.memory = PERCENT[level]
        running.run(look())
        while governor.throttle.level != level:
            running.run(look())

    return running, set_level


def show(running: RunningSidecar) -> dict[str, object]:
    found: dict[str, object] = running.client.get("/v1/governor").json()
    return found


def test_it_shows_what_is_used_of_what_and_who_is_let_in(governed: tuple[RunningSidecar, SetLevel]) -> None:
    running, set_level = governed
    before = show(running)
    set_level(0.5)
    after = show(running)

    assert (before["throttle_level"], before["allowed"], before["should_throttle"]) == (0.0, None, False)
    assert set(before["admission"].values()) == {"Enter"}  # type: ignore[attr-defined]
    assert after["current_usage"] == {"cpu_percent": 0.0, "memory_percent": 83.0}
    assert after["allowed"] == {
        "cpus": 0.5,
        "cpu_source": "cgroup-v2",
        "memory_bytes": 2**28,
        "memory_source": "cgroup-v2",
    }
    assert after["admission"] == {"Low": "Refuse", "Normal": "Refuse", "High": "Enter", "Critical": "Enter"}
    assert (after["throttle_level"], after["load_shedding_active"], after["waiting"]) == (0.5, False, 0)


def test_who_is_refused_is_told_why_and_when_to_come_again(governed: tuple[RunningSidecar, SetLevel]) -> None:
    running, set_level = governed
    set_level(1.0)
    answer = post(running, HELLO)
    shown = show(running)
    set_level(0.0)

    assert (answer.status_code, answer.json()["type"]) == (503, "urn:baleen:problem:overloaded")
    assert "the throttle level is 1, since 0 % of CPU and 99 % of memory are used" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "2"
    assert shown["load_shedding_active"] is True
    assert post(running, HELLO).status_code == 200
    metrics = running.client.get("/metrics").text
    assert 'baleen_governor_held_total{priority="Normal",result="refused"} 1.0' in metrics
    assert "baleen_governor_throttle_level 0.0" in metrics
    assert "baleen_governor_memory_ratio 0.1" in metrics


def test_what_it_takes_to_refuse_by_the_head_is_told_to_the_governor(start_sidecar: StartSidecar) -> None:
    spent: list[float] = []

    class Told(Governor):
        def spend(self, seconds: float) -> None:
            spent.append(seconds)

    resources = Resources()
    governor = Told(
        resources, rules=GovernorRules(), monotonic_seconds=lambda: resources.now, chance=lambda count: bytes(count)
    )
    running = start_sidecar(ports={"governor": governor})

    assert post(running, HELLO).status_code == 200
    assert spent == []
    assert running.client.get("/v1/moderate").status_code == 405
    assert len(spent) == 1
    assert spent[0] >= 0


def test_at_08_a_request_waits_until_there_is_room(governed: tuple[RunningSidecar, SetLevel]) -> None:
    running, set_level = governed
    set_level(0.8)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(post(running, HELLO)))
    asking.start()
    while show(running)["waiting"] != 1:
        assert asking.is_alive()
    set_level(0.3)
    asking.join()

    assert [answer.status_code for answer in answers] == [200]


def test_at_08_a_request_waits_no_longer_than_its_deadline(governed: tuple[RunningSidecar, SetLevel]) -> None:
    running, set_level = governed
    set_level(0.8)
    answer = running.client.post("/v1/moderate", json={"content": HELLO}, headers={"X-Baleen-Deadline-Ms": "50"})

    assert (answer.status_code, answer.json()["type"]) == (504, "urn:baleen:problem:deadline-exceeded")
    assert show(running)["waiting"] == 0


def test_work_that_no_decision_waits_for_is_refused_at_any_level_above_0(
    governed: tuple[RunningSidecar, SetLevel],
) -> None:
    running, set_level = governed
    set_level(0.3)
    client = running.client
    answers = [
        client.get("/v1/policies/community/performance"),
        client.get("/v1/policies/community/flips"),
        client.post("/v1/policies/community/simulate", json={}),
    ]

    assert [answer.status_code for answer in answers] == [503] * 3
    assert all("what no decision waits for" in answer.json()["detail"] for answer in answers)
    assert post(running, HELLO).status_code == 200


def test_who_has_had_its_share_of_a_busy_process_is_told_when_to_come_again(start_sidecar: StartSidecar) -> None:
    resources = Resources()
    governor = Governor(
        resources, rules=GovernorRules(), monotonic_seconds=lambda: resources.now, chance=lambda count: bytes(count)
    )
    running = start_sidecar(ports={"governor": governor})

    async def fall_behind() -> None:
        for _ in range(20):
            governor.admit(Priority.NORMAL)
        governor.adjust(0.1, late_seconds=1.0)

    running.run(fall_behind())
    answers = [post(running, HELLO) for _ in range(20)]

    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 20
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} == {(503, "2")}
    assert "this caller has had its share" in refused[0].json()["detail"]
    urgent = running.client.post("/v1/moderate", json={"content": HELLO}, headers={"X-Baleen-Priority": "Critical"})
    assert urgent.status_code == 200


def over_grpc(running: RunningSidecar, count: int) -> list[str]:
    with connected(running) as client:
        calls = [client.moderate.future(text(), timeout=SECONDS) for _ in range(count)]
        return ["Decided" if call.exception() is None else call.details() for call in calls]


def over_websocket(running: RunningSidecar, count: int) -> list[str]:
    host, port = running.address
    with connect(f"ws://{host}:{port}/v1/stream", proxy=None) as connection:
        for _ in range(count):
            connection.send(json.dumps({"content": HELLO}))
        answers = [json.loads(connection.recv(timeout=SECONDS)) for _ in range(count)]
    return ["Decided" if "decision" in each else each["problem"]["detail"] for each in answers]


@pytest.mark.parametrize("ask", [over_grpc, over_websocket])
def test_messages_count_in_the_share_of_their_caller_as_requests_do(
    start_sidecar: StartSidecar, ask: Callable[[RunningSidecar, int], list[str]]
) -> None:
    resources = Resources()
    governor = Governor(
        resources, rules=GovernorRules(), monotonic_seconds=lambda: resources.now, chance=lambda count: bytes(count)
    )
    running = start_sidecar(ports={"governor": governor}, grpc_port=0)

    async def fall_behind() -> None:
        for _ in range(20):
            governor.admit(Priority.NORMAL)
        governor.adjust(0.1, late_seconds=1.0)

    running.run(fall_behind())
    answers = ask(running, 20)

    assert 0 < answers.count("Decided") < 20
    assert all("this caller has had its share" in each for each in answers if each != "Decided")


def test_a_tenant_that_floods_a_busy_process_takes_nothing_from_another(
    start_sidecar: StartSidecar, tmp_path: Path
) -> None:
    resources, shown = (
        Resources(),
        {name: make_key(bytes([number]) * 32) for number, name in enumerate(("many", "few"))},
    )
    keys = [api_key(f"key-of-{name}", key, tenant=name) for name, key in shown.items()]
    file = write_key_file(tmp_path / "keys.yaml", *keys)
    governor = Governor(
        resources, rules=GovernorRules(), monotonic_seconds=lambda: resources.now, chance=lambda count: bytes(count)
    )
    running = start_sidecar(ports={"governor": governor}, api_keys_file=file)

    def ask(who: str, count: int) -> list[int]:
        headers = {"X-API-Key": shown[who]}
        body = {"content": HELLO}
        return [running.client.post("/v1/moderate", json=body, headers=headers).status_code for _ in range(count)]

    async def fall_behind() -> None:
        governor.adjust(0.1, late_seconds=1.0)

    ask("many", 15), ask("few", 2)
    running.run(fall_behind())

    assert 503 in ask("many", 15)
    assert ask("few", 2) == [200, 200]


def test_without_a_governor_there_is_none_to_show(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(governor=False)

    assert running.client.get("/v1/governor").status_code == 404
