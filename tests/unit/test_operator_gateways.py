"""Who enforces what: gateways and the sidecars behind them, counted, and found by EndpointSlices."""

from typing import Any

import jsonschema_rs
import pytest
from msgspec import structs

from baleen_core.policy_stream import MAX_STALE, Enforced, Sidecars, TrialCounts
from baleen_operator.adapters.gateways import KnownGateway, addresses, count, differing, trials
from baleen_operator.reconcile.ports import Acknowledged
from crd_samples import read_crds, schema_of

DIGEST = "sha256:" + "0" * 64


def gateway(name: str, policy: Enforced | None, *, failures: int = 0) -> KnownGateway:
    return KnownGateway(replica=name, policies={"n/p": policy} if policy else {}, failures=failures, asked=True)


def enforced(epoch: int, pending: str = "", sidecars: Sidecars | None = None) -> Enforced:
    return Enforced(epoch=epoch, digest=DIGEST, pending=pending, sidecars=sidecars or Sidecars())


FOLLOWERS = Sidecars(total=3, current=2, stale=("pod-c",))


@pytest.mark.parametrize(
    ("gateways", "expected"),
    [
        pytest.param([], Acknowledged(), id="none is known"),
        pytest.param([gateway("g", enforced(4))], Acknowledged(total=1, current=1), id="has it"),
        pytest.param([gateway("g", enforced(5))], Acknowledged(total=1, current=1), id="has a later one"),
        pytest.param([gateway("g", enforced(3))], Acknowledged(total=1, stale=("g",)), id="has an earlier one"),
        pytest.param([gateway("g", enforced(4, "a list")), gateway("h", enforced(4))],
                     Acknowledged(total=2, current=1, stale=("g",)), id="one lacks something"),
        pytest.param([gateway("g", None)], Acknowledged(total=1, stale=("g",)), id="does not know the policy"),
        pytest.param([gateway("g", enforced(4), failures=2)], Acknowledged(total=1, stale=("g",)), id="silent"),
        pytest.param([gateway("g", enforced(4), failures=1)], Acknowledged(total=1, current=1), id="one lost answer"),
        pytest.param([KnownGateway(replica="g")], Acknowledged(total=1, stale=("g",)), id="was not asked yet"),
        pytest.param([gateway("g", enforced(4, sidecars=FOLLOWERS))],
                     Acknowledged(total=4, current=3, stale=("pod-c",)), id="sidecars count, too"),
        pytest.param([gateway("g", enforced(3, sidecars=FOLLOWERS))],
                     Acknowledged(total=4, stale=("g", "pod-c")), id="sidecars of one that is behind are behind"),
    ],
)  # fmt: skip
def test_who_adopted_an_epoch_is_counted(gateways: list[KnownGateway], expected: Acknowledged):
    assert count(gateways, "n/p", 4) == expected


def test_only_so_many_names_are_given():
    found = count([gateway(f"g{number:02}", None) for number in range(30)], "n/p", 1)

    assert found.total == 30
    assert found.stale == tuple(f"g{number:02}" for number in range(MAX_STALE))


@pytest.mark.parametrize(
    ("replica", "sidecar"),
    [
        pytest.param("g", f"{'n' * 63}/{'p' * 253}", id="a sidecar in the longest namespace"),
        pytest.param("g" * 300, "n/p", id="a gateway that calls itself so"),
    ],
)
def test_names_fit_into_the_status_of_a_policy(replica: str, sidecar: str):
    behind = Sidecars(total=1, current=0, stale=(sidecar,))
    stale = count([gateway(replica, enforced(3, sidecars=behind))], "n/p", 4).stale
    status = schema_of(read_crds()["ModerationPolicy"])["properties"]["status"]
    names = status["properties"]["convergence"]["properties"]["stale"]

    assert len(stale) == 2
    assert jsonschema_rs.validator_for(names).is_valid(list(stale))
    assert all(name in (replica, sidecar) or name.endswith("…") for name in stale)


def slice_of(*endpoints: Any) -> Any:
    return {"endpoints": list(endpoints)}


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        pytest.param([slice_of({"addresses": ["10.0.0.1"], "targetRef": {"name": "pod-a"}})],
                     {"http://10.0.0.1:8081": "pod-a"}, id="a pod"),
        pytest.param([slice_of({"addresses": ["fd00::1"]})], {"http://[fd00::1]:8081": "fd00::1"}, id="IPv6"),
        pytest.param([slice_of({"addresses": ["10.0.0.1"], "conditions": {"ready": False}})], {}, id="not ready"),
        pytest.param([slice_of({"addresses": ["10.0.0.1"], "conditions": {"ready": True, "terminating": True}})],
                     {}, id="on its way out"),
        pytest.param([slice_of({"addresses": ["10.0.0.1"]}), slice_of({"addresses": ["10.0.0.1"]})],
                     {"http://10.0.0.1:8081": "10.0.0.1"}, id="in two slices"),
        pytest.param([{"endpoints": None}, {}], {}, id="no endpoints"),
    ],
)  # fmt: skip
def test_gateways_are_found_by_endpoint_slices(slices: list[Any], expected: dict[str, str]):
    assert addresses(slices, 8081) == expected


def test_what_differs_between_two_answers_is_what_came_went_or_changed():
    before = {"n/a": enforced(1), "n/b": enforced(1), "n/c": enforced(1)}
    after = {"n/a": enforced(1), "n/b": enforced(2), "n/d": enforced(1)}

    assert differing(before, after) == {"n/b", "n/c", "n/d"}


def counted(*flips: int, rollout: str = "r", process: str = "p") -> TrialCounts:
    """Counts whose first places are these."""
    return TrialCounts(
        stable="a",
        candidate="b",
        rollout=rollout,
        process=process,
        flips=(*flips, *(0 for _ in range(576 - len(flips)))),
        cohorts={"Stable": sum(flips)},
    )


def trying(counts: TrialCounts | None) -> Enforced:
    return structs.replace(enforced(1), trial=counts)


def test_counts_of_a_rollout_are_those_of_the_gateways_that_answer_and_judge_by_it():
    some, others = counted(3), counted(0, 4)
    gateways = [
        gateway("g", trying(some)),
        gateway("h", trying(others), failures=1),
        gateway("silent", trying(counted(9)), failures=2),
        gateway("behind", trying(None)),
        gateway("knows nothing of it", None),
        gateway("another", trying(counted(9, rollout="another"))),
    ]

    assert trials(gateways, "n/p", "r") == {"g": some, "h": others}


def test_a_gateway_that_calls_itself_as_another_one_hides_nothing_of_it():
    one, other = counted(3), counted(0, 4)

    found = trials([gateway("g", trying(one)), gateway("g", trying(other))], "n/p", "r")

    assert list(found.values()) == [one, other]


def test_a_policy_does_not_differ_by_what_is_counted_of_it_which_changes_all_the_time():
    assert differing({"n/p": trying(counted(1))}, {"n/p": trying(counted(2))}) == set()
