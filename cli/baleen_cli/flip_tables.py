"""Tables of flips: what `baleen policy backtest` and `kubectl baleen simulate | flips` print of the JSON of answers."""

from collections.abc import Mapping
from typing import Any

from baleen_cli.console import coloured, lines, note, output, table
from baleen_core.decision.backtest import Ended


def print_simulation(answer: Mapping[str, Any]) -> None:
    """Print what differs, by kind, category and language, and what could not be compared."""
    shown = table("IN FORCE", "CANDIDATE", "DECISIONS", "FOR EXAMPLE")
    for flip in answer["flips"]:
        shown.add_row(coloured(flip["from"]), coloured(flip["to"]), f"{flip['count']:,}", flip["examples"][0])
    if answer["flips"]:
        output.print(shown)
    print_parts(answer)
    lines(
        [
            f"{answer['compared']:,} decisions compared: {answer['flip_rate']:.2%} come out differently, "
            f"{answer['new_block_rate']:.2%} newly blocked, {answer['new_allow_rate']:.2%} newly allowed"
        ]
    )
    for name, count in answer["signals_missing"].items():
        note(f"{count:,} could not be compared, for want of scores of {name}")
    for name, count in answer["lists_missing"].items():
        note(f"{count:,} could not be compared, since the list {name} was not looked up then")
    if erased := answer.get("erased", 0):
        note(f"{erased:,} could not be compared, since they were erased on request")
    if no_namespace := answer.get("no_namespace", 0):
        note(f"{no_namespace:,} could not be compared: an earlier release wrote no namespaces of policies")
    if answer["ended"] not in (Ended.ENOUGH, Ended.END_OF_LOG):
        note(f"stopped before there were enough decisions: {answer['ended']}")
    if answer.get("gate", {}).get("verdict") == "Pass":
        lines([f"Pass: {answer['gate']['message']}"])


def print_parts(answer: Mapping[str, Any]) -> None:
    """Print the flips of each category and language that has any."""
    for column, rows in (("CATEGORY", answer["categories"]), ("LANGUAGE", answer["languages"])):
        if changed := [row for row in rows if row["flips"]]:
            parts = table(column, "FLIPS", "NEW BLOCKS", "NEW ALLOWS", "OF")
            for row in changed:
                counts = (row[field] for field in ("flips", "new_blocks", "new_allows", "compared"))
                parts.add_row(row["name"], *(f"{count:,}" for count in counts))
            output.print(parts)
