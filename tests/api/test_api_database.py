"""Applications that keep their decisions in one PostgreSQL database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from baleen_core.decision_chain import Head
from baleen_sidecar.adapters.store import Database, verify_database
from commands import baleen
from postgres_server import PostgresServer, execute, write_url
from sidecars import RunningSidecar, StartSidecar

pytestmark = pytest.mark.xdist_group("postgres")


def ask(running: RunningSidecar, author: str = "jane") -> httpx.Response:
    body = {"content": {"type": "text", "text": "hello"}, "context": {"author": {"id": author}}}
    return running.client.post("/v1/moderate", json=body)


@contextmanager
def closed(server: PostgresServer, folder: Path) -> Iterator[None]:
    """Let nobody into the database, and throw out who is in it."""
    outside = Database(write_url(folder / "outside-url", server.url("postgres")))
    execute(outside, "ALTER DATABASE baleen ALLOW_CONNECTIONS false")
    try:
        execute(outside, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'baleen'")
        yield
    finally:
        execute(outside, "ALTER DATABASE baleen ALLOW_CONNECTIONS true")


def test_what_one_decides_all_show_replay_and_erase(
    start_sidecar: StartSidecar, database: Database, url_file: Path
) -> None:
    one, two = (start_sidecar(database_url_file=url_file) for _ in range(2))
    ids = [ask(running).json()["id"] for running in (one, one, two)]
    heads = [Head.parse(running.client.get("/v1/status").json()["decision_log_head"]) for running in (one, two)]
    replayed = baleen("replay", ids[0], "--database", url_file)

    for decision_id in ids:
        assert two.client.get(f"/v1/decisions/{decision_id}").status_code == 200
        assert two.client.post(f"/v1/decisions/{decision_id}/replay").json()["identical"]
    assert (replayed.status, replayed.errors) == (0, "")
    assert [head.sequence for head in heads] == [2, 1]
    assert heads[0].writer != heads[1].writer
    assert [each.found.fault for each in verify_database(database, heads)] == [None, None]
    assert one.client.delete("/v1/subjects/jane").json() == {"erased": 3}
    assert two.client.get(f"/v1/decisions/{ids[2]}").json()["erased"]
    assert [each.found.erased for each in verify_database(database, heads)] == [2, 1]


def test_without_the_database_nothing_is_answered_and_with_it_all_goes_on(
    start_sidecar: StartSidecar, postgres: PostgresServer, url_file: Path, tmp_path: Path
) -> None:
    running = start_sidecar(database_url_file=url_file)
    decision_id = ask(running).json()["id"]
    with closed(postgres, tmp_path):
        refused = [ask(running) for _ in range(3)]
        read = running.client.get(f"/v1/decisions/{decision_id}")
        ready = running.client.get("/ready")
    answered = ask(running)

    for each in refused:
        assert (each.status_code, each.json()["type"]) == (503, "urn:baleen:problem:log-unavailable")
        assert "decision log: it cannot be written: the database" in each.json()["detail"]
        assert int(each.headers["retry-after"]) >= 1
    assert read.status_code == 503
    assert ready.status_code == 200
    assert "database" in ready.json()["degraded"]
    assert answered.status_code == 200
    assert running.client.get(f"/v1/decisions/{decision_id}").status_code == 200
    assert running.client.get("/ready").json()["degraded"] == []
