"""docs/studies: the published tables follow from result.json, which alone holds the scores of single runs."""

import re
from pathlib import Path

import pytest
import study_tables

STUDIES = sorted(file.parent for file in (Path(__file__).parents[2] / "docs/studies").rglob("result.json"))


def rows(markdown: str) -> list[list[str]]:
    """The first number of each cell without its interval, or the cell's words, after the header's row."""
    lines = [line.strip("|").split("|") for line in markdown.splitlines() if line.startswith("|")]
    body = [[cell.strip(" *") for cell in line] for line in lines if not set("".join(line)) <= set("-: ")]
    return [[re.sub(r" *(±|\().*$", "", cell) for cell in line] for line in body]


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: str(folder.relative_to(STUDIES[0].parents[1])))
def test_the_means_on_the_page_follow_from_the_scores(folder):
    page = rows((folder / "README.md").read_text())
    again = rows("\n\n".join(study_tables.tables(folder)))
    assert len(page) == len(again) >= 4
    added = [i for i, name in enumerate(again[0]) if name not in page[0]]  # columns of newer versions
    for old, new in zip(page, again, strict=True):
        assert old == [cell for i, cell in enumerate(new) if i not in added or len(new) != len(again[0])]


def test_a_changed_score_is_noticed(tmp_path):
    folder = STUDIES[0]
    text = (folder / "result.json").read_text()
    value = re.search(r'"value": (0\.\d+)', text)
    assert value is not None
    (tmp_path / "result.json").write_text(text.replace(value[0], '"value": 0.99'))
    assert study_tables.tables(tmp_path) != study_tables.tables(folder)
