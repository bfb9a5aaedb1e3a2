import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from baleen_core.errors import ContentError, TooLarge, WrongType
from baleen_sidecar.adapters.images import PillowImages
from media import animation, encode, grey, level_of

IMAGES = PillowImages()


def png_with_header(width: int, height: int) -> bytes:
    """A PNG of 64 x 48 whose header says something else, with a right checksum."""
    data = bytearray(encode(grey(100)))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def jpeg_with_orientation(value: int) -> bytes:
    """Left half black, right half white, with a note to turn it."""
    picture = grey(0)
    picture.paste((255, 255, 255), (32, 0, 64, 48))
    notes = Image.Exif()
    notes[0x0112] = value
    return encode(picture, "JPEG", exif=notes)


def half_transparent(mode: str) -> Image.Image:
    picture = Image.new("RGBA", (64, 48), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (32, 0, 64, 48))
    return picture.convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(grey(100), "JPEG"), id="JPEG"),
        pytest.param(encode(grey(100), "PNG"), id="PNG"),
        pytest.param(encode(grey(100), "GIF"), id="GIF"),
        pytest.param(encode(grey(100), "WEBP", lossless=True), id="WebP"),
        pytest.param(encode(grey(100), "JPEG", progressive=True), id="progressive JPEG"),
        pytest.param(encode(grey(100).convert("L"), "PNG"), id="grey"),
        pytest.param(encode(grey(100).convert("P"), "PNG"), id="palette"),
        pytest.param(encode(grey(100).convert("CMYK"), "JPEG"), id="CMYK, inverted as Adobe writes it"),
        pytest.param(encode(Image.new("I;16", (64, 48), 100 * 257), "PNG"), id="16 bits"),
        pytest.param(encode(grey(100).convert("LA"), "PNG"), id="grey with alpha"),
    ],
)
def test_every_kind_of_still_image_becomes_rgb(data):
    picture = IMAGES.decode(data)

    assert (picture.mode, picture.size) == ("RGB", (64, 48))
    assert level_of(picture) == pytest.approx(100, abs=3)


def test_sixteen_bits_of_white_are_white():
    picture = IMAGES.decode(encode(Image.new("I;16", (64, 48), 65_535), "PNG"))

    assert picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(half_transparent("RGBA"), "PNG"), id="PNG"),
        pytest.param(encode(half_transparent("RGBA"), "WEBP", lossless=True), id="WebP"),
        pytest.param(encode(half_transparent("RGBA"), "GIF"), id="GIF"),
        pytest.param(encode(half_transparent("P"), "PNG", transparency=0), id="palette"),
    ],
)
def test_transparent_parts_are_white(data):
    picture = IMAGES.decode(data)

    assert picture.getpixel((60, 24)) == (255, 255, 255)
    assert picture.getpixel((4, 24))[0] > 200


@pytest.mark.parametrize(
    ("orientation", "white_at"),
    [(1, "right"), (2, "left"), (3, "left"), (4, "right"), (5, "bottom"), (6, "bottom"), (7, "top"), (8, "top")],
)
def test_a_rotated_photo_is_turned_upright(orientation, white_at):
    picture = IMAGES.decode(jpeg_with_orientation(orientation))

    width, height = picture.size
    places = {
        "left": (4, height // 2),
        "right": (width - 4, height // 2),
        "top": (width // 2, 4),
        "bottom": (width // 2, height - 4),
    }
    assert picture.getpixel(places[white_at])[0] > 200
    assert (width > height) == (orientation <= 4)


def test_unreadable_exif_leaves_the_picture_as_it_is():
    notes = b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff" + b"\xff" * 40

    assert IMAGES.decode(encode(grey(100), "JPEG", exif=notes)).size == (64, 48)


JPEG, PNG = encode(grey(100), "JPEG"), encode(grey(100))
NOISE = encode(Image.effect_noise((256, 256), 90).convert("RGB"), "JPEG")


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        pytest.param(b"", ContentError, "empty", id="zero bytes"),
        pytest.param(NOISE[: len(NOISE) // 2], ContentError, "truncated or broken", id="truncated JPEG"),
        pytest.param(PNG[:60], ContentError, "truncated or broken", id="truncated PNG"),
        pytest.param(JPEG[:10], ContentError, "truncated or broken", id="only the beginning of a header"),
        pytest.param(
            png_with_header(128, 480), ContentError, "truncated or broken", id="a header that lies about size"
        ),
        pytest.param(png_with_header(50_000, 50_000), TooLarge, "50 megapixels", id="bomb of 50000 x 50000"),
        pytest.param(png_with_header(10_000, 6_000), TooLarge, "10000 x 6000 pixels", id="a little too large"),
        pytest.param(png_with_header(0, 48), ContentError, "", id="no width"),
        pytest.param(JPEG + bytes(21 * 1024 * 1024), TooLarge, "20 MiB", id="too many bytes"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", WrongType, "JPEG, PNG, WebP, GIF", id="SVG"),
        pytest.param(b"<!doctype html><title>a.jpg</title>", WrongType, "JPEG, PNG, WebP, GIF", id="HTML named .jpg"),
        pytest.param(encode(grey(9), "TIFF"), WrongType, "JPEG, PNG, WebP, GIF", id="an image type not accepted"),
        pytest.param(bytes(1000), WrongType, "JPEG, PNG, WebP, GIF", id="zeros"),
        pytest.param(animation([1, 200]), ContentError, "animated", id="animated GIF"),
        pytest.param(animation([1, 200], "PNG"), ContentError, "animated", id="animated PNG"),
        pytest.param(animation([1, 200], "WEBP"), ContentError, "animated", id="animated WebP"),
    ],
)
def test_bad_images_are_refused_with_the_reason(data, kind, message):
    with pytest.raises(kind) as caught:
        IMAGES.decode(data)

    assert type(caught.value) is kind
    (problem,) = caught.value.problems
    assert problem.field == "content"
    assert message in problem.message
    assert "0x" not in problem.message


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_told_from_a_still_by_its_header(kind):
    moving, still = IMAGES.inspect(animation([1, 200], kind)), IMAGES.inspect(encode(grey(9), kind))

    assert (moving.animated, still.animated) == (True, False)
    assert (moving.width, moving.height, moving.media_type) == (64, 48, still.media_type)


def test_an_animated_png_that_hides_frames_is_refused():
    data = animation([1, 90, 180], "PNG")
    place = data.index(b"acTL") + 4
    body = (1).to_bytes(4, "big") + data[place + 4 : place + 8]
    lying = data[:place] + body + zlib.crc32(b"acTL" + body).to_bytes(4, "big") + data[place + 12 :]

    with pytest.raises(ContentError, match="announces 1 frames and carries 3"):
        IMAGES.inspect(lying)


def test_the_header_alone_is_read_of_a_bomb():
    with pytest.raises(TooLarge, match="50 megapixels"):
        IMAGES.inspect(png_with_header(50_000, 50_000))


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from([JPEG, PNG, encode(grey(9), "GIF"), encode(grey(9), "WEBP"), animation([1, 200], "PNG")]),
    place=st.integers(0, 2000),
    junk=st.binary(min_size=1, max_size=12),
)
def test_no_other_error_than_ours_leaves_however_a_file_is_damaged(data, place, junk):
    place %= len(data)
    damaged = data[:place] + junk + data[place + len(junk) :]

    with suppress(ContentError):
        assert IMAGES.decode(damaged).mode == "RGB"
