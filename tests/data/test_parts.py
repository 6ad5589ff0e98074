"""Parts of a data set by their folders' names, what is passed over in a search, and what is said of both."""

from __future__ import annotations

import codecs
import errno
import json
import os
from pathlib import Path

import pytest

from lamina.core.errors import LaminaError
from lamina.data.find_files import find_images
from lamina.data.open import held_out, open_source
from lamina.data.part_names import role_of
from lamina.data.sources import Source
from lamina.evaluate.compare.options import CompareOptions
from lamina.evaluate.compare.run import _settings
from lamina.features.data import open_labelled
from lamina.methods.catalog import recipe
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run
from lamina.tokenizer.folder import TokenizerFolder
from lamina.tokenizer.options import TokenizerOptions


def put(root: Path, *names: str) -> Path:
    """Files that are images by their name alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def names(source: Source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


# --- parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Val"),
        ("TRAIN", "TEST"),
        ("training", "validation"),
        ("Training", "Testing"),
        ("train2017", "val2017"),
        ("training_set", "test_set"),
        ("train-images", "valid.images"),
        ("trainval", "dev"),
    ],
)
def test_the_names_that_people_use_are_parts_and_no_classes(tmp_path: Path, train: str, val: str) -> None:
    put(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{val}/b/3.png")
    seen = open_source(tmp_path)
    assert names(seen) == [f"{train}/a/1.png", f"{train}/b/2.png"]
    assert (seen.labels, seen.class_names) == ([0, 1], ("a", "b"))
    test = open_source(tmp_path, "val")
    assert (names(test), test.labels, test.class_names) == ([f"{val}/b/3.png"], [1], ("a", "b"))
    assert held_out(str(tmp_path)) == "val"
    assert any(f"{train}/" in note and f"{val}/" in note for note in seen.notes) or (train, val) in [
        ("training", "validation"),
        ("trainval", "dev"),
    ]


@pytest.mark.parametrize("name", ["cat", "trainers", "valley", "tester", "contest", "sets", "2017", ""])
def test_other_names_are_no_parts(name: str) -> None:
    assert role_of(name) is None


def test_a_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    put(tmp_path, "bus/1.png", "car/2.png", "train/3.png")
    source = open_source(tmp_path)
    assert (source.class_names, source.labels) == (("bus", "car", "train"), [0, 1, 2])
    assert held_out(str(tmp_path)) == "all"


def test_a_training_part_alone_has_the_classes_in_it(tmp_path: Path) -> None:
    put(tmp_path, *(f"train/{c}/{k}.png" for c in "ab" for k in range(5)), "annotations/1.xml")
    source = open_source(tmp_path)
    assert (source.class_names, len(source)) == (("a", "b"), 10)
    train, val = open_source(tmp_path, "train"), open_source(tmp_path, "val")
    assert sorted(names(train) + names(val)) == names(source)
    assert val.labels == [0, 1]
    assert any("no held-out part" in note for note in source.notes)


def test_a_held_out_part_alone_is_not_trained_on(tmp_path: Path) -> None:
    put(tmp_path, "Test/a/1.png", "Test/b/2.png")
    assert len(open_source(tmp_path, "val")) == len(open_source(tmp_path, "all")) == 2
    with pytest.raises(LaminaError, match="held-out part alone"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "Test")) == 2


@pytest.mark.parametrize("around", ["archive", "archive/data", "my set"])
def test_folders_around_the_parts_are_looked_through(tmp_path: Path, around: str) -> None:
    put(tmp_path, f"{around}/train/a/1.png", f"{around}/train/b/2.png", f"{around}/val/a/3.png")
    put(tmp_path, "Annotations/a/1.xml", ".cache/4.png", "run/metrics.jsonl", "run/train.log", "run/5.png")
    assert names(open_source(tmp_path)) == [f"{around}/train/a/1.png", f"{around}/train/b/2.png"]
    assert open_source(tmp_path, "val").labels == [0]


def test_a_part_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    put(tmp_path, "seg_train/seg_train/a/1.png", "seg_train/seg_train/b/2.png", "seg_test/seg_test/b/3.png")
    assert open_source(tmp_path).class_names == ("a", "b")
    assert open_source(tmp_path, "val").labels == [1]


def test_what_is_in_neither_part_is_said(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "docs/readme.md", "cover.png")
    put(tmp_path, "test/a/4.png", "unlabeled/5.png")
    source = open_source(tmp_path)
    assert names(source) == ["train/a/1.png", "train/b/2.png"]
    (said,) = [note for note in source.notes if "not used" in note]
    assert "test/" in said
    assert "unlabeled/" in said
    assert "cover.png" in said
    assert "docs" not in said
    whole = open_source(tmp_path, "all")
    assert len(whole) == 6
    assert whole.labels is None
    assert "cover.png" in whole.no_labels
    put(tmp_path / "plain", "train/a/1.png", "train/b/2.png", "val/a/3.png")
    assert open_source(tmp_path / "plain").notes == ()


def test_a_loose_image_is_named_where_labels_are_needed(tmp_path: Path) -> None:
    put(tmp_path, *(f"{c}/{k}.png" for c in "ab" for k in range(5)), "cover.jpg")
    source = open_source(tmp_path)
    assert source.labels is None
    assert not any("cover" in note for note in source.notes)  # pre-training uses it: nothing to say
    with pytest.raises(LaminaError, match=r"cover\.jpg lies in no class folder"):
        open_labelled(str(tmp_path))
    (tmp_path / "cover.jpg").unlink()
    assert open_labelled(str(tmp_path)).classes == ("a", "b")


def test_classes_without_parts_are_trained_on_and_tested_and_it_is_said(tmp_path: Path) -> None:
    put(tmp_path, *(f"data/{c}/{k}.png" for c in "ab" for k in range(5)))
    assert any("an evaluation on the same folder" in note for note in open_source(tmp_path / "data").notes)
    assert open_source(tmp_path / "data", "train").notes == ()


LONGER = [
    (("DIV2K_train_HR",), ("DIV2K_valid_HR",), ()),
    (("ILSVRC2012_img_train",), ("ILSVRC2012_img_val",), ()),
    (("trainA", "trainB"), ("testA", "testB"), ()),
    (("train",), ("test_stg1",), ()),
    (("train",), ("test_stg1", "test_stg2"), ()),
    (("bounding_box_train",), ("bounding_box_test",), ("query",)),
    (("imagesTr",), ("imagesTs",), ("labelsTr", "labelsTs")),
    (("VOC2012Train",), ("VOC2007Test",), ()),
]


@pytest.mark.parametrize(("train", "val", "others"), LONGER)
def test_longer_names_of_parts_are_no_classes(
    tmp_path: Path, train: tuple[str, ...], val: tuple[str, ...], others: tuple[str, ...]
) -> None:
    put(tmp_path, *(f"{part}/{c}/{part}.png" for part in (*train, *val, *others) for c in "ab"))
    seen, held = open_source(tmp_path), open_source(tmp_path, "val")
    assert names(seen) == sorted(f"{part}/{c}/{part}.png" for part in train for c in "ab")
    assert names(held) == sorted(f"{part}/{c}/{part}.png" for part in val for c in "ab")
    assert seen.class_names == held.class_names == ("a", "b")
    assert held_out(str(tmp_path)) == "val"
    said = " ".join(seen.notes)
    assert all(f"{part}/" in said for part in (*train, *val, *others))


def test_a_part_of_a_longer_name_keeps_its_only_class_folder(tmp_path: Path) -> None:
    put(tmp_path, "x_train/x_train/a/1.png", "x_train/x_train/b/2.png", "x_test/b/3.png")
    assert open_source(tmp_path).class_names == ("a", "b")
    assert open_source(tmp_path, "val").labels == [1]


@pytest.mark.parametrize(
    ("classes", "doubtful"),
    [
        (("bus", "car", "train"), ("train",)),
        (("flask", "test_tube"), ()),
        (("bullet_train", "freight_train"), ()),
        (("en", "te", "tr"), ()),
        (("speech_en", "speech_te", "speech_tr"), ()),
        (("car", "test_stg1", "train"), ("test_stg1", "train")),
        (("bus", "freight_train", "test_tube"), ("freight_train", "test_tube")),
    ],
)
def test_classes_that_are_named_like_parts(
    tmp_path: Path, classes: tuple[str, ...], doubtful: tuple[str, ...]
) -> None:
    put(tmp_path, *(f"{c}/{k}.png" for c in classes for k in range(5)))
    for split in (None, "train", "val", "all"):
        source = open_source(tmp_path, split)
        assert source.class_names == classes
        said = [note for note in source.notes if "taken for classes" in note]
        assert len(said) == bool(doubtful)
        if doubtful:
            assert said[0].startswith(" and ".join(doubtful) + " ")


# --- links ----------------------------------------------------------------------------------------------


def test_an_image_linked_into_two_classes_counts_in_both(tmp_path: Path) -> None:
    put(tmp_path, "pool/x.png", "data/a/1.png", "data/b/2.png")
    data = tmp_path / "data"
    for link in ("a/x.png", "a/y.png", "b/x.png"):  # of one file: twice in a, once in b
        (data / link).symlink_to(tmp_path / "pool" / "x.png")
    (data / "b" / "of-a.png").symlink_to(data / "a" / "1.png")
    source = open_source(data)
    assert names(source) == ["a/1.png", "a/x.png", "b/2.png", "b/of-a.png", "b/x.png"]
    assert source.labels == [0, 0, 1, 1, 1]
    assert any("further class too, where links put them: 2" in note for note in source.notes)
    assert any(note.startswith("1 link passed over") for note in source.notes)  # a/y.png
    put(data, "loose.png")  # no classes: each image once
    assert names(open_source(data)) == ["a/1.png", "a/x.png", "b/2.png", "loose.png"]


def test_a_class_folder_that_is_a_link_to_another_keeps_its_class(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/deep/2.png", "b/3.png")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)  # gives b's image no class a
    source = open_source(tmp_path)
    assert names(source) == ["a/1.png", "a/deep/2.png", "b/3.png", "c/1.png", "c/deep/2.png"]
    assert (source.class_names, source.labels) == (("a", "b", "c"), [0, 0, 1, 2, 2])
    assert (tmp_path / names(source)[-1]).read_bytes() == b"a/deep/2.png"
    assert any("further class too, where links put them: 2" in note for note in source.notes)
    assert any(note.startswith("1 link passed over") for note in source.notes)


def test_a_class_of_linked_files_alone(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png", "c/readme.md")
    (tmp_path / "c" / "1.png").symlink_to(tmp_path / "a" / "1.png")
    source = open_source(tmp_path)
    assert (source.class_names, source.labels) == (("a", "b", "c"), [0, 1, 2])


def test_the_folder_that_one_is_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"{c}/{k}.png" for c in "ab" for k in range(5)))
    monkeypatch.chdir(tmp_path)
    assert any(note.startswith(f"{tmp_path.resolve()} has classes") for note in open_source(".").notes)


# --- lists and globs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(b"", "utf-8"), (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")],
    ids=["none", "utf-8", "utf-16"],
)
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path, mark: bytes, encoding: str) -> None:
    put(tmp_path, "a.png", "é.png")
    (tmp_path / "list.txt").write_bytes(mark + "a.png\r\né.png\r\n".encode(encoding))
    assert names(open_source(tmp_path / "list.txt")) == [str(tmp_path / "a.png"), str(tmp_path / "é.png")]


def test_folders_in_a_list_and_under_a_glob_are_searched(tmp_path: Path) -> None:
    put(tmp_path, "x/1/a.png", "x/2/deep/b.png", "x/c.png", "x/2/notes.md", "y/d.heic")
    found = [str(tmp_path / name) for name in ("x/1/a.png", "x/2/deep/b.png", "x/c.png")]
    globbed = open_source(str(tmp_path / "x" / "*"))
    assert names(globbed) == found
    assert "1 file passed over by the ending: 1 .md" in globbed.notes[0]
    assert names(open_source(str(tmp_path / "x" / "**"))) == found
    assert "1 .md" in open_source(str(tmp_path / "x" / "**")).notes[0]
    (tmp_path / "list.txt").write_text("x/2\nx/1/a.png\n")
    assert names(open_source(tmp_path / "list.txt")) == [found[1], found[0]]


# --- what is passed over --------------------------------------------------------------------------------


def test_other_endings_are_counted_by_kind(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a/1.jpg",
        *(f"a/{k}.HEIC" for k in range(3)),
        "b/x.heic",
        "b/clip.mov",
        "b/README",
        ".DS_Store",
    )
    (said,) = open_source(tmp_path, "all").notes
    assert "6 files passed over by the ending: 4 .heic, " in said
    assert "1 .mov" in said
    assert "1 without an ending" in said
    with pytest.raises(LaminaError, match=r"3 \.heic"):
        open_source(str(tmp_path / "a" / "*.HEIC"))
    put(tmp_path / "c", ".hidden/1.png", "._2.png", "3.png")
    assert open_source(tmp_path / "c").notes[0].startswith("2 hidden files or folders passed over")
    put(tmp_path / "d", "._2.png", "3.png")
    assert open_source(tmp_path / "d").notes[0].startswith("1 hidden file or folder passed over")


def test_a_folder_that_cannot_be_listed_is_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root lists every folder, so for root the system's refusal is imitated."""
    put(tmp_path, "a/1.png", "lost+found/2.png")
    closed, scandir = tmp_path / "lost+found", os.scandir

    def refusing(folder: str) -> object:
        if os.path.basename(folder) == closed.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    if os.geteuid() == 0:
        monkeypatch.setattr("os.scandir", refusing)
    closed.chmod(0)
    try:
        source = open_source(tmp_path)
        with pytest.raises(LaminaError, match="cannot list"):
            open_source(closed)
    finally:
        closed.chmod(0o700)
    assert names(source) == ["a/1.png"]
    assert any("lost+found (Permission denied)" in note for note in source.notes)


def outputs(root: Path) -> list[str]:
    """One folder of each kind, made by what makes it where that is cheap."""
    Run(root / "run").start(recipe("mae-small"), DataFacts("photos", 3, "0" * 64), None)
    TokenizerFolder(root / "tok").start(TokenizerOptions(), "photos", "0" * 64)
    for name, file, content in (
        ("study", "study.json", json.dumps({"study": "pair", "data": {}}, indent=1)),
        ("table", "comparison.json", json.dumps(_settings("photos", CompareOptions(), {}), indent=1)),
        ("dense", "evaluation.yaml", "protocol: segment\nweights_sha256: abc\n"),
    ):
        put(root, f"{name}/{file}").joinpath(name, file).write_text(content)
    put(root, "looks/rank.png", "looks/rank.json").joinpath("looks/index.html").write_text(
        "<title>Inside the encoders · lamina</title>", encoding="utf-8"
    )
    put(root, "torn/recipe.yaml", "torn/metrics.jsonl", "torn/train.log")  # killed while it was written
    made = ["run", "tok", "study", "table", "dense", "torn", "looks"]
    put(root, *(f"{name}/pictures/1.png" for name in made[:-1]))
    return made


def test_folders_that_lamina_wrote_are_never_data(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/2.png", "cat/recipe.yaml")
    made = outputs(tmp_path)
    source = open_source(tmp_path)
    assert names(source) == ["cat/1.png", "dog/2.png"]
    assert source.class_names == ("cat", "dog")
    (said,) = [note for note in source.notes if "lamina wrote" in note]
    assert said.startswith(f"{len(made)} folders that lamina wrote passed over: ")
    assert names(open_source(str(tmp_path / "**" / "*.png"))) == [
        str(tmp_path / name) for name in ("cat/1.png", "dog/2.png")
    ]
    with pytest.raises(LaminaError, match="was written by lamina"):
        open_source(tmp_path / "run")
    assert find_images(tmp_path / "run" / "pictures").names == ["1.png"]  # asked for by its own path


def test_folders_that_lamina_wrote_do_not_hide_the_parts_of_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "photos/train/cat/1.png", "photos/train/dog/2.png", "photos/val/cat/3.png")
    outputs(tmp_path)
    assert held_out(tmp_path) == "val"
    assert names(open_source(tmp_path)) == ["photos/train/cat/1.png", "photos/train/dog/2.png"]
