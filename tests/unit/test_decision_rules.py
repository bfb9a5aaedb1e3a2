"""Rules: what compiles, what is refused and in which words, and what they give."""

import pytest

from baleen_core.decision.rules import RuleStatus, apply_rule, compile_rule, compile_stored_rule, declare
from baleen_core.errors import PolicyError
from baleen_core.reading import CEL_KEYWORDS
from baleen_core.records import Missing
from evidence import make_evidence, make_rule, make_video

DECLARED = declare(
    ["image-safety.sexual", "text-safety.self_harm", "toxicity.toxic"],
    {"delta": "2.0", "strict": "true", "region": "north 1"},
)


def apply(when: str, **evidence):
    return apply_rule(compile_rule(make_rule(when), DECLARED), make_evidence(**evidence))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        pytest.param("image_safety.sexual > 0.7", True, id="score"),
        pytest.param("image_safety.sexual >= 0.700001", True, id="a score is millionths over a million"),
        pytest.param("image_safety.sexual > 0.700001", False, id="and no more"),
        pytest.param("text_safety.self_harm == 0.0", True, id="a dash in the model's name"),
        pytest.param("content.type == 'text' && content.length == 12 && content.links == 4", True, id="content"),
        pytest.param("content.language == 'en' && content.mediaType == ''", True, id="language and media type"),
        pytest.param("content.width * content.height == 0", True, id="text has no size"),
        pytest.param("author.id == 'u1' && author.ageDays < 7 && !author.verified", True, id="author"),
        pytest.param("author.strikes + author.followers + author.posts == 6", True, id="author's counts"),
        pytest.param("context.tenant == 't' && context.surface == 's'", True, id="place"),
        pytest.param("context.source.startsWith('site-7/') && context.session.size() > 0", True, id="path"),
        pytest.param("params.delta > 1.5 && params.strict && params.region == 'north 1'", True, id="parameters"),
        pytest.param(r"author.id.matches('^u[0-9]{1,3}$')", True, id="regular expression"),
        pytest.param("author.id in ['u1', 'u2']", True, id="one of"),
        pytest.param("content.links > 3 ? author.ageDays < 7 : false", True, id="condition"),
        pytest.param("author.id == 'all([1].exists(x, x))'", False, id="words in quotes mean nothing"),
        pytest.param("content.links > 3 // many\n && author.ageDays < 7", True, id="comment and line break"),
    ],
)
def test_rules_read_facts(when, expected):
    outcome = apply(
        when,
        signals={"image-safety.sexual": 700_001, "text-safety.self_harm": 0, "toxicity.toxic": 0},
        type="text",
        length=12,
        links=4,
        language="en",
        author={"id": "u1", "ageDays": 3, "verified": False, "strikes": 1, "followers": 2, "posts": 3},
        context={"tenant": "t", "surface": "s", "source": "site-7/camera-3", "session": "x"},
    )

    assert outcome.status is (RuleStatus.MATCHED if expected else RuleStatus.NOT_MATCHED)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        pytest.param("image_safety.sexaul > 0.5", "column 13: .*did you mean 'image_safety.sexual'", id="signal"),
        pytest.param("image-safety.sexual > 0.5", "read as 'image_safety.sexual' in a rule", id="a dash is a minus"),
        pytest.param("author.agedays < 7", "did you mean 'author.ageDays'", id="field"),
        pytest.param("content.links > 3 && author.foo < 7", "line 1, column 28", id="where it stands"),
        pytest.param("params.delat > 1.0", "did you mean 'params.delta'", id="parameter"),
        pytest.param("nonsense > 3", "unknown name 'nonsense'; a rule reads author", id="bare word"),
        pytest.param("author.id.lower() == 'x'", "unknown name 'lower'; .* may call contains, double", id="function"),
        pytest.param("image_safety.sexual > 1", r"'\(double, int\)'; write 1.0 beside a score", id="whole number"),
        pytest.param("author.id > 3", "no matching overload for '>'", id="wrong type"),
        pytest.param("content.links", "gives a whole number; a rule must give true or false", id="not a condition"),
        pytest.param("dyn(true)", "gives a value of unknown type", id="type unknown"),
        pytest.param("1 +", "the end of the rule, which cannot stand here", id="unfinished"),
        pytest.param("", "the end of the rule, which cannot stand here", id="empty"),
        pytest.param("content.links = 3", "line 1, column 15: Syntax error", id="one equals sign"),
        pytest.param("content.links > 3 and true", "mismatched input 'and'", id="and in words"),
        pytest.param("x" * 1025, "has 1025 characters; a rule may have at most 1024", id="too long"),
        pytest.param("(" * 40 + "true" + ")" * 40, "at most 32 levels", id="too deep"),
        pytest.param("[1, 2].exists(x, x > content.links)", "loops", id="exists"),
        pytest.param("[1, 2].all(x, x > 1)", "loops", id="all"),
        pytest.param("[1].map(x, x) == [1]", "loops", id="map"),
        pytest.param("[1].filter(x, x > 1) == [1]", "loops", id="filter"),
        pytest.param("[1].exists_one(x, x > 1)", "loops", id="exists_one"),
        pytest.param("content.links > 0 || (content.links > 3 && [[1].all(x, x > 1)][0])", "loops", id="a hidden loop"),
        pytest.param("has(author.verified)", "not needed", id="has is no test of a fact"),
        pytest.param("timestamp(author.id) > timestamp('2020-01-01T00:00:00Z')", "calls timestamp", id="not listed"),
        pytest.param("'x'.matches(author.id)", "not a string literal", id="a regular expression of the caller's"),
        pytest.param(f"author.id.matches('{'a' * 257}')", "of 257 characters; at most 256", id="long expression"),
        pytest.param("author.id.matches('(a{1,100}){100}')", "repetitions is 150000", id="explosive expression"),
        pytest.param("author.id.matches('a{999999999999}')", "counted repetitions", id="absurd expression"),
        pytest.param(r"author.id.matches('\\pL')", r"with \\p, which is slow", id="slow classes"),
        pytest.param("author.id.matches('a(')", "is wrong: .*missing \\)", id="broken expression"),
        pytest.param(" || ".join(["author.id.matches('a')"] * 5), "5 times; at most 4", id="many"),
    ],
)
def test_a_wrong_rule_is_refused_in_words_of_one_line(when, expected):
    with pytest.raises(PolicyError, match=expected) as refused:
        compile_rule(make_rule(when), DECLARED, field="spec.policy.rules[2].when")

    assert {problem.field for problem in refused.value.problems} == {"spec.policy.rules[2].when"}
    assert not any("\n" in problem.message for problem in refused.value.problems)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(PolicyError) as refused:
        compile_rule(make_rule("author.agedays < 7 && toxicity.toxicc > 0.5"), DECLARED)

    assert len(refused.value.problems) == 2


@pytest.mark.parametrize(
    ("when", "status", "why"),
    [
        pytest.param("author.ageDays < 7", RuleStatus.NOT_APPLIED, "did not send author.ageDays", id="author"),
        pytest.param("context.surface == 'x'", RuleStatus.NOT_APPLIED, "did not send context.surface", id="place"),
        pytest.param("!(author.ageDays > 7)", RuleStatus.NOT_APPLIED, "author.ageDays", id="a negation does not match"),
        pytest.param("content.links > 3 && author.verified", RuleStatus.NOT_MATCHED, "", id="false whatever it is"),
        pytest.param("content.links < 3 || author.verified", RuleStatus.MATCHED, "", id="true whatever it is"),
        pytest.param("toxicity.toxic > 0.5", RuleStatus.FAILED, "no score for toxicity.toxic", id="failed"),
        pytest.param("text_safety.self_harm > 0.5", RuleStatus.FAILED, "text-safety.self_harm", id="not served"),
        pytest.param("image_safety.sexual < 0.5", RuleStatus.MATCHED, "", id="what does not apply scores 0"),
        pytest.param("toxicity.toxic > 0.5 && author.verified", RuleStatus.FAILED, "toxicity", id="failures first"),
        pytest.param("toxicity.toxic > 0.5 && content.links > 3", RuleStatus.NOT_MATCHED, "", id="it does not matter"),
        pytest.param("100 / content.links > 1", RuleStatus.ERROR, "divide by zero", id="error"),
        pytest.param("author.posts > 1", RuleStatus.ERROR, "author.posts", id="a fact of the wrong type"),
        pytest.param("author.id == 'x'", RuleStatus.ERROR, "null", id="a fact that is no Unicode"),
    ],
)
def test_what_is_not_known_counts_only_where_it_matters(when, status, why):
    outcome = apply(
        when,
        missing={"toxicity.toxic": Missing.FAILED, "image-safety.sexual": Missing.NOT_APPLICABLE},
        type="text",
        links=0,
        author={"posts": "many", "id": "\ud800"},
    )

    assert outcome.status is status
    assert why in outcome.why


@pytest.mark.parametrize(
    ("when", "status", "waits"),
    [
        pytest.param("toxicity.toxic > 0.3", RuleStatus.MATCHED, True, id="what was seen matches"),
        pytest.param("toxicity.toxic > 0.5", RuleStatus.FAILED, True, id="the rest may match"),
        pytest.param("toxicity.toxic > 0.5 && content.links > 3", RuleStatus.NOT_MATCHED, False, id="no matter"),
        pytest.param("toxicity.toxic > 0.3 || content.links == 0", RuleStatus.MATCHED, False, id="it matches anyhow"),
        pytest.param("toxicity.toxic > 0.3 && author.verified", RuleStatus.FAILED, True, id="failures first"),
        pytest.param(
            "1.0 / (toxicity.toxic - 0.4) > 1.0 && 1 / content.links > 0", RuleStatus.FAILED, True, id="error"
        ),
    ],
)
def test_a_score_of_a_part_is_read_and_the_rest_is_waited_for(when, status, waits):
    outcome = apply(when, signals={"toxicity.toxic": 400_000}, missing={"toxicity.toxic": Missing.FAILED}, links=0)

    assert (outcome.status, outcome.waits, outcome.failed) == (status, waits, ("toxicity.toxic",))


def test_a_score_that_some_frames_lack_is_one_of_a_part():
    rule = compile_rule(make_rule("toxicity.toxic > 0.5"), DECLARED)

    assert apply_rule(rule, make_video({"toxicity.toxic": 0}, {})).status is RuleStatus.FAILED
    assert apply_rule(rule, make_video({"toxicity.toxic": 0}, {"toxicity.toxic": 0})).status is RuleStatus.NOT_MATCHED


def test_a_failed_model_is_told_even_where_it_does_not_matter():
    outcome = apply("toxicity.toxic > 0.5 || content.links == 0", missing={"toxicity.toxic": Missing.FAILED})

    assert (outcome.status, outcome.failed) == (RuleStatus.MATCHED, ("toxicity.toxic",))


def test_a_rule_reads_only_what_it_names():
    rule = compile_rule(make_rule("toxicity.toxic > 0.5 && author.`ageDays` < 7 && params.strict"), DECLARED)

    assert rule.signals == (("toxicity.toxic", "toxicity.toxic"),)
    assert rule.author == (("author.ageDays", "ageDays"),)
    assert rule.parameters == {"params.strict": True}
    assert (rule.content, rule.context) == ((), ())


def test_a_stored_rule_whose_model_is_gone_compiles_and_waits_for_it():
    rule = compile_stored_rule(make_rule("gone_model.self_harm > 0.5 && content.links > 3"), ["toxicity.toxic"], {})

    assert rule.signals == (("gone_model.self_harm", "gone-model.self_harm"),)
    assert apply_rule(rule, make_evidence(links=9)).status is RuleStatus.FAILED
    assert apply_rule(rule, make_evidence({"gone-model.self_harm": 600_000}, links=9)).status is RuleStatus.MATCHED


def test_a_stored_rule_that_is_wrong_otherwise_is_refused():
    with pytest.raises(PolicyError, match=r"author\.foo"):
        compile_stored_rule(make_rule("gone.x > 0.5 && author.foo > 3"), [], {})


def test_a_model_named_like_a_namespace_hides_nothing():
    rule = compile_rule(make_rule("content.links > 3"), declare(["content.links"], {}))

    assert apply_rule(rule, make_evidence({"content.links": 0}, links=4)).status is RuleStatus.MATCHED


@pytest.mark.parametrize(
    ("signal", "when", "message"),
    [
        pytest.param("3d-model.gore", "3d_model.gore > 0.5", "'3d-model', whose name begins with a digit", id="digit"),
        pytest.param(
            "3d-model.gore", "3d-model.gore > 0.5", "'3d-model', whose name begins with a digit", id="as named"
        ),
        pytest.param("package.gore", "package.gore > 0.5", "'package', whose name is a reserved word", id="reserved"),
        pytest.param("true.gore", "true.gore > 0.5", "'true', whose name is a reserved word of CEL", id="keyword"),
    ],
)
def test_a_model_whose_name_cannot_begin_a_name_is_told_so(signal, when, message):
    with pytest.raises(PolicyError) as refused:
        compile_rule(make_rule(when), declare([signal, "toxicity.toxic"], {}))

    [problem] = refused.value.problems
    assert message in problem.message


def test_a_model_that_rules_cannot_read_is_blamed_only_where_it_is_read():
    with pytest.raises(PolicyError, match=r"did you mean 'toxicity\.toxic'"):
        compile_rule(make_rule("toxicity.toxik > 0.5"), declare(["3d-model.gore", "toxicity.toxic"], {}))


@pytest.mark.parametrize("word", sorted({"as", "for", "if", "package", "var", "while"}))
def test_other_reserved_words_are_names_after_a_dot(word):
    rule = compile_rule(
        make_rule(f"toxicity.{word} > 0.5 && params.{word}"), declare([f"toxicity.{word}"], {word: "true"})
    )

    assert apply_rule(rule, make_evidence({f"toxicity.{word}": 600_000})).status is RuleStatus.MATCHED


@pytest.mark.parametrize("word", sorted(CEL_KEYWORDS))
def test_a_keyword_can_name_nothing_that_rules_read(word):
    with pytest.raises(PolicyError):
        compile_rule(make_rule(f"params.{word}"), declare([], {word: "true"}))
