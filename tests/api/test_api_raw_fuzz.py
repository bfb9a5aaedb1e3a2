"""Hostile bytes at the real server: no crash, no answer that is not documented, and nothing left behind.

In the suite it takes its time, since other tests run beside it. `BALEEN_FUZZ_SECONDS` has it go on for so long, as fast
as it can, `BALEEN_FUZZ_SEED` with other bytes.
"""

import asyncio
import logging
import os
import random
from collections import Counter

import pytest

from raw_fuzz import fuzz
from serving import until
from sidecars import StartSidecar

SECONDS = float(os.environ.get("BALEEN_FUZZ_SECONDS", "30"))
PAUSE_SECONDS = 0.0 if "BALEEN_FUZZ_SECONDS" in os.environ else 0.7
PROTOCOL = {100, 400, 404, 405, 408, 421, 431, 503}
"""What is said of bytes, paths and methods, whatever the route."""
STREAM = {101, 1000, 1001, 1002, 1005, 1007, 1009, *range(3000, 5000)}
"""What is said of streams; 1000, 1005 and an application's own from 3000 on are what their callers said."""
AIMS = {101, 200, 400, 405, 413, 415, 422, 1000, 1002, 1007}


def test_hostile_bytes_find_no_crash_and_leave_nothing_behind(
    start_sidecar: StartSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_sidecar()
    paths = running.answers.document["paths"]
    documented = {*paths["/v1/moderate"]["post"]["responses"], *paths["/v1/stream"]["get"]["responses"]}
    seed = int(os.environ.get("BALEEN_FUZZ_SEED") or random.randrange(2**31))
    before = running.count_tasks()
    aims = AIMS if SECONDS >= 10 else set()
    found: Counter[int] = Counter()
    with caplog.at_level(logging.ERROR):
        # By chance, or on a busy machine, something that is rare does not come in the time.
        for more in range(3):
            found += asyncio.run(fuzz(running.address, seconds=SECONDS, seed=seed + more, pause_seconds=PAUSE_SECONDS))
            if aims <= found.keys():
                break
        running.client.close()
        until(lambda: running.in_flight == 0)
        until(lambda: running.count_tasks() <= before)

    allowed = PROTOCOL | STREAM | {int(status) for status in documented}
    assert found.keys() <= allowed - {500}, f"seed {seed}: {found}"
    assert found
    assert not aims - found.keys(), f"seed {seed}: it did not reach what it is aimed at"
    assert [record.getMessage() for record in caplog.records] == [], f"seed {seed}"
