"""Equal questions are asked once, and no caller has less of that than of asking alone."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import DeadlineExceeded, ModelUnavailable, Overloaded
from baleen_core.priority import Priority
from baleen_sidecar.ports import ANYONE, Lane, Work
from baleen_sidecar.usecases.flights import Flights, is_refused_too, may_join, strongest

PATIENT = Work(deadline=60.0)
URGENT = Work(priority=Priority.CRITICAL, deadline=60.0)


class Asked:
    """A question that is answered when the test says so; `works` are those on whose behalf it was asked."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.cancelled = 0
        self._answers: list[asyncio.Future[str]] = []

    async def __call__(self, work: Work) -> str:
        self.works.append(work)
        self._answers.append(asyncio.get_running_loop().create_future())
        try:
            return await self._answers[-1]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def answer(self, what: str | Exception, place: int = -1) -> None:
        if isinstance(what, str):
            self._answers[place].set_result(what)
        else:
            self._answers[place].set_exception(what)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def start(flights: Flights[str], asked: Asked, work: Work = PATIENT, key: bytes = b"k") -> asyncio.Task[str]:
    return asyncio.get_running_loop().create_task(flights.ask(key, work, asked))


async def test_equal_questions_are_asked_once_and_others_by_themselves() -> None:
    flights, asked, other = Flights[str](), Asked(), Asked()
    callers = [start(flights, asked) for _ in range(100)]
    apart = start(flights, other, key=b"other")
    await settle()
    asked.answer("yes")
    other.answer("no")

    assert await asyncio.gather(*callers) == ["yes"] * 100
    assert await apart == "no"
    assert (len(asked.works), len(other.works), flights.joined) == (1, 1, 99)
    await settle()
    assert flights.under_way == 0


async def test_whoever_began_may_leave_and_the_others_have_their_answer() -> None:
    flights, asked = Flights[str](), Asked()
    first, second = start(flights, asked), start(flights, asked)
    await settle()
    first.cancel()
    await settle()
    asked.answer("yes")

    assert await second == "yes"
    assert (len(asked.works), asked.cancelled) == (1, 0)


async def test_with_the_last_one_who_waits_the_question_ends() -> None:
    flights, asked = Flights[str](), Asked()
    callers = [start(flights, asked) for _ in range(3)]
    await settle()
    for caller in callers:
        caller.cancel()
    await settle()

    assert (asked.cancelled, flights.under_way) == (1, 0)
    later = start(flights, asked)
    await settle()
    asked.answer("anew")
    assert await later == "anew"


async def test_each_has_an_error_of_its_own() -> None:
    flights, asked = Flights[str](), Asked()
    callers = [start(flights, asked) for _ in range(3)]
    await settle()
    asked.answer(ModelUnavailable("model words is down"))
    errors = await asyncio.gather(*callers, return_exceptions=True)

    assert [(type(error), str(error)) for error in errors] == [(ModelUnavailable, "model words is down")] * 3
    assert len(set(map(id, errors))) == 3


async def test_a_refusal_of_one_is_none_of_who_is_more_urgent_or_more_patient() -> None:
    flights, asked = Flights[str](), Asked()
    hasty = Work(deadline=1.0, tenant="a")
    callers = [start(flights, asked, work) for work in (hasty, Work(deadline=0.5, tenant="a"), Work(deadline=9.0))]
    await settle()
    asked.answer(Overloaded("it would take 2 s", retry_after_seconds=7))
    await settle()
    asked.answer("yes")
    first, second, third = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(first, Overloaded)
    assert isinstance(second, Overloaded)
    assert first.retry_after_seconds == 7
    assert third == "yes"
    assert asked.works == [hasty, Work(deadline=9.0)]


async def test_who_is_more_urgent_asks_anew_and_is_joined_from_then_on() -> None:
    flights, asked = Flights[str](), Asked()
    first = start(flights, asked)
    await settle()
    urgent = start(flights, asked, URGENT)
    await settle()
    late = start(flights, asked)
    await settle()

    assert [work.priority for work in asked.works] == [Priority.NORMAL, Priority.CRITICAL]
    asked.answer("soon", 1)
    assert await asyncio.gather(urgent, late) == ["soon", "soon"]
    asked.answer("later", 0)
    assert await first == "later"


async def test_what_is_done_with_an_answer_keeps_nobody_waiting_and_its_end_is_counted() -> None:
    flights, kept = Flights[str](), asyncio.Event()

    async def question(work: Work) -> str:
        return "yes"

    async def keep(answer: str) -> None:
        await kept.wait()

    assert await flights.ask(b"k", ANYONE, question, then=keep) == "yes"
    # It is over for who comes now: nobody waits for what is being kept.
    assert await flights.ask(b"k", ANYONE, question) == "yes"
    assert flights.joined == 0
    kept.set()
    await settle()
    assert flights.under_way == 0


works = st.builds(
    Work,
    priority=st.sampled_from(Priority),
    tenant=st.sampled_from(["", "a", "b"]),
    deadline=st.floats(0, 100),
    lane=st.sampled_from(Lane),
)


@given(under_way=works, mine=works)
def test_nobody_joins_who_would_be_answered_sooner_alone(under_way: Work, mine: Work) -> None:
    if may_join(under_way, mine):
        assert under_way.priority >= mine.priority
        assert under_way.lane is mine.lane
    assert may_join(mine, mine)


@given(waiting=st.lists(works, min_size=1))
def test_a_refusal_takes_at_least_the_one_for_whom_was_asked(waiting: list[Work]) -> None:
    # So that asking for the next one always comes to an end.
    assert is_refused_too(strongest(waiting), strongest(waiting))


OUTCOMES: dict[str, Callable[[], str | Exception]] = {
    "answers": lambda: "yes",
    "fails": lambda: ModelUnavailable("down"),
    "refuses": lambda: Overloaded("full"),
    "is late": lambda: DeadlineExceeded("late"),
}


@given(
    callers=st.lists(st.tuples(works, st.booleans()), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    outcomes=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=20, max_size=20),
)
async def test_in_any_order_everybody_ends_and_nothing_is_left(callers, order, outcomes) -> None:
    """Callers come, give up, and are answered in any order."""
    flights, asked = Flights[str](), Asked()
    tasks: list[asyncio.Task[str]] = []
    steps = [("come", place) for place in range(len(callers))]
    steps += [("leave", place) for place, (_, gives_up) in enumerate(callers) if gives_up]
    order.shuffle(steps)
    said = iter(outcomes)
    gone: set[int] = set()
    for what, place in steps:
        if what == "come":
            tasks.append(start(flights, asked, callers[place][0]))
        elif place < len(tasks):
            gone.add(place)
            tasks[place].cancel()
        if order.random() < 0.5:
            await settle()
        if order.random() < 0.3:
            _answer_all(asked, said)
    for _ in range(len(callers) + 1):
        await settle()
        _answer_all(asked, said)
    await settle()
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)

    for place, outcome in enumerate(done):
        if isinstance(outcome, asyncio.CancelledError):
            assert place in gone
        else:
            assert outcome == "yes" or isinstance(outcome, (ModelUnavailable, Overloaded, DeadlineExceeded))
    assert flights.under_way == 0
    # A question is asked anew only for somebody: never more often than there are callers.
    assert len(asked.works) <= len(callers) + len(gone)


def _answer_all(asked: Asked, said) -> None:
    for answer in asked._answers:
        if not answer.done():
            what = OUTCOMES[next(said, "answers")]()
            if isinstance(what, str):
                answer.set_result(what)
            else:
                answer.set_exception(what)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("x")])
async def test_a_mistake_of_ours_reaches_everybody_too(error: Exception) -> None:
    flights, asked = Flights[str](), Asked()
    callers = [start(flights, asked) for _ in range(2)]
    await settle()
    asked.answer(error)

    assert [type(each) for each in await asyncio.gather(*callers, return_exceptions=True)] == [type(error)] * 2
