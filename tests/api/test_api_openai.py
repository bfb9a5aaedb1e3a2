"""OpenAI's own client, unmodified, asks us."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import ModerationCreateResponse

from baleen_core.errors import LimitExceeded, LogUnavailable
from baleen_sidecar.flow.translation import OPENAI
from baleen_sidecar.testing import FixedInference
from faces import (
    DATA_URL,
    MODERATE_KEY,
    REVIEW_KEY,
    SEXUAL,
    TOXICITY,
    UNKNOWN_KEY,
    FailingLanguages,
    category,
    policy,
    write_keys,
)
from sidecars import EXAMPLES, RunningSidecar, StartSidecar

LONG = "This text is blocked since it has more letters than forty."
TEXT_PART = {"type": "text", "text": "hello"}


def image_part(url: str = DATA_URL) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def client_of(running: RunningSidecar, key: str = "none", **more: Any) -> OpenAI:
    # Retries are its default; here they would only take time.
    return OpenAI(base_url=f"{running.client.base_url}/v1".replace("//v1", "/v1"), api_key=key, max_retries=0, **more)


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(policies={"all.yaml": [policy()]}, inference=FixedInference({TOXICITY: 0.6, SEXUAL: 0.95}))


@pytest.fixture
def client(running: RunningSidecar) -> Iterator[OpenAI]:
    with client_of(running) as client:
        yield client


def test_a_text_is_judged_by_the_shipped_policy_and_models(sidecar: RunningSidecar) -> None:
    abuse = (EXAMPLES / "content/english-abusive.txt").read_text()
    with client_of(sidecar) as client:
        answer = client.moderations.create(input=[abuse, "Good morning everybody, how are you today?"])

    bad, good = answer.results
    assert (bad.flagged, bad.categories.harassment) == (True, True)
    assert bad.category_scores.harassment > 0.9 > good.category_scores.harassment
    assert bad.category_applied_input_types.harassment == ["text"]
    assert not good.flagged
    assert not any(good.categories.model_dump().values())


def test_an_answer_has_all_that_the_client_declares(client: OpenAI) -> None:
    raw = client.moderations.with_raw_response.create(input="hello")

    # The client itself does not look whether a field is there before somebody reads it.
    answer = ModerationCreateResponse.model_validate_json(raw.content, strict=True)
    (result,) = answer.results
    assert answer.id == f"modr-{raw.headers['x-request-id']}"
    assert answer.model == "omni-moderation-latest"
    assert set(result.categories.model_dump(by_alias=True)) == set(OPENAI)
    assert result.category_scores.harassment == 0.6
    assert result.category_scores.illicit == 0
    assert result.category_applied_input_types.illicit == []


def test_flagged_is_what_may_not_pass_also_by_a_rule_that_is_no_category(client: OpenAI) -> None:
    answer = client.moderations.create(input=["hello", LONG], model="text-moderation-stable")

    assert answer.model == "text-moderation-stable"
    assert [result.flagged for result in answer.results] == [True, True]
    assert [result.baleen[0]["decision"] for result in answer.results] == ["Review", "Block"]
    assert [result.categories.harassment for result in answer.results] == [True, True]
    assert not answer.results[0].categories.sexual


def test_every_decision_is_on_record_by_its_id(running: RunningSidecar, client: OpenAI) -> None:
    answer = client.moderations.create(input=["hello", "goodbye"])

    for result in answer.results:
        found = running.client.get(f"/v1/decisions/{result.baleen[0]['id']}").json()
        assert found["decision"] == "Review"


def test_parts_have_one_result_with_the_highest_of_each(client: OpenAI) -> None:
    (result,) = client.moderations.create(input=[TEXT_PART, image_part()]).results

    assert (result.category_scores.harassment, result.category_scores.sexual) == (0.6, 0.95)
    assert (result.categories.sexual, result.flagged) == (True, True)
    assert result.category_applied_input_types.harassment == ["text"]
    assert result.category_applied_input_types.sexual == ["image"]
    assert [each["decision"] for each in result.baleen] == ["Review", "Block"]


def test_a_score_that_is_not_known_is_flagged_and_said(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"all.yaml": [policy()]}, inference=FixedInference(down={"text-safety"}))
    with client_of(running) as client:
        (result,) = client.moderations.create(input="hello").results

    assert (result.flagged, result.categories.harassment, result.category_scores.harassment) == (True, True, 0)
    assert result.baleen[0]["degraded"] == ["text-safety"]


@pytest.mark.parametrize(
    ("asked", "error", "param", "code", "said"),
    [
        pytest.param({"input": ""}, openai.BadRequestError, "input", "invalid_content", "empty", id="no text"),
        pytest.param({"input": []}, openai.BadRequestError, "input", "invalid_content", "1 to 100", id="no texts"),
        pytest.param({"input": ["x"] * 101}, openai.BadRequestError, "input", "invalid_content", "101", id="101 texts"),
        pytest.param({"input": ["x", ""]}, openai.BadRequestError, "input[1]", "invalid_content", "empty", id="one"),
        pytest.param({"input": 7}, openai.BadRequestError, "input", "invalid_content", "str", id="a number"),
        pytest.param({"input": [[1, 2]]}, openai.BadRequestError, "input[0]", "invalid_content", "array", id="tokens"),
        pytest.param(
            {"input": ["x", TEXT_PART]},
            openai.BadRequestError,
            "input",
            "invalid_content",
            "texts and objects",
            id="mixed",
        ),
        pytest.param(
            {"input": "a" * 300_000}, openai.BadRequestError, "input", "too_large", "262144", id="a long text"
        ),
        pytest.param(
            {"input": "a" * (33 * 2**20)}, openai.BadRequestError, "input", "too_large", str(32 * 2**20), id="a bomb"
        ),
        pytest.param(
            {"input": "x", "model": "gpt-4o"}, openai.NotFoundError, "model", "model_not_found", "omni-", id="a model"
        ),
        pytest.param(
            {"input": [image_part()], "model": "text-moderation-latest"},
            openai.BadRequestError,
            "model",
            "invalid_content",
            "text alone",
            id="an image for a model of text",
        ),
        pytest.param(
            {"input": [image_part("data:text/html;base64,eA==")]},
            openai.BadRequestError,
            "input[0].image_url.url",
            "invalid_content",
            "data:image/png;base64,",
            id="a data URL of something else",
        ),
        pytest.param(
            {"input": [image_part("data:image/png;base64,%%%")]},
            openai.BadRequestError,
            "input[0].image_url.url",
            "invalid_content",
            "base64",
            id="no base64",
        ),
        pytest.param(
            {"input": [TEXT_PART, image_part("https://169.254.169.254/latest/meta-data")]},
            openai.BadRequestError,
            "input[1].image_url.url",
            "invalid_content",
            "private or reserved",
            id="an address inside",
        ),
        pytest.param(
            {"input": [image_part("file:///etc/passwd")]},
            openai.BadRequestError,
            "input[0].image_url.url",
            "invalid_content",
            "https://",
            id="a file",
        ),
        pytest.param(
            {"input": [image_part("data:image/png;base64,eA==")]},
            openai.BadRequestError,
            "input[0].image_url.url",
            "wrong_type",
            "JPEG",
            id="no image",
        ),
        pytest.param(
            {"input": "x", "extra_body": {"modle": "x"}},
            openai.BadRequestError,
            "modle",
            "invalid_content",
            "did you mean 'model'",
            id="an unknown field",
        ),
        pytest.param(
            {"input": "x", "extra_query": {"surfce": "x"}},
            openai.BadRequestError,
            "surfce",
            "invalid_content",
            "did you mean 'surface'",
            id="an unknown parameter",
        ),
    ],
)
def test_what_is_wrong_is_the_exception_that_the_client_has_for_it(
    client: OpenAI, asked: Any, error: type[openai.APIStatusError], param: str, code: str, said: str
) -> None:
    with pytest.raises(error) as caught:
        client.moderations.create(**asked)

    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")
    assert said in caught.value.message
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("failure", "error", "status", "code"),
    [
        pytest.param(
            lambda: LimitExceeded("30 a day", retry_after_seconds=9),
            openai.RateLimitError,
            429,
            "rate_limit_exceeded",
            id="a limit",
        ),
        pytest.param(lambda: LogUnavailable("no"), openai.InternalServerError, 503, "log_unavailable", id="overload"),
        pytest.param(lambda: RuntimeError("secret"), openai.InternalServerError, 500, "internal", id="a fault"),
    ],
)
def test_what_is_not_the_callers_fault_is_an_exception_of_the_client_too(
    start_sidecar: StartSidecar, failure: Callable[[], Exception], error: type[Exception], status: int, code: str
) -> None:
    running = start_sidecar(policies={"all.yaml": [policy()]}, ports={"languages": FailingLanguages(failure)})
    with client_of(running) as client, pytest.raises(error) as caught:
        client.moderations.create(input=["hello", "broken"])

    assert isinstance(caught.value, openai.APIStatusError)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "secret" not in caught.value.message
    assert caught.value.response.headers.get("retry-after") == {429: "9", 503: "1"}.get(status)


def test_without_a_policy_nothing_is_said_to_be_harmless(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"kids.yaml": [policy("kids", scope={"surface": "kids"})]})
    with client_of(running) as client:
        with pytest.raises(openai.InternalServerError, match="no policy is in force"):
            client.moderations.create(input="hello")
        answer = client.moderations.create(input="hello", extra_query={"surface": "kids"})

    assert not answer.results[0].flagged


def test_the_key_is_the_clients_own_and_says_the_tenant(start_sidecar: StartSidecar, tmp_path: Any) -> None:
    policies = {"acme.yaml": [policy("acme", scope={"tenant": "acme"})]}
    running = start_sidecar(policies=policies, api_keys_file=write_keys(tmp_path / "keys.yaml"))

    def ask(key: str, **query: str) -> ModerationCreateResponse:
        with client_of(running, key, default_query=query) as client:
            return client.moderations.create(input="hello")

    assert not ask(MODERATE_KEY).results[0].flagged
    with pytest.raises(openai.AuthenticationError) as unknown:
        ask(UNKNOWN_KEY)
    with pytest.raises(openai.PermissionDeniedError) as without_role:
        ask(REVIEW_KEY)
    with pytest.raises(openai.PermissionDeniedError) as other:
        ask(MODERATE_KEY, tenant="other")
    assert (unknown.value.code, unknown.value.type) == ("invalid_api_key", "invalid_request_error")
    assert without_role.value.code == other.value.code == "insufficient_permissions"
    assert other.value.param == "tenant"


def test_an_installation_says_which_of_its_categories_are_meant(start_sidecar: StartSidecar) -> None:
    categories = [category("weapons", TOXICITY), category("violence", SEXUAL), category("other", TOXICITY)]
    running = start_sidecar(
        policies={"all.yaml": [policy(categories=categories)]},
        inference=FixedInference({TOXICITY: 0.6}),
        openai_categories={"illicit/violent": ("weapons",), "violence": ()},
    )
    with client_of(running) as client:
        (result,) = client.moderations.create(input="hello").results

    flagged = {name for name, value in result.categories.model_dump(by_alias=True).items() if value}
    assert flagged == {"illicit/violent"}
    assert result.category_applied_input_types.violence == []
