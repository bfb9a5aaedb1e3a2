"""Scores as the bytes that caches keep; those of a cache that others can write to are believed nothing."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from baleen_core.ratio import MILLION
from baleen_core.records import ModelIdentity
from baleen_sidecar.ports import ModelScores

FORM: Final = 1
"""The form of the bytes: those of another form are not read."""
LIMIT_BYTES: Final = 64 * 1024
"""The longest entry: a model has tens of signals with names of tens of letters."""

Name = Annotated[str, Meta(max_length=512)]
Millionths = Annotated[int, Meta(ge=0, le=MILLION)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedScores:
    """Scores, and until when they count (seconds of the wall clock)."""

    scores: ModelScores
    until: float


class _Wire(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    form: Literal[1]
    key: bytes
    until: float
    name: Name
    version: Name
    sha256: Name
    signals: Annotated[dict[Name, Millionths], Meta(max_length=1024)]
    limits: Annotated[tuple[Name, ...], Meta(max_length=16)]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Wire)


def encode_scores(key: bytes, timed: TimedScores) -> bytes:
    """Write scores with the key that they are kept under."""
    model, scores = timed.scores.model, timed.scores
    return _ENCODER.encode(
        _Wire(
            FORM,
            key,
            timed.until,
            model.name,
            model.version,
            model.sha256,
            dict(scores.signals),
            scores.limits,
        )
    )


def decode_scores(key: bytes, data: bytes) -> TimedScores:
    """Read scores that were kept under this key.

    Raises:
        ValueError: they are not of this form, too long, or of another key.
    """
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"the entry is over the limit of {LIMIT_BYTES:,} bytes")
    try:
        wire = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"the entry is not of form {FORM}: {exc}") from None
    if wire.key != key:
        raise ValueError("the entry is of another key")
    return TimedScores(
        scores=ModelScores(
            model=ModelIdentity(name=wire.name, version=wire.version, sha256=wire.sha256),
            signals=wire.signals,
            limits=wire.limits,
        ),
        until=wire.until,
    )
