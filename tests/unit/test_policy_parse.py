from collections.abc import Callable
from typing import Any

import eldc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import PolicyError, Problem
from baleen_core.policy.parse import LANGUAGES, parse_policy
from baleen_core.policy.schema import (
    Category,
    Enforcement,
    ListSource,
    ListSourceType,
    ListType,
    ModelRequirement,
    OnLanguageUnsupported,
    OnModelFailure,
    OnSignalMissing,
    Policy,
    PolicyContent,
    PolicyList,
    PolicyTest,
    Require,
    Requirement,
    Role,
    Rule,
    Scope,
    Threshold,
    Verdict,
    VideoSettings,
)
from baleen_core.reading import signal_name
from policies import CATEGORY, make_policy, policy_manifest, policy_manifests

WHOLE: dict[str, Any] = {
    "apiVersion": "moderation.baleen.dev/v1alpha1",
    "kind": "ModerationPolicy",
    "metadata": {"name": "community", "namespace": "trust-safety", "labels": {"team": "safety"}, "generation": 7},
    "spec": {
        "scope": {"tenant": "acme", "surface": "comments", "source": "site-7/*"},
        "type": "Privacy",
        "role": "Floor",
        "version": "v1.4.0",
        "description": "Stricter on harassment after the March review",
        "policy": {
            "enforcement": "DryRun",
            "categories": [
                {
                    "name": "sexual",
                    "signals": [
                        {"name": "image-safety.sexual", "review": "50%", "block": "85%"},
                        {"name": "open-nsfw.unsafe", "block": "0.5"},
                    ],
                    "require": {"review": "Any", "block": "All"},
                    "onSignalMissing": "Ignore",
                },
                {
                    "name": "toxicity",
                    "signals": [{"name": "toxicity.toxic", "review": "70%", "block": "92.5%"}],
                    "languages": ["en", "de"],
                    "onLanguageUnsupported": "Skip",
                },
            ],
            "lists": [
                {
                    "name": "slurs",
                    "type": "Terms",
                    "action": "Review",
                    "source": {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"},
                },
                {
                    "name": "known-bad",
                    "type": "PerceptualHash",
                    "action": "Block",
                    "source": {"type": "Secret", "name": "known-bad", "key": "hashes"},
                },
                {
                    "name": "cleared",
                    "type": "Digest",
                    "action": "Allow",
                    "source": {"type": "ConfigMap", "name": "cleared", "key": "digests.txt"},
                },
            ],
            "rules": [
                {"name": "link-spam", "when": "content.links > 3", "action": "Review", "reason": "Too many links"}
            ],
            "parameters": {"shelfOutDelta": "2.0"},
            "models": [{"name": "image-safety", "version": "3"}],
            "onModelFailure": "Block",
            "video": {
                "windowMilliseconds": 10000,
                "overlapMilliseconds": 2000,
                "framesPerMinute": 60,
                "sampling": "Auto",
                "aggregation": "Max",
                "earlyExit": False,
                "minCoverage": "95%",
            },
        },
        "tests": [
            {
                "name": "mild language passes",
                "language": "en",
                "signals": {"toxicity.toxic": "30%"},
                "text": "oh dear",
                "author": {"ageDays": 3, "verified": True, "id": "a1"},
                "expect": "Allow",
            }
        ],
        "paused": True,
        "rollout": {"rollbackWindow": 5},
        "revisionHistoryLimit": 20,
    },
    "status": {"anything": "at all"},
}


def test_a_policy_says_what_its_manifest_says() -> None:
    assert parse_policy(WHOLE) == Policy(
        name="community",
        namespace="trust-safety",
        scope=Scope(tenant="acme", surface="comments", source="site-7/*"),
        type="Privacy",
        role=Role.FLOOR,
        version="v1.4.0",
        description="Stricter on harassment after the March review",
        content=PolicyContent(
            enforcement=Enforcement.DRY_RUN,
            categories=(
                Category(
                    name="sexual",
                    signals=(
                        Threshold(signal="image-safety.sexual", review=500_000, block=850_000),
                        Threshold(signal="open-nsfw.unsafe", block=500_000),
                    ),
                    require=Requirement(review=Require.ANY, block=Require.ALL),
                    on_signal_missing=OnSignalMissing.IGNORE,
                ),
                Category(
                    name="toxicity",
                    signals=(Threshold(signal="toxicity.toxic", review=700_000, block=925_000),),
                    languages=("en", "de"),
                    on_language_unsupported=OnLanguageUnsupported.SKIP,
                ),
            ),
            lists=(
                PolicyList(
                    name="slurs",
                    type=ListType.TERMS,
                    action=Verdict.REVIEW,
                    source=ListSource(type=ListSourceType.CONFIG_MAP, name="slurs", key="terms.txt"),
                ),
                PolicyList(
                    name="known-bad",
                    type=ListType.PERCEPTUAL_HASH,
                    action=Verdict.BLOCK,
                    max_distance=31,
                    source=ListSource(type=ListSourceType.SECRET, name="known-bad", key="hashes"),
                ),
                PolicyList(
                    name="cleared",
                    type=ListType.DIGEST,
                    action=Verdict.ALLOW,
                    source=ListSource(type=ListSourceType.CONFIG_MAP, name="cleared", key="digests.txt"),
                ),
            ),
            rules=(Rule(name="link-spam", when="content.links > 3", action=Verdict.REVIEW, reason="Too many links"),),
            parameters={"shelfOutDelta": "2.0"},
            models=(ModelRequirement(name="image-safety", version="3"),),
            on_model_failure=OnModelFailure.BLOCK,
            video=VideoSettings(frames_per_minute=60, early_exit=False, min_coverage=950_000),
        ),
        tests=(
            PolicyTest(
                name="mild language passes",
                language="en",
                signals={"toxicity.toxic": 300_000},
                text="oh dear",
                author={"ageDays": 3, "verified": True, "id": "a1"},
                expect=Verdict.ALLOW,
            ),
        ),
        paused=True,
        rollback_window=5,
        revision_history_limit=20,
    )


def test_what_is_left_out_has_its_default() -> None:
    manifest = policy_manifest()
    del manifest["metadata"]["namespace"]

    assert parse_policy(manifest) == Policy(
        name="community",
        namespace="default",
        content=PolicyContent(
            categories=(
                Category(name="toxicity", signals=(Threshold(signal="toxicity.toxic", review=700_000, block=920_000),)),
            )
        ),
    )


def category(**fields: Any) -> dict[str, Any]:
    return {"categories": [{**CATEGORY, **fields}]}


def one_list(**fields: Any) -> dict[str, Any]:
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
    return {"lists": [{"name": "slurs", "type": "Terms", "action": "Review", "source": source, **fields}]}


def one_rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [{"name": "spam", "when": "content.links > 3", "action": "Review", **fields}]}


def one_signal(**fields: Any) -> dict[str, Any]:
    return category(signals=[{"name": "toxicity.toxic", **fields}])


def asking(*metrics: dict[str, Any], **plan: Any) -> dict[str, Any]:
    """Return a spec whose rollout asks these queries."""
    found = [{"name": "refunds", "type": "PromQL"} | each for each in metrics]
    return {"rollout": {"analysis": {"metrics": found}, **plan}}


WRONG_CONTENT = [
    pytest.param({}, "spec.policy", "says nothing", id="nothing at all"),
    pytest.param({"categories": []}, "spec.policy", "says nothing", id="an empty list of categories"),
    pytest.param({"categories": {}}, "spec.policy.categories", "a mapping is not a list", id="not a list"),
    pytest.param({"categories": ["x"]}, "spec.policy.categories[0]", "'x' is not a mapping", id="not a mapping"),
    pytest.param({"categories": None}, "spec.policy.categories", "an empty value is not a list", id="an empty value"),
    pytest.param(
        {"catgories": []}, "spec.policy.catgories", "unknown field 'catgories'; did you mean 'categories'?", id="a typo"
    ),
    pytest.param(
        category(signal=[]), "spec.policy.categories[0].signal", "did you mean 'signals'?", id="a typo further down"
    ),
    pytest.param(category(name="Sexual Content"), "spec.policy.categories[0].name", "'sexual-content'", id="no name"),
    pytest.param(category(name="x" * 64), "spec.policy.categories[0].name", "at most 63", id="too long a name"),
    pytest.param(category(name=7), "spec.policy.categories[0].name", "write it in quotes", id="a number as a name"),
    pytest.param(category(signals=[]), "spec.policy.categories[0].signals", "at least one", id="no signals"),
    pytest.param(one_signal(), "spec.policy.categories[0].signals[0]", "no threshold", id="no threshold"),
    pytest.param(
        one_signal(review="85%", block="0.5"),
        "spec.policy.categories[0].signals[0].review",
        "85% is above block, 50%",
        id="review above block",
    ),
    pytest.param(
        one_signal(block=0.85),
        "spec.policy.categories[0].signals[0].block",
        "0.85 (unquoted)",
        id="an unquoted decimal",
    ),
    pytest.param(one_signal(block=85), "spec.policy.categories[0].signals[0].block", "85 (unquoted)", id="a number"),
    pytest.param(one_signal(block="101%"), "spec.policy.categories[0].signals[0].block", "above 100%", id="over 100%"),
    pytest.param(one_signal(block=10**5000), "spec.policy.categories[0].signals[0].block", "very large", id="huge"),
    pytest.param(one_signal(block=None), "spec.policy.categories[0].signals[0].block", "is empty", id="no value"),
    pytest.param(one_signal(block="9" * 999), "spec.policy.categories[0].signals[0].block", "…", id="a long value"),
    pytest.param(
        category(signals=[{"name": "toxic", "block": "85%"}]),
        "spec.policy.categories[0].signals[0].name",
        "write <model>.<signal>",
        id="a signal without its model",
    ),
    pytest.param(
        category(signals=[{"name": "a.b", "block": "85%"}] * 2),
        "spec.policy.categories[0].signals[1].name",
        "'a.b' is there twice",
        id="a signal twice",
    ),
    pytest.param(
        category(signals=[{"name": f"a.b{n}", "block": "85%"} for n in range(17)]),
        "spec.policy.categories[0].signals",
        "has 17 entries; at most 16",
        id="too many signals",
    ),
    pytest.param(
        {"categories": [CATEGORY, CATEGORY]}, "spec.policy.categories[1].name", "twice", id="a category twice"
    ),
    pytest.param(
        {"categories": [{**CATEGORY, "name": f"c{n}"} for n in range(65)]},
        "spec.policy.categories",
        "at most 64",
        id="too many categories",
    ),
    pytest.param(
        category(signals=[{"name": "a.b", "block": "9%"}, {"name": "a.c", "review": "9%"}], require={"block": "All"}),
        "spec.policy.categories[0].require.block",
        "All needs a block threshold for every signal; there is none for a.c",
        id="All without all thresholds",
    ),
    pytest.param(category(require={"block": "all"}), "spec.policy.categories[0].require.block", "All?", id="case"),
    pytest.param(
        category(languages=["en"]), "spec.policy.categories[0].onLanguageUnsupported", "Skip or Review", id="languages"
    ),
    pytest.param(
        category(onLanguageUnsupported="Skip"),
        "spec.policy.categories[0].onLanguageUnsupported",
        "without languages",
        id="no languages",
    ),
    pytest.param(
        category(languages=["English"], onLanguageUnsupported="Skip"),
        "spec.policy.categories[0].languages[0]",
        "unknown language 'English'; known are am, ar, az",
        id="no language code",
    ),
    pytest.param(
        category(languages=["zz"], onLanguageUnsupported="Skip"),
        "spec.policy.categories[0].languages[0]",
        "unknown language 'zz'; known are am",
        id="a language that nobody can tell",
    ),
    pytest.param(
        category(languages=["en", "spa"], onLanguageUnsupported="Skip"),
        "spec.policy.categories[0].languages[1]",
        "unknown language 'spa'; did you mean 'es'?",
        id="a longer code",
    ),
    pytest.param(
        category(languages=["en-GB"], onLanguageUnsupported="Skip"),
        "spec.policy.categories[0].languages[0]",
        "unknown language 'en-GB'; did you mean 'en'?",
        id="a language and its country",
    ),
    pytest.param(
        category(languages=["en", "en"], onLanguageUnsupported="Skip"),
        "spec.policy.categories[0].languages",
        "twice",
        id="a language twice",
    ),
    pytest.param(one_list(action="Allow"), "spec.policy.lists[0].action", "type Digest only", id="Allow for terms"),
    pytest.param(
        one_list(type="PerceptualHash", action="Allow"), "spec.policy.lists[0].action", "Digest only", id="for hashes"
    ),
    pytest.param(one_list(maxDistance=5), "spec.policy.lists[0].maxDistance", "PerceptualHash only", id="a distance"),
    pytest.param(
        one_list(type="PerceptualHash", maxDistance=65), "spec.policy.lists[0].maxDistance", "0 to 64", id="too far"
    ),
    pytest.param(
        one_list(type="PerceptualHash", maxDistance=True), "spec.policy.lists[0].maxDistance", "true", id="no number"
    ),
    pytest.param(one_list(type="Words"), "spec.policy.lists[0].type", "Terms, Digest, PerceptualHash", id="list type"),
    pytest.param(one_list(digest="sha256:0"), "spec.policy.lists[0].digest", "unknown field", id="a list's digest"),
    pytest.param(
        one_list(source={"type": "ConfigMap", "name": "slurs"}), "spec.policy.lists[0].source.key", "required", id="key"
    ),
    pytest.param(
        one_list(source={"type": "Store", "name": "x"}),
        "spec.policy.lists[0].source.type",
        "NotYetSupported: `type: Store` is not built yet; use ConfigMap or Secret",
        id="a store",
    ),
    pytest.param(one_rule(action="Allow"), "spec.policy.rules[0].action", "strictest match counts", id="Allow a rule"),
    pytest.param(one_rule(when="x" * 1025), "spec.policy.rules[0].when", "at most 1024", id="too long a rule"),
    pytest.param(one_rule(when=""), "spec.policy.rules[0].when", "at least 1", id="an empty rule"),
    pytest.param(one_rule(reason="\ud800"), "spec.policy.rules[0].reason", "surrogate", id="not a character"),
    pytest.param(
        {**category(), "parameters": {"delta": 2.0}}, "spec.policy.parameters.delta", "write it in quotes", id="number"
    ),
    pytest.param(
        {**category(), "parameters": {"a b": "x"}}, "spec.policy.parameters['a b']", "letters, digits and _", id="space"
    ),
    pytest.param(
        {**category(), "parameters": {"in": "x"}},
        "spec.policy.parameters.in",
        "'in' is a keyword of CEL, so no rule could read it; use another name",
        id="a parameter that cannot be read",
    ),
    pytest.param(
        {**category(), "parameters": {f"p{n}": "" for n in range(65)}},
        "spec.policy.parameters",
        "at most 64",
        id="many",
    ),
    pytest.param({**category(), "models": [{"name": "m"}]}, "spec.policy.models[0].version", "required", id="version"),
    pytest.param({**category(), "enforcement": "Dryrun"}, "spec.policy.enforcement", "DryRun?", id="enforcement"),
    pytest.param(
        {**category(), "onModelFailure": "Allow"}, "spec.policy.onModelFailure", "AllowAndRescan", id="no rescan"
    ),
    pytest.param({**category(), "anonymization": {}}, "spec.policy.anonymization", "NotYetSupported:", id="anonymise"),
    pytest.param(
        {**category(), "retention": {"media": {"keep": "All"}}},
        "spec.policy.retention.media",
        "NotYetSupported:",
        id="media kept",
    ),
    pytest.param(
        {**category(), "retention": {"decisionsDays": 0}},
        "spec.policy.retention.decisionsDays",
        "from 1 to 36500",
        id="kept for no time",
    ),
    pytest.param(
        {**category(), "video": {"windowMilliseconds": 5000}},
        "spec.policy.video.windowMilliseconds",
        "NotYetSupported: `windowMilliseconds` other than 10000 is not built yet",
        id="window",
    ),
    pytest.param(
        {**category(), "video": {"overlapMilliseconds": True}},
        "spec.policy.video.overlapMilliseconds",
        "NotYetSupported:",
        id="overlap",
    ),
    pytest.param(
        {**category(), "video": {"sampling": "Fixed"}}, "spec.policy.video.sampling", "NotYetSupported:", id="sampling"
    ),
    pytest.param(
        {**category(), "video": {"aggregation": "Mean"}},
        "spec.policy.video.aggregation",
        "NotYetSupported:",
        id="aggregation",
    ),
    pytest.param(
        {**category(), "video": {"framesPerMinute": 0}}, "spec.policy.video.framesPerMinute", "1 to 3600", id="frames"
    ),
    pytest.param({**category(), "video": {"earlyExit": "yes"}}, "spec.policy.video.earlyExit", "true or false", id="b"),
]


@pytest.mark.parametrize(("content", "field", "message"), WRONG_CONTENT)
def test_wrong_content_is_named_with_what_would_be_right(content: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy(content)

    [problem] = [problem for problem in refused.value.problems if problem.field == field]
    assert message in problem.message


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        pytest.param(
            {"gates": {"backtest": {"decisions": 9}}}, "spec.gates.backtest", "give maxFlipRate", id="backtest"
        ),
        pytest.param(
            {"gates": {"backtest": {"decisions": 100_001, "maxFlipRate": "2%"}}},
            "spec.gates.backtest.decisions",
            "from 1 to 100000",
            id="more than one backtest compares",
        ),
        pytest.param(
            {"gates": {"backtest": {"decisions": 9, "maxFlipRate": "2%", "maxNewBlock": "1%"}}},
            "spec.gates.backtest.maxNewBlock",
            "did you mean 'maxNewBlocks'?",
            id="an unknown limit",
        ),
        pytest.param({"gates": {"neverLoosen": ["A b"]}}, "spec.gates.neverLoosen[0]", "lower-case", id="a gate"),
        pytest.param(
            {"gates": {"neverLoosen": ["toxicty"]}},
            "spec.gates.neverLoosen",
            "did you mean 'toxicity'?",
            id="its name",
        ),
        pytest.param(
            {"rollout": {"steps": [{"name": "a", "type": "Shadow", "until": {"timeoutSeconds": 5}}]}},
            "spec.rollout.steps[0].until.timeoutSeconds",
            "is for a step that waits for decisions",
            id="a timeout alone",
        ),
        pytest.param({"rollout": {"analysis": {}}}, "spec.rollout.analysis.metrics", "at least one", id="nothing"),
        pytest.param(
            {"rollout": {"analysis": {"metrics": [{"name": "o", "type": "OverturnRate", "maxIncrease": "1%"}]}}},
            "spec.rollout.analysis.metrics[0].type",
            "NotYetSupported: a metric of type OverturnRate has no source before there is a review queue",
            id="overturned decisions",
        ),
        pytest.param(
            asking({"query": "up"}),
            "spec.rollout.analysis.metrics[0]",
            "PromQL has a query with min, max or both",
            id="a query without a limit",
        ),
        pytest.param(
            asking({"query": 'up{r="$candidat"}', "max": "1"}),
            "spec.rollout.analysis.metrics[0].query",
            "$candidat is no placeholder; there are $candidate and $stable",
            id="a placeholder that is none",
        ),
        pytest.param(
            asking({"query": "up", "max": 0.02}),
            "spec.rollout.analysis.metrics[0].max",
            "0.02 is not a string; write it in quotes",
            id="a number that is none",
        ),
        pytest.param(
            asking({"query": "u" * 1025, "max": "1"}),
            "spec.rollout.analysis.metrics[0].query",
            "has 1025 characters; at most 1024 are allowed",
            id="a long query",
        ),
        pytest.param(
            asking({"query": 'up{r="$candidate"}', "max": "1"}, steps=[{"name": "a", "type": "Shadow"}]),
            "spec.rollout.analysis.metrics[0].query",
            "$candidate judges nobody by these steps",
            id="a query about nobody",
        ),
        pytest.param(
            asking(*[{"query": "up", "max": "1", "name": f"q{number}"} for number in range(9)]),
            "spec.rollout.analysis.metrics",
            "has more than 8 (MAX_QUERIES) metrics of type PromQL",
            id="too many queries",
        ),
        pytest.param(
            {
                "rollout": {
                    "steps": [{"name": "a", "type": "Shadow"}, {"name": "b", "type": "Weight", "weight": "100%"}],
                    "analysis": {
                        "metrics": [
                            {"name": "b", "type": "BlockRate", "maxIncrease": "1%"},
                            {"name": "e", "type": "ErrorRate", "maxIncrease": "1%"},
                        ]
                    },
                }
            },
            "spec.rollout.analysis.metrics[1].type",
            "have a step of type Weight above 0% and below 100%",
            id="cohorts without a weight",
        ),
        pytest.param(
            {"rollout": {"analysis": {"metrics": [{"name": "b", "type": "BlockRate"}]}}},
            "spec.rollout.analysis.metrics[0]",
            "maxIncrease, maxDecrease or both",
            id="no limit",
        ),
        pytest.param(
            {
                "rollout": {
                    "analysis": {
                        "confidence": "100%",
                        "metrics": [{"name": "b", "type": "BlockRate", "maxIncrease": "1%"}],
                    }
                }
            },
            "spec.rollout.analysis.confidence",
            "below 100%",
            id="certainty",
        ),
        pytest.param({"rollout": {"keys": ["IP"]}}, "spec.rollout.keys[0]", "Author, Session, Content", id="keys"),
        pytest.param(
            {"rollout": {"steps": [{"name": "a", "type": "Shadow"}] * 2}},
            "spec.rollout.steps[1].name",
            "twice",
            id="two",
        ),
        pytest.param(
            {"rollout": {"steps": [{"name": "a", "type": "Weight"}]}},
            "spec.rollout.steps[0].weight",
            "required",
            id="none",
        ),
        pytest.param(
            {"rollout": {"steps": [{"name": "a", "type": "Weight", "weight": "0.001%"}]}},
            "spec.rollout.steps[0].weight",
            "finer than 0.01%",
            id="a weight too fine",
        ),
        pytest.param(
            {"rollout": {"steps": [{"name": "a", "type": "Shadow", "weight": "5%"}]}},
            "spec.rollout.steps[0].weight",
            "of type Weight",
            id="a shadow's weight",
        ),
        pytest.param(
            {"rollout": {"steps": [{"name": "a", "type": "Match", "match": {"tenants": []}}]}},
            "spec.rollout.steps[0].match.tenants",
            "at least one tenant",
            id="a match of nobody",
        ),
        pytest.param(
            {"rollout": {"steps": [{"name": "a", "type": "Approval", "until": {"seconds": 5}}]}},
            "spec.rollout.steps[0].until",
            "until somebody approves",
            id="an approval by time",
        ),
        pytest.param(
            {
                "rollout": {
                    "steps": [
                        {"name": "a", "type": "Shadow", "until": {"seconds": 9, "decisions": 9, "timeoutSeconds": 5}}
                    ]
                }
            },
            "spec.rollout.steps[0].until.timeoutSeconds",
            "less than the 9 seconds",
            id="a timeout before its time",
        ),
        pytest.param({"rollout": {"rollbackWindow": 11}}, "spec.rollout.rollbackWindow", "0 to 10", id="window"),
        pytest.param(
            {"rollout": {"step": []}}, "spec.rollout.step", "did you mean 'steps'?", id="unknown of a rollout"
        ),
        pytest.param({"paused": "yes"}, "spec.paused", "is not true or false", id="paused"),
        pytest.param({"revisionHistoryLimit": -1}, "spec.revisionHistoryLimit", "0 to 1000", id="history"),
        pytest.param({"scope": {"tenant": "*"}}, "spec.scope.tenant", "leave the field out", id="any tenant"),
        pytest.param({"scope": {"source": "*"}}, "spec.scope.source", "site-7/*", id="any source"),
        pytest.param({"scope": {"source": "a//b"}}, "spec.scope.source", "a path such as", id="an empty step"),
        pytest.param({"scope": {"source": "a/*/b"}}, "spec.scope.source", "a path such as", id="a star within"),
        pytest.param({"scope": {"surfaces": "x"}}, "spec.scope.surfaces", "did you mean 'surface'?", id="typo"),
        pytest.param({"type": "Two words"}, "spec.type", "one word", id="type"),
        pytest.param({"role": "Ceiling"}, "spec.role", "Policy, Floor", id="role"),
        pytest.param({"version": 1.4}, "spec.version", "write it in quotes", id="version"),
        pytest.param({"tests": [{"name": "x"}]}, "spec.tests[0].expect", "required", id="no expectation"),
        pytest.param(
            {"tests": [{"name": "x", "expect": "Allow"}] * 2}, "spec.tests[1].name", "twice", id="two tests of a name"
        ),
        pytest.param(
            {"tests": [{"name": "x", "expect": "Allow", "signals": {"toxic": "3%"}}]},
            "spec.tests[0].signals.toxic",
            "<model>.<signal>",
            id="a test's signal",
        ),
        pytest.param(
            {"tests": [{"name": "x", "expect": "Allow", "language": "eng"}]},
            "spec.tests[0].language",
            "did you mean 'en'?",
            id="a test's language",
        ),
        pytest.param(
            {"tests": [{"name": "x", "expect": "Allow", "author": {"ageDays": 1.5}}]},
            "spec.tests[0].author.ageDays",
            "1.5 is not a string, a whole number, true or false",
            id="a test's author",
        ),
    ],
)
def test_a_wrong_spec_is_named_with_what_would_be_right(spec: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy(**spec)

    [problem] = refused.value.problems
    assert problem.field == field
    assert message in problem.message


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        pytest.param(lambda m: m.update(apiVersion="v1"), "apiVersion", "moderation.baleen.dev/v1alpha1", id="version"),
        pytest.param(lambda m: m.update(kind="Policy"), "kind", "ModerationPolicy", id="kind"),
        pytest.param(lambda m: m.update(extra=1), "extra", "unknown field", id="unknown"),
        pytest.param(lambda m: m.update({True: 1}), "[true]", "unknown field true", id="YAML's on as a key"),
        pytest.param(lambda m: m.pop("metadata"), "metadata", "is required", id="no metadata"),
        pytest.param(lambda m: m["metadata"].pop("name"), "metadata.name", "is required", id="no name"),
        pytest.param(lambda m: m.pop("spec"), "spec", "is required", id="no spec"),
        pytest.param(lambda m: m["spec"].pop("policy"), "spec.policy", "is required", id="no policy"),
        pytest.param(lambda m: m.update(spec=[]), "spec", "a list is not a mapping", id="a list as spec"),
    ],
)
def test_a_wrong_resource_is_named(change: Callable[[Any], Any], field: str, message: str) -> None:
    manifest = policy_manifest()
    change(manifest)

    with pytest.raises(PolicyError) as refused:
        parse_policy(manifest)

    [problem] = refused.value.problems
    assert problem.field == field
    assert message in problem.message


def test_the_languages_are_those_that_the_detector_can_tell() -> None:
    assert frozenset(eldc.LANGUAGES) == LANGUAGES


@pytest.mark.parametrize("long", eldc.LANGUAGES_ISO2T)
def test_a_language_by_its_longer_code_is_told_the_shorter(long: str) -> None:
    short = eldc.LANGUAGES[eldc.LANGUAGES_ISO2T.index(long)]

    with pytest.raises(PolicyError, match=f"unknown language '{long}'; did you mean '{short}'"):
        make_policy(category(languages=[long], onLanguageUnsupported="Skip"))


def test_a_signal_that_no_rule_could_read_has_no_name() -> None:
    assert signal_name("package") == "package"
    with pytest.raises(ValueError, match="'true' is a keyword of CEL, so no rule could read it"):
        signal_name("true")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    content = {
        "categories": [
            {"name": "Sexual", "signals": [{"name": "image-safety.sexual", "blok": "85%", "review": 0.5}]},
            {"name": "toxicity", "signals": [{"name": "toxicity.toxic", "block": "850%"}], "languages": ["en"]},
        ],
        "rules": [{"name": "spam", "when": "true", "action": "block"}],
    }

    with pytest.raises(PolicyError) as refused:
        make_policy(content, version=2, gates={"backtest": {}})

    assert [problem.field for problem in refused.value.problems] == [
        "spec.policy.categories[0].signals[0].review",
        "spec.policy.categories[0].signals[0].blok",
        "spec.policy.categories[0].name",
        "spec.policy.categories[1].signals[0].block",
        "spec.policy.categories[1].onLanguageUnsupported",
        "spec.policy.rules[0].action",
        "spec.gates.backtest.decisions",
        "spec.gates.backtest",
        "spec.version",
    ]


def test_a_thousand_unknown_fields_are_counted_and_not_listed() -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy(None, **{f"x{number}": 1 for number in range(1000)})

    assert len(refused.value.problems) == 11
    assert refused.value.problems[-1].message == "and 990 more unknown fields"


@given(manifest=policy_manifests())
def test_every_policy_that_is_right_is_read(manifest: dict[str, Any]) -> None:
    policy = parse_policy(manifest)

    assert len(policy.content.categories) == len(manifest["spec"]["policy"]["categories"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in paths(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@given(path=st.sampled_from(paths(WHOLE)), by=json_values)
def test_whatever_is_written_the_answer_is_a_policy_or_what_is_wrong(path: tuple[Any, ...], by: Any) -> None:
    manifest = replaced(WHOLE, path, by)

    problems: tuple[Problem, ...] = ()
    try:
        parse_policy(manifest)
    except PolicyError as refused:
        problems = refused.problems

    assert all(problem.message and len(str(problem)) < 1000 for problem in problems)


def test_a_value_as_deep_as_the_sea_is_refused_like_any_other() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(PolicyError, match="a list is not a string"):
        make_policy(version=deep)
