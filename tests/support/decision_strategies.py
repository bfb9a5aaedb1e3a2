"""Hypothesis strategies for policies that are ready to judge, and for evidence of every kind."""

from hypothesis import strategies as st

from baleen_core.decision.engine import model_of
from baleen_core.policy.schema import (
    Category,
    ListType,
    OnLanguageUnsupported,
    OnModelFailure,
    OnSignalMissing,
    Require,
    Requirement,
    Threshold,
    Verdict,
)
from baleen_core.ratio import MILLION
from baleen_core.records import Coverage, Evidence, FrameSignals, Missing, VideoEvidence
from evidence import SIGNALS, make_evidence, make_hit, make_list, make_policy, make_rule

ratios = st.one_of(st.integers(0, MILLION), st.sampled_from([0, 1, 499_999, 500_000, 500_001, 999_999, MILLION]))
# A threshold of 0 is reached by every score, and so is stricter than a failure: that is no law but its author's wish.
thresholds = st.one_of(st.none(), ratios.filter(bool))
requires = st.builds(Requirement, review=st.sampled_from(Require), block=st.sampled_from(Require))

RULES = (
    make_rule("content.links > 3 && author.ageDays < 7", Verdict.REVIEW, name="spam"),
    make_rule("toxicity.toxic > 0.5", Verdict.BLOCK, name="toxic"),
    make_rule("image_safety.sexual >= 0.25 || context.surface == 'kids'", Verdict.REVIEW, name="kids"),
    make_rule("author.strikes / content.links > 1", Verdict.BLOCK, name="strikes"),
)
LISTS = (
    make_list("slurs", Verdict.REVIEW),
    make_list("banned", Verdict.BLOCK, type=ListType.DIGEST),
    make_list("cleared", Verdict.ALLOW, type=ListType.DIGEST),
)


@st.composite
def categories(draw, name: str):
    signals = draw(st.lists(st.sampled_from(SIGNALS), min_size=1, max_size=3, unique=True))
    languages = draw(st.sampled_from([(), ("en",)]))
    return Category(
        name=name,
        signals=tuple(Threshold(signal=each, review=draw(thresholds), block=draw(thresholds)) for each in signals),
        require=draw(requires),
        on_signal_missing=draw(st.sampled_from(OnSignalMissing)),
        languages=languages,
        on_language_unsupported=draw(st.sampled_from(OnLanguageUnsupported)) if languages else None,
    )


@st.composite
def policies(draw, name: str = "community", *, rules=RULES, lists=LISTS):
    return make_policy(
        *draw(st.tuples(*(categories(each) for each in draw(st.sampled_from([(), ("a",), ("a", "b"), ("b", "c")]))))),
        name=name,
        rules=tuple(draw(st.permutations(rules)))[: draw(st.integers(0, len(rules)))],
        lists=tuple(draw(st.permutations(lists)))[: draw(st.integers(0, len(lists)))],
        on_model_failure=draw(st.sampled_from(OnModelFailure)),
    )


@st.composite
def evidences(draw) -> Evidence:
    answers = {signal: draw(st.one_of(ratios, st.none(), st.sampled_from(Missing))) for signal in SIGNALS}
    kind = draw(st.sampled_from(["text", "image", "video"]))
    scores = {signal: answer for signal, answer in answers.items() if isinstance(answer, int)}
    video = kind == "video"
    limits = draw(st.sampled_from([(), ("TextTooLong",)]))
    models = sorted({model_of(signal) for signal in SIGNALS})
    about = draw(st.lists(st.sampled_from(models), unique=True)) if limits else []
    return make_evidence(
        scores,
        type=kind,
        missing={signal: answer for signal, answer in answers.items() if isinstance(answer, Missing)},
        links=draw(st.integers(0, 5)),
        author=draw(st.sampled_from([{}, {"ageDays": 3}, {"ageDays": 30, "strikes": 9}])),
        context=draw(st.sampled_from([{}, {"surface": "kids"}])),
        language=draw(st.sampled_from([None, "en", "de"])),
        lists=tuple(map(make_hit, draw(st.lists(st.sampled_from([each.name for each in LISTS]), unique=True)))),
        limits=limits,
        limited={"TextTooLong": tuple(about)} if about else {},
        degraded=draw(st.sampled_from([(), ("PolicySource",)])),
        frames=draw(frames_of(scores)) if video else (),
        video=draw(watched) if video else None,
    )


@st.composite
def frames_of(draw, scores: dict[str, int]) -> tuple[FrameSignals, ...]:
    """Two frames whose highest scores these are, each of which may lack some that the other has."""
    frames: tuple[dict[str, int], ...] = ({}, {})
    for signal, score in scores.items():
        order = draw(st.permutations(frames))
        order[0][signal] = score
        if draw(st.booleans()):
            order[1][signal] = draw(st.integers(0, score))
    return tuple(FrameSignals(at_milliseconds=500 * at, signals=signals) for at, signals in enumerate(frames))


watched = st.builds(
    lambda ratio, early_exit: VideoEvidence(
        duration_milliseconds=1000,
        coverage=Coverage(frames_expected=2, frames_judged=2, frames_undecodable=0, ratio=ratio, early_exit=early_exit),
    ),
    ratios,
    st.booleans(),
)
