"""From a picture as it was decoded to the RGB one, upright, that every image recipe starts from."""

from typing import Final

from PIL import Image

_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation that EXIF knows; 1 is upright."""


def flatten(picture: Image.Image) -> Image.Image:
    """Turn a picture of any mode into RGB: transparent parts on white, 16 bits to 8."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture.copy()
    if picture.mode.startswith("I"):
        # Pillow would clip 16 bits at 255, which makes most of a picture white.
        return picture.convert("I").point(lambda level: level * (1 / 257)).convert("L").convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        canvas = Image.new("RGB", picture.size, "white")
        canvas.paste(layer, mask=layer.getchannel("A"))
        return canvas
    return picture.convert("RGB")


def turn_upright(picture: Image.Image) -> Image.Image:
    """Undo the orientation that EXIF notes; unreadable EXIF notes none."""
    try:
        orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # the notes are broken, not the picture; viewers show it all the same
        return picture
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)
