"""Decisions of the engine in process, for each second of one core's processor time: signals in, decision out.

The peer is the threshold policy measured again: there is nothing to compare with, so it only says how noisy it was.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from msgspec import structs

from baleen_bench import policies
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.machine import Cores
from baleen_bench.texts import messages
from baleen_core.decision.engine import decide
from baleen_core.decision.lists import find_hits
from baleen_core.decision.snapshot import InForce
from baleen_core.model.schema import DataType, Model, ModelSignal, Preprocessing, Source, SourceType, Tensor
from baleen_core.records import ContentFacts, Context, Evidence, ListHit
from baleen_sidecar.testing import MemoryRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.policy_documents import Document, Documents

VARIANTS = {
    "threshold": "six categories with thresholds",
    "rule": "and one rule",
    "lists": "six categories and a list of a thousand terms, the look-up of the text included",
}
FIGURES = {
    f"engine_per_s_{name}": Aim(what=f"decisions of the engine in process: {what}") for name, what in VARIANTS.items()
}
_SIGNALS = tuple(f"signal_{index}" for index in range(6))
_TERMS = 1000
_EVIDENCES = 256
_CHUNK = 100


def measure(effort: Effort) -> Outcome:
    """Judge by six thresholds; by six thresholds and a rule; by six thresholds and a list of a thousand terms."""
    evidence = examples()
    with pinned():
        in_force = {variant: prepare(variant) for variant in VARIANTS}
        for variant in VARIANTS:
            rate(in_force[variant], evidence, seconds=effort.step_seconds)  # warms up

        def run(variant: str) -> float:
            return rate(in_force[variant], evidence, seconds=effort.seconds / 2)

        pairs = [(run("threshold"), run("threshold")) for _ in range(effort.noise_pairs)]
        turns = [{variant: run(variant) for variant in VARIANTS} for _ in range(effort.repetitions)]
    noise = noise_of(pairs)
    figures = tuple(
        Figure.of(name, [turn[variant] for turn in turns], "decisions/CPU s", aims=FIGURES, noise=noise)
        for name, variant in zip(FIGURES, VARIANTS, strict=True)
    )
    return Outcome(figures=figures, raw={"peer_against_itself": pairs, "turns": turns})


def rate(in_force: InForce, evidence: list[tuple[str, Evidence]], *, seconds: float) -> float:
    """Return decisions for each second of processor time; texts are looked up in the lists, if there are any."""
    endless = itertools.cycle(evidence)
    count, begun, ends = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < ends:
        for text, facts in itertools.islice(endless, _CHUNK):
            hits = find_hits(in_force.lists, text=text, digest=facts.content.digest, pdq=None)
            decide(in_force, facts if not hits else _with_hits(facts, hits))
        count += _CHUNK
    return count / (time.process_time() - begun)


def _with_hits(evidence: Evidence, hits: tuple[ListHit, ...]) -> Evidence:
    return structs.replace(evidence, lists=hits)


def examples() -> list[tuple[str, Evidence]]:
    """Return texts and what models might have said of them: mostly harmless, every eighth to be reviewed or blocked."""
    made = []
    for index, text in enumerate(messages(_EVIDENCES)):
        worst = (750_000 if index % 16 else 950_000) if index % 8 == 0 else 0
        scores = {
            f"model.{signal}": (index * 7919 + place * 104_729) % 600_000 for place, signal in enumerate(_SIGNALS)
        }
        scores["model.signal_0"] = max(worst, scores["model.signal_0"])
        facts = ContentFacts(type="text", digest=f"{index:064x}", length=len(text))
        context = Context(surface="comments", author={"id": f"user-{index}", "ageDays": index % 400})
        made.append((text, Evidence(content=facts, context=context, signals=scores, language="en")))
    return made


def prepare(variant: str, *, block: str = "92%") -> InForce:
    """Put a policy in force, as the product does, and return what binds a comment; `block` is each threshold."""
    documents = [policies.threshold(*(f"model.{signal}" for signal in _SIGNALS), block=block)]
    content = documents[0]["spec"]["policy"]
    match variant:
        case "rule":
            content["rules"] = [policies.RULE]
        case "lists":
            source = {"type": "ConfigMap", "name": "terms", "key": "terms.txt"}
            content["lists"] = [{"name": "terms", "type": "Terms", "action": "Review", "source": source}]
            documents.append(_terms())
    return asyncio.run(_adopt(documents))


def _terms() -> dict[str, Any]:
    """Return a list of invented words, of which no text here has any, and one that a few have."""
    terms = [f"unword{index}" for index in range(_TERMS - 1)] + ["awful"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "terms", "namespace": "bench"},
        "data": {"terms.txt": "\n".join(terms)},
    }


async def _adopt(documents: list[dict[str, Any]]) -> InForce:
    tensor = Tensor(name="input_ids", data_type=DataType.INT64, dims=(100,))
    scores = Tensor(name="scores", data_type=DataType.FP32, dims=(len(_SIGNALS),))
    model = Model(
        name="model",
        version="1",
        source=Source(type=SourceType.FILE, uri="model.onnx"),
        inputs=(tensor,),
        outputs=(scores,),
        preprocessing=Preprocessing(recipe="tox-block/1"),
        signals=tuple(ModelSignal(name=signal, output="scores", index=place) for place, signal in enumerate(_SIGNALS)),
    )
    with ThreadPoolExecutor(1) as executor:
        adopt = AdoptPolicies(MemoryRevisionStore(), (model,), executor=executor, wall_seconds=time.time)
        found = tuple(Document(file="bench.yaml", body=document) for document in documents)
        snapshot = await adopt.adopt(Documents(documents=found))
    problems = [str(problem) for status in snapshot.statuses for problem in status.problems]
    if problems or snapshot.problems:
        raise RuntimeError(f"the policy is not in force: {problems} {snapshot.problems}")
    return snapshot.in_force(Context(surface="comments"))


@contextmanager
def pinned() -> Iterator[None]:
    """Keep this process on the core where servers are measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {Cores.choose().server})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
