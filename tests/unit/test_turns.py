"""How one thread gets in between the pieces of work of another."""

import threading

from baleen_sidecar.adapters.store.turns import Turns

WAIT_SECONDS = 20.0


def test_who_works_without_a_pause_lets_somebody_in_between() -> None:
    turns, stop, began = Turns(), threading.Event(), threading.Event()
    pieces: list[int] = []

    def work() -> None:
        while not stop.is_set():
            with turns.work():
                pieces.append(len(pieces))
                began.set()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        assert began.wait(WAIT_SECONDS)
        for _ in range(100):
            with turns.between():
                done = len(pieces)
                threading.Event().wait(0.0001)

                assert len(pieces) == done
    finally:
        stop.set()
    worker.join(WAIT_SECONDS)

    assert not worker.is_alive()


def test_the_next_piece_of_work_waits_for_who_wants_to_get_in_between() -> None:
    turns, order = Turns(), list[str]()
    working, wanted = threading.Event(), threading.Event()

    def get_in() -> None:
        working.wait(WAIT_SECONDS)
        wanted.set()
        with turns.between():
            order.append("between")

    other = threading.Thread(target=get_in, daemon=True)
    other.start()
    with turns.work():
        working.set()
        assert wanted.wait(WAIT_SECONDS)
        # It stands at the gate once this cannot be had any more.
        while turns._gate.acquire(blocking=False):
            turns._gate.release()
        order.append("first")
    with turns.work():
        order.append("second")
    other.join(WAIT_SECONDS)

    assert order == ["first", "between", "second"]
