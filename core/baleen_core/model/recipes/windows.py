"""Long text in overlapping windows: whatever were cut off is where abuse would hide, so nothing is, up to a limit."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

WINDOW_LIMIT: Final = 64
"""How many windows of one text are judged; a longer text is `truncated`, which the caller must not pass over."""

PIECE_LENGTH: Final = 4096
"""Characters that are tokenised at once, so that no text, however built, costs more than its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """A text as rows of token ids, at least one; `truncated` if the rows do not cover all of it."""

    rows: tuple[tuple[int, ...], ...]
    truncated: bool


class TextRecipe(Protocol):
    """Turn text into the input tensors of one model. Safe to use from several threads at once."""

    def windows(self, text: str, *, limit: int = WINDOW_LIMIT) -> Windows:
        """Cut the text into at most `limit` overlapping rows of token ids.

        Raises:
            ModelError: an asset has no tokens for this text.
        """

    def collate(self, rows: Sequence[tuple[int, ...]]) -> dict[str, NDArray[np.int64]]:
        """Pad rows into one batch, by the names of the model's inputs."""


def cut(tokens: Iterable[int], *, size: int, overlap: int, limit: int) -> Windows:
    """Cut tokens into windows of `size`, each repeating the last `overlap` tokens of the one before.

    The last window ends with the last token and is as long as the others, where there are enough tokens. No more
    tokens are taken than `limit` windows hold and one, so a lazy source is not read to its end.
    """
    step = size - overlap
    room = size + (limit - 1) * step
    taken = tuple(islice(tokens, room + 1))
    held = taken[:room]
    starts = [*range(0, max(1, len(held) - size), step)]
    if len(held) > size:
        starts.append(len(held) - size)
    return Windows(rows=tuple(held[start : start + size] for start in starts), truncated=len(taken) > room)


def pieces(text: str) -> Iterator[str]:
    """Split text at spaces (left out) into pieces of at most `PIECE_LENGTH` characters; a longer word is cut."""
    start = 0
    while len(text) - start > PIECE_LENGTH:
        space = text.rfind(" ", start + 1, start + PIECE_LENGTH + 1)
        end = space if space > 0 else start + PIECE_LENGTH
        yield text[start:end]
        start = end + 1 if space > 0 else end
    yield text[start:]


def pad(rows: Sequence[tuple[int, ...]], *, width: int, value: int, left: bool = False) -> NDArray[np.int64]:
    """Return [rows, width] with `value` where a row has no token: on the right, or on the `left`."""
    batch = np.full((len(rows), width), value, np.int64)
    for line, row in zip(batch, rows, strict=True):
        start = width - len(row) if left else 0
        line[start : start + len(row)] = row
    return batch
