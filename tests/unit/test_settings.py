"""Settings come from the environment, and a mistake in one is named."""

import ipaddress
from dataclasses import fields
from pathlib import Path

import pytest

from baleen_core.errors import InvalidError
from baleen_sidecar.settings import _READERS, Durability, Settings, is_loopback


def test_without_variables_the_defaults_hold():
    assert Settings.from_env({"PATH": "/bin"}) == Settings()


def test_every_setting_can_be_read():
    assert set(_READERS) == {field.name for field in fields(Settings)}


def test_values_are_read_in_their_own_kind():
    settings = Settings.from_env(
        {
            "BALEEN_POLICIES": "/etc/baleen",
            "BALEEN_DURABILITY": "Interval",
            "BALEEN_DEADLINE_SECONDS": "2.5",
            "BALEEN_ALLOWED_PRIVATE_NETWORKS": "10.0.0.0/8, fd00::/8",
        }
    )

    assert settings.policies == Path("/etc/baleen")
    assert settings.durability is Durability.INTERVAL
    assert settings.deadline_seconds == 2.5
    assert settings.allowed_private_networks == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        pytest.param("BALEEN_PORT", "http", "invalid literal", id="not a number"),
        pytest.param("BALEEN_PORT", "70000", "0 to 65535", id="not a port"),
        pytest.param("BALEEN_DURABILITY", "fsync", "not a valid Durability", id="not a choice"),
        pytest.param("BALEEN_TEXT_LIMIT_BYTES", "0", "1 or more", id="a limit that lets nothing in"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "nan", "above 0", id="not a time"),
        pytest.param("BALEEN_DEADLINE_SECONDS", "-1", "above 0", id="a time before now"),
        pytest.param("BALEEN_ALLOWED_PRIVATE_NETWORKS", "10.0.0.1/8", "host bits", id="not a network"),
        pytest.param("BALEEN_HOST", "0.0.0.0", "not loopback", id="an address for everybody"),
        pytest.param("BALEEN_HOST", "example.com", "not loopback", id="a name"),
        pytest.param("BALEEN_POLICY", "x", "is not a setting; there are", id="a misspelt variable"),
    ],
)
def test_a_wrong_value_names_its_variable(variable, value, why):
    with pytest.raises(InvalidError, match=why) as caught:
        Settings.from_env({variable: value})

    assert [problem.field for problem in caught.value.problems] == [variable]


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(InvalidError) as caught:
        Settings.from_env({"BALEEN_PORT": "x", "BALEEN_DURABILITY": "y", "BALEEN_Z": "z"})

    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False)]
)
def test_loopback_is_told_from_all_else(host, expected):
    assert is_loopback(host) is expected
