"""What is lost of a video counts as missing, wherever it begins and whatever its container says of it: nothing."""

import struct
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest

from baleen_sidecar.adapters import frame_wire as wire
from baleen_sidecar.adapters.frame_wire import Job, Kind
from baleen_sidecar.adapters.frame_worker import decode
from baleen_sidecar.media.sampling import instants
from media import animation, grey, one_frame, steady, video

RATE = 120
JOB = Job(
    frames_per_minute=RATE,
    max_milliseconds=60_000,
    max_pixels=1_000_000,
    long_side=64,
    memory_bytes=2**31,
    cpu_seconds=60,
    parent=0,
)
PLACES = (-60, -29, -1, 15, 44)
"""Where the damage begins, from a third of the file on: in a picture, between two, in what stands before one."""

CONTAINERS = [
    pytest.param({"container": "matroska"}, id="Matroska"),
    pytest.param({"container": "matroska", "audio_seconds": 6}, id="Matroska with sound"),
    pytest.param({"container": "matroska", "held_back": 3}, id="Matroska with pictures held back"),
    pytest.param({"container": "webm", "codec": "libvpx"}, id="WebM"),
    pytest.param({"container": "flv"}, id="FLV"),
    pytest.param({"container": "mpegts"}, id="MPEG-TS"),
    pytest.param({"container": "mpegts", "held_back": 3}, id="MPEG-TS with pictures held back"),
    pytest.param({"container": "asf"}, id="ASF"),
    pytest.param({"container": "ogg", "codec": "libvpx"}, id="Ogg"),
    pytest.param({"container": "mp4"}, id="MP4"),
]


def seen(data: bytes) -> tuple[list[int], int]:
    """The instants that had a picture, in milliseconds, and how many had none."""
    at, missing, _ = told(data)
    return at, missing


def told(data: bytes) -> tuple[list[int], int, int]:
    """What is seen of a file, and how long it lasts, in milliseconds."""
    at: list[int] = []
    for message in decode(BytesIO(data), JOB):
        kind, _ = wire.HEADER.unpack_from(message)
        body = message[wire.HEADER.size :]
        match Kind(kind):
            case Kind.FRAME:
                at.append(wire.FRAME.unpack_from(body)[0])
            case Kind.AGAIN:
                at.append(wire.AGAIN.unpack(body)[0])
            case Kind.END:
                return at, *wire.END.unpack(body)
            case Kind.REFUSAL:
                raise wire.read_refusal(body)
    raise AssertionError("it has no end")


def kept(data: bytes) -> list[int]:
    """The times of the pictures that can be read of a file, in milliseconds."""
    with av.open(BytesIO(data)) as container:
        (stream,) = container.streams.video
        start = stream.start_time or 0
        unit = stream.time_base
        assert unit is not None
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        return sorted(round((packet.pts - start) * unit * 1000) for packet in packets)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_no_instant_of_a_stretch_that_is_gone_counts_as_seen(kind):
    whole = video(steady(6), **kind)
    third = len(whole) // 3
    everything = kept(whole)
    for place in PLACES:
        damaged = bytearray(whole)
        damaged[third + place : 2 * third + place] = bytes(third)
        left = kept(bytes(damaged))

        at, missing = seen(bytes(damaged))

        assert missing >= 2, place
        assert 12 <= len(at) + missing <= 14, place
        for instant in at:
            shown = max((time for time in everything if time <= instant), default=everything[0])
            assert min(abs(time - shown) for time in left) <= 80, (place, instant)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({"container": "matroska"}, id="Matroska"),
        pytest.param({"container": "matroska", "held_back": 3}, id="Matroska with pictures held back"),
        pytest.param({"container": "webm", "codec": "libvpx"}, id="WebM"),
        pytest.param({"container": "flv"}, id="FLV"),
        pytest.param({"container": "mp4"}, id="MP4"),
    ],
)
def test_a_picture_that_stands_for_long_is_seen_as_long_as_it_stands(kind):
    moving = steady(1)

    at, missing = seen(video([*moving, *((4000 + time, level) for time, level in moving)], **kind))

    assert missing == 0
    assert len(at) == 11


def test_what_is_transparent_is_no_gap_in_a_webm():
    noise = np.random.default_rng(1)
    file = BytesIO()
    with av.open(file, "w", format="webm", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream("libvpx", rate=25, options={"auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        for at in (0, 1, 2, 100, 101, 102):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (48, 64, 4), dtype=np.uint8), format="rgba")
            frame.pts = at
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    data = file.getvalue()
    with av.open(BytesIO(data)) as container:
        kinds = [packet.has_sidedata("matroska_block_additional") for packet in container.demux(video=0) if packet.size]
    assert kinds == [True] * 6

    at, missing = seen(data)

    assert missing == 0
    assert len(at) == 10


def element(identity: str, *data: bytes) -> bytes:
    """An element of Matroska (RFC 8794): its identity, its length in eight bytes, and what is in it."""
    whole = b"".join(data)
    return bytes.fromhex(identity) + (len(whole) | 1 << 56).to_bytes(8) + whole


def number(identity: str, value: int) -> bytes:
    return element(identity, value.to_bytes(8))


def with_laced_sound() -> bytes:
    """Six seconds of VP8, and sound of which four packets, 160 ms, lie in one block, as many programs write it."""
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    pictures = []
    for count in range(150):
        frame = av.VideoFrame.from_image(grey(20 + count))
        frame.pts = count
        pictures += encoder.encode(frame)
    pictures += encoder.encode(None)
    blocks = []
    for count, picture in enumerate(pictures):
        at = (40 * count).to_bytes(2)
        blocks.append(element("A3", b"\x81", at, b"\x80" if picture.is_keyframe else b"\x00", bytes(picture)))
        if count % 4 == 0:
            blocks.append(element("A3", b"\x82", at, b"\x84\x03", bytes(4 * 640)))
    sampling = element("E1", element("B5", struct.pack(">d", 8000)), number("9F", 1), number("6264", 16))
    size = element("E0", number("B0", 64), number("BA", 48))
    tracks = (
        element("AE", number("D7", 1), number("73C5", 1), number("83", 1), element("86", b"V_VP8"), size),
        element("AE", number("D7", 2), number("73C5", 2), number("83", 2), element("86", b"A_PCM/INT/LIT"), sampling),
    )
    head = element("1A45DFA3", element("4282", b"matroska"), number("4287", 4), number("4285", 2))
    scale = element("1549A966", number("2AD7B1", 1_000_000))
    return head + element(
        "18538067", scale, element("1654AE6B", *tracks), element("1F43B675", number("E7", 0), *blocks)
    )


def test_packets_of_sound_that_lie_in_one_block_are_no_gap():
    data = with_laced_sound()
    with av.open(BytesIO(data)) as container:
        places = [packet.pos for packet in container.demux(audio=0) if packet.size]
    assert len(places) == 4 * len(set(places))

    at, missing = seen(data)

    assert missing == 0
    assert len(at) == 13


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_one_picture_is_one_frame_however_long_its_file_says_it_stays(kind):
    at, missing, duration = told(one_frame(kind))

    assert (at, missing, duration) == ([0], 0, 0)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_last_picture_of_an_animation_does_not_outlast_the_limit(kind):
    at, missing, duration = told(animation([20, 90], kind, milliseconds=[59_900, 350]))

    assert at == list(instants(60_000, RATE))
    assert (missing, duration) == (0, 60_000)
