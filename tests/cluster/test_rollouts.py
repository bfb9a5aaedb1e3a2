"""Edits that go live by steps: a real API server, the operator and three gateways as processes, and traffic."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baleen_core.analysis.query import fill_in
from cluster_site import Site, override, policy, write_yaml
from control_plane import ROOT
from gateway_process import RunningGateway, gateway_settings, operator_token_file
from operators import RunningOperator, running_operator, settings_for
from prometheus_server import CANDIDATE, PrometheusServer, prometheus
from serving import Load, until

__all__ = ["prometheus"]

pytestmark = pytest.mark.cluster

SHADOW = {"name": "shadow", "type": "Shadow", "until": {"decisions": 300}}
CANARY = {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 1}}
SIGN_OFF = {"name": "sign-off", "type": "Approval"}
HALF = {"name": "half", "type": "Weight", "weight": "50%", "until": {"decisions": 20}}
ANALYSIS = {
    "intervalSeconds": 1,
    "metrics": [
        {"name": "blocks", "type": "BlockRate", "maxIncrease": "20%", "maxDecrease": "20%"},
        {"name": "flips", "type": "FlipRate", "maxIncrease": "20%"},
    ],
}


class Rolling:
    """An author, the person on call, the operator and three gateways under load."""

    def __init__(self, site: Site, folder: Path, gateways: list[RunningGateway]) -> None:
        self.site, self.folder, self.gateways = site, folder, gateways
        urls = ",".join(each.stream_url for each in gateways)
        token = operator_token_file(site.plane, folder)
        self.settings = settings_for(site.namespace, gateway_urls=urls, gateway_token_file=str(token))

    def operator(self) -> RunningOperator:
        """Start the operator."""
        running = RunningOperator(self.site.plane.kubeconfig("baleen-operator"), self.settings)
        running.wait_until_leading()
        return running

    def write(self, action: str, version: str, *steps: dict[str, Any], links: int = 9) -> Path:
        """Apply the author's file as GitOps tools do, and return it."""
        rollout = {"steps": list(steps), "analysis": ANALYSIS}
        path = write_yaml(
            self.folder, policy(self.site.namespace, action, links=links, version=version, rollout=rollout)
        )
        self.site.plane.kubectl("apply", "--server-side", "-f", path)
        return path

    def status(self) -> dict[str, Any]:
        return dict(self.site.plane.get_json("modpol", "community", self.site.namespace).get("status", {}))

    def wait_for(self, type: str, reason: str, seconds: float = 60) -> dict[str, Any]:
        """Return the policy's status once a condition holds for this reason."""
        return dict(
            self.site.plane.wait_for_condition(
                "modpol", "community", type, self.site.namespace, reason=reason, seconds=seconds
            )["status"]
        )

    def has_no_difference(self, path: Path) -> None:
        """See that nothing of what its author wrote was changed by anybody."""
        found = self.site.plane.kubectl("diff", "--server-side", "-f", path, check=False)
        assert (found.returncode, found.stdout) == (0, ""), found.stderr


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


@pytest.fixture
def rolling(site: Site, tmp_path: Path) -> Iterator[Rolling]:
    with contextlib.ExitStack() as stack:
        gateways = [
            stack.enter_context(RunningGateway(**gateway_settings(site.plane, tmp_path / name, site.namespace)))
            for name in ("gateway-1", "gateway-2", "gateway-3")
        ]
        yield Rolling(site, tmp_path, gateways)


@contextlib.contextmanager
def traffic(gateways: list[RunningGateway]) -> Iterator[list[Load]]:
    """Ask all gateways all the time; in the end no request has failed."""
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(Load(each.url, callers=2)) for each in gateways]
        yield loads
    for load in loads:
        assert len(load.answered) > 20
        assert {each.status for each in load.answered} == {200}


def judged_by(loads: list[Load]) -> set[tuple[str, str]]:
    """Return the digests that judged, each with the cohort."""
    policies = [each for load in loads for answer in load.answered for each in answer.body["policies"]]
    return {(each["digest"], each["cohort"]) for each in policies}


@pytest.mark.timeout(240)
def test_a_good_edit_goes_through_its_steps_and_a_bad_one_is_stopped_while_nobody_sees_it(rolling: Rolling):
    site = rolling.site
    with rolling.operator():
        rolling.write("Review", "v1")
        first = rolling.wait_for("Ready", "InForce")["stable"]["digest"]
        for each in rolling.gateways:
            each.wait_until_ready()
        with traffic(rolling.gateways) as loads:
            good = rolling.write("Block", "v2", SHADOW, CANARY, SIGN_OFF, HALF)
            waiting = rolling.wait_for("Reconciling", "AwaitingApproval", 120)
            second = waiting["candidate"]["digest"]
            rolling.has_no_difference(good)
            # As the person on call does it without any tool of ours.
            approval = override(site.namespace, approve={"digest": second, "throughStep": "sign-off"})
            site.plane.kubectl("apply", "-f", write_yaml(rolling.folder, approval, file="override.yaml"))
            promoted = rolling.wait_for("Ready", "InForce")
            rolling.has_no_difference(good)
            until(lambda: {each.policy()["digest"] for each in rolling.gateways} == {second})

            bad = rolling.write("Block", "v3", {**SHADOW, "until": {"decisions": 1_000_000}}, HALF, links=-1)
            until(lambda: rolling.status().get("candidate", {}).get("version") == "v3")
            third = rolling.status()["candidate"]["digest"]
            failed = rolling.wait_for("Stalled", "AnalysisFailed", 120)
            rolling.has_no_difference(bad)
            until(lambda: "candidate" not in site.route())
            time.sleep(1)

    assert (waiting["candidate"]["step"], waiting["candidate"]["weight"]) == ("sign-off", "5%")
    assert waiting["analysis"]["verdict"] == "Pass"
    assert [row["reason"] for row in promoted["history"]] == ["Promoted", "Applied"]
    assert (failed["stable"]["digest"], site.route()["stable"]) == (second, second)
    message = next(each["message"] for each in failed["conditions"] if each["type"] == "Stalled")
    assert "blocks" in message or "flips" in message
    assert "100%" in message
    # Nobody was judged by what neither route nor override named, and by what failed nobody at all.
    judged = judged_by(loads)
    assert judged == {(first, "Stable"), (second, "Candidate"), (second, "Stable")}
    assert third not in {digest for digest, _ in judged}


@pytest.mark.timeout(240)
def test_an_operator_that_is_killed_at_any_moment_of_a_rollout_skips_no_step(rolling: Rolling):
    steps = [
        {"name": f"step-{number}", "type": "Weight", "weight": f"{10 * number}%", "until": {"seconds": 1}}
        for number in range(1, 5)
    ]
    seen: list[tuple[str, int, str]] = []
    with rolling.operator():
        rolling.write("Review", "v1")
        rolling.wait_for("Ready", "InForce")
    with traffic(rolling.gateways):
        rolling.write("Review", "v2", *steps, links=8)
        ended = time.monotonic() + 100
        while time.monotonic() < ended:
            with rolling.operator() as operator:
                until_killed = time.monotonic() + random.uniform(0.2, 2.5)
                while time.monotonic() < until_killed:
                    look(rolling, seen)
                    time.sleep(0.05)
                operator.kill()
            if rolling.status()["stable"]["version"] == "v2":
                break
        with rolling.operator():
            rolling.wait_for("Ready", "InForce")

    assert len({digest for digest, _, _ in seen}) == 1, "never two candidates"
    weights = [weight for _, weight, _ in seen]
    assert weights == sorted(weights)
    # Each step was seen in a route, since each lasts longer than a look.
    assert {1000, 2000, 3000, 4000} <= set(weights)


def look(rolling: Rolling, seen: list[tuple[str, int, str]]) -> None:
    """Note whom the candidate judges now, where that changed."""
    route = rolling.site.route()
    if (candidate := route.get("candidate")) is not None:
        found = candidate["digest"], candidate["weightBasisPoints"], route["assignment"]["salt"]
        if not seen or seen[-1] != found:
            seen.append(found)


@pytest.mark.timeout(280)
def test_the_demo_shows_what_it_says_and_leaves_nothing_running():
    demo = ROOT / "tests" / "support" / "rollout_demo.py"
    wide = {**os.environ, "COLUMNS": "400"}
    done = subprocess.run([sys.executable, demo], capture_output=True, text=True, timeout=270, check=False, env=wide)

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
