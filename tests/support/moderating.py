"""The use case that moderates, over stand-ins and without an application around it."""

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from typing import Any

from PIL import Image

from baleen_core.decision.engine import compile_policy
from baleen_core.decision.lists import CompiledList
from baleen_core.decision.snapshot import LoadedPolicy, PolicySnapshot
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.records import Durability
from baleen_sidecar.ports import Inference
from baleen_sidecar.testing import FixedFrames, FixedImages, FixedLanguage, FixedPerceptualHash, MemoryDecisionLog
from baleen_sidecar.usecases.moderate import Limits, Moderate, Shell
from baleen_sidecar.usecases.scoring import Scoring
from baleen_sidecar.usecases.serve_models import FixedModels
from policies import make_candidate, make_policy


def make_shell(executor: Executor, seconds: Callable[[], float]) -> Shell:
    """Return a world with one clock and real chance."""
    return Shell(wall_seconds=seconds, monotonic_seconds=seconds, chance=os.urandom, executor=executor)


def make_moderate(
    policies: Callable[[], PolicySnapshot], models: FixedModels, inference: Inference, shell: Shell, **changes: Any
) -> Moderate:
    """Return a use case with a small picture for every image and every video; `changes` are its other arguments."""
    others = {
        "log": MemoryDecisionLog(),
        "languages": FixedLanguage(),
        "images": FixedImages(Image.new("RGB", (2, 2))),
        "frames": FixedFrames([Image.new("RGB", (1, 1))]),
        "perceptual_hash": FixedPerceptualHash(),
        "limits": Limits(text_bytes=100_000, video_bytes=1000),
        "durability": Durability.FSYNC,
    }
    scoring = Scoring(models.current, inference, executor=shell.executor, text_limit_windows=64)
    return Moderate(policies=policies, scoring=scoring, shell=shell, **others | changes)


def enforcing(content: Mapping[str, Any], signals: Collection[str], *lists: CompiledList) -> PolicySnapshot:
    """Return what is in force where one policy is, for all content; `signals` are those that there are."""
    revision = read_revision(make_revision(make_policy(content), {}))
    compiled = compile_policy("p", "v1", revision, signals)
    return PolicySnapshot(policies=(LoadedPolicy(candidate=make_candidate(), compiled=compiled, lists=lists),))
