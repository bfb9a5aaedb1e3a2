"""How long the disk under a folder takes to make something durable."""

import math
import os
import statistics
import time
from pathlib import Path


def fdatasync_ms(folder: Path, times: int) -> dict[str, float]:
    """Append 4 KiB to a file and sync it, again and again; return p50, p99 and the longest, in milliseconds."""
    waits = []
    with (folder / "fdatasync").open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"\0" * 4096)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            waits.append((time.perf_counter() - begun) * 1e3)
    waits.sort()
    return {
        "p50": round(statistics.median(waits), 3),
        "p99": round(waits[math.ceil(0.99 * times) - 1], 3),
        "max": round(waits[-1], 3),
    }
