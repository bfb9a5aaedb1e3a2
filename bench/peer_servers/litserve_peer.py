"""LitServe with its own batching and its faster queue; one worker, as there is one core."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import litserve
from work import BATCH, BATCH_SECONDS, Work


class Moderation(litserve.LitAPI):  # type: ignore[misc]  # untyped where it is not installed
    """Judge texts that came together."""

    def setup(self, device: str) -> None:
        """Load the model, in the worker's process."""
        self.work = Work(Path(sys.argv[2]))

    def batch(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Keep requests as they are."""
        return inputs

    def predict(self, x: Sequence[Any]) -> list[dict[str, Any]]:
        """Judge a batch."""
        return self.work.judge(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep answers as they are."""
        return output


if __name__ == "__main__":
    api = Moderation(max_batch_size=BATCH, batch_timeout=BATCH_SECONDS, api_path="/v1/moderate")
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
