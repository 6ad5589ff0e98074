"""The examples of `docs/extend` work: a copy of the package gets their files and rows, and runs their commands.

A block with a title is a file: `python` is the whole of it, `diff` adds the lines with a plus to those that it
has already. The numbers that come out are compared with other ways to compute them.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid

import lamina
from lamina.analyze.models import open_models
from lamina.core.batch import Batch
from lamina.evaluate.result_files import read_scores
from lamina.features.data import open_labelled
from lamina.runs.run import load_method

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/extend").glob("*.md"))
BLOCK = re.compile(r'^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.M | re.S)
RUN = """
import contextlib, io, os, sys, json
from pathlib import Path
import lamina
from lamina.cli.entry import main
assert Path(lamina.__file__).is_relative_to(sys.argv[1]), lamina.__file__
said, pages = {}, json.loads(sys.argv[2])
for page, commands in pages.items():
    os.makedirs(page)
    os.chdir(page)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        codes = []
        for words in commands:
            sys.argv[:] = ["lamina", *words]
            codes.append(main(words))
    said[page] = {"codes": codes, "out": out.getvalue()}
    os.chdir("..")
Path("said.json").write_text(json.dumps(said))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is of, its text."""

    kind: str
    title: str | None
    code: str


def blocks(page: Path) -> list[Block]:
    return [Block(match["kind"], match["title"], match["code"]) for match in BLOCK.finditer(page.read_text())]


def add(block: Block, root: Path) -> None:
    """Write a new file, or the lines of a diff behind those that the file has exactly once."""
    assert block.title is not None
    file = root / block.title
    if block.kind == "python":
        assert not file.exists(), f"{block.title} is said to be new"
        file.write_text(block.code)
        return
    lines = block.code.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] == " ")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text()
    assert text.count(before) == 1, f"{block.title} does not have these lines once: {before}"
    file.write_text(text.replace(before, after))


def commands(page: Path) -> list[list[str]]:
    """The words of each command, without the `lamina` in front."""
    lines = [line for block in blocks(page) if block.kind == "sh" for line in block.code.splitlines()]
    assert all(line.startswith("lamina ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A folder with the package as all pages extend it, a folder for each page's commands, and what they said."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for page in PAGES:
        for block in blocks(page):
            if block.title is not None:
                add(block, root)
    asked = json.dumps({page.stem: commands(page) for page in PAGES})
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(root), asked],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root


def said(extended: Path, page: str) -> str:
    return str(json.loads((extended / "said.json").read_text())[page]["out"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_and_print_its_output(page, extended):
    told = json.loads((extended / "said.json").read_text())[page.stem]
    assert set(told["codes"]) == {0}, told["out"]

    def words(line: str) -> str:
        """Without widths of columns; decimals differ a little between machines."""
        return re.sub(r"\d+\.\d+", "#", " ".join(line.split()))

    printed = {words(line) for line in told["out"].splitlines()}
    shown = [line for block in blocks(page) if block.kind == "text" for line in block.code.splitlines()]
    assert shown
    for line in shown:
        assert words(line) in printed, f"{line}\nis not in\n{told['out']}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_lists_the_files_that_it_touches(page):
    listed = re.findall(r"^\| `(src/[^`]+)` \| (new|changed)", page.read_text(), re.M)
    touched = {(b.title, "new" if b.kind == "python" else "changed") for b in blocks(page) if b.title}
    assert set(listed) == touched
    assert len(touched) <= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_of_a_page_is_passed_over(page):
    assert "```" not in BLOCK.sub("", page.read_text())
    assert {block.kind for block in blocks(page)} <= {"python", "diff", "sh", "text"}


def test_a_diff_that_does_not_fit_is_refused(tmp_path):
    (tmp_path / "rows.py").write_text("ROWS = (\n)\n")
    fits = Block("diff", "rows.py", " ROWS = (\n+    1,\n")
    add(fits, tmp_path)
    assert (tmp_path / "rows.py").read_text() == "ROWS = (\n    1,\n)\n"
    with pytest.raises(AssertionError, match="does not have these lines once"):
        add(Block("diff", "rows.py", " OTHER = (\n+    1,\n"), tmp_path)


def test_the_method_hides_all_but_a_rectangle_and_takes_absolute_differences(extended):
    method, _ = load_method(extended / "method/runs/mae-l1")
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, keys=torch.arange(6))
    with torch.no_grad():
        made = method.predict(batch)
        loss = method(batch)["loss"]
    visible = ~made.mask.reshape(6, 8, 8)
    assert (visible.sum(dim=(1, 2)) == 16).all()
    for grid in visible:
        rows = grid[grid.any(dim=1)]
        assert (
            len(rows) * rows.any(dim=0).sum() - 16 < rows.any(dim=0).sum()
        )  # only the last row may be shorter
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    cells = ((images - mean) / std).unfold(2, 8, 8).unfold(3, 8, 8)  # B C rows columns 8 8
    patches = cells.permute(0, 2, 3, 4, 5, 1).reshape(6, 64, -1)
    patches = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    hidden = patches.gather(1, made.where[..., None].expand(-1, -1, patches.shape[-1]))
    assert torch.allclose(loss, (made.values - hidden).abs().mean(), rtol=1e-5)


def test_the_analysis_measures_what_hooks_on_the_blocks_see(extended):
    run = extended / "analysis/runs/try"
    found = json.loads((run / "analyses/norms.json").read_text())["result"]["models"]["try"]
    model = open_models([str(run)], "sample:photos?crop=32&most=4")["try"]
    seen: dict[int, list[torch.Tensor]] = {}
    vit = model.backbone.encoder.vit
    for i, block in enumerate(vit.blocks):
        block.register_forward_hook(lambda _, __, out, i=i: seen.setdefault(i, []).append(out[:, 1:]))
    with torch.no_grad():
        for batch in model.batches:
            model.backbone.encoder(batch.images, [len(vit.blocks) - 1])
    expected = [
        float((torch.cat(seen[i]).double() ** 2).sum(-1).sqrt().mean()) for i in range(len(vit.blocks))
    ]
    assert found["n_images"] == len(torch.cat(seen[0]))
    assert np.allclose(found["norms"], expected, rtol=1e-5)


def test_the_analysis_is_in_the_table_and_in_the_report(extended):
    run = extended / "analysis/runs/try"
    norms = json.loads((run / "analyses/norms.json").read_text())["result"]["models"]["try"]["norms"]
    row = next(line for line in said(extended, "analysis").splitlines() if line.startswith("try "))
    assert row.split()[2:] == [f"{norm:.2f}" for norm in (norms[0], norms[-1], max(norms))]
    assert "Norm of the patch tokens" in (run / "report.html").read_text()


def test_the_protocol_agrees_with_scikit_learn(extended, tmp_path):
    data, folder = "sample:photos?crop=32&most=4", extended / "protocol"
    lamina.embed(folder / "runs/try", data, tmp_path / "all.npz", features="last", pool="mean", workers=0)
    written = np.load(tmp_path / "all.npz")
    row = {name: i for i, name in enumerate(written["names"])}
    labelled = open_labelled(data)
    train, test = ([row[part.name(i)] for i in range(len(part))] for part in (labelled.train, labelled.test))
    centroids = NearestCentroid().fit(written["features"][train].astype(float), written["labels"][train])
    expected = centroids.score(written["features"][test].astype(float), written["labels"][test])
    (file,) = (folder / "compared/scores/nearest-mean").iterdir()
    (score,) = read_scores(file)
    assert (score.n_train, score.n_test, score.value) == (len(train), len(test), pytest.approx(expected))
    assert 0 < expected < 1


def test_the_sample_has_the_digits_of_scikit_learn(extended):
    written = np.load(extended / "sample/digits.npz")
    numbers = [int(name.removeprefix("digit-")) for name in written["names"]]
    assert sorted(numbers) == list(range(1797))
    assert np.array_equal(written["labels"], load_digits().target[numbers])
    module = module_at(extended / "src/lamina/data/samples/digits.py")
    held_out = module.open_digits("most=7", "val")
    assert [held_out.name(i) for i in range(len(held_out))] == [f"digit-{i:04d}" for i in range(4, 39, 5)]
    for i, image in enumerate(load_digits().images[4:39:5]):
        assert np.array_equal(held_out.read(i)[0].numpy(), 15 * image)


def module_at(file: Path) -> Any:
    """A module by its file, which imports the package of these tests."""
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[file.stem]
    return module
