"""Everything around `baleen serve` fails, one after the other, while callers of all kinds ask; and nothing comes of it.

After each fault it is looked up: every decision that was answered is on record as it was answered, each of them is
right or says which model it had to do without, and whatever was under way has come to its end.

`BALEEN_CHAOS_ROUNDS=3` takes every fault so often, longer and with more callers, and an outage of half a minute.
"""

import asyncio
import contextlib
import itertools
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import psutil
import pytest

from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.shared_redis import MAX_CONNECTIONS
from baleen_sidecar.adapters.store import SqliteDecisionReader, verify_log
from chaos_load import ON_FAILURE, REMEMBERED, Asked, ChaosLoad, Question, Questions
from chaos_site import HEADERS, LIES, Levels, Plant, plant
from redis_server import running_redis
from serving import until
from store_files import check_integrity

pytestmark = pytest.mark.triton

ROUNDS = int(os.environ.get("BALEEN_CHAOS_ROUNDS", "0"))
IS_LONG = ROUNDS > 0
RATE = 30.0 if IS_LONG else 20.0
HOLD_SECONDS = 3.0 if IS_LONG else 0.5
CROWD = 1000 if IS_LONG else 200
OUTAGE_SECONDS = 30.0
CROWDS = itertools.count(1_000_000, CROWD)
"""The first question of each crowd: none is asked twice."""
SHARED = {"SharedQuotas", "SharedCache"}
"""What every decision may say, whenever Redis is not fast enough for it: that is no fault of this suite's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`inflict` has it happen and end. Meanwhile decisions may be made without the model, or refused for the log."""

    name: str
    inflict: Callable[[Plant, ChaosLoad], None]
    model_is_gone: bool = True
    log_is_gone: bool = False


@contextlib.contextmanager
def paused(process: psutil.Process) -> Iterator[None]:
    """Have it do nothing for a while, unless somebody replaces it meanwhile."""
    process.suspend()
    yield
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def kill_triton(plant: Plant, load: ChaosLoad) -> None:
    plant.running.triton.kill()
    time.sleep(HOLD_SECONDS)


def stop_triton(plant: Plant, load: ChaosLoad) -> None:
    """It hangs until it is replaced."""
    triton = plant.running.triton
    triton.suspend()
    until(lambda: not triton.is_running())


def stop_model(plant: Plant, load: ChaosLoad) -> None:
    """Triton answers, and its model hangs until all of it is replaced."""
    stub = plant.running.stub
    stub.suspend()
    until(lambda: not stub.is_running())


def pause_triton(plant: Plant, load: ChaosLoad) -> None:
    """It hangs, and goes on with all that it was asked meanwhile."""
    with paused(plant.running.triton):
        time.sleep(1.5)


def lie(how: str) -> Fault:
    def inflict(plant: Plant, load: ChaosLoad) -> None:
        plant.feel(how)
        time.sleep(HOLD_SECONDS)
        plant.feel("")

    return Fault(name=f"model says {how}", inflict=inflict)


def slow_down(plant: Plant, load: ChaosLoad) -> None:
    plant.feel("slow")
    time.sleep(2 * HOLD_SECONDS)
    plant.feel("")


def kill_redis(plant: Plant, load: ChaosLoad) -> None:
    plant.redis.stop()
    until(lambda: seen(load) >= SHARED)
    plant.redis.start()


def stop_redis(plant: Plant, load: ChaosLoad) -> None:
    with plant.redis.stopped():
        until(lambda: seen(load) >= SHARED)
        time.sleep(HOLD_SECONDS)


def fill_disk(plant: Plant, load: ChaosLoad) -> None:
    process = psutil.Process(plant.running.pid)
    soft, hard = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, hard))
    begun = time.monotonic()
    until(lambda: sum(each.status == 503 for each in load.since(begun)) > 10)
    time.sleep(HOLD_SECONDS)
    process.rlimit(resource.RLIMIT_FSIZE, (soft, hard))


def crowd(plant: Plant, load: ChaosLoad) -> None:
    """Callers come in crowds to a model that hangs, and all of them give up, some in the middle of their request."""
    with paused(plant.running.triton):
        load.ask_all(Questions(1, first=next(CROWDS)).giving_up(CROWD, within_seconds=0.3), at_once=200)


def hold_down(plant: Plant, load: ChaosLoad) -> None:
    """It is killed as often as it comes back."""
    over = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < over:
        for each in psutil.Process(plant.running.pid).children():
            if "--model-repository" in each.cmdline():
                each.kill()
        time.sleep(0.2)


FIRST = Fault(name="Triton killed", inflict=kill_triton)
"""After it the model does as it is told."""
FAULTS = (
    Fault(name="Triton paused", inflict=pause_triton),
    *(lie(how) for how in LIES),
    Fault(name="model slow", inflict=slow_down),
    Fault(name="Redis killed", inflict=kill_redis, model_is_gone=False),
    Fault(name="Redis stopped", inflict=stop_redis, model_is_gone=False),
    Fault(name="disk full", inflict=fill_disk, model_is_gone=False, log_is_gone=True),
    Fault(name="crowd of callers gives up", inflict=crowd),
)
LONG = (
    FIRST,
    Fault(name="Triton stopped", inflict=stop_triton),
    Fault(name="model stopped", inflict=stop_model),
    Fault(name="outage", inflict=hold_down),
)


def seen(load: ChaosLoad) -> set[str]:
    """Return what the last decisions say that was not as it should be."""
    answered = [each for each in list(load.asked) if each.status == 200][-20:]
    return {each for asked in answered for each in asked.body.get("degraded", ())}


@pytest.mark.timeout(1800 if IS_LONG else 240)
def test_whatever_fails_no_decision_is_lost_or_wrong_and_nothing_is_left_under_way(tmp_path):
    seed = int(os.environ.get("BALEEN_CHAOS_SEED") or random.randrange(2**31))
    chance = random.Random(seed)
    questions = Questions(seed)
    with running_redis() as redis, plant(tmp_path, redis) as running:
        story = Story(running, questions, chance)
        print(f"seed {seed}")
        story.warm_up()
        story.tell(FIRST)
        before = running.levels()
        for _ in range(ROUNDS or 1):
            faults = [*FAULTS, *(LONG if IS_LONG else ())]
            chance.shuffle(faults)
            for fault in faults:
                story.tell(fault)
                story.check_levels(before, fault)
        text = running.running.text()
    found = verify_log(running.site.database)

    assert "Traceback" not in text, text[-6000:]
    assert check_integrity(running.site.database) == "ok"
    assert (found.fault, found.outside) == (None, 0)


class Story:
    """What is done to a plant, and what came of it."""

    def __init__(self, plant: Plant, questions: Questions, chance: random.Random) -> None:
        self._plant = plant
        self._questions = questions
        self._chance = chance
        self.asked: list[Asked] = []

    def warm_up(self) -> None:
        """Ask once what is asked again and again: from now on it is remembered."""
        with self._load() as load:
            load.ask_all([self._questions.remembered(place) for place in range(REMEMBERED)], at_once=4)
        self._plant.settle()
        self._check("warm up", load.asked, Fault(name="", inflict=kill_triton))

    def tell(self, fault: Fault) -> None:
        """Let a fault happen at some moment under load and end, and check what came of it."""
        begun = time.monotonic()
        with self._load() as load:
            time.sleep(self._chance.uniform(0.1, 0.4))
            fault.inflict(self._plant, load)
            healed = time.monotonic()
            until(self._is_well, seconds=90)
            well = time.monotonic()
            # A server that was away works off what waited for it: on a busy machine one more call may come too late.
            until(lambda: count_judged_in_the_end(load.since(well)) > 20, seconds=90)
        self._plant.settle()
        statuses = Counter(each.status for each in load.asked)
        seconds = f"well after {well - healed:.1f} s, {time.monotonic() - begun:.1f} s in all"
        degraded = sum(each.is_degraded for each in load.asked)
        print(f"{fault.name}: {seconds}, {dict(statuses)}, {degraded} degraded, {self._plant.levels()}")
        self._check(fault.name, load.asked, fault)

    def check_levels(self, before: Levels, fault: Fault) -> None:
        """See that as much is open as before."""
        grown: list[str] = []

        def is_as_before() -> bool:
            now = self._plant.levels()
            grown[:] = [
                f"{name} {getattr(before, name)} -> {getattr(now, name)}"
                for name, more in SPARE.items()
                if getattr(now, name) > getattr(before, name) + more
            ]
            if now.redis_clients > REDIS_CLIENTS:
                grown.append(f"redis_clients {now.redis_clients}")
            return not grown

        try:
            until(is_as_before, seconds=20)
        except AssertionError:
            what = f"{self._plant.open_files()}, sockets: {self._plant.sockets()}"
            raise AssertionError(f"after {fault.name}: {grown}; open are {what}") from None

    def _load(self) -> ChaosLoad:
        seed = self._chance.randrange(2**31)
        return ChaosLoad(self._plant.running.url, self._questions, rate=RATE, headers=HEADERS, seed=seed)

    def _is_well(self) -> bool:
        plant = self._plant
        breakers = plant.get("/v1/breakers")["breakers"]
        return plant.get("/ready")["degraded"] == [] and all(each["state"] == "Closed" for each in breakers)

    def _check(self, what: str, asked: Iterable[Asked], fault: Fault) -> None:
        self.asked += asked
        wrong = [f"{each}: {why}" for each in asked if (why := find_fault(each, fault))]
        assert not wrong, f"{what}: {len(wrong)} wrong, such as\n" + "\n".join(wrong[:5])
        records = asyncio.run(read_all(self._plant))
        missing = find_differences(self.asked, records)
        assert not missing, f"{what}: {len(missing)} rows differ, such as\n" + "\n".join(missing[:5])
        assert "Traceback" not in self._plant.running.text(), self._plant.running.text()[-6000:]


SPARE = {
    "files": 3,
    # Pools of readers of decisions and of revisions, of five connections each, with three files for each of them.
    "database_files": 2 * 5 * 3,
    "threads": 6,
    "tasks": 0,
    "connections": 0,
    "body_bytes": 0,
}
"""By how much what is open may be more than before: pools grow to their size once."""
REDIS_CLIENTS = 2 * MAX_CONNECTIONS
"""Of two pools, one for scores and one for quotas."""


def count_judged_in_the_end(asked: Iterable[Asked]) -> int:
    """Count the decisions since the last one for which the model was missing."""
    in_order = sorted(asked, key=lambda each: each.begun, reverse=True)
    return sum(each.status == 200 for each in itertools.takewhile(lambda each: not each.is_degraded, in_order))


def find_fault(asked: Asked, fault: Fault) -> str:
    """Say what is wrong with an answer; empty: nothing."""
    question, body = asked.question, asked.body
    match asked.status:
        case 200:
            return find_wrong(question, body, fault)
        case 0:
            return "" if question.gives_up_after is not None else "it was not answered"
        case 503 | 504 if question.deadline_ms is not None:
            return ""
        case 503 if fault.model_is_gone and body["type"] == "urn:baleen:problem:overloaded":
            # Work has piled up before it meanwhile, and a busy machine is long in doing it.
            return ""
        case 503 if fault.log_is_gone and body["type"] == "urn:baleen:problem:log-unavailable":
            return "" if int(asked.headers["retry-after"]) >= 1 else "it does not say when to come again"
    return "it was refused"


def find_wrong(question: Question, body: dict, fault: Fault) -> str:
    """Say what is wrong with a decision."""
    degraded = set(body.get("degraded", ())) - SHARED
    if not degraded:
        scores = {each["score"] for each in body["categories"] if each["name"] == "rudeness"}
        wanted = set() if question.score is None else {question.score}
        return "" if body["decision"] == question.verdict and scores == wanted else f"{question.verdict} is right"
    if not fault.model_is_gone or question.kind != "Model":
        return "no model was missing for it"
    is_later = question.tenant == "later"
    if degraded != {"words", *(["RescanDebt"] if is_later else [])}:
        return "it says something else that is missing"
    if body["decision"] != ON_FAILURE[question.tenant]:
        return f"without the model it is {ON_FAILURE[question.tenant]}"
    return ""


def find_differences(asked: Sequence[Asked], records: Sequence[DecisionRecord]) -> list[str]:
    """Name what was answered and is not on record as it was answered, and what is on record and not right."""
    return [*find_unrecorded(asked, records), *find_twice(asked, records), *find_wrongly_recorded(asked, records)]


def find_unrecorded(asked: Iterable[Asked], records: Iterable[DecisionRecord]) -> Iterator[str]:
    by_id = {each.id: each for each in records}
    for each in asked:
        if each.status != 200:
            continue
        record = by_id.get(each.body["id"])
        if record is None:
            yield f"not on record: {each}"
        elif as_told(record) != (each.body["decision"], round(each.body["score"] * 1e6), each.body["degraded"]):
            yield f"on record as {as_told(record)}: {each}"


def find_twice(asked: Iterable[Asked], records: Sequence[DecisionRecord]) -> Iterator[str]:
    """Name ids that several rows have, and questions that were asked again with their key and decided again."""
    numbers = {each.request_id: each.question.number for each in asked if each.question.is_retried}
    first = [each for each in records if not each.rescan_of]
    for what, counted in (
        ("id", Counter(each.id for each in records)),
        ("idempotency key", Counter(numbers[each.request_id] for each in first if each.request_id in numbers)),
    ):
        yield from (f"{count} rows of {what} {name}" for name, count in counted.items() if count > 1)


def find_wrongly_recorded(asked: Iterable[Asked], records: Sequence[DecisionRecord]) -> Iterator[str]:
    """Also of callers who had gone, and second looks."""
    questions = {each.request_id: each.question for each in asked}
    by_id = {each.id: each for each in records}
    for record in records:
        first = by_id.get(record.rescan_of) if record.rescan_of else record
        question = questions.get(first.request_id) if first is not None else None
        if question is None:
            yield f"nobody asked for {record.id} {record.request_id} {record.rescan_of}"
        elif record.evidence.missing:
            if record.rescan_of or question.kind != "Model":
                yield f"without the model: {question}"
        elif record.decision.decision.value != question.verdict:
            yield f"on record as {record.decision.decision}, not {question.verdict}: {question}"


def as_told(record: DecisionRecord) -> tuple[str, int, list[str]]:
    """Return of a row what its caller was told."""
    return record.decision.decision.value, record.decision.score, list(record.decision.degraded)


async def read_all(plant: Plant) -> list[DecisionRecord]:
    """Return every row of the log."""
    reader = SqliteDecisionReader(plant.site.database)
    try:
        return list(await reader.recent(limit=1_000_000))
    finally:
        reader.close()
