"""Settings out of the environment."""

import ipaddress
from dataclasses import fields
from pathlib import Path

import pytest

from baleen_core.errors import InvalidError
from baleen_sidecar.settings import _READERS, Durability, Settings, is_loopback


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
        ("BALEEN_POLICIES", "/etc/policies", "policies", Path("/etc/policies")),
        ("BALEEN_DURABILITY", "Interval", "durability", Durability.INTERVAL),
        ("BALEEN_DEADLINE_SECONDS", "2.5", "deadline_seconds", 2.5),
        ("BALEEN_TEXT_LIMIT_WINDOWS", "8", "text_limit_windows", 8),
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
        pytest.param("BALEEN_PORT", "65536", "a port is 0 to 65535", id="no port"),
        pytest.param("BALEEN_TEXT_LIMIT_BYTES", "0", "1 or more", id="a limit of nothing"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "0", "above 0", id="no time at all"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "nan", "above 0", id="not a number"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "inf", "below 86400", id="for ever"),
        pytest.param("BALEEN_DURABILITY", "fsync", "'fsync' is not a valid", id="wrong case"),
        pytest.param("BALEEN_ALLOWED_PRIVATE_NETWORKS", "10.0.0.1/8", "host bits", id="an address as network"),
        pytest.param("BALEEN_PROT", "1", "is not a setting; there are BALEEN_", id="a typo"),
        pytest.param("BALEEN_HOST", "0.0.0.0", "is not loopback", id="every address"),
        pytest.param("BALEEN_HOST", "example.com", "is not loopback", id="a name"),
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


def test_variables_of_other_programs_are_passed_over() -> None:
    assert Settings.from_env({"BALEEN_TRITON_SITE": "/x", "BALEEN_URL": "http://a"}) == Settings()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected
