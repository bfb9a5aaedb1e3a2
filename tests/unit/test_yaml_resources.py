"""A folder of YAML is read as Kubernetes would read it, and a hostile file is a problem with a name."""

import os
from pathlib import Path

import pytest

from baleen_sidecar.adapters.resources import read_folder

POLICY = "kind: ModerationPolicy\nmetadata: {name: a}\n"


def problem_of(folder: Path) -> str:
    found = read_folder(folder)
    assert not found.documents
    (problem,) = found.problems
    return str(problem)


def test_all_documents_of_all_files_are_read_in_order(tmp_path):
    (tmp_path / "b.yaml").write_text("kind: B\n---\nkind: C\n---\n")
    (tmp_path / "a.json").write_text('{"kind": "A"}')
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "d.yml").write_text("kind: D")
    (tmp_path / "notes.txt").write_text("not yaml: [")

    found = read_folder(tmp_path)

    assert [(each.file, each.body["kind"]) for each in found.documents] == [
        ("a.json", "A"),
        ("b.yaml", "B"),
        ("b.yaml", "C"),
        ("nested/d.yml", "D"),
    ]
    assert not found.problems


def test_a_mounted_configmap_is_read_once(tmp_path):
    """Kubernetes mounts a folder of links into `..data`, which is a link itself."""
    (tmp_path / "..2026_11_23").mkdir()
    (tmp_path / "..2026_11_23" / "policy.yaml").write_text(POLICY)
    (tmp_path / "..data").symlink_to("..2026_11_23")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")

    assert [each.file for each in read_folder(tmp_path).documents] == ["policy.yaml"]


def test_a_date_stays_the_text_that_it_is(tmp_path):
    (tmp_path / "a.yaml").write_text("kind: K\nwhen: 2026-11-23\nyes: no\n".replace("yes: no", "answer: no"))
    body = read_folder(tmp_path).documents[0].body

    assert body["when"] == "2026-11-23"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("kind: [", "line 2, column 1", id="broken"),
        pytest.param("kind: K\nkind: L\n", "line 2, column 1: the key 'kind' is there twice", id="a key twice"),
        pytest.param("a: {b: 1, b: 2}", "the key 'b' is there twice", id="a key twice further in"),
        pytest.param(
            "1: one", "line 1, column 1: the key '1' is not a string; put it in quotes", id="a number for a key"
        ),
        pytest.param("on: off", "the key 'on' is not a string", id="a boolean for a key"),
        pytest.param("a: &x [1]\nb: *x\n", "alias", id="an alias"),
        pytest.param("a: &x {b: *x}\n", "alias", id="an alias to itself"),
        pytest.param("base: &x {k: 1}\nkind: {<<: *x}\n", "alias", id="a merge"),
        pytest.param("- kind: K", "a document is a list, not a resource", id="a list"),
        pytest.param("just text", "a document is a str", id="text"),
        pytest.param("a: !!python/object/apply:os.system [id]", "could not determine a constructor", id="code"),
        pytest.param("a: \x07", "control characters are not allowed", id="a control character"),
    ],
)
def test_a_file_that_is_no_resource_says_where_and_why(tmp_path, text, why):
    (tmp_path / "wrong.yaml").write_text(text)

    problem = problem_of(tmp_path)

    assert problem.startswith("wrong.yaml: cannot be read: ")
    assert why in problem


def test_a_billion_laughs_are_refused_at_the_first(tmp_path):
    levels = [
        f"{name}: &{name} [{', '.join(['*' + below] * 9)}]" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (tmp_path / "laughs.yaml").write_text("a: &a [lol]\n" + "\n".join(levels))

    assert "alias" in problem_of(tmp_path)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "], ids=["lists", "mappings", "block lists"])
def test_nesting_without_end_is_refused_and_nothing_crashes(tmp_path, opening):
    (tmp_path / "deep.yaml").write_text(opening * 100_000)

    assert "cannot be read" in problem_of(tmp_path)


def test_what_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"kind: caf\xe9")

    assert "utf-8" in problem_of(tmp_path)


def test_a_file_over_the_limit_is_not_read(tmp_path):
    with (tmp_path / "large.yaml").open("wb") as file:
        os.ftruncate(file.fileno(), 65 * 1024 * 1024)

    assert "it has 68157440 bytes; the limit is 67108864" in problem_of(tmp_path)


def test_what_only_looks_like_a_file_is_passed_over(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / ".hidden.yaml").write_text(POLICY)

    found = read_folder(tmp_path)

    assert (found.documents, found.problems) == ((), ())


def test_one_bad_file_does_not_hide_the_good_ones(tmp_path):
    (tmp_path / "bad.yaml").write_text("[")
    (tmp_path / "good.yaml").write_text(POLICY)

    found = read_folder(tmp_path)

    assert [each.file for each in found.documents] == ["good.yaml"]
    assert [problem.field for problem in found.problems] == ["bad.yaml"]


def test_a_folder_that_is_not_there_is_a_problem_and_not_an_empty_folder(tmp_path):
    assert "is not a folder that can be read" in problem_of(tmp_path / "nowhere")
