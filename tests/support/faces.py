"""What the tests of batches and façades share: policies that judge without a real model, and detectors that fail."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from baleen_core.api_keys import KeyRole, make_key
from keyed import api_key, write_key_file
from media import encode, grey

MODERATE_KEY, REVIEW_KEY, UNKNOWN_KEY = (make_key(number.to_bytes(32)) for number in range(7001, 7004))
PNG: Final = encode(grey(128))
DATA_URL: Final = "data:image/png;base64," + base64.b64encode(PNG).decode()
TOXICITY: Final = "text-safety.toxicity"
SEXUAL: Final = "image-safety.sexual"


def category(name: str, signal: str, *, review: str = "50%", block: str = "90%", **more: Any) -> dict[str, Any]:
    """Write a category of one signal."""
    return {"name": name, "signals": [{"name": signal, "review": review, "block": block}], **more}


def policy(name: str = "all", *, scope: dict[str, str] | None = None, **content: Any) -> dict[str, Any]:
    """Write a policy of toxic texts and sexual images, which blocks what has "blocked" in it by its length."""
    categories = [category("toxicity", TOXICITY), category("sexual", SEXUAL)]
    rule = {"name": "long", "when": "content.type == 'text' && content.length > 40", "action": "Block"}
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": name, "namespace": "trust-safety"},
        "spec": {
            "type": "Moderation",
            "version": "v1.0.0",
            **({"scope": scope} if scope else {}),
            "policy": {"categories": categories, "rules": [rule], **content},
        },
    }


def write_keys(path: Path) -> Path:
    """Write a file with one key that may have content judged, for tenant acme alone, and one that may not."""
    app = api_key("app", MODERATE_KEY, tenant="acme")
    return write_key_file(path, app, api_key("people", REVIEW_KEY, KeyRole.REVIEW))


class FailingLanguages:
    """A detector that knows no language, and raises what `failure` returns for a text with the word `broken`."""

    def __init__(self, failure: Callable[[], Exception]) -> None:
        self._failure = failure

    def detect(self, text: str) -> str | None:
        """See the port."""
        if "broken" in text:
            raise self._failure()
        return None
