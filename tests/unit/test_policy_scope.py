from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.policy.schema import Enforcement, Role, Scope
from baleen_core.policy.scope import (
    Candidate,
    find_conflicts,
    find_here,
    index_by_place,
    matches,
    precedence,
    resolve,
)
from baleen_core.records import Context
from policies import make_candidate

HERE = Context(tenant="acme", surface="comments", source="site-7/camera-3")


@pytest.mark.parametrize(
    ("scope", "context", "expected"),
    [
        pytest.param(Scope(), Context(), True, id="anywhere, without a context"),
        pytest.param(Scope(), HERE, True, id="anywhere"),
        pytest.param(Scope(tenant="acme"), HERE, True, id="its tenant"),
        pytest.param(Scope(tenant="acme"), Context(), False, id="no tenant said"),
        pytest.param(Scope(tenant="acm"), HERE, False, id="another tenant"),
        pytest.param(Scope(tenant="acme", surface="photos"), HERE, False, id="another surface"),
        pytest.param(Scope(source="site-7/camera-3"), HERE, True, id="its source"),
        pytest.param(Scope(source="site-7"), HERE, False, id="a source above"),
        pytest.param(Scope(source="site-7/*"), HERE, True, id="everything below"),
        pytest.param(Scope(source="site-7/*"), Context(source="site-7/hall/camera-1"), True, id="further below"),
        pytest.param(Scope(source="site-7/*"), Context(source="site-7"), False, id="not the top itself"),
        pytest.param(Scope(source="site-7/*"), Context(source="site-7/"), False, id="nothing below"),
        pytest.param(Scope(source="site-7/*"), Context(source="site-70/camera-3"), False, id="a longer name"),
        pytest.param(Scope(source="site-7/*"), Context(), False, id="no source said"),
        pytest.param(Scope(source="site-7/camera-3"), Context(source="site-7/camera-3/x"), False, id="below a source"),
    ],
)
def test_a_policy_counts_where_its_scope_says(scope: Scope, context: Context, expected: bool) -> None:
    assert matches(scope, context) is expected


@pytest.mark.parametrize(
    "ranking",
    [
        pytest.param(
            [
                make_candidate(scope=Scope(tenant="acme", surface="comments", source="site-7/*")),
                make_candidate(scope=Scope(tenant="acme", surface="comments")),
                make_candidate(scope=Scope(tenant="acme")),
                make_candidate(scope=Scope()),
            ],
            id="more fixed fields",
        ),
        pytest.param(
            [
                make_candidate(scope=Scope(tenant="acme", surface="comments")),
                make_candidate(scope=Scope(tenant="acme", source="site-7/*")),
                make_candidate(scope=Scope(surface="comments", source="site-7/camera-3")),
                make_candidate(scope=Scope(tenant="acme")),
                make_candidate(scope=Scope(surface="comments")),
                make_candidate(scope=Scope(source="site-7/camera-3")),
            ],
            id="tenant before surface before source",
        ),
        pytest.param(
            [
                make_candidate(scope=Scope(source="site-7/hall/camera-3")),
                make_candidate(scope=Scope(source="site-7/hall/*")),
                make_candidate(scope=Scope(source="site-7/*")),
            ],
            id="the longer source path",
        ),
        pytest.param(
            [
                make_candidate("z", created="2026-01-01T00:00:00Z"),
                make_candidate("a", created="2026-02-01T00:00:00Z"),
            ],
            id="the earlier one",
        ),
        pytest.param(
            [
                make_candidate("b", namespace="a"),
                make_candidate("a", namespace="b"),
                make_candidate("b", namespace="b"),
            ],
            id="the first namespace and name",
        ),
    ],
)
def test_who_wins(ranking: list[Candidate]) -> None:
    backwards = ranking[::-1]

    assert sorted(backwards, key=precedence) == ranking


def test_each_type_has_its_own_winner() -> None:
    wide, narrow = make_candidate("wide"), make_candidate("narrow", scope=Scope(tenant="acme"))
    privacy = make_candidate("privacy", type="Privacy")

    assert resolve([wide, privacy, narrow], HERE).winners == (narrow, privacy)
    assert resolve([wide, privacy, narrow], Context()).winners == (wide, privacy)


def test_every_floor_that_matches_binds_beside_the_winner() -> None:
    wide, narrow = (
        make_candidate("f1", role=Role.FLOOR),
        make_candidate("f2", role=Role.FLOOR, scope=Scope(tenant="acme")),
    )
    elsewhere = make_candidate("f3", role=Role.FLOOR, scope=Scope(tenant="other"))
    policy = make_candidate("p", scope=Scope(tenant="acme", surface="comments"))

    effective = resolve([wide, policy, elsewhere, narrow], HERE)

    assert effective.winners == (policy,)
    assert effective.floors == (narrow, wide)


def test_floors_alone_are_no_policy() -> None:
    assert resolve([make_candidate(role=Role.FLOOR)], HERE).winners == ()


def test_a_dry_run_neither_wins_nor_hides_a_wider_policy() -> None:
    wide = make_candidate("wide")
    narrow = make_candidate("narrow", scope=Scope(tenant="acme"), enforcement=Enforcement.DRY_RUN)
    floor = make_candidate("floor", role=Role.FLOOR, enforcement=Enforcement.DRY_RUN)

    effective = resolve([wide, narrow, floor], HERE)

    assert effective.winners == (wide,)
    assert effective.floors == ()
    assert effective.dry_runs == (narrow, floor)


places = st.builds(
    Scope,
    tenant=st.sampled_from([None, "acme", "other"]),
    surface=st.sampled_from([None, "comments"]),
    source=st.sampled_from([None, "site-7/*", "site-7/camera-3"]),
)
candidates = st.builds(
    make_candidate,
    st.sampled_from("abc"),
    scope=places,
    type=st.sampled_from(["Moderation", "Privacy"]),
    role=st.sampled_from(Role),
    enforcement=st.sampled_from(Enforcement),
    namespace=st.sampled_from(["x", "y"]),
    created=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
)
several_candidates = st.lists(candidates, max_size=6, unique_by=lambda each: (each.namespace, each.name))


@given(several=several_candidates, random=st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_is_irrelevant(several: list[Candidate], random: Random) -> None:
    one, other = several, random.sample(several, len(several))

    assert resolve(one, HERE) == resolve(other, HERE)
    assert find_conflicts(one) == find_conflicts(other)


@given(several=several_candidates, another=candidates)
def test_another_dry_run_changes_nothing_that_binds(several: list[Candidate], another: Candidate) -> None:
    tried = make_candidate(scope=another.revision.scope, role=another.revision.role, enforcement=Enforcement.DRY_RUN)

    before, after = resolve(several, HERE), resolve([*several, tried], HERE)

    assert (before.winners, before.floors) == (after.winners, after.floors)


@given(several=several_candidates, another=candidates)
def test_no_candidate_removes_a_floor(several: list[Candidate], another: Candidate) -> None:
    assert set(map(id, resolve(several, HERE).floors)) <= set(map(id, resolve([*several, another], HERE).floors))


@given(several=several_candidates)
def test_all_that_match_win_lose_bind_or_are_tried_out(several: list[Candidate]) -> None:
    effective = resolve(several, HERE)

    for each in several:
        if not matches(each.revision.scope, HERE):
            assert not any(each is found for found in effective.winners + effective.floors + effective.dry_runs)
        elif each.revision.policy.enforcement is Enforcement.DRY_RUN:
            assert any(each is found for found in effective.dry_runs)
        elif each.revision.role is Role.FLOOR:
            assert any(each is found for found in effective.floors)
        else:
            [winner] = [found for found in effective.winners if found.revision.type == each.revision.type]
            assert precedence(winner) <= precedence(each)


def test_the_later_of_two_policies_for_one_scope_is_told() -> None:
    first = make_candidate("first", created="2026-01-01T00:00:00Z")
    second = make_candidate("second", created="2026-02-01T00:00:00Z")
    third = make_candidate("a-third", created="2026-03-01T00:00:00Z")

    for order in permutations([first, second, third]):
        conflicts = find_conflicts(order)

        assert [conflict.field for conflict in conflicts] == ["trust-safety/second", "trust-safety/a-third"]
        assert all(conflict.message.startswith("ScopeConflict: trust-safety/first has") for conflict in conflicts)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(make_candidate("other", scope=Scope(tenant="acme")), id="another scope"),
        pytest.param(make_candidate("other", type="Privacy"), id="another type"),
        pytest.param(make_candidate("other", role=Role.FLOOR), id="another role"),
        pytest.param(make_candidate("other", enforcement=Enforcement.DRY_RUN), id="a dry run"),
    ],
)
def test_others_do_not_conflict(other: Candidate) -> None:
    assert find_conflicts([make_candidate("community"), other]) == ()


def test_floors_do_not_conflict_since_all_of_them_bind() -> None:
    assert find_conflicts([make_candidate("a", role=Role.FLOOR), make_candidate("b", role=Role.FLOOR)]) == ()


paths = st.one_of(st.none(), st.text("a/*", min_size=1, max_size=6))
fields = st.sampled_from([None, "a", "b"])


@given(
    scopes=st.lists(st.builds(Scope, tenant=fields, surface=fields, source=paths), max_size=12),
    context=st.builds(Context, tenant=fields, surface=fields, source=paths),
)
def test_the_index_finds_exactly_those_whose_scope_matches(scopes: list[Scope], context: Context) -> None:
    several = [make_candidate(f"p{number}", scope=scope) for number, scope in enumerate(scopes)]
    found = find_here(index_by_place(several), context)

    expected = [each.name for each in several if matches(each.revision.scope, context)]
    assert sorted(each.name for each in found) == sorted(expected)
