"""What becomes of what a cluster publishes: an epoch acts as a whole or not at all, and an override at once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.assignment import FULL, Assignment, Exposure
from baleen_core.canonical import digest_of
from baleen_core.decision.snapshot import LoadedPolicy, PolicySnapshot, PolicyStatus, Standing
from baleen_core.errors import Problem, UpstreamError
from baleen_core.policy.in_force import Override, Route, RoutedCandidate, candidate_in_force
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import ListType, Revision, Role, Scope
from baleen_core.records import Cohort, Context
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.ports import Activation, Adopted, Key, Published
from baleen_sidecar.testing import MemoryPolicySource
from baleen_sidecar.usecases.adopt_routes import MAX_NAMED, MAX_ROWS_AT_ONCE, RETRY, UNREAD
from publishing import Publication, publication, rejecting
from replicas import (
    KEY,
    NOON,
    NOTHING,
    SPACE,
    Replica,
    Store,
    altered,
    content,
    edits,
    pinning,
    texts_of,
    with_lists,
    without,
)
from replicas import executor as executor
from replicas import replica as replica

ONE = edits("92%")
TWO = edits("92%", "80%")
FIRST, SECOND = TWO.route.route.recent_stable[0], TWO.route.route.stable


async def test_a_whole_epoch_is_in_force_acknowledged_and_on_record(replica):
    again = await replica.adopt(TWO.policy)

    assert replica.status == PolicyStatus(
        namespace=SPACE, name="community", version="v2", digest=SECOND, standing=Standing.CURRENT, epoch=2
    )
    assert replica.in_force == {"community": SECOND}
    assert replica.routes.adopted() == {KEY: Adopted(epoch=2, digest=SECOND)}
    assert await replica.store.history("trust-safety/community") == [
        Activation(
            policy="trust-safety/community",
            digest=SECOND,
            version="v2",
            time="2026-01-31T12:00:00.000+00:00",
            reason="Applied",
        )
    ]
    assert again is None


async def test_an_edit_takes_the_place_of_what_was_in_force(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt(TWO.policy)

    assert (replica.status.digest, replica.status.epoch, replica.status.standing) == (SECOND, 2, Standing.CURRENT)
    assert await replica.reasons() == ["Applied", "Applied"]


def _not_json(policy: PublishedPolicy) -> PublishedPolicy:
    """Route to content that is what its digest names, and no policy."""
    digest = digest_of(b"{}")
    route = replace(policy.route, route=replace(policy.route.route, stable=digest))
    return replace(policy, route=route, revisions={**policy.revisions, digest: Revision(digest=digest, content="{}")})


NOT_WHOLE = [
    pytest.param(lambda policy: without(policy, SECOND), "is not here", id="missing"),
    pytest.param(lambda policy: altered(policy, SECOND), "was altered: content: expected sha256:", id="altered"),
    pytest.param(_not_json, "schemaVersion: is required", id="no policy"),
    pytest.param(
        lambda policy: replace(policy, route=replace(policy.route, type="Privacy")),
        "ModerationRoute: spec.type: is 'Privacy'; the revision is for 'Moderation'",
        id="for another type",
    ),
    pytest.param(
        lambda policy: replace(policy, route=replace(policy.route, role=Role.FLOOR)),
        "ModerationRoute: spec.role: is <Role.FLOOR",
        id="for another role",
    ),
    pytest.param(
        lambda policy: replace(policy, route=replace(policy.route, scope=Scope(tenant="acme"))),
        "ModerationRoute: spec.scope: is Scope(tenant='acme'",
        id="for another scope",
    ),
]


@pytest.mark.parametrize(("spoil", "why"), NOT_WHOLE)
async def test_an_epoch_that_is_not_whole_leaves_the_one_before_and_says_why(replica, spoil, why):
    await replica.adopt(ONE.policy)
    await replica.adopt(spoil(TWO.policy))

    assert (replica.status.digest, replica.status.epoch) == (FIRST, 1)
    assert replica.status.standing is Standing.LAST_GOOD
    assert (replica.adopted.epoch, replica.adopted.digest) == (1, FIRST)
    assert replica.adopted.pending.startswith("epoch 2 is not whole: revision sha256:")
    assert why in replica.problems
    assert await replica.reasons() == ["Applied"]


@pytest.mark.parametrize(("spoil", "why"), NOT_WHOLE)
async def test_without_an_epoch_before_one_that_is_not_whole_puts_nothing_in_force(replica, spoil, why):
    await replica.adopt(spoil(TWO.policy))

    assert (replica.status.digest, replica.status.epoch, replica.status.standing) == (None, 0, Standing.NOTHING)
    assert (replica.adopted.epoch, replica.adopted.digest) == (0, "")
    assert why in replica.problems
    assert not replica.snapshot.in_force(Context(surface="community")).winners
    assert await replica.reasons() == []


@pytest.mark.parametrize(
    "place",
    [
        pytest.param({"type": "Privacy"}, id="type"),
        pytest.param({"role": Role.FLOOR}, id="role"),
        pytest.param({"scope": Scope(tenant="acme")}, id="scope"),
    ],
)
async def test_a_route_cannot_move_the_revision_that_is_in_force_to_another_place(replica, place):
    await replica.adopt(ONE.policy)
    await replica.adopt(replace(ONE.policy, route=replace(ONE.route, epoch=2, **place)))

    assert (replica.status.digest, replica.status.epoch) == (FIRST, 1)
    assert "the revision is for" in replica.adopted.pending


async def test_a_route_to_a_revision_of_another_place_does_not_count_either_while_the_revision_is_rejected(replica):
    await replica.adopt(ONE.policy)
    misplaced = replace(TWO.policy, route=replace(TWO.route, scope=Scope(tenant="acme")))
    await replica.adopt(replace(misplaced, override=rejecting(SECOND)))

    assert (replica.status.digest, replica.status.epoch) == (FIRST, 1)
    assert "the revision is for" in replica.adopted.pending


async def test_an_override_of_other_revisions_does_not_hide_that_an_epoch_is_not_whole(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt(replace(without(TWO.policy, SECOND), override=rejecting(NOTHING)))

    assert (replica.status.digest, replica.status.standing) == (FIRST, Standing.LAST_GOOD)


async def test_a_policy_that_was_made_anew_for_another_scope_takes_the_place_of_the_old_one(replica):
    await replica.adopt(ONE.policy)
    anew = publication(SPACE, "community", content(), epoch=2, scope={"tenant": "acme"})
    await replica.adopt(anew.policy)

    assert (replica.status.epoch, replica.status.problems) == (2, ())
    assert not replica.snapshot.in_force(Context(surface="community")).winners
    assert replica.snapshot.in_force(Context(tenant="acme")).winners


async def test_a_revision_that_comes_later_makes_its_epoch_whole(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt(without(TWO.policy, SECOND))
    await replica.adopt(TWO.policy)

    assert replica.adopted == Adopted(epoch=2, digest=SECOND)
    assert replica.status.problems == ()


async def test_a_revision_that_was_in_force_here_is_used_from_the_store_when_it_is_offered_no_more(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt(TWO.policy)
    back = edits("80%", "92%", epoch=3)
    await replica.adopt(without(back.policy, FIRST))

    assert replica.adopted == Adopted(epoch=3, digest=FIRST)


async def test_one_policy_that_is_not_whole_keeps_no_other_from_being_adopted(replica):
    other = edits("70%", name="other")
    await replica.adopt(without(ONE.policy, FIRST), other.policy)

    assert replica.in_force == {"other": other.route.route.stable}


async def test_a_list_that_is_lacking_is_asked_for_and_its_epoch_adopted_once_it_comes(replica):
    listed = with_lists("idiot", "moron", epoch=2)
    first, second = texts_of(listed)
    replica.source.lists = {first: texts_of(listed)[first]}
    await replica.adopt(listed.policy)

    assert replica.routes.lacks_lists
    assert (replica.adopted.epoch, replica.status.standing) == (0, Standing.NOTHING)
    assert f"list list-0: {first} is not here; list list-1: {second} is not here" in replica.adopted.pending

    assert await replica.routes.fetch_lists()
    await replica.adopt(listed.policy)

    assert f"list list-1: {second} is not here" in replica.adopted.pending
    assert first not in replica.adopted.pending

    replica.source.lists = texts_of(listed)
    assert await replica.routes.fetch_lists()
    await replica.adopt(listed.policy)

    assert replica.adopted == Adopted(epoch=2, digest=listed.route.route.stable)
    assert not replica.routes.lacks_lists


async def test_while_a_list_is_lacking_the_epoch_before_is_in_force(replica):
    before, listed = with_lists("idiot"), with_lists("moron", epoch=2)
    replica.source.lists = texts_of(before)
    await replica.adopt(before.policy)
    await replica.routes.fetch_lists()
    await replica.adopt(before.policy)
    await replica.adopt(listed.policy)

    assert (replica.adopted.epoch, replica.status.digest) == (1, before.route.route.stable)
    assert "is not here" in replica.adopted.pending


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda source, digest: source.lists.clear(), id="not there"),
        pytest.param(lambda source, digest: source.lists.update({digest: "another text"}), id="altered"),
        pytest.param(lambda source, digest: source.lose("gone"), id="not to be read"),
    ],
)
async def test_a_list_that_cannot_be_had_is_asked_for_again_after_a_while(replica, fail):
    listed = with_lists("idiot")
    (digest,) = replica.source.lists = texts_of(listed)
    fail(replica.source, digest)
    again = await replica.adopt(listed.policy)

    assert not await replica.routes.fetch_lists()
    assert not replica.routes.lacks_lists

    await replica.adopt(listed.policy)
    assert not replica.routes.lacks_lists

    replica.wait(again)
    await replica.adopt(listed.policy)
    assert replica.routes.lacks_lists


async def test_what_is_lacking_of_a_revision_that_is_pinned_too_is_said_once(replica):
    listed = with_lists("idiot")
    stable = listed.route.route.stable
    await replica.adopt(replace(listed.policy, override=pinning(stable)))

    assert (len(replica.status.problems), replica.status.digest) == (1, None)


async def test_the_lists_that_are_lacking_are_each_asked_for_once(replica):
    asked: list[str] = []

    class Source(MemoryPolicySource):
        async def read_list(self, namespace: str, digest: str, type: ListType) -> str | None:
            asked.append(digest)
            if len(asked) == 1:
                raise UpstreamError("gone")
            return await super().read_list(namespace, digest, type)

    several = [with_lists("idiot", name=name, rules=[]) for name in ("a", "b")] + [with_lists("moron", name="c")]
    replica.source = Source(lists=texts_of(*several))
    replica.begin()
    await replica.adopt(*(each.policy for each in several))

    assert await replica.routes.fetch_lists()
    assert sorted(asked) == sorted(texts_of(*several))


async def test_a_list_that_was_kept_is_not_asked_for_after_a_restart(replica):
    listed = with_lists("idiot")
    replica.source.lists = texts_of(listed)
    await replica.adopt(listed.policy)
    await replica.routes.fetch_lists()
    await replica.adopt(listed.policy)
    replica.source.lists = {}
    await replica.restart()
    await replica.adopt(listed.policy)

    assert not replica.routes.lacks_lists
    assert replica.adopted == Adopted(epoch=1, digest=listed.route.route.stable)


async def test_a_revision_that_is_rejected_has_its_lists_all_the_same_before_its_epoch_counts(replica):
    listed = with_lists("idiot", epoch=2)
    stable = listed.route.route.stable
    rejected = replace(listed.policy, override=rejecting(stable))
    replica.source.lists = texts_of(listed)
    await replica.adopt(rejected)
    assert "is not here" in replica.adopted.pending

    await replica.routes.fetch_lists()
    await replica.adopt(rejected)

    assert replica.adopted == Adopted(epoch=2, digest="")
    assert replica.status.standing is Standing.NOTHING

    await replica.adopt(listed.policy)
    assert replica.adopted == Adopted(epoch=2, digest=stable)


async def test_adopting_the_same_again_is_the_same_and_costs_nothing(replica):
    listed = with_lists("idiot", name="listed")
    replica.source.lists = texts_of(listed)
    everything = [TWO.policy, listed.policy, without(edits("70%", name="broken").policy, NOTHING)]
    await replica.adopt(*everything)
    await replica.routes.fetch_lists()
    await replica.adopt(*everything)
    before, adopted, kept = replica.snapshot, replica.routes.adopted(), replica.routes.kept()
    replica.store.reads.clear()
    await replica.adopt(*(replace(each, revisions=dict(each.revisions)) for each in everything))

    assert replica.snapshot is before
    assert (replica.routes.adopted(), replica.routes.kept()) == (adopted, kept)
    assert replica.store.reads == []
    assert await replica.reasons() == ["Applied"]


async def test_a_change_of_one_policy_loads_no_other(replica):
    others = [edits("70%", name=f"policy-{number}").policy for number in range(20)]
    await replica.adopt(ONE.policy, *others)
    before = {each.candidate.name: each for each in replica.snapshot.policies}
    replica.store.reads.clear()
    await replica.adopt(TWO.policy, *others)

    assert set(replica.store.reads) == {SECOND}
    assert [each.candidate.name for each in replica.snapshot.policies if each is not before[each.candidate.name]] == [
        "community"
    ]


async def test_an_epoch_that_names_the_same_revision_is_adopted_without_loading_it_again(replica):
    await replica.adopt(TWO.policy)
    loaded = replica.snapshot.policies
    replica.store.reads.clear()
    route = replace(TWO.route, epoch=3, reason="Returned", route=Route(stable=SECOND))
    await replica.adopt(replace(TWO.policy, route=route))

    assert replica.adopted == Adopted(epoch=3, digest=SECOND)
    assert replica.snapshot.policies[0] is loaded[0]
    assert replica.store.reads == []


async def test_an_edit_with_the_same_list_does_not_read_the_list_again(replica):
    listed, edited = with_lists("idiot"), with_lists("idiot", parameters={"limit": "3"}, epoch=2)
    replica.source.lists = texts_of(listed)
    await replica.adopt(listed.policy)
    await replica.routes.fetch_lists()
    await replica.adopt(listed.policy)
    replica.store.reads.clear()
    await replica.adopt(edited.policy)

    assert replica.adopted == Adopted(epoch=2, digest=edited.route.route.stable)
    assert set(replica.store.reads) == {edited.route.route.stable}


async def test_a_revision_that_was_verified_and_is_gone_when_it_is_needed_is_lacking_until_it_comes_back(replica):
    await replica.adopt(replace(TWO.policy, override=rejecting(SECOND)))
    replica.store.lose(SECOND)
    await replica.adopt(without(TWO.policy, SECOND))

    assert (replica.status.digest, replica.status.standing) == (FIRST, Standing.LAST_GOOD)
    assert "cannot be used" in replica.adopted.pending

    await replica.adopt(TWO.policy)
    assert replica.adopted == Adopted(epoch=2, digest=SECOND)


async def test_an_override_that_changes_has_nothing_verified_again(replica):
    three = edits("92%", "80%", "70%")
    await replica.adopt(replace(three.policy, override=rejecting(three.route.route.stable)))
    replica.store.reads.clear()
    await replica.adopt(replace(three.policy, override=rejecting(three.route.route.stable, SECOND)))

    assert set(replica.store.reads) == {FIRST}


async def test_a_version_that_is_given_later_is_shown(replica):
    await replica.adopt(replace(ONE.policy, versions={}, route=replace(ONE.route, version="")))
    assert replica.status.version == ""

    await replica.adopt(ONE.policy)
    assert replica.status.version == "v1"


async def test_rules_are_compiled_again_when_the_signals_of_the_models_change_and_nothing_else_is(replica):
    rule = {"name": "gore", "when": "image_safety.gore > 0.5", "action": "Review"}
    ruled = publication(SPACE, "community", content(rules=[rule]))
    plain = edits("70%", name="plain")
    await replica.adopt(ruled.policy, plain.policy)
    before = {each.candidate.name: each for each in replica.snapshot.policies}
    replica.signals = frozenset({"image-safety.gore"})
    await replica.adopt(ruled.policy, plain.policy)
    after = {each.candidate.name: each for each in replica.snapshot.policies}

    assert after["community"] is not before["community"]
    assert after["plain"] is before["plain"]


async def test_a_rejected_revision_gives_way_to_the_one_before_it(replica):
    await replica.adopt(TWO.policy)
    await replica.adopt(replace(TWO.policy, override=rejecting(SECOND)))

    assert (replica.status.digest, replica.status.version, replica.status.standing) == (
        FIRST,
        "v1",
        Standing.OVERRIDDEN,
    )
    assert replica.adopted == Adopted(epoch=2, digest=FIRST)
    assert await replica.reasons() == ["RolledBack", "Applied"]


async def test_the_next_newest_that_can_be_used_takes_the_place_of_one_that_is_rejected(replica):
    three = edits("92%", "80%", "70%")
    stable, before, oldest = three.route.route.stable, *three.route.route.recent_stable
    await replica.adopt(replace(without(three.policy, before), override=rejecting(stable)))

    assert replica.status.digest == oldest
    assert f"revision {before[:17]} cannot be used: revision {before} is not here" in replica.problems
    assert replica.adopted == Adopted(epoch=3, digest=oldest)


async def test_with_everything_rejected_nothing_is_in_force(replica):
    await replica.adopt(TWO.policy)
    await replica.adopt(replace(TWO.policy, override=rejecting(FIRST, SECOND)))

    assert (replica.status.digest, replica.status.standing) == (None, Standing.NOTHING)
    assert not replica.snapshot.policies


async def test_an_edit_after_a_rejection_is_adopted_as_usual(replica):
    await replica.adopt(replace(ONE.policy, override=rejecting(FIRST)))
    await replica.adopt(replace(TWO.policy, override=rejecting(FIRST)))

    assert (replica.status.digest, replica.status.standing) == (SECOND, Standing.CURRENT)


async def test_an_override_that_is_lifted_leaves_what_is_routed(replica):
    await replica.adopt(replace(TWO.policy, override=rejecting(SECOND)))
    await replica.adopt(TWO.policy)

    assert (replica.status.digest, replica.status.standing) == (SECOND, Standing.CURRENT)


async def test_a_pin_holds_whatever_is_published_and_says_why_in_the_history(replica):
    await replica.adopt(TWO.policy)
    pinned = pinning(FIRST, reason="incident 4711")
    await replica.adopt(replace(TWO.policy, override=pinned))
    three = edits("92%", "80%", "70%")
    await replica.adopt(replace(three.policy, override=pinned))

    assert (replica.status.digest, replica.status.version, replica.status.standing) == (
        FIRST,
        "v1",
        Standing.OVERRIDDEN,
    )
    assert replica.adopted == Adopted(epoch=3, digest=FIRST)
    assert await replica.reasons() == ["Pinned: incident 4711", "Applied"]


async def test_a_pin_acts_while_the_epoch_is_not_whole(replica):
    await replica.adopt(replace(without(TWO.policy, SECOND), override=pinning(FIRST)))

    assert (replica.status.digest, replica.status.standing) == (FIRST, Standing.OVERRIDDEN)
    assert (replica.adopted.epoch, replica.adopted.digest) == (0, FIRST)
    assert "epoch 2 is not whole" in replica.adopted.pending


async def test_a_pin_ends_at_its_time_without_anything_being_published(replica):
    await replica.adopt(TWO.policy)
    pinned = replace(TWO.policy, override=pinning(FIRST, until=NOON + timedelta(hours=1)))
    again = await replica.adopt(pinned)

    assert (again, replica.status.digest) == (3600, FIRST)

    replica.wait(3599)
    assert (await replica.adopt(pinned), replica.status.digest) == (1, FIRST)

    replica.wait(1)
    assert await replica.adopt(pinned) is None
    assert (replica.status.digest, replica.status.standing) == (SECOND, Standing.CURRENT)
    assert await replica.reasons() == ["Applied", "Pinned", "Applied"]


async def test_the_first_of_several_times_is_the_one_to_come_back_at(replica):
    pinned = [
        replace(each.policy, override=pinning(each.route.route.stable, until=NOON + timedelta(hours=hours)))
        for hours, each in ((3, edits("92%", name="a")), (2, edits("92%", name="b")))
    ]
    again = await replica.adopt(*pinned, without(ONE.policy, FIRST))

    assert again == RETRY.first_seconds
    assert await replica.adopt(*pinned) == 7200


async def test_a_pin_whose_time_has_passed_is_nothing_to_report_even_if_nobody_knows_it(replica):
    again = await replica.adopt(replace(ONE.policy, override=pinning(NOTHING, until=NOON)))

    assert (replica.status.digest, replica.status.problems, again) == (FIRST, (), None)


async def test_a_pin_that_nobody_knows_changes_nothing_and_is_named_with_those_that_are_known(replica):
    many = edits(*(f"{70 + number}%" for number in range(MAX_NAMED + 2)))
    policy = replace(many.policy, versions={**many.policy.versions, many.revisions[0][1].digest: ""})
    again = await replica.adopt(replace(policy, override=pinning(NOTHING)))
    (problem,) = replica.status.problems
    known = ", ".join(
        f"{version} {revision.digest}"
        for version, revision in [("no version", many.revisions[0][1]), *many.revisions[1:MAX_NAMED]]
    )

    assert problem == Problem(
        field="ModerationOverride: spec.pin.digest",
        message=f"{NOTHING} is not a revision of this policy that is here; there are: {known}",
    )
    assert (replica.status.digest, replica.status.standing) == (many.route.route.stable, Standing.CURRENT)
    assert again == RETRY.first_seconds


async def test_a_pin_cannot_put_another_policys_revision_in_force(replica):
    other = edits("50%", name="other")
    pinned = replace(ONE.policy, override=pinning(other.route.route.stable))
    await replica.adopt(pinned, other.policy)

    assert replica.status.digest == FIRST
    assert "is not a revision of this policy that is here" in replica.problems


async def test_a_pin_of_a_revision_that_was_made_for_another_scope_puts_it_in_force_nowhere(replica):
    elsewhere = publication(SPACE, "community", content("50%"), scope={"tenant": "acme"})
    foreign = elsewhere.policy.revisions
    pinned = replace(
        ONE.policy,
        revisions={**ONE.policy.revisions, **foreign},
        override=pinning(elsewhere.route.route.stable),
    )
    await replica.adopt(pinned)

    assert replica.status.digest == FIRST
    assert "cannot be used: ModerationRoute: spec.scope" in replica.problems


async def test_a_pinned_revision_that_was_altered_is_not_used(replica):
    await replica.adopt(replace(altered(TWO.policy, FIRST), override=pinning(FIRST)))

    assert replica.status.digest == SECOND
    assert "was altered" in replica.problems


async def test_a_pin_of_what_is_in_force_holds_although_nobody_offers_it_any_more(replica):
    await replica.adopt(ONE.policy)
    three = edits("80%", "70%", epoch=3)
    await replica.adopt(replace(three.policy, override=pinning(FIRST)))

    assert (replica.status.digest, replica.status.version, replica.status.problems) == (FIRST, "v1", ())


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(None, id="no override"),
        pytest.param(rejecting(SECOND), id="a rejection"),
        pytest.param(pinning(FIRST), id="a pin"),
    ],
)
async def test_an_override_that_cannot_be_read_keeps_what_was_in_force(replica, before):
    await replica.adopt(replace(TWO.policy, override=before))
    in_force = replica.status.digest
    three = edits("92%", "80%", "70%")
    await replica.adopt(replace(three.policy, override_problem="spec.rejct: is no field"))

    assert (replica.status.digest, replica.status.epoch) == (in_force, 2)
    assert replica.adopted == Adopted(epoch=2, digest=in_force, pending="spec.rejct: is no field")
    assert replica.problems == "ModerationOverride: spec.rejct: is no field"

    await replica.adopt(three.policy)
    assert replica.adopted == Adopted(epoch=3, digest=three.route.route.stable)


async def test_a_pin_outlasts_its_time_while_the_override_cannot_be_read(replica):
    pinned = replace(TWO.policy, override=pinning(FIRST, until=NOON + timedelta(seconds=RETRY.first_seconds / 2)))
    await replica.adopt(pinned)
    unreadable = replace(TWO.policy, override_problem="spec.pin: is no pin")
    assert await replica.adopt(unreadable) == RETRY.first_seconds
    replica.wait(60)
    await replica.adopt(unreadable)

    assert replica.status.digest == FIRST


async def test_an_override_that_never_could_be_read_leaves_what_is_routed_and_is_named(replica):
    await replica.adopt(replace(ONE.policy, override_problem="spec.rejct: is no field"))

    assert (replica.status.digest, replica.status.epoch) == (FIRST, 1)
    assert replica.adopted.pending == "spec.rejct: is no field"

    await replica.restart()
    assert replica.status.digest == FIRST
    assert replica.problems == "ModerationOverride: spec.rejct: is no field"


async def test_a_policy_that_is_gone_is_in_force_no_more_and_on_record_as_removed(replica):
    other = edits("70%", name="other").policy
    await replica.adopt(ONE.policy, other)
    await replica.adopt(other)

    assert [each.name for each in replica.snapshot.statuses] == ["other"]
    assert KEY not in replica.routes.adopted()
    assert KEY not in replica.routes.kept()
    assert await replica.reasons() == ["Removed", "Applied"]

    await replica.adopt(other)
    assert await replica.reasons() == ["Removed", "Applied"]


async def test_a_policy_that_is_gone_after_a_restart_is_on_record_as_removed(replica):
    await replica.adopt(ONE.policy)
    await replica.restart()
    assert replica.status.digest == FIRST

    await replica.adopt()
    assert not replica.snapshot.policies
    assert await replica.reasons() == ["Removed", "Applied"]


async def test_a_policy_that_comes_back_is_in_force_again(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt()
    await replica.adopt(ONE.policy)

    assert replica.in_force == {"community": FIRST}
    assert await replica.reasons() == ["Applied", "Removed", "Applied"]


async def test_while_something_cannot_be_read_nothing_counts_as_removed(replica):
    other = edits("70%", name="other")
    await replica.adopt(ONE.policy, other.policy)
    await replica.adopt(other.policy, unread="ModerationRoute trust-safety/community")

    assert replica.in_force == {"community": FIRST, "other": other.route.route.stable}
    assert (replica.status.epoch, replica.problems) == (1, f"ModerationRoute: {UNREAD}")
    assert replica.adopted == Adopted(epoch=1, digest=FIRST, pending=f"ModerationRoute: {UNREAD}")
    assert str(replica.snapshot.problems[0]) == "ModerationRoute trust-safety/community: cannot be read"
    assert await replica.reasons() == ["Applied"]


async def test_a_route_that_is_missing_where_something_else_could_not_be_read_already_is_said(replica):
    await replica.adopt(ONE.policy, unread="a list")
    await replica.adopt(unread="a list")

    assert replica.problems == f"ModerationRoute: {UNREAD}"


async def test_what_cannot_be_read_twice_is_said_once(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt(unread="a route")
    before = replica.snapshot
    await replica.adopt(unread="a route")
    assert replica.snapshot is before

    await replica.adopt(edits("70%", name="other").policy, unread="a route")
    assert replica.problems == f"ModerationRoute: {UNREAD}"


async def test_what_is_on_record_is_not_removed_while_something_cannot_be_read(replica):
    await replica.adopt(ONE.policy)
    replica.begin()
    await replica.adopt(unread="a route")

    assert await replica.reasons() == ["Applied"]


async def test_what_can_be_read_again_is_as_it_was_and_what_is_still_not_there_is_removed(replica):
    other = edits("70%", name="other")
    await replica.adopt(ONE.policy, other.policy)
    await replica.adopt(unread="a route")
    await replica.adopt(other.policy)

    assert replica.snapshot.statuses == (
        PolicyStatus(
            namespace=SPACE,
            name="other",
            version="v1",
            digest=other.route.route.stable,
            standing=Standing.CURRENT,
            epoch=1,
        ),
    )
    assert replica.snapshot.problems == ()
    assert await replica.reasons() == ["Removed", "Applied"]


async def test_an_override_that_is_missing_while_something_cannot_be_read_still_acts(replica):
    rejected = replace(TWO.policy, override=rejecting(SECOND))
    await replica.adopt(rejected)
    unread = "ModerationOverride trust-safety/community"
    again = await replica.adopt(TWO.policy, unread=unread)

    assert replica.status.digest == FIRST
    assert replica.adopted.pending == UNREAD

    replica.wait(again / 2)
    assert await replica.adopt(TWO.policy, unread=unread) == again / 2

    await replica.adopt(TWO.policy)
    assert replica.adopted == Adopted(epoch=2, digest=SECOND)


async def test_an_edit_is_adopted_although_something_else_cannot_be_read(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt(TWO.policy, unread="a route of another policy")

    assert replica.adopted == Adopted(epoch=2, digest=SECOND)


@pytest.mark.parametrize(
    ("lose", "unread"),
    [
        pytest.param("", "an override", id="it is missing while something cannot be read"),
        pytest.param("spec.rejct: is no field", "", id="it cannot be read"),
    ],
)
async def test_where_everything_is_rejected_nothing_comes_back_when_the_override_is_lost(replica, lose, unread):
    await replica.adopt(replace(TWO.policy, override=rejecting(FIRST, SECOND)))
    lost = replace(TWO.policy, override_problem=lose)
    for _ in range(2):
        await replica.adopt(lost, unread=unread)
        replica.wait(60)

        assert replica.in_force == {}
        assert replica.problems.startswith(f"ModerationOverride: {lose or UNREAD}")

    await replica.restart()
    await replica.adopt(lost, unread=unread)
    assert replica.in_force == {}

    await replica.adopt(TWO.policy)
    assert replica.in_force == {"community": SECOND}


@pytest.mark.parametrize(
    "override",
    [
        pytest.param(None, id="no override"),
        pytest.param(rejecting(SECOND), id="a rejection"),
        pytest.param(pinning(FIRST), id="a pin"),
        pytest.param(pinning(FIRST, until=NOON + timedelta(hours=1)), id="a pin with an end"),
        pytest.param(rejecting(FIRST, SECOND), id="everything rejected"),
    ],
)
async def test_a_restart_with_the_store_alone_puts_the_same_in_force(replica, override):
    await replica.adopt(replace(TWO.policy, override=override))
    before, kept = replica.snapshot, replica.routes.kept()
    replica.source.lose("out of reach")
    await replica.restart()

    assert replica.snapshot.statuses == before.statuses
    assert replica.in_force == {each.candidate.name: each.candidate.revision.digest for each in before.policies}
    assert replica.routes.kept() == kept


async def test_a_restart_keeps_what_an_unreadable_override_left_in_force(replica):
    await replica.adopt(replace(TWO.policy, override=rejecting(SECOND)))
    await replica.adopt(replace(TWO.policy, override_problem="spec.rejct: is no field"))
    await replica.restart()

    assert replica.status.digest == FIRST
    assert replica.problems == "ModerationOverride: spec.rejct: is no field"


async def test_a_restart_without_the_revision_that_an_unreadable_override_left_brings_back_none_that_was_rejected(
    replica,
):
    await replica.adopt(replace(TWO.policy, override=rejecting(SECOND)))
    await replica.adopt(replace(TWO.policy, override_problem="spec.rejct: is no field"))
    replica.store.lose(FIRST)
    await replica.restart()

    assert replica.in_force == {}
    assert f"revision {FIRST[:17]} cannot be used" in replica.problems


async def test_a_restart_keeps_the_epoch_before_one_that_is_not_whole(replica):
    await replica.adopt(ONE.policy)
    await replica.adopt(without(TWO.policy, SECOND))
    await replica.restart()

    assert (replica.status.digest, replica.status.epoch, replica.status.problems) == (FIRST, 1, ())


async def test_a_pin_whose_time_passes_while_the_process_is_away_is_over(replica):
    await replica.adopt(replace(TWO.policy, override=pinning(FIRST, until=NOON + timedelta(hours=1))))
    replica.wait(3600)
    await replica.restart()

    assert (replica.status.digest, replica.status.version) == (SECOND, "v2")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(Store.lose, "is not here", id="gone"),
        pytest.param(Store.alter, "expected sha256:", id="altered"),
    ],
)
async def test_a_revision_that_is_gone_from_the_store_or_altered_there_gives_way_to_the_one_before(
    replica, damage, why
):
    await replica.adopt(ONE.policy)
    await replica.adopt(TWO.policy)
    damage(replica.store, SECOND)
    await replica.restart()

    assert (replica.status.digest, replica.status.standing) == (FIRST, Standing.LAST_GOOD)
    assert why in replica.problems

    await replica.adopt(TWO.policy)
    assert (replica.status.digest, replica.status.problems) == (SECOND, ())


async def test_what_is_published_after_a_restart_is_loaded_only_where_it_changed(replica):
    other = edits("70%", name="other")
    await replica.adopt(ONE.policy, other.policy)
    await replica.restart()
    restored = replica.snapshot
    replica.store.reads.clear()
    await replica.adopt(ONE.policy, other.policy)

    assert replica.snapshot is restored
    assert replica.store.reads == []
    assert await replica.reasons() == ["Applied"]


async def test_an_override_acts_although_the_disk_is_full_and_is_on_record_later(replica):
    await replica.adopt(TWO.policy)
    replica.store.fault = "the disk is full"
    rejected = replace(TWO.policy, override=rejecting(SECOND))
    again = await replica.adopt(rejected)

    assert replica.status.digest == FIRST
    assert list(map(str, replica.snapshot.problems)) == [
        f"revision {FIRST}: cannot be kept: the disk is full",
        "trust-safety/community: acts, but its history cannot be written: the disk is full",
    ]
    assert await replica.reasons() == ["Applied"]
    assert again == RETRY.highest_seconds

    replica.store.fault = ""
    assert await replica.adopt(rejected) is None
    assert replica.snapshot.problems == ()
    assert await replica.reasons() == ["RolledBack", "Applied"]


async def test_what_was_owed_to_the_history_is_written_by_the_next_process(replica):
    await replica.adopt(ONE.policy)
    replica.store.fault = "the disk is full"
    await replica.adopt(replace(TWO.policy, override=pinning(FIRST)))
    await replica.adopt(TWO.policy)
    replica.store.fault = ""
    await replica.store.put_revision("trust-safety/community", TWO.revisions[1][1])
    await replica.restart()
    await replica.adopt(TWO.policy)

    assert await replica.reasons() == ["Applied", "Applied"]


async def test_a_policy_and_its_list_act_although_the_disk_is_full(replica):
    replica.store.fault = "the disk is full"
    listed = with_lists("idiot")
    replica.source.lists = texts_of(listed)
    await replica.adopt(listed.policy)
    await replica.routes.fetch_lists()
    await replica.adopt(listed.policy)

    assert replica.adopted == Adopted(epoch=1, digest=listed.route.route.stable)


async def test_a_revision_that_could_not_be_kept_is_kept_once_it_can_be_and_is_in_force_after_a_restart(replica):
    replica.store.fault = "the disk is full"
    await replica.adopt(ONE.policy)
    assert await replica.adopt(ONE.policy) == RETRY.highest_seconds
    assert f"revision {FIRST}: cannot be kept: the disk is full" in map(str, replica.snapshot.problems)

    replica.store.fault = ""
    assert await replica.adopt(ONE.policy) is None
    assert replica.snapshot.problems == ()
    assert await replica.store.get_revision(FIRST) == ONE.policy.revisions[FIRST]

    await replica.restart()
    assert replica.in_force == {"community": FIRST}


async def test_a_list_that_could_not_be_kept_is_kept_once_it_can_be_and_acts_after_a_restart(replica):
    listed = with_lists("idiot")
    replica.source.lists = texts_of(listed)
    (digest,) = texts_of(listed)
    await replica.adopt(listed.policy)
    replica.store.fault = "the disk is full"
    await replica.routes.fetch_lists()
    assert await replica.adopt(listed.policy) == RETRY.highest_seconds
    assert f"list {digest}: cannot be kept: the disk is full" in map(str, replica.snapshot.problems)

    replica.store.fault = ""
    assert await replica.adopt(listed.policy) is None
    assert await replica.store.get_list(digest) == texts_of(listed)[digest]

    await replica.restart()
    assert replica.in_force == {"community": listed.route.route.stable}


async def test_a_policy_and_its_new_list_act_although_the_database_does_not_answer(replica):
    replica.store.fault = replica.store.read_fault = "away"
    listed = with_lists("idiot")
    replica.source.lists = texts_of(listed)
    (digest,) = texts_of(listed)
    await replica.adopt(listed.policy)
    await replica.routes.fetch_lists()
    await replica.adopt(listed.policy)

    assert replica.adopted == Adopted(epoch=1, digest=listed.route.route.stable)

    replica.store.fault = replica.store.read_fault = ""
    await replica.adopt(listed.policy)
    assert await replica.store.get_list(digest) == texts_of(listed)[digest]


async def test_what_was_in_force_while_it_could_not_be_kept_is_kept_although_something_else_is_by_then(replica):
    replica.store.fault = "the disk is full"
    await replica.adopt(ONE.policy)
    await replica.adopt(TWO.policy)
    replica.store.fault = ""
    await replica.adopt(TWO.policy)

    assert await replica.store.get_revision(FIRST)
    assert await replica.store.get_revision(SECOND)


async def test_much_that_could_not_be_kept_is_kept_in_parts_with_an_adoption_between_them(replica):
    many = [edits("92%", name=f"policy-{number:03}").policy for number in range(MAX_ROWS_AT_ONCE + 1)]
    replica.store.fault = "the disk is full"
    await replica.adopt(*many)
    replica.store.fault = ""

    assert await replica.adopt(*many) == 0
    assert await replica.adopt(*many) is None
    assert all([await replica.store.get_revision(each.route.route.stable) for each in many])


async def test_a_store_with_other_content_under_a_digest_is_not_asked_again_and_again(replica):
    await replica.store.put_revision("trust-safety/community", replace(ONE.policy.revisions[FIRST], content="{}"))

    assert await replica.adopt(ONE.policy) is None
    assert (replica.status.digest, replica.snapshot.problems) == (FIRST, ())


async def test_a_history_that_cannot_be_read_is_said_and_written_once_it_can(replica):
    replica.store.read_fault = "the disk failed"
    again = await replica.adopt(ONE.policy)

    assert replica.status.digest == FIRST
    assert str(replica.snapshot.problems[0]) == "history: it cannot be read, and so not written: the disk failed"
    assert again == RETRY.highest_seconds

    replica.store.read_fault = ""
    await replica.adopt(ONE.policy)
    assert replica.snapshot.problems == ()
    assert await replica.reasons() == ["Applied"]


async def test_a_long_history_is_written_in_parts_with_an_adoption_between_them(replica):
    many = [edits("92%", name=f"policy-{number:03}").policy for number in range(MAX_ROWS_AT_ONCE + 1)]

    assert await replica.adopt(*many) == 0
    assert len(await replica.store.last_active()) == MAX_ROWS_AT_ONCE

    assert await replica.adopt(*many) is None
    assert len(await replica.store.last_active()) == MAX_ROWS_AT_ONCE + 1


async def test_a_long_history_that_cannot_be_written_is_tried_again_after_a_while_and_not_at_once(replica):
    replica.store.fault = "the disk is full"
    many = [edits("92%", name=f"policy-{number:03}").policy for number in range(MAX_ROWS_AT_ONCE + 1)]

    assert await replica.adopt(*many) == RETRY.highest_seconds


async def test_of_two_policies_of_one_scope_the_one_that_never_wins_is_told(replica):
    older, younger = (publication(SPACE, name, content()) for name in ("older", "a-younger"))
    younger = replace(younger, route=replace(younger.route, created="2026-01-02T00:00:00Z"))
    await replica.adopt(older.policy, younger.policy)
    (problem,) = replica.snapshot.problems

    assert (problem.field, problem.message[:13]) == ("trust-safety/a-younger", "ScopeConflict")
    assert [each.name for each in replica.snapshot.in_force(Context()).winners] == ["older"]

    await replica.adopt(younger.policy)
    assert replica.snapshot.problems == ()


async def test_what_is_not_whole_is_looked_at_again_later_each_time_until_it_is(replica):
    policy = without(TWO.policy, SECOND)
    waits = []
    for _ in range(8):
        waits.append(await replica.adopt(policy))
        replica.store.reads.clear()
        replica.wait(waits[-1] / 2)
        await replica.adopt(policy)
        assert SECOND not in replica.store.reads, "it is not looked at before its time"
        replica.wait(waits[-1] / 2)

    assert waits == [0.25, 0.5, 1, 2, 4, 8, 15, 15]

    await replica.store.put_revision("trust-safety/community", TWO.revisions[1][1])
    assert await replica.adopt(policy) is None
    assert replica.adopted == Adopted(epoch=2, digest=SECOND)


async def test_jitter_keeps_replicas_from_looking_in_step(replica):
    replica.jitter = 1.0

    assert await replica.adopt(without(ONE.policy, FIRST)) < RETRY.first_seconds


async def test_a_change_of_what_is_not_whole_is_looked_at_at_once_and_soon_again(replica):
    policy = without(TWO.policy, SECOND)
    for _ in range(5):
        replica.wait(await replica.adopt(policy))
    three = edits("92%", "80%", "70%")

    assert await replica.adopt(without(three.policy, three.route.route.stable)) == RETRY.first_seconds
    assert replica.adopted.pending.startswith("epoch 3 is not whole")


# The laws. Of each policy there are contents that may come whole, and others that never do: missing, altered, or no
# policy at all. So it is plain which epochs can be adopted, whatever came before.

NAMES = ("one", "two")
WHOLE: Mapping[str, Publication] = {name: edits("90%", "80%", "70%", name=name) for name in NAMES}
BROKEN: Mapping[str, Publication] = {name: edits("60%", "50%", name=name) for name in NAMES}
TRUE: Mapping[str, str] = {
    revision.digest: revision.content
    for published in (*WHOLE.values(), *BROKEN.values())
    for _, revision in published.revisions
}


def digests(published: Publication) -> list[str]:
    return [revision.digest for _, revision in published.revisions]


# Strategies are made once: hypothesis looks through each new one, which takes longer than to draw from it.
weights = st.sampled_from([0, 500, FULL])
ways_to_break = st.sampled_from(["missing", "altered", "no policy", "misplaced"])


@cache
@st.composite
def whole_policies(draw: st.DrawFn, name: str, *, may_override: bool = True) -> PublishedPolicy:
    """A policy of which everything is there, perhaps with a rollout under way."""
    known = WHOLE[name].policy
    stable, candidate, *recent = draw(orders(name))
    recent = [candidate, *recent][: draw(st.integers(0, 2))]
    exposure = Exposure(weight_basis_points=draw(weights), is_shadow=draw(st.booleans()))
    routed = RoutedCandidate(digest=candidate, exposure=exposure, assignment=Assignment(salt=name))
    route = replace(
        known.route,
        epoch=draw(st.integers(1, 9)),
        route=Route(stable=stable, recent_stable=tuple(recent), candidate=routed if draw(st.booleans()) else None),
        version=known.versions[stable],
    )
    override = draw(overrides(name)) if may_override else None
    return replace(known, route=route, override=override)


@cache
def unreadable_policies(name: str) -> st.SearchStrategy[PublishedPolicy]:
    """A policy whose override cannot be read, and perhaps its stable revision neither."""
    return st.one_of(whole_policies(name), broken_policies(name)).map(
        lambda policy: replace(policy, override=None, override_problem="spec.rejct: is no field")
    )


@cache
def orders(name: str) -> st.SearchStrategy[list[str]]:
    return st.permutations(digests(WHOLE[name]))


@cache
def overrides(name: str) -> st.SearchStrategy[Override | None]:
    some = st.sampled_from(digests(WHOLE[name]))
    return st.one_of(
        st.none(), st.builds(pinning, some), st.frozensets(some, max_size=3).map(lambda reject: rejecting(*reject))
    )


@cache
@st.composite
def broken_policies(draw: st.DrawFn, name: str, *, may_override: bool = True) -> PublishedPolicy:
    """A policy whose stable revision cannot be used, while all the others are there."""
    policy = draw(whole_policies(name, may_override=may_override))
    absent, misplaced = digests(BROKEN[name])
    offered = {**policy.revisions, **BROKEN[name].policy.revisions}
    scope, stable = policy.route.scope, absent
    match draw(ways_to_break):
        case "missing":
            del offered[absent]
        case "altered":
            offered[absent] = replace(offered[absent], content=offered[absent].content + " ")
        case "no policy":
            stable = digest_of(b"{}")
            offered[stable] = Revision(digest=stable, content="{}")
        case _:
            scope, stable = Scope(tenant="acme"), misplaced
    recent = (policy.route.route.stable, *policy.route.route.recent_stable)
    route = replace(policy.route, scope=scope, route=Route(stable=stable, recent_stable=recent), version="v9")
    return replace(policy, route=route, revisions=offered)


@cache
def any_policies(name: str, *, may_override: bool = True) -> st.SearchStrategy[PublishedPolicy | None]:
    several = [whole_policies(name, may_override=may_override), broken_policies(name, may_override=may_override)]
    return st.one_of(st.none(), *several, *([unreadable_policies(name)] if may_override else []))


@st.composite
def states(draw: st.DrawFn, *, only: Any = any_policies, unread: bool | None = None, **options: Any) -> Published:
    """Everything that is published at one moment."""
    found = [each for name in NAMES if (each := draw(only(name, **options))) is not None]
    is_unread = draw(st.booleans()) if unread is None else unread
    problems = (Problem(field="a route", message="cannot be read"),) if is_unread else ()
    return Published(policies={each.key: each for each in found}, problems=problems)


async def follow(executor: ThreadPoolExecutor, *published: Published) -> Replica:
    """Return a replica that was given these one after the other, long enough apart for everything to be due again."""
    replica = Replica(executor)
    for each in published:
        await replica.routes.adopt(each)
        replica.wait(60)
    return replica


def shown(snapshot: PolicySnapshot) -> object:
    """Return all that a snapshot says; compiled rules are equal to nothing but themselves."""
    policies = [(each.candidate, each.lists, tried(each)) for each in snapshot.policies]
    return snapshot.statuses, snapshot.problems, policies


def tried(policy: LoadedPolicy) -> object:
    """Return all that is said of the candidate of a rollout."""
    if (trial := policy.trial) is None:
        return None
    compiled = trial.compiled
    return compiled.revision, compiled.version, compiled.cohort, trial.lists, trial.exposure, trial.assignment


history = st.lists(states(), max_size=5)


@given(before=history, last=states(only=whole_policies, unread=False))
async def test_what_came_before_a_state_that_is_whole_does_not_matter(executor, before, last):
    followed = await follow(executor, *before, last)
    fresh = await follow(executor, last)

    assert shown(followed.snapshot) == shown(fresh.snapshot)
    assert followed.routes.adopted() == fresh.routes.adopted()
    assert followed.routes.kept() == fresh.routes.kept()


@given(
    before=st.lists(states(may_override=False), max_size=5),
    last=st.lists(states(may_override=False), min_size=1, max_size=3),
)
async def test_a_policy_that_is_not_whole_is_as_it_was_when_it_was_last(executor, before, last):
    replica = await follow(executor, *before, *last)
    expected: dict[Key, str] = {}
    for published in (*before, *last):
        if not published.problems:
            expected = {key: digest for key, digest in expected.items() if key in published.policies}
        whole = {
            key: each.route
            for key, each in published.policies.items()
            if each.route.route.stable in digests(WHOLE[key[1]])
        }
        expected |= {key: route.route.stable for key, route in whole.items()}

    assert replica.in_force == {name: digest for (_, name), digest in expected.items()}


@given(published=st.lists(states(), min_size=1, max_size=6))
async def test_what_is_in_force_is_what_its_digest_names_and_was_routed_or_overridden(executor, published):
    replica = Replica(executor)
    for state in published:
        before = replica.routes.kept()
        await replica.routes.adopt(state)
        replica.wait(60)
        for each in replica.snapshot.policies:
            digest, key = each.candidate.revision.digest, (each.candidate.namespace, each.candidate.name)
            assert digest_of(TRUE[digest].encode()) == digest
            assert read_revision(Revision(digest=digest, content=TRUE[digest])) == each.candidate.revision
            assert each.compiled.revision == each.candidate.revision
            policy = state.policies.get(key)
            if policy is None or policy.override or replica.routes.kept()[key].override:
                continue
            routed_before = before[key].route.route.stable if key in before else None
            assert digest in (policy.route.route.stable, routed_before)


@given(published=st.lists(states(), min_size=1, max_size=6))
async def test_what_is_tried_out_is_what_the_adopted_route_and_override_say(executor, published):
    replica = Replica(executor)
    for state in published:
        kept_before = replica.routes.kept()
        await replica.routes.adopt(state)
        replica.wait(60)
        for each in replica.snapshot.policies:
            key = (each.candidate.namespace, each.candidate.name)
            kept = replica.routes.kept()[key]
            candidate = each.trial.compiled.revision.digest if each.trial else ""
            assert (candidate, replica.routes.adopted()[key].candidate) == (kept.candidate, kept.candidate)
            if each.trial is not None:
                assert each.trial.compiled.cohort is Cohort.CANDIDATE
                assert each.compiled.cohort is Cohort.STABLE
            if kept.override_problem:
                before = kept_before.get(key)
                assert candidate in ("", before.candidate if before else kept.candidate)
                continue
            expected = candidate_in_force(kept.route.route, kept.override, TRUE, now=replica.now)
            assert candidate == (expected.digest if expected else "")
            assert each.trial is None or each.trial.exposure == expected.exposure


@given(published=st.lists(states(), min_size=1, max_size=5), seconds=st.sampled_from([0, 1, 60]))
async def test_adopting_is_idempotent(executor, published, seconds):
    replica = await follow(executor, *published)
    before = replica.snapshot, replica.routes.adopted(), replica.routes.kept(), await replica.store.last_active()
    replica.wait(seconds)
    await replica.routes.adopt(published[-1])
    after = replica.snapshot, replica.routes.adopted(), replica.routes.kept(), await replica.store.last_active()

    assert after[0] is before[0]
    assert after == before


@given(published=st.lists(states(), min_size=1, max_size=5))
async def test_a_restart_changes_nothing(executor, published):
    replica = await follow(executor, *published)
    in_force, kept = replica.in_force, replica.routes.kept()
    await replica.restart()

    assert (replica.in_force, replica.routes.kept()) == (in_force, kept)

    await replica.routes.adopt(published[-1])
    assert replica.in_force == in_force


@given(before=history, last=states(unread=False))
async def test_a_restart_changes_nothing_of_what_is_said_either(executor, before, last):
    replica = await follow(executor, *before, last)
    said, adopted, kept = shown(replica.snapshot), replica.routes.adopted(), replica.routes.kept()
    await replica.restart()
    await replica.routes.adopt(last)

    assert shown(replica.snapshot) == said
    assert (replica.routes.adopted(), replica.routes.kept()) == (adopted, kept)
