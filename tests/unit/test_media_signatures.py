import pytest

from baleen_sidecar.media.signatures import PngAnimation, image_type, png_animation
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


def test_a_still_png_has_no_animation():
    assert png_animation(encode(grey(9))) is None


def test_the_frames_of_an_animated_png_are_counted():
    assert png_animation(animation([1, 90, 180], "PNG")) == PngAnimation(announced=3, carried=3)


def test_the_name_of_a_chunk_within_the_pixels_is_not_an_animation():
    still = encode(grey(9)) + b"acTL"

    assert png_animation(still) is None
