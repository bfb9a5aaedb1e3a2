"""Models of one number a row, for tests of what stands above the Inference port."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from baleen_core.model.recipes import Windows
from baleen_core.model.schema import Batching, DataType, Model, ModelSignal, Preprocessing, Source, SourceType, Tensor


class Letters:
    """A text recipe whose windows are four letters long and whose token ids are the letters' codes."""

    def windows(self, text: str, *, limit: int = 64) -> Windows:
        rows = tuple(tuple(map(ord, text[start : start + 4])) for start in range(0, len(text), 4))
        return Windows(rows=rows[:limit], truncated=len(rows) > limit)

    def collate(self, rows: Sequence[tuple[int, ...]]) -> dict[str, np.ndarray]:
        padded = np.zeros((len(rows), 4), np.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        return {"input_ids": padded}


def make_model(name: str, *, recipe: str, signals: Sequence[str] = ("bad",), batch: int = 4) -> Model:
    is_text = recipe.startswith("tox")
    inputs = Tensor(name="input_ids", data_type=DataType.INT64, dims=(4,))
    return Model(
        name=name,
        version="3",
        source=Source(type=SourceType.FILE, uri="model.onnx"),
        inputs=(inputs if is_text else Tensor(name="image", data_type=DataType.FP32, dims=(1,)),),
        outputs=(Tensor(name="probabilities", data_type=DataType.FP32, dims=(len(signals),)),),
        preprocessing=Preprocessing(recipe=recipe),
        signals=tuple(ModelSignal(name=each, output="probabilities", index=i) for i, each in enumerate(signals)),
        batching=Batching(max_batch_size=batch),
    )


def brightness(picture: Image.Image) -> np.ndarray:
    return np.array([picture.getpixel((0, 0))[0]], np.float32)
