"""What the pages about other products' clients, and about batches, tell people to type is typed here."""

import re
from pathlib import Path
from typing import Any

import pytest

from baleen_sidecar.flow.translation import OPENAI, PERSPECTIVE, Translation
from baleen_sidecar.settings import Settings
from baleen_sidecar.testing import FixedInference
from faces import MODERATE_KEY, TOXICITY, policy, write_keys
from pages import ROOT, blocks, run_script
from sidecars import RunningSidecar, StartSidecar

OPENAI_PAGE, PERSPECTIVE_PAGE = (
    ROOT / f"docs/howto/use-{name}.md" for name in ("the-openai-client", "perspective-clients")
)
HTTP_PAGE = ROOT / "docs/reference/http.md"
ADDRESS = "http://127.0.0.1:8080"


@pytest.fixture
def running(start_sidecar: StartSidecar, tmp_path: Path) -> RunningSidecar:
    return start_sidecar(
        policies={"all.yaml": [policy()]},
        inference=FixedInference({TOXICITY: 0.6}),
        api_keys_file=write_keys(tmp_path / "keys.yaml"),
    )


def here(running: RunningSidecar, text: str) -> str:
    assert ADDRESS in text
    return text.replace(ADDRESS, str(running.client.base_url).rstrip("/"))


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        pytest.param(OPENAI_PAGE, ["True 0.6", "True 0.6", "Review"], id="OpenAI"),
        pytest.param(PERSPECTIVE_PAGE, ["0.6 Review"], id="Perspective"),
    ],
)
def test_the_python_of_a_page_works(
    running: RunningSidecar, monkeypatch: pytest.MonkeyPatch, capsys: Any, page: Path, printed: list[str]
) -> None:
    monkeypatch.setenv("BALEEN_API_KEY", MODERATE_KEY)

    exec(here(running, "".join(blocks(page, "python"))), {})

    assert capsys.readouterr().out.splitlines() == printed


@pytest.mark.parametrize(
    ("page", "said"),
    [
        pytest.param(PERSPECTIVE_PAGE, ['"summaryScore":{"value":0.6,"type":"PROBABILITY"}'], id="Perspective"),
        pytest.param(
            HTTP_PAGE, ['"counts":{"allow":0,"review":1,"block":0,"refused":1}', "items[1].content.text"], id="batches"
        ),
    ],
)
def test_the_commands_of_a_page_work(running: RunningSidecar, tmp_path: Path, page: Path, said: list[str]) -> None:
    (tmp_path / "shop.key").write_text(MODERATE_KEY)
    (command,) = (block for block in blocks(page, "sh") if "curl" in block)
    # The page on HTTP leaves the key to the page on keys.
    keyed = command if "X-API-Key" in command else command.replace("curl ", 'curl -H "X-API-Key: $(cat shop.key)" ')

    done = run_script(here(running, keyed), tmp_path)

    assert done.returncode == 0, done.stderr
    assert [words for words in said if words not in done.stdout] == []


@pytest.mark.parametrize("page", [OPENAI_PAGE, PERSPECTIVE_PAGE], ids=["OpenAI", "Perspective"])
def test_the_settings_of_a_page_are_valid(page: Path) -> None:
    found = dict(re.findall(r"export (BALEEN_\w+)='(.*)'", "".join(blocks(page, "sh"))))

    assert found
    Settings.from_env(found)


@pytest.mark.parametrize(
    ("page", "translation"),
    [pytest.param(OPENAI_PAGE, OPENAI, id="OpenAI"), pytest.param(PERSPECTIVE_PAGE, PERSPECTIVE, id="Perspective")],
)
def test_the_table_of_a_page_is_what_is_translated(page: Path, translation: Translation) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ((?:`[a-z-]+`(?:, )?)+) \|$", page.read_text(), re.MULTILINE)

    assert {name: tuple(re.findall("`(.*?)`", ours)) for name, ours in rows} == dict(translation)
