"""KServe's model server with a model of one's own, over its first protocol; it has no batching of its own in Python."""

import sys
from pathlib import Path
from typing import Any

port, folder = sys.argv[1:3]
sys.argv[1:] = []  # KServe reads the command line when it is imported

import kserve  # noqa: E402
from work import Work  # noqa: E402


class Moderation(kserve.Model):  # type: ignore[misc]  # untyped where it is not installed
    """Judge the texts of a request."""

    def __init__(self) -> None:
        super().__init__("moderation")
        self.work = Work(Path(folder))
        self.ready = True

    async def predict(
        self, payload: dict[str, Any], headers: dict[str, str] | None = None, response_headers: Any = None
    ) -> dict[str, Any]:
        """Judge them."""
        return {"predictions": self.work.judge(payload["instances"])}


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=int(port), workers=1, enable_grpc=False, enable_latency_logging=False)
    server.start([Moderation()])
