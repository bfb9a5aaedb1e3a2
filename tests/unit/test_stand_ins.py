"""The stand-ins of `baleen_sidecar.testing` keep the promises of the ports they stand for."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from baleen_core.errors import ContentError, FetchError, IntegrityError, LogUnavailable, ModelUnavailable
from baleen_core.model.schema import Batching, DataType, Model, ModelSignal, Preprocessing, Source, SourceType, Tensor
from baleen_sidecar.ports import Frame, Page, Skipped, VideoInfo
from baleen_sidecar.testing import (
    FixedFrames,
    FixedImages,
    FixedInference,
    FixedLanguage,
    FixedPerceptualHash,
    MemoryDecisionLog,
    MemoryFetcher,
)
from decision_records import make_record

MODEL = Model(
    name="nudity",
    version="1",
    source=Source(type=SourceType.FILE, uri="nudity.onnx"),
    inputs=(Tensor(name="pixels", data_type=DataType.FP32, dims=(4,)),),
    outputs=(
        Tensor(name="classes", data_type=DataType.FP32, dims=(2,)),
        Tensor(name="mask", data_type=DataType.FP32, dims=(1, -1, 3)),
    ),
    preprocessing=Preprocessing(recipe="none/1"),
    signals=(
        ModelSignal(name="safe", output="classes", index=0),
        ModelSignal(name="nude", output="classes", index=1),
        ModelSignal(name="anywhere", output="mask"),
    ),
    batching=Batching(max_batch_size=4),
)


def pixels(*rows: float) -> dict[str, np.ndarray]:
    return {"pixels": np.array([[row] * 4 for row in rows], dtype=np.float32)}


async def test_a_model_gives_the_scores_it_was_told_in_the_shape_it_declares() -> None:
    inference = FixedInference({"nudity.nude": 0.75, "nudity.anywhere": 0.5}, default=0.25)

    answer = await inference.infer(MODEL, pixels(0.0, 1.0))

    assert answer["classes"].tolist() == [[0.25, 0.75]] * 2
    assert answer["mask"].shape == (2, 1, 1, 3)
    assert answer["mask"].dtype == np.float32
    assert answer["mask"].max() == answer["mask"].min() == 0.5
    assert inference.calls == [("nudity", 2)]


async def test_a_score_can_follow_from_its_row() -> None:
    inference = FixedInference({"nudity.nude": lambda row: float(row["pixels"].mean())})

    answer = await inference.infer(MODEL, pixels(0.0, 0.5, 1.0))

    assert answer["classes"][:, 1].tolist() == [0.0, 0.5, 1.0]


async def test_a_model_that_is_down_answers_again_once_it_is_up() -> None:
    inference = FixedInference(down=["nudity"])
    with pytest.raises(ModelUnavailable, match="model nudity is down"):
        await inference.infer(MODEL, pixels(0.0))
    assert not await inference.is_ready(MODEL)

    inference.down.clear()

    assert await inference.is_ready(MODEL)
    assert set(await inference.infer(MODEL, pixels(0.0))) == {"classes", "mask"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param(pixels(*[0.0] * 5), "takes 1 to 4 rows", id="more rows than a batch"),
        pytest.param(pixels()["pixels"].reshape(0, 4), "takes 1 to 4 rows", id="no rows"),
        pytest.param(pixels(0.0)["pixels"].astype(np.float64), "takes the inputs", id="another type"),
    ],
)
async def test_inputs_that_a_server_would_refuse_are_refused(inputs: object, message: str) -> None:
    tensors = inputs if isinstance(inputs, dict) else {"pixels": inputs}

    with pytest.raises(ModelUnavailable, match=message):
        await FixedInference().infer(MODEL, tensors)


async def test_inputs_are_known_by_name() -> None:
    renamed = replace(MODEL, inputs=(Tensor(name="image", data_type=DataType.FP32, dims=(4,)),))

    with pytest.raises(ModelUnavailable, match="takes the inputs"):
        await FixedInference().infer(renamed, pixels(0.0))


async def test_a_log_with_a_fault_refuses_until_it_is_mended() -> None:
    log = MemoryDecisionLog()
    log.fault = "disk full"
    with pytest.raises(LogUnavailable, match="disk full"):
        await log.append(make_record("01-a"))

    log.fault = ""
    await log.append(make_record("01-a"))

    assert await log.count() == 1


async def test_a_fetcher_gives_pages_errors_and_404() -> None:
    page = Page(data=b"picture", media_type="image/png")
    fetcher = MemoryFetcher(
        {"https://a.example/": page, "https://b.example/": IntegrityError("b", expected="1", found="2")}
    )

    assert await fetcher.fetch("https://a.example/") == page
    with pytest.raises(IntegrityError):
        await fetcher.fetch("https://b.example/")
    with pytest.raises(FetchError, match="404"):
        await fetcher.fetch("https://c.example/")
    with pytest.raises(ContentError, match=r"content\.url: 'file:///etc/passwd' must begin with http"):
        await fetcher.fetch("file:///etc/passwd")


def test_a_language_is_the_one_that_was_set() -> None:
    detector = FixedLanguage("en", texts={"hola": "es", "?": None})

    assert [detector.detect(text) for text in ("hello", "hola", "?")] == ["en", "es", None]


def test_any_bytes_are_the_picture_and_no_bytes_are_none() -> None:
    images = FixedImages(Image.new("L", (8, 6)), animated=True)

    assert images.decode(b"x").mode == "RGB"
    assert (images.inspect(b"x").width, images.inspect(b"x").height, images.inspect(b"x").animated) == (8, 6, True)
    with pytest.raises(ContentError, match="no bytes are not an image"):
        images.decode(b"")


def test_equal_pictures_have_equal_names_of_256_bits() -> None:
    black, white = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "white")
    names = FixedPerceptualHash()

    assert names.hash(black) == names.hash(black.copy()) != names.hash(white)
    assert len(names.hash(black)) * 8 == 256
    assert FixedPerceptualHash(bytes(32)).hash(white) == bytes(32)


async def test_a_video_shows_its_pictures_in_turn_at_the_sampling_instants() -> None:
    black, white = Image.new("RGB", (4, 2)), Image.new("RGB", (4, 2), "white")
    decoder = FixedFrames([black, white], duration_milliseconds=2000, skipped=1)

    first, *frames, last = [item async for item in decoder.frames(b"x", frames_per_minute=120)]

    assert first == VideoInfo(duration_milliseconds=2000, width=4, height=2)
    assert [(frame.at_milliseconds, frame.image is white) for frame in frames if isinstance(frame, Frame)] == [
        (0, False),
        (500, False),
        (1000, True),
        (1500, True),
    ]
    assert last == Skipped(count=1, duration_milliseconds=2000)
    assert decoder.yielded == 4


async def test_no_bytes_are_no_video() -> None:
    with pytest.raises(ContentError, match="no bytes are not a video"):
        _ = [item async for item in FixedFrames([Image.new("RGB", (1, 1))]).frames(b"", frames_per_minute=60)]
    with pytest.raises(ValueError, match="one picture or more"):
        FixedFrames([])
