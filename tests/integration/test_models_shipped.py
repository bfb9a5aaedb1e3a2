"""The shipped models as they are fetched: whole, quick the second time, and with the answers that they promise."""

import functools
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from baleen_cli.model_files import ModelLocator
from baleen_cli.models.catalog import ModelSource, load_catalog
from baleen_cli.models.fetch import fetch_models, fetch_source, verify_models
from baleen_cli.models.progress import SilentProgress
from baleen_cli.models.store import ModelStore
from baleen_core.model.golden import compare_golden
from baleen_core.model.parse import parse_model
from baleen_core.model.recipes import TextRecipe, find_recipe, image_recipe, text_recipe
from baleen_core.model.signals import read_signals
from triton import make_rows

# One process reads the models, which takes seconds.
pytestmark = pytest.mark.xdist_group("models-shipped")

SOURCES = pytest.mark.parametrize("source", load_catalog(), ids=lambda source: source.name)
TOLERANCE = 1e-5
LEVELS_TOLERANCE = 2e-7
"""Half a millionth is what changes a score; none was seen to differ at all."""

PICTURES = sorted(
    path
    for path in (Path(__file__).parents[1] / "data" / "golden_tensors").iterdir()
    if path.suffix in (".jpg", ".png")
)


@pytest.fixture(scope="module")
def store() -> Iterator[ModelStore]:
    """Return the user's own store, with every model in it; what is opened in it is kept meanwhile."""
    store = ModelStore()
    fetch_models([], store)
    (source,) = (source for source in store.catalog if source.name == "text-safety")
    kept = read_recipe(store, source)
    yield store
    del kept
    open_file.cache_clear()


def read_recipe(store: ModelStore, source: ModelSource) -> TextRecipe:
    assets = {name: path.read_bytes() for name, path in store.locate(source.name).assets.items()}
    return text_recipe(parse_model(source.entry).preprocessing.recipe, assets)


def open_session(store: ModelStore, name: str) -> onnxruntime.InferenceSession:
    return open_file(store.locate(name).onnx)


@functools.cache
def open_file(onnx: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


SEEING = pytest.mark.parametrize(
    "source", [source for source in load_catalog() if source.levels], ids=lambda source: source.name
)


def prepare(store: ModelStore, source: ModelSource, index: int) -> dict[str, np.ndarray]:
    """Turn a golden input into tensors by the product's recipe."""
    model = parse_model(source.entry)
    given, recipe = model.golden[index].input, model.preprocessing.recipe
    if given.text is None:
        content = ModelLocator(store, store.root).golden_file(model, str(given.name))
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        return {model.inputs[0].name: image_recipe(recipe)(picture)[None]}
    text = read_recipe(store, source)
    return dict(text.collate(text.windows(given.text).rows))


def test_every_byte_is_the_promised_one(store):
    verified = {stored.name: stored.sha256 for stored in verify_models([], store)}

    assert set(verified) == {source.name for source in store.catalog}
    assert {source.name: source.sha256 or verified[source.name] for source in store.catalog} == verified


def test_a_second_fetch_of_everything_makes_nothing_and_reads_no_model(store):
    code = (
        "import sys; read = set(); sys.addaudithook(lambda event, args: event == 'open' and read.add(str(args[0])));"
        "from baleen_cli.models.fetch import fetch_models; from baleen_cli.models.store import ModelStore;"
        "made = [one.name for one in fetch_models([], ModelStore()) if one.made_seconds is not None];"
        "print(made, sorted(path for path in read if path.endswith('.onnx')), len(read) > 10)"
    )

    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert found.split("\n")[-2] == "[] [] True"


@SOURCES
def test_a_model_gives_its_golden_answers(store, source):
    model, session = parse_model(source.entry), open_session(store, source.name)
    names = [output.name for output in session.get_outputs()]
    problems = []
    for index in range(len(model.golden)):
        outputs = dict(zip(names, session.run(names, prepare(store, source, index)), strict=True))
        problems += compare_golden(model, index, read_signals(model, outputs, 0))

    assert problems == []


@SEEING
def test_levels_get_the_scores_that_floats_got_from_the_model_before(store, source):
    assert source.replaced
    fetch_source(source.replaced, store, SilentProgress())
    recipe, _, _ = parse_model(source.entry).preprocessing.recipe.partition("/")
    sessions = [open_file(store.files_of(each).onnx) for each in (source.replaced, source)]
    for path in PICTURES:
        with Image.open(path) as picture:
            prepared = [image_recipe(f"{recipe}/{version}")(picture.convert("RGB"))[None] for version in (1, 2)]
        floats, levels = (
            session.run(None, {session.get_inputs()[0].name: rows})
            for session, rows in zip(sessions, prepared, strict=True)
        )

        assert prepared[0].nbytes == 4 * prepared[1].nbytes
        for before, after in zip(floats, levels, strict=True):
            assert np.abs(before - after).max() <= LEVELS_TOLERANCE


@SOURCES
def test_a_row_has_the_same_answer_alone_and_in_a_batch(store, source):
    model, session = parse_model(source.entry), open_session(store, source.name)
    rows = 3
    inputs = make_rows(model, rows)
    together = session.run(None, inputs)

    for row in range(rows):
        alone = session.run(None, {name: values[row : row + 1] for name, values in inputs.items()})
        for one, all_of_them in zip(alone, together, strict=True):
            assert np.abs(one[0] - all_of_them[row]).max() <= TOLERANCE


def test_a_text_has_the_same_answer_alone_and_padded_beside_a_long_one(store):
    (source,) = (source for source in store.catalog if source.name == "text-safety")
    session = open_session(store, source.name)
    recipe = read_recipe(store, source)
    rows = [recipe.windows(text).rows[0] for text in ("You fool.", "明日は動物園に行きます。", "a long road " * 100)]
    together = session.run(None, recipe.collate(rows))

    for number, row in enumerate(rows):
        alone = session.run(None, recipe.collate([row]))
        for one, all_of_them in zip(alone, together, strict=True):
            assert np.abs(one[0] - all_of_them[number]).max() <= TOLERANCE


@SOURCES
def test_the_graph_has_the_inputs_and_outputs_of_the_entry_and_a_free_batch(store, source):
    model, session = parse_model(source.entry), open_session(store, source.name)
    for declared, nodes in ((model.inputs, session.get_inputs()), (model.outputs, session.get_outputs())):
        assert [tensor.name for tensor in declared] == [node.name for node in nodes]
        for tensor, node in zip(declared, nodes, strict=True):
            assert not isinstance(node.shape[0], int)
            assert tensor.dims == tuple(size if isinstance(size, int) else -1 for size in node.shape[1:])


@SOURCES
def test_the_assets_are_the_ones_that_the_recipe_needs(store, source):
    assert tuple(sorted(store.locate(source.name).assets)) == tuple(
        sorted(find_recipe(parse_model(source.entry).preprocessing.recipe).assets)
    )


def test_the_heads_were_good_on_rows_that_they_did_not_see(store):
    (stored,) = verify_models(["text-safety"], store)

    assert set(stored.figures["heldOutAuc"]) == {"toxicity", "insult", "threat", "sexual", "hate", "self_harm"}
    assert min(stored.figures["heldOutAuc"].values()) > 0.95
