"""Edits that go live by steps, and edits that do not: a real API server, the operator, three gateways, and traffic."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forked
from baleen_core.analysis.query import fill_in
from cluster_rollouts import Rolling, rolling_out, traffic
from cluster_site import Site, policy, write_yaml
from commands import Ended
from operators import running_operator
from prometheus_server import CANDIDATE, PrometheusServer, prometheus
from rollout_demo import FORK_SERVER
from serving import until

__all__ = ["prometheus"]

pytestmark = pytest.mark.cluster

SHADOW = {"name": "shadow", "type": "Shadow", "until": {"decisions": 300}}
CANARY = {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 1}}
SIGN_OFF = {"name": "sign-off", "type": "Approval"}
HALF = {"name": "half", "type": "Weight", "weight": "50%", "until": {"decisions": 20}}
FOR_LONG = {"name": "for-long", "type": "Weight", "weight": "50%", "until": {"seconds": 3600}}
EVERYTHING = -1
"""So many links has every text more than."""
COMPARED = {
    "analysis": {
        "intervalSeconds": 1,
        "metrics": [
            {"name": "blocks", "type": "BlockRate", "maxIncrease": "20%", "maxDecrease": "20%"},
            {"name": "flips", "type": "FlipRate", "maxIncrease": "20%"},
        ],
    }
}


def digest_of(rolling: Rolling, version: str) -> str:
    """Return the candidate's digest once it is the one of this version."""
    until(lambda: rolling.status().get("candidate", {}).get("version") == version)
    return str(rolling.status()["candidate"]["digest"])


def said(status: dict[str, Any], type: str) -> str:
    """Return what a condition says."""
    return str(next(each["message"] for each in status["conditions"] if each["type"] == type))


@pytest.mark.timeout(300)
def test_edits_are_stopped_or_go_through_their_steps_and_people_have_their_way_and_no_request_notices(
    site: Site, tmp_path: Path, baleen: Callable[..., Ended]
):
    # Nobody waits for its Lease, which it must not lose on a machine that is busy.
    with rolling_out(site, tmp_path, lease_duration_seconds="30") as rolling, rolling.operator() as operator:
        path = rolling.apply("Review", "v1")
        first = rolling.wait_for("Ready", "InForce")["stable"]["digest"]
        rolling.has_no_difference(path)
        for each in rolling.gateways:
            each.wait_until_ready()
        with traffic(rolling, pause_seconds=0.06) as seen:
            is_stopped_by_its_tests(rolling)
            is_stopped_by_the_backtest(rolling)
            failed = is_stopped_by_the_analysis(rolling)
            second = goes_through_its_steps(rolling, baleen)
            third = goes_on_and_back_by_kubectl_alone(rolling)
            is_rejected_and_rolled_back(rolling, baleen, third)
            operator.kill()
            is_pinned_while_no_operator_runs(rolling, baleen, first, second)

    judged = seen.judged()
    assert {(second, "Candidate"), (third, "Candidate"), (second, "Stable"), (third, "Stable")} < judged
    # All that judged is one of the three, or was rejected after it had judged for some.
    assert {digest for digest, cohort in judged if cohort == "Stable"} == {first, second, third}
    assert failed not in {digest for digest, _ in judged}


def is_stopped_by_its_tests(rolling: Rolling) -> None:
    """Try what blocks everything, as the next two do."""
    tests = [{"name": "greetings pass", "expect": "Allow"}]
    path = rolling.apply("Block", "v2", SHADOW, links=EVERYTHING, tests=tests)
    message = said(rolling.wait_for("Accepted", "TestsFailed", status="False"), "Accepted")
    rolling.has_no_difference(path)

    assert "test 'greetings pass': expected Allow, got Block because links: the rule links matches" in message


def is_stopped_by_the_backtest(rolling: Rolling) -> None:
    gates = {"backtest": {"decisions": 30, "maxFlipRate": "50%", "maxNewBlocks": "10%"}}
    path = rolling.apply("Block", "v2", SHADOW, links=EVERYTHING, gates=gates)
    stopped = rolling.wait_for("Stalled", "GateFailed")
    rolling.has_no_difference(path)

    # A gateway that has none left of its share has others look at more, so that there may be one or two beyond 30.
    pattern = r"100% of 3\d logged decisions would be newly blocked \(3\d\), above maxNewBlocks \(10%\)"
    assert re.search(pattern, said(stopped, "Stalled"))
    assert "spec.approve" in said(stopped, "Stalled")
    assert "candidate" not in rolling.site.route()


def is_stopped_by_the_analysis(rolling: Rolling) -> str:
    path = rolling.apply(
        "Block", "v2", {**SHADOW, "until": {"decisions": 1_000_000}}, HALF, links=EVERYTHING, rollout=COMPARED
    )
    digest = digest_of(rolling, "v2")
    rolling.has_no_difference(path)
    failed = rolling.wait_for("Stalled", "AnalysisFailed")
    until(lambda: "candidate" not in rolling.site.route())
    rolling.has_no_difference(path)

    message = said(failed, "Stalled")
    assert "blocks" in message or "flips" in message
    assert "100%" in message
    assert "write other content, or to try it again name its digest in spec.approve" in message
    return digest


def goes_through_its_steps(rolling: Rolling, baleen: Callable[..., Ended]) -> str:
    """Pause and approve with the plugin."""
    path = rolling.apply("Block", "v2", SHADOW, CANARY, SIGN_OFF, HALF, rollout=COMPARED)
    waiting = rolling.wait_for("Reconciling", "AwaitingApproval")
    rolling.has_no_difference(path)
    digest = str(waiting["candidate"]["digest"])
    paused = baleen("pause", "community")
    rolling.wait_for("Reconciling", "Paused")
    approved = baleen("approve", "community", "--step", "sign-off")
    still = rolling.status()["candidate"]
    going_on = baleen("pause", "community", "--remove")
    promoted = rolling.wait_for("Ready", "InForce")
    taken_back = baleen("approve", "community", "--remove")
    rolling.has_no_difference(path)

    assert (waiting["candidate"]["step"], waiting["candidate"]["weight"]) == ("sign-off", "5%")
    assert waiting["analysis"]["verdict"] == "Pass"
    assert still["step"] == "sign-off"
    assert [each.status for each in (paused, approved, going_on, taken_back)] == [0] * 4
    assert [row["reason"] for row in promoted["history"]] == ["Promoted", "Applied"]
    assert promoted["stable"]["digest"] == digest
    until(lambda: rolling.enforced() == {digest})
    return digest


def goes_on_and_back_by_kubectl_alone(rolling: Rolling) -> str:
    """Pause, approve and revert with `kubectl apply`, and come back to the edit that was reverted."""
    before = rolling.folder / "v2.yaml"
    stable = rolling.status()["stable"]["digest"]
    path = rolling.apply("Block", "v3", CANARY, SIGN_OFF, HALF, links=8)
    rolling.override(paused=True)
    rolling.wait_for("Reconciling", "Paused")
    digest = digest_of(rolling, "v3")
    rolling.has_no_difference(path)
    rolling.override(approve={"digest": digest})
    rolling.wait_for("Ready", "InForce")
    rolling.has_no_difference(path)
    # As whoever pulled the reverted commit.
    rolling.site.plane.kubectl("apply", "--server-side", "-f", before)
    until(lambda: rolling.enforced() == {stable})
    returned = rolling.wait_for("Ready", "InForce")
    rolling.has_no_difference(before)
    rolling.site.plane.kubectl("apply", "--server-side", "-f", path)
    until(lambda: rolling.enforced() == {digest})
    rolling.wait_for("Ready", "InForce")

    assert returned["history"][0]["reason"] == "Returned"
    return digest


def is_rejected_and_rolled_back(rolling: Rolling, baleen: Callable[..., Ended], stable: str) -> None:
    """Reject a candidate with `kubectl apply` and, when it begins anew, with the plugin; then what is in force."""
    path = rolling.apply("Block", "v4", FOR_LONG, links=7)
    rolling.wait_for("Reconciling", "Holding")
    digest = digest_of(rolling, "v4")
    rolling.override(reject=[digest])
    rejected = rolling.wait_for("Stalled", "Rejected")
    rolling.has_no_difference(path)
    rolling.override()
    rolling.wait_for("Reconciling", "Holding")
    by_plugin = baleen("reject", "community")
    rolling.wait_for("Stalled", "Rejected")
    rolling.site.plane.kubectl("apply", "--server-side", "-f", rolling.folder / "v3.yaml")
    rolling.wait_for("Ready", "InForce")
    rolled_back = baleen("rollback", "community", "--reason", "incident 4711")
    until(lambda: stable not in rolling.enforced())
    taken_back = [baleen("reject", "community", each, "--remove") for each in (stable, digest)]
    until(lambda: rolling.enforced() == {stable})

    assert "write other content, or take it out of spec.reject" in said(rejected, "Stalled")
    assert "(v4), the candidate, is rejected" in by_plugin.output, by_plugin.errors
    assert "(v2) is in force in a moment" in rolled_back.output, rolled_back.errors
    assert [each.status for each in taken_back] == [0, 0]


def is_pinned_while_no_operator_runs(rolling: Rolling, baleen: Callable[..., Ended], first: str, second: str) -> None:
    pinned = baleen("pin", "community", first, "--reason", "incident 4711")
    until(lambda: rolling.enforced() == {first})
    unpinned = baleen("pin", "community", "--remove")
    rolling.override(pin={"digest": second})
    until(lambda: rolling.enforced() == {second})

    assert [each.status for each in (pinned, unpinned)] == [0, 0], pinned.errors + unpinned.errors


@pytest.mark.timeout(240)
def test_a_number_of_a_prometheus_takes_a_candidate_back(site: Site, tmp_path: Path, prometheus: PrometheusServer):
    query = fill_in('sum(up{revision="$candidate"})', candidate=CANDIDATE, stable=CANDIDATE)
    metric = {"name": "answers", "type": "PromQL", "query": query, "max": "0.5", "looks": 1}
    rollout = {"steps": [CANARY], "analysis": {"intervalSeconds": 1, "metrics": [metric]}}

    def write(version: str, action: str) -> None:
        path = write_yaml(tmp_path, policy(site.namespace, action, version=version, rollout=rollout))
        site.plane.kubectl("apply", "--server-side", "-f", path)

    def wait_for(type: str, reason: str, status: str = "True") -> dict[str, Any]:
        found = site.plane.wait_for_condition("modpol", "community", type, site.namespace, status=status, reason=reason)
        return dict(found["status"])

    with running_operator(site.plane, site.namespace):
        write("v1", "Review")
        refused = wait_for("Accepted", "NoProvider", "False")
    with running_operator(site.plane, site.namespace, prometheus_url=prometheus.url):
        first = wait_for("Ready", "InForce")["stable"]["digest"]
        write("v2", "Block")
        stopped = wait_for("Stalled", "AnalysisFailed")

    assert "stable" not in refused
    assert stopped["stable"]["digest"] == first
    (failed,) = stopped["failed"]
    assert "answers: its query gave 1; allowed is at most 0.5" in failed["message"]


@pytest.mark.timeout(280)
def test_the_demo_shows_what_it_says_and_leaves_nothing_running():
    environment = {**os.environ, "COLUMNS": "1200", FORK_SERVER: json.dumps(forked.serve())}
    done = forked.run("rollout_demo", environment=environment, timeout=20)

    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "did you mean",
        "Unproven",
        "would be newly blocked",
        "above maxNewBlocks (40%)",
        "it has increased by more",
        "somebody to approve",
        "git revert",
        " 0 failed",
    ):
        assert said in done.stdout
    assert "nothing is left running" in done.stdout
