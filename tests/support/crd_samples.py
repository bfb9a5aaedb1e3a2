"""Objects of the five kinds: whole ones that say all that can be said, and what breaks or keeps each rule of a CRD."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from baleen_core.policy.schema import API_VERSION
from baleen_core.resources import PLURALS

Schema = Mapping[str, Any]
Patch = Mapping[str, Any] | str | int

CRDS: Final = Path(__file__).parents[2] / "crds"
DIGEST: Final = "sha256:" + "0123456789abcdef" * 4
OTHER_DIGEST: Final = "sha256:" + "f" * 64
SHA256: Final = "a" * 64
_STRICTLY: Final = {"fieldValidation": "Strict"}
_TRIED: Final = {**_STRICTLY, "dryRun": "All"}


def read_crds() -> dict[str, Schema]:
    """Read each CRD, by its kind."""
    found = [yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader) for path in sorted(CRDS.glob("*.yaml"))]
    return {crd["spec"]["names"]["kind"]: crd for crd in found}


def schema_of(crd: Schema) -> Schema:
    """Return the schema of its one version."""
    (version,) = crd["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield each node of a schema with its path: `spec.lists[].name`; `spec.parameters{}` is a mapping's values."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rule stands: a kind, a path, and what the API server says of those who break it."""

    kind: str
    path: str
    rule: str
    message: str

    @property
    def is_transition(self) -> bool:
        return "oldSelf" in self.rule

    def __str__(self) -> str:
        return f"{self.kind} {self.path}: {self.message}"


def find_rules() -> list[Place]:
    """Find every rule of every CRD, wherever it stands."""
    return [
        Place(kind=kind, path=path, rule=rule["rule"], message=rule["message"])
        for kind, crd in read_crds().items()
        for path, node in walk(schema_of(crd))
        for rule in node.get("x-kubernetes-validations", ())
    ]


def make(kind: str, spec: Mapping[str, Any], *, name: str = "community") -> dict[str, Any]:
    """Write a whole object."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": copy.deepcopy(dict(spec))}


def changed(value: Any, patch: Any) -> Any:
    """Return a value with a patch laid over it; None takes a field away, and what is no mapping is replaced."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    found = dict(value) if isinstance(value, Mapping) else {}
    for key, inner in patch.items():
        if inner is None:
            found.pop(key, None)
        else:
            found[key] = changed(found.get(key), inner)
    return found


def changed_at(value: Any, path: str, patch: Any) -> Any:
    """Lay a patch over what stands at a path, in the first entry of each list on the way."""
    head, _, rest = path.partition(".")
    if not head:
        return changed(value, patch)
    key, is_list = head.removesuffix("[]"), head.endswith("[]")
    if not is_list:
        return {**value, key: changed_at(value[key], rest, patch)}
    first, *others = value[key]
    return {**value, key: [changed_at(first, rest, patch), *others]}


def paths_in(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each field that an object has, as `walk` writes them but for the values of mappings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from paths_in(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from paths_in(inner, f"{path}[]")
    if path:
        yield path


CONTENT: Final[Mapping[str, Any]] = {
    "enforcement": "Enforce",
    "categories": [
        {
            "name": "toxicity",
            "signals": [{"name": "toxicity.toxic", "review": "70%", "block": "0.92"}],
            "require": {"review": "Any", "block": "All"},
            "onSignalMissing": "ModelFailure",
            "languages": ["en", "no"],
            "onLanguageUnsupported": "Skip",
        }
    ],
    "lists": [
        {
            "name": "known-bad",
            "type": "PerceptualHash",
            "maxDistance": 31,
            "action": "Block",
            "source": {"type": "ConfigMap", "name": "known-bad", "key": "hashes.txt"},
        },
        {"name": "shared", "type": "Terms", "action": "Review", "source": {"type": "Store", "name": "shared"}},
    ],
    "rules": [{"name": "links", "when": "content.links > 3", "action": "Review", "reason": "At most three links"}],
    "parameters": {"maxLinks": "3"},
    "models": [{"name": "toxicity", "version": "1"}],
    "onModelFailure": "Review",
    "video": {
        "windowMilliseconds": 10000,
        "overlapMilliseconds": 2000,
        "framesPerMinute": 120,
        "sampling": "Auto",
        "aggregation": "Max",
        "earlyExit": True,
        "minCoverage": "99%",
    },
    "anonymization": {"targets": ["Face", "Plate", "Email", "Phone"], "method": "Blur", "strength": "80%"},
    "retention": {"decisionsDays": 90, "media": {"keep": "Review", "days": 30, "anonymized": True}},
}

STEPS: Final[Sequence[Mapping[str, Any]]] = [
    {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 300, "decisions": 2000}},
    {"name": "shadow", "type": "Shadow", "until": {"decisions": 1000, "timeoutSeconds": 3600}},
    {"name": "staff", "type": "Match", "match": {"tenants": ["staff"]}},
    {"name": "sign-off", "type": "Approval"},
]

ANALYSIS: Final[Mapping[str, Any]] = {
    "intervalSeconds": 30,
    "confidence": "99%",
    "onInconclusive": "Hold",
    "metrics": [
        {"name": "block-rate", "type": "BlockRate", "maxIncrease": "1%", "maxDecrease": "1%", "mode": "Enforce"},
        {"name": "latency", "type": "LatencyP99", "maxIncreaseMilliseconds": 20, "mode": "Report"},
    ],
}

QUERY: Final[Mapping[str, Any]] = {
    "name": "refunds",
    "type": "PromQL",
    "query": 'sum(rate(refunds_total{revision="$candidate"}[5m]))',
    "min": "0",
    "max": "2%",
    "looks": 3,
}

TERM: Final[Mapping[str, Any]] = {
    "matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}],
    "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}],
}
SELECTOR: Final[Mapping[str, Any]] = {
    "matchLabels": {"app": "triton"},
    "matchExpressions": [{"key": "app", "operator": "In", "values": ["triton"]}],
}
NEIGHBOURS: Final[Mapping[str, Any]] = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": SELECTOR,
    "namespaceSelector": SELECTOR,
    "namespaces": ["models"],
}
POD_AFFINITY: Final[Mapping[str, Any]] = {
    "requiredDuringSchedulingIgnoredDuringExecution": [NEIGHBOURS],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": NEIGHBOURS}],
}
AMOUNTS: Final = {"cpu": "500m", "memory": "2Gi", "ephemeral-storage": 1000000}

POD_TEMPLATE: Final[Mapping[str, Any]] = {
    "resources": {"requests": AMOUNTS, "limits": AMOUNTS},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": TERM}],
        },
        "podAffinity": POD_AFFINITY,
        "podAntiAffinity": POD_AFFINITY,
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "minDomains": 2,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Ignore",
            "labelSelector": SELECTOR,
            "matchLabelKeys": ["pod-template-hash"],
        }
    ],
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "triton",
    "runtimeClassName": "nvidia",
    "priorityClassName": "high",
    "volumes": [
        {
            "name": "engines",
            "mountPath": "/engines",
            "readOnly": False,
            "emptyDir": {"sizeLimit": "1Gi"},
        },
        {"name": "models", "mountPath": "/models", "persistentVolumeClaim": {"name": "models"}},
        {"name": "labels", "mountPath": "/labels", "configMap": {"name": "labels"}},
        {"name": "keys", "mountPath": "/keys", "secret": {"name": "keys"}},
    ],
}

MODEL: Final[Mapping[str, Any]] = {
    "name": "image-safety",
    "version": "3",
    "source": {
        "type": "OCI",
        "uri": "models/image-safety:3",
        "sha256": SHA256,
        "credentialsSecretRef": {"name": "registry"},
    },
    "inputs": [{"name": "image", "dataType": "FP32", "dims": [3, 224, -1]}],
    "outputs": [{"name": "probabilities", "dataType": "FP32", "dims": [3]}],
    "signals": [{"name": "gore", "output": "probabilities", "index": 0, "fallback": "open-nsfw.unsafe"}],
    "preprocessing": {"recipe": "owen-s/1", "assets": [{"name": "labels.txt", "sha256": SHA256}]},
    "batching": {"maxBatchSize": 16, "maxQueueDelayMicroseconds": 100, "priorityLevels": 3},
    "instances": {"count": 1, "kind": "GPU"},
    "optimization": {"precision": "FP16", "engineCache": True, "intraOpThreads": 4},
    "warmup": {"iterations": 3},
    "golden": [
        {
            "input": {"name": "violet.png", "sha256": SHA256},
            "expect": [{"signal": "gore", "value": "2.69%", "tolerance": "1%"}],
        }
    ],
    "memory": "900Mi",
}
TEXT_MODEL: Final[Mapping[str, Any]] = {
    "name": "toxicity",
    "version": "1",
    "source": {"type": "Package", "uri": "pkg:pypi/tox-block@0.1.2#model.h5"},
    "inputs": [{"name": "input_ids", "dataType": "INT64", "dims": [100]}],
    "outputs": [{"name": "probabilities", "dataType": "FP32", "dims": [6]}],
    "signals": [{"name": "toxic", "output": "probabilities", "index": 0}],
    "preprocessing": {"recipe": "tox-block/1", "assets": [{"name": "vocab.json", "sha256": SHA256}]},
    "golden": [
        {"input": {"text": "Thank you."}, "expect": [{"signal": "toxic", "value": "0.2%", "tolerance": "0.01"}]},
    ],
    "memory": 52428800,
}
LOADED: Final = {"name": TEXT_MODEL["name"], "version": "1", "sha256": SHA256, "state": "Ready", "message": ""}

WHOLE: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    "ModerationPolicy": [
        make(
            "ModerationPolicy",
            {
                "scope": {"tenant": "acme", "surface": "comments", "source": "site-7/*"},
                "type": "Moderation",
                "role": "Policy",
                "version": "v1.4.0",
                "description": "Stricter on harassment",
                "policy": CONTENT,
                "tests": [
                    {
                        "name": "mild language passes",
                        "signals": {"toxicity.toxic": "30%"},
                        "text": "Hello",
                        "language": "en",
                        "author": {
                            "id": "ann",
                            "ageDays": 7,
                            "verified": True,
                            "strikes": 0,
                            "followers": 12,
                            "posts": 3,
                        },
                        "expect": "Allow",
                    }
                ],
                "gates": {
                    "backtest": {"decisions": 5000, "maxFlipRate": "2%", "maxNewBlocks": "0.5%"},
                    "neverLoosen": ["toxicity"],
                },
                "rollout": {
                    "keys": ["Author", "Session", "Content"],
                    "steps": STEPS,
                    "progressDeadlineSeconds": 86400,
                    "onDeadline": "Hold",
                    "rollbackWindow": 3,
                    "analysis": {**ANALYSIS, "metrics": [*ANALYSIS["metrics"], QUERY]},
                },
                "paused": True,
                "revisionHistoryLimit": 10,
            },
        )
    ],
    "ModerationPolicyRevision": [
        make(
            "ModerationPolicyRevision",
            {"digest": DIGEST, "schemaVersion": 1, "content": "{}"},
            name="community-0123456789",
        )
    ],
    "ModerationRoute": [
        make(
            "ModerationRoute",
            {
                "epoch": 41,
                "policy": "community",
                "type": "Moderation",
                "role": "Policy",
                "scope": {"tenant": "acme", "surface": "comments", "source": "site-7/*"},
                "created": "2026-01-01T00:00:00Z",
                "stable": DIGEST,
                "recentStable": [OTHER_DIGEST],
                "candidate": {
                    "digest": OTHER_DIGEST,
                    "weightBasisPoints": 500,
                    "shadow": False,
                    "match": {"tenants": ["staff"]},
                },
                "assignment": {"keys": ["Author", "Session", "Content"], "salt": "c2FsdA=="},
                "stableEpoch": 7,
                "gates": {
                    "backtest": {"decisions": 5000, "maxFlipRate": "2%", "maxNewBlocks": "0.5%"},
                    "neverLoosen": ["sexual"],
                },
                "version": "v1.4.0",
                "time": "2026-01-02T00:00:00Z",
                "reason": "Promoted",
                "by": "ann@example.org",
                "commit": "4b825dc",
                "approvedBy": "bob@example.org",
            },
        )
    ],
    "ModerationOverride": [
        make(
            "ModerationOverride",
            {
                "reject": [OTHER_DIGEST],
                "pin": {"digest": DIGEST, "reason": "incident 4711", "expireTime": "2036-01-31T18:00:00.5+01:00"},
                "approve": {"digest": DIGEST, "throughStep": "sign-off"},
                "paused": False,
            },
        )
    ],
    "ModelDeployment": [
        make(
            "ModelDeployment",
            {
                "runtime": {"image": "triton.example/tritonserver:25.08-py3", "backend": "Onnxruntime"},
                "models": [MODEL, TEXT_MODEL],
                "verifyIntervalSeconds": 30,
                "replicas": 2,
                "autoscaling": {
                    "mode": "Managed",
                    "minReplicas": 1,
                    "maxReplicas": 8,
                    "targetQueueMilliseconds": 20,
                    "targetInflightPerReplica": 32,
                    "scaleDownAfterSeconds": 300,
                    "onMetricsMissing": "Hold",
                },
                "resilience": {
                    "breaker": {
                        "failureThreshold": 5,
                        "firstProbeMilliseconds": 1000,
                        "maxOpenSeconds": 60,
                        "successThreshold": 2,
                        "slowCallMilliseconds": 2000,
                    },
                    "retryBudget": "10%",
                },
                "rollout": {
                    "strategy": "Canary",
                    "steps": STEPS,
                    "progressDeadlineSeconds": 86400,
                    "onDeadline": "RollBack",
                    "analysis": ANALYSIS,
                },
                "drain": {"graceSeconds": 60},
                "retraining": {"minExamples": 100, "jobTemplate": {"spec": {"backoffLimit": 2}}},
                "podTemplate": POD_TEMPLATE,
                "gpu": {"resource": "nvidia.com/gpu", "count": 1},
            },
            name="starter",
        ),
        make(
            "ModelDeployment",
            {"runtime": {"external": {"endpoints": ["triton.example:8001", "[::1]:8001"]}}, "models": [TEXT_MODEL]},
            name="external",
        ),
    ],
}
"""Objects that together say all that can be said; what they have in common is right by every rule."""

CONDITION: Final[Mapping[str, Any]] = {
    "type": "Ready",
    "status": "False",
    "reason": "Holding",
    "message": "",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-02T00:00:00Z",
}
ACTIVATION: Final[Mapping[str, Any]] = {
    "digest": DIGEST,
    "version": "v1.4.0",
    "time": "2026-01-02T00:00:00Z",
    "reason": "Promoted",
    "by": "ann@example.org",
    "commit": "4b825dc",
    "approvedBy": "bob@example.org",
}

STATUS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ModerationPolicy": {
        "observedGeneration": 1,
        "stable": {"digest": DIGEST, "version": "v1.3.2"},
        "candidate": {
            "digest": OTHER_DIGEST,
            "version": "v1.4.0",
            "step": "canary",
            "weight": "5%",
            "startTime": "2026-01-02T00:00:00Z",
            "stepTime": "2026-01-02T00:10:00.250Z",
            "pauseTime": "2026-01-02T00:20:00.250Z",
            "approvedBy": "bob@example.org",
            "plan": OTHER_DIGEST,
            "decisions": 1200,
            "rollout": "0123456789abcdef0123456789abcdef",
            "stableJudged": 22_800,
            "candidateJudged": 1200,
        },
        "failed": [
            {
                "digest": DIGEST,
                "reason": "DeadlineExceeded",
                "message": "too slow",
                "time": "2026-01-02T00:00:00Z",
                "wasApproved": True,
            }
        ],
        "backtests": [
            {
                "candidate": OTHER_DIGEST,
                "stable": DIGEST,
                "gate": "decisions 5000, maxFlipRate 2%",
                "verdict": "Fail",
                "reason": "TooManyFlips",
                "message": "too many",
                "time": "2026-01-02T00:00:00Z",
            }
        ],
        "analysis": {
            "verdict": "Inconclusive",
            "metrics": [
                {
                    "name": "block-rate",
                    "stable": "1.2%",
                    "candidate": "1.3%",
                    "interval": "-0.4% to 0.6%",
                    "verdict": "Pass",
                },
                {
                    "name": "refunds",
                    "candidate": "0.0134",
                    "verdict": "Error",
                    "within": 1,
                    "beyond": 1,
                    "numbers": 2,
                    "lookTime": "2026-01-02T00:12:00.250Z",
                    "problem": "the server did not answer in 5 s",
                },
            ],
        },
        "flips": [{"from": "Allow", "to": "Review", "count": 12}],
        "convergence": {"total": 14, "current": 13, "stale": ["gateway-7"], "convergedTime": "2026-01-02T00:00:01Z"},
        "history": [{"epoch": 41, **ACTIVATION}],
        "conditions": [CONDITION],
    },
    "ModerationPolicyRevision": {"activations": [{"epoch": 41, **ACTIVATION}]},
    "ModelDeployment": {
        "observedGeneration": 1,
        "replicas": 2,
        "readyReplicas": 1,
        "desiredReplicas": 2,
        "selector": "app.kubernetes.io/name=triton",
        "models": [{**LOADED, "lastVerifiedTime": "2026-01-02T00:00:00Z", "signals": ["toxicity.toxic"]}],
        "endpoints": ["10.0.0.7:8001"],
        "scaling": {"replicas": 2, "reason": "Queue", "message": "", "time": "2026-01-02T00:00:00Z"},
        "conditions": [CONDITION],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Patches for the place of a rule in a whole object: one that keeps the rule, and one that breaks it.

    For a rule about a change, the object is whole first, and then as `good` or `bad` have it.
    """

    good: Patch
    bad: Patch
    sample: int = 0


LONG_NAME: Final = "a" * 64
_BROKEN_NAME: Final = {"metadata": {"name": LONG_NAME}}
_NAMED: Final = {"metadata": {"name": "a" * 63}}

RULES: Final[Mapping[tuple[str, str], Samples]] = {
    ("ModerationPolicy", "metadata.name must be at most 63 characters without a dot"): Samples(
        good=_NAMED, bad=_BROKEN_NAME
    ),
    ("ModerationPolicy", "scope cannot be changed"): Samples(
        good={"scope": {"surface": "comments"}}, bad={"scope": {"tenant": "other"}}
    ),
    ("ModerationPolicy", "type cannot be changed"): Samples(good={"type": None}, bad={"type": "Privacy"}),
    ("ModerationPolicy", "says nothing"): Samples(
        good={"categories": None, "lists": None}, bad={"categories": [], "lists": None, "rules": None}
    ),
    ("ModerationPolicy", "languages needs onLanguageUnsupported"): Samples(
        good={"languages": None, "onLanguageUnsupported": None}, bad={"onLanguageUnsupported": None}
    ),
    ("ModerationPolicy", "onLanguageUnsupported means nothing without languages"): Samples(
        good={"onLanguageUnsupported": "Review"}, bad={"languages": None}
    ),
    ("ModerationPolicy", "require.review: All needs a review threshold"): Samples(
        good={"require": {"review": "All"}},
        bad={"require": {"review": "All"}, "signals": [{"name": "a.b", "review": "1%"}, {"name": "a.c", "block": "1"}]},
    ),
    ("ModerationPolicy", "require.block: All needs a block threshold"): Samples(
        good={"require": {"block": "All"}},
        bad={"require": {"block": "All"}, "signals": [{"name": "a.b", "review": "1%"}, {"name": "a.c", "block": "1"}]},
    ),
    ("ModerationPolicy", "has no threshold"): Samples(good={"review": None}, bad={"review": None, "block": None}),
    ("ModerationPolicy", "Allow is for lists of type Digest only"): Samples(
        good={"type": "Digest", "action": "Allow", "maxDistance": None}, bad={"action": "Allow"}
    ),
    ("ModerationPolicy", "maxDistance is for lists of type PerceptualHash only"): Samples(
        good={"maxDistance": 0}, bad={"type": "Terms"}
    ),
    ("ModerationPolicy", "key is required for a ConfigMap or Secret"): Samples(
        good={"type": "Secret"}, bad={"key": None}
    ),
    ("ModerationPolicy", "key is for a ConfigMap or Secret only"): Samples(
        good={"type": "Store", "key": None}, bad={"type": "Store"}
    ),
    ("ModerationPolicy", "Allow would change nothing"): Samples(good={"action": "Block"}, bad={"action": "Allow"}),
    ("ModerationPolicy", "a parameter's name has letters, digits and _ only"): Samples(
        good={"_a1": "", "b" * 63: ""}, bad={"max-links": "3"}
    ),
    ("ModerationPolicy", "a parameter's name is none of false, in, null and true"): Samples(
        good={"True": ""}, bad={"in": ""}
    ),
    ("ModerationPolicy", "signals are named <model>.<signal>"): Samples(
        good={"open-nsfw.unsafe": "0"}, bad={"unsafe": "0"}
    ),
    ("ModerationPolicyRevision", "spec cannot be changed"): Samples(
        good={"metadata": {"labels": {"team": "safety"}}}, bad={"spec": {"content": "{} "}}
    ),
    ("ModerationPolicyRevision", "metadata.name must be <policy>-<the first 10"): Samples(
        good={"metadata": {"name": "kids-0123456789"}}, bad={"metadata": {"name": "community-0123456780"}}
    ),
    ("ModerationRoute", "a change needs a higher spec.epoch"): Samples(
        good={"spec": {"epoch": 42, "stable": OTHER_DIGEST}}, bad={"spec": {"stable": OTHER_DIGEST}}
    ),
    ("ModerationRoute", "spec.policy must be metadata.name"): Samples(
        good={"metadata": {"name": "kids"}, "spec": {"policy": "kids"}}, bad={"spec": {"policy": "kids"}}
    ),
    ("ModerationOverride", "metadata.name must be the name of the policy"): Samples(good=_NAMED, bad=_BROKEN_NAME),
    ("ModerationOverride", "pin.digest is rejected too"): Samples(
        good={"reject": []}, bad={"reject": [OTHER_DIGEST, DIGEST]}
    ),
    ("ModerationPolicy", "has no limit, so it would stop nothing"): Samples(
        good={"maxFlipRate": None}, bad={"maxFlipRate": None, "maxNewBlocks": None}
    ),
    ("ModerationPolicy", "must be above 0% and below 100%"): Samples(good="99.99%", bad="100.0%"),
    ("ModerationPolicy", "a metric of type FlipRate has maxIncrease only"): Samples(
        good={"type": "FlipRate", "maxDecrease": None}, bad={"type": "FlipRate", "maxDecrease": "1%"}
    ),
    ("ModerationPolicy", "a metric of type PromQL needs a query"): Samples(
        good={"type": "PromQL", "query": "up", "min": "1", "maxIncrease": None, "maxDecrease": None},
        bad={"type": "PromQL", "query": "up", "maxIncrease": None, "maxDecrease": None},
    ),
    ("ModerationPolicy", "query, min, max and looks belong to a metric of type PromQL"): Samples(
        good={"maxDecrease": None}, bad={"looks": 2}
    ),
    ("ModerationPolicy", "a metric of type PromQL has min and max"): Samples(
        good={"type": "PromQL", "query": "up", "max": "-0.5", "maxIncrease": None, "maxDecrease": None},
        bad={"type": "PromQL", "query": "up", "max": "2%", "maxDecrease": None},
    ),
    ("ModelDeployment", "metadata.name must be at most 63 characters without a dot"): Samples(
        good=_NAMED, bad={"metadata": {"name": "a.b"}}
    ),
    ("ModelDeployment", "podTemplate and gpu belong to a Triton that Baleen runs"): Samples(
        good={"verifyIntervalSeconds": 5}, bad={"gpu": {"count": 1}}, sample=1
    ),
    ("ModelDeployment", "image and backend belong to a Triton that Baleen runs"): Samples(
        good={"external": {"endpoints": ["localhost:1"]}}, bad={"backend": "Python"}, sample=1
    ),
    ("ModelDeployment", "output of each signal must be the name of one of outputs"): Samples(
        good={"signals": []}, bad={"signals": [{"name": "gore", "output": "probability"}]}
    ),
    ("ModelDeployment", "fallback of a signal must be a signal of another model"): Samples(
        good={"signals": [{"name": "gore", "output": "probabilities", "fallback": "image-safety-2.sexual"}]},
        bad={"signals": [{"name": "gore", "output": "probabilities", "fallback": "image-safety.sexual"}]},
    ),
    ("ModelDeployment", "precision and engineCache are TensorRT's"): Samples(
        good={"instances": {"kind": "CPU"}, "optimization": {"precision": "FP32", "engineCache": False}},
        bad={"instances": {"kind": None}, "optimization": {"precision": "FP32"}},
    ),
    ("ModelDeployment", "credentialsSecretRef is for OCI, S3 and HTTP only"): Samples(
        good={"type": "PVC", "credentialsSecretRef": None}, bad={"type": "Package"}
    ),
    ("ModelDeployment", "an axis has a size from 1 to 65536"): Samples(good=-1, bad=0),
    ("ModelDeployment", "is a keyword of CEL"): Samples(good="gore", bad="in"),
    ("ModelDeployment", "maxQueueDelayMicroseconds waits for nothing"): Samples(
        good={"maxBatchSize": 1, "maxQueueDelayMicroseconds": 0}, bad={"maxBatchSize": 1}
    ),
    ("ModelDeployment", "must have either text, or a file's name"): Samples(
        good={"text": "Hello", "name": None, "sha256": None}, bad={"text": "Hello"}
    ),
    ("ModelDeployment", "sha256 belongs to a file's name"): Samples(good={"name": "a.png"}, bad={"sha256": None}),
    ("ModelDeployment", "must be above 0 and at most 1Ti"): Samples(good="1024Gi", bad="1025Gi"),
    ("ModelDeployment", "minReplicas must be at most maxReplicas"): Samples(
        good={"minReplicas": 8}, bad={"minReplicas": 9}
    ),
    ("ModelDeployment", "mode: Managed needs maxReplicas"): Samples(
        good={"mode": "External", "maxReplicas": None}, bad={"maxReplicas": None}
    ),
    ("ModelDeployment", "a label's key has at most 317 characters"): Samples(
        good={"a.example/" + "b" * 63: ""}, bad={"a" * 318: ""}
    ),
    ("ModelDeployment", "must be one of persistentVolumeClaim, configMap, secret and emptyDir"): Samples(
        good={"emptyDir": None, "secret": {"name": "keys"}}, bad={"secret": {"name": "keys"}}
    ),
} | {
    (kind, message): samples
    for kind in ("ModerationPolicy", "ModelDeployment")
    for message, samples in {
        "weight belongs to a step of type Weight": Samples(good={"weight": "100%"}, bad={"weight": None}),
        "match belongs to a step of type Match": Samples(
            good={"type": "Match", "weight": None, "match": {"tenants": ["staff"]}},
            bad={"match": {"tenants": ["staff"]}},
        ),
        "a step of type Approval lasts until": Samples(
            good={"type": "Approval", "weight": None, "until": None}, bad={"type": "Approval", "weight": None}
        ),
        "a metric of type LatencyP99 needs": Samples(
            good={"type": "LatencyP99", "maxIncreaseMilliseconds": 1}, bad={"type": "LatencyP99"}
        ),
        "needs maxIncrease, maxDecrease or both": Samples(
            good={"maxIncrease": None}, bad={"maxIncrease": None, "maxDecrease": None}
        ),
    }.items()
}
"""For each rule, by its kind and the beginning of its message."""


def samples_of(place: Place) -> Samples:
    """Find the samples of a rule.

    Raises:
        LookupError: there are none, or several.
    """
    found = [
        samples for (kind, said), samples in RULES.items() if kind == place.kind and place.message.startswith(said)
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} entries of RULES are for the rule {place}")
    return found[0]


class Trial:
    """Asks an API server whether it would take an object, and leaves nothing behind."""

    def __init__(self, client: httpx.Client, namespace: str = "default") -> None:
        self._client, self._namespace = client, namespace

    def path_of(self, kind: str, name: str = "") -> str:
        """Return the path of a kind's objects, or of one of them."""
        path = f"/apis/{API_VERSION}/namespaces/{self._namespace}/{PLURALS[kind]}"
        return f"{path}/{name}" if name else path

    def complaint(self, manifest: Mapping[str, Any]) -> str:
        """Return what the API server says against an object; nothing when it would take it."""
        return self._said(self._client.post(self.path_of(manifest["kind"]), params=_TRIED, json=manifest))

    def complaint_about_change(self, manifest: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
        """Return what the API server says against an object in place of one that is there."""
        metadata = manifest["metadata"] | {"resourceVersion": stored["metadata"]["resourceVersion"]}
        path = self.path_of(stored["kind"], stored["metadata"]["name"])
        return self._said(self._client.put(path, params=_TRIED, json={**manifest, "metadata": metadata}))

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, and return it as it is stored."""
        made = self._client.post(self.path_of(manifest["kind"]), params=_STRICTLY, json=manifest)
        assert made.is_success, made.text
        found: dict[str, Any] = made.json()
        return found

    def _said(self, answer: httpx.Response) -> str:
        if answer.is_success:
            return ""
        assert answer.status_code in (400, 422), answer.text
        return str(answer.json()["message"])
