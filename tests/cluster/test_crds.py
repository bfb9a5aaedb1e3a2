"""The five kinds on a real API server: established, and as people, GitOps tools and scalers use them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from baleen_core.resources import GROUP, PLURALS
from control_plane import ControlPlane
from crd_samples import CONDITION, DIGEST, STATUS, WHOLE, Trial, changed, make, read_crds

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CRDS = read_crds()
WITH_STATUS = sorted(STATUS)
EXAMPLES = [path for folder in ("policies", "models") for path in sorted((ROOT / "examples" / folder).glob("*.yaml"))]


@pytest.fixture
def client(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    """An HTTP client that may do everything."""
    with control_plane.client() as client:
        yield client


@pytest.fixture
def trial(client: httpx.Client, namespace: str) -> Trial:
    """Creates objects in the test's namespace."""
    return Trial(client, namespace)


def write(folder: Path, *manifests: Any) -> Path:
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", CRDS)
def test_every_crd_is_established_with_the_names_and_the_schema_of_its_file(kind: str, client: httpx.Client):
    name = f"{PLURALS[kind]}.{GROUP}"
    found = client.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}").json()
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}

    # A schema that is not structural, or a list whose keys are not required, would be said here.
    assert conditions == {"Established": "True", "NamesAccepted": "True"}
    assert found["spec"]["versions"][0]["schema"] == CRDS[kind]["spec"]["versions"][0]["schema"]


def test_all_kinds_are_found_by_their_category_and_short_names(control_plane: ControlPlane):
    said = control_plane.kubectl("api-resources", "--api-group", GROUP, "--categories", "baleen", "-o", "name").stdout
    short = control_plane.kubectl("api-resources", "--api-group", GROUP, "--no-headers").stdout

    assert set(said.split()) == {f"{plural}.{GROUP}" for plural in PLURALS.values()}
    assert {line.split()[1] for line in short.splitlines()} == {"modpol", "modrev", "modroute", "modover", "moddep"}


@pytest.mark.parametrize("kind", CRDS)
def test_an_object_that_says_all_is_stored_as_it_was_written(kind: str, trial: Trial):
    for whole in WHOLE[kind]:
        stored = trial.create(whole)

        expected = {"replicas": 1, **whole["spec"]} if kind == "ModelDeployment" else whole["spec"]
        assert stored["spec"] == expected


@pytest.mark.parametrize("kind", CRDS)
def test_an_unknown_field_is_refused_when_asked_for_and_never_stored(kind: str, client: httpx.Client, trial: Trial):
    wrong = changed(WHOLE[kind][0], {"spec": {"policie": {}}})
    stored = client.post(trial.path_of(kind), params={"fieldValidation": "Ignore"}, json=wrong)

    assert 'unknown field "spec.policie"' in trial.complaint(wrong)
    assert stored.status_code == 201
    assert "policie" not in stored.json()["spec"]


def test_kubectl_refuses_an_unknown_field_by_itself(control_plane: ControlPlane, namespace: str, tmp_path: Path):
    wrong = changed(WHOLE["ModerationPolicy"][0], {"spec": {"policy": {"categorys": []}}})
    done = control_plane.kubectl("-n", namespace, "apply", "-f", write(tmp_path, wrong), check=False)

    assert done.returncode == 1
    assert 'unknown field "spec.policy.categorys"' in done.stderr


@pytest.mark.parametrize("server_side", [False, True], ids=["by the client", "by the server"])
def test_a_diff_of_what_was_applied_is_empty_and_applying_again_changes_nothing(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, server_side: bool
):
    how = ["--server-side"] if server_side else []
    file = write(
        tmp_path,
        *(whole for kind in ("ModerationPolicy", "ModerationOverride") for whole in WHOLE[kind]),
        *(changed(whole, {"spec": {"replicas": None}}) for whole in WHOLE["ModelDeployment"]),
    )
    control_plane.kubectl("-n", namespace, "apply", *how, "-f", file)
    first = versions(control_plane, namespace)
    diff = control_plane.kubectl("-n", namespace, "diff", *how, "-f", file)
    control_plane.kubectl("-n", namespace, "apply", *how, "-f", file)

    assert diff.stdout == ""
    assert versions(control_plane, namespace) == first


def versions(control_plane: ControlPlane, namespace: str) -> dict[str, tuple[str, list[str]]]:
    """Return the resourceVersion and the field managers of each object."""
    found = json.loads(
        control_plane.kubectl("-n", namespace, "get", "baleen", "-o", "json", "--show-managed-fields").stdout
    )
    return {
        item["metadata"]["name"]: (
            item["metadata"]["resourceVersion"],
            [entry["manager"] for entry in item["metadata"]["managedFields"]],
        )
        for item in found["items"]
    }


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_apply_cleanly(control_plane: ControlPlane, namespace: str, tmp_path: Path, file: Path):
    manifests = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    here = write(tmp_path, *(changed(each, {"metadata": {"namespace": namespace}}) for each in manifests))
    applied = control_plane.kubectl("apply", "--validate=strict", "--server-side", "-f", here)

    assert applied.stderr == ""
    assert len(applied.stdout.splitlines()) == len(manifests)
    assert control_plane.kubectl("diff", "--server-side", "-f", here).stdout == ""


@pytest.mark.parametrize("kind", WITH_STATUS)
def test_status_is_written_apart_from_spec(kind: str, client: httpx.Client, trial: Trial):
    stored = trial.create(WHOLE[kind][0] | {"status": STATUS[kind]})
    path = trial.path_of(kind, stored["metadata"]["name"])
    written = client.put(
        f"{path}/status", params={"fieldValidation": "Strict"}, json={**stored, "spec": {}, "status": STATUS[kind]}
    )

    assert "status" not in stored
    assert written.status_code == 200, written.text
    assert written.json()["status"] == STATUS[kind]
    assert written.json()["spec"] == stored["spec"]
    assert written.json()["metadata"]["generation"] == 1


@pytest.mark.parametrize("kind", WITH_STATUS)
def test_status_is_applied_by_the_operator_field_by_field(kind: str, client: httpx.Client, trial: Trial):
    stored = trial.create(WHOLE[kind][0])
    path = trial.path_of(kind, stored["metadata"]["name"])
    body = {key: stored[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": stored["metadata"]["name"]}}
    applied = client.patch(
        f"{path}/status",
        params={"fieldManager": "baleen-operator", "force": "true"},
        headers={"Content-Type": "application/apply-patch+yaml"},
        content=json.dumps({**body, "status": STATUS[kind]}),
    )

    assert applied.status_code == 200, applied.text
    assert applied.json()["status"] == STATUS[kind]


def test_a_wrong_condition_is_refused(client: httpx.Client, trial: Trial):
    stored = trial.create(WHOLE["ModerationPolicy"][0])
    twice = {"conditions": [CONDITION, {**CONDITION, "status": "True"}]}
    vague = {"conditions": [{**CONDITION, "status": "Maybe", "reason": "not one word"}]}
    path = f"{trial.path_of('ModerationPolicy', 'community')}/status"
    answers = [client.put(path, json={**stored, "status": status}).json()["message"] for status in (twice, vague)]

    assert "Duplicate value" in answers[0]
    assert 'Unsupported value: "Maybe"' in answers[1]
    assert "status.conditions[0].reason" in answers[1]


def test_a_deployment_is_scaled_by_the_ordinary_command(
    control_plane: ControlPlane, namespace: str, client: httpx.Client
):
    trial = Trial(client, namespace)
    trial.create(changed(WHOLE["ModelDeployment"][0], {"spec": {"replicas": None}}))
    path = trial.path_of("ModelDeployment", "starter")
    before = client.get(f"{path}/scale").json()
    control_plane.kubectl("-n", namespace, "scale", "moddep/starter", "--replicas=3")

    assert before["spec"] == {"replicas": 1}
    assert client.get(path).json()["spec"]["replicas"] == 3
    assert client.get(f"{path}/scale").json()["spec"] == {"replicas": 3}


def test_a_scaler_sees_the_replicas_that_there_are_and_which_pods_they_are(client: httpx.Client, trial: Trial):
    stored = trial.create(WHOLE["ModelDeployment"][0])
    path = trial.path_of("ModelDeployment", "starter")
    client.put(f"{path}/status", json={**stored, "status": STATUS["ModelDeployment"]}).raise_for_status()

    assert client.get(f"{path}/scale").json()["status"] == {
        "replicas": STATUS["ModelDeployment"]["replicas"],
        "selector": STATUS["ModelDeployment"]["selector"],
    }


SHOWN: dict[str, dict[str, str]] = {
    "ModerationPolicy": {
        "NAME": "community",
        "LIVE": "v1.3.2",
        "CANDIDATE": "v1.4.0",
        "STEP": "canary",
        "WEIGHT": "5%",
        "READY": "False",
        "REASON": "Holding",
        "CONVERGED": "",
        "ROLE": "Policy",
        "TENANT": "acme",
        "SURFACE": "comments",
        "SOURCE": "site-7/*",
        "DIGEST": DIGEST,
    },
    "ModerationPolicyRevision": {
        "NAME": "community-0123456789",
        "POLICY": "community",
        "VERSION": "v1.4.0",
        "DIGEST": DIGEST,
    },
    "ModerationRoute": {
        "NAME": "community",
        "EPOCH": "41",
        "VERSION": "v1.4.0",
        "STABLE": DIGEST,
        "REASON": "Promoted",
        "BY": "ann@example.org",
        "TYPE": "Moderation",
        "ROLE": "Policy",
    },
    "ModerationOverride": {
        "NAME": "community",
        "PINNED": DIGEST,
        "REASON": "incident 4711",
        "EXPIRES": "2036-01-31T18:00:00.5+01:00",
        "PAUSED": "false",
        "APPROVED": DIGEST,
    },
    "ModelDeployment": {
        "NAME": "starter",
        "DESIRED": "2",
        "READY REPLICAS": "1",
        "READY": "False",
        "REASON": "Holding",
        "GOLDEN": "",
        "IMAGE": "triton.example/tritonserver:25.08-py3",
    },
}


@pytest.mark.parametrize("kind", SHOWN)
def test_kubectl_get_shows_what_is_live_how_far_and_whether_it_is_well(
    kind: str, control_plane: ControlPlane, namespace: str, client: httpx.Client
):
    trial = Trial(client, namespace)
    metadata = {"labels": {f"{GROUP}/policy": "community"}, "annotations": {f"{GROUP}/version": "v1.4.0"}}
    stored = trial.create(changed(WHOLE[kind][0], {"metadata": metadata}))
    if kind in STATUS:
        path = trial.path_of(kind, stored["metadata"]["name"])
        client.put(f"{path}/status", json={**stored, "status": STATUS[kind]}).raise_for_status()
    shown = control_plane.kubectl("-n", namespace, "get", PLURALS[kind], "-o", "wide").stdout

    assert SHOWN[kind].items() <= row(shown).items()


def row(table: str) -> dict[str, str]:
    """Read the one row of a table as kubectl prints it: columns begin below their names."""
    header, line = table.splitlines()
    names = [name for name in header.split("  ") if name.strip()]
    starts = [
        header.index(f"{name.strip()}  ") if index < len(names) - 1 else header.index(name.strip())
        for index, name in enumerate(names)
    ]
    ends = [*starts[1:], None]
    return {name.strip(): line[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)}


def test_every_field_is_explained_at_the_command_line(control_plane: ControlPlane):
    said = control_plane.kubectl("explain", "modpol.spec.policy.categories.signals.review").stdout

    assert "From here on a person looks at it" in said


def test_an_empty_override_is_one(trial: Trial):
    assert trial.create(make("ModerationOverride", {}))["spec"] == {}
