"""Logged decisions that are judged again, each by two revisions, for each second of one core's processor time.

They are read from their JSON, as the log has them. The floor is reading them alone, in the same turns; the floor
against itself is the noise.
"""

import itertools
import time
from collections.abc import Callable, Mapping

from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_core.decision.backtest import Comparison, backtest
from baleen_core.decision.engine import decide
from baleen_core.records import DecisionRecord, decode_record, encode
from engine import examples, pinned, prepare

FIGURES = {
    "backtest_per_s": Aim(
        what="logged decisions read and judged again: six categories with thresholds, in columns", goal=">= 50000"
    ),
    "backtest_per_s_rule": Aim(what="logged decisions read and judged again: and one rule, one by one"),
    "backtest_per_s_floor": Aim(what="logged decisions that are only read"),
    "backtest_ratio_floor": Aim(what="decisions judged again over decisions only read: six categories with thresholds"),
}
_PAGES = 4
_PAGE_ROWS = 1_000
_VARIANTS = ("threshold", "rule")

Work = Callable[[list[bytes]], object]
"""What is done with a page of the log."""


def measure(effort: Effort) -> Outcome:
    """Read; read and judge by six thresholds; read and judge by six thresholds and a rule; in turns."""
    with pinned():
        pages = _log()
        work: Mapping[str, Work] = {"floor": _read} | {variant: _again(variant, pages[0]) for variant in _VARIANTS}
        for each in work.values():
            rate(each, pages, seconds=effort.step_seconds)  # warms up

        def run(name: str) -> float:
            return rate(work[name], pages, seconds=effort.seconds / 2)

        pairs = [(run("floor"), run("floor")) for _ in range(effort.noise_pairs)]
        turns = [{name: run(name) for name in work} for _ in range(effort.repetitions)]
    noise = noise_of(pairs)

    def figure(name: str, values: list[float], unit: str) -> Figure:
        return Figure.of(name, values, unit, aims=FIGURES, noise=noise)

    return Outcome(
        figures=(
            figure("backtest_per_s", [turn["threshold"] for turn in turns], "decisions/CPU s"),
            figure("backtest_per_s_rule", [turn["rule"] for turn in turns], "decisions/CPU s"),
            figure("backtest_per_s_floor", [turn["floor"] for turn in turns], "decisions/CPU s"),
            figure("backtest_ratio_floor", [turn["threshold"] / turn["floor"] for turn in turns], "ratio"),
        ),
        raw={"floor_against_itself": pairs, "turns": turns},
    )


def rate(work: Work, pages: list[list[bytes]], *, seconds: float) -> float:
    """Return decisions for each second of processor time."""
    count, begun, ends = 0, time.process_time(), time.monotonic() + seconds
    for page in itertools.cycle(pages):
        work(page)
        count += len(page)
        if time.monotonic() >= ends:
            break
    return count / (time.process_time() - begun)


def _read(page: list[bytes]) -> list[DecisionRecord]:
    return [decode_record(data) for data in page]


def _again(variant: str, page: list[bytes]) -> Work:
    """Compare a policy with one that blocks from a lower threshold on.

    Raises:
        RuntimeError: it does not judge every decision, or flips none: then something else was measured.
    """
    (stable,), (candidate,) = prepare(variant).winners, prepare(variant, block="75%").winners
    comparison = Comparison(stable=stable, candidate=candidate)
    found = backtest(comparison, _read(page))
    if found.compared != len(page) or not found.flips.overall.flips:
        raise RuntimeError(f"of {len(page)} decisions {found.compared} were compared, {found.flip_rate} ppm flipped")
    return lambda page: backtest(comparison, _read(page))


def _log() -> list[list[bytes]]:
    """Return pages of decisions as the log has them; each text is there several times."""
    in_force = prepare("threshold")
    evidences = itertools.cycle(evidence for _, evidence in examples())
    rows = [
        encode(DecisionRecord(id=f"d-{number}", time="", evidence=evidence, decision=decide(in_force, evidence)))
        for number, evidence in zip(range(_PAGES * _PAGE_ROWS), evidences, strict=False)
    ]
    return [rows[start : start + _PAGE_ROWS] for start in range(0, len(rows), _PAGE_ROWS)]
