"""Start what is compared, each in its own process, and stop it again."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from baleen_bench import policies, texts
from baleen_bench.build import cache_folder
from baleen_bench.children import child
from baleen_bench.direct import DirectSide
from baleen_bench.load import HttpSide
from baleen_bench.machine import Cores
from baleen_bench.models import STAND_INS, load
from baleen_bench.triton import Triton, triton
from baleen_sidecar.settings import Durability


class Bench:
    """A folder on a real disk, the cores, and the servers that are started for one script."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self.folder = folder
        self.cores = Cores.choose()
        self.requests = texts.write_requests(folder / "requests.jsonl")

    def floor(self, stage: str, *resources: dict[str, Any]) -> HttpSide:
        """Start a server that does less than the product; see baleen_bench.floor."""
        folder = policies.write(self.folder / stage, *resources)
        server = self._stack.enter_context(
            child("baleen_bench.floor", stage, f"--policies={folder}", cpu=self.cores.server)
        )
        return HttpSide(name=stage, server=server, requests=self.requests, cpu=self.cores.other)

    def sidecar(
        self,
        name: str,
        durability: Durability,
        *resources: dict[str, Any],
        triton: Triton | None = None,
        model: str | None = None,
        api_keys: Path | None = None,
        has_golden: bool = False,
        is_governed: bool = False,
    ) -> HttpSide:
        """Start the product with policies, a state folder of its own, and one model on a Triton, or none.

        With a file of API keys whoever shows none of them is refused. One that `has_golden` questions asks them of the
        model, which must be a stand-in that says 1 %. What is governed lets in no more than it has processor time for,
        as the product does; one with golden questions is.
        """
        home = self.folder / name
        arguments = [f"--policies={policies.write(home / 'policies', *resources)}", f"--state={home / 'state'}"]
        if triton is not None and model is not None:
            arguments += [f"--triton={triton.endpoint}", f"--model={model}"]
        if api_keys is not None:
            arguments.append(f"--api-keys={api_keys}")
        if has_golden:
            arguments.append("--golden")
        if is_governed:
            arguments.append("--governed")
        costs_a_call = triton is None or model in STAND_INS
        server = self._stack.enter_context(
            child("baleen_bench.subject", f"--durability={durability.value}", *arguments, cpu=self.cores.server)
        )
        return HttpSide(
            name=name,
            server=server,
            requests=self.requests,
            cpu=self.cores.other,
            triton=triton.pid if triton else None,
            start_rate=500.0 if costs_a_call else 50.0,
        )

    def direct(self, server: Triton, model: str) -> DirectSide:
        """Return the application that asks a Triton itself; see baleen_bench.direct."""
        return DirectSide(
            name="direct",
            endpoint=server.endpoint,
            model=model,
            texts=texts.write_texts(self.folder / "texts.txt"),
            cpu=self.cores.server,
            triton=server.pid,
        )


@contextmanager
def bench() -> Iterator[Bench]:
    """Give a Bench; on leaving, its servers have ended and its folder is gone."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    # Not in /tmp: that may be memory, where a durable write costs nothing.
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache_folder()) as folder, ExitStack() as stack:
        yield Bench(Path(folder), stack)


@contextmanager
def beside_direct(model: str, name: str, durability: Durability) -> Iterator[tuple[HttpSide, DirectSide]]:
    """Start a Triton with one model, and what asks it: the product, under `name`, and an application by itself.

    Each signal of the model is a category of the policy. Both run on one core, Triton on the other.
    """
    with bench() as here, triton(model, cpu=here.cores.other) as server:
        policy = policies.threshold(*load(model).signal_names())
        yield here.sidecar(name, durability, policy, triton=server, model=model), here.direct(server, model)
