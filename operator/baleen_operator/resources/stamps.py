"""Who wrote something, as the API server knows it: annotations that the webhook writes and that nobody can forge.

A stamp names what it is of, so that one which was left behind by an edit that nobody stamped says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_USER: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The `user` who wrote `what`; both are empty where nobody is named."""

    what: str = ""
    user: str = ""

    def user_of(self, what: str) -> str:
        """Return who wrote this; empty where it is not known."""
        return self.user if what and what == self.what else ""


def name_approval(digest: str, through_step: str) -> str:
    """Name what an approval says, by which its stamp is known; empty where it names no digest."""
    return f"{digest}/{through_step}" if digest else ""


def read_stamp(manifest: Mapping[str, Any], annotation: str) -> Stamp:
    """Read a stamp leniently; a user's name is cut after MAX_USER characters."""
    what, _, user = stamp_text(manifest, annotation).partition(" ")
    return Stamp(what=what, user=user[:MAX_USER]) if user else Stamp()


def stamp_text(manifest: Mapping[str, Any], annotation: str) -> str:
    """Return a stamp as it is written; empty where there is none."""
    metadata = manifest.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    value = annotations.get(annotation) if isinstance(annotations, Mapping) else None
    return value if isinstance(value, str) else ""


def write_stamp(what: str, user: str) -> str:
    """Write a stamp; empty where one of both is not known."""
    return f"{what} {user}" if what and user else ""
