"""`kubectl baleen` during a rollout, on a real API server. What an operator had written is written by the tests."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from baleen_core.policy.in_force import parse_override
from baleen_core.resources import POLICY_KIND
from policy_site import Site, pass_time, policy
from published import override, put
from serving import until

pytestmark = pytest.mark.cluster

STEPS: list[dict[str, Any]] = [
    {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 60}},
    {"name": "sign-off", "type": "Approval"},
    {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 60}},
    {"name": "last-look", "type": "Approval"},
]


def stepped(block: str, version: str, **rollout: Any) -> dict[str, Any]:
    return policy(block, version=version, rollout={"steps": STEPS, **rollout})


@pytest.fixture
async def rolling():
    """Give a site whose v2 awaits its approval beside v1, after v0."""
    found = Site()
    for block, version in (("95%", "v0"), ("92%", "v1")):
        await found.apply(policy(block, version=version))
    await found.apply(stepped("80%", "v2"))
    await pass_time(found, 61)
    assert found.status["candidate"]["step"] == "sign-off"
    return found


def publish(plane, namespace, site):
    """Put all that is there of a site into a namespace; return the digest of its candidate."""
    put(plane, *(each for manifests in site.written(namespace).values() for each in manifests))
    return site.status["candidate"]["digest"]


def spec_of(plane, namespace):
    return plane.get_json("modover", "community", namespace)["spec"]


def has_override(plane, namespace):
    return bool(plane.list_json("modover", namespace))


def test_approve_writes_the_candidates_digest_and_says_how_far(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    tried = baleen("approve", "community", "--dry-run")
    was_written = has_override(control_plane, namespace)
    ended = baleen("approve", "community")
    spec = spec_of(control_plane, namespace)
    removed = baleen("approve", "community", "--remove")

    assert tried.status == 0, tried.errors
    assert (was_written, tried.errors) == (False, "")
    assert tried.output.startswith(
        f"{namespace}/community: {digest[:17]} (v2), the candidate, is approved through all its steps (dry run)\n"
    )
    assert ended.status == 0, ended.errors
    assert ended.output == (
        f"{namespace}/community: {digest[:17]} (v2), the candidate, is approved through all its steps\n"
        f"{namespace}/community: {rolling.stable[:17]} (v1) is in force, as before\n"
    )
    assert ended.errors == f"take it back with: kubectl baleen approve community -n {namespace} --remove\n"
    assert spec == {"approve": {"digest": digest}}
    assert removed.status == 0, removed.errors
    assert "is not approved any more" in removed.output
    assert not has_override(control_plane, namespace)


async def test_what_is_approved_here_lets_an_operator_go_on(baleen, control_plane, namespace, rolling):
    publish(control_plane, namespace, rolling)
    baleen("approve", "community", "--step", "sign-off")
    written = override("trust-safety", "community", **spec_of(control_plane, namespace))
    await rolling.apply(written)
    step = rolling.status["candidate"]["step"]
    await pass_time(rolling, 61)

    assert step == "half"
    assert rolling.condition("Reconciling") == ("True", "AwaitingApproval")


def test_approving_keeps_what_else_is_said_there_whoever_said_it(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    other = rolling.status["history"][-1]["digest"]
    put(control_plane, override(namespace, "community", reject=[other]))
    baleen("pause", "community")
    ended = baleen("approve", "community", "--step", "sign-off", "--digest", digest[:20])
    spec = spec_of(control_plane, namespace)

    assert ended.status == 0, ended.errors
    assert "through step sign-off; it is paused, and so waits still" in ended.output
    assert spec == {"reject": [other], "paused": True, "approve": {"digest": digest, "throughStep": "sign-off"}}
    assert baleen("approve", "community", "--remove").status == 0
    assert spec_of(control_plane, namespace) == {"reject": [other], "paused": True}


def test_approve_says_what_others_approved_and_why_it_waits_still(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    narrower = override(namespace, "community", approve={"digest": digest, "throughStep": "canary"})
    put(control_plane, narrower)
    ended = baleen("approve", "community")
    spec = spec_of(control_plane, namespace)
    put(control_plane, override(namespace, "community", pin={"digest": rolling.stable}))
    pinned = baleen("approve", "community", "--step", "sign-off")

    assert ended.status == 0, ended.errors
    assert (
        "the candidate, is approved through all its steps; test approved it through step canary, which holds again "
        "once that is applied\n"
    ) in ended.output
    assert spec == {"approve": {"digest": digest}}
    assert f"through step sign-off; {rolling.stable[:17]} (v1) is pinned, and so it waits still\n" in pinned.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--step", "signoff"), "unknown step of {key} 'signoff'; did you mean 'sign-off'?"),
        (("--step", "canary"), "nothing of {key} needs an approval up to step canary: v2 ("),
        (("--step", "canary"), "; its steps are canary, sign-off, half, last-look"),
        (("--digest", "v1"), "{stable} (v1) is not the candidate of {key}; that is {candidate} (v2)"),
        (("--digest", "v3"), "unknown revision 'v3' of {key}; known are {stable} (v1), "),
    ],
)
def test_what_cannot_be_approved_is_answered_with_what_can(baleen, control_plane, namespace, rolling, arguments, words):
    digest = publish(control_plane, namespace, rolling)
    ended = baleen("approve", "community", *arguments)
    names = {"key": f"{namespace}/community", "stable": rolling.stable[:17], "candidate": digest[:17]}

    assert ended.status == 1
    assert words.format(**names) in ended.problems[0]
    assert not has_override(control_plane, namespace)


async def test_without_a_candidate_there_is_nothing_to_approve(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    rejected = baleen("reject", "community")
    refused = baleen("approve", "community")
    await rolling.apply(policy("92%", version="v1"))
    put(control_plane, rolling.written(namespace)[POLICY_KIND][0])
    control_plane.kubectl("delete", "modroute", "community", "-n", namespace)
    put(control_plane, *(each for manifests in rolling.written(namespace).values() for each in manifests))
    baleen("reject", "community", digest, "--remove")
    nothing = baleen("approve", "community")

    assert rejected.status == 0, rejected.errors
    assert refused.status == 1
    assert f"kubectl baleen reject community {digest[:17]} -n {namespace} --remove" in refused.problems[0]
    (problem,) = nothing.problems
    assert problem.startswith(f"{namespace}/community has no candidate, so there is nothing to approve; ")
    assert problem.endswith(f"{rolling.stable[:17]} (v1) is in force")


async def test_what_failed_is_approved_to_be_tried_again(baleen, control_plane, namespace):
    site = Site()
    await site.apply(policy("92%", version="v1"))
    last = [STEPS[0]]
    slow = policy(
        "80%",
        version="v2",
        rollout={"steps": last, "progressDeadlineSeconds": 30, "onDeadline": "RollBack"},
    )
    await site.apply(slow)
    await pass_time(site, 31)
    digest = publish(control_plane, namespace, site)
    ended, history = baleen("approve", "community"), baleen("history", "community")
    rejected = baleen("reject", "community", "--dry-run")

    assert ended.status == 0, ended.errors
    assert "it failed, and begins again at the first" in ended.output
    assert spec_of(control_plane, namespace)["approve"] == {"digest": digest}
    assert f"{digest[:17]} (v2): DeadlineExceeded: " in history.output
    # What was rolled back does no harm any more, so it is not what whoever is on call means.
    assert rejected.problems[0].startswith(f"{namespace}/community has no other revision"), rejected.output


def test_pause_keeps_a_candidate_where_it_is_until_it_is_taken_back(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    none = baleen("pause", "community", "--remove")
    ended = baleen("pause", "community")
    spec, shown = spec_of(control_plane, namespace), json.loads(baleen("get", "community", "-o", "json").output)
    removed = baleen("pause", "community", "--remove")

    assert none.problems == [f"no override pauses {namespace}/community"]
    assert ended.status == 0, ended.errors
    assert f"{digest[:17]} (v2), the candidate, stays in step sign-off, judging 5% of the content\n" in ended.output
    assert ended.errors == f"take it back with: kubectl baleen pause community -n {namespace} --remove\n"
    assert spec == {"paused": True}
    assert shown["inForce"]["override"] == "Paused"
    assert "the rollout goes on" in removed.output, removed.errors
    assert not has_override(control_plane, namespace)


def test_what_another_manager_says_cannot_be_taken_back_here(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    put(control_plane, override(namespace, "community", paused=True, approve={"digest": digest}))

    for command, field in (("pause", "paused"), ("approve", "approve")):
        ended = baleen(command, "community", "--remove")

        assert ended.status == 1
        assert f"spec.{field}: " in ended.problems[0]
        assert "is written by test too, so it would stay" in ended.problems[0]


def test_reject_without_a_revision_means_the_candidate_and_then_what_is_in_force(
    baleen, control_plane, namespace, rolling
):
    digest = publish(control_plane, namespace, rolling)
    baleen("approve", "community")
    first, second = baleen("reject", "community"), baleen("reject", "community")

    assert first.status == 0, first.errors
    assert first.output == (
        f"{namespace}/community: {digest[:17]} (v2), the candidate, is rejected: nobody is judged by it any more\n"
        f"{namespace}/community: {rolling.stable[:17]} (v1) is in force, as before\n"
    )
    assert second.status == 0, second.errors
    assert f"{rolling.stable[:17]} (v1) is rejected\n" in second.output
    assert "(v0) is in force in a moment" in second.output
    said = parse_override(override(namespace, "community", **spec_of(control_plane, namespace)))
    assert said.reject == {digest, rolling.stable}
    assert said.approve is None


def test_rollback_goes_back_from_the_candidate_first(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    ended = baleen("rollback", "community", "--reason", "incident 4711")

    assert ended.status == 0, ended.errors
    assert "(v2), the candidate, is rejected" in ended.output
    assert spec_of(control_plane, namespace) == {"reject": [digest]}


@pytest.mark.parametrize("command", ["reject", "rollback"])
async def test_in_a_shadow_it_is_the_candidate_that_is_rejected_and_what_is_stable_stays(
    baleen, control_plane, namespace, rolling, command
):
    shadow = {"name": "shadow", "type": "Shadow", "until": {"seconds": 60}}
    await rolling.apply(policy("70%", version="v3", rollout={"steps": [shadow, *STEPS]}))
    digest = publish(control_plane, namespace, rolling)
    ended = baleen(command, "community")

    assert rolling.condition("Ready") == ("False", "Shadow")
    assert ended.status == 0, ended.errors
    assert ended.output == (
        f"{namespace}/community: {digest[:17]} (v3), the candidate, is rejected: nobody is judged by it any more\n"
        f"{namespace}/community: {rolling.stable[:17]} (v1) is in force, as before\n"
    )
    assert spec_of(control_plane, namespace) == {"reject": [digest]}


@pytest.mark.parametrize("command", ["reject", "rollback"])
async def test_which_one_is_asked_where_what_waits_judges_nobody(baleen, control_plane, namespace, rolling, command):
    rolling.cluster.models_served = ()
    await rolling.apply(stepped("70%", "v3"))
    publish(control_plane, namespace, rolling)
    ended = baleen(command, "community")

    assert ended.status == 1
    assert ended.problems[0].endswith(
        "(v3) waits and judges nobody; name the one to reject with: "
        f"kubectl baleen reject community REVISION -n {namespace}"
    )
    assert not has_override(control_plane, namespace)


def test_get_shows_the_candidate_to_people_and_to_machines(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    table, whole = baleen("get").output, json.loads(baleen("get", "community", "-o", "json").output)
    header, row = (table.splitlines()[index].replace("┃", " ").replace("│", " ").split() for index in (6, 8))

    assert header == ["NAME", "CANDIDATE", "DIGEST", "STEP", "WEIGHT", "REASON", "SINCE"]
    assert row[:6] == ["community", "v2", digest[:17], "sign-off", "5%", "AwaitingApproval"]
    assert f"community: v2 ({digest[:17]}) is in step sign-off (2 of 4), judging 5% of the content" in table
    assert whole["candidate"] | {"message": ""} == {
        "digest": digest,
        "version": "v2",
        "step": "sign-off",
        "weight": "5%",
        "weightBasisPoints": 500,
        "tenants": [],
        "shadow": False,
        "judging": True,
        "startTime": rolling.status["candidate"]["startTime"],
        "stepTime": rolling.status["candidate"]["stepTime"],
        "decisions": 0,
        "reason": "AwaitingApproval",
        "message": "",
    }


def test_kubectl_alone_shows_what_is_live_what_is_on_its_way_and_whether_it_is_well(control_plane, namespace, rolling):
    publish(control_plane, namespace, rolling)
    shown = control_plane.kubectl("get", "modpol", "-n", namespace).stdout
    wide = control_plane.kubectl("get", "modpol", "-n", namespace, "-o", "wide").stdout
    header, row = (line.split() for line in shown.splitlines())
    columns = dict(zip(header, row, strict=True))

    assert columns | {"AGE": ""} == {
        "NAME": "community",
        "LIVE": "v1",
        "CANDIDATE": "v2",
        "STEP": "sign-off",
        "WEIGHT": "5%",
        "READY": "False",
        "REASON": "AwaitingApproval",
        "STALLED": "False",
        "CONVERGED": "True",
        "AGE": "",
    }
    assert "judging 5% of the content: waits for somebody to approve it" in wide


def test_history_diff_effective_and_explain_know_the_candidate(baleen, control_plane, namespace, rolling):
    digest = publish(control_plane, namespace, rolling)
    history, whole = baleen("history", "community"), json.loads(baleen("history", "community", "-o", "json").output)
    diff, placed = baleen("diff", "community"), baleen("effective")
    effective = json.loads(baleen("effective", "-o", "json").output)
    policy_words, digest_words = baleen("explain", "community").output, baleen("explain", digest).output

    assert "on its way: v2 (" in history.output
    assert [row["version"] for row in whole["activations"]] == ["v1", "v0"]
    assert (whole["candidate"]["digest"], whole["failed"]) == (digest, [])
    assert diff.output.splitlines() == [
        f"{rolling.stable[:17]} (v1) → {digest[:17]} (v2), the candidate",
        "categories[toxicity].signals[toxicity.toxic].block: 92% → 80%",
    ]
    assert "    beside it v2 is rolled out, judging 5% of the content (step sign-off)" in placed.output.splitlines()
    assert effective["winners"][0]["candidate"]["digest"] == digest
    assert f"Candidate: {digest[:17]} (v2) since " in policy_words
    assert "then let it go on with `kubectl baleen approve`" in policy_words
    assert "  is the candidate, in step sign-off, judging 5% of the content" in digest_words.splitlines()


@pytest.fixture
async def approved(rolling, namespace):
    """Return what is there before and after the candidate's approval."""
    before = rolling.written(namespace)
    digest = rolling.status["candidate"]["digest"]
    await rolling.apply(override("trust-safety", "community", approve={"digest": digest, "throughStep": "sign-off"}))
    return before, rolling.written(namespace)


def test_a_watch_shows_each_change_until_it_is_interrupted(control_plane, namespace, approved, tmp_path: Path):
    before, after = ([each for manifests in written.values() for each in manifests] for written in approved)
    put(control_plane, *before)
    said = tmp_path / "watched"
    with said.open("wb") as output:
        # What runs in the background of a shell ignores Ctrl-C, and so would whatever it starts.
        program = ["env", "--default-signal=INT", Path(sys.executable).with_name("kubectl-baleen")]
        watching = subprocess.Popen(
            [*program, "get", "community", "--watch", "-n", namespace],
            env={**os.environ, "KUBECONFIG": str(control_plane.kubeconfig("on-call"))},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: "sign-off" in said.read_text())
        put(control_plane, *after)
        until(lambda: "50%" in said.read_text())
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=30) == 0
    finally:
        watching.kill()
        watching.wait()
    shown = said.read_text()

    assert shown.index("│ sign-off") < shown.index("│ half")
    assert "Traceback" not in said.read_text()
