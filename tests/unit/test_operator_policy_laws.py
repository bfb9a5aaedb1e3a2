"""What holds of a policy in a cluster, whatever people do, whatever the operator sees, and whenever it is killed."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baleen_core.errors import Stale
from baleen_core.model.schema import Model, ModelSignal, Preprocessing, Source, SourceType
from baleen_core.policy.in_force import parse_override
from baleen_core.policy.lists import restore_list
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import RevisionContent
from baleen_core.resources import (
    ALLOW_DELETE_ANNOTATION,
    OVERRIDE_KIND,
    POLICY_KIND,
    REVISION_KIND,
    ROUTE_KIND,
    SHARD_KEY,
    list_object_name,
    read_revision_resource,
    read_route,
    revision_name,
)
from baleen_operator.plan.actions import Action, Apply
from baleen_operator.reconcile.policy import reconcile_policy
from memory_cluster import Killed, MemoryCluster, TickingClock, make_ports
from policies import override_manifest, policy_manifest

KEY = ("trust-safety", "community")
SPACE, NAME = KEY
MODEL = Model(
    name="toxicity",
    version="1",
    source=Source(type=SourceType.FILE, uri="model.onnx"),
    inputs=(),
    outputs=(),
    preprocessing=Preprocessing(recipe="tox-block/1"),
    signals=(ModelSignal(name="toxic", output="probabilities", index=0),),
)
PLAN = {
    "steps": [
        {"name": "shadow", "type": "Shadow"},
        {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 1000}},
        {"name": "sign-off", "type": "Approval"},
        {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 1000}},
    ],
    "progressDeadlineSeconds": 5000,
}
LIST = {
    "name": "slurs",
    "type": "Terms",
    "action": "Block",
    "source": {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"},
}


def content(block: str, *, listed: bool) -> dict[str, Any]:
    categories = [{"name": "toxicity", "signals": [{"name": "toxicity.toxic", "block": block}]}]
    return {"categories": categories} | ({"lists": [LIST]} if listed else {})


class World:
    """A cluster in which the laws are watched at every write."""

    def __init__(self, **ports: Any) -> None:
        self.cluster = MemoryCluster()
        self.settings = ports
        self.cluster.models_served = (MODEL,)
        self.cluster.on_write = self.watch
        self.clock = TickingClock()
        self.ports = make_ports(self.cluster, self.clock, **ports)
        self.epochs: list[int] = []
        self.routed: set[tuple[int, str]] = set()
        self.put_terms("idiot")

    def put_terms(self, text: str) -> None:
        metadata = {"name": "slurs", "namespace": SPACE}
        self.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"terms.txt": text}})

    def digests(self) -> list[str]:
        return [each["spec"]["digest"] for each in self.cluster.all(REVISION_KIND)]

    def watch(self, action: Action) -> None:
        """Hold every write of a route against the laws."""
        if not isinstance(action, Apply) or action.target.kind != ROUTE_KIND:
            return
        manifest = self.cluster.find(ROUTE_KIND, *KEY)
        assert manifest is not None, "it was just written"
        route = read_route(manifest)
        identity = route.stable_epoch or route.epoch, route.route.stable
        if route.epoch in self.epochs:
            # Only what is not decided, such as an annotation, was written.
            return
        self.routed.add(identity)

        assert all(route.epoch > each for each in self.epochs), "epochs only rise"
        self.epochs.append(route.epoch)
        self.check_whole(route.route.stable)
        if route.route.candidate is not None:
            assert route.route.candidate.digest != route.route.stable
            self.check_whole(route.route.candidate.digest)

    def check_whole(self, digest: str) -> None:
        """Check that a revision is there and is what its digest names, and its lists, too."""
        found = self.revision(digest)
        for each in found.policy.lists:
            kept = self.cluster.find("ConfigMap", SPACE, list_object_name(each.digest or "", 0))
            assert kept is not None, "a list of what is routed is there"
            restore_list(each.type, each.digest or "", kept["data"][SHARD_KEY])

    def revision(self, digest: str) -> RevisionContent:
        manifest = self.cluster.find(REVISION_KIND, SPACE, revision_name(NAME, digest))
        assert manifest is not None, "what is routed is there"
        return read_revision(read_revision_resource(manifest)[2])

    async def reconcile(self, kill_after: int | None = None) -> None:
        """Reconcile once, or until the operator is killed after so many actions, and then start it again."""
        self.cluster.kill_after = kill_after
        try:
            await reconcile_policy(KEY, self.ports)
        except Stale:
            pass
        except Killed:
            self.ports = make_ports(self.cluster, self.clock, **self.settings)
        self.cluster.kill_after = None

    async def settle(self) -> None:
        """See everything, and reconcile until nothing is left to do."""
        self.cluster.is_lagging = False
        self.cluster.catch_up()
        for _ in range(6):
            before = len(self.cluster.actions)
            await self.reconcile()
            if len(self.cluster.actions) == before:
                return
        raise AssertionError("it writes for ever")

    def route(self) -> dict[str, Any] | None:
        found = self.cluster.find(ROUTE_KIND, *KEY)
        return found and found["spec"]

    def status(self) -> dict[str, Any]:
        policy = self.cluster.find(POLICY_KIND, *KEY) or {}
        return policy.get("status", {})

    def rows(self) -> list[tuple[int, str]]:
        """Return every row that outlives the policy, and the route's own."""
        rows = [
            (row["epoch"], row["digest"])
            for each in self.cluster.all(REVISION_KIND)
            for row in each.get("status", {}).get("activations", [])
        ]
        route = self.route()
        own = (route.get("stableEpoch", route["epoch"]), route["stable"]) if route else None
        return rows if own is None or own in rows else [*rows, own]


blocks = st.sampled_from(["92%", "80%", "70%"])
deadlines = st.sampled_from([None, "Hold", "RollBack"])
"""What a write says of its rollout; None: it has no steps."""
writes = st.tuples(st.just("write"), blocks, st.booleans(), st.booleans(), st.booleans(), deadlines)
steps = st.one_of(
    writes,
    writes,
    st.tuples(st.just("break")),
    st.tuples(st.just("terms"), st.sampled_from(["idiot", "moron"])),
    st.tuples(st.just("delete")),
    st.tuples(st.just("reject"), st.integers(0, 3)),
    st.tuples(st.just("pin"), st.integers(0, 3)),
    st.tuples(st.just("pause")),
    st.tuples(st.just("wait"), st.sampled_from([1, 1000, 1000, 3000])),
    st.tuples(st.just("approve"), st.integers(0, 3)),
    st.tuples(st.just("scribble")),
    st.tuples(st.just("release")),
    st.tuples(st.just("lag")),
    st.tuples(st.just("catch up")),
    st.tuples(st.just("reconcile"), st.none() | st.integers(1, 6)),
    st.tuples(st.just("reconcile"), st.none()),
)

hands = st.one_of(
    steps,
    steps,
    st.tuples(st.just("lose the route")),
    st.tuples(st.just("lose a revision"), st.integers(0, 3)),
    st.tuples(st.just("lose the lists")),
    st.tuples(st.just("route by hand"), st.integers(0, 3), st.booleans()),
)


def take(world: World, step: tuple[Any, ...]) -> None:
    """Do what a person does, or what becomes of the watch."""
    cluster, digests = world.cluster, world.digests()
    match step:
        case ("write", block, listed, paused, may_go, *rest):
            on_deadline = rest[0] if rest else None
            plan = {"rollout": PLAN | {"onDeadline": on_deadline}} if on_deadline else {}
            manifest = policy_manifest(content(block, listed=listed), paused=paused, **plan)
            manifest["metadata"] = {
                "name": NAME,
                "namespace": SPACE,
                "annotations": {ALLOW_DELETE_ANNOTATION: "true"} if may_go else {},
            }
            cluster.put(manifest)
        case ("break",) if cluster.find(POLICY_KIND, *KEY):
            cluster.edit(POLICY_KIND, *KEY, lambda each: each["spec"].update(policy=content("920%", listed=False)))
        case ("terms", text):
            world.put_terms(text)
        case ("delete",):
            cluster.remove(POLICY_KIND, *KEY)
        case ("reject", number) if digests:
            cluster.put(override_manifest(reject=[digests[number % len(digests)]]))
        case ("pin", number) if digests:
            cluster.put(override_manifest(pin={"digest": digests[number % len(digests)]}))
        case ("wait", seconds):
            world.clock.now += timedelta(seconds=seconds)
        case ("approve", number) if digests:
            cluster.put(override_manifest(approve={"digest": digests[number % len(digests)]}))
        case ("say nothing", _) if digests:
            cluster.put(override_manifest())
        case ("pause",):
            cluster.put(override_manifest(paused=True))
        case ("scribble",):
            cluster.put(override_manifest(pin={"digest": "latest"}))
        case ("release",):
            cluster.remove(OVERRIDE_KIND, *KEY)
        case ("lose the route",):
            cluster.remove(ROUTE_KIND, *KEY)
        case ("lose a revision", number) if digests:
            cluster.remove(REVISION_KIND, SPACE, revision_name(NAME, digests[number % len(digests)]))
        case ("lose the lists",):
            for each in cluster.all("ConfigMap"):
                if each.get("immutable"):
                    cluster.remove("ConfigMap", SPACE, each["metadata"]["name"])
        case ("route by hand", number, known) if cluster.find(ROUTE_KIND, *KEY):
            digest = digests[number % len(digests)] if known and digests else "sha256:" + "0" * 64
            cluster.edit(
                ROUTE_KIND, *KEY, lambda each: each["spec"].update(stable=digest, epoch=each["spec"]["epoch"] + 2)
            )
        case ("lag",):
            cluster.is_lagging = True
        case ("catch up",):
            cluster.is_lagging = False
            cluster.catch_up()


async def live(world: World, story: list[tuple[Any, ...]]) -> None:
    for step in story:
        if step[0] == "reconcile":
            await world.reconcile(step[1])
        else:
            take(world, step)
    await world.settle()


stories = st.lists(steps, min_size=1, max_size=24)
rough_stories = st.lists(hands, min_size=1, max_size=24)
many = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@many
@given(story=rough_stories)
def test_epochs_only_rise_and_what_is_routed_is_whole_and_it_always_settles(story):
    world = World()

    asyncio.run(live(world, story))
    assert len(set(world.epochs)) == len(world.epochs)


@many
@given(story=stories)
def test_no_row_is_lost_or_there_twice(story):
    world = World()
    asyncio.run(live(world, story))

    rows = world.rows()
    assert [row for row, count in Counter(rows).items() if count > 1] == []
    assert len({epoch for epoch, _ in rows}) == len(rows), "each row has an epoch of its own"
    per_revision = Counter(digest for _, digest in rows)
    # A revision keeps its newest ten.
    lost = {(epoch, digest) for epoch, digest in world.routed if per_revision[digest] < 10} - set(rows)
    assert lost == set()


@many
@given(story=stories)
def test_the_history_begins_with_what_is_in_force_and_rejected_is_only_what_is_not(story):
    world = World()
    asyncio.run(live(world, story))

    status, override = world.status(), world.cluster.find(OVERRIDE_KIND, *KEY)
    in_force = status.get("stable", {}).get("digest")
    if in_force is not None:
        assert status["history"][0]["digest"] == in_force
    if override is not None and override["spec"] != {"pin": {"digest": "latest"}}:
        assert in_force not in parse_override(override).reject


@many
@given(story=rough_stories, blocks=blocks, listed=st.booleans())
def test_in_the_end_what_the_policy_says_is_in_force(story, blocks, listed):
    world = World()
    asyncio.run(live(world, [*story, ("release",), ("write", blocks, listed, False, False)]))

    route, status = world.route(), world.status()
    assert route is not None
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert (ready["status"], status["stable"]["digest"]) == ("True", route["stable"])
    assert world.revision(route["stable"]).policy.categories[0].signals[0].block == int(blocks[:2]) * 10_000


@many
@given(story=stories, kills=st.lists(st.integers(1, 6), max_size=4))
def test_an_edit_that_is_not_valid_changes_no_route(story, kills):
    world = World()

    async def go() -> tuple[Any, Any]:
        await live(world, [*story, ("catch up",)])
        before = world.route()
        take(world, ("break",))
        take(world, ("pause",))
        for kill_after in kills:
            await world.reconcile(kill_after)
        await world.settle()
        return before, world.route()

    before, after = asyncio.run(go())
    if world.cluster.find(POLICY_KIND, *KEY) is not None:
        assert after == before


@many
@given(story=stories)
def test_deleting_all_that_may_go_and_applying_it_again_goes_on_with_the_epochs(story):
    world = World()
    end = [
        ("release",),
        ("write", "92%", False, False, True),
        ("catch up",),
        ("reconcile", None),
        ("reconcile", None),
        ("delete",),
    ]

    async def go() -> tuple[Any, int]:
        await live(world, [*story, *end])
        gone, newest = world.route(), max(epoch for epoch, _ in world.rows())
        await live(world, [("write", "80%", False, False, False)])
        return gone, newest

    gone, newest = asyncio.run(go())
    route = world.route()
    assert gone is None
    assert route is not None
    assert route["epoch"] > newest


@many
@given(story=stories)
def test_an_approval_that_does_not_count_is_as_none(story):
    """No approval is by anybody here, and with the setting that lets nothing through."""
    named, silent = World(approval_by_another=True), World(approval_by_another=True)
    asyncio.run(live(named, story))
    taken_out = (("say nothing", *step[1:]) if step[0] == "approve" else step for step in story)
    asyncio.run(live(silent, list(taken_out)))

    assert named.route() == silent.route()
    assert named.status().get("failed") == silent.status().get("failed")
