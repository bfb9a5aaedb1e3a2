"""What a signed token may say, and what of it counts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.api_keys import KeyRole
from baleen_core.errors import Unauthenticated
from baleen_sidecar.flow.claims import ClaimRules, find_claim, read_claims

NOW = 1_800_000_000.0
RULES = ClaimRules(issuer="https://id.example", audience="baleen", leeway_seconds=30.0)
GOOD: dict[str, Any] = {
    "iss": "https://id.example",
    "aud": ["other", "baleen"],
    "sub": "alice",
    "iat": NOW - 60,
    "exp": NOW + 600,
    "roles": ["review"],
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def refusal(claims: object, rules: ClaimRules = RULES, now: float = NOW) -> str:
    with pytest.raises(Unauthenticated) as caught:
        read_claims(claims, rules, wall_seconds=now)
    return str(caught.value)


def test_a_good_token_says_who_it_is_and_what_that_may_do() -> None:
    found = read_claims(GOOD, RULES, wall_seconds=NOW)

    assert (found.name, found.roles, found.tenant) == ("alice", {KeyRole.REVIEW}, None)
    assert found.said == "the token of 'alice'"


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "iat", "exp"])
def test_each_of_these_is_needed(name: str) -> None:
    assert f"`{name}`" in refusal({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"iss": "https://evil.example"}, "`iss` must be 'https://id.example'", id="another issuer"),
        pytest.param({"iss": ["https://id.example"]}, "`iss`", id="a list of issuers"),
        pytest.param({"aud": "baleen-gateway"}, "`aud` must have 'baleen'", id="another audience"),
        pytest.param({"aud": "a baleen"}, "`aud`", id="an audience with our name in it"),
        pytest.param({"exp": NOW - 30}, "has passed (`exp`)", id="past"),
        pytest.param({"exp": True}, "`exp` must be a time", id="a switch"),
        pytest.param({"exp": str(NOW + 600)}, "`exp` must be a time", id="text"),
        pytest.param({"exp": float("nan")}, "`exp` must be a time", id="no number"),
        pytest.param({"exp": float("inf")}, "`exp` must be a time", id="for ever"),
        pytest.param({"exp": 10**400}, "`exp` must be a time", id="beyond all numbers"),
        pytest.param({"iat": NOW + 31}, "has not come (`iat`)", id="made in the future"),
        pytest.param({"nbf": NOW + 31}, "has not come (`nbf`)", id="good later"),
        pytest.param({"nbf": "now"}, "`nbf` must be a time", id="good some time"),
        pytest.param({"sub": ""}, "`sub`", id="nobody"),
        pytest.param({"sub": "a" * 256}, "`sub` must be text of 1 to 255", id="a long name"),
    ],
)
def test_a_token_that_is_not_for_us_or_not_for_now_is_refused_and_not_repeated(
    changed: dict[str, Any], said: str
) -> None:
    found = refusal(GOOD | changed)

    assert said in found
    assert "evil" not in found


@given(leeway=st.floats(0, 60), off=st.floats(-300, 300))
def test_a_token_is_good_from_when_it_was_made_until_its_end_give_or_take_the_leeway(leeway: float, off: float) -> None:
    rules = ClaimRules(issuer=RULES.issuer, audience="baleen", leeway_seconds=leeway)
    ends, begins = GOOD | {"exp": NOW + off}, GOOD | {"iat": NOW + off}
    margin = 1e-3  # seconds since 1970 have no more places than that

    for claims, is_good in ((ends, off > -leeway), (begins, off <= leeway)):
        if abs(abs(off) - leeway) < margin:
            continue
        if is_good:
            read_claims(claims, rules, wall_seconds=NOW)
        else:
            refusal(claims, rules)


@given(name=st.sampled_from([*GOOD, "nbf", "tenant"]), value=values)
def test_whatever_a_claim_is_it_is_read_or_refused(name: str, value: object) -> None:
    rules = ClaimRules(issuer=RULES.issuer, audience="baleen", tenant_claim="tenant")
    try:
        found = read_claims(GOOD | {"tenant": "acme"} | {name: value}, rules, wall_seconds=NOW)
    except Unauthenticated:
        return

    assert found.roles <= {KeyRole.REVIEW, KeyRole.ADMIN}
    assert found.tenant == "acme" or (name == "tenant" and (value == "*" or found.tenant == value))


@pytest.mark.parametrize("claims", [None, [], "x", 1, {}])
def test_what_are_no_claims_is_refused(claims: object) -> None:
    refusal(claims)


@pytest.mark.parametrize(
    ("said", "roles"),
    [
        pytest.param(["admin", "review"], {KeyRole.ADMIN, KeyRole.REVIEW}, id="both"),
        pytest.param("openid review profile", {KeyRole.REVIEW}, id="words"),
        pytest.param(["moderate"], set(), id="what tokens never open"),
        pytest.param(["Admin", "administrator", 3, None], set(), id="others'"),
        pytest.param({"admin": True}, set(), id="a mapping"),
        pytest.param(None, set(), id="none"),
    ],
)
def test_roles_of_ours_count_and_others_count_nothing(said: object, roles: set[KeyRole]) -> None:
    assert read_claims(GOOD | {"roles": said}, RULES, wall_seconds=NOW).roles == roles


def test_a_claim_is_found_by_its_whole_name_before_its_path() -> None:
    claims = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}}

    assert [find_claim(claims, name) for name in ("a.b", "a.c.d", "a.x", "a.c.d.e", "", "x.y")] == [1, 3, *[None] * 4]


@pytest.mark.parametrize("said", [None, "", "a*", 7, ["acme"], "x" * 1000])
def test_where_tokens_have_tenants_one_without_speaks_for_nobody(said: object) -> None:
    rules = ClaimRules(issuer=RULES.issuer, audience="baleen", tenant_claim="org.tenant")

    assert "`org.tenant` must name a tenant, or be '*'" in refusal(GOOD | {"org": {"tenant": said}}, rules)
    assert read_claims(GOOD | {"org": {"tenant": "acme"}}, rules, wall_seconds=NOW).tenant == "acme"
    assert read_claims(GOOD | {"org": {"tenant": "*"}}, rules, wall_seconds=NOW).tenant is None
