"""What callers of `baleen serve` get while Triton, the disk or the process itself fails under load."""

import asyncio
import random
import resource
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from baleen_sidecar.adapters.store import SqliteDecisionReader, SqliteRevisionStore, verify_log
from baleen_sidecar.usecases.read_decisions import ReadDecisions
from serving import Answered, Load, Site, policy, serving, until
from store_files import check_integrity
from word_model import NONSENSE, SLOW

pytestmark = pytest.mark.triton

IMPATIENT = {"BALEEN_MODEL_TIMEOUT_SECONDS": "1", "BALEEN_VERIFY_INTERVAL_SECONDS": "1"}
MIB = 1024 * 1024


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.write_policy(policy(), policy("kids", surface="kids", onModelFailure="Block"))
    return site


def is_degraded(answered: Answered) -> bool:
    return answered.body.get("degraded") == ["words"]


def check_answered_by_the_policy(load: Load) -> None:
    """Nobody was refused, and who met a failing model got what the policy says for that."""
    assert {each.status for each in load.answered} == {200}
    assert {each.body["decision"] for each in load.answered if is_degraded(each)} == {"Review"}
    assert {each.body["decision"] for each in load.answered if not is_degraded(each)} == {"Allow"}


def check_healthy_again(running, load: Load) -> None:
    """From some moment on, nobody meets a failing model."""
    until(lambda: running.get("/ready")["degraded"] == [])
    healthy = time.monotonic()
    until(lambda: sum(each.begun > healthy for each in list(load.answered)) > 20)

    assert not any(is_degraded(each) for each in load.answered if each.begun > healthy)


def test_with_triton_killed_under_load_every_request_is_answered_as_the_policy_says(site):
    with serving(site, **IMPATIENT) as running:
        triton, ready_before = running.triton, running.client.get("/ready")
        with Load(running.url) as load:
            load.wait_for(20)
            triton.kill()
            until(lambda: is_degraded(load.answered[-1]))
            kids = running.decide("kind words", surface="kids")
            ready = running.client.get("/ready")
            check_healthy_again(running, load)

        assert kids["decision"] == "Block"
        assert kids["degraded"] == ["words"]
        assert [reason["type"] for reason in kids["reasons"]] == ["ModelFailure"]
        assert (ready_before.status_code, ready.status_code) == (200, 200)
        assert ready.json()["degraded"] == ["model/words"]
        assert running.triton != triton
        check_answered_by_the_policy(load)


def test_with_triton_killed_again_and_again_under_load_it_comes_back_each_time(site):
    with serving(site, **IMPATIENT) as running, Load(running.url) as load:
        for _ in range(3):
            triton = running.triton
            triton.kill()
            until(lambda triton=triton: not triton.is_running())
            check_healthy_again(running, load)
    check_answered_by_the_policy(load)


def test_with_triton_stopped_nobody_waits_longer_than_the_model_may_take_and_it_is_replaced(site):
    with serving(site, **IMPATIENT) as running:
        triton = running.triton
        with Load(running.url) as load:
            load.wait_for(20)
            triton.suspend()
            check_healthy_again(running, load)

        assert running.triton != triton
        assert any(is_degraded(each) for each in load.answered)
        assert max(each.ended - each.begun for each in load.answered) < 3
        check_answered_by_the_policy(load)


def test_a_model_that_hangs_while_triton_answers_is_found_and_replaced(site):
    with serving(site, **IMPATIENT) as running:
        stub = running.stub
        with Load(running.url) as load:
            load.wait_for(20)
            stub.suspend()
            until(lambda: is_degraded(load.answered[-1]))
            until(lambda: not stub.is_running())
            check_healthy_again(running, load)

        assert max(each.ended - each.begun for each in load.answered) < 3
        check_answered_by_the_policy(load)


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        pytest.param(f"a {SLOW} word", {"BALEEN_MODEL_TIMEOUT_SECONDS": "0.1"}, id="slow"),
        pytest.param(f"a {NONSENSE} word", {}, id="not a number"),
    ],
)
def test_a_model_without_a_usable_answer_is_a_model_failure_and_the_next_text_is_judged_again(site, text, environment):
    with serving(site, **environment) as running:
        begun = time.monotonic()
        failed, strict = running.decide(text), running.decide(text, surface="kids")
        seconds = time.monotonic() - begun
        until(lambda: not running.decide("kind words")["degraded"])

        assert (failed["decision"], strict["decision"]) == ("Review", "Block")
        assert failed["degraded"] == ["words"]
        assert failed["categories"][0]["score"] is None
        assert seconds < 3
        assert running.decide("vile words")["decision"] == "Block"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_end_lets_requests_in_flight_finish_and_leaves_nothing(site, number):
    slow: list[dict] = []
    with serving(site) as running, Load(running.url) as load:
        load.wait_for(20)
        caller = threading.Thread(target=lambda: slow.append(running.decide(f"a {SLOW} word")))
        caller.start()
        time.sleep(0.2)
        signalled = time.monotonic()
        running.process.send_signal(number)
        caller.join()
        status = running.wait()
    # What was begun in the last moments may have met a connection that was being closed.
    earlier = [each.status for each in load.answered if each.begun < signalled - 0.1]

    assert status == 0
    assert [decision["decision"] for decision in slow] == ["Block"]
    assert set(earlier) == {200}
    assert "Traceback" not in running.text()


def test_triton_ends_with_a_killed_sidecar_and_the_next_one_goes_on_with_its_state(site):
    with serving(site) as running:
        family = [running.triton, *running.triton.children(recursive=True)]
        before = running.decide("vile words")
        running.process.kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        status = running.wait()
        with serving(site) as following:
            after = following.get(f"/v1/decisions/{before['id']}")
            again = following.client.post(f"/v1/decisions/{before['id']}/replay").json()

    assert status == -signal.SIGKILL
    assert alive == []
    assert after["decision"] == "Block"
    assert again["identical"] is True


def test_no_acknowledged_decision_is_missing_after_five_kills_under_load(site):
    chance = random.Random(1)
    acknowledged: list[str] = []
    for word in ("kind", "rude", "vile", "kind", "rude"):
        with serving(site) as running:
            # What a killed one could not clear away, the next one does.
            (folder,) = site.runs.glob("baleen-*")
            with Load(running.url, callers=8, word=word) as load:
                load.wait_for(20)
                time.sleep(chance.uniform(0, 0.4))
                running.process.kill()
                running.wait()
            acknowledged += [each.body["id"] for each in load.with_status(200)]

            assert len(load.with_status(0)) == 8
            assert folder.exists()
    differing = asyncio.run(replay_all(site.database, acknowledged))

    assert len(set(acknowledged)) == len(acknowledged) >= 100
    assert check_integrity(site.database) == "ok"
    assert differing == {}
    found = verify_log(site.database)
    assert (found.fault, found.outside) == (None, 0)
    assert found.rows >= len(acknowledged)


async def replay_all(database: Path, ids: list[str]) -> dict[str, tuple[str, ...]]:
    """Make every decision once more, and return what differs by id; a missing one raises."""
    reader = SqliteDecisionReader(database)
    store = SqliteRevisionStore(database, read_only=True)
    decisions = ReadDecisions(reader, store, frozenset)
    try:
        replayed = {each: (await decisions.replay(each)).differences for each in ids}
    finally:
        reader.close()
        store.close()
    return {each: differences for each, differences in replayed.items() if differences}


def test_while_the_log_cannot_be_written_requests_are_refused_and_none_is_decided_off_the_record(site):
    with serving(site) as running, Load(running.url) as load:
        load.wait_for(20)
        process = psutil.Process(running.pid)
        soft, hard = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (0, hard))
        load.wait_for(20, status=503)
        refused, health = load.with_status(503)[0], running.client.get("/health")
        process.rlimit(resource.RLIMIT_FSIZE, (soft, hard))
        full_until = time.monotonic()
        until(lambda: sum(each.begun > full_until + 1 for each in load.with_status(200)) > 20)
        answered = {each.body["id"] for each in load.with_status(200)}
        recorded = {each.id for each in asyncio.run(read_recent(site.database))}

    assert health.status_code == 200
    assert {each.status for each in load.answered} == {200, 503}
    after = [each for each in load.answered if each.begun > full_until + 1 and each.status != 200]
    # A machine that is busy with other tests may be too busy for a request.
    assert [each.body for each in after if each.body["type"] != "urn:baleen:problem:overloaded"] == []
    assert refused.body["type"] == "urn:baleen:problem:log-unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    assert answered <= recorded
    assert "Traceback" not in running.text()


def test_with_a_nearly_full_disk_only_strict_decisions_are_made_and_with_a_full_one_none(site):
    site.state.mkdir()
    disk = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=80m tmpfs {site.state} && exec "$@"', "sh")
    with serving(site, before=disk) as running:
        filler = Path(f"/proc/{running.pid}/root{site.state}/filler")
        with_room = running.moderate("kind words")
        filler.write_bytes(bytes(40 * MIB))
        until(lambda: running.moderate("kind words").status_code == 503, seconds=10)
        nearly_full = {word: running.moderate(f"{word} words").status_code for word in ("kind", "rude", "vile")}
        message = running.moderate("kind words").json()["detail"]
        fill_up(filler)
        # What was written before may be written over until then.
        until(lambda: running.moderate("vile words").status_code == 503, seconds=10)
        full = running.moderate("vile words")
        filler.unlink()
        until(lambda: running.moderate("kind words").status_code == 200, seconds=10)

        assert with_room.status_code == 200
        assert nearly_full == {"kind": 503, "rude": 200, "vile": 200}
        assert "MiB are free on " in message
        assert full.status_code == 503
        assert full.json()["type"] == "urn:baleen:problem:log-unavailable"
        assert int(full.headers["retry-after"]) >= 1
        assert running.decide("vile words")["decision"] == "Block"


def fill_up(file: Path) -> None:
    """Leave no room for another page."""
    with file.open("ab", buffering=0) as stream:
        try:
            while stream.write(bytes(MIB)):
                pass
        except OSError:
            return


async def read_recent(database: Path):
    reader = SqliteDecisionReader(database)
    try:
        return await reader.recent(limit=1_000_000)
    finally:
        reader.close()
