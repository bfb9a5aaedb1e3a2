"""The looks at what the installation's server answers to a rollout's queries: when they are due, what they come to.

What the looks of this step say so far stands in the status, so a restart asks for none of them again. An answer is
known by its time, and counts once, in the step in which it was asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from baleen_core.analysis.looks import Reading, Streak, next_streak
from baleen_core.analysis.metrics import Metric, MetricType
from baleen_core.analysis.query import fill_in
from baleen_core.policy.schema import AnalysisPlan
from baleen_operator.plan.rollout import State
from baleen_operator.resources.policy import MAX_SAID, Compared

MIN_LOOK_SECONDS: Final = 10.0
"""The server is the platform's, and has others to answer: it is not asked more often, however short the interval is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """What is asked at one look: the query of each metric by its name, for one rollout by one plan."""

    rollout: str
    plan: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What came of asking: what is `under_way`, and what the last `queries` gave, by metric, when they were asked."""

    under_way: Queries | None = None
    queries: Queries | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict)
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the looks of this step come to, by metric, and what is to be done: to ask now, or to wait so long."""

    streaks: Mapping[str, Streak] = field(default_factory=dict)
    queries: Queries | None = None
    wait_seconds: float | None = None


def look_at(
    plan: AnalysisPlan,
    state: State,
    rows: Sequence[Compared],
    looked: Looked,
    *,
    rollout: str,
    stable: str,
    now: datetime,
    may_ask: bool = True,
) -> Look:
    """Take in the answer to the last look of a rollout, if there is a new one, and say when the next one is due.

    `rows` are those of the last status. The first look of a step comes an interval after it began: what is measured
    before is of the step before. Nothing is asked unless it `may_ask`, since nobody may be judged by the candidate.
    """
    metrics = [each for each in plan.metrics if each.type is MetricType.PROMQL]
    if not metrics or state.step_time is None:
        return Look()
    queries = Queries(
        rollout=rollout,
        plan=state.plan,
        texts=tuple((each.name, fill_in(each.query or "", candidate=state.digest, stable=stable)) for each in metrics),
    )
    known = _read_streaks(metrics, rows, state.step_time)
    time = _stored(looked.time) if looked.time is not None and looked.queries == queries else None
    streaks = dict(known)
    if time is not None and time >= state.step_time:
        for each in metrics:
            before, reading = known.get(each.name), looked.readings.get(each.name)
            if reading is not None and (before is None or before.time != time):
                streaks[each.name] = next_streak(each, before, reading, time)
    if not may_ask or looked.under_way == queries:
        return Look(streaks=streaks)
    interval = float(plan.interval_seconds)
    pauses = [(state.step_time, interval)]
    looks = [streak.time for streak in streaks.values()] + ([time] if time else [])
    pauses += [(moment, max(MIN_LOOK_SECONDS, interval)) for moment in looks]
    spent = [((now - since).total_seconds(), seconds) for since, seconds in pauses]
    # A clock that was put back says nothing of how long it was.
    waits = [seconds - passed for passed, seconds in spent if 0 <= passed < seconds]
    return Look(streaks=streaks, wait_seconds=max(waits)) if waits else Look(streaks=streaks, queries=queries)


def _read_streaks(metrics: Sequence[Metric], rows: Sequence[Compared], since: datetime) -> dict[str, Streak]:
    """Return what a status says of the looks since a step began; of a metric that was not looked at, nothing."""
    found = {}
    for each in rows:
        metric = next((metric for metric in metrics if metric.name == each.name), None)
        time = datetime.fromisoformat(each.look_time) if each.look_time else None
        if metric is None or time is None or time < since:
            continue
        within, beyond, numbers = (min(said, metric.needed_looks) for said in (each.within, each.beyond, each.numbers))
        found[each.name] = Streak(
            time=time,
            value=_read_number(each.candidate),
            problem=each.problem[:MAX_SAID],
            within=within,
            beyond=beyond,
            numbers=max(within, beyond, numbers),
        )
    return found


def _read_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _stored(time: datetime) -> datetime:
    """Return a moment as a status keeps it."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
