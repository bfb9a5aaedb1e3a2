"""Settings out of environment variables: what each kind of text is read as, and what is said of any other."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.environment import (
    json_reader,
    read_level,
    read_names,
    read_pause,
    read_port,
    read_positive,
    read_seconds,
    read_tenants,
    read_url,
    read_urls,
    read_variables,
)

READERS = {"port": read_port, "folder": Path, "wait_seconds": read_seconds}


def test_a_variable_of_the_prefix_is_read_into_the_field_of_its_name() -> None:
    env = {"APP_PORT": "81", "APP_FOLDER": "/srv", "APP_WAIT_SECONDS": "0.5"}

    assert read_variables(env, "APP_", READERS) == ({"port": 81, "folder": Path("/srv"), "wait_seconds": 0.5}, [])


def test_what_does_not_begin_with_the_prefix_is_nobodys_business() -> None:
    assert read_variables({"PORT": "x", "XAPP_PORT": "y", "app_port": "z"}, "APP_", READERS) == ({}, [])


def test_a_variable_that_is_no_setting_is_named_with_those_there_are() -> None:
    values, (problem,) = read_variables({"APP_PROT": "81"}, "APP_", READERS)

    assert (values, problem.field) == ({}, "APP_PROT")
    assert problem.message == "is not a setting; there are APP_FOLDER, APP_PORT, APP_WAIT_SECONDS"


def test_a_variable_in_lower_case_is_a_typo_too() -> None:
    _, (problem,) = read_variables({"APP_port": "81"}, "APP_", READERS)

    assert problem.field == "APP_port"


def test_a_variable_of_another_program_is_passed_over() -> None:
    assert read_variables({"APP_CACHE": "x"}, "APP_", READERS, {"APP_CACHE"}) == ({}, [])


def test_each_wrong_value_is_named_and_the_others_are_read() -> None:
    env = {"APP_PORT": "x", "APP_WAIT_SECONDS": "0", "APP_FOLDER": "/srv"}
    values, problems = read_variables(env, "APP_", READERS)

    assert values == {"folder": Path("/srv")}
    assert [str(problem) for problem in problems] == [
        "APP_PORT: 'x' is not valid: invalid literal for int() with base 10: 'x'",
        "APP_WAIT_SECONDS: '0' is not valid: it must be above 0 and below 86400 seconds",
    ]


@given(env=st.dictionaries(st.sampled_from(["APP_PORT", "APP_WAIT_SECONDS", "APP_PROT", "HOME"]), st.text(max_size=6)))
def test_whatever_is_written_each_variable_of_the_prefix_is_a_value_or_a_problem(env: dict[str, str]) -> None:
    values, problems = read_variables(env, "APP_", READERS)

    read = {f"APP_{name.upper()}" for name in values}
    wrong = [problem.field for problem in problems]
    assert sorted([*read, *wrong]) == sorted(name for name in env if name.startswith("APP_"))


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        pytest.param(read_positive, "1", 1, id="the least"),
        pytest.param(read_port, "0", 0, id="any port"),
        pytest.param(read_port, "65535", 65535, id="the last port"),
        pytest.param(read_seconds, "86399.5", 86399.5, id="nearly a day"),
        pytest.param(read_names, " a, b ,,", ("a", "b"), id="names"),
        pytest.param(read_names, "", (), id="no names"),
        pytest.param(read_pause, "0", 0.0, id="no pause"),
        pytest.param(read_pause, "2.5", 2.5, id="a pause"),
        pytest.param(read_url, " https://gateway.example:8081/ ", "https://gateway.example:8081", id="an address"),
        pytest.param(read_url, "http://[fd00::7]:8081", "http://[fd00::7]:8081", id="an address of IPv6"),
        pytest.param(read_url, "http://gateway/base", "http://gateway/base", id="an address with a path"),
        pytest.param(read_url, " ", "", id="no address"),
        pytest.param(read_urls, "http://a:1/, https://b", ("http://a:1", "https://b"), id="addresses"),
        pytest.param(read_urls, "", (), id="no addresses"),
        pytest.param(read_level, "DEBUG", "DEBUG", id="a level"),
        pytest.param(read_tenants, '{"shop": ["acme", "acme"]}', {"shop": frozenset({"acme"})}, id="tenants"),
        pytest.param(read_tenants, "", {}, id="no tenants"),
    ],
)
def test_a_text_is_read_as_its_kind(reader: Any, text: str, value: object) -> None:
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "text", "said"),
    [
        pytest.param(read_positive, "0", "it must be 1 or more", id="nothing"),
        pytest.param(read_positive, "1.5", "1.5", id="no whole number"),
        pytest.param(read_port, "-1", "a port is 0 to 65535", id="below all ports"),
        pytest.param(read_port, "65536", "a port is 0 to 65535", id="above all ports"),
        pytest.param(read_seconds, "0", "above 0 and below 86400", id="no time"),
        pytest.param(read_pause, "-1", "above 0 and below 86400", id="less than no pause"),
        pytest.param(read_seconds, "86400", "above 0 and below 86400", id="a day"),
        pytest.param(read_seconds, "nan", "above 0 and below 86400", id="not a number"),
        pytest.param(read_url, "gateway:8081", "is no address such as http://", id="no scheme"),
        pytest.param(read_url, "ftp://gateway", "is no address such as http://", id="another scheme"),
        pytest.param(read_url, "http://", "is no address such as http://", id="no host"),
        pytest.param(read_url, "/", "is no address such as http://", id="a path alone"),
        pytest.param(read_url, "http://gate way", "is no address such as http://", id="a blank in it"),
        pytest.param(read_url, "http://gate\tway", "is no address such as http://", id="a tab in it"),
        pytest.param(read_url, "http://☃.example", "is no address such as http://", id="not ASCII"),
        pytest.param(read_url, "http://gateway:http", "http", id="a port that is no number"),
        pytest.param(read_url, "http://gateway:99999", "ort out of range", id="a port beyond all ports"),
        pytest.param(read_url, "http://gateway:0", "is no address such as http://", id="any port"),
        pytest.param(read_url, "http://[::1", "IPv6", id="half an address of IPv6"),
        pytest.param(read_url, "http://[::g]", "::g", id="no address of IPv6"),
        pytest.param(read_urls, "http://a,b", "'b' is no address", id="one of several"),
        pytest.param(read_level, "debug", "DEBUG, INFO, WARNING or ERROR", id="no level"),
        pytest.param(read_tenants, "shop=acme", 'such as {"team-a": ["acme"]}', id="no JSON"),
        pytest.param(read_tenants, '{"shop": "acme"}', 'such as {"team-a": ["acme"]}', id="JSON of another shape"),
        pytest.param(read_tenants, "[]", 'such as {"team-a": ["acme"]}', id="a list"),
        pytest.param(json_reader("[1]", list[int]), '["a"]', "write JSON such as [1]: ", id="JSON of another type"),
    ],
)
def test_any_other_text_is_refused_with_what_would_be_right(reader: Any, text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        reader(text)

    assert said in str(caught.value)


@given(url=st.text(max_size=20).map("http://{}".format) | st.text(max_size=20))
def test_an_address_is_read_or_refused_and_reading_it_again_changes_nothing(url: str) -> None:
    try:
        read = read_url(url)
    except ValueError:
        return
    assert read_url(read) == read
