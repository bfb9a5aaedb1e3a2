"""A process that appends decisions as fast as it can and prints each id once it is acknowledged.

Meanwhile it erases one of the authors again and again.

Its arguments are the state folder, and a prefix of the ids.
"""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from baleen_sidecar.adapters.store import SqliteDecisionLog, StateFolder, migrate
from decision_records import make_record

APPENDERS = 64
AUTHORS = 5


async def append_for_ever(path: Path, prefix: str) -> None:
    numbers = count()
    async with SqliteDecisionLog(path, checkpoint_seconds=0.02, truncate_bytes=1024 * 1024) as log:

        async def appender() -> None:
            for number in numbers:
                await log.append(make_record(f"{prefix}-{number:07}", author=f"author-{number % AUTHORS}"))
                # Past every buffer of this process: what was written here survives its end.
                os.write(sys.stdout.fileno(), f"{prefix}-{number:07}\n".encode())

        async def eraser() -> None:
            while True:
                await log.erase("author-0")
                await asyncio.sleep(0.01)

        # Of what an earlier process left, something is erased for certain before this one is killed.
        await log.erase("author-0")
        await asyncio.gather(eraser(), *(appender() for _ in range(APPENDERS)))


if __name__ == "__main__":
    with StateFolder(Path(sys.argv[1])) as folder:
        migrate(folder.database)
        asyncio.run(append_for_ever(folder.database, sys.argv[2]))
