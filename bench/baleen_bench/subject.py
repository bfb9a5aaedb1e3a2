"""The product as it is served, in a process of its own: every adapter is the real one, only the model may not be."""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import uvloop

from baleen_bench.children import announce
from baleen_bench.models import load, with_golden
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Model
from baleen_sidecar.adapters.routed import Replica, RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.main import Sidecar, bind, open_sidecar, run_server
from baleen_sidecar.settings import Durability, Settings
from baleen_sidecar.usecases.verify_models import VerifyModels


async def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--policies", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--durability", type=Durability, required=True)
    parser.add_argument("--triton", default="127.0.0.1:1")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--api-keys", type=Path)
    # As the product does it: what is away and comes back is found out by golden questions, and no more is let in than
    # there is processor time for.
    parser.add_argument("--golden", action="store_true")
    # Without it one core can be used up, which is what most benchmarks measure.
    parser.add_argument("--governed", action="store_true")
    arguments = parser.parse_args()
    settings = Settings(
        port=0,
        policies=arguments.policies,
        state=arguments.state,
        durability=arguments.durability,
        api_keys_file=arguments.api_keys,
        # Texts come again in a load, and a model that is not asked would be no model measured.
        cache_enabled=False,
    )
    inference = RoutedInference(lambda at: TritonInference(at, timeout_seconds=settings.model_timeout_seconds))
    models = [load(name) for name in arguments.model]
    if arguments.golden:
        models = [with_golden(loaded) for loaded in models]
    inference.route({loaded.model.name: (arguments.triton,) for loaded in models})
    for loaded in models:
        # Whoever started Triton for us has asked the model; golden answers are not what is measured.
        inference.server(arguments.triton).confirm(loaded.model)
    async with open_sidecar(settings, models, inference, breakers=inference) as sidecar:
        with bind(settings.host, settings.port) as listening:
            async with asyncio.TaskGroup() as group:
                watching = []
                if arguments.governed or arguments.golden:
                    watching = [group.create_task(task()) for task in sidecar.watched]
                if arguments.golden:
                    watch = watch_of(models, inference.server(arguments.triton), sidecar)
                    watching.append(group.create_task(watch.run(settings.verify_interval_seconds)))
                announce(listening)
                await run_server(sidecar.app, listening)
                for task in watching:
                    task.cancel()
    await inference.close()


def watch_of(models: Sequence[LoadedModel], replica: Replica, sidecar: Sidecar) -> VerifyModels:
    """Return what asks golden questions of models that somebody else has loaded."""

    def no_file(model: Model, name: str) -> bytes:
        raise AssertionError(f"the golden question of {model.name} is a text, and not {name}")

    return VerifyModels(
        models,
        replica,
        images=sidecar.ports.images,
        golden_file=no_file,
        loads=False,
        probe_at=replica.probe_at,
    )


if __name__ == "__main__":
    uvloop.run(main())
