"""A source whose media cannot be read is refused for a while; what is no fault of its own never counts."""

from contextlib import suppress

import pytest

from baleen_core.errors import (
    ContentError,
    DeadlineExceeded,
    FetchError,
    LogUnavailable,
    ModelUnavailable,
    NoPolicy,
    Overloaded,
    SourceUnavailable,
    TooLarge,
    WrongType,
)
from baleen_core.records import Context
from baleen_sidecar.flow.breaker import Manual, State
from baleen_sidecar.ports import Order
from baleen_sidecar.usecases.guard_sources import MAX_SOURCES, GuardSources, source_rules

CAMERA = Context(source="site-7/camera-3")
NAME = "source/site-7/camera-3"
BROKEN = ContentError("broken")


class Setting:
    def __init__(self, threshold=5):
        self.now = 0.0
        self.sources = GuardSources(
            source_rules(threshold), monotonic_seconds=lambda: self.now, chance=lambda count: bytes(count)
        )

    def send(self, error=None, context=CAMERA, times=1):
        for _ in range(times):
            with suppress(type(error) if error else ()), self.sources.watching(context):
                if error is not None:
                    raise error

    def order(self, state, name=NAME):
        return self.sources.order(name, Order(state=state, by="ann", reason="it is being moved", at=1.0))

    @property
    def states(self):
        return {each.name: each.state for each in self.sources.reports()}


@pytest.fixture
def setting():
    return Setting()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(BROKEN, "it could not be read", id="broken"),
        pytest.param(TooLarge("x"), "it was over a limit", id="too large"),
        pytest.param(WrongType("x"), "it was of a type that is not accepted", id="wrong type"),
        pytest.param(FetchError("https://secret.example"), "its address could not be read", id="not there"),
    ],
)
def test_after_five_in_a_row_it_is_refused_by_name_with_the_reason_and_a_time(setting, error, said):
    setting.send(error, times=5)
    with pytest.raises(SourceUnavailable, match=f"the breaker {NAME} is open: 5 in a row failed: {said}") as told:
        setting.send()

    assert told.value.retry_after_seconds >= 1


@pytest.mark.parametrize(
    "error",
    [
        ModelUnavailable("x"),
        NoPolicy("x"),
        LogUnavailable("x"),
        Overloaded("x"),
        DeadlineExceeded("x"),
        KeyboardInterrupt(),
    ],
    ids=["model", "no policy", "log", "overload", "deadline", "given up"],
)
def test_what_is_no_fault_of_the_source_counts_for_nothing(setting, error):
    setting.send(error, times=100)
    setting.send()

    assert setting.states == {}


def test_others_and_the_same_of_another_tenant_go_on(setting):
    setting.send(BROKEN, times=5)
    setting.send(context=Context(source="site-7/camera-4"))
    setting.send(context=Context(source="site-7/camera-3", tenant="acme"))
    setting.send(context=Context())

    assert setting.states == {NAME: State.OPEN}
    others = Context(source="site-7/camera-3", tenant="acme"), Context(source="site-7/camera-4")
    assert [setting.sources.state(each) for each in (CAMERA, *others)] == [State.OPEN, None, None]


def test_after_its_wait_it_is_tried_and_three_that_can_be_read_close_it(setting):
    setting.send(BROKEN, times=5)
    setting.now += 1
    setting.send(times=2)

    assert setting.states == {NAME: State.HALF_OPEN}
    assert setting.sources.state(CAMERA) is State.HALF_OPEN

    setting.send()

    assert State.OPEN not in setting.states.values()


def test_of_many_at_once_three_try_it(setting):
    setting.send(BROKEN, times=5)
    setting.now += 1
    trials = [setting.sources.watching(CAMERA) for _ in range(3)]
    for trial in trials:
        trial.__enter__()
    with pytest.raises(SourceUnavailable):
        setting.send()
    for trial in trials:
        trial.__exit__(None, None, None)
    setting.send()

    assert State.OPEN not in setting.states.values()


def test_it_may_be_shut_and_kept_open_by_hand(setting):
    report = setting.order(Manual.OPEN)
    with pytest.raises(SourceUnavailable, match=r"opened by hand: it is being moved"):
        setting.send()

    assert (report.state, report.order.by) == (State.OPEN, "ann")

    setting.order(Manual.CLOSED)
    setting.send(BROKEN, times=50)
    setting.send()
    report = setting.order(Manual.AUTO)

    assert (report.state, report.order) == (State.CLOSED, None)


@pytest.mark.parametrize("name", ["model/toxicity", "source/" + "x" * 600])
def test_what_is_no_name_of_a_source_has_no_breaker(setting, name):
    assert setting.order(Manual.OPEN, name) is None


def test_with_a_threshold_of_none_only_orders_count():
    setting = Setting(0)
    setting.send(BROKEN, times=50)
    setting.order(Manual.OPEN)

    with pytest.raises(SourceUnavailable):
        setting.send()


def test_no_more_sources_are_remembered_than_the_limit_and_open_ones_longest(setting):
    setting.send(BROKEN, times=5)
    setting.order(Manual.OPEN, "source/shut")
    for number in range(2 * MAX_SOURCES):
        setting.now += 0.0001
        setting.send(BROKEN, Context(source=f"camera-{number}"))
    states = setting.states

    assert len(states) == MAX_SOURCES
    assert (states[NAME], states["source/shut"]) == (State.OPEN, State.OPEN)


def test_a_source_that_is_well_is_not_remembered(setting):
    for number in range(100):
        setting.send(context=Context(source=f"camera-{number}"))

    assert setting.states == {}
