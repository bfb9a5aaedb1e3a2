import asyncio
import os
import signal
import sys
import time
from contextlib import aclosing
from dataclasses import replace
from io import BytesIO

import psutil
import pytest
from PIL import Image

from baleen_core.errors import ContentError, TooLarge, UpstreamError, WrongType
from baleen_sidecar.adapters.frames import DecodingLimits, ProcessFrameDecoder
from baleen_sidecar.media.coverage import coverage
from baleen_sidecar.media.sampling import instants
from baleen_sidecar.ports import Frame, Skipped, VideoInfo
from media import SIZE, animation, encode, grey, level_of, rotated, steady, video, with_duration

CLIP = video(steady(3))
LIMITS = DecodingLimits()
SLEEPER = (sys.executable, "-I", "-c", "import time; time.sleep(60)")


OTHERS: set[int] = set()
"""Children that this process had before the test: a server that tests share is one."""


@pytest.fixture(autouse=True)
def _no_process_is_left():
    OTHERS.clear()
    OTHERS.update(child.pid for child in psutil.Process().children())
    yield
    assert children() == []


def decoder(**limits) -> ProcessFrameDecoder:
    return ProcessFrameDecoder(replace(LIMITS, **limits))


async def take(data: bytes, *, rate: int = 120, **limits) -> tuple[VideoInfo, list[Frame], Skipped]:
    info, *frames, skipped = [item async for item in decoder(**limits).frames(data, frames_per_minute=rate)]
    assert isinstance(info, VideoInfo)
    assert all(isinstance(frame, Frame) for frame in frames)
    assert isinstance(skipped, Skipped)
    return info, frames, skipped


def times(frames: list[Frame]) -> list[int]:
    return [frame.at_milliseconds for frame in frames]


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.pid not in OTHERS]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("avi", "mpeg4"),
        ("flv", "flv1"),
        ("mpegts", "libx264"),
        ("asf", "wmv2"),
        ("3gp", "mpeg4"),
    ],
)
async def test_three_seconds_at_120_a_minute_are_seven_frames_at_their_times(container, codec):
    info, frames, skipped = await take(video(steady(3), container=container, codec=codec))

    assert (info.width, info.height) == SIZE
    assert times(frames)[:6] == [0, 500, 1000, 1500, 2000, 2500]
    assert times(frames)[6:] == [skipped.duration_milliseconds]
    assert skipped.duration_milliseconds == pytest.approx(3000, abs=100)
    assert [level_of(frame.image) for frame in frames] == pytest.approx([20, 28, 40, 48, 60, 68, 78], abs=4)
    assert skipped.count == 0


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_every_picture_of_an_animated_image_is_seen(kind):
    levels = [20, 60, 100, 140, 180, 220]

    _, frames, skipped = await take(animation(levels, kind, milliseconds=[1000, 20, 20, 20, 20, 1000]))

    assert {level_of(frame.image) for frame in frames} == set(levels)
    assert times(frames) == sorted(times(frames))
    assert skipped == Skipped(count=0, duration_milliseconds=2080)


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
async def test_no_picture_hides_in_an_animation_of_more_than_120(kind):
    levels = range(0, 242, 2)  # all different, or the encoder would merge them

    _, frames, skipped = await take(animation(levels, kind, milliseconds=40))

    assert {level_of(frame.image) for frame in frames} == set(levels)
    assert skipped.count == 0


async def test_pictures_of_an_animation_that_are_not_handed_on_count_as_skipped():
    levels = [index % 256 for index in range(200)]

    _, frames, skipped = await take(animation(levels, milliseconds=20))

    assert len({level_of(frame.image) for frame in frames}) + skipped.count == 200
    assert skipped.count > 0
    assert times(frames) == sorted(times(frames))


async def test_a_long_animation_that_repeats_its_pictures_is_seen_wholly():
    _, frames, skipped = await take(animation([40, 200] * 200, milliseconds=20))

    assert {level_of(frame.image) for frame in frames} == {40, 200}
    assert len(frames) < 25
    assert skipped.count == 0


async def test_each_picture_that_an_animation_loses_by_damage_counts_as_skipped():
    whole = animation(range(0, 200, 10), "PNG")
    damaged = bytearray(whole)
    place = whole.index(b"fdAT", len(whole) // 2)
    damaged[place + 8 : place + 20] = bytes(12)

    _, frames, skipped = await take(bytes(damaged))

    assert 0 < len({level_of(frame.image) for frame in frames}) < 20
    assert len({level_of(frame.image) for frame in frames}) + skipped.count == 20


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("covers", [[200], [200, 150]])
async def test_a_cover_is_a_frame_at_the_beginning_and_the_film_is_seen_as_without_it(container, covers):
    _, plain, ended = await take(video(steady(3), container=container))

    info, frames, skipped = await take(video(steady(3), container=container, covers=covers))

    assert (info.width, info.height) == SIZE
    assert [level_of(frame.image) for frame in frames] == covers + [level_of(frame.image) for frame in plain]
    assert times(frames) == [0] * len(covers) + times(plain)
    assert skipped.count == ended.count == 0


async def test_a_cover_that_cannot_be_decoded_counts_as_skipped():
    damaged = video(steady(3), covers=[200]).replace(b"IDAT", b"IDxx")

    _, frames, skipped = await take(damaged)

    assert len(frames) == 7
    assert skipped.count == 1


async def test_covers_beyond_the_eighth_count_as_skipped():
    _, frames, skipped = await take(video(steady(3), covers=range(100, 200, 10)))

    assert [level_of(frame.image) for frame in frames][:8] == list(range(100, 180, 10))
    assert (len(frames), skipped.count) == (8 + 7, 2)


async def test_a_cover_alone_is_no_video():
    with pytest.raises(WrongType, match="holds no video"):
        await take(video([], videos=0, audio_seconds=1, covers=[200]))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(CLIP, "video/mp4", id="MP4"),
        pytest.param(video(steady(1), container="mov"), "video/quicktime", id="MOV"),
        pytest.param(video(steady(1), container="3gp", codec="mpeg4"), "video/3gpp", id="3GP"),
        pytest.param(video(steady(1), container="webm", codec="libvpx"), "video/webm", id="WebM"),
        pytest.param(video(steady(1), container="matroska"), "video/x-matroska", id="Matroska"),
        pytest.param(video(steady(1), container="avi", codec="mpeg4"), "video/x-msvideo", id="AVI"),
        pytest.param(video(steady(1), container="mpegts"), "video/mp2t", id="MPEG transport stream"),
        pytest.param(animation([1, 90]), "image/gif", id="GIF"),
        pytest.param(animation([1, 90], "WEBP"), "image/webp", id="WebP"),
    ],
)
async def test_the_media_type_is_what_the_bytes_are(data, expected):
    info, _, _ = await take(data)

    assert info.media_type == expected


async def test_a_still_image_is_one_frame():
    _, frames, skipped = await take(encode(grey(90), "GIF"))

    assert {level_of(frame.image) for frame in frames} == {90}
    assert skipped.count == 0


async def test_the_picture_on_display_is_seen_however_uneven_the_frames_are():
    _, frames, _ = await take(video([(0, 30), (40, 120), (5040, 200), (5080, 210)]))

    assert [level_of(frame.image) for frame in frames] == pytest.approx([30, *[120] * 10, 210], abs=3)


async def test_a_picture_that_stays_on_display_is_the_same_object():
    _, frames, _ = await take(video([(0, 30), (5000, 200)]))

    assert len({id(frame.image) for frame in frames}) == 2


@pytest.mark.parametrize("claimed", [1, 500, 9000, 50_000])
async def test_a_lying_duration_hides_nothing(claimed):
    _, frames, skipped = await take(with_duration(CLIP, claimed))

    assert set(instants(2999, 120)[:-1]) <= set(times(frames))
    assert [level_of(frame.image) for frame in frames][-1] == pytest.approx(78, abs=3)
    assert skipped.duration_milliseconds >= 3000


async def test_frames_that_all_claim_the_same_time_are_spread_out():
    crowded = video([(index, 20 + index % 200) for index in range(1200)])

    _, frames, skipped = await take(crowded)

    assert times(frames)[:3] == [0, 500, 1000]
    assert skipped.duration_milliseconds >= 1200


async def test_a_truncated_video_gives_what_it_has_and_the_coverage_says_so():
    whole = video(steady(3), container="matroska")

    _, frames, skipped = await take(whole[: len(whole) // 2])

    assert times(frames)[0] == 0
    assert 0 < len(frames) < 7
    assert skipped.count == 7 - len(frames)
    seen = coverage(
        duration_milliseconds=skipped.duration_milliseconds,
        frames_per_minute=120,
        judged=len(frames),
        undecodable=skipped.count,
    )
    assert seen.ratio < 990_000


async def test_a_damaged_stretch_is_counted_and_the_rest_is_seen():
    damaged = bytearray(video(steady(6), container="matroska"))
    third = len(damaged) // 3
    damaged[third : 2 * third] = bytes(third)

    _, frames, skipped = await take(bytes(damaged))

    assert times(frames)[0] == 0
    assert times(frames)[-1] == pytest.approx(6000, abs=100)
    assert len(frames) < 8
    assert skipped.count == 13 - len(frames)


async def test_a_video_that_a_phone_filmed_upright_is_turned():
    sideways = Image.new("RGB", (64, 48), "black")
    sideways.paste((255, 255, 255), (0, 0, 32, 48))
    data = rotated(_video_of(sideways))

    _, frames, _ = await take(data)

    image = frames[0].image
    assert image.size == (48, 64)
    assert image.getpixel((24, 8))[0] > 200
    assert image.getpixel((24, 56))[0] < 60


async def test_a_large_frame_is_made_smaller_in_its_proportions():
    info, frames, _ = await take(video([(0, 100), (40, 100)], size=(1920, 1080)))

    assert (info.width, info.height) == (1920, 1080)
    assert frames[0].image.size == (1280, 720)


@pytest.mark.parametrize(
    ("data", "limits", "kind", "message"),
    [
        pytest.param(b"", {}, ContentError, "empty", id="nothing"),
        pytest.param(bytes(5000), {}, WrongType, "MP4, MOV", id="zeros"),
        pytest.param(b"<!doctype html>" * 50, {}, WrongType, "MP4, MOV", id="HTML"),
        pytest.param(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", {}, WrongType, "MP4, MOV", id="a list of files"),
        pytest.param(
            b"ffconcat version 1.0\nfile '/etc/hostname'\n", {}, WrongType, "MP4, MOV", id="another list of files"
        ),
        pytest.param(CLIP[: len(CLIP) // 2], {}, WrongType, "index is cut off", id="truncated before its index"),
        pytest.param(video([], videos=0, audio_seconds=1), {}, WrongType, "holds no video", id="audio only"),
        pytest.param(video(steady(1), videos=2), {}, WrongType, "holds 2 videos", id="a second video to hide in"),
        pytest.param(
            video([(i * 1000, 50) for i in range(61)] + [(60_960, 50)]), {}, TooLarge, "limit of 60 s", id="61 seconds"
        ),
        pytest.param(CLIP + bytes(2**20), {"max_bytes": 2**20}, TooLarge, "limit of 1 MiB", id="too many bytes"),
        pytest.param(CLIP, {"max_pixels": 1000}, TooLarge, "64 x 48 pixels", id="too many pixels"),
        pytest.param(CLIP, {"memory_bytes": 60 * 2**20}, ContentError, "", id="too much memory"),
        pytest.param(animation([1, 90], milliseconds=40_000), {}, TooLarge, "limit of 60 s", id="an endless animation"),
        pytest.param(animation([1, 90])[:40], {}, ContentError, "", id="an animation truncated in its first picture"),
    ],
)
async def test_bad_videos_are_refused_with_the_reason(data, limits, kind, message):
    with pytest.raises(kind) as caught:
        await take(data, **limits)

    assert type(caught.value) is kind
    (problem,) = caught.value.problems
    assert problem.field == "content"
    assert message in problem.message


async def test_a_claim_of_few_seconds_does_not_pass_the_limit_on_length():
    long = with_duration(video([(i * 1000, 50) for i in range(70)]), 2000)

    with pytest.raises(TooLarge, match="over the limit of 60 s"):
        await take(long)


async def test_closing_early_leaves_no_process():
    async with aclosing(decoder().frames(video(steady(20)), frames_per_minute=120)) as frames:
        await anext(frames)
        await anext(frames)
        assert len(children()) == 1

    assert children() == []


async def test_cancelling_the_waiter_leaves_no_process():
    frames = ProcessFrameDecoder(LIMITS, worker=SLEEPER).frames(CLIP, frames_per_minute=120)
    task = asyncio.create_task(anext(frames))
    async with asyncio.timeout(10):
        while not children():  # noqa: ASYNC110 - a process gives no event when it appears
            await asyncio.sleep(0.01)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert children() == []


async def test_a_process_that_hangs_is_killed():
    hanging = ProcessFrameDecoder(replace(LIMITS, stall_seconds=0.5), worker=SLEEPER)
    begun = time.monotonic()

    with pytest.raises(ContentError, match=r"no frame within 0\.5 s"):
        async for _ in hanging.frames(CLIP, frames_per_minute=120):
            pass

    assert time.monotonic() - begun < 10


async def test_a_process_that_is_stopped_is_killed():
    frames = decoder(stall_seconds=2, long_side=640).frames(_tall_clip(), frames_per_minute=6000)
    await anext(frames)
    children()[0].send_signal(signal.SIGSTOP)

    with pytest.raises(ContentError, match="no frame within 2 s"):
        async for _ in frames:
            pass


async def test_a_process_that_dies_is_an_error_and_never_a_short_video():
    frames = decoder().frames(_tall_clip(), frames_per_minute=6000)
    await anext(frames)
    children()[0].kill()

    with pytest.raises(ContentError, match=r"ended abnormally \(SIGKILL\)"):
        async for _ in frames:
            pass


async def test_a_decoding_that_takes_too_much_processor_time_is_ended():
    spin = "import resource, sys\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass"
    busy = ProcessFrameDecoder(replace(LIMITS, cpu_seconds=1), worker=(sys.executable, "-I", "-c", spin))

    with pytest.raises(ContentError, match="more than 1 s of processor time"):
        async for _ in busy.frames(CLIP, frames_per_minute=120):
            pass


async def test_without_the_video_extra_the_error_says_what_to_install():
    worker = "import sys\nsys.modules['av'] = None\nfrom baleen_sidecar.adapters.frame_worker import main\nmain()"
    bare = ProcessFrameDecoder(LIMITS, worker=(sys.executable, "-I", "-c", worker))

    with pytest.raises(UpstreamError, match=r"extra \[video\]"):
        async for _ in bare.frames(CLIP, frames_per_minute=120):
            pass


async def test_a_slow_judge_is_no_stall():
    count = 0
    async for _ in decoder(stall_seconds=1.5).frames(video(steady(1)), frames_per_minute=120):
        await asyncio.sleep(0.6)
        count += 1

    assert count == 5


async def test_at_most_so_many_files_are_decoded_at_once():
    shared = ProcessFrameDecoder(LIMITS, processes=1)

    async def count_children() -> int:
        most = 0
        async for _ in shared.frames(CLIP, frames_per_minute=120):
            most = max(most, len(children()))
        return most

    assert max(await asyncio.gather(*(count_children() for _ in range(3)))) == 1


async def test_the_process_sees_none_of_our_secrets_and_can_open_no_file(monkeypatch):
    monkeypatch.setenv("BALEEN_SECRET", "swordfish")
    frames = decoder().frames(_tall_clip(), frames_per_minute=6000)
    await anext(frames)

    (worker,) = children()
    assert "BALEEN_SECRET" not in worker.environ()
    assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
    assert worker.rlimit(psutil.RLIMIT_NOFILE) == (0, 0)
    assert worker.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert worker.rlimit(psutil.RLIMIT_AS) == (LIMITS.memory_bytes, LIMITS.memory_bytes)
    assert os.sched_getscheduler(worker.pid) == os.SCHED_IDLE
    await frames.aclose()


def _tall_clip() -> bytes:
    """More frames than the pipe and the reader's buffer hold, so that its process is still there when looked at."""
    return video(steady(4), size=(640, 480))


def _video_of(picture: Image.Image) -> bytes:
    import av

    file = BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_image(picture)))
        output.mux(stream.encode(None))
    return file.getvalue()
