"""How far the sidecars are: counts that agree with looking at everybody, whatever the order of events."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from baleen_core.policy.grants import Grants
from baleen_core.policy.schema import Scope
from baleen_core.policy_stream import MAX_STALE, Acknowledged, Enforced, Sidecars
from baleen_sidecar.flow.convergence import Standings

GRANTS = Grants(tenants={"shop": frozenset({"acme"}), "bank": frozenset({"bank"})})
KEY = ("trust-safety", "community")
NAME = "trust-safety/community"


def at(epoch: int, digest: str = "a", pending: str = "") -> Acknowledged:
    return Acknowledged(epoch=epoch, digest=digest, pending=pending)


def everywhere(key: tuple[str, str]) -> Scope:
    return Scope()


def make_standings(*sidecars: str) -> Standings:
    standings = Standings(GRANTS.may_read)
    standings.enforce({KEY: at(2)}, everywhere)
    for sidecar in sidecars:
        standings.connected(sidecar, "shop")
    return standings


def sidecars_of(standings: Standings) -> Sidecars:
    return standings.report()[NAME].sidecars


def test_a_sidecar_is_stale_until_it_acknowledged_what_the_gateway_enforces() -> None:
    standings = make_standings("one")

    assert sidecars_of(standings) == Sidecars(total=1, current=0, stale=("one",))
    standings.acknowledge("one", {KEY: at(1)})
    assert sidecars_of(standings) == Sidecars(total=1, current=0, stale=("one",))
    standings.acknowledge("one", {KEY: at(2)})
    assert sidecars_of(standings) == Sidecars(total=1, current=1)


def test_a_new_epoch_makes_all_stale_and_an_override_does_so_without_one() -> None:
    standings = make_standings("one")
    standings.acknowledge("one", {KEY: at(2)})
    for newer in (at(2, digest="pinned"), at(3)):
        standings.enforce({KEY: newer}, everywhere)

        assert sidecars_of(standings).stale == ("one",)
        standings.acknowledge("one", {KEY: newer})
        assert sidecars_of(standings).stale == ()


def test_a_sidecar_that_lacks_something_is_stale_and_one_that_is_ahead_is_not() -> None:
    standings = make_standings("lacking", "ahead")
    standings.acknowledge("lacking", {KEY: at(2, pending="the list is missing")})
    standings.acknowledge("ahead", {KEY: at(3, digest="newer")})

    assert sidecars_of(standings) == Sidecars(total=2, current=1, stale=("lacking",))


def test_of_a_long_acknowledgement_only_the_beginning_is_kept_and_it_counts_as_stale() -> None:
    standings = make_standings("lacking", "garbled")
    standings.acknowledge("lacking", {KEY: at(2, pending="x" * 1_000_000)})
    standings.acknowledge("garbled", {KEY: at(2, digest="sha256:" + "0" * 1_000_000)})
    kept = [each for sidecar in standings._sidecars.values() for each in sidecar.enforced.values()]

    assert max(len(text) for each in kept for text in (each.digest, each.pending)) <= 200
    assert sidecars_of(standings).stale == ("garbled", "lacking")


def test_a_digest_with_something_behind_it_is_not_the_one_that_is_enforced() -> None:
    standings, digest = make_standings("one"), "sha256:" + "0" * 64
    standings.enforce({KEY: at(2, digest=digest)}, everywhere)
    standings.acknowledge("one", {KEY: at(2, digest=digest + "0")})

    assert sidecars_of(standings).stale == ("one",)


def test_what_a_sidecar_said_is_forgotten_with_its_last_stream() -> None:
    standings = make_standings("one", "one")
    standings.acknowledge("one", {KEY: at(2)})
    standings.disconnected("one")

    assert sidecars_of(standings) == Sidecars(total=1, current=1)
    standings.disconnected("one")
    assert sidecars_of(standings) == Sidecars()
    assert not standings.acknowledge("one", {KEY: at(2)})
    standings.connected("one", "shop")
    assert sidecars_of(standings).stale == ("one",)


def test_at_most_ten_stale_sidecars_are_named_and_all_are_counted() -> None:
    standings = make_standings(*(f"pod-{number}" for number in range(40)))

    found = sidecars_of(standings)

    assert (found.total, found.current, len(found.stale)) == (40, 0, MAX_STALE)


def test_a_policy_that_is_not_published_any_more_has_no_sidecars() -> None:
    standings = make_standings("one")
    standings.enforce({KEY: at(2)}, lambda key: None)

    assert standings.report() == {NAME: Enforced(epoch=2, digest="a")}
    standings.enforce({}, lambda key: None)
    assert standings.report() == {}


keys = st.sampled_from([("ns", "all"), ("ns", "acme"), ("ns", "bank")])
replicas = st.builds(at, st.integers(1, 3), st.sampled_from("ab"), st.sampled_from(["", "lacking"]))
names = st.sampled_from(["shop-1", "shop-2", "bank-1"])
events = st.one_of(
    st.tuples(st.just("connect"), names),
    st.tuples(st.just("leave"), names),
    st.tuples(st.just("acknowledge"), names, st.dictionaries(keys, replicas)),
    st.tuples(st.just("enforce"), st.dictionaries(keys, replicas)),
)


def scope_of(key: tuple[str, str]) -> Scope:
    return Scope(tenant=None if key[1] == "all" else key[1])


@given(st.lists(events, max_size=30))
def test_the_counts_are_those_of_looking_at_every_sidecar(history: list[tuple[Any, ...]]) -> None:
    standings = Standings(GRANTS.may_read)
    own: dict[tuple[str, str], Acknowledged] = {}
    streams: dict[str, int] = {}
    said: dict[str, dict[tuple[str, str], Acknowledged]] = {}
    for what, *arguments in history:
        match what, arguments:
            case "connect", [name]:
                standings.connected(name, name.split("-")[0])
                streams[name] = streams.get(name, 0) + 1
                said.setdefault(name, {})
            case "leave", [name] if streams.get(name):
                standings.disconnected(name)
                streams[name] -= 1
                if not streams[name]:
                    del streams[name], said[name]
            case "acknowledge", [name, policies]:
                assert standings.acknowledge(name, policies) == (name in said)
                if name in said:
                    said[name] |= policies
            case "enforce", [own]:
                standings.enforce(own, scope_of)

    expected = {}
    for key, mine in own.items():
        readers = [name for name in said if GRANTS.may_read(name.split("-")[0], scope_of(key))]
        stale = []
        for name in readers:
            found = said[name].get(key)
            is_current = (
                found
                and not found.pending
                and (found.epoch > mine.epoch or (found.epoch, found.digest) == (mine.epoch, mine.digest))
            )
            if not is_current:
                stale.append(name)
        expected["/".join(key)] = Enforced(
            epoch=mine.epoch,
            digest=mine.digest,
            pending=mine.pending,
            sidecars=Sidecars(total=len(readers), current=len(readers) - len(stale), stale=tuple(sorted(stale))),
        )
    assert standings.report() == expected
