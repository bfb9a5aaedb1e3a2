import pytest

from baleen_sidecar.media.signatures import PngAnimation, image_type, png_animation, video_type
from media import animation, encode, grey


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(grey(9), "JPEG"), "image/jpeg", id="JPEG"),
        pytest.param(encode(grey(9), "PNG"), "image/png", id="PNG"),
        pytest.param(encode(grey(9), "GIF"), "image/gif", id="GIF"),
        pytest.param(encode(grey(9), "WEBP"), "image/webp", id="WebP"),
        pytest.param(encode(grey(9), "BMP"), None, id="BMP"),
        pytest.param(encode(grey(9), "TIFF"), None, id="TIFF"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", None, id="SVG"),
        pytest.param(b"RIFF\x00\x00\x00\x00WAVE", None, id="a sound in the same wrapping as WebP"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_an_image_is_known_by_its_first_bytes(data, expected):
    assert image_type(data) == expected


@pytest.mark.parametrize(
    ("demuxer", "brand", "expected"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", "isom", "video/mp4"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "M4V ", "video/mp4"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "qt  ", "video/quicktime"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "", "video/quicktime"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "3gp4", "video/3gpp"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "3g2a", "video/3gpp2"),
        ("matroska,webm", "", "video/x-matroska"),
        ("ogg", "", "video/ogg"),
        ("hls", "", ""),
    ],
)
def test_a_video_is_known_by_its_format_and_brand(demuxer, brand, expected):
    assert video_type(demuxer, brand, b"") == expected


def test_webm_is_told_from_matroska_by_the_type_that_it_states():
    head = b"\x1aE\xdf\xa3\x9f\x42\x82\x84webm\x42\x87\x81\x02"

    assert video_type("matroska,webm", "", head) == "video/webm"


def test_a_still_png_has_no_animation():
    assert png_animation(encode(grey(9))) is None


def test_the_frames_of_an_animated_png_are_counted():
    assert png_animation(animation([1, 90, 180], "PNG")) == PngAnimation(announced=3, carried=3)


def test_the_name_of_a_chunk_within_the_pixels_is_not_an_animation():
    still = encode(grey(9)) + b"acTL"

    assert png_animation(still) is None
