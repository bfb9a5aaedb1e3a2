"""Policies over HTTP: which of them judge, what they add to a decision, and how they are read back."""

import asyncio
from typing import Any

import pytest

from baleen_core import canonical
from baleen_sidecar.adapters.policy_dir import RECHECK_SECONDS
from baleen_sidecar.testing import FixedInference
from policies import override_manifest, policy_manifest
from sidecars import RunningSidecar, StartSidecar, post, write_manifests
from waiting import until

FRIENDLY = "Good morning everybody, how are you today?"
LINKS = "Look: https://a.example https://b.example https://c.example https://d.example"


def judge(running: RunningSidecar, text: str = FRIENDLY, **context: Any) -> dict[str, Any]:
    response = post(running, {"type": "text", "text": text}, **context)
    assert response.status_code == 200, response.text
    return response.json()


def roles(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["role"], each["name"]) for each in answer["policies"]]


def reasons(answer: dict[str, Any]) -> set[tuple[str, str]]:
    return {(reason["type"], reason["name"]) for reason in answer["reasons"]}


def simple(name: str, review: str = "50%", **spec: Any) -> dict[str, Any]:
    """Write a policy with one category that is reviewed from `review` on."""
    category = {"name": "toxicity", "signals": [{"name": "text-safety.toxicity", "review": review}]}
    content = spec.pop("content", {}) | {"categories": [category]}
    return {**policy_manifest(content, **spec), "metadata": {"name": name, "namespace": "trust-safety"}}


def digest_of(running: RunningSidecar, name: str) -> str:
    return running.client.get(f"/v1/policies/{name}").json()["summary"]["digest"]


@pytest.mark.parametrize(
    ("context", "winner"),
    [
        pytest.param({}, "community", id="anywhere"),
        pytest.param({"surface": "comments"}, "community", id="another surface"),
        pytest.param({"surface": "kids-chat"}, "kids", id="the narrower scope wins"),
        pytest.param({"surface": "kids-chat", "tenant": "acme"}, "kids", id="a field that no scope has"),
        pytest.param({"surface": "Kids-Chat"}, "community", id="scopes are exact"),
    ],
)
def test_the_policy_of_the_narrowest_scope_judges_and_the_floor_with_it(
    sidecar: RunningSidecar, context: dict[str, str], winner: str
) -> None:
    effective = sidecar.client.get("/v1/effective-policy", params=context).json()

    answer = judge(sidecar, **context)

    assert roles(answer) == roles(effective) == [("Winner", winner), ("Floor", "company-floor")]
    assert {each["digest"] for each in answer["policies"]} == {each["digest"] for each in effective["policies"]}


def test_policies_of_one_name_in_two_namespaces_are_told_apart(start_sidecar: StartSidecar) -> None:
    ours, theirs = simple("community", scope={"surface": "comments"}), simple("community", scope={"surface": "chat"})
    theirs["metadata"]["namespace"] = "games"
    running = start_sidecar(policies={"a.yaml": [ours, theirs]})
    answers = [judge(running, surface=surface) for surface in ("comments", "comments", "chat")]

    def ask(namespace: str) -> list[int]:
        path = f"/v1/policies/{namespace}community"
        found = running.client.get(f"{path}/performance")
        assert found.status_code == 200, found.text
        draft = {"policy": ours if namespace == "trust-safety." else theirs}
        simulated = running.client.post(f"{path}/simulate", json=draft)
        assert simulated.status_code == 200, simulated.text
        assert found.json()["no_namespace"] == 0
        return [found.json()["decisions"], simulated.json()["compared"], simulated.json()["elsewhere"]]

    effective = running.client.get("/v1/effective-policy", params={"surface": "chat"}).json()["policies"]
    refused = running.client.get("/v1/policies/community/performance")
    replayed = running.client.post(f"/v1/decisions/{answers[2]['id']}/replay").json()

    assert [each["policies"][0]["namespace"] for each in answers] == ["trust-safety", "trust-safety", "games"]
    assert [each["namespace"] for each in effective] == ["games"]
    assert (ask("trust-safety."), ask("games.")) == ([2, 2, 1], [1, 1, 2])
    assert refused.status_code == 404
    assert "ask for one of games.community, trust-safety.community" in refused.json()["detail"]
    assert replayed["identical"] is True


def test_what_the_narrower_policy_lets_pass_the_floor_still_blocks(start_sidecar: StartSidecar) -> None:
    threat = {"name": "threat", "signals": [{"name": "text-safety.threat", "block": "97%"}]}
    floor = {
        **policy_manifest({"categories": [threat]}, role="Floor"),
        "metadata": {"name": "company-floor", "namespace": "trust-safety"},
    }
    # The narrower policy has no category for threats.
    running = start_sidecar(
        policies={"a.yaml": [simple("lenient", scope={"surface": "chat"}), floor]},
        inference=FixedInference({"text-safety.threat": 0.98}),
    )

    answer = judge(running, surface="chat")

    assert (answer["decision"], answer["risk"]) == ("Block", "Critical")
    assert reasons(answer) == {("Category", "threat")}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Double your coins today!", id="as written"),
        pytest.param("DOUBLE YOUR COINS", id="in capitals"),
        pytest.param("D0uble yоur c0ins", id="leetspeak and a Cyrillic o"),
        pytest.param("d.o.u.b.l.e your coins", id="spelt out"),
        pytest.param("Doub\u200ble yóur coins", id="zero-width space and an accent"),
    ],
)
def test_a_listed_term_is_found_in_any_disguise(start_sidecar: StartSidecar, text: str) -> None:
    answer = judge(start_sidecar(), text)

    assert answer["decision"] == "Review"
    assert reasons(answer) == {("List", "scams")}


@pytest.mark.parametrize(
    ("text", "author", "matches"),
    [
        pytest.param(LINKS, {"age_days": 3}, True, id="many links of a new author"),
        pytest.param(LINKS, {"age_days": 7}, False, id="many links of an older author"),
        pytest.param(LINKS.rpartition(" ")[0], {"age_days": 3}, False, id="three links of a new author"),
    ],
)
def test_a_rule_reads_content_and_author(
    start_sidecar: StartSidecar, text: str, author: dict[str, int], matches: bool
) -> None:
    answer = judge(start_sidecar(), text, author=author)

    assert answer["decision"] == ("Review" if matches else "Allow")
    assert reasons(answer) == ({("Rule", "link-spam")} if matches else set())


def test_a_rule_about_what_the_caller_did_not_say_is_not_applied_and_the_explanation_says_so(
    start_sidecar: StartSidecar,
) -> None:
    running = start_sidecar()
    answer = judge(running, LINKS)

    explained = " ".join(running.client.get(f"/v1/decisions/{answer['id']}/explain").json()["explanation"])

    assert (answer["decision"], answer["reasons"]) == ("Allow", [])
    assert "the caller did not send author.ageDays" in explained


def test_a_policy_that_is_tried_out_only_says_what_it_would_have_done(start_sidecar: StartSidecar) -> None:
    trial = simple("trial", review="20%", content={"enforcement": "DryRun"})
    running = start_sidecar(
        policies={"a.yaml": [simple("community")], "b.yaml": [trial]},
        inference=FixedInference({"text-safety.toxicity": 0.3}),
    )

    answer = judge(running)

    assert (answer["decision"], answer["would_be"], answer["reasons"]) == ("Allow", "Review", [])
    assert roles(answer) == [("Winner", "community"), ("DryRun", "trial")]


def test_an_edited_policy_acts_at_once_and_its_history_says_so(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(
        policies={"a.yaml": [simple("community", version="v1")]},
        inference=FixedInference({"text-safety.toxicity": 0.3}),
    )
    before = judge(running)
    running.write_policy("a.yaml", simple("community", review="20%", version="v2"))
    after = judge(running)

    history = running.client.get("/v1/policies/community").json()["history"]

    assert (before["decision"], after["decision"]) == ("Allow", "Review")
    assert [row["version"] for row in history] == ["v2", "v1"]
    assert [row["digest"] for row in history] == [answer["policies"][0]["digest"] for answer in (after, before)]


def test_an_edit_is_noticed_without_being_told(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"a.yaml": [simple("community")]})
    watching = asyncio.run_coroutine_threadsafe(running.sidecar.policies.watch(), running.loop)
    try:
        write_manifests(running.settings.policies / "b.yaml", simple("added", scope={"surface": "x"}))
        # An edit in the moment before the watch begins is noticed by the next look at the whole folder.
        running.run(until(lambda: len(running.sidecar.ports.policies().statuses) == 2, seconds=RECHECK_SECONDS + 15))
    finally:
        watching.cancel()

    assert running.client.get("/v1/policies/added").status_code == 200


def test_a_broken_edit_changes_no_decision_and_is_shown_with_all_that_is_wrong(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"a.yaml": [simple("community", version="v1")]})
    digest = digest_of(running, "community")
    rule = {"name": "many-links", "when": "content.linkz > 1", "action": "Review"}
    broken = simple("community", version="v2", content={"rules": [rule]})
    broken["spec"]["policy"]["categories"][0]["signals"][0]["name"] = "text-safety.toxcity"
    running.write_policy("a.yaml", broken)

    shown = running.client.get("/v1/policies").json()["policies"][0]
    ready = running.client.get("/ready").json()

    assert (shown["digest"], shown["standing"], shown["version"]) == (digest, "LastGood", "v1")
    assert [problem["field"] for problem in shown["problems"]] == [
        "spec.policy.categories[0].signals[0].name",
        "spec.policy.rules[0].when",
    ]
    assert "did you mean 'toxicity'?" in shown["problems"][0]["message"]
    assert (ready["ready"], ready["degraded"]) == (True, ["policy/trust-safety/community"])
    assert judge(running)["policies"][0]["digest"] == digest


def test_an_override_rolls_back_within_the_same_reading(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"a.yaml": [simple("community", version="v1")]})
    old = digest_of(running, "community")
    running.write_policy("a.yaml", simple("community", review="20%", version="v2"))
    new = digest_of(running, "community")
    running.write_policy("o.yaml", override_manifest(reject=[new]))

    shown = running.client.get("/v1/policies/community").json()

    assert (shown["summary"]["digest"], shown["summary"]["standing"]) == (old, "Overridden")
    assert [row["digest"] for row in shown["history"]] == [old, new, old]
    assert judge(running)["policies"][0]["digest"] == old


def test_two_revisions_are_compared_field_by_field(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"a.yaml": [simple("community", version="v1")]})
    old = digest_of(running, "community")
    running.write_policy("a.yaml", simple("community", review="20%", version="v2"))
    new = digest_of(running, "community")

    answer = running.client.get("/v1/policies/community/diff", params={"from": old, "to": new}).json()
    same = running.client.get("/v1/policies/community/diff", params={"from": new, "to": new}).json()

    assert (answer["from"], answer["to"], same["changes"]) == (old, new, [])
    (change,) = answer["changes"]
    assert "text-safety.toxicity" in change["path"]
    assert (change["old_value"], change["new_value"]) == ("50%", "20%")


def test_all_policies_are_listed_with_where_they_bind(sidecar: RunningSidecar) -> None:
    answer = sidecar.client.get("/v1/policies").json()

    assert answer["problems"] == []
    shown = [(each["name"], each["role"], each["scope"], each["standing"]) for each in answer["policies"]]
    assert shown == [
        ("community", "Policy", {}, "Current"),
        ("company-floor", "Floor", {}, "Current"),
        ("kids", "Policy", {"surface": "kids-chat"}, "Current"),
    ]


@pytest.mark.parametrize("name", ["community", "trust-safety.community"])
def test_a_policy_is_read_with_the_content_that_its_digest_names(sidecar: RunningSidecar, name: str) -> None:
    answer = sidecar.client.get(f"/v1/policies/{name}").json()

    assert canonical.digest_of(canonical.canonical_json(answer["content"])) == answer["summary"]["digest"]
    assert answer["content"]["policy"]["rules"][0]["name"] == "link-spam"
    assert answer["history"][0]["reason"] == "Applied"


def test_a_name_that_is_used_twice_must_be_asked_for_with_its_namespace(start_sidecar: StartSidecar) -> None:
    other = simple("community", scope={"surface": "x"})
    other["metadata"]["namespace"] = "team-b"
    running = start_sidecar(policies={"a.yaml": [simple("community"), other]})

    unclear = running.client.get("/v1/policies/community")
    clear = running.client.get("/v1/policies/team-b.community")

    assert unclear.status_code == 404
    assert "team-b.community, trust-safety.community" in unclear.json()["detail"]
    assert clear.json()["summary"]["scope"] == {"surface": "x"}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        pytest.param("/v1/policies/comunity", 404, "there are: community", id="unknown policy"),
        pytest.param("/v1/policies/comunity/diff?from={a}&to={a}", 404, "there are: community", id="diff of no policy"),
        pytest.param("/v1/policies/community/diff?from={a}&to={b}", 404, "no revision sha256:bbbb", id="no revision"),
        pytest.param("/v1/policies/community/diff?from={a}&to=abc", 422, "query.to", id="not a digest"),
        pytest.param("/v1/policies/community/diff?from={a}", 422, "query.to", id="nothing to compare with"),
        pytest.param("/v1/effective-policy?surface=", 422, "query.surface", id="an empty place"),
        pytest.param("/v1/policies/" + "a" * 128, 422, "path.name", id="a name that is too long"),
    ],
)
def test_a_question_about_what_is_not_there_says_what_is(
    sidecar: RunningSidecar, path: str, status: int, said: str
) -> None:
    community = digest_of(sidecar, "community")

    response = sidecar.client.get(path.format(a=community, b="sha256:" + "b" * 64))

    assert response.status_code == status
    assert said in response.json()["detail"]
