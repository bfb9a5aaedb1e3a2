import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import cluster_tools
from cluster_tools import (
    CONTROL_PLANE,
    NODE,
    OF_THE_SUITE,
    PACKAGES,
    ToolsMissing,
    build_flags,
    cache_folder,
    find,
    find_go,
    tools,
)

ROOT = Path(__file__).parents[2]
GO = """#!/usr/bin/env bash
# Stands for Go: says its version, and "builds" by writing a file for each package.
if [[ $1 == env ]]; then echo "${FAKE_GO_VERSION:-go1.26.1}"; exit; fi
echo "$*" >> "$FAKE_GO_LOG"
out=; while (($#)); do [[ $1 == -o ]] && { out=$2; break; }; shift; done
shift 2
for package in "$@"; do
    name=${package##*/}; [[ $name == v3 ]] && name=server
    echo "$package" > "$out$name"; chmod +x "$out$name"
done
[[ -z ${FAKE_GO_FAILS:-} ]] || { echo "undefined: what it needs"; exit 1; }
"""


@pytest.fixture
def builds(tmp_path, monkeypatch):
    """Put a stand-in for Go first on the PATH, with an empty cache, and give the list of what it was asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "go").write_text(GO)
    (tmp_path / "bin" / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GO_LOG", str(tmp_path / "asked"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return lambda: (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []


def test_what_is_missing_is_built_once_from_its_package(builds):
    first, again = tools(), tools()

    assert list(first) == list(CONTROL_PLANE)
    assert again == first
    assert len(builds()) == 1
    assert {name: path.read_text().strip() for name, path in first.items()} == {
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    }


def test_what_most_tests_need_is_built_before_the_parts_of_a_node(builds):
    found = tools([*NODE, *OF_THE_SUITE])

    assert set(found) == {*OF_THE_SUITE, *NODE}
    of_the_suite, node = builds()
    assert [name for name in OF_THE_SUITE if of_the_suite.count(f" {PACKAGES[name]}")] == list(OF_THE_SUITE)
    assert [name for name in NODE if node.count(f" {PACKAGES[name]}")] == list(NODE)


def test_the_server_is_stamped_with_its_version(builds):
    tools(["kube-apiserver"])

    assert "-X k8s.io/component-base/version.gitVersion=v1.35.4" in builds()[0]
    assert "-X k8s.io/component-base/version.gitMinor=35" in builds()[0]


def test_two_who_need_it_at_once_build_it_once(builds):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: tools(["etcd"]), range(4)))

    assert found == found[:1] * 4
    assert len(builds()) == 1


def test_a_failed_build_leaves_nothing_and_says_why(builds, monkeypatch):
    monkeypatch.setenv("FAKE_GO_FAILS", "1")
    with pytest.raises(
        ToolsMissing, match=r"building etcd failed with status 1; the end of .*build.log:\n(?s:.*)undefined"
    ):
        tools(["etcd"])

    assert find("etcd") is None
    assert sorted(path.name for path in cache_folder().iterdir()) == ["build.log", "lock"]


def test_the_folder_of_the_environment_comes_first(builds, tmp_path, monkeypatch):
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "etcd").write_text("#!/bin/true\n")
    (assets / "etcd").chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))

    assert tools(["etcd"]) == {"etcd": assets / "etcd"}
    assert tools()["kube-apiserver"].parent == cache_folder()
    assert not [asked for asked in builds() if "etcd" in asked]


def test_other_flags_have_another_cache(monkeypatch):
    before = cache_folder()
    monkeypatch.setattr(cluster_tools, "build_flags", lambda: (*build_flags(), "-race"))

    assert cache_folder() != before


def test_helm_renders_for_the_version_of_the_server(builds):
    tools(["helm"])

    assert "-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35" in builds()[0]


def test_a_go_that_is_too_old_is_passed_over(builds, monkeypatch):
    newer = find_go()
    monkeypatch.setenv("FAKE_GO_VERSION", "go1.24.9")

    assert newer.parent.name == "bin"
    assert newer != find_go() == Path(sys.executable).with_name("go")


def test_the_command_prints_where_they_are(builds):
    done = subprocess.run([ROOT / "scripts" / "cluster-tools", "etcd"], capture_output=True, text=True, timeout=60)

    assert done.stdout == f"{cache_folder() / 'etcd'}\n"
    assert "building etcd" in done.stderr


def test_the_command_refuses_what_it_cannot_build(builds):
    done = subprocess.run([ROOT / "scripts" / "cluster-tools", "etcdd"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "etcdd: not one of etcd, kube-apiserver" in done.stderr


@pytest.mark.parametrize(("version", "status"), [("go1.26.1", 0), ("go1.24.9", 1)])
def test_the_command_says_whether_the_path_has_a_go_that_can_build_them(builds, monkeypatch, version, status):
    monkeypatch.setenv("FAKE_GO_VERSION", version)
    command = [ROOT / "scripts" / "cluster-tools", "--go-is-on-path"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert builds() == []
