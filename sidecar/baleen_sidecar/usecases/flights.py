"""Ask once: whoever asks what is being asked already waits for that answer."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from baleen_core.errors import BaleenError, DeadlineExceeded, Overloaded
from baleen_sidecar.ports import Work

T = TypeVar("T")
Question = Callable[[Work], Awaitable[T]]
Then = Callable[[T], Awaitable[None]]

REFUSALS = (Overloaded, DeadlineExceeded)
"""What is said to one caller and not of the question: who is more urgent, or waits for longer, may have an answer."""


def may_join(under_way: Work, mine: Work) -> bool:
    """Say whether an answer on its way comes as soon as one of my own would."""
    return under_way.priority >= mine.priority and under_way.lane is mine.lane


def is_refused_too(refused: Work, mine: Work) -> bool:
    """Say whether I have nothing over somebody who was refused."""
    return mine.tenant == refused.tenant and mine.priority <= refused.priority and mine.deadline <= refused.deadline


def strongest(works: Iterable[Work]) -> Work:
    """Return the one that is likeliest to be answered."""
    return max(works, key=lambda each: (each.priority, each.deadline))


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    """A question under way: on whose behalf it is asked, and who waits for it."""

    work: Work
    question: Question[T]
    waiting: dict[asyncio.Future[T], Work] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    has_landed: bool = False


class Flights(Generic[T]):
    """Asks equal questions once at a time; each caller keeps its own deadline, and ends its own wait alone.

    A question goes on while anybody waits for it, whoever began it, and is cancelled with the last one who does. A
    caller that is more urgent than those who wait asks for itself, and is joined from then on. A refusal is for those
    who have nothing over whom it was meant for: for the others it is asked again.
    """

    def __init__(self) -> None:
        self.joined = 0
        self._flights: dict[bytes, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """How many questions are being asked."""
        return len(self._tasks)

    async def ask(
        self,
        key: bytes,
        work: Work,
        question: Question[T],
        *,
        then: Then[T] | None = None,
        on_join: Callable[[], None] = lambda: None,
    ) -> T:
        """Return the answer to the question of this key; `question` is called where nobody asks it yet.

        What is to be done with its answer beside (`then`) keeps nobody waiting. `on_join` is called where it is asked
        already.

        Raises what `question` raises, each caller an error of its own.
        """
        flight = self._flights.get(key)
        if flight is None or not may_join(flight.work, work):
            flight = self._start(key, work, question, then)
        else:
            self.joined += 1
            on_join()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        flight.waiting[answer] = work
        try:
            return await answer
        finally:
            flight.waiting.pop(answer, None)
            if not flight.waiting and not flight.has_landed:
                self._abandon(key, flight)

    def _start(self, key: bytes, work: Work, question: Question[T], then: Then[T] | None) -> _Flight[T]:
        flight = _Flight(work=work, question=question)
        self._flights[key] = flight
        flight.task = asyncio.get_running_loop().create_task(self._fly(key, flight, then))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight

    def _abandon(self, key: bytes, flight: _Flight[T]) -> None:
        self._land(key, flight)
        assert flight.task is not None, "it has one from the start on"
        flight.task.cancel()

    def _land(self, key: bytes, flight: _Flight[T]) -> None:
        """Let nobody join any more."""
        flight.has_landed = True
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _fly(self, key: bytes, flight: _Flight[T], then: Then[T] | None) -> None:
        try:
            answer = await _ask_for_all(flight)
        except Exception as exc:
            self._land(key, flight)
            for each in flight.waiting:
                _fail(each, exc)
            return
        except asyncio.CancelledError:
            self._land(key, flight)
            for each in flight.waiting:
                each.cancel()
            raise
        self._land(key, flight)
        for each in flight.waiting:
            if not each.done():
                each.set_result(answer)
        if then is not None:
            await then(answer)


async def _ask_for_all(flight: _Flight[T]) -> T:
    """Ask on behalf of one who waits, and of the next one where that one alone is refused.

    Raises what the question raises, a refusal only once nobody is left for whom to ask.
    """
    while True:
        try:
            return await flight.question(flight.work)
        except REFUSALS as exc:
            _refuse(flight, exc)
            if not flight.waiting:
                raise
            flight.work = strongest(flight.waiting.values())


def _refuse(flight: _Flight[T], error: BaleenError) -> None:
    for each, work in list(flight.waiting.items()):
        if is_refused_too(flight.work, work):
            del flight.waiting[each]
            _fail(each, error)


def _fail(waiting: asyncio.Future[T], error: Exception) -> None:
    if not waiting.done():
        # One error raised in many places would gather the traceback of each.
        waiting.set_exception(copy.copy(error) if isinstance(error, BaleenError) else error)
