"""The verbs `lamina analyze NAME`: from runs to files, page and table, and what they refuse."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lamina
from helpers.options import TINY_NETWORK, as_read
from lamina.cli.demo import analyze_demo
from lamina.cli.entry import main
from lamina.cli.progress import AnalysisBar
from lamina.interop import load as loading
from lamina.report.page import write_report

TINY = TINY_NETWORK | {"train.max_steps": 3, "data.workers": 0}
VERBS = {
    "layers": [],
    "frequency": ["--images", "8"],
    "attention": ["--images", "8"],
    "similarity": ["--images", "8"],
    "rank": ["--images", "8"],
    "depth": ["--images", "10"],
    "patches": ["--images", "8", "--num-shown", "2"],
    "retrieval": ["--images", "8", "--queries", "2", "--k", "2"],
    "reconstruction": ["--images", "8"],
    "hessian": ["--batches", "2", "--batch-size", "2", "--top", "2", "--tol", "0.01"],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Two classes of noise, light and dark, in train/ and val/."""
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part in ("train", "val"):
        for label in range(2):
            folder = root / part / "ab"[label]
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = draw.integers(100 * label, 100 * label + 100, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory) -> dict[str, str]:
    """The same images and options with fusion and without."""
    root = tmp_path_factory.mktemp("runs")
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 8}
    for name in ("mff", "none"):
        options = {**as_read("mae-small", TINY, name), "fusion.kind": name, "train.log_every_steps": 1}
        lamina.pretrain(str(images), root / name, "mae-small", **sizes, options=options)
    return {name: str(root / name) for name in ("mff", "none")}


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_keeps_its_analysis_and_shows_it(verb, runs, capsys):
    assert main(["analyze", verb, runs["mff"], *VERBS[verb]]) == 0
    printed = capsys.readouterr().out
    run = Path(runs["mff"])
    file = run / "analyses" / f"{verb}.json"
    content = json.loads(file.read_text())
    assert content["command"].startswith("lamina")
    assert content["summary"]["rows"][0][0] == "mff"
    assert all(cell in printed for cell in content["summary"]["rows"][0])
    assert all(str(file.with_suffix(suffix)) in printed for suffix in (".json", ".png", ".svg"))
    with Image.open(file.with_suffix(".png")) as picture:
        assert picture.width > 600
    assert f'id="analysis-{verb}"' in (run / "report.html").read_text()


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"layers"}))
def test_several_models_are_measured_together(verb, runs, images, tmp_path):
    models, data = list(runs.values()), ["--data", str(images)]
    assert main(["analyze", verb, *models, *data, *VERBS[verb], "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / f"{verb}.json").read_text())
    named = {cell for row in content["summary"]["rows"] for cell in row[:2]}
    assert {"mff", "none"} <= named
    assert f'id="analysis-{verb}"' in (tmp_path / "index.html").read_text()


def test_steps_of_a_run_and_its_twin_before_training_are_told_apart(runs, tmp_path):
    models = [runs["none"], f"untrained:{runs['none']}", f"{runs['none']}@3"]
    assert main(["analyze", "attention", *models, "--images", "4", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "attention.json").read_text())["result"]["models"]
    assert list(found) == ["none", "untrained:none", "none@3"]
    assert found["none"] == found["none@3"] != found["untrained:none"]


def test_weights_files_and_timm_names_are_models_too(runs, images, tmp_path, monkeypatch):
    """An export says what its run says; of a timm name the weights would be fetched, here they are not."""
    assert main(["export", runs["none"], "--to", "timm", "--out", str(tmp_path / "vit.safetensors")]) == 0
    monkeypatch.setattr(loading.timm, "create_model", partial(offline, loading.timm.create_model))
    models = [runs["none"], str(tmp_path / "vit.safetensors"), "timm/vit_tiny_patch16_224"]
    asked = ["--data", str(images), "--images", "3", "--out", str(tmp_path / "out")]
    assert main(["analyze", "attention", *models, *asked]) == 0
    found = json.loads((tmp_path / "out" / "attention.json").read_text())["result"]["models"]
    run, file, named = found.values()
    assert run == file
    assert (named["grid"], len(named["layers"])) == ([14, 14], 12)


def offline(create, *args, pretrained=False, **kwargs):
    return create(*args, pretrained=False, **kwargs)


def test_layers_of_several_runs_stand_side_by_side(runs, tmp_path):
    both = []
    for name in ("one", "two"):
        both.append(str(shutil.copytree(runs["mff"], tmp_path / name)))
    assert main(["analyze", "layers", *both, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "layers.json").read_text())["result"]["runs"]
    assert list(found) == ["one", "two"]


def test_the_demo_shows_layers_frequency_and_depth(runs, images, tmp_path):
    run = Path(shutil.copytree(runs["mff"], tmp_path / "run"))
    shutil.rmtree(run / "analyses", ignore_errors=True)
    analyze_demo(run, str(images))
    assert {file.stem for file in (run / "analyses").glob("*.json")} == {"layers", "frequency", "depth"}
    write_report([run], run / "report.html")
    page = (run / "report.html").read_text()
    assert all(f'id="analysis-{verb}"' in page for verb in ("layers", "frequency", "depth"))


def test_the_curvature_of_what_fine_tuning_left(runs, images, tmp_path):
    """Classification loss, of a classifier that came from a pre-trained run."""
    run = str(shutil.copytree(runs["none"], tmp_path / "run"))
    out = tmp_path / "tuned"
    tuned = ["--out", str(out), "--epochs", "1", "--data.workers", "0", "--train.device", "cpu"]
    assert main(["evaluate", "finetune", run, str(images), *tuned]) == 0
    asked = [
        "--batches",
        "2",
        "--batch-size",
        "4",
        "--top",
        "1",
        "--weight-decay",
        "0.05",
        "--crops",
        "train",
    ]
    assert main(["analyze", "hessian", str(out), *asked, "--tol", "0.01"]) == 0
    content = json.loads((out / "analyses" / "hessian.json").read_text())
    (found,) = content["result"]["models"].values()
    assert len(found) == 2
    assert all(0.1 < batch["loss"] < 3 for batch in found)  # about log 2: two classes


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("frequency", "name at least one model"),
        ("frequency {mff} {mff}", "named twice"),
        ("frequency {mff} {none}", "give --out"),
        ("frequency vit_tiny_patch16_224 --out {out}", "give --data"),
        ("frequency nowhere --data {data} --out {out}", "nowhere"),
        ("frequency {mff} --images 0", "images is 0"),
        ("frequency {mff} --data {out}/nothing", "nothing"),
        ("layers {none}", "fus"),
        ("layers {mff}@3", "is a step"),
        ("layers vit_tiny_patch16_224 --out {out}", "vit_tiny_patch16_224"),
        ("hessian {mff} --batches 0", "batches is 0; it must be 1 or more"),
        ("hessian {mff} --batch-size 4 --batches 40", "need 160 images"),
        ("hessian vit_tiny_patch16_224 --data {data} --out {out}", "vit_tiny_patch16_224"),
        ("retrieval {mff} --images 8 --k 8", "at most 7 neighbours"),
        ("patches {mff} --images 4 --at 9 0", "9"),
        ("depth {mff} --data {data}/train/a", "class"),
        ("similarity {mff} --images 2", "images"),
    ],
)
def test_what_makes_no_sense_gets_one_line_and_writes_nothing(line, said, runs, images, tmp_path, capsys):
    words = line.format(**runs, data=images, out=tmp_path).split()
    assert main(["analyze", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert "\n" not in told
    assert not list(tmp_path.iterdir())


def test_a_terminal_sees_how_far_it_is_and_a_file_does_not(capsys, monkeypatch):
    with AnalysisBar() as bar:
        bar("mff: images", 4, 8)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with AnalysisBar() as bar:
        for what in ("mff: images", "none: images"):
            for done in (4, 8):
                bar(what, done, 8)
                bar._progress.refresh()
    with AnalysisBar() as curved:
        curved("mini-batch", 0, 2, "ti: 7 products, residual 2.5e-01")
        curved._progress.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "ti: 7 products, residual 2.5e-01" in shown
    for line in ("mff: images 4/8", "mff: images 8/8", "none: images 4/8"):
        assert line in shown
