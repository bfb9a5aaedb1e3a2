"""What keeps a well-written policy from going live."""

import pytest

from baleen_core.policy.schema import (
    ListContent,
    ListSource,
    ListSourceType,
    ListType,
    ModelRequirement,
    OnLanguageUnsupported,
    OnSignalMissing,
    Policy,
    PolicyContent,
    PolicyList,
    PolicyTest,
    Verdict,
)
from baleen_core.validation import find_problems
from baleen_core.validation import tests_report as report_tests
from evidence import SEXUAL, TOXIC, UNSAFE, make_category, make_model, make_rule, make_threshold

MODELS = (
    make_model("image-safety", "gore", "sexual", version="3"),
    make_model("open-nsfw", "unsafe"),
    make_model("toxicity", "insult", "toxic"),
)
SLURS = PolicyList(
    name="slurs",
    type=ListType.TERMS,
    action=Verdict.REVIEW,
    source=ListSource(type=ListSourceType.CONFIG_MAP, name="slurs", key="terms.txt"),
)
TERMS = ListContent(digest="sha256:slurs", type=ListType.TERMS, entries=("fool", "idiot"))
TOXICITY = make_category("toxicity", make_threshold(TOXIC, "70%", "92%"))


def make_authored(*categories, tests=(), **content) -> Policy:
    return Policy(
        name="community",
        namespace="trust-safety",
        content=PolicyContent(categories=categories, **content),
        tests=tuple(tests),
    )


def problems_of(policy: Policy, lists=None) -> list[tuple[str, str]]:
    return [(problem.field, problem.message) for problem in find_problems(policy, lists or {}, MODELS)]


def test_a_good_policy_has_no_problems():
    policy = make_authored(
        TOXICITY,
        lists=(SLURS,),
        rules=(make_rule("toxicity.insult > params.limit"),),
        parameters={"limit": "0.5"},
        models=(ModelRequirement(name="image-safety", version="3"),),
        tests=[PolicyTest(name="mild", signals={TOXIC: 300_000}, expect=Verdict.ALLOW)],
    )

    assert problems_of(policy, {"slurs": TERMS}) == []


@pytest.mark.parametrize(
    ("signal", "on_missing", "expected"),
    [
        pytest.param(
            "toxicity.toxicc",
            OnSignalMissing.MODEL_FAILURE,
            "unknown signal 'toxicc'; did you mean 'toxic'?",
            id="typo",
        ),
        pytest.param(
            "toxicity.toxicc", OnSignalMissing.IGNORE, "unknown signal 'toxicc'; did you mean 'toxic'?", id="even so"
        ),
        pytest.param(
            "toxicty.toxic",
            OnSignalMissing.MODEL_FAILURE,
            "unknown model 'toxicty'; did you mean 'toxicity'?",
            id="model",
        ),
        pytest.param(
            "weapons.gun",
            OnSignalMissing.MODEL_FAILURE,
            "known are image-safety, open-nsfw, toxicity; with `onSignalMissing: Ignore`",
            id="not served",
        ),
    ],
)
def test_a_signal_that_nobody_offers_is_refused(signal, on_missing, expected):
    category = make_category(
        "x", make_threshold(SEXUAL, "50%"), make_threshold(signal, "50%"), on_signal_missing=on_missing
    )

    [(field, message)] = problems_of(make_authored(TOXICITY, category))

    assert field == "spec.policy.categories[1].signals[1].name"
    assert expected in message


def test_a_signal_of_a_model_that_is_not_served_may_be_ignored():
    category = make_category("x", make_threshold("weapons.gun", "50%"), on_signal_missing=OnSignalMissing.IGNORE)

    assert problems_of(make_authored(category)) == []


def test_a_rule_with_a_typo_is_refused_where_it_stands():
    policy = make_authored(
        rules=(make_rule("toxicity.toxic > 0.5", name="a"), make_rule("toxicity.toxik > 0.5", name="b"))
    )

    [(field, message)] = problems_of(policy)

    assert field == "spec.policy.rules[1].when"
    assert "did you mean 'toxicity.toxic'?" in message


def test_thresholds_are_for_the_version_that_they_were_calibrated_for():
    needed = (ModelRequirement(name="image-safety", version="2"), ModelRequirement(name="imagesafety", version="3"))

    found = problems_of(make_authored(models=needed))

    assert [field for field, _ in found] == ["spec.policy.models[0].version", "spec.policy.models[1].name"]
    assert "calibrated for image-safety '2', and '3' is served" in found[0][1]
    assert "did you mean 'image-safety'?" in found[1][1]


def test_a_list_without_content_is_refused():
    [(field, message)] = problems_of(make_authored(lists=(SLURS,), tests=[PolicyTest(name="x", expect=Verdict.ALLOW)]))

    assert "slurs" in field + message


@pytest.mark.parametrize(
    ("author", "message"),
    [
        pytest.param({"agedays": 3}, "unknown field of an author 'agedays'; did you mean 'ageDays'?", id="typo"),
        pytest.param({"ageDays": "3"}, "'3' is not a whole number", id="a number in quotes"),
        pytest.param({"ageDays": True}, "true is not a whole number", id="a truth for a number"),
        pytest.param({"verified": 1}, "1 is not true or false", id="a number for a truth"),
        pytest.param({"id": 7}, "7 is not a string", id="a number for a name"),
    ],
)
def test_a_test_tells_of_authors_only_what_rules_can_read(author, message):
    policy = make_authored(TOXICITY, tests=[PolicyTest(name="x", author=author, expect=Verdict.ALLOW)])

    assert problems_of(policy) == [(f"spec.tests[0].author.{next(iter(author))}", message)]


def test_everything_is_said_at_once_and_tests_wait_for_it():
    policy = make_authored(
        make_category("x", make_threshold("toxicity.toxicc", "50%")),
        rules=(make_rule("foo > 1"),),
        models=(ModelRequirement(name="nobody", version="1"),),
        tests=[PolicyTest(name="fails", signals={"toxicity.tox": 1}, expect=Verdict.BLOCK)],
    )

    fields = [field for field, _ in problems_of(policy)]

    assert fields == [
        "spec.policy.categories[0].signals[0].name",
        "spec.policy.rules[0].when",
        "spec.policy.models[0].name",
        "spec.tests[0].signals.toxicity.tox",
    ]


@pytest.mark.parametrize(
    ("test", "found"),
    [
        pytest.param({"signals": {TOXIC: 300_000}}, Verdict.ALLOW, id="below"),
        pytest.param({"signals": {TOXIC: 700_000}}, Verdict.REVIEW, id="reached"),
        pytest.param({"signals": {SEXUAL: 1_000_000}}, Verdict.ALLOW, id="a served signal that nothing reads"),
        pytest.param({}, Verdict.ALLOW, id="what is left out scores 0"),
        pytest.param({"text": "you f0ol"}, Verdict.REVIEW, id="text runs through lists"),
        pytest.param(
            {"text": "a.com b.com c.com d.com", "author": {"ageDays": 3}}, Verdict.REVIEW, id="rules read links"
        ),
        pytest.param({"text": "a.com b.com c.com d.com"}, Verdict.ALLOW, id="and what the caller sent"),
        pytest.param(
            {"signals": {UNSAFE: 900_000}, "language": "de"}, Verdict.ALLOW, id="a language it does not speak"
        ),
        pytest.param({"signals": {UNSAFE: 900_000}, "language": "en"}, Verdict.BLOCK, id="a language it speaks"),
        pytest.param({"signals": {UNSAFE: 900_000}}, Verdict.BLOCK, id="no language: it is about an image"),
    ],
)
def test_a_policy_is_tested_by_the_engine_that_will_judge(test, found):
    spoken = make_category(
        "spoken",
        make_threshold(UNSAFE, None, "90%"),
        languages=("en",),
        on_language_unsupported=OnLanguageUnsupported.SKIP,
    )
    ignored = make_category("ignored", make_threshold("weapons.gun", "1%"), on_signal_missing=OnSignalMissing.IGNORE)
    policy = make_authored(
        TOXICITY,
        spoken,
        ignored,
        lists=(SLURS,),
        rules=(make_rule("content.links > 3 && author.ageDays < 7"),),
        tests=[PolicyTest(name="x", expect=found, **test)],
    )

    [result] = report_tests(policy, {"slurs": TERMS}, MODELS)

    assert (result.name, result.expected, result.found, result.passed) == ("x", found, found, True)


@pytest.mark.parametrize(
    ("expect", "signals", "message"),
    [
        pytest.param(
            Verdict.ALLOW,
            {TOXIC: 950_000},
            "test 'x': expected Allow, got Block because toxicity: block threshold reached by toxicity.toxic (95%)",
            id="too strict",
        ),
        pytest.param(
            Verdict.BLOCK,
            {},
            "test 'x': expected Block, got Allow because nothing reached a threshold, a list or a rule",
            id="too lenient",
        ),
    ],
)
def test_a_policy_that_fails_its_own_test_is_refused_with_the_reason(expect, signals, message):
    policy = make_authored(TOXICITY, tests=[PolicyTest(name="x", signals=signals, expect=expect)])

    assert problems_of(policy) == [("spec.tests[0]", message)]
