"""Whom a TokenReview names, and when a token says that it ends."""

import base64
import json
from typing import Any

import pytest

from baleen_core.policy_stream import AUDIENCE
from baleen_sidecar.adapters.token_review import expiry_seconds, read_review
from baleen_sidecar.ports import ServiceAccount


def review(**status: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:shop:default",
        "extra": {"authentication.kubernetes.io/pod-name": ["shop-1"]},
    }
    return {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": user} | status}


def test_a_service_account_and_its_pod_are_named() -> None:
    found = read_review(review(), AUDIENCE)

    assert found == ServiceAccount(namespace="shop", name="default", pod="shop-1")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(review(authenticated=False), id="not authenticated"),
        pytest.param(review(authenticated="true"), id="authenticated in words"),
        pytest.param(review(audiences=["another"]), id="for another audience"),
        pytest.param(review(audiences=None), id="a server that knows no audiences"),
        pytest.param(review(user={"username": "alice"}), id="a person"),
        pytest.param(review(user={"username": "system:serviceaccount:shop"}), id="half a service account"),
        pytest.param(review(user=None), id="nobody"),
        pytest.param({"status": {}}, id="an empty status"),
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
    ],
)
def test_anything_else_names_nobody(answer: Any) -> None:
    assert read_review(answer, AUDIENCE) is None


@pytest.mark.parametrize("extra", [None, {}, [], {"authentication.kubernetes.io/pod-name": []}])
def test_a_token_that_is_bound_to_no_pod_names_none(extra: Any) -> None:
    user = {"username": "system:serviceaccount:shop:default", "extra": extra}

    assert read_review(review(user=user), AUDIENCE) == ServiceAccount(namespace="shop", name="default")


def token(claims: Any) -> str:
    return "header." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".signature"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(token({"exp": 1_700_000_000}), 1_700_000_000, id="a time"),
        pytest.param(token({"exp": "soon"}), float("inf"), id="words"),
        pytest.param(token({}), float("inf"), id="no time"),
        pytest.param(token([]), float("inf"), id="a list"),
        pytest.param("opaque", float("inf"), id="no JWT"),
        pytest.param("a.ä.c", float("inf"), id="not base64"),
        pytest.param("a..c", float("inf"), id="nothing"),
    ],
)
def test_when_a_token_ends_is_what_it_says_if_it_says_so(given: str, expected: float) -> None:
    assert expiry_seconds(given) == expected
