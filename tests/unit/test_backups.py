"""Which backups have had their time: laws of their names alone."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.backups import find_outdated, name_of, time_of

NOW = datetime(2026, 3, 31, 3, 0, tzinfo=UTC)
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(
    lambda time: time.replace(tzinfo=UTC, microsecond=0)
)


def days_ago(*days: float) -> list[str]:
    return [name_of(NOW - timedelta(days=each)) for each in days]


def test_those_that_are_older_than_the_days_to_keep_go():
    names = days_ago(0, 1, 29, 30, 30.01, 31, 400)

    assert find_outdated(names, names[0], 30) == tuple(sorted(names[4:]))


@pytest.mark.parametrize(
    "name", ["20260301T030000Z.db.sha256", "20260301T030000Z.db.part", "notes.txt", "20261301T030000Z.db", ""]
)
def test_what_is_no_backup_is_left_alone(name: str):
    assert time_of(name) is None
    assert find_outdated([name], name_of(NOW), 1) == ()


def test_without_a_new_one_none_goes():
    assert find_outdated(days_ago(1, 400), "20260331T030000Z.db.part", 30) == ()


@given(times, st.integers(-12, 14))
def test_a_name_is_its_time_in_utc(time: datetime, hours: int):
    assert time_of(name_of(time.astimezone(timezone(timedelta(hours=hours))))) == time


@given(st.lists(times), times, st.integers(1, 400))
def test_the_newest_stays_and_so_does_all_that_is_young_enough(others: list[datetime], newest: datetime, days: int):
    names = {name_of(each) for each in (*others, newest)}
    outdated = set(find_outdated(names, name_of(newest), days))
    kept = {time_of(name) for name in names - outdated}

    assert newest in kept
    assert {each for each in others if each >= newest - timedelta(days=days)} <= kept
    assert all(each is not None and each >= newest - timedelta(days=days) for each in kept)
