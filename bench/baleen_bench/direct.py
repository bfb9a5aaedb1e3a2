"""The peer of the whole product: an application that tokenises its texts and asks Triton itself, and no more.

It drives itself: the same arrivals as the load generator's, and no more calls at a time than that has connections.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from baleen_bench.build import loadgen
from baleen_bench.children import output_of
from baleen_bench.load import CONNECTIONS, GRACE_SECONDS, Load, Meter, read_load
from baleen_bench.models import load
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Tensor
from baleen_core.ratio import MILLION

CALIBRATION_RATE: Final = 5000.0
"""More than one Python process can ask of Triton on any machine seen so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectSide:
    """A Side that asks `model` at `endpoint`, from one core; `texts` has one a line."""

    name: str
    endpoint: str
    model: str
    texts: Path
    cpu: int
    triton: int

    def calibrate(self, *, step_seconds: float, max_seconds: float) -> tuple[float, Any]:
        """See Side; with calls at a time bounded, offering far too much shows what can be answered."""
        load = self.offer(rate=CALIBRATION_RATE, seconds=min(2 * step_seconds, max_seconds), seed=1)
        return load.achieved_per_second, {"offered_achieved": [(CALIBRATION_RATE, load.achieved_per_second)]}

    def offer(self, *, rate: float, seconds: float, seed: int) -> Load:
        """See Side."""
        meter = Meter(self.triton)
        said = output_of(
            "baleen_bench.direct",
            *("--endpoint", self.endpoint, "--model", self.model, "--texts", str(self.texts)),
            *("--rate", str(rate), "--seconds", str(seconds), "--seed", str(seed)),
            cpu=self.cpu,
            seconds=seconds + GRACE_SECONDS,
        )
        report = json.loads(said)
        return read_load(report, server=report["own_cpu_seconds"], triton=meter.used())


class Client:
    """Sends one load and counts what comes back."""

    def __init__(self, client: InferenceServerClient, loaded: LoadedModel, texts: list[str], due: list[float]) -> None:
        self._client = client
        self._model = loaded.model
        assert loaded.text is not None, "the benchmarks send text"
        self._recipe = loaded.text
        self._texts = texts
        self._arrivals = iter(enumerate(due))
        self.answers: list[tuple[float, float]] = []
        """When each was due and when it was answered, in seconds from the start."""
        self.failed = 0

    async def run(self, seconds: float) -> None:
        """Keep calling until the arrivals or the time are used up."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._work(started, seconds))

    async def _work(self, started: float, seconds: float) -> None:
        for index, due in self._arrivals:
            now = time.perf_counter() - started
            if now >= seconds:
                return
            if due > now:
                await asyncio.sleep(due - now)
            try:
                await self.ask(self._texts[index % len(self._texts)])
            except Exception as exc:  # whatever it is, it is no answer
                self.failed += 1
                print(repr(exc), file=sys.stderr)
                continue
            self.answers.append((due, time.perf_counter() - started))

    async def ask(self, text: str) -> int:
        """Return the score in millionths: the same end of the work as the sidecar's."""
        tensors = self._recipe.collate(self._recipe.windows(text).rows)
        inputs = [_to_input(tensor, tensors[tensor.name]) for tensor in self._model.inputs]
        answer = await self._client.infer(self._model.name, inputs, model_version=self._model.version)
        scores = answer.as_numpy(self._model.signals[0].output)
        return round(float(scores.max()) * MILLION)


def _to_input(tensor: Tensor, rows: Any) -> InferInput:
    return InferInput(tensor.name, rows.shape, tensor.data_type).set_data_from_numpy(rows)


def arrivals(*, rate: float, seconds: float, seed: int) -> list[float]:
    """Return when requests are due, in seconds: the load generator's own arrivals."""
    command: list[str | Path] = [loadgen(), "-print-schedule", f"-rate={rate}", f"-seconds={seconds}", f"-seed={seed}"]
    instants: list[int] = json.loads(subprocess.check_output(command))
    return [instant / 1e9 for instant in instants]


def report(client: Client, due: list[float], *, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    """Write what was sent and answered as the load generator does."""
    waits = sorted(at - due for due, at in client.answers)
    return {
        "offered_per_second": len(due) / seconds,
        "achieved_per_second": sum(at <= seconds for _, at in client.answers) / seconds,
        "ok": len(client.answers),
        "errors": {"call": client.failed} if client.failed else {},
        "latency_ms": {f"p{percent:g}": round(value * 1e3, 3) for percent, value in _percentiles(waits)},
        "histogram": [],
        "own_cpu_seconds": cpu_seconds,
    }


def _percentiles(ordered: list[float]) -> Iterator[tuple[float, float]]:
    if ordered:
        for percent in (50, 90, 95, 99, 99.9):
            yield percent, ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def main() -> None:
    """Offer one load and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    due = arrivals(rate=arguments.rate, seconds=arguments.seconds, seed=arguments.seed)
    texts = arguments.texts.read_text(encoding="utf-8").splitlines()
    async with InferenceServerClient(arguments.endpoint) as triton:
        client = Client(triton, load(arguments.model), texts, due)
        await client.ask(texts[0])  # connects
        before = time.process_time()
        await client.run(arguments.seconds)
        used = time.process_time() - before
    print(json.dumps(report(client, due, seconds=arguments.seconds, cpu_seconds=used)))


if __name__ == "__main__":
    uvloop.run(main())
