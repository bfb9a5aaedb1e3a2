"""Follow one kind of resource on an API server: list, watch, and start again whatever happens."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

from baleen_core.errors import UpstreamError
from baleen_core.resources import GROUP, PLURALS, VERSION
from baleen_sidecar.adapters.kube_client import AnswerTooLarge, Call, Garbled, KubeClient, Refused
from baleen_sidecar.flow.backoff import BackoffRules, next_failures, wait_seconds
from baleen_sidecar.flow.reflection import Change, Gone, Malformed, Manifest, Reflection

log = logging.getLogger(__name__)

T = TypeVar("T")

BACKOFF: Final = BackoffRules(first_seconds=0.2, highest_seconds=5.0, spread=1.0, settled_seconds=10.0)
"""Full jitter: what ended for all gateways at once must not begin again for all at once."""
PAGE: Final = 500
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
WATCH_SECONDS: Final = (240.0, 300.0)
"""The API server ends a watch after a time between these; it goes on at once where it was."""
SILENCE_SECONDS: Final = 90.0
"""An API server sends a bookmark about once a minute; a watch that is silent for longer is started again."""


class Reflector(Generic[T]):
    """Keeps a Reflection of one kind, in one namespace or in all, and tells `on_change` of every difference."""

    def __init__(
        self,
        client: KubeClient,
        kind: str,
        read: Callable[[Manifest, T | None], T],
        on_change: Callable[[Sequence[Change[T]]], None],
        *,
        namespace: str = "",
        backoff: BackoffRules = BACKOFF,
    ) -> None:
        self._client = client
        self._reflection = Reflection(read)
        self._on_change = on_change
        self._backoff = backoff
        self._failures = 0
        plural = PLURALS[kind]
        within = f"/namespaces/{namespace}" if namespace else ""
        path = f"/apis/{GROUP}/{VERSION}{within}/{plural}"
        self._list, self._watch = (
            Call(verb=verb, resource=plural, group=GROUP, namespace=namespace, path=path) for verb in ("list", "watch")
        )

    @property
    def is_whole(self) -> bool:
        """Whether everything was listed once."""
        return self._reflection.is_whole

    @property
    def problem(self) -> str:
        """Say what keeps it from being followed now, with verb and resource; empty when it is followed."""
        found = self._reflection.problem
        return found if not found or found.startswith(("list ", "watch ")) else f"{self._watch}: {found}"

    async def follow(self) -> None:
        """Follow until cancelled; a failure is said, waited out and tried again."""
        while True:
            started = time.monotonic()
            before = self.problem
            is_good = await self._try()
            if self.problem and self.problem != before:
                log.warning("not followed", extra={"problem": self.problem})
            await self._rest(is_good=is_good, ran_seconds=time.monotonic() - started)

    async def _try(self) -> bool:
        """List and watch once; say whether it ended as it should."""
        try:
            await self._once()
            return True
        except Gone:
            self._reflection.gone()
        except Malformed as exc:
            self._reflection.failed(f"{self._watch}: {exc}", must_list=True)
        except UpstreamError as exc:
            if isinstance(exc, Refused) and exc.status == HTTPStatus.GONE:
                self._reflection.gone()
            else:
                self._reflection.failed(_say(exc), must_list=isinstance(exc, Garbled))
        except Exception as exc:
            # One kind that cannot be followed must not end the others, nor the process that decides.
            log.exception("following failed", extra={"call": str(self._watch)})
            self._reflection.failed(f"{self._watch}: {type(exc).__name__}", must_list=True)
        return False

    async def _once(self) -> None:
        """List if that is needed, then watch until the API server ends it."""
        if not self._reflection.resource_version:
            items, version = await self._list_all()
            self._tell(self._reflection.listed(items, version))
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._reflection.resource_version,
            "timeoutSeconds": str(int(random.uniform(*WATCH_SECONDS))),  # noqa: S311  no secret
        }
        async with self._client.watch(self._watch, params, silence_seconds=SILENCE_SECONDS) as batches:
            self._reflection.opened()
            async with aclosing(batches):
                async for events in batches:
                    self._take(events)
        self._reflection.followed()

    def _take(self, events: Sequence[Any]) -> None:
        changes = []
        try:
            for event in events:
                change = self._reflection.observed(event)
                if change is not None:
                    changes.append(change)
        finally:
            # What came before a bad one counts.
            self._tell(changes)

    def _tell(self, changes: Sequence[Change[T]]) -> None:
        if changes or self._reflection.is_whole:
            self._on_change(changes)

    async def _list_all(self) -> tuple[list[Manifest], str]:
        """Read all pages; one that is too large is asked for again in smaller ones."""
        items: list[Manifest] = []
        params: dict[str, str] = {}
        limit = PAGE
        while True:
            try:
                page = await self._client.get(self._list, params | {"limit": str(limit)}, limit_bytes=MAX_PAGE_BYTES)
            except AnswerTooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            found, metadata = _page_of(page)
            items += found
            token = metadata.get("continue")
            if not token:
                return items, str(metadata.get("resourceVersion") or "")
            params = {"continue": str(token)}

    async def _rest(self, *, is_good: bool, ran_seconds: float) -> None:
        # A server that ends every watch at once is a failure too.
        if is_good and ran_seconds >= self._backoff.settled_seconds:
            self._failures = 0
            return
        self._failures = next_failures(self._failures, ran_seconds=ran_seconds, rules=self._backoff)
        await asyncio.sleep(wait_seconds(self._failures, jitter=random.random(), rules=self._backoff))  # noqa: S311


def _page_of(page: object) -> tuple[list[Manifest], Mapping[str, Any]]:
    match page:
        case {"items": list(items), "metadata": Mapping() as metadata}:
            return items, metadata
    raise Malformed("the API server's list has no items or no metadata")


def _say(exc: UpstreamError) -> str:
    if isinstance(exc, Refused) and exc.status == HTTPStatus.NOT_FOUND:
        return f"{exc}; install the CRDs of this release"
    return str(exc)
