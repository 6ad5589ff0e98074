"""How images are read belongs to a run: resumes, evaluations, features and exports read them so again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from helpers.bad_files import arguments
from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.data.dense.open import open_maps
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.data.pack.write import pack
from lamina.evaluate.finetune.adapt import adapt_recipe
from lamina.evaluate.finetune.recipes import finetune_recipes
from lamina.features.embed import embed
from lamina.interop.export_run import export_run
from lamina.interop.load import load_encoder
from lamina.runs.run import Run

RNG = np.random.default_rng(0)
SAID = "pages=channels&scale=-500:1500&nodata=-9999"
KEPT = {"pages": "channels", "value_range": "-500:1500", "nodata": -9999.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of volumes of four depths, signed, with values beyond the range and without data."""
    made = tmp_path_factory.mktemp("volumes")
    for k in range(8):
        values = RNG.integers(-800, 1800, (4, 40, 40)).astype(np.int16)
        values[:, :3] = -9999
        (made / "ab"[k % 2]).mkdir(exist_ok=True)
        tifffile.imwrite(made / "ab"[k % 2] / f"{k}.tif", values, photometric="minisblack")
    return made


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on them, whose path says how they are read."""
    out = tmp_path_factory.mktemp("run") / "run"
    assert main([*arguments(Path(f"{folder}?{SAID}"), out, max_steps="2"), "--in-chans", "4"]) == 0
    return out


def options(path: Path) -> dict[str, object]:
    data = yaml.safe_load((path / "recipe.yaml").read_text())["recipe"]["data"]
    return {name: data[name] for name in KEPT}


def test_what_the_path_says_stands_in_the_recipe_and_is_said_at_the_start(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert options(run) == KEPT
    given = [*arguments(folder, tmp_path / "run", max_steps="1"), "--in-chans", "4", "--dry-run"]
    given += ["--data.pages", "channels", "--data.value-range", "-500:1500", "--data.nodata", "-9999"]
    assert main(given) == 0
    said = " ".join(capsys.readouterr().out.split())
    volumes = np.stack([tifffile.imread(file) for file in sorted(folder.rglob("*.tif"))]).astype(int)
    n_empty = int((volumes == -9999).sum())
    outside = int(((volumes < -500) | (volumes > 1500)).sum()) - n_empty
    assert (
        f"of 8 images looked at: 8 images: values outside of the range that becomes 0 to 1, clipped: {outside:,} of"
        in said
    )
    assert (
        f"filled by the mean of the others of their channel: {n_empty:,} of {volumes.size:,} values" in said
    )


def test_a_resume_goes_on_with_the_same_and_refuses_another(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def resumed(data: str, *more: str) -> int:
        return main([*arguments(Path(data), run, max_steps="2"), "--in-chans", "4", "--resume", *more])

    assert resumed(f"{folder}?{SAID}") == 0
    same = ("--data.pages", "channels", "--data.value-range", "-500.0:1.5e3")
    assert resumed(str(folder), *same, "--data.nodata", "-9999") == 0
    assert options(run) == KEPT
    capsys.readouterr()
    assert resumed(f"{folder}?{SAID.replace('1500', '1600')}") == 2
    assert "data.value_range" in capsys.readouterr().err
    assert resumed(f"{folder}?{SAID}", "--data.pages", "channels", "--data.value-range", "0:1") == 2
    assert "the path says scale=-500:1500" in capsys.readouterr().err


def test_features_and_exports_read_images_as_the_run_does(run: Path, folder: Path, tmp_path: Path) -> None:
    table = embed(str(run), str(folder), tmp_path / "a.npz", workers=0, device="cpu")
    features = np.load(tmp_path / "a.npz")["features"]
    again = np.load(tmp_path / "a.npz")
    assert KEPT.items() <= json.loads(str(again["about"]))["reading"].items()
    assert len(table.index) == 8
    exported = export_run(run, tmp_path / "exported")
    assert "data.pages channels, data.value_range -500:1500, data.nodata -9999.0" in str(exported)
    opened = load_encoder(tmp_path / "exported")
    assert {name: getattr(opened.origin.recipe.data, name) for name in KEPT} == KEPT  # type: ignore[union-attr]
    for model, spec in ((tmp_path / "exported", folder), (run, f"{folder}?{SAID}")):
        embed(str(model), str(spec), tmp_path / "b.npz", workers=0, device="cpu")
        assert np.array_equal(np.load(tmp_path / "b.npz")["features"], features)
    with pytest.raises(LaminaError, match=r"scale=0:1.*data\.value_range -500:1500"):
        embed(str(run), f"{folder}?scale=0:1", tmp_path / "c.npz", workers=0, device="cpu")


def test_a_training_that_starts_from_a_model_keeps_what_its_own_path_says(run: Path, folder: Path) -> None:
    source = open_source(f"{folder}?scale=0:4095")
    untrained = load_encoder("untrained:vit_tiny_patch16_224")
    recipe, _ = adapt_recipe(finetune_recipes()["finetune"](), untrained, source)
    assert recipe.data.value_range == "0:4095"
    with pytest.raises(LaminaError, match=r"data\.value_range -500:1500"):
        adapt_recipe(finetune_recipes()["finetune"](), load_encoder(run), source)


def test_a_run_of_before_fills_nothing(run: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((run / "recipe.yaml").read_text())
    for name in KEPT:
        del content["recipe"]["data"][name]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    found = Run(tmp_path).recipe().data
    assert (found.pages, found.value_range, found.nodata) == ("first", None, "keep")
    assert DataOptions().decoding(None).nodata == "file"


def test_a_pack_keeps_what_is_stored_and_is_read_as_its_path_says(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="pages=channels&scale=-500:1500&nodata=-9999 is not taken here"):
        pack(f"{folder}?{SAID}", tmp_path / "no", workers=0)
    pack(str(folder), tmp_path / "packed", workers=0)
    packed, plain = (open_source(f"{place}?{SAID}", "val") for place in (tmp_path / "packed", folder))
    assert [packed.name(i) for i in range(len(packed))] == [plain.name(i) for i in range(len(plain))]
    assert all(torch.equal(packed.read(i), plain.read(i)) for i in range(len(plain)))


def test_images_with_masks_are_read_as_their_path_says(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
        values = RNG.integers(0, 4096, (12, 10)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / part / "images" / "0.png")
        Image.fromarray(RNG.integers(0, 3, (12, 10), dtype=np.uint8)).save(
            tmp_path / part / "masks" / "0.png"
        )
    scaled, plain = (open_maps(f"{tmp_path}{query}", "val") for query in ("?scale=0:4095", ""))
    assert torch.allclose(scaled.images.read(0), plain.images.read(0) * 65535 / 4095)
    assert torch.equal(scaled.read_map(0), plain.read_map(0))
    assert scaled.images.reading is not None
