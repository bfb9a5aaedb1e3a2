"""Tenants have equal shares of the work; of one tenant the earliest deadline is next."""

from collections import Counter
from dataclasses import dataclass
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.fair_queue import IDLE_KEPT, FairQueue, Pick


@dataclass(frozen=True)
class Some:
    number: int
    tenant: str = ""
    cost: int = 1
    deadline: float = inf


def take_next(queue: FairQueue[Some]) -> Some:
    taken: list[Some] = []

    def take_one(item: Some) -> Pick:
        if taken:
            return Pick.STOP
        taken.append(item)
        return Pick.TAKE

    queue.pull(take_one)
    return taken[0]


def fill(queue: FairQueue[Some], *items: Some) -> None:
    for item in items:
        queue.put(item)


tenants = st.sampled_from("abcd")
items = st.lists(st.tuples(tenants, st.integers(1, 50), st.one_of(st.just(inf), st.floats(0, 100))), max_size=40).map(
    lambda rows: [Some(number, *row) for number, row in enumerate(rows)]
)


def test_the_earliest_deadline_of_a_tenant_is_next_and_of_equals_the_first_that_came():
    queue: FairQueue[Some] = FairQueue()
    fill(queue, Some(1), Some(2, deadline=9), Some(3, deadline=5), Some(4, deadline=9))

    assert [take_next(queue).number for _ in range(4)] == [3, 2, 4, 1]


def test_who_floods_waits_behind_itself():
    queue: FairQueue[Some] = FairQueue()
    fill(queue, *(Some(number, "flood") for number in range(100)), Some(100, "calm"), Some(101, "calm"))

    assert [take_next(queue).tenant for _ in range(6)].count("calm") == 2


def test_who_had_nothing_to_do_has_saved_up_nothing():
    queue: FairQueue[Some] = FairQueue()
    fill(queue, *(Some(number, "a") for number in range(50)), Some(50, "b"))
    for _ in range(20):
        take_next(queue)
    fill(queue, *(Some(number, "b") for number in range(60, 90)))
    counts = Counter(take_next(queue).tenant for _ in range(20))

    assert counts == {"a": 10, "b": 10}


def test_what_is_dropped_or_removed_costs_its_tenant_nothing():
    queue: FairQueue[Some] = FairQueue()
    gone = [Some(number, "a", cost=1000) for number in range(3)]
    fill(queue, *gone, Some(10, "a"), Some(11, "b", cost=2), Some(12, "a"), Some(13, "b"))
    queue.remove(gone[0])
    queue.pull(lambda item: Pick.DROP if item.cost == 1000 else Pick.LEAVE)

    assert [take_next(queue).tenant for _ in range(4)] == ["a", "b", "a", "b"]
    assert len(queue) == queue.cost == 0


def test_tenants_that_come_once_are_not_kept_for_ever():
    queue: FairQueue[Some] = FairQueue()
    fill(queue, Some(0, "stays"), Some(1, "stays"))
    for number in range(2, 2 * IDLE_KEPT):
        queue.put(Some(number, f"tenant-{number}"))
        queue.pull(lambda item: Pick.TAKE if item.tenant != "stays" else Pick.LEAVE)

    assert len(queue) == 2
    assert len(queue._idle) <= IDLE_KEPT


@given(items)
def test_everything_comes_out_once(given_items):
    queue: FairQueue[Some] = FairQueue()
    fill(queue, *given_items)
    taken = [take_next(queue) for _ in given_items]

    assert sorted(item.number for item in taken) == [item.number for item in given_items]
    assert (len(queue), queue.cost, list(queue), queue.longest()) == (0, 0, [], None)


@given(items, st.integers(0, 40))
def test_shares_differ_by_no_more_than_the_largest_items(given_items, take):
    """Goyal, Vin and Cheng, theorem 1: while two tenants both wait, neither gets ahead by more than that."""
    queue: FairQueue[Some] = FairQueue()
    fill(queue, *given_items)
    waiting = Counter(item.tenant for item in given_items)
    largest = max((item.cost for item in given_items), default=0)
    done: Counter[str] = Counter(dict.fromkeys(waiting, 0))
    for _ in range(min(take, len(given_items))):
        item = take_next(queue)
        done[item.tenant] += item.cost
        waiting[item.tenant] -= 1
        busy = [done[tenant] for tenant, left in waiting.items() if left]
        assert not busy or max(busy) - min(busy) <= 2 * largest


@given(items, tenants, st.integers(1, 50))
def test_what_goes_before_an_item_is_known_before_it_comes(given_items, tenant, cost):
    queue: FairQueue[Some] = FairQueue()
    fill(queue, *given_items)
    late = Some(1000, tenant, cost)
    expected = queue.ahead(late)
    queue.put(late)
    before = 0
    while (item := take_next(queue)).number != late.number:
        before += item.cost

    largest = max((item.cost for item in given_items), default=0)
    assert abs(before - expected) <= 4 * max(largest, cost)
