"""What can be wrong with a policy that is well written: unknown signals, rules that do not compile, tests that fail.

It stands above `policy` and `decision`, since it judges the policy's own tests with the engine that will judge content.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from baleen_core.canonical import digest_of
from baleen_core.decision.engine import CompiledPolicy, compile_policy, judge, wanted_signals
from baleen_core.decision.lists import CompiledList, compile_list, find_hits
from baleen_core.decision.rules import AUTHOR_FIELDS, compile_rule, declare
from baleen_core.errors import PolicyError, Problem
from baleen_core.model.schema import Model
from baleen_core.policy.revision import bind_lists
from baleen_core.policy.schema import (
    Category,
    ListContent,
    OnSignalMissing,
    Policy,
    PolicyContent,
    PolicyTest,
    RevisionContent,
    Verdict,
)
from baleen_core.reading import show, unknown_name
from baleen_core.records import ContentFacts, ContentType, Context, Evidence
from baleen_core.textnorm import count_links

_KINDS: Final[Mapping[type, str]] = {str: "a string", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """What a policy said in one of its own tests; `because` is empty when nothing was found."""

    __test__ = False

    name: str
    expected: Verdict
    found: Verdict
    because: str

    @property
    def passed(self) -> bool:
        return self.found is self.expected


def find_problems(policy: Policy, lists: Mapping[str, ListContent], models: Sequence[Model]) -> tuple[Problem, ...]:
    """Say everything that keeps a policy from going live; `lists` is by the lists' names, `models` are those served.

    The policy's tests run only when all else is well, for otherwise their failures would say little.
    """
    offered = _offered_signals(models)
    problems = [
        *_check_signals(policy.content, offered),
        *_check_rules(policy.content, offered),
        *_check_models(policy.content, models),
        *_check_lists(policy.content, lists),
        *_check_test_signals(policy.tests, offered),
        *_check_test_authors(policy.tests),
    ]
    return tuple(problems or _check_results(tests_report(policy, lists, models)))


def tests_report(policy: Policy, lists: Mapping[str, ListContent], models: Sequence[Model]) -> tuple[TestResult, ...]:
    """Run a policy's own tests; `lists` is by the lists' names, `models` are those served.

    A signal that a test leaves out scores 0, so that an author writes only what matters. A test with a text or a
    language is about text, and one without about an image.

    Raises:
        PolicyError: a rule does not compile, or the content of a list is not there.
    """
    if not policy.tests:
        return ()
    served = _all_names(_offered_signals(models))
    compiled = compile_policy(policy.name, policy.version, _as_revision(policy, lists), served)
    matchers = _compile_lists(policy, lists)
    return tuple(_run(test, compiled, matchers, served) for test in policy.tests)


def _run(
    test: PolicyTest, policy: CompiledPolicy, matchers: Sequence[CompiledList], served: frozenset[str]
) -> TestResult:
    judgement = judge(policy, _make_evidence(test, policy, matchers, served))
    causes = dict.fromkeys(
        f"{reason.name}: {reason.text}" for severity, reason in judgement.reasons if severity == judgement.severity
    )
    return TestResult(name=test.name, expected=test.expect, found=judgement.verdict, because="; ".join(sorted(causes)))


def _make_evidence(
    test: PolicyTest, policy: CompiledPolicy, matchers: Sequence[CompiledList], served: frozenset[str]
) -> Evidence:
    kind: ContentType = "image" if test.text is None and test.language is None else "text"
    text = test.text or ""
    digest = digest_of(text.encode())
    left_out = wanted_signals([policy], kind, test.language) & served
    return Evidence(
        content=ContentFacts(type=kind, digest=digest, length=len(text), links=count_links(text)),
        context=Context(author=dict(test.author)),
        signals=dict.fromkeys(left_out, 0) | dict(test.signals),
        language=test.language,
        lists=() if test.text is None else find_hits(matchers, text=text, digest=digest, pdq=None),
    )


def _as_revision(policy: Policy, lists: Mapping[str, ListContent]) -> RevisionContent:
    """Bind the policy to its lists' content as a revision does; nothing here needs its digest."""
    content = bind_lists(policy.content, lists)
    return RevisionContent(digest="", type=policy.type, role=policy.role, scope=policy.scope, policy=content)


def _compile_lists(policy: Policy, lists: Mapping[str, ListContent]) -> list[CompiledList]:
    """Compile what the tests need: a list of a million terms takes seconds."""
    if all(test.text is None for test in policy.tests):
        return []
    return [compile_list(content) for content in {each.digest: each for each in lists.values()}.values()]


def _check_signals(content: PolicyContent, offered: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    for index, category in enumerate(content.categories):
        for place, threshold in enumerate(category.signals):
            if message := _find_signal_fault(threshold.signal, category, offered):
                yield Problem(field=f"spec.policy.categories[{index}].signals[{place}].name", message=message)


def _find_signal_fault(signal: str, category: Category | None, offered: Mapping[str, frozenset[str]]) -> str | None:
    model, _, name = signal.partition(".")
    if model in offered:
        return None if name in offered[model] else f"{unknown_name(name, offered[model], 'signal')} (of {model})"
    if category is None:
        return unknown_name(model, offered, "model")
    if category.on_signal_missing is OnSignalMissing.IGNORE:
        return None
    return f"{unknown_name(model, offered, 'model')}; with `onSignalMissing: Ignore` the category does without it"


def _check_rules(content: PolicyContent, offered: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    if not content.rules:
        return
    declared = declare(_all_names(offered), content.parameters)
    for index, rule in enumerate(content.rules):
        try:
            compile_rule(rule, declared, field=f"spec.policy.rules[{index}].when")
        except PolicyError as error:
            yield from error.problems


def _check_models(content: PolicyContent, models: Sequence[Model]) -> Iterator[Problem]:
    served = {model.name: model.version for model in models}
    for index, needed in enumerate(content.models):
        field = f"spec.policy.models[{index}]"
        if needed.name not in served:
            yield Problem(field=f"{field}.name", message=unknown_name(needed.name, served, "model"))
        elif served[needed.name] != needed.version:
            found = served[needed.name]
            message = (
                f"the thresholds are calibrated for {needed.name} {needed.version!r}, and {found!r} is served; "
                f"calibrate them for {found!r}, or serve {needed.version!r}"
            )
            yield Problem(field=f"{field}.version", message=message)


def _check_lists(content: PolicyContent, lists: Mapping[str, ListContent]) -> tuple[Problem, ...]:
    try:
        bind_lists(content, lists)
    except PolicyError as error:
        return error.problems
    return ()


def _check_test_signals(tests: Sequence[PolicyTest], offered: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    for index, test in enumerate(tests):
        for signal in test.signals:
            if message := _find_signal_fault(signal, None, offered):
                yield Problem(field=f"spec.tests[{index}].signals.{signal}", message=message)


def _check_test_authors(tests: Sequence[PolicyTest]) -> Iterator[Problem]:
    for index, test in enumerate(tests):
        for name, value in test.author.items():
            field, kind = f"spec.tests[{index}].author.{name}", AUTHOR_FIELDS.get(name)
            if kind is None:
                yield Problem(field=field, message=unknown_name(name, AUTHOR_FIELDS, "field of an author"))
            # Python holds true and false for whole numbers.
            elif type(value) is not kind:
                yield Problem(field=field, message=f"{show(value)} is not {_KINDS[kind]}")


def _check_results(results: Sequence[TestResult]) -> Iterator[Problem]:
    for index, result in enumerate(results):
        if not result.passed:
            because = result.because or "nothing reached a threshold, a list or a rule"
            message = f"test {result.name!r}: expected {result.expected}, got {result.found} because {because}"
            yield Problem(field=f"spec.tests[{index}]", message=message)


def _offered_signals(models: Sequence[Model]) -> dict[str, frozenset[str]]:
    return {model.name: frozenset(signal.name for signal in model.signals) for model in models}


def _all_names(offered: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset(f"{model}.{signal}" for model, signals in offered.items() for signal in signals)
