"""What becomes of a policy in a cluster: what is valid is routed, the rest is said, and nothing is lost on the way."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baleen_core.errors import Stale
from baleen_core.policy.grants import Grants
from baleen_core.policy.revision import read_revision
from baleen_core.resources import (
    ALLOW_DELETE_ANNOTATION,
    MAX_SHARD_BYTES,
    OVERRIDE_KIND,
    POLICY_KIND,
    POLICY_LABEL,
    REVISION_KIND,
    ROUTE_KIND,
    list_object_name,
    read_revision_resource,
    read_route,
    revision_name,
)
from baleen_operator.plan.actions import Action, Emit
from baleen_operator.reconcile.ports import Acknowledged
from memory_cluster import FixedGateways, Killed, make_ports
from policies import override_manifest, policy_manifest
from policy_site import KEY, SPACE, Site, config_map, model, policy, with_list

LATER = {"metrics": [{"name": "overturned", "type": "OverturnRate", "maxIncrease": "1%"}]}


@pytest.fixture
def site() -> Site:
    return Site()


async def test_a_fresh_policy_costs_three_writes_and_is_ready(site):
    await site.apply(policy(version="v1"))

    assert site.cluster.writes() == [
        "apply ModerationPolicyRevision",
        "apply ModerationRoute",
        "apply status of ModerationPolicy",
    ]
    assert site.cluster.events() == ["Activated"]
    assert {each["type"]: each["status"] for each in site.status["conditions"]} == {
        "Accepted": "True",
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Serving": "True",
        "Converged": "True",
    }
    assert site.status["stable"] == {"digest": site.stable, "version": "v1"}
    assert (site.route["epoch"], site.route["reason"]) == (1, "Applied")


async def test_the_revision_that_is_routed_reads_back(site):
    await site.apply(policy())

    name, _, revision = read_revision_resource(site.revision(site.stable))
    route = read_route(site.find(ROUTE_KIND))
    assert (name, read_revision(revision).digest) == ("community", route.route.stable)
    assert route.created == site.find(POLICY_KIND)["metadata"]["creationTimestamp"]


@pytest.mark.parametrize("restarted", [pytest.param(False, id="same operator"), pytest.param(True, id="a new one")])
async def test_an_unchanged_policy_costs_nothing(site, restarted):
    await site.apply(config_map("idiot"), with_list())
    before = len(site.cluster.actions)
    if restarted:
        site.restart()
    await site.reconcile()

    assert site.cluster.actions[before:] == []


async def test_an_unchanged_policy_is_not_checked_again(site):
    await site.apply(policy())
    checks = 0

    async def count(work: Any) -> Any:
        nonlocal checks
        checks += 1
        return work()

    site.ports = make_ports(site.cluster, site.clock, memory=site.ports.memory)
    object.__setattr__(site.ports, "off_loop", count)
    await site.reconcile()

    assert checks == 0


async def test_an_edit_is_routed_with_a_higher_epoch_and_the_old_row_is_kept_with_its_revision(site):
    await site.apply(policy("92%", version="v1"))
    first = site.stable
    await site.apply(policy("80%", version="v2"))

    assert (site.route["epoch"], site.route["recentStable"]) == (2, [first])
    (row,) = site.revision(first)["status"]["activations"]
    assert (row["epoch"], row["version"], row["reason"]) == (1, "v1", "Applied")
    assert site.history() == [(2, "Applied"), (1, "Applied")]


async def test_going_back_within_the_window_is_said(site):
    await site.apply(policy("92%"))
    first = site.stable
    await site.apply(policy("80%"))
    await site.apply(policy("92%"))

    assert site.stable == first
    assert site.history() == [(3, "Returned"), (2, "Applied"), (1, "Applied")]
    assert site.cluster.events() == ["Activated", "Activated", "RolledBack"]


async def test_what_was_stable_before_the_window_is_new_again(site):
    for block in ("92%", "80%", "70%", "92%"):
        await site.apply(policy(block, rollout={"rollbackWindow": 1}))

    assert [reason for _, reason in site.history()] == ["Applied"] * 4
    assert len(site.route["recentStable"]) == 1


async def test_the_same_content_by_another_version_has_a_row_of_its_own(site):
    await site.apply(policy(version="v1"))
    await site.apply(policy(version="v2"))

    assert (site.route["epoch"], site.route["version"]) == (2, "v2")
    assert site.history() == [(2, "Updated"), (1, "Applied")]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"block": "920%"}, "Invalid", id="a threshold"),
        pytest.param({"rollout": {"analysis": LATER}}, "NotYetSupported", id="a metric of later"),
        pytest.param({"gates": {"backtest": {"decisions": 9}}}, "Invalid", id="a gate without a limit"),
        pytest.param(
            {"tests": [{"name": "x", "expect": "Allow", "signals": {"toxicity.toxic": "99%"}}]},
            "TestsFailed",
            id="a test",
        ),
        pytest.param({"version": "v1", "block": "50%"}, "Invalid", id="a version of other content"),
    ],
)
async def test_what_is_not_valid_is_refused_and_what_was_good_stays(site, spec, reason):
    await site.apply(policy(version="v1"))
    before = site.find(ROUTE_KIND)
    await site.apply(policy(**spec))

    assert site.find(ROUTE_KIND) == before
    for type, status in (("Accepted", "False"), ("Ready", "False"), ("Stalled", "True"), ("Reconciling", "False")):
        assert site.condition(type)[0] == status
    assert site.condition("Accepted")[1] == site.condition("Stalled")[1] == reason
    assert site.condition("Serving") == ("True", "Routed")
    assert site.cluster.events()[-1] == reason


async def test_what_is_not_granted_is_refused(site):
    site.restart(grants=Grants(policy_namespaces=frozenset({"other"})))
    await site.apply(policy())

    assert site.condition("Accepted") == ("False", "NotGranted")
    assert "policies count only in other" in site.message("Accepted")
    assert site.cluster.find(ROUTE_KIND, *KEY) is None
    assert site.condition("Serving") == ("False", "NoRevision")


async def test_many_problems_are_bounded(site):
    categories = [{"name": f"c{number}", "signals": []} for number in range(40)]
    await site.apply(policy_manifest({"categories": categories}))

    assert site.message("Accepted").endswith("and 30 more")


async def test_a_policy_waits_for_the_models_that_it_was_calibrated_for(site):
    site.cluster.models_served = (model(version="2"),)
    content = policy()["spec"]["policy"] | {"models": [{"name": "toxicity", "version": "1"}]}
    await site.apply(policy_manifest(content))
    waiting = {type: site.condition(type) for type in ("Accepted", "Reconciling", "Stalled")}
    site.cluster.models_served = (model(version="1"),)
    await site.reconcile()

    assert waiting == {
        "Accepted": ("False", "ModelsUnavailable"),
        "Reconciling": ("True", "ModelsUnavailable"),
        "Stalled": ("False", "Settled"),
    }
    assert site.condition("Ready") == ("True", "InForce")


async def test_a_model_that_goes_leaves_what_is_in_force(site):
    await site.apply(policy())
    site.cluster.models_served = ()
    await site.reconcile()

    assert site.condition("Ready") == ("True", "InForce")
    assert "is not served now" in site.message("Ready")


@pytest.mark.parametrize("by", ["the policy", "its override"])
async def test_while_paused_new_content_waits_and_the_route_stays(site, by):
    await site.apply(policy("92%"))
    before = site.find(ROUTE_KIND)
    if by == "its override":
        site.cluster.put(override_manifest(paused=True))
    await site.apply(policy("80%", paused=by == "the policy"))
    waiting = site.status["candidate"]["digest"], site.condition("Reconciling"), site.condition("Serving")[0]
    stayed = site.find(ROUTE_KIND) == before
    if by == "its override":
        site.cluster.put(override_manifest(paused=False))
    await site.apply(policy("80%"))

    assert stayed
    assert waiting == (site.stable, ("True", "Paused"), "True")
    assert site.condition("Ready") == ("True", "InForce")


async def test_the_first_content_of_a_paused_policy_waits_too(site):
    await site.apply(policy(paused=True))

    assert site.cluster.find(ROUTE_KIND, *KEY) is None
    assert site.condition("Reconciling") == ("True", "Paused")


# Overrides


async def test_a_rejected_revision_gives_way_to_the_one_before(site):
    await site.apply(policy("92%", version="v1"))
    good = site.stable
    await site.apply(policy("80%", version="v2"))
    await site.apply(override_manifest(reject=[site.stable]))

    assert site.status["stable"] == {"digest": good, "version": "v1"}
    assert site.history() == [(3, "Rejected"), (2, "Applied"), (1, "Applied")]
    assert (site.condition("Ready"), site.condition("Stalled")) == (("False", "Rejected"), ("True", "Rejected"))
    assert site.cluster.events().count("Rejected") == 2, "once for what came back, once for what waits"


async def test_rejected_content_does_not_go_live_when_it_is_applied_again(site):
    await site.apply(policy("92%"))
    await site.apply(policy("80%"))
    bad = site.stable
    site.cluster.put(override_manifest(reject=[bad]))
    await site.apply(policy("70%"))
    after = site.stable
    await site.apply(policy("80%"))

    assert site.stable == after != bad
    assert site.condition("Stalled") == ("True", "Rejected")


async def test_a_pin_is_in_force_until_it_is_taken_away(site):
    await site.apply(policy("92%"))
    first = site.stable
    await site.apply(policy("80%"))
    second = site.stable
    await site.apply(override_manifest(pin={"digest": first, "reason": "blocks too much"}))
    pinned = site.status["stable"]["digest"], site.status["history"][0]["reason"], site.condition("Reconciling")
    site.cluster.remove(OVERRIDE_KIND, *KEY)
    await site.reconcile()

    assert pinned == (first, "Pinned: blocks too much", ("True", "Pinned"))
    assert site.status["stable"]["digest"] == second
    assert site.history()[:2] == [(4, "OverrideEnded"), (3, "Pinned")]


async def test_a_pin_that_expires_is_looked_at_when_it_does(site):
    await site.apply(policy("92%"))
    first = site.stable
    await site.apply(policy("80%"))
    site.clock.now = datetime(2026, 3, 1, tzinfo=UTC)
    site.cluster.put(override_manifest(pin={"digest": first, "expireTime": "2026-03-01T01:00:00Z"}))
    outcome = await site.reconcile()
    site.clock.now = datetime(2026, 3, 1, 1, tzinfo=UTC)
    await site.reconcile()

    assert 3500 < outcome.requeue_seconds < 3600
    assert site.status["stable"]["digest"] == site.stable != first
    assert site.condition("Ready") == ("True", "InForce")


async def test_an_edit_under_a_pin_is_routed_and_the_pin_stays_in_force(site):
    await site.apply(policy("92%"))
    first = site.stable
    await site.apply(override_manifest(pin={"digest": first}))
    await site.apply(policy("80%"))

    assert site.stable != first
    assert site.status["stable"]["digest"] == first == site.status["history"][0]["digest"]


async def test_an_unknown_pin_is_said_with_the_known_ones(site):
    await site.apply(policy(version="v1"))
    await site.apply(override_manifest(pin={"digest": "sha256:" + "0" * 64}))

    assert site.condition("Stalled") == ("True", "UnknownDigest")
    assert f"known are v1 ({site.stable[:17]})" in site.message("Stalled")
    assert site.status["stable"]["digest"] == site.stable


async def test_an_override_that_cannot_be_read_freezes_what_is_in_force(site):
    await site.apply(policy("92%"))
    first = site.stable
    site.cluster.put(override_manifest(pin={"digest": "latest"}))
    await site.apply(policy("80%"))

    assert site.stable == site.status["stable"]["digest"] == first
    assert site.condition("Stalled") == ("True", "OverrideInvalid")
    assert "spec.pin.digest" in site.message("Stalled")
    assert site.cluster.events()[-1] == "OverrideInvalid"


async def test_what_of_an_override_has_no_effect_is_said(site):
    await site.apply(policy())
    unknown = "sha256:" + "1" * 64
    await site.apply(override_manifest(approve={"digest": unknown}, reject=[unknown]))

    assert site.condition("Ready") == ("True", "InForce")
    assert "spec.approve: sha256:1111111111 is no revision of this policy; known are" in site.message("Ready")
    assert f"spec.reject: {unknown[:17]} is no revision of this policy" in site.message("Ready")
    assert site.cluster.events()[-1] == "NoEffect"


# Lists


async def test_a_list_is_kept_with_its_revision_and_shared_by_those_that_name_it(site):
    await site.apply(config_map("idiot\nmoron"), with_list())
    first = site.revision(site.stable)
    await site.apply(with_list(role="Floor"))
    second = site.revision(site.stable)

    digest = second["spec"]["content"].split('"digest":"')[1][:71]
    kept = site.find("ConfigMap", list_object_name(digest, 0))
    assert (kept["immutable"], kept["data"]) == (True, {"entries": "idiot\nmoron"})
    owners = [each["uid"] for each in kept["metadata"]["ownerReferences"]]
    assert owners == [first["metadata"]["uid"], second["metadata"]["uid"]]


async def test_a_large_list_is_kept_in_several_objects(site):
    terms = "\n".join(f"term-{number:07}" for number in range(MAX_SHARD_BYTES // 6))
    await site.apply(config_map(terms), with_list())

    shards = [each for each in site.cluster.all("ConfigMap") if each.get("immutable")]
    assert len(shards) == 3
    assert {each["metadata"]["annotations"]["moderation.baleen.dev/shards"] for each in shards} == {"3"}


async def test_a_list_of_a_secret_is_kept_in_a_secret_and_looked_at_now_and_then(site):
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "slurs", "namespace": SPACE},
        "data": {"terms.txt": "aWRpb3Q="},
    }
    site.cluster.put(secret)
    site.cluster.put(with_list(kind="Secret"))
    outcome = await site.reconcile()

    assert outcome.requeue_seconds == 30
    assert [each["data"] for each in site.cluster.all("Secret") if each.get("immutable")] == [{"entries": "aWRpb3Q="}]


async def test_an_edited_list_is_a_new_revision(site):
    await site.apply(config_map("idiot"), with_list())
    before = site.stable
    await site.apply(config_map("moron"))

    assert site.stable != before
    assert site.route["epoch"] == 2


async def test_a_list_that_is_missing_is_named(site):
    await site.apply(with_list())

    assert site.condition("Accepted") == ("False", "ListMissing")
    assert "there is no ConfigMap 'slurs'" in site.message("Accepted")


@pytest.mark.parametrize("harm", ["deleted", "written by hand"])
async def test_a_kept_list_that_was_lost_is_written_again(site, harm):
    await site.apply(config_map("idiot"), with_list())
    (kept,) = [each for each in site.cluster.all("ConfigMap") if each.get("immutable")]
    name = kept["metadata"]["name"]
    site.cluster.remove("ConfigMap", SPACE, name)
    if harm == "written by hand":
        site.cluster.put(config_map("anything", name=name) | {"immutable": True})
    await site.reconcile()

    assert site.find("ConfigMap", name)["data"] == kept["data"]
    assert site.route["epoch"] == 1


async def test_a_kept_list_whose_source_says_something_else_is_named(site):
    await site.apply(config_map("idiot"), with_list())
    (kept,) = [each for each in site.cluster.all("ConfigMap") if each.get("immutable")]
    site.cluster.remove("ConfigMap", SPACE, kept["metadata"]["name"])
    await site.apply(config_map("moron"), with_list(paused=True))

    assert site.condition("Serving") == ("True", "ListsMissing")
    assert "no longer in the cluster" in site.message("Serving")


async def test_a_kept_list_of_what_is_stable_is_written_again_while_an_edit_waits(site):
    await site.apply(config_map("idiot"), with_list())
    (kept,) = [each for each in site.cluster.all("ConfigMap") if each.get("immutable")]
    site.cluster.remove("ConfigMap", SPACE, kept["metadata"]["name"])
    await site.apply(with_list(role="Floor", paused=True))

    assert site.find("ConfigMap", kept["metadata"]["name"])["data"] == kept["data"]


async def test_nothing_is_routed_whose_list_cannot_be_had(site):
    await site.apply(config_map("idiot"), with_list())
    await site.apply(config_map("moron"))
    (first,) = site.route["recentStable"]
    newest = site.revision(site.stable)["spec"]["content"].split('"digest":"')[1][:71]
    site.cluster.remove("ConfigMap", SPACE, list_object_name(newest, 0))
    site.cluster.remove("ConfigMap", SPACE, "slurs")
    await site.reconcile()
    site.cluster.remove(ROUTE_KIND, *KEY)
    await site.reconcile()

    assert site.stable == first
    assert site.condition("Accepted") == ("False", "ListMissing")


# Somebody else's hands


async def test_a_route_that_was_edited_by_hand_is_restored(site):
    await site.apply(policy("92%"))
    await site.apply(policy("80%"))
    before = site.route
    site.cluster.edit(
        ROUTE_KIND, *KEY, lambda each: each["spec"].update(epoch=9, stable=before["recentStable"][0], recentStable=[])
    )
    await site.reconcile()

    assert (site.stable, site.route["epoch"], site.route["reason"]) == (before["stable"], 10, "Restored")
    assert site.cluster.events()[-1] == "RouteRestored"
    assert [epoch for epoch, _ in site.history()] == [10, 9, 2, 1]


@pytest.mark.parametrize("version", ["v1", "v2", "v3", ""])
async def test_a_version_that_somebody_wrote_into_a_route_names_nothing(site, version):
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("80%", version="v2"))
    before = site.route
    forged = {"epoch": 9, "stable": before["recentStable"][0], "recentStable": [], "version": version}
    site.cluster.edit(ROUTE_KIND, *KEY, lambda each: each["spec"].update(forged))
    await site.reconcile()

    assert site.condition("Accepted") == ("True", "Valid")
    assert (site.stable, site.route["version"], site.route["epoch"]) == (before["stable"], "v2", 10)
    assert [(row["epoch"], row["version"]) for row in site.status["history"]] == [
        (10, "v2"),
        (9, "v1"),
        (2, "v2"),
        (1, "v1"),
    ]
    await site.apply(policy("70%", version="v3"))
    assert site.condition("Ready") == ("True", "InForce")


async def test_a_route_that_names_another_content_by_a_version_is_not_believed_whatever_the_status_says(site):
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("80%", version="v2"))
    before = site.route
    forged = {"epoch": 9, "stable": before["recentStable"][0], "recentStable": []}
    site.cluster.edit(ROUTE_KIND, *KEY, lambda each: each["spec"].update(forged))
    # The status is of an older generation then, so that it does not tell who wrote the route.
    await site.apply(policy("80%", version="v2", description="the same content"))

    assert site.condition("Accepted") == ("True", "Valid")
    assert (site.stable, site.route["version"], site.route["epoch"]) == (before["stable"], "v2", 10)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"stable": "sha256:" + "0" * 64}, id="an unknown revision"),
        pytest.param({"scope": {"tenant": "acme"}}, id="another scope"),
        pytest.param({"type": "Privacy"}, id="another type"),
        pytest.param({"role": "Floor"}, id="another role"),
        pytest.param({"recentStable": ["sha256:" + "0" * 64]}, id="an unknown one before"),
        pytest.param({"stable": "latest"}, id="no digest"),
    ],
)
@pytest.mark.parametrize("block", [pytest.param("92%", id="valid"), pytest.param("920%", id="not valid by now")])
async def test_a_route_that_cannot_be_right_is_corrected(site, change, block):
    await site.apply(policy("92%"))
    before = read_route(site.find(ROUTE_KIND))
    await site.apply(policy(block))
    site.cluster.edit(ROUTE_KIND, *KEY, lambda each: each["spec"].update(change | {"epoch": 7}))
    await site.reconcile()

    after = read_route(site.find(ROUTE_KIND))
    assert after.epoch > 7
    assert (after.route, after.scope, after.type, after.role) == (before.route, before.scope, before.type, before.role)
    assert site.cluster.events()[-1] == "RouteRestored"


@pytest.mark.parametrize("block", [pytest.param("80%", id="valid"), pytest.param("800%", id="not valid by now")])
async def test_a_route_that_was_deleted_comes_back_with_a_higher_epoch(site, block):
    await site.apply(policy("92%"))
    await site.apply(policy("80%"))
    before = site.route
    await site.apply(policy(block))
    site.cluster.remove(ROUTE_KIND, *KEY)
    await site.reconcile()

    assert (site.stable, site.route["recentStable"]) == (before["stable"], before["recentStable"])
    assert site.route["epoch"] > before["epoch"]
    assert site.route["reason"] == "Restored"
    assert len(site.history()) == 3


async def test_a_revision_that_was_deleted_is_written_again_with_its_rows(site):
    await site.apply(policy("92%"))
    await site.apply(policy("80%"))
    await site.apply(policy("92%"))
    rows = site.revision(site.stable)["status"]["activations"]
    site.cluster.remove(REVISION_KIND, SPACE, revision_name("community", site.stable))
    await site.reconcile()

    assert site.revision(site.stable)["status"]["activations"] == rows
    assert site.route["epoch"] == 3


async def test_a_revision_that_was_replaced_by_another_content_is_written_again(site):
    await site.apply(policy())
    original = site.revision(site.stable)
    forged = {**original, "metadata": {**original["metadata"]}, "spec": original["spec"] | {"content": "{}"}}
    site.cluster.remove(REVISION_KIND, SPACE, original["metadata"]["name"])
    site.cluster.put(forged)
    await site.reconcile()

    assert site.revision(site.stable)["spec"] == original["spec"]
    assert site.route["epoch"] == 1
    assert site.cluster.events()[-1] == "RevisionReplaced"


async def test_a_stable_revision_that_is_lost_for_good_gives_way_to_the_one_before(site):
    await site.apply(policy("92%"))
    first = site.stable
    await site.apply(policy("80%"))
    lost = site.stable
    await site.apply(policy("800%"))
    site.cluster.remove(REVISION_KIND, SPACE, revision_name("community", lost))
    await site.reconcile()

    assert site.stable == site.status["stable"]["digest"] == first


async def test_a_revision_without_its_label_is_labelled_again(site):
    await site.apply(policy())
    name = revision_name("community", site.stable)
    site.cluster.edit(REVISION_KIND, SPACE, name, lambda each: each["metadata"]["labels"].pop(POLICY_LABEL))
    await site.reconcile()

    assert site.find(REVISION_KIND, name)["metadata"]["labels"][POLICY_LABEL] == "community"
    assert site.route["epoch"] == 1


async def test_a_label_that_is_lost_comes_back_and_changes_nothing_of_what_is_in_force(site):
    await site.apply(policy("92%"))
    await site.apply(policy("80%"))
    before = site.route
    await site.apply(policy("800%"))
    name = revision_name("community", site.stable)
    site.cluster.edit(REVISION_KIND, SPACE, name, lambda each: each["metadata"]["labels"].pop(POLICY_LABEL))
    site.restart()
    await site.reconcile()

    assert site.route == before
    assert site.find(REVISION_KIND, name)["metadata"]["labels"][POLICY_LABEL] == "community"


async def test_a_status_that_was_altered_by_hand_is_put_right(site):
    before = await site.apply(policy())
    site.cluster.edit(POLICY_KIND, *KEY, lambda each: each["status"].update(conditions="?", history=[1, {}], stable=3))
    await site.reconcile()

    assert [each["type"] for each in site.status["conditions"]] == [each["type"] for each in before["conditions"]]
    assert site.history() == [(1, "Applied")]


# Deleting


async def test_the_last_policy_of_a_scope_goes_on_being_enforced_when_it_is_deleted(site):
    await site.apply(policy())
    before = site.find(ROUTE_KIND)
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()
    await site.reconcile()

    assert site.find(ROUTE_KIND) == before
    assert site.cluster.events().count("DeletionHeld") == 1
    (told,) = [each for each in site.cluster.actions if isinstance(each, Emit) and each.reason == "DeletionHeld"]
    assert f"annotate modroute community {ALLOW_DELETE_ANNOTATION}=true" in told.message
    assert told.target.kind == ROUTE_KIND


@pytest.mark.parametrize("by", ["the policy", "the route"])
async def test_by_an_annotation_it_may_go_and_its_history_stays(site, by):
    annotations = {ALLOW_DELETE_ANNOTATION: "true"} if by == "the policy" else None
    await site.apply(policy(annotations=annotations))
    stable = site.stable
    site.cluster.remove(POLICY_KIND, *KEY)
    if by == "the route":
        await site.reconcile()
        site.cluster.edit(
            ROUTE_KIND, *KEY, lambda each: each["metadata"].update(annotations={ALLOW_DELETE_ANNOTATION: "true"})
        )
    await site.reconcile()

    assert site.cluster.find(ROUTE_KIND, *KEY) is None
    assert [row["epoch"] for row in site.revision(stable)["status"]["activations"]] == [1]


async def test_an_annotation_that_is_taken_back_holds_again(site):
    await site.apply(policy(annotations={ALLOW_DELETE_ANNOTATION: "true"}))
    await site.apply(policy())
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()

    assert site.find(ROUTE_KIND)


async def test_a_floor_is_held_though_another_one_has_its_scope(site):
    await site.apply(policy(role="Floor"), policy(name="other", role="Floor"))
    await site.reconcile("other")
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()

    assert site.find(ROUTE_KIND)


async def test_a_policy_whose_scope_another_one_binds_goes_at_once(site):
    await site.apply(policy(), policy(name="other"))
    await site.reconcile("other")
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()

    assert site.cluster.find(ROUTE_KIND, *KEY) is None


async def test_a_route_that_was_held_goes_when_another_policy_binds_its_scope(site):
    await site.apply(policy())
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()
    site.cluster.put(policy(name="other"))
    outcome = await site.reconcile("other")
    await site.reconcile()

    assert KEY in outcome.affected
    assert site.cluster.find(ROUTE_KIND, *KEY) is None


@pytest.mark.parametrize("allowed", [pytest.param(True, id="its route went"), pytest.param(False, id="it was held")])
async def test_a_policy_that_is_applied_again_goes_on_with_its_history(site, allowed):
    annotations = {ALLOW_DELETE_ANNOTATION: "true"} if allowed else None
    await site.apply(policy("92%", annotations=annotations))
    await site.apply(policy("80%", annotations=annotations))
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()
    await site.apply(policy("70%"))

    epochs = [epoch for epoch, _ in site.history()]
    assert len(epochs) == 3
    assert epochs == sorted(set(epochs), reverse=True)
    assert site.history()[0][1] == "Applied"
    assert len(site.route["recentStable"]) == 2


async def test_a_policy_that_is_applied_again_and_is_not_valid_brings_nothing_back(site):
    await site.apply(policy(annotations={ALLOW_DELETE_ANNOTATION: "true"}))
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()
    await site.apply(policy("920%"))

    assert site.cluster.find(ROUTE_KIND, *KEY) is None


async def test_a_held_route_stays_as_it_is_when_what_is_applied_again_is_not_valid(site):
    await site.apply(policy())
    before = site.find(ROUTE_KIND)
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()
    await site.apply(policy("920%"))

    assert site.find(ROUTE_KIND) == before


async def test_the_epoch_of_a_route_that_was_lost_with_its_policy_is_not_used_again(site):
    await site.apply(policy("92%"))
    await site.apply(policy("80%"))
    lost = site.route["epoch"]
    site.cluster.remove(POLICY_KIND, *KEY)
    site.cluster.remove(ROUTE_KIND, *KEY)
    await site.apply(policy("70%"))

    assert site.route["epoch"] > lost


async def test_a_held_route_does_not_change_its_scope_by_a_policy_of_its_name(site):
    await site.apply(policy())
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()
    await site.apply(policy(scope={"tenant": "acme"}))

    assert "scope" not in site.route or not site.route["scope"]
    assert site.condition("Accepted") == ("False", "Invalid")
    assert "spec.scope: cannot be changed" in site.message("Accepted")


# Several policies


async def test_of_two_policies_of_one_scope_the_older_one_wins_and_the_other_says_so(site):
    await site.apply(policy(), policy(name="other"))
    await site.reconcile("other")

    assert site.condition("Ready") == ("True", "InForce")
    assert site.condition("Ready", "other") == ("False", "ScopeConflict")
    assert f"{SPACE}/community has the same type and scope and wins" in site.message("Ready", "other")
    assert site.condition("Accepted", "other") == ("True", "Valid")


async def test_who_loses_hears_of_it_when_the_winner_goes(site):
    await site.apply(policy(annotations={ALLOW_DELETE_ANNOTATION: "true"}), policy(name="other"))
    await site.reconcile("other")
    site.cluster.remove(POLICY_KIND, *KEY)
    outcome = await site.reconcile()
    await site.reconcile("other")

    assert outcome.affected == {(SPACE, "other")}
    assert site.condition("Ready", "other") == ("True", "InForce")


async def test_who_loses_hears_of_it_when_an_older_one_becomes_valid(site):
    await site.apply(policy("920%"), policy(name="other"))
    await site.reconcile("other")
    site.cluster.put(policy())
    outcome = await site.reconcile()
    await site.reconcile("other")

    assert outcome.affected == {(SPACE, "other")}
    assert site.condition("Ready", "other") == ("False", "ScopeConflict")


# Convergence


async def test_convergence_is_what_the_gateways_say(site):
    site.restart(gateways=FixedGateways(Acknowledged(total=2, current=1, stale=("gateway-b",))))
    await site.apply(policy())
    behind = site.condition("Converged"), site.condition("Ready"), site.status["convergence"]
    site.restart(gateways=FixedGateways(Acknowledged(total=2, current=2)))
    await site.reconcile()
    before = len(site.cluster.actions)
    await site.reconcile()

    assert behind == (
        ("False", "Behind"),
        ("True", "InForce"),
        {"total": 2, "current": 1, "stale": ["gateway-b"]},
    )
    assert site.condition("Converged") == ("True", "AllCurrent")
    assert site.status["convergence"]["convergedTime"]
    assert site.cluster.actions[before:] == []


async def test_where_there_are_no_gateways_none_is_waited_for(site):
    await site.apply(policy())

    assert site.condition("Converged") == ("True", "NoneKnown")
    assert site.status["convergence"] == {"total": 0, "current": 0}


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Acknowledged(has_looked=False), id="nobody is known yet"),
        pytest.param(Acknowledged(total=1, current=1, has_looked=False), id="all that are known have it"),
    ],
)
async def test_nothing_has_converged_before_the_gateways_were_looked_up(site, said):
    site.restart(gateways=FixedGateways(said))
    await site.apply(policy())

    assert site.condition("Converged") == ("False", "GatewaysUnknown")
    assert site.condition("Ready") == ("True", "InForce")
    assert "convergedTime" not in site.status["convergence"]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Acknowledged(has_looked=False), id="nobody is known yet"),
        pytest.param(Acknowledged(total=2, current=0, stale=("a", "b"), has_looked=False), id="nobody was asked yet"),
    ],
)
async def test_an_operator_that_starts_again_knows_since_when_what_is_routed_has_converged(site, said):
    all_current = FixedGateways(Acknowledged(total=2, current=2))
    site.restart(gateways=all_current)
    await site.apply(policy("92%"))
    since = site.status["convergence"]["convergedTime"]
    site.clock.now += timedelta(hours=1)
    site.restart(gateways=FixedGateways(said))
    await site.reconcile()
    meanwhile = site.status["convergence"]["convergedTime"]
    site.restart(gateways=all_current)
    await site.reconcile()
    after = site.status["convergence"]["convergedTime"]
    site.restart(gateways=FixedGateways(said))
    await site.apply(policy("80%"))

    assert (meanwhile, after) == (since, since)
    assert "convergedTime" not in site.status["convergence"], "nobody is known to have what is routed now"


# Pruning


async def test_old_revisions_go_and_never_those_that_may_be_needed(site):
    digests = []
    for number in range(8):
        await site.apply(policy(f"{90 - number}%", revisionHistoryLimit=2, rollout={"rollbackWindow": 1}))
        digests.append(site.stable)
        if number == 1:
            site.cluster.put(override_manifest(reject=[digests[0]]))

    kept = {each["spec"]["digest"] for each in site.cluster.all(REVISION_KIND)}
    assert kept == {digests[0], *digests[5:]}
    assert len(site.history()) == 8


async def test_the_lists_of_a_revision_go_with_it(site):
    for word in ("a", "b", "c"):
        await site.apply(config_map(word), with_list(revisionHistoryLimit=0, rollout={"rollbackWindow": 0}))

    assert [each["data"] for each in site.cluster.all("ConfigMap") if each.get("immutable")] == [{"entries": "c"}]


# Two writers


async def test_who_planned_on_an_older_route_is_refused(site):
    await site.apply(policy("92%"))
    site.cluster.is_lagging = True
    site.cluster.put(policy("80%"))
    site.cluster.catch_up()
    site.cluster.edit(ROUTE_KIND, *KEY, lambda each: each["spec"].update(epoch=5))

    with pytest.raises(Stale):
        await site.reconcile()
    site.cluster.catch_up()
    await site.reconcile()
    assert site.route["epoch"] == 6


async def test_a_kill_after_any_write_loses_nothing(site):
    """At each write of an edit, a deletion and a return, the operator is killed and started again."""
    for after in range(1, 8):
        other = Site()
        await other.apply(config_map("idiot"), with_list())
        await other.apply(config_map("moron"))
        other.cluster.put(config_map("idiot"))
        other.cluster.kill_after = after
        try:
            await other.reconcile()
        except Killed:
            other.restart()
        await other.reconcile()

        assert other.history() == [(3, "Returned"), (2, "Applied"), (1, "Applied")], after


@pytest.mark.parametrize("after", range(1, 7))
async def test_a_kill_before_the_policy_is_deleted_loses_no_row(site, after):
    await site.apply(policy("92%"))
    first = site.stable
    site.cluster.put(policy("80%"))
    site.cluster.kill_after = after
    try:
        await site.reconcile()
    except Killed:
        site.restart()
    site.cluster.kill_after = None
    site.cluster.remove(POLICY_KIND, *KEY)
    await site.reconcile()

    rows = site.revision(first).get("status", {}).get("activations", [])
    assert 1 in {site.route["epoch"], *(row["epoch"] for row in rows)}


async def test_an_event_that_is_lost_changes_nothing(site):
    def refuse(action: Action) -> None:
        if isinstance(action, Emit):
            raise Stale("Events are full")

    site.cluster.before_act = refuse
    await site.apply(policy())

    assert site.condition("Ready") == ("True", "InForce")


async def test_who_wrote_is_said_only_where_it_is_known(site):
    await site.apply(policy("92%"))
    unknown = dict(site.route)
    said = {"moderation.baleen.dev/by": "alice", "moderation.baleen.dev/commit": "3f2a"}
    await site.apply(policy("80%", annotations=said))

    assert "by" not in unknown
    assert (site.route["by"], site.route["commit"]) == ("for alice", "3f2a")
