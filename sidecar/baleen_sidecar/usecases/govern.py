"""Let in what the machine has room for, by what is used of its CPU and memory; the critical always enters.

Two things do that. Levels turn away whole priorities. Before that, the entrance lets in as much as can be done: by how
late the event loop is, and so that CPU stays below where the levels begin.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from baleen_core.errors import Overloaded
from baleen_core.priority import Priority
from baleen_sidecar.flow.entrance import STEADY, Entrance, lateness
from baleen_sidecar.flow.governor import Admission, GovernorRules, Throttle, for_work, next_throttle
from baleen_sidecar.ports import ResourceReader, Usage

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
PART_SECONDS: Final = 0.1
"""How often the entrance is adjusted: several times between two looks at usage."""
BEAT_SECONDS: Final = 0.01
"""After so long it is looked how late the event loop is."""
LEAST_BEATS: Final = 3
"""So often in each part at least, however late it is."""
TURN_SECONDS: Final = 0.001
"""How long what comes is gathered while not everybody is let in: a tenth of a beat, which is not taken for late."""
MAX_WAITING: Final = 256
"""Requests that wait for the level to come down; of more, the least urgent is refused."""
RETRY_SECONDS: Final = 2
"""Levels go up and down within seconds; with jitter those who were refused together do not come back together."""


class Gathering:
    """While it is on, an event loop takes what came within a turn together, instead of waking for each request.

    Where most is refused, waking costs more than refusing. As with network cards under load (Mogul, Ramakrishnan:
    Eliminating receive livelock, TOCS 1997) whoever has to wait for his turn waits for a moment, and the rest is saved.
    """

    def __init__(
        self,
        monotonic_seconds: Callable[[], float],
        *,
        turn_seconds: float = TURN_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`sleep` keeps this thread, and with it its event loop, from doing anything."""
        self._monotonic_seconds = monotonic_seconds
        self._turn_seconds = turn_seconds
        self._sleep = sleep
        self._begun = 0.0
        self._next: asyncio.Handle | None = None

    def keep(self, is_on: bool) -> None:
        """Have turns from now on, or none."""
        if is_on and self._next is None:
            self._begun = self._monotonic_seconds()
            self._next = asyncio.get_running_loop().call_soon(self._turn)
        elif not is_on and self._next is not None:
            self._next.cancel()
            self._next = None

    def _turn(self) -> None:
        # A turn that took longer has gathered enough: then nothing is waited for.
        left = self._begun + self._turn_seconds - self._monotonic_seconds()
        if left > 0:
            self._sleep(left)
        self._begun = self._monotonic_seconds()
        self._next = asyncio.get_running_loop().call_soon(self._turn)


@dataclass(slots=True, eq=False)
class _Waiter:
    priority: Priority
    entered: asyncio.Future[Overloaded | None]
    """Done once it may go on, with None, or is refused."""


class Governor:
    """Knows the level; `run` keeps it up to date, and belongs to the application's task group."""

    def __init__(
        self,
        resources: ResourceReader,
        *,
        rules: GovernorRules,
        monotonic_seconds: Callable[[], float],
        chance: Callable[[int], bytes],
        limit_waiting: int = MAX_WAITING,
        count: Callable[[Priority, Admission], None] = lambda priority, admission: None,
        busy_seconds: Callable[[], float | None] = lambda: None,
        gathering: Gathering | None = None,
    ) -> None:
        """`count` hears of each request that did not just enter; `gathering` is on while the entrance is limited.

        `busy_seconds` returns for how long this thread has had something to do so far; None where that is not known.
        """
        self._resources = resources
        self._rules = rules
        self._monotonic_seconds = monotonic_seconds
        self._chance = chance
        self._limit_waiting = limit_waiting
        self._waiting: list[_Waiter] = []
        self._busy_seconds = busy_seconds
        self._entrance = Entrance()
        self._gathering = Gathering(monotonic_seconds) if gathering is None else gathering
        self._busy = 0.0
        self._refusing_seconds = 0.0
        self.count = count
        self.throttle = Throttle()
        """How things stand now."""
        self.usage: Usage | None = None
        """What was seen last."""

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def entering_per_second(self) -> float:
        """How many requests may come in a second, infinite while there is no need for a limit."""
        return self._entrance.limit

    def admit(self, priority: Priority, who: str = "") -> None:
        """Turn away, before anything was done for it, what would be refused in the end or is too much; `who` calls.

        Raises:
            Overloaded: at this level its priority is refused, or this caller has had its share.
        """
        if self.throttle.admission(priority) is Admission.REFUSE:
            raise self._refused(priority)
        if not self._entrance.enters(priority, who):
            self.count(priority, Admission.REFUSE)
            raise Overloaded(
                f"about {self._entrance.limit:.0f} requests a second can be let in now, and with the priority "
                f"{priority.title} this caller has had its share",
                retry_after_seconds=self._retry_seconds(),
            )

    def spend(self, seconds: float) -> None:
        """Take note that it took so long to refuse somebody before anything was done for him."""
        self._refusing_seconds += seconds

    def lets_in(self, priority: Priority) -> bool:
        """Say whether a request of this priority may go on at once."""
        return self.throttle.admission(priority) is Admission.ENTER

    def admit_optional(self) -> None:
        """Turn away what can as well be asked at another time.

        Raises:
            Overloaded: the level is above 0.
        """
        if self.throttle.should_throttle:
            raise Overloaded(
                f"{self._state()}; what no decision waits for is not done now",
                retry_after_seconds=self._retry_seconds(),
            )

    async def enter(self, priority: Priority) -> None:
        """Return once a request of this priority may go on. Whoever asks bounds the time.

        Raises:
            Overloaded: it is refused, at once or while it waits, or too much waits already.
        """
        admission = self.throttle.admission(priority)
        if admission is Admission.ENTER:
            return
        if admission is Admission.REFUSE:
            raise self._refused(priority)
        self.count(priority, Admission.WAIT)
        waiter = _Waiter(priority, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if len(self._waiting) > self._limit_waiting:
            # Of those that are the least urgent, the one that came last.
            least = min(reversed(self._waiting), key=lambda each: each.priority)
            self._end(least, self._refused(least.priority, f"and {self._limit_waiting} wait already"))
        try:
            if (refused := await waiter.entered) is not None:
                raise refused
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def look(self) -> None:
        """Look at what is used, and go by it from now on."""
        usage, now = self._resources.read(), self._monotonic_seconds()
        before, self.usage = self.throttle, usage
        cpu_percent = for_work(usage.cpu_percent, self._refusing_percent(now, usage))
        self.throttle = next_throttle(
            before, self._rules, cpu_percent=cpu_percent, memory_percent=usage.memory_percent, now=now
        )
        self._busy = self._rules.busy(self.throttle, cpu_percent)
        # Near a bound the level goes up and down each second; the metrics have all of it.
        if (self.throttle.should_throttle, self.throttle.sheds) != (before.should_throttle, before.sheds):
            log.warning(
                "throttle level changed",
                extra={
                    "level": self.throttle.level,
                    "before": before.level,
                    "cpu_percent": round(self.throttle.cpu_percent, 1),
                    "memory_percent": round(usage.memory_percent, 1),
                },
            )
        self._wake()

    def adjust(self, seconds: float, *, late_seconds: float, busy_share: float = 1.0) -> None:
        """Let in more or less from now on, after so many seconds in which everything began so late, or later.

        In this part of them there was something to do.
        """
        before = self._entrance.limit
        self._entrance.next_part(seconds, max(lateness(late_seconds, busy_share), self._busy))
        # From one look at the CPU follows one step.
        self._busy = min(self._busy, STEADY)
        if (before == inf) != (self._entrance.limit == inf):
            log.warning(
                "entrance limited" if before == inf else "entrance open",
                extra={"entering_per_second": self._entrance.limit, "late_seconds": round(late_seconds, 4)},
            )

    async def run(self) -> None:
        """Look until cancelled; a look that fails changes nothing."""
        try:
            while True:
                try:
                    self.look()
                except Exception:
                    log.exception("looking at CPU and memory failed")
                for _ in range(round(LOOK_SECONDS / PART_SECONDS)):
                    await self._beat()
        finally:
            self._gathering.keep(False)

    async def _beat(self) -> None:
        """Let a part of the time pass, and go by how late the event loop was at the best."""
        begun, late, beats = self._monotonic_seconds(), inf, 0
        now, busy = begun, self._busy_seconds()
        while now - begun < PART_SECONDS or (beats < LEAST_BEATS and self._entrance.is_asked):
            # Nobody is to be woken a hundred times a second for nothing.
            pause = BEAT_SECONDS if self._entrance.is_asked else PART_SECONDS
            due = now + pause
            await asyncio.sleep(pause)
            now = self._monotonic_seconds()
            late, beats = min(late, now - due), beats + 1
        busy_now, seconds = self._busy_seconds(), now - begun
        share = 1.0 if busy is None or busy_now is None else (busy_now - busy) / seconds
        self.adjust(seconds, late_seconds=late, busy_share=share)
        self._gathering.keep(self._entrance.limit < inf)

    def _refusing_percent(self, now: float, usage: Usage) -> float:
        """Return what went into refusals since the last look, of what may be used."""
        spent, self._refusing_seconds = self._refusing_seconds, 0.0
        before = self.throttle.measured
        return 0.0 if before is None or now <= before else min(100.0, spent / ((now - before) * usage.cpus) * 100)

    def _wake(self) -> None:
        """Let in, or refuse, whoever waits and does not have to any more; the most urgent and oldest first."""
        for waiter in sorted(self._waiting, key=lambda each: -each.priority):
            admission = self.throttle.admission(waiter.priority)
            if self.throttle.sheds:
                self._end(waiter, self._refused(waiter.priority))
            elif admission is Admission.ENTER:
                self._end(waiter, None)

    def _end(self, waiter: _Waiter, refused: Overloaded | None) -> None:
        self._waiting.remove(waiter)
        # It is done where its caller gave up in this very moment.
        if not waiter.entered.done():
            waiter.entered.set_result(refused)

    def _refused(self, priority: Priority, why: str = "") -> Overloaded:
        self.count(priority, Admission.REFUSE)
        message = f"{self._state()}{why and ' '}{why}; requests of the priority {priority.title} are refused"
        return Overloaded(message, retry_after_seconds=self._retry_seconds())

    def _state(self) -> str:
        throttle = self.throttle
        used = f"{throttle.cpu_percent:.0f} % of CPU and {throttle.memory_percent:.0f} % of memory are used"
        return f"the throttle level is {throttle.level:g}, since {used}"

    def _retry_seconds(self) -> int:
        return RETRY_SECONDS + self._chance(1)[0] % (RETRY_SECONDS + 1)
