"""BentoML with its own adaptive batching; one worker, as there is one core."""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from work import BATCH, Work

_MAX_LATENCY_MS = 10_000
"""As patient as a caller: at less it refuses, which is not what is measured."""


@bentoml.service(workers=1, traffic={"timeout": 60})  # type: ignore[untyped-decorator]  # not installed
class Moderation:
    """Judge texts that came together."""

    def __init__(self) -> None:
        self.work = Work(Path(os.environ["BALEEN_PEER_MODEL"]))

    @bentoml.api(  # type: ignore[untyped-decorator]
        route="/v1/moderate", batchable=True, max_batch_size=BATCH, max_latency_ms=_MAX_LATENCY_MS
    )
    async def moderate(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Judge a batch."""
        return self.work.judge(requests)


if __name__ == "__main__":
    os.environ |= {"BALEEN_PEER_MODEL": sys.argv[2], "BENTOML_DO_NOT_TRACK": "true"}
    here = Path(__file__)
    command = ["-m", "bentoml", "serve", f"{here.stem}:Moderation", "--host", "127.0.0.1", "--port", sys.argv[1]]
    os.execv(sys.executable, [sys.executable, *command, "--working-dir", str(here.parent)])
