"""Replaying and explaining what was decided."""

from dataclasses import replace

import msgspec
import pytest

from baleen_core.decision.engine import Sides
from baleen_core.decision.explain import explain
from baleen_core.decision.replay import differences, replay
from baleen_core.errors import NotFound
from baleen_core.policy.schema import (
    ListType,
    OnLanguageUnsupported,
    OnModelFailure,
    Require,
    Requirement,
    Verdict,
)
from baleen_core.records import Cohort, Missing, ModelIdentity, PolicyRef, encode
from evidence import (
    SEXUAL,
    TOXIC,
    UNSAFE,
    decide_by,
    make_category,
    make_evidence,
    make_hit,
    make_list,
    make_policy,
    make_record,
    make_rule,
    make_threshold,
    make_video,
)

TOXICITY = make_category("toxicity", make_threshold(TOXIC, "70%", "92%"))
NUDITY = make_category(
    "sexual",
    make_threshold(SEXUAL, "50%", "85%"),
    make_threshold(UNSAFE, "50%", "50%"),
    require=Requirement(block=Require.ALL),
)


def tell(*policies, evidence, **others):
    """Decide, record and explain."""
    record = make_record(decide_by(*policies, evidence=evidence, **others), evidence)
    at_hand = [*policies, *(policy for group in others.values() for policy in group)]
    return explain(record, {policy.revision.digest: policy for policy in at_hand})


def test_a_replay_uses_the_name_version_and_cohort_of_the_record():
    policy, evidence = make_policy(TOXICITY), make_evidence({TOXIC: 800_000})
    decision = decide_by(policy, evidence=evidence)
    ref = msgspec.structs.replace(decision.policies[0], name="renamed", version="v9", cohort=Cohort.CANDIDATE)
    record = make_record(msgspec.structs.replace(decision, policies=(ref,)), evidence)

    again = replay(record, {policy.revision.digest: policy})

    assert encode(again) == encode(record.decision)


def test_a_replay_is_the_same_when_other_models_are_served_now():
    rule = make_rule("gone_model.x > 0.5 && author.ageDays < 7", Verdict.BLOCK)
    then = make_policy(TOXICITY, rules=(rule,), signals=["gone-model.x", TOXIC])
    now = make_policy(TOXICITY, rules=(rule,), signals=[])
    evidence = make_evidence({TOXIC: 0, "gone-model.x": 600_000}, author={"ageDays": 1})
    decision = decide_by(then, evidence=evidence)

    again = replay(make_record(decision, evidence), {now.revision.digest: now})

    assert decision.decision is Verdict.BLOCK
    assert encode(again) == encode(decision)


def test_a_replay_without_the_revision_says_which_one_is_missing():
    policy, evidence = make_policy(TOXICITY), make_evidence({TOXIC: 0})

    with pytest.raises(NotFound, match=rf"d-1 .* community \({policy.revision.digest}\)"):
        replay(make_record(decide_by(policy, evidence=evidence), evidence), {})


def test_differences_are_told_field_by_field():
    policy = make_policy(TOXICITY)
    one = decide_by(policy, evidence=make_evidence({TOXIC: 800_000}))
    other = decide_by(policy, evidence=make_evidence({TOXIC: 950_000}))

    told = differences(one, other)

    assert differences(one, one) == ()
    assert told[0] == 'decision: "Review" and "Block"'
    assert [line.split(":")[0] for line in told] == ["decision", "risk", "score", "categories", "reasons"]


def test_an_explanation_names_the_policy_and_every_score_beside_its_thresholds():
    policy = make_policy(TOXICITY, NUDITY)
    models = (ModelIdentity(name="toxicity", version="1", sha256="0" * 64),)
    evidence = make_evidence({TOXIC: 650_000, SEXUAL: 900_000, UNSAFE: 100_000}, models=models)

    assert tell(policy, evidence=evidence) == (
        "The decision is Review with Medium risk.",
        "These models answered: toxicity 1.",
        f"The Moderation policy community v1.0.0 ({policy.revision.digest[:17]}, Stable) says Review.",
        "sexual led to Review: image-safety.sexual is 90% (review at 50%, block at 85%); "
        "open-nsfw.unsafe is 10% (review at 50%, block at 50%); all must agree to block.",
        "toxicity led to Allow: toxicity.toxic is 65% (review at 70%, block at 92%).",
    )


@pytest.mark.parametrize(
    ("fields", "evidence", "sentence"),
    [
        pytest.param(
            {"lists": (make_list("slurs", Verdict.REVIEW),)},
            {"lists": (make_hit("slurs", entry="fool"),)},
            "The list slurs has 'fool', which means Review.",
            id="term",
        ),
        pytest.param(
            {"lists": (make_list("known", Verdict.BLOCK, type=ListType.PERCEPTUAL_HASH),)},
            {"lists": (make_hit("known", entry="f0", distance=7),)},
            "The list known has 'f0' at a distance of 7 bits, which means Block.",
            id="picture",
        ),
        pytest.param(
            {"lists": (make_list("Good", Verdict.ALLOW, type=ListType.DIGEST),)},
            {"lists": (make_hit("Good"),)},
            "The list Good knows the content to be good, so what follows does not count.",
            id="known good",
        ),
        pytest.param(
            {"rules": (make_rule("content.links > 3", name="spam", reason="Three are enough"),)},
            {"links": 4},
            "The rule spam matched (Three are enough), which means Review.",
            id="rule",
        ),
        pytest.param(
            {"rules": (make_rule("content.links > 3", name="spam"),)},
            {},
            "The rule spam did not match.",
            id="other rule",
        ),
        pytest.param(
            {"rules": (make_rule("author.ageDays < 7", name="new"),)},
            {},
            "The rule new could not be applied and does not count: the caller did not send author.ageDays.",
            id="fact not sent",
        ),
        pytest.param(
            {"rules": (make_rule("open_nsfw.unsafe > 0.5", name="nude"),), "on_model_failure": OnModelFailure.BLOCK},
            {},
            "The rule nude could not be applied: no score for open-nsfw.unsafe, which means Block (onModelFailure).",
            id="rule without its model",
        ),
        pytest.param(
            {"rules": (make_rule("1 / content.links > 0", name="odd"),)},
            {},
            "The rule odd could not be evaluated: divide by zero, which means Review.",
            id="rule that fails",
        ),
        pytest.param(
            {},
            {"limits": ("TextTooLong",)},
            "TextTooLong: the text is longer than what is judged, which means Review.",
            id="limit",
        ),
        pytest.param({}, {"type": "text", "language": "de"}, "The language of the text is de.", id="language"),
        pytest.param({}, {"type": "text"}, "The language of the text is not known.", id="no language"),
    ],
)
def test_an_explanation_tells_lists_rules_and_limits(fields, evidence, sentence):
    assert sentence in tell(make_policy(TOXICITY, **fields), evidence=make_evidence({TOXIC: 0}, **evidence))


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        pytest.param(
            {TOXIC: Missing.FAILED},
            "toxicity is without toxicity.toxic: the model toxicity failed, which means Review (onModelFailure).",
            id="failed",
        ),
        pytest.param(
            {},
            "toxicity is without toxicity.toxic: no model that is served offers it, "
            "which means Review (onModelFailure).",
            id="not served",
        ),
        pytest.param(
            {TOXIC: Missing.NOT_APPLICABLE},
            "toxicity was not judged: no model that is served offers its signals for image.",
            id="not for images",
        ),
    ],
)
def test_an_explanation_tells_which_models_failed(missing, sentence):
    assert sentence in tell(make_policy(TOXICITY), evidence=make_evidence(missing=missing))


def test_an_explanation_tells_when_the_source_of_policies_was_lost():
    sentence = "The source of policies was lost then, so newer ones may not have been in force yet."

    assert sentence in tell(make_policy(TOXICITY), evidence=make_evidence(degraded=("PolicySource",)))
    assert sentence not in tell(make_policy(TOXICITY), evidence=make_evidence())


@pytest.mark.parametrize(
    ("means", "sentence"),
    [
        pytest.param(OnLanguageUnsupported.SKIP, "which means that it is skipped.", id="skipped"),
        pytest.param(OnLanguageUnsupported.REVIEW, "which means Review.", id="reviewed"),
    ],
)
def test_an_explanation_tells_of_a_language_that_a_category_does_not_speak(means, sentence):
    category = make_category(
        "toxicity", make_threshold(TOXIC, "70%"), languages=("en", "fr"), on_language_unsupported=means
    )

    told = tell(make_policy(category), evidence=make_evidence({TOXIC: 990_000}, type="text", language="de"))

    assert f"toxicity was not judged: it is made for text in en, fr and this is de, {sentence}" in told


def test_an_explanation_tells_of_floors_and_of_what_is_only_tried_out():
    floor, tried = (
        make_policy(TOXICITY, name="floor"),
        make_policy(name="tried", lists=(make_list("bad", Verdict.BLOCK),)),
    )
    evidence = make_evidence({TOXIC: 750_000}, lists=(make_hit("bad"),))

    told = "\n".join(tell(make_policy(), floors=(floor,), dry_runs=(tried,), evidence=evidence))

    assert "The floor floor v1.0.0 (" in told
    assert "which no narrower policy can undercut, says Review." in told
    assert "which is only tried out, says Block." in told
    assert told.endswith("With the policies that are only tried out, the decision would be Block.")


def test_an_explanation_of_a_video_tells_when():
    evidence = make_video({TOXIC: 0}, {TOXIC: 930_000}, {TOXIC: 950_000}, coverage=500_000)

    told = tell(make_policy(TOXICITY), evidence=evidence)

    assert "3 of 3 frames of the video were judged (50%)." in told
    assert any(line.endswith("That is so in 2 of 3 frames, first at 0.500 s.") for line in told)
    assert "Coverage: 50% of the video was judged; it must be 99%, which means Review." in told


def test_an_explanation_of_a_video_that_nobody_saw_blames_no_model():
    policy = make_policy(TOXICITY, rules=(make_rule("toxicity.toxic > 0.5", name="toxic"),))

    assert tell(policy, evidence=make_video(coverage=0))[1:] == (
        "0 of 0 frames of the video were judged (0%).",
        f"The Moderation policy community v1.0.0 ({policy.revision.digest[:17]}, Stable) says Review.",
        "toxicity was not judged: no frame of the video could be judged.",
        "The rule toxic could not be applied and does not count: no frame of the video could be judged.",
        "Coverage: no frame of the video could be judged, which means Review.",
    )


def test_an_explanation_tells_what_was_seen_before_a_model_failed():
    policy = make_policy(
        TOXICITY,
        rules=(make_rule("toxicity.toxic > 0.7", name="toxic"), make_rule("toxicity.toxic > 0.9", name="very")),
    )

    told = tell(policy, evidence=make_evidence({TOXIC: 800_000}, missing={TOXIC: Missing.FAILED}))

    assert told[2:] == (
        "toxicity led to Review: toxicity.toxic is 80% (review at 70%, block at 92%).",
        "toxicity has only a part of toxicity.toxic: the model toxicity failed, which means Review (onModelFailure).",
        "The rule toxic matched, which means Review; its model failed too, which means Review (onModelFailure).",
        "The rule very could not be applied: no score for toxicity.toxic (of all of the content), "
        "which means Review (onModelFailure).",
    )


def test_refs_are_what_is_replayed():
    policy = make_policy(TOXICITY)

    assert decide_by(policy, evidence=make_evidence({TOXIC: 0})).policies == (
        PolicyRef(
            role="Winner",
            name="community",
            type="Moderation",
            version="v1.0.0",
            digest=policy.revision.digest,
            cohort=Cohort.STABLE,
            namespace="trust-safety",
        ),
    )


@pytest.mark.parametrize(
    "cohort", [pytest.param(Cohort.STABLE, id="stable"), pytest.param(Cohort.CANDIDATE, id="candidate")]
)
def test_an_explanation_says_what_both_sides_of_a_rollout_say_and_which_of_them_judged(cohort):
    stable = make_policy(TOXICITY)
    stricter = make_policy(make_category("toxicity", make_threshold(TOXIC, "70%", "75%")))
    candidate = replace(stricter, cohort=Cohort.CANDIDATE)
    evidence = make_evidence({TOXIC: 800_000})
    is_exposed = cohort is Cohort.CANDIDATE
    judging = candidate if is_exposed else stable
    sides = Sides(stable=stable, candidate=candidate, group=7, exposed=is_exposed)
    record = make_record(decide_by(judging, trials=(sides,), evidence=evidence), evidence)

    told = explain(record, {each.revision.digest: each for each in (stable, candidate)})

    digests = [each.revision.digest[:17] for each in (stable, candidate)]
    assert (
        f"A candidate of community was being rolled out: Stable ({digests[0]}) says Review, Candidate ({digests[1]}) "
        f"says Block; this content was judged for {cohort}."
    ) in told


def test_a_replay_wants_both_sides_of_a_rollout():
    stable, candidate = make_policy(TOXICITY), make_policy(NUDITY)
    evidence = make_evidence({TOXIC: 800_000})
    sides = Sides(stable=stable, candidate=candidate, group=7)
    record = make_record(decide_by(stable, trials=(sides,), evidence=evidence), evidence)

    with pytest.raises(NotFound, match=f"community \\({candidate.revision.digest}\\)"):
        replay(record, {stable.revision.digest: stable})


def test_it_is_told_who_stood_in_for_whom():
    evidence = make_evidence({SEXUAL: 600_000, UNSAFE: 600_000}, fallbacks={SEXUAL: UNSAFE})

    told = tell(make_policy(NUDITY), evidence=evidence)

    assert "The model image-safety failed; open-nsfw.unsafe stands in for image-safety.sexual." in told


def test_it_is_told_that_a_decision_holds_for_now_and_which_one_a_second_look_was_at():
    policy = make_policy(TOXICITY, on_model_failure=OnModelFailure.ALLOW_AND_RESCAN)
    evidence = make_evidence(missing={TOXIC: Missing.FAILED}, rescannable=True)
    record = make_record(decide_by(policy, evidence=evidence), evidence)
    at_hand = {policy.revision.digest: policy}

    told = explain(record, at_hand)
    again = explain(msgspec.structs.replace(record, rescan_of="01-first"), at_hand)

    assert any("which means Allow for now, and another look later (onModelFailure)" in each for each in told)
    assert "It holds until the models that failed are back; then the content is looked at again." in told
    assert "This is the second look at what decision 01-first allowed for now." in again
    assert replay(record, at_hand) == record.decision
