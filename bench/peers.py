"""Throughput of the product over that of model servers which others made, on the same texts and one core each.

The product is the whole of it, sidecar and Triton on the same core, with its log synced each half second. Peers have
the model in their own process (ONNX Runtime), read the same request as JSON, tokenise with the same recipe, compare
with a threshold and answer; they keep nothing. They batch where they can. Everybody computes with one thread. With
`echo`, which costs nothing, all of the cost is the server's; with shipped models on a CPU most is the model's.
"""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from baleen_bench import policies
from baleen_bench.form import Aim, Comparison, Effort, Figure, Outcome, compare_all
from baleen_bench.models import ECHO, load
from baleen_bench.peers import FASTAPI, PEERS, python_of, serve, write_model
from baleen_bench.sides import bench
from baleen_bench.triton import triton
from baleen_sidecar.settings import Durability

SHIPPED = ("toxicity", "text-safety")
_TITLES = {"kserve": "KServe", "litserve": "LitServe", "bentoml": "BentoML", "fastapi_ort": "FastAPI with ONNX Runtime"}
_REPETITIONS = 3
_NOISE_PAIRS = 1
"""Of each peer: there are four, with three models each."""


def figure_of(peer: str, model: str) -> str:
    """Return the id of a figure."""
    return f"ratio_{peer}" if model == ECHO.name else f"ratio_{peer}_{model.replace('-', '_')}"


FIGURES = {
    **{
        figure_of(peer.name, ECHO.name): Aim(
            what=f"texts a second on one core, Triton included, over {_TITLES[peer.name]}; stand-in `{ECHO.name}`",
            goal=">= 3",
        )
        for peer in PEERS
    },
    **{
        figure_of(peer.name, model): Aim(
            what=f"the same over {_TITLES[peer.name]}; `{model}` on the CPU", goal=">= 0.9"
        )
        for model in SHIPPED
        for peer in PEERS
    },
}


def measure(effort: Effort) -> Outcome:
    """Compare the product with each peer, model by model; when quick, with the one that needs no installation."""
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for model in (ECHO.name,) if effort.quick else (ECHO.name, *SHIPPED):
        stand_in = model if model == ECHO.name else None
        for peer, found in compare_on(model, effort).items():
            name = figure_of(peer, model)
            figures.append(Figure.of(name, found.ratios, "ratio", aims=FIGURES, noise=found.noise, stand_in=stand_in))
            raw[name] = found.raw
    return Outcome(figures=tuple(figures), raw=raw)


def compare_on(model: str, effort: Effort) -> dict[str, Comparison]:
    """Compare with all peers, in turns."""
    # Our own environment has what that one needs, too; in so little time nothing is compared.
    pythons = {FASTAPI: Path(sys.executable)} if effort.quick else {peer: python_of(peer) for peer in PEERS}
    policy = policies.threshold(*load(model).signal_names())
    with bench() as here, triton(model, cpu=here.cores.server) as server, ExitStack() as stack:
        files = write_model(model, here.folder / "model")
        subject = here.sidecar("interval", Durability.INTERVAL, policy, triton=server, model=model)
        peers = [
            stack.enter_context(serve(peer, files, python=python, cores=here.cores)) for peer, python in pythons.items()
        ]
        less = replace(effort, repetitions=min(_REPETITIONS, effort.repetitions), noise_pairs=_NOISE_PAIRS)
        return compare_all(subject, peers, less)
