"""Who is judged by a candidate: laws of the place on the line, and vectors that other languages can check."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.assignment import (
    DEFAULT_KEYS,
    FULL,
    GROUPS,
    LINE,
    Exposure,
    StickyKey,
    is_exposed,
    locate,
    name_rollout,
    share_of_line,
    sticky_key,
)

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "assignment.json").read_text())
FIELDS = {StickyKey.AUTHOR: "author", StickyKey.SESSION: "session", StickyKey.CONTENT: "content_digest"}

places = st.one_of(st.integers(0, LINE - 1), st.sampled_from([0, 1, LINE - 1, LINE // 2, LINE // 2 - 1]))
weights = st.integers(0, FULL)
texts = st.text(min_size=1, max_size=20)


def key_of(kind: str, value: str) -> bytes:
    return sticky_key([StickyKey(kind)], **{"author": None, "session": None, "content_digest": "", FIELDS[kind]: value})


def exposed(weight: int, place: int) -> bool:
    return is_exposed(Exposure(weight_basis_points=weight), None, place)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: f"{each['salt']} {each['kind']} {each['value'][:12]}")
def test_the_vectors(vector):
    """The vectors were made by openssl and bc, with nothing of this code.

    For each salt, kind (`Author`, `Session`, `Content`) and value, all in UTF-8:

        hex=$(printf '%s\\0%s' "$kind" "$value" |
            openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf '%s' "$salt" | od -An -tx1 | tr -d ' \\n'))

    `place` is the first 16 hexadecimal digits; `group` is the number that the next two are, modulo 64; the candidate
    judges at a weight of w basis points when `bc` says that the place is below w * 2^64 / 10000, rounded down.
    """
    spot = locate(vector["salt"], key_of(vector["kind"], vector["value"]))

    assert (f"{spot.place:016x}", spot.group) == (vector["place"], vector["group"])
    assert {weight: exposed(int(weight), spot.place) for weight in vector["candidate_judges"]} == (
        vector["candidate_judges"]
    )


@given(place=places, weight=weights, higher=weights)
def test_raising_a_weight_moves_nobody_back(place, weight, higher):
    low, high = sorted((weight, higher))

    assert exposed(high, place) or not exposed(low, place)


@given(some=st.lists(places, max_size=20), rise=st.lists(weights, max_size=5))
def test_lowering_a_weight_returns_those_first_who_came_last(some, rise):
    came: list[int] = []
    for weight in sorted(rise):
        came += sorted(place for place in some if exposed(weight, place) and place not in came)
    for weight in sorted(rise, reverse=True):
        left = [place for place in came if exposed(weight, place)]
        assert left == came[: len(left)]


@given(place=places, tenant=st.sampled_from([None, "acme", "staff"]), weight=weights)
def test_the_bounds(place, tenant, weight):
    assert not exposed(0, place)
    assert exposed(FULL, place)
    shadow = Exposure(weight_basis_points=weight, tenants=("acme",), is_shadow=True)
    assert not is_exposed(shadow, tenant, place)
    matched = Exposure(weight_basis_points=weight, tenants=("acme",))
    assert is_exposed(matched, tenant, place) == (tenant == "acme" or exposed(weight, place))


@given(weight=weights)
def test_a_weight_is_that_share_of_the_line(weight):
    assert abs(share_of_line(weight) * FULL - weight * LINE) < FULL


def chi_square(counts: Sequence[int]) -> float:
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 for count in counts) / mean


# Of chi-square with 99 and 63 degrees of freedom, one in 10^6 is beyond these; the keys are the same in every run.
BOUND_99, BOUND_63 = 181.1, 131.7


@pytest.mark.parametrize("salt", ["c2FsdA==", "another", "a third"])
def test_places_and_groups_are_uniform_and_neither_tells_the_other(salt):
    spots = [locate(salt, key_of("Author", f"author-{number}")) for number in range(30_000)]
    hundredths = Counter(spot.place * 100 // LINE for spot in spots)
    groups = Counter(spot.group for spot in spots)
    of_exposed = Counter(spot.group for spot in spots if exposed(FULL // 4, spot.place))

    assert chi_square([hundredths[each] for each in range(100)]) < BOUND_99
    assert chi_square([groups[each] for each in range(GROUPS)]) < BOUND_63
    assert chi_square([of_exposed[each] for each in range(GROUPS)]) < BOUND_63


def test_each_rollout_has_a_test_group_of_its_own():
    keys = [key_of("Author", f"author-{number}") for number in range(20_000)]
    first, second = ({key for key in keys if exposed(1000, locate(salt, key).place)} for salt in ("one", "two"))

    # A tenth of a tenth, within five standard deviations.
    assert abs(len(first & second) - 200) < 5 * 200**0.5


@given(author=texts, session=texts, content=texts)
def test_the_first_key_that_a_request_has_decides_and_kinds_are_told_apart(author, session, content):
    def key(*, keys=DEFAULT_KEYS, **found):
        return sticky_key(keys, **{"author": None, "session": None, "content_digest": content, **found})

    assert key(author=author) == key(author=author, session=session)
    assert key(author="", session=session) == key(session=session)
    assert key() == key(keys=(StickyKey.AUTHOR,)) == key(keys=(StickyKey.CONTENT,), author=author)
    assert key(keys=(StickyKey.SESSION, StickyKey.AUTHOR), author=author, session=session) == key(session=session)
    assert (
        len({key(author=author), key(session=author), sticky_key((), author=None, session=None, content_digest=author)})
        == 3
    )


@given(salt=st.text(min_size=16, max_size=64), key=st.text(max_size=32))
def test_the_name_of_a_rollout_is_its_own_and_no_place_of_any_key(salt, key):
    """Whoever may read the name must not learn where anybody is on the line."""
    name = name_rollout(salt, "trust-safety", key, "sha256:a", "sha256:b")

    assert len(name) == 32
    assert name != name_rollout(f"{salt}x", "trust-safety", key, "sha256:a", "sha256:b")
    assert name != name_rollout(salt, "trust-safety", f"{key}x", "sha256:a", "sha256:b")
    for kind in StickyKey:
        message = sticky_key((kind,), author=key or "x", session=key or "x", content_digest=key)
        assert not name.startswith(f"{locate(salt, message).place:016x}")
