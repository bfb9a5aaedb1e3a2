"""Calls to models under breakers: what fails is left alone, nobody waits for it, and no call is left behind."""

import asyncio
from contextlib import suppress

import numpy as np
import pytest

from baleen_core.errors import ModelUnavailable, Overloaded, Unanswerable
from baleen_core.model.schema import BreakerSpec, Resilience
from baleen_sidecar.adapters.guarded import MAX_ABANDONED
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.flow.breaker import Manual, Outcome, State
from baleen_sidecar.flow.hangs import HangRules
from baleen_sidecar.ports import Order, Work
from model_servers import MemoryServer
from served_models import IMAGE_MODEL
from waiting import until

MODEL = IMAGE_MODEL
NAME = MODEL.name
ROW = {"image": np.ones((1, 3, 224, 224), np.float32)}


class Server(MemoryServer):
    """Fails with what `fails_with` is."""

    def __init__(self):
        super().__init__({(NAME, MODEL.version): 0.9})
        self.fails_with = None

    async def infer(self, model, inputs, work=None):
        if self.fails_with is not None:
            self.calls.append(model.name)
            raise self.fails_with
        return await super().infer(model, inputs)


class Setting:
    """Models at servers in memory, and a clock that only a test moves."""

    def __init__(self):
        self.now = 0.0
        self.servers = {}
        self.inference = RoutedInference(self.connect, monotonic_seconds=lambda: self.now, jitter=lambda: 0.5)

    def connect(self, endpoint):
        self.servers[endpoint] = Server()
        return self.servers[endpoint]

    def route(self, *endpoints, **resilience):
        self.inference.route({NAME: endpoints}, {NAME: Resilience(**resilience)})
        for endpoint in endpoints:
            self.inference.server(endpoint).confirm(MODEL)

    async def ask(self, times=1, **work):
        return [await self.inference.infer(MODEL, ROW, Work(**work)) for _ in range(times)]

    async def fail(self, times=1):
        for _ in range(times):
            with pytest.raises(ModelUnavailable):
                await self.ask()

    def report(self, name=f"model/{NAME}"):
        return next(each for each in self.inference.reports() if each.name == name)

    def order(self, state, name=f"model/{NAME}"):
        return self.inference.order(name, Order(state=state, by="ann", reason="a test", at=1.0))

    @property
    def calls(self):
        return {endpoint: len(server.calls) for endpoint, server in self.servers.items()}


@pytest.fixture
def setting():
    return Setting()


async def test_with_one_of_two_servers_dead_no_call_fails_and_it_is_soon_asked_no_more(setting):
    setting.route("a:1", "b:1")
    setting.servers["a:1"].is_silent = True
    await setting.ask(200)
    dead = setting.calls["a:1"]

    assert 1 <= dead <= 5
    assert setting.report().state is State.CLOSED
    assert setting.report().retries == dead


async def test_when_the_only_server_fails_five_times_nothing_is_asked_and_nobody_waits(setting):
    setting.route("a:1")
    setting.servers["a:1"].is_silent = True
    await setting.fail(5)
    setting.servers["a:1"].holds = asyncio.Event()
    with pytest.raises(ModelUnavailable, match=r"its breaker is open at each of its 1 servers: 5 in a row failed"):
        await setting.ask()

    assert setting.calls == {"a:1": 5}
    assert (setting.report().state, setting.report().next_try_at) == (State.OPEN, 1.0)
    assert not await setting.inference.is_ready(MODEL)


async def test_golden_answers_let_two_trials_in_and_these_close_it(setting):
    setting.route("a:1")
    server, replica = setting.servers["a:1"], setting.inference.server("a:1")
    server.is_silent = True
    await setting.fail(5)
    server.is_silent, server.holds = False, asyncio.Event()
    assert replica.probe_at(MODEL) == 1.0
    replica.confirm(MODEL)
    async with asyncio.TaskGroup() as group:
        trials = [group.create_task(setting.ask()) for _ in range(2)]
        await asyncio.sleep(0)
        await setting.fail(10)
        server.holds.set()
    await setting.ask(10)

    assert all(trial.result() for trial in trials)
    assert (setting.report().state, replica.probe_at(MODEL)) == (State.CLOSED, None)
    assert setting.inference.reports()[1].tried == {Outcome.DONE: 2}


async def test_a_golden_question_without_an_answer_puts_the_next_one_off(setting):
    setting.route("a:1")
    setting.servers["a:1"].is_silent = True
    await setting.fail(5)
    due = []
    for _ in range(5):
        setting.now = setting.inference.server("a:1").probe_at(MODEL)
        due.append(setting.now)
        with suppress(ModelUnavailable):
            await setting.inference.server("a:1").infer(MODEL, ROW)

    assert due == [1, 3, 7, 12, 17]


async def test_a_stopped_server_opens_its_breaker_though_a_thousand_callers_all_gave_up(setting):
    setting.route("a:1")
    server = setting.servers["a:1"]
    server.holds = asyncio.Event()
    callers = [asyncio.create_task(setting.ask()) for _ in range(1000)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)

    assert (setting.report().state, setting.report().under_way) == (State.CLOSED, 1000)

    with pytest.raises(ModelUnavailable, match="nobody waits for any more"):
        await setting.ask()

    # Every call has the model's own time budget, and it is over.
    server.is_silent = True
    server.holds.set()
    await until(lambda: not setting.report().under_way)

    assert setting.report().state is State.OPEN
    assert setting.report().under_way == 0


async def test_a_server_that_is_back_is_not_called_broken_for_the_calls_that_were_left_behind(setting):
    setting.route("a:1")
    server = setting.servers["a:1"]
    server.holds = asyncio.Event()
    callers = [asyncio.create_task(setting.ask()) for _ in range(MAX_ABANDONED)]
    await until(lambda: setting.calls["a:1"] == MAX_ABANDONED)
    server.fails_with = ModelUnavailable("no answer")
    await setting.fail(5)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    setting.inference.server("a:1").confirm(MODEL)

    assert setting.report().state is State.HALF_OPEN

    with pytest.raises(ModelUnavailable, match="nobody waits for any more"):
        await setting.ask()

    server.fails_with = None
    server.holds.set()
    await until(lambda: not setting.report().under_way)
    await setting.ask(3)

    assert setting.report().state is State.CLOSED


async def test_callers_in_a_hurry_do_not_open_the_breaker_of_a_server_that_is_well(setting):
    setting.route("a:1")
    server = setting.servers["a:1"]
    for _ in range(1000 // MAX_ABANDONED):
        server.holds = asyncio.Event()
        callers = [asyncio.create_task(setting.ask()) for _ in range(MAX_ABANDONED)]
        await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        server.holds.set()
        await until(lambda: not setting.report().under_way)
    await setting.ask()

    assert setting.report().state is State.CLOSED
    assert setting.report().failures == 0


@pytest.mark.parametrize("error", [Unanswerable("NaN"), Overloaded("others go first")], ids=["its content", "shed"])
async def test_what_is_no_fault_of_the_server_counts_for_nobody_and_is_not_made_again(setting, error):
    setting.route("a:1", "b:1")
    for server in setting.servers.values():
        server.fails_with = error
    for _ in range(100):
        with pytest.raises(type(error)):
            await setting.ask()

    assert sum(setting.calls.values()) == 100
    assert [each.state for each in setting.inference.reports()] == [State.CLOSED] * 3


async def test_with_all_failing_no_more_is_made_again_than_the_budget_allows(setting):
    setting.route("a:1", "b:1", breaker=BreakerSpec(failure_threshold=1000), retry_budget=100_000)
    for server in setting.servers.values():
        server.fails_with = ModelUnavailable("no answer")
        setting.inference.order(f"model/{NAME}", Order(state=Manual.CLOSED, by="ann", reason="", at=0))
    await setting.fail(500)

    assert sum(setting.calls.values()) == 500 + 10 + 50
    assert setting.report().retries == 60


async def test_without_a_budget_a_call_is_made_once(setting):
    setting.route("a:1", "b:1", retry_budget=0)
    setting.servers["a:1"].is_silent = setting.servers["b:1"].is_silent = True
    await setting.fail()

    assert sum(setting.calls.values()) == 1


async def test_nothing_is_made_again_for_somebody_whose_time_is_up(setting):
    setting.route("a:1", "b:1")
    setting.servers["a:1"].is_silent = setting.servers["b:1"].is_silent = True
    with pytest.raises(ModelUnavailable):
        await setting.ask(deadline=0.0)

    assert sum(setting.calls.values()) == 1


async def test_a_call_that_hangs_is_made_elsewhere_too_and_the_first_answer_counts(setting):
    setting.route("a:1", "b:1")
    await setting.ask(64)
    slow = setting.servers["a:1"]
    slow.holds = asyncio.Event()
    async with asyncio.timeout(5):
        await setting.ask(2)

    assert setting.report().hedges == 1
    assert setting.report().under_way == 1

    slow.holds.set()
    await until(lambda: not setting.report().under_way)

    assert setting.report().state is State.CLOSED


async def test_the_loser_of_a_hedge_that_fails_later_harms_nobody(setting):
    setting.route("a:1", "b:1")
    await setting.ask(64)
    slow = setting.servers["a:1"]
    slow.holds = asyncio.Event()
    await setting.ask(2)
    slow.is_silent = True
    slow.holds.set()
    await until(lambda: not setting.report().under_way)

    assert setting.report(f"server/{NAME}/a:1").failures == 1


async def test_a_server_that_fails_more_than_the_others_is_left_alone_for_a_while_and_only_one_of_two(setting):
    setting.route("a:1", "b:1", breaker=BreakerSpec(failure_threshold=1000))
    for turn in range(120):
        setting.servers["a:1"].fails_with = ModelUnavailable("no answer") if turn % 8 == 1 else None
        setting.now += 0.1
        with suppress(ModelUnavailable):
            await setting.ask()
        # A golden question was answered: it is not passed over for its last failure.
        setting.servers["a:1"].fails_with = None
        await setting.inference.server("a:1").infer(MODEL, ROW)
        if setting.report(f"server/{NAME}/a:1").ejected_until is not None:
            break
    bad, good = setting.report(f"server/{NAME}/a:1"), setting.report(f"server/{NAME}/b:1")

    assert (bad.ejections, good.ejections) == (1, 0)
    assert "calls failed, and 0 of" in bad.why


async def test_a_server_that_is_left_alone_is_asked_when_there_is_no_other(setting):
    setting.route("a:1", "b:1")
    setting.inference.server("a:1").guard(NAME).eject("a test")
    await setting.ask(4)

    assert setting.calls == {"a:1": 0, "b:1": 4}

    setting.inference.server("b:1").doubt(MODEL)
    await setting.ask()

    assert setting.calls["a:1"] == 1

    setting.inference.server("b:1").confirm(MODEL)
    setting.now += 5
    await setting.ask(4)

    assert setting.calls["a:1"] == 3


async def test_a_model_that_was_opened_by_hand_is_not_asked_until_it_is_left_to_itself(setting):
    setting.route("a:1")
    report = setting.order(Manual.OPEN)
    with pytest.raises(ModelUnavailable, match="its breaker was opened by ann"):
        await setting.ask()

    assert (report.state, report.order.by, report.order.reason) == (State.OPEN, "ann", "a test")
    assert not await setting.inference.is_ready(MODEL)

    setting.route("a:1", "b:1")
    await setting.fail()
    report = setting.order(Manual.AUTO)
    await setting.ask()

    assert (report.state, report.order) == (State.CLOSED, None)


async def test_a_model_that_was_closed_by_hand_is_asked_however_it_fails_also_at_servers_to_come(setting):
    setting.route("a:1")
    setting.order(Manual.CLOSED)
    setting.route("a:1", "b:1")
    for server in setting.servers.values():
        server.is_silent = True
    await setting.fail(50)

    assert {each.state for each in setting.inference.reports()} == {State.CLOSED}


async def test_one_server_may_be_opened_by_hand_and_there_is_no_other_name(setting):
    setting.route("a:1", "b:1")
    report = setting.order(Manual.OPEN, f"server/{NAME}/a:1")
    await setting.ask(10)

    assert (report.state, report.why) == (State.OPEN, "ann: a test")
    assert setting.calls == {"a:1": 0, "b:1": 10}
    assert setting.order(Manual.OPEN, "model/other") is None


async def test_what_a_deployment_says_counts_from_then_on(setting):
    setting.route("a:1", breaker=BreakerSpec(failure_threshold=2))
    setting.servers["a:1"].is_silent = True
    await setting.fail(2)

    assert setting.report().state is State.OPEN


async def test_closing_ends_calls_that_nobody_waits_for(setting):
    setting.route("a:1")
    setting.servers["a:1"].holds = asyncio.Event()
    caller = asyncio.create_task(setting.ask())
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    before = asyncio.all_tasks()
    await setting.inference.close()

    assert len(before) == 2
    assert len(asyncio.all_tasks()) == 1


async def test_a_caller_whose_server_is_closed_is_told_that_the_model_is_not_there(setting):
    setting.route("a:1")
    setting.servers["a:1"].holds = asyncio.Event()
    caller = asyncio.create_task(setting.ask())
    await asyncio.sleep(0)
    await setting.inference.close()

    with pytest.raises(ModelUnavailable, match="asked no more"):
        await caller


async def hang(setting, callers=3):
    """Have a server answer some calls and hang then, with so many callers waiting; return its replica and these."""
    setting.route("a:1")
    await setting.ask(HangRules().calls)
    setting.servers["a:1"].holds = asyncio.Event()
    waiting = [asyncio.create_task(setting.ask()) for _ in range(callers)]
    await asyncio.sleep(0)
    return setting.inference.server("a:1"), waiting


async def miss_golden_question(replica):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await replica.infer(MODEL, ROW)


async def test_calls_at_a_server_that_hangs_are_let_go_once_it_has_missed_a_golden_question_too(setting):
    replica, waiting = await hang(setting)
    assert not replica.is_late(MODEL)
    setting.now = HangRules().least_seconds
    assert replica.is_late(MODEL)
    setting.servers["a:1"].is_silent = True
    assert not await replica.is_loaded(MODEL)
    assert setting.report().state is State.CLOSED
    await miss_golden_question(replica)
    assert not await replica.is_loaded(MODEL)
    failed = await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(each) for each in failed} == {ModelUnavailable}
    assert "nothing was answered for 1 s, nor a golden question" in str(failed[0])
    assert (setting.report().state, setting.report().under_way) == (State.OPEN, 0)
    assert setting.inference.reports()[1].let_go == 3
    assert not replica.is_late(MODEL)


async def test_a_slow_server_that_answers_anything_is_given_time(setting):
    replica, waiting = await hang(setting)
    setting.now = HangRules().least_seconds
    await miss_golden_question(replica)
    assert await replica.is_loaded(MODEL)
    assert (setting.report().state, setting.report().under_way) == (State.CLOSED, 3)
    setting.servers["a:1"].holds.set()
    await replica.infer(MODEL, ROW)
    await asyncio.gather(*waiting)

    assert (setting.report().state, setting.inference.reports()[1].let_go) == (State.CLOSED, 0)


async def test_a_server_that_is_there_and_whose_model_hangs_is_found_out_later(setting):
    replica, waiting = await hang(setting)
    setting.now = HangRules().least_seconds * HangRules().living_times
    await miss_golden_question(replica)
    assert await replica.is_loaded(MODEL)
    failed = await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(each) for each in failed} == {ModelUnavailable}
    assert setting.report().state is State.OPEN


async def test_a_breaker_that_an_administrator_keeps_closed_lets_nothing_go(setting):
    replica, waiting = await hang(setting)
    setting.order(Manual.CLOSED)
    setting.now = 100.0
    setting.servers["a:1"].is_silent = True
    await miss_golden_question(replica)
    await replica.is_loaded(MODEL)
    assert setting.report().under_way == 3
    setting.servers["a:1"].is_silent = False
    setting.servers["a:1"].holds.set()

    await asyncio.gather(*waiting)


async def test_trials_that_hang_give_their_places_back(setting):
    replica, waiting = await hang(setting)
    setting.servers["a:1"].is_silent = True
    setting.now = HangRules().least_seconds
    await miss_golden_question(replica)
    await replica.is_loaded(MODEL)
    await asyncio.gather(*waiting, return_exceptions=True)
    setting.servers["a:1"].is_silent = False
    replica.confirm(MODEL)
    trials = [asyncio.create_task(setting.ask()) for _ in range(2)]
    await asyncio.sleep(0)
    assert setting.report().trials == 2
    setting.now += HangRules().least_seconds
    setting.servers["a:1"].is_silent = True
    await miss_golden_question(replica)
    await replica.is_loaded(MODEL)
    await asyncio.gather(*trials, return_exceptions=True)

    assert (setting.report().state, setting.report().trials) == (State.OPEN, 0)
