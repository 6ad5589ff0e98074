"""The folder of a run that is given none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from helpers.options import TINY_RUN, words
from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.runs.default_folder import default_run_folder
from lamina.runs.run import Run


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("photos/", "photos"),
        ("a/b/photos", "photos"),
        ("list.txt", "list"),
        ("sample:photos?crop=20", "sample-photos"),
        ("shards/train-{000..099}.tar", "shards"),
        ("photos/*/*.jpg", "photos"),
        ("photos/img?.jpg", "photos"),
        ("s3://bucket/my photos/", "my-photos"),
        ("data.parquet?image=path", "data"),
        ("photos.v2", "photos.v2"),
        ("*.jpg", "images"),
        (Path("x/birds"), "birds"),
    ],
)
def test_the_name_is_that_of_the_images(data: object, name: str) -> None:
    assert default_run_folder(data) == Path("runs", name)


def test_the_current_folder_gives_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path / "birds")
    assert default_run_folder(".") == Path("runs", "birds")
    (tmp_path / "birds" / "photos[1]").mkdir()
    assert default_run_folder("photos[1]") == Path("runs", "photos-1")
    assert default_run_folder("photos[1]/..") == Path("runs", "birds")


def test_images_without_a_path_need_a_folder() -> None:
    with pytest.raises(LaminaError, match="give `out`"):
        default_run_folder(["a.jpg", "b.jpg"])


def test_a_run_without_a_folder_says_where_it_is_and_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "birds").mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16), (60 * i, 0, 0)).save(tmp_path / "birds" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    options = words({**TINY_RUN, "max-steps": 1, "batch-size": 4})
    assert main(["pretrain", "birds", *options]) == 0
    assert "the run is kept in runs" in capsys.readouterr().out
    assert Run(tmp_path / "runs" / "birds").exists()
    assert main(["pretrain", "birds", "--resume"]) == 0  # with the run's own recipe, read from its folder
    assert "going on at step 1 of 1" in capsys.readouterr().out
