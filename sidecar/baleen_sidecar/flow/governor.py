"""How much is let in while the machine is busy: levels that go up with CPU and memory, and who enters at each.

| level | Low | Normal | High | Critical |
|---|---|---|---|---|
| 0.0 | enters | enters | enters | enters |
| 0.3 | refused | enters | enters | enters |
| 0.5 | refused | refused | enters | enters |
| 0.8 | waits | waits | waits | enters |
| 1.0 | refused | refused | refused | enters |

From one bound of a resource to the other the level goes up in four even steps, at once; it comes down a step at a time,
after a pause, and once usage is clearly below what the step is for. CPU is smoothed: what all the levels do is to let
more or less in, and with a mean over seconds that holds the mean near the bounds instead of swinging between all and
nothing. What goes into refusals is left out of account.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from baleen_core.priority import Priority

LEVELS: Final = (0.0, 0.3, 0.5, 0.8, 1.0)
WAITING_LEVEL: Final = 0.8
_HIGHEST: Final = len(LEVELS) - 1


class Admission(StrEnum):
    """What becomes of a request."""

    ENTER = "Enter"
    WAIT = "Wait"
    REFUSE = "Refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Percent of a resource: above `raised` the level goes up, above `shed` all but the critical is refused."""

    raised: float
    shed: float

    def step(self, percent: float) -> int:
        """Return the step of LEVELS that so much is for."""
        width = (self.shed - self.raised) / (_HIGHEST - 1)
        # The last one by itself: a sum of widths may miss it by a bit.
        inner = sum(percent > self.raised + width * number for number in range(_HIGHEST - 1))
        return _HIGHEST if percent > self.shed else inner


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorRules:
    """Bounds in percent; usage must be `ease_percent` below a step's bound to leave it, `settle_seconds` after the last
    change; CPU is a mean that forgets with `smoothing_seconds`."""

    cpu: Bounds = Bounds(raised=70.0, shed=90.0)
    memory: Bounds = Bounds(raised=75.0, shed=95.0)
    ease_percent: float = 5.0
    settle_seconds: float = 1.0
    smoothing_seconds: float = 3.0

    def busy(self, throttle: "Throttle", latest_percent: float) -> float:
        """Return CPU over the bound below which the levels are left alone: 1 at the bound, 2 where all is shed.

        It is above the bound when the mean is, and what was seen last too.
        """
        bound = self.cpu.raised - self.ease_percent
        if (percent := min(throttle.cpu_percent, latest_percent)) < bound:
            return percent / bound
        return 1 + (latest_percent - bound) / (self.cpu.shed - bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """How things stand: a step of LEVELS, since when, and what was measured; times are of a clock that only goes on."""

    step: int = 0
    since: float = -math.inf
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    measured: float | None = None

    @property
    def level(self) -> float:
        return LEVELS[self.step]

    @property
    def should_throttle(self) -> bool:
        """Say whether work that nobody waits for has to wait."""
        return self.step > 0

    @property
    def sheds(self) -> bool:
        """Say whether everything but the critical is refused."""
        return self.step == _HIGHEST

    def admission(self, priority: Priority) -> Admission:
        """Say what becomes of a request of this priority."""
        if priority is Priority.CRITICAL or self.step == 0:
            return Admission.ENTER
        if self.sheds:
            return Admission.REFUSE
        if self.level == WAITING_LEVEL:
            return Admission.WAIT
        # At 0.3 it is Low alone, at 0.5 Normal, too.
        return Admission.ENTER if priority >= self.step else Admission.REFUSE


def for_work(cpu_percent: float, refusing_percent: float) -> float:
    """Return how much of the CPU that refusals leave is used by all else; of both percents 100 is what may be used.

    To let in less does not make refusing cheaper. Where much is refused, levels by all that is used would keep out what
    there is room for.
    """
    left = 100.0 - refusing_percent
    return max(0.0, cpu_percent - refusing_percent) / left * 100 if left > 0 else 100.0


def next_throttle(
    last: Throttle, rules: GovernorRules, *, cpu_percent: float, memory_percent: float, now: float
) -> Throttle:
    """Return how things stand after a look at what is used, in percent of what may be."""
    elapsed = math.inf if last.measured is None else now - last.measured
    weight = 1 - math.exp(-elapsed / rules.smoothing_seconds)
    # Before the first look nothing is known: a process that has just begun is not taken for one that is busy.
    cpu = 0.0 if last.measured is None else last.cpu_percent + weight * (cpu_percent - last.cpu_percent)
    seen = replace(last, cpu_percent=cpu, memory_percent=memory_percent, measured=now)
    step = max(rules.cpu.step(cpu), rules.memory.step(memory_percent))
    if step > last.step:
        return replace(seen, step=step, since=now)
    eased = max(rules.cpu.step(cpu + rules.ease_percent), rules.memory.step(memory_percent + rules.ease_percent))
    if eased < last.step and now - last.since >= rules.settle_seconds:
        return replace(seen, step=last.step - 1, since=now)
    return seen
