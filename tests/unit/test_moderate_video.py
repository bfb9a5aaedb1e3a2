"""Moving pictures are judged frame by frame, as far as the policy asks, and what was seen is said."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from baleen_core.assignment import Assignment, Exposure
from baleen_core.decision.engine import CompiledPolicy, compile_policy, decide
from baleen_core.decision.snapshot import InForce, LoadedTrial
from baleen_core.model.loaded import LoadedModel
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import OnModelFailure, Require, Requirement, Verdict
from baleen_core.records import Cohort, ContentFacts, Context, Evidence, FrameSignals, Missing
from baleen_sidecar.ports import ANYONE, Frame, Skipped, VideoInfo, Work
from baleen_sidecar.testing import FixedFrames, FixedInference
from baleen_sidecar.usecases import moderate_video
from baleen_sidecar.usecases.moderate_video import GROUP, judge_frames
from baleen_sidecar.usecases.scoring import BeforeModels, Scores, Scoring, nothing_before
from baleen_sidecar.usecases.serve_models import FixedModels
from evidence import SIGNALS, make_category, make_rule, make_threshold
from evidence import make_policy as make_compiled
from policies import make_policy
from tiny_models import brightness, make_model

START = Evidence(content=ContentFacts(type="video", digest="d", length=1), context=Context())
LOOKS = make_model("looks", recipe="owen-s/1")


def shade(level: int) -> Image.Image:
    return Image.new("RGB", (2, 2), (level, 0, 0))


def make_policies(**video: object) -> InForce:
    signals = [{"name": "looks.bad", "review": "50%", "block": "90%"}]
    content = {"categories": [{"name": "bad", "signals": signals}], "video": video}
    revision = read_revision(make_revision(make_policy(content), {}))
    return InForce(winners=(compile_policy("p", "v1", revision, {"looks.bad"}),), floors=(), dry_runs=())


class Setting:
    """A scoring whose score is the picture's red, and the calls that it took."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.inference = FixedInference({"looks.bad": lambda inputs: float(inputs["image"][0]) / 255})
        models = [LoadedModel(model=LOOKS, sha256="aa", image=brightness)]
        self.scoring = Scoring(FixedModels(models).current, self.inference, executor=executor, text_limit_windows=64)

    async def judge(self, decoder: object, in_force: InForce) -> Evidence:
        return await judge_frames(decoder, self.scoring, in_force, b"video", START, pdq=no_hash)


async def no_hash(picture: Image.Image) -> bytes:
    raise AssertionError("no list of perceptual hashes is in force")


@pytest.fixture
def setting() -> Iterator[Setting]:
    with ThreadPoolExecutor(1) as executor:
        yield Setting(executor)


async def test_every_frame_is_scored_and_the_highest_is_the_videos(setting):
    pictures = [shade(level) for level in (0, 51, 102, 0)]
    evidence = await setting.judge(FixedFrames(pictures, duration_milliseconds=2000), make_policies())

    assert [frame.signals["looks.bad"] for frame in evidence.frames] == [0, 200_000, 400_000, 0, 0]
    assert evidence.signals == {"looks.bad": 400_000}
    assert (evidence.video.coverage.frames_judged, evidence.video.coverage.ratio) == (5, 1_000_000)


async def test_looking_ends_with_the_group_that_brought_a_block(setting):
    frames = FixedFrames([shade(255 if at == 1 else 0) for at in range(100)], duration_milliseconds=50_000)
    evidence = await setting.judge(frames, make_policies())

    assert len(evidence.frames) == GROUP
    assert evidence.video.coverage.early_exit
    assert frames.yielded <= GROUP + 2


def make_trial(policies: InForce, **thresholds: str) -> InForce:
    """Have a candidate with other thresholds beside the policy, which counts for nobody."""
    (stable,) = policies.winners
    signals = [{"name": "looks.bad", **thresholds}]
    content = {"categories": [{"name": "bad", "signals": signals}]}
    compiled = compile_policy("p", "v2", read_revision(make_revision(make_policy(content), {})), {"looks.bad"})
    candidate = replace(compiled, cohort=Cohort.CANDIDATE)
    trial = LoadedTrial(
        compiled=candidate, lists=(), exposure=Exposure(is_shadow=True), assignment=Assignment(salt="salt")
    )
    return replace(policies, rollouts=((stable, trial),)).assigned(START.context, START.content.digest)


@pytest.mark.parametrize(
    ("thresholds", "stops"),
    [
        pytest.param({"block": "80%"}, True, id="the candidate blocks too"),
        pytest.param({"review": "50%"}, False, id="the candidate might still be brought to block"),
    ],
)
async def test_in_a_rollout_looking_ends_only_where_both_sides_block(setting, thresholds, stops):
    frames = FixedFrames([shade(255)], duration_milliseconds=9_500)
    evidence = await setting.judge(frames, make_trial(make_policies(), **thresholds))

    assert evidence.video.coverage.early_exit is stops
    assert len(evidence.frames) == (GROUP if stops else 20)


async def test_a_policy_that_wants_everything_looked_at_gets_it(setting):
    frames = FixedFrames([shade(255)], duration_milliseconds=9_500)
    evidence = await setting.judge(frames, make_policies(earlyExit=False))

    assert len(evidence.frames) == 20
    assert not evidence.video.coverage.early_exit


async def test_a_picture_that_stays_on_display_is_scored_once(setting):
    evidence = await setting.judge(FixedFrames([shade(51)], duration_milliseconds=9_500), make_policies())

    assert [rows for _, rows in setting.inference.calls] == [1]
    assert [frame.signals for frame in evidence.frames] == [{"looks.bad": 200_000}] * 20


async def test_a_picture_that_stays_on_display_is_decided_on_once_however_many_frames_it_has(setting, monkeypatch):
    decided_on = []

    def note(in_force, evidence):
        decided_on.append(len(evidence.frames))
        return decide(in_force, evidence)

    monkeypatch.setattr(moderate_video, "decide", note)
    evidence = await setting.judge(FixedFrames([shade(51)], duration_milliseconds=49_500), make_policies())

    assert len(evidence.frames) == 100
    assert set(decided_on) == {1}


async def test_others_get_their_turns_while_a_picture_stays_on_display(setting):
    frames = FixedFrames([shade(51)], duration_milliseconds=49_500)
    seen = set()

    async def look() -> None:
        while True:
            seen.add(frames.yielded)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        other = group.create_task(look())
        await setting.judge(frames, make_policies())
        other.cancel()

    assert seen >= set(range(GROUP, 100, GROUP))


Row = dict[str, int]


class Film:
    """Frames of pictures that are given by their scores, and the models that give them; one is never asked twice."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._pictures = [shade(0) for _ in rows]

    async def frames(self, data: bytes, *, frames_per_minute: int) -> AsyncGenerator[Frame | VideoInfo | Skipped, None]:
        for at, picture in enumerate(self._pictures):
            yield Frame(at_milliseconds=at * 500, image=picture)
        yield Skipped(count=0, duration_milliseconds=500 * len(self._rows))

    async def pictures(
        self,
        pictures: Sequence[Image.Image],
        wanted: Collection[str],
        work: Work = ANYONE,
        *,
        before_models: BeforeModels = nothing_before,
    ) -> Scores:
        at = [next(index for index, each in enumerate(self._pictures) if each is picture) for picture in pictures]
        rows = tuple(self._rows[index] for index in at)
        return Scores(rows=rows, missing=missing_of(rows), models=())


def missing_of(rows: Sequence[Row]) -> dict[str, Missing]:
    return {signal: Missing.FAILED for signal in SIGNALS if any(signal not in row for row in rows)}


def is_blocked(policy: CompiledPolicy, rows: Sequence[Row]) -> bool:
    frames = tuple(FrameSignals(at_milliseconds=at * 500, signals=row) for at, row in enumerate(rows))
    highest = {signal: max(row[signal] for row in rows if signal in row) for row in rows for signal in row}
    evidence = msgspec.structs.replace(START, signals=highest, missing=missing_of(rows), frames=frames)
    return decide(InForce(winners=(policy,), floors=(), dry_runs=()), evidence).decision is Verdict.BLOCK


def make_strict(require: Require, on_failure: OnModelFailure, when: str) -> CompiledPolicy:
    """A policy whose verdict is of the scores of one frame, of the highest of all, and of those that are missing."""
    thresholds = [make_threshold(signal, block="50%") for signal in SIGNALS[:2]]
    category = make_category("bad", *thresholds, require=Requirement(block=require))
    rules = (make_rule(when, Verdict.BLOCK),)
    return make_compiled(category, rules=rules, on_model_failure=on_failure)


WHEN = ("toxicity.toxic > 0.5", "toxicity.toxic == 0.2", "image_safety.sexual > 0.5 && toxicity.toxic > 0.5")
strict = st.builds(
    make_strict,
    st.sampled_from(Require),
    st.sampled_from(OnModelFailure),
    st.sampled_from(WHEN),
)
usual = st.sampled_from([0, 200_000, 400_000, 600_000])
whole = st.fixed_dictionaries(dict.fromkeys(SIGNALS, usual))
partial = st.fixed_dictionaries({}, optional=dict.fromkeys(SIGNALS, usual))
runs = st.lists(st.tuples(st.one_of(whole, whole, partial), st.integers(1, 12)), min_size=1, max_size=5)


@settings(max_examples=100)
@given(policy=strict, shown=runs)
async def test_looking_ends_where_all_frames_so_far_together_are_a_block(policy, shown):
    rows = [row for row, count in shown for _ in range(count)]
    film = Film(rows)
    ends = (*range(GROUP, len(rows), GROUP), len(rows))
    first = next((end for end in ends if is_blocked(policy, rows[:end])), None)

    in_force = InForce(winners=(policy,), floors=(), dry_runs=())
    evidence = await judge_frames(film, film, in_force, b"video", START, pdq=no_hash)

    assert len(evidence.frames) == (first or len(rows))
    assert evidence.video.coverage.early_exit is (first is not None)


async def test_what_could_not_be_decoded_is_not_covered(setting):
    evidence = await setting.judge(FixedFrames([shade(0)], duration_milliseconds=2000, skipped=3), make_policies())

    assert evidence.video.coverage.frames_undecodable == 3
    assert evidence.video.coverage.ratio < 990_000


class FailsLater:
    """Frames whose later half finds the model gone."""

    def __init__(self, inference: FixedInference) -> None:
        self.inference = inference

    async def frames(self, data: bytes, *, frames_per_minute: int) -> AsyncGenerator[Frame | VideoInfo | Skipped, None]:
        yield VideoInfo(duration_milliseconds=8000, width=2, height=2)
        for at in range(GROUP * 2):
            if at == GROUP:
                self.inference.down.add("looks")
            yield Frame(at_milliseconds=at * 500, image=shade(51))
        yield Skipped(count=0, duration_milliseconds=8000)


async def test_a_model_that_fails_midway_leaves_what_it_said_and_that_it_failed(setting):
    evidence = await setting.judge(FailsLater(setting.inference), make_policies())

    assert evidence.signals == {"looks.bad": 200_000}
    assert evidence.missing == {"looks.bad": Missing.FAILED}
    assert evidence.frames[0] == FrameSignals(at_milliseconds=0, signals={"looks.bad": 200_000})
    assert evidence.frames[-1].signals == {}
