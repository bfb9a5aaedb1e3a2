import pytest

import publish
from baleen_bench.form import Aim, judge

AIMS = {"decide": {"ratio": Aim(what="a ratio", goal=">= 0.4"), "other": Aim(what="something else")}}
RESULTS = {
    "decide": {
        "script": "decide",
        "commit": "abc",
        "date": "2026-01-02",
        "machine": {"cpus": 2, "memory_gib": 24, "python": "3", "kernel": "6", "steal": 0.01, "other_load": 0.02},
        "figures": [
            {
                "id": "ratio",
                "value": 0.62,
                "unit": "ratio",
                "goal": ">= 0.4",
                "spread": [0.58, 5170.0],
                "noise": 0.05,
                "verdict": "met",
            }
        ],
    }
}


def test_the_page_says_what_was_measured():
    page = publish.render_page(RESULTS, AIMS)

    assert "| `ratio` | a ratio | 0.62 ratio | 0.58 to 5,170 | 5.0% | ≥ 0.4 | met |" in page
    assert "| `decide` | abc | 2026-01-02 | 2 CPUs, 24 GiB, Python 3, Linux 6 | 1.0% | 2.0% |" in page


def test_what_is_not_measured_is_called_that():
    (line,) = [line for line in publish.render_page(RESULTS, AIMS).splitlines() if "`other`" in line]
    (row,) = [line for line in publish.render_summary({}, AIMS).splitlines() if "`ratio`" in line]

    assert publish.NOT_MEASURED in line
    assert publish.NOT_MEASURED in row


def test_the_readme_has_each_figure_with_a_goal_and_no_other():
    summary = publish.render_summary(RESULTS, AIMS)

    assert "| `ratio` | a ratio | 0.62 ratio | ≥ 0.4 | met |" in summary
    assert "`other`" not in summary


def test_a_table_replaces_what_was_between_the_markers_and_nothing_else():
    text = f"above\n{publish.BEGIN}\nold\n{publish.END}\nbelow\n"

    once = publish.fill(text, "| new |", name="a file")

    assert once == f"above\n{publish.BEGIN}\n| new |\n{publish.END}\nbelow\n"
    assert publish.fill(once, "| new |", name="a file") == once


@pytest.mark.parametrize(
    "text",
    ["", publish.BEGIN, f"{publish.END}{publish.BEGIN}", f"{publish.BEGIN}{publish.BEGIN}{publish.END}"],
    ids=["none", "no end", "wrong way round", "two beginnings"],
)
def test_a_file_without_its_markers_is_refused(text):
    with pytest.raises(ValueError, match=r"README\.md must have one"):
        publish.fill(text, "", name="README.md")


def test_the_published_numbers_are_the_measured_ones():
    stale = [path.name for path, text, wanted in publish.texts() if text != wanted]

    assert stale == [], "run bench/publish.py"


def test_kept_results_have_only_figures_that_their_script_declares_and_verdicts_that_follow():
    aims = publish.aims()
    for script, kept in publish.read_results().items():
        for figure in kept["figures"]:
            assert figure["goal"] == aims[script][figure["id"]].goal
            assert figure["verdict"] == judge(figure["value"], figure["goal"], figure["noise"])
