"""Images over HTTP, judged by the real models: every way to send one, and every kind of file that is odd but honest."""

import base64
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from baleen_sidecar.testing import FixedInference
from media import animation, encode
from sidecars import EXAMPLES, RunningSidecar, StartSidecar, post
from web_pages import WebPage, serve_pages

ASTRONAUT = (EXAMPLES / "content" / "astronaut.jpg").read_bytes()
PICTURE = Image.open(BytesIO(ASTRONAUT)).convert("RGB").resize((320, 240))


def judge(running: RunningSidecar, data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    response = running.client.post("/v1/moderate", content=data, headers={"Content-Type": media_type})
    assert response.status_code == 200, response.text
    return response.json()


def signals(answer: dict[str, Any]) -> dict[str, float]:
    return {name: score for each in answer["categories"] for name, score in each["signals"].items()}


@pytest.fixture(scope="module")
def upright(sidecar: RunningSidecar) -> dict[str, float]:
    """Give the scores of `PICTURE`."""
    return signals(judge(sidecar, encode(PICTURE)))


def test_an_image_is_judged_by_all_models_that_its_policies_ask(sidecar: RunningSidecar) -> None:
    answer = judge(sidecar, ASTRONAUT, "image/jpeg")

    assert answer["decision"] == "Allow"
    assert set(signals(answer)) == {"image-safety.gore", "image-safety.sexual", "open-nsfw.unsafe"}
    assert [model["name"] for model in answer["models"]] == ["image-safety", "open-nsfw"]
    assert not {"language", "video", "would_be"} & set(answer)


def test_bytes_base64_and_an_address_give_the_same_decision(sidecar: RunningSidecar) -> None:
    encoded = {"type": "image", "data": base64.b64encode(ASTRONAUT).decode()}
    with serve_pages({"/astronaut.jpg": WebPage(body=ASTRONAUT, headers={"Content-Type": "image/jpeg"})}) as pages:
        by_address = post(sidecar, {"type": "image", "url": f"{pages.url}/astronaut.jpg"})
    answers = [judge(sidecar, ASTRONAUT, "image/jpeg"), post(sidecar, encoded).json(), by_address.json()]

    assert by_address.status_code == 200
    assert pages.asked == ["/astronaut.jpg"]
    assert signals(answers[0]) == signals(answers[1]) == signals(answers[2])


def test_an_image_is_what_its_bytes_say_and_not_what_it_is_called(sidecar: RunningSidecar) -> None:
    assert signals(judge(sidecar, ASTRONAUT, "image/png")) == signals(judge(sidecar, ASTRONAUT, "image/jpeg"))


def with_orientation(picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture, exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(PICTURE, "WEBP", lossless=True), id="WebP"),
        pytest.param(with_orientation(PICTURE.transpose(Image.Transpose.ROTATE_90), 6), id="turned by its EXIF"),
        pytest.param(with_orientation(PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 2), id="mirrored by EXIF"),
        pytest.param(encode(PICTURE.convert("RGBA")), id="opaque with an alpha channel"),
    ],
)
def test_the_same_picture_in_another_file_has_the_same_scores(
    sidecar: RunningSidecar, upright: dict[str, float], data: bytes
) -> None:
    assert signals(judge(sidecar, data)) == upright


def test_cmyk_is_judged_as_the_picture_that_it_shows(sidecar: RunningSidecar, upright: dict[str, float]) -> None:
    scores = signals(judge(sidecar, encode(PICTURE.convert("CMYK"), "JPEG", quality=98), "image/jpeg"))

    assert scores == pytest.approx(upright, abs=0.05)


def test_sixteen_bits_are_judged_as_the_eight_that_they_show(sidecar: RunningSidecar) -> None:
    grey = PICTURE.convert("L")
    deep = Image.frombytes("I;16", grey.size, b"".join(bytes((level, level)) for level in grey.tobytes()))

    assert signals(judge(sidecar, encode(deep))) == signals(judge(sidecar, encode(grey)))


def test_what_is_transparent_is_judged_as_seen_on_white(sidecar: RunningSidecar) -> None:
    hidden = PICTURE.copy()
    hidden.putalpha(0)
    white = Image.new("RGB", PICTURE.size, "white")

    assert signals(judge(sidecar, encode(hidden))) == signals(judge(sidecar, encode(white)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animated_image_is_judged_frame_by_frame(sidecar: RunningSidecar, kind: str) -> None:
    data = animation([20, 120, 220], kind, milliseconds=600)

    video = judge(sidecar, data)["video"]

    assert video["duration_seconds"] == pytest.approx(1.8, abs=0.11)
    assert video["coverage"]["ratio"] == 1
    assert video["coverage"]["frames_judged"] == video["coverage"]["frames_expected"] >= 3


def test_an_image_at_the_limit_of_pixels_is_judged_and_one_above_is_not(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(image_limit_pixels=100 * 100)

    fits, over = (
        running.client.post("/v1/moderate", content=encode(picture), headers={"Content-Type": "image/png"})
        for picture in (Image.new("RGB", (100, 100)), Image.new("RGB", (101, 100)))
    )

    assert (fits.status_code, over.status_code) == (200, 413)
    assert "0.01 megapixels" in over.json()["detail"]


def test_two_models_that_disagree_ask_for_a_person_and_agreeing_ones_block(start_sidecar: StartSidecar) -> None:
    inference = FixedInference({"image-safety.sexual": 0.97})
    running = start_sidecar(inference=inference)
    alone = judge(running, encode(PICTURE))
    inference.scores["open-nsfw.unsafe"] = 0.8
    together = judge(running, encode(PICTURE))

    assert (alone["decision"], together["decision"]) == ("Review", "Block")
