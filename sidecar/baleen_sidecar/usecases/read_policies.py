"""Read policies back: the revision in force, its history, and what differs between two revisions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baleen_core.canonical import digest_of
from baleen_core.decision.snapshot import PolicySnapshot, PolicyStatus
from baleen_core.errors import IntegrityError, NotFound
from baleen_core.policy.diff import Change, diff
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import Revision
from baleen_sidecar.ports import Activation, RevisionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInForce:
    """A policy's status, the canonical content of its revision in force, and its activations, newest first."""

    status: PolicyStatus
    content: str
    history: Sequence[Activation]


class ReadPolicies:
    """Find policies by `name`, or by `namespace.name` where a name is used in more than one namespace."""

    def __init__(self, current: Callable[[], PolicySnapshot], store: RevisionStore) -> None:
        self._current = current
        self._store = store

    async def get(self, name: str) -> PolicyInForce:
        """Return one policy.

        Raises:
            NotFound: there is none of that name, or several.
            IntegrityError: its stored revision was altered.
        """
        status = find_status(self._current(), name)
        content = (await self._revision(status.digest)).content if status.digest else "null"
        history = await self._store.history(f"{status.namespace}/{status.name}")
        return PolicyInForce(status=status, content=content, history=history)

    async def diff(self, name: str, old: str, new: str) -> tuple[Change, ...]:
        """Compare two revisions by digest.

        Raises:
            NotFound: there is no such policy or revision.
            IntegrityError: a stored revision was altered.
        """
        find_status(self._current(), name)
        return diff(read_revision(await self._revision(old)), read_revision(await self._revision(new)))

    async def _revision(self, digest: str) -> Revision:
        revision = await self._store.get_revision(digest)
        if revision is None:
            raise NotFound(f"there is no revision {digest} here")
        if (found := digest_of(revision.content.encode(errors="surrogatepass"))) != digest:
            raise IntegrityError("revision", expected=digest, found=found)
        return revision


def find_status(snapshot: PolicySnapshot, name: str) -> PolicyStatus:
    """Find a policy by `name`, or by `namespace.name` where a name is used in more than one namespace.

    Raises:
        NotFound: there is none of that name, or several.
    """
    statuses = snapshot.statuses
    found = [status for status in statuses if name in (status.name, f"{status.namespace}.{status.name}")]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(f"{status.namespace}.{status.name}" for status in found)
        raise NotFound(f"{name!r} is the name of several policies; ask for one of {choices}")
    known = ", ".join(sorted(status.name for status in statuses)) or "none"
    raise NotFound(f"there is no policy {name!r}; there are: {known}")
