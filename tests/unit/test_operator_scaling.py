"""The laws of the number of gateways, whatever the load does."""

from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.policy_stream import Load
from baleen_operator.plan.scaling import Because, Demand, Pace, Scaling, ScalingRules, ScalingState, demand_of, scale

RULES: Final = ScalingRules()
TICK: Final = 15.0
NOTHING_KNOWN: Final = Demand(unknown=3)

in_bounds = st.integers(RULES.min_replicas, RULES.max_replicas)
loads = st.floats(0, 1000)
demands = st.builds(Demand, in_flight=loads, known=st.integers(0, 20), unknown=st.integers(0, 3))


def known(in_flight: float) -> Demand:
    return Demand(in_flight=in_flight, known=1)


class Fleet:
    """Gateways that are scaled as the law says, one tick after the other."""

    def __init__(self, replicas: int, rules: ScalingRules = RULES) -> None:
        self.rules = rules
        self.replicas = replicas
        self.state = ScalingState()
        self.now = 1000.0
        self.history: list[tuple[float, int]] = []

    def tick(self, demand: Demand, seconds: float = TICK) -> Scaling:
        found = scale(self.state, self.rules, demand, current=self.replicas, now=self.now)
        self.state, self.replicas = found.state, found.replicas
        self.history.append((self.now, self.replicas))
        self.now += seconds
        return found

    def ticks(self, demands: Sequence[Demand]) -> list[int]:
        return [self.tick(demand).replicas for demand in demands]


def test_a_load_that_stays_doubles_the_gateways_every_15_seconds_after_a_minute():
    fleet = Fleet(3)

    assert fleet.ticks([known(1000)] * 9) == [3, 3, 3, 3, 6, 12, 20, 20, 20]


def test_a_load_that_went_takes_a_tenth_of_the_gateways_every_minute_after_five():
    fleet = Fleet(20)
    replicas = fleet.ticks([known(0)] * 120)

    assert replicas[:20] == [20] * 20
    assert replicas[20::4][:17] == [18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 3]


def test_a_peak_that_is_shorter_than_the_window_changes_nothing():
    fleet = Fleet(3)

    assert fleet.ticks([known(0), *[known(1000)] * 3, known(0), *[known(1000)] * 3]) == [3] * 8


def test_a_lull_that_is_shorter_than_the_window_changes_nothing():
    fleet = Fleet(10)

    assert fleet.ticks([known(160), *[known(0)] * 19] * 3) == [10] * 60


def test_a_load_near_what_is_aimed_at_changes_nothing():
    assert Fleet(10).ticks([known(175)] * 30) == [10] * 30
    assert Fleet(10).ticks([known(145)] * 30) == [10] * 30
    assert Fleet(10).ticks([known(177)] * 30)[-1] == 12
    assert Fleet(10).ticks([known(143)] * 30)[-1] == 9


@pytest.mark.parametrize(("current", "wanted"), [(1, 3), (2, 3), (25, 20)])
def test_what_is_out_of_bounds_is_brought_back_at_once_though_nothing_is_known(current: int, wanted: int):
    found = Fleet(current).tick(NOTHING_KNOWN)

    assert (found.replicas, found.because) == (wanted, Because.BOUNDS)


def test_gateways_that_somebody_switched_off_stay_off():
    found = Fleet(0).tick(known(1000))

    assert (found.replicas, found.because) == (0, Because.OFF)


def test_a_change_that_failed_is_tried_again():
    fleet = Fleet(3)
    fleet.ticks([known(1000)] * 4)
    assert fleet.tick(known(1000)).replicas == 6
    fleet.replicas = 3

    assert fleet.tick(known(1000)).replicas == 6


def test_who_takes_over_holds_for_a_whole_window():
    fleet = Fleet(10)
    fleet.ticks([known(0)] * 19)
    fleet.state = ScalingState()

    assert fleet.ticks([known(0)] * 21) == [10] * 20 + [9]


@given(st.integers(1, 40), st.lists(demands, max_size=60), st.floats(1, 60))
def test_the_number_is_never_out_of_bounds(current: int, course: list[Demand], seconds: float):
    fleet = Fleet(current)

    assert all(RULES.min_replicas <= fleet.tick(demand, seconds).replicas <= RULES.max_replicas for demand in course)


@given(in_bounds, st.lists(st.tuples(demands, st.floats(1, 40)), max_size=60))
def test_the_number_grows_and_shrinks_no_faster_than_the_rules_say(current: int, course: list[tuple[Demand, float]]):
    fleet = Fleet(current)
    for demand, seconds in course:
        fleet.tick(demand, seconds)
    for time, replicas in fleet.history:
        for later, then in fleet.history:
            if time <= later < time + RULES.up.period_seconds:
                assert then <= replicas * 2
            if time <= later < time + RULES.down.period_seconds:
                assert then >= replicas - max(1, replicas // 10)


@given(in_bounds, loads, st.floats(1, 60))
def test_a_load_that_stays_moves_the_number_in_one_direction_and_then_no_more(
    current: int, in_flight: float, seconds: float
):
    fleet = Fleet(current)
    replicas = [current, *(fleet.tick(known(in_flight), seconds).replicas for _ in range(200))]

    assert replicas in (sorted(replicas), sorted(replicas, reverse=True))
    # At three seconds or more for each tick it is over by now.
    assert seconds * 200 < 20 * 60 + 300 or len({*replicas[-10:]}) == 1


@given(in_bounds, st.lists(demands, max_size=40), demands, st.floats(0, 500))
def test_more_load_never_means_fewer_gateways(current: int, course: list[Demand], last: Demand, more: float):
    less, greater = Fleet(current), Fleet(current)
    for demand in course:
        less.tick(demand)
        greater.tick(demand)
    higher = Demand(in_flight=last.in_flight + more, known=last.known, unknown=last.unknown)

    assert less.tick(last).replicas <= greater.tick(higher).replicas


@given(in_bounds, st.lists(demands, max_size=40))
def test_nothing_changes_while_no_gateway_says_its_load(current: int, course: list[Demand]):
    fleet = Fleet(current)
    for demand in course:
        fleet.tick(demand)
    before = fleet.replicas

    assert {fleet.tick(NOTHING_KNOWN).replicas for _ in range(30)} == {before}


@given(in_bounds, st.lists(demands, max_size=40))
def test_no_gateway_goes_while_the_load_of_one_is_unknown(current: int, course: list[Demand]):
    fleet = Fleet(current)
    for demand in course:
        fleet.tick(demand)
    before = fleet.replicas

    assert fleet.tick(Demand(known=2, unknown=1)).replicas >= before


@given(in_bounds, st.lists(demands, max_size=40), st.sampled_from([0.0, 5.0, 15.0]))
def test_the_state_stays_small(current: int, course: list[Demand], window: float):
    pace = Pace(percent=100, period_seconds=15, window_seconds=window)
    fleet = Fleet(current, ScalingRules(up=pace, down=pace))
    for demand in course:
        fleet.tick(demand)

    assert len(fleet.state.replicas) <= 4
    assert len(fleet.state.wanted) <= 4


def load(in_flight: int, request_seconds: float, measured_seconds: float) -> Load:
    return Load(in_flight=in_flight, request_seconds=request_seconds, measured_seconds=measured_seconds)


@pytest.mark.parametrize(
    ("before", "after", "demand"),
    [
        pytest.param(load(0, 100, 50), load(0, 160, 60), known(6.0), id="the mean since then"),
        pytest.param(None, load(7, 100, 50), known(7.0), id="new: what it is answering now"),
        pytest.param(load(9, 100, 50), load(2, 1, 3), known(2.0), id="began anew"),
        pytest.param(load(9, 100, 50), load(2, 90, 60), known(0.0), id="nonsense is no load"),
        pytest.param(load(9, 100, 50), load(9, 100, 50), Demand(unknown=1), id="nothing new"),
        pytest.param(load(9, 100, 50), None, Demand(unknown=1), id="no answer"),
    ],
)
def test_what_a_gateway_says_becomes_its_part_of_the_demand(before: Load | None, after: Load | None, demand: Demand):
    assert demand_of({"a": before}, {"a": after}) == demand


def test_the_demand_is_that_of_the_gateways_which_are_there_now():
    found = demand_of(
        {"a": load(0, 0, 0), "gone": load(0, 0, 0)}, {"a": load(0, 20, 10), "b": load(3, 0, 1), "c": None}
    )

    assert found == Demand(in_flight=5.0, known=2, unknown=1)
