"""What is left of a model's capacity while many times of it is asked for, with a real Envoy as the peer.

The stand-in `stub` answers 400 texts a second. A quarter of that is asked by a caller of the highest priority, all else
by another; both give up after half a second, and a good answer later than that, by the instant at which its request was
due, counts for nothing. What is due in the first second counts for nothing either: queues are empty then, and take in
more than can be answered. Envoy has its adaptive concurrency in front of the same Triton. It knows no priorities, reads
no texts and decides nothing: the goodput of both is compared, and not what they cost.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from baleen_bench.flows import Flow, Front, Offered, offer
from baleen_bench.form import Aim, Effort, Figure, Outcome, in_turns, noise_of
from baleen_bench.models import STUB, STUB_PER_SECOND
from baleen_bench.saturable import DEADLINE_SECONDS, Caller, stage
from baleen_bench.slots import Slot, recovery_seconds
from baleen_core.priority import Priority

TIMES: Final = 12
CURVE: Final = (1, 2, 4, 8, 16, 24)
TOP_SHARE: Final = 0.25
CALLERS: Final = {"top": Caller(priority=Priority.CRITICAL), "rest": Caller(), "base": Caller(key_of="rest")}
"""`base` is the part of the rest that is there before and after a flood; it has the same key, and is not told apart."""
_CALM: Final = 0.5
"""The load at which it is found what an answer costs."""
_SINCE_SECONDS: Final = 1.0
_BASE: Final = 0.8
_BEFORE_SECONDS: Final = 1.5
_FLOOD_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 6.5
"""For so long it is looked whether all is well again; where it is not, that is the figure."""
_RECOVERIES: Final = 3
_OF: Final = f"of its capacity answered within the deadline while {{}} times of it is asked for; stand-in `{STUB.name}`"
FIGURES = {
    "overload_goodput": Aim(what=f"part {_OF.format(TIMES)}", goal=">= 0.9"),
    "overload_top_priority_success": Aim(
        what=f"part of the requests of the highest priority, a quarter of capacity, answered within the deadline "
        f"meanwhile; stand-in `{STUB.name}`",
        goal=">= 0.999",
    ),
    "overload_recovery_s": Aim(
        what=f"the end of that until 95 % of what is due is answered within the deadline again, at {_BASE} times "
        f"capacity; stand-in `{STUB.name}`",
        goal="<= 5",
    ),
    "overload_ratio_envoy": Aim(
        what=f"goodput at {TIMES} times capacity, over that of Envoy with adaptive concurrency; stand-in `{STUB.name}`",
        goal=">= 1.0",
    ),
    "overload_goodput_envoy": Aim(what=f"part {_OF.format(TIMES)}, by Envoy"),
    "overload_refuse_cpu_us": Aim(
        what=f"processor time of a refused request meanwhile; stand-in `{STUB.name}`",
    ),
    **{f"overload_goodput_{times}x": Aim(what=f"part {_OF.format(times)}") for times in CURVE},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load, `times` capacity, and what came of it."""

    times: float
    seconds: float
    since: float
    offered: Offered

    @property
    def goodput(self) -> float:
        return self.offered.in_time_per_second(self.since, self.seconds) / STUB_PER_SECOND

    @property
    def top_success(self) -> float:
        return self.top.share

    @property
    def top(self) -> Slot:
        return self.offered.flows["top"].between(self.since, self.seconds)

    def summary(self) -> dict[str, Any]:
        """Return what is kept of it."""
        figures: dict[str, Any] = {"times": self.times, "goodput": self.goodput, "top_success": self.top_success}
        return {**figures, **self.offered.summary()}


def measure(effort: Effort) -> Outcome:
    """Measure Envoy against itself, then both in turns, then the curve and the return."""
    with stage(quick=effort.quick) as on:
        subject = on.sidecar(CALLERS)
        calm = [_offer(subject, _CALM, effort, seed) for seed in range(2)][1]  # the first one warms up
        with on.envoy(tuple(CALLERS)) as peer:
            _offer(peer, _CALM, effort, 0)
            pairs = list(_pairs(peer, effort))
            found = in_turns(
                {front.name: front for front in (peer, subject)},
                effort.repetitions,
                lambda front, seed: _offer(front, TIMES, effort, seed),
            )
        own = list(_pairs(subject, effort))
        curve = [_offer(subject, times, effort, 200) for times in (() if effort.quick else CURVE)]
        recoveries = [_recover(subject, effort, seed) for seed in range(1 if effort.quick else _RECOVERIES)]
    ours, theirs = found[subject.name], found[peer.name]
    seconds = [each for each, _ in recoveries]
    noise = noise_of((one.goodput, other.goodput) for one, other in pairs)
    figures = [
        _figure("overload_goodput", [each.goodput for each in ours], noise=noise),
        _figure(
            "overload_top_priority_success",
            [_success(ours)],
            noise=noise_of((one.top_success, other.top_success) for one, other in own),
        ),
        _figure("overload_recovery_s", seconds, "s", noise=_spread(seconds)),
        _figure(
            "overload_ratio_envoy",
            [one.goodput / other.goodput if other.goodput else 0.0 for one, other in zip(ours, theirs, strict=True)],
            noise=noise,
        ),
        _figure("overload_goodput_envoy", [each.goodput for each in theirs], noise=noise),
        _figure(
            "overload_refuse_cpu_us",
            [_refusal_us(each, calm) for each in ours],
            "µs/request",
            noise=noise_of((_refusal_us(one, calm), _refusal_us(other, calm)) for one, other in own),
        ),
        *(_figure(f"overload_goodput_{each.times}x", [each.goodput], noise=noise) for each in curve),
    ]
    raw = {
        "calm": calm.summary(),
        "envoy_against_itself": [[one.summary(), other.summary()] for one, other in pairs],
        "sidecar_against_itself": [[one.summary(), other.summary()] for one, other in own],
        **{name: [each.summary() for each in points] for name, points in found.items()},
        "curve": [each.summary() for each in curve],
        "recovery": [offered.summary() | {"seconds": each} for each, offered in recoveries],
    }
    return Outcome(figures=tuple(figures), raw=raw)


def _figure(name: str, values: list[float], unit: str = "ratio", *, noise: float) -> Figure:
    return Figure.of(name, values, unit, aims=FIGURES, noise=noise, stand_in=STUB.name)


def _pairs(front: Front, effort: Effort) -> Iterator[tuple[Point, Point]]:
    for seed in range(effort.noise_pairs):
        yield _offer(front, TIMES, effort, 2 * seed), _offer(front, TIMES, effort, 2 * seed + 1)


def _offer(front: Front, times: float, effort: Effort, seed: int) -> Point:
    since = 0.0 if effort.quick else _SINCE_SECONDS
    seconds = since + effort.seconds
    top = TOP_SHARE * min(1.0, times) * STUB_PER_SECOND
    # To open connections takes time as well: where it is found what an answer costs there are few.
    connections = 64 if times < 1 else 512
    flows = [
        Flow(caller="top", rate=top, seconds=seconds, connections=connections // 4, seed=seed),
        Flow(
            caller="rest",
            rate=times * STUB_PER_SECOND - top,
            seconds=seconds,
            connections=connections,
            seed=1000 + seed,
        ),
    ]
    offered = offer(front, flows, deadline_seconds=DEADLINE_SECONDS)
    return Point(times=times, seconds=seconds, since=since, offered=offered)


def _recover(front: Front, effort: Effort, seed: int) -> tuple[float, Offered]:
    """Have a flood come over a load that can be answered, and look how long after it all of that is answered again."""
    scale = 0.1 if effort.quick else 1.0
    begin, flood, look = (scale * each for each in (_BEFORE_SECONDS, _FLOOD_SECONDS, _LOOK_SECONDS))
    flows = [
        Flow(
            caller="top",
            rate=TOP_SHARE * STUB_PER_SECOND,
            seconds=begin + flood + look,
            connections=128,
            seed=seed,
        ),
        Flow(
            caller="base",
            rate=(_BASE - TOP_SHARE) * STUB_PER_SECOND,
            seconds=begin + flood + look,
            connections=256,
            seed=1000 + seed,
        ),
        Flow(
            caller="rest",
            rate=(TIMES - _BASE) * STUB_PER_SECOND,
            seconds=flood,
            connections=512,
            seed=2000 + seed,
            after_seconds=begin,
        ),
    ]
    offered = offer(front, flows, deadline_seconds=DEADLINE_SECONDS)
    base, rest = offered.flows["base"], offered.flows["rest"]
    ended = rest.started_at + flood - base.started_at
    return recovery_seconds(base.slots, after_seconds=ended, never_seconds=look, window_seconds=scale), offered


def _success(points: list[Point]) -> float:
    """Return the part that was answered well in time of all repetitions: one alone has too few to tell a thousandth."""
    return Slot.all_of(each.top for each in points).share


def _refusal_us(point: Point, calm: Point) -> float:
    """Return what a refusal took: what is left of all processor time when each answer took as much as in calm."""
    each = calm.offered.server_cpu_seconds / max(1, calm.offered.answered)
    left = point.offered.server_cpu_seconds - each * point.offered.answered
    return max(0.0, left) / max(1, point.offered.refused) * 1e6


def _spread(values: list[float]) -> float:
    middle = statistics.median(values)
    return max(abs(each / middle - 1) for each in values) if middle else 0.0
