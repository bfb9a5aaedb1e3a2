"""`baleen policy backtest` and `suggest` over a state folder, beside which nothing runs."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from baleen_core.model.parse import parse_model_deployment
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.store import SqliteDecisionLog, SqliteRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.policy_documents import Document, Documents
from commands import baleen
from evidence import decide_by, make_evidence
from serving import policy, reviewing_from
from store_files import make_database
from word_model import write_word_model

LIST = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "words", "namespace": "trust-safety"},
    "data": {"words.txt": "badword"},
}
LISTED = {"name": "words", "type": "Terms", "action": "Block"} | {
    "source": {"type": "ConfigMap", "name": "words", "key": "words.txt"}
}


def category(review: str, block: str) -> dict[str, Any]:
    return {"name": "rudeness", "signals": [{"name": "words.score", "review": review, "block": block}]}


class Folders:
    """The folders of an installation that has decided on 1,000 texts, with a score of 0%, 0.1%, …, 99.9%."""

    def __init__(self, root: Path) -> None:
        self.state, self.models, self.root = root / "state", root / "models", root
        self.state.mkdir()
        self.models.mkdir()
        manifest = write_word_model(self.models)
        (self.models / "models.yaml").write_text(yaml.safe_dump(manifest))
        asyncio.run(self._decide(manifest))

    async def _decide(self, manifest: dict[str, Any]) -> None:
        database = make_database(self.state)
        models = parse_model_deployment(manifest).models
        with ThreadPoolExecutor(1) as executor:
            adopt = AdoptPolicies(SqliteRevisionStore(database), models, executor=executor, wall_seconds=lambda: 0.0)
            snapshot = await adopt.adopt(Documents(documents=(Document(file="a.yaml", body=policy()),)))
        (loaded,) = snapshot.policies
        async with SqliteDecisionLog(database) as log, asyncio.TaskGroup() as group:
            for index in range(1000):
                evidence = make_evidence({"words.score": index * 1000}, type="text", language="en")
                decision = decide_by(loaded.compiled, evidence=evidence)
                record = DecisionRecord(id=f"d-{index}", time="", evidence=evidence, decision=decision)
                group.create_task(log.append(record))

    def run(self, command: str, *manifests: dict[str, Any], **options: Any) -> Any:
        """Run a command on a file of these manifests."""
        file = self.root / "draft.yaml"
        file.write_text(yaml.safe_dump_all(manifests))
        given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        return baleen("policy", command, file, "--state", self.state, "--models", self.models, *given)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("backtest"))


def rows(output: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]


def test_a_backtest_shows_flips_with_examples_and_where_they_are(folders: Folders) -> None:
    ended = folders.run("backtest", policy(categories=[category("40%", "95%")]))

    assert (ended.status, ended.errors) == (0, "")
    kinds = rows(ended.output)
    assert [row[:3] for row in kinds if row[0] in ("Allow", "Block")] == [
        ["Allow", "Review", "100"],
        ["Block", "Review", "50"],
    ]
    assert ["rudeness", "150", "0", "0", "1,000"] in kinds
    assert ["en", "150", "0", "0", "1,000"] in kinds
    assert "1,000 decisions compared: 15.00% come out differently, 0.00% newly blocked" in ended.output


def test_a_backtest_in_json_has_what_the_http_face_answers(folders: Folders) -> None:
    file = folders.root / "json.yaml"
    file.write_text(yaml.safe_dump(reviewing_from("50%")))
    ended = baleen("policy", "backtest", file, "--state", folders.state, "--models", folders.models, "--json")

    answer = json.loads(ended.output)

    assert [(flip["from"], flip["to"], flip["count"]) for flip in answer["flips"]] == [("Block", "Review", 100)]
    assert (answer["policy"], answer["ended"], answer["new_allow_rate"]) == ("trust-safety/community", "EndOfLog", 0.0)


@pytest.mark.parametrize(
    ("limits", "status", "said"),
    [
        pytest.param({"max_flip_rate": "15%", "decisions": 1000}, 0, "Pass: 15% of 1,000", id="holds"),
        pytest.param({"max_flip_rate": "14.9%", "decisions": 1000}, 1, "Fail (TooManyFlips): 15% of", id="does not"),
        pytest.param({"max_new_blocks": "0%", "decisions": 1000}, 0, "Pass", id="no new blocks"),
        pytest.param({"max_flip_rate": "15%"}, 1, "Inconclusive (TooFewDecisions): ", id="too few decisions"),
        pytest.param({"max_flip_rate": "2"}, 1, "--max-flip-rate: '2' is not a ratio", id="no ratio"),
    ],
)
def test_limits_decide_how_a_backtest_ends(folders: Folders, limits: dict[str, Any], status: int, said: str) -> None:
    ended = folders.run("backtest", policy(categories=[category("40%", "95%")]), **limits)

    assert ended.status == status
    assert said in (ended.output if status == 0 else ended.problems[0])


def test_a_list_that_was_not_looked_up_is_named(folders: Folders) -> None:
    ended = folders.run("backtest", LIST, policy(lists=[LISTED]))

    assert ended.status == 0
    assert "900 could not be compared, since the list words was not looked up then" in ended.errors
    assert "100 decisions compared" in ended.output


@pytest.mark.parametrize(
    ("manifests", "said"),
    [
        pytest.param(
            [policy("other")],
            "policy trust-safety/other is not in force; on record are trust-safety/commu",
            id="another",
        ),
        pytest.param([policy(), policy("other")], "has 2 policies; name a file with one", id="two"),
        pytest.param(
            [policy(lists=[LISTED])], "policy.spec.policy.lists[0].source: there is no ConfigMap", id="no list"
        ),
    ],
)
def test_what_cannot_be_compared_is_said(folders: Folders, manifests: list[dict[str, Any]], said: str) -> None:
    ended = folders.run("backtest", *manifests)

    assert (ended.status, ended.output) == (1, "")
    assert said in ended.problems[0]


def test_a_threshold_is_suggested_that_blocks_no_more_than_is_wanted(folders: Folders) -> None:
    ended = folders.run("suggest", policy(), max_block_rate="1%")

    assert (ended.status, ended.errors) == (0, "")
    assert ["rudeness", "words.score", "90%", "98.9001%", "10", "1,000"] in rows(ended.output)

    again = folders.run(
        "backtest", policy(categories=[category("50%", "98.9001%")]), max_new_blocks="0%", decisions=1000
    )
    assert again.status == 0


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        pytest.param("0.5%", "the log is too small for 0.5%: a signal needs 2,000 scores of it", id="too few"),
        pytest.param("0%", "--max-block-rate: must be above 0%", id="nothing"),
        pytest.param("one", "--max-block-rate: 'one' is not a ratio", id="no ratio"),
    ],
)
def test_where_nothing_can_be_suggested_it_is_said_why(folders: Folders, rate: str, said: str) -> None:
    ended = folders.run("suggest", policy(), max_block_rate=rate)

    assert ended.status == 1
    assert said in ended.problems[0]
