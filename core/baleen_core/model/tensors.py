"""What a server answers, held against what the model promises."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baleen_core.model.schema import DataType, Tensor

DTYPES: Final[Mapping[DataType, np.dtype[Any]]] = {
    DataType.FP32: np.dtype(np.float32),
    DataType.INT64: np.dtype(np.int64),
    DataType.INT32: np.dtype(np.int32),
    DataType.UINT8: np.dtype(np.uint8),
}
"""How numpy has elements."""


class NotFinite(ValueError):
    """An answer of the right shape holds NaN or infinity: the fault of the content, if that of one row."""


def check_answer(tensor: Tensor, answer: NDArray[np.generic] | None, rows: int) -> NDArray[np.generic]:
    """Return the answer when it is what the model promises for so many rows.

    Raises:
        ValueError: it is missing, of another type or shape. NotFinite: it holds NaN or infinity.
    """
    if answer is None:
        raise ValueError(f"the answer has no output {tensor.name!r}")
    promised = (rows, *tensor.dims)
    fits = len(answer.shape) == len(promised) and all(
        size in (-1, found) for size, found in zip(promised, answer.shape, strict=True)
    )
    if not fits or answer.dtype != DTYPES[tensor.data_type]:
        raise ValueError(
            f"output {tensor.name!r} is {answer.dtype} {list(answer.shape)},"
            f" not {DTYPES[tensor.data_type]} {list(promised)}"
        )
    if answer.dtype.kind == "f" and not np.isfinite(answer).all():
        raise NotFinite(f"output {tensor.name!r} holds NaN or infinity")
    return answer
