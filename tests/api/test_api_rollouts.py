"""A rollout over HTTP: who is judged by which side, and what is said of it in answers, explanations and metrics."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from baleen_core.assignment import FULL, Assignment, Exposure
from baleen_core.decision.engine import compile_policy
from baleen_core.decision.snapshot import LoadedPolicy, LoadedTrial, PolicySnapshot
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.records import Cohort
from baleen_sidecar.testing import FixedInference
from media import encode, grey, steady, video
from policies import policy_manifest
from sidecars import RunningSidecar, StartSidecar, alter_database, post

SIGNAL = "text-safety.toxicity"
HELLO = {"type": "text", "text": "Good morning everybody, how are you today?"}


def manifest(block: str) -> dict[str, Any]:
    category = {"name": "toxicity", "signals": [{"name": SIGNAL, "block": block}]}
    return {
        **policy_manifest({"categories": [category]}),
        "metadata": {"name": "community", "namespace": "trust-safety"},
    }


@pytest.fixture
def roll_out(start_sidecar: StartSidecar) -> Callable[[Exposure], tuple[RunningSidecar, FixedInference]]:
    """Start an application whose policy blocks from 90 % on, with a candidate that does from 50 % on."""

    def start(exposure: Exposure) -> tuple[RunningSidecar, FixedInference]:
        found: list[PolicySnapshot] = []
        inference = FixedInference({SIGNAL: 0.7})
        running = start_sidecar(
            policies={"community.yaml": [manifest("90%")]}, inference=inference, ports={"policies": lambda: found[-1]}
        )
        revision = make_revision(parse_policy(manifest("50%")), {})
        running.run(running.sidecar.ports.store.put_revision("trust-safety/community", revision))
        compiled = compile_policy("community", "v2", read_revision(revision), {SIGNAL}, namespace="trust-safety")
        trial = LoadedTrial(
            compiled=replace(compiled, cohort=Cohort.CANDIDATE),
            lists=(),
            exposure=exposure,
            assignment=Assignment(salt="salt"),
        )

        def with_trial(policy: LoadedPolicy) -> LoadedPolicy:
            return replace(policy, trial=trial)

        snapshot = running.reload()
        found.append(replace(snapshot, policies=tuple(map(with_trial, snapshot.policies)), _places={}, _index=[]))
        return running, inference

    return start


def judge(running: RunningSidecar, **context: Any) -> dict[str, Any]:
    response = post(running, HELLO, **context)
    assert response.status_code == 200, response.text
    return response.json()


def samples(running: RunningSidecar, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's values by the values of its labels, in the order of the labels' names."""
    families = text_string_to_metric_families(running.client.get("/metrics").text)
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def test_in_a_shadow_the_stable_revision_decides_and_what_the_candidate_says_is_counted(roll_out) -> None:
    running, _ = roll_out(Exposure(is_shadow=True))
    answers = [judge(running, author={"id": f"author-{number}"}) for number in range(5)]

    assert {(each["decision"], each["policies"][0]["cohort"]) for each in answers} == {("Allow", "Stable")}
    assert samples(running, "baleen_policy_decisions_total") == {("Stable", "Allow", "community", "trust-safety"): 5}
    assert samples(running, "baleen_policy_flips_total") == {("Allow", "community", "trust-safety", "Block"): 5}


def test_a_tenant_of_a_match_is_judged_by_the_candidate_and_others_are_not(roll_out) -> None:
    running, _ = roll_out(Exposure(tenants=("staff",)))
    staff, others = judge(running, tenant="staff"), judge(running, tenant="acme")

    shown = [
        (each["decision"], each["policies"][0]["cohort"], each["policies"][0]["version"]) for each in (staff, others)
    ]
    assert shown == [("Block", "Candidate", "v2"), ("Allow", "Stable", others["policies"][0]["version"])]
    assert samples(running, "baleen_policy_decisions_total") == {
        ("Candidate", "Block", "community", "trust-safety"): 1,
        ("Stable", "Allow", "community", "trust-safety"): 1,
    }


@pytest.mark.parametrize(
    ("data", "media_type"),
    [pytest.param(encode(grey(9)), "image/png", id="image"), pytest.param(video(steady(1)), "video/mp4", id="video")],
)
def test_media_are_judged_by_a_side_too(roll_out, data: bytes, media_type: str) -> None:
    running, _ = roll_out(Exposure(tenants=("staff",)))
    answers = [
        running.client.post("/v1/moderate", content=data, params=place, headers={"Content-Type": media_type}).json()
        for place in ({"tenant": "staff"}, {"tenant": "acme"})
    ]

    assert [each["policies"][0]["cohort"] for each in answers] == ["Candidate", "Stable"]
    replayed = [running.client.post(f"/v1/decisions/{each['id']}/replay").json()["identical"] for each in answers]
    assert replayed == [True, True]


def test_a_share_of_the_authors_is_judged_by_the_candidate_each_always_by_the_same_side(roll_out) -> None:
    running, inference = roll_out(Exposure(weight_basis_points=FULL // 2))
    rounds = [
        [judge(running, author={"id": f"author-{number}"})["policies"][0]["cohort"] for number in range(30)]
        for _ in range(2)
    ]

    assert rounds[0] == rounds[1]
    assert set(rounds[0]) == {"Stable", "Candidate"}
    assert len(inference.calls) == 60, "one call for a decision, whoever judges"


@pytest.mark.parametrize(
    ("exposure", "cohort", "says"),
    [
        pytest.param(Exposure(is_shadow=True), "Stable", "says Allow", id="shadow"),
        pytest.param(Exposure(weight_basis_points=FULL), "Candidate", "says Block", id="all"),
    ],
)
def test_a_decision_in_a_rollout_is_explained_and_replayed(
    roll_out, exposure: Exposure, cohort: str, says: str
) -> None:
    running, _ = roll_out(exposure)
    decision = judge(running)
    explained = running.client.get(f"/v1/decisions/{decision['id']}/explain").json()["explanation"]
    replayed = running.client.post(f"/v1/decisions/{decision['id']}/replay").json()

    (told,) = [sentence for sentence in explained if sentence.startswith("A candidate of community")]
    assert told.endswith(f"this content was judged for {cohort}.")
    assert "Stable (sha256:" in told
    assert "says Block; this" in told
    assert any(cohort in sentence and says in sentence for sentence in explained if sentence is not told)
    assert (replayed["identical"], replayed["differences"]) == (True, [])


def test_policies_say_that_a_candidate_is_there(roll_out) -> None:
    running, _ = roll_out(Exposure(weight_basis_points=1234))
    (listed,) = running.client.get("/v1/policies").json()["policies"]
    (binding,) = running.client.get("/v1/effective-policy").json()["policies"]
    read = running.client.get("/v1/policies/community").json()["summary"]

    candidate = listed["candidate"]
    assert candidate == binding["candidate"] == read["candidate"]
    assert candidate == {
        "digest": candidate["digest"],
        "version": "v2",
        "weight": 0.1234,
        "tenants": [],
        "shadow": False,
    }
    assert candidate["digest"] not in (listed["digest"], binding["digest"])


def test_policies_say_for_which_tenants_a_candidate_judges(roll_out) -> None:
    running, _ = roll_out(Exposure(tenants=("staff", "beta")))
    (listed,) = running.client.get("/v1/policies").json()["policies"]

    assert (listed["candidate"]["weight"], listed["candidate"]["tenants"]) == (0.0, ["staff", "beta"])


def read(running: RunningSidecar, what: str, **query: Any) -> dict[str, Any]:
    response = running.client.get(f"/v1/policies/community/{what}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_flips_of_a_rollout_have_their_categories_languages_groups_and_examples(roll_out) -> None:
    running, _ = roll_out(Exposure(weight_basis_points=FULL // 2))
    answers = [judge(running, author={"id": f"author-{number}"}) for number in range(12)]
    found = read(running, "flips")
    listed = running.client.get("/v1/policies").json()["policies"][0]

    assert (found["policy"], found["compared"], found["erased"], found["ended"]) == (
        "trust-safety/community",
        12,
        0,
        "EndOfLog",
    )
    assert (found["stable"], found["candidate"]) == (listed["digest"], listed["candidate"]["digest"])
    assert found["matrix"] == [[0, 0, 12], [0, 0, 0], [0, 0, 0]]
    (flip,) = found["flips"]
    assert (flip["from"], flip["to"], flip["count"], len(flip["examples"])) == ("Allow", "Block", 12, 10)
    assert set(flip["examples"]) <= {each["id"] for each in answers}
    for part, name in (("categories", "toxicity"), ("languages", "en")):
        assert [(each["name"], each["flips"], each["new_blocks"]) for each in found[part]] == [(name, 12, 12)]
    assert sum(each["flips"] for each in found["groups"]) == 12
    assert [int(each["name"]) for each in found["groups"]] == sorted(int(each["name"]) for each in found["groups"])


def test_flips_of_an_earlier_rollout_are_asked_for_by_its_digests(roll_out) -> None:
    running, _ = roll_out(Exposure(is_shadow=True))
    for _ in range(3):
        judge(running, author={"id": "author-1"})
    sides = {"from": (now := read(running, "flips"))["stable"], "to": now["candidate"]}
    other = {"from": sides["to"], "to": sides["from"]}
    erased = running.client.delete("/v1/subjects/author-1")

    assert erased.status_code == 200
    after = read(running, "flips", **sides)
    assert (after["compared"], after["erased"], after["matrix"]) == (3, 3, now["matrix"])
    assert (after["categories"], after["languages"], after["flips"]) == ([], now["languages"], now["flips"])
    assert (read(running, "flips", **other)["compared"], read(running, "flips", decisions=2)["compared"]) == (0, 2)


def test_performance_has_each_revision_with_what_it_decided_and_what_it_says(roll_out) -> None:
    running, _ = roll_out(Exposure(tenants=("staff",)))
    for tenant in ("staff", "acme", "acme", "acme"):
        judge(running, tenant=tenant)
    found = read(running, "performance", by="revision")
    stable, candidate = found["revisions"]
    listed = running.client.get("/v1/policies").json()["policies"][0]

    assert (found["policy"], found["decisions"], found["scanned"], found["ended"]) == (
        "trust-safety/community",
        4,
        4,
        "EndOfLog",
    )
    assert 1 <= found["seconds"] < 60
    assert (stable["digest"], candidate["digest"]) == (listed["digest"], listed["candidate"]["digest"])
    assert (found["in_force"], found["candidate"]) == (stable["digest"], candidate["digest"])
    assert (stable["decisions"], stable["as_candidate"]) == (3, 0)
    assert (candidate["decisions"], candidate["as_candidate"], candidate["version"]) == (1, 1, "v2")
    assert stable["shares"] == {"allow": 1.0, "review": 0.0, "block": 0.0}
    assert candidate["outcomes"] == {"allow": 0, "review": 0, "block": 1}
    assert (stable["said"]["allow"], candidate["said"]["block"]) == (4, 4)
    assert candidate["categories"] == {"toxicity": {"allow": 0, "review": 0, "block": 1}}
    assert candidate["languages"] == {"en": {"allow": 0, "review": 0, "block": 1}}
    assert (candidate["failed"], candidate["degraded"]) == (0, {})
    assert set(candidate["latency_seconds"]) == {"p50", "p95", "p99"}


def test_performance_looks_back_no_further_than_is_asked(roll_out) -> None:
    running, _ = roll_out(Exposure(is_shadow=True))
    for _ in range(3):
        judge(running)
    few = read(running, "performance", decisions=2)
    alter_database(running.database, 'UPDATE decisions SET record = replace(record, \'"time":"2\', \'"time":"1\')')
    old = read(running, "performance", seconds=60)

    assert (few["decisions"], few["ended"]) == (2, "Enough")
    assert (old["decisions"], old["scanned"], old["ended"], old["seconds"]) == (0, 3, "Window", 60.0)


@pytest.mark.parametrize(
    ("path", "field", "said"),
    [
        ("performance?by=day", "by", "unknown way to group decisions 'day'"),
        ("performance?decisions=100001", "query.decisions", "less than or equal to 100000"),
        ("performance?seconds=0", "query.seconds", "greater than or equal to 1"),
        ("performance?seconds=7776001", "query.seconds", "less than or equal to 7776000"),
        ("flips?decisions=0", "query.decisions", "greater than or equal to 1"),
        (f"flips?from=sha256:{'0' * 64}", "to", "name it beside `from`"),
        (f"flips?to=sha256:{'0' * 64}", "from", "name it beside `to`"),
        ("flips?from=v1&to=v2", "query.from", "should match pattern"),
    ],
)
def test_what_is_wrong_with_a_survey_is_named(start_sidecar: StartSidecar, path: str, field: str, said: str) -> None:
    running = start_sidecar(policies={"community.yaml": [manifest("90%")]})
    response = running.client.get(f"/v1/policies/community/{path}")

    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == field
    assert said in response.json()["errors"][0]["message"]


def test_without_a_rollout_there_are_no_flips_and_unknown_revisions_are_named(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"community.yaml": [manifest("90%")]})
    none = running.client.get("/v1/policies/community/flips")
    digest = f"sha256:{'0' * 64}"
    unknown = running.client.get("/v1/policies/community/flips", params={"from": digest, "to": digest})
    nobody = running.client.get("/v1/policies/comunity/performance")

    assert [each.status_code for each in (none, unknown, nobody)] == [404, 404, 404]
    assert "nothing of the policy trust-safety/community is rolled out now; name both digests" in none.json()["detail"]
    assert f"there is no revision {digest} here" in unknown.json()["detail"]


def test_without_a_rollout_there_is_no_candidate(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"community.yaml": [manifest("90%")]})

    assert running.client.get("/v1/policies").json()["policies"][0]["candidate"] is None
    assert running.client.get("/v1/effective-policy").json()["policies"][0]["candidate"] is None
    judge(running)
    assert samples(running, "baleen_policy_flips_total") == {}
