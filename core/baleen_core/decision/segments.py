"""Segments: which stretches of a video led to a verdict."""

from collections.abc import Sequence
from itertools import groupby

from baleen_core.decision.categories import VERDICTS, CategoryJudgement
from baleen_core.records import FrameSignals, Segment


def find_segments(
    policies: Sequence[Sequence[CategoryJudgement]], frames: Sequence[FrameSignals]
) -> tuple[Segment, ...]:
    """Join neighbouring frames whose scores led to the same verdict in the same category, by time and category.

    A segment goes from the time of its first frame to that of its last. A frame that merely failed is in none.
    """
    severities: dict[str, list[int]] = {}
    scores: dict[str, list[int]] = {}
    for judgements in policies:
        for judgement in judgements:
            if any(finding.severity for finding in judgement.findings):
                name = judgement.category.name
                strictest = severities.setdefault(name, [0] * len(frames))
                highest = scores.setdefault(name, [0] * len(frames))
                for index, finding in enumerate(judgement.findings):
                    strictest[index] = max(strictest[index], finding.severity)
                    highest[index] = max(highest[index], finding.score or 0)
    found = [
        segment
        for name, strictest in severities.items()
        for segment in _join(name, strictest, scores[name], [frame.at_milliseconds for frame in frames])
    ]
    return tuple(sorted(found, key=lambda segment: (segment.start_milliseconds, segment.category)))


def _join(category: str, severities: list[int], scores: list[int], times: list[int]) -> list[Segment]:
    segments = []
    for severity, run in groupby(range(len(times)), key=severities.__getitem__):
        indices = list(run)
        if severity:
            segments.append(
                Segment(
                    start_milliseconds=times[indices[0]],
                    end_milliseconds=times[indices[-1]],
                    category=category,
                    decision=VERDICTS[severity],
                    score=max(scores[index] for index in indices),
                )
            )
    return segments
