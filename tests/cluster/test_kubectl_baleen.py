"""`kubectl baleen` on a real API server. No operator runs: what it would have written is written by the tests."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from baleen_cli.cluster import FIELD_MANAGER
from baleen_core.policy.in_force import parse_override
from control_plane import KUBECTL
from published import kubectl_baleen, override, policy_of, published, put, revision_of

pytestmark = pytest.mark.cluster


@pytest.fixture
def community(control_plane, namespace):
    """Publish a policy of three revisions, and return their digests, oldest first."""
    put(control_plane, *published(namespace, "community", [50, 60, 70], scope={"surface": "comments"}))
    return [
        revision_of(policy_of(namespace, "community", review, scope={"surface": "comments"})).digest
        for review in (50, 60, 70)
    ]


def override_of(plane, namespace, name="community"):
    return plane.get_json("modover", name, namespace)


def managers(plane, namespace, name="community"):
    shown = plane.get_json("modover", name, namespace)
    return {(entry["manager"], entry["operation"]) for entry in shown["metadata"]["managedFields"]}


def has_override(plane, namespace):
    return bool(plane.list_json("modover", namespace))


def test_get_shows_what_is_in_force_of_each_policy(baleen, community):
    ended = baleen("get")
    header, row = ended.output.splitlines()[1], ended.output.splitlines()[3]

    assert ended.status == 0, ended.errors
    assert ended.errors == ""
    assert [word for word in header.replace("┃", " ").split() if word] == [
        *("NAME", "VERSION", "DIGEST", "EPOCH", "ACCEPTED", "READY", "CONVERGED", "OVERRIDE", "SINCE", "AGE")
    ]
    assert row.replace("│", " ").split()[:4] == ["community", "v3", community[2][:17], "3"]


def test_get_gives_machines_the_objects_whole(baleen, control_plane, namespace, community):
    (whole,) = json.loads(baleen("get", "-o", "json").output)["items"]
    alone = yaml.safe_load(baleen("get", "community", "-o", "yaml").output)
    policy = control_plane.get_json("modpol", "community", namespace)

    assert whole == alone
    assert whole["inForce"] == {
        "digest": community[2],
        "version": "v3",
        "epoch": 3,
        "time": "2026-01-03T00:00:00Z",
        "reason": "Applied",
        "by": "alice",
        "commit": "",
        "approvedBy": "",
        "override": "",
    }
    assert whole["policy"]["spec"] == policy["spec"]
    assert whole["route"]["spec"]["stable"] == community[2]
    assert len(whole["revisions"]) == 3
    assert "managedFields" not in whole["policy"]["metadata"]


def test_get_of_all_namespaces_names_them(baleen, namespace, community):
    ended = baleen("get", "-A", within="")

    assert ended.status == 0, ended.errors
    assert "NAMESPACE" in ended.output
    # Other tests' policies may leave less room for this one's namespace than its name takes.
    cells = [line.split("│")[1:4] for line in ended.output.splitlines() if line.startswith("│")]
    assert namespace in "".join(cell.strip() for cell, _, _ in cells)
    assert ["community", "v3"] in [[each.strip() for each in rest] for _, *rest in cells]


def test_get_of_an_empty_namespace_says_so(baleen, namespace):
    ended = baleen("get")

    assert (ended.status, ended.output) == (0, f"no policies in namespace {namespace}\n")


def test_history_is_newest_first_and_survives_the_policy(baleen, control_plane, namespace, community):
    before = json.loads(baleen("history", "community", "-o", "json").output)["activations"]
    control_plane.kubectl("delete", "modpol,modroute", "community", "-n", namespace)
    after = baleen("history", "community")

    assert [(row["epoch"], row["version"], row["standing"]) for row in before] == [
        (3, "v3", "InForce"),
        (2, "v2", ""),
        (1, "v1", ""),
    ]
    assert {row["by"] for row in before} == {"alice"}
    # The row of epoch 3 stood in the route, and the operator moves it; here there is none.
    assert after.status == 0, after.errors
    assert [line.replace("│", " ").split()[2] for line in after.output.splitlines()[3:5]] == ["v2", "v1"]


def test_diff_compares_what_was_with_what_is_in_force_unless_told_otherwise(baleen, community):
    usual = baleen("diff", "community")
    named = baleen("diff", "community", "v1", community[1][:20])

    assert (usual.status, usual.errors) == (0, "")
    assert usual.output == (
        f"{community[1][:17]} (v2) → {community[2][:17]} (v3)\n"
        "categories[toxicity].signals[toxicity.toxic].review: 60% → 70%\n"
    )
    assert named.output.splitlines()[1:] == ["categories[toxicity].signals[toxicity.toxic].review: 50% → 60%"]


def test_diff_of_an_authors_file_reads_the_lists_in_the_cluster(baleen, control_plane, namespace, community, tmp_path):
    manifest = policy_of(namespace, "community", 75, scope={"surface": "comments"})
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
    manifest["spec"]["policy"]["lists"] = [{"name": "slurs", "type": "Terms", "action": "Review", "source": source}]
    file = tmp_path / "community.yaml"
    file.write_text(yaml.safe_dump(manifest))
    missing = baleen("diff", "-f", file, user="admin")
    terms = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"terms.txt": "moron\n"}}
    put(control_plane, {**terms, "metadata": {"name": "slurs", "namespace": namespace}})
    found = baleen("diff", "-f", file, user="admin")
    forbidden = baleen("diff", "-f", file)

    assert missing.status == 1
    assert "spec.policy.lists[0].source: there is no ConfigMap 'slurs'" in missing.problems[0]
    assert found.status == 0, found.errors
    assert "categories[toxicity].signals[toxicity.toxic].review: 70% → 75%" in found.output
    assert "lists[slurs].action: Review (added)" in found.output
    assert forbidden.status == 1
    assert forbidden.problems[0].startswith(f"you may not get configmaps 'slurs' in namespace {namespace}: ")


def test_diff_of_the_file_that_is_in_force_is_no_difference(baleen, namespace, community, tmp_path):
    manifest = policy_of(namespace, "community", 70, scope={"surface": "comments"})
    del manifest["metadata"]["namespace"]
    file = tmp_path / "community.yaml"
    file.write_text(yaml.safe_dump(manifest))

    assert baleen("diff", "-f", file).output.splitlines()[1:] == ["no difference"]


def test_diff_of_a_file_that_was_never_applied_shows_all_of_it(baleen, namespace, tmp_path):
    file = tmp_path / "fresh.yaml"
    file.write_text(yaml.safe_dump(policy_of(namespace, "fresh", 70)))
    ended = baleen("diff", "-f", file)

    assert ended.status == 0, ended.errors
    assert ended.output.startswith(f"nothing → {file} (sha256:")
    assert "categories[toxicity].signals[toxicity.toxic].review: 70% (added)" in ended.output


def test_effective_says_who_wins_where_and_which_floors_bind(baleen, control_plane, namespace, community):
    put(control_plane, *published(namespace, "wide", [80]))
    put(control_plane, *published(namespace, "minimum", [95], role="Floor"))
    here, elsewhere = baleen("effective", "--surface", "comments"), baleen("effective", "--surface", "chat")
    whole = json.loads(baleen("effective", "--surface", "comments", "-o", "json").output)

    assert here.status == 0, here.errors
    assert f"Moderation: {namespace}/community v3 ({community[2][:17]}) wins; it is for surface comments" in here.output
    assert f"instead of {namespace}/wide v1" in here.output
    assert f"floor {namespace}/minimum v1" in here.output
    assert f"Moderation: {namespace}/wide v1" in elsewhere.output
    assert [each["name"] for each in whole["winners"]] == ["community"]
    assert [each["name"] for each in whole["floors"]] == ["minimum"]


def test_effective_without_a_policy_says_what_requests_get(baleen):
    assert "answered with 503" in baleen("effective", "--tenant", "nobody").output


def test_rollback_puts_the_revision_before_in_force_and_says_how_to_undo(baleen, control_plane, namespace, community):
    ended = baleen("rollback", "community", "--reason", "incident 4711")
    written = override_of(control_plane, namespace)

    assert ended.status == 0, ended.errors
    assert ended.output == (
        f"{namespace}/community: {community[1][:17]} (v2) is in force in a moment (was {community[2][:17]} (v3))\n"
    )
    undo = f"kubectl baleen reject community {community[2][:17]} -n {namespace} --remove"
    assert ended.errors == f"take it back with: {undo}\n"
    assert parse_override({**written, "metadata": {"name": "community"}}).reject == {community[2]}
    assert written["metadata"]["annotations"] == {"moderation.baleen.dev/reason": "incident 4711"}
    assert (FIELD_MANAGER, "Apply") in managers(control_plane, namespace)

    back = baleen(*undo.split()[2:-3], "--remove")

    assert back.status == 0, back.errors
    assert f"{community[2][:17]} (v3) is in force in a moment" in back.output
    assert not has_override(control_plane, namespace)


def test_a_second_rollback_goes_back_further_and_a_third_finds_nothing(baleen, control_plane, namespace, community):
    first, second, third = (baleen("rollback", "community") for _ in range(3))

    assert "(v2) is in force" in first.output
    assert "(v1) is in force" in second.output
    assert third.status == 1
    assert "nothing would be in force" in third.problems[0]
    assert sorted(override_of(control_plane, namespace)["spec"]["reject"]) == sorted(community[1:])


def test_rollback_to_a_revision_pins_it(baleen, control_plane, namespace, community):
    ended = baleen("rollback", "community", "--to", "v1", "--reason", "incident 4711")

    assert ended.status == 0, ended.errors
    assert "(v1) is in force in a moment" in ended.output
    assert override_of(control_plane, namespace)["spec"] == {
        "pin": {"digest": community[0], "reason": "incident 4711"},
        "reject": [community[2]],
    }


def test_rollback_from_a_pin_takes_the_pin_back(baleen, control_plane, namespace, community):
    baleen("pin", "community", "v1")
    ended = baleen("rollback", "community")

    assert "(v3) is in force in a moment" in ended.output, ended.errors
    assert override_of(control_plane, namespace)["spec"] == {"reject": [community[0]]}


def test_pin_and_take_back(baleen, control_plane, namespace, community):
    pinned = baleen("pin", "community", community[0][7:15], "--reason", "audit", "--expires", "2h")
    spec = override_of(control_plane, namespace)["spec"]
    shown = baleen("get", "community", "-o", "json")
    removed = baleen("pin", "community", "--remove")

    assert pinned.status == 0, pinned.errors
    assert "(v1) is in force in a moment" in pinned.output
    assert spec["pin"]["digest"] == community[0]
    assert spec["pin"]["reason"] == "audit"
    assert spec["pin"]["expireTime"].endswith("Z")
    assert json.loads(shown.output)["inForce"]["override"] == "Pinned"
    assert "(v3) is in force in a moment" in removed.output, removed.errors
    assert not has_override(control_plane, namespace)


def test_a_pin_that_follows_another_has_nothing_of_it(baleen, control_plane, namespace, community):
    put(
        control_plane,
        override(
            namespace, "community", pin={"digest": community[1], "reason": "Git", "expireTime": "2027-01-01T00:00:00Z"}
        ),
    )
    ended = baleen("pin", "community", "v1")

    assert ended.status == 0, ended.errors
    assert override_of(control_plane, namespace)["spec"] == {"pin": {"digest": community[0]}}


def test_what_others_said_stays_theirs(baleen, control_plane, namespace, community):
    put(control_plane, override(namespace, "community", reject=[community[1]]))
    baleen("reject", "community", "v3")
    both = override_of(control_plane, namespace)["spec"]["reject"]
    baleen("reject", "community", "v3", "--remove")
    theirs = override_of(control_plane, namespace)["spec"]["reject"]

    assert sorted(both) == sorted(community[1:])
    assert theirs == [community[1]]


def test_what_git_takes_back_is_gone_though_our_tools_wrote_beside_it(baleen, control_plane, namespace, community):
    put(control_plane, override(namespace, "community", reject=[community[1]]))
    baleen("reject", "community", "v3")
    put(control_plane, override(namespace, "community"))

    assert override_of(control_plane, namespace)["spec"]["reject"] == [community[2]]


def test_what_another_manager_says_cannot_be_taken_back_here(baleen, control_plane, namespace, community):
    put(control_plane, override(namespace, "community", reject=[community[2]]))
    unreject = baleen("reject", "community", "v3", "--remove")
    pin = baleen("pin", "community", "v3")

    assert (unreject.status, pin.status) == (1, 1)
    for ended in (unreject, pin):
        assert "spec.reject: " in ended.problems[0]
        assert "is written by test too, so it would stay; take it out there" in ended.problems[0]


def test_dry_run_says_what_would_be_and_writes_nothing(baleen, control_plane, namespace, community):
    ended = baleen("rollback", "community", "--dry-run")

    assert ended.status == 0, ended.errors
    assert f"(v2) would be in force (was {community[2][:17]} (v3))" in ended.output
    assert not has_override(control_plane, namespace)


def test_two_who_write_at_once_both_are_heard(baleen, control_plane, namespace, community):
    ended = {}

    def reject(version):
        done = subprocess.run(
            [Path(sys.executable).with_name("kubectl-baleen"), "reject", "community", version, "-n", namespace],
            env={**os.environ, "KUBECONFIG": str(control_plane.kubeconfig("on-call"))},
            capture_output=True,
            text=True,
            check=False,
        )
        ended[version] = done

    threads = [threading.Thread(target=reject, args=(version,)) for version in ("v2", "v3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [done.returncode for done in ended.values()] == [0, 0], [done.stderr for done in ended.values()]
    assert sorted(override_of(control_plane, namespace)["spec"]["reject"]) == sorted(community[1:])


def test_an_unknown_revision_is_answered_with_those_that_are_known(baleen, community):
    unknown, mistyped = baleen("pin", "community", "sha256:ffff"), baleen("pin", "community", "v33")
    names = ", ".join(
        f"{digest[:17]} (v{number})" for number, digest in zip((3, 2, 1), reversed(community), strict=True)
    )

    assert unknown.status == 1
    assert all(name in unknown.problems[0] for name in names.split(", "))
    assert "did you mean 'v3'?" in mistyped.problems[0]


def test_a_mistyped_name_is_answered_with_the_nearest(baleen, namespace, community):
    for name in ("comunity", "Community", "com/munity"):
        ended = baleen("rollback", name)

        assert ended.status == 1
        assert "did you mean 'community'?" in ended.problems[0]
        assert namespace in ended.problems[0]


def test_explain_names_what_is_wrong_and_what_to_do(baleen, control_plane, namespace, community):
    behind = "1 of 2 enforce it; behind: gateway-1"
    problem = "spec.policy.categories[0].signals[0].name: unknown signal 'toxc'; did you mean 'toxic'?"
    said = {"lastTransitionTime": "2026-01-03T00:00:00Z", "observedGeneration": 1}
    conditions = [
        {"type": "Accepted", "status": "False", "reason": "Invalid", "message": problem, **said},
        {"type": "Ready", "status": "False", "reason": "Invalid", "message": problem, **said},
        {
            "type": "Converged",
            "status": "False",
            "reason": "Behind",
            "message": "1 of 2 enforce it; behind: gateway-1",
            **said,
        },
    ]
    policy = policy_of(namespace, "community", 70, version="v3", scope={"surface": "comments"})
    policy["status"] = {"observedGeneration": 1, "conditions": conditions}
    put(control_plane, policy)
    baleen("rollback", "community", "--reason", "incident 4711")
    ended = baleen("explain", "community")

    assert ended.status == 0, ended.errors
    for words in (
        f"In force: {community[1][:17]} (v2)",
        f"is rejected by override {namespace}/community, written by baleen-cli",
        f"Override rejects {community[2][:17]} (v3), written by baleen-cli",
        "The last reason that was given: incident 4711",
        problem,
        behind,
        "correct the policy as it says and apply it again",
    ):
        assert words in ended.output


def test_explain_of_a_digest_says_what_became_of_it(baleen, namespace, community):
    now, before = baleen("explain", community[2]), baleen("explain", community[0][7:19])

    assert "  is in force\n" in now.output
    assert f"{namespace}/community: revision {community[0]} (v1)" in before.output
    assert f"is superseded by {community[2][:17]} (v3) since 2026-01-03T00:00:00Z" in before.output
    assert "came into force at 2026-01-01T00:00:00Z as epoch 1: Applied, by alice" in before.output


def test_a_revision_that_is_not_what_its_digest_names_is_never_in_force(baleen, control_plane, namespace, community):
    resources = published(namespace, "damaged", [50, 60])
    resources[2]["spec"]["content"] = resources[2]["spec"]["content"].replace("600000", "610000")
    put(control_plane, *resources)
    shown = json.loads(baleen("get", "damaged", "-o", "json").output)
    explained, pinned = baleen("explain", "damaged"), baleen("pin", "damaged", "v2")

    assert shown["inForce"]["version"] == "v1"
    assert "cannot be used: revision: expected sha256:" in explained.output
    assert pinned.status == 1
    assert "cannot be used" in pinned.problems[0]


def test_without_the_right_the_verb_and_the_resource_are_named(baleen, namespace, community):
    ended = baleen("rollback", "community", user="policy-author")
    nobody = baleen("get", user="default/default")

    assert ended.status == 1
    assert ended.problems[0].startswith(
        f"you may not patch moderationoverrides.moderation.baleen.dev 'community' in namespace {namespace}: "
    )
    assert nobody.status == 1
    assert nobody.problems[0].startswith(
        f"you may not list moderationpolicies.moderation.baleen.dev in namespace {namespace}: "
    )


def test_a_token_that_is_not_accepted_is_named(control_plane, tmp_path):
    config = yaml.safe_load(control_plane.kubeconfig("on-call").read_text())
    config["users"][0]["user"]["token"] = "nobody"
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    ended = kubectl_baleen("get", "--kubeconfig", file)

    assert ended.status == 1
    assert f"API server {control_plane.url} does not accept who you are" in ended.problems[0]


def test_kubectl_finds_the_plugin_and_passes_its_own_settings_on(control_plane, namespace, community, tmp_path):
    config = yaml.safe_load(control_plane.kubeconfig("on-call").read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(file)}

    def run(*arguments):
        return subprocess.run(
            [KUBECTL, "baleen", *arguments], env=environment, capture_output=True, text=True, check=False
        )

    shown, wrong, unknown = run("get", "-o", "json"), run("get", "comunity"), run("gett")

    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["items"][0]["inForce"]["digest"] == community[2]
    assert (wrong.returncode, unknown.returncode) == (1, 2)
    assert "did you mean 'community'?" in wrong.stderr
