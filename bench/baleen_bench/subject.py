"""The product as it is served, in a process of its own: every adapter is the real one, only the model may not be."""

import argparse
from pathlib import Path

import uvloop

from baleen_bench.children import announce
from baleen_bench.models import load
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.main import bind, open_sidecar, run_server
from baleen_sidecar.settings import Durability, Settings


async def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--policies", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--durability", type=Durability, required=True)
    parser.add_argument("--triton", default="127.0.0.1:1")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--api-keys", type=Path)
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
    inference.route({loaded.model.name: (arguments.triton,) for loaded in models})
    for loaded in models:
        # Whoever started Triton for us has asked the model; golden answers are not what is measured.
        inference.server(arguments.triton).confirm(loaded.model)
    async with open_sidecar(settings, models, inference, breakers=inference) as sidecar:
        with bind(settings.host, settings.port) as listening:
            announce(listening)
            await run_server(sidecar.app, listening)
    await inference.close()


if __name__ == "__main__":
    uvloop.run(main())
