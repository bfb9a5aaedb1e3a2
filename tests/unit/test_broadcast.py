"""Telling many readers what changes: each learns all that it may, and nothing else, at its own pace."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import Problem
from baleen_core.policy.grants import Grants
from baleen_core.policy.lists import read_list
from baleen_core.policy.schema import ListType, Scope
from baleen_core.policy_stream import AnyMessage, Delete, Models, Put, Synced
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.flow.broadcast import SHARED_KEYS, Broadcast, Reader
from policies import CATEGORY
from publishing import publication

GRANTS = Grants(tenants={"shop": frozenset({"acme"}), "platform": frozenset({"*"})})
DECODER = msgspec.json.Decoder(AnyMessage)
BASE = publication("trust-safety").policy
Policies = Mapping[tuple[str, str], PublishedPolicy]


def policy(name: str, epoch: int = 1, tenant: str | None = None) -> PublishedPolicy:
    return replace(BASE, route=replace(BASE.route, name=name, epoch=epoch, scope=Scope(tenant=tenant)))


def state(*policies: PublishedPolicy) -> Policies:
    return {each.key: each for each in policies}


def make_broadcast(grants: Grants = GRANTS) -> Broadcast:
    return Broadcast(grants.may_read, is_shared=not grants.tenants)


def take(broadcast: Broadcast, reader: Reader) -> list[Any]:
    return [DECODER.decode(line) for line in b"".join(broadcast.take(reader)).splitlines()]


class Client:
    """Follows a broadcast as a sidecar does."""

    def __init__(self, broadcast: Broadcast, namespace: str) -> None:
        self.broadcast = broadcast
        self.wakes = 0
        self.reader = broadcast.join(namespace, self.wake)
        self.policies: dict[tuple[str, str], PublishedPolicy] = {}
        self.heard: list[Any] = []

    def wake(self) -> None:
        self.wakes += 1

    def read(self) -> None:
        """Take what there is."""
        for message in take(self.broadcast, self.reader):
            self.heard.append(message)
            match message:
                case Put(policy=found):
                    self.policies[found.key] = found
                case Delete(namespace=namespace, name=name):
                    self.policies.pop((namespace, name), None)


tenants = st.sampled_from([None, "acme", "other"])
states = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 3), tenants), max_size=4)


@given(st.lists(st.tuples(states, st.sets(st.sampled_from(["shop", "platform", "nobody"]))), min_size=1, max_size=8))
def test_whoever_reads_now_and_then_ends_with_all_that_it_may_read_and_hears_of_nothing_else(
    history: list[tuple[dict[str, tuple[int, str | None]], set[str]]],
) -> None:
    broadcast = make_broadcast()
    clients = {namespace: Client(broadcast, namespace) for namespace in ("shop", "platform", "nobody")}
    ever: dict[str, set[str]] = {namespace: set() for namespace in clients}
    for wanted, readers in history:
        policies = state(*(policy(name, epoch, tenant) for name, (epoch, tenant) in wanted.items()))
        broadcast.update(policies, (), ())
        for namespace, names in ever.items():
            names |= {key[1] for key, each in policies.items() if GRANTS.may_read(namespace, each.route.scope)}
        for namespace in readers:
            clients[namespace].read()
    for client in clients.values():
        client.read()

    for namespace, client in clients.items():
        assert client.policies == {
            key: each for key, each in policies.items() if GRANTS.may_read(namespace, each.route.scope)
        }
        heard = {each.policy.key[1] if isinstance(each, Put) else getattr(each, "name", "") for each in client.heard}
        assert heard - {""} <= ever[namespace]


def test_nothing_is_told_before_everything_is_known_and_then_it_ends_with_synced() -> None:
    broadcast = make_broadcast()
    client = Client(broadcast, "platform")
    client.read()

    assert client.heard == []
    broadcast.update(state(policy("a"), policy("b")), ({"kind": "ModelDeployment"},), ())
    client.read()
    assert sorted(type(each).__name__ for each in client.heard) == ["Models", "Put", "Put", "Synced"]
    assert isinstance(client.heard[-1], Synced)


def test_an_edit_is_told_alone_and_once() -> None:
    broadcast = make_broadcast()
    broadcast.update(state(policy("a"), policy("b")), (), ())
    client = Client(broadcast, "platform")
    client.read()
    client.heard.clear()

    broadcast.update(state(policy("a"), policy("b", epoch=2)), (), ())
    client.read()
    client.read()

    assert client.heard == [Put(policy=policy("b", epoch=2)), Synced()]


def test_a_slow_reader_gets_the_latest_state_and_none_of_those_between() -> None:
    broadcast = make_broadcast()
    broadcast.update(state(policy("a")), (), ())
    client = Client(broadcast, "platform")
    client.read()
    client.heard.clear()
    for epoch in range(2, 50):
        broadcast.update(state(policy("a", epoch=epoch)), (), ())
    client.read()

    assert client.heard == [Put(policy=policy("a", epoch=49)), Synced()]


def test_readers_of_one_namespace_share_the_very_same_bytes() -> None:
    broadcast = make_broadcast()
    broadcast.update(state(policy("a")), (), ())
    readers = [broadcast.join("platform", lambda: None) for _ in range(2)]
    for reader in readers:
        list(broadcast.take(reader))
    broadcast.update(state(policy("a", epoch=2)), (), ())
    (one,), (other,) = (list(broadcast.take(reader)) for reader in readers)

    assert one is other


def test_many_changes_at_once_are_told_too() -> None:
    broadcast = make_broadcast()
    broadcast.update({}, (), ())
    client = Client(broadcast, "platform")
    client.read()
    broadcast.update(state(*(policy(f"p{number}") for number in range(SHARED_KEYS * 2))), (), ())
    client.read()

    assert len(client.policies) == SHARED_KEYS * 2


def test_what_comes_while_a_reader_takes_is_told_as_it_is_then_or_next() -> None:
    broadcast = make_broadcast()
    broadcast.update(state(policy("a"), policy("b"), policy("c")), (), ())
    client = Client(broadcast, "platform")
    taking = broadcast.take(client.reader)
    first = next(taking)
    broadcast.update(state(policy("a", epoch=2), policy("b", epoch=2)), (), ())
    for line in (first, *taking):
        match DECODER.decode(line):
            case Put(policy=found):
                client.policies[found.key] = found
    client.read()

    assert client.policies == state(policy("a", epoch=2), policy("b", epoch=2))


def test_a_state_that_says_the_same_wakes_nobody() -> None:
    broadcast = make_broadcast()
    broadcast.update(state(policy("a")), (), ())
    client = Client(broadcast, "platform")
    broadcast.update(state(policy("a")), (), ())

    assert client.wakes == 0


def test_another_tenants_edit_wakes_nobody_of_a_namespace_that_may_not_read_it() -> None:
    broadcast = make_broadcast()
    broadcast.update(state(policy("a", tenant="other")), (), ())
    client = Client(broadcast, "shop")
    client.read()
    broadcast.update(state(policy("a", epoch=2, tenant="other")), (), ())

    assert client.wakes == 0
    assert not any(isinstance(each, Put) for each in client.heard)


@pytest.mark.parametrize(
    ("grants", "told"),
    [
        pytest.param(Grants(), "ModerationRoute other/secret-plan: spec", id="one team sees them as they are"),
        pytest.param(GRANTS, "", id="several teams see that there are some"),
    ],
)
def test_problems_name_no_other_teams_objects(grants: Grants, told: str) -> None:
    broadcast = make_broadcast(grants)
    broadcast.update({}, (), (Problem(field="ModerationRoute other/secret-plan: spec", message="is missing"),))
    client = Client(broadcast, "shop")
    client.read()

    (problem,) = client.heard[-1].problems
    assert problem.field == told
    assert ("secret-plan" in str(problem)) == bool(told)


def test_problems_that_are_over_are_told() -> None:
    broadcast = make_broadcast()
    broadcast.update({}, (), (Problem(field="x", message="y"),))
    client = Client(broadcast, "shop")
    client.read()
    broadcast.update({}, (), ())
    client.read()

    assert client.heard[-1] == Synced()


def test_model_deployments_are_told_whole_when_one_changes() -> None:
    broadcast = make_broadcast()
    broadcast.update({}, ({"spec": 1},), ())
    client = Client(broadcast, "shop")
    client.read()
    broadcast.update({}, ({"spec": 2},), ())
    client.read()

    assert [each for each in client.heard if isinstance(each, Models)] == [
        Models(deployments=({"spec": 1},)),
        Models(deployments=({"spec": 2},)),
    ]


def test_only_lists_that_a_readable_policy_names_are_found() -> None:
    content = {
        "categories": [CATEGORY],
        "lists": [
            {
                "name": "slurs",
                "type": "Terms",
                "action": "Review",
                "source": {"type": "ConfigMap", "name": "slurs", "key": "terms"},
            }
        ],
    }
    slurs = read_list(ListType.TERMS, "idiot\nmoron")
    places = (("other-team", "words"), ("other-team", "more"), ("a-team", "words"))
    found = [publication(*each, content, scope={"tenant": "acme"}, lists={"slurs": slurs}).policy for each in places]
    broadcast = make_broadcast()
    broadcast.update({each.key: each for each in found}, (), ())

    assert broadcast.find_list("shop", slurs.digest) == (("a-team", ListType.TERMS), ("other-team", ListType.TERMS))
    assert broadcast.find_list("nobody", slurs.digest) == ()
    assert broadcast.find_list("shop", "sha256:" + "0" * 64) == ()
    broadcast.update({}, (), ())
    assert broadcast.find_list("shop", slurs.digest) == ()
