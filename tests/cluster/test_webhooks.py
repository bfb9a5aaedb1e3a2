"""What a real API server asks the operator, as the chart has it ask: about policies, and pods that want a sidecar.

The API server has no network to reach a Service by, so that it gets the operator's address instead; all else of the
configurations is the chart's.
"""

import base64
import contextlib
import copy
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from baleen_cli.triton.process import free_port
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, name_text
from baleen_core.resources import APPLIED_BY_ANNOTATION, APPROVED_BY_ANNOTATION, GROUP
from baleen_operator.adapters.certificates import make_pair
from cluster_site import override, policy
from control_plane import NAMESPACE, ControlPlane
from helm import KEYS, manifests, merged
from operators import RunningOperator, running_operator
from pages import ROOT, blocks
from published import kubectl_baleen
from serving import until

pytestmark = pytest.mark.cluster

SECRET = "baleen-webhook"
IMAGE = "baleen-sidecar:0.1.0"
KINDS = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A control plane whose API server asks at a port of this machine."""

    plane: ControlPlane
    port: int
    namespace: str
    settings: dict[str, str]

    @contextlib.contextmanager
    def operator(self, **settings: str) -> Iterator[RunningOperator]:
        """Run an operator that answers there."""
        port = {"webhook_port": str(self.port)}
        with running_operator(self.plane, **{**self.settings, **port, **settings}) as operator:
            operator.wait_for("the webhooks' certificate is served")
            yield operator

    def configure(self, **values: Any) -> None:
        """Have the API server ask."""
        self.plane.apply(*configurations(self.port, **values))

    def apply(self, manifest: dict[str, Any], *flags: str, user: str = "admin") -> tuple[bool, str]:
        """Return whether kubectl could apply a manifest, and what it said of it."""
        return self.run("apply", "--server-side", *flags, "-f", "-", input=json.dumps(manifest), user=user)

    def run(self, *arguments: str, input: str | None = None, user: str = "admin") -> tuple[bool, str]:
        """Return whether kubectl ended well, and what it said that was wrong."""
        done = self.plane.kubectl(*arguments, input=input, user=user, check=False)
        return done.returncode == 0, done.stderr

    def stamp(self, kind: str, annotation: str = "") -> str:
        """Return who is named on the policy or the override, and of what; empty: nobody."""
        name = annotation or {"modpol": APPLIED_BY_ANNOTATION, "modover": APPROVED_BY_ANNOTATION}[kind]
        metadata = self.plane.get_json(kind, "community", self.namespace)["metadata"]
        return str(metadata.get("annotations", {}).get(name, ""))

    def create(self, pod: dict[str, Any], *flags: str) -> tuple[bool, str]:
        """Return whether kubectl could create a pod, and what it said of it."""
        done = self.plane.kubectl("create", *flags, "-f", "-", input=json.dumps(pod), check=False)
        return done.returncode == 0, done.stderr

    def secret(self) -> dict[str, bytes]:
        """Return what the certificate's Secret has."""
        data = self.plane.get_json("secret", SECRET, NAMESPACE).get("data") or {}
        return {name: base64.b64decode(value) for name, value in data.items()}

    def has_secret(self) -> bool:
        """Say whether there is such a Secret."""
        with contextlib.suppress(KeyError):
            return bool(self.secret())
        return False

    def trusted(self) -> set[bytes]:
        """Return whom the API server trusts when it asks."""
        found = [each for kind in KINDS for each in self.plane.get_json(kind, "baleen")["webhooks"]]
        return {base64.b64decode(each["clientConfig"].get("caBundle", "")) for each in found}


def configurations(port: int, **values: Any) -> list[dict[str, Any]]:
    """Return the chart's configurations, with an address instead of a Service."""
    rendered = manifests(merged(KEYS, values), "--show-only", "templates/webhooks.yaml", namespace=NAMESPACE)
    found = [each for each in rendered if each["kind"].endswith("WebhookConfiguration")]
    for each in found:
        for webhook in each["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}"}
    return found


@pytest.fixture
def asking(private_control_plane: ControlPlane) -> Iterator[Asking]:
    plane = private_control_plane
    namespace = f"shop-{secrets.token_hex(4)}"
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    plane.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": levels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop", "namespace": namespace}},
    )
    settings = {"webhook_names": "127.0.0.1", "sidecar_image": IMAGE}
    try:
        yield Asking(plane=plane, port=free_port(), namespace=namespace, settings=settings)
    finally:
        for kind in KINDS:
            plane.delete(kind, "baleen")
        plane.delete("secret", SECRET, NAMESPACE)


def pod(namespace: str, name: str = "shop", **annotations: str) -> dict[str, Any]:
    """Write an application's pod that asks for a sidecar and is fit for a restricted namespace."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    app = {"name": "app", "image": "shop", "ports": [{"containerPort": 80}], "securityContext": security}
    said = {f"{GROUP}/{field.replace('_', '-')}": text for field, text in annotations.items()}
    labels = {f"{GROUP}/inject": "true"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": said},
        "spec": {"serviceAccountName": "shop", "containers": [app]},
    }


def test_policies_are_judged_before_they_are_stored(asking: Asking):
    plane, namespace = asking.plane, asking.namespace
    wrong = policy(namespace, "Reveiw", version=7, tests=[{"name": "t", "expect": "Allow", "signals": {"a.b": "x"}}])
    typo = policy(namespace, "Review")
    typo["spec"]["policy"]["rules"][0]["when"] = "content.linkz > 1"
    failing = policy(
        namespace, "Review", tests=[{"name": "links", "text": "http://a.example", "expect": "Block"}], links=0
    )
    waiting = policy(namespace, "Review", name="waiting")
    waiting["spec"]["policy"]["categories"] = [{"name": "x", "signals": [{"name": "image-safety.x", "review": "50%"}]}]
    gates = {"backtest": {"decisions": 5, "maxNewBlocks": "1%"}}
    asking.configure()
    with asking.operator() as operator:

        def asked() -> float:
            return operator.metric("baleen_operator_admission_requests_total", webhook="policies")

        refused = [asking.apply(each, "--dry-run=server") for each in (typo, failing)]
        by_schema = asking.apply(wrong, "--dry-run=server")
        taken, warned = asking.apply(waiting, "--dry-run=server")
        stored = asking.apply(policy(namespace, "Review", gates=gates))
        before = asked()
        plane.wait_for_condition("modpol", "community", "Accepted", namespace)
        plane.kubectl("label", "modpol", "community", "-n", namespace, "team=safety")
        paused = asking.apply(policy(namespace, "Review", gates=gates, paused=True))
        unasked = asked()
        changed = asking.apply(typo)
        kept = plane.get_json("modpol", "community", namespace)["spec"]["policy"]["rules"][0]["when"]
        _, tried = asking.apply(policy(namespace, "Block"), "--dry-run=server")
        plane.kubectl("delete", "modpol", "community", "-n", namespace)
        refusals = operator.metric("baleen_operator_admission_requests_total", webhook="policies", allowed="false")

        assert [ok for ok, _ in refused] == [False, False]
        assert 'admission webhook "policies.moderation.baleen.dev" denied the request: Invalid: ' in refused[0][1]
        assert "spec.policy.rules[0].when" in refused[0][1]
        assert "linkz" in refused[0][1]
        assert "TestsFailed: spec.tests[0]: test 'links': expected Block, got Review" in refused[1][1]
        assert not by_schema[0]
        assert taken
        assert "Warning: the policy waits for models that are not served" in warned
        assert stored[0], stored[1]
        assert paused[0], paused[1]
        # Neither a label, a pause nor what the operator writes is judged again.
        assert unasked == before
        assert not changed[0]
        assert kept == "content.links > 1"
        assert "Warning: changes rules[links].action: Review → Block" in tried
        # The gate in force counts, and here no gateway is known.
        assert "Warning: gates.backtest: Inconclusive (TooFewDecisions): 0 decisions of this policy" in tried
        assert asked() == before + 2
        assert refusals == 3


def test_pods_that_ask_get_a_sidecar_and_nothing_else_changes(asking: Asking):
    plane, namespace = asking.plane, asking.namespace
    asking.configure()
    account = f"system:serviceaccount:{namespace}:shop"

    def rights() -> str:
        return plane.kubectl("auth", "can-i", "--list", "-n", namespace, "--as", account).stdout

    before = rights()
    with asking.operator() as operator:
        plane.kubectl("label", "namespace", namespace, f"{GROUP}/inject=disabled")
        opted_out = asking.create(pod(namespace, "plain"))
        plane.kubectl("label", "namespace", namespace, f"{GROUP}/inject-")
        with_sidecar = asking.create(pod(namespace, surface="chat", port="8123", cpu="250m"))
        wrong = asking.create(pod(namespace, "wrong", port="80", memroy="1Gi"))
        unlabelled = pod(namespace, "unlabelled")
        del unlabelled["metadata"]["labels"]
        asking.create(unlabelled)
        plane.kubectl("label", "pod", "unlabelled", "-n", namespace, f"{GROUP}/inject=true")
        dry = asking.create(pod(namespace, "dry"), "--dry-run=server")
        again = plane.get_json("pod", "shop", namespace)
        copied = copy.deepcopy(again)
        copied["metadata"] = {**copied["metadata"], "name": "copy", "resourceVersion": "", "uid": ""}
        copying = asking.create(copied)
        settings = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "data": {"BALEEN_OPERATOR_SIDECAR_IMAGE": "baleen-sidecar:0.2.0"},
        }
        plane.apply({**settings, "metadata": {"name": "baleen-operator", "namespace": NAMESPACE}})
        where = ("-n", namespace, "-o", "json", "--kubeconfig", plane.kubeconfig())
        shown = json.loads(kubectl_baleen("sidecars", *where).output)
        plane.delete("configmap", "baleen-operator", NAMESPACE)
        asked = operator.metric("baleen_operator_admission_requests_total", webhook="pods")

        for taken in (opted_out, with_sidecar, dry, copying):
            assert taken == (True, ""), taken
        plain, injected = plane.get_json("pod", "plain", namespace), again
        assert same_but_for_the_sidecar(plain, injected)
        (sidecar,) = injected["spec"]["initContainers"]
        assert (sidecar["image"], sidecar["restartPolicy"]) == (IMAGE, "Always")
        # The application's token is the application's: the sidecar has one that gateways take.
        assert {each["name"] for each in sidecar["volumeMounts"]} == {
            "baleen-state",
            "baleen-temporary",
            "baleen-token",
        }
        (token,) = [each for each in injected["spec"]["volumes"] if each["name"] == "baleen-token"]
        (source,) = token["projected"]["sources"]
        assert source["serviceAccountToken"]["audience"] == "baleen-gateway"
        assert injected["metadata"]["annotations"][f"{GROUP}/injected"] == IMAGE
        environment = {each["name"]: each.get("value") for each in sidecar["env"]}
        assert (environment["BALEEN_PORT"], environment["BALEEN_DEFAULT_SURFACE"]) == ("8123", "chat")
        assert not wrong[0]
        assert 'webhook "pods.moderation.baleen.dev" denied the request' in wrong[1]
        assert f"metadata.annotations[{GROUP}/port]: '80' is not a port" in wrong[1]
        assert f"metadata.annotations[{GROUP}/memroy]" in wrong[1]
        # Asked once about each new pod that wants one: what is there already stays as it is.
        assert "initContainers" not in plane.get_json("pod", "unlabelled", namespace)["spec"]
        assert len(plane.get_json("pod", "copy", namespace)["spec"]["initContainers"]) == 1
        assert asked == 4
        standings = {each["name"]: each["standing"] for each in shown["items"]}
        assert standings == {"plain": "Missing", "unlabelled": "Missing", "shop": "Older", "copy": "Older"}
    assert rights() == before
    for verb, kind in (("list", "modpol"), ("get", "modrev"), ("get", "secrets"), ("create", "tokenreviews")):
        may = plane.kubectl("auth", "can-i", verb, kind, "-n", namespace, "--as", account, check=False)
        assert may.stdout == "no\n"


def same_but_for_the_sidecar(plain: dict[str, Any], injected: dict[str, Any]) -> bool:
    """Say whether two pods differ in nothing but what is injected, and names that are made up."""

    def stripped(whole: dict[str, Any]) -> dict[str, Any]:
        spec = copy.deepcopy(whole["spec"])
        spec.pop("initContainers", None)
        spec["volumes"] = [each for each in spec["volumes"] if not each["name"].startswith("baleen-")]
        (api,) = [each["name"] for each in spec["volumes"]]
        found: dict[str, Any] = json.loads(json.dumps(spec).replace(api, "kube-api-access"))
        return found

    return stripped(plain) == stripped(injected)


def test_without_an_operator_pods_wait_and_policies_are_stored(asking: Asking):
    asking.configure()
    pods = asking.create(pod(asking.namespace))
    policies = asking.apply(policy(asking.namespace, "Review"))
    asking.configure(injection={"failurePolicy": "Ignore"}, webhooks={"policies": {"failurePolicy": "Fail"}})
    until(lambda: asking.create(pod(asking.namespace))[0])
    refused = asking.apply(policy(asking.namespace, "Block"))

    assert not pods[0]
    assert 'failed calling webhook "pods.moderation.baleen.dev"' in pods[1]
    assert policies[0], policies[1]
    assert not refused[0]
    assert "initContainers" not in asking.plane.get_json("pod", "shop", asking.namespace)["spec"]
    # What nobody waits for is made as ever.
    unlabelled = pod(asking.namespace, "unlabelled")
    del unlabelled["metadata"]["labels"]
    assert asking.create(unlabelled)[0]


ROLLOUTS = ROOT / "docs/howto/roll-out-a-policy.md"
SIGN_OFF = {"rollout": {"steps": [{"name": "sign-off", "type": "Approval"}]}}


def with_stamp(manifest: dict[str, Any], stamp: str) -> dict[str, Any]:
    """Return a manifest as somebody writes it who wants to be, or to name, somebody."""
    name = {"ModerationPolicy": APPLIED_BY_ANNOTATION, "ModerationOverride": APPROVED_BY_ANNOTATION}[manifest["kind"]]
    return manifest | {"metadata": manifest["metadata"] | {"annotations": {name: stamp}}}


def test_who_applied_and_who_approved_is_known_and_an_applier_approves_nothing(asking: Asking):
    plane, namespace = asking.plane, asking.namespace
    first, second = (policy(namespace, action, **SIGN_OFF) for action in ("Review", "Block"))
    other = policy(namespace, "Review", name="other", scope={"surface": "elsewhere"})
    digest, text = make_revision(parse_policy(second), {}).digest, name_text(parse_policy(second))
    approved = override(namespace, approve={"digest": digest})
    asking.configure()
    with asking.operator(approval_by_another="true"):
        forged = asking.apply(with_stamp(first, f"{text} admin"), user="policy-author")
        author = asking.stamp("modpol")
        # A client-side apply has its own way to find out what changed.
        applied = asking.run("apply", "-f", "-", input=json.dumps(other), user="policy-author")
        plane.wait_for_condition("modpol", "community", "Ready", namespace)
        asking.apply(first, user="policy-author")
        plane.kubectl("label", "modpol", "community", "-n", namespace, "team=safety")
        stayed = asking.stamp("modpol")
        diffs = [
            asking.run("diff", *how, "-f", "-", input=json.dumps(each), user=user)
            for each, how in ((first, ("--server-side",)), (other, ()))
            for user in ("policy-author", "admin")
        ]
        asking.apply(second, "--force-conflicts")
        edited = asking.stamp("modpol")
        plane.wait_for_condition("modpol", "community", "Reconciling", namespace, reason="AwaitingApproval")
        own = asking.apply(with_stamp(approved, f"{digest}/ on-call"))
        own_stamp = asking.stamp("modover")
        until(lambda: "NoEffect" in str(plane.list_json("event", namespace)))
        waiting = plane.wait_for_condition("modpol", "community", "Reconciling", namespace, reason="AwaitingApproval")
        asking.run("delete", "modover", "community", "-n", namespace, user="on-call")
        person = ("-n", namespace, "--kubeconfig", plane.kubeconfig("on-call"))
        by_another = kubectl_baleen("approve", "community", *person)
        plane.wait_for_condition("modpol", "community", "Ready", namespace)
        rows = plane.get_json("modpol", "community", namespace)["status"]["history"]
        place = ("-n", namespace, "--kubeconfig", plane.kubeconfig())
        shown = json.loads(kubectl_baleen("history", "community", *place, "-o", "json").output)["activations"]
        other_stamp = asking.stamp("modover")

    assert (forged[0], applied[0]) == (True, True), (forged, applied)
    assert author == f"{name_text(parse_policy(first))} policy-author"
    assert stayed == author
    assert diffs == [(True, "")] * 4
    assert edited == f"{text} admin"
    assert own[0], own[1]
    assert own_stamp == f"{digest}/ admin"
    messages = {each["type"]: each["message"] for each in waiting["status"]["conditions"]}
    assert "admin applied this content and approved it, too" in messages["Ready"]
    assert by_another.status == 0, by_another
    assert other_stamp == f"{digest}/ on-call"
    assert [(row["reason"], row["by"], row.get("approvedBy")) for row in rows] == [
        ("Promoted", "admin", "on-call"),
        ("Applied", "policy-author", None),
    ]
    assert [(row["by"], row["approvedBy"]) for row in shown] == [("admin", "on-call"), ("policy-author", "")]


def test_nobody_names_another_while_no_operator_answers_and_people_can_write(asking: Asking):
    namespace = asking.namespace
    asking.configure()
    first, second = policy(namespace, "Review"), policy(namespace, "Block")
    texts = [name_text(parse_policy(each)) for each in (first, second)]
    digest, other = (f"sha256:{each * 64}" for each in "ab")
    approved = override(namespace, approve={"digest": digest})
    # The API server hears of its policies by a watch of its own.
    until(lambda: not asking.apply(with_stamp(first, f"{texts[0]} somebody"), "--dry-run=server")[0])
    forged = [
        asking.apply(with_stamp(first, f"{texts[0]} on-call"), user="policy-author"),
        asking.apply(with_stamp(first, "policy-author"), user="policy-author"),
        asking.apply(with_stamp(approved, f"{digest}/ policy-author"), user="on-call"),
        asking.apply(with_stamp(approved, f"{digest}/sign-off on-call"), user="on-call"),
        asking.apply(with_stamp(override(namespace), " admin"), user="on-call"),
    ]
    unnamed = asking.apply(first, user="policy-author")
    nobody = asking.stamp("modpol")
    stands = ("annotate", "modpol", "community", "-n", namespace, f"{APPLIED_BY_ANNOTATION}={texts[0]} policy-author")
    own = [
        asking.run(*stands, user="policy-author"),
        asking.apply(with_stamp(approved, f"{digest}/ on-call"), user="on-call"),
    ]
    # What others stamped does not keep people from writing: it says nothing of what they write.
    edit = json.dumps({"spec": {"policy": second["spec"]["policy"]}})
    edited = asking.run("patch", "modpol", "community", "-n", namespace, "--type=merge", "-p", edit)
    left_over = asking.stamp("modpol")

    def patch(spec: Any) -> tuple[bool, str]:
        text = json.dumps({"spec": spec})
        return asking.run("patch", "modover", "community", "-n", namespace, "--type=merge", "-p", text)

    on_call = [
        patch({"approve": {"digest": other}}),
        patch({"approve": None, "reject": [other]}),
        patch({"paused": True}),
    ]
    again = patch({"approve": {"digest": digest}})
    renamed = asking.run(
        "annotate", "modover", "community", "-n", namespace, f"{APPROVED_BY_ANNOTATION}=x y", "--overwrite"
    )
    taken = asking.run("annotate", "modover", "community", "-n", namespace, f"{APPROVED_BY_ANNOTATION}-")
    after = patch({"approve": {"digest": digest}})
    asking.apply(with_stamp(approved, f"{digest}/ on-call"), user="on-call")
    before = [asking.stamp(kind) for kind in ("modpol", "modover")]
    (said,) = (line for line in "".join(blocks(ROLLOUTS, "sh")).splitlines() if line.startswith("kubectl annotate "))
    taken_off = asking.run(*said.replace("-A", f"-n {namespace}").split()[1:])

    assert taken_off[0], taken_off[1]
    assert all(before)
    assert [asking.stamp(kind) for kind in ("modpol", "modover")] == ["", ""]
    assert [ok for ok, _ in forged] == [False] * 5
    assert f"metadata.annotations[{APPLIED_BY_ANNOTATION}]: says that another than policy-author" in forged[0][1]
    assert f"metadata.annotations[{APPROVED_BY_ANNOTATION}]: says that another than on-call" in forged[2][1]
    assert (unnamed[0], nobody) == (True, ""), unnamed[1]
    assert [ok for ok, _ in own] == [True, True], own
    assert edited[0], edited[1]
    assert left_over == f"{texts[0]} policy-author"
    assert [ok for ok, _ in on_call] == [True] * 3, on_call
    # An approval that was taken back must not come again in the name of whoever wrote it.
    assert (again[0], renamed[0]) == (False, False)
    assert f"kubectl annotate modover community -n {namespace} {APPROVED_BY_ANNOTATION}-" in again[1]
    assert (taken[0], after[0]) == (True, True), (taken, after)


@contextlib.contextmanager
def asked_all_the_time(asking: Asking) -> Iterator[tuple[list[int], list[str]]]:
    """Have pods made that nobody keeps; yields how many were made in all, and what went wrong."""
    made, failures, ended = [0], [], threading.Event()
    path = f"/api/v1/namespaces/{asking.namespace}/pods"

    def ask() -> None:
        with asking.plane.client() as client:
            while not ended.wait(0.02):
                answer = client.post(path, params={"dryRun": "All"}, json=pod(asking.namespace))
                made[0] += 1
                if answer.is_error or not answer.json()["spec"].get("initContainers"):
                    failures.append(answer.text)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield made, failures
    finally:
        ended.set()
        thread.join()


def events(plane: ControlPlane, reason: str) -> list[dict[str, Any]]:
    return [each for each in plane.list_json("event", NAMESPACE) if each["reason"] == reason]


def served(port: int) -> bytes:
    """Return the certificate that a port shows to whoever comes now."""
    return ssl.get_server_certificate(("127.0.0.1", port)).encode()


def test_a_certificate_is_renewed_on_every_replica_and_no_request_fails(asking: Asking):
    seconds = {"webhook_certificate_hours": str(9 / 3600)}
    asking.configure()
    other = free_port()
    lease = {"lease_name": f"test-{secrets.token_hex(6)}"}
    with (
        asking.operator(**seconds, **lease) as operator,
        running_operator(
            asking.plane, **{**asking.settings, **seconds, **lease, "webhook_port": str(other)}
        ) as standby,
    ):
        standby.wait_for("the webhooks' certificate is served")
        until(lambda: asking.create(pod(asking.namespace), "--dry-run=server")[0])
        first, authorities = asking.secret()["tls.crt"], asking.secret()["ca.crt"]
        with asked_all_the_time(asking) as (made, failures):
            until(lambda: asking.secret()["tls.crt"] != first, seconds=30)
            second, bundle = asking.secret()["tls.crt"], asking.secret()["ca.crt"]
            until(lambda: served(asking.port) == served(other) == second, seconds=10)
            # Deleted by accident, it is put back: API servers need not learn another one.
            asking.plane.delete("secret", SECRET, NAMESPACE)
            until(lambda: asking.has_secret())
        state = operator.ready()[1]["webhook_certificate"]
        expiry = operator.metric("baleen_operator_webhook_certificate_expiry_timestamp_seconds")

        assert failures == []
        assert made[0] > 20
        assert authorities in bundle
        assert bundle.count(b"BEGIN") == 2
        assert b"PRIVATE" not in bundle
        until(lambda: asking.trusted() == {asking.secret()["ca.crt"]})
        assert state.startswith("good until ")
        assert 0 < expiry - time.time() < 10
        until(lambda: bool(events(asking.plane, "CertificateRenewed")))


def test_an_expired_certificate_is_replaced_and_people_are_told(asking: Asking):
    ended = make_pair(("127.0.0.1",), datetime.now(UTC) - timedelta(days=2), timedelta(days=1))
    data = {"tls.crt": ended.certificate, "tls.key": ended.key, "ca.crt": ended.authority}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }
    asking.plane.apply(secret)
    asking.configure()
    with asking.operator(webhook_certificate="Provided") as operator:
        refused = asking.create(pod(asking.namespace))
        state = operator.ready()[1]["webhook_certificate"]
        until(lambda: "whoever provides it" in str(events(asking.plane, "CertificateExpired")))
        untouched = asking.secret()
        trusted = asking.trusted()
    asking.plane.kubectl("delete", "event", "-n", NAMESPACE, "--all")
    with asking.operator() as operator:
        until(lambda: asking.create(pod(asking.namespace), "--dry-run=server")[0])
        replaced = asking.secret()
        until(lambda: "was replaced" in str(events(asking.plane, "CertificateExpired")))

        assert operator.ready()[1]["webhook_certificate"].startswith("good until ")
    assert not refused[0]
    assert state.startswith("expired at ")
    assert untouched == data
    assert trusted == {b""}
    assert replaced["tls.crt"] != ended.certificate
    assert ended.authority not in replaced["ca.crt"]


def test_it_answers_without_its_kinds_and_without_leading_and_has_no_ear_for_nonsense(asking: Asking):
    plane = asking.plane
    asking.configure()
    plane.kubectl("delete", "crd", f"moderationroutes.{GROUP}")
    with asking.operator() as operator:
        operator.wait_for("waiting")
        until(lambda: asking.create(pod(asking.namespace), "--dry-run=server")[0])
        status = operator.ready()[0]
        trust = ssl.create_default_context(cadata=asking.secret()["ca.crt"].decode())
        with httpx.Client(base_url=f"https://127.0.0.1:{asking.port}", verify=trust, trust_env=False) as client:
            answers = {
                name: client.post("/policies", content=content).status_code
                for name, content in {
                    "nothing": b"",
                    "no JSON": b"\xff\x00",
                    "no review": b"{}",
                    "deep": b"[" * 100_000,
                    "no object": review(None),
                    "no policy": review({"spec": 1}),
                    "large": b" " * (9 << 20),
                }.items()
            }
            elsewhere = client.get("/policies").status_code, client.post("/").status_code
            odd = client.post("/pods", content=review({"metadata": {}, "spec": {"containers": "x"}})).json()
        nonsense = operator.metric("baleen_operator_admission_requests_total", allowed="none")

        assert status == 503
        assert answers == dict.fromkeys(answers, 400) | {"large": 413}
        assert elsewhere == (405, 404)
        assert odd["response"]["allowed"] is False
        assert "this is no pod" in odd["response"]["status"]["message"]
        assert nonsense == len(answers)


def review(found: object) -> bytes:
    request = {"uid": "1", "namespace": "shop", "object": found}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
