"""Moving pictures, taken apart by a process of its own that is killed when it hangs, grows or is no longer wanted."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

from PIL import Image

from baleen_core.errors import ContentError, TooLarge
from baleen_sidecar.adapters import frame_wire as wire
from baleen_sidecar.adapters.frame_wire import Kind, refusal
from baleen_sidecar.ports import Frame, Skipped, VideoInfo

MEBIBYTE: Final = 1024 * 1024
WORKER: Final = (sys.executable, "-I", "-m", "baleen_sidecar.adapters.frame_worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingLimits:
    """The bounds of one decoding."""

    max_bytes: int = 100 * MEBIBYTE
    max_milliseconds: int = 60_000
    max_pixels: int = 50_000_000
    """Pixels of one picture as it stands in the file."""
    long_side: int = 1280
    """Pixels of the longer side of a frame as it is handed on; larger ones are shrunk."""
    stall_seconds: float = 20.0
    """How long the process may take for its next frame; the time its frames wait to be judged does not count."""
    cpu_seconds: int = 120
    memory_bytes: int = 2048 * MEBIBYTE
    """Address space of the process, its libraries included."""


class ProcessFrameDecoder:
    """Decodes with PyAV and Pillow, a process a file and at most `processes` at once; further files wait."""

    def __init__(
        self, limits: DecodingLimits | None = None, *, processes: int = 2, worker: tuple[str, ...] = WORKER
    ) -> None:
        self._limits = limits or DecodingLimits()
        self._slots = asyncio.Semaphore(processes)
        self._worker = worker

    async def frames(self, data: bytes, *, frames_per_minute: int) -> AsyncGenerator[VideoInfo | Frame | Skipped, None]:
        """Yield one VideoInfo, then a frame for each sampling instant in the order of time, then one Skipped.

        A video's covers come before, at 0 ms: players show them. Of an animated image every picture counts: those
        that stand between two instants are frames too, up to `frame_worker.EXTRA_PICTURES` in all, and each further
        one that looks like none of the frames counts as skipped. So does a picture or cover that cannot be decoded.

        Closing the generator early, or cancelling the task that waits for it, kills the process.

        Raises:
            ContentError: not a video, truncated before its first frame, or over a limit (named).
            UpstreamError: video cannot be decoded in this installation.
        """
        if len(data) > self._limits.max_bytes:
            limit = f"{self._limits.max_bytes / MEBIBYTE:g} MiB"
            raise refusal(TooLarge, f"the video has {len(data):,} bytes, over the limit of {limit}")
        if not data:
            raise refusal(ContentError, "the video is empty")
        async with self._slots:
            process = await self._start(data, frames_per_minute)
            try:
                image: Image.Image | None = None
                while True:
                    item = _read_item(*await self._receive(process), image)
                    if isinstance(item, Frame):
                        image = item.image
                    yield item
                    if isinstance(item, Skipped):
                        return
            finally:
                await _end(process)

    async def _start(self, data: bytes, frames_per_minute: int) -> Process:
        job = wire.Job(
            frames_per_minute=frames_per_minute,
            max_milliseconds=self._limits.max_milliseconds,
            max_pixels=self._limits.max_pixels,
            long_side=self._limits.long_side,
            memory_bytes=self._limits.memory_bytes,
            cpu_seconds=self._limits.cpu_seconds,
            parent=os.getpid(),
        )
        with await asyncio.to_thread(_memory_file, data) as source:
            return await asyncio.create_subprocess_exec(
                *self._worker,
                job.to_json(),
                stdin=source,
                stdout=PIPE,
                stderr=DEVNULL,
                cwd="/",
                env={},  # no secret of ours is the decoder's business
                start_new_session=True,
                limit=MEBIBYTE,
            )

    async def _receive(self, process: Process) -> tuple[Kind, bytes]:
        assert process.stdout is not None, "it was started with a pipe"
        try:
            async with asyncio.timeout(self._limits.stall_seconds):
                kind, length = wire.HEADER.unpack(await process.stdout.readexactly(wire.HEADER.size))
                if length > wire.FRAME.size + 3 * self._limits.long_side**2:
                    raise refusal(ContentError, "decoding the content went wrong: a frame is larger than it may be")
                return Kind(kind), await process.stdout.readexactly(length)
        except TimeoutError:
            message = f"decoding gave no frame within {self._limits.stall_seconds:g} s and was ended"
            raise refusal(ContentError, message) from None
        except asyncio.IncompleteReadError:
            raise refusal(ContentError, self._epitaph(await process.wait())) from None

    def _epitaph(self, status: int) -> str:
        if status == -signal.SIGXCPU:
            return f"the content needs more than {self._limits.cpu_seconds} s of processor time to decode"
        cause = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"decoding the content ended abnormally ({cause})"


def _read_item(kind: Kind, body: bytes, before: Image.Image | None) -> VideoInfo | Frame | Skipped:
    match kind:
        case Kind.INFO:
            duration, width, height = wire.INFO.unpack_from(body)
            media_type = body[wire.INFO.size :].decode()
            return VideoInfo(duration_milliseconds=duration, width=width, height=height, media_type=media_type)
        case Kind.FRAME:
            at, width, height = wire.FRAME.unpack_from(body)
            pixels = memoryview(body)[wire.FRAME.size :]
            return Frame(at_milliseconds=at, image=Image.frombytes("RGB", (width, height), pixels))
        case Kind.AGAIN if before is not None:
            (at,) = wire.AGAIN.unpack(body)
            return Frame(at_milliseconds=at, image=before)
        case Kind.END:
            count, duration = wire.END.unpack(body)
            return Skipped(count=count, duration_milliseconds=duration)
        case Kind.REFUSAL:
            raise wire.read_refusal(body)
        case _:
            raise refusal(ContentError, "decoding the content went wrong: a frame repeats none")


def _memory_file(data: bytes) -> IO[bytes]:
    """Put the bytes where another process can seek in them, without a file on any disk."""
    file = os.fdopen(os.memfd_create("content"), "w+b", buffering=0)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    file.seek(0)
    return file


async def _end(process: Process) -> None:
    """Kill what is left of the process, empty its pipe and reap it."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # Waiting alone can last for ever: a pipe that nobody reads keeps the transport from closing.
    await process.communicate()
