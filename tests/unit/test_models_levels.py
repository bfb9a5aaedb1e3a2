"""A graph that takes levels computes what the graph of floats computed, and both can be fetched and placed."""

import itertools
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from baleen_cli.models.catalog import Channels, Layout, Levels
from baleen_cli.models.converters.graph import Graph
from baleen_cli.models.converters.levels import take_levels
from baleen_cli.models.fetch import fetch_models
from baleen_cli.models.placing import place_models
from baleen_core.errors import IntegrityError, ModelError
from baleen_core.model.rendering import SOURCE_FILE, render_source
from baleen_core.model.schema import Source, SourceType
from packages import MEMBER, Registry, digest, make_document, make_store, make_wheel
from served_models import IMAGE_MODEL

HEIGHT, WIDTH = 4, 6
SHAPES = {Layout.NCHW: ["batch", 3, HEIGHT, WIDTH], Layout.NHWC: ["batch", HEIGHT, WIDTH, 3]}
BGR_MEAN = (104, 117, 123)
LEVELS = Levels(channels=Channels.BGR, layout=Layout.NCHW, mean=BGR_MEAN)


def make_graph(path, shape, *, kind=TensorProto.FLOAT, opset=18):
    """Write a graph that tells every pixel's place: each is weighted by its own number; it also asks for its shape."""
    graph = Graph()
    weights = np.arange(1, 1 + HEIGHT * WIDTH * 3, dtype=np.float32).reshape(shape[1:])
    graph.node("Shape", "image", output="shape")
    graph.node("Mul", "image", graph.weight("weights", weights), output="y")
    graph.save(path, "tiny", {"image": shape}, {"y": shape}, kind)
    model = onnx.load(path)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    onnx.save(model, path)
    return path


def answer(path, rows):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"image": rows})[0]


def as_the_graph_wants(rows, levels):
    floats = rows.astype(np.float32)
    if levels.channels is Channels.BGR:
        floats = floats[..., ::-1]
    if levels.mean:
        floats = floats - np.array(levels.mean, np.float32)
    return np.ascontiguousarray(floats.transpose(0, 3, 1, 2) if levels.layout is Layout.NCHW else floats)


@pytest.mark.parametrize("opset", [9, 18], ids="opset {}".format)
@pytest.mark.parametrize(
    ("channels", "layout", "mean"), [*itertools.product(Channels, Layout, [(), BGR_MEAN])], ids=lambda value: str(value)
)
def test_levels_in_front_give_the_answers_of_floats(tmp_path, channels, layout, mean, opset):
    levels = Levels(channels=channels, layout=layout, mean=mean)
    before = make_graph(tmp_path / "before.onnx", SHAPES[layout], opset=opset)
    after = make_graph(tmp_path / "after.onnx", SHAPES[layout], opset=opset)
    take_levels(after, levels)
    rows = np.random.default_rng(7).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    rows[0, 0, 0], rows[0, 0, 1] = 0, 255

    assert (answer(after, rows) == answer(before, as_the_graph_wants(rows, levels))).all()
    (taken,) = onnx.load(after).graph.input
    assert taken.name == "image"
    assert [dim.dim_param or dim.dim_value for dim in taken.type.tensor_type.shape.dim] == ["batch", HEIGHT, WIDTH, 3]


def test_the_same_levels_make_the_same_bytes(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        take_levels(make_graph(tmp_path / name, SHAPES[Layout.NCHW]), LEVELS)

    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("shape", "kind", "says"),
    [
        pytest.param(SHAPES[Layout.NHWC], TensorProto.FLOAT, "the graph is not NCHW with 3 channels", id="layout"),
        pytest.param(["batch", 3, HEIGHT * WIDTH], TensorProto.FLOAT, "the graph is not NCHW", id="three axes"),
        pytest.param(SHAPES[Layout.NCHW], TensorProto.DOUBLE, "one FP32 input", id="type"),
    ],
)
def test_a_graph_of_another_kind_takes_no_levels(tmp_path, shape, kind, says):
    path = tmp_path / "model.onnx"
    value = helper.make_tensor_value_info("image", kind, shape)
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["y"])], "tiny", [value], [])
    graph.output.add().CopyFrom(helper.make_tensor_value_info("y", kind, shape))
    onnx.save(helper.make_model(graph), path)
    before = path.read_bytes()

    with pytest.raises(ModelError, match=says):
        take_levels(path, LEVELS)
    assert path.read_bytes() == before


class Shipped:
    """A package whose model takes levels since this release, and the digests of both forms."""

    def __init__(self, folder):
        self.folder = folder
        self.before = make_graph(folder / "before.onnx", SHAPES[Layout.NCHW]).read_bytes()
        take_levels(make_graph(folder / "after.onnx", SHAPES[Layout.NCHW]), LEVELS)
        self.after = (folder / "after.onnx").read_bytes()
        self.registry = Registry(make_wheel({MEMBER: self.before}))

    def store(self, *, levels=True, replaced=""):
        replaces = {"version": "1", "sha256": replaced or digest(self.before)}
        document = make_document(
            self.registry.packed,
            file_sha256=digest(self.before),
            result_sha256=digest(self.after if levels else self.before),
            levels={"channels": "BGR", "layout": "NCHW", "mean": list(BGR_MEAN), "replaces": replaces}
            if levels
            else None,
        )
        return make_store(self.folder, document)

    def place(self, store, sha256):
        home = self.folder / "rendered" / "tiny"
        home.mkdir(parents=True, exist_ok=True)
        source = Source(type=SourceType.PACKAGE, uri="pkg:pypi/tiny@1.0", sha256=sha256)
        (home / SOURCE_FILE).write_text(render_source(replace(IMAGE_MODEL, version="1", source=source)))
        place_models(self.folder / "rendered", self.folder / "repository", store, download=self.registry)
        return (self.folder / "repository" / "tiny" / "1" / "model.onnx").read_bytes()


@pytest.fixture
def shipped(tmp_path):
    return Shipped(tmp_path)


def test_a_deployment_that_names_the_model_of_floats_still_gets_it(shipped):
    store = shipped.store()

    assert shipped.place(store, digest(shipped.after)) == shipped.place(store, None) == shipped.after
    assert shipped.place(store, digest(shipped.before)) == shipped.before
    assert shipped.place(store, digest(shipped.after)) == shipped.after
    assert shipped.registry.asked == ["tiny"]
    assert digest(shipped.before) not in (store.root / "models.lock").read_text()


def test_what_an_earlier_release_fetched_is_not_made_again(shipped):
    earlier = shipped.store(levels=False)
    fetch_models([], earlier, download=shipped.registry)
    written = earlier.locate("tiny").onnx.stat().st_mtime_ns
    store = shipped.store()

    assert shipped.place(store, digest(shipped.before)) == shipped.before
    assert store.files_of(store.catalog[0].replaced).onnx.stat().st_mtime_ns == written


def test_nothing_is_put_in_front_of_another_file_than_the_one_that_is_replaced(shipped):
    store = shipped.store(replaced="ab" * 32)

    with pytest.raises(IntegrityError, match="before it takes levels") as refused:
        fetch_models([], store, download=shipped.registry)
    assert (refused.value.expected, refused.value.found) == ("ab" * 32, digest(shipped.before))
