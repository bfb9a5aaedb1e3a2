"""The decision log's second thread outlives whatever a round meets."""

import threading

import pytest

from baleen_core.decision_chain import Head
from baleen_sidecar.adapters.store.upkeep import UpkeepThread

WAIT_SECONDS = 20.0


class Rounds(UpkeepThread):
    """Fails in its first rounds, in ways that nobody thought of, and then no more."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__("the log", interval_seconds=0.001, head=self.no_head)
        self.left = list(failures)
        self.seen: list[str] = []
        self.dropped = 0
        self.went_well = threading.Event()

    def no_head(self) -> Head | None:
        return None

    def _round(self) -> None:
        if self.went_well.is_set():
            return
        self.seen.append(self.failure)
        if self.left:
            raise self.left.pop(0)
        self.went_well.set()

    def _drop_connection(self) -> None:
        self.dropped += 1


def test_a_round_that_fails_in_a_way_nobody_thought_of_is_told_and_the_next_one_tries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds = Rounds(AttributeError("no such thing"), AttributeError("no such thing"), OSError("the disk"))
    rounds.start()
    assert rounds.went_well.wait(WAIT_SECONDS)
    rounds.stop()

    assert rounds.seen == ["", *["AttributeError: no such thing"] * 2, "the disk"]
    assert rounds.failure == ""
    assert rounds.dropped == 4, "after each failure, and at the end"
    told = [record.__dict__["cause"] for record in caplog.records if record.message == "decision log upkeep failed"]
    assert told == ["AttributeError: no such thing", "the disk"]
