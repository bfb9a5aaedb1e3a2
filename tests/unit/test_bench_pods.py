import pytest

import run as bench_run
from baleen_bench.form import CannotMeasure
from baleen_bench.pods import anonymous, failed, used_seconds, working_set


@pytest.mark.parametrize(
    ("files", "mebibytes", "seconds"),
    [
        pytest.param(
            {
                "memory.current": "5242880\n",
                "memory.stat": "anon 3145728\ninactive_file 1048576\n",
                "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\n",
            },
            4,
            2.5,
            id="version 2",
        ),
        pytest.param(
            {
                "memory.usage_in_bytes": "5242880\n",
                "memory.stat": "rss 0\ninactive_file 0\ntotal_rss 3145728\ntotal_inactive_file 1048576\n",
                "cpuacct.usage": "2500000000\n",
            },
            4,
            2.5,
            id="version 1",
        ),
    ],
)
def test_a_control_group_says_what_is_used(tmp_path, files, mebibytes, seconds):
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    assert working_set(tmp_path) == mebibytes * 2**20
    assert anonymous(tmp_path) == 3 * 2**20
    assert used_seconds(tmp_path) == seconds


def test_whatever_was_due_and_not_answered_well_has_failed():
    assert failed({"due": 10, "ok": 6, "errors": {"503": 1}, "unfinished": 2, "unsent": 1}) == 4


def test_a_script_that_the_machine_cannot_run_is_said_and_the_others_are_run(monkeypatch, capsys):
    done = []

    def run(name, *, quick):
        if name == "in_pods":
            raise CannotMeasure("a node needs root")
        done.append(name)

    monkeypatch.setattr(bench_run, "run", run)

    assert bench_run.main(["--quick", "in_pods", "engine"]) == 1
    assert done == ["engine"]
    assert "in_pods: not measured: a node needs root" in capsys.readouterr().err
