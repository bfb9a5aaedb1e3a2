"""The door over HTTP: how urgent and how often, signed tokens beside keys, and nothing of either where others look."""

import logging
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from baleen_core.api_keys import KeyRole, make_key
from baleen_core.callers import Per, RateLimit
from baleen_core.priority import Priority
from baleen_sidecar.ports import ANYONE, Tensors, Work
from baleen_sidecar.testing import FixedInference
from identity_provider import ISSUER, Provider, forge, good_claims
from keyed import api_key, write_key_file
from sidecars import RunningSidecar, StartSidecar

HELLO = {"content": {"type": "text", "text": "hello"}}
URGENT, PLAIN, BUSY, PEOPLE = (make_key(bytes([number]) * 32) for number in range(4))
PER_DAY = RateLimit(requests=2, per=Per.DAY, burst=2)
KEYS = (
    api_key("urgent", URGENT, top_priority=Priority.CRITICAL),
    api_key("plain", PLAIN, tenant="acme"),
    api_key("busy", BUSY, limits=(PER_DAY,)),
    api_key("people", PEOPLE, KeyRole.REVIEW),
)
TENANTS = {"acme": (RateLimit(requests=1, per=Per.DAY, burst=8),)}
PROVIDER = Provider({"ed": Ed25519PrivateKey.generate()})


class Watching(FixedInference):
    """Remembers for whom it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Work] = []

    async def infer(self, model: Any, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        self.works.append(work)
        return await super().infer(model, inputs, work)


@pytest.fixture
def inference() -> Watching:
    return Watching()


@pytest.fixture
def keyed(start_sidecar: StartSidecar, tmp_path: Path, inference: Watching) -> RunningSidecar:
    (tmp_path / "jwks.json").write_text(PROVIDER.jwks())
    return start_sidecar(
        inference=inference,
        api_keys_file=write_key_file(tmp_path / "keys.yaml", *KEYS, tenants=TENANTS),
        jwt_keys=str(tmp_path / "jwks.json"),
        jwt_issuer=ISSUER,
        jwt_tenant_claim="tenant",
    )


def moderate(running: RunningSidecar, key: str | None, **headers: str) -> httpx.Response:
    shown = {} if key is None else {"X-API-Key": key}
    return running.client.post("/v1/moderate", json=HELLO, headers=shown | headers)


def as_bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("key", "claimed", "counts"),
    [
        pytest.param(URGENT, "Critical", Priority.CRITICAL, id="what it may claim"),
        pytest.param(URGENT, "Low", Priority.LOW, id="less than it may"),
        pytest.param(PLAIN, "Critical", Priority.NORMAL, id="forged"),
        pytest.param(URGENT, None, Priority.NORMAL, id="nothing claimed"),
    ],
)
def test_models_are_asked_as_urgently_as_the_key_may_claim_and_the_caller_is_told(
    keyed: RunningSidecar, inference: Watching, key: str, claimed: str | None, counts: Priority
) -> None:
    inference.works.clear()
    response = moderate(keyed, key, **({} if claimed is None else {"X-Baleen-Priority": claimed}))

    assert response.status_code == 200
    assert response.headers.get("x-baleen-priority") == (None if claimed is None else counts.title)
    assert {work.priority for work in inference.works} == {counts}


def test_without_keys_anything_may_be_claimed_and_nothing_that_is_no_priority(
    start_sidecar: StartSidecar, inference: Watching
) -> None:
    running = start_sidecar(inference=inference)
    told = moderate(running, None, **{"X-Baleen-Priority": "Critical"}).headers["x-baleen-priority"]
    wrong = moderate(running, None, **{"X-Baleen-Priority": "urgent"})

    assert (told, {work.priority for work in inference.works}) == ("Critical", {Priority.CRITICAL})
    assert (wrong.status_code, [each["field"] for each in wrong.json()["errors"]]) == (422, ["X-Baleen-Priority"])


def test_over_a_limit_of_its_own_or_its_tenant_s_a_caller_is_told_which_and_when(keyed: RunningSidecar) -> None:
    for key, many, words in (
        (BUSY, 2, "the API key 'busy' is over the limit of 2 requests per day (2 at once)"),
        (PLAIN, 8, "the callers of the tenant 'acme' together are over the limit of 1 request per day (8 at once)"),
    ):
        answers = [moderate(keyed, key) for _ in range(many + 1)]
        problem = answers[-1].json()

        assert [each.status_code for each in answers] == [200] * many + [429]
        assert problem["type"] == "urn:baleen:problem:limit-exceeded"
        assert problem["detail"].startswith(words)
        assert int(answers[-1].headers["retry-after"]) >= 30
    assert moderate(keyed, URGENT).status_code == 200
    assert 'baleen_requests_refused_total{status="429"} 2.0' in keyed.client.get("/metrics").text


def test_a_limit_outlives_an_edit_of_the_file(keyed: RunningSidecar) -> None:
    path = keyed.settings.api_keys_file
    assert path is not None
    assert keyed.sidecar.keys is not None
    before = [moderate(keyed, BUSY).status_code for _ in range(2)]
    path.write_text(path.read_text() + "# edited\n")
    keyed.sidecar.keys.load()

    assert [*before, moderate(keyed, BUSY).status_code] == [200, 200, 429]


def test_a_signed_token_opens_what_its_roles_and_its_tenant_are_for(keyed: RunningSidecar) -> None:
    decision = moderate(keyed, URGENT).json()["id"]
    tokens = {
        "admin": PROVIDER.token(tenant="*", roles=["admin"]),
        "people": PROVIDER.token(tenant="*", roles="openid review"),
        "acme-people": PROVIDER.token(tenant="acme", roles=["review"]),
        "nobody": PROVIDER.token(tenant="*", roles=["reader"]),
        "no tenant": PROVIDER.token(),
    }
    paths = ("/v1/status", "/v1/policies", "/v1/effective-policy", f"/v1/decisions/{decision}")

    found = {
        name: [keyed.client.get(path, headers=as_bearer(token)).status_code for path in paths]
        for name, token in tokens.items()
    }

    assert found == {
        "admin": [200, 403, 403, 403],
        "people": [403, 200, 200, 200],
        "acme-people": [403, 403, 200, 404],
        "nobody": [403] * 4,
        "no tenant": [401] * 4,
    }
    assert {moderate(keyed, None, **as_bearer(token)).status_code for token in tokens.values()} == {401}


def test_nothing_secret_is_in_an_answer_a_log_or_a_metric(
    keyed: RunningSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good = PROVIDER.token(tenant="*")
    header = {"alg": "none", "kid": "ed"}
    shown = {
        "good": good,
        "truncated": good[:-5],
        "expired": PROVIDER.token(exp=time.time() - 3600),
        "for another": PROVIDER.token(aud="shop"),
        "unsigned": forge(header, good_claims()),
        "HMAC": forge(header | {"alg": "HS256"}, good_claims(), secret=b"secret"),
        "key": URGENT,
        "unknown key": make_key(bytes(range(32))),
        "cut key": PLAIN[:-1],
    }
    answers = [
        keyed.client.get(f"/v1/status?{query}", headers=as_bearer(each)) for each in shown.values() for query in ("",)
    ]
    answers += [moderate(keyed, each) for each in shown.values()]
    answers += [
        keyed.client.get(f"/v1/status?{name}={each}") for each in shown.values() for name in ("api_key", "access_token")
    ]
    answers += [keyed.client.post(f"/v1/moderate?key={URGENT}", json=HELLO, headers={"X-API-Key": URGENT})]

    assert [each.status_code for each in answers[:9]] == [200, 401, 401, 401, 401, 401, 403, 401, 401]
    assert {each.status_code for each in answers[18:]} == {401}
    assert "`X-API-Key: <key>`" in answers[-1].json()["detail"]
    logged = [str(vars(record)) for record in caplog.records if record.name.startswith("baleen_")]
    told = "".join(logged) + keyed.client.get("/metrics").text + "".join(each.text for each in answers)
    secret = {part for each in shown.values() for part in each.split(".") if len(part) > 30}
    assert not [part for part in secret if part[:20] in told]


def test_keys_that_are_wrong_keep_a_sidecar_from_starting(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    with pytest.raises(Exception, match=r"jwks.json: has no key with a `kid`"):
        start_sidecar(jwt_keys=str(tmp_path / "jwks.json"), jwt_issuer=ISSUER)


def test_with_tokens_alone_nobody_is_let_in_for_being_on_loopback(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(PROVIDER.jwks())
    running = start_sidecar(jwt_keys=str(tmp_path / "jwks.json"), jwt_issuer=ISSUER)

    assert moderate(running, None).status_code == 401
    assert running.client.get("/v1/status").status_code == 401
    assert running.client.get("/v1/status", headers=as_bearer(PROVIDER.token())).status_code == 200
