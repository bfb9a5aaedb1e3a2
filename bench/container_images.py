"""The images: what each adds to its base, and how long a container of it takes from its start to its first answer.

A container is confined as `restricted` pods are, and run by runc alone: a kubelet's own time is not in it. The floor is
the same image with an empty server of Python's library; it is measured against itself first.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from baleen_bench import pods
from baleen_bench.form import Aim, Effort, Figure, Outcome, in_turns, noise_of
from baleen_cli.triton.process import free_port
from confined import Confined, confined, nobodys_kubeconfig
from images import Image, image

MEGABYTE = 1_000_000
FIGURES = {
    "image_operator_mb": Aim(what="the operator's image above its base, unpacked", goal="< 300"),
    "image_sidecar_mb": Aim(what="the image of gateway and sidecar above its base, unpacked", goal="< 500"),
    "image_models_mb": Aim(what="the image that fetches models above its base, unpacked"),
    "image_start_s_operator": Aim(what="a container of the operator: its start until it serves", goal="< 3"),
    "image_start_s_sidecar": Aim(what="a container of the sidecar: its start until it serves", goal="< 3"),
}
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.01
FLOOR = """
import http.server, sys

class Empty(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Empty).serve_forever()
"""


def measure(effort: Effort) -> Outcome:
    """Read the layers; start the floor twice for the noise, then floor, operator and sidecar in turns."""
    with pods.containers(), tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        layers = {name: image(name).layer_sizes() for name in ("operator", "sidecar", "models")}
        starts: Mapping[str, Callable[[], float]] = {
            "floor": runs.floor,
            "operator": runs.operator,
            "sidecar": runs.sidecar,
        }
        for name in () if effort.quick else starts:
            starts[name]()  # brings its files into memory
        pairs = [(runs.floor(), runs.floor()) for _ in range(effort.noise_pairs)]
        seconds = in_turns(starts, effort.repetitions, lambda start, _: start())
    sizes = {name: sum(found[1:]) / MEGABYTE for name, found in layers.items()}
    noise = noise_of(pairs)
    return Outcome(
        figures=(
            *(Figure.of(f"image_{name}_mb", [size], "MB", aims=FIGURES, noise=0.0) for name, size in sizes.items()),
            *(
                Figure.of(f"image_start_s_{name}", seconds[name], "s", aims=FIGURES, noise=noise)
                for name in ("operator", "sidecar")
            ),
        ),
        raw={"layers_bytes": layers, "floor_against_itself": pairs, "start_s": seconds},
    )


class Runs:
    """Starts containers, each in a folder of its own, and says how long each took to serve."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        kubeconfig = folder / "kube"
        kubeconfig.mkdir()
        (kubeconfig / "config").write_text(json.dumps(nobodys_kubeconfig()))
        self._kubeconfig = kubeconfig

    def floor(self) -> float:
        """Start the empty server."""
        port = free_port()
        return self._start(image("sidecar"), port, command=["python", "-c", FLOOR, str(port)])

    def operator(self) -> float:
        """Start an operator, whose API server is away."""
        port = free_port()
        environment = {"BALEEN_OPERATOR_PORT": str(port), "KUBECONFIG": "/kube/config"}
        return self._start(image("operator"), port, environment=environment, volumes={"/kube": self._kubeconfig})

    def sidecar(self) -> float:
        """Start a sidecar, whose gateway is away."""
        port = free_port()
        environment = {"BALEEN_PORT": str(port), "BALEEN_GATEWAY_URL": "http://127.0.0.1:9"}
        return self._start(image("sidecar"), port, environment=environment, scratch=("/tmp", "/var/lib/baleen"))

    def _start(self, what: Image, port: int, **how: Any) -> float:
        _ = what.root  # unpacked before the clock starts
        self._count += 1
        begun = time.monotonic()
        with confined(what, self._folder / str(self._count), **how) as run:
            wait_for_answer(run, f"http://127.0.0.1:{port}/health", begun)
            return time.monotonic() - begun


def wait_for_answer(run: Confined, url: str, begun: float) -> None:
    """Return when a container answers well for the first time.

    Raises:
        TimeoutError: it did not; what it wrote is in the message.
    """
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < begun + PATIENCE_SECONDS:
            try:
                if client.get(url).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(LOOK_SECONDS)
    raise TimeoutError(f"{url} did not answer: {run.log.read_text(errors='replace')[-4000:]}")
