"""`baleen keys create`: the key goes to whoever asked for it, its hash into the file, and nothing else anywhere."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from baleen_core.api_keys import KeyRole, hash_key, is_key, parse_keys
from baleen_core.priority import Priority
from baleen_sidecar.adapters.key_file import read_keys
from commands import baleen


def test_without_a_file_the_key_and_its_entry_are_printed() -> None:
    ended = baleen("keys", "create", "shop", "--tenant", "acme", "--role", "review", "--role", "moderate")
    key, said = ended.output.split("\n", 1)
    (entry,) = parse_keys(yaml.safe_load(said))

    assert (ended.status, ended.errors) == (0, "")
    assert is_key(key)
    assert key not in said
    assert (entry.name, entry.sha256, entry.tenant) == ("shop", hash_key(key), "acme")
    assert entry.roles == {KeyRole.MODERATE, KeyRole.REVIEW}
    assert entry.expire_time is None


def test_a_key_may_moderate_and_nothing_else_unless_told() -> None:
    (entry,) = parse_keys(yaml.safe_load(baleen("keys", "create", "shop").output.split("\n", 1)[1]))

    assert (entry.roles, entry.tenant) == ({KeyRole.MODERATE}, None)


def test_a_key_may_be_urgent_and_bounded_and_what_tenants_may_stays_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    tenants = [{"name": "acme", "limits": [{"requests": 5, "per": "Second", "burst": 5}]}]
    file.write_text(yaml.safe_dump({"keys": [], "tenants": tenants}))
    limits = ("--limit", "100000/Day", "--limit", "50/Second:200")
    ended = baleen("keys", "create", "shop", "--tenant", "acme", "--top-priority", "Critical", *limits, "--file", file)
    (entry,) = read_keys(file)

    assert (ended.status, entry.top_priority) == (0, Priority.CRITICAL)
    assert [str(limit) for limit in (*entry.limits, *entry.tenant_limits)] == [
        "50 requests per second (200 at once)",
        "100000 requests per day (100000 at once)",
        "5 requests per second (5 at once)",
    ]
    assert yaml.safe_load(file.read_text())["tenants"] == tenants


def test_each_key_is_another_one() -> None:
    assert len({baleen("keys", "create", "shop").output.split("\n")[0] for _ in range(20)}) == 20


def test_with_a_file_the_entry_is_added_to_it_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    ended = [baleen("keys", "create", name, "--file", link, "--expire", "90d") for name in ("shop", "shop", "chat")]
    shown = [each.output.strip() for each in ended]
    found = read_keys(file)

    assert [each.status for each in ended] == [0, 0, 0]
    assert [(key.name, key.sha256) for key in found] == list(
        zip(("shop", "shop", "chat"), map(hash_key, shown), strict=True)
    )
    assert all(key.expire_time is not None for key in found)
    assert all(abs(key.expire_time - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5) for key in found)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [file, link]
    assert not any(key in file.read_text() + each.errors for key in shown for each in ended)


def test_a_file_that_is_wrong_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n- name: shop\n")
    ended = baleen("keys", "create", "chat", "--file", file)

    assert (ended.status, ended.output) == (1, "")
    assert f"{file}: keys[0].sha256: is required" in ended.problems
    assert file.read_text() == "keys:\n- name: shop\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ended = baleen("keys", "create", "shop", "--file", tmp_path / "absent/keys.yaml")

    assert (ended.status, ended.output) == (1, "")
    assert ended.problems == [f"{tmp_path / 'absent/keys.yaml'} cannot be written: No such file or directory"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        pytest.param(("My Shop",), "name", id="no name"),
        pytest.param(("shop", "--tenant", "*"), "tenant", id="all tenants"),
        pytest.param(("shop", "--expire", "2027-01-31"), "expireTime", id="a day without its zone"),
        pytest.param(("shop", "--expire", "soon"), "expireTime", id="no time"),
        pytest.param(("shop", "--expire", "2020-01-31T18:00:00Z"), "expireTime", id="a time that has passed"),
        pytest.param(("shop", "--top-priority", "Urgent"), "topPriority", id="no priority"),
        pytest.param(("shop", "--limit", "50"), "limits[0]", id="a limit without a window"),
        pytest.param(("shop", "--limit", "50/hour"), "limits[0].per", id="a window that is none"),
        pytest.param(("shop", "--limit", "0/Day"), "limits[0].requests", id="no requests"),
        pytest.param(("shop", "--expire", "0d"), "expireTime", id="now"),
        pytest.param(("shop", "--expire", "99999999d"), "expireTime", id="beyond all years"),
    ],
)
def test_a_key_that_could_not_be_good_is_not_made(arguments: tuple[str, ...], field: str) -> None:
    ended = baleen("keys", "create", *arguments)

    assert (ended.status, ended.output) == (1, "")
    assert [problem.partition(":")[0] for problem in ended.problems] == [field]


def test_a_role_that_is_none_is_a_usage_error() -> None:
    ended = baleen("keys", "create", "shop", "--role", "root")

    assert (ended.status, ended.output) == (2, "")
