"""What programs write to standard error: one JSON object a line, whoever says it."""

import json

import pytest

from forked import run


@pytest.mark.parametrize("package", ["baleen_operator", "baleen_sidecar"])
def test_a_warning_of_python_is_an_event_like_any_other(package):
    said = f"import warnings; from {package}.logs import set_up_logging; set_up_logging(); warnings.warn('take care')"

    ended = run("timeit", "--number=1", "--repeat=1", said, environment={}, timeout=30)

    assert ended.returncode == 0, ended.stderr
    (event,) = map(json.loads, ended.stderr.splitlines())
    assert (event["level"], event["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: take care" in event["event"]
