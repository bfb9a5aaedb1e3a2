"""nsfwjs MobileNetV2: a Keras model in TensorFlow.js's JSON with 8-bit weights, both inside JavaScript bundles."""

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from baleen_cli.models.converters.graph import Array, Graph
from baleen_cli.models.converters.javascript import read_bundle
from baleen_cli.models.progress import FetchProgress
from baleen_core.errors import ModelError

_SIDE: Final = 224
_CLASSES: Final = 5


def convert(inputs: Mapping[str, Path], into: Path, progress: FetchProgress) -> Mapping[str, Any]:
    """Write the model with the input `[-1,224,224,3]`, RGB 0 to 255; the division by 255 is part of the graph."""
    bundles = {Path(path).name: read_bundle(file.read_text(encoding="ascii")) for path, file in inputs.items()}
    description = bundles.pop("model.min.js")
    weights = read_weights(description, b"".join(_decoded(bundles[name]) for name in sorted(bundles)))
    graph = _Network(weights)
    graph.build(description["modelTopology"]["model_config"]["config"])
    graph.save(
        into / "model.onnx",
        "nsfwjs",
        {"input": ["batch", _SIDE, _SIDE, 3]},
        {"probabilities": ["batch", _CLASSES]},
        TensorProto.FLOAT,
    )
    return {}


def read_weights(description: Mapping[str, Any], data: bytes) -> dict[str, Array]:
    """Cut the weights out of their one block, in the manifest's order, and bring quantised ones back to FP32.

    Raises:
        ModelError: the block is longer or shorter than the manifest says.
    """
    weights, at = {}, 0
    for entry in (entry for group in description["weightsManifest"] for entry in group["weights"]):
        quantised = entry.get("quantization")
        kind = np.dtype(quantised["dtype"] if quantised else entry["dtype"])
        size = math.prod(entry["shape"]) * kind.itemsize
        if at + size > len(data):
            raise ModelError(f"the weights end within {entry['name']}: {len(data)} bytes")
        array = np.frombuffer(data[at : at + size], kind).astype(np.float32)
        if quantised:
            array = array * np.float32(quantised["scale"]) + np.float32(quantised["min"])
        weights[entry["name"]] = array.reshape(entry["shape"])
        at += size
    if at != len(data):
        raise ModelError(f"the weights have {len(data)} bytes; the manifest accounts for {at}")
    return weights


def _decoded(bundle: object) -> bytes:
    try:
        return base64.b64decode(bundle if isinstance(bundle, str) else "", validate=True)
    except binascii.Error as wrong:
        raise ModelError(f"a bundle of weights is not base64: {wrong}") from wrong


class _Network(Graph):
    """The Keras layers that MobileNetV2 is made of, each as ONNX; pictures are NCHW inside."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__()
        self._loaded = weights

    def build(self, config: Mapping[str, Any]) -> None:
        channels_first = self.node("Transpose", "input", perm=[0, 3, 1, 2])
        values = {config["input_layers"][0][0]: self.node("Mul", channels_first, self.number("scale", 1 / 255))}
        for layer in config["layers"]:
            if layer["class_name"] != "InputLayer":
                sources = [values[source[0]] for source in layer["inbound_nodes"][0]]
                values[layer["name"]] = self._layer(layer["class_name"], layer["config"], sources)
        self.node("Identity", values[config["output_layers"][0][0]], output="probabilities")

    def _layer(self, kind: str, config: Mapping[str, Any], sources: list[str]) -> str:
        match kind:
            case "ZeroPadding2D":
                (top, bottom), (left, right) = config["padding"]
                return self.node("Pad", sources[0], self.integers(0, 0, top, left, 0, 0, bottom, right))
            case "Conv2D" | "DepthwiseConv2D":
                return self._convolution(kind, config, sources[0])
            case "BatchNormalization":
                names = ("gamma", "beta", "moving_mean", "moving_variance")
                parameters = [self._weight(config["name"], name) for name in names]
                return self.node("BatchNormalization", sources[0], *parameters, epsilon=config["epsilon"])
            case "ReLU":
                limits = (self.number("zero", 0), self.number(f"max_{config['max_value']}", config["max_value"]))
                return self.node("Clip", sources[0], *limits)
            case "Add":
                return self.node("Add", *sources)
            case "AveragePooling2D" if config["padding"] == "valid":
                return self.node("AveragePool", sources[0], kernel_shape=config["pool_size"], strides=config["strides"])
            case "Flatten":
                # Keras flattens with the channels last, and the weights after it are in that order.
                return self.node("Flatten", self.node("Transpose", sources[0], perm=[0, 2, 3, 1]), axis=1)
            case "Dropout":
                return sources[0]
            case "Dense":
                return self._dense(config, sources[0])
            case _:
                raise ModelError(f"layer {config['name']!r} is a {kind}, which this converter does not know")

    def _convolution(self, kind: str, config: Mapping[str, Any], source: str) -> str:
        depthwise = kind == "DepthwiseConv2D"
        kernel = self._kernel(config["name"], "depthwise_kernel" if depthwise else "kernel")
        # Keras: height, width, input, output (depthwise: channel, 1); ONNX: output, input of a group, height, width.
        kernel = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
        height, width = config["kernel_size"]
        if config["use_bias"] or config["activation"] != "linear":
            raise ModelError(f"layer {config['name']!r} has a bias or an activation; only plain ones are known")
        # With a stride, "same" would pad by the picture's size; these models pad explicitly before such layers.
        if config["padding"] == "same" and config["strides"] != [1, 1]:
            raise ModelError(f"layer {config['name']!r} pads to the same size with a stride")
        padding = [height // 2, width // 2] * 2 if config["padding"] == "same" else [0] * 4
        return self.node(
            "Conv",
            source,
            self.weight(f"{config['name']}/kernel", kernel),
            kernel_shape=[height, width],
            strides=config["strides"],
            pads=padding,
            group=kernel.shape[0] if depthwise else 1,
        )

    def _dense(self, config: Mapping[str, Any], source: str) -> str:
        name = config["name"]
        product = self.node("Gemm", source, self._weight(name, "kernel"), self._weight(name, "bias"))
        match config["activation"]:
            case "softmax":
                return self.node("Softmax", product, axis=-1)
            case "relu":
                return self.node("Relu", product)
            case other:
                raise ModelError(f"layer {name!r} has the activation {other!r}; softmax and relu are known")

    def _weight(self, layer: str, name: str) -> str:
        return self.weight(f"{layer}/{name}", self._kernel(layer, name))

    def _kernel(self, layer: str, name: str) -> Array:
        # Two layers were saved a second time under the suffix _1.
        for key in (f"{layer}/{name}", f"{layer}_1/{name}"):
            if key in self._loaded:
                return self._loaded[key]
        raise ModelError(f"the weights hold no {layer}/{name}")
