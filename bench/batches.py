"""What a batch is worth: a hundred texts in one request, over a hundred requests one by one; and how many a second.

`batch100_ratio` has one caller who waits for each answer, which is what a batch spares. The model is `accelerator`,
whose calls cost most of what they take. `decide_per_s_batch` is many callers with batches of 100, rules alone, and
every decision on disk before its answer; its peer is a server that answers the same requests with bytes made before.
"""

import http.client
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from baleen_bench import policies, texts
from baleen_bench.form import Aim, Effort, Figure, Outcome, compare, noise_of
from baleen_bench.models import ACCELERATOR, load
from baleen_bench.sides import bench
from baleen_bench.triton import triton
from baleen_sidecar.settings import Durability
from baleen_sidecar.web.batch import PATH as BATCH
from baleen_sidecar.web.moderate import PATH as MODERATE

ITEMS: Final = 100
RATIO, RATE = "batch100_ratio", "decide_per_s_batch"
FIGURES = {
    RATIO: Aim(
        what=f"time of {ITEMS} texts one after another, over that of one batch; stand-in `{ACCELERATOR.name}`",
        goal=">= 10",
    ),
    RATE: Aim(
        what=f"rule-only decisions a second on one core, in batches of {ITEMS}, each on disk before its answer",
        goal=">= 10000",
    ),
}
_START_RATE: Final = 20.0


def measure(effort: Effort) -> Outcome:
    """Measure both."""
    ratio, of_ratio = against_single_calls(effort)
    rate, of_rate = rate_of_batches(effort)
    return Outcome(figures=(ratio, rate), raw={RATIO: of_ratio, RATE: of_rate})


def against_single_calls(effort: Effort) -> tuple[Figure, Any]:
    """Send the same texts one by one and at once, in turns; before that, one by one against themselves."""
    bodies = texts.requests(texts.messages(ITEMS))
    batch = texts.batch(bodies)
    policy = policies.threshold(*load(ACCELERATOR.name).signal_names())
    with bench() as here, triton(ACCELERATOR.name, cpu=here.cores.other) as server:
        subject = here.sidecar("fsync", Durability.FSYNC, policy, triton=server, model=ACCELERATOR.name)
        with closing(http.client.HTTPConnection("127.0.0.1", subject.server.port, timeout=60)) as connection:

            def one_by_one() -> None:
                for body in bodies:
                    ask(connection, MODERATE, body)

            def at_once() -> None:
                answer = ask(connection, BATCH, batch)
                if answer["counts"]["refused"]:
                    raise RuntimeError(f"items were refused: {answer['counts']}")

            at_once()  # warms up
            pairs = [(seconds(one_by_one), seconds(one_by_one)) for _ in range(effort.noise_pairs)]
            turns = [(seconds(one_by_one), seconds(at_once)) for _ in range(effort.repetitions)]
    ratios = [alone / together for alone, together in turns]
    figure = Figure.of(RATIO, ratios, "ratio", aims=FIGURES, noise=noise_of(pairs), stand_in=ACCELERATOR.name)
    return figure, {"one_by_one_against_itself_s": pairs, "one_by_one_and_batch_s": turns}


def rate_of_batches(effort: Effort) -> tuple[Figure, Any]:
    """Offer more batches than can be answered, and count the decisions of those that are."""
    with bench() as here:
        requests = texts.write_batches(here.folder / "batches.jsonl", items=ITEMS)
        sides = [
            replace(side, path=BATCH, requests=requests, start_rate=_START_RATE)
            for side in (here.floor("empty"), here.sidecar("fsync", Durability.FSYNC, policies.rule_only()))
        ]
        found = compare(sides[1], sides[0], effort)
    decided = [ITEMS * rate for rate in found.subject]
    return Figure.of(RATE, decided, "decisions/s", aims=FIGURES, noise=found.noise), found.raw


def ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> Any:
    """Ask, and return the answer.

    Raises:
        RuntimeError: it was refused.
    """
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"{path} answered {response.status}: {answer[:500]!r}")
    return json.loads(answer)


def seconds(work: Callable[[], None]) -> float:
    """Time it."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
