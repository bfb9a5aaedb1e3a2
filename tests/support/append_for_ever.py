"""A process that appends decisions as fast as it can and prints each id once it is acknowledged.

Each has an idempotency key and is owed another look. Meanwhile it erases one of the authors again and again.

Its arguments are the state folder, or `--database`, the file of a URL and a writer; and a prefix of the ids.
"""

import asyncio
import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Final, Self

from baleen_sidecar.adapters.store import (
    Database,
    GroupedLog,
    PostgresDecisionLog,
    SqliteDecisionLog,
    StateFolder,
    migrate,
)
from baleen_sidecar.ports import Beside, Debt, KeptContent, RequestKey
from decision_records import make_record
from forked import ForkedProcess

_END_SECONDS: Final = 10
APPENDERS = 64
AUTHORS = 5


class Appender(ForkedProcess):
    """The process as it runs, of which `stdout` is read; it ends with its block, at the latest."""

    def __init__(self, *arguments: str | Path) -> None:
        reader, writer = os.pipe()
        self.stdout = os.fdopen(reader)
        with os.fdopen(writer, "wb") as output:
            super().__init__("append_for_ever", *map(str, arguments), environment={}, stdout=output)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait(_END_SECONDS)
        self.stdout.close()
        self.stderr.close()


def acknowledged_until_killed(process: Appender, number: int) -> list[str]:
    """Kill it once it has acknowledged so many, and return all of those."""
    with process:
        lines = [process.stdout.readline() for _ in range(number)]
        process.kill()
        lines += process.stdout
    assert process.returncode == -9
    return [line.strip() for line in lines if line.endswith("\n")]


def owed(decision_id: str) -> Debt:
    """Make the debt that stands beside a decision."""
    return Debt(
        decision_id=decision_id,
        time="2026-03-01",
        risk=0,
        models=("words",),
        content=KeptContent(type="text", text="a"),
    )


async def append_for_ever(opened: GroupedLog, prefix: str) -> None:
    numbers = count()
    async with opened as log:

        async def appender() -> None:
            for number in numbers:
                name = f"{prefix}-{number:07}"
                beside = Beside(
                    key=RequestKey(id=name, fingerprint="f", time_seconds=int(time.time())), debt=owed(name)
                )
                await log.append(make_record(name, author=f"author-{number % AUTHORS}"), beside)
                # Past every buffer of this process: what was written here survives its end.
                os.write(sys.stdout.fileno(), f"{prefix}-{number:07}\n".encode())

        async def eraser() -> None:
            while True:
                await log.erase("author-0")
                await asyncio.sleep(0.01)

        # Of what an earlier process left, something is erased for certain before this one is killed.
        await log.erase("author-0")
        await asyncio.gather(eraser(), *(appender() for _ in range(APPENDERS)))


def main(arguments: list[str]) -> None:
    if arguments[0] == "--database":
        log = PostgresDecisionLog(Database(Path(arguments[1])), writer=arguments[2])
        asyncio.run(append_for_ever(log, arguments[3]))
        return
    with StateFolder(Path(arguments[0])) as folder:
        migrate(folder.database)
        file = SqliteDecisionLog(folder.database, checkpoint_seconds=0.02, truncate_bytes=1024 * 1024)
        asyncio.run(append_for_ever(file, arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
