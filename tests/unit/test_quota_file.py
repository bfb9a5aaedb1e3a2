"""The file of quotas: what it said when it was last in order counts, and what is wrong with it is named."""

from pathlib import Path

import pytest
import yaml

from baleen_core.errors import InvalidError
from baleen_sidecar.adapters.quota_file import QuotaFile

PHOTOS = {"name": "photos", "per": "Author", "limit": 30, "windowSeconds": 86400}


def write(path: Path, *quotas: object) -> Path:
    path.write_text(yaml.safe_dump({"quotas": list(quotas)}))
    return path


def test_a_wrong_edit_leaves_the_last_good_quotas_until_it_is_right(tmp_path: Path) -> None:
    path = write(tmp_path / "quotas.yaml", PHOTOS)
    file = QuotaFile(path)
    file.load()
    write(path, PHOTOS | {"limit": 0})
    with pytest.raises(InvalidError) as caught:
        file.load()

    assert [problem.field for problem in caught.value.problems] == [f"{path}: quotas[0].limit"]
    assert [quota.limit for quota in file.current()] == [30]
    assert not file.component().healthy
    write(path, PHOTOS | {"limit": 31})
    file.load()
    assert [quota.limit for quota in file.current()] == [31]
    assert file.component().healthy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("- photos\n", "is a list, not a mapping with the list `quotas`", id="a list"),
        pytest.param("quotas: [", "line", id="cut off"),
        pytest.param("", "it is empty", id="empty"),
    ],
)
def test_what_is_no_file_of_quotas_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "quotas.yaml"
    path.write_text(text)

    with pytest.raises(InvalidError, match=words):
        QuotaFile(path).load()
