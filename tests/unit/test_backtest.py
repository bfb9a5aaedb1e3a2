"""Backtests: that both ways to judge again agree, what is left out and why, and what a gate makes of it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from baleen_core.decision.backtest import (
    Backtest,
    Comparison,
    GateReason,
    GateVerdict,
    backtest,
    backtest_one_by_one,
    judge_backtest,
    looked_up_by,
    merge_backtests,
)
from baleen_core.decision.engine import Sides, judge
from baleen_core.decision.flips import FlipMatrix, FlipSummary, Rejudged, summarize
from baleen_core.decision.lists import compile_list
from baleen_core.policy.lists import read_list
from baleen_core.policy.schema import BacktestGate, ListType, PolicyList, Scope, Verdict
from baleen_core.records import DecisionRecord, Missing
from decision_strategies import evidences, policies
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

law = settings(max_examples=40)

ALLOW, REVIEW, BLOCK = Verdict
STRICT = make_category("toxicity", make_threshold(TOXIC, "50%", "80%"))
LOOSE = make_category("toxicity", make_threshold(TOXIC, "70%", "92%"))
OFFERS = {SEXUAL: "image", UNSAFE: "image", TOXIC: "text"}

only_categories = policies(rules=(), lists=())
offers = st.dictionaries(st.sampled_from(SIGNALS), st.sampled_from(["text", "image"]))


def logged(policy, *found, first=0) -> list[DecisionRecord]:
    """Put evidence on record as what the policy decided by."""
    return [
        DecisionRecord(
            id=f"d-{first + index}", time="", evidence=evidence, decision=decide_by(policy, evidence=evidence)
        )
        for index, evidence in enumerate(found)
    ]


def texts(*scores, language="en", **fields):
    return [make_evidence({TOXIC: score}, type="text", language=language, **fields) for score in scores]


@law
@given(stable=only_categories, candidate=only_categories, found=st.lists(evidences(), max_size=6), offers=offers)
def test_columns_say_what_the_engine_says(stable, candidate, found, offers):
    comparison = Comparison(stable=stable, candidate=candidate, offers=offers)
    records = logged(stable, *found)

    assert backtest(comparison, records) == backtest_one_by_one(comparison, records)


@law
@given(
    stable=policies(),
    candidate=policies(),
    found=st.lists(evidences(), max_size=6),
    offers=offers,
    cut=st.integers(0, 6),
)
def test_parts_of_a_log_are_the_whole_of_it(stable, candidate, found, offers, cut):
    comparison = Comparison(
        stable=stable,
        candidate=candidate,
        offers=offers,
        looked_up={stable.revision.digest: looked_up_by(stable.revision)},
    )
    records = logged(stable, *found)

    merged = merge_backtests(backtest(comparison, records[:cut]), backtest(comparison, records[cut:]))

    assert merged == backtest(comparison, records)
    assert merged.compared + merged.unknown + merged.elsewhere == len(records)


@law
@given(policy=policies(), found=st.lists(evidences(), max_size=6))
def test_a_revision_that_is_compared_with_itself_flips_nothing(policy, found):
    found = backtest(Comparison(stable=policy, candidate=policy), logged(policy, *found))

    assert (found.flips.overall.flips, found.flips.examples) == (0, {})


@law
@given(stable=policies(), candidate=policies(), evidence=evidences())
def test_what_is_compared_is_what_each_revision_says(stable, candidate, evidence):
    (record,) = logged(stable, evidence)
    comparison = Comparison(
        stable=stable,
        candidate=candidate,
        looked_up={stable.revision.digest: looked_up_by(stable.revision) | looked_up_by(candidate.revision)},
    )

    found = backtest(comparison, [record])

    assert found.unknown == 0
    assert found.flips.overall.count(judge(stable, evidence).verdict, judge(candidate, evidence).verdict) == 1


@law
@given(
    stable=policies(), candidate=policies(), evidence=evidences(), hits=st.sets(st.sampled_from(["slurs", "banned"]))
)
def test_what_is_compared_although_a_list_was_not_looked_up_is_right_whatever_it_would_have_said(
    stable, candidate, evidence, hits
):
    """The law of leaving nothing out: where a decision is compared, no hit could have changed what is said of it."""
    evidence = structs.replace(evidence, lists=())
    if evidence.content.type != "text":
        hits = hits - {"slurs"}  # terms are in texts alone
    found = backtest(Comparison(stable=stable, candidate=candidate), logged(stable, evidence))
    with_hits = structs.replace(evidence, lists=tuple(map(make_hit, sorted(hits))))

    if found.compared:
        before, after = judge(stable, with_hits).verdict, judge(candidate, with_hits).verdict
        assert found.flips.overall.count(before, after) == 1


def test_flips_are_counted_by_category_and_language():
    stable, candidate = make_policy(LOOSE), make_policy(STRICT)
    records = [
        *logged(stable, *texts(400_000, 600_000, 850_000)),
        *logged(stable, *texts(950_000, 600_000, language="de"), first=10),
    ]

    found = backtest(Comparison(stable=stable, candidate=candidate, offers=OFFERS), records)

    assert (found.compared, found.flip_rate, found.new_block_rate, found.new_allow_rate) == (5, 600_000, 200_000, 0)
    assert dict(found.flips.overall.kinds()) == {(ALLOW, REVIEW): 2, (REVIEW, BLOCK): 1}
    assert found.flips.categories["toxicity"] == found.flips.overall
    assert {name: (each.total, each.flips) for name, each in found.flips.languages.items()} == {
        "en": (3, 2),
        "de": (2, 1),
    }
    assert {kind: set(ids) for kind, ids in found.flips.examples.items()} == {
        (ALLOW, REVIEW): {"d-1", "d-11"},
        (REVIEW, BLOCK): {"d-2"},
    }


def test_only_decisions_that_the_policy_had_a_part_in_are_looked_at():
    stable, candidate, other = make_policy(LOOSE), make_policy(STRICT), make_policy(LOOSE, name="other")
    narrow = replace(candidate, revision=replace(candidate.revision, scope=Scope(surface="kids")))
    records = [
        *logged(stable, *texts(600_000, context={"surface": "kids"})),
        *logged(stable, *texts(600_000, context={"surface": "chat"}), first=1),
        *logged(other, *texts(600_000, 600_000), first=2),
    ]

    everywhere = backtest(Comparison(stable=stable, candidate=candidate), records)
    with_kids = backtest(Comparison(stable=stable, candidate=narrow), records)

    assert (everywhere.compared, everywhere.elsewhere) == (2, 2)
    assert (with_kids.compared, with_kids.elsewhere) == (1, 3)


def test_what_was_erased_is_not_known_since_who_wrote_it_and_what_it_matched_is_gone():
    policy = make_policy(LOOSE)
    records = [structs.replace(each, erased=each.id == "d-0") for each in logged(policy, *texts(1, 2, 3))]
    found = backtest(Comparison(stable=policy, candidate=policy, offers=OFFERS), records)

    assert (found.compared, found.unknown, found.signals) == (2, 1, {})


@pytest.mark.parametrize(
    ("evidence", "offers", "unknown"),
    [
        pytest.param(make_evidence({TOXIC: 0}, type="text"), OFFERS, {}, id="the model takes no text"),
        pytest.param(make_evidence({SEXUAL: 0}), OFFERS, {UNSAFE: 1}, id="the model was not asked"),
        pytest.param(
            make_evidence({SEXUAL: 0}, missing={UNSAFE: Missing.NOT_SERVED}), OFFERS, {UNSAFE: 1}, id="not served then"
        ),
        pytest.param(make_evidence({SEXUAL: 0}), {TOXIC: "text"}, {}, id="not served now"),
        pytest.param(make_evidence({SEXUAL: 0}, missing={UNSAFE: Missing.FAILED}), OFFERS, {}, id="it failed"),
        pytest.param(make_evidence({SEXUAL: 0, UNSAFE: 0}), OFFERS, {}, id="it was asked"),
        pytest.param(make_video({SEXUAL: 0}), OFFERS, {UNSAFE: 1}, id="a video of which it was not asked"),
        pytest.param(make_video(coverage=0), OFFERS, {}, id="a video that nobody saw"),
    ],
)
def test_a_decision_without_a_score_that_a_model_would_give_now_is_not_known(evidence, offers, unknown):
    nudity = make_category("sexual", make_threshold(SEXUAL, "50%"), make_threshold(UNSAFE, "50%"))
    stable, candidate = make_policy(LOOSE), make_policy(LOOSE, nudity)
    comparison = Comparison(stable=stable, candidate=candidate, offers=offers)

    found = backtest(comparison, logged(stable, evidence))

    assert (found.signals, found.unknown, found.compared) == (unknown, len(unknown), 1 - len(unknown))


def test_a_text_model_that_a_picture_was_not_shown_to_has_not_failed():
    stable, candidate = make_policy(make_category("sexual", make_threshold(SEXUAL, "50%"))), make_policy(LOOSE)
    records = logged(stable, make_evidence({SEXUAL: 0}))

    for again in (backtest, backtest_one_by_one):
        found = again(Comparison(stable=stable, candidate=candidate, offers=OFFERS), records)
        assert (found.compared, found.flips.overall.flips) == (1, 0)


TERMS = make_list("terms", Verdict.REVIEW)
PICTURES = make_list("pictures", Verdict.BLOCK, type=ListType.PERCEPTUAL_HASH, max_distance=20)
KNOWN_GOOD = make_list("good", Verdict.ALLOW, type=ListType.DIGEST)


@pytest.mark.parametrize(
    ("each", "evidence", "looked_up", "compared"),
    [
        pytest.param(TERMS, texts(0)[0], {"sha256:terms": 0}, 1, id="looked up, no hit"),
        pytest.param(TERMS, texts(0)[0], {}, 0, id="not looked up"),
        pytest.param(TERMS, texts(0)[0], {"sha256:other": 0}, 0, id="another was looked up"),
        pytest.param(TERMS, texts(750_000)[0], {}, 1, id="a hit would change nothing"),
        pytest.param(TERMS, texts(0, lists=(make_hit("terms"),))[0], {}, 1, id="the hit is on record"),
        pytest.param(TERMS, make_evidence({TOXIC: 0}), {}, 1, id="terms are not in pictures"),
        pytest.param(PICTURES, texts(0)[0], {}, 1, id="texts are no pictures"),
        pytest.param(PICTURES, make_evidence({TOXIC: 0}), {}, 0, id="a picture that was not looked up"),
        pytest.param(PICTURES, make_evidence({TOXIC: 0}), {"sha256:pictures": 19}, 0, id="not as far"),
        pytest.param(PICTURES, make_evidence({TOXIC: 0}), {"sha256:pictures": 31}, 1, id="further"),
        pytest.param(KNOWN_GOOD, texts(0)[0], {}, 1, id="what is allowed needs not be known to be good"),
        pytest.param(KNOWN_GOOD, texts(750_000)[0], {}, 0, id="it might be known to be good"),
    ],
)
def test_a_list_that_was_not_looked_up_leaves_out_what_it_could_change(each, evidence, looked_up, compared):
    stable, candidate = make_policy(LOOSE), make_policy(LOOSE, lists=(each,))
    comparison = Comparison(stable=stable, candidate=candidate, looked_up={stable.revision.digest: looked_up})

    found = backtest(comparison, logged(stable, evidence))

    assert found.compared == compared
    assert found.lists == ({} if compared else {each.name: 1})


@pytest.mark.parametrize("exposed", [True, False], ids=["the candidate counted", "a shadow"])
def test_during_a_rollout_the_lists_of_both_sides_were_looked_up(exposed):
    with_terms, without = make_policy(LOOSE, lists=(TERMS,)), make_policy(STRICT)
    stable, tried = (with_terms, without) if exposed else (without, with_terms)
    edited = make_policy(STRICT, lists=(TERMS,))
    sides = Sides(stable=stable, candidate=tried, group=0, exposed=exposed)
    (evidence,) = texts(0)
    decision = decide_by(tried if exposed else stable, evidence=evidence, trials=(sides,))
    record = DecisionRecord(id="d-0", time="", evidence=evidence, decision=decision)
    looked_up = {with_terms.revision.digest: {"sha256:terms": 0}, without.revision.digest: {"sha256:other": 0}}

    found = backtest(Comparison(stable=stable, candidate=edited, looked_up=looked_up), [record])

    assert [ref.digest for ref in decision.policies] == [without.revision.digest]
    assert (found.compared, found.lists) == (1, {})


def test_a_list_of_digests_is_looked_up_now():
    content = read_list(ListType.DIGEST, "c" * 64)
    banned = PolicyList(name="banned", type=ListType.DIGEST, action=BLOCK, digest=content.digest)
    stable, candidate = make_policy(LOOSE), make_policy(LOOSE, lists=(banned,))
    comparison = Comparison(stable=stable, candidate=candidate, lists=(compile_list(content),))
    here, elsewhere = texts(0, 0)
    elsewhere = structs.replace(elsewhere, content=structs.replace(elsewhere.content, digest="d" * 64))

    found = backtest(comparison, logged(stable, here, elsewhere))

    assert dict(found.flips.overall.kinds()) == {(ALLOW, BLOCK): 1}
    assert found.compared == 2


def test_rules_are_judged_by_the_facts_on_record():
    stable = make_policy(LOOSE)
    candidate = make_policy(LOOSE, rules=(make_rule("author.ageDays < 7 && content.links > 3", name="spam"),))
    found = texts(0, author={"ageDays": 3}, links=4) + texts(0, author={"ageDays": 30}, links=4)

    flips = backtest(Comparison(stable=stable, candidate=candidate), logged(stable, *found)).flips

    assert dict(flips.overall.kinds()) == {(ALLOW, REVIEW): 1}
    assert flips.examples[ALLOW, REVIEW] == ("d-0",)


def counted(*, allows=0, flips=0, blocks=0, unknown=0, signals=None, lists=None) -> Backtest:
    """A backtest of so many decisions that stay allowed, go to review, go to block, or are unknown."""
    numbers = iter(range(allows + flips + blocks))
    found = [
        Rejudged(id=f"d-{next(numbers)}", before=0, after=after, categories={"hate": (0, after)}, language="en")
        for after, count in ((0, allows), (1, flips), (2, blocks))
        for _ in range(count)
    ]
    return Backtest(flips=summarize(found), unknown=unknown, signals=signals or {}, lists=lists or {})


GATE = BacktestGate(decisions=1000, max_flip_rate=20_000, max_new_blocks=5_000)


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        pytest.param(counted(allows=1000), "Pass", "WithinLimits", id="nothing flips"),
        pytest.param(counted(allows=980, flips=15, blocks=5), "Pass", "WithinLimits", id="exactly at both limits"),
        pytest.param(counted(allows=979, flips=21), "Fail", "TooManyFlips", id="one flip too many"),
        pytest.param(counted(allows=994, blocks=6), "Fail", "TooManyNewBlocks", id="one block too many"),
        pytest.param(counted(allows=999), "Inconclusive", "TooFewDecisions", id="one decision too few"),
        pytest.param(counted(blocks=999), "Inconclusive", "TooFewDecisions", id="too few, whatever they say"),
        pytest.param(counted(), "Inconclusive", "TooFewDecisions", id="an empty log"),
        pytest.param(
            counted(allows=900, unknown=100, signals={"new.score": 100}),
            "Inconclusive",
            "SignalsMissing",
            id="enough, but unknown",
        ),
        pytest.param(
            counted(allows=900, unknown=100, lists={"slurs": 100}),
            "Inconclusive",
            "ListsNotLookedUp",
            id="enough, but not looked up",
        ),
        pytest.param(
            counted(allows=2000, unknown=105, signals={"new.score": 105}), "Pass", "WithinLimits", id="few are unknown"
        ),
        pytest.param(
            counted(allows=2000, unknown=106, signals={"new.score": 106}),
            "Inconclusive",
            "SignalsMissing",
            id="too many are unknown",
        ),
        pytest.param(
            counted(allows=500, blocks=100, unknown=1000, signals={"new.score": 1000}),
            "Fail",
            "TooManyNewBlocks",
            id="too many blocks, whatever the unknown ones are",
        ),
    ],
)
def test_a_gate_passes_fails_or_does_not_know(found, verdict, reason):
    result = judge_backtest(GATE, found)

    assert (result.verdict, result.reason) == (GateVerdict(verdict), GateReason(reason))


def test_a_gate_without_limits_only_wants_decisions():
    gate = BacktestGate(decisions=10)

    assert judge_backtest(gate, counted(blocks=10)).verdict is GateVerdict.PASS
    assert judge_backtest(gate, counted(blocks=9)).verdict is GateVerdict.INCONCLUSIVE


def test_a_failure_says_by_how_much_where_and_what_can_be_done():
    found = counted(allows=960, flips=25, blocks=15)

    blocks = judge_backtest(GATE, found).message
    flips = judge_backtest(BacktestGate(decisions=1000, max_flip_rate=20_000), found).message

    assert blocks == (
        "1.5% of 1,000 logged decisions would be newly blocked (15), above maxNewBlocks (0.5%): "
        f"Allow → Block 15; by category hate (15); by language en (15); for example "
        f"{found.flips.examples[ALLOW, BLOCK][0]}. "
        "Change the candidate there, or raise maxNewBlocks if that is what is wanted"
    )
    assert flips.startswith("4% of 1,000 logged decisions would come out differently (40), above maxFlipRate (2%): ")
    assert "Allow → Review 25, Allow → Block 15; by category hate (40)" in flips


def test_what_is_not_known_is_named_with_how_often_and_what_can_be_done():
    signals = judge_backtest(GATE, counted(allows=900, unknown=100, signals={"a.x": 40, "b.y": 100})).message
    lists = judge_backtest(GATE, counted(allows=900, unknown=100, lists={"slurs": 100}, signals={"a.x": 40})).message
    few = judge_backtest(GATE, counted(allows=1)).message

    assert signals.startswith(
        "100 of 1,000 logged decisions have no scores of signals that are needed: b.y (for 100), a.x (for 40)."
    )
    assert lists.startswith(
        "100 of 1,000 logged decisions were made without looking up lists that are needed: slurs (for 100)."
    )
    assert few == (
        "the log has 1 decision of this policy, and 1,000 are wanted: wait until more are logged, or want fewer"
    )


@given(
    flips=st.integers(0, 300),
    blocks=st.integers(0, 300),
    allows=st.integers(0, 3000),
    limits=st.tuples(st.integers(0, 1_000_000), st.integers(0, 1_000_000)),
    looser=st.integers(0, 1_000_000),
)
@law
def test_a_looser_gate_never_stops_what_a_stricter_one_lets_pass(flips, blocks, allows, limits, looser):
    counts = (allows, flips, blocks, 0, 0, 0, 0, 0, 0)
    found = Backtest(flips=FlipSummary(overall=FlipMatrix(counts=counts)))
    strict = BacktestGate(decisions=100, max_flip_rate=limits[0], max_new_blocks=limits[1])
    loose = BacktestGate(decisions=100, max_flip_rate=limits[0] + looser, max_new_blocks=limits[1] + looser)

    if judge_backtest(strict, found).verdict is GateVerdict.PASS:
        assert judge_backtest(loose, found).verdict is GateVerdict.PASS


def test_what_was_erased_is_named_as_such():
    policy = make_policy(LOOSE)
    records = logged(policy, *texts(*[0] * 20))
    gone = [structs.replace(each, erased=True) if number < 4 else each for number, each in enumerate(records)]

    found = backtest(Comparison(stable=policy, candidate=policy), gone)
    said = judge_backtest(BacktestGate(decisions=16), found)

    assert (found.compared, found.unknown, found.erased) == (16, 4, 4)
    assert (said.verdict, said.reason) == (GateVerdict.INCONCLUSIVE, GateReason.DECISIONS_ERASED)
    assert "4 of them since they were erased on request" in said.message
