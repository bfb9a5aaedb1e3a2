"""What a whole test run does about the cluster: its one folder, the order of tests, the binaries, the roles at the end.

A plugin, since these hooks must be known in the process that directs the others as well as in each of them.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Container, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from audit import WildcardRule, compare
from cluster_tools import NODE, OF_THE_SUITE, ToolsMissing, find, tools
from control_plane import ROOT, await_end, hold
from node_cluster import NodeUnavailable, prepare
from oci_base import BuildFailed
from run_order import Kind, ordered, read_seconds, write_seconds

SUITE: Final = ROOT / "tests" / "cluster"
ROLES: Final = ROOT / "charts" / "baleen" / "rbac"
_folder: Final = pytest.StashKey[Path]()
_collected: Final = pytest.StashKey[set[Path]]()
_missing: Final = pytest.StashKey[str | None]()
_node: Final = pytest.StashKey[Exception | None]()
_problems: Final = pytest.StashKey[list[str]]()
_built: Final = pytest.StashKey[bool]()
_seconds: Final[Counter[str] | None] = Counter() if os.environ.get("BALEEN_UPDATE_SECONDS") else None


def run_folder(config: pytest.Config) -> Path:
    """Return the folder of the control plane that the whole run shares; the directing process keeps it alive."""
    if hasattr(config, "workerinput"):
        return Path(config.workerinput["cluster_folder"])
    if _folder not in config.stash:
        folder = Path(config._tmp_path_factory.getbasetemp()) / "cluster"
        folder.mkdir()
        held = contextlib.ExitStack()
        held.enter_context(hold(folder))
        config.add_cleanup(lambda: await_end(folder))
        config.add_cleanup(lambda: await_end(folder / "node"))
        config.add_cleanup(held.close)  # the last one added is the first one called
        config.stash[_folder] = folder
    return config.stash[_folder]


def node_folder(config: pytest.Config) -> Path:
    """Return the folder of the cluster of one node that the whole run shares."""
    return run_folder(config) / "node"


def missing_tools(config: pytest.Config) -> str | None:
    """Return why there are no binaries, if there are none; the first call finds or builds them."""
    if _missing not in config.stash:
        try:
            tools(OF_THE_SUITE)
        except ToolsMissing as exc:
            config.stash[_missing] = str(exc)
        else:
            config.stash[_missing] = None
    return config.stash[_missing]


def node_problem(config: pytest.Config) -> Exception | None:
    """Return why there can be no node, if so: NodeUnavailable is the machine's affair, all else a failure.

    The first call finds, installs or builds what it needs.
    """
    if _node not in config.stash:
        try:
            prepare()
        except (NodeUnavailable, ToolsMissing, BuildFailed) as exc:
            config.stash[_node] = exc
        else:
            config.stash[_node] = None
    return config.stash[_node]


def is_built(config: pytest.Config) -> bool:
    """Return whether all binaries were there when the run began; every worker must hear the same."""
    if hasattr(config, "workerinput"):
        return bool(config.workerinput["cluster_built"])
    if _built not in config.stash:
        # Without root nothing of a node is run, nor built.
        wanted = (*OF_THE_SUITE, *NODE) if os.geteuid() == 0 else OF_THE_SUITE
        config.stash[_built] = all(find(name) for name in wanted)
    return config.stash[_built]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where the run's control plane is, and whether its binaries are there."""
    node.workerinput["cluster_folder"] = str(run_folder(node.config))
    node.workerinput["cluster_built"] = is_built(node.config)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let one process run all tests to which a control plane is lent, for each would have to start one.

    So with those of the cluster with a node, which would else be there for most of the run.
    """
    for fixture in ("lent_control_plane", "node_cluster"):
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(fixture.replace("_", "-")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests that need a cluster, or Helm, last where the binaries are still being built.

    But the walk is first. It takes as long as all else does beside it, and mostly waits, at last for the binaries, too.
    """
    built = is_built(config)
    kinds = {item: _kind_of(item, built) for item in items}
    if not hasattr(config, "workerinput"):
        # One process waits for each test, in whatever order.
        items.sort(key=lambda item: (not kinds[item].first, kinds[item].late))
        return
    known = read_seconds()
    names = {item: own_id(item.nodeid, item.keywords) for item in items}
    groups = {item: str(mark.args[0]) for item in items if (mark := item.get_closest_marker("xdist_group"))}
    items[:] = ordered(kinds, {item: known[name] for item, name in names.items() if name in known}, groups)


def _kind_of(item: pytest.Item, built: bool) -> Kind:
    needs_node = _needs_node(item)
    return Kind(
        first=item.path.stem == "test_walk",
        late=not built and (needs_node or _needs_cluster(item)),
        waits=needs_node or any(item.get_closest_marker(name) for name in ("cluster", "triton")),
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up how long a test took, where that is to be written down."""
    if _seconds is not None:
        _seconds[own_id(report.nodeid, report.keywords)] += report.duration


def own_id(name: str, keywords: Container[str]) -> str:
    """Return a test's id without the group that pytest-xdist puts behind it."""
    own, _, group = name.rpartition("@")
    return own if own and "xdist_group" in keywords and "]" not in group else name


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the binaries before the clock of the test's own time limit starts."""
    if _needs_cluster(item):
        missing_tools(item.config)
    if _needs_node(item):
        node_problem(item.config)
    return (yield)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember what is run, where this process runs it."""
    _remember(session.config, (item.path for item in session.items))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Iterable[str]) -> None:
    """Remember what is run, where workers run it."""
    _remember(node.config, (node.config.rootpath / name.partition("::")[0] for name in ids))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run of the whole cluster suite when what the product called and what its roles allow are not the same."""
    config = session.config
    if hasattr(config, "workerinput") or exitstatus != pytest.ExitCode.OK or not _is_whole_suite(config):
        return
    if _seconds:
        write_seconds(_seconds)
    try:
        found = compare(_audit_logs(run_folder(config)), sorted(ROLES.glob("*.yaml")))
        config.stash[_problems] = [problem for comparison in found for problem in comparison.problems()]
    except (WildcardRule, KeyError) as exc:
        config.stash[_problems] = [str(exc)]
    if config.stash[_problems]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the calls and rules that do not fit."""
    if problems := config.stash.get(_problems, []):
        terminalreporter.section("roles and audit log differ", red=True, bold=True)
        for problem in problems:
            terminalreporter.line(problem)


def _audit_logs(folder: Path) -> Iterator[Path]:
    yield from (path for path in (folder / "audit.log", *sorted(folder.glob("private/*.log"))) if path.exists())


def _needs_cluster(item: pytest.Item) -> bool:
    return any(item.iter_markers("cluster")) or any(item.iter_markers("helm"))


def _needs_node(item: pytest.Item) -> bool:
    return item.get_closest_marker("node") is not None


def _remember(config: pytest.Config, paths: Iterable[Path]) -> None:
    config.stash.setdefault(_collected, set()).update(paths)


def _is_whole_suite(config: pytest.Config) -> bool:
    option = config.option
    chosen = option.keyword or option.markexpr or option.collectonly or getattr(option, "lf", False) or option.deselect
    if chosen or any("::" in argument for argument in config.args):
        return False
    return set(SUITE.glob("test_*.py")) <= config.stash.get(_collected, set())
