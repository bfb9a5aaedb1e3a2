"""The word model as a cluster serves it: a ModelDeployment, and a Triton of someone else that has it at hand."""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from baleen_cli.triton.server import WatchRules
from baleen_core.model.schema import Model
from serving import until
from triton import PrivateTriton, private_triton
from word_model import write_word_model

IMAGE: Final = "registry.example/triton:25.08"


def deployment(namespace: str, folder: Path, *, model: str, name: str = "words", **spec: Any) -> dict[str, Any]:
    """Return a ModelDeployment of the word model as an author would write it."""
    (entry,) = write_word_model(folder)["spec"]["models"]
    # The operator finds the vocabulary under the model's name.
    shutil.copytree(folder / "words", folder / model, dirs_exist_ok=True)
    entry |= {"name": model, "source": entry["source"] | {"type": "Package", "uri": "pkg:pypi/words@1.0"}}
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"runtime": {"image": IMAGE, "backend": "Python"}, "models": [entry], "verifyIntervalSeconds": 5}
        | spec,
    }


def unique(namespace: str) -> str:
    """Return a model's name that no other test of this run has: such names are one in the whole cluster."""
    return f"words-{namespace[-8:]}"


@contextlib.contextmanager
def word_triton(folder: Path, model: Model, rules: WatchRules | None = None) -> Iterator[PrivateTriton]:
    """Run a Triton of someone else beside the test, with the model in its repository and nothing loaded."""
    started, ended = threading.Event(), threading.Event()
    found: list[PrivateTriton] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def nothing() -> None:
        """It comes up empty."""

    async def host() -> None:
        find = lambda _: folder / "words" / "model.onnx"  # noqa: E731
        async with private_triton([model], find, folder / "runs", prepare=lambda _: nothing, rules=rules) as triton:
            found.append(triton)
            loops.append(asyncio.get_running_loop())
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(host()))
    thread.start()
    try:
        until(lambda: started.is_set() or not thread.is_alive(), seconds=90)
        (triton,) = found
        triton.unload = lambda: asyncio.run_coroutine_threadsafe(  # type: ignore[attr-defined]
            triton.inference.unload(model), loops[0]
        ).result(30)
        yield triton
    finally:
        ended.set()
        thread.join()
