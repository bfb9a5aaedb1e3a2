"""Answers of several gateways, some of which may have read the same log."""

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def one_per_log(answers: Mapping[str, T], log_of: Callable[[T], str]) -> dict[str, T]:
    """Return the answers to add up: of each log that several read, that of the first reader by name.

    `answers` are by the readers' names. Where `log_of` is empty, nobody else reads that log.
    """
    first: dict[str, str] = {}
    for name in sorted(answers):
        if log := log_of(answers[name]):
            first.setdefault(log, name)
    return {name: each for name, each in answers.items() if first.get(log_of(each), name) == name}
