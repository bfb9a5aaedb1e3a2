"""Judge moving pictures frame by frame, in small groups, so that memory is bounded whatever the length."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing

import msgspec
from PIL import Image

from baleen_core.decision.engine import decide
from baleen_core.decision.lists import find_hits
from baleen_core.decision.snapshot import InForce
from baleen_core.policy.schema import Verdict
from baleen_core.records import (
    ContentFacts,
    Decision,
    Evidence,
    FrameSignals,
    ListHit,
    Missing,
    ModelIdentity,
    VideoEvidence,
)
from baleen_sidecar.media.coverage import coverage
from baleen_sidecar.ports import ANYONE, Frame, FrameDecoder, Skipped, VideoInfo, Work
from baleen_sidecar.usecases.scoring import BeforeModels, Scores, Scoring, nothing_before

GROUP = 8
"""Frames that are decoded and scored together: what one call to a model carries, and what memory holds."""


class _Watch:
    """What has been seen of one video so far."""

    def __init__(self) -> None:
        self.info: VideoInfo | None = None
        self.duration_milliseconds = 0
        self.undecodable = 0
        self.frames: list[FrameSignals] = []
        self.missing: dict[str, Missing] = {}
        self.models: dict[str, ModelIdentity] = {}
        self.fallbacks: dict[str, str] = {}
        self.hits: dict[ListHit, None] = {}
        self._highest: dict[str, int] = {}
        self._kinds: dict[frozenset[tuple[str, int]], FrameSignals] = {}
        self._last: tuple[Image.Image, Mapping[str, int]] | None = None

    def fresh(self, group: list[Frame]) -> list[Image.Image]:
        """Return the group's pictures, each once; one that stays on display is the same object in every frame."""
        last = self._last[0] if self._last else None
        return list({id(frame.image): frame.image for frame in group if frame.image is not last}.values())

    def add(self, group: list[Frame], fresh: list[Image.Image], scores: Scores) -> None:
        rows = dict(zip(map(id, fresh), scores.rows, strict=True))
        if self._last:
            rows.setdefault(id(self._last[0]), self._last[1])
        for frame in group:
            seen = FrameSignals(at_milliseconds=frame.at_milliseconds, signals=dict(rows[id(frame.image)]))
            self.frames.append(seen)
            self._kinds.setdefault(frozenset(seen.signals.items()), seen)
        for signal, score in scores.highest().items():
            self._highest[signal] = max(score, self._highest.get(signal, 0))
        self._last = (group[-1].image, rows[id(group[-1].image)])
        self.missing |= scores.missing
        self.fallbacks |= scores.fallbacks
        self.models |= {identity.name: identity for identity in scores.models}

    def _described(self, content: ContentFacts) -> ContentFacts:
        """Say of the film what its container says; what the caller called it is not for rules to trust."""
        if self.info is None:
            return content
        return msgspec.structs.replace(
            content, media_type=self.info.media_type, width=self.info.width, height=self.info.height
        )

    def evidence(self, start: Evidence) -> Evidence:
        return self._evidence(start, self.frames)

    def evidence_of_kinds(self, start: Evidence) -> Evidence:
        """Take one frame for all with the same scores: when each was shown changes no verdict."""
        return self._evidence(start, self._kinds.values())

    def _evidence(self, start: Evidence, frames: Iterable[FrameSignals]) -> Evidence:
        return msgspec.structs.replace(
            start,
            content=self._described(start.content),
            signals=dict(self._highest),
            missing=dict(self.missing),
            lists=tuple(self.hits),
            frames=tuple(frames),
            models=tuple(self.models[name] for name in sorted(self.models)),
            fallbacks=dict(self.fallbacks),
        )


async def judge_frames(
    decoder: FrameDecoder,
    scoring: Scoring,
    in_force: InForce,
    data: bytes,
    start: Evidence,
    *,
    pdq: Callable[[Image.Image], Awaitable[bytes]],
    on_scores: Callable[[Scores], None] = lambda scores: None,
    work: Work = ANYONE,
    before_models: BeforeModels = nothing_before,
) -> Evidence:
    """Sample `data` at the policies' frame rate and score every frame; stop at a block where all policies let us.

    Returns `start` with the frames' scores, the highest of each signal, list hits and the coverage. `on_scores` hears
    of the scores of each group of frames, and `before_models` is awaited before each.

    Raises:
        ContentError: not decodable at all, or over a limit.
    """
    settings = [policy.revision.policy.video for policy in in_force.policies]
    frames_per_minute = max(setting.frames_per_minute for setting in settings)
    may_stop = all(setting.early_exit for setting in settings)
    wanted = in_force.wanted(start.content.type)
    watch, stopped = _Watch(), False
    # First: what is known about the file as a whole can clear or block it, and that decides when looking may stop.
    watch.hits |= dict.fromkeys(find_hits(in_force.lists, text=None, digest=start.content.digest, pdq=None))
    async with aclosing(decoder.frames(data, frames_per_minute=frames_per_minute)) as items:
        async for group in _groups(items, watch):
            fresh = watch.fresh(group)
            scores = await scoring.pictures(fresh, wanted, work, before_models=before_models)
            on_scores(scores)
            watch.add(group, fresh, scores)
            for picture in fresh if in_force.needs_pdq else ():
                found = await pdq(picture)
                # A picture's digest means nothing inside a video; only what it looks like can be listed.
                watch.hits |= dict.fromkeys(find_hits(in_force.lists, text=None, digest="", pdq=found))
            if may_stop and _is_settled(decide(in_force, watch.evidence_of_kinds(start))):
                stopped = True
                break
            # Where one picture stays on display, nothing else here need ever wait.
            await asyncio.sleep(0)
    return msgspec.structs.replace(
        watch.evidence(start),
        video=VideoEvidence(
            duration_milliseconds=watch.duration_milliseconds,
            coverage=coverage(
                duration_milliseconds=watch.duration_milliseconds,
                frames_per_minute=frames_per_minute,
                judged=len(watch.frames),
                undecodable=watch.undecodable,
                early_exit=stopped,
            ),
        ),
    )


def _is_settled(decision: Decision) -> bool:
    """Say whether no frame can change the decision, nor what either side of a rollout says by itself."""
    said = [verdict for trial in decision.trials for verdict in (trial.stable_verdict, trial.candidate_verdict)]
    return all(verdict is Verdict.BLOCK for verdict in (decision.decision, *said))


async def _groups(items: AsyncIterator[Frame | VideoInfo | Skipped], watch: _Watch) -> AsyncIterator[list[Frame]]:
    group: list[Frame] = []
    async for item in items:
        match item:
            case VideoInfo():
                watch.info = item
                watch.duration_milliseconds = item.duration_milliseconds
            case Skipped():
                # What was decoded outranks what the container claims, either way.
                watch.duration_milliseconds = item.duration_milliseconds
                watch.undecodable = item.count
            case Frame():
                group.append(item)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group
