"""What the documentation tells people to type is typed here, in a copy of the project's folder."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from baleen_cli.triton.process import free_port
from baleen_sidecar.adapters.store import Database, PostgresDecisionLog
from cluster_run import missing_tools
from control_plane import NAMESPACE, ControlPlane
from decision_records import make_record
from pages import ROOT, blocks, copy_project, run_script
from postgres_server import PostgresServer, execute, write_url

PAGES = sorted(path for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that looks like a checkout after `make setup`."""
    copy_project(tmp_path)
    return tmp_path


@pytest.fixture
def empty_cluster(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[ControlPlane]:
    """A cluster that has nothing of the product."""
    if problem := missing_tools(pytestconfig):
        pytest.fail(problem, pytrace=False)
    with ControlPlane(tmp_path / "control-plane", manifests=()) as plane:
        plane.kubectl("delete", "namespace", NAMESPACE)
        yield plane


@pytest.mark.triton
def test_the_tutorial_can_be_followed_to_its_end(project: Path):
    script = "".join(blocks(ROOT / "docs/tutorial/first-policy.md", "sh"))
    done = run_script(script.replace("8642", str(free_port())), project)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "is ready" in done.stdout
    assert '"decision":"Review"' in done.stdout
    assert "trust-safety/community is valid: v1.1.0" in done.stdout
    assert "text-safety.toxicity].review: 70% → 60%" in done.stdout
    assert "unknown signal 'goer'; did you mean 'gore'?" in done.stderr
    assert "RolledBack" in done.stdout
    # The tutorial's edit flips nothing that was decided before it; a table of flips would show the way of each.
    assert not re.search(r"(Allow\s*│ Block|Allow\s*│ Review|Block\s*│ Allow|Review\s*│ Block)", done.stdout)
    assert "bit for bit as on record" in done.stdout
    assert not (project / "my-state").exists()


@pytest.mark.triton
def test_the_commands_of_the_readme_work(project: Path):
    serve, asks = blocks(ROOT / "README.md", "sh")[1:3]
    script = f"""
    {serve.strip().split("#")[0]} 2> serve.log &
    baleen wait --seconds 200
    {asks}
    kill %1
    wait || true
    """
    # The README's port may be in use where the tests run; the commands are the same on another one.
    port = free_port()
    script = script.replace("baleen wait", "baleen wait --url http://127.0.0.1:8080").replace(":8080", f":{port}")
    done = run_script(f"export BALEEN_PORT={port}\n{script}", project)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r'"id":"[^"]+","decision":"Allow"', done.stdout)) == 2


@pytest.mark.cluster
@pytest.mark.triton
def test_the_guide_to_a_cluster_can_be_followed_to_its_end(
    project: Path, empty_cluster: ControlPlane, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KUBECONFIG", str(empty_cluster.kubeconfig()))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "alice")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "alice@example.com")
    script = "".join(blocks(ROOT / "docs/howto/run-in-a-cluster.md", "sh"))
    ports = {port: str(free_port()) for port in re.findall(r"\b865\d\b", script)}
    # All at once: a free port may have the digits of another one of the page.
    script = re.sub(r"\b865\d\b", lambda found: ports[found[0]], script)
    done = run_script(script, project)
    kinds = "crd,namespaces,clusterroles,clusterrolebindings,validatingadmissionpolicies"
    left = empty_cluster.kubectl("get", kinds, "-o", "name").stdout

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"astronaut.jpg +│ Allow", done.stdout)
    assert re.search(r"spanish-abusive.txt +│ Block", done.stdout)
    assert re.search(r"2 .* v1.1.0 .* Applied .* alice, commit \w+ .* InForce", done.stdout)
    assert "which is rejected by override trust-safety/community, written by baleen-cli" in done.stdout
    assert re.search(r"v1.0.0 .* Returned .* alice, commit \w+ .* InForce", done.stdout)
    assert not [line for line in left.splitlines() if "baleen" in line or "trust-safety" in line]


def test_the_demo_does_what_the_readme_says(project: Path):
    done = run_script("baleen demo", project)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit for bit the same" in done.stdout
    assert "big-buck-bunny.mp4" in done.stdout
    assert all(word in done.stdout for word in ("english-", "german-", "spanish-", "french-"))


@pytest.mark.xdist_group("postgres")
def test_a_database_is_made_and_looked_into_as_the_page_says(project: Path, postgres: PostgresServer):
    page = ROOT / "docs/howto/keep-decisions-in-postgresql.md"
    (statements,) = blocks(page, "sql")
    owner = Database(write_url(project / "owner-url", postgres.url("postgres")))
    for statement in statements.strip().split(";\n"):
        execute(owner, statement.rstrip(";"))
    write_it, _, look = blocks(page, "sh")
    url = write_it.splitlines()[0].replace(
        "@db.example:5432/decisions", f"@127.0.0.1:{postgres.port}/decisions?sslmode=disable"
    )
    assert run_script(url, project).returncode == 0
    database = Database(project / "database-url")
    database.migrate()
    asyncio.run(decide_once(database))
    done = run_script(look, project)

    assert done.returncode == 0, done.stderr
    assert re.search(r"^gateway-1/1:[0-9a-f]{64}$", done.stdout, re.MULTILINE)
    assert "the log is as it was written: 1 decision in the chain" in done.stdout
    assert (project / "database-url").stat().st_mode & 0o077 == 0


async def decide_once(database: Database) -> None:
    async with PostgresDecisionLog(database, writer="gateway-1") as log:
        await log.append(make_record())


def test_every_policy_in_the_documentation_is_valid(tmp_path: Path):
    found = [block for page in PAGES for block in blocks(page, "yaml") if "kind: ModerationPolicy" in block]
    for index, block in enumerate(found):
        (tmp_path / f"policy-{index}.yaml").write_text(block.replace("name: community,", f"name: documented-{index},"))
    done = run_script(f"baleen policy validate {tmp_path}", tmp_path)

    assert len(found) >= 2
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is valid") == len(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text())
    dead = [
        f"{target}#{heading}"
        for target, heading in links
        if "://" not in target and not leads_somewhere(page.parent / target if target else page, heading)
    ]

    assert not dead


def leads_somewhere(target: Path, heading: str) -> bool:
    """Say whether a page has a heading, by the anchor that GitHub makes of it."""
    if not heading:
        return target.exists()
    lines = re.sub(r"^```.*?^```", "", target.read_text(), flags=re.DOTALL | re.MULTILINE)
    names = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", each) for each in re.findall(r"^#+ (.*)$", lines, re.MULTILINE))
    return heading in {re.sub(r"[^\w\- ]", "", name).lower().replace(" ", "-") for name in names}


def test_the_example_deployment_serves_exactly_the_shipped_models():
    done = run_script("baleen models list --resource", ROOT)

    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "examples/models/starter.yaml").read_text()


def test_the_table_of_settings_is_the_settings():
    done = subprocess.run([sys.executable, "scripts/write_docs.py", "--check"], cwd=ROOT, check=False)

    assert done.returncode == 0, "run scripts/write_docs.py"
