"""How long batches take is learnt from them, also where it is a staircase, noisy, or slow at first."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from baleen_sidecar.flow.batch_time import FORGOTTEN_AFTER, GROWTH, LATEST, BatchTime

sizes = st.integers(1, 512)
seconds = st.floats(1e-6, 60)


def taught(*batches: tuple[int, float]) -> BatchTime:
    time = BatchTime()
    for units, took in batches:
        time.observe(units, took)
    return time


def test_nothing_is_known_before_the_first_batch():
    assert (BatchTime().known_units, BatchTime().seconds(8)) == (0, 0.0)


@given(st.lists(st.tuples(sizes, seconds), min_size=1, max_size=200))
def test_no_time_is_negative_and_more_work_never_takes_less(batches):
    time = taught(*batches)

    assert 0 <= time.seconds(1) <= time.seconds(2) <= time.seconds(4096)
    assert 1 <= time.known_units <= 512
    assert time.largest(-1.0) == 0.0


@given(
    fixed=st.floats(0.001, 0.1),
    each=st.floats(1e-5, 0.01),
    batches=st.lists(sizes, min_size=2, max_size=60).filter(lambda sizes: max(sizes) >= 2 * min(sizes)),
)
def test_a_line_is_found(fixed, each, batches):
    time = taught(*((units, fixed + each * units) for units in batches))

    for units in (min(batches), max(batches)):
        assert abs(time.seconds(units) / (fixed + each * units) - 1) < 0.01


@given(st.lists(sizes, min_size=10, max_size=60), st.floats(0, 1))
def test_a_slow_batch_says_nothing(batches, chance):
    ordinary = [(units, 0.004 + 0.0001 * units) for units in [64] * LATEST + batches]
    place = int(chance * (len(ordinary) - 1))
    slow = [*ordinary, (64, 0.0104), (64, 0.0104)]
    slow.insert(place, (64, 30.0))

    assert taught(*slow).seconds(64) < 0.1


def learn(true_seconds, *, limit: float, batches: int = 300, most: int = 64) -> list[int]:
    """Let there be always more work than a batch takes; return the sizes. `true_seconds` takes their numbers, too."""
    time, sizes = BatchTime(), []
    for number in range(batches):
        units = max(1, int(min(time.largest(limit), GROWTH * time.known_units, most)))
        time.observe(units, true_seconds(units, number))
        sizes.append(units)
    return sizes


def staircase(fixed: float, each: float, width: int):
    """A device that does `width` units at a time."""
    return lambda units: fixed + each * width * -(-units // width)


def find_best(true_seconds, limit: float) -> int:
    return max((units for units in range(1, 65) if true_seconds(units) <= limit), default=1)


def count_late(sizes, true_seconds, limit: float) -> int:
    """Count batches that took too long although a smaller one was possible."""
    return sum(units > 1 and true_seconds(units) > limit for units in sizes)


devices = st.builds(staircase, st.floats(0.0005, 0.045), st.floats(1e-5, 0.02), st.integers(1, 16))


@given(device=devices, slow_first=st.integers(0, 3))
def test_batches_are_never_far_from_the_largest_that_is_quick_enough_and_few_of_them_are_too_slow(device, slow_first):
    """The first batches take a hundred times as long."""
    limit = 0.05
    best = find_best(device, limit)

    sizes = learn(lambda units, number: device(units) * (100 if number < slow_first else 1), limit=limit)
    later = sizes[100:]

    assert min(later) >= best / 3
    assert count_late(later, device, limit) <= len(later) / 6
    # What was forgotten is looked for again by halving, after each 64 batches.
    assert count_late(later, device, 1.25 * limit) <= len(later) / 10


@settings(max_examples=40)
@given(
    device=st.builds(staircase, st.floats(0.0005, 0.03), st.floats(1e-5, 0.02), st.integers(1, 16)),
    seed=st.integers(0, 1 << 32),
)
def test_noise_costs_little_of_that(device, seed):
    limit, chance = 0.05, random.Random(seed)

    def noisy(units: int, number: int) -> float:
        return device(units) * chance.uniform(1, 1.15) * (10 if chance.random() < 0.01 else 1)

    later = learn(noisy, limit=limit)[100:]

    assert sum(later) / len(later) >= find_best(device, limit / 1.15) / 3
    assert count_late(later, device, 1.25 * limit) <= len(later) / 10


@settings(max_examples=40)
@given(
    device=st.builds(staircase, st.floats(0.0005, 0.015), st.floats(1e-5, 0.005), st.integers(1, 16)),
    times=st.floats(1.5, 3),
)
def test_a_device_that_has_become_slower_is_soon_given_less(device, times):
    limit = 0.05

    def slower(units: int) -> float:
        return times * device(units)

    sizes = learn(lambda units, number: slower(units) if number >= 150 else device(units), limit=limit)

    assert count_late(sizes[150:], slower, 1.25 * limit) <= FORGOTTEN_AFTER
    assert count_late(sizes[-50:], slower, 1.25 * limit) <= 5


def test_what_was_learnt_wrongly_is_tried_again():
    time = taught((1, 0.004), (32, 5.0))
    assert time.largest(0.05) < 2

    for _ in range(FORGOTTEN_AFTER + 50):
        time.observe(1, 0.004)

    assert time.largest(0.05) >= GROWTH
