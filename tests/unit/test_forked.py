import threading

import forked_workers
from forked import run


def test_a_forked_process_has_what_was_made_ready_for_it():
    # The fork server says nothing of a module that it does not find.
    check = "import sys; assert {'ready_to_fork', 'baleen_sidecar.following'} <= sys.modules.keys()"

    ended = run("timeit", "--number=1", "--repeat=1", check, environment={}, timeout=30)

    assert ended.returncode == 0, ended.stderr


def test_a_file_and_a_thread_that_forks_would_share_are_named(tmp_path):
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    with (tmp_path / "open").open("w"):
        thread.start()
        found = forked_workers.find_shared()
        ended.set()
    thread.join()

    assert str(tmp_path / "open") in found
    assert not found.startswith("to import the tests leaves 0 threads")
    assert str(tmp_path / "open") not in forked_workers.find_shared()
