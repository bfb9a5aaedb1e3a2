"""Baleen installed with its chart on a node of this machine: first decision, memory, processor time, calls, an upgrade.

Kubernetes, Baleen and the load share the machine's cores. Texts are judged by one rule and no model is asked, while the
models of the examples are looked after as they are anywhere. All load comes out of the network of one pod that has a
sidecar, so that gateways, by the address of their service, and the sidecar have the same caller.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

from baleen_bench import pods, policies, texts
from baleen_bench.build import cache_folder, loadgen
from baleen_bench.form import Aim, Effort, Figure, Outcome, in_turns, noise_of
from baleen_bench.machine import Cores
from baleen_bench.pods import Caller, Pod, failed, told, used_seconds
from baleen_operator.plan.injection import INJECT_LABEL
from cluster_site import examples
from control_plane import NAMESPACE
from helm import CHART, RELEASE, Values, helm, merged
from installed import ENDPOINT, POLICIES, VALUES, application, prepare
from installed import pods as pods_of
from node_cluster import NodeCluster

GATEWAYS = 2
CALLS_PER_SECOND = 50.0
LOAD_PER_SECOND = 1000.0
UPGRADE_PER_SECOND = 25.0
"""Of each of the two KINDS of load."""
UPGRADE_SECONDS = 60.0
"""The length of the loads of an upgrade, which must be over before them."""
AFTER_SECONDS = 5.0
INSTALLATIONS, UPGRADES = 3, 2
REST_SECONDS, CALLS_SECONDS, LOAD_SECONDS = 10.0, 8.0, 10.0
QUICK_SECONDS = 1.0
SETTLE_SECONDS = 30.0
PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 0.2
T = TypeVar("T")
AT_REST, LOADED = "at rest", f"while {LOAD_PER_SECOND:,.0f} requests a second are offered to {GATEWAYS} gateways"
FIGURES = {
    "install_first_decision_s": Aim(
        what="`helm install` and one policy, until the first decision; images are on the node"
    ),
    "pod_memory_mib_operator_rest": Aim(what=f"working set of the leading operator's pod {AT_REST}"),
    "pod_memory_mib_gateway_rest": Aim(what=f"working set of a gateway's pod {AT_REST}"),
    "pod_cpu_millicores_operator_rest": Aim(what=f"processor time of the leading operator's pod {AT_REST}"),
    "pod_cpu_millicores_gateway_rest": Aim(what=f"processor time of a gateway's pod {AT_REST}"),
    "pod_load_per_s": Aim(what=f"rule-only decisions a second {LOADED}, Kubernetes and load on the same cores"),
    "pod_memory_mib_operator_loaded": Aim(what=f"working set of the leading operator's pod {LOADED}"),
    "pod_memory_mib_gateway_loaded": Aim(what=f"working set of a gateway's pod {LOADED}"),
    "pod_cpu_millicores_operator_loaded": Aim(what=f"processor time of the leading operator's pod {LOADED}"),
    "pod_cpu_millicores_gateway_loaded": Aim(what=f"processor time of a gateway's pod {LOADED}"),
    "gateway_call_p50_ms": Aim(what="a rule-only decision of a gateway, asked for in a pod by the service's address"),
    "gateway_call_p99_ms": Aim(what="the same, p99"),
    "sidecar_call_p50_ms": Aim(what="the same decision of the sidecar in that pod"),
    "sidecar_call_p99_ms": Aim(what="the same, p99"),
    "install_upgrade_failed": Aim(
        what=f"requests that failed at the first attempt during {UPGRADES} times `helm upgrade` to new pods", goal="< 1"
    ),
}
KINDS = ("kept", "fresh")
"""Of the loads of an upgrade: connections that are kept, a new one for each request."""
SHOP = "shop"
"""The namespace, and the name, of the application that asks."""
POLL = """
import sys, time, urllib.request

url, key, patience = sys.argv[1:]
ends = time.monotonic() + float(patience)
body = b'{"content": {"type": "text", "text": "Hello."}, "context": {"surface": "comments"}}'
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
while True:
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5).read()
        break
    except OSError:
        if time.monotonic() > ends:
            raise
        time.sleep(0.02)
print(time.monotonic())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A cluster with Baleen in it, and who asks it."""

    cluster: NodeCluster
    caller: Caller
    gateway_url: str
    sidecar_url: str = "http://127.0.0.1:8080/v1/moderate"

    def gateways(self) -> list[Pod]:
        """Return the gateways' pods."""
        return [Pod.find(self.cluster, name, NAMESPACE) for name in pods_of(self.cluster, "gateway")]

    def leader(self) -> Pod:
        """Return the pod of the operator that leads."""
        holder = self.cluster.get_json("lease", "baleen-operator", NAMESPACE)["spec"]["holderIdentity"]
        return Pod.find(self.cluster, holder.partition("_")[0], NAMESPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a pod used: processor time while something was done, memory right after it, and what no file is behind."""

    millicores: float
    mib: float
    anonymous_mib: float


Usages = Mapping[str, Sequence[Usage]]
"""Of the leading operator, and of each gateway, by what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the outcome."""

    figures: Sequence[Figure]
    raw: Any


def measure(effort: Effort) -> Outcome:
    """Install a few times; at the last installation look at rest, call, load and upgrade."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    loadgen()
    # Not in /tmp: that may be memory, where the gateways' decision logs would cost nothing.
    with (
        pods.containers(),
        tempfile.TemporaryDirectory(prefix="run-", dir=cache_folder()) as folder,
        NodeCluster(Path(folder) / "node") as cluster,
    ):
        key = prepare(cluster)
        parts = {"installations": install(cluster, key, 1 if effort.quick else INSTALLATIONS)}
        here = stage(cluster, key, texts.write_requests(Path(folder) / "requests.jsonl"))
        time.sleep(QUICK_SECONDS if effort.quick else SETTLE_SECONDS)
        parts["rest"] = rest(here, effort)
        parts["calls"] = call(here, effort)
        parts["loads"] = load(here, effort)
        parts["upgrades"] = upgrade(here, effort)
        # With the node the kernel ends its pods, and nobody is told what they have used.
        orphans = sum(map(used_seconds, cluster.control_groups("cpuacct")))
    return Outcome(
        figures=tuple(figure for part in parts.values() for figure in part.figures),
        raw={name: part.raw for name, part in parts.items()},
        orphans_cpu_seconds=orphans,
    )


def one_rule() -> dict[str, Any]:
    """Return a policy of one rule for the surface that is asked about; it wins there over the examples'."""
    made = policies.rule_only()
    made["metadata"]["namespace"] = POLICIES
    made["spec"]["scope"] = {"surface": "comments"}
    return made


def install(cluster: NodeCluster, key: str, count: int) -> Part:
    """Install so often, each time until a gateway decides; all but the last one are taken away again."""
    seconds = []
    for number in range(count):
        if number:
            cluster.kubectl("delete", "modpol", "--all", "-n", POLICIES)
            run_helm(cluster, "uninstall", RELEASE, "--wait")
            wait_until(lambda: not cluster.list_json("pods", NAMESPACE))
        begun = time.monotonic()
        run_helm(cluster, "install", RELEASE, CHART, values=VALUES)
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(one_rule()))
        done = cluster.run_on_node(sys.executable, "-c", POLL, gateway_url(cluster), key, str(PATIENCE_SECONDS))
        if done.returncode:
            raise RuntimeError(f"there came no decision: {done.stderr}")
        seconds.append(float(done.stdout) - begun)
        roll_out(cluster)
    return Part(figures=[Figure.of("install_first_decision_s", seconds, "s", aims=FIGURES)], raw=seconds)


def stage(cluster: NodeCluster, key: str, requests: Path) -> Stage:
    """Apply the examples and start who asks; return when all models serve and no text of the load needs one."""
    # The floor would have every text asked of a model.
    cluster.apply(*(each for each in examples(ENDPOINT) if each["metadata"]["name"] != "company-floor"))
    for kind in ("modpol", "moddep"):
        arguments = ("-n", POLICIES, "--for=condition=Ready", kind, "--all", f"--timeout={PATIENCE_SECONDS:.0f}s")
        cluster.kubectl("wait", *arguments)
    cluster.make_namespace(SHOP)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": SHOP}}
    asking = application(SHOP, SHOP, "sleep", "infinity")
    asking["metadata"]["labels"] = {INJECT_LABEL: "true"}
    cluster.apply(secret | {"stringData": {"api-key": key}}, asking)
    cluster.wait_for_condition("pod", SHOP, "Ready", SHOP, seconds=PATIENCE_SECONDS)
    here = Stage(
        cluster=cluster,
        caller=Caller(
            pid=Pod.find(cluster, SHOP, SHOP).pid(),
            requests=requests,
            cpu=Cores.choose().other,
            headers={"Authorization": f"Bearer {key}"},
        ),
        gateway_url=gateway_url(cluster),
    )
    for url in (here.gateway_url, here.sidecar_url):
        report = here.caller.offer(url, rate=CALLS_PER_SECOND, seconds=1.0, seed=0)  # what is done for the first time
        if failed(report):
            raise RuntimeError(f"{url} does not answer all: {told(report)}")
    return here


def use(here: Stage, work: Callable[[], T]) -> tuple[Usages, T]:
    """Return what pods used while something was done, and what came out of it."""
    watched = {"operator": [here.leader()], "gateway": here.gateways()}
    before = {pod.name: pod.cpu_seconds() for each in watched.values() for pod in each}
    begun = time.monotonic()
    found = work()
    seconds = time.monotonic() - begun

    def usage(pod: Pod) -> Usage:
        return Usage(
            millicores=(pod.cpu_seconds() - before[pod.name]) / seconds * 1000,
            mib=pod.memory_mib(),
            anonymous_mib=pod.anonymous_mib(),
        )

    return {who: [usage(pod) for pod in each] for who, each in watched.items()}, found


def figures_of(usages: Sequence[Usages], state: str) -> list[Figure]:
    """Return the four figures of a state; those of a gateway are the mean of all gateways."""
    found = []
    for who in ("operator", "gateway"):
        mib = [mean(usage.mib for usage in each[who]) for each in usages]
        millicores = [mean(usage.millicores for usage in each[who]) for each in usages]
        found += [
            Figure.of(f"pod_memory_mib_{who}_{state}", mib, "MiB", aims=FIGURES),
            Figure.of(f"pod_cpu_millicores_{who}_{state}", millicores, "millicores", aims=FIGURES),
        ]
    return found


def plain(usages: Sequence[Usages]) -> list[dict[str, Any]]:
    """Return usages as JSON has them."""
    return [{who: [asdict(usage) for usage in each] for who, each in one.items()} for one in usages]


def rest(here: Stage, effort: Effort) -> Part:
    """Look at the pods while nobody asks."""
    seconds = QUICK_SECONDS if effort.quick else REST_SECONDS
    usages = [use(here, lambda: time.sleep(seconds))[0] for _ in range(effort.repetitions)]
    return Part(figures=figures_of(usages, "rest"), raw=plain(usages))


def load(here: Stage, effort: Effort) -> Part:
    """Offer the rate that gateways are to take."""
    seconds = QUICK_SECONDS if effort.quick else LOAD_SECONDS

    def offer(seed: int) -> dict[str, Any]:
        return here.caller.offer(here.gateway_url, rate=LOAD_PER_SECOND, seconds=seconds, seed=seed)

    found = [use(here, partial(offer, seed)) for seed in range(effort.repetitions)]
    usages, reports = [usage for usage, _ in found], [report for _, report in found]
    rates = [report["achieved_per_second"] for report in reports]
    return Part(
        figures=[Figure.of("pod_load_per_s", rates, "requests/s", aims=FIGURES), *figures_of(usages, "loaded")],
        raw={"usages": plain(usages), "loads": reports},
    )


def call(here: Stage, effort: Effort) -> Part:
    """Ask the gateways, gateways and sidecar in turns; gateways against themselves are the noise.

    Raises:
        RuntimeError: a call failed, so that there is no latency of it.
    """
    seconds = QUICK_SECONDS if effort.quick else CALLS_SECONDS

    def ask(url: str, seed: int) -> dict[str, Any]:
        report = here.caller.offer(url, rate=CALLS_PER_SECOND, seconds=seconds, seed=seed)
        if failed(report):
            raise RuntimeError(f"{url} does not answer all: {told(report)}")
        return report

    urls = {"gateway": here.gateway_url, "sidecar": here.sidecar_url}
    pairs = [
        (ask(here.gateway_url, 2 * number), ask(here.gateway_url, 2 * number + 1))
        for number in range(effort.noise_pairs)
    ]
    reports = in_turns(urls, effort.repetitions, ask)
    figures = [
        Figure.of(
            f"{name}_call_{share}_ms",
            [report["latency_ms"][share] for report in reports[name]],
            "ms",
            aims=FIGURES,
            noise=noise_of((one["latency_ms"][share], other["latency_ms"][share]) for one, other in pairs),
        )
        for name in urls
        for share in ("p50", "p99")
    ]
    return Part(figures=figures, raw={"gateway_against_itself": pairs, **reports})


def upgrade(here: Stage, effort: Effort) -> Part:
    """Upgrade under load until no old pod is left, and count what failed; before, the same load with nothing done."""
    with loads(here, seed=0, seconds=QUICK_SECONDS if effort.quick else CALLS_SECONDS) as control:
        pass
    upgrades: list[dict[str, Any]] = []
    for number in range(1 if effort.quick else UPGRADES):
        with loads(here, seed=1 + number, seconds=UPGRADE_SECONDS) as reports:
            seconds = upgrade_once(here, number)
        upgrades.append({"seconds": seconds, **reports})
    lost = sum(failed(each[kind]) for each in upgrades for kind in KINDS)
    # Nothing fails by chance: where it does, a count says nothing about upgrades.
    noise = 1.0 if any(failed(control[kind]) for kind in KINDS) else 0.0
    figure = Figure.of("install_upgrade_failed", [lost], "requests", aims=FIGURES, noise=noise)
    return Part(figures=[figure], raw={"without_upgrade": control, "upgrades": upgrades})


def upgrade_once(here: Stage, number: int) -> float:
    """Bring new pods of everything by another setting of each, and return how long it took until the old ones ended.

    Raises:
        TimeoutError: the old ones did not end in time.
    """
    time.sleep(QUICK_SECONDS)
    settings = {
        "gateway": {"settings": {"deadlineSeconds": 55 - number}},
        "operator": {"settings": {"relistSeconds": 601 + number}},
    }
    old = {pod["metadata"]["name"] for pod in here.cluster.list_json("pods", NAMESPACE)}
    begun = time.monotonic()
    run_helm(here.cluster, "upgrade", RELEASE, CHART, values=merged(VALUES, settings))
    roll_out(here.cluster)
    wait_until(lambda: not old & {pod["metadata"]["name"] for pod in here.cluster.list_json("pods", NAMESPACE)})
    seconds = time.monotonic() - begun
    if seconds > UPGRADE_SECONDS - AFTER_SECONDS:
        raise TimeoutError(f"the upgrade took {seconds:.0f} s, longer than its load")
    return seconds


@contextmanager
def loads(here: Stage, *, seed: int, seconds: float) -> Iterator[dict[str, dict[str, Any]]]:
    """Put the gateways under both kinds of load; its reports are there after the block, when it is over."""
    reports: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(len(KINDS)) as executor:
        offered = {
            kind: executor.submit(
                here.caller.offer,
                here.gateway_url,
                rate=UPGRADE_PER_SECOND,
                seconds=seconds,
                seed=seed,
                fresh=kind == "fresh",
            )
            for kind in KINDS
        }
        yield reports
        reports |= {kind: found.result() for kind, found in offered.items()}


def gateway_url(cluster: NodeCluster) -> str:
    """Return where decisions are asked for at the address of the gateways' service; the generator asks no DNS."""
    address = cluster.get_json("service", "baleen-gateway", NAMESPACE)["spec"]["clusterIP"]
    return f"http://{address}:80/v1/moderate"


def run_helm(cluster: NodeCluster, *arguments: str | Path, values: Values | None = None) -> None:
    """Run Helm on the release."""
    helm(*arguments, "--namespace", NAMESPACE, values=values, kubeconfig=cluster.kubeconfig())


def roll_out(cluster: NodeCluster) -> None:
    """Wait until all pods of the release are there and ready."""
    for kind in ("operator", "gateway"):
        arguments = ("-n", NAMESPACE, f"deployment/baleen-{kind}", f"--timeout={PATIENCE_SECONDS:.0f}s")
        cluster.kubectl("rollout", "status", *arguments)


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when something holds.

    Raises:
        TimeoutError: it does not come to that.
    """
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError(f"it did not come to that in {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
