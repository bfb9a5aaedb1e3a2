"""Make revisions ready to judge: read from the store, or as somebody offers them, verified by digest, compiled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from baleen_core.decision.engine import compile_policy
from baleen_core.decision.lists import CompiledList, compile_list
from baleen_core.decision.snapshot import LoadedPolicy
from baleen_core.errors import BaleenError, IntegrityError, NotFound, Problem, StateError
from baleen_core.policy.lists import restore_list
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import ListContent, ListType, PolicyList, Revision, RevisionContent
from baleen_core.policy.scope import Candidate
from baleen_sidecar.ports import Key, RevisionStore
from baleen_sidecar.usecases.history import name_of

log = logging.getLogger(__name__)

T = TypeVar("T")
Put = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A revision as one policy's: under which key and version, and since when that policy is there."""

    key: Key
    digest: str
    version: str
    created: str = ""


class ListsMissing(NotFound):
    """Lists that a revision names are not here (yet), or are not what their digests name."""

    def __init__(self, lists: Sequence[PolicyList], reasons: Iterable[str]) -> None:
        self.lists = tuple(lists)
        super().__init__("; ".join(reasons))


class PolicyLoader:
    """Loads policies; lists that are equal are compiled once."""

    def __init__(self, store: RevisionStore, signals: Callable[[], frozenset[str]], *, executor: Executor) -> None:
        """`signals` are all that the served models offer now, by which rules are compiled."""
        self._store = store
        self._signals = signals
        self._executor = executor
        self._compiled_lists: dict[tuple[str, int | None], CompiledList] = {}
        self._unkept: dict[str, str] = {}
        self._owed: dict[str, Put] = {}

    @property
    def owes(self) -> bool:
        """Say whether the store lacks what it could not keep."""
        return bool(self._owed)

    async def load(self, identity: Identity, offered: Revision | None = None) -> LoadedPolicy:
        """Return the revision with its lists, ready to judge.

        Raises:
            IntegrityError, NotFound, PolicyError: the revision is not there, or not what its digest names.
            ListsMissing: all of its lists that cannot be had.
            StateError: the store cannot be read now.
        """
        content = await self.verify(identity, offered)
        lists = [self._compiled_lists[_place(each)] for each in content.policy.lists]
        signals = self._signals()
        namespace, name = identity.key
        compiled = await self._off_loop(
            lambda: compile_policy(name, identity.version, content, signals, namespace=namespace)
        )
        candidate = Candidate(
            name=name,
            namespace=namespace,
            created=identity.created,
            revision=content,
            version=identity.version,
        )
        return LoadedPolicy(candidate=candidate, compiled=compiled, lists=tuple(lists))

    async def verify(self, identity: Identity, offered: Revision | None = None) -> RevisionContent:
        """Return the revision's content once all that it names is here and what it should be.

        Raises:
            As for `load`.
        """
        content = await self._read(identity, offered)
        missing: dict[PolicyList, str] = {}
        for each in content.policy.lists:
            if _place(each) not in self._compiled_lists:
                try:
                    await self._compile_list(each)
                except (IntegrityError, NotFound, StateError) as exc:
                    # Wherever it was published it may be had all the same.
                    missing[each] = f"list {each.name}: {exc}"
        if missing:
            raise ListsMissing(tuple(missing), missing.values())
        return content

    async def take_list(self, type: ListType, digest: str, text: str) -> None:
        """Take a list's canonical text from wherever it was found, and keep it for the next start.

        Raises:
            IntegrityError: it is not what the digest names.
        """
        await self._off_loop(partial(restore_list, type, digest, text))
        if not await self._try_to_keep(f"list {digest}", partial(self._store.put_list, digest, text)):
            self._unkept[digest] = text

    async def keep(self, *, at_once: int) -> list[Problem]:
        """Give the store what it could not keep, up to so much of it; return what prevents that still.

        Also what is in force no more: decisions were made by it, and it may be gone back to.
        """
        for title, put in list(self._owed.items())[:at_once]:
            try:
                await put()
            except StateError as exc:
                # Whatever else is owed would fail alike, each perhaps after seconds.
                return [Problem(field=title, message=f"cannot be kept: {exc}")]
            except BaleenError as exc:
                _log_unkept(title, exc)
            del self._owed[title]
        return []

    def keep_only(self, policies: Iterable[LoadedPolicy]) -> None:
        """Forget compiled lists that none of these policies uses."""
        used = {id(each) for policy in policies for each in policy.all_lists}
        self._compiled_lists = {
            place: compiled for place, compiled in self._compiled_lists.items() if id(compiled) in used
        }
        named = {digest for digest, _ in self._compiled_lists}
        self._unkept = {digest: text for digest, text in self._unkept.items() if digest in named}

    async def _read(self, identity: Identity, offered: Revision | None) -> RevisionContent:
        digest = identity.digest
        failed: BaleenError = NotFound(f"revision {digest} is not here")
        try:
            kept = await self._store.get_revision(digest)
            if kept is not None:
                return await self._off_loop(partial(read_revision, kept))
        except (IntegrityError, StateError) as exc:
            failed = exc
        if offered is None:
            raise failed
        content = await self._off_loop(partial(read_revision, offered))
        put = partial(self._store.put_revision, name_of(identity.key), offered)
        await self._try_to_keep(f"revision {digest}", put)
        return content

    async def _try_to_keep(self, title: str, put: Put) -> bool:
        """Keep content for the next start; a disk that is full must not keep a policy from acting now."""
        try:
            await put()
        except BaleenError as exc:
            _log_unkept(title, exc)
            # Other content under its digest stays there, however often it is tried.
            if isinstance(exc, StateError):
                self._owed[title] = put
            return False
        return True

    async def _compile_list(self, wanted: PolicyList) -> None:
        digest = wanted.digest or ""
        text = self._unkept.get(digest) or await self._store.get_list(digest)
        if text is None:
            raise NotFound(f"{digest} is not here")

        def compile_text() -> CompiledList:
            content: ListContent = restore_list(wanted.type, digest, text)
            return compile_list(content, max_distance=wanted.max_distance)

        self._compiled_lists[_place(wanted)] = await self._off_loop(compile_text)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _place(wanted: PolicyList) -> tuple[str, int | None]:
    return wanted.digest or "", wanted.max_distance


def _log_unkept(title: str, exc: BaleenError) -> None:
    log.warning("content not kept", extra={"content": title, "cause": str(exc)})
