"""Policies from a folder: read at start, and again whenever a file in it changes."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchfiles import awatch

from baleen_core.decision.snapshot import PolicySnapshot
from baleen_sidecar.adapters.resources import read_folder
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies

log = logging.getLogger(__name__)

QUIET_MILLISECONDS = 200
"""Editors write a file in several steps; this long after the last one, it is read."""
PATIENCE_MILLISECONDS = 1000
"""Where something is written all the time, it is read this often all the same."""
RECHECK_SECONDS = 30.0
"""The folder is read again this often even when nothing was noticed: some file systems tell nobody."""


class PolicyFolder:
    """Keeps the policies in force equal to what the folder says."""

    def __init__(self, folder: Path, adopt: AdoptPolicies) -> None:
        self._folder = folder
        self._adopt = adopt

    async def load(self) -> PolicySnapshot:
        """Read the folder once, and say what became of each policy."""
        known = self._adopt.current()
        before = {(status.namespace, status.name): status for status in known.statuses}
        snapshot = await self._adopt.adopt(await asyncio.to_thread(read_folder, self._folder))
        for status in snapshot.statuses:
            if before.get((status.namespace, status.name)) != status:
                level = logging.WARNING if status.problems else logging.INFO
                log.log(
                    level,
                    "policy adopted",
                    extra={
                        "policy": f"{status.namespace}/{status.name}",
                        "digest": status.digest,
                        "standing": status.standing.value,
                        "problems": [str(problem) for problem in status.problems],
                    },
                )
        for problem in snapshot.problems:
            if problem not in known.problems:
                log.warning("policy folder", extra={"problem": str(problem)})
        return snapshot

    async def watch(self) -> None:
        """Follow the folder until cancelled; a failure is logged and tried again, never the end of watching."""
        while True:
            try:
                await self._follow()
            except Exception:
                log.exception("watching the policy folder failed", extra={"folder": str(self._folder)})
            await asyncio.sleep(1.0)

    async def _follow(self) -> None:
        """Follow the folder until its name is another folder's, or nobody's: the kernel tells of the first one only."""
        if not self._folder.is_dir():
            return
        with _held(self._folder) as folder:
            changes = awatch(
                self._folder,
                step=QUIET_MILLISECONDS,
                debounce=PATIENCE_MILLISECONDS,
                rust_timeout=int(RECHECK_SECONDS * 1000),
                yield_on_timeout=True,
            )
            first = asyncio.ensure_future(anext(changes))
            try:
                # The watch begins with its first step; what changed between the last reading and now is read here.
                await asyncio.sleep(0)
                await self.load()
                await first
            finally:
                first.cancel()
            await self.load()
            while _is_at(self._folder, folder):
                await anext(changes)
                await self.load()


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """Hold a folder open, so that no other one can get its number."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
