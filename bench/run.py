"""Run benchmarks by name (all without one), keep and publish what they find; `--quick` only shows that they run."""

import argparse
import sys
import time
from collections.abc import Sequence

import publish
from baleen_bench.form import FULL, QUICK, CannotMeasure, result, write_result
from baleen_bench.machine import Watch
from baleen_bench.scripts import NAMES, load_script

BUSY = 0.1
"""Above this part of all processor time, others have had a say in the figures."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="a few seconds a script, and nothing is kept")
    parsed = parser.parse_args(arguments)
    if unknown := [name for name in parsed.names if name not in NAMES]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    left_out = False
    for name in parsed.names or NAMES:
        try:
            run(name, quick=parsed.quick)
        except CannotMeasure as exc:
            print(f"{name}: not measured: {exc}", file=sys.stderr)
            left_out = True
    if not parsed.quick:
        publish.main([])
    return 1 if left_out else 0


def run(name: str, *, quick: bool) -> None:
    """Run one script, say what it found, and keep it unless it was quick."""
    begun, watch = time.monotonic(), Watch()
    outcome = load_script(name).measure(QUICK if quick else FULL)
    found = result(name, outcome, watch.machine(outcome.orphans_cpu_seconds))
    machine = found["machine"]
    seconds = time.monotonic() - begun
    print(f"{name}: {seconds:.0f} s, steal {machine['steal']:.1%}, other load {machine['other_load']:.1%}")
    if max(machine["steal"], machine["other_load"]) > BUSY:
        print("  the machine was busy with other things: measure again when it is not")
    for figure in outcome.figures:
        goal = f", goal {figure.goal}" if figure.goal else ""
        noise = "" if figure.noise is None else f", noise {figure.noise:.1%}"
        print(f"  {figure.id} = {figure.value:g} {figure.unit}{goal}{noise}: {figure.verdict}")
    if not quick:
        print(f"  kept in {write_result(found)}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
