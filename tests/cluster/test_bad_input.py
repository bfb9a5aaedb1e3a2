"""What people and machines do to an installation that is at work: nothing false is enforced, and it says what to do."""

import base64
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, Self

import httpx
import pytest

import plain_http
from api_proxy import ForgetfulApi
from baleen_core.policy.lists import read_list
from baleen_core.policy.schema import ListType
from baleen_core.policy_stream import AUDIENCE
from baleen_core.resources import LIST_LABEL, revision_name
from cluster_site import TEXT, Site, decides, override, policy
from control_plane import NAMESPACE, ROOT, ControlPlane
from gateway_process import RunningGateway, gateway_settings, sidecar_settings
from operators import LEASE_SECONDS, RunningOperator, running_operator, settings_for
from publishing import publication
from serving import until

pytestmark = pytest.mark.cluster

ROLES = ROOT / "charts/baleen/rbac"
UNKNOWN = "sha256:" + "0" * 64


@contextmanager
def leading_operator(plane: ControlPlane, *namespaces: str, **settings: str) -> Iterator[RunningOperator]:
    """Run an operator that has seen everything when the block begins."""
    with running_operator(plane, *namespaces, **settings) as started:
        started.wait_until_leading()
        yield started


def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition holds, for as long as two busy cores may need."""
    until(condition, seconds=90)


def wait_for_decision(gateway: RunningGateway, decision: str, text: str = TEXT, **context: Any) -> None:
    """Return once a gateway decides so."""
    try:
        eventually(decides(gateway, decision, text, **context))
    except AssertionError:
        raise AssertionError(f"not {decision}; it said:\n{gateway.said()}") from None


def condition(site: Site, type: str, name: str = "community") -> dict[str, Any]:
    """Return a policy's condition as it is now."""
    found = site.plane.get_json("modpol", name, site.namespace).get("status", {}).get("conditions", [])
    return next((dict(each) for each in found if each["type"] == type), {})


def wait_for_words(site: Site, type: str, *words: str, name: str = "community") -> dict[str, Any]:
    """Return a policy's condition once its message has all of these words."""
    try:
        eventually(lambda: all(each in condition(site, type, name).get("message", "") for each in words))
    except AssertionError:
        raise AssertionError(f"not said: {words}; but: {condition(site, type, name)}") from None
    return condition(site, type, name)


def events(site: Site, reason: str) -> list[str]:
    """Return the messages of all Events with this reason."""
    found = site.plane.list_json("Event", site.namespace)
    return [str(each["message"]) for each in found if each["reason"] == reason]


def problems(gateway: RunningGateway, name: str = "community") -> str:
    """Return all that a gateway says is wrong with a policy, in one line."""
    return "; ".join(f"{each['field']}: {each['message']}" for each in gateway.policy(name)["problems"])


def component(gateway: RunningGateway, name: str) -> dict[str, Any]:
    """Return what /ready says of one component."""
    return next((dict(each) for each in gateway.ready()[1]["components"] if each["name"] == name), {})


def get(site: Site, kind: str, name: str) -> dict[str, Any]:
    """Return an object as `kubectl get` gives it."""
    found: dict[str, Any] = site.plane.get_json(kind, name, site.namespace)
    return found


def config_map(site: Site, name: str, text: str) -> dict[str, Any]:
    """Write the ConfigMap that a list comes from."""
    metadata = {"name": name, "namespace": site.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"terms.txt": text}}


def listed(site: Site, *names: str, action: str = "Block", **spec: Any) -> dict[str, Any]:
    """Write a policy that blocks what has a term of one of these ConfigMaps."""
    manifest = policy(site.namespace, "Review", **spec)
    manifest["spec"]["policy"]["lists"] = [
        {
            "name": each,
            "type": "Terms",
            "action": action,
            "source": {"type": "ConfigMap", "name": each, "key": "terms.txt"},
        }
        for each in names
    ]
    return manifest


def copies(site: Site) -> list[str]:
    """Return the names of the objects that keep lists."""
    found = [each["metadata"] for each in site.plane.list_json("configmap", site.namespace)]
    return sorted(each["name"] for each in found if LIST_LABEL in each.get("labels", ()))


def many_terms(first: int, size: int) -> str:
    """Write terms, one a line and in order, until they have this many bytes."""
    line = "ein Wort mit Platz {:07}\n"
    return "".join(line.format(number) for number in range(first, first + size // len(line.format(0))))


def last_of(terms: str) -> str:
    """Return the last term."""
    return terms.rstrip("\n").rpartition("\n")[2]


# Revisions and routes


def test_a_revision_cannot_be_changed_and_one_that_was_forged_is_enforced_by_nobody_and_written_again(
    site: Site, gateway: RunningGateway, tmp_path: Path
):
    with leading_operator(site.plane, site.namespace):
        site.apply_policy("Review")
        wait_for_decision(gateway, "Review")
    digest = site.route()["stable"]
    name = revision_name("community", digest)
    true = get(site, "modrev", name)
    forged = true["spec"] | {"content": true["spec"]["content"].replace("Review", "Block")}
    patch = ("patch", "modrev", name, "-n", site.namespace, "--type=merge", "-p", json.dumps({"spec": forged}))
    refused = site.plane.kubectl(*patch, check=False)
    metadata = {each: true["metadata"][each] for each in ("name", "namespace", "labels", "annotations")}
    site.plane.kubectl("delete", "modrev", name, "-n", site.namespace)
    site.apply({**{each: true[each] for each in ("apiVersion", "kind")}, "metadata": metadata, "spec": forged})

    assert "spec cannot be changed; content that differs is another revision of another name" in refused.stderr
    eventually(lambda: "was altered" in problems(gateway))
    said, decision = problems(gateway), gateway.decide(TEXT)
    assert f"revision {digest[:17]}" in said
    assert decision["decision"] == "Review"
    assert [each["digest"] for each in decision["policies"]] == [digest]
    with RunningGateway(**gateway_settings(site.plane, tmp_path / "gateway-2", site.namespace)) as fresh:
        fresh.wait_for("answering")
        eventually(lambda: "was altered" in component(fresh, f"policy/{site.namespace}/community").get("detail", ""))
        assert (fresh.ready()[0], fresh.moderate(TEXT).status_code) == (503, 503)

        with leading_operator(site.plane, site.namespace):
            wait_for_decision(fresh, "Review")
            eventually(lambda: problems(gateway) == problems(fresh) == "")
            eventually(lambda: events(site, "RevisionReplaced"))

    (message,) = events(site, "RevisionReplaced")
    assert f"ModerationPolicyRevision {name} was written by hand and is written again" in message
    assert get(site, "modrev", name)["spec"] == true["spec"]
    assert gateway.policy()["digest"] == digest


def test_a_revision_that_is_replaced_beside_a_running_operator_is_there_as_it_was_whoever_is_faster(
    site: Site, operator: RunningOperator, gateway: RunningGateway
):
    site.apply_policy("Review")
    wait_for_decision(gateway, "Review")
    name = revision_name("community", site.route()["stable"])
    true = get(site, "modrev", name)
    forged = {**true, "spec": true["spec"] | {"content": true["spec"]["content"].replace("Review", "Block")}}
    del forged["metadata"]["resourceVersion"], forged["metadata"]["uid"]
    # When the operator is faster, kubectl would wait for ever for the deleted one to be gone.
    replaced = ("replace", "--force", "--timeout=5s", "-f", "-")
    site.plane.kubectl(*replaced, input=json.dumps(forged), check=False)

    def is_restored() -> bool:
        try:
            return bool(get(site, "modrev", name)["spec"] == true["spec"])
        except KeyError:
            return False

    eventually(is_restored)
    eventually(lambda: problems(gateway) == "")
    assert gateway.decide(TEXT)["decision"] == "Review"


@pytest.mark.parametrize("change", ["another revision", "an unknown revision", "another scope", "gone"])
def test_a_route_that_is_changed_by_hand_is_put_right(
    site: Site, operator: RunningOperator, gateway: RunningGateway, change: str
):
    site.apply_policy("Review", version="v1")
    wait_for_decision(gateway, "Review")
    before = site.route()
    site.apply_policy("Block", version="v2")
    wait_for_decision(gateway, "Block")
    site.wait_for_ready()
    right = site.route()
    # What has no higher epoch is refused by the API server itself.
    patch = ("patch", "modroute", "community", "-n", site.namespace, "--type=merge", "-p")
    lower = site.plane.kubectl(*patch, json.dumps({"spec": {"stable": before["stable"]}}), check=False)
    changes: dict[str, Any] = {
        "another revision": {"stable": before["stable"], "recentStable": []},
        "an unknown revision": {"stable": UNKNOWN},
        "another scope": {"scope": {"tenant": "acme"}},
    }
    if change == "gone":
        site.plane.kubectl("delete", "modroute", "community", "-n", site.namespace)
    else:
        spec = {"epoch": right["epoch"] + 3, **changes[change]}
        site.plane.kubectl(*patch, json.dumps({"spec": spec}))

    def is_restored() -> bool:
        try:
            route = site.route()
        except KeyError:
            return False
        return bool(route["epoch"] > right["epoch"] and route["stable"] == right["stable"] and not route.get("scope"))

    eventually(is_restored)
    eventually(lambda: events(site, "RouteRestored"))
    (message,) = events(site, "RouteRestored")
    restored = site.route()

    assert "a change needs a higher spec.epoch than that of the route that is there" in lower.stderr
    assert restored["epoch"] > right["epoch"] + (0 if change == "gone" else 3)
    assert message == (
        f"the route was changed or deleted by hand; it says v2 ({right['stable'][:17]}) again, "
        "as the operator had decided"
    )
    assert site.wait_for_ready()["status"]["history"][0]["reason"] == "Restored"
    eventually(lambda: component(gateway, f"policy/{site.namespace}/community").get("healthy"))
    wait_for_decision(gateway, "Block")
    assert gateway.policy()["digest"] == right["stable"]


# Lists


def test_while_a_lists_source_is_gone_the_policy_stays_in_force_and_says_which_field_is_to_blame(
    site: Site, operator: RunningOperator, gateway: RunningGateway
):
    site.apply(config_map(site, "slurs", "idiot\nmoron\n"), listed(site, "slurs"))
    wait_for_decision(gateway, "Block", "you moron")
    site.wait_for_ready()
    route = site.route()
    site.plane.kubectl("delete", "configmap", "slurs", "-n", site.namespace)
    accepted = wait_for_words(site, "Accepted", "there is no ConfigMap 'slurs'")

    assert (accepted["status"], accepted["reason"]) == ("False", "ListMissing")
    assert accepted["message"] == (
        f"spec.policy.lists[0].source: there is no ConfigMap 'slurs' in namespace {site.namespace}; there are: none"
    )
    assert condition(site, "Serving")["status"] == "True"
    eventually(lambda: events(site, "ListMissing"))
    assert events(site, "ListMissing") == [accepted["message"]]
    assert site.route() == route
    assert gateway.decide("you moron")["decision"] == "Block"
    site.apply(config_map(site, "slurs", "idiot\nmoron\n"))
    site.wait_for_ready()
    assert site.route() == route


def test_the_operators_own_copy_of_a_list_is_written_again_and_named_where_it_cannot_be(
    site: Site, gateway: RunningGateway, tmp_path: Path
):
    with leading_operator(site.plane, site.namespace, relist_seconds="1"):
        site.apply(config_map(site, "slurs", "idiot\nmoron\n"), listed(site, "slurs"))
        wait_for_decision(gateway, "Block", "you moron")
        (copy,) = copies(site)
        true = get(site, "configmap", copy)
        site.plane.kubectl("delete", "configmap", copy, "-n", site.namespace)
        eventually(lambda: copies(site) == [copy])
        again = get(site, "configmap", copy)
        site.plane.kubectl("delete", "configmap", copy, "slurs", "-n", site.namespace)
        serving = wait_for_words(site, "Serving", "no longer in the cluster")

        assert (again["data"], again["immutable"]) == (true["data"], True)
        assert again["metadata"]["uid"] != true["metadata"]["uid"]
        assert again["metadata"]["ownerReferences"] == true["metadata"]["ownerReferences"]
        assert (serving["status"], serving["reason"]) == ("True", "ListsMissing")
        assert "gateways that have them on disk go on, new ones cannot take it up" in serving["message"]
        assert gateway.decide("you moron")["decision"] == "Block"
        with RunningGateway(**gateway_settings(site.plane, tmp_path / "gateway-2", site.namespace)) as fresh:
            fresh.wait_for("answering")
            eventually(lambda: "list slurs" in component(fresh, f"policy/{site.namespace}/community").get("detail", ""))
            assert fresh.moderate("you moron").status_code == 503
            site.apply(config_map(site, "slurs", "idiot\nmoron\n"))
            wait_for_decision(fresh, "Block", "you moron")


def test_lists_of_two_megabytes_are_kept_in_parts_and_matched_to_their_last_term(
    site: Site, operator: RunningOperator, gateway: RunningGateway
):
    # A ConfigMap holds at most 1 MiB, so that this many terms are two lists of one policy.
    texts = [many_terms(0, 1_040_000), many_terms(50_000, 1_040_000)]
    site.apply(*(config_map(site, f"slurs-{index}", text) for index, text in enumerate(texts)))
    site.apply(listed(site, "slurs-0", "slurs-1"))
    site.wait_for_ready()

    assert sum(map(len, texts)) > 2_000_000
    assert sorted(each.rpartition("-")[2] for each in copies(site)) == ["0", "0", "1", "1"]
    for text in texts:
        wait_for_decision(gateway, "Block", f"sagt: {last_of(text)}!")
    assert gateway.decide("sagt: ein Wort mit Platz 9999999!")["decision"] == "Allow"


def test_one_list_of_two_megabytes_is_matched_to_its_last_term_by_a_gateway_and_whoever_follows_it(
    site: Site, gateway: RunningGateway, tmp_path: Path
):
    # As an operator would write it that has the list from elsewhere than a ConfigMap.
    content = read_list(ListType.TERMS, many_terms(0, 2_100_000))
    written = publication(
        site.namespace, "community", listed(site, "slurs")["spec"]["policy"], lists={"slurs": content}
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop", "namespace": site.namespace}}
    site.apply(account, *written.manifests())
    text = f"sagt: {content.entries[-1]}!"
    token = site.plane.token_for(site.namespace, "shop", AUDIENCE)

    assert [each["kind"] for each in written.manifests()].count("ConfigMap") == 3
    wait_for_decision(gateway, "Block", text)
    with RunningGateway(**sidecar_settings(gateway, tmp_path / "shop", token)) as injected:
        wait_for_decision(injected, "Block", text)


def test_a_list_that_is_too_long_is_refused_with_its_limit(site: Site, operator: RunningOperator):
    too_large = many_terms(0, 1_100_000)
    refused = site.plane.kubectl(
        "apply", "--server-side", "-f", "-", input=json.dumps(config_map(site, "slurs", too_large)), check=False
    )
    site.apply(config_map(site, "slurs", "idiot\n" + "x" * 257), listed(site, "slurs"))
    accepted = wait_for_words(site, "Accepted", "a term may have at most")

    assert "may not be more than 1048576 bytes" in refused.stderr
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert accepted["message"] == ("spec.policy.lists[0].line 2: has 257 characters; a term may have at most 256")


# Scopes, tenants and overrides


def test_of_two_policies_of_one_scope_the_older_one_decides_and_the_other_names_it(
    site: Site, operator: RunningOperator, gateway: RunningGateway
):
    site.apply_policy("Review", name="first", scope={"surface": "comments"})
    wait_for_decision(gateway, "Review", surface="comments")
    site.apply_policy("Block", name="second", scope={"surface": "comments"})
    ready = wait_for_words(site, "Ready", "ScopeConflict", name="second")
    eventually(lambda: component(gateway, f"policy/{site.namespace}/second").get("healthy"))
    decision = gateway.decide(TEXT, surface="comments")
    conflicts = gateway.client.get("/v1/policies").json()["problems"]

    assert (ready["status"], ready["reason"]) == ("False", "ScopeConflict")
    words = (
        f"{site.namespace}/first has the same type and scope and wins; narrow the scope of one of them, or delete one"
    )
    assert ready["message"] == f"ScopeConflict: {words}"
    assert condition(site, "Ready", "first")["status"] == "True"
    assert (decision["decision"], [each["name"] for each in decision["policies"]]) == ("Review", ["first"])
    assert conflicts == [{"field": f"{site.namespace}/second", "message": f"ScopeConflict: {words}"}]

    site.plane.kubectl("delete", "modpol", "first", "-n", site.namespace)
    wait_for_decision(gateway, "Block", surface="comments")
    site.wait_for_ready("second")


@pytest.fixture
def other_namespace(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    name = f"{namespace}-other"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def test_a_namespace_that_claims_anothers_tenant_gets_nothing_by_it_and_nobody_elses_sidecar_sees_its_policies(
    site: Site, other_namespace: str, tmp_path: Path
):
    plane, mine, theirs = site.plane, site.namespace, other_namespace
    grants = json.dumps({mine: ["acme"], theirs: ["globex"]})
    rival = Site(plane=plane, namespace=theirs)
    settings = gateway_settings(plane, tmp_path / "gateway-1", mine, theirs, tenants=grants)
    with leading_operator(plane, mine, theirs, tenants=grants), RunningGateway(**settings) as gateway:
        site.apply_policy("Review", name="for-acme", scope={"tenant": "acme"})
        rival.apply_policy("Block", name="for-globex", scope={"tenant": "globex"})
        rival.apply_policy("Block", name="claim", scope={"tenant": "acme", "surface": "comments"})
        rival.apply_policy("Block", name="claim-all")
        rival.apply_policy("Block", name="claim-floor", role="Floor", scope={"tenant": "acme"})
        rival.apply_policy("Block", name="claim-floor-all", role="Floor")
        wait_for_decision(gateway, "Review", tenant="acme", surface="comments")
        wait_for_decision(gateway, "Block", tenant="globex")
        claim = wait_for_words(rival, "Accepted", "NotGranted", name="claim")
        claim_all = wait_for_words(rival, "Accepted", "NotGranted", name="claim-all")
        floor = wait_for_words(rival, "Accepted", "NotGranted", name="claim-floor")
        floor_all = wait_for_words(rival, "Accepted", "NotGranted", name="claim-floor-all")
        sidecars = []
        for namespace in (mine, theirs):
            metadata = {"name": "shop", "namespace": namespace}
            site.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
            token = plane.token_for(namespace, "shop", AUDIENCE)
            sidecars.append(sidecar_settings(gateway, tmp_path / namespace, token))
        with RunningGateway(**sidecars[0]) as own, RunningGateway(**sidecars[1]) as others:
            wait_for_decision(own, "Review", tenant="acme")
            wait_for_decision(others, "Block", tenant="globex")
            seen = [
                [each["name"] for each in sidecar.client.get("/v1/policies").json()["policies"]]
                for sidecar in (own, others)
            ]
            refused = [others.moderate(TEXT, tenant="acme"), own.moderate(TEXT, tenant="globex")]

    said = f"spec.scope.tenant: NotGranted: namespace {theirs} may not bind"
    assert (claim["status"], claim["reason"]) == ("False", "NotGranted")
    for one in (claim, floor):
        assert one["message"] == f"{said} tenant 'acme'; it was granted globex"
    for whole in (claim_all, floor_all):
        assert whole["message"] == f"{said} all tenants; it was granted globex"
    assert plane.kubectl("get", "modroute", "-n", theirs, "-o", "name").stdout.split() == [
        "moderationroute.moderation.baleen.dev/for-globex"
    ]
    assert seen == [["for-acme"], ["for-globex"]]
    assert [each.status_code for each in refused] == [503, 503]


def test_a_policy_or_floor_where_none_counts_is_refused_with_the_places_where_they_do(site: Site):
    settings = {"policy_namespaces": "trust-safety", "floor_namespaces": "law,trust-safety"}
    with leading_operator(site.plane, site.namespace, **settings):
        site.apply_policy("Review")
        site.apply_policy("Review", name="minimum", role="Floor")
        accepted = wait_for_words(site, "Accepted", "NotGranted")
        floor = wait_for_words(site, "Accepted", "NotGranted", name="minimum")

    assert accepted["reason"] == floor["reason"] == "NotGranted"
    assert accepted["message"] == "metadata.namespace: NotGranted: policies count only in trust-safety"
    assert "spec.role: NotGranted: floors count only in law, trust-safety" in floor["message"]


def test_an_override_of_a_revision_that_is_not_known_changes_nothing_and_is_told_which_are(
    site: Site, operator: RunningOperator, gateway: RunningGateway
):
    site.apply_policy("Review", version="v1")
    wait_for_decision(gateway, "Review")
    site.apply_policy("Block", version="v2")
    wait_for_decision(gateway, "Block")
    site.wait_for_ready()
    route = site.route()
    known = [f"v2 ({route['stable'][:17]})", f"v1 ({route['recentStable'][0][:17]})"]
    site.apply(override(site.namespace, pin={"digest": UNKNOWN, "reason": "incident 4711"}))
    pinned = wait_for_words(site, "Ready", "spec.pin.digest")
    eventually(lambda: "spec.pin.digest" in problems(gateway))
    said, decided = problems(gateway), gateway.decide(TEXT)
    site.plane.kubectl("delete", "modover", "community", "-n", site.namespace)
    site.apply(override(site.namespace, reject=[UNKNOWN]))
    rejected = wait_for_words(site, "Ready", "spec.reject")

    words = f"{UNKNOWN[:17]} is no revision of this policy; known are {', '.join(known)}"
    assert (pinned["status"], pinned["reason"]) == ("False", "UnknownDigest")
    assert pinned["message"] == f"ModerationOverride: spec.pin.digest: {words}; the pin has no effect"
    assert all(digest in said for digest in (UNKNOWN, route["stable"], route["recentStable"][0]))
    assert decided["decision"] == gateway.decide(TEXT)["decision"] == "Block"
    assert (rejected["status"], rejected["reason"]) == ("True", "InForce")
    assert f"ModerationOverride: spec.reject: {words}" in rejected["message"]
    assert site.route() == route


# The API server


class Requests(threading.Thread):
    """An application that asks a gateway all the time, until the block ends; `failed` are the answers but 200."""

    def __init__(self, gateway: RunningGateway) -> None:
        super().__init__(daemon=True)
        self._url = gateway.url
        self._ended = threading.Event()
        self.decisions: list[dict[str, Any]] = []
        self.failed: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(60)

    def run(self) -> None:
        request = {"content": {"type": "text", "text": TEXT}}
        with plain_http.client(base_url=self._url, timeout=60) as client:
            while not self._ended.wait(0.05):
                try:
                    answer = client.post("/v1/moderate", json=request)
                except httpx.HTTPError as exc:
                    self.failed.append(repr(exc))
                    continue
                if answer.status_code == 200:
                    self.decisions.append(answer.json())
                else:
                    self.failed.append(answer.text)

    @property
    def degraded(self) -> set[str]:
        """What some of the decisions named as not as it should be."""
        return {name for each in self.decisions for name in each.get("degraded", ())}


@pytest.fixture
def private_site(private_control_plane: ControlPlane) -> Site:
    private_control_plane.make_namespace("safety")
    return Site(plane=private_control_plane, namespace="safety")


def test_while_the_api_server_comes_and_goes_through_a_whole_rollout_every_request_is_answered(
    private_site: Site, tmp_path: Path
):
    site, plane = private_site, private_site.plane
    # A weight may fall.
    steps = [
        {"name": f"at-{weight}", "type": "Weight", "weight": f"{weight}%", "until": {"seconds": 2}}
        for weight in (5, 50, 20)
    ]

    def has_reached(number: int) -> bool:
        status = plane.get_json("modpol", "community", site.namespace)["status"]
        # A step is over in the time that a busy machine takes to look twice.
        later = [step["name"] for step in steps[number:]]
        return status.get("candidate", {}).get("step") in later or status["stable"]["version"] == "v1"

    # The operator would end itself when its Lease ran out, and be started again.
    with (
        leading_operator(plane, lease_duration_seconds="120") as operator,
        RunningGateway(**gateway_settings(plane, tmp_path / "gateway-1")) as gateway,
    ):
        site.apply_policy("Review", version="v0")
        wait_for_decision(gateway, "Review")
        with Requests(gateway) as requests:
            eventually(lambda: requests.decisions)
            site.apply_policy("Block", version="v1", rollout={"steps": steps})
            for number in range(len(steps)):
                eventually(partial(has_reached, number))
                plane.stop_api()
                eventually(lambda: "did not answer" in component(gateway, "source").get("detail", ""))
                eventually(lambda: "the API server does not answer" in str(operator.ready()[1]["reasons"]))
                status, report = gateway.ready()
                plane.start_api()
                (source,) = (each["detail"] for each in report["components"] if each["name"] == "source")

                # What was written just before may have arrived in part.
                assert (status, report["ready"], "source" in report["degraded"]) == (200, True, True)
                assert source.startswith("lost since ")
                assert source.endswith("; what was good last is enforced")
            said = site.wait_for_ready()
            wait_for_decision(gateway, "Block")
            eventually(lambda: gateway.ready()[1]["degraded"] == [])
            operator.wait_until_leading()
            assert operator.process.poll() is None
            # Another one asked when it was said to be in force.
            eventually(lambda: requests.decisions[-1]["decision"] == "Block")

    assert requests.failed == []
    assert requests.degraded == {"PolicySource"}
    assert len(requests.decisions) > 100
    assert {each["decision"] for each in requests.decisions} == {"Review", "Block"}
    assert [row["reason"] for row in said["status"]["history"]] == ["Promoted", "Applied"]
    assert said["status"]["stable"]["version"] == site.route()["version"] == "v1"


@pytest.mark.parametrize("by_event", [pytest.param(False, id="as an answer"), pytest.param(True, id="as an event")])
def test_with_410_on_every_watch_edits_arrive_by_listing_and_it_is_said(site: Site, tmp_path: Path, by_event: bool):
    proxied = json.loads(site.plane.kubeconfig("baleen-operator").read_text())
    with ForgetfulApi(site.plane, by_event=by_event).running() as api:
        proxied["clusters"][0]["cluster"] = {"server": api.url}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(proxied))
        if not by_event:
            # An API server says it by an event. An answer ends kopf, which is begun anew less and less often.
            kubeconfig = site.plane.kubeconfig("baleen-operator")
        settings = gateway_settings(site.plane, tmp_path / "gateway-1", site.namespace, kubernetes_url=api.url)
        with (
            RunningOperator(kubeconfig, settings_for(site.namespace)) as operator,
            RunningGateway(**settings) as gateway,
        ):
            operator.wait_until_ready("leader")
            for action in ("Review", "Block", "Review"):
                site.apply_policy(action)
                wait_for_decision(gateway, action)
            eventually(lambda: "410 Gone" in component(gateway, "source").get("detail", ""))
            source = component(gateway, "source")
            site.plane.kubectl("delete", "modpol", "community", "-n", site.namespace)
            eventually(lambda: events(site, "DeletionHeld"))
            assert api.refused > 5
            api.forgets = False
            eventually(lambda: component(gateway, "source").get("healthy"))
            site.apply_policy("Block")
            wait_for_decision(gateway, "Block")
            eventually(lambda: operator.ready()[0] == 200)

    assert "every watch ends with 410 Gone; changes are seen by listing, and late" in source["detail"]


def test_rights_that_are_taken_away_are_named_and_nothing_else_changes_until_they_are_given_back(
    private_site: Site, tmp_path: Path
):
    site, plane = private_site, private_site.plane
    with (
        leading_operator(plane, lease_duration_seconds="120", relist_seconds="1") as operator,
        RunningGateway(**gateway_settings(plane, tmp_path / "gateway-1")) as gateway,
    ):
        site.apply_policy("Review")
        wait_for_decision(gateway, "Review")
        site.wait_for_ready()
        gateway.wait_until_ready()
        with Requests(gateway) as requests:
            plane.kubectl("delete", "clusterrole", "baleen-gateway", "baleen-operator")
            # A watch that is open goes on for minutes, whatever became of the role: this ends them all.
            plane.stop_api()
            plane.start_api()
            eventually(lambda: "(403)" in component(gateway, "source").get("detail", ""))
            eventually(lambda: "RBAC: may not list" in str(operator.ready()[1]["details"]))
            source, (status, report) = component(gateway, "source"), gateway.ready()
            operator_status, said = operator.ready()
            site.apply_policy("Block")
            # Nothing happens, and there is nothing to wait for.
            sleep(2)
            decision = gateway.decide(TEXT)
            for file in ("gateway.yaml", "operator.yaml"):
                plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROLES / file))
            wait_for_decision(gateway, "Block")
            site.wait_for_ready()
            eventually(lambda: gateway.ready()[1]["degraded"] == [])
            eventually(lambda: operator.ready()[1]["reasons"] == operator.ready()[1]["details"] == [])

    assert requests.failed == []
    assert (status, report["ready"], report["degraded"]) == (200, True, ["source"])
    assert re.search(
        r"(list|watch) [a-z]+\.moderation\.baleen\.dev: our role does not allow it \(403\)", source["detail"]
    )
    assert (decision["decision"], decision["degraded"]) == ("Review", ["PolicySource"])
    assert operator_status == 503
    assert "RBAC: may not list moderationpolicies in the cluster" in said["details"] + said["reasons"]


def token_number(token: str) -> str:
    """Return the number that a token has; the audit log has it, too."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])


def test_a_leader_that_slept_through_its_lease_writes_nothing_when_it_wakes(site: Site, tmp_path: Path):
    settings = settings_for(site.namespace)
    operators, numbers = [], []
    for name in ("sleeper", "standby"):
        token = site.plane.token_for(NAMESPACE, "baleen-operator")
        config = json.loads(site.plane.kubeconfig("baleen-operator").read_text())
        config["users"][0]["user"]["token"] = token
        (tmp_path / name).write_text(json.dumps(config))
        numbers.append(f"JTI={token_number(token)}")
    try:
        operators.append(RunningOperator(tmp_path / "sleeper", settings))
        sleeper = operators[0]
        sleeper.wait_until_leading()
        site.apply_policy("Review", version="v1")
        site.wait_for_ready()
        operators.append(RunningOperator(tmp_path / "standby", settings))
        operators[1].wait_until_ready("standby")
        sleeper.process.send_signal(signal.SIGSTOP)
        # What it is told while it sleeps, it finds when it wakes.
        for number, action in ((2, "Block"), (3, "Review"), (4, "Block")):
            site.apply_policy(action, version=f"v{number}", links=number)
        operators[1].wait_until_leading(seconds=LEASE_SECONDS * 10)
        site.wait_for_ready()
        site.plane.kubectl("delete", "modroute", "community", "-n", site.namespace)
        eventually(lambda: events(site, "RouteRestored"))
        asleep = writes_of(site, numbers[0])
        sleeper.process.send_signal(signal.SIGCONT)
        code = sleeper.wait_for_end()
        # Every write is in the log before it is answered.
        awake = writes_of(site, numbers[0])
        site.apply_policy("Review", version="v5")
        site.wait_for_ready()
    finally:
        for each in operators:
            each.process.send_signal(signal.SIGCONT)
            each.close()
        site.plane.delete("lease", settings["lease_name"], NAMESPACE)

    assert code == 3
    assert asleep == awake
    assert {"moderationroutes", "moderationpolicyrevisions", "moderationpolicies"} <= {
        resource for resource, _ in awake
    }
    assert writes_of(site, numbers[1])


def writes_of(site: Site, token: str) -> list[tuple[str, str]]:
    """Return what was written with a token, but for Leases and Events, by resource and name."""
    found = []
    for line in site.plane.audit_log.read_text().splitlines():
        if token not in line:
            continue
        event = json.loads(line)
        if event["verb"] in ("create", "update", "patch", "delete"):
            target = event["objectRef"]
            found.append((target["resource"], target.get("name", "")))
    return [each for each in found if each[0] not in ("leases", "events")]


def test_without_the_kinds_a_gateway_says_so_and_goes_on_when_they_come(private_site: Site, tmp_path: Path):
    plane = private_site.plane
    crds = sorted((ROOT / "crds").glob("*.yaml"))
    plane.kubectl("delete", *(f"--filename={path}" for path in crds))
    with RunningGateway(**gateway_settings(plane, tmp_path / "gateway-1")) as gateway:
        gateway.wait_for("answering")
        eventually(lambda: "install the CRDs" in component(gateway, "source").get("detail", ""))
        before, refused = gateway.ready(), gateway.moderate(TEXT)
        plane.kubectl("apply", "--server-side", *(f"--filename={path}" for path in crds))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        with leading_operator(plane):
            private_site.apply_policy("Review")
            wait_for_decision(gateway, "Review")
            gateway.wait_until_ready()

    assert (before[0], refused.status_code) == (503, 503)


def test_a_list_in_a_secret_is_kept_in_a_secret_and_a_forged_copy_is_replaced(site: Site, gateway: RunningGateway):
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "slurs", "namespace": site.namespace},
        "stringData": {"terms.txt": "idiot\nmoron\n"},
    }
    manifest = listed(site, "slurs")
    manifest["spec"]["policy"]["lists"][0]["source"]["type"] = "Secret"
    with leading_operator(site.plane, site.namespace):
        site.apply(secret, manifest)
        wait_for_decision(gateway, "Block", "you moron")
        found = site.plane.list_json("secret", site.namespace)
        (copy,) = [each for each in found if each["metadata"]["name"] != "slurs"]
    # With no operator there, so that nobody is faster than the forger.
    metadata = {name: copy["metadata"][name] for name in ("name", "namespace", "labels")}
    site.plane.kubectl("delete", "secret", metadata["name"], "-n", site.namespace)
    site.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"entries": "harmless"}})

    def is_true_again() -> bool:
        kept = {each["metadata"]["name"]: each["data"] for each in site.plane.list_json("secret", site.namespace)}
        return kept.get(metadata["name"]) == copy["data"]

    assert not is_true_again()
    with leading_operator(site.plane, site.namespace):
        eventually(is_true_again)

    assert copy["immutable"]
    assert not copies(site)
