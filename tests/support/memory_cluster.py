"""An API server in memory for tests of the operator: resource versions, server-side apply, and the rules of the CRDs.

It is both ports, `Seen` and `Cluster`. People write with `put`, `edit` and `remove`; what they wrote is seen by the
operator at once, or, while `is_lagging`, only after `catch_up`. What the operator wrote is seen at once.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from baleen_core.analysis.looks import Reading
from baleen_core.checking import texts_of
from baleen_core.errors import ClusterError, Stale
from baleen_core.model.schema import Model
from baleen_core.policy.schema import ListSourceType, Scope
from baleen_core.policy_stream import BacktestQuestion, TrialCounts
from baleen_core.resources import (
    GROUP,
    POLICY_KIND,
    POLICY_LABEL,
    REVISION_KIND,
    ROUTE_KIND,
)
from baleen_operator.plan.actions import Action, Apply, ApplyStatus, Delete, Emit, Target
from baleen_operator.plan.gate import Asked, Question
from baleen_operator.plan.looks import Looked, Queries
from baleen_operator.reconcile.ports import Acknowledged, Key, Manifest, Ports

T = TypeVar("T")
Place = tuple[str, str, str]
"""Kind, namespace and name."""


class Killed(BaseException):
    """The operator was killed: nothing catches it, as nothing catches a SIGKILL."""


class MemoryCluster:
    """One API server, and the one view that the operator has of it."""

    def __init__(self) -> None:
        self.objects: dict[Place, dict[str, Any]] = {}
        self.models_served: tuple[Model, ...] = ()
        self.actions: list[Action] = []
        self.is_lagging = False
        self.kill_after: int | None = None
        """After so many more actions the operator is killed."""
        self.before_act: Callable[[Action], None] = lambda action: None
        """Called before each action; raises what the API server would answer."""
        self.on_write: Callable[[Action], None] = lambda action: None
        """Called after each action that changed something."""
        self._view: dict[Place, dict[str, Any]] = {}
        self._applied: dict[Place, dict[str, Any]] = {}
        self._version = 0
        self._uid = 0

    # What people do

    def put(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create a resource, or replace what its spec, data, labels and annotations say."""
        manifest = deepcopy(dict(manifest))
        place = _place(manifest)
        old = self.objects.get(place)
        if old is None:
            return self._store(place, manifest | {"metadata": manifest["metadata"] | self._fresh()})
        kept = {name: old["metadata"][name] for name in ("uid", "creationTimestamp", "generation", "resourceVersion")}
        status = {"status": old["status"]} if "status" in old else {}
        return self._store(place, manifest | {"metadata": manifest["metadata"] | kept} | status)

    def edit(self, kind: str, namespace: str, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a resource by hand."""
        manifest = deepcopy(self.objects[kind, namespace, name])
        change(manifest)
        self._store((kind, namespace, name), manifest)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete a resource, and whatever nothing owns any more."""
        self.objects.pop((kind, namespace, name), None)
        self._applied.pop((kind, namespace, name), None)
        self._collect_garbage()
        if not self.is_lagging:
            self.catch_up()

    def catch_up(self) -> None:
        """Let the operator see everything."""
        self._view = deepcopy(self.objects)

    def find(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a resource as it is in the API server."""
        return deepcopy(self.objects.get((kind, namespace, name)))

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Return all resources of a kind."""
        return [deepcopy(each) for (found, _, _), each in sorted(self.objects.items()) if found == kind]

    def writes(self) -> list[str]:
        """Name what was written so far, in order, without Events."""
        return [_describe(each) for each in self.actions if not isinstance(each, Emit)]

    def events(self) -> list[str]:
        """Return the reasons of the Events so far."""
        return [each.reason for each in self.actions if isinstance(each, Emit)]

    # Seen

    def get(self, kind: str, key: Key) -> Manifest | None:
        return deepcopy(self._view.get((kind, *key)))

    def keys(self, kind: str) -> Sequence[Key]:
        return sorted((namespace, name) for found, namespace, name in self._view if found == kind)

    def revisions(self, key: Key) -> Sequence[Manifest]:
        return [
            deepcopy(each)
            for (kind, namespace, _), each in sorted(self._view.items())
            if kind == REVISION_KIND
            and namespace == key[0]
            and each["metadata"].get("labels", {}).get(POLICY_LABEL) == key[1]
        ]

    def sharing_scope(self, type: str, scope: Scope) -> Sequence[Key]:
        return sorted(
            {
                (namespace, name)
                for (kind, namespace, name), each in self._view.items()
                if kind in (POLICY_KIND, ROUTE_KIND)
                and each["spec"].get("type", "Moderation") == type
                and Scope(**each["spec"].get("scope", {})) == scope
            }
        )

    def models(self) -> Sequence[Model]:
        return self.models_served

    def claimant(self, model: str) -> Key | None:
        return None

    # Cluster

    async def read_texts(self, type: ListSourceType, namespace: str, name: str) -> Mapping[str, Any] | None:
        found = self.objects.get((type.value, namespace, name))
        return None if found is None else texts_of({**found, "kind": type.value})

    async def list_metadata(self, type: ListSourceType, namespace: str, name: str) -> Manifest | None:
        found = self.objects.get((type.value, namespace, name))
        return None if found is None else deepcopy(found["metadata"])

    async def read(self, target: Target, namespace: str, name: str) -> Manifest | None:
        return self.find(target.kind, namespace, name)

    async def look_for(self, target: Target, namespace: str, name: str) -> Manifest | None:
        return self.find(target.kind, namespace, name)

    async def select(self, target: Target, namespace: str, labels: Mapping[str, str]) -> Sequence[Manifest]:
        return [
            each
            for each in self.all(target.kind)
            if each["metadata"]["namespace"] == namespace
            and labels.items() <= each["metadata"].get("labels", {}).items()
        ]

    async def act(self, action: Action) -> Manifest | None:
        self.before_act(action)
        self.actions.append(action)
        place = (action.target.kind, action.namespace, action.name)
        before = self.objects.get(place)
        match action:
            case Apply():
                self._apply(place, action)
            case ApplyStatus():
                self._apply_status(place, action)
            case Delete():
                self._delete(place, action)
            case Emit():
                pass
        after = self.objects.get(place)
        if after is None:
            self._view.pop(place, None)
        elif not isinstance(action, Emit):
            self._view[place] = deepcopy(after)
        if before is not after:
            self.on_write(action)
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after <= 0:
                self.kill_after = None
                raise Killed
        return deepcopy(after)

    def _apply(self, place: Place, action: Apply) -> None:
        old = self.objects.get(place)
        self._check_version(action, old)
        body = deepcopy(dict(action.body))
        if old is None:
            self._store(place, body | {"metadata": body["metadata"] | self._fresh()}, is_own=True)
        else:
            # What this manager wrote before and does not say now goes; what others wrote stays.
            merged = _without(deepcopy(old), self._applied.get(place, {}), body)
            # A route's spec is atomic.
            whole = {"spec": body["spec"]} if action.target.kind == ROUTE_KIND else {}
            self._store(place, _merged(merged, body) | whole, is_own=True)
        self._applied[place] = body

    def _apply_status(self, place: Place, action: ApplyStatus) -> None:
        old = self.objects.get(place)
        if old is None:
            raise Stale(f"{_describe(action)}: it is not there any more")
        self._check_version(action, old)
        self._store(place, deepcopy(old) | {"status": deepcopy(dict(action.status))}, is_own=True)

    def _check_version(self, action: Apply | ApplyStatus, old: dict[str, Any] | None) -> None:
        expected = action.resource_version
        if expected is None and (old is None or action.target.group != GROUP):
            return
        if old is None or old["metadata"]["resourceVersion"] != expected:
            raise Stale(f"{_describe(action)}: the object has been modified")

    def _delete(self, place: Place, action: Delete) -> None:
        old = self.objects.get(place)
        if old is None:
            return
        if old["metadata"]["uid"] != action.uid:
            raise Stale(f"{_describe(action)}: the object is another one by now")
        del self.objects[place]
        self._applied.pop(place, None)
        self._collect_garbage()

    # The API server

    def _store(self, place: Place, manifest: dict[str, Any], *, is_own: bool = False) -> dict[str, Any]:
        old = self.objects.get(place)
        if old == manifest:
            return old
        _check_rules(old, manifest)
        metadata = manifest["metadata"]
        if old is not None and old.get("spec") != manifest.get("spec"):
            metadata["generation"] = old["metadata"]["generation"] + 1
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[place] = manifest
        if not is_own and not self.is_lagging:
            self.catch_up()
        return manifest

    def _fresh(self) -> dict[str, Any]:
        self._uid += 1
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._uid)
        return {
            "uid": f"uid-{self._uid}",
            "generation": 1,
            "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _collect_garbage(self) -> None:
        uids = {each["metadata"]["uid"] for each in self.objects.values()}
        for place, each in list(self.objects.items()):
            owners = each["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in uids for owner in owners):
                del self.objects[place]
                self._applied.pop(place, None)


class FixedGateways:
    """Gateways that said the same of every policy."""

    def __init__(self, said: Acknowledged | None = None, trials: Mapping[str, TrialCounts] | None = None) -> None:
        self.said = said or Acknowledged()
        self.trials = dict(trials or {})
        """What each saw of the rollout under way, by its name."""

    def acknowledged(self, key: Key, epoch: int) -> Acknowledged:
        return self.said

    def trial(self, key: Key, rollout: str) -> Mapping[str, TrialCounts]:
        return {name: counts for name, counts in self.trials.items() if counts.rollout == rollout}


class FixedBacktests:
    """Gateways whose logs say what a test tells them to, once they are asked."""

    def __init__(self) -> None:
        self.told: Asked = Asked()
        self.questions: list[tuple[Question, BacktestQuestion]] = []

    def asked(self, key: Key) -> Asked:
        return self.told

    def ask(self, key: Key, question: Question, content: BacktestQuestion) -> None:
        if self.told.under_way == question:
            return
        self.questions.append((question, content))
        self.told = replace(self.told, under_way=question)

    def answer(self, now: datetime, **said: Any) -> None:
        """Answer the question that is under way."""
        question = self.told.under_way
        assert question is not None, "nobody asks"
        tries = self.told.tries + 1 if self.told.question == question else 1
        self.told = Asked(question=question, time=now, tries=tries, **said)


class FixedProvider:
    """A server that says what a test tells it to, once it is asked."""

    def __init__(self) -> None:
        self.told: Looked = Looked()
        self.asked: list[Queries] = []

    def looked(self, key: Key) -> Looked:
        return self.told

    def ask(self, key: Key, queries: Queries) -> None:
        if self.told.under_way == queries:
            return
        self.asked.append(queries)
        self.told = replace(self.told, under_way=queries)

    def answer(self, now: datetime, **readings: Reading) -> None:
        """Answer what is under way; names of metrics are written with `_` for `-`."""
        queries = self.told.under_way
        assert queries is not None, "nobody asks"
        found = {name.replace("_", "-"): each for name, each in readings.items()}
        self.told = Looked(queries=queries, readings=found, time=now)


class TickingClock:
    """A clock that goes on by a second each time it is asked."""

    def __init__(self) -> None:
        self.now = datetime(2026, 2, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


async def run_here(work: Callable[[], T]) -> T:
    """Do work where it is asked for."""
    return work()


def make_ports(cluster: MemoryCluster, clock: TickingClock | None = None, **others: Any) -> Ports:
    """Put a cluster behind every port; a new one each time is an operator that was started again."""
    return Ports(
        seen=cluster,
        cluster=cluster,
        gateways=others.pop("gateways", FixedGateways()),
        backtests=others.pop("backtests", FixedBacktests()),
        provider=others.pop("provider", FixedProvider()),
        clock=clock or TickingClock(),
        off_loop=run_here,
        salt=others.pop("salt", lambda: "salt-of-a-test"),
        **others,
    )


def _place(manifest: Mapping[str, Any]) -> Place:
    return manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _check_rules(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> None:
    """Refuse what the CRDs' rules and the server itself refuse."""
    kind, name = new["kind"], new["metadata"]["name"]
    if kind == REVISION_KIND and not name.endswith(new["spec"]["digest"][len("sha256:") :][:10]):
        raise ClusterError(f"{kind} {name}: metadata.name must end with the digest")
    if old is None:
        return
    if kind == REVISION_KIND and old["spec"] != new["spec"]:
        raise ClusterError(f"{kind} {name}: spec cannot be changed")
    if kind == ROUTE_KIND and old["spec"] != new["spec"] and new["spec"]["epoch"] <= old["spec"]["epoch"]:
        raise ClusterError(f"{kind} {name}: a change needs a higher spec.epoch")
    if old.get("immutable") and old.get("data") != new.get("data"):
        raise ClusterError(f"{kind} {name}: data cannot be changed when it is immutable")
    if kind == POLICY_KIND and old["spec"].get("scope") != new["spec"].get("scope"):
        raise ClusterError(f"{kind} {name}: scope cannot be changed")


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: _merged(old.get(key), value) for key, value in new.items()}
    return deepcopy(new)


def _without(old: Any, applied: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
    for key, value in applied.items():
        if key not in body:
            old.pop(key, None)
        elif isinstance(value, dict) and isinstance(old.get(key), dict) and isinstance(body[key], dict):
            _without(old[key], value, body[key])
    return old


def _describe(action: Action) -> str:
    verb = {Apply: "apply", ApplyStatus: "apply status of", Delete: "delete", Emit: "tell of"}[type(action)]
    return f"{verb} {action.target.kind}"
