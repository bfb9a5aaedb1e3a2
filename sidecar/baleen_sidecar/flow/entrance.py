"""Who comes in while there is more to do than this process can: the rest is refused before anything is done for it.

Whatever is read, judged or queued of a request that is refused later takes time from those that are answered; from some
load on nobody is answered in time. So, as in DAGOR (Zhou and others: SoCC 2018), what came in lately is taken as the
measure: while the process is behind, a part less may come in, and otherwise a little more. Of that the most urgent have
what they ask for first; within a priority callers have equal shares, and what one of them does not use is the others'
(as in CSFQ: Stoica, Shenker, Zhang: SIGCOMM 1998). The critical always come in, and count.

Being behind is by the least delay of several looks (as in CoDel: Nichols, Jacobson: ACM Queue 2012): after one long
piece of work the next look is in time, in an overload none is.
"""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Final

from baleen_core.priority import Priority

LATE_SECONDS: Final = 0.02
"""How late it may be for long: turns are then some four times as long, and a request takes several until its answer."""
NEVER_IDLE: Final = 0.8
"""From this part of the time on, an event loop that has something to do has always: threads may be in its way, too."""
STEADY: Final = 0.9
"""From this part of a bound on, as much may come in as before."""
_KEPT_MOST: Final = 0.9
_KEPT_LEAST: Final = 0.5
"""What is kept of what came in, from a pressure of 1 on: the less, the higher it is."""
_GROWTH: Final = 0.05
"""By which part more may come in when there is no pressure at all; the more there is, the less."""
_REGAINED: Final = 0.02
"""And which part of what is asked for, so that little becomes much again within seconds."""
LEAST: Final = 50.0
"""So few a second are let in whatever is measured: what is late then is so by others on the machine."""
_RELEASED: Final = 4.0
"""So many times what was asked for lately may come in before there is no limit any more."""
_REMEMBERED: Final = 0.8
"""What a part of time in which nobody asks leaves of what was asked for before."""


class Entrance:
    """Counts who asks to come in; what may follows from the part of time that is over. All rates are for a second."""

    def __init__(self) -> None:
        self._asked: dict[tuple[Priority, str], int] = {}
        self._entered = 0
        self._wanted = 0.0
        self._shares = dict.fromkeys(Priority, inf)
        self._credits: dict[str, float] = {}
        self._new_credit = 1.0
        self.limit = inf
        """How many may come in a second, by what is known; infinite while there is no need for a limit."""

    @property
    def is_asked(self) -> bool:
        """Say whether anybody has come in this part of time."""
        return bool(self._asked)

    def enters(self, priority: Priority, who: str) -> bool:
        """Say whether a request of this caller comes in, and count it."""
        key = (priority, who)
        self._asked[key] = self._asked.get(key, 0) + 1
        share = self._shares[priority]
        if share != inf:
            credit = self._credits.get(who, self._new_credit) if share else 0.0
            if credit < 1:
                return False
            self._credits[who] = credit - 1
        self._entered += 1
        return True

    def next_part(self, seconds: float, pressure: float) -> None:
        """Go on to the next part of time, after one of so many seconds.

        `pressure` is what was measured over its bound: from 1 on the process is behind, below STEADY it has room.
        """
        asked = {key: count / seconds for key, count in self._asked.items()}
        self._wanted = max(sum(asked.values()), _REMEMBERED * self._wanted)
        self.limit = _next_limit(self.limit, self._wanted, self._entered / seconds, pressure)
        self._shares = shares(asked, self.limit)
        share = next((each for each in self._shares.values() if 0 < each < inf), 0.0)
        # Whoever did not ask lately has nothing left over, and may come as often as anybody at first.
        self._new_credit = max(1.0, share * seconds)
        left = self._credits
        self._credits = {
            who: share * seconds + min(1.0, left.get(who, 0.0))
            for priority, who in asked
            if 0 < self._shares[priority] < inf
        }
        self._asked, self._entered = {}, 0


def lateness(late_seconds: float, busy_share: float) -> float:
    """Return how far behind a process is for being late: as late as it is over the bound, or 0 if it had time to rest.

    `busy_share` is for which part of the time its event loop had something to do. With time left, what begins late does
    so because the machine is slow to wake it.
    """
    return late_seconds / LATE_SECONDS if busy_share >= NEVER_IDLE else 0.0


def shares(asked: Mapping[tuple[Priority, str], float], limit: float) -> dict[Priority, float]:
    """Return how many requests a second each caller may bring in of each priority: infinite is all, 0 none."""
    found = {Priority.CRITICAL: inf}
    left = max(0.0, limit - sum(_rates(asked, Priority.CRITICAL)))
    is_full = False
    for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW):
        wanted = sum(_rates(asked, priority))
        if is_full:
            found[priority] = 0.0
        elif wanted <= left:
            found[priority], left = inf, left - wanted
        else:
            found[priority], is_full = _equal_share(_rates(asked, priority), left), True
    return found


def _rates(asked: Mapping[tuple[Priority, str], float], priority: Priority) -> list[float]:
    return [rate for (each, _), rate in asked.items() if each is priority]


def _equal_share(rates: Iterable[float], total: float) -> float:
    """Return the share that, given to each who wants as much, uses up the total; together they want more than that."""
    left, ordered = total, sorted(rates)
    for place, rate in enumerate(ordered):
        share = left / (len(ordered) - place)
        if rate >= share:
            return share
        left -= rate
    return inf


def _next_limit(limit: float, wanted: float, entered: float, pressure: float) -> float:
    if pressure >= 1 and entered <= LEAST:
        return limit
    if pressure >= 1:
        return max(LEAST, min(limit, entered) * max(_KEPT_LEAST, _KEPT_MOST / pressure))
    if limit == inf:
        return inf
    room = max(0.0, 1 - pressure / STEADY)
    grown = limit + room * (_GROWTH * limit + _REGAINED * wanted)
    return inf if grown > _RELEASED * wanted else grown
