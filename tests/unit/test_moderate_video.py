"""Moving pictures are judged frame by frame, as far as the policy asks, and what was seen is said."""

from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from PIL import Image

from baleen_core.assignment import Assignment, Exposure
from baleen_core.decision.engine import compile_policy
from baleen_core.decision.snapshot import InForce, LoadedTrial
from baleen_core.model.loaded import LoadedModel
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.records import Cohort, ContentFacts, Context, Evidence, FrameSignals, Missing
from baleen_sidecar.ports import Frame, Skipped, VideoInfo
from baleen_sidecar.testing import FixedFrames, FixedInference
from baleen_sidecar.usecases.moderate_video import GROUP, judge_frames
from baleen_sidecar.usecases.scoring import Scoring
from baleen_sidecar.usecases.serve_models import FixedModels
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
