"""See what an API server says as soon as anybody could: the floor of everything that follows one."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from baleen_bench import cluster
from control_plane import ControlPlane

PATIENCE_SECONDS: Final = 60.0

Seen = tuple[float, dict[str, Any]]
"""The second of the monotonic clock at which an object was seen to be new or changed, and the object."""


class ApiWatch:
    """Bare watches of some kinds in one namespace, on a loop in a thread of its own."""

    def __init__(self, running: ControlPlane, kinds: Sequence[str], namespace: str) -> None:
        self._running = running
        self._paths = {kind: cluster.path_of(kind, namespace=namespace) for kind in kinds}
        self._changed = threading.Condition()
        self._seen: dict[str, list[Seen]] = {kind: [] for kind in kinds}
        self._following: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None

    def when(self, kind: str, matches: Callable[[dict[str, Any]], bool], *, since: float) -> float:
        """Return the second at which an object that matches was seen first, not before `since`.

        Raises:
            TimeoutError: there came none.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._find(kind, matches, since) is not None, PATIENCE_SECONDS):
                raise TimeoutError(f"no {kind} came that matches")
            found = self._find(kind, matches, since)
            assert found is not None
            return found

    def wait_until_following(self) -> None:
        """Return once every watch has begun."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._following) == len(self._paths), PATIENCE_SECONDS):
                raise TimeoutError("the watches did not begin")

    def run(self) -> None:
        """Watch until `stop`; for the thread."""
        self._task = self._loop.create_task(self._follow_all())
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self._loop.close()

    def stop(self) -> None:
        """End `run`, from another thread."""
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)

    def _find(self, kind: str, matches: Callable[[dict[str, Any]], bool], since: float) -> float | None:
        return next((instant for instant, found in self._seen[kind] if instant >= since and matches(found)), None)

    async def _follow_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in self._paths:
                group.create_task(self._follow(kind))

    async def _follow(self, kind: str) -> None:
        path = self._paths[kind]
        async with cluster.client(self._running) as client:
            listed = (await client.get(path, params={"limit": 1})).raise_for_status().json()
            query = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
            async with client.stream("GET", path, params=query, timeout=None) as answer:
                answer.raise_for_status()
                with self._changed:
                    self._following.add(kind)
                    self._changed.notify_all()
                async for line in answer.aiter_lines():
                    instant = time.monotonic()
                    with self._changed:
                        self._seen[kind].append((instant, json.loads(line)["object"]))
                        self._changed.notify_all()


@contextmanager
def watching(running: ControlPlane, *kinds: str, namespace: str = cluster.NAMESPACE) -> Iterator[ApiWatch]:
    """Watch some kinds in a namespace until the end of the block."""
    watch = ApiWatch(running, kinds, namespace)
    thread = threading.Thread(target=watch.run, name="watch", daemon=True)
    thread.start()
    try:
        watch.wait_until_following()
        yield watch
    finally:
        watch.stop()
        thread.join()
