"""Which policies bind a place is looked up once, and whoever holds a snapshot sees one consistent set."""

import pytest

from baleen_core.decision.engine import compile_policy
from baleen_core.decision.lists import compile_list
from baleen_core.decision.snapshot import (
    MAX_REMEMBERED_LANGUAGES,
    MAX_REMEMBERED_PLACES,
    LoadedPolicy,
    PolicySnapshot,
    widest,
)
from baleen_core.policy.lists import read_list
from baleen_core.policy.schema import Enforcement, ListType, Role, Scope
from baleen_core.records import Context
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
