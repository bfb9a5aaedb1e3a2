"""Whether a change of a policy can be proven, by its structure alone, to make nothing softer that must not be.

A proof needs no data: every signal, list, rule and setting that can lead to a stricter verdict is there as it was, or
stricter. What cannot be proven is refused, though it may be no loosening at all: whoever wants it says so, by an edit
of its own that takes the category out of `neverLoosen` first.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from baleen_core.errors import Problem
from baleen_core.policy.parse import DEFAULT_MAX_DISTANCE
from baleen_core.policy.schema import (
    Category,
    ListType,
    OnLanguageUnsupported,
    OnModelFailure,
    OnSignalMissing,
    PolicyContent,
    PolicyList,
    Require,
    RevisionContent,
    Role,
    Rule,
    Threshold,
    Verdict,
)
from baleen_core.ratio import format_ratio

UNPROVEN: Final = "Unproven"
_ON_FAILURE: Final = {OnModelFailure.ALLOW_AND_RESCAN: 0, OnModelFailure.REVIEW: 1, OnModelFailure.BLOCK: 2}
_AS_STRICT: Final = {"review": OnModelFailure.REVIEW, "block": OnModelFailure.BLOCK}
"""What a failure must mean so that it is no softer than the verdict of thresholds."""


def find_unproven(
    stable: RevisionContent, candidate: RevisionContent, categories: Sequence[str]
) -> tuple[Problem, ...]:
    """Return all that keeps a candidate from being proven no softer than what is stable, for these categories.

    The role, lists, rules, parameters and what happens when a model fails can decide over content of any category, so
    they count whenever a category is named. A category that the stable content does not have cannot become softer.
    """
    named = [each for each in stable.policy.categories if each.name in categories]
    if not named:
        return ()
    found = []
    if stable.role is Role.FLOOR and candidate.role is not Role.FLOOR:
        found.append(_unproven("spec.role", "it was Floor, which binds narrower scopes too"))
    found += _compare_whole(stable.policy, candidate.policy)
    places = {each.name: (index, each) for index, each in enumerate(candidate.policy.categories)}
    for before in named:
        if before.name not in places:
            found.append(_unproven("spec.policy.categories", f"{before.name} is gone"))
            continue
        index, after = places[before.name]
        on_failure = candidate.policy.on_model_failure
        found += _compare_categories(before, after, on_failure, f"spec.policy.categories[{index}]")
    return tuple(found)


def _unproven(field: str, message: str) -> Problem:
    return Problem(
        field=field, message=f"{UNPROVEN}: {message}, and `neverLoosen` is in force; keep it as strict as it was"
    )


def _compare_whole(stable: PolicyContent, candidate: PolicyContent) -> Iterator[Problem]:
    if _ON_FAILURE[candidate.on_model_failure] < _ON_FAILURE[stable.on_model_failure]:
        weaker = f"{candidate.on_model_failure} is weaker than {stable.on_model_failure}"
        yield _unproven("spec.policy.onModelFailure", weaker)
    if candidate.enforcement is not stable.enforcement:
        yield _unproven("spec.policy.enforcement", f"it was {stable.enforcement}")
    before, after = stable.video, candidate.video
    if after.frames_per_minute < before.frames_per_minute:
        yield _unproven("spec.policy.video.framesPerMinute", f"it was {before.frames_per_minute}")
    elif after.frames_per_minute % before.frames_per_minute:
        # Other moments would be looked at than before.
        yield _unproven("spec.policy.video.framesPerMinute", f"it is no multiple of {before.frames_per_minute}")
    if after.min_coverage < before.min_coverage:
        yield _unproven("spec.policy.video.minCoverage", f"it was {format_ratio(before.min_coverage)}")
    yield from _compare_lists(stable.lists, candidate.lists)
    yield from _compare_rules(stable, candidate)


def _compare_lists(stable: Sequence[PolicyList], candidate: Sequence[PolicyList]) -> Iterator[Problem]:
    known = {each.name: each for each in candidate}
    for before in stable:
        if before.action is Verdict.ALLOW:
            continue
        after = known.get(before.name)
        if after is None:
            yield _unproven("spec.policy.lists", f"{before.name} is gone")
        elif (after.type, after.digest) != (before.type, before.digest):
            yield _unproven("spec.policy.lists", f"{before.name} has other entries than before")
        elif after.action.severity < before.action.severity:
            yield _unproven("spec.policy.lists", f"{before.name} had the action {before.action}")
        elif before.type is ListType.PERCEPTUAL_HASH and _reach(after) < _reach(before):
            yield _unproven("spec.policy.lists", f"{before.name} had the maxDistance {_reach(before)}")
    cleared = {(each.type, each.digest) for each in stable if each.action is Verdict.ALLOW}
    for index, after in enumerate(candidate):
        if after.action is Verdict.ALLOW and (after.type, after.digest) not in cleared:
            yield _unproven(f"spec.policy.lists[{index}]", f"{after.name} allows what was not allowed by a list before")


def _reach(each: PolicyList) -> int:
    return DEFAULT_MAX_DISTANCE if each.max_distance is None else each.max_distance


def _compare_rules(stable: PolicyContent, candidate: PolicyContent) -> Iterator[Problem]:
    known = {each.name: each for each in candidate.rules}
    binding = [each for each in stable.rules if each.action is not Verdict.ALLOW]
    for before in binding:
        after = known.get(before.name)
        if after is None:
            yield _unproven("spec.policy.rules", f"{before.name} is gone")
        elif _softens(before, after):
            yield _unproven("spec.policy.rules", f"{before.name} was {before.action} when {before.when}")
    if binding and dict(candidate.parameters) != dict(stable.parameters):
        yield _unproven("spec.policy.parameters", "rules that read them may hold for less")


def _softens(before: Rule, after: Rule) -> bool:
    return after.when != before.when or after.action.severity < before.action.severity


def _compare_categories(before: Category, after: Category, on_failure: OnModelFailure, field: str) -> Iterator[Problem]:
    if {each.signal for each in before.signals} != {each.signal for each in after.signals}:
        yield _unproven(f"{field}.signals", f"they were {', '.join(each.signal for each in before.signals)}")
        return
    for kind in ("review", "block"):
        yield from _compare_votes(before, after, kind, field)
    yield from _compare_missing(before, after, on_failure, field)
    yield from _compare_languages(before, after, field)


def _compare_votes(before: Category, after: Category, kind: str, field: str) -> Iterator[Problem]:
    """Compare one verdict's thresholds and how many of them must agree."""
    old, new = _thresholds(before.signals, kind), _thresholds(after.signals, kind)
    if not old:
        return
    required_before, required_after = getattr(before.require, kind), getattr(after.require, kind)
    if required_after is Require.ALL and required_before is Require.ANY and len(new) > 1:
        yield _unproven(f"{field}.require.{kind}", "it was Any")
    elif required_after is Require.ALL and new.keys() - old.keys():
        yield _unproven(f"{field}.signals", f"more signals than before must agree to {kind}")
    for index, each in enumerate(after.signals):
        was, now = old.get(each.signal), new.get(each.signal)
        # Also where all must agree: of those that are left, none may apply to the content.
        if was is not None and now is None:
            yield _unproven(f"{field}.signals[{index}].{kind}", f"it was {format_ratio(was)}")
        elif was is not None and now is not None and now > was:
            yield _unproven(f"{field}.signals[{index}].{kind}", f"{format_ratio(now)} is above {format_ratio(was)}")


def _thresholds(signals: Sequence[Threshold], kind: str) -> dict[str, int]:
    return {each.signal: value for each in signals if (value := getattr(each, kind)) is not None}


def _compare_missing(before: Category, after: Category, on_failure: OnModelFailure, field: str) -> Iterator[Problem]:
    """Compare what a signal means that no model serves."""
    if after.on_signal_missing is before.on_signal_missing:
        return
    if after.on_signal_missing is OnSignalMissing.IGNORE:
        yield _unproven(f"{field}.onSignalMissing", "it was ModelFailure")
        return
    for kind, as_strict in _AS_STRICT.items():
        needs_all = getattr(after.require, kind) is Require.ALL and len(_thresholds(before.signals, kind)) > 1
        # The others were enough. Now it counts as failed, so that never all agree and only the failure has a verdict.
        if needs_all and _ON_FAILURE[on_failure] < _ON_FAILURE[as_strict]:
            message = f"it was Ignore, by which those that are served could {kind}; a failure means {on_failure}"
            yield _unproven(f"{field}.onSignalMissing", message)


def _compare_languages(before: Category, after: Category, field: str) -> Iterator[Problem]:
    if not after.languages:
        # It speaks of every text. Where some were reviewed unseen, that may let them through.
        is_softer = before.languages and before.on_language_unsupported is OnLanguageUnsupported.REVIEW
    elif not before.languages:
        is_softer = True
    elif before.on_language_unsupported is OnLanguageUnsupported.REVIEW:
        is_softer = (
            set(after.languages) != set(before.languages)
            or after.on_language_unsupported is not OnLanguageUnsupported.REVIEW
        )
    else:
        is_softer = not set(before.languages) <= set(after.languages)
    if is_softer:
        were = ", ".join(before.languages) or "all"
        yield _unproven(f"{field}.languages", f"they were {were}, others {before.on_language_unsupported or 'none'}")
