"""Hypothesis strategies for policies that are ready to judge, and for evidence of every kind.

Strategies are made once: hypothesis looks through each new one, which takes longer than to draw from it.
"""

from functools import cache

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


_signals = st.lists(st.sampled_from(SIGNALS), min_size=1, max_size=3, unique=True)
_languages = st.sampled_from([(), ("en",)])
_on_signal_missing = st.sampled_from(OnSignalMissing)
_on_language_unsupported = st.sampled_from(OnLanguageUnsupported)
_on_model_failure = st.sampled_from(OnModelFailure)


@cache
@st.composite
def categories(draw, name: str):
    signals = draw(_signals)
    languages = draw(_languages)
    return Category(
        name=name,
        signals=tuple(Threshold(signal=each, review=draw(thresholds), block=draw(thresholds)) for each in signals),
        require=draw(requires),
        on_signal_missing=draw(_on_signal_missing),
        languages=languages,
        on_language_unsupported=draw(_on_language_unsupported) if languages else None,
    )


_some_categories = st.one_of(*(st.tuples(*map(categories, names)) for names in ("", "a", "ab", "bc")))


@cache
def _some_of(values):
    """Draw a few of them in any order."""
    return st.tuples(st.permutations(values), st.integers(0, len(values))).map(
        lambda drawn: tuple(drawn[0][: drawn[1]])
    )


@cache
@st.composite
def policies(draw, name: str = "community", *, rules=RULES, lists=LISTS):
    return make_policy(
        *draw(_some_categories),
        name=name,
        rules=draw(_some_of(rules)),
        lists=draw(_some_of(lists)),
        on_model_failure=draw(_on_model_failure),
    )


watched = st.builds(
    lambda ratio, early_exit: VideoEvidence(
        duration_milliseconds=1000,
        coverage=Coverage(frames_expected=2, frames_judged=2, frames_undecodable=0, ratio=ratio, early_exit=early_exit),
    ),
    ratios,
    st.booleans(),
)
_answers = st.fixed_dictionaries(dict.fromkeys(SIGNALS, st.one_of(ratios, st.none(), st.sampled_from(Missing))))
_kinds = st.sampled_from(["text", "image", "video"])
_limits = st.sampled_from([(), ("TextTooLong",)])
_about = st.lists(st.sampled_from(sorted({model_of(signal) for signal in SIGNALS})), unique=True)
_authors = st.sampled_from([{}, {"ageDays": 3}, {"ageDays": 30, "strikes": 9}])
_contexts = st.sampled_from([{}, {"surface": "kids"}])
_spoken = st.sampled_from([None, "en", "de"])
_hits = st.lists(st.sampled_from([each.name for each in LISTS]), unique=True)
_degraded = st.sampled_from([(), ("PolicySource",)])


@cache
@st.composite
def evidences(draw) -> Evidence:
    answers = draw(_answers)
    kind = draw(_kinds)
    scores = {signal: answer for signal, answer in answers.items() if isinstance(answer, int)}
    video = kind == "video"
    limits = draw(_limits)
    about = draw(_about) if limits else []
    return make_evidence(
        scores,
        type=kind,
        missing={signal: answer for signal, answer in answers.items() if isinstance(answer, Missing)},
        links=draw(st.integers(0, 5)),
        author=draw(_authors),
        context=draw(_contexts),
        language=draw(_spoken),
        lists=tuple(map(make_hit, draw(_hits))),
        limits=limits,
        limited={"TextTooLong": tuple(about)} if about else {},
        degraded=draw(_degraded),
        rescannable=draw(st.booleans()),
        frames=_frames_of(draw, scores) if video else (),
        video=draw(watched) if video else None,
    )


def _frames_of(draw, scores: dict[str, int]) -> tuple[FrameSignals, ...]:
    """Two frames whose highest scores these are, each of which may lack some that the other has."""
    frames: tuple[dict[str, int], ...] = ({}, {})
    for signal, score in scores.items():
        higher = draw(st.booleans())
        frames[higher][signal] = score
        if draw(st.booleans()):
            frames[not higher][signal] = draw(st.integers(0, score))
    return tuple(FrameSignals(at_milliseconds=500 * at, signals=signals) for at, signals in enumerate(frames))
