"""What the decoding process and its parent say to each other: a job as JSON, and messages of kind, length and body."""

import json
import struct
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Final

from baleen_core.errors import BaleenError, ContentError, Problem, TooLarge, UpstreamError, WrongType

HEADER: Final = struct.Struct("<cI")
"""A message's kind and the length of its body in bytes."""

INFO: Final = struct.Struct("<qII")
"""Claimed duration in milliseconds, width, height; the media type follows."""

FRAME: Final = struct.Struct("<qII")
"""Time in milliseconds, width, height; RGB pixels follow."""

AGAIN: Final = struct.Struct("<q")
"""Time in milliseconds at which the picture of the frame before is still on display."""

END: Final = struct.Struct("<Iq")
"""Instants without a picture and pictures passed over, and the duration in milliseconds."""


class Kind(Enum):
    """Kinds of messages; a REFUSAL's body is a digit of `REFUSALS` and text."""

    INFO = b"I"
    FRAME = b"F"
    AGAIN = b"A"
    END = b"E"
    REFUSAL = b"R"


REFUSALS: Final[tuple[type[ContentError] | type[UpstreamError], ...]] = (
    ContentError,
    TooLarge,
    WrongType,
    UpstreamError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to decode and within which bounds; `parent` is the process whose death ends the worker."""

    frames_per_minute: int
    max_milliseconds: int
    max_pixels: int
    long_side: int
    memory_bytes: int
    cpu_seconds: int
    parent: int

    def to_json(self) -> str:
        """Write the job as one command-line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def pack(kind: Kind, body: bytes) -> bytes:
    """Frame a message."""
    return HEADER.pack(kind.value, len(body)) + body


def pack_refusal(error: ContentError | UpstreamError) -> bytes:
    """Frame an error, without its field, as a message."""
    text = error.problems[0].message if isinstance(error, ContentError) else str(error)
    return pack(Kind.REFUSAL, b"%d" % REFUSALS.index(type(error)) + text.encode())


def read_refusal(body: bytes) -> BaleenError:
    """Rebuild the error of a refusal; a problem's field is `content`."""
    kind, text = REFUSALS[int(body[:1])], body[1:].decode("utf-8", "replace")
    return UpstreamError(text) if kind is UpstreamError else refusal(kind, text)


def refusal(kind: type[BaleenError], message: str) -> ContentError:
    """Build an error about the content."""
    assert issubclass(kind, ContentError)
    return kind((Problem(field="content", message=message),))
