"""Erasure of people over HTTP, and the chain of the log that a running application writes."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from baleen_core.api_keys import KeyRole, make_key
from baleen_core.decision_chain import Head
from baleen_sidecar.adapters.store import SqliteDecisionReader, StateFolder, verify_log
from keyed import api_key, write_key_file
from sidecars import RunningSidecar, StartSidecar, alter_database

KEYS = {name: make_key(number.to_bytes(32)) for number, name in enumerate(("app", "acme", "admin"), start=10**6)}
ROLES = {
    "app": (None, {KeyRole.MODERATE, KeyRole.REVIEW}),
    "acme": ("acme", {KeyRole.ADMIN}),
    "admin": (None, {KeyRole.ADMIN}),
}


def database(running: RunningSidecar) -> Path:
    return StateFolder(running.settings.state).database


def judge(running: RunningSidecar, author: str, *, key: str = "", **context: Any) -> str:
    body = {"content": {"type": "text", "text": "hello"}, "context": {"author": {"id": author}, **context}}
    response = running.client.post("/v1/moderate", json=body, headers=shown(key))
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def erase(running: RunningSidecar, author: str, *, key: str = "", **query: str) -> httpx.Response:
    return running.client.delete(f"/v1/subjects/{quote(author, safe='')}", headers=shown(key), params=query)


def shown(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[key]}"} if key else {}


@pytest.fixture
def keyed(start_sidecar: StartSidecar, tmp_path: Path) -> RunningSidecar:
    keys = [api_key(name, KEYS[name], *roles, tenant=tenant) for name, (tenant, roles) in ROLES.items()]
    return start_sidecar(api_keys_file=write_key_file(tmp_path / "keys.yaml", *keys))


@pytest.mark.parametrize("author", ["jane", "a/b", "Ünï 😀", "../x", "100%"])
def test_an_erased_subject_leaves_decisions_that_say_so_and_cannot_be_replayed(
    start_sidecar: StartSidecar, author: str
) -> None:
    running = start_sidecar()
    theirs = [judge(running, author, session="s") for _ in range(3)]
    other = judge(running, f"not {author}")
    before = running.client.get(f"/v1/decisions/{theirs[0]}").json()

    assert erase(running, author).json() == {"erased": 3}
    assert erase(running, author).json() == {"erased": 0}
    assert running.client.get(f"/v1/decisions/{theirs[0]}").json() == {**before, "erased": True}
    for call, path in (("POST", "replay"), ("GET", "explain")):
        refused = running.client.request(call, f"/v1/decisions/{theirs[1]}/{path}")
        assert (refused.status_code, refused.json()["type"]) == (410, "urn:baleen:problem:erased")
        assert "its personal part, such as the author" in refused.json()["detail"]
        assert running.client.request(call, f"/v1/decisions/{other}/{path}").status_code == 200
    found = verify_log(database(running))
    assert found.fault is None
    assert found.erased == 3


def test_a_subject_whose_id_is_anothers_with_a_line_break_is_not_taken_for_that_one(
    start_sidecar: StartSidecar,
) -> None:
    running = start_sidecar()
    decision = judge(running, "jane")

    assert erase(running, "jane\n").status_code == 404
    assert "erased" not in running.client.get(f"/v1/decisions/{decision}").json()


def test_the_head_that_is_told_is_in_the_log_until_somebody_takes_it_out(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    judge(running, "one")
    early = Head.parse(running.client.get("/v1/status").json()["decision_log_head"])
    newest = judge(running, "two")
    late = Head.parse(running.client.get("/v1/status").json()["decision_log_head"])

    assert late.sequence == early.sequence + 1
    assert verify_log(database(running), [early, late]).fault is None
    assert alter_database(database(running), "DELETE FROM decisions WHERE id = ?", newest) == 1
    fault = verify_log(database(running), [early, late]).fault
    assert fault is not None
    assert fault.kind == "Cut"


def test_nobody_is_erased_without_a_key_for_it_and_by_a_tenants_key_from_that_tenant_alone(
    keyed: RunningSidecar,
) -> None:
    for tenant in ("acme", "bank"):
        judge(keyed, "jane", key="app", tenant=tenant)

    assert erase(keyed, "jane").status_code == 401
    assert erase(keyed, "jane", key="app").status_code == 403
    assert erase(keyed, "jane", key="acme", tenant="bank").status_code == 403
    assert erase(keyed, "jane", key="acme").json() == {"erased": 1}
    assert erase(keyed, "jane", key="admin", tenant="acme").json() == {"erased": 0}
    assert erase(keyed, "jane", key="admin").json() == {"erased": 1}


def test_a_policy_says_how_long_its_decisions_are_kept(start_sidecar: StartSidecar) -> None:
    policies = [
        policy("community", 7),
        policy("floor", 90, role="Floor", scope={"surface": "kids"}),
        policy("shop", None, scope={"surface": "shop"}),
    ]
    running = start_sidecar(policies={"policies.yaml": policies})
    ids = {surface: judge(running, "jane", surface=surface) for surface in ("comments", "kids", "shop")}
    reader = SqliteDecisionReader(database(running))
    records = {surface: asyncio.run(reader.get(decision)) for surface, decision in ids.items()}
    reader.close()

    # The longest that a policy which judged asks for; where none says anything, the installation does.
    found = {surface: record.keep_days for surface, record in records.items() if record is not None}
    assert found == {"comments": 7, "kids": 90, "shop": None}


def policy(name: str, days: int | None, **spec: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "categories": [{"name": "toxicity", "signals": [{"name": "text-safety.toxicity", "review": "50%"}]}]
    }
    if days is not None:
        content["retention"] = {"decisionsDays": days}
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": name, "namespace": "trust-safety"},
        "spec": {"type": "Moderation", "version": "v1.0.0", **spec, "policy": content},
    }
