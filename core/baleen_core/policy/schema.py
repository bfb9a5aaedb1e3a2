"""A policy as typed, frozen data; defaults of schema version 1 are the defaults of these fields.

The defaults live here and never in the CRD: one added there would change stored objects on read, and so every digest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from baleen_core.analysis.metrics import Metric
from baleen_core.assignment import DEFAULT_KEYS, StickyKey

SCHEMA_VERSION: Final = 1
API_VERSION: Final = "moderation.baleen.dev/v1alpha1"

MAX_CATEGORIES: Final = 64
MAX_SIGNALS_PER_CATEGORY: Final = 16
MAX_RULES: Final = 100
MAX_RULE_LENGTH: Final = 1024
MAX_LISTS: Final = 32
MAX_LIST_ENTRIES: Final = 1_000_000
MAX_LIST_BYTES: Final = 64 * 1024 * 1024
MAX_TESTS: Final = 200
MAX_PARAMETERS: Final = 64
MAX_MODELS: Final = 32
MAX_NAME_LENGTH: Final = 63
MAX_ROLLBACK_WINDOW: Final = 10
MAX_REVISION_HISTORY: Final = 1000
MAX_STEPS: Final = 32
MAX_TENANTS: Final = 64
MAX_STEP_SECONDS: Final = 31_536_000
MAX_STEP_DECISIONS: Final = 1_000_000_000
MAX_METRICS: Final = 16
MAX_QUERIES: Final = 8
"""Metrics of type PromQL: so many questions a policy may ask of the installation's server at each look."""
DEFAULT_PROGRESS_DEADLINE_SECONDS: Final = 86_400
DEFAULT_ANALYSIS_SECONDS: Final = 30
DEFAULT_CONFIDENCE: Final = 990_000
MAX_RETENTION_DAYS: Final = 36_500
DEFAULT_ROLLBACK_WINDOW: Final = 3
DEFAULT_REVISION_HISTORY: Final = 10


class Verdict(StrEnum):
    """What may happen with content; ordered by `severity`."""

    ALLOW = "Allow"
    REVIEW = "Review"
    BLOCK = "Block"

    @property
    def severity(self) -> int:
        return _SEVERITY[self]


_SEVERITY: Final = {Verdict.ALLOW: 0, Verdict.REVIEW: 1, Verdict.BLOCK: 2}


class Role(StrEnum):
    """A Floor also binds every narrower scope, which can be stricter and never looser."""

    POLICY = "Policy"
    FLOOR = "Floor"


class Enforcement(StrEnum):
    """DryRun is judged and logged, never wins and never masks a wider policy."""

    ENFORCE = "Enforce"
    DRY_RUN = "DryRun"


class Require(StrEnum):
    """How many of a category's signals must reach their threshold."""

    ANY = "Any"
    ALL = "All"


class OnSignalMissing(StrEnum):
    """What a signal that no model serves means: a model failure, or nothing."""

    MODEL_FAILURE = "ModelFailure"
    IGNORE = "Ignore"


class OnLanguageUnsupported(StrEnum):
    """What text in a language outside a category's `languages` means."""

    SKIP = "Skip"
    REVIEW = "Review"


class OnModelFailure(StrEnum):
    """What is answered when a model that is needed does not answer.

    AllowAndRescan allows what can be looked at again, and owes that look; what cannot is for Review.
    """

    REVIEW = "Review"
    BLOCK = "Block"
    ALLOW_AND_RESCAN = "AllowAndRescan"


class ListType(StrEnum):
    """What a list's entries are: terms of text, SHA-256 digests of content, or 256-bit PDQ hashes of images."""

    TERMS = "Terms"
    DIGEST = "Digest"
    PERCEPTUAL_HASH = "PerceptualHash"


class ListSourceType(StrEnum):
    """Where a list's content is written."""

    CONFIG_MAP = "ConfigMap"
    SECRET = "Secret"  # noqa: S105 - the name of a kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a policy counts; an absent field means any. `source` is a path, and may end in `/*`."""

    tenant: str | None = None
    surface: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Review or block when `signal` (`<model>.<signal>`) reaches so many millionths; None never does."""

    signal: str
    review: int | None = None
    block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """How many signals of a category must agree, for each verdict."""

    review: Require = Require.ANY
    block: Require = Require.ANY


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One kind of harm and the signals that speak of it; with `languages`, text in others is skipped or reviewed."""

    name: str
    signals: tuple[Threshold, ...]
    require: Requirement = field(default_factory=Requirement)
    on_signal_missing: OnSignalMissing = OnSignalMissing.MODEL_FAILURE
    languages: tuple[str, ...] = ()
    on_language_unsupported: OnLanguageUnsupported | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSource:
    """The object and key that hold a list's content."""

    type: ListSourceType
    name: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyList:
    """A hit in this list means `action`. As written it has a `source`; in a revision, the `digest` of its content."""

    name: str
    type: ListType
    action: Verdict
    max_distance: int | None = None
    source: ListSource | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When the CEL expression `when` holds, take `action` for `reason`."""

    name: str
    when: str
    action: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequirement:
    """The model version that the thresholds were calibrated for."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """How video is sampled; at `frames_per_minute`, and stopped at the first block with `early_exit`."""

    frames_per_minute: int = 120
    early_exit: bool = True
    min_coverage: int = 990_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """For how many days decisions are kept; None: as long as the installation says."""

    decisions_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContent:
    """What is digested and becomes a revision: everything that can change a decision, or what becomes of it."""

    enforcement: Enforcement = Enforcement.ENFORCE
    categories: tuple[Category, ...] = ()
    lists: tuple[PolicyList, ...] = ()
    rules: tuple[Rule, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    models: tuple[ModelRequirement, ...] = ()
    on_model_failure: OnModelFailure = OnModelFailure.REVIEW
    video: VideoSettings = field(default_factory=VideoSettings)
    retention: Retention = field(default_factory=Retention)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTest:
    """Given these signals (millionths), text, language and context, the policy must say `expect`."""

    name: str
    expect: Verdict
    signals: Mapping[str, int] = field(default_factory=dict)
    text: str | None = None
    language: str | None = None
    author: Mapping[str, str | int | bool] = field(default_factory=dict)


class StepType(StrEnum):
    """What a step does: judge without effect, judge for some tenants or for a share of all, or wait for approval."""

    SHADOW = "Shadow"
    MATCH = "Match"
    WEIGHT = "Weight"
    APPROVAL = "Approval"


class OnDeadline(StrEnum):
    """What becomes of a rollout that takes too long."""

    HOLD = "Hold"
    ROLL_BACK = "RollBack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """How long a step lasts: so many seconds and so many decisions, but no longer than `timeout_seconds`."""

    seconds: int = 0
    decisions: int = 0
    timeout_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a rollout: a Weight has its share in basis points, a Match its tenants, an Approval no `until`."""

    name: str
    type: StepType
    weight_basis_points: int = 0
    tenants: tuple[str, ...] = ()
    until: Until = field(default_factory=Until)


def judges_somebody(step: Step) -> bool:
    """Say whether in a step the candidate's verdict counts for some content."""
    return bool(step.tenants) or step.weight_basis_points > 0


class OnInconclusive(StrEnum):
    """What becomes of a rollout whose step ends before the analysis found that it passes, or that it fails."""

    HOLD = "Hold"
    PROMOTE = "Promote"
    ROLL_BACK = "RollBack"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """What is compared, how often (seconds) and how sure a verdict must be (millionths, of the whole rollout)."""

    metrics: tuple[Metric, ...]
    interval_seconds: int = DEFAULT_ANALYSIS_SECONDS
    confidence: int = DEFAULT_CONFIDENCE
    on_inconclusive: OnInconclusive = OnInconclusive.HOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an edit goes live: by these steps, or at once where there are none; with an analysis, only if it passes."""

    keys: tuple[StickyKey, ...] = DEFAULT_KEYS
    steps: tuple[Step, ...] = ()
    progress_deadline_seconds: int = DEFAULT_PROGRESS_DEADLINE_SECONDS
    on_deadline: OnDeadline = OnDeadline.HOLD
    analysis: AnalysisPlan | None = None


MAX_BACKTEST_DECISIONS: Final = 100_000
"""Decisions that one backtest may compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestGate:
    """How many decisions must be compared, and which part (millionths) may flip or be newly blocked; None is any."""

    decisions: int
    max_flip_rate: int | None = None
    max_new_blocks: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a change must pass before it goes live at all.

    `never_loosen` names categories that it may not soften; by `backtest` logged decisions are judged again.
    """

    never_loosen: tuple[str, ...] = ()
    backtest: BacktestGate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A ModerationPolicy as its author wrote it, checked.

    What it says goes live by its `plan`, and while it is `paused` goes no further. What was stable within the last
    `rollback_window` changes goes back at once; `revision_history_limit` revisions are kept.
    """

    name: str
    namespace: str
    content: PolicyContent
    scope: Scope = field(default_factory=Scope)
    type: str = "Moderation"
    role: Role = Role.POLICY
    version: str = ""
    description: str = ""
    tests: tuple[PolicyTest, ...] = ()
    paused: bool = False
    gates: Gates = field(default_factory=Gates)
    plan: Plan = field(default_factory=Plan)
    rollback_window: int = DEFAULT_ROLLBACK_WINDOW
    revision_history_limit: int = DEFAULT_REVISION_HISTORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """Immutable content named by its digest: canonical JSON of {schemaVersion, type, role, scope, policy}."""

    digest: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionContent:
    """A revision read back: what binds where. Lists carry digests, not sources."""

    digest: str
    type: str
    role: Role
    scope: Scope
    policy: PolicyContent


@dataclass(frozen=True, slots=True, kw_only=True)
class ListContent:
    """A list's entries, stripped, unique and sorted; `digest` names its type and their canonical text (one a line)."""

    digest: str
    type: ListType
    entries: tuple[str, ...]
