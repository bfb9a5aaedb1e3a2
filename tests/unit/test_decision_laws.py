"""Laws of the engine, for every policy and every score that hypothesis can think of."""

from dataclasses import replace

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baleen_core.decision.engine import CompiledPolicy, Sides, judge, wanted_signals
from baleen_core.decision.replay import judging_revisions, replay
from baleen_core.policy.schema import (
    Category,
    Verdict,
)
from baleen_core.ratio import MILLION
from baleen_core.records import (
    RESCAN_DEBT,
    Cohort,
    Decision,
    Evidence,
    FrameSignals,
    Missing,
    Risk,
    decode_record,
    encode,
)
from decision_strategies import LISTS, RULES, categories, evidences, policies, ratios
from evidence import (
    SIGNALS,
    decide_by,
    make_policy,
    make_record,
)

law = settings(max_examples=50)


def severity(decision: Decision) -> int:
    return decision.decision.severity


@law
@given(policy=policies(rules=RULES[:3]), evidence=evidences(), signal=st.sampled_from(SIGNALS), rise=ratios)
def test_a_higher_score_never_softens_the_verdict(policy, evidence, signal, rise):
    low = evidence.signals.get(signal, 0)
    lower = with_score(evidence, signal, low)
    higher = with_score(evidence, signal, min(MILLION, low + rise))

    assert severity(decide_by(policy, evidence=higher)) >= severity(decide_by(policy, evidence=lower))


@law
@given(winner=policies(), floor=policies("floor"), evidence=evidences())
def test_a_floor_is_never_undercut(winner, floor, evidence):
    alone = decide_by(floor, evidence=evidence)

    decision = decide_by(winner, floors=(floor,), evidence=evidence)

    assert severity(decision) >= severity(alone)
    assert severity(decision) == max(severity(alone), severity(decide_by(winner, evidence=evidence)))


@law
@given(policy=policies(rules=RULES[:3]), evidence=evidences(), signal=st.sampled_from(SIGNALS))
def test_a_failure_never_softens(policy, evidence, signal):
    harmless, failed = with_score(evidence, signal, 0), without_score(evidence, signal, Missing.FAILED)

    assert severity(decide_by(policy, evidence=failed)) >= severity(decide_by(policy, evidence=harmless))


@law
@given(
    policy=policies(rules=RULES[:3]),
    evidence=evidences(),
    signal=st.sampled_from(SIGNALS),
    score=ratios,
    data=st.data(),
)
def test_a_failure_after_a_part_never_softens_what_was_seen_nor_the_failure(policy, evidence, signal, score, data):
    whole, failed = with_score(evidence, signal, score), without_score(evidence, signal, Missing.FAILED)
    after = data.draw(st.integers(1, 2))
    first, rest = whole.frames[:after], whole.frames[after:]
    in_part = msgspec.structs.replace(
        whole,
        missing={**whole.missing, signal: Missing.FAILED},
        frames=first + tuple(without_signal(frame, signal) for frame in rest),
    )
    # What nobody saw could not have been less than this.
    seen = msgspec.structs.replace(whole, frames=first + tuple(with_signal(frame, signal, 0) for frame in rest))

    found = severity(decide_by(policy, evidence=in_part))

    assert found >= severity(decide_by(policy, evidence=seen))
    assert found >= severity(decide_by(policy, evidence=failed))


@law
@given(policy=policies(lists=(), rules=()), evidence=evidences(), signal=st.sampled_from(SIGNALS))
def test_a_model_that_a_category_needs_and_that_fails_is_answered_as_the_policy_says(policy, evidence, signal):
    failed = without_score(evidence, signal, Missing.FAILED)

    decision = decide_by(policy, evidence=failed)

    if signal in wanted_signals([policy], evidence.content.type, evidence.language):
        assert severity(decision) >= policy.on_failure_of(failed)
        assert (RESCAN_DEBT in decision.degraded) <= (failed.rescannable and decision.decision is Verdict.ALLOW)
        assert signal.split(".")[0] in decision.degraded


@law
@given(data=st.data(), evidence=evidences())
def test_the_order_in_which_a_policy_is_written_means_nothing(data, evidence):
    parts = [data.draw(categories(name)) for name in ("a", "b", "c")]
    shuffled = [
        Category(**{**fields_of(each), "signals": tuple(data.draw(st.permutations(each.signals)))})
        for each in data.draw(st.permutations(parts))
    ]
    written = make_policy(*parts, rules=RULES, lists=LISTS)
    rewritten = make_policy(
        *shuffled, rules=tuple(data.draw(st.permutations(RULES))), lists=tuple(data.draw(st.permutations(LISTS)))
    )

    one, other = decide_by(written, evidence=evidence), decide_by(rewritten, evidence=evidence)

    # The test's digests depend on the order; those of revisions do not.
    assert encode(msgspec.structs.replace(one, policies=())) == encode(msgspec.structs.replace(other, policies=()))


@law
@given(data=st.data(), evidence=evidences())
def test_the_order_of_policies_means_nothing(data, evidence):
    asked = [data.draw(policies(name)) for name in ("one", "two", "three")]
    shuffled = data.draw(st.permutations(asked))

    assert encode(decide_by(*asked, evidence=evidence)) == encode(decide_by(*shuffled, evidence=evidence))
    assert encode(decide_by(asked[0], floors=tuple(asked), evidence=evidence)) == encode(
        decide_by(asked[0], floors=tuple(shuffled), evidence=evidence)
    )


@law
@given(policy=policies(), dry_run=policies("tried"), evidence=evidences())
def test_a_dry_run_never_changes_the_decision(policy, dry_run, evidence):
    without = decide_by(policy, evidence=evidence)

    decision = decide_by(policy, dry_runs=(dry_run,), evidence=evidence)

    assert msgspec.structs.replace(decision, would_be=None, policies=without.policies) == without
    assert decision.would_be is not None
    assert decision.would_be.severity == max(severity(without), severity(decide_by(dry_run, evidence=evidence)))


@law
@given(winner=policies(), floor=policies("floor"), dry_run=policies("tried"), evidence=evidences())
def test_a_record_is_replayed_bit_for_bit(winner, floor, dry_run, evidence):
    decision = decide_by(winner, floors=(floor,), dry_runs=(dry_run,), evidence=evidence)
    record = decode_record(encode(make_record(decision, evidence)))

    again = replay(record, {policy.revision.digest: policy for policy in (winner, floor, dry_run)})

    assert encode(again) == encode(decision)


def side_by_side(stable: CompiledPolicy, candidate: CompiledPolicy, group: int) -> Sides:
    """A rollout of one policy's two revisions."""
    return Sides(stable=stable, candidate=replace(candidate, cohort=Cohort.CANDIDATE), group=group)


@st.composite
def rollouts(draw, name: str) -> Sides:
    return side_by_side(draw(policies(name)), draw(policies(name)), draw(st.integers(0, 63)))


def counting(sides: Sides, is_exposed: bool) -> CompiledPolicy:
    return sides.candidate if is_exposed else sides.stable


exposures = st.tuples(st.booleans(), st.booleans(), st.booleans())


@law
@given(
    winner=rollouts("winner"), floor=rollouts("floor"), dry=rollouts("tried"), exposed=exposures, evidence=evidences()
)
def test_a_trial_never_changes_what_the_counting_side_alone_would_decide(winner, floor, dry, exposed, evidence):
    judging = [counting(sides, side) for sides, side in zip((winner, floor, dry), exposed, strict=True)]
    sets = {"floors": (judging[1],), "dry_runs": (judging[2],)}
    alone = decide_by(judging[0], evidence=evidence, **sets)

    tried = tuple(replace(sides, exposed=side) for sides, side in zip((winner, floor, dry), exposed, strict=True))
    decision = decide_by(judging[0], evidence=evidence, **sets, trials=tried)

    assert encode(msgspec.structs.replace(decision, trials=())) == encode(alone)
    assert [(each.name, each.group) for each in decision.trials] == [
        ("floor", floor.group),
        ("tried", dry.group),
        ("winner", winner.group),
    ]
    for trial, sides in zip(decision.trials, (tried[1], tried[2], tried[0]), strict=True):
        assert trial.failed is judge(counting(sides, sides.exposed), evidence).has_failed
        assert trial.stable_verdict is judge(sides.stable, evidence).verdict
        assert trial.candidate_verdict is judge(sides.candidate, evidence).verdict


@law
@given(policy=policies("p"), evidence=evidences())
def test_a_policy_judges_as_if_no_model_were_asked_that_it_does_not_look_at(policy, evidence):
    assume(not evidence.limits or evidence.limited)
    about = (*evidence.limited.get("TextTooLong", ()), "elsewhere")
    more = msgspec.structs.replace(
        evidence,
        limits=("TextTooLong",),
        limited={"TextTooLong": about},
        signals=evidence.signals | {"elsewhere.score": 999_999},
        missing=evidence.missing | {"elsewhere.gone": Missing.FAILED},
    )

    assert judge(policy, more) == judge(policy, evidence)


@law
@given(winner=rollouts("winner"), floor=rollouts("floor"), exposed=exposures, evidence=evidences())
def test_a_decision_made_in_rollouts_is_replayed_bit_for_bit(winner, floor, exposed, evidence):
    decision = decide_by(
        counting(winner, exposed[0]),
        floors=(counting(floor, exposed[1]),),
        trials=(winner, floor),
        evidence=evidence,
    )
    record = decode_record(encode(make_record(decision, evidence)))
    # A store knows revisions, and not who judged by them.
    stored = (winner.stable, winner.candidate, floor.stable, floor.candidate)
    at_hand = {each.revision.digest: replace(each, name="", version="", cohort=Cohort.STABLE) for each in stored}

    assert judging_revisions(decision).keys() == at_hand.keys()
    assert encode(replay(record, at_hand)) == encode(decision)


@law
@given(winner=policies(), floor=policies("floor"), evidence=evidences())
def test_risk_is_critical_exactly_with_block_and_never_low_with_review(winner, floor, evidence):
    decision = decide_by(winner, floors=(floor,), evidence=evidence)

    assert (decision.risk is Risk.CRITICAL) == (decision.decision is Verdict.BLOCK)
    assert not (decision.risk is Risk.LOW and decision.decision is Verdict.REVIEW)


@law
@given(policy=policies(), evidence=evidences())
def test_what_is_stricter_than_allow_has_a_reason(policy, evidence):
    decision = decide_by(policy, evidence=evidence)

    assert bool(decision.reasons) or decision.decision is Verdict.ALLOW


def with_score(evidence: Evidence, signal: str, score: int) -> Evidence:
    """The same content, for which the signal's model gave this score (on every frame)."""
    return msgspec.structs.replace(
        evidence,
        signals={**evidence.signals, signal: score},
        missing={each: why for each, why in evidence.missing.items() if each != signal},
        frames=tuple(with_signal(frame, signal, score) for frame in evidence.frames),
    )


def without_score(evidence: Evidence, signal: str, why: Missing) -> Evidence:
    """The same content, for which the signal's model gave no score (on any frame)."""
    return msgspec.structs.replace(
        evidence,
        signals={each: score for each, score in evidence.signals.items() if each != signal},
        missing={**evidence.missing, signal: why},
        frames=tuple(without_signal(frame, signal) for frame in evidence.frames),
    )


def with_signal(frame: FrameSignals, signal: str, score: int) -> FrameSignals:
    return msgspec.structs.replace(frame, signals={**frame.signals, signal: score})


def without_signal(frame: FrameSignals, signal: str) -> FrameSignals:
    left = {each: score for each, score in frame.signals.items() if each != signal}
    return msgspec.structs.replace(frame, signals=left)


def fields_of(category: Category) -> dict[str, object]:
    return {name: getattr(category, name) for name in Category.__slots__}
