"""`make demo-rollout`: policies as rollouts, on a real API server with the operator, three gateways, Git and traffic.

What is shown happens: each line is said once it was seen in the cluster or in a gateway's decisions, with the time that
it took. Everything runs on this machine, and ends with the demo.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

import forked
from cluster_site import Site, override, write_yaml
from cluster_tools import CONTROL_PLANE, ToolsMissing, tools
from control_plane import ControlPlane
from forked import ForkedProcess
from gateway_process import RunningGateway, gateway_settings, operator_token_file
from git_loop import GitLoop
from logged_process import LoggedProcess
from operators import RunningOperator, settings_for
from serving import Load, until

NAMESPACE: Final = "trust-safety"
LINK: Final = "https://a.example "
SHADOW: Final = {"name": "shadow", "type": "Shadow", "until": {"decisions": 300}}
STEPS: Final = [
    SHADOW,
    {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 3}},
    {"name": "sign-off", "type": "Approval"},
    {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 3}},
]
ANALYSIS: Final = {
    "intervalSeconds": 1,
    "metrics": [
        {"name": "block-rate", "type": "BlockRate", "maxIncrease": "10%", "maxDecrease": "10%"},
        {"name": "flip-rate", "type": "FlipRate", "maxIncrease": "10%"},
    ],
}
GATES: Final = {"neverLoosen": ["toxicity"], "backtest": {"decisions": 180, "maxNewBlocks": "40%"}}
EVERY_LINK: Final = {"when": "content.links > 0", "action": "Block"}
TWO_LINKS: Final = {"when": "content.links > 1", "action": "Block"}
WAIT_SECONDS: Final = 60.0
FORK_SERVER: Final = "FORK_SERVER"
"""The variable by which a test run says what it forks from, to start another one takes seconds; else it has its own."""


class Demo:
    """The people and processes of the demo, and what was seen so far."""

    def __init__(self, site: Site, gateways: list[RunningGateway], repository: GitLoop, console: Console) -> None:
        self.site, self.gateways, self.repository, self.console = site, gateways, repository, console
        self.begun = time.monotonic()
        self.rows: list[tuple[str, str, str]] = []
        self.live: Live | None = None
        self._seen: dict[str, Any] = {}

    def say(self, what: str, outcome: str, seconds: float | None = None) -> None:
        """Say that something was seen."""
        self.rows.append((what, outcome, "" if seconds is None else f"{seconds:.2f} s"))
        if self.live is not None:
            self.status()
            self.live.update(self.table())

    def table(self) -> Table:
        """Draw what was seen so far, and what is in force now."""
        table = Table(title="Policy as a rollout", caption=self._now(), expand=True, show_lines=True)
        for name, ratio in (("what was done", 4), ("what came of it", 7)):
            table.add_column(name, ratio=ratio)
        table.add_column("after", justify="right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _now(self) -> str:
        status = self._seen
        stable, candidate = status.get("stable", {}), status.get("candidate", {})
        known = f"stable {stable.get('version', '-')}"
        if candidate:
            known += f" · candidate {candidate.get('version')} in {candidate.get('step', 'no step')}"
            known += f" at {candidate['weight']}" if "weight" in candidate else ""
        return f"{time.monotonic() - self.begun:.0f} s · {known}"

    def status(self) -> dict[str, Any]:
        """Return what the policy says of itself, which is also what is drawn until the next look."""
        self._seen = {}
        with contextlib.suppress(KeyError):
            self._seen = dict(self.site.plane.get_json("modpol", "community", NAMESPACE).get("status", {}))
        return self._seen

    def push(
        self, version: str, *, block: str = "92%", when: str = "content.links > 3", more: dict[str, str] | None = None
    ) -> None:
        """Commit a policy, push it, and let the loop apply it, as GitOps tools do; `more` is another rule."""
        signals = [{"name": "toxicity.toxic", "review": "70%", "block": block}]
        rules = [{"name": "links", "when": when, "action": "Review"}, *([{"name": "more", **more}] if more else [])]
        categories = [{"name": "toxicity", "signals": signals, "onSignalMissing": "Ignore"}]
        manifest = {
            "apiVersion": "moderation.baleen.dev/v1alpha1",
            "kind": "ModerationPolicy",
            "metadata": {"name": "community", "namespace": NAMESPACE},
            "spec": {
                "version": version,
                "policy": {"categories": categories, "rules": rules},
                "gates": GATES,
                "rollout": {"steps": STEPS, "analysis": ANALYSIS},
            },
        }
        write_yaml(self.repository.author, manifest)
        self.repository.push(version)
        self.apply()

    def revert(self) -> None:
        """Take the last commit back, as people do who want what was before."""
        self.repository.revert()
        self.apply()

    def apply(self) -> None:
        """Take one turn of the loop."""
        self.site.plane.kubectl("apply", "--server-side", "-f", self.repository.pull())

    def wait_for(self, type: str, reason: str) -> str:
        """Return what a condition of the policy says once it holds for this reason."""
        found: dict[str, str] = {}

        def is_so() -> bool:
            for each in self.status().get("conditions", ()):
                if (each["type"], each["reason"]) == (type, reason):
                    found["message"] = each["message"]
            self._tick()
            return bool(found)

        _until(is_so, f"{type}={reason}", self.status)
        return found["message"]

    def wait_for_version(self, version: str) -> float:
        """Return after how many seconds every gateway decides by a version."""
        begun = time.monotonic()
        _until(lambda: {self._version(each) for each in self.gateways} == {version}, version, self.status)
        return time.monotonic() - begun

    @staticmethod
    def _version(gateway: RunningGateway) -> str | None:
        # The first policy may be in force for the operator before a gateway has heard of it.
        return gateway.get("/v1/policies/community").get("summary", {}).get("version")

    def wait_for_step(self, step: str) -> float:
        """Return after how many seconds the candidate is in a step."""
        begun = time.monotonic()

        def is_so() -> bool:
            self._tick()
            return bool(self.status().get("candidate", {}).get("step") == step)

        _until(is_so, step, self.status)
        return time.monotonic() - begun

    def _tick(self) -> None:
        if self.live is not None:
            self.live.update(self.table())
        time.sleep(0.1)


def show(demo: Demo, operator: RunningOperator) -> None:
    """Show it, from the first policy to an Override with the operator gone."""
    edits: Sequence[tuple[str, Mapping[str, Any], tuple[str, str]]] = (
        ("v2: a typo", {"when": "content.linkz > 3"}, ("Accepted", "Invalid")),
        ("v2: a softer threshold", {"block": "97%"}, ("Accepted", "GateFailed")),
        ("v2: block every link", {"more": EVERY_LINK}, ("Stalled", "GateFailed")),
        ("v2: block two links", {"more": TWO_LINKS}, ("Stalled", "AnalysisFailed")),
    )
    for what, edit, reason in edits:
        begun = time.monotonic()
        demo.push("v2", **edit)
        demo.say(what, demo.wait_for(*reason), time.monotonic() - begun)
        demo.revert()

    demo.push("v2", more={"when": "content.links > 2", "action": "Review"})
    for step in ("shadow", "canary", "sign-off"):
        seconds = demo.wait_for_step(step)
        demo.say(f"v2: more than 2 links, step {step}", _where(demo.status()), seconds)
    digest = demo.status()["candidate"]["digest"]
    demo.site.apply(override(NAMESPACE, approve={"digest": digest, "throughStep": "sign-off"}))
    demo.wait_for_step("half")
    demo.say("somebody approves it", _where(demo.status()))
    demo.wait_for("Ready", "InForce")
    demo.say("v2 went through all steps", "stable for everybody", demo.wait_for_version("v2"))

    begun = time.monotonic()
    demo.revert()
    demo.wait_for_version("v1")
    demo.say("git revert, after full promotion", "all gateways decide by v1 again", time.monotonic() - begun)

    operator.kill()
    begun = time.monotonic()
    demo.site.apply(override(NAMESPACE, pin={"digest": digest, "reason": "the operator is away"}))
    demo.wait_for_version("v2")
    demo.say("operator killed, an Override pins v2", "all gateways decide by v2", time.monotonic() - begun)


def _where(status: dict[str, Any]) -> str:
    message = next((each["message"] for each in status["conditions"] if each["type"] == "Reconciling"), "")
    return message.partition(" is in ")[2] or message


def _until(condition: Callable[[], bool], what: str, status: Callable[[], object]) -> None:
    try:
        until(condition, seconds=WAIT_SECONDS)
    except AssertionError:
        raise SystemExit(f"baleen: {what} did not come within {WAIT_SECONDS:g} s; the policy says {status()}") from None


@contextlib.contextmanager
def _site(folder: Path) -> Iterator[tuple[Site, list[RunningGateway]]]:
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(folder / "control-plane"))
        plane.make_namespace(NAMESPACE)
        gateways = [
            stack.enter_context(RunningGateway(**gateway_settings(plane, folder / name, NAMESPACE)))
            for name in ("gateway-1", "gateway-2", "gateway-3")
        ]
        yield Site(plane=plane, namespace=NAMESPACE), gateways


def main() -> int:
    """Run the demo; no process is left."""
    console = Console()
    try:
        tools(CONTROL_PLANE)
    except ToolsMissing as exc:
        print(f"baleen: {exc}", file=sys.stderr)
        return 1
    LoggedProcess.start = ForkedProcess
    if told := os.environ.get(FORK_SERVER):
        forked.join(json.loads(told))
    with tempfile.TemporaryDirectory(prefix="baleen-rollout-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        site, gateways = stack.enter_context(_site(folder))
        urls = ",".join(each.stream_url for each in gateways)
        token = operator_token_file(site.plane, folder)
        settings = settings_for(NAMESPACE, gateway_urls=urls, gateway_token_file=str(token))
        operator = stack.enter_context(RunningOperator(site.plane.kubeconfig("baleen-operator"), settings))
        operator.wait_until_leading()
        demo = Demo(site, gateways, GitLoop(folder), console)
        demo.live = stack.enter_context(Live(demo.table(), console=console, refresh_per_second=4))
        loads = []
        for gateway in gateways:
            # Until there is a policy nobody is answered.
            for word in ("kind", LINK, LINK * 4):
                loads.append(Load(gateway.url, callers=1, word=word, pause_seconds=0.2))
        with contextlib.ExitStack() as traffic:
            demo.push("v1")
            demo.wait_for("Ready", "InForce")
            demo.wait_for_version("v1")
            demo.say("v1: review more than 3 links", "the first policy goes live at once")
            for load in loads:
                traffic.enter_context(load)
            for load in loads:
                # So that there is something to judge again.
                load.wait_for(25)
            show(demo, operator)
        answered = [each for load in loads for each in load.answered]
        failed = sum(each.status != 200 for each in answered)
        demo.say("traffic all the while", f"{len(answered)} requests, {failed} failed")
    console.print(f"\ndone in {time.monotonic() - demo.begun:.0f} s; nothing is left running")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
