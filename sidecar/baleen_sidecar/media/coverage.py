"""How much of a video was seen, as evidence that a decision can be held to."""

from baleen_core.ratio import MILLION
from baleen_core.records import Coverage
from baleen_sidecar.media.sampling import instants


def coverage(
    *, duration_milliseconds: int, frames_per_minute: int, judged: int, undecodable: int, early_exit: bool = False
) -> Coverage:
    """Compare the frames that were judged with the sampling instants of the video.

    `undecodable` counts instants without a picture; the ratio is rounded down, so that only all is 100 %.
    """
    expected = len(instants(duration_milliseconds, frames_per_minute))
    seen = max(0, min(judged, expected - undecodable))
    return Coverage(
        frames_expected=expected,
        frames_judged=judged,
        frames_undecodable=undecodable,
        ratio=seen * MILLION // expected,
        early_exit=early_exit,
    )
