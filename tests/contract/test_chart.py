"""What the chart renders, and what it refuses; no cluster is asked."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from baleen_core.accounts import parse_accounts
from baleen_operator import settings as of_operator
from baleen_operator.adapters.webhooks import (
    ANSWER_SECONDS,
    APPLIED_PATH,
    APPROVED_PATH,
    PODS_PATH,
    POLICIES_PATH,
    STAMP_SECONDS,
)
from baleen_sidecar import settings as of_sidecar
from baleen_sidecar.flow.quotas import parse_quotas
from control_plane import ROOT
from helm import CHART, KEYS, Values, helm, manifests, merged, render
from pages import blocks

pytestmark = pytest.mark.helm

DATA = ROOT / "tests" / "data" / "chart"
CASES = sorted(path.name.removesuffix(".values.yaml") for path in DATA.glob("*.values.yaml"))
WITH_FILES = (
    *("CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
)
"""Kinds whose objects are those of a file, which another test compares."""


def values_of(case: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DATA / f"{case}.values.yaml").read_text())
    return found


@cache
def objects_of(case: str) -> list[dict[str, Any]]:
    """Return what a set of values renders, without the kinds, which take longest."""
    return manifests(merged(values_of(case), {"crds": {"install": False}}))


def by_identity(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def environment(objects: list[dict[str, Any]], part: str) -> dict[str, str]:
    """Return the variables of a part's container, as a kubelet would put them together."""
    found = by_identity(objects)
    workload = found.get(("Deployment", f"baleen-{part}")) or found["StatefulSet", f"baleen-{part}"]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    variables = dict(found["ConfigMap", f"baleen-{part}"]["data"])
    for each in container.get("env", ()):
        variables[each["name"]] = each.get("value", "from-the-pod")
    return variables


def settings_of(kind: type, prefix: str) -> set[str]:
    return {prefix + name.upper() for name in kind.__dataclass_fields__}


OF_OPERATOR = settings_of(of_operator.Settings, of_operator.PREFIX)
OF_GATEWAY = settings_of(of_sidecar.Settings, of_sidecar.PREFIX) | settings_of(
    of_sidecar.ClusterSettings, of_sidecar.PREFIX
)
NOT_OF_GATEWAYS = {
    f"{of_sidecar.PREFIX}{name}"
    for name in (
        *("POLICIES", "MODELS"),  # folders of `baleen serve`
        *("GATEWAY_URL", "GATEWAY_TOKEN_FILE", "GATEWAY_CA_FILE", "SPOOL_LIMIT_BYTES"),  # of sidecars, which follow one
        *("DEFAULT_TENANT", "DEFAULT_SURFACE", "DEFAULT_SOURCE"),  # of sidecars, which serve one application
        *("KUBERNETES_URL", "KUBERNETES_TOKEN_FILE", "KUBERNETES_CA_FILE"),  # every pod is told
    )
}


@pytest.mark.parametrize("case", CASES)
def test_a_set_of_values_renders_as_it_did_when_somebody_looked(case: str):
    """BALEEN_UPDATE=1 writes the files anew, for somebody to look at."""
    objects = [each for each in objects_of(case) if each["kind"] not in WITH_FILES]
    text = yaml.safe_dump_all(objects, width=120, allow_unicode=True)
    golden = DATA / f"{case}.yaml"
    if os.environ.get("BALEEN_UPDATE"):
        golden.write_text(text)

    assert text == golden.read_text()


def test_kinds_and_roles_are_those_of_their_files():
    wanted = [
        document
        for path in (*sorted((ROOT / "crds").glob("*.yaml")), *sorted((CHART / "rbac").glob("*.yaml")))
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader)
    ]
    objects = manifests(KEYS, namespace="moderation")
    found = by_identity([each for each in objects if each["kind"] in WITH_FILES])

    assert found.keys() == by_identity(wanted).keys()
    for each in wanted:
        rendered = found[each["kind"], each["metadata"]["name"]]
        metadata = rendered.pop("metadata")
        if each["kind"] == "CustomResourceDefinition":
            assert metadata["annotations"].pop("helm.sh/resource-policy") == "keep"
        assert metadata.get("annotations", {}) == each["metadata"].get("annotations", {})
        assert metadata.get("namespace") == ("moderation" if "namespace" in each["metadata"] else None)
        del each["metadata"]
        for subject in each.get("subjects", ()):
            subject["namespace"] = "moderation"
        assert rendered == each


def test_a_package_has_all_that_the_folder_has(tmp_path: Path):
    helm("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("baleen-*.tgz")

    assert render(KEYS, chart=package).stdout == render(KEYS).stdout


def test_lint_finds_nothing():
    said = helm("lint", CHART, "--strict", "--kube-version", "1.35.0", values=KEYS).stdout

    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


@pytest.mark.parametrize("case", CASES)
def test_both_processes_accept_their_environment(case: str):
    of_pod = environment(objects_of(case), "gateway")
    address = "fd00::9" if case == "keda" else "10.0.0.9"
    of_pod["BALEEN_STREAM_ADDRESS"] = of_pod["BALEEN_STREAM_ADDRESS"].replace("$(POD_IP)", address)
    of_operator.Settings.from_env(environment(objects_of(case), "operator"))
    settings, _ = of_sidecar.ClusterSettings.from_env(of_pod)

    assert settings.api_keys_file is not None


def test_the_chart_says_the_same_as_the_processes_where_nobody_says_anything():
    objects = objects_of("plain")
    in_chart = yaml.safe_load((CHART / "values.yaml").read_text())
    operator = of_operator.Settings.from_env(environment(objects, "operator"))
    of_pod = environment(objects, "gateway") | {"BALEEN_STREAM_ADDRESS": ""}
    settings, cluster = of_sidecar.ClusterSettings.from_env(of_pod)
    defaults = of_operator.Settings(), of_sidecar.Settings(), of_sidecar.ClusterSettings()

    # Here the chart knows more: the image that it has.
    for name in {*map(snake, in_chart["operator"]["settings"])} - {"fetch_image"}:
        assert getattr(operator, name) == getattr(defaults[0], name)
    for name in map(snake, in_chart["gateway"]["settings"]):
        mine, default = (settings, defaults[1]) if hasattr(settings, name) else (cluster, defaults[2])
        assert getattr(mine, name) == getattr(default, name)


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def test_the_page_on_helm_says_what_the_chart_sets_for_sidecars():
    text = (ROOT / "docs/howto/install-with-helm.md").read_text()
    in_chart = yaml.safe_load((CHART / "values.yaml").read_text())["injection"]["environment"]
    named = re.findall(r"`(\w+)`(?:\]\([^)]*\))?, the default", text)

    assert set(named) == {in_chart["BALEEN_DURABILITY"]}


def test_the_page_on_databases_says_what_the_chart_takes():
    secret, upgrade, _ = blocks(ROOT / "docs/howto/keep-decisions-in-postgresql.md", "sh")
    options = [part for option in re.findall(r"--set (\S+)", upgrade) for part in ("--set", option)]
    found = by_identity(manifests(KEYS, *options, "--set", "crds.install=false"))
    volumes = found["Deployment", "baleen-gateway"]["spec"]["template"]["spec"]["volumes"]
    egress = found["NetworkPolicy", "baleen-gateway"]["spec"]["egress"]

    (volume,) = (each for each in volumes if each["name"] == "database")
    name, key = volume["secret"]["secretName"], volume["secret"]["items"][0]["key"]
    assert f"secret generic {name} -n baleen-system --from-file={key}=database-url" in secret
    assert {"ports": [{"protocol": "TCP", "port": 5432}], "to": [{"ipBlock": {"cidr": "10.3.0.0/24"}}]} in egress


def test_the_page_on_tokens_says_which_accounts_the_chart_takes_and_they_may_call_without_api_keys():
    said = yaml.safe_load(blocks(ROOT / "docs/howto/tokens.md", "yaml")[1])
    values = {
        "crds": {"install": False},
        "gateway": {"accounts": {"allowed": said["accounts"], "tenants": said["tenants"]}},
    }
    objects = manifests(values)
    file = by_identity(objects)["ConfigMap", "baleen-gateway-accounts"]["data"]["accounts.yaml"]
    of_pod = environment(objects, "gateway") | {"BALEEN_STREAM_ADDRESS": ""}
    settings, cluster = of_sidecar.ClusterSettings.from_env(of_pod)
    (account,) = parse_accounts(yaml.safe_load(file))

    assert (account.name, account.tenant, account.top_priority.title) == ("shop/app", "acme", "High")
    assert [str(limit) for limit in (*account.limits, *account.tenant_limits)] == [
        "50 requests per second (200 at once)",
        "500 requests per second (500 at once)",
    ]
    assert (settings.api_keys_file, settings.host) == (None, "0.0.0.0")
    assert str(cluster.accounts_file) == "/etc/baleen/accounts.yaml"


def test_the_page_on_limits_says_what_the_chart_takes_and_gateways_read_it():
    page = ROOT / "docs/howto/limit-callers.md"
    (values,) = (each for each in blocks(page, "yaml") if "gateway:" in each)
    secret, upgrade, _ = blocks(page, "sh")
    options = [part for option in re.findall(r"--set (\S+)", upgrade) for part in ("--set", option)]
    found = by_identity(manifests(merged(KEYS, yaml.safe_load(values)), *options, "--set", "crds.install=false"))
    volumes = {
        each["name"]: each for each in found["Deployment", "baleen-gateway"]["spec"]["template"]["spec"]["volumes"]
    }
    (redis,) = volumes["redis"]["secret"]["items"]
    file = found["ConfigMap", volumes["quotas"]["configMap"]["name"]]["data"]["quotas.yaml"]
    egress = found["NetworkPolicy", "baleen-gateway"]["spec"]["egress"]

    assert f"secret generic {volumes['redis']['secret']['secretName']} " in secret
    assert f"--from-file={redis['key']}=redis-url" in secret
    assert {"ports": [{"protocol": "TCP", "port": 6379}], "to": [{"ipBlock": {"cidr": "10.5.0.0/24"}}]} in egress
    assert parse_quotas(yaml.safe_load(file)) == parse_quotas(yaml.safe_load(blocks(page, "yaml")[0]))


def test_the_page_on_the_cache_says_what_the_chart_takes():
    (commands,) = blocks(ROOT / "docs/howto/cache-scores.md", "sh")
    options = [part for option in re.findall(r"--set (\S+)", commands) for part in ("--set", option)]
    found = by_identity(manifests(KEYS, *options, "--set", "crds.install=false"))
    volumes = found["Deployment", "baleen-gateway"]["spec"]["template"]["spec"]["volumes"]
    egress = found["NetworkPolicy", "baleen-gateway"]["spec"]["egress"]

    (volume,) = (each for each in volumes if each["name"] == "redis")
    name, key = volume["secret"]["secretName"], volume["secret"]["items"][0]["key"]
    assert f"secret generic {name} -n baleen-system --from-file={key}=redis-url" in commands
    assert {"ports": [{"protocol": "TCP", "port": 6379}], "to": [{"ipBlock": {"cidr": "10.3.1.0/24"}}]} in egress


def test_every_setting_has_a_value_and_every_value_a_setting():
    lists = {"operator": {"settings": {"runtimeImages": {}, "allowedImages": []}}}
    scaled = {"gateway": {"autoscaling": {"mode": "Managed"}, "state": {"persistent": True}}}
    kept = {"backup": {"enabled": True}}
    asked = {"url": "https://prometheus.example", "existingSecret": "prometheus", "tokenKey": "token", "caKey": "ca"}
    asks = {"analysis": {"prometheus": asked}}
    accounts = {"gateway": {"accounts": {"allowed": [{"namespace": "shop", "name": "app", "roles": ["moderate"]}]}}}
    all_named = merged(KEYS, lists, scaled, kept, asks, accounts, {"models": {"fetch": {"enabled": True}}})
    objects = manifests(all_named, "--set", "crds.install=false")

    # With backups of what each gateway keeps there is no database.
    quota = {"name": "photos", "per": "Author", "limit": 30, "windowSeconds": 86400}
    of_others = {
        "database": {"existingSecret": "baleen-database"},
        "redis": {"existingSecret": "baleen-redis"},
        "quotas": [quota],
    }
    shared = manifests(merged(KEYS, {"gateway": of_others}), "--set", "crds.install=false")

    assert environment(objects, "operator").keys() == OF_OPERATOR
    of_gateways = environment(objects, "gateway").keys() | environment(shared, "gateway").keys()
    assert of_gateways - {"POD_IP"} == OF_GATEWAY - NOT_OF_GATEWAYS


def test_webhooks_answer_before_the_api_server_waits_no_longer():
    configurations = [each for each in manifests(KEYS) if each["kind"].endswith("WebhookConfiguration")]
    waits = {
        each["clientConfig"]["service"]["path"]: each["timeoutSeconds"]
        for one in configurations
        for each in one["webhooks"]
    }
    answers = dict.fromkeys((APPLIED_PATH, APPROVED_PATH), STAMP_SECONDS) | {POLICIES_PATH: ANSWER_SECONDS}

    assert set(answers) <= set(waits) <= {*answers, PODS_PATH}
    assert [path for path, seconds in waits.items() if answers.get(path, ANSWER_SECONDS) >= seconds] == []


def test_backups_are_taken_with_the_settings_that_the_values_say_and_by_the_account_that_gateways_know():
    found = by_identity(objects_of("managed"))
    pod = found["CronJob", "baleen-backup"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    said = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    wanted = of_sidecar.BackupSettings(keep_days=14)

    assert of_sidecar.BackupSettings.from_env(said) == wanted
    assert said.keys() == settings_of(of_sidecar.BackupSettings, of_sidecar.BACKUP_PREFIX)
    assert environment(objects_of("managed"), "gateway")["BALEEN_BACKUP_ACCOUNTS"] == "baleen-system/baleen-backup"
    assert pod["serviceAccountName"] == found["ServiceAccount", "baleen-backup"]["metadata"]["name"]


def test_what_is_null_is_left_to_the_process():
    objects = manifests(merged(KEYS, {"gateway": {"settings": {"durability": None}}}), "--set", "crds.install=false")

    assert "BALEEN_DURABILITY" not in environment(objects, "gateway")


@pytest.mark.parametrize("case", CASES)
def test_a_pod_is_found_by_its_selectors_and_by_nobody_elses(case: str):
    objects = [each for each in objects_of(case) if "spec" in each]
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"].items()
        for each in objects
        if "template" in each["spec"]
    }
    jobs = {each["metadata"]["name"]: each["spec"]["jobTemplate"] for each in objects if each["kind"] == "CronJob"}
    pods |= {name: job["spec"]["template"]["metadata"]["labels"].items() for name, job in jobs.items()}
    found = {}
    for each in objects:
        if selector := each["spec"].get("selector") or each["spec"].get("podSelector"):
            wanted = selector.get("matchLabels", selector).items()
            found[each["kind"], each["metadata"]["name"]] = [name for name, labels in pods.items() if wanted <= labels]

    assert found == {identity: [identity[1].removesuffix("-stream").removesuffix("-webhook")] for identity in found}
    # The operator lets only pods of these labels talk to the runtimes that it makes.
    for labels in of_operator.Settings().runtime_rules.client_labels:
        assert any(labels.items() <= pod for pod in pods.values())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"gateway": {"replica": 3}}, "additional properties 'replica' not allowed", id="unknown"),
        pytest.param(
            {"gateway": {"accounts": {"allowed": [{"namespace": "shop", "name": "app", "roles": ["root"]}]}}},
            "at '/gateway/accounts/allowed/0/roles/0'",
            id="role",
        ),
        pytest.param({"gateway": {"settings": {"jwtLeewaySeconds": 90}}}, "/settings/jwtLeewaySeconds'", id="leeway"),
        pytest.param({"gatway": {}}, "additional properties 'gatway' not allowed", id="unknown at the top"),
        pytest.param({"gateway": {"replicas": "3"}}, "at '/gateway/replicas': got string, want integer", id="type"),
        pytest.param({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum", id="range"),
        pytest.param({"operator": {"image": {"pullPolicy": "always"}}}, "at '/operator/image/pullPolicy'", id="word"),
        pytest.param({"operator": {"settings": {"wokers": 1}}}, "properties 'wokers' not allowed", id="setting"),
        pytest.param({"operator": {"settings": {"workers": 1.5}}}, "at '/operator/settings/workers'", id="fraction"),
        pytest.param(
            {"gateway": {"settings": {"tenants": {"a": "acme"}}}}, "/settings/tenants/a': got string", id="tenants"
        ),
        pytest.param({"gateway": {"image": {"digest": "abc"}}}, "at '/gateway/image/digest'", id="digest"),
        pytest.param({"gateway": {"resources": {"limit": {}}}}, "properties 'limit' not allowed", id="resources"),
        pytest.param({"gateway": {"resources": {"limits": {"memory": "2 GB"}}}}, "/limits/memory'", id="amount"),
        pytest.param(
            {"gateway": {"quotas": [{"name": "photos", "per": "Author", "limit": 30}]}},
            "at '/gateway/quotas/0': missing property 'windowSeconds'",
            id="a quota without its window",
        ),
        pytest.param({"gateway": {"state": {"size": True}}}, "at '/gateway/state/size': got boolean", id="size"),
        pytest.param({"gateway": {"tolerations": [{"keys": "x"}]}}, "properties 'keys' not allowed", id="toleration"),
        pytest.param(
            {"gateway": {"autoscaling": {"mode": "KEDA"}}},
            "at '/gateway/autoscaling/triggers'",
            id="KEDA without triggers",
        ),
        pytest.param(
            {"gateway": {"verticalPodAutoscaler": {"updateMode": "Auto"}}},
            "'updateMode' not allowed",
            id="VPA that acts",
        ),
        pytest.param({"ingress": {"enabled": True}}, "at '/ingress/host'", id="ingress without host"),
        pytest.param(
            {"networkPolicy": {"contentNetworks": ["everywhere"]}},
            "at '/networkPolicy/contentNetworks/0'",
            id="network",
        ),
        pytest.param({"webhooks": {"certificate": {"type": "managed"}}}, "at '/webhooks/certificate/type'", id="maker"),
        pytest.param({"injection": {"failurePolicy": "Deny"}}, "at '/injection/failurePolicy'", id="failure policy"),
        pytest.param({"injection": {"resources": {"requests": {"cpu": 1}}}}, "/requests/cpu': got number", id="number"),
        pytest.param({"backup": {"enabled": True}}, "backup.enabled needs gateway.state.persistent", id="no volumes"),
        pytest.param(
            {
                "backup": {"enabled": True},
                "gateway": {"state": {"persistent": True}, "database": {"existingSecret": "baleen-database"}},
            },
            "with gateway.database decisions are not there: back up the database",
            id="backups of no decisions",
        ),
        pytest.param(
            {"analysis": {"prometheus": {"url": "prometheus:9090"}}}, "at '/analysis/prometheus/url'", id="url"
        ),
        pytest.param({"analysis": {"prometheus": {"url": "http://me:pw@p"}}}, "/prometheus/url'", id="a password"),
        pytest.param(
            {"analysis": {"prometheus": {"url": "http://p", "existingSecret": "s", "tokenKey": "t"}}},
            "that begins with https: nothing else keeps a token to itself",
            id="a token for everybody to see",
        ),
        pytest.param(
            {"analysis": {"prometheus": {"url": "https://p", "tokenKey": "t"}}},
            "name it in analysis.prometheus.existingSecret",
            id="a key of nothing",
        ),
        pytest.param(
            {"analysis": {"prometheus": {"url": "https://p", "existingSecret": "s"}}},
            "has neither a tokenKey nor a caKey",
            id="nothing of a Secret",
        ),
        pytest.param(
            {"operator": {"settings": {"approvalByAnother": True}}, "webhooks": {"enabled": False}},
            "operator.settings.approvalByAnother needs webhooks.enabled",
            id="nobody known",
        ),
        pytest.param({"backup": {"schedule": "daily"}}, "at '/backup/schedule'", id="schedule"),
        pytest.param({"models": {"storage": {"type": "NFS"}}}, "at '/models/storage/type'", id="storage"),
        pytest.param(
            {"gateway": {"autoscaling": {"minReplicas": 30}}},
            "larger than gateway.autoscaling.maxReplicas",
            id="bounds",
        ),
        pytest.param(
            {"gateway": {"stopDelaySeconds": 60}}, "gateway.terminationGracePeriodSeconds must be", id="too little time"
        ),
        pytest.param(
            {"gateway": {"apiKeys": {"existingSecret": ""}}}, "gateway.apiKeys.existingSecret is not set", id="no keys"
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(values: Values, said: str):
    refused = render(merged(KEYS, values), check=False)

    assert refused.returncode != 0
    assert said in refused.stderr


def test_no_object_of_the_schema_takes_what_it_does_not_know():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())

    def open_ones(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = [path] if "properties" in node and "type" in node and "additionalProperties" not in node else []
        return found + [each for name, inner in node.items() for each in open_ones(inner, f"{path}/{name}")]

    # The API server checks the many kinds of volumes itself.
    assert open_ones(schema, "") == ["/$defs/volume"]


def test_an_older_kubernetes_is_refused_with_the_minimum():
    refused = render(KEYS, "--kube-version", "1.30.9", check=False)

    assert "requires kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.9" in refused.stderr
    assert render(KEYS, "--kube-version", "v1.31.1-vendor.5").returncode == 0
