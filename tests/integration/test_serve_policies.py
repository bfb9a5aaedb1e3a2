"""Policies are edited, broken, deleted and rolled back while `baleen serve` answers by them."""

import shutil
import subprocess
import time

import pytest

import forked
from serving import Load, Serving, Site, empty, policy, reviewing_from, serving, until

pytestmark = pytest.mark.triton

IN_FORCE_SECONDS = 2
# One process makes the server that they share.
with_the_same_server = pytest.mark.xdist_group("serve-policies")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Give a server whose policies each test adds its own to, for a surface of its own."""
    with serving(Site(tmp_path_factory.mktemp("shared"))) as running:
        yield running


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def put(running: Serving, name: str, review: str = "50%", version: str = "v1.0.0") -> str:
    """Write the policy of a surface that bears its name, and return its digest once it is in force."""
    running.site.write_policy(reviewing_from(review, name=name, surface=name, version=version), file=f"{name}.yaml")
    until(lambda: summary(running, name).get("version") == version, seconds=IN_FORCE_SECONDS)
    return summary(running, name)["digest"]


def summary(running: Serving, name: str) -> dict:
    """Return what is said of a policy, nothing if there is none."""
    policies = running.get("/v1/policies")["policies"]
    return next((each for each in policies if each["name"] == name), {})


def standing(running: Serving, name: str) -> str:
    return summary(running, name).get("standing", "")


def baleen(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run another command for the same installation."""
    environment = site.environment(BALEEN_STATE=str(site.state), BALEEN_POLICIES=str(site.policies))
    return forked.run("baleen_cli", *arguments, environment=environment, timeout=30)


def digest_of(body: dict) -> str:
    (policy,) = body["policies"]
    return policy["digest"]


@with_the_same_server
def test_an_edit_is_in_force_within_two_seconds_without_a_failed_request_and_nobody_is_judged_by_the_old_one_after(
    shared,
):
    old = put(shared, "edited", "80%")
    with Load(shared.url, word="rude", surface="edited") as load:
        load.wait_for(20)
        shared.site.write_policy(
            reviewing_from("60%", name="edited", surface="edited", version="v1.1.0"), file="edited.yaml"
        )
        seconds = until(lambda: load.answered[-1].body["decision"] == "Review", seconds=10)
        seen = len(load.answered)
        load.wait_for(seen + 20)
    new = summary(shared, "edited")["digest"]
    first_new = min(each.ended for each in load.answered if digest_of(each.body) == new)

    assert seconds < IN_FORCE_SECONDS
    assert {each.status for each in load.answered} == {200}
    assert {(digest_of(each.body), each.body["decision"]) for each in load.answered} == {
        (old, "Allow"),
        (new, "Review"),
    }
    assert {digest_of(each.body) for each in load.answered if each.begun > first_new} == {new}


@with_the_same_server
def test_an_edit_that_is_written_slowly_is_never_in_force_by_half(shared):
    old = put(shared, "half-written", "80%")
    text = (shared.site.policies / "half-written.yaml").read_text().replace("80%", "60%").replace("v1.0.0", "v1.1.0")
    with (
        Load(shared.url, word="rude", surface="half-written") as load,
        (shared.site.policies / "half-written.yaml").open("w") as file,
    ):
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()
            time.sleep(0.05)
        until(lambda: standing(shared, "half-written") == "Current" and load.answered[-1].body["decision"] == "Review")
    new = summary(shared, "half-written")["digest"]

    assert {each.status for each in load.answered} == {200}
    assert {digest_of(each.body) for each in load.answered} == {old, new}


@with_the_same_server
def test_an_invalid_edit_leaves_the_last_good_one_in_force_and_is_named_until_it_is_right(shared):
    good = put(shared, "broken", "50%")
    broken = reviewing_from("50%", name="broken", surface="broken", version="v1.1.0")
    signal = broken["spec"]["policy"]["categories"][0]["signals"][0]
    signal |= {"name": "words.scor", "review": "150%"}
    shared.site.write_policy(broken, file="broken.yaml")
    until(lambda: standing(shared, "broken") == "LastGood", seconds=IN_FORCE_SECONDS)
    said, decision, ready = (
        summary(shared, "broken"),
        shared.decide("rude words", surface="broken"),
        shared.get("/ready"),
    )
    corrected = put(shared, "broken", "60%", version="v1.1.0")

    assert (said["digest"], said["version"]) == (good, "v1.0.0")
    assert [problem["field"] for problem in said["problems"]] == ["spec.policy.categories[0].signals[0].review"]
    assert "150%" in said["problems"][0]["message"]
    assert digest_of(decision) == good
    assert ready["ready"] is True
    assert "policy/trust-safety/broken" in ready["degraded"]
    (component,) = [each for each in ready["components"] if each["name"] == "policy/trust-safety/broken"]
    assert "spec.policy.categories[0].signals[0].review" in component["detail"]
    assert corrected != good
    assert summary(shared, "broken")["problems"] == []


@with_the_same_server
def test_a_typo_in_a_signal_is_refused_with_a_suggestion(shared):
    put(shared, "typo")
    shared.site.write_policy(
        policy("typo", surface="typo", rules=[{"name": "rule", "when": "words.scor > 0.5", "action": "Block"}]),
        file="typo.yaml",
    )
    until(lambda: standing(shared, "typo") == "LastGood", seconds=IN_FORCE_SECONDS)
    (problem,) = summary(shared, "typo")["problems"]

    assert problem["field"] == "spec.policy.rules[0].when"
    assert "words.score" in problem["message"]


@with_the_same_server
def test_a_file_that_is_no_yaml_keeps_its_policies_and_disturbs_no_other(shared):
    digest = put(shared, "no-yaml")
    (shared.site.policies / "no-yaml.yaml").write_text("kind: [ModerationPolicy")
    until(lambda: standing(shared, "no-yaml") == "LastGood", seconds=IN_FORCE_SECONDS)
    listed = shared.get("/v1/policies")
    decision = shared.decide("rude words", surface="no-yaml")
    other = put(shared, "no-yaml-other")
    put(shared, "no-yaml", version="v1.0.1")

    assert [problem["field"] for problem in listed["problems"]] == ["no-yaml.yaml"]
    assert digest_of(decision) == digest
    assert digest_of(shared.decide("rude words", surface="no-yaml-other")) == other
    assert shared.get("/v1/policies")["problems"] == []


@with_the_same_server
def test_a_deleted_file_s_policy_is_no_longer_asked_and_the_wider_one_judges(shared):
    put(shared, "deleted")
    before = shared.decide("rude words", surface="deleted")
    (shared.site.policies / "deleted.yaml").unlink()
    until(lambda: not standing(shared, "deleted"), seconds=IN_FORCE_SECONDS)
    after = shared.decide("rude words", surface="deleted")

    assert [each["name"] for each in before["policies"]] == ["deleted"]
    assert [each["name"] for each in after["policies"]] == ["community"]
    assert shared.client.get("/v1/policies/deleted").status_code == 404


@with_the_same_server
def test_a_version_that_names_other_content_already_is_refused(shared):
    first = put(shared, "versioned", "50%")
    shared.site.write_policy(reviewing_from("60%", name="versioned", surface="versioned"), file="versioned.yaml")
    until(lambda: standing(shared, "versioned") == "LastGood", seconds=IN_FORCE_SECONDS)
    said = summary(shared, "versioned")
    second = put(shared, "versioned", "60%", version="v1.0.1")

    assert said["digest"] == first
    assert [problem["field"] for problem in said["problems"]] == ["spec.version"]
    assert f"v1.0.0 already names {first[:17]}" in said["problems"][0]["message"]
    assert second != first


@with_the_same_server
def test_a_rollback_is_in_force_at_once_and_taken_back_by_deleting_its_file(shared):
    old = put(shared, "rolled-back", "80%")
    new = put(shared, "rolled-back", "60%", version="v1.1.0")
    ended = baleen(shared.site, "policy", "rollback", "rolled-back", "--reason", "too strict")
    override = shared.site.policies / "trust-safety.rolled-back.override.yaml"
    until(lambda: standing(shared, "rolled-back") == "Overridden", seconds=IN_FORCE_SECONDS)
    back = shared.decide("rude words", surface="rolled-back")
    override.unlink()
    until(lambda: standing(shared, "rolled-back") == "Current", seconds=IN_FORCE_SECONDS)
    forth = shared.decide("rude words", surface="rolled-back")
    history = shared.get("/v1/policies/rolled-back")["history"]

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"wrote {override}: {old[:17]} is in force in a moment; delete the file to take this back\n"
    assert (digest_of(back), back["decision"]) == (old, "Allow")
    assert (digest_of(forth), forth["decision"]) == (new, "Review")
    assert [row["digest"] for row in history] == [new, old, new, old]
    assert [row["reason"] for row in history] == ["Applied", "RolledBack", "Applied", "Applied"]


@with_the_same_server
def test_an_edit_after_a_rollback_goes_live_as_usual(shared):
    put(shared, "after", "80%")
    put(shared, "after", "60%", version="v1.1.0")
    assert baleen(shared.site, "policy", "rollback", "after").returncode == 0
    until(lambda: standing(shared, "after") == "Overridden", seconds=IN_FORCE_SECONDS)
    third = put(shared, "after", "65%", version="v1.2.0")

    assert digest_of(shared.decide("rude words", surface="after")) == third
    assert standing(shared, "after") == "Current"


def test_without_its_folder_the_last_good_policies_stay_in_force_until_it_is_there_again(site):
    with serving(site) as running, Load(running.url, word="rude") as load:
        digest = running.policy()["digest"]
        empty(site.policies)
        until(lambda: standing(running, "community") == "LastGood", seconds=IN_FORCE_SECONDS)
        load.wait_for(len(load.answered) + 50)
        seen = {digest_of(each.body) for each in load.answered}
        site.policies.mkdir()
        site.write_policy(reviewing_from("60%", version="v1.1.0"))
        until(lambda: running.policy()["version"] == "v1.1.0", seconds=10)
        site.write_policy(reviewing_from("80%", version="v1.2.0"))
        until(lambda: load.answered[-1].body["decision"] == "Allow", seconds=IN_FORCE_SECONDS)

        assert seen == {digest}
        assert {each.status for each in load.answered} == {200}


def test_without_any_policy_left_requests_are_refused_and_never_allowed(site):
    with serving(site) as running:
        (site.policies / "community.yaml").unlink()
        until(lambda: running.moderate("kind words").status_code == 503, seconds=IN_FORCE_SECONDS)
        refused = running.moderate("kind words")

        assert refused.json()["type"] == "urn:baleen:problem:no-policy"
        assert running.client.get("/ready").status_code == 503


BROKEN = {
    "no folder": empty,
    "no YAML": lambda folder: (folder / "community.yaml").write_text("kind: [Moder"),
    "not UTF-8": lambda folder: (folder / "community.yaml").write_bytes(b"\xff\xfe"),
}


def test_started_over_a_folder_that_is_gone_or_cannot_be_read_it_serves_what_was_good_before(site, tmp_path):
    with serving(site) as running:
        digest = running.policy()["digest"]
    good = shutil.copytree(site.state, tmp_path / "good")
    for name, destroy in BROKEN.items():
        site.policies.mkdir(exist_ok=True)
        site.write_policy(policy())
        destroy(site.policies)
        empty(site.state)
        shutil.copytree(good, site.state)
        with serving(site) as running:
            said, decision = running.policy(), running.decide("rude words")

            assert (said["digest"], said["standing"]) == (digest, "LastGood"), name
            assert (decision["decision"], digest_of(decision)) == ("Review", digest), name
            assert running.get("/v1/policies")["problems"] != [], name
