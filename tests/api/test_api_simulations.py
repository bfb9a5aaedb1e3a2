"""Simulations over HTTP: what a draft would have decided of the decisions on record, and when nobody can say."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from baleen_core.records import encode
from baleen_sidecar.ports import LoggedDecision
from baleen_sidecar.testing import FixedInference, MemoryDecisionLog
from decision_records import make_record
from policies import policy_manifest
from sidecars import RunningSidecar, StartSidecar, alter_database, post
from waiting import until

PATH = "/v1/policies/community/simulate"
GOOD = {"name": "good", "type": "Digest", "action": "Allow"}


def draft(
    review: str = "50%", block: str = "90%", *, signal: str = "text-safety.toxicity", **spec: Any
) -> dict[str, Any]:
    category = {"name": "toxicity", "signals": [{"name": signal, "review": review, "block": block}]}
    return policy_manifest(spec.pop("content", {}) | {"categories": [category]}, **spec)


def listed(kind: str, *entries: str, action: str = "Review") -> dict[str, Any]:
    """Write a request for the standing policy with one more list."""
    source = {"type": "ConfigMap", "name": "more", "key": "entries.txt"}
    content = {"lists": [{"name": "more", "type": kind, "action": action, "source": source}]}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "more", "namespace": "trust-safety"},
        "data": {"entries.txt": "\n".join(entries)},
    }
    return {"policy": draft(content=content), "contents": [config_map]}


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    """An application with three decisions on record, of which one would be another under a stricter policy."""
    started = start_sidecar(
        policies={"a.yaml": [draft()]},
        inference=FixedInference({"text-safety.toxicity": 0.3}),
    )
    for text in ("Good morning everybody, how are you?", "Guten Morgen zusammen, wie geht es euch?", "hello"):
        assert post(started, {"type": "text", "text": text}).json()["decision"] == "Allow"
    return started


def simulate(running: RunningSidecar, policy: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    response = running.client.post(PATH, json={"policy": policy or draft()} | fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_stricter_draft_flips_decisions_which_are_counted_by_category_and_language(running: RunningSidecar) -> None:
    answer = simulate(running, draft(review="20%", block="25%"))

    assert (answer["compared"], answer["unknown"], answer["elsewhere"], answer["ended"]) == (3, 0, 0, "EndOfLog")
    assert (answer["flip_rate"], answer["new_block_rate"], answer["new_allow_rate"]) == (1.0, 1.0, 0.0)
    assert answer["matrix"] == [[0, 0, 3], [0, 0, 0], [0, 0, 0]]
    (flip,) = answer["flips"]
    assert (flip["from"], flip["to"], flip["count"], len(flip["examples"])) == ("Allow", "Block", 3, 3)
    assert answer["categories"] == [
        {"name": "toxicity", "compared": 3, "flips": 3, "new_blocks": 3, "new_allows": 0, "matrix": answer["matrix"]}
    ]
    assert {each["name"]: each["flips"] for each in answer["languages"]} == {"de": 1, "en": 1, "none": 1}
    for decision_id in flip["examples"]:
        assert running.client.get(f"/v1/decisions/{decision_id}").json()["decision"] == "Allow"


def test_nothing_is_put_in_force_and_no_model_is_asked(start_sidecar: StartSidecar) -> None:
    inference = FixedInference()
    running = start_sidecar(policies={"a.yaml": [draft()]}, inference=inference)
    post(running, {"type": "text", "text": "hello"})
    before, calls = running.client.get("/v1/policies/community").json(), len(inference.calls)

    answer = simulate(running, draft(review="20%"))

    assert running.client.get("/v1/policies/community").json() == before
    assert answer["stable"] == before["summary"]["digest"] != answer["candidate"]
    assert (len(inference.calls), calls > 0) == (calls, True)


def test_the_standing_policy_flips_nothing(running: RunningSidecar) -> None:
    answer = simulate(running)

    assert (answer["stable"], answer["flips"]) == (answer["candidate"], [])
    assert answer["compared"] == 3


def test_no_more_decisions_are_compared_than_are_asked_for_and_the_newest_are(running: RunningSidecar) -> None:
    newest = post(running, {"type": "text", "text": "hello again"}).json()

    answer = simulate(running, draft(review="20%"), decisions=1)

    assert (answer["compared"], answer["ended"]) == (1, "Enough")
    assert answer["flips"][0]["examples"] == [newest["id"]]


@pytest.mark.parametrize(
    ("gate", "verdict", "reason"),
    [
        ({"decisions": 3, "max_flip_rate": "100%"}, "Pass", "WithinLimits"),
        ({"decisions": 3, "max_flip_rate": "99%"}, "Fail", "TooManyFlips"),
        ({"decisions": 3, "max_new_blocks": "0.5"}, "Pass", "WithinLimits"),
        ({"decisions": 4, "max_flip_rate": "100%"}, "Inconclusive", "TooFewDecisions"),
    ],
)
def test_a_gate_says_what_it_would_say(
    running: RunningSidecar, gate: dict[str, Any], verdict: str, reason: str
) -> None:
    answer = simulate(running, draft(review="20%"), gate=gate)

    assert (answer["gate"]["verdict"], answer["gate"]["reason"]) == (verdict, reason)


def test_scores_of_a_model_that_was_not_asked_are_missing(running: RunningSidecar) -> None:
    content = {"rules": [{"name": "nude", "when": "open_nsfw.unsafe > 0.5", "action": "Review"}]}
    for text_signal, missing in (("text-safety.hate", {}), ("toxicity.toxic", {"toxicity.toxic": 3})):
        answer = simulate(running, draft(signal=text_signal, content=content), gate={"decisions": 3})

        assert (answer["signals_missing"], answer["unknown"]) == (missing, sum(missing.values()))
        assert answer["gate"]["reason"] == ("SignalsMissing" if missing else "WithinLimits")


def test_a_list_of_terms_that_is_new_was_not_looked_up_and_one_of_digests_is_now(running: RunningSidecar) -> None:
    digest = running.run(running.sidecar.ports.log.recent(limit=1))[0].evidence.content.digest

    terms = running.client.post(PATH, json=listed("Terms", "morning") | {"gate": {"decisions": 3}}).json()
    digests = running.client.post(PATH, json=listed("Digest", digest, action="Block")).json()

    assert (terms["compared"], terms["unknown"], terms["lists_missing"]) == (0, 3, {"more": 3})
    assert terms["gate"]["reason"] == "ListsNotLookedUp"
    assert (digests["compared"], [flip["count"] for flip in digests["flips"]]) == (3, [1])


def test_a_list_that_was_looked_up_needs_not_be_looked_up_again(start_sidecar: StartSidecar) -> None:
    request = listed("Terms", "morning")
    running = start_sidecar(policies={"a.yaml": [*request["contents"], request["policy"]]})
    for text in ("Good morning everybody", "Good night everybody"):
        post(running, {"type": "text", "text": text})
    looser = {**request, "policy": draft(review="80%", content={"lists": request["policy"]["spec"]["policy"]["lists"]})}
    gone = {"policy": draft()}

    same, without = (running.client.post(PATH, json=each).json() for each in (looser, gone))

    assert (same["compared"], same["unknown"], same["flips"]) == (2, 0, [])
    assert [(flip["from"], flip["to"], flip["count"]) for flip in without["flips"]] == [("Review", "Allow", 1)]


def test_decisions_of_other_policies_are_not_looked_at(start_sidecar: StartSidecar) -> None:
    kids = {**draft(scope={"surface": "kids"}), "metadata": {"name": "kids", "namespace": "trust-safety"}}
    running = start_sidecar(policies={"a.yaml": [draft(), kids]})
    for surface in ("kids", "kids", "chat"):
        post(running, {"type": "text", "text": "hello"}, surface=surface)

    answer = simulate(running)

    assert (answer["compared"], answer["elsewhere"]) == (1, 2)


@pytest.mark.parametrize(
    ("request_body", "field", "said"),
    [
        pytest.param({"polcy": {}}, "polcy", "did you mean 'policy'", id="a misspelt field"),
        pytest.param({"policy": draft(signal="text-safety.toxcity")}, "policy.spec.policy.categories", "", id="a typo"),
        pytest.param({"policy": {**draft(), "kind": "Policy"}}, "policy.kind", "ModerationPolicy", id="no policy"),
        pytest.param({"policy": draft(), "decisions": 0}, "decisions", ">= 1", id="no decisions"),
        pytest.param({"policy": draft(), "decisions": 100_001}, "decisions", "<= 100000", id="too many decisions"),
        pytest.param(
            {"policy": draft(), "gate": {"decisions": 1, "max_flip_rate": "2"}},
            "gate.max_flip_rate",
            "is not a ratio",
            id="no ratio",
        ),
        pytest.param(
            {"policy": draft() | {"metadata": {"name": "other", "namespace": "trust-safety"}}},
            "policy.metadata",
            "asked is about trust-safety/community",
            id="another policy",
        ),
        pytest.param(
            {"policy": listed("Terms", "x")["policy"]},
            "policy.spec.policy.lists[0].source",
            "no ConfigMap",
            id="no list",
        ),
        pytest.param(
            {"policy": draft(), "contents": [{"kind": "Pod"}]}, "contents[0]", "metadata.name", id="no list either"
        ),
    ],
)
def test_what_is_wrong_with_a_draft_is_named(
    running: RunningSidecar, request_body: dict[str, Any], field: str, said: str
) -> None:
    response = running.client.post(PATH, json=request_body)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"].startswith(field)
    assert said in error["message"]


def test_a_policy_of_which_nothing_is_in_force_has_nothing_to_be_compared_with(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"a.yaml": [draft(signal="text-safety.toxcity")]})

    response = running.client.post(PATH, json={"policy": draft()})

    assert response.status_code == 404
    assert "no revision of the policy trust-safety/community is in force" in response.json()["detail"]


def test_a_damaged_record_is_said_to_be(running: RunningSidecar) -> None:
    alter_database(running.database, "UPDATE decisions SET record = '{}' WHERE sequence = 2")

    response = running.client.post(PATH, json={"policy": draft()})

    assert (response.status_code, response.json()["type"]) == (503, "urn:baleen:problem:state")


class SharedLog(MemoryDecisionLog):
    """A log that others read, too."""

    async def log_id(self) -> str:
        """Return its name."""
        return "baleen-gateway-0-4f1c"


@pytest.mark.parametrize(
    ("log", "named"),
    [
        pytest.param(SharedLog(), (["baleen-gateway-0-4f1c"] * 3), id="a log that others read"),
        pytest.param(MemoryDecisionLog(), [None, "", ""], id="its own"),
    ],
)
def test_what_is_said_of_the_decisions_on_record_says_of_which_log_they_are(
    start_sidecar: StartSidecar, log: MemoryDecisionLog, named: list[str | None]
) -> None:
    running = start_sidecar(policies={"a.yaml": [draft()]}, ports={"history": log})
    simulated = simulate(running)
    digest, path = simulated["stable"], "/v1/policies/community"
    surveys = [
        running.client.get(f"{path}/{each}").json() for each in ("performance", f"flips?from={digest}&to={digest}")
    ]

    assert [each.get("log") for each in (simulated, *surveys)] == named


class HeldHistory(MemoryDecisionLog):
    """A log that never ends: whoever reads it waits for a moment and gets a page of decisions of another policy."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.pages = 0
        self.pause_seconds = 0.02

    async def newest(self, *, before: int | None = None, limit: int) -> Sequence[LoggedDecision]:
        """Return as many decisions as are asked for."""
        self.asked.set()
        self.pages += 1
        await asyncio.sleep(self.pause_seconds)
        return [LoggedDecision(sequence=1, id="01", record=encode(make_record("01")))] * limit


def test_one_simulation_runs_at_a_time_and_requests_are_answered_meanwhile(start_sidecar: StartSidecar) -> None:
    history = HeldHistory()
    running = start_sidecar(policies={"a.yaml": [draft()]}, ports={"history": history})
    answers: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: answers.append(simulate(running, decisions=1_000)))
    first.start()
    assert history.asked.wait(30)

    refused = running.client.post(PATH, json={"policy": draft()})
    decided = post(running, {"type": "text", "text": "hello"})

    history.pause_seconds = 0
    first.join()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "one runs at a time" in refused.json()["detail"]
    assert decided.status_code == 200
    assert (answers[0]["ended"], answers[0]["elsewhere"], history.pages) == ("ScanLimit", 100_000, 1_000)


def test_whoever_hangs_up_ends_a_simulation(start_sidecar: StartSidecar) -> None:
    history = HeldHistory()
    running = start_sidecar(policies={"a.yaml": [draft()]}, ports={"history": history})
    with pytest.raises(httpx.TimeoutException):
        running.client.post(PATH, json={"policy": draft(), "decisions": 100_000}, timeout=0.5)
    history.pause_seconds = 0

    def next_one() -> bool:
        return running.client.post(PATH, json={"policy": draft(), "decisions": 1}).status_code == 200

    running.run(until(lambda: asyncio.to_thread(next_one)))
    # Of the 10,000 pages that it might have read.
    assert history.pages < 5_000
