"""Under which key scores are kept: a digest of everything that they follow from, so that equal keys have equal scores.

That is the content as it goes to the recipe, and of the model all that changes an answer: its file, its recipe with
assets and libraries, its tensors and signals. What only changes how fast it answers, such as its batches, is not in it.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import PIL
import tokenizers

from baleen_core.canonical import canonical_json
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Tensor

FORM: Final = 1
"""The form of what is digested: another one has other keys."""


def digest_of_model(loaded: LoadedModel, *, limit_windows: int) -> bytes:
    """Digest what a model's scores follow from beside the content; of a text, at most so many windows are seen."""
    model = loaded.model
    facts = {
        "form": FORM,
        "name": model.name,
        "version": model.version,
        "sha256": loaded.sha256,
        "recipe": model.preprocessing.recipe,
        "assets": {each.name: each.sha256 for each in model.preprocessing.assets},
        "inputs": list(map(_tensor, model.inputs)),
        "outputs": list(map(_tensor, model.outputs)),
        "signals": [[each.name, each.output, each.index] for each in model.signals],
        "precision": model.optimization.precision.value,
        "device": model.instances.kind.value,
        # Another release of a library may round a pixel, or cut a word, in another way.
        "library": f"pillow {PIL.__version__}" if loaded.text is None else f"tokenizers {tokenizers.__version__}",
        "windows": 0 if loaded.text is None else limit_windows,
    }
    return hashlib.sha256(canonical_json(facts)).digest()


def digest_of_text(variants: Iterable[str]) -> bytes:
    """Digest a text in all the variants in which a model reads it."""
    digest = hashlib.sha256(b"text")
    for variant in variants:
        data = variant.encode("utf-8", "surrogatepass")
        # With its length, so that no two lists of variants run together into the same bytes.
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def digest_of_file(sha256: str) -> bytes:
    """Digest a picture that is read from a file, by the file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(b"file" + bytes.fromhex(sha256)).digest()


def key_of(models: Iterable[bytes], content: bytes, *, tenant: str = "") -> bytes:
    """Join the digests of models and of a content; with a tenant, the key is that tenant's alone."""
    owner = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).digest() if tenant else bytes(32)
    return hashlib.sha256(b"".join((content, owner, *models))).digest()


def _tensor(tensor: Tensor) -> list[object]:
    return [tensor.name, tensor.data_type.value, list(tensor.dims)]
