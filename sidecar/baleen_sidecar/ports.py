"""What the use cases need from the world outside, as small Protocols in their own words."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from PIL import Image

from baleen_core.callers import Identity, KeyRole
from baleen_core.errors import Problem
from baleen_core.model.schema import Model
from baleen_core.policy.in_force import Override
from baleen_core.policy.schema import ListType, Revision, Verdict
from baleen_core.policy_stream import Recorded
from baleen_core.priority import Priority
from baleen_core.records import (
    ContentType,
    DecisionRecord,
    ModelIdentity,
    decode_personal,
    decode_record,
    join_personal,
)
from baleen_core.resources import PublishedPolicy, PublishedRoute
from baleen_sidecar.flow.breaker import Manual, Outcome, State
from baleen_sidecar.flow.quotas import Claim, Standing

Tensors = Mapping[str, NDArray[np.generic]]


class Lane(StrEnum):
    """What waits apart from what else is asked of a model: frames of a film must not hold up a chat."""

    INTERACTIVE = "Interactive"
    VIDEO = "Video"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """For whom a model is asked, and until when somebody waits (monotonic seconds)."""

    priority: Priority = Priority.NORMAL
    tenant: str = ""
    """Whose fair share it is a part of."""
    deadline: float = math.inf
    lane: Lane = Lane.INTERACTIVE
    traceparent: str = ""
    """Which trace it is a part of, for the server of the model; empty: of none."""
    on_wait: Callable[[float], None] = lambda seconds: None
    """Hears for how many seconds it waited for others before it had its turn."""


ANYONE: Final = Work()
"""Work of nobody in particular, which has all the time in the world."""


class Inference(Protocol):
    """Ask a model. Everything that waits, retries, batches or measures wraps this port and is this port."""

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """Answer for every row of `inputs` (batch axis first, rows aligned): one array an output, in the same order.

        The rows are at most `model.batching.max_batch_size`.

        Raises:
            ModelUnavailable: no answer in time, or one of the wrong shape. Unanswerable: it is these rows that have
            none, such as one that is not finite.
            Overloaded: it cannot be done in time, or others go first.
            DeadlineExceeded: the deadline passed before its turn.
        """

    async def is_ready(self, model: Model) -> bool:
        """Say whether the model gave its golden answers and is loaded now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """What waits for one model now, and what it was not asked since this process began.

    `waiting` counts rows by lane and priority, without those of which there are none; `rejected` counts calls by reason
    (see flow.batching.Reason). `mean_batch_rows` is how many rows went together, None before there was a batch.
    """

    model: str
    waiting: Mapping[Lane, Mapping[Priority, int]]
    batches_under_way: int
    rejected: Mapping[str, int]
    mean_batch_rows: float | None = None

    @property
    def waiting_rows(self) -> int:
        """How many rows wait."""
        return sum(rows for by_priority in self.waiting.values() for rows in by_priority.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTotals:
    """How many rows wait for all models together, and how many batches are under way."""

    waiting_rows: int = 0
    batches_under_way: int = 0


class Span(Protocol):
    """A part of a request whose time is taken."""

    def note(self, name: str, value: str | int) -> None:
        """Say something of it: never what was sent, nor who sent it."""


class Tracing(Protocol):
    """Tell whoever collects traces how long the parts of a request took."""

    def span(self, name: str, *, parent: str = "", of_caller: bool = False) -> AbstractContextManager[Span]:
        """Take the time of what is done inside. It is a part of what it is done in, or of `parent`, a traceparent.

        What a caller asks is `of_caller`. An exception marks it as failed by its kind alone: the words of an error may
        quote what was sent.
        """

    def traceparent(self) -> str:
        """Return the traceparent of where we are, for others to go on with; empty: nobody wants to know."""

    def trace_id(self) -> str:
        """Return the id of the trace that we are in; empty: nobody wants to know."""


class BreakerKind(StrEnum):
    """What a breaker is of: a model, one of the servers that run it, or a source of content."""

    MODEL = "Model"
    SERVER = "Server"
    SOURCE = "Source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an administrator wants of a breaker: who, why, and when (seconds since 1970)."""

    state: Manual
    by: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerReport:
    """One breaker as it is now; times are monotonic seconds.

    `calls`, `failures` and `slow` are of the last half minute. `next_try_at` is when it is found out again whether it
    may close. `under_way` are calls that have not ended, waited for or not. A replica that is `ejected_until` then does
    worse than the others, and is asked only if they cannot be.
    """

    name: str
    kind: BreakerKind
    state: State
    since: float
    calls: int = 0
    failures: int = 0
    slow: int = 0
    failures_in_a_row: int = 0
    trials: int = 0
    under_way: int = 0
    why: str = ""
    next_try_at: float | None = None
    ejected_until: float | None = None
    order: Order | None = None
    changes: Mapping[State, int] = field(default_factory=dict)
    """How often it became what, since this process began to ask."""
    tried: Mapping[Outcome, int] = field(default_factory=dict)
    """How live trials ended."""
    ejections: int = 0
    retries: int = 0
    """Calls that were made again, of a model."""
    hedges: int = 0
    """Calls that were made twice since the first took long, of a model."""
    let_go: int = 0
    """Calls that were given up since the server hung; their answers count no more, should they come."""


class Breakers(Protocol):
    """Breakers that somebody may look at, and open and close by hand."""

    def reports(self) -> Sequence[BreakerReport]:
        """Return all that there are."""

    def order(self, name: str, order: Order) -> BreakerReport | None:
        """Do what an administrator wants, and return how the breaker is then; None: there is none of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Bytes that were read from an address, and the media type that its server claimed."""

    data: bytes
    media_type: str


class Fetcher(Protocol):
    """Read content from an address that the caller gave: hostile until proved otherwise."""

    async def fetch(self, url: str) -> Page:
        """Read at most the configured number of bytes.

        Raises:
            ContentError: the address is not one that may be read (scheme, private network, too large); the field is
            `content.url`. FetchError: its server did not answer as it should. Overloaded: too much is being looked up.
        """


class LanguageDetector(Protocol):
    """Name the language of a text."""

    def detect(self, text: str) -> str | None:
        """Return an ISO 639-1 code, or None when the text is too short or unclear to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What an image's header says: its true media type (by its bytes), its size in pixels, and whether it moves."""

    media_type: str
    width: int
    height: int
    animated: bool


class ImageDecoder(Protocol):
    """Turn image files into RGB pictures; both methods take CPU time: large files are for a thread."""

    def inspect(self, data: bytes) -> ImageInfo:
        """Read the header alone.

        Raises:
            WrongType: not a JPEG, PNG, WebP or GIF, whatever it claims to be.
            TooLarge: more bytes or pixels than the limit, which is named.
            ContentError: empty or broken.
        """

    def decode(self, data: bytes) -> Image.Image:
        """Decode a still image upright, on white where it is transparent.

        Raises:
            ContentError: truncated or broken, or as for `inspect`.
        """


class PerceptualHash(Protocol):
    """Name a picture so that look-alikes have names that differ in few bits."""

    def hash(self, picture: Image.Image) -> bytes:
        """Return 256 bits of PDQ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a container says of itself; each value may be a lie, and the decoder bounds what it does regardless."""

    duration_milliseconds: int
    width: int
    height: int
    media_type: str = ""
    """What the bytes are, whatever the caller called them; "" if not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One decoded picture (RGB) and its time."""

    at_milliseconds: int
    image: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """The end of a video: `count` sampling instants had no picture that could be decoded, or pictures went unseen.

    `duration_milliseconds` is the longer of what the container claimed and what was decoded, so that a file which ends
    before it said it would is not covered.
    """

    count: int
    duration_milliseconds: int


class FrameDecoder(Protocol):
    """Take moving pictures apart (video, animated images) in a process that can be killed."""

    def frames(self, data: bytes, *, frames_per_minute: int) -> AsyncGenerator[VideoInfo | Frame | Skipped, None]:
        """Yield one VideoInfo, then a frame for each sampling instant in the order of time, then one Skipped.

        The instants are those of `media.sampling.instants`; a picture that stays on display is the same `image`
        object in every frame. A video's covers (at 0 ms) and the pictures of an animation that stand between two
        instants are frames too. Memory is bounded by one frame, whatever the length. Closing the iterator early ends
        the process.

        Raises:
            ContentError: not a video, truncated before its first frame, or over a limit (named).
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """An idempotency key: whose and which (`id`), for which request (`fingerprint`), at what time (Unix seconds).

    Both are SHA-256 in hexadecimal digits; see usecases/answer_once.py.
    """

    id: str
    fingerprint: str
    time_seconds: int


KEY_SECONDS: Final = 24 * 3600
"""How long an idempotency key counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """What is on record under an idempotency key: for which request, and with which decision it was answered."""

    fingerprint: str
    decision_id: str


class KeptContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Content that can be looked at again: a `text`, or the `url` of media."""

    type: ContentType
    text: str = ""
    url: str = ""

    @property
    def size_bytes(self) -> int:
        """What it takes to keep it, roughly."""
        return DEBT_BYTES + len(self.text.encode()) + len(self.url)


DEBT_BYTES: Final = 512
"""What a debt takes beside its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """A decision that allowed for now, and is owed another look once these `models` are back.

    `risk` is a place in the order of Risk. Where somebody has taken it, `claim` is his, and `tries` counts him.
    `failed_reads` counts those before him who could not read the content's address.
    """

    decision_id: str
    time: str
    risk: int
    models: tuple[str, ...]
    content: KeptContent
    tries: int = 0
    failed_reads: int = 0
    claim: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A decision that a second look changed: the new one by its id, and the one that it stands for.

    `sequence` orders the changes of one log; 0 before it is there.
    """

    decision_id: str
    rescan_of: str
    was: Verdict
    became: Verdict
    time: str
    tenant: str | None
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What goes into the log in the same transaction as a decision, or not at all, and the decision neither.

    `key` is put there unless it is there already. `debt` is put there. `settles` was claimed, and is taken out, unless
    somebody else did so; then `change` is put there.
    """

    key: RequestKey | None = None
    debt: Debt | None = None
    settles: Debt | None = None
    change: Change | None = None


class DecisionLog(Protocol):
    """The record of every decision. What `append` returned from survives a crash."""

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        """Make the record durable, with what stands beside it; returns only then.

        False: it was not put on record, since the key has a decision already, or somebody else settled the debt.

        Raises:
            LogUnavailable: it could not be made durable (disk full, database gone).
        """

    def begin(self, record: DecisionRecord, beside: Beside | None = None) -> asyncio.Future[bool]:
        """Return what will be done when `append` would have returned, or raised; for many at once, which need no tasks.

        Raises:
            LogUnavailable: it is known already that it cannot be made durable.
        """

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id."""

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """Find what is on record under an idempotency key that is not older than KEY_SECONDS.

        What it names is as durable as what was appended.

        Raises:
            StateError, LogUnavailable: the log cannot be read, or not be made durable.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """How much is owed another look: so many decisions and bytes, the oldest of this time (RFC 3339; empty: none).

    `waits_for` are the sets of models that they wait for.
    """

    decisions: int = 0
    size_bytes: int = 0
    oldest: str = ""
    waits_for: frozenset[tuple[str, ...]] = frozenset()


class RescanDebts(Protocol):
    """What was allowed while models were missing, and which decisions a second look changed.

    Several processes may share it. Every method raises StateError where it cannot be read or written.
    """

    async def owed(self) -> Owed:
        """Say how much is owed."""

    async def claim(
        self, payable: Collection[tuple[str, ...]], *, limit: int, now_seconds: float, lease_seconds: float
    ) -> Sequence[Debt]:
        """Take debts that wait for these sets of models, the riskiest first and of those the oldest.

        Nobody else gets them for `lease_seconds`, also if this process is killed.
        """

    async def put_back(self, debt: Debt, *, due_seconds: float, read_failed: bool = False) -> None:
        """Give up a claim; from `due_seconds` (Unix) on it can be taken again. A read that failed is counted."""

    async def forgive(self, debt: Debt) -> None:
        """Take a debt out of which the decision is gone."""

    async def changes(self, *, after: int, limit: int, tenant: str | None = None) -> Sequence[Change]:
        """Return changes, oldest first, of higher `sequence` than `after`; of one tenant or of all."""


class Subjects(Protocol):
    """The people that decisions on record are about."""

    async def erase(self, author: str, *, tenant: str | None = None) -> int:
        """Erase the PersonalPart of every decision about an author, of a tenant or of any; return how many there were.

        The decisions stay, and say that they were erased; erasing again finds none.

        Raises:
            StateError: the log cannot be read or written; what was erased before that stays so.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """A decision on record: its place in the log (later ones have higher numbers), and its record as JSON.

    Its personal part may stand beside the record, and is missing once it was erased.
    """

    sequence: int
    id: str
    record: bytes
    personal: bytes | None = None
    is_erased: bool = False

    def read(self) -> DecisionRecord:
        """Put its parts together.

        Raises:
            ValueError: they are not a record that this version can read.
        """
        record = decode_record(self.record)
        if self.is_erased:
            return structs.replace(record, erased=True)
        return record if self.personal is None else join_personal(record, decode_personal(self.personal))


class DecisionHistory(Protocol):
    """The decision log, read backwards."""

    async def newest(self, *, before: int | None = None, limit: int) -> Sequence[LoggedDecision]:
        """Return the newest decisions, newest first; with `before`, only those whose place is below it.

        Raises:
            StateError: the log cannot be read.
        """

    async def log_id(self) -> str:
        """Return what all readers of one shared log say alike, and no other log does; empty: nobody shares this one.

        Raises:
            StateError: the log cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledDecision:
    """A decision that waits in a spool: its place there, and its record as JSON."""

    sequence: int
    id: str
    time: str
    record: bytes


class Spool(Protocol):
    """A decision log whose rows are sent on, in their order; what was sent makes room for what is new."""

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        """Keep a decision until it was sent; returns once it would survive the end of this process.

        False as for DecisionLog. `beside` may have a key and nothing else.

        Raises:
            LogUnavailable: it could not be kept, or too much waits.
        """

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id, sent or not, unless it was dropped."""

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """Find what is kept under an idempotency key, as DecisionLog does; sent or not."""

    async def is_waiting(self, decision_id: str) -> bool:
        """Say whether a decision is here and was not sent yet.

        Raises:
            StateError: it cannot be read.
        """

    async def forget_keys(self, decision_ids: Collection[str]) -> None:
        """Let go of the idempotency keys that were answered with these decisions.

        Raises:
            StateError: they cannot be deleted.
        """

    async def waiting(self, *, limit_rows: int, limit_bytes: int) -> Sequence[SpooledDecision]:
        """Return what waits, oldest first, as much as fits; one at least, if there is one.

        Raises:
            StateError: it cannot be read.
        """

    async def mark(self, sent: Sequence[SpooledDecision]) -> None:
        """Count these, which were the oldest that waited, as sent.

        Raises:
            StateError: that could not be kept; they count as sent while this process lives.
        """

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of decisions wait to be sent."""


class RecordTaker(Protocol):
    """The gateway, as the place where a sidecar's decisions are kept for good."""

    async def put_on_record(self, records: Sequence[bytes], revisions: Mapping[str, str]) -> Recorded:
        """Return once all that is not refused is on the gateway's disk; see `RecordBatch`.

        Raises:
            UpstreamError: the gateway did not answer, or not as it should. Overloaded: it says when to come again.
        """


class OriginLog(Protocol):
    """A decision log that also keeps what others decided."""

    async def take(self, record: DecisionRecord, *, origin: str) -> bool:
        """Append as DecisionLog does, and keep who sent the record; False when it was on record before.

        Raises:
            LogUnavailable: as for DecisionLog.
            IntegrityError: another record has this id.
        """

    async def sync(self) -> None:
        """Return once everything that was appended is on the disk, whatever appending alone waits for.

        Raises:
            LogUnavailable: it could not be made so.
        """


Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Everything that a cluster says at one moment: policies by key, and ModelDeployments as they are written.

    With `problems`, some of it could not be read, and what is missing must not be taken for deleted.
    """

    policies: Mapping[Key, PublishedPolicy] = field(default_factory=dict)
    deployments: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What one replica enforces for a policy: the route's epoch and the digest in force; `pending` says what it lacks.

    With `pending` the epoch is the one before: a newer one is known, and not yet whole. `candidate` is the digest of
    what judges beside it in a rollout, and `rollout` names that one;
    `weight` is how much of the line it has there, in basis points.
    """

    epoch: int
    digest: str
    pending: str = ""
    candidate: str = ""
    rollout: str = ""
    weight: int = 0


class PolicySource(Protocol):
    """Where a replica learns what is published: the API server, or a gateway's stream."""

    def published(self) -> AsyncGenerator[Published, None]:
        """Yield everything once it is known whole, and again after each change; what came while nobody asked is one.

        It never ends by itself: an outage is waited out (back-off with jitter), and `problem` says so meanwhile.
        """

    async def read_list(self, namespace: str, digest: str, type: ListType) -> str | None:
        """Return the canonical text of a list that a revision names, not verified; None when it is not there (yet).

        Raises:
            UpstreamError: it cannot be read now.
        """

    async def report(self, adopted: Mapping[Key, Adopted]) -> None:
        """Tell whoever asks (the operator, in the end) what this replica enforces; never fails."""

    @property
    def problem(self) -> str:
        """Say what keeps the source from being followed now; empty when it is followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPolicy:
    """What a replica holds of one policy: the route that it adopted, the override that it obeys, what is in force.

    The route's epoch is 0 while none was adopted. With `override_problem` the digest stays, whatever they say, and so
    does the `candidate` (a digest) that judges beside it, unless a newer route gave it up.
    """

    route: PublishedRoute
    override: Override | None = None
    override_problem: str = ""
    digest: str = ""
    version: str = ""
    candidate: str = ""
    candidate_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The last good state: with it, and with the revisions and lists in the store, a replica starts on its own."""

    policies: Mapping[Key, KeptPolicy] = field(default_factory=dict)
    deployments: tuple[Mapping[str, Any], ...] = ()


class LastGood(Protocol):
    """Keep the last good state over restarts."""

    async def load(self) -> Kept:
        """Return what was saved last; nothing at all when there is none.

        Raises:
            StateError: it cannot be read, or is not what was saved.
        """

    async def save(self, kept: Kept) -> None:
        """Replace it as a whole; it survives a crash of the machine.

        Raises:
            StateError: it cannot be written; what was saved before is still there.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """Whom the API server says that a token belongs to."""

    namespace: str
    name: str
    pod: str = ""


class Authenticator(Protocol):
    """Find out who calls."""

    async def authenticate(self, token: str) -> ServiceAccount | None:
        """Return whose token it is; None when it is nobody's, expired, or for another audience.

        Raises:
            UpstreamError: it cannot be found out now.
        """


class Tokens(Protocol):
    """Find out who calls by a token that somebody else signed, where it is no API key."""

    async def identify(self, token: str, role: KeyRole) -> Identity:
        """Return whose token it is, which may lack the `role` that is needed.

        Raises:
            Unauthenticated: it is nobody's, or no such token opens what needs this role. It is not repeated.
            Forbidden: it is somebody's who may not call.
            UpstreamError: it cannot be found out now. Overloaded: too many are being found out at once.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A revision became what is in force for a policy: which, when (RFC 3339, UTC), and why."""

    policy: str
    digest: str
    version: str
    time: str
    reason: str


class RevisionStore(Protocol):
    """Revisions, lists by digest, and the history of what was in force: the last good state, to start from."""

    async def put_revision(self, policy: str, revision: Revision) -> None:
        """Keep a revision; keeping it again changes nothing."""

    async def get_revision(self, digest: str) -> Revision | None:
        """Find a revision by digest."""

    async def put_list(self, digest: str, content: str) -> None:
        """Keep a list's canonical text under its digest."""

    async def get_list(self, digest: str) -> str | None:
        """Find a list's canonical text by digest."""

    async def record_activation(self, activation: Activation) -> None:
        """Append to the history."""

    async def history(self, policy: str, *, limit: int = 10) -> Sequence[Activation]:
        """Return the activations of a policy, newest first."""

    async def find_activation(self, policy: str, *, digest: str = "", version: str = "") -> Activation | None:
        """Find the newest activation of a policy with this digest, or with this version, however long ago it was."""

    async def last_active(self) -> Sequence[Activation]:
        """Return the newest activation of each policy, by policy name."""


class Quotas(Protocol):
    """Count what callers use up. It never fails: where what counts for all is away, each counts for itself."""

    async def take(self, claims: Sequence[Claim]) -> Sequence[Standing]:
        """Count a piece of content in all of its counts, or, where one of them has no room, in none.

        No span of a quota's window has more than its limit, whoever asks at the same time.
        """

    @property
    def problem(self) -> str:
        """Say what keeps quotas from being counted for all replicas together; empty where nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Percent of `cpus` and `memory_bytes`, which are what may be used; the sources say by what both are known.

    A source is `cgroup-v1`, `cgroup-v2` or `process`.
    """

    cpu_percent: float
    memory_percent: float
    cpus: float
    memory_bytes: int
    cpu_source: str
    memory_source: str


class ResourceReader(Protocol):
    """How much CPU and memory of what it may have this process uses."""

    def read(self) -> Usage:
        """Return what is used now: CPU on average since the last time, and 0 the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScores:
    """What a model said of a whole content: each of its signals (millionths), and the limits that it was seen within.

    It is what the model saw and said, and nothing of what was decided.
    """

    model: ModelIdentity
    signals: Mapping[str, int]
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLevel:
    """One of the places of a cache, since its process began; what is None is known elsewhere, or to nobody.

    `failures` are times that it could not be asked or written, `problem` is why it cannot be now.
    """

    name: str
    hits: int
    misses: int
    failures: int = 0
    entries: int | None = None
    size_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What was found of what was looked for, at any level, since the process began."""

    hits: int = 0
    misses: int = 0
    levels: tuple[CacheLevel, ...] = ()


class ScoreCache(Protocol):
    """What models said before, by a key that has all that they said it of (`flow.score_keys`)."""

    async def get(self, keys: Sequence[bytes], *, tenant: str = "") -> Mapping[bytes, ModelScores]:
        """Return what is there and not too old; what cannot be looked up now is not there. `tenant` is who asks."""

    async def put(self, scores: Mapping[bytes, ModelScores], *, tenant: str = "") -> None:
        """Remember it, within what `tenant` may have of the cache; what cannot be kept now is not.

        What is looked up in this process finds it once this is called, before it returns.
        """

    async def clear(self) -> Mapping[str, int]:
        """Forget everything, and say how many entries that were at each level, about.

        Raises:
            UpstreamError: a level that others share could not be cleared; those before it are clear.
        """

    def stats(self) -> CacheStats:
        """Return the numbers so far."""
