"""Short videos over HTTP."""

import base64
from typing import Any

import httpx
import pytest

from baleen_cli.samples import fetch_video
from baleen_sidecar.testing import FixedInference
from media import steady, video
from sidecars import RunningSidecar, StartSidecar, post
from web_pages import WebPage, serve_pages


def send(running: RunningSidecar, data: bytes) -> httpx.Response:
    return running.client.post("/v1/moderate", content=data, headers={"Content-Type": "video/mp4"})


def judge(running: RunningSidecar, data: bytes) -> dict[str, Any]:
    response = send(running, data)
    assert response.status_code == 200, response.text
    return response.json()


def brightness(row: Any) -> float:
    """Say 1 of a bright picture and 0 of a dark one."""
    return float(row["image"].mean() > 100)


def test_a_real_video_is_judged_at_the_policies_frame_rate(sidecar: RunningSidecar) -> None:
    answer = judge(sidecar, fetch_video().read_bytes())

    assert answer["decision"] == "Allow"
    assert [model["name"] for model in answer["models"]] == ["image-safety", "open-nsfw"]
    assert answer["video"]["segments"] == []
    assert answer["video"]["duration_seconds"] == pytest.approx(5.28)
    coverage = answer["video"]["coverage"]
    # 120 frames a minute, from the first picture to the last.
    assert coverage["frames_expected"] == coverage["frames_judged"] >= 11
    assert (coverage["frames_undecodable"], coverage["ratio"], coverage["early_exit"]) == (0, 1, False)


def test_bytes_base64_and_an_address_give_the_same_decision(sidecar: RunningSidecar) -> None:
    data = video(steady(1))
    with serve_pages({"/a.mp4": WebPage(body=data, headers={"Content-Type": "video/mp4"})}) as pages:
        by_address = post(sidecar, {"type": "video", "url": f"{pages.url}/a.mp4"}).json()
    encoded = post(sidecar, {"type": "video", "data": base64.b64encode(data).decode()}).json()
    raw = judge(sidecar, data)

    assert raw["categories"] == encoded["categories"] == by_address["categories"]
    assert raw["video"] == encoded["video"] == by_address["video"]


def test_the_stretch_that_offends_is_named(start_sidecar: StartSidecar) -> None:
    # Dark for a second, bright for a second, dark again; only a review, so the rest is looked at too.
    shown = [(at, 220 if 1000 <= at < 2000 else 20) for at in range(0, 3000, 40)]
    running = start_sidecar(inference=FixedInference({"image-safety.gore": lambda row: 0.6 * brightness(row)}))

    answer = judge(running, video(shown))

    assert answer["decision"] == "Review"
    (segment,) = answer["video"]["segments"]
    assert (segment["category"], segment["decision"], segment["score"]) == ("gore", "Review", 0.6)
    assert 0.5 <= segment["start_seconds"] <= 1.0
    assert 1.5 <= segment["end_seconds"] <= 2.5
    assert not answer["video"]["coverage"]["early_exit"]


def test_at_a_block_the_rest_is_not_looked_at_and_the_answer_says_so(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(inference=FixedInference({"image-safety.gore": 0.99}))

    answer = judge(running, video(steady(10)))

    assert answer["decision"] == "Block"
    coverage = answer["video"]["coverage"]
    assert coverage["early_exit"]
    assert coverage["frames_judged"] < coverage["frames_expected"]
    assert "Coverage" not in {reason["type"] for reason in answer["reasons"]}


def test_a_video_that_ends_before_it_says_is_for_a_person(start_sidecar: StartSidecar) -> None:
    whole = video(steady(4), container="matroska")

    answer = judge(start_sidecar(), whole[: len(whole) // 2])

    assert answer["decision"] == "Review"
    assert {reason["type"] for reason in answer["reasons"]} == {"Coverage"}
    assert answer["video"]["duration_seconds"] == 4
    assert answer["video"]["coverage"]["frames_undecodable"] > 0
    assert answer["video"]["coverage"]["ratio"] < 0.9


@pytest.mark.parametrize(
    ("data", "limits", "status", "said"),
    [
        pytest.param(b"", {}, 422, "empty", id="empty"),
        pytest.param(b"not a video at all" * 100, {}, 415, "MP4", id="not a video"),
        pytest.param(video([(0, 20), (61_000, 40)]), {}, 413, "60", id="over a minute"),
        pytest.param(video(steady(1))[:600], {}, 415, "index is cut off", id="truncated before its index"),
        pytest.param(video(steady(1)), {"video_limit_bytes": 1000}, 413, "1000 bytes", id="more bytes than the limit"),
        pytest.param(video([], videos=0, audio_seconds=1), {}, 415, "holds no video", id="sound alone"),
    ],
)
def test_what_is_no_short_video_is_refused_with_the_reason(
    start_sidecar: StartSidecar, data: bytes, limits: dict[str, int], status: int, said: str
) -> None:
    response = send(start_sidecar(**limits), data)

    assert (response.status_code, response.json()["errors"][0]["field"]) == (status, "content")
    assert said in response.json()["detail"]
