"""What the operator makes of a ModelDeployment, and what it says of it, whatever its servers do."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from baleen_core.errors import ClusterError, ModelUnavailable, NotFound, Stale
from baleen_operator.plan.actions import Apply, ApplyStatus, Delete
from baleen_operator.plan.manifests import SERVICES, build_service
from baleen_operator.plan.model_deployment import Entry, Place, judge, plan_object
from baleen_operator.reconcile.model_deployment import reconcile_model_deployment
from baleen_operator.reconcile.model_ports import ModelBudgets, ModelPorts
from baleen_operator.resources.model_deployment import ModelState, ModelStatus
from model_cluster import FixedClock, ModelCluster
from model_runtimes import OWNER, RULES
from served_models import IMAGE_MODEL, make_entry, make_manifest

ROWS = [[{"image": np.zeros((1, 3, 224, 224), np.float32)}]]
RIGHT, WRONG = 0.9731, 0.5
IMAGE = "registry.example/triton:25.08"
SOURCE = {"type": "Package", "uri": "pkg:pypi/scores@1.0", "sha256": "ab" * 32}


class Server:
    """A Triton in memory: `index` is its repository, `score` what its models answer."""

    def __init__(self, *models, loaded=()):
        self.index = {name: [Entry(version="3", is_ready=name in loaded, reason="")] for name in models}
        self.score = RIGHT
        self.problem = self.load_problem = ""
        self.loads, self.asked = [], 0
        self.hangs = False


class Tritons:
    """The port `triton` over servers in memory; nobody else answers."""

    def __init__(self, **servers):
        self.servers = {endpoint.replace("_", ":"): server for endpoint, server in servers.items()}
        self.now = self.most = 0

    @asynccontextmanager
    async def connect(self, endpoint, *, to_load=False):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield Connected(self.servers.get(endpoint), endpoint)
        finally:
            self.now -= 1


class Connected:
    def __init__(self, server, endpoint):
        self.server, self.endpoint = server, endpoint

    async def index(self):
        await asyncio.sleep(0)
        if self.server is None or self.server.problem:
            raise ModelUnavailable(f"Triton at {self.endpoint}: {self.server.problem if self.server else 'refused'}")
        if self.server.hangs:
            await asyncio.Event().wait()
        return self.server.index

    async def load(self, model):
        self.server.loads.append(model.name)
        if self.server.load_problem:
            raise ModelUnavailable(self.server.load_problem)
        self.server.index[model.name] = [Entry(version=model.version, is_ready=True)]

    async def infer(self, model, inputs):
        self.server.asked += 1
        return {"probabilities": np.array([[0, self.server.score, 0]], np.float32)}


class Files:
    """The port `files`: every model has one question, but for those that `raises` names."""

    problem = ""

    def __init__(self):
        self.raises = {}

    async def questions(self, model):
        if self.problem:
            raise NotFound(self.problem)
        if model.name in self.raises:
            raise self.raises[model.name]
        return ROWS


class Site:
    """A cluster, Tritons and an operator."""

    def __init__(self, **servers):
        self.cluster, self.clock, self.tritons, self.files = ModelCluster(), FixedClock(), Tritons(**servers), Files()
        self.ports = ModelPorts(
            seen=self.cluster,
            cluster=self.cluster,
            clock=self.clock,
            triton=self.tritons,
            files=self.files,
            rules=RULES,
            budgets=ModelBudgets(ask_seconds=0.2, load_seconds=0.2),
        )

    async def reconcile(self, key):
        """Reconcile once, after the time that was asked for."""
        outcome = await reconcile_model_deployment(key, self.ports)
        self.clock.move(outcome.requeue_seconds or 0)
        return outcome.requeue_seconds

    async def rest(self, key):
        """Reconcile until there is time."""
        for _ in range(10):
            seconds = await self.reconcile(key)
            if seconds is None or seconds >= 5:
                return seconds
        raise AssertionError(f"it never rests: {self.cluster.status(key)}")


def external(*endpoints, **spec):
    runtime = {"external": {"endpoints": [each.replace("_", ":") for each in endpoints]}}
    return make_manifest(**({"runtime": runtime, "models": [make_entry(source=SOURCE)]} | spec))


def managed(**spec):
    runtime = {"image": IMAGE, "backend": "Python"}
    return make_manifest(**({"runtime": runtime, "models": [make_entry(source=SOURCE)]} | spec))


# -- a Triton of someone else


async def test_a_model_is_loaded_warmed_and_verified_before_it_is_ready():
    site = Site(a_1=Server("image-safety"))
    key = site.cluster.create(external("a_1", models=[make_entry(source=SOURCE, warmup={"iterations": 3})]))

    assert await site.reconcile(key) == 0.5
    assert site.cluster.conditions(key)["Ready"] == ("False", "Loading")
    assert site.tritons.servers["a:1"].asked == 3

    assert await site.reconcile(key) == 30
    assert site.cluster.conditions(key) == {
        "Accepted": ("True", "Accepted"),
        "Ready": ("True", "Verified"),
        "Reconciling": ("False", "Verified"),
        "Stalled": ("False", "Verified"),
        "Available": ("True", "Serving"),
        "GoldenVerified": ("True", "Verified"),
    }
    status = site.cluster.status(key)
    assert status["endpoints"] == ["a:1"]
    assert (status["replicas"], status["readyReplicas"], status["desiredReplicas"]) == (1, 1, 1)
    (model,) = status["models"]
    assert model.pop("lastVerifiedTime").startswith("2026-01-01T12:00:")
    assert model == {
        "name": "image-safety",
        "version": "3",
        "sha256": "ab" * 32,
        "state": "Verified",
        "signals": ["gore", "sexual"],
    }


async def test_nothing_is_written_while_nothing_changes_but_for_the_time_of_the_last_good_answer():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(external("a_1"))
    await site.rest(key)
    site.cluster.written()
    await site.reconcile(key)

    assert site.cluster.written() == []

    await site.reconcile(key)
    (write,) = site.cluster.written()

    assert isinstance(write, ApplyStatus)
    assert write.status["models"][0]["lastVerifiedTime"] == "2026-01-01T12:01:00Z"


async def test_being_looked_at_early_asks_nobody():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(external("a_1"))
    await reconcile_model_deployment(key, site.ports)
    asked = site.tritons.servers["a:1"].asked
    site.clock.move(10)
    outcome = await reconcile_model_deployment(key, site.ports)

    assert (outcome.requeue_seconds, site.tritons.servers["a:1"].asked) == (20, asked)

    site.cluster.edit(key, verifyIntervalSeconds=60)
    await reconcile_model_deployment(key, site.ports)

    assert site.tritons.servers["a:1"].asked > asked


async def test_an_unloaded_model_is_said_to_be_unloaded_before_it_is_loaded_again():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(external("a_1"))
    await site.rest(key)
    site.tritons.servers["a:1"].index["image-safety"] = [Entry(version="3", is_ready=False, reason="unloaded")]
    await site.reconcile(key)

    assert site.cluster.conditions(key)["Ready"] == ("False", "ModelUnloaded")
    assert site.cluster.conditions(key)["Reconciling"] == ("True", "ModelUnloaded")
    assert site.cluster.events()[-1] == ("Warning", "ModelUnloaded")
    assert site.tritons.servers["a:1"].loads == ["image-safety"]

    await site.rest(key)

    assert site.cluster.conditions(key)["Ready"] == ("True", "Verified")


async def test_wrong_answers_are_told_with_the_difference_until_they_are_right():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    site.tritons.servers["a:1"].score = WRONG
    key = site.cluster.create(external("a_1"))
    await site.rest(key)

    assert site.cluster.conditions(key)["GoldenVerified"] == ("False", "WrongAnswers")
    assert site.cluster.conditions(key)["Available"] == ("False", "WrongAnswers")
    assert "is 50%; expected 97.31% within 1%" in site.cluster.message(key, "Ready")

    site.tritons.servers["a:1"].score = RIGHT
    await site.rest(key)

    assert site.cluster.conditions(key)["Ready"] == ("True", "Verified")


async def test_one_wrong_server_of_two_is_enough_not_to_be_ready():
    site = Site(
        a_1=Server("image-safety", loaded=["image-safety"]), b_1=Server("image-safety", loaded=["image-safety"])
    )
    site.tritons.servers["b:1"].score = WRONG
    key = site.cluster.create(external("a_1", "b_1"))
    await site.rest(key)

    assert site.cluster.conditions(key)["Ready"] == ("False", "WrongAnswers")
    assert "Triton at b:1 answers wrongly" in site.cluster.message(key, "Ready")
    assert site.cluster.status(key)["readyReplicas"] == 1


async def test_a_load_that_fails_is_tried_each_time_and_told_once():
    site = Site(a_1=Server("image-safety"))
    site.tritons.servers["a:1"].load_problem = "out of memory"
    key = site.cluster.create(external("a_1"))
    await site.rest(key)

    assert site.cluster.conditions(key)["Ready"] == ("False", "LoadFailed")
    assert site.cluster.message(key, "Stalled") == "out of memory"

    site.cluster.written()
    await site.rest(key)

    assert site.cluster.written() == []
    assert site.tritons.servers["a:1"].loads == ["image-safety"] * 2

    site.tritons.servers["a:1"].load_problem = ""
    await site.rest(key)

    assert site.cluster.conditions(key)["Ready"] == ("True", "Verified")


async def test_a_server_that_hangs_costs_its_time_and_no_more():
    site = Site(a_1=Server("image-safety"))
    site.tritons.servers["a:1"].hangs = True
    key = site.cluster.create(external("a_1"))
    await site.rest(key)

    assert site.cluster.conditions(key)["Available"] == ("False", "Unreachable")
    assert "not everything within 0.2 seconds" in site.cluster.message(key, "Available")


async def test_what_cannot_be_asked_is_neither_right_nor_wrong():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    site.files.problem = "there is no file 'red.png'"
    key = site.cluster.create(external("a_1"))
    await site.rest(key)

    assert site.cluster.conditions(key)["GoldenVerified"] == ("Unknown", "GoldenUnavailable")
    assert "there is no file 'red.png'" in site.cluster.message(key, "Ready")


@pytest.mark.parametrize("loaded", [("spoilt", "image-safety"), ()], ids=["served already", "to be loaded"])
async def test_files_that_raise_anything_are_told_of_their_model_alone_and_logged_once(loaded, caplog):
    site = Site(a_1=Server("spoilt", "image-safety", loaded=loaded))
    site.files.raises["spoilt"] = OverflowError("too large")
    models = [make_entry(name="spoilt", source=SOURCE), make_entry(source=SOURCE)]
    key = site.cluster.create(external("a_1", models=models))
    await site.rest(key)
    await site.rest(key)

    assert site.cluster.conditions(key)["GoldenVerified"] == ("Unknown", "GoldenUnavailable")
    says = "model 'spoilt' cannot be asked: OverflowError('too large')"
    assert site.cluster.message(key, "Ready") == says
    states = {model["name"]: model["state"] for model in site.cluster.status(key)["models"]}
    assert states == {"spoilt": "Unchecked", "image-safety": "Verified"}
    (record,) = caplog.records
    assert record.exc_info
    assert (record.object_name, record.model) == (key[1], "spoilt")


async def test_many_servers_of_one_deployment_are_asked_a_few_at_once():
    site = Site()
    key = site.cluster.create(external(*(f"host-{number}_1" for number in range(64))))
    await site.rest(key)

    assert 1 < site.tritons.most <= 8
    assert site.cluster.status(key)["readyReplicas"] == 0
    assert "and 59 more" in site.cluster.message(key, "Ready")


# -- what is refused


@pytest.mark.parametrize(
    ("manifest", "reason", "says"),
    [
        pytest.param(managed(autoscaling={"mode": "Off"}), "NotYetSupported", "spec.autoscaling", id="later field"),
        pytest.param(managed(verifyIntervalSeconds=1), "Invalid", "spec.verifyIntervalSeconds", id="wrong field"),
        pytest.param(
            managed(runtime={"image": "evil.example/triton:1"}),
            "ImageNotAllowed",
            "registry.example/triton",
            id="image",
        ),
        pytest.param(managed(models=[make_entry()]), "SourceNotAllowed", "File is for", id="local file"),
        pytest.param(
            managed(
                models=[make_entry(source=SOURCE, memory="3Gi")],
                podTemplate={"resources": {"limits": {"memory": "2Gi"}}},
            ),
            "Invalid",
            "the models need 3072Mi together (image-safety 3072Mi)",
            id="memory",
        ),
    ],
)
async def test_a_refused_deployment_says_why_and_makes_nothing(manifest, reason, says):
    site = Site()
    key = site.cluster.create(manifest)

    assert await site.reconcile(key) is None
    conditions = site.cluster.conditions(key)
    assert (conditions["Accepted"], conditions["Ready"]) == (("False", reason), ("False", reason))
    assert (conditions["Stalled"], conditions["Reconciling"]) == (("True", reason), ("False", reason))
    assert says in site.cluster.message(key, "Accepted")
    assert site.cluster.objects == {}


async def test_the_older_deployment_keeps_a_models_name_and_the_younger_is_told_whose_it_is():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    older = site.cluster.create(external("a_1", models=[make_entry(source=SOURCE)]))
    manifest = external("a_1")
    manifest["metadata"] = {"name": "younger", "namespace": "team-b"}
    younger = site.cluster.create(manifest, created="2026-01-02T00:00:00Z")
    await site.rest(older)
    seconds = await site.rest(younger)

    assert site.cluster.conditions(older)["Ready"] == ("True", "Verified")
    assert site.cluster.conditions(younger)["Accepted"] == ("False", "NameConflict")
    assert "belongs to ModelDeployment trust-safety/models, which is older" in site.cluster.message(younger, "Accepted")

    del site.cluster.deployments[older]
    assert seconds == 5
    await site.rest(younger)

    assert site.cluster.conditions(younger)["Ready"] == ("True", "Verified")


async def test_what_was_known_of_a_deployment_stays_said_while_an_edit_of_it_is_refused():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(external("a_1"))
    await site.rest(key)
    site.cluster.edit(key, rollout={})
    await site.rest(key)

    conditions = site.cluster.conditions(key)
    assert conditions["Accepted"] == ("False", "NotYetSupported")
    assert conditions["GoldenVerified"] == ("True", "Verified")
    assert site.cluster.status(key)["endpoints"] == ["a:1"]
    assert site.cluster.status(key)["observedGeneration"] == 2


async def test_a_deployment_that_is_gone_or_going_is_left_alone():
    site = Site()
    key = site.cluster.create(managed())
    site.cluster.deployments[key]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert await site.reconcile(key) is None
    assert await site.reconcile(("nowhere", "nothing")) is None
    assert site.cluster.actions == []


# -- a runtime of ours


async def test_a_runtime_is_made_once_and_left_alone_while_it_is_as_it_should_be():
    site = Site()
    key = site.cluster.create(managed(replicas=2))
    seconds = await site.reconcile(key)

    assert seconds == 5
    assert sorted({kind for kind, _, _ in site.cluster.objects}) == [
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    ]
    assert site.cluster.conditions(key)["Ready"] == ("False", "Progressing")
    assert site.cluster.message(key, "Ready") == "0 of 2 replicas are ready"
    status = site.cluster.status(key)
    assert status["selector"] == "moderation.baleen.dev/model-deployment=models"
    assert status["endpoints"] == ["triton-models.trust-safety.svc:8001"]
    assert status["models"][0]["state"] == "Pending"

    site.cluster.written()
    await site.reconcile(key)

    assert site.cluster.written() == []


async def test_a_runtime_is_ready_when_every_replica_gave_its_golden_answers_and_not_when_pods_are():
    servers = {f"10.0.0.{number}:8001": Server("image-safety", loaded=["image-safety"]) for number in (1, 2)}
    site = Site()
    site.tritons.servers = servers
    servers["10.0.0.2:8001"].score = WRONG
    key = site.cluster.create(managed(replicas=2))
    await site.reconcile(key)
    site.cluster.run_pods(key, "10.0.0.1", "10.0.0.2")
    await site.reconcile(key)

    assert site.cluster.conditions(key)["Ready"] == ("False", "WrongAnswers")
    assert site.cluster.status(key)["readyReplicas"] == 1

    servers["10.0.0.2:8001"].score = RIGHT
    await site.reconcile(key)

    assert site.cluster.conditions(key)["Ready"] == ("True", "Verified")
    assert site.cluster.status(key)["readyReplicas"] == 2


async def test_a_pod_that_is_starting_is_waited_for_and_no_alarm():
    site = Site()
    key = site.cluster.create(managed())
    await site.reconcile(key)
    site.cluster.run_pods(key, "10.0.0.1", ready=False)
    await site.reconcile(key)

    assert site.cluster.conditions(key)["Ready"] == ("False", "Progressing")
    assert site.cluster.conditions(key)["Stalled"][0] == "False"


async def test_a_pod_whose_triton_could_not_load_a_model_says_why():
    site = Site()
    failed = Entry(version="3", is_ready=False, reason="Internal: no such operator")
    site.tritons.servers["10.0.0.1:8001"] = Server("image-safety")
    site.tritons.servers["10.0.0.1:8001"].index["image-safety"] = [failed]
    site.tritons.servers["10.0.0.1:8001"].load_problem = "Internal: no such operator"
    key = site.cluster.create(managed())
    await site.reconcile(key)
    site.cluster.run_pods(key, "10.0.0.1", ready=False)
    await site.rest(key)

    assert site.cluster.conditions(key)["Ready"] == ("False", "LoadFailed")
    assert "no such operator" in site.cluster.message(key, "Ready")


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        pytest.param(
            {"type": "ReplicaFailure", "status": "True", "message": "pods are forbidden"}, "ReplicaFailure", id="quota"
        ),
        pytest.param(
            {"type": "Progressing", "status": "False", "message": "took too long"},
            "ProgressDeadlineExceeded",
            id="deadline",
        ),
    ],
)
async def test_a_rollout_that_is_stuck_is_stalled_with_the_clusters_own_words(condition, reason):
    site = Site()
    key = site.cluster.create(managed())
    await site.reconcile(key)
    site.cluster.objects["Deployment", "trust-safety", "triton-models"]["status"] = {"conditions": [condition]}
    await site.reconcile(key)

    assert site.cluster.conditions(key)["Stalled"] == ("True", reason)
    assert site.cluster.message(key, "Ready") == condition["message"]


async def test_no_replicas_serve_nobody_and_are_not_ready():
    site = Site()
    key = site.cluster.create(managed(replicas=0))
    await site.reconcile(key)
    site.cluster.run_pods(key)
    await site.reconcile(key)

    assert site.cluster.conditions(key)["Ready"] == ("False", "ScaledToZero")
    assert site.cluster.conditions(key)["Available"] == ("False", "ScaledToZero")
    assert site.cluster.conditions(key)["Reconciling"][0] == "False"


async def test_what_somebody_changed_by_hand_is_put_right():
    site = Site()
    key = site.cluster.create(managed())
    await site.reconcile(key)
    site.cluster.objects["Service", "trust-safety", "triton-models"]["spec"]["selector"] = {"app": "mine"}
    site.cluster.written()
    await site.reconcile(key)
    (write,) = site.cluster.written()

    assert (write.target, write.body["spec"]) == (SERVICES, build_service(replace(OWNER, name="models"))["spec"])


async def test_an_object_of_somebody_else_is_never_taken_over():
    site = Site()
    key = site.cluster.create(managed())
    site.cluster.objects["Service", "trust-safety", "triton-models"] = {
        "metadata": {"name": "triton-models", "namespace": "trust-safety", "resourceVersion": "1", "uid": "theirs"}
    }
    await site.reconcile(key)

    assert site.cluster.conditions(key)["Stalled"] == ("True", "NameTaken")
    assert "Service triton-models is there already" in site.cluster.message(key, "Ready")
    assert list(site.cluster.objects) == [("Service", "trust-safety", "triton-models")]


async def test_what_the_api_server_refuses_is_said_where_the_author_looks():
    site = Site()
    key = site.cluster.create(managed())
    site.cluster.refuses["Deployment"] = "spec.template.spec.tolerations[0].operator: Unsupported value"
    seconds = await site.reconcile(key)

    assert seconds == 5
    assert site.cluster.conditions(key)["Accepted"][0] == "True"
    assert site.cluster.conditions(key)["Stalled"] == ("True", "ApplyFailed")
    assert "Unsupported value" in site.cluster.message(key, "Ready")


async def test_config_maps_of_a_version_before_go_when_no_pod_is_left_that_could_need_them():
    site = Site()
    site.tritons.servers["10.0.0.1:8001"] = Server("image-safety", loaded=["image-safety"])
    key = site.cluster.create(managed())
    await site.reconcile(key)
    site.cluster.run_pods(key, "10.0.0.1")
    (before,) = site.cluster.of("ConfigMap")
    site.cluster.edit(key, models=[make_entry(source=SOURCE, batching={"maxBatchSize": 2})])
    await site.reconcile(key)

    assert len(site.cluster.of("ConfigMap")) == 2

    site.cluster.run_pods(key, "10.0.0.1")
    await site.reconcile(key)

    (after,) = site.cluster.of("ConfigMap")
    assert after["metadata"]["name"] != before["metadata"]["name"]


async def test_a_runtime_goes_when_its_author_gives_endpoints_in_its_place():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(managed())
    await site.reconcile(key)
    site.cluster.edit(key, runtime={"external": {"endpoints": ["a:1"]}})
    await site.rest(key)

    assert site.cluster.objects == {}
    assert site.cluster.conditions(key)["Ready"] == ("True", "Verified")
    assert "selector" not in site.cluster.status(key)


async def test_a_status_that_somebody_else_wrote_in_between_is_planned_again():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(external("a_1"))
    seen = site.cluster.get("ModelDeployment", key)
    site.cluster.edit(key, verifyIntervalSeconds=60)
    site.cluster.get = lambda kind, key: seen

    with pytest.raises(Stale):
        await site.reconcile(key)


async def test_an_api_server_that_is_away_is_for_the_queue_to_wait_for():
    site = Site()
    key = site.cluster.create(managed())

    async def away(*call):
        raise ClusterError("get deployments: no answer")

    site.cluster.read = away

    with pytest.raises(ClusterError, match="no answer"):
        await site.reconcile(key)


# -- the plain parts


def before(state, version="3"):
    return ModelStatus(
        name="image-safety",
        version=version,
        sha256="",
        state=state,
        message="said before",
        last_verified_time="",
        signals=(),
    )


@pytest.mark.parametrize(
    ("entries", "known", "may_load", "state", "was_unloaded"),
    [
        pytest.param([Entry(version="3", is_ready=True)], None, True, ModelState.VERIFIED, False, id="loaded"),
        pytest.param([], None, True, ModelState.MISSING, False, id="not there"),
        pytest.param([Entry(version="", is_ready=False)], None, True, ModelState.LOADING, False, id="not loaded yet"),
        pytest.param(
            [Entry(version="", is_ready=False)], None, False, ModelState.PENDING, False, id="not for us to load"
        ),
        pytest.param(
            [Entry(version="3", is_ready=False, reason="unloaded")],
            before("Verified"),
            True,
            ModelState.LOADING,
            True,
            id="unloaded behind our back",
        ),
        pytest.param(
            [Entry(version="3", is_ready=False, reason="unloaded")],
            before("Verified", version="2"),
            True,
            ModelState.LOADING,
            False,
            id="another version was verified",
        ),
        pytest.param(
            [Entry(version="3", is_ready=False, reason="broken")],
            before("LoadFailed"),
            True,
            ModelState.FAILED,
            False,
            id="failed before",
        ),
        pytest.param(
            [Entry(version="3", is_ready=False, reason="broken")],
            None,
            False,
            ModelState.FAILED,
            False,
            id="its own load failed",
        ),
        pytest.param([Entry(version="2", is_ready=True)], None, True, ModelState.FAILED, False, id="another version"),
        pytest.param(
            [Entry(version="2", is_ready=True)],
            None,
            False,
            ModelState.PENDING,
            False,
            id="a pod of the version before",
        ),
        pytest.param(
            [Entry(version="2", is_ready=True), Entry(version="3", is_ready=True)],
            None,
            True,
            ModelState.VERIFIED,
            False,
            id="two versions",
        ),
    ],
)
def test_what_a_server_says_of_a_model_is_judged_with_what_was_known(entries, known, may_load, state, was_unloaded):
    index = {"image-safety": entries} if entries else {"other": [Entry(version="1", is_ready=True)]}
    finding = judge(IMAGE_MODEL, Place(endpoint="a:1"), index, before=known, may_load=may_load)

    assert (finding.state, finding.was_unloaded) == (state, was_unloaded)


def as_the_server_keeps_it(body):
    kept = {**body, "metadata": {**body["metadata"], "resourceVersion": "7", "uid": "u", "generation": 1}}
    kept["spec"] = {**body["spec"], "clusterIP": "10.0.0.9"}
    return kept


def test_an_object_with_defaults_and_strangers_fields_is_as_it_should_be():
    (first,) = plan_object(SERVICES, build_service(OWNER), None)
    live = as_the_server_keeps_it(first.body)
    live["metadata"]["labels"] = {**live["metadata"]["labels"], "team": "a"}

    assert plan_object(SERVICES, build_service(OWNER), live) == ()


@pytest.mark.parametrize(("wanted", "kept"), [("0.5", "500m"), ("1024Mi", "1Gi"), ("2", "2"), ("1500M", "1500M")])
def test_amounts_are_the_same_however_they_are_written(wanted, kept):
    desired = build_service(OWNER) | {"spec": {"amount": wanted}}
    (first,) = plan_object(SERVICES, desired, None)
    live = as_the_server_keeps_it(first.body)
    live["spec"]["amount"] = kept

    assert plan_object(SERVICES, desired, live) == ()


def test_what_is_no_longer_said_is_taken_back_though_nothing_of_what_is_said_differs():
    (first,) = plan_object(SERVICES, build_service(OWNER), None)
    live = as_the_server_keeps_it(first.body)
    less = build_service(OWNER)
    del less["spec"]["type"]
    (again,) = plan_object(SERVICES, less, live)

    assert isinstance(again, Apply)
    assert (again.resource_version, "type" in again.body["spec"]) == ("7", False)


async def test_only_what_belongs_to_the_deployment_is_deleted():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(managed())
    await site.reconcile(key)
    site.cluster.objects["Service", "trust-safety", "triton-models"]["metadata"]["ownerReferences"] = []
    site.cluster.edit(key, runtime={"external": {"endpoints": ["a:1"]}})
    site.cluster.written()
    await site.rest(key)

    deleted = {action.target.kind for action in site.cluster.written() if isinstance(action, Delete)}
    assert deleted == {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap"}


async def test_a_server_that_does_not_answer_is_looked_at_soon_and_then_less_and_less_often():
    site = Site(a_1=Server("image-safety", loaded=["image-safety"]))
    key = site.cluster.create(external("a_1"))
    await site.rest(key)
    site.tritons.servers["a:1"].problem = "refused"
    waits = [await site.reconcile(key) for _ in range(16)]

    assert waits[0] == 5
    assert waits == sorted(waits)
    assert waits[-1] == 30
