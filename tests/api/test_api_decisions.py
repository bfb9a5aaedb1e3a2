"""Decisions on record: read, explained and replayed, and what happens when a stored revision was altered."""

from typing import Any

import pytest

from baleen_core.records import POLICY_SOURCE
from baleen_sidecar.testing import FixedInference
from media import encode, grey, steady, video
from sidecars import EXAMPLES, RunningSidecar, StartSidecar, alter_database, post

ABUSE = (EXAMPLES / "content" / "english-abusive.txt").read_bytes()
CONTENTS = [
    pytest.param(ABUSE, "text/plain", id="text"),
    pytest.param((EXAMPLES / "content" / "astronaut.jpg").read_bytes(), "image/jpeg", id="image"),
    pytest.param(video(steady(1)), "video/mp4", id="video"),
]


def judge(running: RunningSidecar, data: bytes = ABUSE, media_type: str = "text/plain") -> dict[str, Any]:
    response = running.client.post(
        "/v1/moderate", content=data, headers={"Content-Type": media_type}, params={"author.age_days": "3"}
    )
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(("data", "media_type"), CONTENTS)
def test_a_decision_is_read_back_as_it_was_given(sidecar: RunningSidecar, data: bytes, media_type: str) -> None:
    given = judge(sidecar, data, media_type)

    assert sidecar.client.get(f"/v1/decisions/{given['id']}").json() == given


@pytest.mark.parametrize(("data", "media_type"), CONTENTS)
def test_a_decision_is_explained_in_sentences(sidecar: RunningSidecar, data: bytes, media_type: str) -> None:
    given = judge(sidecar, data, media_type)

    answer = sidecar.client.get(f"/v1/decisions/{given['id']}/explain").json()

    assert (answer["id"], answer["decision"]) == (given["id"], given["decision"])
    assert answer["explanation"][0] == f"The decision is {given['decision']} with {given['risk']} risk."
    told = " ".join(answer["explanation"])
    assert "The Moderation policy community v1.0.0" in told
    assert "The floor company-floor" in told
    assert all(sentence.endswith(".") for sentence in answer["explanation"])


@pytest.mark.parametrize(("data", "media_type"), CONTENTS)
def test_a_replay_gives_the_same_decision_bit_for_bit(sidecar: RunningSidecar, data: bytes, media_type: str) -> None:
    given = judge(sidecar, data, media_type)

    answer = sidecar.client.post(f"/v1/decisions/{given['id']}/replay").json()

    assert answer == {
        "id": given["id"],
        "identical": True,
        "decision": given["decision"],
        "replayed": given["decision"],
        "differences": [],
    }


def test_a_replay_judges_by_the_revision_of_then_and_not_by_todays(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(inference=FixedInference({"text-safety.toxicity": 0.99}))
    given = judge(running)
    path = running.settings.policies / "community.yaml"
    path.write_text(path.read_text().replace("v1.0.0", "v2.0.0").replace("block: 92%", "block: 100%"))
    running.reload()

    again = running.client.post(f"/v1/decisions/{given['id']}/replay").json()

    assert (given["decision"], judge(running)["decision"]) == ("Block", "Review")
    assert (again["identical"], again["replayed"]) == (True, "Block")


def test_while_the_source_of_policies_is_lost_every_decision_says_so_and_is_replayed_as_it_was(
    start_sidecar: StartSidecar,
) -> None:
    lost = [POLICY_SOURCE]
    running = start_sidecar(
        inference=FixedInference({"text-safety.toxicity": 0.99}, down={"toxicity"}),
        ports={"degraded": lambda: tuple(lost)},
    )
    given = judge(running)
    lost.clear()
    afterwards = judge(running)
    again = running.client.post(f"/v1/decisions/{given['id']}/replay").json()
    metrics = running.client.get("/metrics").text

    assert (given["degraded"], afterwards["degraded"]) == (["toxicity", "PolicySource"], ["toxicity"])
    assert (again["identical"], again["differences"]) == (True, [])
    # It counts models.
    assert 'baleen_decisions_degraded_total{model="toxicity"} 2.0' in metrics
    assert 'model="PolicySource"' not in metrics


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/v1/decisions/01m8317yvstzd1njbv8ftg6emc", 404, id="unknown"),
        pytest.param("GET", "/v1/decisions/%00%27--", 404, id="hostile"),
        pytest.param("GET", "/v1/decisions/" + "a" * 65, 422, id="too long"),
        pytest.param("GET", "/v1/decisions/nothing/explain", 404, id="explain what is not there"),
        pytest.param("POST", "/v1/decisions/nothing/replay", 404, id="replay what is not there"),
    ],
)
def test_an_id_that_is_not_on_record_is_said_to_be_so(
    sidecar: RunningSidecar, method: str, path: str, status: int
) -> None:
    response = sidecar.client.request(method, path)

    assert (response.status_code, response.json()["status"]) == (status, status)


@pytest.mark.parametrize(("method", "verb"), [("GET", "explain"), ("POST", "replay")])
def test_an_altered_revision_explains_and_replays_nothing(start_sidecar: StartSidecar, method: str, verb: str) -> None:
    running = start_sidecar(inference=FixedInference({"text-safety.toxicity": 0.99}))
    given = judge(running)
    digest = given["policies"][0]["digest"]
    statement = "UPDATE revisions SET content = replace(content, '920000', '999999') WHERE digest = ?"
    assert alter_database(running.database, statement, digest) == 1

    response = running.client.request(method, f"/v1/decisions/{given['id']}/{verb}")
    shown = running.client.get("/v1/policies/community")

    assert (response.status_code, response.json()["type"]) == (500, "urn:baleen:problem:integrity")
    assert f"expected {digest}, found sha256:" in response.json()["detail"]
    assert (shown.status_code, shown.json()["type"]) == (500, "urn:baleen:problem:integrity")


def test_a_revision_that_is_gone_is_named(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    given = judge(running)
    digest = given["policies"][0]["digest"]
    assert alter_database(running.database, "DELETE FROM revisions WHERE digest = ?", digest) == 1

    response = running.client.post(f"/v1/decisions/{given['id']}/replay")

    assert (response.status_code, response.json()["type"]) == (500, "urn:baleen:problem:integrity")
    assert "the revision of policy community" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/decisions/{id}", "/v1/policies/community"])
def test_a_database_that_cannot_be_read_is_no_fault_of_the_caller(start_sidecar: StartSidecar, path: str) -> None:
    running = start_sidecar()
    given = judge(running)
    for table in ("decisions", "activations"):
        alter_database(running.database, f"ALTER TABLE {table} RENAME TO {table}_gone")

    response = running.client.get(path.format(id=given["id"]))

    assert (response.status_code, response.json()["type"]) == (503, "urn:baleen:problem:state")


def test_nothing_of_the_content_itself_is_on_record(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    judge(running, encode(grey(99)), "image/png")
    post(running, {"type": "text", "text": "zanzibarquux"})

    kept = b"".join(path.read_bytes() for path in running.settings.state.iterdir() if path.is_file())

    assert b"author" in kept
    assert b"zanzibarquux" not in kept
