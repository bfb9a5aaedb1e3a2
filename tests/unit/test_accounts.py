"""ServiceAccounts that may call: what a file says of them, and what becomes of their tokens."""

import logging
from typing import Any

import pytest

from baleen_core.accounts import Accounts, parse_accounts
from baleen_core.callers import KeyRole, Per, RateLimit
from baleen_core.errors import ClusterError, Forbidden, InvalidError, Unauthenticated, UpstreamError
from baleen_core.priority import Priority
from baleen_sidecar.adapters.account_tokens import AccountTokens
from baleen_sidecar.ports import ServiceAccount

LIMITS = [{"requests": 5, "per": "Second"}]


def entry(**changes: Any) -> dict[str, Any]:
    return {"namespace": "shop", "name": "app", "roles": ["moderate"], **changes}


def test_a_file_says_all_of_an_account() -> None:
    said = entry(tenant="acme", topPriority="High", limits=LIMITS, roles=["review", "moderate"])
    (found,) = parse_accounts({"accounts": [said], "tenants": [{"name": "acme", "limits": LIMITS}]})
    limit = (RateLimit(requests=5, per=Per.SECOND, burst=5),)

    assert found.said == "the ServiceAccount 'shop/app'"
    assert (found.roles, found.tenant) == ({KeyRole.MODERATE, KeyRole.REVIEW}, "acme")
    assert (found.top_priority, found.limits, found.tenant_limits) == (Priority.HIGH, limit, limit)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        pytest.param(entry(namespace="Shop"), "accounts[0].namespace", id="no namespace"),
        pytest.param(entry(name="a/b"), "accounts[0].name", id="no name"),
        pytest.param(entry(name="a" * 254), "accounts[0].name", id="a long name"),
        pytest.param(entry(roles=[]), "accounts[0].roles", id="no roles"),
        pytest.param(entry(token="x"), "accounts[0].token", id="an unknown field"),
    ],
)
def test_an_entry_that_is_wrong_is_named(said: object, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_accounts({"accounts": [said]})

    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    ("document", "field"),
    [({}, "accounts"), ({"accounts": [entry(), entry()]}, "accounts[1].name"), ({"accounts": [], "keys": []}, "keys")],
)
def test_a_file_that_is_wrong_is_refused(document: object, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_accounts(document)

    assert [problem.field for problem in caught.value.problems] == [field]


class Cluster:
    """Knows one token, while it can be asked."""

    def __init__(self) -> None:
        self.is_away = False

    async def authenticate(self, token: str) -> ServiceAccount | None:
        if self.is_away:
            raise ClusterError("create tokenreviews: https://10.0.0.1 did not answer")
        namespace, _, name = token.partition(".")
        return ServiceAccount(namespace=namespace, name=name) if name else None


def knowing(cluster: Cluster, *accounts: Any) -> AccountTokens:
    allowed = Accounts(parse_accounts({"accounts": list(accounts)}))
    return AccountTokens(cluster, lambda: allowed, audience="baleen")


async def test_an_account_that_is_named_may_call_and_another_one_may_not() -> None:
    tokens = knowing(Cluster(), entry())

    assert (await tokens.identify("shop.app", KeyRole.MODERATE)).name == "shop/app"
    with pytest.raises(Forbidden, match="ServiceAccount shop/other is not one of those that may call"):
        await tokens.identify("shop.other", KeyRole.MODERATE)
    with pytest.raises(Unauthenticated, match="for the audience 'baleen'"):
        await tokens.identify("nobody", KeyRole.MODERATE)


async def test_while_nobody_can_be_asked_it_is_said_without_addresses_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    cluster = Cluster()
    tokens = knowing(cluster, entry())
    for cluster.is_away in (True, True, False, True):
        if not cluster.is_away:
            await tokens.identify("shop.app", KeyRole.MODERATE)
            continue
        with pytest.raises(UpstreamError, match=r"^the API server cannot be asked now whose the token is$"):
            await tokens.identify("shop.app", KeyRole.MODERATE)

    assert [record.message for record in caplog.records] == ["nobody can be asked whose tokens are"] * 2
