"""What the webhook stamps on policies and overrides: who wrote the content, and who the approval."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from baleen_core.errors import ContentError, PolicyError
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import name_text
from baleen_core.resources import APPLIED_BY_ANNOTATION, APPROVED_BY_ANNOTATION
from baleen_operator.plan.admission import Answer, Asked, as_policy
from baleen_operator.resources.stamps import name_approval, stamp_text, write_stamp

_ANNOTATIONS: Final = "/metadata/annotations"

Manifest = Mapping[str, Any]


def stamp_policy(asked: Asked) -> Answer:
    """Write on a policy who applied its content: whoever asks, if it is new, else whoever did before.

    Raises:
        ContentError: there is no policy in what was asked.
    """
    return _stamp(asked, APPLIED_BY_ANNOTATION, lambda found: _name_content(found, asked.namespace))


def stamp_override(asked: Asked) -> Answer:
    """Write on an override who wrote its approval, if it has one.

    Raises:
        ContentError: there is no override in what was asked.
    """
    return _stamp(asked, APPROVED_BY_ANNOTATION, _name_approval)


def find_stamp(*, what: str, was: str | None, before: str, sent: str, user: str) -> str:
    """Return the stamp that something gets, whatever was sent; empty: none.

    `what` is to be stored, `was` is what is stored (None: nothing), with the stamp `before`. What stays keeps its
    stamp; only where that says nothing of it, somebody may stand for it by sending the own name.
    """
    own = write_stamp(what, user)
    if was is None or what != was or not what:
        return own
    says_nothing = not before.startswith(what + " ")
    return own if says_nothing and sent == own else before


def _stamp(asked: Asked, annotation: str, name: Callable[[Manifest], str]) -> Answer:
    found = asked.object
    if found is None:
        raise ContentError("request.object is missing")
    if not isinstance(metadata := found.get("metadata"), Mapping):
        raise ContentError("request.object has no metadata")
    old, sent = asked.old_object, stamp_text(found, annotation)
    stamp = find_stamp(
        what=name(found),
        was=None if old is None else name(old),
        before="" if old is None else stamp_text(old, annotation),
        sent=sent,
        user=asked.user_info.username,
    )
    return Answer(allowed=True, patch=() if stamp == sent else [_write(metadata, annotation, stamp)])


def _write(metadata: Manifest, annotation: str, stamp: str) -> Manifest:
    path = f"{_ANNOTATIONS}/{annotation.replace('~', '~0').replace('/', '~1')}"
    if not stamp:
        return {"op": "remove", "path": path}
    if not isinstance(metadata.get("annotations"), Mapping):
        return {"op": "add", "path": _ANNOTATIONS, "value": {annotation: stamp}}
    return {"op": "add", "path": path, "value": stamp}


def _name_content(found: Manifest, namespace: str) -> str:
    try:
        return name_text(parse_policy(as_policy(found, namespace)))
    except PolicyError:
        # The operator puts nothing of it in force, so nobody needs to stand for it.
        return ""


def _name_approval(found: Manifest) -> str:
    spec = found.get("spec")
    said = spec.get("approve") if isinstance(spec, Mapping) else None
    digest, step = (said.get(each, "") for each in ("digest", "throughStep")) if isinstance(said, Mapping) else ("", "")
    return name_approval(digest, step) if isinstance(digest, str) and isinstance(step, str) else ""
