"""The `model.py` of the Python form: one text for every model; what differs stands in the model's config.pbtxt.

It runs inside Triton's Python backend, under that server's own Python and packages: nothing here imports it.
"""

from collections.abc import Mapping
from typing import Final

SITE_VARIABLE: Final = "BALEEN_TRITON_SITE"
"""Environment variable naming the folder with numpy 1 and onnxruntime that `model.py` puts first on its path."""

PROVIDERS_PARAMETER: Final = "providers"
"""Parameter of config.pbtxt: ONNX Runtime's execution providers, as a JSON list of [name, {option: value}]."""

SILENT: Final[Mapping[str, str]] = {"ORT_DISABLE_TELEMETRY": "1"}
"""Environment in which ONNX Runtime, from 1.29 on, does not send its maker what it runs and where: else it does."""

THREADS_PARAMETER: Final = "intra_op_thread_count"
"""Parameter of config.pbtxt, for both forms: threads within one operator."""

MODEL_PY: Final = '''\
"""Runs model.onnx, which lies beside this file, in ONNX Runtime. Rendered by Baleen: edits are lost."""

import json
import os
import sys

# The backend's interpreter ignores PYTHONPATH, and packages of the machine must not come before ours.
if site := os.environ.get("BALEEN_TRITON_SITE"):
    sys.path.insert(0, site)

# ONNX Runtime would tell its maker of each model that it loads.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np

if int(np.__version__.split(".")[0]) >= 2:
    # The backend was built for numpy 1: with numpy 2 every output would come back empty, without an error.
    raise ImportError(f"numpy {np.__version__} in {np.__file__}: this Triton needs numpy below 2")

import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = {tensor["name"]: tensor for tensor in config["output"]}
        file = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = ort.InferenceSession(file, options(config), providers=providers(config, args))

    def execute(self, requests):
        """Answer the rows of all requests in one run; Triton joins only requests of equal shapes."""
        parts = [[read(request, name) for name in self.inputs] for request in requests]
        joined = [arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for arrays in zip(*parts)]
        answers = self.session.run(list(self.outputs), dict(zip(self.inputs, joined)))
        for answer, tensor in zip(answers, self.outputs.values()):
            check(answer, tensor, rows=len(joined[0]))
        responses, first = [], 0
        for arrays in parts:
            last = first + len(arrays[0])
            responses.append(self.respond([answer[first:last] for answer in answers]))
            first = last
        return responses

    def respond(self, answers):
        for name, answer in zip(self.outputs, answers):
            # One request's nonsense is its own error, not its neighbours'.
            if not np.isfinite(answer).all():
                return pb.InferenceResponse([], error=pb.TritonError(f"output {name} holds NaN or infinity"))
        return pb.InferenceResponse([pb.Tensor(name, answer) for name, answer in zip(self.outputs, answers)])


def read(request, name):
    return pb.get_input_tensor_by_name(request, name).as_numpy()


def options(config):
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = int(config["parameters"]["intra_op_thread_count"]["string_value"])
    chosen.inter_op_num_threads = 1
    # Threads that spin while they wait nearly double the CPU time of a run where several models share the cores.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return chosen


def providers(config, args):
    """ONNX Runtime would leave out silently what it lacks, and serve a GPU model from the CPU."""
    wanted = json.loads(config["parameters"]["providers"]["string_value"])
    missing = {name for name, _ in wanted} - set(ort.get_available_providers())
    if missing:
        raise pb.TritonModelException(
            f"onnxruntime {ort.__version__} lacks {sorted(missing)}; it has {ort.get_available_providers()}"
        )
    device = {"device_id": args["model_instance_device_id"]}
    return [(name, settings if name == "CPUExecutionProvider" else {**settings, **device}) for name, settings in wanted]


def check(answer, tensor, rows):
    """Refuse an output that is not what config.pbtxt promises."""
    shape = [rows] + [int(size) for size in tensor["dims"]]
    kind = np.dtype(pb.triton_string_to_numpy(tensor["data_type"]))
    fits = len(answer.shape) == len(shape) and all(size in (-1, real) for size, real in zip(shape, answer.shape))
    if not fits or answer.dtype != kind:
        found = f"{answer.dtype} {list(answer.shape)}"
        raise pb.TritonModelException(f"output {tensor['name']} is {found}; config.pbtxt says {kind} {shape}")
'''
