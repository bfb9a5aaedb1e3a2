"""Settings out of the environment."""

import ipaddress
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from baleen_core.errors import InvalidError
from baleen_sidecar.settings import (
    _CLUSTER_READERS,
    _OF_FOLDERS,
    _READERS,
    ClusterSettings,
    Durability,
    Settings,
    is_loopback,
)


def test_without_variables_the_defaults_hold() -> None:
    settings = Settings.from_env({"PATH": "/bin", "HOME": "/root"})

    assert settings == Settings()
    assert (settings.host, settings.durability) == ("127.0.0.1", Durability.FSYNC)
    assert (settings.text_limit_bytes, settings.text_limit_windows) == (256 * 1024, 64)
    assert settings.allowed_private_networks == ()


@pytest.mark.parametrize(
    ("variable", "text", "field", "expected"),
    [
        ("BALEEN_PORT", "0", "port", 0),
        ("BALEEN_HOST", "::1", "host", "::1"),
        ("BALEEN_API_KEYS_FILE", "/etc/keys.yaml", "api_keys_file", Path("/etc/keys.yaml")),
        ("BALEEN_API_KEYS_FILE", "", "api_keys_file", None),
        ("BALEEN_DATABASE_URL_FILE", "/etc/database-url", "database_url_file", Path("/etc/database-url")),
        ("BALEEN_QUOTAS_FILE", "/etc/quotas.yaml", "quotas_file", Path("/etc/quotas.yaml")),
        ("BALEEN_REDIS_URL_FILE", "", "redis_url_file", None),
        ("BALEEN_GOVERNOR", "false", "governor", False),
        ("BALEEN_GOVERNOR_CPU_PERCENT", "55.5", "governor_cpu_percent", 55.5),
        ("BALEEN_CACHE_ENABLED", "false", "cache_enabled", False),
        ("BALEEN_CACHE_TENANT_PERCENT", "100", "cache_tenant_percent", 100),
        ("BALEEN_POLICIES", "/etc/policies", "policies", Path("/etc/policies")),
        ("BALEEN_DURABILITY", "Interval", "durability", Durability.INTERVAL),
        ("BALEEN_DEADLINE_SECONDS", "2.5", "deadline_seconds", 2.5),
        ("BALEEN_TEXT_LIMIT_WINDOWS", "8", "text_limit_windows", 8),
        ("BALEEN_BATCHES_IN_FLIGHT", "1", "batches_in_flight", 1),
        ("BALEEN_BATCH_QUEUE_ROWS", "64", "batch_queue_rows", 64),
        ("BALEEN_OTLP_ENDPOINT", "http://collector:4318/", "otlp_endpoint", "http://collector:4318"),
        ("BALEEN_SOURCE_OFFLINE_SECONDS", "45", "source_offline_seconds", 45.0),
        ("BALEEN_DEFAULT_TENANT", "acme", "default_tenant", "acme"),
        ("BALEEN_DEFAULT_SOURCE", "site-7/camera-3", "default_source", "site-7/camera-3"),
        ("BALEEN_DEFAULT_SURFACE", "", "default_surface", None),
        ("BALEEN_JWT_KEYS", "", "jwt_keys", ""),
        ("BALEEN_JWT_CA_FILE", "/etc/ca.crt", "jwt_ca_file", Path("/etc/ca.crt")),
        ("BALEEN_JWT_ROLES_CLAIM", "realm_access.roles", "jwt_roles_claim", "realm_access.roles"),
        ("BALEEN_JWT_TENANT_CLAIM", "tenant", "jwt_tenant_claim", "tenant"),
        ("BALEEN_JWT_LEEWAY_SECONDS", "0", "jwt_leeway_seconds", 0.0),
        ("BALEEN_BATCH_LIMIT", "50", "batch_limit", 50),
        (
            "BALEEN_OPENAI_CATEGORIES",
            '{"violence": ["gore", "guns"]}',
            "openai_categories",
            {"violence": ("gore", "guns")},
        ),
        ("BALEEN_OPENAI_CATEGORIES", "", "openai_categories", {}),
        ("BALEEN_PERSPECTIVE_ATTRIBUTES", '{"SPAM": []}', "perspective_attributes", {"SPAM": ()}),
        (
            "BALEEN_ALLOWED_PRIVATE_NETWORKS",
            "10.0.0.0/8, fd00::/8",
            "allowed_private_networks",
            (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")),
        ),
    ],
)
def test_a_variable_sets_the_field_of_its_name(variable: str, text: str, field: str, expected: object) -> None:
    assert getattr(Settings.from_env({variable: text}), field) == expected


def test_every_field_can_be_set() -> None:
    assert set(_READERS) == {field.name for field in fields(Settings)}


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        pytest.param("BALEEN_PORT", "80a", "'80a' is not valid", id="no number"),
        pytest.param("BALEEN_DEFAULT_SOURCE", "site-7/*", "is not a path such as", id="no one source"),
        pytest.param("BALEEN_PORT", "65536", "a port is 0 to 65535", id="no port"),
        pytest.param("BALEEN_TEXT_LIMIT_BYTES", "0", "1 or more", id="a limit of nothing"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "0", "above 0", id="no time at all"),
        pytest.param("BALEEN_CACHE_TENANT_PERCENT", "101", "1 to 100", id="more than all"),
        pytest.param("BALEEN_CACHE_ENABLED", "no", "true or false", id="no switch"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "nan", "above 0", id="not a number"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "inf", "below 86400", id="for ever"),
        pytest.param("BALEEN_DURABILITY", "fsync", "'fsync' is not a valid", id="wrong case"),
        pytest.param("BALEEN_ALLOWED_PRIVATE_NETWORKS", "10.0.0.1/8", "host bits", id="an address as network"),
        pytest.param("BALEEN_PROT", "1", "is not a setting; there are BALEEN_", id="a typo"),
        pytest.param("BALEEN_OPENAI_CATEGORIES", "gore", "write JSON such as", id="no JSON"),
        pytest.param(
            "BALEEN_OPENAI_CATEGORIES", '{"gore": ["gore"]}', "'gore' is no category of OpenAI's", id="not there"
        ),
        pytest.param("BALEEN_OPENAI_CATEGORIES", '{"hate": ["Hate!"]}', "lower-case letters", id="no name of ours"),
        pytest.param("BALEEN_PERSPECTIVE_ATTRIBUTES", '{"toxicity": []}', "is no attribute; write", id="lower case"),
        pytest.param("BALEEN_HOST", "0.0.0.0", "is not loopback", id="every address"),
        pytest.param("BALEEN_HOST", "example.com", "is not loopback", id="a name"),
        pytest.param("BALEEN_JWT_KEYS", "http://id.example/keys", "such as https://id.example/keys", id="plain HTTP"),
        pytest.param("BALEEN_JWT_KEYS", "https://me:pw@id.example/keys", "without user", id="a password"),
        pytest.param("BALEEN_JWT_LEEWAY_SECONDS", "61", "0 to 60 seconds", id="clocks that nobody set"),
        pytest.param("BALEEN_JWT_LEEWAY_SECONDS", "nan", "0 to 60 seconds", id="no leeway"),
        pytest.param("BALEEN_GRPC_MESSAGE_LIMIT_BYTES", str(2**31), "1 to 2147483647", id="a message over all"),
        pytest.param("BALEEN_GRPC_CONNECTION_LIMIT", str(2**31), "1 to 2147483647", id="connections over all"),
    ],
)
def test_a_wrong_variable_is_named_with_what_would_be_right(variable: str, text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said) as caught:
        Settings.from_env({variable: text})

    assert [problem.field for problem in caught.value.problems] == [variable]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        Settings.from_env({"BALEEN_PORT": "x", "BALEEN_DEADLINE_SECONDS": "-1", "BALEEN_NOTHING": "1"})

    assert [problem.field for problem in caught.value.problems] == [
        "BALEEN_DEADLINE_SECONDS",
        "BALEEN_NOTHING",
        "BALEEN_PORT",
    ]


@pytest.mark.parametrize("read", [Settings.from_env, ClusterSettings.from_env])
def test_the_bounds_of_the_governor_are_in_order(read: Callable[[dict[str, str]], object]) -> None:
    with pytest.raises(InvalidError) as caught:
        read({"BALEEN_GOVERNOR_CPU_PERCENT": "95", "BALEEN_GOVERNOR_MEMORY_SHED_PERCENT": "75"})

    assert [str(problem) for problem in caught.value.problems] == [
        "BALEEN_GOVERNOR_CPU_SHED_PERCENT: is 90, and must be above BALEEN_GOVERNOR_CPU_PERCENT, which is 95",
        "BALEEN_GOVERNOR_MEMORY_SHED_PERCENT: is 75, and must be above BALEEN_GOVERNOR_MEMORY_PERCENT, which is 75",
    ]


def test_variables_of_other_programs_are_passed_over() -> None:
    foreign = {"BALEEN_TRITON_SITE": "/x", "BALEEN_URL": "http://a", "BALEEN_API_KEY": "baleen_x"}

    assert Settings.from_env(foreign) == Settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.244.0.7", "gateway.example"])
def test_with_api_keys_any_address_is_served(host: str) -> None:
    env = {"BALEEN_HOST": host, "BALEEN_API_KEYS_FILE": "/keys.yaml"}
    wanted = Settings(host=host, api_keys_file=Path("/keys.yaml"))

    assert Settings.from_env(env) == wanted
    assert ClusterSettings.from_env(env) == (wanted, ClusterSettings())


@pytest.mark.parametrize("keys", ["https://id.example/keys", "/etc/jwks.json"])
def test_jwts_need_to_be_somebodys_and_open_any_address(keys: str) -> None:
    env = {"BALEEN_HOST": "0.0.0.0", "BALEEN_JWT_KEYS": keys}
    settings = Settings.from_env(env | {"BALEEN_JWT_ISSUER": "https://id.example"})

    assert (settings.jwt_keys, settings.jwt_issuer, settings.jwt_audience) == (keys, "https://id.example", "baleen")
    for more in ({}, {"BALEEN_JWT_AUDIENCE": "", "BALEEN_JWT_ROLES_CLAIM": ""}):
        with pytest.raises(InvalidError) as caught:
            Settings.from_env(env | more)
        assert [problem.field for problem in caught.value.problems] == ["BALEEN_JWT_ISSUER", *more]


def test_with_service_accounts_any_address_is_served_by_a_gateway_and_no_sidecar_has_them() -> None:
    env = {"BALEEN_HOST": "0.0.0.0", "BALEEN_ACCOUNTS_FILE": "/accounts.yaml"}
    settings, cluster = ClusterSettings.from_env(env)

    assert (settings.host, cluster.accounts_file) == ("0.0.0.0", Path("/accounts.yaml"))
    with pytest.raises(InvalidError, match="no right to ask the API server") as caught:
        ClusterSettings.from_env(env | {"BALEEN_GATEWAY_URL": "http://gateway:8081"})
    assert [problem.field for problem in caught.value.problems] == ["BALEEN_ACCOUNTS_FILE"]


def test_without_api_keys_it_is_said_how_to_serve_others() -> None:
    with pytest.raises(InvalidError, match=r"`baleen keys create`, and set BALEEN_API_KEYS_FILE"):
        Settings.from_env({"BALEEN_HOST": "0.0.0.0"})


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_without_variables_a_process_in_a_cluster_is_a_gateway_with_the_token_of_its_pod() -> None:
    settings, cluster = ClusterSettings.from_env({"PATH": "/bin", "KUBERNETES_SERVICE_HOST": "10.96.0.1"})

    assert (settings, cluster) == (Settings(), ClusterSettings())
    assert cluster.is_gateway
    assert cluster.kubernetes_token_file == Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert (cluster.stream_port, cluster.operators) == (8081, ("baleen-system/baleen-operator",))


CLUSTER = [
    ("gateway_url", "https://gateway:8081/", "https://gateway:8081"),
    ("gateway_token_file", "/t/token", Path("/t/token")),
    ("gateway_ca_file", "/t/ca.crt", Path("/t/ca.crt")),
    ("spool_limit_bytes", "1000000", 1_000_000),
    ("kubernetes_url", "https://10.96.0.1:443", "https://10.96.0.1:443"),
    ("kubernetes_token_file", "/k/token", Path("/k/token")),
    ("kubernetes_ca_file", "/k/ca.crt", Path("/k/ca.crt")),
    ("namespaces", "shop, safety", ("shop", "safety")),
    ("tenants", '{"shop": ["acme"]}', {"shop": frozenset({"acme"})}),
    ("model_files", "/srv/models", Path("/srv/models")),
    ("stream_host", "127.0.0.1", "127.0.0.1"),
    ("stream_port", "0", 0),
    ("metrics_port", "9091", 9091),
    ("drain_seconds", "5", 5.0),
    ("stream_address", "http://10.244.0.7:8081", "http://10.244.0.7:8081"),
    ("operators", "a/b,c/d", ("a/b", "c/d")),
    ("backup_accounts", "a/backup", ("a/backup",)),
    ("replica", "gateway-0", "gateway-0"),
    ("log_level", "DEBUG", "DEBUG"),
    ("accounts_file", "/etc/accounts.yaml", Path("/etc/accounts.yaml")),
    ("accounts_audience", "moderation", "moderation"),
]


@pytest.mark.parametrize(("field", "text", "expected"), CLUSTER, ids=[field for field, _, _ in CLUSTER])
def test_a_variable_sets_that_field_of_a_process_in_a_cluster_and_no_other(
    field: str, text: str, expected: object
) -> None:
    settings, cluster = ClusterSettings.from_env({f"BALEEN_{field.upper()}": text})

    assert (settings, cluster) == (Settings(), replace(ClusterSettings(), **{field: expected}))


def test_every_field_of_a_process_in_a_cluster_can_be_set() -> None:
    assert set(_CLUSTER_READERS) == {field.name for field in fields(ClusterSettings)}
    assert {field for field, _, _ in CLUSTER} == set(_CLUSTER_READERS)


def test_a_process_in_a_cluster_has_the_settings_of_every_sidecar_but_for_its_folders() -> None:
    shared = {"port": "0", "state": "/state", "durability": "Interval", "deadline_seconds": "2.5"}
    settings, cluster = ClusterSettings.from_env({f"BALEEN_{name.upper()}": text for name, text in shared.items()})

    assert settings == Settings(port=0, state=Path("/state"), durability=Durability.INTERVAL, deadline_seconds=2.5)
    assert cluster == ClusterSettings()
    assert not set(_CLUSTER_READERS) & set(_READERS)
    assert _OF_FOLDERS.issubset(_READERS)


@pytest.mark.parametrize("field", ["gateway_url", "gateway_ca_file", "kubernetes_url", "stream_address", "replica"])
def test_what_may_be_empty_is_as_if_it_were_not_set(field: str) -> None:
    _, cluster = ClusterSettings.from_env({f"BALEEN_{field.upper()}": ""})

    assert cluster == ClusterSettings()


def test_with_a_gateway_to_follow_a_process_is_none() -> None:
    _, cluster = ClusterSettings.from_env({"BALEEN_GATEWAY_URL": "http://gateway:8081"})

    assert not cluster.is_gateway


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        pytest.param("BALEEN_POLICIES", "policies", "is not a setting; there are BALEEN_", id="the folder of policies"),
        pytest.param("BALEEN_MODELS", "models", "is not a setting; there are BALEEN_", id="the folder of models"),
        pytest.param("BALEEN_GATEWAY_ULR", "http://a", "is not a setting; there are BALEEN_", id="a typo"),
        pytest.param("BALEEN_OPERATOR_PORT", "8080", "is not a setting; there are BALEEN_", id="of the operator"),
        pytest.param("BALEEN_HOST", "0.0.0.0", "is not loopback", id="every address"),
        pytest.param("BALEEN_HOST", "10.244.0.7", "is not loopback", id="the pod's address"),
        pytest.param("BALEEN_PORT", "80a", "'80a' is not valid", id="a shared setting"),
        pytest.param("BALEEN_GATEWAY_URL", "gateway:8081", "such as http://", id="no address"),
        pytest.param("BALEEN_KUBERNETES_URL", "https://api:https", "is not valid", id="no port in an address"),
        pytest.param("BALEEN_METRICS_PORT", "-1", "a port is 0 to 65535", id="a negative port"),
        pytest.param("BALEEN_STREAM_PORT", "65536", "a port is 0 to 65535", id="no port"),
        pytest.param("BALEEN_TENANTS", "shop=acme", "write JSON such as", id="no JSON"),
        pytest.param("BALEEN_OPERATORS", "baleen-operator", "is no ServiceAccount", id="no namespace"),
        pytest.param("BALEEN_OPERATORS", "a/b,/c", "'/c' is no ServiceAccount", id="one without a namespace"),
        pytest.param("BALEEN_OPERATORS", "a/b/c", "is no ServiceAccount", id="a namespace too many"),
        pytest.param("BALEEN_REPLICA", "gateway\n0", "printable ASCII", id="no name to send"),
        pytest.param("BALEEN_LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING or ERROR", id="no level"),
    ],
)
def test_a_wrong_variable_of_a_process_in_a_cluster_is_named_with_what_would_be_right(
    variable: str, text: str, said: str
) -> None:
    with pytest.raises(InvalidError, match=said) as caught:
        ClusterSettings.from_env({variable: text})

    assert [problem.field for problem in caught.value.problems] == [variable]


def test_everything_that_is_wrong_in_a_cluster_is_said_at_once() -> None:
    wrong = {
        "BALEEN_PORT": "x",
        "BALEEN_POLICIES": "policies",
        "BALEEN_STREAM_PORT": "y",
        "BALEEN_LOG_LEVEL": "LOUD",
        "BALEEN_HOST": "0.0.0.0",
    }
    with pytest.raises(InvalidError) as caught:
        ClusterSettings.from_env(wrong)

    assert sorted(problem.field for problem in caught.value.problems) == sorted(wrong)


def test_variables_of_other_programs_are_passed_over_in_a_cluster_too() -> None:
    found = ClusterSettings.from_env({"BALEEN_TRITON_SITE": "/x", "BALEEN_URL": "http://a"})

    assert found == (Settings(), ClusterSettings())
