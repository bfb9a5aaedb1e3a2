"""The operator's process: what it waits for and says meanwhile, and how it ends."""

import json

import pytest

import plain_http
from baleen_core.resources import GROUP, PLURALS
from control_plane import ControlPlane
from operators import RunningOperator, running_operator, settings_for

pytestmark = pytest.mark.cluster


def holder(control_plane: ControlPlane, operator_settings_lease: str) -> str:
    lease = control_plane.get_json("lease", operator_settings_lease, "baleen-system")
    return str(lease["spec"].get("holderIdentity", ""))


def test_without_its_kinds_it_says_so_and_goes_on_when_they_come(private_control_plane: ControlPlane):
    crds = json.loads(private_control_plane.kubectl("get", "crd", "-o", "json").stdout)
    names = {f"{plural}.{GROUP}" for plural in PLURALS.values()}
    private_control_plane.kubectl("delete", "crd", *names)
    with running_operator(private_control_plane) as operator:
        operator.wait_for("waiting")
        status, report = operator.ready()

        assert status == 503
        assert report["role"] == "starting"
        assert {name for name in names for reason in report["reasons"] if f"{name} is missing" in reason} == names
        assert plain_http.get(f"{operator.url}/health").status_code == 200

        crds["items"] = [each for each in crds["items"] if each["metadata"]["name"] in names]
        for each in crds["items"]:
            each["metadata"] = {name: each["metadata"][name] for name in ("name", "annotations")}
            each.pop("status")
        private_control_plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(crds))
        operator.wait_until_leading()


def test_kinds_that_are_older_than_the_operator_are_named(private_control_plane: ControlPlane):
    name = f"moderationroutes.{GROUP}"
    annotation = f"{GROUP}/schema-version"
    private_control_plane.kubectl("annotate", "--overwrite", "crd", name, f"{annotation}=0")
    with running_operator(private_control_plane) as operator:
        operator.wait_for("waiting")
        (reason,) = operator.ready()[1]["reasons"]

        assert name in reason
        assert "older (schema version 0) than this operator" in reason
        private_control_plane.kubectl("annotate", "--overwrite", "crd", name, f"{annotation}=1")
        operator.wait_until_leading()


def test_a_signal_ends_it_in_order_and_gives_the_lease_back(control_plane: ControlPlane, namespace: str):
    settings = settings_for(namespace)
    operator = RunningOperator(control_plane.kubeconfig("baleen-operator"), settings)
    try:
        operator.wait_until_leading()
        assert holder(control_plane, settings["lease_name"])

        assert operator.stop() == 0
        assert holder(control_plane, settings["lease_name"]) == ""
    finally:
        operator.close()
        control_plane.delete("lease", settings["lease_name"], "baleen-system")


def test_a_signal_ends_it_also_while_it_waits(private_control_plane: ControlPlane):
    private_control_plane.kubectl("delete", "crd", f"moderationroutes.{GROUP}")
    with running_operator(private_control_plane) as operator:
        operator.wait_for("waiting")

        assert operator.stop() == 0


def test_wrong_settings_are_all_named_before_anything_else_happens(control_plane: ControlPlane):
    operator = RunningOperator(control_plane.kubeconfig("baleen-operator"), {"port": "x", "wokers": "3"})
    try:
        assert operator.wait_for_end() == 2
        assert {each["setting"] for each in operator.events} == {"BALEEN_OPERATOR_PORT", "BALEEN_OPERATOR_WOKERS"}
    finally:
        operator.close()


def test_metrics_are_those_of_the_operator(control_plane: ControlPlane, namespace: str):
    with running_operator(control_plane, namespace) as operator:
        operator.wait_until_leading()
        text = plain_http.get(f"{operator.url}/metrics").text
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}

        assert all(name.startswith("baleen_operator_") for name in names)
        assert operator.metric("baleen_operator_leader") == 1
        assert operator.metric("baleen_operator_relists_total") >= 1


def test_its_token_is_never_logged(control_plane: ControlPlane, namespace: str):
    with running_operator(control_plane, namespace, log_level="DEBUG") as operator:
        operator.wait_until_leading()
        operator.stop()
        token = json.loads(control_plane.kubeconfig("baleen-operator").read_text())["users"][0]["user"]["token"]

        assert operator.events
        assert token not in json.dumps(operator.events) + "".join(operator.other_lines)
        assert operator.other_lines == []
