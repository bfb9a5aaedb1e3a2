"""What converters read is data: no pickle imports anything, no bundle runs, nothing malformed becomes a model."""

import base64
import collections
import io
import json
import os
import pickle
import re

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from baleen_cli.models.converters.e5 import E5File
from baleen_cli.models.converters.graph import Graph
from baleen_cli.models.converters.javascript import read_bundle
from baleen_cli.models.converters.nsfwjs import read_weights
from baleen_cli.models.converters.pickles import Record, read_plain_pickle
from baleen_cli.models.converters.tox_block import read_vocabulary
from baleen_core.errors import ModelError

HEAD = "!function(e){module.exports=e()}(function(){return function e(a,b,c){return e}({1:[function(a,b,c){b.exports="
TAIL = "},{}]},{},[1])(1)});"

literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Evil:
    """Pickles as a call of a function."""

    def __init__(self, command):
        self._command = command

    def __reduce__(self):
        return os.system, (self._command,)


class Tokenizer:
    """Stands for a class of a package."""


TOKENIZER = f"{Tokenizer.__module__}.Tokenizer"


def unpickle(value: object, records: tuple[str, ...] = ()):
    return read_plain_pickle(io.BytesIO(pickle.dumps(value)), records)


@given(value=literals)
def test_a_bundle_of_plain_data_is_read_as_what_it_is(value):
    assert read_bundle(HEAD + json.dumps(value, separators=(",", ":")) + TAIL) == value


def test_what_minifiers_write_is_understood():
    bundle = HEAD + '{a:!0,b:!1,$c:.5,"d-e":-2e-7,f:[],g:{},h:null}' + TAIL

    assert read_bundle(bundle) == {"a": True, "b": False, "$c": 0.5, "d-e": -2e-7, "f": [], "g": {}, "h": None}


@pytest.mark.parametrize(
    "code",
    [
        'require("fs")',
        "function(){return 1}()",
        "(()=>1)()",
        "{a:process.env}",
        "[1,2,alert(1)]",
        "`text`",
        "{get a(){return 1}}",
        '{["a"]:1}',
        "1+1",
        '"a".concat("b")',
        "new Date",
        "'single'",
        r'"\x41"',
        "[" * 100 + "]" * 100,
        "",
    ],
)
def test_a_bundle_with_code_in_place_of_data_is_refused(code):
    with pytest.raises(ModelError, match="the bundle is not plain data"):
        read_bundle(HEAD + code + TAIL)


@pytest.mark.parametrize("rest", [";alert(1)", "/**/x", ""])
def test_nothing_may_follow_the_data_but_the_end_of_the_bundle(rest):
    with pytest.raises(ModelError, match="expected the bundle's end"):
        read_bundle(HEAD + "1" + rest + (TAIL + rest if rest else ""))


def test_a_file_that_is_no_bundle_is_refused():
    with pytest.raises(ModelError, match="no module that exports a value"):
        read_bundle("module.exports = 1")


def make_description(**entry):
    return {"weightsManifest": [{"weights": [{"name": "w", "shape": [2], "dtype": "float32"} | entry]}]}


def test_quantised_weights_are_widened():
    description = make_description(quantization={"dtype": "uint8", "scale": 0.5, "min": -1.0})

    assert read_weights(description, bytes([0, 4]))["w"].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(("size", "complaint"), [(7, "the weights end within w"), (9, "the manifest accounts for 8")])
def test_weights_of_the_wrong_size_are_refused(size, complaint):
    with pytest.raises(ModelError, match=complaint):
        read_weights(make_description(), bytes(size))


def test_base64_of_weights_survives_the_bundle():
    text = base64.b64encode(bytes(range(256))).decode()

    assert read_bundle(f'{HEAD}"{text}"{TAIL}') == text


def test_a_pickle_that_names_a_foreign_function_is_refused_and_nothing_runs(tmp_path):
    marker = tmp_path / "ran"

    with pytest.raises(ModelError, match=re.escape(f"{os.system.__module__}.system, which is refused")):
        unpickle({"words": Evil(f"touch {marker}")})
    assert not marker.exists()


@pytest.mark.parametrize("harmful", [eval, getattr, __import__, open, io.BytesIO])
def test_no_builtin_but_plain_containers_is_named(harmful):
    with pytest.raises(ModelError, match="only plain containers are read"):
        unpickle(harmful)


@pytest.mark.parametrize(
    "plain", [collections.OrderedDict(a=1), collections.defaultdict(int, a=1), {"a": [1, (2, None)]}], ids=repr
)
def test_plain_containers_are_read(plain):
    assert unpickle(plain) == plain


def test_an_object_of_a_known_foreign_class_is_its_attributes_and_none_of_its_code():
    tokenizer = Tokenizer()
    tokenizer.num_words = 3

    read = unpickle(tokenizer, (TOKENIZER,))

    assert type(read) is Record
    assert vars(read) == {"num_words": 3}


def test_a_cut_off_pickle_is_refused():
    with pytest.raises(ModelError, match="the pickle cannot be read"):
        read_plain_pickle(io.BytesIO(pickle.dumps({"a": 1})[:-2]), ())


def make_sequencer(**fields):
    sequencer, tokenizer = Record(), Record()
    vars(tokenizer).update(fields)
    vars(sequencer)["tokenizer"] = tokenizer
    return sequencer


def test_only_words_that_the_tokenizer_keeps_are_written():
    words = {"the": 1, "of": 2, "rare": 3}

    vocabulary = read_vocabulary(make_sequencer(num_words=3, word_index=words, filters="!", lower=True))

    assert vocabulary == {"word_index": {"the": 1, "of": 2}, "num_words": 3, "filters": "!", "lower": True}


def test_a_pickle_without_a_tokenizer_is_refused():
    with pytest.raises(ModelError, match="holds no tokenizer"):
        read_vocabulary({"tokenizer": {}})
    with pytest.raises(ModelError, match="has no 'word_index'"):
        read_vocabulary(make_sequencer(num_words=3))


def test_a_file_that_is_no_packed_encoder_is_refused(tmp_path):
    path = tmp_path / "encoder.bin"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match="begins with b'E5S1', found b'GGUF'"):
        E5File(path)
    path.write_bytes(b"E5S1" + bytes(10))

    with pytest.raises(ModelError, match="malformed"):
        E5File(path)


def test_the_same_graph_has_the_same_bytes_and_computes(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        graph = Graph()
        graph.node("Add", "x", graph.weight("one", np.ones(2, np.float32)), output="y")
        graph.save(tmp_path / name, "tiny", {"x": ["batch", 2]}, {"y": ["batch", 2]}, TensorProto.FLOAT)

    (answer,) = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, {"x": np.zeros((1, 2), np.float32)})
    assert answer.tolist() == [[1.0, 1.0]]
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
