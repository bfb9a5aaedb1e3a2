"""What a gateway says on its second listener, and what it takes there: from sidecars that follow it, and the operator.

`GET /v1/policy-stream` answers with one message a line and never ends by itself; the other paths are plain JSON. Every
request carries a ServiceAccount's token for AUDIENCE. Fields are added and never change their meaning, and unknown ones
are ignored, so that a gateway and its sidecars may be of different releases. Decision records are the exception: they
are hashed and replayed as they were written, so a gateway refuses a batch in which one has a field that it does not
know. The sidecar keeps that and sends it again, until the gateway is of its release.
"""

from bisect import bisect_left
from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from baleen_core.assignment import FULL, GROUPS
from baleen_core.errors import Problem
from baleen_core.policy.schema import MAX_BACKTEST_DECISIONS, MAX_CATEGORIES, MAX_STEPS, Verdict
from baleen_core.records import Cohort
from baleen_core.resources import PublishedPolicy

K = TypeVar("K")

AUDIENCE: Final = "baleen-gateway"
STREAM_PATH: Final = "/v1/policy-stream"
LISTS_PATH: Final = "/v1/policy-lists/"
"""The digest of a list follows; the answer is its canonical text."""
FILES_PATH: Final = "/v1/model-files/"
"""The SHA-256 of a recipe's asset or golden file that a ModelDeployment names follows; the answer is the file."""
ACKNOWLEDGEMENTS_PATH: Final = "/v1/acknowledgements"
CONVERGENCE_PATH: Final = "/v1/convergence"
RECORDS_PATH: Final = "/v1/decision-records"
BACKTESTS_PATH: Final = "/v1/backtests"
"""For the operator: a BacktestQuestion is answered by a BacktestShare, by the log of the gateway that is asked."""
SNAPSHOT_PATH: Final = "/v1/state-snapshot"
"""A consistent copy of the gateway's database, for those who keep backups; SHA256_HEADER has its digest."""
SHA256_HEADER: Final = "x-baleen-sha256"
REPLICA_HEADER: Final = "x-baleen-replica"
"""How a sidecar calls itself; where the token is bound to a pod, the pod's name counts instead. In an answer it names
the gateway."""
HEARTBEAT_SECONDS: Final = 10.0
LOST_SECONDS: Final = 25.0
"""A stream that said nothing for so long is lost: two heartbeats are missing."""
MAX_RECORDS: Final = 500
"""How many decisions are taken at once."""
MAX_RECORDS_BYTES: Final = 8 * 1024 * 1024
"""The longest body that brings decisions, with the revisions that it brings along."""
MAX_BACKTEST_BYTES: Final = 16 * 1024 * 1024
"""The longest question: two revisions of 1 MiB, each of which JSON may write twice as long, and lists."""
MAX_BACKTEST_SECONDS: Final = 30.0
"""How long a gateway may judge its log again for one question."""
MAX_STALE: Final = 10
"""How many stale sidecars are named for a policy."""
MAX_COUNT: Final = 2**53
"""What a counter can have reached; it also is what JSON's numbers can say."""
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""The longest message: a policy with all its revisions."""
VERDICT_PAIRS: Final = len(Verdict) ** 2
"""What two revisions can say of one piece of content."""
LATENCY_BOUNDS: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, inf),
)
"""Upper bounds in seconds of the buckets in which latencies are counted."""
SIDES: Final = tuple(Cohort)
CELLS: Final = GROUPS * len(SIDES) * len(LATENCY_BOUNDS) * 2
MAX_WEIGHTS: Final = MAX_STEPS
"""For so many weights of a rollout cohorts are counted apart, as many as a plan has steps."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One line of the stream; `type` is the name of its class."""


class Hello(Message, frozen=True, kw_only=True):
    """The first line: who answers, and where this very replica can be reached (empty: as it was just now)."""

    replica: str
    address: str = ""


class Put(Message, frozen=True, kw_only=True):
    """A policy is new or changed; this is all of it."""

    policy: PublishedPolicy


class Delete(Message, frozen=True, kw_only=True):
    """A policy is gone."""

    namespace: str
    name: str


class Models(Message, frozen=True, kw_only=True):
    """All ModelDeployments, as they are written."""

    deployments: tuple[Mapping[str, Any], ...] = ()


class Synced(Message, frozen=True, kw_only=True):
    """What came before is whole: everything after a connection was made, one change or several later on.

    What was not named by then is not there, unless `problems` say that it could not be read.
    """

    problems: tuple[Problem, ...] = ()


class Heartbeat(Message, frozen=True, kw_only=True):
    """The gateway lives; `problem` says what keeps it from following the API server, if anything does."""

    problem: str = ""


AnyMessage = Hello | Put | Delete | Models | Synced | Heartbeat


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica enforces for a policy; `pending` says what it lacks of a newer epoch."""

    epoch: int
    digest: str
    pending: str = ""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """What changed, by `namespace/name`, since the replica's last one; the first on a connection has everything."""

    replica: str
    policies: dict[str, Acknowledged]


class Sidecars(msgspec.Struct, frozen=True, kw_only=True):
    """How many sidecars follow this gateway and may read a policy, how many enforce it, and some that do not."""

    total: int = 0
    current: int = 0
    stale: tuple[str, ...] = ()


class TrialCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway saw of a rollout: what was decided here, or sent here by a sidecar, since the process began.

    `rollout` names the try that it was (`PublishedRoute.rollout`), so that another one of the same revisions, or
    another policy of the same content, has its own. `process` is another one after each start, so that counts which
    began anew are not taken for a fall. `flips` counts decisions at `flip_index`, whichever side counted; `cohorts`
    says for which side (`Stable`, `Candidate`) they were. `weights` has, for each weight in basis points with which
    chance decided for which side a decision was, how many there were at `cell_index`. `made` says, by side, of how
    many decisions the process heard at all, also of those that it could not count, but for retries.
    """

    stable: str
    candidate: str
    process: str
    flips: tuple[int, ...]
    cohorts: dict[str, int]
    rollout: str = ""
    weights: dict[int, dict[int, int]] = {}
    made: dict[str, int] = {}

    def made_by(self, side: Cohort) -> int:
        """Return how many decisions of a side are known of: those that are counted, at least."""
        return max(self.made.get(side, 0), self.cohorts.get(side, 0))

    def follows(self, before: "TrialCounts") -> bool:
        """Say whether this is what the same process may say after that: no count has fallen."""
        return (
            all(now >= then for now, then in zip(self.flips, before.flips, strict=True))
            and all(_get(self.cohorts, side) >= count for side, count in before.cohorts.items())
            and all(_get(self.made, side) >= count for side, count in before.made.items())
            and all(
                _get(self.weights.get(weight, {}), cell) >= count
                for weight, cells in before.weights.items()
                for cell, count in cells.items()
            )
        )

    @property
    def is_sound(self) -> bool:
        """Say whether these can be true: all that there are, none negative or absurd, none more than its total."""
        counts = (*self.flips, *self.cohorts.values(), *self.made.values())
        return (
            len(self.flips) == GROUPS * VERDICT_PAIRS
            and min(counts) >= 0
            and max(counts) <= MAX_COUNT
            and sum(self.flips) == sum(self.cohorts.values())
            and (not self.made or all(self.cohorts.get(side, 0) <= self.made.get(side, 0) for side in SIDES))
            and self._has_sound_weights
        )

    @property
    def _has_sound_weights(self) -> bool:
        cells = [cell for found in self.weights.values() for cell in found.items()]
        by_side = dict.fromkeys(SIDES, 0)
        for index, count in cells:
            by_side[SIDES[index % len(SIDES)]] += count
        return (
            len(self.weights) <= MAX_WEIGHTS
            and all(0 < weight < FULL for weight in self.weights)
            and all(0 <= index < CELLS and count >= 0 for index, count in cells)
            and all(by_side[side] <= self.cohorts.get(side, 0) for side in SIDES)
        )


def _get(counts: Mapping[K, int], key: K) -> int:
    return counts.get(key, 0)


def flip_index(group: int, stable: Verdict, candidate: Verdict) -> int:
    """Return where a decision is counted: by the group of its sticky key, then what each side said, Allow first."""
    return group * VERDICT_PAIRS + stable.severity * len(Verdict) + candidate.severity


def cell_index(group: int, side: Cohort, seconds: float, *, failed: bool) -> int:
    """Return where a decision is counted beside others of its weight: by group, latency, whether it failed, and side.

    `seconds` is how long the decision took the side, 0 or more.
    """
    bucket = bisect_left(LATENCY_BOUNDS, seconds)
    return ((group * len(LATENCY_BOUNDS) + bucket) * 2 + failed) * len(SIDES) + SIDES.index(side)


def read_cell(index: int) -> tuple[int, Cohort, int, bool]:
    """Return group, side, place among LATENCY_BOUNDS and whether it failed, of a `cell_index`."""
    rest, side = divmod(index, len(SIDES))
    rest, failed = divmod(rest, 2)
    group, bucket = divmod(rest, len(LATENCY_BOUNDS))
    return group, SIDES[side], bucket, bool(failed)


class Enforced(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway enforces for a policy, how far its sidecars are, and what it decided itself.

    `decisions` counts those (by Allow, Review and Block) that the revision took part in since the gateway began.
    `trial` is there while a candidate judges beside the revision.
    """

    epoch: int
    digest: str
    pending: str = ""
    sidecars: Sidecars = Sidecars()
    decisions: dict[str, int] = {}
    trial: TrialCounts | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a gateway is: requests that it is answering, now and added up since it began, in seconds.

    Between two answers the mean number in flight is the growth of `request_seconds` by that of `measured_seconds`.
    Nothing waits in a queue before it counts as in flight.
    """

    in_flight: int
    request_seconds: float
    measured_seconds: float


class Convergence(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator is told, policies by `namespace/name`; an older gateway does not say its load."""

    replica: str
    policies: dict[str, Enforced]
    load: Load | None = None


class RecordBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions to put on record, oldest first, each a DecisionRecord; and revisions, content by digest.

    The gateway asks for those that it `lacks`. An empty content says that the sidecar does not have it either.
    """

    records: tuple[msgspec.Raw, ...] = ()
    revisions: dict[str, str] = {}


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a decision is never taken; `field` names a part of the caller's request that is the reason, if one is."""

    message: str
    field: str = ""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """All decisions of a batch are on the gateway's disk but those that are `refused`, by id.

    With `lacks`, digests of revisions, none of them is: send the batch again, and those revisions with it.
    """

    refused: dict[str, Refusal] = {}
    lacks: tuple[str, ...] = ()


class BacktestRevision(msgspec.Struct, frozen=True, kw_only=True):
    """A revision: its digest, and the canonical JSON that it names."""

    digest: Annotated[str, Meta(max_length=71)]
    content: Annotated[str, Meta(max_length=2**20)]


class BacktestQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Judge again, by both revisions, at most so many decisions of a policy (`namespace/name`), in so many seconds.

    `lists` are texts of lists of digests, by their digests, that a gateway may not have yet.
    """

    policy: Annotated[str, Meta(max_length=512)]
    stable: BacktestRevision
    candidate: BacktestRevision
    decisions: Annotated[int, Meta(ge=1, le=MAX_BACKTEST_DECISIONS)]
    seconds: Annotated[float, Meta(gt=0, le=MAX_BACKTEST_SECONDS)] = MAX_BACKTEST_SECONDS
    lists: Annotated[dict[str, str], Meta(max_length=64)] = {}


Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Counts = Annotated[tuple[Count, ...], Meta(min_length=VERDICT_PAIRS, max_length=VERDICT_PAIRS)]
"""Decisions from verdict to verdict, as in `flips.FlipMatrix`."""
Name = Annotated[str, Meta(max_length=256)]


class BacktestExamples(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of some decisions that go from one verdict to another."""

    from_: Verdict
    to: Verdict
    ids: Annotated[tuple[Annotated[str, Meta(max_length=128)], ...], Meta(max_length=10)]


class BacktestShare(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway's log says of two revisions: the fields of a `backtest.Backtest`, and why it `ended`.

    Gateways that share a log have the same `log`, and their shares are of the same decisions; empty: nobody shares it.
    """

    replica: Annotated[str, Meta(max_length=253)]
    ended: Annotated[str, Meta(max_length=32)]
    overall: Counts
    categories: Annotated[dict[Name, Counts], Meta(max_length=2 * MAX_CATEGORIES)] = {}
    languages: Annotated[dict[Name, Counts], Meta(max_length=1000)] = {}
    examples: Annotated[tuple[BacktestExamples, ...], Meta(max_length=VERDICT_PAIRS)] = ()
    unknown: Count = 0
    erased: Count = 0
    elsewhere: Count = 0
    signals: Annotated[dict[Name, Count], Meta(max_length=10_000)] = {}
    lists: Annotated[dict[Name, Count], Meta(max_length=1000)] = {}
    log: Name = ""
    no_namespace: Count = 0
