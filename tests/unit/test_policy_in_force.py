from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.assignment import Assignment, Exposure
from baleen_core.errors import PolicyError
from baleen_core.policy.in_force import (
    Override,
    Pin,
    Route,
    RoutedCandidate,
    candidate_in_force,
    in_force,
    parse_override,
)
from policies import override_manifest

A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ROUTE = Route(stable=A, recent_stable=(B, C))


@pytest.mark.parametrize(
    ("override", "present", "expected"),
    [
        pytest.param(None, {A, B, C}, A, id="the stable one"),
        pytest.param(None, {B, C}, B, id="the newest that is present"),
        pytest.param(None, set(), None, id="nothing is present"),
        pytest.param(Override(), {A, B}, A, id="an override that says nothing"),
        pytest.param(Override(pin=Pin(digest=C)), {A, B, C}, C, id="the pin"),
        pytest.param(Override(pin=Pin(digest=C)), {A, B}, A, id="the pin is not present"),
        pytest.param(
            Override(pin=Pin(digest=C, expire_time="2026-01-31T12:00:01Z")), {A, C}, C, id="the pin still holds"
        ),
        pytest.param(
            Override(pin=Pin(digest=C, expire_time="2026-01-31T13:00:00+01:00")), {A, C}, A, id="the pin is over"
        ),
        pytest.param(Override(pin=Pin(digest=B), reject=frozenset({A})), {A, C}, C, id="no pin, and rejected"),
        pytest.param(Override(reject=frozenset({A})), {A, B, C}, B, id="rejected"),
        pytest.param(Override(reject=frozenset({A, B})), {A, B, C}, C, id="two are rejected"),
        pytest.param(Override(reject=frozenset({A, B, C})), {A, B, C}, None, id="all are rejected"),
    ],
)
def test_what_is_in_force(override: Override | None, present: set[str], expected: str | None) -> None:
    assert in_force(ROUTE, override, present, now=NOW) == expected


ROLLED_OUT = RoutedCandidate(digest=D, exposure=Exposure(weight_basis_points=500), assignment=Assignment(salt="s"))
TRIAL = Route(stable=A, recent_stable=(B, C), candidate=ROLLED_OUT)


@pytest.mark.parametrize(
    ("override", "present", "is_tried_out"),
    [
        pytest.param(None, {A, D}, True, id="both are present"),
        pytest.param(Override(reject=frozenset({B}), paused=True), {A, D}, True, id="an override of something else"),
        pytest.param(None, {A, B, C}, False, id="the candidate is not present"),
        pytest.param(None, {B, D}, False, id="the stable one is not present"),
        pytest.param(None, {D}, False, id="nothing is in force"),
        pytest.param(Override(reject=frozenset({D})), {A, D}, False, id="the candidate is rejected"),
        pytest.param(Override(reject=frozenset({A})), {A, B, D}, False, id="the stable one is rejected"),
        pytest.param(Override(pin=Pin(digest=A)), {A, D}, False, id="the stable one is pinned"),
        pytest.param(Override(pin=Pin(digest=D)), {A, D}, False, id="the candidate is pinned"),
        pytest.param(Override(pin=Pin(digest=C)), {A, C, D}, False, id="an older one is pinned"),
        pytest.param(Override(pin=Pin(digest=C)), {A, D}, True, id="the pin is not present"),
        pytest.param(
            Override(pin=Pin(digest=C, expire_time="2026-01-31T11:00:00Z")), {A, C, D}, True, id="the pin is over"
        ),
    ],
)
def test_what_is_tried_out(override: Override | None, present: set[str], is_tried_out: bool) -> None:
    found = candidate_in_force(TRIAL, override, present, now=NOW)

    assert found is (ROLLED_OUT if is_tried_out else None)


def test_without_a_candidate_nothing_is_tried_out() -> None:
    assert candidate_in_force(ROUTE, None, {A, B, C, D}, now=NOW) is None


some = st.frozensets(st.sampled_from([A, B, C]))


@given(reject=some, present=some, pin=st.sampled_from([None, A, B, C]))
def test_only_what_is_present_and_not_rejected_is_in_force(
    reject: frozenset[str], present: frozenset[str], pin: str | None
) -> None:
    found = in_force(ROUTE, Override(pin=Pin(digest=pin) if pin else None, reject=reject), present, now=NOW)

    assert found is None or found in present
    assert found == pin or found not in reject


def test_an_override_says_what_its_manifest_says() -> None:
    manifest = override_manifest(reject=[B, C], pin={"digest": A, "reason": "blocks too much"}, paused=False)

    assert parse_override(manifest) == Override(pin=Pin(digest=A, reason="blocks too much"), reject=frozenset({B, C}))


def test_an_override_may_say_nothing() -> None:
    assert parse_override(override_manifest()) == Override()


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        pytest.param({"pin": {"digest": "v1.4.0"}}, "spec.pin.digest", "'v1.4.0' is not a digest", id="a version"),
        pytest.param({"pin": {}}, "spec.pin.digest", "is required", id="nothing to pin"),
        pytest.param({"pin": A}, "spec.pin", "is not a mapping", id="a digest alone"),
        pytest.param({"pin": {"digest": A, "reasons": ""}}, "spec.pin.reasons", "'reason'?", id="a typo"),
        pytest.param(
            {"pin": {"digest": A, "expireTime": "x"}},
            "spec.pin.expireTime",
            "is not a time; write one such as",
            id="no time",
        ),
        pytest.param(
            {"pin": {"digest": A, "expireTime": "2026-01-31T12:00:00"}},
            "spec.pin.expireTime",
            "has no time zone",
            id="no zone",
        ),
        pytest.param(
            {"pin": {"digest": A, "expireTime": "9999-12-31T23:59:59-01:00"}},
            "spec.pin.expireTime",
            "beyond the year 9999",
            id="beyond all years",
        ),
        pytest.param({"reject": A}, "spec.reject", "is not a list", id="not a list"),
        pytest.param({"reject": [A.upper()]}, "spec.reject[0]", "lower-case", id="capitals"),
        pytest.param({"reject": [A], "pin": {"digest": A}}, "spec.pin", "is rejected too", id="pinned and rejected"),
        pytest.param({"approve": {}}, "spec.approve.digest", "is required", id="nothing to approve"),
        pytest.param({"paused": "yes"}, "spec.paused", "is not true or false", id="paused by a word"),
        pytest.param({"rejects": []}, "spec.rejects", "did you mean 'reject'?", id="another typo"),
    ],
)
def test_a_wrong_override_is_named_with_what_would_be_right(spec: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_override(override_manifest(**spec))

    [problem] = refused.value.problems
    assert problem.field == field
    assert message in problem.message


def test_a_policy_is_no_override() -> None:
    with pytest.raises(PolicyError, match="kind: 'ModerationPolicy' is not ModerationOverride"):
        parse_override(override_manifest() | {"kind": "ModerationPolicy"})
