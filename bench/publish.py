"""Write the results into the reference page and the README, between their markers; `--check` only says what differs."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from baleen_bench.children import BENCH
from baleen_bench.form import RESULTS, Aim
from baleen_bench.scripts import NAMES, load_script

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PAGE = BENCH.parent / "docs" / "reference" / "benchmarks.md"
README = BENCH.parent / "README.md"
NOT_MEASURED = "not measured"

Results = Mapping[str, dict[str, Any]]
"""What a script found, by its name; a script that did not run is not in it."""


def read_results(folder: Path = RESULTS) -> Results:
    """Read every result that is there."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def aims() -> dict[str, Mapping[str, Aim]]:
    """Return what every script is to measure, by the script's name."""
    return {name: load_script(name).FIGURES for name in NAMES}


def render_page(results: Results, wanted: Mapping[str, Mapping[str, Aim]]) -> str:
    """Write every figure with its spread, its noise and the state of the machine while it was measured."""
    lines = [
        "| figure | what | value | spread | noise | goal | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for script, name, aim in _each(wanted):
        figure = _find(results, script, name)
        if figure is None:
            lines.append(f"| `{name}` | {aim.what} | {NOT_MEASURED} | | | {_goal(aim.goal)} | |")
            continue
        low, high = (_number(value) for value in figure["spread"])
        noise = "" if figure["noise"] is None else f"{figure['noise']:.1%}"
        value = f"{_number(figure['value'])} {figure['unit']}"
        lines.append(
            f"| `{name}` | {aim.what} | {value} | {low} to {high} | {noise} | {_goal(figure['goal'])} "
            f"| {figure['verdict']} |"
        )
    lines += ["", "| script | commit | date | machine | steal | other load |", "|---|---|---|---|---|---|"]
    for script in wanted:
        if script in results:
            lines.append(_machine_row(results[script]))
    return "\n".join(lines)


def render_summary(results: Results, wanted: Mapping[str, Mapping[str, Aim]]) -> str:
    """Write what a reader of the README wants: each figure that has a goal, with its value and whether it is met."""
    lines = ["| figure | what | value | goal | verdict |", "|---|---|---|---|---|"]
    for script, name, aim in _each(wanted):
        if aim.goal is None:
            continue
        figure = _find(results, script, name)
        value = NOT_MEASURED if figure is None else f"{_number(figure['value'])} {figure['unit']}"
        verdict = "" if figure is None else figure["verdict"]
        lines.append(f"| `{name}` | {aim.what} | {value} | {_goal(aim.goal)} | {verdict} |")
    return "\n".join(lines)


def fill(text: str, table: str, *, name: str) -> str:
    """Put a table between the markers of a text.

    Raises:
        ValueError: the text does not have each marker once, the first before the second.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{name} must have one {BEGIN} and after it one {END}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def texts() -> Iterator[tuple[Path, str, str]]:
    """Yield each published file with what it says and what it should say.

    Raises:
        ValueError: a file has no markers.
    """
    results, wanted = read_results(), aims()
    for path, table in ((PAGE, render_page(results, wanted)), (README, render_summary(results, wanted))):
        text = path.read_text(encoding="utf-8")
        yield path, text, fill(text, table, name=path.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish, or check that what is published is what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is not up to date")
    parsed = parser.parse_args(arguments)
    stale = [(path, wanted) for path, text, wanted in texts() if text != wanted]
    for path, wanted in stale:
        if parsed.check:
            print(f"{path.name} does not say what bench/results says; run bench/publish.py", file=sys.stderr)
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"wrote {path.name}")
    return 1 if parsed.check and stale else 0


def _each(wanted: Mapping[str, Mapping[str, Aim]]) -> Iterator[tuple[str, str, Aim]]:
    for script, figures in wanted.items():
        for name, aim in figures.items():
            yield script, name, aim


def _find(results: Results, script: str, name: str) -> dict[str, Any] | None:
    figures: list[dict[str, Any]] = results[script]["figures"] if script in results else []
    return next((figure for figure in figures if figure["id"] == name), None)


def _machine_row(result: dict[str, Any]) -> str:
    machine = result["machine"]
    shown = (
        f"{machine['cpus']} CPUs, {machine['memory_gib']} GiB, Python {machine['python']}, Linux {machine['kernel']}"
    )
    return (
        f"| `{result['script']}` | {result['commit']} | {result['date']} | {shown} "
        f"| {machine['steal']:.1%} | {machine['other_load']:.1%} |"
    )


def _number(value: float) -> str:
    """Write a number as a person would: 5170 and not 5.17e+03."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def _goal(goal: str | None) -> str:
    return "published" if goal is None else goal.replace(">=", "≥").replace("<=", "≤")


if __name__ == "__main__":
    sys.exit(main())
