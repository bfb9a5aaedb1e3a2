"""Whether what a policy says may go live: one verdict with its reason, and the content that it is about."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from baleen_core.checking import Place, check_policy
from baleen_core.errors import PolicyError, Problem
from baleen_core.model.schema import Model
from baleen_core.policy.grants import NO_PROVIDER, NOT_GRANTED, Grants, find_refusals
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.proof import find_unproven
from baleen_core.policy.revision import make_revision, name_text
from baleen_core.policy.schema import (
    Enforcement,
    Gates,
    ListContent,
    ListSourceType,
    OnSignalMissing,
    Plan,
    Policy,
    Revision,
    RevisionContent,
)
from baleen_core.resources import split_list
from baleen_core.validation import find_problems
from baleen_operator.plan.conditions import say_problems
from baleen_operator.resources.policy import Meaning

INVALID: Final = "Invalid"
NOT_YET_SUPPORTED: Final = "NotYetSupported"
LIST_MISSING: Final = "ListMissing"
TESTS_FAILED: Final = "TestsFailed"
GATE_FAILED: Final = "GateFailed"

_LIST_SOURCE: Final = re.compile(r"spec\.policy\.lists\[\d+\]\.source")
_TEST: Final = re.compile(r"spec\.tests\[\d+\]")
_MODEL: Final = re.compile(r"spec\.policy\.models\[(\d+)\]\.(?:name|version)")
_SIGNAL: Final = re.compile(r"spec\.policy\.categories\[(\d+)\]\.signals\[(\d+)\]\.name")
_TEST_SIGNAL: Final = re.compile(r"spec\.tests\[\d+\]\.signals\.([a-z0-9-]+)\..+")
_RULE: Final = re.compile(r"spec\.policy\.rules\[(\d+)\]\.when")


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedList:
    """A list of a revision: its digest, the kind of object that keeps it, and in how many shards."""

    digest: str
    kind: ListSourceType
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Valid:
    """What a policy says, accepted; with `lacks`, it waits for models that are not served, which are named there.

    `text` names what its author wrote (`name_text`), by which it is known who applied it.
    """

    meaning: Meaning
    text: str = ""
    version: str
    paused: bool
    plan: Plan = field(default_factory=Plan)
    gates: Gates = field(default_factory=Gates)
    rollback_window: int
    revision_history_limit: int
    lists: tuple[WantedList, ...] = ()
    lacks: str = ""

    @property
    def digest(self) -> str:
        return self.meaning.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What a policy says may not go live: why in one word, and in words that name the fields."""

    reason: str
    message: str


Verdict = Valid | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the objects of a revision are made of: its content, and the text of each list by digest."""

    revision: Revision
    texts: Mapping[str, str] = field(default_factory=dict)


def judge_policy(
    manifest: Mapping[str, Any],
    contents: Mapping[Place, Mapping[str, Any]],
    unreadable: Sequence[Problem],
    models: Sequence[Model],
    grants: Grants,
) -> tuple[Verdict, Material | None]:
    """Check a policy whole, and make what it says into a revision if it may go live, or could but for its models.

    `unreadable` are the lists' sources that are there and have no text.
    """
    try:
        policy = parse_policy(manifest)
    except PolicyError as exc:
        return refuse(exc.problems), None
    problems = (*find_refusals(policy, grants), *unreadable)
    try:
        lists = check_policy(manifest, contents, models).lists
    except PolicyError as exc:
        problems += exc.problems
        if not _are_about_models(problems, policy, models):
            return refuse(problems), None
        lists = _read_lists(policy, contents)
        return _accept(policy, lists, lacks=say_problems(problems))
    if problems:
        return refuse(problems), None
    return _accept(policy, lists)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextVerdict:
    """What is wrong with what a policy's author wrote, and what it would wait for or is not looked at yet."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Say in one word what is wrong."""
        return _reason(self.problems)


def judge_text(manifest: Mapping[str, Any], models: Sequence[Model] | None, grants: Grants) -> TextVerdict:
    """Check what a policy says by itself: what `judge_policy` refuses here it refuses, too, whatever comes around it.

    Its lists are not read, so that with lists its tests are not run. `models` is None when nobody knows what is served.
    """
    try:
        policy = parse_policy(manifest)
    except PolicyError as exc:
        return TextVerdict(problems=exc.problems)
    refusals = find_refusals(policy, grants)
    warnings = []
    problems = find_problems(replace(policy, content=replace(policy.content, lists=())), {}, models or ())
    if policy.content.lists:
        # Without what is in the lists, what tests found says nothing.
        problems = tuple(each for each in problems if not _is_test_result(each))
        warnings.append("the policy's lists and tests are checked once it is applied: see its condition Accepted")
    if problems and _are_about_models(problems, policy, models or ()):
        lacks = say_problems(problems) if models is not None else "which are served could not be found out"
        warnings.append(f"the policy waits for models that are not served: {lacks}")
        problems = ()
    return TextVerdict(problems=(*refusals, *problems), warnings=tuple(warnings))


def refuse_unproven(stable: RevisionContent, candidate: RevisionContent, categories: Sequence[str]) -> Refused | None:
    """Refuse a change that may make one of these categories softer; None when it is proven that it does not."""
    problems = find_unproven(stable, candidate, categories)
    return Refused(reason=GATE_FAILED, message=say_problems(problems)) if problems else None


def refuse(problems: Sequence[Problem]) -> Refused:
    """Find the one word for what is wrong, and name all of it."""
    return Refused(reason=_reason(problems), message=say_problems(problems))


def _accept(policy: Policy, lists: Mapping[str, ListContent], lacks: str = "") -> tuple[Verdict, Material]:
    revision = make_revision(policy, lists)
    texts = {each.digest: canonical_list(each) for each in lists.values()}
    wanted: dict[tuple[str, ListSourceType], WantedList] = {}
    for each in policy.content.lists:
        if each.source is not None:
            digest = lists[each.name].digest
            shards = len(split_list(texts[digest]))
            wanted[digest, each.source.type] = WantedList(digest=digest, kind=each.source.type, shards=shards)
    meaning = Meaning(
        digest=revision.digest,
        type=policy.type,
        role=policy.role,
        scope=policy.scope,
        is_enforced=policy.content.enforcement is Enforcement.ENFORCE,
        lists=tuple(sorted({(each.type, each.digest) for each in lists.values()})),
        sampling=(policy.content.video.frames_per_minute, policy.content.video.early_exit),
    )
    valid = Valid(
        meaning=meaning,
        text=name_text(policy),
        version=policy.version,
        paused=policy.paused,
        plan=policy.plan,
        gates=policy.gates,
        rollback_window=policy.rollback_window,
        revision_history_limit=policy.revision_history_limit,
        lists=tuple(wanted.values()),
        lacks=lacks,
    )
    return valid, Material(revision=revision, texts=texts)


def _reason(problems: Sequence[Problem]) -> str:
    if any(problem.message.startswith(NOT_YET_SUPPORTED) for problem in problems):
        return NOT_YET_SUPPORTED
    if any(problem.message.startswith(NOT_GRANTED) for problem in problems):
        return NOT_GRANTED
    if any(problem.message.startswith(NO_PROVIDER) for problem in problems):
        return NO_PROVIDER
    if any(_LIST_SOURCE.fullmatch(problem.field) for problem in problems):
        return LIST_MISSING
    # Tests run only when all else is well.
    if problems and all(map(_is_test_result, problems)):
        return TESTS_FAILED
    return INVALID


def _is_test_result(problem: Problem) -> bool:
    return bool(_TEST.fullmatch(problem.field)) and problem.message.startswith("test ")


def _are_about_models(problems: Sequence[Problem], policy: Policy, models: Sequence[Model]) -> bool:
    """Say whether all that is wrong is that models which the policy names are not served (in that version)."""
    served = {model.name: model.version for model in models}
    needed = {each.name: each.version for each in policy.content.models}
    named = {
        threshold.signal.partition(".")[0]
        for category in policy.content.categories
        if category.on_signal_missing is not OnSignalMissing.IGNORE
        for threshold in category.signals
    }
    lacking = {
        each for each in named | set(needed) if each not in served or needed.get(each, served[each]) != served[each]
    }
    return bool(lacking) and all(_is_about(problem, policy, lacking) for problem in problems)


def _is_about(problem: Problem, policy: Policy, lacking: set[str]) -> bool:
    content = policy.content
    if match := _MODEL.fullmatch(problem.field):
        return content.models[int(match[1])].name in lacking
    if match := _SIGNAL.fullmatch(problem.field):
        return content.categories[int(match[1])].signals[int(match[2])].signal.partition(".")[0] in lacking
    if match := _TEST_SIGNAL.fullmatch(problem.field):
        return match[1] in lacking
    if match := _RULE.fullmatch(problem.field):
        when = content.rules[int(match[1])].when
        return any(f"{model.replace('-', '_')}." in when for model in lacking)
    return False


def _read_lists(policy: Policy, contents: Mapping[Place, Mapping[str, Any]]) -> dict[str, ListContent]:
    """Read the lists of a policy of which it is known that they can be read."""
    found = {}
    for each in policy.content.lists:
        if each.source is not None:
            text = contents[each.source.type, policy.namespace, each.source.name][each.source.key]
            found[each.name] = read_list(each.type, text)
    return found
