import json
from pathlib import Path

import pytest
import yaml

from audit import WildcardRule, compare, read_manifests

OPERATOR = "system:serviceaccount:baleen-system:baleen-operator"
GROUP = "moderation.baleen.dev"
ROLES = sorted((Path(__file__).parents[2] / "charts" / "baleen" / "rbac").glob("*.yaml"))


def rule(verbs, resources, *, groups=(GROUP,), **more):
    return {"apiGroups": [*groups], "resources": [*resources], "verbs": [*verbs], **more}


def role(*rules, kind="ClusterRole", name="operator", **metadata):
    return {"kind": kind, "metadata": {"name": name, **metadata}, "rules": [*rules]}


def binding(*, kind="ClusterRoleBinding", to="ClusterRole", name="operator", account="baleen-operator", **metadata):
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "baleen-system"}
    return {
        "kind": kind,
        "metadata": {"name": "operator", **metadata},
        "roleRef": {"kind": to, "name": name},
        "subjects": [subject],
    }


def event(verb, resource, *, user=OPERATOR, group=GROUP, code=200, decision="allow", **target):
    return {
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, "apiGroup": group, **target},
        "responseStatus": {"code": code},
        "annotations": {"authorization.k8s.io/decision": decision},
    }


@pytest.fixture
def check(tmp_path):
    def check(manifests, events):
        (tmp_path / "roles.yaml").write_text(yaml.safe_dump_all(manifests))
        (tmp_path / "audit.log").write_text("".join(f"{json.dumps(event)}\n" for event in events))
        (found,) = compare([tmp_path / "audit.log"], [tmp_path / "roles.yaml"], [OPERATOR])
        return [str(call) for call in found.not_allowed], [str(rule) for rule in found.unused]

    return check


def test_what_is_called_and_what_is_allowed_may_be_the_same(check):
    manifests = [role(rule(["get", "list"], ["moderationpolicies"])), binding()]
    events = [
        event("get", "moderationpolicies", name="community", namespace="a"),
        event("list", "moderationpolicies"),
    ]

    assert check(manifests, events) == ([], [])


@pytest.mark.parametrize(
    ("events", "not_allowed", "unused"),
    [
        pytest.param([], [], ["get configmaps"], id="nothing was called"),
        pytest.param(
            [event("get", "configmaps", group="", name="a"), event("delete", "configmaps", group="", name="a")],
            ["delete configmaps a"],
            [],
            id="another verb",
        ),
        pytest.param(
            [event("get", "secrets", group="", name="a", namespace="n")],
            ["get secrets a in namespace n"],
            ["get configmaps"],
            id="another resource",
        ),
        pytest.param(
            [event("get", "configmaps", group="", subresource="status", name="a")],
            ["get configmaps/status a"],
            ["get configmaps"],
            id="a subresource is a resource of its own",
        ),
        pytest.param(
            [event("get", "configmaps", group="other")],
            ["get configmaps.other"],
            ["get configmaps"],
            id="another group",
        ),
        pytest.param(
            [event("get", "secrets", group="", name=f"s-{number}") for number in range(3)],
            ["get secrets s-2"],
            ["get configmaps"],
            id="one of a kind is told",
        ),
        pytest.param(
            [event("get", "configmaps", group="", user="admin")], [], ["get configmaps"], id="somebody else called"
        ),
        pytest.param(
            [event("get", "configmaps", group="", code=403, decision="forbid")],
            [],
            ["get configmaps"],
            id="what was refused counts for nothing",
        ),
        pytest.param(
            [event("get", "configmaps", group="", code=404)], [], [], id="what was not there was called all the same"
        ),
        pytest.param(
            [{"verb": "get", "user": {"username": OPERATOR}, "requestURI": "/readyz"}],
            [],
            ["get configmaps"],
            id="addresses that are no resources need no rule",
        ),
    ],
)
def test_calls_and_rules_are_compared_both_ways(check, events, not_allowed, unused):
    assert check([role(rule(["get"], ["configmaps"], groups=[""])), binding()], events) == (not_allowed, unused)


def test_an_apply_that_makes_an_object_needs_both_rights(check):
    patch_only = role(rule(["patch"], ["moderationroutes"]))
    both = role(rule(["patch", "create"], ["moderationroutes"]))
    made = event("patch", "moderationroutes", name="r", namespace="n", code=201)
    changed = event("patch", "moderationroutes", name="r", namespace="n", code=200)

    assert check([patch_only, binding()], [made]) == (
        ["create moderationroutes.moderation.baleen.dev r in namespace n"],
        [],
    )
    assert check([both, binding()], [made]) == ([], [])
    assert check([both, binding()], [changed]) == ([], ["create moderationroutes.moderation.baleen.dev"])


def test_a_rule_for_names_is_for_these_names_alone(check):
    manifests = [role(rule(["get"], ["leases"], resourceNames=["ours", "spare"])), binding()]
    events = [event("get", "leases", name="ours"), event("get", "leases", name="theirs")]

    assert check(manifests, events) == (
        ["get leases.moderation.baleen.dev theirs"],
        ["get leases.moderation.baleen.dev spare"],
    )


def test_a_rule_for_names_is_no_right_to_create(check):
    """The request that creates has no name yet when the server looks at it, though the log knows it afterwards."""
    manifests = [role(rule(["create"], ["leases"], resourceNames=["ours"])), binding()]
    not_allowed, unused = check(manifests, [event("create", "leases", name="ours", code=201)])

    assert not_allowed == ["create leases.moderation.baleen.dev"]
    assert unused == ["create leases.moderation.baleen.dev ours"]


@pytest.mark.parametrize(
    "manifests",
    [
        pytest.param(
            [
                role(rule(["get"], ["leases"]), kind="Role", namespace="baleen-system"),
                binding(kind="RoleBinding", to="Role", namespace="baleen-system"),
            ],
            id="a Role",
        ),
        pytest.param(
            [role(rule(["get"], ["leases"])), binding(kind="RoleBinding", namespace="baleen-system")],
            id="a ClusterRole that is bound in a namespace",
        ),
    ],
)
def test_what_is_bound_in_a_namespace_holds_there_alone(check, manifests):
    here = event("get", "leases", namespace="baleen-system", name="a")
    there = event("get", "leases", namespace="elsewhere", name="a")

    assert check(manifests, [here]) == ([], [])
    assert check(manifests, [here, there])[0] == ["get leases.moderation.baleen.dev a in namespace elsewhere"]


def test_roles_of_others_do_not_count(check):
    manifests = [role(rule(["get"], ["leases"])), binding(account="baleen-gateway")]

    assert check(manifests, [event("get", "leases")]) == (["get leases.moderation.baleen.dev"], [])


def test_a_line_that_was_torn_when_the_server_was_killed_is_passed_over(tmp_path):
    log, manifest = tmp_path / "audit.log", tmp_path / "roles.yaml"
    line = json.dumps(event("get", "leases"))
    log.write_text(f"{line[:40]}\n{line}\n{line[:30]}")
    manifest.write_text(yaml.safe_dump_all([role(rule(["get"], ["leases"])), binding()]))
    (found,) = compare([log], [manifest], [OPERATOR])

    assert list(found.problems()) == []


def test_problems_say_who_what_and_where(tmp_path):
    log, manifest = tmp_path / "audit.log", tmp_path / "roles.yaml"
    log.write_text(json.dumps(event("get", "secrets", group="", name="s", namespace="n")))
    manifest.write_text(yaml.safe_dump_all([role(rule(["get"], ["leases"])), binding()]))
    (found,) = compare([log], [manifest], [OPERATOR])

    assert list(found.problems()) == [
        f"{OPERATOR}: no role of the chart allows what was called: get secrets s in namespace n",
        f"{OPERATOR}: a role of the chart allows what nobody called: get leases.moderation.baleen.dev",
    ]


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        pytest.param(rule(["*"], ["leases"]), r"ClusterRole operator, rules\[0\]\.verbs", id="verb"),
        pytest.param(rule(["get"], ["*"]), r"rules\[0\]\.resources", id="resource"),
        pytest.param(rule(["get"], ["*/scale"]), r"rules\[0\]\.resources", id="subresource of any"),
        pytest.param(rule(["get"], ["leases"], groups=["*"]), r"rules\[0\]\.apiGroups", id="group"),
        pytest.param({"nonResourceURLs": ["*"], "verbs": ["get"]}, r"rules\[0\]\.nonResourceURLs", id="address"),
    ],
)
def test_a_wildcard_is_refused(check, wrong, place):
    with pytest.raises(WildcardRule, match=place):
        check([role(wrong), binding()], [])


def test_a_binding_to_a_role_that_is_not_there_is_refused(check):
    with pytest.raises(KeyError, match="ClusterRoleBinding operator: its ClusterRole missing is not among"):
        check([role(rule(["get"], ["leases"])), binding(name="missing")], [])


def test_the_roles_of_the_chart_have_no_wildcards():
    names = {document["metadata"]["name"] for document in read_manifests(ROLES) if document["kind"] == "ClusterRole"}

    assert names >= {"baleen-policy-author", "baleen-model-author", "baleen-on-call"}
