"""How many gateways there should be, from what they answer at the same time: up fast, down slowly, and never blindly.

All times are seconds of one clock that only goes forward, and given by the caller.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil
from typing import Final

from baleen_core.policy_stream import Load

TOLERANCE: Final = 0.1
"""How far the load may be from what is aimed at before the number changes; horizontal pod autoscalers have the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A change of at most `percent`, and of one at least, in any `period_seconds`.

    Only what was wanted for all of the last `window_seconds` counts.
    """

    percent: int
    period_seconds: float
    window_seconds: float

    def step(self, replicas: int) -> int:
        """Return how many may come or go in a period that began with so many."""
        return max(1, replicas * self.percent // 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRules:
    """The bounds, how many requests in flight are aimed at for each gateway, and how fast the number changes."""

    min_replicas: int = 3
    max_replicas: int = 20
    target_in_flight: float = 16.0
    up: Pace = Pace(percent=100, period_seconds=15, window_seconds=60)
    down: Pace = Pace(percent=10, period_seconds=60, window_seconds=300)

    def bound(self, replicas: int) -> int:
        """Return the number within the bounds that is nearest."""
        return max(self.min_replicas, min(self.max_replicas, replicas))


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The mean number of requests in flight on the gateways that say it, and how many say it and do not."""

    in_flight: float = 0.0
    known: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingState:
    """What there was and what was wanted, each with its time, for as far back as the rules look."""

    replicas: tuple[tuple[float, int], ...] = ()
    wanted: tuple[tuple[float, int], ...] = ()


class Because(StrEnum):
    """Why the number is what it is."""

    OFF = "Off"
    """There are none, which only people bring about."""
    BOUNDS = "Bounds"
    UNKNOWN = "Unknown"
    """Nobody says how busy the gateways are."""
    LOAD = "Load"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many there should be from now on, and the state to go on with."""

    replicas: int
    because: Because
    state: ScalingState


def demand_of(before: Mapping[str, Load | None], after: Mapping[str, Load | None]) -> Demand:
    """Return the demand between two looks at the gateways, by their addresses; None is no answer.

    A gateway that is new, or began anew, counts with what it is answering now. One that said nothing new is unknown.
    """
    means = [None if load is None else _mean(before.get(name), load) for name, load in after.items()]
    known = [mean for mean in means if mean is not None]
    return Demand(in_flight=sum(known), known=len(known), unknown=len(means) - len(known))


def _mean(before: Load | None, after: Load) -> float | None:
    if before is None or after.measured_seconds < before.measured_seconds:
        return float(max(0, after.in_flight))
    seconds = after.measured_seconds - before.measured_seconds
    return max(0.0, after.request_seconds - before.request_seconds) / seconds if seconds else None


def scale(state: ScalingState, rules: ScalingRules, demand: Demand, *, current: int, now: float) -> Scaling:
    """Say how many replicas there should be, of which there are `current`.

    Who begins knows nothing of before: it takes what there is for what was wanted, and so waits for a whole window.
    """
    state = _observe(state, rules, current, now)
    if current == 0:
        return Scaling(replicas=0, because=Because.OFF, state=ScalingState())
    if (bounded := rules.bound(current)) != current:
        return Scaling(replicas=bounded, because=Because.BOUNDS, state=_begin(bounded, now))
    wanted = want(rules, demand, current)
    state = replace(state, wanted=(*state.wanted, (now, current if wanted is None else wanted)))
    if wanted is None:
        return Scaling(replicas=current, because=Because.UNKNOWN, state=state)
    replicas = _keep_pace(state, rules, _settle(state, rules, current, now), current, now)
    if replicas != current:
        state = replace(state, replicas=(*state.replicas, (now, replicas)))
    return Scaling(replicas=replicas, because=Because.LOAD, state=state)


def want(rules: ScalingRules, demand: Demand, current: int) -> int | None:
    """Return how many replicas the demand of this moment asks for, within the bounds; None when it is not known.

    With a gateway whose load is unknown it is never fewer than there are.
    """
    if not demand.known:
        return None
    share = demand.in_flight / (rules.target_in_flight * current)
    wanted = current if abs(share - 1) <= TOLERANCE else ceil(demand.in_flight / rules.target_in_flight)
    return rules.bound(max(wanted, current) if demand.unknown else wanted)


def _begin(replicas: int, now: float) -> ScalingState:
    return ScalingState(replicas=((now, replicas),), wanted=((now, replicas),))


def _observe(state: ScalingState, rules: ScalingRules, current: int, now: float) -> ScalingState:
    """Forget what is too old to count, and note what there is: somebody else may have scaled, too."""
    if not state.replicas:
        return _begin(current, now)
    window = max(rules.up.window_seconds, rules.down.window_seconds)
    period = max(rules.up.period_seconds, rules.down.period_seconds)
    known = tuple(_since(state.replicas, now - period))
    return ScalingState(
        replicas=known if known[-1][1] == current else (*known, (now, current)),
        wanted=tuple(each for each in state.wanted if each[0] > now - window),
    )


def _since(replicas: tuple[tuple[float, int], ...], start: float) -> Iterator[tuple[float, int]]:
    """Yield what there was after `start`, beginning with what there was then."""
    for index, each in enumerate(replicas):
        is_last = index + 1 == len(replicas)
        if is_last or replicas[index + 1][0] > start:
            yield each


def _settle(state: ScalingState, rules: ScalingRules, current: int, now: float) -> int:
    """Return the number nearest to the current one that was wanted, or passed by, for a whole window."""
    least = min(wanted for time, wanted in state.wanted if time > now - rules.up.window_seconds or time == now)
    most = max(wanted for time, wanted in state.wanted if time > now - rules.down.window_seconds or time == now)
    return min(max(current, least), most)


def _keep_pace(state: ScalingState, rules: ScalingRules, wanted: int, current: int, now: float) -> int:
    lowest = min(count for _, count in _since(state.replicas, now - rules.up.period_seconds))
    highest = max(count for _, count in _since(state.replicas, now - rules.down.period_seconds))
    ceiling = max(current, lowest + rules.up.step(lowest))
    floor = min(current, highest - rules.down.step(highest))
    return max(floor, min(ceiling, wanted))
