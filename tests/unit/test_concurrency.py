"""How much is in flight: the mean between two looks is exact, however many came and went."""

import pytest

from baleen_sidecar.flow.concurrency import Concurrency


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_growth_of_request_seconds_is_the_mean_in_flight():
    clock = Clock()
    counted = Concurrency(clock)
    clock.now = 110
    assert (counted.in_flight, counted.request_seconds, counted.measured_seconds) == (0, 0, 10)
    counted.enter()
    clock.now = 112
    counted.enter()
    clock.now = 115
    counted.leave()
    clock.now = 120

    # Two seconds of one, three of two, five of one, in twenty seconds.
    assert counted.in_flight == 1
    assert counted.request_seconds == pytest.approx(2 + 6 + 5)
    assert counted.measured_seconds == 20
