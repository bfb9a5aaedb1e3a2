"""The recipe of tox-block: words of a Keras tokenizer.

Source: `tox_block` 0.1.2, `preprocessors.py`, and Keras' `Tokenizer.texts_to_sequences`; where those keep only the
last 100 words, every window is judged here, and the last one is theirs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baleen_core.errors import ModelError
from baleen_core.model.recipes.windows import WINDOW_LIMIT, Windows, cut, pad, pieces

WINDOW_TOKENS, OVERLAP_TOKENS = 100, 20

MAX_ID: Final = 2**31 - 1
"""No vocabulary is as large; ids from 2**63 on are in no tensor."""


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class ToxBlockRecipe:
    """Rows are ids of known words (1 and up); `separators` maps code points to a space."""

    word_ids: Mapping[str, int]
    separators: Mapping[int, str]
    lower: bool

    def windows(self, text: str, *, limit: int = WINDOW_LIMIT) -> Windows:
        """Cut the text into windows of 100 known words that overlap by 20."""
        return cut(self._tokens(text), size=WINDOW_TOKENS, overlap=OVERLAP_TOKENS, limit=limit)

    def collate(self, rows: Sequence[tuple[int, ...]]) -> dict[str, NDArray[np.int64]]:
        """Pad on the left with 0 to 100."""
        return {"input_ids": pad(rows, width=WINDOW_TOKENS, value=0, left=True)}

    def _tokens(self, text: str) -> Iterator[int]:
        spaced = (text.lower() if self.lower else text).translate(self.separators)
        for piece in pieces(spaced):
            for word in piece.split(" "):
                if word_id := self.word_ids.get(word):
                    yield word_id


def read_recipe(assets: Mapping[str, bytes]) -> ToxBlockRecipe:
    """Build the recipe from `vocab.json`: `word_index`, `num_words`, `filters` and `lower` of the Keras tokenizer.

    Raises:
        ModelError: the asset is not what it should be.
    """
    try:
        vocab = json.loads(assets["vocab.json"])
        limit = vocab["num_words"]
        word_ids = {str(word): int(i) for word, i in vocab["word_index"].items() if limit is None or int(i) < limit}
        if not all(0 < word_id <= MAX_ID for word_id in word_ids.values()):
            raise ValueError(f"ids of words are 1 to {MAX_ID}")
        return ToxBlockRecipe(
            word_ids=word_ids,
            separators=str.maketrans(dict.fromkeys(vocab["filters"], " ")),
            lower=bool(vocab["lower"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise ModelError(f"vocab.json is not the vocabulary of a Keras tokenizer: {exc!r}") from exc
