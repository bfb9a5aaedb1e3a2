from forked import run


def test_a_forked_process_has_what_was_made_ready_for_it():
    # The fork server says nothing of a module that it does not find.
    check = "import sys; assert {'ready_to_fork', 'baleen_sidecar.following'} <= sys.modules.keys()"

    ended = run("timeit", "--number=1", "--repeat=1", check, environment={}, timeout=30)

    assert ended.returncode == 0, ended.stderr
