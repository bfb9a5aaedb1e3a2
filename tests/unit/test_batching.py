"""Who waits for a model, who goes next, with whom, and who is refused; the simulator checks the laws at every event."""

import random
from collections import Counter
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baleen_core.priority import Priority
from baleen_sidecar.flow.batching import (
    BATCH_SECONDS,
    MAX_RETRY_SECONDS,
    SENT_AHEAD_SECONDS,
    Gate,
    Limits,
    Reason,
    Refused,
    Turn,
    retry_after_seconds,
)
from gate_simulation import LIMITS, Simulation, make_entry, staircase

GPU = staircase(0.004, 0.0001, 1)
"""The stand-in `accelerator`: 4 ms and 0.1 ms for each row."""
SATURABLE = staircase(0.0, 0.0025, 1)
"""400 rows a second, however they come."""
STAIRS = staircase(0.01, 0.02, 8)
"""Eight rows cost as much as one, nine as much as sixteen: a line, as which it is taken, is wrong by up to a step."""
DEVICES = {"stub": (SATURABLE, 0.9, 0.02), "gpu": (staircase(0.02, 0.001, 1), 0.9, 0.02), "stairs": (STAIRS, 0.5, 0.1)}
"""Each with how much of its best rate is reached at least, and how much of it may be late."""


def best_rate(seconds_of) -> float:
    """Return the rows a second of the best batches that are quick enough."""
    sizes = [units for units in range(1, 33) if seconds_of(units, 0) <= BATCH_SECONDS]
    return max(units / seconds_of(units, 0) for units in sizes)


def gate_with(*entries, limits=LIMITS) -> Gate:
    """Give a gate where these wait behind a batch of nothing."""
    gate = Gate(limits)
    gate.time.observe(480, GPU(480, 0))
    gate.time.observe(1, GPU(1, 0))
    gate.offer(make_entry(-1), now=0, workers=1)
    gate.next_batch(now=0, workers=1)
    for entry in entries:
        gate.offer(entry, now=0, workers=1)
    return gate


def next_numbers(gate: Gate) -> list[int]:
    """Begin the next batch as soon as it may."""
    turn = gate.next_batch(now=0, workers=1)
    if turn.due_at is not None:
        turn = gate.next_batch(now=turn.due_at, workers=1)
    assert turn.batch is not None
    return [entry.number for entry in turn.batch.entries]


@given(priority=st.sampled_from(Priority), is_video=st.booleans(), late=st.floats(1e-6, 1), known=st.floats(0, 100))
def test_the_only_one_goes_at_once(priority, is_video, late, known):
    """Also where the time is known to be too short: how else would be learnt that the model is quick again?"""
    gate = Gate(LIMITS)
    gate.time.observe(1, known)
    entry = make_entry(1, priority=priority, is_video=is_video, deadline=late)
    gate.offer(entry, now=0, workers=1)
    turn = gate.next_batch(now=0, workers=1)

    assert turn.batch is not None
    assert (turn.batch.entries, turn.dropped) == ([entry], ())


def test_a_batch_leaves_just_before_a_worker_is_free_for_it_and_who_comes_until_then_rides_along():
    gate = gate_with(make_entry(1))
    due = gate.next_batch(now=0, workers=1).due_at

    assert due == pytest.approx(GPU(1, 0) - SENT_AHEAD_SECONDS)
    assert gate.next_batch(now=due - 1e-6, workers=1) == Turn(dropped=(), due_at=due)

    gate.offer(make_entry(2, now=due), now=due, workers=1)

    assert next_numbers(gate) == [1, 2]


def test_batches_that_wait_already_are_waited_for_too():
    limits = replace(LIMITS, batches_in_flight=3)
    gate = gate_with(*(make_entry(number, kind=number) for number in range(2)), limits=limits)

    assert next_numbers(gate) == [0]
    assert gate.next_batch(now=0, workers=1).due_at == pytest.approx(2 * GPU(1, 0) - SENT_AHEAD_SECONDS)
    assert gate.next_batch(now=0, workers=2).due_at == pytest.approx(GPU(1, 0) - SENT_AHEAD_SECONDS)
    assert gate.next_batch(now=0, workers=3).batch is not None


@pytest.mark.parametrize(
    ("waiting", "now"),
    [
        pytest.param(32, 0.0, id="as large as it may be"),
        pytest.param(1, 1.0, id="the one ahead takes longer than expected"),
    ],
)
def test_a_batch_for_which_nothing_is_gained_by_waiting_leaves_at_once(waiting, now):
    gate = gate_with(*(make_entry(number) for number in range(waiting)))
    batch = gate.next_batch(now=now, workers=1).batch

    assert batch is not None
    assert len(batch.entries) == waiting


def test_nobody_waits_for_more_than_the_batch_under_way_and_its_own_while_all_that_waits_fits_into_one():
    chance, now = random.Random(1), 0.0
    simulation = Simulation(GPU)
    for number in range(3000):
        now += chance.expovariate(1000)
        simulation.come(make_entry(number, now=now))
    simulation.run()
    slowest = max(GPU(batch.units, 0) for batch in simulation.batches)
    # Before times are known, batches leave at once.
    waits = [at - simulation.entries[number].since for number, at in simulation.answered.items() if number >= 100]

    assert len(waits) == 2900
    assert max(waits) <= 2 * slowest + SENT_AHEAD_SECONDS


def test_the_more_urgent_goes_first_and_the_less_urgent_rides_along():
    low, high, normal = (
        make_entry(1, priority=Priority.LOW),
        make_entry(2, priority=Priority.HIGH),
        make_entry(3),
    )

    assert next_numbers(gate_with(low, high, normal)) == [2, 3, 1]


def test_nobody_of_a_lower_priority_rides_along_while_a_higher_one_has_to_stay():
    stays = make_entry(2, priority=Priority.HIGH, kind="another")
    gate = gate_with(make_entry(1, priority=Priority.HIGH), stays, make_entry(3))

    assert next_numbers(gate) == [1]
    assert next_numbers(gate_with(make_entry(1), make_entry(2, kind="another"), make_entry(3))) == [1, 3]


def test_a_batch_has_no_more_rows_than_the_model_takes_and_entries_stay_whole():
    gate = gate_with(*(make_entry(number, rows=12) for number in range(3)), make_entry(3, rows=8))

    assert next_numbers(gate) == [0, 1, 3]


def test_a_batch_takes_no_more_than_its_share_of_what_is_left_to_the_most_pressed():
    patient = [make_entry(number) for number in range(1, 20)]
    pressed = make_entry(0, priority=Priority.HIGH, deadline=0.0201)

    assert len(next_numbers(gate_with(*patient))) == 19
    assert len(next_numbers(gate_with(pressed, *patient))) == 10  # 4 ms + 10 * 0.1 ms, of 20 ms


def test_padding_that_costs_more_than_a_call_is_not_worth_it():
    long = make_entry(1, row_units=60, kind="text")
    short = [make_entry(number, row_units=4, kind="text") for number in range(2, 6)]
    gate = gate_with(long, *short)

    assert next_numbers(gate) == [1]  # 4 of 60 are 24 ms, two batches 10 + 5.6 ms


def test_rows_of_one_length_go_together_however_slow_more_of_them_look():
    gate = Gate(LIMITS)
    for units, seconds in ((1, 0.0001), (10, 0.01)):
        gate.time.observe(units, seconds)
    for number in range(-1, 6):
        gate.offer(make_entry(number), now=0, workers=1)
        if number < 0:
            gate.next_batch(now=0, workers=1)

    assert gate.time.seconds(2) > 2 * gate.time.seconds(1)
    assert next_numbers(gate) == [0, 1, 2, 3, 4, 5]


def test_more_than_twice_of_what_is_known_is_not_tried():
    gate = Gate(LIMITS)
    for number in range(10):
        gate.offer(make_entry(number), now=0, workers=1)
    sizes = []
    while (batch := gate.next_batch(now=0, workers=1).batch) is not None:
        sizes.append(len(batch.entries))
        gate.end(batch, now=0.001, workers=1, answered=True)

    assert sizes == [1, 2, 4, 3]


def test_who_cannot_be_done_in_time_is_refused_when_it_comes():
    gate = gate_with(*(make_entry(number, priority=Priority.HIGH) for number in range(320)))  # ten batches of 7.2 ms
    with pytest.raises(Refused) as refused:
        gate.offer(make_entry(1000, deadline=0.15), now=0, workers=1)

    assert refused.value.reason is Reason.PREDICTED_LATE
    assert 0.07 < refused.value.wait_seconds < 0.09
    assert gate.offer(make_entry(1001, deadline=0.18), now=0, workers=1) == ()
    assert gate.offer(make_entry(1002, deadline=0.03, priority=Priority.CRITICAL), now=0, workers=1) == ()
    assert gate.offer(make_entry(1004, deadline=0.009, priority=Priority.CRITICAL), now=0, workers=1) == ()
    with pytest.raises(Refused):
        gate.offer(make_entry(1005, deadline=0.008, priority=Priority.CRITICAL), now=0, workers=1)
    another = make_entry(1003, deadline=0.03, priority=Priority.HIGH, tenant="another")
    assert gate.offer(another, now=0, workers=1) == ()


def test_work_whose_deadline_has_passed_is_never_done():
    gate = gate_with(make_entry(1, deadline=0.5), make_entry(2))
    with pytest.raises(Refused) as refused:
        gate.offer(make_entry(3, deadline=1.0), now=1.0, workers=1)
    turn = gate.next_batch(now=0.5, workers=1)

    assert refused.value.reason is Reason.DEADLINE_PASSED
    assert turn.batch is not None
    assert [entry.number for entry in turn.batch.entries] == [2]
    assert [(each.entry.number, each.reason) for each in turn.dropped] == [(1, Reason.DEADLINE_PASSED)]


def test_work_that_would_end_late_makes_room_for_what_would_not():
    gate = gate_with(make_entry(1, deadline=0.5), make_entry(2))
    turn = gate.next_batch(now=0.499, workers=1)

    assert turn.batch is not None
    assert [entry.number for entry in turn.batch.entries] == [2]
    assert [each.reason for each in turn.dropped] == [Reason.PREDICTED_LATE]


@pytest.mark.parametrize(
    ("now", "done", "dropped"),
    [
        pytest.param(0.487, [1], [2], id="not in time by itself"),
        pytest.param(0.48585, [1], [], id="not in time together"),
        pytest.param(0.4855, [1, 2], [], id="in time"),
    ],
)
def test_work_that_would_end_just_in_time_has_no_time_for_its_answer(now, done, dropped):
    gate = gate_with(
        make_entry(1, priority=Priority.HIGH), make_entry(2, deadline=0.5)
    )  # both take 4.2 ms, and an answer has 10
    gate.end(gate._under_way[0], now=0.0041, workers=1, answered=True)

    turn = gate.next_batch(now=now, workers=1)

    assert [entry.number for entry in turn.batch.entries] == done
    assert [each.entry.number for each in turn.dropped] == dropped
    assert make_entry(3, now=1.0, deadline=1.1).needed_by == pytest.approx(1.095)


SMALL = Limits(batch_rows=4, queue_rows=4, queue_bytes=100, batches_in_flight=2)


def test_a_full_queue_gives_up_the_least_urgent_and_of_that_the_last_of_whoever_has_most():
    gate = gate_with(
        make_entry(1, priority=Priority.LOW, tenant="one"),
        make_entry(2, priority=Priority.LOW, tenant="many"),
        make_entry(3, priority=Priority.LOW, tenant="many"),
        make_entry(4, tenant="one"),
        limits=SMALL,
    )
    (shed,) = gate.offer(make_entry(5, priority=Priority.CRITICAL), now=0, workers=1)

    assert (shed.entry.number, shed.reason) == (3, Reason.QUEUE_FULL)


def test_in_a_queue_that_one_has_filled_there_is_room_for_others_of_the_same_priority():
    gate = gate_with(*(make_entry(number, tenant="many") for number in range(4)), limits=SMALL)
    (shed,) = gate.offer(make_entry(5, tenant="one"), now=0, workers=1)
    with pytest.raises(Refused) as refused:
        gate.offer(make_entry(6, tenant="many"), now=0, workers=1)

    assert shed.entry.number == 3
    assert refused.value.reason is Reason.QUEUE_FULL
    assert gate.waiting_rows == 4


def test_the_queue_is_bounded_in_bytes_too_and_what_is_larger_than_it_may_wait_alone():
    gate = gate_with(make_entry(1, size_bytes=60), limits=SMALL)
    with pytest.raises(Refused):
        gate.offer(make_entry(2, size_bytes=41), now=0, workers=1)

    assert gate.offer(make_entry(3, size_bytes=40), now=0, workers=1) == ()
    assert gate_with(make_entry(1, size_bytes=101), limits=SMALL).waiting_bytes == 101


def test_when_nothing_would_be_gained_nothing_is_given_up():
    gate = gate_with(make_entry(1, priority=Priority.LOW), make_entry(2), make_entry(3), make_entry(4), limits=SMALL)
    with pytest.raises(Refused):
        gate.offer(make_entry(5, rows=3), now=0, workers=1)

    assert sorted(entry.number for entry in gate.waiting()) == [1, 2, 3, 4]


def test_a_film_leaves_a_place_for_whoever_comes():
    simulation = Simulation(GPU)
    for number in range(10):
        simulation.come(make_entry(number, rows=8, is_video=True))
    simulation.come(make_entry(10, now=0.001))
    simulation.run()

    assert simulation.begun[10] == 0.001
    assert len(simulation.answered) == 11


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_film_neither_starves_nor_takes_more_than_its_share(in_flight):
    simulation = Simulation(SATURABLE, limits=replace(LIMITS, batches_in_flight=in_flight))
    for number in range(4000):
        simulation.come(make_entry(number, now=number * 0.001))
        if number % 10 == 0:
            simulation.come(make_entry(10_000 + number, now=number * 0.001, rows=8, is_video=True))
    simulation.run(until=4)
    rows = simulation.answered_by(lambda entry: entry.is_video, since=1)

    assert 0.15 < rows[True] / rows.total() < 0.35


def offered(
    simulation: Simulation, *, rates: dict[str, float], seconds: float, deadline: float = inf, **fields
) -> None:
    """Let tenants come at random, each at its rate."""
    chance = random.Random(7)
    for tenant, rate in rates.items():
        now = 0.0
        while (now := now + chance.expovariate(rate)) < seconds:
            number = len(simulation.entries)
            simulation.come(make_entry(number, now=now, tenant=tenant, deadline=now + deadline, **fields))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("calm", [0.5, 1.5])
def test_seven_tenants_get_their_share_while_an_eighth_floods(device, calm):
    """`calm` is what each of the seven wants of its eighth of the capacity; one that wants less gets all of it."""
    seconds_of, *_ = DEVICES[device]
    best = best_rate(seconds_of)
    simulation = Simulation(seconds_of)
    rates = {**{f"calm-{number}": calm * best / 8 for number in range(7)}, "flood": 3 * best}
    offered(simulation, rates=rates, seconds=3, deadline=1.0)
    simulation.run(until=3)
    counted = {number: each.tenant for number, each in simulation.entries.items() if 1 <= each.since < 2.5}
    wanted = Counter(counted.values())
    rows = Counter(tenant for number, tenant in counted.items() if number in simulation.answered)

    for tenant in rates:
        if tenant != "flood":
            assert rows[tenant] >= 0.9 * min(rows.total() / 8, wanted[tenant])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("load", "deadline"), [(1.5, 0.3), (6.0, 0.3), (6.0, 60.0)])
def test_in_an_overload_as_much_is_done_in_time_as_could_be(device, load, deadline):
    seconds_of, reached, missed = DEVICES[device]
    best = best_rate(seconds_of)
    simulation = Simulation(seconds_of)
    offered(simulation, rates={"": load * best}, seconds=1.5, deadline=deadline)
    simulation.run(until=1.5)
    # By then it is known how long batches take.
    ends = {number: at for number, at in simulation.answered.items() if at >= 0.5}
    in_time = [number for number, at in ends.items() if at <= simulation.entries[number].deadline]
    late = [number for number, at in ends.items() if at > simulation.entries[number].deadline]

    assert len(in_time) >= reached * best
    assert len(late) <= missed * len(in_time)


def test_in_an_overload_the_most_urgent_are_all_answered():
    simulation = Simulation(SATURABLE)
    offered(simulation, rates={"": 12 * 400}, seconds=3, deadline=1.0)
    offered(simulation, rates={"urgent": 100}, seconds=3, deadline=1.0, priority=Priority.CRITICAL)
    simulation.run()
    urgent = {n for n, entry in simulation.entries.items() if entry.priority is Priority.CRITICAL}
    in_time = {
        n for n in urgent & simulation.answered.keys() if simulation.answered[n] <= simulation.entries[n].deadline
    }

    assert len(in_time) >= 0.999 * len(urgent)


def test_after_an_overload_everybody_is_answered_again_at_once():
    simulation = Simulation(GPU)
    offered(simulation, rates={"": 20_000}, seconds=0.5, deadline=0.5)
    for number in range(100_000, 100_200):
        now = 1.0 + (number - 100_000) * 0.01
        simulation.come(make_entry(number, now=now, deadline=now + 1.0))
    simulation.run()

    assert all(number in simulation.answered for number in range(100_000, 100_200))


def test_a_model_that_was_slow_at_first_is_found_to_be_quick():
    simulation = Simulation(lambda units, count: 1.0 if count < 3 else GPU(units, count))
    offered(simulation, rates={"": 300}, seconds=5, deadline=0.5)
    simulation.run()
    late = [entry for n, entry in simulation.entries.items() if entry.since > 3.2 and n not in simulation.answered]

    assert len(late) <= 10


def test_in_a_model_that_hangs_nobody_waits_who_cannot():
    simulation = Simulation(lambda units, count: 10.0 if count in (50, 51) else GPU(units, count))
    offered(simulation, rates={"": 500}, seconds=5, deadline=0.5)
    simulation.run()

    assert Counter(simulation.turned_away.values())[Reason.PREDICTED_LATE] > 1000


entries = st.lists(
    st.fixed_dictionaries(
        {
            "now": st.floats(0, 2),
            "rows": st.integers(1, 8),
            "row_units": st.sampled_from([1, 10, 30, 400]),
            "kind": st.sampled_from(["image", 4, 5, 9]),
            "size_bytes": st.integers(0, 400),
            "tenant": st.sampled_from("abc"),
            "priority": st.sampled_from(Priority),
            "is_video": st.booleans(),
        }
    ),
    max_size=60,
)


@settings(deadline=None)
@given(
    given_entries=entries,
    patience=st.lists(st.one_of(st.just(inf), st.floats(0.001, 2)), min_size=60, max_size=60),
    given_up=st.lists(st.tuples(st.integers(0, 59), st.floats(0, 4))),
    durations=st.lists(st.floats(0.0001, 1), min_size=1, max_size=10),
    workers=st.integers(1, 3),
    in_flight=st.integers(1, 3),
    queue_rows=st.integers(1, 40),
    queue_bytes=st.integers(100, 2000),
)
def test_whatever_comes_and_goes_nothing_is_lost_or_left(
    given_entries, patience, given_up, durations, workers, in_flight, queue_rows, queue_bytes
):
    """Of any lengths, priorities, lanes and deadlines, given up at any moment, whatever time batches take."""
    limits = Limits(batch_rows=8, queue_rows=queue_rows, queue_bytes=queue_bytes, batches_in_flight=in_flight)
    simulation = Simulation(
        lambda units, count: durations[count % len(durations)], limits=limits, workers=workers, thorough=True
    )
    for number, fields in enumerate(given_entries):
        simulation.come(make_entry(number, deadline=fields["now"] + patience[number], **fields))
    for number, later in given_up:
        if number < len(given_entries):
            simulation.cancel(number, given_entries[number]["now"] + later)
    simulation.run()
    ends = (simulation.answered.keys(), simulation.turned_away.keys(), simulation.cancelled)

    assert sorted(number for end in ends for number in end) == list(range(len(given_entries)))
    assert (simulation.gate.waiting_rows, simulation.gate.waiting_bytes, simulation.gate.under_way) == (0, 0, 0)
    for batch in simulation.batches:
        assert len({entry.kind for entry in batch.entries}) == 1
        assert len({entry.is_video for entry in batch.entries}) == 1
        assert sum(entry.rows for entry in batch.entries) <= limits.batch_rows


@given(st.floats(0, 1000), st.floats(0, 1))
def test_callers_are_asked_to_come_again_at_different_times(wait, chance):
    assert 1 <= retry_after_seconds(wait, chance) <= MAX_RETRY_SECONDS
    assert retry_after_seconds(wait, chance) >= min(wait, MAX_RETRY_SECONDS)
    assert {retry_after_seconds(0.01, tenth / 10) for tenth in range(11)} == {1, 2, 3}
