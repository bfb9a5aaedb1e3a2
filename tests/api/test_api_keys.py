"""API keys over HTTP: who is let in, for whom a key speaks, and what strangers learn."""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from baleen_core.api_keys import ApiKey, KeyRole, hash_key, make_key, render_key
from sidecars import RunningSidecar, StartSidecar

HELLO = {"type": "text", "text": "hello"}
TEXT = {"Content-Type": "text/plain"}
KEYS = {
    name: make_key(number.to_bytes(32))
    for number, name in enumerate(
        ("app", "acme-app", "acme-people", "people", "admin", "old", "next", "stranger"), start=10**6
    )
}
MODERATE, REVIEW, ADMIN = KeyRole.MODERATE, KeyRole.REVIEW, KeyRole.ADMIN
WEB_PAGE = {"Host": "gateway.baleen-system.svc:8080", "Origin": "http://shop.example"}


def entry(name: str, *roles: KeyRole, tenant: str | None = None, until: datetime | None = None) -> dict[str, Any]:
    key = ApiKey(name=name, sha256=hash_key(KEYS[name]), roles=frozenset(roles), tenant=tenant, expire_time=until)
    return render_key(key)


ENTRIES = (
    entry("app", MODERATE),
    entry("acme-app", MODERATE, tenant="acme"),
    entry("acme-people", MODERATE, REVIEW, tenant="acme"),
    entry("people", REVIEW),
    entry("admin", ADMIN),
    entry("old", MODERATE, until=datetime(2020, 1, 1, tzinfo=UTC)),
)


def policy(name: str, *, signal: str = "text-safety.toxicity", **spec: Any) -> dict[str, Any]:
    categories = [{"name": "toxicity", "signals": [{"name": signal, "review": "50%"}]}]
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": name, "namespace": "trust-safety"},
        "spec": {"type": "Moderation", "version": "v1.0.0", **spec, "policy": {"categories": categories}},
    }


def write_keys(path: Path, *entries: Mapping[str, Any]) -> Path:
    beside = path.with_suffix(".new")
    beside.write_text(yaml.safe_dump({"keys": list(entries)}))
    beside.replace(path)
    return path


@pytest.fixture
def keyed(start_sidecar: StartSidecar, tmp_path: Path) -> RunningSidecar:
    """An application with keys, and a policy for one tenant beside one for all."""
    policies = {"all.yaml": [policy("all")], "acme.yaml": [policy("acme-alone", scope={"tenant": "acme"})]}
    return start_sidecar(policies=policies, api_keys_file=write_keys(tmp_path / "keys.yaml", *ENTRIES))


def shown(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


def moderate(running: RunningSidecar, name: str, **context: Any) -> httpx.Response:
    return running.client.post("/v1/moderate", json={"content": HELLO, "context": context}, headers=shown(name))


def moderate_raw(running: RunningSidecar, name: str, **context: Any) -> httpx.Response:
    return running.client.post("/v1/moderate", content=b"hello", headers=TEXT | shown(name), params=context)


def refusal(response: httpx.Response) -> tuple[int, str, list[str]]:
    problem = response.json()
    return response.status_code, problem["type"], [error["field"] for error in problem["errors"]]


UNKNOWN = (401, "urn:baleen:problem:unauthenticated", ["Authorization"])
FORBIDDEN = (403, "urn:baleen:problem:forbidden", ["Authorization"])
OTHERS_PATHS = ("/v1/status", "/v1/policies", "/v1/effective-policy", "/v1/decisions/x", "/v1/absent", "/absent")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({}, id="no key"),
        pytest.param(shown("stranger"), id="of another installation"),
        pytest.param({"X-API-Key": KEYS["app"][:-1]}, id="truncated"),
        pytest.param({"Authorization": f"Basic {KEYS['app']}"}, id="another scheme"),
        pytest.param({"Cookie": f"api_key={KEYS['app']}"}, id="a cookie"),
        pytest.param({"X-API-Key": hash_key(KEYS["app"])}, id="what the file has"),
        pytest.param(shown("old"), id="expired"),
    ],
)
def test_without_a_good_key_nothing_is_answered_that_is_not_open(
    keyed: RunningSidecar, sent: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [keyed.client.get(path, headers=sent) for path in OTHERS_PATHS]
    answers.append(keyed.client.post("/v1/moderate", content=b"hello", headers=TEXT | sent))
    answers.append(keyed.client.post("/v1/moderate", content=bytes(2**21), headers=TEXT | sent))
    answers.append(keyed.client.get("/v1/status", params={"api_key": KEYS["admin"]}, headers=sent))

    assert {response.status_code for response in answers} == {401}
    assert [refusal(response) for response in answers] == [UNKNOWN] * len(answers)
    assert {response.headers["www-authenticate"] for response in answers} == {'Bearer realm="baleen"'}
    metrics = keyed.client.get("/metrics").text
    assert f'baleen_requests_refused_total{{status="401"}} {len(answers)}.0' in metrics
    # The test's own client is in the same process, and its log is not the server's.
    logged = [str(vars(record)) for record in caplog.records if record.name.startswith("baleen_")]
    told = "".join(logged) + metrics + "".join(response.text for response in answers)
    assert not [name for name, key in KEYS.items() if key[:-1] in told]


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_key_is_good_in_either_header_whatever_name_the_server_was_called_by(
    keyed: RunningSidecar, header: str
) -> None:
    key = f"Bearer {KEYS['app']}" if header == "Authorization" else KEYS["app"]
    response = keyed.client.post("/v1/moderate", json={"content": HELLO}, headers={header: key, **WEB_PAGE})

    assert (response.status_code, response.json()["decision"]) == (200, "Allow")


def test_a_role_opens_its_own_routes_and_no_others(keyed: RunningSidecar) -> None:
    decision = moderate(keyed, "app").json()["id"]
    opened = {
        ("app", "/v1/moderate"),
        ("acme-app", "/v1/moderate"),
        ("acme-people", "/v1/moderate"),
        ("acme-people", "/v1/effective-policy"),
        ("people", f"/v1/decisions/{decision}"),
        ("people", f"/v1/decisions/{decision}/explain"),
        ("people", "/v1/effective-policy"),
        ("people", "/v1/policies"),
        ("people", "/v1/policies/all"),
        ("admin", "/v1/status"),
    }
    for name in ("app", "acme-app", "acme-people", "people", "admin"):
        for path in {path for _, path in opened}:
            post = path == "/v1/moderate"
            response = moderate(keyed, name) if post else keyed.client.get(path, headers=shown(name))
            hidden = name == "acme-people" and "decisions" in path
            assert response.status_code == (200 if (name, path) in opened else 404 if hidden else 403), (name, path)
            assert response.status_code != 403 or refusal(response) == FORBIDDEN


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "simulate"), ("GET", "performance?by=revision"), ("GET", "flips")],
)
def test_a_line_break_at_the_end_of_a_path_opens_nothing(keyed: RunningSidecar, method: str, path: str) -> None:
    name, mark, query = path.partition("?")
    body = {"policy": policy("all")} if method == "POST" else None

    def ask(key: str, name: str) -> int:
        url = f"/v1/policies/all/{name}{mark}{query}"
        return keyed.client.request(method, url, json=body, headers=shown(key)).status_code

    assert (ask("people", name), ask("people", f"{name}%0A"), ask("admin", f"{name}%0A")) == (403, 404, 404)


def test_no_route_is_found_by_a_path_with_a_control_character(keyed: RunningSidecar) -> None:
    for path, operations in keyed.answers.document["paths"].items():
        for method in operations:
            asked = re.sub(r"\{\w+\}", "x", path)
            for control in ("%0A", "%0D%0A", "%00", "%7F"):
                answer = keyed.client.request(method, asked + control, headers=shown("admin"))
                assert (answer.status_code, answer.json()["type"]) == (404, "urn:baleen:problem:not-found"), asked


@pytest.mark.parametrize("ask", [moderate, moderate_raw])
def test_a_request_without_a_tenant_is_of_the_key_s_own(keyed: RunningSidecar, ask: Any) -> None:
    answers = [ask(keyed, name).json() for name in ("app", "acme-app")]

    assert [[each["name"] for each in answer["policies"]] for answer in answers] == [["all"], ["acme-alone"]]


@pytest.mark.parametrize(
    ("ask", "field"), [(moderate, "context.tenant"), (moderate_raw, "tenant")], ids=["JSON", "bytes"]
)
def test_a_key_speaks_for_its_own_tenant_alone_and_one_without_for_any(
    keyed: RunningSidecar, ask: Any, field: str
) -> None:
    answers = {
        (name, tenant): refusal(found)[::2] if (found := ask(keyed, name, tenant=tenant)).is_error else 200
        for name in ("app", "acme-app")
        for tenant in ("acme", "other", "Acme")
    }

    assert answers == {
        ("app", "acme"): 200,
        ("app", "other"): 200,
        ("app", "Acme"): 200,
        ("acme-app", "acme"): 200,
        ("acme-app", "other"): (403, [field]),
        ("acme-app", "Acme"): (403, [field]),
    }


def test_which_policies_bind_a_place_is_asked_for_the_key_s_own_tenant(keyed: RunningSidecar) -> None:
    def ask(name: str, **place: str) -> httpx.Response:
        return keyed.client.get("/v1/effective-policy", params=place, headers=shown(name))

    assert [each["name"] for each in ask("acme-people").json()["policies"]] == ["acme-alone"]
    assert [each["name"] for each in ask("people").json()["policies"]] == ["all"]
    assert refusal(ask("acme-people", tenant="other"))[::2] == (403, ["tenant"])


def test_decisions_of_another_tenant_are_not_there(keyed: RunningSidecar) -> None:
    of = {tenant: moderate(keyed, "app", tenant=tenant).json()["id"] for tenant in ("acme", "other")}

    def statuses(name: str, tenant: str) -> list[int]:
        path = f"/v1/decisions/{of[tenant]}"
        client, sent = keyed.client, shown(name)
        answers = client.get(path, headers=sent), client.get(f"{path}/explain", headers=sent)
        return [each.status_code for each in (*answers, client.post(f"{path}/replay", headers=sent))]

    assert statuses("acme-people", "acme") == statuses("people", "acme") == statuses("people", "other") == [200] * 3
    assert statuses("acme-people", "other") == [404] * 3


def test_one_key_takes_over_from_another_without_a_restart(keyed: RunningSidecar) -> None:
    path = keyed.settings.api_keys_file
    assert path is not None
    assert keyed.sidecar.keys is not None

    def works() -> list[bool]:
        assert keyed.sidecar.keys is not None
        keyed.sidecar.keys.load()
        return [moderate(keyed, name).is_success for name in ("app", "next")]

    steps = [works()]
    for named in (["app", "next"], ["next"]):
        write_keys(path, *(entry(name, MODERATE) for name in named))
        steps.append(works())

    assert steps == [[True, False], [True, True], [False, True]]


def test_what_is_open_to_strangers_says_what_is_wrong_but_not_in_whose_words(
    start_sidecar: StartSidecar, tmp_path: Path
) -> None:
    wrong = policy("all", signal="text-safety.sesame")
    running = start_sidecar(policies={"all.yaml": [wrong]}, api_keys_file=write_keys(tmp_path / "keys.yaml", *ENTRIES))
    assert running.sidecar.keys is not None
    (tmp_path / "keys.yaml").write_text("keys: sesame")
    with pytest.raises(Exception, match="sesame"):
        running.sidecar.keys.load()
    ready = running.client.get("/ready", headers=WEB_PAGE)
    status = running.client.get("/v1/status", headers=shown("admin"))

    assert ready.json()["degraded"] == ["policy/trust-safety/all", "api-keys"]
    assert "sesame" not in "".join(running.client.get(path).text for path in ("/ready", "/health", "/metrics"))
    details = {each["name"]: each["detail"] for each in status.json()["components"]}
    assert "sesame" in details["policy/trust-safety/all"]
    assert details["api-keys"].endswith("'sesame' is not a list; the last good keys count")
    assert moderate(running, "app").status_code == 503


def test_the_document_says_which_key_each_operation_needs(keyed: RunningSidecar) -> None:
    paths = keyed.answers.document["paths"]
    needing = {
        path: operation["description"].rpartition("role ")[2]
        for path, operations in paths.items()
        for operation in operations.values()
        if operation.get("security") == [{"bearer": []}, {"header": []}]
    }

    assert set(paths) - set(needing) == {"/health", "/ready", "/metrics", "/$discovery/rest"}
    assert needing["/v1/moderate"] == "`moderate`."
    assert needing["/v1/policies/{name}"] == "`review`, and one that may speak for any tenant."
    assert set(keyed.answers.document["components"]["securitySchemes"]) == {"bearer", "header"}
