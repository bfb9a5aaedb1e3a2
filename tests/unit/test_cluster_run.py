"""The plugin `cluster_run` in test runs of their own, with stand-ins for the binaries and without a control plane."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster_tools import OF_THE_SUITE

SUPPORT = Path(__file__).parents[1] / "support"
SETTINGS = (
    "[pytest]\npythonpath = {support}\nmarkers = cluster\naddopts = --basetemp={folder}/base -p no:cacheprovider\n"
)
CONFTEST = """
from pathlib import Path
import cluster_run
cluster_run.SUITE = cluster_run.ROLES = Path(__file__).parent
pytest_plugins = ["cluster_run", "control_plane_fixtures"]
"""
TESTS = """
import json, pytest
from cluster_run import run_folder

@pytest.mark.cluster
def test_with_a_cluster(pytestconfig):
    event = {event}
    with (run_folder(pytestconfig) / "audit.log").open("a") as log:
        log.write(json.dumps(event) + "\\n")

def test_without():
    pass
"""
ROLES = """
kind: ClusterRole
metadata: {name: operator}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
---
kind: ClusterRoleBinding
metadata: {name: operator}
roleRef: {kind: ClusterRole, name: operator}
subjects: [{kind: ServiceAccount, name: baleen-operator, namespace: baleen-system}]
"""


def called(verb, resource):
    return {
        "verb": verb,
        "user": {"username": "system:serviceaccount:baleen-system:baleen-operator"},
        "objectRef": {"resource": resource},
    }


@pytest.fixture
def run(tmp_path):
    """Run two tests, of which the first needs a cluster and makes the call; return the status and what was said."""
    (tmp_path / "pytest.ini").write_text(SETTINGS.format(support=SUPPORT, folder=tmp_path))
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "roles.yaml").write_text(ROLES)
    for name in OF_THE_SUITE:
        (tmp_path / name).write_text("#!/bin/true\n")
        (tmp_path / name).chmod(0o755)

    def run(event, *arguments, **environment):
        (tmp_path / "test_inner.py").write_text(TESTS.replace("{event}", json.dumps(event)))
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "BALEEN_UPDATE_"))
        }
        inherited["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading all takes seconds
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "xdist", "-c", tmp_path / "pytest.ini", "-v", tmp_path, *arguments],
            env=inherited | {"KUBEBUILDER_ASSETS": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("workers", [pytest.param("0", id="one process"), pytest.param("2", id="two workers")])
def test_a_run_fails_when_roles_and_calls_differ(run, workers):
    status, said = run(called("delete", "secrets"), "-n", workers)

    assert "2 passed" in said
    assert status == 1
    assert "baleen-operator: no role of the chart allows what was called: delete secrets" in said
    assert "baleen-operator: a role of the chart allows what nobody called: get configmaps" in said


@pytest.mark.parametrize("workers", [pytest.param("0", id="one process"), pytest.param("2", id="two workers")])
def test_a_run_passes_when_roles_and_calls_are_the_same(run, workers):
    status, said = run(called("get", "configmaps"), "-n", workers)

    assert status == 0, said


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(["-k", "test_with"], id="by name"),
        pytest.param(["-m", "cluster"], id="by marker"),
    ],
)
def test_a_part_of_the_suite_says_nothing_of_the_roles(run, chosen):
    status, said = run(called("delete", "secrets"), *chosen)

    assert status == 0, said


def test_without_binaries_tests_that_need_a_cluster_come_last_and_fail(run, tmp_path):
    (tmp_path / "etcd").unlink()
    (tmp_path / "go").write_text("#!/bin/bash\n[[ $1 == env ]] && echo go1.26.1 || { echo no such module; exit 1; }\n")
    (tmp_path / "go").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    status, said = run(called("get", "configmaps"), PATH=path, XDG_CACHE_HOME=str(tmp_path / "cache"))

    assert status == 1
    assert said.index("::test_without ERROR") < said.index("::test_with_a_cluster ERROR")
    assert "building etcd failed with status 1" in said
    assert "no such module" in said
    assert "skipped" not in said
