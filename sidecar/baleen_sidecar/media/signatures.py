"""What a file is, by its bytes: what a caller or a server calls it is never trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

IMAGE_NAMES: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WebP", "image/gif": "GIF"}
"""The media types of the accepted image formats, and their names."""

_VIDEO_TYPES: Final = {
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
    "mpeg": "video/mpeg",
    "mpegts": "video/mp2t",
    "asf": "video/x-ms-asf",
    "ogg": "video/ogg",
}
_BRANDS: Final = {"qt": "video/quicktime", "3g2": "video/3gpp2", "3g": "video/3gpp"}
"""What the major brand of an MP4's relative begins with, the longest first; all others are MP4 itself."""

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_WEBM_DOCTYPE: Final = b"\x42\x82\x84webm"
_ANIMATION_CHUNKS: Final = (b"acTL", b"fcTL", b"fdAT")


@dataclass(frozen=True, slots=True, kw_only=True)
class PngAnimation:
    """How many frames an animated PNG announces, and how many it carries."""

    announced: int
    carried: int


def image_type(data: bytes) -> str | None:
    """Return the media type of an accepted image format, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(_PNG_SIGNATURE):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def video_type(demuxer: str, brand: str, head: bytes) -> str:
    """Return the media type of a video, or "" if it is none of the accepted ones.

    `demuxer` is FFmpeg's name of the format it found (comma-separated alternatives), `brand` the major brand that an
    MP4 states ("" for a QuickTime file of old, which states none), `head` the first 64 bytes.
    """
    names = demuxer.split(",")
    if "mp4" in names:
        brand = brand or "qt"
        return next((kind for start, kind in _BRANDS.items() if brand.startswith(start)), "video/mp4")
    if "matroska" in names:
        return "video/webm" if _WEBM_DOCTYPE in head else "video/x-matroska"
    return next((_VIDEO_TYPES[name] for name in names if name in _VIDEO_TYPES), "")


def png_animation(data: bytes) -> PngAnimation | None:
    """Read what a PNG says of its animation; None if it holds no chunk of one."""
    if not any(name in data for name in _ANIMATION_CHUNKS):
        return None  # a search in C, for the many files that need no walk through their chunks
    animated, announced, carried = False, 0, 0
    for name, body in _png_chunks(data):
        animated = animated or name in _ANIMATION_CHUNKS
        if name == b"acTL":
            announced = int.from_bytes(data[body : body + 4], "big")
        carried += name == b"fcTL"
    return PngAnimation(announced=announced, carried=carried) if animated else None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each chunk's name and the place of its body."""
    place = len(_PNG_SIGNATURE)
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], place + 8
        place += 12 + length
