"""kill -9 at random moments: what was good is served, what was acknowledged is there, and the state converges.

`BALEEN_TEST_KILLS=200` makes it 200 kills of each part, as before a release; a run of the suite makes a few.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from baleen_cli.triton.server import WatchRules
from baleen_core.model.parse import parse_model
from baleen_sidecar.flow.backoff import BackoffRules
from cluster_rollouts import Rolling, rolling_out, traffic
from cluster_site import TEXT, Site, wait_for_decision
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings
from named_digests import WATCH_SECONDS, Watch
from operators import RunningOperator, running_operator, settings_for
from serving import Load, until
from word_triton import deployment, unique, word_triton

pytestmark = pytest.mark.cluster

KILLS = int(os.environ.get("BALEEN_TEST_KILLS", "2"))
AWAY_SECONDS = float(os.environ.get("BALEEN_TEST_AWAY_SECONDS", "3"))
TIMEOUT_SECONDS = 120 + 30 * KILLS

ACTIONS = ("Review", "Block")
SHORT_LEASE = {"lease_duration_seconds": "2", "lease_retry_seconds": "0.2"}
"""One that is killed holds it for so long."""
HOLD_SECONDS = 1
STEPS = [
    {"name": "shadow", "type": "Shadow", "until": {"seconds": HOLD_SECONDS}},
    *(
        {"name": f"step-{number}", "type": "Weight", "weight": f"{number}0%", "until": {"seconds": HOLD_SECONDS}}
        for number in (1, 2, 3)
    ),
]
QUICKLY = WatchRules(backoff=BackoffRules(first_seconds=0.1, highest_seconds=0.5))
"""Whoever runs that Triton starts it again at once; it is not the subject here."""


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do something again and again beside the block; what it raises fails the test."""
    ending, failures = threading.Event(), list[Exception]()

    def loop() -> None:
        while not ending.is_set():
            try:
                work()
            except Exception as exc:
                failures.append(exc)
                return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(60)
    assert not failures, failures


class Edits:
    """An author who edits all the time; `last` is what was applied last."""

    def __init__(self, site: Site) -> None:
        self.site, self.count, self.last = site, 0, "Review"

    def __call__(self) -> None:
        self.count += 1
        self.last = random.choice(ACTIONS)
        # Every content is new, so that each becomes a revision: the texts have fewer links than that.
        self.site.apply_policy(self.last, links=self.count % 3, version=f"v{self.count}")
        time.sleep(random.uniform(0, 0.3))


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_an_operator_that_is_killed_at_any_moment_loses_nothing(site: Site, tmp_path: Path):
    settings = settings_for(site.namespace, **SHORT_LEASE)
    kubeconfig = site.plane.kubeconfig("baleen-operator")
    edits = Edits(site)
    with RunningGateway(**gateway_settings(site.plane, tmp_path / "gateway", site.namespace)) as gateway:
        with RunningOperator(kubeconfig, settings) as operator:
            operator.wait_until_leading()
            edits()
            wait_for_decision(gateway, edits.last)
        with Load(gateway.url, callers=2) as load, meanwhile(edits):
            for _ in range(KILLS):
                with RunningOperator(kubeconfig, settings) as operator:
                    operator.wait_until_leading()
                    time.sleep(random.uniform(0, 1.5))
                    operator.kill()
        with RunningOperator(kubeconfig, settings) as operator:
            operator.wait_until_leading()
            # The last edit may have been made with no operator there.
            said = site.wait_for_ready()
            wait_for_decision(gateway, edits.last)
            until(lambda: gateway.policy()["digest"] == said["status"]["stable"]["digest"])
        revisions = site.plane.kubectl("get", "modrev", "-n", site.namespace, "-o", "json")

    assert len(load.answered) > KILLS
    assert {each.status for each in load.answered} == {200}
    epochs = [row["epoch"] for row in said["status"]["history"]]
    assert epochs == sorted(set(epochs), reverse=True)
    assert site.route()["stable"] == said["status"]["stable"]["digest"]
    assert len(json.loads(revisions.stdout)["items"]) <= 20
    assert "finalizers" not in said["metadata"]


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_an_operator_that_is_killed_at_any_moment_of_a_rollout_skips_no_step_and_repeats_none(
    site: Site, tmp_path: Path
):
    rounds = 0
    with rolling_out(site, tmp_path, **SHORT_LEASE) as rolling:
        with rolling.operator() as operator:
            rolling.apply("Review", "v0", links=1000)
            rolling.wait_for("Ready", "InForce")
            for each in rolling.gateways:
                each.wait_until_ready()
            operator.kill()
        with traffic(rolling, pause_seconds=0.1) as seen:
            for _ in range(KILLS):
                with rolling.operator() as operator:
                    if is_through(rolling, rounds):
                        rounds += 1
                        rolling.apply("Review", f"v{rounds}", *STEPS, links=rounds)
                    time.sleep(random.uniform(0, 1.5))
                    operator.kill()
            with rolling.operator():
                rolling.wait_for("Ready", "InForce")
                until(lambda: rolling.enforced() == {rolling.status()["stable"]["digest"]})

    assert went_through_all_steps(seen.watch) == rounds
    print(f"{KILLS} kills in {rounds} rollouts; {len(seen.answered)} requests, none failed or wrongly judged")


def is_through(rolling: Rolling, rounds: int) -> bool:
    """Say whether the last edit is stable for everybody."""
    route = rolling.site.route()
    return "candidate" not in route and route["version"] == f"v{rounds}"


def went_through_all_steps(watch: Watch) -> int:
    """See that each candidate went through every step once, for its hold and in order; return how many there were."""
    seen = [(at, route.get("candidate"), route.get("assignment"), route["stable"]) for at, route in watch.routes]
    tried = [each for each in seen if each[1] is not None]
    candidates = [list(found) for _, found in groupby(tried, key=lambda each: each[1]["digest"])]
    digests = [found[0][1]["digest"] for found in candidates]
    salts = [{assignment["salt"] for _, _, assignment, _ in found} for found in candidates]

    assert len(set(digests)) == len(digests), "none comes back beside or after another one"
    assert {len(each) for each in salts} == {1}, "nobody changes sides but by the weight"
    assert len(set.union(*salts)) == len(salts), "other people for each"
    for digest, found in zip(digests, candidates, strict=True):
        promoted = next(at for at, _, _, stable in seen if stable == digest)
        steps = [(at, candidate["weightBasisPoints"]) for at, candidate, _, _ in found]

        assert [weight for _, weight in steps] == [0, 1000, 2000, 3000]
        ends = [*(at for at, _ in steps[1:]), promoted]
        assert all(end - at > HOLD_SECONDS - WATCH_SECONDS for (at, _), end in zip(steps, ends, strict=True)), steps
        assert begun(watch, digest) == [each["name"] for each in STEPS], "the hold of each begins once"
    return len(digests)


def begun(watch: Watch, digest: str) -> list[str]:
    """Return the steps of a candidate, one for each time that it was said when it began."""
    told = [status["candidate"] for _, status in watch.statuses if status.get("candidate", {}).get("digest") == digest]
    times = dict.fromkeys((each["step"], each["stepTime"]) for each in told if "stepTime" in each)
    return [step for step, _ in times]


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_a_gateway_that_is_killed_at_any_moment_loses_no_decision_that_it_acknowledged(site: Site, tmp_path: Path):
    edits = Edits(site)
    acknowledged: list[str] = []
    with running_operator(site.plane, site.namespace) as operator:
        operator.wait_until_leading()
        edits()
        gateway = RunningGateway(**gateway_settings(site.plane, tmp_path / "gateway", site.namespace))
        try:
            wait_for_decision(gateway, edits.last)
            with meanwhile(edits):
                for _ in range(KILLS):
                    with Load(gateway.url, callers=2, pause_seconds=0) as load:
                        load.wait_for(1)
                        time.sleep(random.uniform(0, 0.5))
                        gateway.kill()
                    acknowledged += [each.body["id"] for each in load.with_status(200)]
                    refused = {each.status for each in load.answered} - {0, 200}
                    gateway.close()
                    gateway = gateway.again()
                    wait_until_it_decides(gateway)
            wait_for_decision(gateway, edits.last)
            lost = [each for each in acknowledged if gateway.client.get(f"/v1/decisions/{each}").status_code != 200]
            sample = random.sample(acknowledged, min(20, len(acknowledged)))
            replays = [gateway.client.post(f"/v1/decisions/{each}/replay").json() for each in sample]
        finally:
            gateway.close()

    assert len(acknowledged) > KILLS
    assert not refused
    assert lost == []
    assert all(each["identical"] for each in replays), replays


def wait_until_it_decides(gateway: RunningGateway) -> None:
    """Return once it listens: then it has in force what it had before."""
    gateway.wait_for("answering")
    assert gateway.moderate(TEXT).status_code == 200, gateway.said()


@pytest.mark.triton
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_a_triton_that_is_killed_at_any_moment_is_answered_for_and_looked_after(site: Site, tmp_path: Path):
    manifest = deployment(site.namespace, tmp_path, model=unique(site.namespace), verifyIntervalSeconds=5)
    model = parse_model(manifest["spec"]["models"][0])
    with (
        word_triton(tmp_path, model, QUICKLY) as triton,
        running_operator(site.plane, site.namespace, model_files=str(tmp_path)) as operator,
        RunningGateway(
            **gateway_settings(site.plane, tmp_path / "gateway", site.namespace, model_files=tmp_path)
        ) as gateway,
    ):
        operator.wait_until_leading()
        manifest["spec"]["runtime"] = {"external": {"endpoints": [triton.server.endpoint]}}
        site.apply(manifest, judging(site.namespace, model.name))
        site.plane.wait_for_condition("moddep", "words", "Ready", site.namespace)
        wait_for_decision(gateway, "Allow", "kind words")
        with Load(gateway.url, callers=2) as load:
            for _ in range(KILLS):
                # From the moment on at which it answers: its supervisor takes another port for one that never did.
                until(triton.server.prepared.is_set, seconds=60)
                time.sleep(random.uniform(0, 1.5))
                assert triton.server.pid is not None
                os.kill(triton.server.pid, signal.SIGKILL)
                until(lambda: not triton.server.prepared.is_set())
            until(triton.server.prepared.is_set, seconds=60)
        wait_for_decision(gateway, "Allow", "kind words")
        site.plane.wait_for_condition("moddep", "words", "Ready", site.namespace, seconds=90)

    answers = [(each.status, each.body.get("decision"), tuple(each.body.get("degraded", ()))) for each in load.answered]
    assert len(answers) > KILLS
    # What the model says, or what the policy says of a model that is down.
    assert set(answers) <= {(200, "Allow", ()), (200, "Review", (model.name,))}


def judging(namespace: str, model: str) -> dict[str, object]:
    """Write a policy that reviews what is rude and blocks what is vile."""
    category = {"name": "rudeness", "signals": [{"name": f"{model}.score", "review": "50%", "block": "90%"}]}
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": "community", "namespace": namespace},
        "spec": {"policy": {"categories": [category], "onModelFailure": "Review"}},
    }


def test_while_the_api_server_is_away_no_request_fails_gateways_start_and_an_operator_that_lost_its_lease_ends(
    private_control_plane: ControlPlane, tmp_path: Path
):
    plane = private_control_plane
    plane.make_namespace("trust-safety")
    site = Site(plane=plane, namespace="trust-safety")
    restarted = gateway_settings(plane, tmp_path / "restarted")
    with (
        running_operator(plane) as operator,
        RunningGateway(**gateway_settings(plane, tmp_path / "gateway")) as gateway,
    ):
        operator.wait_until_leading()
        site.apply_policy("Review")
        wait_for_decision(gateway, "Review")
        with RunningGateway(**restarted) as another:
            wait_for_decision(another, "Review")
        with Load(gateway.url) as load:
            plane.stop_api()
            gone = time.monotonic()
            with RunningGateway(**restarted) as another:
                wait_for_decision(another, "Review")
                another.wait_until_ready()
                ready, alone = another.ready()[1], another.decide(TEXT)
                until(lambda: gateway.ready()[1]["degraded"] == ["source"])
                code, said = operator.wait_for_end(), operator.wait_for("the Lease is lost: the process ends")
                time.sleep(max(0.0, gone + AWAY_SECONDS - time.monotonic()))
                plane.start_api()
                until(lambda: another.ready()[1]["degraded"] == [], seconds=60)
            until(lambda: gateway.ready()[1]["degraded"] == [], seconds=60)
        site.apply_policy("Block")
        unled = gateway.decide(TEXT)["decision"]
        with running_operator(plane) as following:
            following.wait_until_leading()
            wait_for_decision(gateway, "Block")
            site.wait_for_ready()

    assert len(load.answered) > 10
    assert {each.status for each in load.answered} == {200}
    assert ready["degraded"] == ["source"]
    assert "lost since" in next(each["detail"] for each in ready["components"] if each["name"] == "source")
    assert alone["degraded"] == ["PolicySource"]
    assert (code, said["level"], unled) == (3, "critical", "Review")
