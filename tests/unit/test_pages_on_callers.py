"""What the pages on keys and tokens tell people to write and to type."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from baleen_core.accounts import parse_accounts
from baleen_core.api_keys import is_key
from baleen_sidecar.adapters.key_file import read_key_list, read_keys
from baleen_sidecar.flow.door import RIGHTS, right_for
from baleen_sidecar.settings import Settings
from commands import baleen
from pages import ROOT, blocks

KEYS, TOKENS = (ROOT / f"docs/howto/{name}.md" for name in ("api-keys", "tokens"))


def test_the_file_of_keys_on_the_page_is_one(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(blocks(KEYS, "yaml")[0])
    said = read_key_list(tmp_path / "keys.yaml")

    (key,) = said.keys
    assert (key.name, key.tenant, key.top_priority.title) == ("shop", "acme", "High")
    assert [str(limit) for limit in (*key.limits, *key.tenant_limits)] == [
        "50 requests per second (200 at once)",
        "100000 requests per day (100000 at once)",
        "500 requests per second (500 at once)",
    ]


def test_the_commands_on_the_page_make_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks(KEYS, "sh") for line in block.splitlines() if "keys create" in line]
    for command in commands:
        words, _, into = command.partition(" > ")
        ended = baleen(*shlex.split(words)[1:])
        assert ended.status == 0, ended.errors
        assert is_key(ended.output.strip())
        assert into.endswith(".key")

    assert [key.name for key in read_keys(tmp_path / "keys.yaml")] == ["shop", "moderators", "checkout"]


def test_the_roles_on_the_page_are_those_that_routes_need() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", KEYS.read_text(), re.MULTILINE))
    named = {role: re.findall(r"`(?:[A-Z]+ )?(/[^`]+)`", said) for role, said in rows.items()}
    below = {path.split("/")[2] for paths in named.values() for path in paths}

    assert {path: right_for(path).role for paths in named.values() for path in paths} == {
        path: role for role, paths in named.items() for path in paths
    }
    assert RIGHTS.keys() - {"decisions"} <= below
    assert {"breakers", "cache", "governor", "queue", "status"} <= below


def test_the_settings_on_the_page_are_settings() -> None:
    said = dict(re.findall(r"(BALEEN_\w+)=(\S+)", blocks(TOKENS, "sh")[0]))
    settings = Settings.from_env(said)

    assert settings.jwt_keys == "https://id.example/keys"
    assert {"BALEEN_JWT_KEYS", "BALEEN_JWT_ISSUER", "BALEEN_JWT_TENANT_CLAIM"} <= set(said)


def test_the_file_of_accounts_on_the_page_is_one() -> None:
    volumes, accounts = (yaml.safe_load(block) for block in blocks(TOKENS, "yaml"))
    (source,) = volumes["volumes"][0]["projected"]["sources"]

    assert source["serviceAccountToken"]["audience"] == "baleen"
    assert [account.name for account in parse_accounts(accounts)] == ["shop/app"]
