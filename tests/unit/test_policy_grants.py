"""Which namespace may bind what: nobody binds another's tenant, by a policy or by a floor."""

from typing import Any

import pytest

from baleen_core.policy.grants import Grants, find_refusals
from policies import make_policy

TENANTS = {"trust-safety": frozenset({"acme"}), "other": frozenset({"globex"})}


def refusals(grants: Grants, **spec: Any) -> list[str]:
    return [str(each) for each in find_refusals(make_policy(**spec), grants)]


@pytest.mark.parametrize("role", ["Policy", "Floor"])
@pytest.mark.parametrize(
    ("scope", "found"),
    [
        pytest.param({"tenant": "globex"}, "tenant 'globex'", id="another's tenant"),
        pytest.param({"tenant": "globex", "surface": "comments"}, "tenant 'globex'", id="a part of it"),
        pytest.param({"surface": "comments"}, "all tenants", id="a surface of all"),
        pytest.param({}, "all tenants", id="everybody"),
    ],
)
def test_who_speaks_for_one_tenant_binds_no_other_by_a_policy_or_a_floor(
    role: str, scope: dict[str, str], found: str
) -> None:
    [refusal] = refusals(Grants(tenants=TENANTS), role=role, scope=scope)

    said = f"NotGranted: namespace trust-safety may not bind {found}; it was granted acme"
    assert refusal == f"spec.scope.tenant: {said}"


@pytest.mark.parametrize("role", ["Policy", "Floor"])
@pytest.mark.parametrize(
    ("granted", "scope"),
    [
        pytest.param({"acme"}, {"tenant": "acme"}, id="its tenant"),
        pytest.param({"acme"}, {"tenant": "acme", "surface": "comments"}, id="a part of it"),
        pytest.param({"*"}, {"tenant": "globex"}, id="any tenant"),
        pytest.param({"*"}, {}, id="all of them"),
    ],
)
def test_a_namespace_binds_the_tenants_that_it_was_granted(role: str, granted: set[str], scope: dict[str, str]) -> None:
    grants = Grants(tenants={"trust-safety": frozenset(granted)})

    assert refusals(grants, role=role, scope=scope) == []


@pytest.mark.parametrize("role", ["Policy", "Floor"])
def test_a_namespace_without_a_grant_binds_nobody_once_there_are_grants(role: str) -> None:
    [refusal] = refusals(Grants(tenants={"other": frozenset({"*"})}), role=role, scope={"tenant": "acme"})

    assert refusal.endswith("it was granted none")
    assert refusals(Grants(), role=role, scope={"tenant": "acme"}) == []


@pytest.mark.parametrize("scope", [{}, {"tenant": "globex"}], ids=["all tenants", "another's tenant"])
def test_where_floors_have_namespaces_of_their_own_those_bind_any_tenant_by_floors_alone(scope: dict[str, str]) -> None:
    law = Grants(tenants=TENANTS, floor_namespaces=frozenset({"trust-safety"}))
    elsewhere = Grants(tenants=TENANTS, floor_namespaces=frozenset({"law"}))

    assert refusals(law, role="Floor", scope=scope) == []
    assert [each.partition(":")[0] for each in refusals(law, scope=scope)] == ["spec.scope.tenant"]
    assert refusals(elsewhere, role="Floor", scope=scope) == ["spec.role: NotGranted: floors count only in law"]
