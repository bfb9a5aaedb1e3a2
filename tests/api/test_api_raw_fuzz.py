"""Hostile bytes at the real server: no crash, no answer that is not documented, and nothing left behind.

`BALEEN_FUZZ_SECONDS` has it go on for longer, `BALEEN_FUZZ_SEED` with other bytes.
"""

import asyncio
import logging
import os
import random

import pytest

from raw_fuzz import fuzz
from sidecars import StartSidecar
from waiting import until

SECONDS = float(os.environ.get("BALEEN_FUZZ_SECONDS", "10"))
PROTOCOL = {100, 400, 404, 405, 408, 421, 431, 503}
"""What is said of bytes, paths and methods, whatever the route."""


def test_hostile_bytes_find_no_crash_and_leave_nothing_behind(
    start_sidecar: StartSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_sidecar()
    documented = running.answers.document["paths"]["/v1/moderate"]["post"]["responses"]
    registry = running.sidecar.ports.registry
    seed = int(os.environ.get("BALEEN_FUZZ_SEED") or random.randrange(2**31))

    async def count_tasks() -> int:
        return len(asyncio.all_tasks())

    before = running.run(count_tasks())

    async def is_quiet() -> bool:
        return await count_tasks() <= before

    with caplog.at_level(logging.ERROR):
        found = asyncio.run(fuzz(running.address, seconds=SECONDS, seed=seed))
        running.client.close()
        running.run(until(lambda: registry.get_sample_value("baleen_requests_in_flight") == 0))
        running.run(until(is_quiet))

    allowed = PROTOCOL | {int(status) for status in documented}
    assert found.keys() <= allowed - {500}, f"seed {seed}: {found}"
    # It did reach what it is aimed at.
    assert {200, 400, 405, 413, 415, 422} <= found.keys() if SECONDS >= 10 else found
    assert [record.getMessage() for record in caplog.records] == [], f"seed {seed}"
