"""The command line as a user meets it: as a process where it begins, ends and is ended, else called."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.options import TINY_RUN, words
from lamina.cli.entry import main
from lamina.runs.run import Run
from lamina.train.rows import CLOCK_FIELDS

DATA = "sample:photos?crop=16&most=6"
OPTIONS = TINY_RUN | {"batch-size": 16, "encoder.depth": 3, "train.log-every-steps": 5}
TINY = words(OPTIONS)


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def lamina(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lamina", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(),
    )


def called(*args: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported everything."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(arg) for arg in args])
    return subprocess.CompletedProcess(list(args), code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("cli") / "run"
    words = ["pretrain", DATA, "--out", out, "--max-steps", 20, *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lamina", *map(str, words)])  # what environment.json keeps
        done = called(*words)
    assert done.returncode == 0, done.stderr
    assert "finished: step 20 of 20" in done.stdout
    assert str(out / "report.html") in done.stdout
    return out


@pytest.fixture
def photos(tmp_path) -> Path:
    """A labelled folder of files with awkward names."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(("a b", "<b>bold</b>")):
        for i in range(12):
            folder = tmp_path / "photos" / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 120, (20, 24, 3)) + 120 * c
            Image.fromarray(pixels.astype("uint8")).save(folder / f"ümlaut {i} & co.png")
    return tmp_path / "photos"


def test_a_run_leaves_what_it_promises(run):
    names = {p.name for p in run.iterdir()}
    promised = {"recipe.yaml", "environment.json", "metrics.jsonl", "train.log", "checkpoints", "encoder"}
    assert promised | {"report.html", "pictures"} <= names
    assert [row["step"] for row in Run(run).metrics()] == [5, 10, 15, 20]
    assert "lamina pretrain 'sample:photos" in json.loads((run / "environment.json").read_text())["command"]


def test_terminated_and_resumed_equals_uninterrupted(tmp_path):
    out, whole = tmp_path / "killed", tmp_path / "whole"
    args = ["pretrain", DATA, "--max-steps", "80", *TINY]
    command = [sys.executable, "-m", "lamina", *args, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 120
    while not Run(out).metrics() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "go on with --resume" in printed
    resumed = called("pretrain", DATA, "--out", out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert called(*args, "--out", whole).returncode == 0
    last = "checkpoints/step-80/model.safetensors"
    assert (out / last).read_bytes() == (whole / last).read_bytes()
    assert unclocked(out) == unclocked(whole)


def unclocked(run: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in CLOCK_FIELDS} for row in Run(run).metrics()]


def test_evaluate_report_export_reconstruct_and_embed(run, photos, tmp_path):
    probe = called("evaluate", "linear", run, photos, "--json", tmp_path / "linear.json", "--workers", 0)
    assert probe.returncode == 0, probe.stderr
    result = json.loads((tmp_path / "linear.json").read_text())
    assert {row["encoder"] for row in result["rows"]} == {"trained", "untrained", "pixels"}
    assert {row["features"] for row in result["rows"]} == {"last", "fused", "pixels"}
    assert "untrained" in probe.stdout
    kept = list((run / "results").glob("linear-*.json"))
    assert len(kept) == 1
    page = (run / "report.html").read_text()
    assert photos.name in page
    assert "<b>bold</b>" not in page

    vectors = ["--features", "last", "layers", "--layers", 0, 2, "--pools", "mean", "cls+mean"]
    kept = ["--cache", tmp_path / "cache", "--workers", 0]
    for said in ("features of 24 images in ", "features from the cache in "):
        knn = called("evaluate", "knn", run, photos, *vectors, *kept)
        assert knn.returncode == 0, knn.stderr
        assert not knn.stderr  # no bar where nobody watches
        for name in ("untrained", "pixels", "block 2", "blocks 0+2", "cls+mean", said):
            assert name in knn.stdout
    own = called("evaluate", "knn", run, photos, "--leave-one-out", "--k", 3, "--workers", 0)
    assert own.returncode == 0, own.stderr
    assert "24 training and 24 test images" in own.stdout
    assert "leave-one-out" in (run / "report.html").read_text()

    compare = called("report", run, run, "--out", tmp_path / "compare.html")
    assert compare.returncode == 0, compare.stderr
    assert (tmp_path / "compare.html").read_text().startswith("<!")

    export = called("export", run, "--to", "timm", "--out", tmp_path / "vit.safetensors")
    assert export.returncode == 0, export.stderr
    settings = json.loads(next(tmp_path.glob("vit*.json")).read_text())
    vit = timm.create_model(settings["architecture"], **settings["model_args"])
    vit.load_state_dict(load_file(tmp_path / "vit.safetensors"), strict=True)

    pictures = called("reconstruct", run, *sorted(photos.rglob("*.png"))[:2], "--out", tmp_path / "pictures")
    assert pictures.returncode == 0, pictures.stderr
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    assert "mean and deviation of the true patch" in pictures.stdout

    embed = called("embed", run, photos, "--out", tmp_path / "features.npz", "--pool", "cls", "--workers", 0)
    assert embed.returncode == 0, embed.stderr
    with np.load(tmp_path / "features.npz") as saved:
        assert saved["features"].shape == (24, 24)
        assert len(saved["names"]) == 24

    on = called(
        "pretrain",
        photos,
        "--out",
        tmp_path / "on",
        "--init",
        tmp_path / "vit.safetensors",
        "--max-steps",
        2,
        *TINY,
    )
    assert on.returncode == 0, on.stderr


def test_data_check_lists_bad_files(photos, capsys, tmp_path):
    assert main(["data", "check", str(photos)]) == 0
    (photos / "a b" / "broken.jpg").write_bytes(b"\xff\xd8 this is no JPEG")
    for i in range(12):
        (photos / "a b" / f"empty-{i}.png").touch()
    assert main(["data", "check", str(photos), "--json", str(tmp_path / "check.json")]) == 1
    assert "broken.jpg" in capsys.readouterr().out
    assert json.loads((tmp_path / "check.json").read_text())


def test_bad_files_are_survived_and_named(photos, tmp_path):
    (photos / "a b" / "<img src=x onerror=alert(1)>.jpg").write_bytes(b"no image")
    done = called("pretrain", photos, "--out", tmp_path / "run", "--max-steps", 4, *TINY)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "onerror" in page
    assert "<img src=x" not in page
    assert Run(tmp_path / "run").metrics()[-1]["faults"] >= 1


WRONG = [
    (["evaluate", "knn", "nowhere", "sample:photos"], "there is no encoder"),
    (["pretrain", "nowhere", "--out", "OUT"], "there is no"),
    (["pretrain", "EMPTY", "--out", "OUT"], "no images"),
    (["pretrain", "--out", "OUT"], "DATA"),
    (["pretrain", "sample:cats", "--out", "OUT"], "sample:photos"),
    (["pretrain", "sample:photos", "--out", "OUT", "--recipe", "nonesuch"], "choose one of"),
    (["pretrain", "sample:photos", "--out", "OUT", "--epochs", "many"], "many"),
    (["pretrain", "sample:photos", "--out", "OUT", "--fusion", "maybe"], "'none', 'mff'"),
    (["pretrain", "sample:photos", "--out", "OUT", "--fusion.layers", "0", "3"], "the last of them 11"),
    (["pretrain", "sample:photos", "--out", "OUT", "--encoder", "resnet50"], "resnet50"),
    (["pretrain", "sample:photos", "--out", "OUT", "--image-size", "100"], "multiple of the patch"),
    (["pretrain", "sample:photos", "--out", "OUT", "--mask-ratio", "1.5"], "above 0 and below 1"),
    (["pretrain", "sample:photos", "--out", "OUT", "--device", "warp"], "warp"),
    (["pretrain", "sample:photos", "--out", "OUT", "--in-chans", "5"], "channels"),
    (["pretrain", "sample:photos", "--out", "OUT", "--init", "nowhere.safetensors"], "nowhere.safetensors"),
    (["pretrain", "sample:photos", "--out", "OUT", "--config", "nowhere.yaml"], "cannot be read"),
    (["pretrain", "sample:photos", "--out", "FULL"], "is not a run"),
    (["pretrain", "sample:photos", "--out", "OUT", "--nonsense", "1"], "--nonsense"),
    (["report", "EMPTY"], "is not a run"),
    (["reconstruct", "EMPTY", "x.png", "--out", "OUT"], "is not a run"),
    (["export", "EMPTY", "--out", "OUT.safetensors"], "run"),
    (["embed", "EMPTY", "sample:photos", "--out", "OUT.npz"], "EMPTY"),
    (["dance"], "no verb"),
    (["evaluate"], "knn, linear"),
    (["evaluate", "knn", "x", "sample:photos", "--features", "best"], "'last', 'fused', 'layers'"),
]


@pytest.mark.parametrize(
    ("args", "says"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_makes_no_sense_gets_one_line_and_exit_code_2(args, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "thesis.txt").write_text("precious")
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("lamina: ")
    assert says in captured.err
    assert not (tmp_path / "OUT").exists()


def test_help_is_complete_and_does_not_wait_for_torch():
    code = (
        "import sys; from lamina.cli.entry import main; main(['--help']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in (
        "pretrain",
        "evaluate knn",
        "evaluate linear",
        "reconstruct",
        "embed",
        "data check",
        "data pack",
        "report",
        "export",
    ):
        assert f"lamina {verb}" in done.stdout


def test_pretrain_help_names_what_users_reach_for(capsys):
    assert main(["pretrain", "--help"]) == 0
    text = capsys.readouterr().out
    for name in [
        "recipe",
        "encoder",
        "image-size",
        "patch-size",
        "in-chans",
        "mean",
        "std",
        "fusion",
        "mask-ratio",
        "epochs",
        "max-steps",
        "batch-size",
        "base-lr",
        "workers",
        "device",
        "precision",
        "seed",
        "checkpoint-every-steps",
        "dry-run",
        "resume",
        "overwrite",
        "init",
        "config",
    ]:
        assert f"--{name}" in text


def test_dry_run_shows_the_plan_and_writes_nothing(capsys, tmp_path):
    out = tmp_path / "run"
    assert main(["pretrain", DATA, "--out", str(out), "--dry-run", "--epochs", "3", *TINY]) == 0
    text = capsys.readouterr().out
    assert "fusion:" in text
    assert "steps of 16" in text
    assert "MiB in fp32 for 16 images" in text
    assert not out.exists()


def test_all_three_ways_to_set_an_option_together(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("fusion: {projection: mlp, layers: [1, 2]}\ntrain: {epochs: 9}\n")
    args = [
        "pretrain",
        DATA,
        "--out",
        str(tmp_path / "run"),
        "--dry-run",
        "--config",
        str(tmp_path / "c.yaml"),
        *words({name: value for name, value in OPTIONS.items() if name != "fusion.layers"}),
    ]
    assert main([*args, "--fusion", "mff", "--epochs", "2", "--fusion.layers", "0", "2"]) == 0
    text = capsys.readouterr().out
    assert "projection: mlp" in text
    assert "epochs: 2.0" in text
    assert "layers:\n  - 0\n  - 2\n" in text


def test_python_has_the_same_names(tmp_path):
    import lamina as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    outcome = package.pretrain(
        DATA,
        tmp_path / "run",
        "demo",
        max_steps=1,
        batch_size=4,
        workers=0,
        fusion="none",
        image_size=16,
        seed=3,
    )
    assert outcome.reason == "finished"
    backbone = package.load_encoder(tmp_path / "run")
    assert torch.isfinite(backbone(torch.rand(1, 3, 16, 16)).patches).all()
