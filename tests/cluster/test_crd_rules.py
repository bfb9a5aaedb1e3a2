"""Every rule and every bound of the CRDs, tried on a real API server."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from baleen_core.errors import InvalidError, Problem
from baleen_core.model.parse import parse_model_deployment
from baleen_core.policy.in_force import parse_override
from baleen_core.policy.parse import parse_policy
from control_plane import ControlPlane
from crd_samples import (
    OTHER_DIGEST,
    RULES,
    WHOLE,
    Place,
    Trial,
    changed,
    changed_at,
    find_rules,
    paths_in,
    read_crds,
    samples_of,
    schema_of,
    walk,
)

pytestmark = pytest.mark.cluster

CRDS = read_crds()
PLACES = find_rules()
TRANSITIONS = [pytest.param(place, id=str(place)) for place in PLACES if place.is_transition]
STATES = [pytest.param(place, id=str(place)) for place in PLACES if not place.is_transition]
REFERRED_TO = frozenset({"spec.models[].signals", "spec.models[].preprocessing.assets"})
"""Fields that are missed by something else, which core alone compares them with."""
OTHERS_SHAPES = tuple(f"spec.podTemplate.{name}" for name in ("affinity", "tolerations", "topologySpreadConstraints"))
"""Kubernetes' own shapes, which core passes on as they are."""


@pytest.fixture(scope="module")
def trial(control_plane: ControlPlane) -> Iterator[Trial]:
    """Tries objects out; nothing is stored, so that no namespace of its own is needed."""
    with control_plane.client() as client:
        yield Trial(client)


@pytest.fixture
def trial_here(control_plane: ControlPlane, namespace: str) -> Iterator[Trial]:
    """Tries changes of objects that are stored in the test's namespace."""
    with control_plane.client() as client:
        yield Trial(client, namespace)


def test_every_entry_of_the_table_is_for_a_rule_that_is_there():
    unused = {
        key for key in RULES if not any(key[0] == each.kind and each.message.startswith(key[1]) for each in PLACES)
    }

    assert unused == set()


@pytest.mark.parametrize("place", STATES)
def test_what_keeps_a_rule_is_taken_and_what_breaks_it_refused_with_what_would_be_right(place: Place, trial: Trial):
    samples = samples_of(place)
    whole = WHOLE[place.kind][samples.sample]
    kept, broken = (changed_at(whole, place.path, patch) for patch in (samples.good, samples.bad))

    assert trial.complaint(kept) == ""
    assert place.message in trial.complaint(broken)


@pytest.mark.parametrize("place", TRANSITIONS)
def test_a_change_that_breaks_a_rule_is_refused_with_what_would_be_right(place: Place, trial_here: Trial):
    samples = samples_of(place)
    whole = WHOLE[place.kind][samples.sample]
    kept, broken = (changed_at(whole, place.path, patch) for patch in (samples.good, samples.bad))
    stored = trial_here.create(whole)

    assert trial_here.complaint_about_change(kept, stored) == ""
    assert place.message in trial_here.complaint_about_change(broken, stored)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param({"scope": None}, {"scope": {"tenant": "acme"}}, "scope cannot be changed", id="any, then one"),
        pytest.param({}, {"scope": None}, "scope cannot be changed", id="one, then any"),
        pytest.param({"scope": None}, {"scope": {}}, "", id="any is any"),
        pytest.param({"type": None}, {"type": "Moderation"}, "", id="the usual type is the usual type"),
        pytest.param({"type": None}, {"type": "Privacy"}, "type cannot be changed", id="another type"),
        pytest.param({"type": "Privacy"}, {"type": None}, "type cannot be changed", id="a type that is left out"),
        pytest.param({}, {"role": "Floor"}, "", id="the role may change"),
    ],
)
def test_scope_and_type_cannot_be_changed_by_way_of_taking_them_away(
    before: Mapping[str, Any], after: Mapping[str, Any], said: str, trial_here: Trial
):
    (whole,) = WHOLE["ModerationPolicy"]
    first = changed(whole, {"spec": before})
    complaint = trial_here.complaint_about_change(changed(first, {"spec": after}), trial_here.create(first))

    assert said in complaint
    assert bool(said) == bool(complaint)


@pytest.mark.parametrize("kind", ["ModerationPolicy", "ModerationPolicyRevision", "ModerationRoute", "ModelDeployment"])
def test_what_a_rule_protects_cannot_be_taken_away_to_be_added_again(kind: str, trial_here: Trial):
    whole = WHOLE[kind][0]
    stored = trial_here.create(whole)

    assert "spec: Required value" in trial_here.complaint_about_change(changed(whole, {"spec": None}), stored)


def test_a_route_goes_forward_only(trial_here: Trial):
    (whole,) = WHOLE["ModerationRoute"]
    stored = trial_here.create(whole)
    older = changed(whole, {"spec": {"epoch": 40, "stable": OTHER_DIGEST}})

    assert trial_here.complaint_about_change(whole, stored) == ""
    assert "needs a higher spec.epoch" in trial_here.complaint_about_change(older, stored)


def too_much(node: Mapping[str, Any], value: Any) -> tuple[Any, str] | None:
    """Return a value that is over a node's bound, and a word of the refusal."""
    match node:
        case {"maxItems": limit}:
            return value * (limit // len(value) + 1), f"must have at most {limit} items"
        case {"maxProperties": limit}:
            return dict.fromkeys((f"a{number}" for number in range(limit + 1)), ""), "must have at most"
        case {"type": "string", "maxLength": limit}:
            return "a" * (limit + 1), "Too long" if "enum" not in node else "Unsupported value"
        case {"type": "integer", "maximum": limit}:
            return limit + 1, "should be less than or equal to"
    return None


@pytest.mark.parametrize("kind", CRDS)
def test_every_bound_is_kept_by_the_api_server(kind: str, trial: Trial):
    nodes = dict(walk(schema_of(CRDS[kind])))
    passed = []
    for whole in WHOLE[kind]:
        for path in dict.fromkeys(paths_in(whole)):
            if not path.startswith("spec.") or path not in nodes or (value := find(whole, path)) is None:
                continue
            if over := too_much(nodes[path], value):
                said = trial.complaint(changed_at(whole, path, over[0]))
                passed += [] if over[1] in said or "Too many" in said else [(path, over[1], said)]

    assert passed == []


def find(value: Any, path: str) -> Any:
    """Return what stands at a path, in the first entry of each list on the way; None when there is nothing."""
    for part in path.split("."):
        value = value.get(part.removesuffix("[]")) if isinstance(value, Mapping) else None
        if part.endswith("[]") and value:
            value = value[0]
    return value


@pytest.mark.parametrize(
    ("kind", "parse"),
    [
        pytest.param("ModerationPolicy", parse_policy, id="ModerationPolicy"),
        pytest.param("ModerationOverride", parse_override, id="ModerationOverride"),
        pytest.param("ModelDeployment", parse_model_deployment, id="ModelDeployment"),
    ],
)
def test_a_field_that_the_api_server_misses_core_misses_too(kind: str, parse: Any, trial: Trial):
    differ = []
    for whole in WHOLE[kind]:
        usual = complaints_of_core(parse, whole)
        later = {general(problem.field) for problem in usual if problem.message.startswith("NotYetSupported")}
        for path in dict.fromkeys(paths_in(whole)):
            above, _, field = path.rpartition(".")
            if not path.startswith("spec.") or field.endswith("[]") or find(whole, path) is None:
                continue
            # Core does not look into what is not built yet.
            if "{}" in path or any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in later):
                continue
            without = changed_at(whole, above, {field: None})
            of_core, of_server = complaints_of_core(parse, without) - usual, trial.complaint(without)
            if bool(of_core) != bool(of_server) and path not in REFERRED_TO and not path.startswith(OTHERS_SHAPES):
                differ.append((path, of_server, [str(problem) for problem in of_core]))

    assert differ == []


def general(path: str) -> str:
    return re.sub(r"\[\d+\]", "[]", path)


def complaints_of_core(parse: Callable[[Mapping[str, Any]], object], manifest: Mapping[str, Any]) -> set[Problem]:
    try:
        parse(manifest)
    except InvalidError as exc:
        return set(exc.problems)
    return set()


def named(count: int, entry: Mapping[str, Any], prefix: str = "a") -> list[dict[str, Any]]:
    return [{**entry, "name": f"{prefix}{number}"} for number in range(count)]


def test_a_policy_at_all_its_limits_is_taken(trial: Trial):
    (whole,) = WHOLE["ModerationPolicy"]
    content = whole["spec"]["policy"]
    signals = named(16, content["categories"][0]["signals"][0], "model.signal")
    full = {
        "description": "ä" * 1024,
        "policy": {
            "categories": named(64, {**content["categories"][0], "signals": signals, "require": {"review": "All"}}),
            "lists": named(32, content["lists"][0]),
            "rules": named(100, {**content["rules"][0], "when": "x" * 1024, "reason": "x" * 256}),
            "parameters": {f"p{number}_{'x' * 50}": "x" * 256 for number in range(63)},
            "models": named(32, content["models"][0]),
        },
        "tests": named(200, {**whole["spec"]["tests"][0], "signals": {f"m.s{n}": "1%" for n in range(256)}}),
    }

    # Rules have a budget when they are written, and another one when they are checked.
    assert trial.complaint(changed(whole, {"spec": full})) == ""


def test_a_deployment_at_all_its_limits_is_taken(trial: Trial):
    whole = WHOLE["ModelDeployment"][0]
    (model, _) = whole["spec"]["models"]
    full = {
        **model,
        "inputs": named(16, model["inputs"][0]),
        "outputs": named(16, model["outputs"][0], "x" * 126),
        "signals": named(64, {**model["signals"][0], "output": "x" * 126 + "15"}),
        "golden": [{**model["golden"][0], "expect": model["golden"][0]["expect"] * 64}] * 4,
    }

    assert trial.complaint(changed(whole, {"spec": {"models": named(32, full)}})) == ""
