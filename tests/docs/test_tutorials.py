"""Every tutorial's commands run, in order and at a tiny size.

Blocks of a page that are fenced as `sh` or `python` are executed; `<!-- not run: REASON -->` above one leaves
it out. Options of `TINY` are added to each command, and samples are made small.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from lamina.cli.entry import main

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "getting-started.md", *sorted((DOCS / "tutorials").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
READING = ["--workers", "0"]
SHALLOW = ["--encoder.depth", "6"]
"""Half the blocks, for pages that start from random weights alone."""
TINY = {
    "pretrain": shlex.split(
        "--max-steps 2 --batch-size 4 --workers 0 --encoder vit_tiny_patch16_224 "
        "--image-size 32 32 --patch-size 8 --decoder.width 32 --decoder.depth 1 --monitor.images 0"
    ),
    "evaluate finetune": shlex.split("--max-steps 2 --batch-size 4 --workers 0"),
    "evaluate knn": READING,
    "evaluate linear": [*READING, "--c", "1"],
    "evaluate all": [*READING, "--seeds", "1"],
    "embed": READING,
    "analyze frequency": READING,
    "analyze retrieval": READING,
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks that are executed: their language and their text."""
    found = [match for match in BLOCK.finditer(page.read_text()) if match["reason"] is None]
    assert {match["kind"] for match in found} <= {"sh", "python"}, "name a language, or say why it is not run"
    return [(match["kind"], match["code"]) for match in found]


def run_commands(code: str, pretraining: Sequence[str] = ()) -> None:
    """Each line of a block of commands; a line that ends with a backslash goes on with the next one.
    `pretraining` are further options of `lamina pretrain`."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "lamina", f"only commands of lamina are run: {line}"
        tiny = next((TINY[verb] for verb in TINY if line.startswith(f"lamina {verb} ")), [])
        more = pretraining if words[1] == "pretrain" else ()
        assert main([*small(words[1:]), *tiny, *more]) == 0, line


def small(words: list[str]) -> list[str]:
    """A command's words on few images, and without a length: `TINY` has one."""
    if "--epochs" in words:
        at = words.index("--epochs")
        words = words[:at] + words[at + 2 :]
    return [re.sub(r"^sample:photos.*", "sample:photos?crop=32&most=2", word) for word in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    pretraining = [] if "--init" in page.read_text() else SHALLOW  # other weights have a depth of their own
    for kind, code in blocks(page):
        if kind == "sh":
            run_commands(code, pretraining)
        else:
            exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_command_of_a_page_is_passed_over(page):
    """A block by indentation, or a fence with attributes, would not be found."""
    outside = BLOCK.sub("", page.read_text())
    assert "```" not in outside
    assert not re.search(r"^    ", outside, re.M)
    assert sum(kind == "sh" for kind, _ in blocks(page)) >= 3


def test_a_command_that_fails_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="report nothing-there"):
        run_commands("lamina report nothing-there\n")
