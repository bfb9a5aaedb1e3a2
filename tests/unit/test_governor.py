"""The governor: levels go up with use and come down after it, and the critical always enters."""

import asyncio
import math
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baleen_core.errors import Overloaded
from baleen_core.priority import Priority
from baleen_sidecar.flow.governor import LEVELS, Admission, Bounds, GovernorRules, Throttle, for_work, next_throttle
from baleen_sidecar.ports import Usage
from baleen_sidecar.usecases.govern import Gathering, Governor

LOW, NORMAL, HIGH, CRITICAL = Priority
ENTER, WAIT, REFUSE = Admission
RULES = GovernorRules()
AT_ONCE = GovernorRules(smoothing_seconds=1e-9, settle_seconds=0.0)
percents = st.floats(0, 200)
looks = st.lists(st.tuples(st.floats(0.01, 10), percents, st.floats(0, 100)), max_size=20)


def follow(rules: GovernorRules, seen: list[tuple[float, float, float]]) -> list[Throttle]:
    throttles, now = [Throttle()], 100.0
    for pause, cpu, memory in seen:
        now += pause
        throttles.append(next_throttle(throttles[-1], rules, cpu_percent=cpu, memory_percent=memory, now=now))
    return throttles


@pytest.mark.parametrize(
    ("level", "admissions"),
    [
        (0.0, [ENTER, ENTER, ENTER, ENTER]),
        (0.3, [REFUSE, ENTER, ENTER, ENTER]),
        (0.5, [REFUSE, REFUSE, ENTER, ENTER]),
        (0.8, [WAIT, WAIT, WAIT, ENTER]),
        (1.0, [REFUSE, REFUSE, REFUSE, ENTER]),
    ],
)
def test_who_enters_at_each_level(level, admissions):
    throttle = Throttle(step=LEVELS.index(level))

    assert [throttle.admission(priority) for priority in Priority] == admissions
    assert throttle.sheds == (level == 1.0)
    assert throttle.should_throttle == (level > 0)


@given(step=st.integers(0, 4))
def test_who_is_less_urgent_is_never_better_off(step):
    order = [REFUSE, WAIT, ENTER]
    ranks = [order.index(Throttle(step=step).admission(priority)) for priority in Priority]

    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("cpu", "memory", "level"),
    [
        pytest.param(70, 75, 0.0, id="at both bounds"),
        pytest.param(70.1, 0, 0.3, id="cpu above its bound"),
        pytest.param(0, 75.1, 0.3, id="memory above its bound"),
        pytest.param(77, 0, 0.5, id="a third of the way"),
        pytest.param(84, 0, 0.8, id="two thirds"),
        pytest.param(90, 0, 0.8, id="at the bound of shedding"),
        pytest.param(90.1, 0, 1.0, id="above it"),
        pytest.param(200, 10, 1.0, id="more than there is"),
        pytest.param(71, 96, 1.0, id="the worse of the two counts"),
    ],
)
def test_the_level_goes_up_with_use_at_once(cpu, memory, level):
    assert follow(AT_ONCE, [(1, 0, 0), (1, cpu, memory)])[-1].level == level


@given(seen=looks)
def test_the_level_is_up_whenever_use_is_above_a_bound_and_comes_down_a_step_at_a_time(seen):
    for before, after in pairwise(follow(RULES, seen)):
        assert after.step >= max(RULES.cpu.step(after.cpu_percent), RULES.memory.step(after.memory_percent))
        assert after.step >= before.step - 1
        if after.step < before.step:
            assert after.measured - before.since >= RULES.settle_seconds


@given(seen=looks, cpu=st.floats(0, 64.9), memory=st.floats(0, 70))  # a mean comes to 65 % only in the end
def test_what_has_room_again_lets_everybody_in_soon(seen, cpu, memory):
    throttles = follow(RULES, [*seen, *[(0.5, cpu, memory)] * 60])

    assert throttles[-1].level == 0.0


@given(seen=looks, cpu=percents, memory=st.floats(0, 100))
def test_use_that_does_not_change_ends_in_a_level_that_does_not_change(seen, cpu, memory):
    levels = [each.level for each in follow(RULES, [*seen, *[(0.5, cpu, memory)] * 80])]

    assert len(set(levels[-10:])) == 1


def test_a_short_burst_changes_nothing_and_the_first_look_is_no_burst():
    assert [each.level for each in follow(RULES, [(1, 100, 10), (0.5, 100, 10), (0.5, 5, 10), (0.5, 5, 10)])] == [
        0.0
    ] * 5


@pytest.mark.parametrize("demand", [1.1, 1.5, 3.0])
@pytest.mark.parametrize("priority", [LOW, NORMAL, HIGH])
def test_requests_of_one_priority_that_are_too_many_keep_the_cpu_near_the_bounds_and_not_idle(demand, priority):
    """What would swing between all and nothing settles where most of the CPU is used, and does not starve callers."""
    throttle, now, used, waiting = Throttle(), 0.0, [], 0.0
    for _ in range(400):
        admission = throttle.admission(priority)
        offered = demand * 50.0 + (waiting if admission is ENTER else 0.0)
        if admission is ENTER:
            cpu, waiting = min(offered, 100.0), 0.0
        else:
            cpu, waiting = 2.0, (waiting + 25.0 if admission is WAIT else 0.0)
        now += 0.5
        used.append(cpu)
        throttle = next_throttle(throttle, RULES, cpu_percent=cpu, memory_percent=10, now=now)
    mean = sum(used[100:]) / len(used[100:])

    assert (demand * 50 if demand * 50 < 70 else 45) <= mean <= 95


@pytest.mark.parametrize("step", range(5))
def test_steps_are_even_between_the_bounds(step):
    bounds = Bounds(raised=70, shed=91)

    assert bounds.step([70, 77, 84, 91, math.inf][step]) == step


class Resources:
    """Says what a test set."""

    cpu = memory = 0.0

    def read(self) -> Usage:
        return Usage(
            cpu_percent=self.cpu,
            memory_percent=self.memory,
            cpus=1.0,
            memory_bytes=1,
            cpu_source="process",
            memory_source="process",
        )


PERCENT = dict(zip(LEVELS, (10, 76, 83, 90, 99), strict=True))


class Governed:
    """A governor whose level a test sets by memory, which is not smoothed; a look is a second after the last."""

    def __init__(self, limit_waiting: int = 3) -> None:
        self.resources, self.now, self.counted = Resources(), 0.0, []
        self.governor = Governor(
            self.resources,
            rules=RULES,
            monotonic_seconds=lambda: self.now,
            chance=lambda count: b"\xff" * count,
            limit_waiting=limit_waiting,
            count=lambda priority, admission: self.counted.append((priority, admission)),
        )

    def look(self, level: float) -> None:
        self.resources.memory = PERCENT[level]
        while True:
            self.now += 1
            self.governor.look()
            if self.governor.throttle.level == level:
                return

    async def ask(self, name: Priority, log: list[object]) -> None:
        try:
            await self.governor.enter(name)
        except Overloaded:
            log.append((name, "refused"))
        else:
            log.append((name, "entered"))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_at_08_others_wait_and_enter_by_urgency_once_the_level_is_down():
    governed, log = Governed(), []
    governed.look(0.8)
    tasks = [asyncio.create_task(governed.ask(each, log)) for each in (LOW, HIGH, NORMAL, CRITICAL)]
    await settle()

    assert log == [(CRITICAL, "entered")]
    assert governed.governor.waiting == 3
    governed.look(0.5)
    await settle()
    assert log[1:] == [(HIGH, "entered")]
    governed.look(0.0)
    await asyncio.gather(*tasks)
    assert log[2:] == [(NORMAL, "entered"), (LOW, "entered")]
    assert governed.governor.waiting == 0


async def test_the_room_to_wait_is_bounded_and_the_least_urgent_that_came_last_leaves_it():
    governed, log = Governed(limit_waiting=2), []
    governed.look(0.8)
    tasks = [asyncio.create_task(governed.ask(each, log)) for each in (NORMAL, LOW, LOW, HIGH, NORMAL)]
    await settle()

    assert sorted(log) == [(LOW, "refused"), (LOW, "refused"), (NORMAL, "refused")]
    assert governed.governor.waiting == 2
    governed.look(0.0)
    await asyncio.gather(*tasks)
    assert log[3:] == [(HIGH, "entered"), (NORMAL, "entered")]


async def test_at_10_those_who_wait_are_refused_at_once_as_all_who_come():
    governed, log = Governed(), []
    governed.look(0.8)
    waiting = asyncio.create_task(governed.ask(HIGH, log))
    await settle()
    governed.look(1.0)
    await waiting
    await governed.ask(HIGH, log)
    await governed.ask(CRITICAL, log)

    assert log == [(HIGH, "refused"), (HIGH, "refused"), (CRITICAL, "entered")]
    with pytest.raises(Overloaded, match=r"the throttle level is 1, since 0 % of CPU and 99 % of memory") as caught:
        governed.governor.admit(HIGH)
    assert 2 <= caught.value.retry_after_seconds <= 4
    governed.governor.admit(CRITICAL)


async def test_whoever_gives_up_waiting_leaves_nothing_behind():
    governed = Governed()
    governed.look(0.8)
    tasks = [asyncio.create_task(governed.governor.enter(NORMAL)) for _ in range(3)]
    await settle()
    tasks[0].cancel()
    await settle()
    assert governed.governor.waiting == 2
    # One gives up in the very moment at which it is let in.
    governed.look(0.0)
    tasks[1].cancel()
    await asyncio.wait(tasks)

    assert [task.cancelled() for task in tasks] == [True, True, False]
    assert governed.governor.waiting == 0


def admitted(governor: Governor, who: str, count: int, priority: Priority = NORMAL) -> int:
    entered = 0
    for _ in range(count):
        try:
            governor.admit(priority, who)
        except Overloaded:
            continue
        entered += 1
    return entered


def test_while_the_event_loop_is_late_callers_have_equal_shares_of_what_can_be_done():
    governed = Governed()
    governor = governed.governor
    for _ in range(5):
        admitted(governor, "many", 1000)
        admitted(governor, "few", 10)
        governor.adjust(0.1, late_seconds=0.04)

    assert 0 < admitted(governor, "many", 1000) < 200
    assert admitted(governor, "few", 10) == 10
    assert admitted(governor, "urgent", 1000, CRITICAL) == 1000
    assert governed.counted[-1] == (NORMAL, REFUSE)
    with pytest.raises(
        Overloaded, match=r"about \d+ requests a second can be let in .* Normal .* had its share"
    ) as caught:
        governor.admit(NORMAL, "many")
    assert 2 <= caught.value.retry_after_seconds <= 4


def test_an_event_loop_that_is_woken_late_but_has_time_to_rest_keeps_nobody_out():
    governor = Governed().governor
    for _ in range(20):
        assert admitted(governor, "any", 1000) == 1000
        governor.adjust(0.1, late_seconds=0.2, busy_share=0.6)


def test_once_the_event_loop_is_in_time_again_everybody_enters():
    governor = Governed().governor
    admitted(governor, "any", 1000)
    governor.adjust(0.1, late_seconds=1.0)
    while governor.entering_per_second < math.inf:
        admitted(governor, "any", 50)
        governor.adjust(0.1, late_seconds=0.0)

    assert admitted(governor, "any", 1000) == 1000


@pytest.mark.parametrize(
    ("mean", "latest", "busy"),
    [
        pytest.param(65, 65, 1.0, id="at the bound, five points below the levels"),
        pytest.param(65, 90, 2.0, id="where all would be shed"),
        pytest.param(80, 40, 40 / 65, id="it was busy, and is no more"),
        pytest.param(13, 100, 0.2, id="for a moment only"),
    ],
)
def test_cpu_is_too_much_when_it_was_lately_and_is_now(mean, latest, busy):
    assert RULES.busy(Throttle(cpu_percent=mean), latest) == pytest.approx(busy)


@given(used=st.floats(0, 100), refusing=st.floats(0, 100), more=st.floats(0, 100))
def test_what_goes_into_refusals_is_left_out_of_account(used, refusing, more):
    share = for_work(used, min(refusing, used))

    assert for_work(used, 0.0) == pytest.approx(used)
    assert 0.0 <= share <= used + 1e-9 or used == 100.0
    assert for_work(min(100.0, used + more), min(refusing, used)) >= share
    assert for_work(100.0, refusing) == pytest.approx(100.0)


def test_levels_go_by_the_cpu_that_refusals_leave() -> None:
    governed = Governed()
    governor, governed.resources.cpu = governed.governor, 92.0
    for _ in range(20):
        governed.now += 1.0
        governor.spend(0.5)
        governor.look()
    assert governor.throttle.level == 0.8  # 42 of 50

    for _ in range(20):
        governed.now += 1.0
        governor.look()
    assert governor.throttle.level == 1.0


@pytest.mark.parametrize("demand", [1.1, 2.0, 4.0])
def test_too_many_requests_of_one_priority_are_let_in_by_part_before_a_level_keeps_them_all_out(demand):
    """A request that is let in takes ten times the CPU of one that is refused; all together they take `demand`."""
    governed, levels, used, cpu = Governed(), [], [], 0.0
    governor = governed.governor
    offered = round(1000 * demand)
    for _ in range(120):
        entered = 0
        for _ in range(5):
            entered += admitted(governor, "any", offered // 5)
            governor.adjust(0.2, late_seconds=0.05 if cpu > 100 else 0.0)
        cpu = (entered + 0.1 * (offered - entered)) / 10
        governed.resources.cpu = min(100.0, cpu)
        governed.now += 0.5
        governor.look()
        levels.append(governor.throttle.level)
        used.append(cpu)

    assert 50 < sum(used[20:]) / len(used[20:]) < 70
    assert set(levels) == {0.0}


@pytest.mark.parametrize(
    ("busy", "is_limited"),
    [
        pytest.param(lambda instant: instant, True, id="always busy"),
        pytest.param(lambda instant: None, True, id="nobody knows how busy"),
        pytest.param(lambda instant: instant / 2, False, id="idle for half of the time"),
    ],
)
async def test_a_late_event_loop_is_noticed(busy, is_limited):
    now, parts = 0.0, 0

    def monotonic_seconds():
        nonlocal now
        now += 0.05
        return now

    def busy_seconds():
        nonlocal parts
        parts += 1
        return busy(now)

    governor = Governor(
        Resources(),
        rules=RULES,
        monotonic_seconds=monotonic_seconds,
        chance=lambda count: bytes(count),
        busy_seconds=busy_seconds,
    )
    running = asyncio.create_task(governor.run())
    while parts < 6:
        admitted(governor, "any", 10)
        await asyncio.sleep(0)
    running.cancel()

    assert (governor.entering_per_second < math.inf) == is_limited


def test_work_that_nobody_waits_for_is_not_done_while_anything_is_short():
    governed = Governed()
    governed.governor.admit_optional()
    governed.look(0.3)

    with pytest.raises(Overloaded, match="what no decision waits for"):
        governed.governor.admit_optional()


@settings(max_examples=30)
@given(steps=st.lists(st.tuples(st.sampled_from(LEVELS), st.lists(st.sampled_from(Priority), max_size=4)), max_size=5))
def test_whatever_comes_the_critical_enters_at_once_and_nobody_is_lost(steps):
    async def run() -> None:
        governed, asked, log = Governed(), 0, []
        tasks = []
        for level, priorities in steps:
            governed.look(level)
            before = len(log)
            for each in priorities:
                tasks.append(asyncio.create_task(governed.ask(each, log)))
                asked += 1
            await settle()
            assert log[before:].count((CRITICAL, "entered")) == priorities.count(CRITICAL)
            assert (CRITICAL, "refused") not in log
            assert governed.governor.waiting == asked - len(log) <= 3
        governed.look(0.0)
        await asyncio.gather(*tasks)
        assert len(log) == asked

    asyncio.run(run())


async def test_what_comes_within_a_turn_is_taken_together_and_a_long_turn_waits_for_nothing() -> None:
    now, slept = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(round(seconds, 6))
        now += seconds

    gathering = Gathering(lambda: now, turn_seconds=0.001, sleep=sleep)
    gathering.keep(True)
    gathering.keep(True)
    for took in (0.0002, 0.0, 0.004, 0.0005):
        now += took
        await asyncio.sleep(0)
    assert slept == [0.0008, 0.001, 0.0005]

    gathering.keep(False)
    await asyncio.sleep(0)
    assert len(slept) == 3


class Noted(Gathering):
    """Remembers when it was turned on and off."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0, sleep=lambda seconds: None)
        self.kept: list[bool] = []

    def keep(self, is_on: bool) -> None:
        if self.kept[-1:] != [is_on]:
            self.kept.append(is_on)
        super().keep(is_on)


async def test_turns_begin_with_a_limited_entrance_and_end_with_the_governor() -> None:
    noted, governed = Noted(), Governed()
    governor = Governor(
        governed.resources,
        rules=AT_ONCE,
        monotonic_seconds=time.monotonic,
        chance=bytes,
        busy_seconds=time.monotonic,
        gathering=noted,
    )
    running = asyncio.create_task(governor.run())
    until = time.monotonic() + 30
    while True not in noted.kept and time.monotonic() < until:
        governor.admit(CRITICAL)
        governed.resources.cpu = 100.0
        await asyncio.sleep(0.01)
        admitted(governor, "any", 1000)
    running.cancel()
    await asyncio.wait([running])

    assert noted.kept == [False, True, False]
