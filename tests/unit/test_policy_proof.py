"""What can be proven of a change by its structure: nothing softer gets through, and what is refused names its field."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baleen_core.decision.engine import judge
from baleen_core.errors import Problem
from baleen_core.policy.proof import find_unproven
from baleen_core.policy.schema import (
    Category,
    Enforcement,
    ListType,
    OnLanguageUnsupported,
    OnModelFailure,
    OnSignalMissing,
    PolicyContent,
    Require,
    Requirement,
    RevisionContent,
    Role,
    Scope,
    Threshold,
    Verdict,
    VideoSettings,
)
from baleen_core.ratio import MILLION
from baleen_core.records import Missing
from evidence import SIGNALS, make_category, make_evidence, make_hit, make_list, make_policy, make_rule, make_threshold

ONE, TWO, THREE = SIGNALS
BASE = PolicyContent(
    categories=(
        make_category("sexual", make_threshold(ONE, "50%", "85%"), make_threshold(TWO, "50%", "60%")),
        make_category(
            "toxicity",
            make_threshold(THREE, "70%", "92%"),
            languages=("en", "de"),
            on_language_unsupported=OnLanguageUnsupported.SKIP,
        ),
    ),
    lists=(
        make_list("slurs", Verdict.REVIEW),
        make_list("looks", Verdict.BLOCK, type=ListType.PERCEPTUAL_HASH),
        make_list("cleared", Verdict.ALLOW, type=ListType.DIGEST),
    ),
    rules=(make_rule("content.links > 3", Verdict.REVIEW, name="spam"),),
    parameters={"most": "3"},
    on_model_failure=OnModelFailure.BLOCK,
)


def unproven(
    stable: PolicyContent, candidate: PolicyContent, names: Sequence[str], *roles: Role
) -> tuple[Problem, ...]:
    """Compare two contents of policies, or of these roles."""
    before, after = (
        RevisionContent(digest="", type="Moderation", role=role, scope=Scope(), policy=content)
        for role, content in zip(roles or (Role.POLICY, Role.POLICY), (stable, candidate), strict=True)
    )
    return find_unproven(before, after, names)


def sexual(**fields: Any) -> dict[str, Any]:
    return {"categories": (replace(BASE.categories[0], **fields), BASE.categories[1])}


def toxicity(**fields: Any) -> dict[str, Any]:
    return {"categories": (BASE.categories[0], replace(BASE.categories[1], **fields))}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        pytest.param(
            sexual(signals=(make_threshold(ONE, "50%", "90%"), make_threshold(TWO, "50%", "60%"))),
            "spec.policy.categories[0].signals[0].block",
            "90% is above 85%",
            id="a threshold goes up",
        ),
        pytest.param(
            sexual(signals=(make_threshold(ONE, None, "85%"), make_threshold(TWO, "50%", "60%"))),
            "spec.policy.categories[0].signals[0].review",
            "it was 50%",
            id="a threshold goes away",
        ),
        pytest.param(
            sexual(signals=(make_threshold(ONE, "50%", "85%"),)),
            "spec.policy.categories[0].signals",
            "they were",
            id="a signal goes away",
        ),
        pytest.param(
            sexual(require=Requirement(block=Require.ALL)),
            "spec.policy.categories[0].require.block",
            "it was Any",
            id="all must agree",
        ),
        pytest.param(
            sexual(on_signal_missing=OnSignalMissing.IGNORE),
            "spec.policy.categories[0].onSignalMissing",
            "it was ModelFailure",
            id="a missing signal is ignored",
        ),
        pytest.param(
            toxicity(languages=("en",)), "spec.policy.categories[1].languages", "en, de", id="a language goes away"
        ),
        pytest.param({"categories": BASE.categories[1:]}, "spec.policy.categories", "sexual is gone", id="a category"),
        pytest.param({"lists": BASE.lists[1:]}, "spec.policy.lists", "slurs is gone", id="a list goes away"),
        pytest.param(
            {"lists": (replace(BASE.lists[0], digest="sha256:other"), *BASE.lists[1:])},
            "spec.policy.lists",
            "other entries",
            id="other entries",
        ),
        pytest.param(
            {"lists": (BASE.lists[0], replace(BASE.lists[1], action=Verdict.REVIEW), BASE.lists[2])},
            "spec.policy.lists",
            "had the action Block",
            id="a list's action",
        ),
        pytest.param(
            {"lists": (BASE.lists[0], replace(BASE.lists[1], max_distance=30), BASE.lists[2])},
            "spec.policy.lists",
            "maxDistance 31",
            id="a likeness",
        ),
        pytest.param(
            {"lists": (*BASE.lists, make_list("more", Verdict.ALLOW, type=ListType.DIGEST))},
            "spec.policy.lists[3]",
            "more allows",
            id="another list that allows",
        ),
        pytest.param({"rules": ()}, "spec.policy.rules", "spam is gone", id="a rule goes away"),
        pytest.param(
            {"rules": (make_rule("content.links > 4", Verdict.REVIEW, name="spam"),)},
            "spec.policy.rules",
            "when content.links > 3",
            id="a rule",
        ),
        pytest.param({"parameters": {"most": "4"}}, "spec.policy.parameters", "rules", id="a parameter"),
        pytest.param(
            {"on_model_failure": OnModelFailure.REVIEW}, "spec.policy.onModelFailure", "weaker than Block", id="failure"
        ),
        pytest.param({"enforcement": Enforcement.DRY_RUN}, "spec.policy.enforcement", "Enforce", id="a dry run"),
        pytest.param(
            {"video": VideoSettings(min_coverage=500_000)}, "spec.policy.video.minCoverage", "99%", id="a coverage"
        ),
        pytest.param(
            {"video": VideoSettings(frames_per_minute=60)},
            "spec.policy.video.framesPerMinute",
            "120",
            id="fewer frames",
        ),
    ],
)
def test_what_may_be_softer_is_named_with_what_it_was(change: dict[str, Any], field: str, words: str):
    [problem] = unproven(BASE, replace(BASE, **change), ["sexual", "toxicity"])

    assert problem.field == field
    assert problem.message.startswith("Unproven: ")
    assert words in problem.message


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="nothing"),
        pytest.param(
            sexual(signals=(make_threshold(ONE, "40%", "80%"), make_threshold(TWO, "50%", "60%"))), id="thresholds down"
        ),
        pytest.param({"lists": (*BASE.lists, make_list("more", Verdict.BLOCK))}, id="another list"),
        pytest.param({"lists": BASE.lists[:2]}, id="a list that allows goes away"),
        pytest.param({"rules": (*BASE.rules, make_rule("content.links > 9", Verdict.BLOCK, name="more"))}, id="a rule"),
        pytest.param({"categories": (*BASE.categories, make_category("new", make_threshold(ONE, "1%")))}, id="more"),
        pytest.param(toxicity(languages=("en", "de", "fr")), id="another language"),
        pytest.param(toxicity(languages=(), on_language_unsupported=None), id="every language"),
        pytest.param({"video": VideoSettings(frames_per_minute=240)}, id="more frames"),
    ],
)
def test_what_is_as_strict_or_stricter_is_proven(change: dict[str, Any]):
    assert unproven(BASE, replace(BASE, **change), ["sexual", "toxicity"]) == ()


def test_only_the_named_categories_are_looked_at():
    softer = replace(BASE, **sexual(signals=(make_threshold(ONE), make_threshold(TWO))))

    assert unproven(BASE, softer, ["toxicity"]) == ()
    assert unproven(BASE, replace(softer, rules=()), ["unheard-of"]) == ()
    assert unproven(BASE, softer, ["sexual"])


@pytest.mark.parametrize("content", [BASE, replace(BASE, **sexual(languages=("en",)))], ids=["alone", "with more"])
def test_a_floor_that_is_to_be_a_policy_no_longer_binds_narrower_scopes(content: PolicyContent):
    first, *others = unproven(BASE, content, ["sexual"], Role.FLOOR, Role.POLICY)

    assert str(first).startswith("spec.role: Unproven: it was Floor, ")
    assert tuple(others) == unproven(BASE, content, ["sexual"])
    assert unproven(BASE, content, ["unheard-of"], Role.FLOOR, Role.POLICY) == ()


@pytest.mark.parametrize("roles", [(Role.FLOOR, Role.FLOOR), (Role.POLICY, Role.FLOOR)], ids=["a floor", "a policy"])
def test_a_floor_is_no_softer_than_what_it_was(roles: tuple[Role, Role]):
    assert unproven(BASE, BASE, ["sexual"], *roles) == ()


# A threshold of 0 is reached by every score, and so is stricter than a failure: that is its author's wish.
values = st.one_of(st.none(), st.integers(1, 20).map(lambda each: each * MILLION // 20))


# Strategies are made once: hypothesis looks through each new one, which takes longer than to draw from it.
languages_of_categories = st.sampled_from([(), ("en",), ("en", "de")])
requires = st.sampled_from(Require)
on_signal_missing = st.sampled_from(OnSignalMissing)
on_language_unsupported = st.sampled_from(OnLanguageUnsupported)
on_model_failure = st.sampled_from(OnModelFailure)


@cache
@st.composite
def categories(draw: st.DrawFn) -> Category:
    languages = draw(languages_of_categories)
    return Category(
        name="sexual",
        signals=tuple(Threshold(signal=each, review=draw(values), block=draw(values)) for each in (ONE, TWO)),
        require=Requirement(review=draw(requires), block=draw(requires)),
        on_signal_missing=draw(on_signal_missing),
        languages=languages,
        on_language_unsupported=draw(on_language_unsupported) if languages else None,
    )


lists = st.lists(st.sampled_from(BASE.lists), unique=True).map(tuple)
rules = st.sampled_from([(), BASE.rules])


@cache
@st.composite
def contents(draw: st.DrawFn) -> PolicyContent:
    return PolicyContent(
        categories=(draw(categories()),),
        lists=draw(lists),
        rules=draw(rules),
        on_model_failure=draw(on_model_failure),
    )


changed_fields = st.sets(st.sampled_from(["signals", "require", "on_signal_missing", "languages"]))
changed_parts = st.sets(st.sampled_from(["lists", "rules", "on_model_failure"]))


@st.composite
def changed(draw: st.DrawFn, before: PolicyContent) -> PolicyContent:
    """Change some of it, so that most of what is drawn is near to what was."""
    other = draw(contents())
    (old,), (new,) = before.categories, other.categories
    fields = draw(changed_fields)
    taken = {field: getattr(new, field) for field in fields}
    if "languages" in fields:
        taken["on_language_unsupported"] = new.on_language_unsupported
    whole = draw(changed_parts)
    return replace(before, categories=(replace(old, **taken),), **{field: getattr(other, field) for field in whole})


answers_of_models = st.one_of(st.integers(0, MILLION), st.sampled_from(Missing))
types = st.sampled_from(["text", "image"])
flags = st.booleans()
spoken = st.sampled_from([None, "en", "de", "fr"])


@cache
@st.composite
def evidences(draw: st.DrawFn) -> Any:
    answers = {signal: draw(answers_of_models) for signal in (ONE, TWO)}
    return make_evidence(
        {signal: answer for signal, answer in answers.items() if isinstance(answer, int)},
        type=draw(types),
        missing={signal: answer for signal, answer in answers.items() if isinstance(answer, Missing)},
        rescannable=draw(flags),
        links=draw(st.integers(0, 5)),
        language=draw(spoken),
        lists=tuple(make_hit(each.name, distance=20) for each in draw(lists)),
    )


def severity(content: PolicyContent, evidence: Any) -> int:
    fields = {name: getattr(content, name) for name in ("lists", "rules", "on_model_failure")}
    return judge(make_policy(*content.categories, **fields), evidence).severity


@settings(max_examples=300)
@given(st.data())
def test_what_is_proven_is_never_softer_whatever_comes(data: st.DataObject):
    before = data.draw(contents())
    after = data.draw(changed(before))
    assume(not unproven(before, after, ["sexual"]))
    evidence = data.draw(evidences())

    assert severity(after, evidence) >= severity(before, evidence)


levels = st.sampled_from(["50%", "90%"])
scores = st.sampled_from([400_000, 600_000, 950_000])


@settings(max_examples=300)
@given(st.data())
def test_what_is_proven_is_never_softer_where_a_signal_that_no_model_serves_begins_to_count_as_failed(
    data: st.DataObject,
):
    signals = tuple(make_threshold(each, data.draw(levels), data.draw(levels)) for each in (ONE, TWO))
    require = Requirement(review=data.draw(requires), block=data.draw(requires))
    before, after = (
        PolicyContent(
            categories=(Category(name="sexual", signals=signals, require=require, on_signal_missing=each),),
            on_model_failure=data.draw(on_model_failure),
        )
        for each in (OnSignalMissing.IGNORE, OnSignalMissing.MODEL_FAILURE)
    )
    assume(not unproven(before, after, ["sexual"]))
    evidence = make_evidence({TWO: data.draw(scores)}, missing={ONE: Missing.NOT_SERVED}, rescannable=data.draw(flags))

    assert severity(after, evidence) >= severity(before, evidence)


BOTH, BY_BLOCK, BY_REVIEW = (
    Requirement(review=Require.ALL, block=Require.ALL),
    Requirement(block=Require.ALL),
    Requirement(review=Require.ALL),
)


@pytest.mark.parametrize(
    ("require", "on_failure", "kinds"),
    [
        pytest.param(BY_BLOCK, OnModelFailure.REVIEW, ["block"], id="it blocked, a failure is reviewed"),
        pytest.param(BY_BLOCK, OnModelFailure.ALLOW_AND_RESCAN, ["block"], id="it blocked, a failure is allowed"),
        pytest.param(BY_REVIEW, OnModelFailure.ALLOW_AND_RESCAN, ["review"], id="it reviewed, a failure is allowed"),
        pytest.param(BOTH, OnModelFailure.ALLOW_AND_RESCAN, ["review", "block"], id="both, a failure is allowed"),
        pytest.param(BOTH, OnModelFailure.BLOCK, [], id="a failure blocks"),
        pytest.param(BY_REVIEW, OnModelFailure.REVIEW, [], id="a failure is as strict as what it takes away"),
        pytest.param(Requirement(), OnModelFailure.ALLOW_AND_RESCAN, [], id="each is enough"),
    ],
)
def test_a_signal_that_was_left_out_of_those_that_must_agree_may_not_begin_to_keep_them_from_it(
    require: Requirement, on_failure: OnModelFailure, kinds: list[str]
):
    before = replace(BASE.categories[0], require=require, on_signal_missing=OnSignalMissing.IGNORE)
    after = replace(before, on_signal_missing=OnSignalMissing.MODEL_FAILURE)
    stable, candidate = (replace(BASE, categories=(each,), on_model_failure=on_failure) for each in (before, after))
    problems = unproven(stable, candidate, ["sexual"])

    assert [each.field for each in problems] == ["spec.policy.categories[0].onSignalMissing"] * len(kinds)
    for kind, each in zip(kinds, problems, strict=True):
        assert f"it was Ignore, by which those that are served could {kind}; " in each.message
        assert f"a failure means {on_failure}" in each.message


def test_what_is_not_proven_so_is_softer_where_one_signal_is_not_served():
    evidence = make_evidence({TWO: 990_000}, missing={ONE: Missing.NOT_SERVED})
    category = replace(BASE.categories[0], require=BY_BLOCK)
    verdicts = [
        judge(make_policy(replace(category, on_signal_missing=each), on_model_failure=OnModelFailure.REVIEW), evidence)
        for each in (OnSignalMissing.IGNORE, OnSignalMissing.MODEL_FAILURE)
    ]

    assert [each.verdict for each in verdicts] == [Verdict.BLOCK, Verdict.REVIEW]


@pytest.mark.parametrize("kind", ["review", "block"])
@pytest.mark.parametrize("with_threshold", [ONE, TWO])
def test_where_one_signal_alone_has_a_threshold_it_does_not_matter_to_it_what_others_mean(
    with_threshold: str, kind: str
):
    signals = tuple(make_threshold(each, **{kind: "50%" if each == with_threshold else None}) for each in (ONE, TWO))
    before = Category(name="sexual", signals=signals, require=BOTH, on_signal_missing=OnSignalMissing.IGNORE)
    after = replace(before, on_signal_missing=OnSignalMissing.MODEL_FAILURE)
    content = PolicyContent(categories=(before,), on_model_failure=OnModelFailure.ALLOW_AND_RESCAN)

    assert unproven(content, replace(content, categories=(after,)), ["sexual"]) == ()


@pytest.mark.parametrize("required", [Require.ANY, Require.ALL])
@pytest.mark.parametrize("kept", [0, 1], ids=["none is left", "one is left"])
def test_to_have_all_agree_is_no_way_to_take_thresholds_away(required: Require, kept: int):
    before, levels = BASE.categories[0], ["85%" if number < kept else None for number in range(2)]
    signals = tuple(make_threshold(signal, "50%", level) for signal, level in zip((ONE, TWO), levels, strict=True))
    stable = replace(BASE, categories=(replace(before, require=Requirement(block=required)),))
    after = replace(before, signals=signals, require=Requirement(block=Require.ALL))

    problems = unproven(stable, replace(stable, categories=(after,)), ["sexual"])

    assert [each.field for each in problems if each.field.endswith(".block") and "it was" in each.message]
