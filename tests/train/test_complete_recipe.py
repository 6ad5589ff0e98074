"""What a dry run shows and refuses is what the run is made of and refuses: both complete one recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lamina.cli.entry import main
from lamina.core.config import merge, to_mapping
from lamina.recipes.recipe import Recipe
from lamina.runs.run import Run
from lamina.runs.same_settings import free_names

TINY = [
    "--encoder",
    "vit_tiny_patch16_224",
    "--image-size",
    "32",
    "--encoder.depth",
    "1",
    "--encoder.width",
    "24",
    "--encoder.heads",
    "2",
    "--fusion",
    "none",
    "--decoder.depth",
    "1",
    "--decoder.width",
    "16",
    "--decoder.heads",
    "2",
    "--batch-size",
    "4",
    "--max-steps",
    "1",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--monitor.images",
    "0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images; all pixels are 51 / 255 = 0.2 in the first channel, 102 / 255 = 0.4 in the others."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(8):
        pixels = np.full((32, 32, 3), 102, np.uint8)
        pixels[..., 0] = 51
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def shown(text: str) -> Recipe:
    """The recipe that a dry run prints as YAML, before what it says in sentences."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("name: "))
    stop = next(i for i, line in enumerate(lines) if " images, " in line and " steps of " in line)
    return merge(Recipe(), yaml.safe_load("\n".join(lines[start:stop])))


def test_a_dry_run_shows_the_recipe_that_the_run_writes(folder: Path, tmp_path: Path, capsys) -> None:
    call = ["pretrain", str(folder), "--out", str(tmp_path / "run"), *TINY, "--mean", "auto", "--std", "auto"]
    assert main([*call, "--dry-run"]) == 0
    planned = shown(capsys.readouterr().out)
    assert planned.encoder.mean == (0.2, 0.4, 0.4)  # of the images, by hand
    assert planned.encoder.std == (1.0, 1.0, 1.0)  # channels without contrast
    assert not (tmp_path / "run").exists()
    assert main(call) == 0
    assert to_mapping(Run(tmp_path / "run").recipe()) == to_mapping(planned)
    capsys.readouterr()
    # The run is there: a resume may not have another seed, and may not read other images.
    assert main([*call, "--resume", "--dry-run"]) == 0
    for words, said in ((["--seed", "1"], "train.seed"), (["--init", "timm/vit_tiny_patch16_224"], "init")):
        assert main([*call, "--resume", "--dry-run", *words]) == 2
        assert f"these differ: {said}" in capsys.readouterr().err
    elsewhere = tmp_path / "images"
    elsewhere.mkdir()
    (elsewhere / "0.png").write_bytes((folder / "0.png").read_bytes())
    assert main(["pretrain", str(elsewhere), *call[2:], "--resume", "--dry-run"]) == 2
    assert "the 1 of now are not the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoder", "beit_base_patch16_224"], "hide 'drop' does not fit a Beit"),
        (["--encoder.init-channels", "mean"], "give --init too"),
    ],
)
def test_a_dry_run_refuses_parts_that_the_run_refuses(
    words: list[str], said: str, folder: Path, tmp_path: Path, capsys
) -> None:
    for further in (["--dry-run"], []):
        call = ["pretrain", str(folder), "--out", str(tmp_path / "run"), *TINY, *words, *further]
        assert main(call) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_dry_run_reads_an_image(tmp_path: Path, capsys) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"no image")
    call = ["pretrain", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *TINY, "--dry-run"]
    assert main(call) == 2
    assert "none of the first 1 images can be read" in capsys.readouterr().err


def test_what_a_resume_may_change_is_not_in_the_weights() -> None:
    """By name: how images are read, where is computed, how the weights are held, where, how and how often is
    saved, and what is measured; nothing else."""
    free = free_names(Recipe())
    assert set(free) == {
        "data.workers",
        "data.prefetch_batches",
        "data.worker_timeout_seconds",
        "data.bad_files_max_share",
        "data.bad_files_min",
        "train.device",
        "train.shard",
        "train.checkpoint_async",
        "train.checkpoint_every_steps",
        "train.checkpoint_every_seconds",
        "train.keep_checkpoints",
        "train.nonfinite_limit",
        "train.tensorboard",
        "monitor.images",
        "monitor.knn_data",
        "monitor.every_steps",
    }
