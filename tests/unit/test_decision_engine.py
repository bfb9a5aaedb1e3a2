"""What the engine decides, line by line."""

import pytest

from baleen_core.decision.engine import judge, wanted_signals
from baleen_core.errors import NoPolicy
from baleen_core.policy.schema import (
    ListType,
    OnLanguageUnsupported,
    OnModelFailure,
    OnSignalMissing,
    Require,
    Requirement,
    Verdict,
    VideoSettings,
)
from baleen_core.records import RESCAN_DEBT, Missing, PolicyRole, Risk
from evidence import (
    SEXUAL,
    SIGNALS,
    TOXIC,
    UNSAFE,
    decide_by,
    make_category,
    make_evidence,
    make_hit,
    make_list,
    make_policy,
    make_rule,
    make_threshold,
    make_video,
)

ALLOW, REVIEW, BLOCK = Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK
ANY, ALL = Require.ANY, Require.ALL


def sexual(require=None, **fields):
    """The example of the documentation: two opinions, and both are needed to block."""
    return make_category(
        "sexual",
        make_threshold(SEXUAL, "50%", "85%"),
        make_threshold(UNSAFE, "50%", "50%"),
        require=require or Requirement(review=ANY, block=ALL),
        **fields,
    )


def toxicity(**fields):
    return make_category("toxicity", make_threshold(TOXIC, "70%", "92%"), **fields)


@pytest.mark.parametrize(
    ("require", "first", "second", "expected"),
    [
        pytest.param(Requirement(review=ANY, block=ALL), 499_999, 499_999, ALLOW, id="both below"),
        pytest.param(Requirement(review=ANY, block=ALL), 500_000, 0, REVIEW, id="exactly the threshold reaches it"),
        pytest.param(Requirement(review=ANY, block=ALL), 1_000_000, 499_999, REVIEW, id="one of two does not block"),
        pytest.param(Requirement(review=ANY, block=ALL), 850_000, 500_000, BLOCK, id="two of two block"),
        pytest.param(Requirement(review=ANY, block=ANY), 0, 500_000, BLOCK, id="any blocks"),
        pytest.param(Requirement(review=ALL, block=ALL), 840_000, 0, ALLOW, id="all must agree to review"),
        pytest.param(Requirement(review=ALL, block=ANY), 850_000, 0, BLOCK, id="a block needs no review"),
    ],
)
def test_a_category_asks_any_or_all_of_its_signals(require, first, second, expected):
    decision = decide_by(make_policy(sexual(require)), evidence=make_evidence({SEXUAL: first, UNSAFE: second}))

    assert decision.decision is expected
    assert decision.categories[0].decision is expected
    assert decision.categories[0].score == decision.score == max(first, second)


def test_a_signal_without_a_threshold_has_no_vote():
    category = make_category(
        "sexual",
        make_threshold(SEXUAL, "50%", "85%"),
        make_threshold(UNSAFE, "50%"),
        require=Requirement(review=ALL, block=ALL),
    )

    decision = decide_by(make_policy(category), evidence=make_evidence({SEXUAL: 850_000, UNSAFE: 0}))

    assert decision.decision is BLOCK


@pytest.mark.parametrize(
    ("missing", "on_missing", "on_failure", "other", "expected", "degraded"),
    [
        pytest.param(
            Missing.FAILED, OnSignalMissing.MODEL_FAILURE, OnModelFailure.REVIEW, 0, REVIEW, True, id="failed"
        ),
        pytest.param(
            Missing.FAILED,
            OnSignalMissing.IGNORE,
            OnModelFailure.REVIEW,
            0,
            REVIEW,
            True,
            id="failing is never ignored",
        ),
        pytest.param(Missing.FAILED, OnSignalMissing.IGNORE, OnModelFailure.BLOCK, 0, BLOCK, True, id="failed, Block"),
        pytest.param(
            Missing.NOT_SERVED, OnSignalMissing.MODEL_FAILURE, OnModelFailure.BLOCK, 0, BLOCK, True, id="not served"
        ),
        pytest.param(
            None, OnSignalMissing.MODEL_FAILURE, OnModelFailure.BLOCK, 0, BLOCK, True, id="nowhere means not served"
        ),
        pytest.param(
            Missing.NOT_SERVED, OnSignalMissing.IGNORE, OnModelFailure.BLOCK, 0, ALLOW, False, id="not served, ignored"
        ),
        pytest.param(
            Missing.NOT_APPLICABLE, OnSignalMissing.MODEL_FAILURE, OnModelFailure.BLOCK, 0, ALLOW, False, id="no matter"
        ),
        pytest.param(
            Missing.FAILED,
            OnSignalMissing.MODEL_FAILURE,
            OnModelFailure.REVIEW,
            850_000,
            BLOCK,
            True,
            id="what is proven stays proven",
        ),
    ],
)
def test_a_signal_without_a_score(missing, on_missing, on_failure, other, expected, degraded):
    category = sexual(Requirement(review=ANY, block=ANY), on_signal_missing=on_missing)
    policy = make_policy(category, on_model_failure=on_failure)
    evidence = make_evidence({SEXUAL: other}, missing={UNSAFE: missing} if missing else {})

    decision = decide_by(policy, evidence=evidence)

    assert decision.decision is expected
    assert decision.degraded == (("open-nsfw",) if degraded else ())
    assert ("ModelFailure" in {reason.type for reason in decision.reasons}) is degraded


@pytest.mark.parametrize(
    ("require", "seen", "on_failure", "expected", "reasons"),
    [
        pytest.param(ANY, 0, OnModelFailure.REVIEW, REVIEW, {"ModelFailure"}, id="the failure is the stricter"),
        pytest.param(ANY, 500_000, OnModelFailure.REVIEW, BLOCK, {"Category", "ModelFailure"}, id="the score is"),
        pytest.param(
            ALL, 500_000, OnModelFailure.REVIEW, BLOCK, {"Category", "ModelFailure"}, id="what was seen agrees"
        ),
        pytest.param(ALL, 499_999, OnModelFailure.REVIEW, REVIEW, {"Category", "ModelFailure"}, id="it does not agree"),
        pytest.param(ANY, 0, OnModelFailure.BLOCK, BLOCK, {"ModelFailure"}, id="failing blocks"),
    ],
)
def test_a_score_of_a_part_counts_and_so_does_the_failure_after_it(require, seen, on_failure, expected, reasons):
    scores = {SEXUAL: 850_000 if require is ALL else 0, UNSAFE: seen}
    policy = make_policy(sexual(Requirement(review=ANY, block=require)), on_model_failure=on_failure)

    decision = decide_by(policy, evidence=make_evidence(scores, missing={UNSAFE: Missing.FAILED}))

    assert (decision.decision, decision.degraded) == (expected, ("open-nsfw",))
    assert {reason.type for reason in decision.reasons} == reasons
    assert decision.categories[0].signals == scores
    assert "open-nsfw did not answer for all of the content" in {reason.text for reason in decision.reasons}


@pytest.mark.parametrize("frames", [1, 2])
def test_a_model_that_failed_for_a_video_counts_though_every_frame_has_a_score(frames):
    evidence = make_video(*[{TOXIC: 0}] * frames, missing={TOXIC: Missing.FAILED})

    decision = decide_by(make_policy(toxicity()), evidence=evidence)

    assert (decision.decision, decision.degraded) == (REVIEW, ("toxicity",))


def test_a_frame_that_has_its_score_is_not_blamed_for_another_that_lacks_it():
    policy = make_policy(sexual(Requirement(review=ALL, block=ALL)))
    evidence = make_video({SEXUAL: 850_000, UNSAFE: 500_000}, {SEXUAL: 0}, missing={UNSAFE: Missing.FAILED})

    assert decide_by(policy, evidence=evidence).decision is BLOCK


def test_all_must_agree_and_one_failed_so_nothing_is_proven():
    policy = make_policy(sexual(Requirement(review=ALL, block=ALL)))

    decision = decide_by(policy, evidence=make_evidence({SEXUAL: 1_000_000}, missing={UNSAFE: Missing.FAILED}))

    assert decision.decision is REVIEW
    assert [reason.type for reason in decision.reasons] == ["ModelFailure"]


def test_a_category_whose_signals_all_failed_has_no_score():
    decision = decide_by(make_policy(toxicity()), evidence=make_evidence(missing={TOXIC: Missing.FAILED}))

    assert (decision.categories[0].score, decision.categories[0].decision, decision.score) == (None, REVIEW, 0)


@pytest.mark.parametrize(
    ("missing", "on_missing"),
    [
        pytest.param(Missing.NOT_APPLICABLE, OnSignalMissing.MODEL_FAILURE, id="of another type of content"),
        pytest.param(Missing.NOT_SERVED, OnSignalMissing.IGNORE, id="not served and ignored"),
    ],
)
def test_a_category_with_no_signal_left_is_skipped(missing, on_missing):
    policy = make_policy(toxicity(on_signal_missing=on_missing))

    decision = decide_by(policy, evidence=make_evidence(missing={TOXIC: missing}))

    assert (decision.decision, decision.categories, decision.reasons) == (ALLOW, (), ())


@pytest.mark.parametrize(
    ("type", "language", "means", "expected"),
    [
        pytest.param("text", "en", OnLanguageUnsupported.REVIEW, BLOCK, id="its language"),
        pytest.param("text", "de", OnLanguageUnsupported.SKIP, ALLOW, id="another, skipped"),
        pytest.param("text", "de", OnLanguageUnsupported.REVIEW, REVIEW, id="another, reviewed"),
        pytest.param(
            "text", None, OnLanguageUnsupported.SKIP, BLOCK, id="unknown is not another, so nothing is skipped"
        ),
        pytest.param("text", None, OnLanguageUnsupported.REVIEW, BLOCK, id="unknown is not another"),
        pytest.param("image", None, OnLanguageUnsupported.SKIP, BLOCK, id="an image has no language"),
    ],
)
def test_a_category_for_some_languages(type, language, means, expected):
    policy = make_policy(toxicity(languages=("en", "fr"), on_language_unsupported=means))

    decision = decide_by(policy, evidence=make_evidence({TOXIC: 990_000}, type=type, language=language))

    assert decision.decision is expected
    assert [reason.type for reason in decision.reasons] == {ALLOW: [], REVIEW: ["Language"], BLOCK: ["Category"]}[
        expected
    ]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param([(900_000, 0), (0, 900_000)], REVIEW, id="two opinions on two frames are not two on one"),
        pytest.param([(0, 0), (900_000, 900_000)], BLOCK, id="two opinions on one frame"),
        pytest.param([(0, 0), (100_000, 0)], ALLOW, id="nothing on any"),
    ],
)
def test_a_video_is_judged_frame_by_frame(frames, expected):
    evidence = make_video(*({SEXUAL: first, UNSAFE: second} for first, second in frames))

    decision = decide_by(make_policy(sexual()), evidence=evidence)

    assert decision.decision is expected
    assert decision.score == max(map(max, frames))


def test_a_frame_that_lacks_a_score_that_others_have_counts_as_failed():
    category = sexual(on_signal_missing=OnSignalMissing.IGNORE)
    policy = make_policy(category, on_model_failure=OnModelFailure.BLOCK)

    decision = decide_by(policy, evidence=make_video({SEXUAL: 0, UNSAFE: 0}, {SEXUAL: 0}))

    assert (decision.decision, decision.degraded) == (BLOCK, ("open-nsfw",))
    assert decision.segments == ()


def test_segments_join_neighbouring_frames_of_the_same_verdict():
    scores = [0, 950_000, 930_000, 800_000, 0, 990_000]
    evidence = make_video(*({TOXIC: score} for score in scores))

    decision = decide_by(make_policy(toxicity()), evidence=evidence)

    found = [
        (each.start_milliseconds, each.end_milliseconds, each.category, each.decision, each.score)
        for each in decision.segments
    ]
    assert found == [
        (500, 1000, "toxicity", BLOCK, 950_000),
        (1500, 1500, "toxicity", REVIEW, 800_000),
        (2500, 2500, "toxicity", BLOCK, 990_000),
    ]
    assert "at 0.500 s" in decision.reasons[0].text


def test_segments_are_those_of_the_strictest_policy():
    lenient = make_policy(make_category("toxicity", make_threshold(TOXIC, "70%")))
    floor = make_policy(make_category("toxicity", make_threshold(TOXIC, None, "90%")), name="floor")

    decision = decide_by(lenient, floors=(floor,), evidence=make_video({TOXIC: 800_000}, {TOXIC: 900_000}))

    assert [(each.start_milliseconds, each.decision) for each in decision.segments] == [(0, REVIEW), (500, BLOCK)]


@pytest.mark.parametrize(
    ("hits", "expected", "reasons"),
    [
        pytest.param([], REVIEW, ["toxicity"], id="no hit"),
        pytest.param(["slurs"], REVIEW, ["toxicity", "slurs"], id="a review list"),
        pytest.param(["banned"], BLOCK, ["banned", "toxicity"], id="a block list"),
        pytest.param(["cleared"], ALLOW, ["cleared"], id="the known good clears"),
        pytest.param(["cleared", "slurs"], ALLOW, ["cleared"], id="and goes before a review list"),
        pytest.param(["cleared", "banned"], BLOCK, ["banned", "toxicity"], id="but not before a block list"),
        pytest.param(["unknown"], REVIEW, ["toxicity"], id="a list of somebody else's"),
    ],
)
def test_lists(hits, expected, reasons):
    lists = (
        make_list("slurs", REVIEW),
        make_list("banned", BLOCK, type=ListType.DIGEST),
        make_list("cleared", ALLOW, type=ListType.DIGEST),
    )
    evidence = make_evidence({TOXIC: 750_000}, lists=tuple(map(make_hit, hits)))

    decision = decide_by(make_policy(toxicity(), lists=lists), evidence=evidence)

    assert decision.decision is expected
    assert [reason.name for reason in decision.reasons] == reasons


@pytest.mark.parametrize("type", [ListType.TERMS, ListType.PERCEPTUAL_HASH])
def test_only_a_digest_can_clear_content(type):
    policy = make_policy(toxicity(), lists=(make_list("cleared", ALLOW, type=type),))

    decision = decide_by(policy, evidence=make_evidence({TOXIC: 990_000}, lists=(make_hit("cleared"),)))

    assert decision.decision is BLOCK


def test_the_known_good_of_one_policy_does_not_go_below_a_floor_or_another_type():
    cleared = make_policy(toxicity(), lists=(make_list("cleared", ALLOW, type=ListType.DIGEST),))
    strict = make_policy(toxicity(), name="strict")
    evidence = make_evidence({TOXIC: 990_000}, lists=(make_hit("cleared"),))

    assert decide_by(cleared, evidence=evidence).decision is ALLOW
    assert decide_by(cleared, floors=(strict,), evidence=evidence).decision is BLOCK
    assert decide_by(cleared, strict, evidence=evidence).decision is BLOCK


def test_the_scores_of_cleared_content_are_shown_and_mean_nothing():
    policy = make_policy(toxicity(), lists=(make_list("cleared", ALLOW, type=ListType.DIGEST),))

    decision = decide_by(policy, evidence=make_video({TOXIC: 990_000}, lists=(make_hit("cleared"),)))

    assert (decision.risk, decision.score, decision.segments) == (Risk.LOW, 990_000, ())
    assert (decision.categories[0].decision, decision.categories[0].score) == (ALLOW, 990_000)


@pytest.mark.parametrize(("distance", "expected"), [(10, BLOCK), (11, ALLOW)])
def test_a_policy_keeps_to_its_own_distance_of_a_shared_list(distance, expected):
    hashes = make_list("hashes", BLOCK, type=ListType.PERCEPTUAL_HASH, max_distance=10)

    decision = decide_by(
        make_policy(lists=(hashes,)), evidence=make_evidence(lists=(make_hit("hashes", distance=distance),))
    )

    assert decision.decision is expected


@pytest.mark.parametrize(
    ("author", "expected", "reason"),
    [
        pytest.param({"ageDays": 3}, BLOCK, ("Rule", "newcomer", "too young"), id="both match, the stricter counts"),
        pytest.param({"ageDays": 30}, REVIEW, ("Rule", "spam", "the rule spam matches"), id="one matches"),
        pytest.param({}, REVIEW, ("Rule", "spam", "the rule spam matches"), id="what was not sent does not match"),
    ],
)
def test_the_strictest_rule_that_matches_counts(author, expected, reason):
    rules = (
        make_rule("content.links > 3", REVIEW, name="spam"),
        make_rule("author.ageDays < 7", BLOCK, name="newcomer", reason="too young"),
    )

    decision = decide_by(make_policy(rules=rules), evidence=make_evidence(type="text", links=4, author=author))

    assert decision.decision is expected
    assert (decision.reasons[0].type, decision.reasons[0].name, decision.reasons[0].text) == reason


def test_a_rule_that_waits_for_a_failed_model_gives_what_the_policy_says_of_failures():
    policy = make_policy(rules=(make_rule("toxicity.toxic > 0.5"),), on_model_failure=OnModelFailure.BLOCK)

    decision = decide_by(policy, evidence=make_evidence(missing={TOXIC: Missing.FAILED}))

    assert (decision.decision, decision.degraded) == (BLOCK, ("toxicity",))
    assert [(reason.type, reason.name) for reason in decision.reasons] == [("ModelFailure", "toxicity")]


@pytest.mark.parametrize(
    ("score", "links", "expected", "reasons"),
    [
        pytest.param(400_000, 9, BLOCK, ["ModelFailure"], id="the rest may be worse"),
        pytest.param(600_000, 9, BLOCK, ["ModelFailure", "Rule"], id="what was seen matches, and failing is stricter"),
        pytest.param(400_000, 0, ALLOW, [], id="it does not matter"),
    ],
)
def test_a_rule_reads_a_score_of_a_part_and_waits_for_the_rest(score, links, expected, reasons):
    rule = make_rule("toxicity.toxic > 0.5 && content.links > 3", REVIEW)
    policy = make_policy(rules=(rule,), on_model_failure=OnModelFailure.BLOCK)

    decision = decide_by(policy, evidence=make_evidence({TOXIC: score}, missing={TOXIC: Missing.FAILED}, links=links))

    assert (decision.decision, decision.degraded) == (expected, ("toxicity",))
    assert [reason.type for reason in decision.reasons] == reasons


def test_a_rule_that_cannot_be_evaluated_is_looked_at_by_a_person():
    policy = make_policy(rules=(make_rule("100 / content.links > 3", BLOCK),))

    decision = decide_by(policy, evidence=make_evidence(type="text", links=0))

    assert decision.decision is REVIEW
    assert (decision.reasons[0].type, decision.reasons[0].text) == ("RuleError", "divide by zero")


def test_a_revision_that_names_what_nobody_serves_still_judges():
    category = make_category("gore", make_threshold("gone.gore", "50%"))
    policy = make_policy(category, toxicity(), rules=(make_rule("gone_too.x > 0.5 && content.links > 3"),))

    decision = decide_by(policy, evidence=make_evidence({TOXIC: 0}, links=9))

    assert (decision.decision, decision.degraded) == (REVIEW, ("gone", "gone-too"))


@pytest.mark.parametrize("limit", ["TextTooLong", "AnimationTooLong", "SomethingElse"])
def test_what_was_cut_off_is_reviewed(limit):
    decision = decide_by(make_policy(toxicity()), evidence=make_evidence({TOXIC: 0}, limits=(limit,)))

    assert (decision.decision, decision.reasons[0].type) == (REVIEW, limit)


@pytest.mark.parametrize(
    ("about", "stable", "candidate"),
    [
        pytest.param(("toxicity",), REVIEW, REVIEW, id="a model of both"),
        pytest.param(("other",), ALLOW, REVIEW, id="a model of the candidate alone"),
        pytest.param(("other", "toxicity"), REVIEW, REVIEW, id="each of two models"),
        pytest.param(("elsewhere",), ALLOW, ALLOW, id="a model of another policy"),
    ],
)
def test_what_a_model_could_not_see_concerns_those_who_look_at_it(about, stable, candidate):
    wants_more = make_policy(toxicity(), make_category("other", make_threshold("other.score", "50%")))
    evidence = make_evidence(
        {TOXIC: 0, "other.score": 0}, type="text", limits=("TextTooLong",), limited={"TextTooLong": about}
    )

    assert judge(make_policy(toxicity()), evidence).verdict is stable
    assert judge(wants_more, evidence).verdict is candidate


@pytest.mark.parametrize(
    ("score", "coverage", "early_exit", "expected", "reasons"),
    [
        pytest.param(0, 989_999, False, REVIEW, ["Coverage"], id="too little was seen"),
        pytest.param(0, 990_000, False, ALLOW, [], id="just enough"),
        pytest.param(920_000, 100_000, True, BLOCK, ["Category"], id="stopped at its own block"),
        pytest.param(920_000, 100_000, False, BLOCK, ["Category", "Coverage"], id="not stopped on purpose"),
        pytest.param(0, 100_000, True, REVIEW, ["Coverage"], id="stopped at the block of another"),
    ],
)
def test_too_little_of_a_video_was_seen(score, coverage, early_exit, expected, reasons):
    policy = make_policy(toxicity(), video=VideoSettings(min_coverage=990_000))

    decision = decide_by(policy, evidence=make_video({TOXIC: score}, coverage=coverage, early_exit=early_exit))

    assert decision.decision is expected
    assert [reason.type for reason in decision.reasons] == reasons


@pytest.mark.parametrize(
    ("early_exit", "failed"),
    [
        pytest.param(False, False, id="too little was seen"),
        pytest.param(True, False, id="looking stopped early"),
        pytest.param(False, True, id="a model failed"),
    ],
)
def test_the_known_good_is_known_as_a_whole(early_exit, failed):
    cleared = make_policy(toxicity(), lists=(make_list("cleared", ALLOW, type=ListType.DIGEST),))
    missing = {TOXIC: Missing.FAILED} if failed else {}
    evidence = make_video(
        {TOXIC: 990_000}, coverage=100_000, early_exit=early_exit, missing=missing, lists=(make_hit("cleared"),)
    )

    decision = decide_by(cleared, evidence=evidence)

    assert decision.decision is ALLOW
    assert [reason.name for reason in decision.reasons] == ["cleared"]
    assert decision.degraded == (("toxicity",) if failed else ())


def test_an_early_exit_for_the_block_of_a_cleared_policy_does_not_undercut_a_floor():
    strict = make_category("toxicity", make_threshold(TOXIC, None, "50%"))
    cleared = make_policy(strict, lists=(make_list("cleared", ALLOW, type=ListType.DIGEST),))
    floor = make_policy(make_category("toxicity", make_threshold(TOXIC, None, "90%")), name="floor")
    seen = [{TOXIC: 590_000}] * 8
    evidence = make_video(*seen, coverage=195_121, early_exit=True, lists=(make_hit("cleared"),))

    decision = decide_by(cleared, floors=(floor,), evidence=evidence)

    assert (decision.decision, [reason.type for reason in decision.reasons]) == (REVIEW, ["Coverage", "List"])


@pytest.mark.parametrize("on_failure", OnModelFailure)
def test_a_video_without_one_frame_is_reviewed_and_no_model_is_blamed(on_failure):
    policy = make_policy(
        toxicity(),
        rules=(make_rule("toxicity.toxic > 0.5"),),
        on_model_failure=on_failure,
        video=VideoSettings(min_coverage=0),
    )

    decision = decide_by(policy, evidence=make_video(coverage=0))

    assert (decision.decision, decision.degraded, decision.categories) == (REVIEW, (), ())
    assert [(reason.type, reason.text) for reason in decision.reasons] == [
        ("Coverage", "no frame of the video could be judged")
    ]


def test_a_video_without_one_frame_still_meets_lists_and_rules_that_need_none():
    policy = make_policy(
        toxicity(),
        lists=(make_list("banned", BLOCK, type=ListType.DIGEST),),
        rules=(make_rule("author.strikes > 2 || toxicity.toxic > 0.5", REVIEW, name="strikes"),),
    )

    decision = decide_by(policy, evidence=make_video(author={"strikes": 3}, lists=(make_hit("banned"),)))

    assert decision.decision is BLOCK
    assert [reason.type for reason in decision.reasons] == ["List", "Coverage", "Rule"]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        pytest.param(424_999, Risk.LOW, id="below half"),
        pytest.param(425_000, Risk.MEDIUM, id="half"),
        pytest.param(679_999, Risk.MEDIUM, id="below four fifths"),
        pytest.param(680_000, Risk.HIGH, id="four fifths"),
        pytest.param(849_999, Risk.HIGH, id="almost"),
        pytest.param(850_000, Risk.CRITICAL, id="reached"),
    ],
)
def test_risk_is_the_score_over_the_block_threshold(score, expected):
    policy = make_policy(make_category("sexual", make_threshold(SEXUAL, None, "85%")))

    assert decide_by(policy, evidence=make_evidence({SEXUAL: score})).risk is expected


@pytest.mark.parametrize(
    ("block", "first", "second", "expected"),
    [
        pytest.param(ALL, 1_000_000, 100_000, Risk.LOW, id="the lowest of all"),
        pytest.param(ANY, 100_000, 450_000, Risk.HIGH, id="the highest of any"),
    ],
)
def test_risk_follows_what_a_category_requires(block, first, second, expected):
    category = make_category(
        "sexual",
        make_threshold(SEXUAL, None, "85%"),
        make_threshold(UNSAFE, None, "50%"),
        require=Requirement(block=block),
    )

    assert decide_by(make_policy(category), evidence=make_evidence({SEXUAL: first, UNSAFE: second})).risk is expected


def test_a_review_is_at_least_a_medium_risk_and_a_block_by_a_list_critical():
    policy = make_policy(lists=(make_list("slurs", REVIEW), make_list("banned", BLOCK)))

    assert decide_by(policy, evidence=make_evidence(lists=(make_hit("slurs"),))).risk is Risk.MEDIUM
    assert decide_by(policy, evidence=make_evidence(lists=(make_hit("banned"),))).risk is Risk.CRITICAL


def test_a_dry_run_says_what_it_would_have_done_and_changes_nothing():
    lenient, strict = make_policy(), make_policy(toxicity(), name="strict")
    evidence = make_evidence({TOXIC: 990_000})

    decision = decide_by(lenient, dry_runs=(strict,), evidence=evidence)

    assert (decision.decision, decision.would_be, decision.reasons, decision.categories) == (ALLOW, BLOCK, (), ())
    assert [(each.role, each.name) for each in decision.policies] == [
        (PolicyRole.WINNER, "community"),
        (PolicyRole.DRY_RUN, "strict"),
    ]
    assert decide_by(lenient, evidence=evidence).would_be is None


def test_categories_of_the_same_name_become_one():
    winner = make_policy(make_category("sexual", make_threshold(SEXUAL, "50%")))
    floor = make_policy(make_category("sexual", make_threshold(UNSAFE, None, "90%")), toxicity(), name="floor")

    decision = decide_by(winner, floors=(floor,), evidence=make_evidence({SEXUAL: 600_000, UNSAFE: 950_000, TOXIC: 0}))

    assert [(each.name, each.score, each.decision) for each in decision.categories] == [
        ("sexual", 950_000, BLOCK),
        ("toxicity", 0, ALLOW),
    ]
    assert decision.categories[0].signals == {SEXUAL: 600_000, UNSAFE: 950_000}


def test_reasons_are_told_once_the_strictest_first():
    winner, floor = make_policy(toxicity(), sexual()), make_policy(toxicity(), name="floor")
    evidence = make_evidence({TOXIC: 750_000, SEXUAL: 900_000, UNSAFE: 900_000})

    decision = decide_by(winner, floors=(floor,), evidence=evidence)

    assert [(reason.type, reason.name) for reason in decision.reasons] == [
        ("Category", "sexual"),
        ("Category", "toxicity"),
    ]
    assert decision.reasons[1].text == "review threshold reached by toxicity.toxic (75%)"


def test_reasons_tell_no_threshold_and_no_entry_of_a_list():
    policy = make_policy(toxicity(), lists=(make_list("slurs", REVIEW),))
    evidence = make_evidence({TOXIC: 751_234}, lists=(make_hit("slurs", entry="fool"),))

    told = " ".join(reason.text for reason in decide_by(policy, evidence=evidence).reasons)

    assert "75.1234%" in told
    assert "70%" not in told
    assert "fool" not in told


def test_without_a_winner_nothing_is_allowed():
    with pytest.raises(NoPolicy, match="no policy covers"):
        decide_by(floors=(make_policy(),), evidence=make_evidence())


def test_a_judgement_is_what_one_policy_says():
    judgement = judge(make_policy(toxicity()), make_evidence({TOXIC: 920_000}))

    assert (judgement.verdict, judgement.cleared) == (BLOCK, False)


@pytest.mark.parametrize(
    ("type", "language", "expected"),
    [
        pytest.param("text", "en", {TOXIC, SEXUAL, UNSAFE}, id="its language"),
        pytest.param("text", "de", {SEXUAL, UNSAFE}, id="a category that will be skipped wants nothing"),
        pytest.param("text", None, set(SIGNALS), id="text in no known language"),
        pytest.param("image", None, set(SIGNALS), id="an image"),
    ],
)
def test_only_signals_that_will_be_looked_at_are_wanted(type, language, expected):
    policies = [
        make_policy(toxicity(languages=("en",), on_language_unsupported=OnLanguageUnsupported.SKIP)),
        make_policy(make_category("nude", make_threshold(UNSAFE, "50%"))),
        make_policy(rules=(make_rule("image_safety.sexual > 0.9"),)),
    ]

    assert wanted_signals(policies, type, language) == expected


RESCANS = OnModelFailure.ALLOW_AND_RESCAN


@pytest.mark.parametrize(
    ("rescannable", "other", "expected", "degraded"),
    [
        pytest.param(True, 0, ALLOW, ("image-safety", RESCAN_DEBT), id="allowed for now"),
        pytest.param(False, 0, REVIEW, ("image-safety",), id="cannot be looked at again"),
        pytest.param(True, 500_000, REVIEW, ("image-safety",), id="reviewed for another reason, nothing is owed"),
    ],
)
def test_what_can_be_looked_at_again_is_allowed_for_now_and_owed(rescannable, other, expected, degraded):
    policy = make_policy(sexual(), on_model_failure=RESCANS)
    evidence = make_evidence({UNSAFE: other}, missing={SEXUAL: Missing.FAILED}, rescannable=rescannable)

    decision = decide_by(policy, evidence=evidence)

    assert (decision.decision, decision.degraded) == (expected, degraded)
    assert "ModelFailure" in {reason.type for reason in decision.reasons}


def test_a_rule_that_lacks_its_score_is_owed_a_second_look_too():
    policy = make_policy(rules=(make_rule("toxicity.toxic > 0.5"),), on_model_failure=RESCANS)
    evidence = make_evidence(missing={TOXIC: Missing.FAILED}, rescannable=True)

    assert decide_by(policy, evidence=evidence).degraded == ("toxicity", RESCAN_DEBT)


def test_the_strictest_policy_says_what_a_model_failure_means():
    evidence = make_evidence({UNSAFE: 0}, missing={SEXUAL: Missing.FAILED}, rescannable=True)
    policies = [make_policy(sexual(), on_model_failure=each) for each in (RESCANS, OnModelFailure.REVIEW)]

    decision = decide_by(policies[0], floors=(policies[1],), evidence=evidence)

    assert decision.decision is REVIEW
    assert RESCAN_DEBT not in decision.degraded


def test_what_is_known_to_be_good_owes_nothing():
    known = make_list("cleared", type=ListType.DIGEST, action=ALLOW)
    policy = make_policy(sexual(), lists=(known,), on_model_failure=RESCANS)
    evidence = make_evidence(missing={SEXUAL: Missing.FAILED}, rescannable=True, lists=(make_hit("cleared"),))

    assert RESCAN_DEBT not in decide_by(policy, evidence=evidence).degraded


def test_a_dry_run_owes_nothing():
    strict, tried = make_policy(toxicity()), make_policy(sexual(), on_model_failure=RESCANS)
    evidence = make_evidence({TOXIC: 0}, missing={SEXUAL: Missing.FAILED}, rescannable=True)

    assert decide_by(strict, dry_runs=(tried,), evidence=evidence).degraded == ()


def test_a_score_that_another_model_stands_in_for_counts_and_the_decision_says_so():
    evidence = make_evidence({SEXUAL: 850_000, UNSAFE: 850_000}, fallbacks={SEXUAL: UNSAFE, TOXIC: UNSAFE})

    decision = decide_by(make_policy(sexual()), evidence=evidence)

    assert decision.decision is BLOCK
    assert decision.degraded == ("image-safety",), "nobody looks at the other signal"
