"""Builders of small pictures and videos whose content says when it was shown: the brightness is the message."""

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import Image, ImageStat

SIZE = (64, 48)


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Write a picture as a file of a kind that Pillow knows."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def grey(level: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A plain RGB picture."""
    return Image.new("RGB", size, (level, level, level))


def level_of(picture: Image.Image) -> int:
    """The mean brightness of a picture."""
    return round(ImageStat.Stat(picture.convert("L")).mean[0])


def animation(levels: Sequence[int], kind: str = "GIF", *, milliseconds: int | list[int] = 100) -> bytes:
    """An animated GIF, PNG or WebP of plain pictures, none of which the encoder may merge with its neighbour."""
    first, *rest = [grey(level) for level in levels]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encode(first, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0, **lossless)


def one_frame(kind: str) -> bytes:
    """An animated GIF, PNG or WebP of one plain picture, which stays for as long as its format can say."""
    still = encode(grey(90), kind, **({"lossless": True} if kind == "WEBP" else {}))
    match kind:
        case "GIF":
            return encode(grey(90), kind, duration=655_350)
        case "PNG":
            head = 33  # the signature and IHDR
            shown = struct.pack(">5I2H2B", 0, *SIZE, 0, 0, 65_535, 1, 0, 0)
            animated = _png_chunk(b"acTL", struct.pack(">2I", 1, 0)) + _png_chunk(b"fcTL", shown)
            return still[:head] + animated + still[head:]
        case _:
            width, height = ((side - 1).to_bytes(3, "little") for side in SIZE)
            frame = bytes(6) + width + height + (2**24 - 1).to_bytes(3, "little") + b"\x00" + still[12:]
            canvas = b"\x02\x00\x00\x00" + width + height
            chunks = _riff_chunk(b"VP8X", canvas) + _riff_chunk(b"ANIM", bytes(6)) + _riff_chunk(b"ANMF", frame)
            return _riff_chunk(b"RIFF", b"WEBP" + chunks)


def video(
    shown: Sequence[tuple[int, int]],
    *,
    container: str = "mp4",
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    audio_seconds: float = 0,
    videos: int = 1,
    covers: Sequence[int] = (),
    held_back: int = 0,
) -> bytes:
    """A video of plain pictures, each a time in milliseconds and a brightness (16 to 235 survives every codec).

    Covers are brightnesses too: streams of one picture in an MP4, attachments in a Matroska file. `held_back` is how
    many pictures in a row H.264 may code by what follows them, which a decoder shows later than it reads them.
    """
    h264 = {"g": "5" if not held_back else "12", "bf": str(held_back)}
    file = BytesIO()
    with av.open(file, "w", format=container, options={"fflags": "+bitexact"}) as output:
        streams = []
        for _ in range(videos):
            stream = output.add_stream(codec, rate=25, options=h264 if codec == "libx264" else {})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            streams.append(stream)
        sound = output.add_stream("aac", rate=8000) if audio_seconds else None
        pictures = [encode(grey(level, size), "PNG") for level in covers]
        posters = [_add_poster(output, container, picture) for picture in pictures]
        for at, level in shown if videos else ():
            for stream in streams:
                frame = av.VideoFrame.from_image(grey(level, size))
                frame.pts, frame.time_base = at, Fraction(1, 1000)
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
        for poster, picture in zip(posters, pictures, strict=True):
            if poster is not None:
                packet = av.Packet(picture)
                packet.stream, packet.pts, packet.dts, packet.time_base = poster, 0, 0, Fraction(1, 1000)
                output.mux(packet)
        if sound is not None:
            _add_silence(output, sound, audio_seconds)
    return file.getvalue()


def steady(seconds: float, *, frames_per_second: int = 25) -> list[tuple[int, int]]:
    """Times and brightnesses of a video that gets brighter by 2 levels each 100 ms, from 20 on."""
    count = round(seconds * frames_per_second)
    times = [round(index * 1000 / frames_per_second) for index in range(count)]
    return [(at, 20 + (at // 100) * 2 % 200) for at in times]


def with_duration(mp4: bytes, milliseconds: int) -> bytes:
    """The same MP4 with another duration in every header that states one (all in thousandths, version 0)."""
    data = bytearray(mp4)
    for name, scale_at, duration_at in ((b"mvhd", 12, 16), (b"mdhd", 12, 16), (b"tkhd", None, 20), (b"elst", None, 8)):
        place = data.find(name)
        if place < 0:
            continue
        body = place + 4
        scale = int.from_bytes(data[body + scale_at : body + scale_at + 4], "big") if scale_at else 1000
        data[body + duration_at : body + duration_at + 4] = (milliseconds * scale // 1000).to_bytes(4, "big")
    return bytes(data)


def rotated(mp4: bytes) -> bytes:
    """The same MP4 with a display matrix that turns it by a quarter, clockwise, as phones write it."""
    data = bytearray(mp4)
    matrix = data.find(b"tkhd") + 4 + 40
    one, zero, minus = (0x10000).to_bytes(4, "big"), bytes(4), (-0x10000 & 0xFFFFFFFF).to_bytes(4, "big")
    data[matrix : matrix + 20] = zero + one + zero + minus + zero
    return bytes(data)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def _riff_chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)


def _add_poster(output: Any, container: str, picture: bytes) -> Any:
    """Add a place for a cover; None where the picture itself is there already."""
    if container == "matroska":
        output.add_attachment("cover.png", "image/png", picture)
        return None
    stream = output.add_stream("png", rate=25)
    stream.width, stream.height, stream.pix_fmt = *Image.open(BytesIO(picture)).size, "rgb24"
    stream.disposition = Disposition.attached_pic
    return stream


def _add_silence(output: Any, sound: Any, seconds: float) -> None:
    for start in range(0, round(seconds * 8000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        output.mux(sound.encode(frame))
    output.mux(sound.encode(None))
