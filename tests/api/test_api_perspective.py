"""Google's own client, unmodified, finds us by our discovery document and asks as Perspective is asked."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from googleapiclient import discovery
from googleapiclient.errors import HttpError

import plain_http
from baleen_core.errors import LimitExceeded
from baleen_core.policy.schema import Verdict
from baleen_sidecar.testing import FixedInference
from faces import MODERATE_KEY, REVIEW_KEY, TOXICITY, UNKNOWN_KEY, FailingLanguages, category, policy, write_keys
from sidecars import EXAMPLES, RunningSidecar, StartSidecar

ANALYZE = "/v1alpha1/comments:analyze"
DISCOVERY = "/$discovery/rest"
TOXICITY_ASKED: dict[str, Any] = {"TOXICITY": {}}


@contextlib.contextmanager
def built(running: RunningSidecar, key: str = "any") -> Iterator[Any]:
    """Build the client as Perspective's own examples do; its cache is a file, which would outlive the test."""
    url = str(running.client.base_url).rstrip("/")
    service = discovery.build(
        "commentanalyzer",
        "v1alpha1",
        developerKey=key,
        discoveryServiceUrl=f"{url}{DISCOVERY}?version=v1alpha1",
        static_discovery=False,
        cache_discovery=False,
    )
    with contextlib.closing(service):
        yield service


def comment(text: str = "hello", attributes: Any = TOXICITY_ASKED, **more: Any) -> dict[str, Any]:
    return {"comment": {"text": text}, "requestedAttributes": attributes, **more}


def analyze(running: RunningSidecar, body: Any, key: str = "any", **query: str) -> Any:
    with built(running, key) as client:
        return client.comments().analyze(body=body, **query).execute()


def refused(running: RunningSidecar, body: Any, key: str = "any", **query: str) -> dict[str, Any]:
    """Return the error that the client raises."""
    with pytest.raises(HttpError) as caught:
        analyze(running, body, key, **query)
    error = json.loads(caught.value.content)["error"]
    assert error["code"] == caught.value.status_code
    assert caught.value.reason == error["message"]
    return error


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(policies={"all.yaml": [policy()]}, inference=FixedInference({TOXICITY: 0.6}))


def test_a_comment_is_scored_by_the_shipped_policy_and_models(sidecar: RunningSidecar) -> None:
    abuse = (EXAMPLES / "content/english-abusive.txt").read_text()

    answer = analyze(sidecar, comment(abuse, {"TOXICITY": {}, "THREAT": {}, "IDENTITY_ATTACK": {}}))

    assert answer["attributeScores"]["TOXICITY"]["summaryScore"]["value"] > 0.9
    assert set(answer["attributeScores"]) == {"TOXICITY", "THREAT", "IDENTITY_ATTACK"}
    assert answer["detectedLanguages"] == ["en"]
    assert answer["baleen"]["decision"] == "Block"


def test_an_answer_has_what_was_asked_for_and_nothing_else(running: RunningSidecar) -> None:
    body = comment("nice 🐳", {"TOXICITY": {"scoreType": "PROBABILITY"}}, languages=["en"], clientToken="t-1")
    answer = analyze(running, {**body, "context": {"entries": [{"text": "before"}]}, "communityId": "example.com"})

    decision = answer.pop("baleen")
    assert answer == {
        "attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.6, "type": "PROBABILITY"}}},
        "languages": ["en"],
        "detectedLanguages": answer["detectedLanguages"],
        "clientToken": "t-1",
    }
    assert running.client.get(f"/v1/decisions/{decision['id']}").json()["decision"] == decision["decision"] == "Review"


def test_a_span_is_the_whole_comment_in_utf_16(running: RunningSidecar) -> None:
    answer = analyze(running, comment("nice 🐳", spanAnnotations=True))

    (span,) = answer["attributeScores"]["TOXICITY"]["spanScores"]
    assert (span["begin"], span["end"], span["score"]["value"]) == (0, 7, 0.6)


def test_a_score_below_the_threshold_is_left_out(running: RunningSidecar) -> None:
    asked = {"TOXICITY": {"scoreThreshold": 0.61}}, {"TOXICITY": {"scoreThreshold": 0.6}}

    found = [set(analyze(running, comment(attributes=attributes))["attributeScores"]) for attributes in asked]

    assert found == [set(), {"TOXICITY"}]


def test_the_policy_is_that_of_the_place_in_the_query(start_sidecar: StartSidecar) -> None:
    strict = policy("kids", scope={"surface": "kids"}, rules=[{"name": "all", "when": "true", "action": "Block"}])
    running = start_sidecar(policies={"all.yaml": [policy(), strict]})

    found = [analyze(running, comment(), **place)["baleen"]["decision"] for place in ({}, {"surface": "kids"})]

    assert found == ["Allow", "Block"]


@pytest.mark.parametrize("do_not_store", [False, True], ids=["by default", "where the comment may not be stored"])
def test_of_a_comment_that_may_not_be_stored_nothing_of_a_person_is_on_record(
    running: RunningSidecar, do_not_store: bool
) -> None:
    body = comment("a very private comment", sessionId="session-1", doNotStore=do_not_store)
    answer = running.client.post(f"{ANALYZE}?author.id=user-1&author.age_days=3", json=body).json()

    record = running.run(running.sidecar.ports.log.get(answer["baleen"]["id"]))

    assert record is not None
    context = record.evidence.context
    assert (context.session, context.author) == (
        (None, {"ageDays": 3}) if do_not_store else ("session-1", {"id": "user-1", "ageDays": 3})
    )
    # The text itself is nowhere, whatever was asked.
    files = [path for path in running.settings.state.rglob("*") if path.is_file()]
    assert running.database in files
    assert not any(b"private comment" in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("body", "field", "said", "kind"),
    [
        pytest.param(comment(""), "comment.text", "empty", "COMMENT_EMPTY", id="no text"),
        pytest.param(comment("a" * 300_000), "comment.text", "262144", "COMMENT_TOO_LONG", id="a long text"),
        pytest.param(comment("a" * 2**21), "comment.text", "limit", "COMMENT_TOO_LONG", id="an endless text"),
        pytest.param(comment(attributes={}), "requestedAttributes", "TOXICITY", None, id="no attributes"),
        pytest.param(
            comment(attributes={"TOXIC": {}}), "requestedAttributes.TOXIC", "no attribute here", None, id="no attribute"
        ),
        pytest.param(
            comment(attributes={"THREAT": {}}),
            "requestedAttributes.THREAT",
            "no policy judges it",
            None,
            id="not judged",
        ),
        pytest.param(
            comment(attributes={"TOXICITY": {"scoreThreshold": 2}}),
            "requestedAttributes[...].scoreThreshold",
            "<= 1",
            None,
            id="a threshold of 2",
        ),
        pytest.param(
            {"comment": {"text": "x", "type": "HTML"}, "requestedAttributes": {}},
            "comment.type",
            "HTML",
            None,
            id="HTML",
        ),
        pytest.param(comment(language="en"), "language", "did you mean 'languages'", None, id="unknown field"),
        pytest.param(comment(languages=["English!"]), "languages[0]", "regex", None, id="no language"),
        pytest.param({"requestedAttributes": TOXICITY_ASKED}, "comment", "missing", None, id="no comment"),
    ],
)
def test_what_is_wrong_is_the_error_that_the_client_has_for_it(
    running: RunningSidecar, body: Any, field: str, said: str, kind: str | None
) -> None:
    error = refused(running, body)

    (violations, *rest) = error["details"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert [each["field"] for each in violations["fieldViolations"]] == [field]
    assert said in error["message"]
    assert [each.get("errorType") for each in rest] == ([] if kind is None else [kind])


def test_an_attribute_without_a_score_is_an_error_and_never_0(start_sidecar: StartSidecar) -> None:
    english = category("toxicity", TOXICITY, languages=["en"], onLanguageUnsupported="Review")
    down = start_sidecar(policies={"all.yaml": [policy()]}, inference=FixedInference(down={"text-safety"}))
    other = start_sidecar(policies={"all.yaml": [policy(categories=[english])]})
    french = (EXAMPLES / "content/french-friendly.txt").read_text()

    failed, unsupported = refused(down, comment()), refused(other, comment(french))

    assert (failed["code"], failed["status"]) == (503, "UNAVAILABLE")
    assert "text-safety" not in failed["message"]
    assert unsupported["code"] == 400
    assert "language fr" in unsupported["message"]


@pytest.mark.parametrize(
    ("failure", "status", "name"),
    [
        pytest.param(lambda: LimitExceeded("30 a day", retry_after_seconds=9), 429, "RESOURCE_EXHAUSTED", id="a limit"),
        pytest.param(lambda: RuntimeError("secret"), 500, "INTERNAL", id="a fault"),
    ],
)
def test_what_is_not_the_callers_fault_has_a_name_of_google_too(
    start_sidecar: StartSidecar, failure: Callable[[], Exception], status: int, name: str
) -> None:
    running = start_sidecar(policies={"all.yaml": [policy()]}, ports={"languages": FailingLanguages(failure)})

    error = refused(running, comment("broken"))

    assert (error["code"], error["status"]) == (status, name)
    assert "secret" not in error["message"]


def test_scores_of_others_are_refused_by_name(running: RunningSidecar) -> None:
    with built(running) as client, pytest.raises(HttpError) as caught:
        client.comments().suggestscore(body=comment()).execute()

    assert caught.value.status_code == 501
    assert json.loads(caught.value.content)["error"]["status"] == "UNIMPLEMENTED"


@pytest.fixture
def keyed(start_sidecar: StartSidecar, tmp_path: Any) -> RunningSidecar:
    keys = write_keys(tmp_path / "keys.yaml")
    return start_sidecar(policies={"acme.yaml": [policy("acme", scope={"tenant": "acme"})]}, api_keys_file=keys)


def test_the_key_that_the_client_puts_into_the_url_is_taken_here_alone_and_is_in_no_log(
    keyed: RunningSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="baleen_sidecar")
    caplog.set_level(logging.DEBUG, logger="uvicorn")

    answer = analyze(keyed, comment(), MODERATE_KEY)
    unknown, without_role = (refused(keyed, comment(), key) for key in (UNKNOWN_KEY, REVIEW_KEY))
    elsewhere = [
        keyed.client.post(path, params={"key": MODERATE_KEY}, json=body).status_code
        for path, body in (
            ("/v1/moderate", {"content": {"type": "text", "text": "x"}}),
            ("/v1/moderations", {"input": "x"}),
            ("/v1/moderate/batch", {"items": []}),
        )
    ]

    assert answer["baleen"]["decision"] == "Allow"
    assert [(each["code"], each["status"]) for each in (unknown, without_role)] == [
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
    ]
    assert elsewhere == [401, 401, 401]
    # A server has no log of requests (`logs.py`); pytest listens to it all the same.
    logged = [f"{vars(each)} {each.getMessage()}" for each in caplog.records if each.name != "uvicorn.access"]
    seen = "".join(logged) + keyed.client.get("/metrics").text + json.dumps([unknown, without_role])
    assert not any(key in seen for key in (MODERATE_KEY, UNKNOWN_KEY, REVIEW_KEY))


def test_a_key_in_a_header_counts_more_than_one_in_the_url(keyed: RunningSidecar) -> None:
    def status(header: str, url: str) -> int:
        headers = {"X-API-Key": header}
        return keyed.client.post(ANALYZE, params={"key": url}, json=comment(), headers=headers).status_code

    assert (status(MODERATE_KEY, UNKNOWN_KEY), status(UNKNOWN_KEY, MODERATE_KEY)) == (200, 401)


def test_a_key_does_not_speak_for_another_tenant(keyed: RunningSidecar) -> None:
    error = refused(keyed, comment(), MODERATE_KEY, tenant="other")

    assert (error["code"], error["details"][0]["fieldViolations"][0]["field"]) == (403, "tenant")


def test_the_discovery_document_needs_no_key_and_leads_to_where_it_was_asked_for(keyed: RunningSidecar) -> None:
    def root(**headers: str) -> Any:
        return keyed.client.get(DISCOVERY, headers=headers).json().get("rootUrl")

    assert root() == f"{str(keyed.client.base_url).rstrip('/')}/"
    assert root(Host="moderation.example", **{"X-Forwarded-Proto": "https"}) == "https://moderation.example/"
    assert keyed.client.get(DISCOVERY).headers["cache-control"] == "no-store"
    assert keyed.client.get(DISCOVERY, headers={"Host": "a b/c"}).status_code == 400
    assert keyed.client.get(DISCOVERY, params={"version": "v2"}).json()["error"]["status"] == "NOT_FOUND"


def test_a_page_of_another_site_is_kept_out_without_keys(running: RunningSidecar) -> None:
    # Not by the client that compares with the document: it says nothing of strangers.
    with plain_http.client(base_url=running.client.base_url) as client:
        response = client.post(ANALYZE, json=comment(), headers={"Origin": "http://shop.example"})

    assert response.status_code == 421


def test_an_installation_has_attributes_of_its_own(start_sidecar: StartSidecar) -> None:
    categories = [category("spam", TOXICITY)]
    running = start_sidecar(
        policies={"all.yaml": [policy(categories=categories)]},
        inference=FixedInference({TOXICITY: 0.25}),
        perspective_attributes={"SPAM": ("spam",), "TOXICITY": ()},
    )

    answer = analyze(running, comment(attributes={"SPAM": {}}))

    assert answer["attributeScores"]["SPAM"]["summaryScore"]["value"] == 0.25
    assert answer["baleen"]["decision"] == Verdict.ALLOW
    assert "SPAM" in refused(running, comment())["message"]
