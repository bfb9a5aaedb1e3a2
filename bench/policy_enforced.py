"""From `kubectl apply` to the last of 1,000 sidecars: an edit, a rollback without the operator, a `git revert`.

Everything is real but the sidecars: control plane, operator, four gateways, kubectl, git. The floor is a write of an
override that nobody acts on, until one bare watch sees it: what the API server alone takes. It is measured against
itself first, and again between the repetitions. All of it, the sidecars too, shares the cores of one machine.
"""

import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baleen_bench import cluster
from baleen_bench.api_watch import ApiWatch, watching
from baleen_bench.fleet import Costs, Fleet, fleet, gateways
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.machine import memory_mib
from baleen_core.canonical import digest_of
from baleen_core.policy.in_force import Override, Route, in_force
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision
from baleen_core.policy.schema import API_VERSION
from baleen_core.resources import OVERRIDE_KIND, POLICY_KIND, ROUTE_KIND, read_route
from control_plane import ControlPlane
from gateway_process import RunningGateway, operator_token_file
from operators import RunningOperator

GATEWAYS, SIDECARS = 4, 1000
CHANGES = 4
"""Of each kind, a repetition; what is published is the p99 of all of them."""
OTHERS = 20
"""Policies beside the one that changes, each in the middle of a rollout that is looked at every five seconds."""
ROLLOUT = {
    "steps": [{"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 86_400}}],
    "analysis": {
        "intervalSeconds": 5,
        "metrics": [{"name": "blocks", "type": "BlockRate", "maxIncrease": "5%", "maxDecrease": "5%"}],
    },
}
FLOOR_WRITES = 200
QUICK_GATEWAYS, QUICK_SIDECARS, QUICK_OTHERS = 2, 8, 2
WHERE = f"in force at {SIDECARS:,} sidecars behind {GATEWAYS} gateways, beside {OTHERS} rollouts in flight"
STAND_IN = "sidecars"
FIGURES = {
    "policy_enforced_p99_s": Aim(
        what=f"`kubectl apply` of an edited policy until it is {WHERE}; stand-in `{STAND_IN}`", goal="<= 2"
    ),
    "rollback_p99_s": Aim(
        what=f"an override applied, the operator killed before, until the earlier revision is {WHERE}; "
        f"stand-in `{STAND_IN}`",
        goal="<= 1",
    ),
    "git_revert_p99_s": Aim(
        what=f"a reverted file applied after full promotion until it is {WHERE}; stand-in `{STAND_IN}`", goal="<= 2"
    ),
}
NAME = "policy-0"
KEY = (cluster.NAMESPACE, NAME)
FLOOR_NAMESPACE = "floor"
_APPLY = {"content-type": "application/apply-patch+yaml"}
_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@example.org",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@example.org",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: seconds from just before kubectl was started, and who used how much of the processor for it.

    `written` and `routed` are when a bare watch saw the object that was applied, and the operator's route, if it wrote
    one; `sidecars` are the waits of all of them, in order.
    """

    kubectl: float
    written: float
    routed: float | None
    sidecars: list[float]
    cpu: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """Return what is kept of it: of the waits a few quantiles."""
        waits = {name: round(quantile(self.sidecars, share), 4) for name, share in _SHARES.items()}
        routed = None if self.routed is None else round(self.routed, 4)
        return {
            "kubectl": round(self.kubectl, 4),
            "written": round(self.written, 4),
            "routed": routed,
            "sidecars": waits,
            "cpu": self.cpu,
        }


_SHARES = {"first": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "last": 1.0}


@dataclass(slots=True, kw_only=True)
class Stage:
    """Everything that runs, and the number of the last edit: none is like another."""

    running: ControlPlane
    operator: RunningOperator
    followed: tuple[RunningGateway, ...]
    fleet: Fleet
    watch: ApiWatch
    folder: Path
    edits: int = 0

    def edited(self) -> cluster.Body:
        """Return the policy as it never was before."""
        self.edits += 1
        return cluster.policy(0, limit=1000 + self.edits)

    def processes(self) -> dict[str, list[int]]:
        """Return the process ids of everybody who runs, by what they are."""
        found = {
            "gateways": [each.pid for each in self.followed],
            "control_plane": [pid for name, pid in self.running.pids().items() if name != "supervisor"],
            "simulation": self.fleet.pids,
        }
        return found if self.operator.process.poll() is not None else {**found, "operator": [self.operator.pid]}

    def apply(self, file: Path, digest: str, *, user: str, kind: str) -> Change:
        """Apply a file as a user does, and wait until a digest is in force everywhere and everybody was told."""
        costs, begun = Costs(self.processes()), time.monotonic()
        said = self.running.kubectl("apply", "--server-side", "--output=json", "-f", file, user=user).stdout
        kubectl = time.monotonic() - begun
        waits = self.fleet.wait_for(digest, begun=begun)
        written = self.watch.when(kind, same_as(json.loads(said)), since=begun)
        routed = None
        if kind == POLICY_KIND:
            routed = self.watch.when(ROUTE_KIND, lambda found: is_routed(found, digest), since=begun) - begun
        self.fleet.settle("/".join(KEY), digest)
        cpu = costs.since()
        self.fleet.rest()
        return Change(kubectl=kubectl, written=written - begun, routed=routed, sidecars=waits, cpu=cpu)

    def route(self) -> Route:
        """Return the digests that the policy's route names."""
        return read_route(self.running.get_json(ROUTE_KIND, NAME, cluster.NAMESPACE)).route


def measure(effort: Effort) -> Outcome:
    """Measure the floor against itself, then edits, reverts and the floor in turns, and rollbacks without operator."""
    changes, writes = (1, 5) if effort.quick else (CHANGES, FLOOR_WRITES)
    with stage(quick=effort.quick) as here:
        pairs = [(floor(here.running, writes), floor(here.running, writes)) for _ in range(effort.noise_pairs)]
        repository = Repository(here.folder / "git")
        edits, reverts, rollbacks, floors = [], [], [], []
        for _ in range(effort.repetitions):
            floors.append(floor(here.running, writes))
            edits.append([edit(here) for _ in range(changes)])
            reverts.append(revert_all(here, repository, changes))
        memory = {name: [round(memory_mib(pid)["VmRSS"]) for pid in pids] for name, pids in here.processes().items()}
        here.operator.kill()
        for _ in range(effort.repetitions):
            floors.append(floor(here.running, writes))
            rollbacks.append([roll_back(here) for _ in range(changes)])
    noise = noise_of(pairs)
    measured = zip(FIGURES, (edits, rollbacks, reverts), strict=True)
    return Outcome(
        figures=tuple(figure(name, repetitions, noise) for name, repetitions in measured),
        raw={
            "floor_against_itself": pairs,
            "floor_p99_s": floors,
            "edits": summaries(edits),
            "rollbacks": summaries(rollbacks),
            "git_reverts": summaries(reverts),
            "memory_mib": memory,
        },
    )


@contextmanager
def stage(*, quick: bool) -> Iterator[Stage]:
    """Start everybody, and return when all sidecars enforce a first and a second revision of the policy."""
    count, sidecars = (QUICK_GATEWAYS, QUICK_SIDECARS) if quick else (GATEWAYS, SIDECARS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(cluster.control_plane())
        with running.client() as client:
            client.post("/api/v1/namespaces", json={"metadata": {"name": FLOOR_NAMESPACE}}).raise_for_status()
        followed = stack.enter_context(gateways(running, folder, count))
        settings = {
            "namespaces": cluster.NAMESPACE,
            "gateway_urls": ",".join(each.stream_url for each in followed),
            "gateway_token_file": str(operator_token_file(running, folder)),
        }
        operator = stack.enter_context(cluster.operator(running, **settings))
        begin_rollouts(running, QUICK_OTHERS if quick else OTHERS)
        made = stack.enter_context(fleet(running, folder, followed, sidecars, KEY))
        watch = stack.enter_context(watching(running, POLICY_KIND, ROUTE_KIND, OVERRIDE_KIND))
        here = Stage(running=running, operator=operator, followed=followed, fleet=made, watch=watch, folder=folder)
        # Two, so that there is one to go back to; and what is done for the first time is not measured.
        for _ in range(2):
            edit(here)
        yield here


def begin_rollouts(running: ControlPlane, count: int) -> None:
    """Put the other policies in force, edit each, and return when all edits are at the weight where they stay."""
    names = [f"policy-{index}" for index in range(1, count + 1)]
    with running.client() as client:
        for index in range(1, count + 1):
            client.post(cluster.path_of(POLICY_KIND), json=cluster.policy(index)).raise_for_status()
        for name in names:
            running.wait_for_condition("modpol", name, "Ready", cluster.NAMESPACE)
        for index, name in enumerate(names, start=1):
            edited = cluster.policy(index, limit=4)
            edited["spec"]["rollout"] = ROLLOUT
            path = cluster.path_of(POLICY_KIND, name)
            answer = client.patch(path, params={"fieldManager": "bench", "force": "true"}, json=edited, headers=_APPLY)
            answer.raise_for_status()
    for name in names:
        running.wait_for_condition("modpol", name, "Reconciling", cluster.NAMESPACE, reason="Holding")


def edit(here: Stage) -> Change:
    """Edit the policy and apply it."""
    body = here.edited()
    file = here.folder / "policy.json"
    file.write_text(json.dumps(body))
    return here.apply(file, digest_in(body), user="policy-author", kind=POLICY_KIND)


class Repository:
    """A bare repository, its author's clone, and the clone from which is applied."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.author, self.applied = folder / "bare", folder / "author", folder / "applied"
        folder.mkdir()
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        for clone in (self.author, self.applied):
            git(folder, "clone", "--quiet", str(self.bare), str(clone))

    def commit(self, body: cluster.Body) -> None:
        """Commit the policy, and push it."""
        (self.author / "policy.json").write_text(json.dumps(body, indent=2) + "\n")
        git(self.author, "add", "policy.json")
        git(self.author, "commit", "--quiet", "--message=Edit the policy")
        git(self.author, "push", "--quiet", "origin", "main")

    def revert(self) -> None:
        """Take the last commit back, and push that."""
        git(self.author, "revert", "--no-edit", "HEAD")
        git(self.author, "push", "--quiet", "origin", "main")

    def pull(self) -> Path:
        """Return the file as it is now where it is applied from."""
        git(self.applied, "pull", "--quiet", "--ff-only", "origin", "main")
        return self.applied / "policy.json"


def git(folder: Path, *arguments: str) -> None:
    """Run git without anybody's settings.

    Raises:
        RuntimeError: it failed; what it said is in the message.
    """
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | _GIT, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def revert_all(here: Stage, repository: Repository, count: int) -> list[Change]:
    """Promote an edit fully, revert it, and measure from the moment before the reverted file is applied; so often."""
    before = here.edited()
    repository.commit(before)
    here.apply(repository.pull(), digest_in(before), user="policy-author", kind=POLICY_KIND)
    found = []
    for _ in range(count):
        body = here.edited()
        repository.commit(body)
        here.apply(repository.pull(), digest_in(body), user="policy-author", kind=POLICY_KIND)
        here.running.wait_for_condition("modpol", NAME, "Converged", cluster.NAMESPACE)
        repository.revert()
        found.append(here.apply(repository.pull(), digest_in(before), user="policy-author", kind=POLICY_KIND))
    return found


def roll_back(here: Stage) -> Change:
    """Reject what is in force, and afterwards take that back; nobody but the gateways acts."""
    route = here.route()
    known = {route.stable, *route.recent_stable}
    target = in_force(route, Override(reject=frozenset({route.stable})), known, now=datetime.now(UTC))
    assert target is not None, "there is an earlier revision"
    file = here.folder / "override.json"
    file.write_text(json.dumps(rejecting(NAME, cluster.NAMESPACE, route.stable)))
    change = here.apply(file, target, user="on-call", kind=OVERRIDE_KIND)
    begun = time.monotonic()
    with here.running.client("on-call") as client:
        client.delete(cluster.path_of(OVERRIDE_KIND, NAME)).raise_for_status()
    here.fleet.wait_for(route.stable, begun=begun)
    here.fleet.settle("/".join(KEY), route.stable)
    here.fleet.rest()
    return change


def floor(running: ControlPlane, count: int) -> float:
    """Return the p99, in seconds, of writes of an override until a bare watch sees each."""
    waits = []
    with watching(running, OVERRIDE_KIND, namespace=FLOOR_NAMESPACE) as watch, running.client() as client:
        for index in range(count):
            body = rejecting("floor", FLOOR_NAMESPACE, digest_of(f"{time.monotonic()} {index}".encode()))
            path = cluster.path_of(OVERRIDE_KIND, "floor", FLOOR_NAMESPACE)
            begun = time.monotonic()
            answer = client.patch(path, params={"fieldManager": "bench"}, json=body, headers=_APPLY).raise_for_status()
            waits.append(watch.when(OVERRIDE_KIND, same_as(answer.json()), since=begun) - begun)
    return quantile(waits, 0.99)


def rejecting(name: str, namespace: str, digest: str) -> cluster.Body:
    """Return an override that rejects one revision."""
    return {
        "apiVersion": API_VERSION,
        "kind": OVERRIDE_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"reject": [digest]},
    }


def digest_in(body: cluster.Body) -> str:
    """Return the digest of the revision that a policy becomes."""
    return make_revision(parse_policy(body), {}).digest


def same_as(written: cluster.Body) -> Callable[[cluster.Body], bool]:
    """Return what says whether an object that was seen is the one that was written."""
    version = written["metadata"]["resourceVersion"]
    return lambda found: found["metadata"]["resourceVersion"] == version


def is_routed(manifest: cluster.Body, digest: str) -> bool:
    """Say whether a route is the policy's, and makes a digest the stable one."""
    return bool(manifest["metadata"]["name"] == NAME and manifest["spec"].get("stable") == digest)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least value that so great a share of all values does not exceed."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def figure(name: str, repetitions: Sequence[Sequence[Change]], noise: float) -> Figure:
    """Judge the p99 of all changes together; its spread is that of the repetitions' own, between which it lies."""
    own = [p99(changes) for changes in repetitions]
    whole = p99([change for changes in repetitions for change in changes])
    return Figure.of(name, [min(own), whole, max(own)], "s", aims=FIGURES, noise=noise, stand_in=STAND_IN)


def p99(changes: Sequence[Change]) -> float:
    """Return the p99 of the waits of all sidecars for all of these changes."""
    return quantile([wait for change in changes for wait in change.sidecars], 0.99)


def summaries(repetitions: Sequence[Sequence[Change]]) -> list[list[dict[str, Any]]]:
    """Return what is kept of the changes of each repetition."""
    return [[change.summary() for change in changes] for changes in repetitions]
