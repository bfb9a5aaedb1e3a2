"""How long batches take is learnt from them, also where it is a staircase, noisy, or slow at first."""

from hypothesis import given
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


def learn(true_seconds, *, limit: float, batches: int = 300, most: int = 64, slow_first: int = 0) -> float:
    """Let there be always more work than a batch takes; return the mean of the sizes that the law comes to.

    At a stair it goes a step too far at times, and back for a while.
    """
    time, sizes = BatchTime(), []
    for number in range(batches):
        allowed = min(time.largest(limit), GROWTH * time.known_units, most)
        units = max(1, int(allowed))
        time.observe(units, true_seconds(units) * (100 if number < slow_first else 1))
        sizes.append(units)
    later = sizes[batches // 3 :]
    return sum(later) / len(later)


@given(
    fixed=st.floats(0.0005, 0.045),
    each=st.floats(1e-5, 0.02),
    width=st.integers(1, 16),
    slow_first=st.integers(0, 3),
)
def test_the_size_of_batches_comes_to_a_part_of_the_largest_that_is_quick_enough(fixed, each, width, slow_first):
    """On a device that does `width` at a time, and whose first batches take a hundred times as long."""
    limit = 0.05

    def true_seconds(units: int) -> float:
        return fixed + each * width * -(-units // width)

    best = max((units for units in range(1, 65) if true_seconds(units) <= limit), default=1)
    found = learn(true_seconds, limit=limit, slow_first=slow_first)

    # Of 6,000 devices the worst came to 0.29 of its best.
    assert found >= best / 5
    assert true_seconds(int(found)) <= max(2 * limit, true_seconds(1))


def test_what_was_learnt_wrongly_is_tried_again():
    time = taught((1, 0.004), (32, 5.0))
    assert time.largest(0.05) < 2

    for _ in range(FORGOTTEN_AFTER + 50):
        time.observe(1, 0.004)

    assert time.largest(0.05) >= GROWTH
