"""The process that decodes: a file on standard input becomes frames on standard output, and it can do nothing else.

Decoders are large C libraries fed with hostile bytes. Before the first byte is read, this process gives up opening
files, growing beyond a size, and outliving its parent; whatever happens to it is one request's error.
"""

import ctypes
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import IO, TYPE_CHECKING, Final, cast

from PIL import Image, WebPImagePlugin

from baleen_core.errors import ContentError, TooLarge, UpstreamError, WrongType
from baleen_core.model.pixels import flatten
from baleen_sidecar.adapters.frame_wire import AGAIN, END, FRAME, INFO, Job, Kind, pack, pack_refusal, refusal
from baleen_sidecar.media.sampling import Broken, Shown, Tally, sample
from baleen_sidecar.media.signatures import IMAGE_NAMES, image_type, video_type

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Render = Callable[[], Image.Image]
"""Makes the RGB picture of a frame that was picked; the many others are never converted."""

DEMUXERS: Final = "mov,mp4,matroska,webm,avi,flv,mpeg,mpegts,asf,ogg"
"""FFmpeg's formats that hold a video in one file: no playlists and the like, which name other files."""

ACCEPTED: Final = "MP4, MOV, 3GP, MKV, WebM, AVI, FLV, MPEG, WMV, Ogg"

_OPTIONS: Final = {
    "format_whitelist": DEMUXERS,
    "protocol_whitelist": "none",
    "ignore_editlist": "1",  # an MP4 may ask players to leave parts out; not all of them do
}

SKIPPING: Final = ("matroska,webm", "flv")
"""FFmpeg's formats that go on behind damaged bytes without a word, and whose pictures may stand for long."""

PACKED_BYTES: Final = 512
"""What the formats of SKIPPING put between two packets at most; with more, something is lost there. Tables that stand
in between do little harm: pictures go on in time there."""

STEADY: Final = ("mpegts", "mpeg", "asf", "ogg")
"""FFmpeg's formats that do the same, but pad as they like; their pictures come at a steady rate."""

STEADY_MILLISECONDS: Final = 500
"""How late a picture may come in the formats of STEADY; before a later one something is lost."""

SLACK_MILLISECONDS: Final = 250
"""How far over the limit a length may be: containers round, and audio outlasts video by a little."""

EXTRA_PICTURES: Final = 120
"""So many pictures of an animated image are handed on beside those on display at the sampling instants, so that none
hides between two of them. Each further one counts as skipped, which a policy's `minCoverage` acts on; a picture that
looks like one handed on does not count."""

COVERS_UP_TO: Final = 8
"""Covers of a video that are handed on; each further one counts as skipped."""

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """A file opened: what it claims (milliseconds, pixels), its covers, and its pictures, still to be decoded.

    `lost` covers could not be decoded, or were too many; `between` is as for `sample`.
    """

    media_type: str
    claimed: int
    width: int
    height: int
    between: int | None
    pictures: Iterator[Shown[Render] | Broken]
    covers: Sequence[Image.Image] = ()
    lost: int = 0


def main() -> None:
    """Decode standard input by the job in the first argument."""
    job = Job.from_json(sys.argv[1])
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not look like a frame
    try:
        with os.fdopen(0, "rb") as source:
            _load_libraries(video=not _is_image(source))
            _give_up_powers(job)
            for message in decode(source, job):
                output.write(message)
                output.flush()
    except BrokenPipeError:
        os._exit(0)  # the parent has seen enough


def decode(source: IO[bytes], job: Job) -> Iterator[bytes]:
    """Yield the messages for a file: INFO, frames, END; or a REFUSAL at any point, which is the last."""
    try:
        yield from _decode(source, job)
    except (ContentError, UpstreamError) as exc:
        yield pack_refusal(exc)
    except MemoryError:
        limit = job.memory_bytes // (1024 * 1024)
        yield pack_refusal(refusal(ContentError, f"the content needs more than {limit} MiB of memory to decode"))
    except Exception as exc:  # hostile bytes make a decoder raise anything
        yield pack_refusal(refusal(ContentError, f"the content is broken ({type(exc).__name__})"))


def fit(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Shrink a size, keeping its proportions, so that no side is longer than `long_side`; at least 1 x 1."""
    scale = min(1.0, long_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _decode(source: IO[bytes], job: Job) -> Iterator[bytes]:
    footage = _open_animation(source, job) if _is_image(source) else _open_video(source, job)
    yield pack(Kind.INFO, INFO.pack(footage.claimed, footage.width, footage.height) + footage.media_type.encode())
    for cover in footage.covers:
        yield _pack_frame(0, cover)
    seen = False
    picked = sample(
        footage.pictures,
        frames_per_minute=job.frames_per_minute,
        claimed_milliseconds=footage.claimed,
        between=footage.between,
    )
    for item in picked:
        if isinstance(item, Tally):
            if not seen:
                raise refusal(ContentError, "not one frame of the content can be decoded")
            yield pack(Kind.END, END.pack(item.skipped + footage.lost, item.duration))
        elif item.again:
            yield pack(Kind.AGAIN, AGAIN.pack(item.at))
        else:
            seen = True
            yield _pack_frame(item.at, item.picture())


def _pack_frame(at: int, image: Image.Image) -> bytes:
    return pack(Kind.FRAME, FRAME.pack(at, image.width, image.height) + image.tobytes())


def _open_video(source: IO[bytes], job: Job) -> Footage:
    try:
        import av  # here, so that a missing extra is an answer and not a dead process
    except ImportError as exc:
        raise UpstreamError("video cannot be decoded here: install baleen with the extra [video]") from exc
    try:
        container = av.open(
            source,
            mode="r",
            options={**_OPTIONS, "max_pixels": str(job.max_pixels)},
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as exc:
        message = f"the bytes are not a video of an accepted type ({ACCEPTED}), or its index is cut off"
        raise refusal(WrongType, message) from exc
    covers = [stream for stream in container.streams.video if _is_cover(stream)]
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if len(streams) != 1:
        found = "no video" if not streams else f"{len(streams)} videos"
        raise refusal(WrongType, f"the file holds {found}; exactly one is accepted")
    (stream,) = streams
    if stream.codec_context is None:
        raise refusal(WrongType, "the video is compressed in a way that is not known here")
    _check_pixels(stream.width, stream.height, job)
    claimed = _claimed_milliseconds(container, stream)
    _check_length(claimed, job)
    # One thread: frames are needed one by one, and each more would hold frames of its own.
    decodable = [cover for cover in covers if cover.codec_context is not None][:COVERS_UP_TO]
    for each in (stream, *decodable):
        each.thread_type = "NONE"
    pictures, packets = _take_covers(_packets(container, [stream, *decodable]), decodable, job)
    return Footage(
        media_type=video_type(container.format.name, container.metadata.get("major_brand", ""), _head(source)),
        claimed=claimed,
        width=stream.width,
        height=stream.height,
        between=None,
        pictures=_video_pictures(packets, stream, job, steady=container.format.name in STEADY),
        covers=pictures,
        lost=len(covers) - len(pictures),
    )


def _packets(container: "InputContainer", streams: "Sequence[VideoStream]") -> "Iterator[Packet[VideoStream] | Broken]":
    from av import FFmpegError

    wanted = {stream.index for stream in streams}
    skipping = container.format.name in SKIPPING
    # What lies between two packets is known only with those of sound and subtitles, too.
    packets = cast("Iterator[Packet[VideoStream]]", container.demux() if skipping else container.demux(*streams))
    place, end = 0, math.inf
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            yield Broken()
            return
        if packet is None:
            return
        if skipping and packet.pos is not None:
            if packet.pos > end + PACKED_BYTES:
                yield Broken()
            # Matroska may lace packets of sound into one block, and all have its place.
            end = (end if packet.pos == place else packet.pos) + _stored_bytes(packet)
            place = packet.pos
        if packet.stream.index in wanted:
            yield packet


def _stored_bytes(packet: "Packet[VideoStream]") -> int:
    """Return how long a packet is in its file; WebM keeps what is transparent beside the picture."""
    kind: Final = "matroska_block_additional"
    return packet.size + (packet.get_sidedata(kind).buffer_size if packet.has_sidedata(kind) else 0)


def _take_covers(
    packets: "Iterator[Packet[VideoStream] | Broken]", covers: "Sequence[VideoStream]", job: Job
) -> "tuple[list[Image.Image], Iterator[Packet[VideoStream] | Broken]]":
    """Decode the covers, whose packets FFmpeg gives before all others; return them and the remaining packets."""
    from av import FFmpegError

    indices = {cover.index for cover in covers}
    pictures: list[Image.Image] = []
    while indices:
        packet = next(packets, Broken())
        if isinstance(packet, Broken) or packet.stream.index not in indices:
            return pictures, chain([packet], packets)
        indices.discard(packet.stream.index)
        with suppress(FFmpegError):
            for frame in packet.decode()[:1]:
                _check_pixels(frame.width, frame.height, job)
                pictures.append(_render(frame, job.long_side))
    return pictures, packets


def _video_pictures(
    packets: "Iterator[Packet[VideoStream] | Broken]", stream: "VideoStream", job: Job, *, steady: bool
) -> Iterator[Shown[Render] | Broken]:
    """Time every frame: its time is its own, and at least 1 ms after the one before, whatever it claims."""
    unit = float(stream.time_base or 0) * 1000
    usual = min(1000.0, 1000 / float(stream.average_rate)) if stream.average_rate else 40.0
    start, before = stream.start_time or 0, -1
    until: int | None = None
    for frame in _video_frames(packets, stream):
        if isinstance(frame, Broken):
            yield frame
            continue
        claimed = (frame.pts - start) * unit if frame.pts is not None else before + usual
        before = at = max(round(claimed), before + 1)
        _check_length(at, job)
        if steady and until is not None and at > until + STEADY_MILLISECONDS:
            yield Broken()
        lasts = frame.duration * unit if frame.duration else usual
        until = min(at + round(lasts), max(at, job.max_milliseconds))
        yield Shown(at=at, until=until, picture=partial(_render, frame, job.long_side))
        if frame.is_corrupt:
            # A container that finds its way again says nothing of what it lost: what follows may be a gap.
            yield Broken()


def _video_frames(
    packets: "Iterator[Packet[VideoStream] | Broken]", stream: "VideoStream"
) -> "Iterator[VideoFrame | Broken]":
    """Decode every frame that can be decoded.

    A decoder may hold frames back: what is broken between two packets stands before each frame until one comes that
    is later than every packet before the break.
    """
    from av import FFmpegError

    latest = lost = -math.inf
    broken = 0
    for packet in packets:
        if isinstance(packet, Broken):
            broken, lost = broken + packet.pictures, latest
            continue
        if packet.stream.index != stream.index:
            continue
        if packet.pts is not None:
            latest = max(latest, packet.pts)
        try:
            frames = packet.decode()
        except FFmpegError:
            broken, lost = broken + 1, latest
            continue
        for frame in frames:
            if broken:
                yield Broken(broken)
            if frame.pts is None or frame.pts > lost:
                broken = 0
            yield frame
    if broken:
        yield Broken(broken)


def _open_animation(source: IO[bytes], job: Job) -> Footage:
    try:
        picture = Image.open(source, formats=[name.upper() for name in IMAGE_NAMES.values()])
    except Image.DecompressionBombError as exc:
        limit = job.max_pixels / 1_000_000
        raise refusal(TooLarge, f"the pictures have more pixels than the limit of {limit:g} megapixels") from exc
    _check_pixels(picture.width, picture.height, job)
    count = getattr(picture, "n_frames", 1)
    return Footage(
        media_type=image_type(_head(source)) or "",
        claimed=0,
        width=picture.width,
        height=picture.height,
        between=EXTRA_PICTURES,
        pictures=_animation_pictures(picture, count, job),
    )


def _animation_pictures(picture: Image.Image, count: int, job: Job) -> Iterator[Shown[Render] | Broken]:
    at = 0.0
    for index in range(count):
        try:
            picture.seek(index)
            picture.load()
            image = flatten(picture)
        except MemoryError:
            raise
        except Exception:  # hostile bytes make a decoder raise anything; what came before it counts
            yield Broken(count - index)
            return
        image.thumbnail((job.long_side, job.long_side))
        lasts = float(picture.info.get("duration") or 0)
        if lasts <= 10:
            lasts = 100.0  # as browsers do
        if count == 1:
            lasts = 0.0  # one picture is one frame, whatever a few bytes claim
        until = min(round(at + lasts), max(round(at), job.max_milliseconds))
        yield Shown(at=round(at), until=until, picture=image.copy, name=_look(image))
        at += lasts
        _check_length(round(at), job)


def _render(frame: "VideoFrame", long_side: int) -> Image.Image:
    """Return the frame as RGB, upright, with no side above `long_side`.

    The models look at 224 to 640 pixels; 1280 leaves twice that for small things in the picture, and bounds what a
    frame costs in the pipe and in the parent.
    """
    width, height = fit(frame.width, frame.height, long_side)
    (plane,) = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").planes
    image = Image.frombytes("RGB", (width, height), bytes(plane), "raw", "RGB", plane.line_size)
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _look(image: Image.Image) -> bytes:
    """Name a picture by its size and pixels."""
    return blake2b(image.tobytes(), key=b"%d x %d" % image.size).digest()


def _is_image(source: IO[bytes]) -> bool:
    return image_type(_head(source)) is not None


def _head(source: IO[bytes]) -> bytes:
    """Read the first 64 bytes, and leave the place in the file as it is."""
    place = source.tell()
    source.seek(0)
    head = source.read(64)
    source.seek(place)
    return head


def _is_cover(stream: "VideoStream") -> bool:
    """Say whether the stream is a single picture; thumbnails of chapters are many, and a place to hide in."""
    from av.stream import Disposition

    kind = stream.disposition
    return bool(kind & Disposition.attached_pic) and not kind & Disposition.timed_thumbnails


def _claimed_milliseconds(container: "InputContainer", stream: "VideoStream") -> int:
    if stream.duration and stream.time_base:
        return max(0, round(stream.duration * stream.time_base * 1000))
    return max(0, round((container.duration or 0) / 1000))  # microseconds


def _check_length(milliseconds: int, job: Job) -> None:
    if milliseconds > job.max_milliseconds + SLACK_MILLISECONDS:
        limit = job.max_milliseconds / 1000
        raise refusal(TooLarge, f"the video lasts {milliseconds / 1000:.1f} s or more, over the limit of {limit:g} s")


def _check_pixels(width: int, height: int, job: Job) -> None:
    if width * height > job.max_pixels:
        limit = job.max_pixels / 1_000_000
        raise refusal(TooLarge, f"the pictures are {width} x {height} pixels, over the limit of {limit:g} megapixels")


def _load_libraries(*, video: bool) -> None:
    """Import now what would be imported on demand: later no file can be opened."""
    Image.preinit()
    assert WebPImagePlugin, "which preinit leaves out"
    if video:
        with suppress(ImportError):
            import av.stream
            import av.subtitles.codeccontext
            import av.subtitles.stream  # noqa: F401 - PyAV imports these two on demand


def _give_up_powers(job: Job) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != job.parent:
        os._exit(0)  # the parent died before its death could be a signal
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for limit, soft, hard in (
        (resource.RLIMIT_AS, job.memory_bytes, job.memory_bytes),
        (resource.RLIMIT_CPU, job.cpu_seconds, job.cpu_seconds + 1),  # first a signal that says why, then death
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, 0, 0),
    ):
        resource.setrlimit(limit, (soft, hard))


if __name__ == "__main__":
    main()
