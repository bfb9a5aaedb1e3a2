"""Evidence, decisions and their records; the JSON form of each is msgspec's, with field names as they stand here.

A record holds everything that the decision was made from: it can be made again, bit for bit, from the record and the
revisions that it names.
"""

from enum import StrEnum
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType, structs

from baleen_core.policy.schema import Verdict

ContentType = Literal["text", "image", "video"]


class Missing(StrEnum):
    """Why a signal that a policy wants has no score."""

    FAILED = "Failed"
    """The model was asked and did not answer, or answered nonsense."""
    NOT_SERVED = "NotServed"
    """No model at hand offers the signal."""
    NOT_APPLICABLE = "NotApplicable"
    """The model does not take this type of content."""


class Cohort(StrEnum):
    """Which side of a rollout judged."""

    STABLE = "Stable"
    CANDIDATE = "Candidate"


class PolicyRole(StrEnum):
    """Why a policy was asked."""

    WINNER = "Winner"
    FLOOR = "Floor"
    DRY_RUN = "DryRun"


class Risk(StrEnum):
    """The score over the block threshold: below 0.5, 0.8, 1, and above."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"


class Durability(StrEnum):
    """When a decision counts as written: after fsync, or once the operating system has it (synced each half second).

    In a sidecar that follows a gateway: once the gateway has it on disk, or once it is in the spool.
    """

    FSYNC = "Fsync"
    INTERVAL = "Interval"


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The common form of everything recorded: immutable, no unknown fields.

    Outside the garbage collector, since no value in it can lead back to it: with it, reading a log takes twice as long.
    """


class ListHit(Frozen, frozen=True, omit_defaults=True):
    """An entry of a list (by the digest of the list's content) that the content matched."""

    list_digest: str
    entry: str
    distance: int | None = None


class FrameSignals(Frozen, frozen=True):
    """The scores (millionths by signal) of one frame, at its time in the video."""

    at_milliseconds: int
    signals: dict[str, int]


class Coverage(Frozen, frozen=True, omit_defaults=True):
    """What of a video was looked at. `ratio` is in millionths; an early exit leaves the rest unscanned on purpose."""

    frames_expected: int
    frames_judged: int
    frames_undecodable: int
    ratio: int
    early_exit: bool = False


class VideoEvidence(Frozen, frozen=True):
    """A video's length and what was seen of it."""

    duration_milliseconds: int
    coverage: Coverage


class ContentFacts(Frozen, frozen=True, omit_defaults=True):
    """What rules may read of the content itself: its length (characters of text, bytes of media), and links in text."""

    type: ContentType
    digest: str
    length: int
    links: int = 0
    media_type: str = ""
    width: int = 0
    height: int = 0


class Context(Frozen, frozen=True, omit_defaults=True):
    """Where content comes from; `author` holds only fields that rules may read (rules.AUTHOR_FIELDS)."""

    tenant: str | None = None
    surface: str | None = None
    source: str | None = None
    session: str | None = None
    language: str | None = None
    author: dict[str, str | int | bool] = {}


class ModelIdentity(Frozen, frozen=True):
    """Which model answered, exactly."""

    name: str
    version: str
    sha256: str


class Evidence(Frozen, frozen=True, omit_defaults=True):
    """Everything that a decision is made from, apart from the policies.

    `signals` holds millionths by `<model>.<signal>`; for video, the highest over all frames. `frames` is empty for text
    and still images. `limits` names limits that were hit (`TextTooLong`), and `limited` the models that one is about:
    it concerns policies that look at them, and one without models all of them. A wanted signal is in `signals` or in
    `missing`; one that is in neither counts as NotServed. A model that answered for a part of the content and then
    failed has its signals in both: the highest scores that were seen, and Failed; both count, and the stricter wins. A
    frame without a score that other frames have counts as failed. `fallbacks` names, for a signal whose model failed,
    the one that stood in: its score is that of the signal then. `rescannable` says of content for which scores are
    missing that it can be looked at again. `degraded` names what else was not as it should be
    (`PolicySource`: newer policies may not have arrived; `DecisionSpool`: decisions wait in the pod; `SharedQuotas`:
    limits of callers are counted by each replica for itself); it changes no
    verdict. `cached` names those of `models` that were not asked: they had given these scores for this content before.
    """

    content: ContentFacts
    context: Context
    signals: dict[str, int] = {}
    missing: dict[str, Missing] = {}
    language: str | None = None
    lists: tuple[ListHit, ...] = ()
    limits: tuple[str, ...] = ()
    limited: dict[str, tuple[str, ...]] = {}
    frames: tuple[FrameSignals, ...] = ()
    video: VideoEvidence | None = None
    models: tuple[ModelIdentity, ...] = ()
    degraded: tuple[str, ...] = ()
    fallbacks: dict[str, str] = {}
    rescannable: bool = False
    cached: tuple[str, ...] = ()

    @property
    def is_from_cache(self) -> bool:
        """Whether models answered, and none of them was asked."""
        return bool(self.models) and {each.name for each in self.models} <= set(self.cached)


class PolicyRef(Frozen, frozen=True):
    """A policy that judged, in which role, and the revision it was.

    Earlier releases did not say the `namespace`; whose it was is told by `whose.PolicyOnRecord`.
    """

    role: PolicyRole
    name: str
    type: str
    version: str
    digest: str
    cohort: Cohort = Cohort.STABLE
    namespace: str | UnsetType = UNSET


class CategoryResult(Frozen, frozen=True):
    """A category's highest score (millionths; None when it could not be scored) and what it led to."""

    name: str
    score: int | None
    decision: Verdict
    signals: dict[str, int]


class Reason(Frozen, frozen=True):
    """Why the decision is stricter than Allow (or why a list allowed): the kind of cause, its name, and words."""

    type: str
    name: str
    text: str


class Segment(Frozen, frozen=True):
    """A stretch of a video, in milliseconds, whose frames led to `decision` in `category`."""

    start_milliseconds: int
    end_milliseconds: int
    category: str
    decision: Verdict
    score: int


class Trial(Frozen, frozen=True, omit_defaults=True):
    """What both sides of a policy's rollout say by themselves, of which one counted; `group` is the sticky key's.

    `rollout` names the try (`PublishedRoute.rollout`). The candidate counted if the content was `exposed` to it. Where
    chance decided that, `weight` is the candidate's share of the line then, in basis points; else it is 0. The side
    that counted has `failed` where it lacks a signal that it looks at, or one of its rules ends in an error, unless a
    list of the known good cleared the content all the same. Earlier releases did not say the policy's `namespace`.
    """

    name: str
    stable: str
    candidate: str
    stable_verdict: Verdict
    candidate_verdict: Verdict
    group: int
    rollout: str = ""
    exposed: bool = False
    weight: int = 0
    failed: bool = False
    namespace: str | UnsetType = UNSET


class Decision(Frozen, frozen=True, omit_defaults=True):
    """What is answered, as far as it follows from evidence and policies alone (no id, no time).

    `trials` has each policy that is in a rollout, with the digests of both revisions.
    """

    decision: Verdict
    would_be: Verdict | None
    risk: Risk
    score: int
    categories: tuple[CategoryResult, ...]
    reasons: tuple[Reason, ...]
    policies: tuple[PolicyRef, ...]
    degraded: tuple[str, ...]
    segments: tuple[Segment, ...]
    trials: tuple[Trial, ...] = ()


def side_of(trial: Trial) -> Cohort:
    """Say which side of a rollout judged for the decision."""
    return Cohort.CANDIDATE if trial.exposed else Cohort.STABLE


class DecisionRecord(Frozen, frozen=True, omit_defaults=True):
    """One row of the decision log. `time` is RFC 3339 in UTC; `latency_microseconds` is what the caller waited for.

    Of that, `apart_microseconds` were for models alone that only sides of rollouts want which did not count, and for
    `queue_microseconds` other work went first at a model.
    `durability` is what the answer waited for after that. It is kept for `keep_days`, which the policies that judged
    ask for, or as long as the installation says (None). Of one that is `erased`, the PersonalPart is gone. It was made
    on a second look at what `rescan_of` (an id) allowed while models were missing; empty: on a first one.
    """

    id: str
    time: str
    evidence: Evidence
    decision: Decision
    latency_microseconds: int = 0
    apart_microseconds: int = 0
    queue_microseconds: int = 0
    request_id: str = ""
    durability: Durability | None = None
    keep_days: int | None = None
    erased: bool = False
    rescan_of: str = ""


class PersonalPart(Frozen, frozen=True, omit_defaults=True):
    """What of a record tells of a person, and goes when its subject is erased.

    The author and the session; the digest of the content and the list entries that it matched, by which a guess at the
    content could be confirmed; and the request's id, which leads to the caller's own logs.
    """

    content_digest: str
    author: dict[str, str | int | bool] = {}
    session: str | None = None
    lists: tuple[ListHit, ...] = ()
    request_id: str = ""


POLICY_SOURCE: Final = "PolicySource"
"""In `degraded` while the source of policies is lost."""
DECISION_SPOOL: Final = "DecisionSpool"
"""In `degraded` while decisions wait for long to reach the gateway's log."""
SHARED_QUOTAS: Final = "SharedQuotas"
"""In `degraded` while replicas cannot count quotas together, and each lets its own share in."""
RESCAN_DEBT: Final = "RescanDebt"
"""In `degraded` of what was allowed for now, and is looked at again once the models that failed are back."""
SHARED_CACHE: Final = "SharedCache"
"""In `degraded` while the cache that replicas share cannot be asked."""

_ENCODER = msgspec.json.Encoder(order="deterministic")
_RECORD = msgspec.json.Decoder(DecisionRecord)
_PERSONAL = msgspec.json.Decoder(PersonalPart)


def encode(value: Any) -> bytes:
    """Write a record, or a part of one, as JSON with a fixed order: equal values have equal bytes."""
    return _ENCODER.encode(value)


def decode_record(data: bytes) -> DecisionRecord:
    """Read a record as it was written.

    Raises:
        msgspec.ValidationError: the bytes are not a record.
    """
    return _RECORD.decode(data)


def decode_personal(data: bytes) -> PersonalPart:
    """Read the personal part of a record as it was written.

    Raises:
        msgspec.ValidationError: the bytes are not such a part.
    """
    return _PERSONAL.decode(data)


def split_personal(record: DecisionRecord) -> tuple[DecisionRecord, PersonalPart]:
    """Take the personal part out of a record; `join_personal` puts it back."""
    evidence = record.evidence
    content, context = evidence.content, evidence.context
    part = PersonalPart(
        content_digest=content.digest,
        author=context.author,
        session=context.session,
        lists=evidence.lists,
        request_id=record.request_id,
    )
    return _with_personal(record, _NOTHING_PERSONAL), part


def join_personal(record: DecisionRecord, part: PersonalPart) -> DecisionRecord:
    """Put the personal part back into the record that it was taken out of."""
    return _with_personal(record, part)


def _with_personal(record: DecisionRecord, part: PersonalPart) -> DecisionRecord:
    evidence = record.evidence
    return structs.replace(
        record,
        evidence=structs.replace(
            evidence,
            content=structs.replace(evidence.content, digest=part.content_digest),
            context=structs.replace(evidence.context, author=part.author, session=part.session),
            lists=part.lists,
        ),
        request_id=part.request_id,
    )


_NOTHING_PERSONAL: Final = PersonalPart(content_digest="")
