"""Fields that had another name in earlier versions are still read under it, wherever a file has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.cli.entry import main
from lamina.core.config import current_names, flatten, merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.encoder.options import EncoderOptions
from lamina.recipes.recipe import Recipe
from lamina.runs.run import Run

BEFORE = {"encoder": {"start": "timm", "depth": 2}, "target": {"guide_sha256": "0" * 64}, "loss": "l1"}


def test_files_of_earlier_versions_are_read() -> None:
    recipe = merge(Recipe(), BEFORE)
    assert (recipe.encoder.weight_init, recipe.target.target_sha256) == ("timm", "0" * 64)
    assert merge(EncoderOptions(), {"start": "simmim"}).weight_init == "simmim"  # as exports have it
    with pytest.raises(
        LaminaError, match=r"encoder\.start cannot be 'odd'|encoder\.weight_init cannot be 'odd'"
    ):
        merge(Recipe(), {"encoder": {"start": "odd"}})


def test_a_mapping_is_brought_to_the_names_of_now_and_nothing_else_of_it_changes() -> None:
    now = current_names({**BEFORE, "foreign": {"start": 1}}, Recipe)
    assert flatten(now) == {
        "encoder.weight_init": "timm",
        "encoder.depth": 2,
        "target.target_sha256": "0" * 64,
        "loss": "l1",
        "foreign.start": 1,
    }
    whole = to_mapping(Recipe())
    assert current_names(whole, Recipe) == whole


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = (
        f"pretrain sample:photos?most=8 --out {tmp_path / 'run'} --encoder vit_tiny_patch16_224 --image-size 32 "
        "--encoder.depth 1 --encoder.width 24 --encoder.heads 2 --fusion none --decoder.depth 1 --max-steps 1 "
        "--decoder.width 16 --decoder.heads 2 --batch-size 4 --workers 0 --device cpu --monitor.images 0"
    ).split()
    assert main(call) == 0
    file = Run(tmp_path / "run").recipe_file
    text = file.read_text().partition("\n")[2]  # without its SHA-256
    old = text.replace("weight_init:", "start:").replace("target_sha256:", "guide_sha256:")
    assert old.count(" start:") == 1
    assert old.count(" guide_sha256:") == 1
    file.write_text(old)
    assert main([*call, "--resume"]) == 0
    assert main([*call, "--resume", "--encoder.weight-init", "timm"]) == 2
    assert "these differ: encoder.weight_init" in capsys.readouterr().err
