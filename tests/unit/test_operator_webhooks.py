"""The webhooks' server under load and faults; what it answers otherwise is tried on a real API server."""

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from baleen_core.errors import ClusterError
from baleen_core.policy.grants import Grants
from baleen_operator.adapters import webhooks as tested
from baleen_operator.adapters.certificates import make_pair
from baleen_operator.adapters.webhooks import ListedModels, Webhooks, webhook_server
from baleen_operator.main import Threads
from baleen_operator.metrics import Metrics
from baleen_operator.plan.admission import Asked
from baleen_operator.plan.injection import InjectionRules

POD = {"metadata": {}, "spec": {"containers": [{"name": "app"}]}}


def review(found: Any = POD) -> bytes:
    request = {"uid": "1", "namespace": "shop", "object": found}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


async def quickly() -> str:
    return "gates.backtest: Fail"


async def never() -> str:
    await asyncio.sleep(60)
    return "too late"


async def broken() -> str:
    raise RuntimeError("a fault")


TRIED = {"quickly": quickly, "never": never, "broken": broken}
"""What becomes of a backtest, by the question's id."""
RULE = {"name": "links", "when": "content.links > 3", "action": "Review"}
POLICY = {"metadata": {"name": "community"}, "spec": {"policy": {"rules": [RULE]}}}


class Slowed:
    """Threads whose work waits until it is let go."""

    def __init__(self) -> None:
        self.threads, self.go, self.begun = Threads(), threading.Event(), 0
        self.is_full = asyncio.Event()

    def __call__(self, work: Callable[[], Any]) -> Any:
        self.begun += 1
        if self.begun == 2:
            self.is_full.set()
        return self.threads(lambda: (self.go.wait(30), work())[1])


@pytest.fixture
def slowed() -> Slowed:
    return Slowed()


@pytest.fixture
def stamping() -> Slowed:
    return Slowed()


@pytest.fixture
async def client(slowed: Slowed, stamping: Slowed, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    made = make_pair(("127.0.0.1",), datetime.now(UTC), timedelta(hours=1))
    for name, data in {"crt": made.certificate, "key": made.key}.items():
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")

    async def models() -> tuple[()]:
        return ()

    async def backtest(asked: Asked) -> str:
        return await TRIED[asked.uid]()

    rules, metrics = InjectionRules(image="sidecar"), Metrics()
    webhooks = Webhooks(
        rules=rules,
        grants=Grants(),
        namespaces=(),
        models=models,
        metrics=metrics,
        off_loop=slowed,
        stamps_off_loop=stamping,
        backtest=backtest,
    )
    trust = ssl.create_default_context(cadata=made.authority.decode())
    async with webhook_server("127.0.0.1", 0, context, webhooks) as port:
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False) as client:
            yield client
        slowed.go.set()
        stamping.go.set()


@pytest.fixture
def answer_seconds() -> float:
    return 0.3


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch, answer_seconds: float) -> None:
    monkeypatch.setattr(tested, "ANSWER_SECONDS", answer_seconds)
    monkeypatch.setattr(tested, "MAX_AT_ONCE", 2)


async def test_what_takes_too_long_is_answered_in_time_and_keeps_its_place_until_it_is_done(
    client: httpx.AsyncClient, slowed: Slowed
):
    answers = await asyncio.gather(*(client.post("/pods", content=review()) for _ in range(5)))

    assert [each.status_code for each in answers] == [503] * 5
    assert "too much to do" in answers[0].text
    # Nothing piles up behind those that go on.
    assert slowed.begun == 2
    slowed.go.set()
    after = await client.post("/pods", content=review())
    assert after.json()["response"]["allowed"] is True


@pytest.mark.parametrize("answer_seconds", [30.0])
async def test_who_wrote_something_is_answered_while_nothing_else_is(
    client: httpx.AsyncClient, slowed: Slowed, stamping: Slowed
):
    stamping.go.set()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(client.post("/pods", content=review()))
        await slowed.is_full.wait()
        stamps = [await client.post(path, content=review()) for path in ("/applied-by", "/approved-by")]
        slowed.go.set()

    assert [each.status_code for each in stamps] == [200, 200]


@pytest.mark.parametrize("answer_seconds", [30.0])
async def test_who_wrote_something_is_not_answered_later_than_it_is_waited_for(client: httpx.AsyncClient):
    answer = await client.post("/applied-by", content=review())

    assert (answer.status_code, answer.text) == (503, "no answer in 1.5 s: there is too much to do")


async def test_who_sends_too_slowly_or_too_much_takes_no_place_for_long(client: httpx.AsyncClient, slowed: Slowed):
    slowed.go.set()

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(2)

    slow = await asyncio.gather(*(client.post("/pods", content=dripping()) for _ in range(2)), return_exceptions=True)
    large = [(await client.post("/pods", content=b" " * (tested.MAX_BYTES + 1))).status_code for _ in range(3)]
    wrong = [(await client.post("/policies", content=b"{}")).status_code for _ in range(3)]
    after = await client.post("/pods", content=review())

    assert all(isinstance(each, Exception) or each.status_code == 503 for each in slow)
    assert (large, wrong) == ([413] * 3, [400] * 3)
    assert after.status_code == 200


async def test_models_are_those_of_a_while_ago_when_the_api_server_does_not_answer():
    class Cluster:
        answers = False

        async def relist(self, kinds: object, namespaces: object) -> None:
            if not self.answers:
                raise ClusterError("no answer")

    class Seen:
        def models(self) -> tuple[str, ...]:
            return ("a model",)

    cluster = Cluster()
    models = ListedModels(cluster, Seen(), ())
    first = await models()
    cluster.answers = True
    second = await models()
    cluster.answers = False

    assert (first, second, await models()) == (None, ("a model",), ("a model",))


@pytest.mark.parametrize("answer_seconds", [1.0])
@pytest.mark.parametrize(
    ("uid", "dry_run", "told"),
    [
        pytest.param("quickly", True, "gates.backtest: Fail", id="it says something"),
        pytest.param("never", True, "the backtest could not be asked: there was no time left", id="it takes too long"),
        pytest.param("broken", True, "the backtest could not be asked: by a fault", id="it fails"),
        pytest.param("broken", False, "", id="it is no dry run"),
    ],
)
async def test_whatever_becomes_of_a_backtest_a_policy_is_admitted_in_time(
    client: httpx.AsyncClient, slowed: Slowed, monkeypatch: pytest.MonkeyPatch, uid: str, dry_run: bool, told: str
):
    monkeypatch.setattr(tested, "SPARE_SECONDS", 0.9)
    slowed.go.set()
    asking = json.loads(review(POLICY))
    asking["request"] |= {"uid": uid, "dryRun": dry_run}
    answer = await client.post("/policies", json=asking)

    assert answer.status_code == 200
    response = answer.json()["response"]
    assert response["allowed"]
    assert [each.startswith(told) for each in response.get("warnings", [])] == ([True] if told else [])
