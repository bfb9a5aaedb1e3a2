"""Image files to RGB pictures, with Pillow: only four formats, limits before decoding, and no Pillow error leaves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image, UnidentifiedImageError

from baleen_core.errors import BaleenError, ContentError, Problem, TooLarge, WrongType
from baleen_core.model.pixels import flatten, turn_upright
from baleen_sidecar.media.signatures import IMAGE_NAMES, image_type, png_animation
from baleen_sidecar.ports import ImageInfo

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PillowImages:
    """Decodes JPEG, PNG, WebP and GIF up to a number of bytes and pixels; safe to use from several threads."""

    max_bytes: int = 20 * MEBIBYTE
    max_pixels: int = 50_000_000

    def inspect(self, data: bytes) -> ImageInfo:
        """Read the header alone.

        Raises:
            WrongType: not a JPEG, PNG, WebP or GIF, whatever it claims to be.
            TooLarge: more bytes or pixels than the limit, which is named.
            ContentError: empty or broken, or an animation that hides frames.
        """
        with self._opened(data) as picture:
            return _describe(data, picture)

    def decode(self, data: bytes) -> Image.Image:
        """Decode a still image upright, on white where it is transparent.

        Raises:
            ContentError: truncated, broken or animated, or as for `inspect`.
        """
        with self._opened(data) as picture:
            if _describe(data, picture).animated:
                raise _wrong("the image is animated; its frames have to be judged one by one")
            picture.load()
            return flatten(turn_upright(picture))

    @contextmanager
    def _opened(self, data: bytes) -> Iterator[Image.Image]:
        self._check_bytes(data)
        try:
            with Image.open(BytesIO(data), formats=[IMAGE_NAMES[_type_of(data)].upper()]) as picture:
                self._check_pixels(picture)
                yield picture
        except BaleenError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
            raise TooLarge(self._problem(f"the image has more pixels than the limit of {self._pixel_limit}")) from exc
        except UnidentifiedImageError as exc:
            raise _wrong(f"the {IMAGE_NAMES[_type_of(data)]} image has a broken header") from exc
        except Exception as exc:  # hostile bytes make a decoder raise anything: struct.error, IndexError, SyntaxError
            raise _wrong(f"the {IMAGE_NAMES[_type_of(data)]} image is truncated or broken ({exc})") from exc

    def _check_bytes(self, data: bytes) -> None:
        if not data:
            raise _wrong("the image is empty")
        if len(data) > self.max_bytes:
            limit = f"{self.max_bytes / MEBIBYTE:g} MiB"
            raise TooLarge(self._problem(f"the image has {len(data):,} bytes, over the limit of {limit}"))

    def _check_pixels(self, picture: Image.Image) -> None:
        if picture.width * picture.height > self.max_pixels:
            size = f"{picture.width} x {picture.height}"
            raise TooLarge(self._problem(f"the image is {size} pixels, over the limit of {self._pixel_limit}"))

    @property
    def _pixel_limit(self) -> str:
        return f"{self.max_pixels / 1_000_000:g} megapixels"

    @staticmethod
    def _problem(message: str) -> tuple[Problem]:
        return (Problem(field="content", message=message),)


def _type_of(data: bytes) -> str:
    media_type = image_type(data)
    if media_type is None:
        accepted = ", ".join(IMAGE_NAMES.values())
        raise WrongType(
            (Problem(field="content", message=f"the bytes are not an image of an accepted type: {accepted}"),)
        )
    return media_type


def _describe(data: bytes, picture: Image.Image) -> ImageInfo:
    media_type = _type_of(data)
    animated = bool(getattr(picture, "is_animated", False)) and media_type != "image/jpeg"
    if media_type == "image/png" and (animation := png_animation(data)):
        if animation.announced != animation.carried:
            raise _wrong(f"the animated PNG announces {animation.announced} frames and carries {animation.carried}")
        animated = True
    return ImageInfo(media_type=media_type, width=picture.width, height=picture.height, animated=animated)


def _wrong(message: str) -> ContentError:
    return ContentError((Problem(field="content", message=message),))
