"""What the operator reads of a ModerationPolicy and its revisions, and the status that it writes.

What only the operator writes is read leniently: a status that somebody altered by hand must not keep it from working.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from baleen_core.errors import BaleenError
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import Enforcement, ListSourceType, ListType, Revision, Role, Scope
from baleen_core.resources import (
    ALLOW_DELETE_ANNOTATION,
    APPLIED_BY_ANNOTATION,
    GROUP,
    POLICY_LABEL,
    VERSION_ANNOTATION,
)
from baleen_operator.resources.stamps import Stamp, read_stamp

COMMIT_ANNOTATION: Final = f"{GROUP}/commit"
"""On a policy: the commit that it came from, as the tool that applied it says."""
BY_ANNOTATION: Final = f"{GROUP}/by"
"""On a policy: whose edit it is, as the tool that applied it says."""
MAX_HISTORY: Final = 10
MAX_FAILED: Final = 10
MAX_SAID: Final = 256
MAX_BACKTESTS: Final = 10
MAX_GATE_MESSAGE: Final = 1024

_ROW_WORDS: Final = ("version", "time", "reason", "by", "commit", "approved_by")
_OBJECT_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LIST_SOURCE_TYPES: Final = frozenset(each.value for each in ListSourceType)

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A revision came into force: which and when (RFC 3339, UTC), why, by whose edit, and who approved it.

    No two have one `epoch`.
    """

    epoch: int
    digest: str
    version: str = ""
    time: str = ""
    reason: str = ""
    by: str = ""
    commit: str = ""
    approved_by: str = ""

    @property
    def identity(self) -> tuple[int, str]:
        """Return what tells it from every other row of its policy."""
        return self.epoch, self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of a status; `status` is True, False or Unknown in words."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A revision in a status."""

    digest: str
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A revision that is on its way, and how far: by which plan, in which step, since when, with what weight.

    Times are RFC 3339 in UTC; without a step it waits to begin. `rollout` names the try (`PublishedRoute.rollout`), of
    which so many decisions by each side are known. `approved_by` is who approved it last, where that is known.
    """

    digest: str
    version: str = ""
    start_time: str = ""
    plan: str = ""
    step: str = ""
    step_time: str = ""
    pause_time: str = ""
    decisions: int = 0
    weight: str = ""
    approved_by: str = ""
    rollout: str = ""
    stable_judged: int = 0
    candidate_judged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A revision whose rollout failed: it is not tried again until an Override approves it.

    One that failed although it `was_approved` waits for another approval, after that one was taken back.
    """

    digest: str
    reason: str = ""
    message: str = ""
    time: str = ""
    was_approved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtested:
    """What a gate (in words) said of a candidate beside a stable revision, and when; both are named by digest."""

    candidate: str
    stable: str
    gate: str
    verdict: str = ""
    reason: str = ""
    message: str = ""
    time: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """Return what it is about."""
        return self.candidate, self.stable, self.gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A metric of the analysis in words and figures for people; without data its figures are empty.

    Of a PromQL metric the status also keeps how many looks of this step in a row were `within` its limits or `beyond`,
    how many of all had `numbers`, when the last one was (RFC 3339), and what the `problem` was if that gave none.
    """

    name: str
    stable: str = ""
    candidate: str = ""
    interval: str = ""
    verdict: str = ""
    within: int = 0
    beyond: int = 0
    numbers: int = 0
    look_time: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """Who enforces what is routed, how many are known, and since when (empty: they do not yet) all of them do."""

    total: int = 0
    current: int = 0
    stale: tuple[str, ...] = ()
    converged_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of a policy; `history` is newest first.

    `verdict` is that of the whole analysis, and `flips` say how often which verdict became which.
    """

    observed_generation: int = 0
    stable: Named | None = None
    candidate: Candidate | None = None
    failed: tuple[Failed, ...] = ()
    backtests: tuple[Backtested, ...] = ()
    verdict: str = ""
    compared: tuple[Compared, ...] = ()
    flips: tuple[tuple[str, str, int], ...] = ()
    convergence: Convergence = field(default_factory=Convergence)
    history: tuple[Row, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def condition(self, type: str) -> Condition | None:
        """Find a condition."""
        return next((each for each in self.conditions if each.type == type), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a policy's metadata says; its spec is for core to read.

    `said_by` and `commit` are as the tool that applied it says, `applied` is as the API server knows it.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    created: str
    may_be_deleted: bool = False
    said_by: str = ""
    commit: str = ""
    applied: Stamp = field(default_factory=Stamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What routing needs to know of a revision whose content is what its digest names; lists by type and digest."""

    digest: str
    type: str
    role: Role
    scope: Scope
    is_enforced: bool
    lists: tuple[tuple[ListType, str], ...] = ()
    sampling: tuple[int, bool] = (0, False)
    """Frames a minute of a video, and whether it ends at the first block: what is looked at, whoever judges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRevision:
    """A ModerationPolicyRevision; without a meaning its content is not what it claims to be, as `problem` says."""

    name: str
    uid: str
    resource_version: str
    digest: str
    version: str = ""
    rows: tuple[Row, ...] = ()
    is_labelled: bool = True
    meaning: Meaning | None = None
    problem: str = ""


def read_head(manifest: Manifest) -> Head:
    """Read the metadata of a policy as the API server gave it."""
    metadata = manifest["metadata"]
    annotations = _mapping(metadata.get("annotations"))
    return Head(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=str(metadata.get("uid", "")),
        resource_version=str(metadata.get("resourceVersion", "")),
        generation=int(metadata.get("generation", 0)),
        created=str(metadata.get("creationTimestamp", "")),
        may_be_deleted=annotations.get(ALLOW_DELETE_ANNOTATION) == "true",
        said_by=_said(annotations.get(BY_ANNOTATION)),
        commit=_said(annotations.get(COMMIT_ANNOTATION)),
        applied=read_stamp(manifest, APPLIED_BY_ANNOTATION),
    )


def list_sources(manifest: Manifest) -> tuple[tuple[ListSourceType, str], ...]:
    """Return kind and name of each object that a policy's lists are written in, whatever else is wrong with it."""
    lists = _mapping(_mapping(manifest.get("spec")).get("policy")).get("lists")
    found: dict[tuple[ListSourceType, str], None] = {}
    for each in lists if isinstance(lists, list) else ():
        source = _mapping(_mapping(each).get("source"))
        kind, name = source.get("type"), source.get("name")
        if (
            isinstance(kind, str)
            and kind in _LIST_SOURCE_TYPES
            and isinstance(name, str)
            and _OBJECT_NAME.fullmatch(name)
        ):
            found[ListSourceType(kind), name] = None
    return tuple(found)


def stored_revision(manifest: Manifest) -> Revision:
    """Return what a ModerationPolicyRevision keeps, which its label has no part in; nothing is verified here."""
    spec = _mapping(manifest.get("spec"))
    digest, content = (spec.get(each) for each in ("digest", "content"))
    return Revision(
        digest=digest if isinstance(digest, str) else "", content=content if isinstance(content, str) else ""
    )


def read_meaning(manifest: Manifest) -> Meaning | str:
    """Verify a ModerationPolicyRevision and return what it means, or why it cannot be used."""
    try:
        content = read_revision(stored_revision(manifest))
    except BaleenError as exc:
        return str(exc)
    return Meaning(
        digest=content.digest,
        type=content.type,
        role=content.role,
        scope=content.scope,
        is_enforced=content.policy.enforcement is Enforcement.ENFORCE,
        lists=tuple((each.type, each.digest or "") for each in content.policy.lists),
        sampling=(content.policy.video.frames_per_minute, content.policy.video.early_exit),
    )


def read_kept_revision(manifest: Manifest, policy: str, meaning: Meaning | str) -> KeptRevision:
    """Put together what a ModerationPolicyRevision says and what verifying it said."""
    metadata = manifest["metadata"]
    version = _mapping(metadata.get("annotations")).get(VERSION_ANNOTATION)
    return KeptRevision(
        name=metadata["name"],
        uid=str(metadata.get("uid", "")),
        resource_version=str(metadata.get("resourceVersion", "")),
        digest=str(_mapping(manifest.get("spec")).get("digest", "")),
        version=_said(version),
        rows=read_rows(_mapping(manifest.get("status")).get("activations")),
        is_labelled=_mapping(metadata.get("labels")).get(POLICY_LABEL) == policy,
        meaning=meaning if isinstance(meaning, Meaning) else None,
        problem="" if isinstance(meaning, Meaning) else meaning,
    )


def read_rows(items: object) -> tuple[Row, ...]:
    """Read rows in the order in which they are written, without those that are none."""
    found = []
    for each in items if isinstance(items, Sequence) and not isinstance(items, str) else ():
        item = _mapping(each)
        epoch, digest = item.get("epoch"), item.get("digest")
        if isinstance(epoch, int) and epoch >= 1 and isinstance(digest, str) and _DIGEST.fullmatch(digest):
            words = {name: _said(item.get(_spell(name))) for name in _ROW_WORDS}
            found.append(Row(epoch=epoch, digest=digest, **words))
    return tuple(found)


def write_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Write rows; empty fields are left out."""
    return [_write_fields(row) for row in rows]


def read_status(manifest: Manifest) -> Status:
    """Read the status that was written last; one that is not there is empty."""
    status = _mapping(manifest.get("status"))
    convergence = _mapping(status.get("convergence"))
    generation = status.get("observedGeneration")
    return Status(
        observed_generation=generation if isinstance(generation, int) else 0,
        stable=_read_named(status.get("stable")),
        candidate=_read_candidate(status.get("candidate")),
        failed=tuple(_read_failed(status.get("failed"))),
        backtests=tuple(_read_backtests(status.get("backtests"))),
        compared=tuple(_read_compared(_mapping(status.get("analysis")).get("metrics"))),
        convergence=Convergence(converged_time=_said(convergence.get("convergedTime"))),
        history=read_rows(status.get("history")),
        conditions=tuple(_read_conditions(status.get("conditions"))),
    )


def write_status(status: Status) -> dict[str, Any]:
    """Write a status; what is not known is left out."""
    written: dict[str, Any] = {"observedGeneration": status.observed_generation}
    if status.stable is not None:
        written["stable"] = _write_fields(status.stable)
    if status.candidate is not None:
        written["candidate"] = _write_fields(status.candidate)
    if status.failed:
        written["failed"] = [_write_fields(each) for each in status.failed]
    if status.backtests:
        written["backtests"] = [_write_fields(each) for each in status.backtests]
    if status.verdict:
        written["analysis"] = {"verdict": status.verdict, "metrics": [_write_fields(each) for each in status.compared]}
    if status.flips:
        written["flips"] = [{"from": one, "to": other, "count": count} for one, other, count in status.flips]
    convergence = status.convergence
    written["convergence"] = _without_empty(
        {
            "total": convergence.total,
            "current": convergence.current,
            "stale": list(convergence.stale),
            "convergedTime": convergence.converged_time,
        }
    )
    if status.history:
        written["history"] = write_rows(status.history)
    written["conditions"] = [
        {
            "type": each.type,
            "status": each.status,
            "reason": each.reason,
            "message": each.message,
            "lastTransitionTime": each.last_transition_time,
            "observedGeneration": each.observed_generation,
        }
        for each in status.conditions
    ]
    return written


def _read_conditions(items: object) -> Iterable[Condition]:
    for each in items if isinstance(items, list) else ():
        item = _mapping(each)
        words = [item.get(name) for name in ("type", "status", "reason", "message", "lastTransitionTime")]
        generation = item.get("observedGeneration", 0)
        if isinstance(generation, int) and all(isinstance(word, str) for word in words):
            yield Condition(
                type=item["type"],
                status=item["status"],
                reason=item["reason"],
                message=item["message"],
                last_transition_time=item["lastTransitionTime"],
                observed_generation=generation,
            )


def _read_named(value: object) -> Named | None:
    said = _mapping(value)
    digest = _said(said.get("digest"))
    return Named(digest=digest, version=_said(said.get("version"))) if digest else None


def _read_candidate(value: object) -> Candidate | None:
    said = _mapping(value)
    digest = _said(said.get("digest"))
    if not digest:
        return None
    named = ("version", "plan", "step", "weight", "approved_by", "rollout")
    words = {each: _said(said.get(_spell(each))) for each in named}
    times = {each: _instant(said.get(_spell(each))) for each in ("start_time", "step_time", "pause_time")}
    return Candidate(
        digest=digest,
        decisions=_count(said.get("decisions")),
        stable_judged=_count(said.get("stableJudged")),
        candidate_judged=_count(said.get("candidateJudged")),
        **words,
        **times,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _read_failed(items: object) -> Iterable[Failed]:
    for each in items if isinstance(items, list) else ():
        said = _mapping(each)
        if digest := _said(said.get("digest")):
            words = {name: _said(said.get(name)) for name in ("reason", "message", "time")}
            yield Failed(digest=digest, was_approved=said.get("wasApproved") is True, **words)


def _read_backtests(items: object) -> Iterable[Backtested]:
    for each in items if isinstance(items, list) else ():
        said = _mapping(each)
        words = {field.name: _said(said.get(field.name)) for field in fields(Backtested) if field.name != "message"}
        if all(words[name] for name in ("candidate", "stable", "gate")):
            message = said.get("message")
            yield Backtested(message=message[:MAX_GATE_MESSAGE] if isinstance(message, str) else "", **words)


def _read_compared(items: object) -> Iterable[Compared]:
    for each in items if isinstance(items, list) else ():
        said = _mapping(each)
        if named := _said(said.get("name")):
            words = {name: _said(said.get(name)) for name in ("stable", "candidate", "interval", "verdict", "problem")}
            within, beyond, numbers = (_count(said.get(name)) for name in ("within", "beyond", "numbers"))
            time = _instant(said.get("lookTime"))
            yield Compared(name=named, within=within, beyond=beyond, numbers=numbers, look_time=time, **words)


def _instant(value: object) -> str:
    """Return a time as it is written, or nothing where it is none."""
    said = _said(value)
    try:
        return said if datetime.fromisoformat(said).tzinfo is not None else ""
    except ValueError:
        return ""


def _write_fields(value: Row | Named | Candidate | Failed | Backtested | Compared) -> dict[str, Any]:
    written = {_spell(each.name): getattr(value, each.name) for each in fields(value)}
    return {name: item for name, item in written.items() if item not in ("", 0, False)}


def _spell(name: str) -> str:
    """Write a field's name as Kubernetes does."""
    first, *others = name.split("_")
    return first + "".join(each.title() for each in others)


def _without_empty(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if item not in ("", [])}


def _said(value: object) -> str:
    return value[:MAX_SAID] if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
