"""Feature files: what is in them, and that names survive."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import toy_recipe, toy_run
from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.features.embed import embed
from lamina.interop.load import load_encoder

ODD_NAMES = ["=1+1.png", 'quote",comma.png', "žluť.png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mff"
    toy_run(folder, toy_recipe())
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(ODD_NAMES):
        Image.effect_noise((60, 50), 40 + 30 * i).convert("RGB").save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


def test_npz_holds_features_names_and_what_was_used(run, photos, tmp_path):
    table = embed(
        run, photos, tmp_path / "out" / "f.npz", features="fused", pool="cls", workers=0, device="cpu"
    )
    with np.load(tmp_path / "out" / "f.npz", allow_pickle=False) as saved:
        assert set(saved) == {"features", "names", "about"}
        assert sorted(saved["names"]) == sorted(ODD_NAMES)
        assert saved["features"].dtype == np.float32
        about = json.loads(str(saved["about"]))
        vectors = torch.from_numpy(saved["features"])
    assert (about["features"], about["pool"], about["step"]) == ("fused", "cls", 3)
    assert list(about["unreadable"]) == ["broken.png"]
    assert torch.equal(vectors, next(iter(table.vectors.values())))
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["f.npz"]


def test_csv_gives_back_the_same_numbers(run, photos, tmp_path):
    table = embed(run, photos, tmp_path / "f.csv", workers=0, device="cpu")
    with (tmp_path / "f.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header[:3] == ["name", "label", "f0"]
    written = ["'" + name if name[0] in "=+-@" else name for name in ODD_NAMES]  # no formula
    assert sorted(line[0] for line in lines) == sorted(written)
    numbers = torch.tensor([[float(v) for v in line[2:]] for line in lines])
    assert torch.equal(numbers, next(iter(table.vectors.values())))


def test_a_csv_names_what_could_not_be_read_in_a_file_beside_it(run, photos, tmp_path, capsys):
    (photos / "clip.mov").write_bytes(b"")
    out = tmp_path / "f.csv"
    table = embed(run, photos, out, workers=0, device="cpu")
    with (tmp_path / "f.unreadable.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["name", "reason"]
    assert [name for name, _ in lines] == ["broken.png"]
    assert any(note.startswith("1 of 4 images could not be read") for note in table.notes)
    assert any("1 .mov" in note for note in table.notes)
    for k in range(20):  # more than a training would bear
        (photos / f"bad{k}.png").write_bytes(b"\x89PNG")
    assert main(["embed", str(run), str(photos), "--out", str(out), "--workers", "0", "--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert "21 of 24 images could not be read" in " ".join(printed.split())
    for file in photos.glob("b*.png"):
        file.unlink()
    again = embed(run, photos, out, workers=0, device="cpu")
    place = tmp_path / "f.unreadable.csv"
    assert not place.exists()
    assert f"{place} of an earlier call is removed: all images could be read" in again.notes
    place.write_text("patient,diagnosis\n")  # a file that embed did not write
    out.unlink()
    with pytest.raises(LaminaError, match="was not written by embed"):
        embed(run, photos, out, workers=0, device="cpu")
    assert (place.read_text(), out.exists()) == ("patient,diagnosis\n", False)
    embed(run, photos, tmp_path / "f.npz", workers=0, device="cpu")  # which has no such list
    assert place.exists()


def test_labels_of_class_folders_come_along(run, tmp_path):
    for c in ("cat", "dog"):
        (tmp_path / "data" / c).mkdir(parents=True)
        Image.effect_noise((50, 40), 60).convert("RGB").save(tmp_path / "data" / c / "1.png")
    embed(run, tmp_path / "data", tmp_path / "f.npz", workers=0, device="cpu")
    with np.load(tmp_path / "f.npz") as saved:
        assert [str(saved["class_names"][i]) for i in saved["labels"]] == ["cat", "dog"]


@pytest.mark.parametrize(("out", "arguments"), [("f.txt", {}), ("f.npz", {"features": "fused"})])
def test_what_cannot_be_done_is_refused(tmp_path, photos, out, arguments):
    toy_run(tmp_path / "plain", toy_recipe(fusion="none"))
    with pytest.raises(LaminaError):
        embed(tmp_path / "plain", photos, tmp_path / out, workers=0, device="cpu", **arguments)
    assert not (tmp_path / out).exists()


def test_an_encoder_without_class_token_has_no_cls_pool(tmp_path, photos):
    toy_run(tmp_path / "gap", toy_recipe("vit_medium_patch16_gap_240"))
    assert load_encoder(tmp_path / "gap").pools == ("mean",)
    with pytest.raises(LaminaError, match="no pool 'cls'"):
        embed(tmp_path / "gap", photos, tmp_path / "f.npz", pool="cls", workers=0, device="cpu")


@pytest.mark.parametrize("out", ["file/f.npz", "folder.csv"])
def test_a_target_that_cannot_be_written_is_found_before_any_image_is_read(run, tmp_path, out):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(LaminaError, match="cannot be written") as caught:
        embed(run, tmp_path / "no images here", tmp_path / out, workers=0, device="cpu")
    assert "\n" not in str(caught.value)
