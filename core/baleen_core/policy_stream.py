"""What a gateway says on its second listener, and what it takes there: from sidecars that follow it, and the operator.

`GET /v1/policy-stream` answers with one message a line and never ends by itself; the other paths are plain JSON. Every
request carries a ServiceAccount's token for AUDIENCE. Fields are added and never change their meaning, and unknown ones
are ignored, so that a gateway and its sidecars may be of different releases.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from baleen_core.assignment import GROUPS
from baleen_core.errors import Problem
from baleen_core.policy.schema import MAX_BACKTEST_DECISIONS, MAX_CATEGORIES, Verdict
from baleen_core.resources import PublishedPolicy

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

    `process` is another one after each start, so that counts which began anew are not taken for a fall. `flips` counts
    decisions at `flip_index`, whichever side counted; `cohorts` says for which side (`Stable`, `Candidate`) they were.
    """

    stable: str
    candidate: str
    process: str
    flips: tuple[int, ...]
    cohorts: dict[str, int]

    @property
    def is_sound(self) -> bool:
        """Say whether these are counts: as many as there are, none negative or absurd, each decision for one side."""
        counts = (*self.flips, *self.cohorts.values())
        return (
            len(self.flips) == GROUPS * VERDICT_PAIRS
            and min(counts) >= 0
            and max(counts) <= MAX_COUNT
            and sum(self.flips) == sum(self.cohorts.values())
        )


def flip_index(group: int, stable: Verdict, candidate: Verdict) -> int:
    """Return where a decision is counted: by the group of its sticky key, then what each side said, Allow first."""
    return group * VERDICT_PAIRS + stable.severity * len(Verdict) + candidate.severity


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
    """What a gateway's log says of two revisions: the fields of a `backtest.Backtest`, and why it `ended`."""

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
