"""A decision that was acknowledged survives the process that acknowledged it, and the chain of the log holds."""

import random
import sqlite3
import time
from pathlib import Path
from threading import Timer

import append_for_ever
from baleen_core.decision_chain import Head
from baleen_sidecar.adapters.store import SqliteDecisionReader, verify_log
from store_files import check_integrity

ROUNDS = 10
_WHOLE = "SELECT id FROM decisions WHERE personal_digest IS NULL EXCEPT "


def acknowledge_until_killed(folder: Path, prefix: str, seconds: float) -> list[str]:
    """Run the process, kill it so long after its first acknowledgement, and return all of those."""
    with append_for_ever.Appender(folder, prefix) as process:
        first = process.stdout.readline()
        killing = Timer(seconds, process.kill)
        killing.start()
        lines = [first, *process.stdout]
        killing.join()
    assert process.returncode == -9
    return [line.strip() for line in lines if line.endswith("\n")]


async def read_ids(path: Path) -> set[str]:
    """Return the ids of all decisions, after reading the newest of them whole."""
    reader = SqliteDecisionReader(path)
    newest = await reader.recent(limit=200)
    reader.close()
    connection = sqlite3.connect(path)
    kept = {decision_id for (decision_id,) in connection.execute("SELECT id FROM decisions")}
    connection.close()
    assert {record.id for record in newest} <= kept
    return kept


def read_strays(path: Path) -> list[str]:
    """Return what is not as one transaction left it: keys and debts of no decision, and decisions without theirs."""
    connection = sqlite3.connect(path)
    found = [
        *connection.execute("SELECT decision_id FROM idempotency_keys EXCEPT SELECT id FROM decisions"),
        *connection.execute("SELECT decision_id FROM rescan_debts EXCEPT SELECT id FROM decisions"),
        *connection.execute(_WHOLE + "SELECT decision_id FROM idempotency_keys"),
        *connection.execute(_WHOLE + "SELECT decision_id FROM rescan_debts"),
    ]
    connection.close()
    return [name for (name,) in found]


async def test_no_acknowledged_decision_is_missing_after_kill_9_under_load(tmp_path: Path) -> None:
    chance = random.Random(time.time_ns())
    acknowledged: list[str] = []
    heads: list[Head] = []
    for number in range(ROUNDS):
        acknowledged += acknowledge_until_killed(tmp_path, f"round-{number}", chance.uniform(0.02, 0.4))

        kept = await read_ids(tmp_path / "baleen.db")
        assert set(acknowledged) - kept == set()
        assert check_integrity(tmp_path / "baleen.db") == "ok"
        assert read_strays(tmp_path / "baleen.db") == []
        found = verify_log(tmp_path / "baleen.db", heads)
        assert found.fault is None
        assert found.rows == len(kept)
        heads.append(found.head)
    assert found.erased > 0
    assert len(acknowledged) > ROUNDS * append_for_ever.APPENDERS
    assert len(set(acknowledged)) == len(acknowledged)
