"""Which policies bind a place is looked up once, and whoever holds a snapshot sees one consistent set."""

from dataclasses import replace

import pytest

from baleen_core.assignment import FULL, Assignment, Exposure, StickyKey
from baleen_core.decision.engine import compile_policy
from baleen_core.decision.lists import compile_list
from baleen_core.decision.snapshot import (
    MAX_REMEMBERED_LANGUAGES,
    MAX_REMEMBERED_PLACES,
    LoadedPolicy,
    LoadedTrial,
    PolicySnapshot,
    widest,
)
from baleen_core.policy.lists import read_list
from baleen_core.policy.schema import Enforcement, ListType, Role, Scope
from baleen_core.records import Cohort, Context
from policies import make_candidate

HASH = "0f" * 32


def load(name: str, **spec: object) -> LoadedPolicy:
    candidate = make_candidate(name, **spec)
    return LoadedPolicy(candidate=candidate, compiled=compile_policy(name, "v1", candidate.revision, ()), lists=())


@pytest.fixture
def snapshot() -> PolicySnapshot:
    return PolicySnapshot(
        policies=(
            load("wide"),
            load("narrow", scope=Scope(surface="kids")),
            load("floor", role=Role.FLOOR),
            load("trial", scope=Scope(tenant="acme"), enforcement=Enforcement.DRY_RUN),
        )
    )


def names(policies) -> list[str]:
    return [policy.name for policy in policies]


def test_a_narrower_policy_wins_in_its_place_and_floors_bind_everywhere(snapshot):
    everywhere, kids = snapshot.in_force(Context()), snapshot.in_force(Context(surface="kids"))

    assert (names(everywhere.winners), names(everywhere.floors)) == (["wide"], ["floor"])
    assert (names(kids.winners), names(kids.floors)) == (["narrow"], ["floor"])


def test_a_dry_run_is_judged_in_its_place_and_hides_nothing(snapshot):
    acme = snapshot.in_force(Context(tenant="acme"))

    assert (names(acme.winners), names(acme.dry_runs)) == (["wide"], ["trial"])


def test_a_place_is_resolved_once_whatever_else_the_request_says(snapshot):
    first = snapshot.in_force(Context(surface="kids", session="a"))

    assert snapshot.in_force(Context(surface="kids", session="b")) is first


def test_callers_who_invent_places_do_not_fill_the_memory(snapshot):
    for number in range(MAX_REMEMBERED_PLACES + 10):
        snapshot.in_force(Context(surface=f"invented-{number}"))

    assert len(snapshot._places) <= MAX_REMEMBERED_PLACES


def test_what_is_wanted_is_remembered_by_language_up_to_a_bound(snapshot):
    in_force = snapshot.in_force(Context())
    for number in range(MAX_REMEMBERED_LANGUAGES + 10):
        assert in_force.wanted("text", f"x{number}") == set()

    assert len(in_force._wanted) <= MAX_REMEMBERED_LANGUAGES


def test_of_one_list_in_two_policies_the_one_that_looks_furthest_is_kept():
    content = read_list(ListType.PERCEPTUAL_HASH, HASH)
    near, far = compile_list(content, max_distance=3), compile_list(content, max_distance=31)

    assert widest([near, far]) == widest([far, near]) == (far,)


def test_lists_of_one_text_and_two_types_are_both_kept():
    digests, terms = (compile_list(read_list(type, f"sha256:{HASH}")) for type in (ListType.DIGEST, ListType.TERMS))

    assert set(map(id, widest([digests, terms]))) == {id(digests), id(terms)}


def test_without_policies_nothing_wins():
    assert not PolicySnapshot().in_force(Context()).winners


def rolling_out(exposure: Exposure, *names: str, keys=(StickyKey.AUTHOR, StickyKey.CONTENT)) -> PolicySnapshot:
    """Policies, each with a candidate of the same name."""

    def with_trial(name: str) -> LoadedPolicy:
        policy = load(name, role=Role.POLICY if name == "wide" else Role.FLOOR)
        compiled = replace(policy.compiled, version="v2", cohort=Cohort.CANDIDATE)
        assignment = Assignment(salt=f"{name}'s salt", keys=keys)
        trial = LoadedTrial(compiled=compiled, lists=(), exposure=exposure, assignment=assignment, rollout="this try")
        return replace(policy, trial=trial)

    return PolicySnapshot(policies=tuple(map(with_trial, names)))


def cohorts(in_force) -> list[Cohort]:
    return [policy.cohort for policy in (*in_force.winners, *in_force.floors)]


@pytest.mark.parametrize(
    ("exposure", "tenant", "expected"),
    [
        pytest.param(Exposure(is_shadow=True, weight_basis_points=FULL), None, Cohort.STABLE, id="a shadow"),
        pytest.param(Exposure(), None, Cohort.STABLE, id="no weight"),
        pytest.param(Exposure(weight_basis_points=FULL), None, Cohort.CANDIDATE, id="the whole line"),
        pytest.param(Exposure(tenants=("acme",)), "acme", Cohort.CANDIDATE, id="a tenant of a match"),
        pytest.param(Exposure(tenants=("acme",)), "other", Cohort.STABLE, id="another tenant"),
    ],
)
def test_of_a_policy_in_a_rollout_one_side_counts_and_both_judge(exposure, tenant, expected):
    context = Context(tenant=tenant)
    in_force = rolling_out(exposure, "wide", "floor").in_force(context)
    assigned = in_force.assigned(context, "content")

    assert cohorts(in_force) == [Cohort.STABLE] * 2
    assert cohorts(assigned) == [expected] * 2
    assert [(trial.stable.cohort, trial.candidate.cohort) for trial in assigned.trials] == [
        (Cohort.STABLE, Cohort.CANDIDATE)
    ] * 2
    assert {each.exposed for each in assigned.trials} == {expected is Cohort.CANDIDATE}
    assert {each.rollout for each in assigned.trials} == {"this try"}
    by_chance = 0 if exposure.is_shadow or tenant in exposure.tenants else exposure.weight_basis_points
    assert {each.weight for each in assigned.trials} == {by_chance}
    assert len(assigned.policies) == 4
    assert {(each.name, each.cohort) for each in assigned.policies} == {
        (name, cohort) for name in ("wide", "floor") for cohort in Cohort
    }


def test_an_author_stays_on_a_side_whatever_is_sent_and_content_without_an_author_does():
    in_force = rolling_out(Exposure(weight_basis_points=FULL // 2), "wide").in_force(Context())

    def sides(contexts, contents):
        return {tuple(cohorts(in_force.assigned(context, each))) for context in contexts for each in contents}

    some = [str(number) for number in range(50)]
    for author in ("author-1", "author-2", "author-3"):
        assert len(sides([Context(author={"id": author})], some)) == 1
    assert len(sides([Context()], some)) == 2
    assert len(sides([Context(), Context(session="s"), Context(surface="kids")], ["one"])) == 1


def test_each_rollout_assigns_by_its_own_salt():
    in_force = rolling_out(Exposure(weight_basis_points=FULL // 2), "wide", "floor").in_force(Context())

    found = {tuple(cohorts(in_force.assigned(Context(), str(number)))) for number in range(50)}
    assert len(found) == 4


def test_without_a_rollout_nothing_is_made_anew(snapshot):
    in_force = snapshot.in_force(Context())

    assert in_force.assigned(Context(), "content") is in_force
    assert in_force.trials == ()
