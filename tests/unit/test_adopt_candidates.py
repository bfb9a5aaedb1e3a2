"""What becomes of a route with a candidate: it is tried out whole or not at all, and never at the stable one's cost."""

from dataclasses import replace
from datetime import timedelta

import pytest

from baleen_core.assignment import Exposure
from baleen_core.canonical import digest_of
from baleen_core.decision.snapshot import LoadedTrial, Standing
from baleen_core.policy.lists import read_list
from baleen_core.policy.schema import ListType, Revision
from baleen_core.records import Cohort, Context
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.ports import Adopted
from baleen_sidecar.usecases.adopt_routes import RETRY
from publishing import Publication, publication, rejecting
from replicas import KEY, NOON, NOTHING, SPACE, Replica, altered, content, edits, pinning, texts_of, without
from replicas import executor as executor
from replicas import replica as replica

RULE = {"name": "toxic", "when": "toxicity.toxic > 0.5", "action": "Block"}
PERCENT_5 = Exposure(weight_basis_points=500)
BEFORE = edits("92%", epoch=1)
ROLLOUT = edits("92%", epoch=2, candidate=content("80%"), exposure=PERCENT_5)
STABLE = ROLLOUT.route.route.stable
CANDIDATE = ROLLOUT.revisions[-1][1].digest
NAME = ROLLOUT.route.rollout


def trial_of(replica: Replica) -> LoadedTrial | None:
    (policy,) = replica.snapshot.policies
    return policy.trial


def tried_out(replica: Replica) -> str | None:
    trial = trial_of(replica)
    return trial and trial.compiled.revision.digest


def at(published: Publication, exposure: Exposure, *, epoch: int) -> PublishedPolicy:
    """Publish the same with another exposure of the candidate."""
    routed = published.route.route.candidate
    route = replace(published.route.route, candidate=routed and replace(routed, exposure=exposure))
    return replace(published.policy, route=replace(published.route, epoch=epoch, route=route))


def over(published: Publication, *, epoch: int) -> PublishedPolicy:
    """Publish the end of a rollout: stable is what it was."""
    route = replace(published.route.route, candidate=None)
    return replace(published.policy, route=replace(published.route, epoch=epoch, route=route))


async def test_a_candidate_is_loaded_beside_the_stable_revision_which_stays_in_force(replica):
    assert await replica.adopt(ROLLOUT.policy) is None

    assert (replica.status.digest, replica.status.version, replica.status.epoch) == (STABLE, "v1", 2)
    assert (replica.status.standing, replica.status.problems) == (Standing.CURRENT, ())
    assert replica.adopted == Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)
    trial = trial_of(replica)
    assert (trial.compiled.revision.digest, trial.compiled.version) == (CANDIDATE, "v2")
    assert trial.compiled.cohort is Cohort.CANDIDATE
    assert (trial.exposure, trial.assignment) == (PERCENT_5, ROLLOUT.route.route.candidate.assignment)
    in_force = replica.snapshot.in_force(Context(surface="community"))
    assert [policy.revision.digest for policy in in_force.winners] == [STABLE]
    assert [stable.revision.digest for stable, _ in in_force.rollouts] == [STABLE]
    assert await replica.reasons() == ["Applied"], "a candidate is not in force"


def _not_json(policy: PublishedPolicy) -> PublishedPolicy:
    digest = digest_of(b"{}")
    routed = replace(policy.route.route.candidate, digest=digest)
    route = replace(policy.route, route=replace(policy.route.route, candidate=routed))
    return replace(policy, route=route, revisions={**policy.revisions, digest: Revision(digest=digest, content="{}")})


def _from(other: Publication) -> PublishedPolicy:
    """Route to a candidate that was made for another use."""
    digest = other.revisions[-1][1].digest
    routed = replace(ROLLOUT.route.route.candidate, digest=digest)
    route = replace(ROLLOUT.route, route=replace(ROLLOUT.route.route, candidate=routed))
    return replace(ROLLOUT.policy, route=route, revisions={**ROLLOUT.policy.revisions, **other.policy.revisions})


NOT_WHOLE = [
    pytest.param(without(ROLLOUT.policy, CANDIDATE), "is not here", id="missing"),
    pytest.param(altered(ROLLOUT.policy, CANDIDATE), "was altered: content: expected sha256:", id="altered"),
    pytest.param(_not_json(ROLLOUT.policy), "schemaVersion: is required", id="no policy"),
    pytest.param(
        _from(publication(SPACE, "community", content("80%"), scope={"surface": "kids"})),
        "ModerationRoute: spec.scope: is Scope(",
        id="for another scope",
    ),
    pytest.param(
        _from(edits("92%", candidate=content("80%", enforcement="DryRun"))),
        "ModerationRoute: spec.candidate: its enforcement is DryRun, and that of the stable revision is Enforce",
        id="without effect",
    ),
]


@pytest.mark.parametrize(("policy", "why"), NOT_WHOLE)
async def test_a_candidate_that_is_not_whole_leaves_the_epoch_before(replica, policy, why):
    await replica.adopt(BEFORE.policy)
    await replica.adopt(policy)

    assert (replica.adopted.epoch, replica.adopted.digest, replica.adopted.candidate) == (1, STABLE, "")
    assert replica.adopted.pending.startswith("epoch 2 is not whole: revision sha256:")
    assert why in replica.problems
    assert trial_of(replica) is None


async def test_a_candidate_that_was_given_up_is_gone_though_the_next_one_is_not_here_yet(replica):
    await replica.adopt(ROLLOUT.policy)
    fix = edits("92%", epoch=3, candidate=content("70%"), exposure=PERCENT_5)
    await replica.adopt(without(fix.policy, fix.route.route.candidate.digest))

    assert (replica.adopted.epoch, replica.adopted.digest, replica.adopted.candidate) == (2, STABLE, "")
    assert "epoch 3 is not whole" in replica.adopted.pending
    assert trial_of(replica) is None

    await replica.restart()
    assert trial_of(replica) is None


@pytest.mark.parametrize(("policy", "why"), NOT_WHOLE)
async def test_a_candidate_that_is_not_whole_leaves_nobody_without_a_policy(replica, policy, why):
    await replica.adopt(policy)

    assert (replica.adopted.epoch, replica.adopted.digest) == (0, STABLE)
    assert why in replica.problems
    assert (replica.status.version, trial_of(replica)) == ("v1", None)
    assert replica.snapshot.in_force(Context(surface="community")).winners

    await replica.restart()
    assert replica.in_force == {"community": STABLE}
    await replica.adopt(ROLLOUT.policy)
    assert replica.adopted == Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)


async def test_a_stable_revision_that_comes_before_its_candidate_acts_where_nothing_did(replica):
    await replica.adopt(without(ROLLOUT.policy, STABLE, CANDIDATE))
    assert (replica.adopted.epoch, replica.in_force) == (0, {})
    await replica.adopt(without(ROLLOUT.policy, CANDIDATE))
    assert (replica.adopted.epoch, replica.in_force) == (0, {"community": STABLE})

    await replica.adopt(ROLLOUT.policy)
    assert replica.adopted == Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)


async def test_a_rollout_whose_stable_revision_is_not_whole_is_not_adopted_either(replica):
    await replica.adopt(BEFORE.policy)
    two = edits("92%", "85%", epoch=2, candidate=content("80%"))
    await replica.adopt(without(two.policy, two.route.route.stable))

    assert (replica.adopted.epoch, replica.adopted.digest, tried_out(replica)) == (1, STABLE, None)


async def test_a_candidate_that_comes_later_makes_its_epoch_whole(replica):
    await replica.adopt(BEFORE.policy)
    await replica.adopt(without(ROLLOUT.policy, CANDIDATE))
    await replica.adopt(ROLLOUT.policy)

    assert replica.adopted == Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)
    assert replica.status.problems == ()


def with_a_list(terms: str, **more: object) -> Publication:
    source = {"type": "ConfigMap", "name": "terms", "key": "terms.txt"}
    lists = [{"name": "slurs", "type": "Terms", "action": "Block", "source": source}]
    read = {"slurs": read_list(ListType.TERMS, terms)}
    candidate = {**content("80%"), "lists": lists, **more}
    scope = {"surface": "community"}
    return publication(SPACE, "community", content(), epoch=2, scope=scope, candidate=candidate, lists=read)


async def test_a_candidates_lists_have_to_be_here_too(replica):
    rollout = with_a_list("idiot")
    await replica.adopt(BEFORE.policy)
    await replica.adopt(rollout.policy)
    assert (replica.adopted.epoch, tried_out(replica)) == (1, None)
    assert "list slurs: sha256:" in replica.problems

    replica.source.lists = texts_of(rollout)
    assert await replica.routes.fetch_lists()
    await replica.adopt(rollout.policy)

    assert (replica.adopted.epoch, replica.problems) == (2, "")
    in_force = replica.snapshot.in_force(Context(surface="community"))
    assert {each.digest for each in in_force.lists} == texts_of(rollout).keys()


async def test_lists_of_a_candidate_are_kept_while_it_is_tried_out(replica):
    rollout = with_a_list("idiot", rules=[RULE])
    replica.source.lists = texts_of(rollout)
    await replica.adopt(rollout.policy)
    await replica.routes.fetch_lists()
    await replica.adopt(rollout.policy)
    before = trial_of(replica)
    replica.store.reads.clear()
    replica.signals = frozenset({"toxicity.toxic"})
    await replica.adopt(rollout.policy)

    assert trial_of(replica).compiled is not before.compiled
    assert trial_of(replica).lists == before.lists
    assert set(replica.store.reads) == {rollout.route.route.candidate.digest}, "the list was compiled already"


async def test_another_weight_is_adopted_without_anything_being_loaded_again(replica):
    await replica.adopt(ROLLOUT.policy)
    (before,) = replica.snapshot.policies
    replica.store.reads.clear()
    await replica.adopt(at(ROLLOUT, Exposure(weight_basis_points=5000), epoch=3))

    (after,) = replica.snapshot.policies
    assert (after.compiled, after.trial.compiled) == (before.compiled, before.trial.compiled)
    assert after.trial.compiled is before.trial.compiled
    assert after.trial.exposure == Exposure(weight_basis_points=5000)
    assert replica.adopted == Adopted(epoch=3, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=5000)
    assert replica.store.reads == []


async def test_a_promotion_makes_the_candidate_stable(replica):
    await replica.adopt(ROLLOUT.policy)
    promoted = edits("92%", "80%", epoch=3)
    await replica.adopt(promoted.policy)

    assert replica.adopted == Adopted(epoch=3, digest=CANDIDATE)
    (policy,) = replica.snapshot.policies
    assert (policy.compiled.cohort, policy.compiled.version, policy.trial) == (Cohort.STABLE, "v2", None)
    assert await replica.reasons() == ["Applied", "Applied"]


async def test_the_end_of_a_rollout_ends_the_trial(replica):
    await replica.adopt(ROLLOUT.policy)
    await replica.adopt(over(ROLLOUT, epoch=3))

    assert replica.adopted == Adopted(epoch=3, digest=STABLE)
    assert trial_of(replica) is None


@pytest.mark.parametrize(
    ("override", "in_force"),
    [
        pytest.param(rejecting(CANDIDATE), STABLE, id="the candidate is rejected"),
        pytest.param(pinning(STABLE), STABLE, id="the stable revision is pinned"),
        pytest.param(pinning(CANDIDATE), CANDIDATE, id="the candidate is pinned"),
        pytest.param(rejecting(STABLE), None, id="the stable revision is rejected"),
    ],
)
async def test_an_override_ends_the_trial_at_once_and_without_it_the_trial_goes_on(replica, override, in_force):
    await replica.adopt(ROLLOUT.policy)
    await replica.adopt(replace(ROLLOUT.policy, override=override))

    assert (replica.status.digest, replica.adopted.candidate, replica.adopted.epoch) == (in_force, "", 2)
    assert all(policy.trial is None for policy in replica.snapshot.policies)
    assert all(policy.compiled.cohort is Cohort.STABLE for policy in replica.snapshot.policies)

    await replica.adopt(ROLLOUT.policy)
    assert replica.adopted == Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)


async def test_beside_a_revision_that_was_stable_before_nothing_is_tried_out(replica):
    two = edits("92%", "85%", epoch=2, candidate=content("80%"))
    await replica.adopt(replace(two.policy, override=rejecting(two.route.route.stable)))

    assert (replica.status.digest, trial_of(replica)) == (STABLE, None)


async def test_an_override_of_other_revisions_leaves_the_trial(replica):
    await replica.adopt(replace(ROLLOUT.policy, override=rejecting(NOTHING)))

    assert tried_out(replica) == CANDIDATE


async def test_the_trial_goes_on_once_a_pins_time_has_passed(replica):
    pinned = replace(ROLLOUT.policy, override=pinning(STABLE, until=NOON + timedelta(minutes=1)))
    assert await replica.adopt(pinned) == 60
    assert trial_of(replica) is None
    replica.wait(60)
    await replica.adopt(pinned)

    assert tried_out(replica) == CANDIDATE


@pytest.mark.parametrize(
    ("override", "candidate"),
    [
        pytest.param(None, CANDIDATE, id="there was a trial"),
        pytest.param(rejecting(CANDIDATE), None, id="there was none"),
        pytest.param(pinning(STABLE, until=NOON + timedelta(minutes=1)), None, id="a pin that ends meanwhile"),
    ],
)
async def test_an_override_that_cannot_be_read_changes_nothing_of_a_trial(replica, override, candidate):
    await replica.adopt(replace(ROLLOUT.policy, override=override))
    unreadable = replace(at(ROLLOUT, Exposure(weight_basis_points=5000), epoch=3), override_problem="spec.rejct: odd")
    for _ in range(2):
        await replica.adopt(unreadable)
        assert (replica.adopted.epoch, replica.adopted.digest, tried_out(replica)) == (2, STABLE, candidate)
        replica.wait(120)
    await replica.restart()

    assert (replica.adopted.epoch, replica.adopted.digest, tried_out(replica)) == (2, STABLE, candidate)
    if candidate:
        assert trial_of(replica).exposure == PERCENT_5


async def test_nothing_is_tried_out_anew_while_an_override_cannot_be_read(replica):
    await replica.adopt(replace(ROLLOUT.policy, override_problem="spec.rejct: odd"))
    assert (replica.adopted.digest, tried_out(replica)) == (STABLE, None)
    await replica.adopt(ROLLOUT.policy)

    assert replica.adopted == Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)


async def test_a_candidate_that_was_given_up_does_not_go_on_because_an_override_cannot_be_read(replica):
    await replica.adopt(ROLLOUT.policy)
    promoted = replace(edits("92%", "80%", epoch=3).policy, override_problem="spec.rejct: odd")
    await replica.adopt(promoted)
    assert (replica.status.digest, tried_out(replica)) == (STABLE, CANDIDATE), "nothing changes"
    await replica.adopt(replace(over(ROLLOUT, epoch=4), override_problem="spec.rejct: odd"))
    assert (replica.adopted.epoch, replica.status.digest, tried_out(replica)) == (2, STABLE, None)

    await replica.adopt(over(ROLLOUT, epoch=4))
    assert replica.adopted == Adopted(epoch=4, digest=STABLE)


async def test_after_a_restart_the_candidate_is_tried_out_from_the_store_alone(replica):
    await replica.adopt(ROLLOUT.policy)
    before, adopted, kept = trial_of(replica), replica.adopted, replica.routes.kept()
    await replica.restart()

    after = trial_of(replica)
    assert (replica.adopted, replica.routes.kept()) == (adopted, kept)
    assert after == before
    assert after.compiled.version == "v2"


async def test_a_candidate_that_is_lost_costs_a_restart_nothing_but_the_trial(replica):
    await replica.adopt(ROLLOUT.policy)
    replica.store.lose(CANDIDATE)
    await replica.restart()

    assert (replica.adopted.epoch, replica.adopted.digest, trial_of(replica)) == (2, STABLE, None)
    assert "is not here" in replica.adopted.pending
    assert len(replica.status.problems) == 1, "it is said once"

    await replica.adopt(ROLLOUT.policy)
    assert replica.adopted == Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)


RULED = edits("92%", epoch=2, candidate=content("80%", rules=[RULE]), exposure=PERCENT_5)


async def test_a_candidates_rules_are_compiled_again_when_the_models_offer_other_signals(replica):
    await replica.adopt(RULED.policy)
    before, (policy,) = trial_of(replica), replica.snapshot.policies
    replica.signals = frozenset({"toxicity.toxic"})
    await replica.adopt(RULED.policy)

    (after,) = replica.snapshot.policies
    assert after.trial.compiled is not before.compiled
    assert after.compiled is policy.compiled, "the stable revision has no rules"
    assert after.trial.compiled.cohort is Cohort.CANDIDATE
    assert replica.adopted.pending == ""


@pytest.mark.parametrize("stable", [pytest.param({}, id="no rules"), pytest.param({"rules": [RULE]}, id="with rules")])
async def test_a_candidate_that_breaks_later_ends_its_trial_and_nothing_else(replica, stable):
    rollout = publication(
        SPACE,
        "community",
        content(**stable),
        epoch=2,
        scope={"surface": "community"},
        candidate=content("80%", rules=[RULE]),
    )
    digest, broken = rollout.route.route.stable, rollout.route.route.candidate.digest
    offered = without(rollout.policy, broken)
    await replica.adopt(rollout.policy)
    await replica.adopt(offered)
    assert tried_out(replica) == broken, "what was verified once is used from the store"
    replica.store.alter(broken)
    replica.signals = frozenset({"toxicity.toxic"})
    again = await replica.adopt(offered)

    assert (replica.adopted.epoch, replica.adopted.digest, replica.adopted.candidate) == (2, digest, "")
    assert replica.adopted.pending.startswith("candidate sha256:")
    assert (replica.status.standing, trial_of(replica)) == (Standing.CURRENT, None)
    assert again == RETRY.first_seconds

    replica.wait(again)
    await replica.adopt(rollout.policy)
    assert replica.adopted == Adopted(epoch=2, digest=digest, candidate=broken, rollout=rollout.route.rollout)


async def test_looking_again_at_the_same_keeps_the_snapshot(replica):
    await replica.adopt(ROLLOUT.policy)
    before = replica.snapshot
    await replica.adopt(replace(ROLLOUT.policy))
    await replica.adopt(replace(ROLLOUT.policy, versions={**ROLLOUT.policy.versions, NOTHING: "v0"}))

    assert replica.snapshot is before
    assert replica.routes.adopted() == {
        KEY: Adopted(epoch=2, digest=STABLE, candidate=CANDIDATE, rollout=NAME, weight=500)
    }
