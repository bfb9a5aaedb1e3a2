"""What all routes that have content judged do alike: from where it comes, what is fetched, several at a time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import structs

from baleen_core.errors import InvalidError, Problem
from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.ports import Fetcher
from baleen_sidecar.usecases.guard_sources import GuardSources
from baleen_sidecar.usecases.moderate import Caller, MediaKind, Moderate
from baleen_sidecar.usecases.watch_sources import WatchSources
from baleen_sidecar.web.schemas import Image, Text, Video, media_source

TEXTS_AT_ONCE: Final = 100
"""Texts of one request that are judged at a time: by default all of a batch, so that a model can take them together."""
MEDIA_AT_ONCE: Final = 4
"""Images and videos of one request that are held at a time: each may have many megabytes."""


class Judge:
    """Has one piece of content judged in its context."""

    def __init__(
        self, moderate: Moderate, fetcher: Fetcher, sources: GuardSources, watched: WatchSources, *, default: Context
    ) -> None:
        """`default` is where content comes from that does not say it; `sources` refuse media of what keeps failing."""
        self.watched = watched
        self.moderate = moderate
        self.sources = sources
        self._fetcher = fetcher
        self._default = default
        self._has_default = default != Context()

    def place(self, context: Context) -> Context:
        """Say where content comes from, as far as its request does not."""
        if not self._has_default:
            return context
        default = self._default
        return structs.replace(
            context,
            tenant=context.tenant or default.tenant,
            surface=context.surface or default.surface,
            source=context.source or default.source,
        )

    def content(
        self, content: Text | Image | Video, context: Context, caller: Caller
    ) -> Coroutine[Any, Any, DecisionRecord]:
        """Judge what a request has in JSON, and read it from its address if it has one.

        Raises:
            ContentError, FetchError: it cannot be judged; fields are those below `content`.
            NoPolicy, LogUnavailable, SourceUnavailable: see baleen_core.errors.
        """
        if isinstance(content, Text):
            return self.text(content.text, context, caller)
        return self.watched.watch(context, caller, self._media(content, context, caller))

    async def raw(self, data: bytes, kind: MediaKind, context: Context, caller: Caller) -> DecisionRecord:
        """Judge media whose bytes are the body of a request; raises what `content` does."""
        return await self.watched.watch(context, caller, self._raw(data, kind, context, caller))

    def text(self, text: str, context: Context, caller: Caller) -> Coroutine[Any, Any, DecisionRecord]:
        """Judge a text; raises what `content` does."""
        judging = self.moderate.text(text, context, caller)
        return judging if context.source is None else self.watched.watch(context, caller, judging)

    async def _raw(self, data: bytes, kind: MediaKind, context: Context, caller: Caller) -> DecisionRecord:
        with self.sources.watching(context):
            return await self.moderate.media(data, kind, context, caller)

    async def _media(self, content: Image | Video, context: Context, caller: Caller) -> DecisionRecord:
        kind: MediaKind = "video" if isinstance(content, Video) else "image"
        source = media_source(content)
        with self.sources.watching(context):
            data = source if isinstance(source, bytes) else (await self._fetcher.fetch(source)).data
            url = "" if isinstance(source, bytes) else source
            return await self.moderate.media(data, kind, context, caller, url=url)


class Together:
    """Has the pieces of one request judged side by side, so many at a time, each by the deadline of all."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._texts = asyncio.Semaphore(TEXTS_AT_ONCE)
        self._media = asyncio.Semaphore(MEDIA_AT_ONCE)

    def at_once(self, content: Text | Image | Video, context: Context, caller: Caller) -> DecisionRecord | None:
        """Decide about one of them without waiting, and without its record being kept; None: ask `content`.

        Raises:
            ContentError, NoPolicy: see baleen_core.errors.
        """
        if not isinstance(content, Text) or context.source is not None:
            return None
        return self._judge.moderate.text_at_once(content.text, context, caller)

    async def content(self, content: Text | Image | Video, context: Context, caller: Caller) -> DecisionRecord:
        """Judge one of them, once it is its turn.

        Raises:
            DeadlineExceeded: there was no decision by then.
            BaleenError: as `Judge.content`.
        """
        gate = self._texts if isinstance(content, Text) else self._media
        with self._judge.moderate.deadline(caller):
            async with gate:
                return await self._judge.content(content, context, caller)


def renamed(error: Exception, name: Callable[[str], str]) -> Exception:
    """Return an error that calls its fields as the caller did."""
    if not isinstance(error, InvalidError):
        return error
    return type(error)(Problem(field=name(each.field), message=each.message) for each in error.problems)
