"""The operator's settings: from the environment, all problems at once."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from baleen_core.errors import InvalidError
from baleen_core.model.schema import Backend
from baleen_operator.adapters.prometheus import Server
from baleen_operator.main import prometheus_server
from baleen_operator.settings import _READERS, PREFIX, Settings
from pages import ROOT


def test_without_variables_the_defaults_are_taken_and_nothing_else_is_looked_at():
    assert Settings.from_env({"HOME": "/root", "BALEEN_PORT": "1"}) == Settings()


def test_a_default_is_taken_as_the_page_says_it():
    page = (ROOT / "docs/reference/operations.md").read_text()
    rows = re.findall(rf"^\| `({PREFIX}\w+)` \| `([^`]+)` \|", page, re.MULTILINE)
    # The page leaves registries out of addresses.
    said = {name: text for name, text in rows if not name.endswith("_IMAGES")}

    assert len(said) > 20
    assert Settings.from_env(said) == Settings()


def test_every_setting_can_be_set():
    assert set(_READERS) == {field.name for field in fields(Settings)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        pytest.param("port", "0", 0, id="a port"),
        pytest.param("namespaces", "a, b,", frozenset({"a", "b"}), id="names"),
        pytest.param("tenants", '{"a": ["t"], "s": ["*"]}', {"a": {"t"}, "s": {"*"}}, id="tenants"),
        pytest.param("gateway_urls", "http://a:1/,https://b", ("http://a:1", "https://b"), id="addresses"),
        pytest.param("gateway_down_window_seconds", "0", 0.0, id="a pause, or none"),
        pytest.param("gateway_token_file", "/var/token", Path("/var/token"), id="a file"),
        pytest.param("runtime_images", '{"Python": "x:1"}', {Backend.PYTHON: "x:1"}, id="images"),
        pytest.param("fetch_networks", "10.0.0.0/8", ("10.0.0.0/8",), id="networks"),
        pytest.param("request_timeout_seconds", "2.5", 2.5, id="seconds"),
    ],
)
def test_a_variable_is_read_as_its_kind(name: str, text: str, value: object):
    assert getattr(Settings.from_env({PREFIX + name.upper(): text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        pytest.param("port", "65536", "0 to 65535", id="no port"),
        pytest.param("workers", "0", "1 or more", id="no workers"),
        pytest.param("relist_seconds", "-1", "above 0", id="no time"),
        pytest.param("tenants", '{"a": "t"}', 'such as {"team-a": ["acme"]}', id="tenants that are no lists"),
        pytest.param("tenants", "a=b", "write JSON", id="tenants that are no JSON"),
        pytest.param("gateway_urls", "gateway:8081", "is no address such as", id="no scheme"),
        pytest.param("fetch_networks", "10.0.0.0/33", "10.0.0.0/33", id="no network"),
        pytest.param("runtime_images", '{"Tensorflow": "x"}', "Tensorflow", id="no backend"),
        pytest.param("log_level", "LOUD", "DEBUG, INFO, WARNING or ERROR", id="no level"),
        pytest.param("approval_by_another", "yes", "true or false", id="neither"),
        pytest.param("approval_by_another", "true", "cannot be set without WEBHOOK_NAMES", id="nobody known"),
        pytest.param("wokers", "3", "is not a setting", id="misspelt"),
        pytest.param("lease_retry_seconds", "14", "a third of the Lease's duration", id="renewed too seldom"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name: str, text: str, words: str):
    with pytest.raises(InvalidError) as caught:
        Settings.from_env({PREFIX + name.upper(): text})

    (problem,) = caught.value.problems
    assert problem.field == PREFIX + name.upper()
    assert words in problem.message


def test_all_problems_are_named_at_once():
    with pytest.raises(InvalidError) as caught:
        Settings.from_env({PREFIX + "PORT": "x", PREFIX + "WORKERS": "y", PREFIX + "NO_SUCH": "z"})

    assert len(caught.value.problems) == 3


def test_gateways_are_found_in_one_way():
    with pytest.raises(InvalidError, match="one way"):
        Settings.from_env({PREFIX + "GATEWAY_URLS": "http://a:1", PREFIX + "GATEWAY_SERVICE": "gateway"})


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        pytest.param("URL", {"URL": "https://me:secret@p"}, "must have no user", id="a password in the address"),
        pytest.param("URL", {"URL": "https://p?a=b"}, "must have no user, query", id="a query"),
        pytest.param("TOKEN_FILE", {"URL": "http://p", "TOKEN_FILE": "/t"}, "begins with https", id="a token by http"),
        pytest.param("CA_FILE", {"CA_FILE": "/t"}, "begins with https", id="authorities of nobody"),
    ],
)
def test_prometheus_is_asked_where_a_token_is_safe(name: str, said: dict[str, str], words: str):
    with pytest.raises(InvalidError) as caught:
        Settings.from_env({f"{PREFIX}PROMETHEUS_{each}": text for each, text in said.items()})

    (problem,) = caught.value.problems
    assert problem.field == f"{PREFIX}PROMETHEUS_{name}"
    assert words in problem.message
    assert "secret" not in problem.message


def test_only_an_installation_with_a_prometheus_grants_queries():
    asked = Settings.from_env({PREFIX + "PROMETHEUS_URL": "http://p:9090/x/", PREFIX + "PROMETHEUS_NAMESPACES": "a"})

    assert (Settings().grants.has_provider, asked.grants.has_provider) == (False, True)
    assert asked.grants.query_namespaces == {"a"}
    assert prometheus_server(Settings()) is None
    assert prometheus_server(asked) == Server(url="http://p:9090/x")


def test_approval_by_another_is_switched_on_where_webhooks_know_people():
    on = Settings.from_env({PREFIX + "APPROVAL_BY_ANOTHER": "true", PREFIX + "WEBHOOK_NAMES": "webhook"})
    off = Settings.from_env({PREFIX + "APPROVAL_BY_ANOTHER": "false"})

    assert (on.approval_by_another, off.approval_by_another) == (True, False)


def test_grants_and_rules_are_those_of_the_settings():
    settings = Settings.from_env({PREFIX + "FLOOR_NAMESPACES": "safety", PREFIX + "FETCH_IMAGE": "baleen:1"})

    assert settings.grants.floor_namespaces == {"safety"}
    assert settings.runtime_rules.fetch_image == "baleen:1"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param({"GATEWAY_WORKLOAD": "Deployment/a"}, "GATEWAY_SERVICE or GATEWAY_URLS", id="nobody to ask"),
        pytest.param({"GATEWAY_WORKLOAD": "Pod/a"}, "Deployment/name or StatefulSet/name", id="what cannot be scaled"),
        pytest.param({"GATEWAY_MIN_REPLICAS": "9", "GATEWAY_MAX_REPLICAS": "8"}, "must be at most", id="bounds"),
    ],
)
def test_a_scaling_that_cannot_be_is_refused(variables: dict[str, str], words: str):
    with pytest.raises(InvalidError, match=words):
        Settings.from_env({PREFIX + name: text for name, text in variables.items()})
