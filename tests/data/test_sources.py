"""Folders, links, lists, globs, splits and samples: which images, in which order, with which label."""

from __future__ import annotations

import gzip
import os
import struct
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.columns import Names
from lamina.data.find_files import find_images
from lamina.data.open import open_source
from lamina.data.samples import fashion_mnist as fashion_module
from lamina.data.samples.fashion_mnist import DEBIAN_FOLDER, open_fashion_mnist
from lamina.data.samples.photos import PhotosOptions, stretches
from lamina.data.sources import ArraySource, Source
from lamina.features.data import open_labelled


def put(root: Path, *names: str) -> None:
    """One-pixel images whose value tells them apart."""
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1), k).save(root / name, "PNG")


def names(source: Source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


# --- finding files --------------------------------------------------------------------------------------


def test_nested_folders_in_sorted_order_without_what_is_no_image(tmp_path: Path) -> None:
    put(tmp_path, "b/2.png", "b/10.PNG", "a.jpg", "c/d/e/f.tif", ".hidden/x.png", "b/._2.png")
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / "dir.jpg").mkdir()
    source = open_source(tmp_path)
    assert names(source) == ["a.jpg", "b/10.PNG", "b/2.png", "c/d/e/f.tif"]
    assert [int(source.read(i)[0, 0, 0]) for i in (1, 2)] == [1, 0]
    assert source.labels is None


def test_links_are_followed_once_and_cannot_loop(tmp_path: Path) -> None:
    put(tmp_path / "in", "a/1.png", "b/2.png")
    put(tmp_path / "out", "3.png", "deep/4.png")
    root = tmp_path / "in"
    (root / "a" / "self").symlink_to(root)  # a loop
    (root / "b" / "back").symlink_to(root / "a")
    (root / "a" / "other").symlink_to(root / "b")  # two folders that hold each other
    (root / "again.png").symlink_to(root / "a" / "1.png")  # the same file
    (root / "z").symlink_to(tmp_path / "out")  # from outside
    (root / "y").symlink_to(tmp_path / "out" / "deep")  # and part of it again
    (root / "gone.png").symlink_to(tmp_path / "nothing")
    (root / "gone").symlink_to(tmp_path / "nothing")
    assert find_images(root).names == ["a/1.png", "b/2.png", "gone.png", "y/4.png", "z/3.png"]


def test_a_linked_root_is_its_target(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert find_images(tmp_path / "link").names == ["a.png"]


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path) -> None:
    some = [f"{c}/{k}.png" for c in "xyz" for k in range(5)]
    put(tmp_path / "1", *some)
    put(tmp_path / "2", *reversed(some))
    assert names(open_source(tmp_path / "1")) == names(open_source(tmp_path / "2")) == sorted(some)


def test_lists_globs_and_python_lists(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2.jpg", "b/3.png", "b/odd.name")
    (tmp_path / "list.txt").write_bytes(b"b/3.png\r\n\na/1.png\nb/odd.name\nabsent.png\n")
    listed = open_source(tmp_path / "list.txt")
    assert [os.path.relpath(n, tmp_path) for n in names(listed)] == [
        "b/3.png",
        "a/1.png",
        "b/odd.name",
        "absent.png",
    ]
    assert listed.read(2).shape == (1, 1, 1)
    matched = open_source(str(tmp_path / "**" / "*.png"))
    assert names(matched) == [str(tmp_path / "a/1.png"), str(tmp_path / "b/3.png")]
    both = open_source([tmp_path / "b" / "3.png", str(tmp_path / "a")])
    assert names(both) == [str(tmp_path / n) for n in ("b/3.png", "a/1.png", "a/2.jpg")]
    assert len(open_source(str(tmp_path / "a" / "1.png"))) == 1


def test_an_existing_name_is_no_pattern(tmp_path: Path) -> None:
    put(tmp_path, "odd[1]/a.png")
    assert names(open_source(str(tmp_path / "odd[1]"))) == ["a.png"]


@pytest.mark.parametrize("spec", ["", "nothing", "nothing/*.png", "sample:none", "sample:photos?size=3"])
def test_what_is_not_there_gets_one_line(tmp_path: Path, spec: str) -> None:
    with pytest.raises(LaminaError) as error:
        open_source(spec if spec.startswith("sample") else str(tmp_path / spec))
    assert "\n" not in str(error.value)


def test_names_survive_bytes_that_are_no_text(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    assert list(Names(["a", "", "é", odd])) == ["a", "", "é", odd]
    assert Names(["a", "b"])[-1] == "b"
    with pytest.raises(IndexError):
        Names(["a"])[1]
    put(tmp_path, f"{odd}.png", "z.png")
    assert open_source(tmp_path).read(1).shape == (1, 1, 1)


def test_printable_names_have_no_control_characters() -> None:
    assert printable("é 1.jpg") == "é 1.jpg"
    for hostile in ("a\x1b[2J", "a\nb", os.fsdecode(b"\xff"), "\u202eabc", "a\x00"):
        assert printable(hostile).isprintable()
        assert printable(hostile).encode("utf-8")


# --- classes and splits ---------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "dog/1.png", "cat/x/2.png", "cat/3.png")
    source = open_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert names(source) == ["cat/3.png", "cat/x/2.png", "dog/1.png"]
    assert source.labels == [0, 0, 1]


def test_loose_images_mean_that_folders_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "2024/1.png", "2025/2.png", "3.png")
    assert open_source(tmp_path).labels is None


@pytest.mark.parametrize("val", ["val", "test"])
def test_train_and_val_folders(tmp_path: Path, val: str) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", f"{val}/b/3.png")
    assert names(open_source(tmp_path)) == names(open_source(tmp_path, "train"))
    assert names(open_source(tmp_path, "train")) == ["train/a/1.png", "train/b/2.png"]
    held_out = open_source(tmp_path, "val")
    assert (names(held_out), held_out.labels, held_out.class_names) == ([f"{val}/b/3.png"], [1], ("a", "b"))
    assert len(open_source(tmp_path, "all")) == 3
    put(tmp_path, f"{val}/c/4.png")  # no fault of the images: whoever needs the classes to agree refuses
    held_out = open_source(tmp_path, "val")
    assert (held_out.labels, held_out.class_names) == ([1, 2], ("a", "b", "c"))
    with pytest.raises(LaminaError, match=r"'c' .* is missing among the training images"):
        open_labelled(str(tmp_path))


def test_a_seeded_split_is_a_partition_of_each_class(tmp_path: Path) -> None:
    put(
        tmp_path, *(f"a/{k}.png" for k in range(20)), *(f"b/{k}.png" for k in range(10)), "c/0.png", "c/1.png"
    )
    train, val = open_source(tmp_path, "train"), open_source(tmp_path, "val")
    assert sorted(names(train) + names(val)) == names(open_source(tmp_path))
    assert Counter(val.labels or []) == {0: 4, 1: 2, 2: 1}
    assert train.class_names == val.class_names == ("a", "b", "c")
    assert names(open_source(tmp_path, "val")) == names(val)
    assert names(open_source(tmp_path, "val", split_seed=1)) != names(val)
    put(tmp_path, "d/0.png", "d/1.png")  # another class leaves the others as they were
    assert set(names(val)) < set(names(open_source(tmp_path, "val")))


def test_one_image_has_no_validation_part(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    with pytest.raises(LaminaError, match="too few"):
        open_source(tmp_path, "val")


# --- sample:photos --------------------------------------------------------------------------------------


def test_photographs_are_labelled_colour_crops() -> None:
    source = open_source("sample:photos?crop=96")
    assert isinstance(source, ArraySource)
    assert source.images.shape[1:] == (3, 96, 96)
    assert source.images.dtype == torch.uint8
    assert 14 <= len(source.class_names) <= 20
    assert set(source.labels or []) == set(range(len(source.class_names)))
    assert torch.equal(source.images, open_source("sample:photos?crop=96", "train").images)


def test_crops_are_the_pixels_that_their_name_says() -> None:
    from skimage import data

    source = open_source("sample:photos?crop=64", "all")
    photos = {"astronaut.png": data.astronaut(), "rocket.jpg": data.rocket()}
    seen = 0
    for i in range(len(source)):
        file, place = source.name(i).split("@")
        if file in photos:
            x, y = map(int, place.split(","))
            assert np.array_equal(source.read(i).permute(1, 2, 0), photos[file][y : y + 64, x : x + 64])
            seen += 1
    assert seen > 40


@pytest.mark.parametrize(
    "query", ["crop=64", "crop=32&regions=3", "crop=48&stride=16&grey=1", "crop=32&most=10"]
)
def test_train_and_validation_regions_are_a_crop_apart(query: str) -> None:
    crop = int(query.split("&")[0].removeprefix("crop="))
    parts = []
    for split in ("train", "val"):
        places: dict[str, list[tuple[int, int]]] = {}
        for name in names(open_source(f"sample:photos?{query}", split)):
            file, place = name.split("@")
            x, y = map(int, place.split(","))
            places.setdefault(file, []).append((x, y))
        parts.append(places)
    assert parts[0].keys() == parts[1].keys()
    for file, train in parts[0].items():
        between = np.abs(np.array(train)[:, None] - np.array(parts[1][file])[None]).max(-1)
        assert between.min() >= 2 * crop  # corners: one crop of pixels, and at least one more between


def test_difficulty_can_be_tuned() -> None:
    plain = open_source("sample:photos?crop=32&most=50")
    assert max(Counter(plain.labels).values()) == 50
    halves = open_source("sample:photos?crop=32&regions=2")
    assert len(halves.class_names) == 2 * len(plain.class_names)
    assert open_source("sample:photos?crop=32&grey=1").read(0).shape == (1, 32, 32)
    with pytest.raises(LaminaError, match="no room"):
        open_source("sample:photos?crop=64&regions=9")
    with pytest.raises(LaminaError, match="whole number"):
        open_source("sample:photos?crop=big")
    with pytest.raises(LaminaError, match="crop >= 8"):
        open_source("sample:photos?crop=2")


def test_stretches_cover_the_length_and_mirror() -> None:
    first, second = stretches(512, PhotosOptions(crop=32, regions=2))
    assert (first.start, first.end, second.start, second.end) == (0, 256, 256, 512)
    assert min(first.train) == 0
    assert max(second.train) + 32 <= 512
    assert max(first.val) + 32 <= 256 <= min(second.val)  # validation parts meet in the middle


# --- sample:fashion-mnist -------------------------------------------------------------------------------


def write_fashion(folder: Path, n: int = 6) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, prefix in enumerate(("train", "t10k")):
        pixels = np.random.default_rng(k).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images = struct.pack(">IIII", 0x803, n, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 0x801, n) + bytes(range(n))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_fashion_mnist_from_idx_files(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    train, val = (open_fashion_mnist("pad=2", split, tmp_path) for split in (None, "val"))
    want = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    assert np.array_equal(train.images[:, 0, 2:30, 2:30], want)
    assert train.images.shape == (6, 1, 32, 32)
    assert train.images[:, :, :2].sum() == 0
    assert train.labels == val.labels == list(range(6))
    assert not torch.equal(train.images, val.images)
    assert len(open_fashion_mnist("most=2", "all", tmp_path)) == 4


def test_fashion_mnist_from_the_cache_and_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    write_fashion(tmp_path / "cache" / "FashionMNIST" / "raw")
    assert len(open_fashion_mnist("", None, tmp_path / "none")) == 6
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "other"))

    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading\nmore")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", offline)
    with pytest.raises(LaminaError, match="apt install dataset-fashion-mnist") as error:
        open_fashion_mnist("", None, tmp_path / "none")
    assert "\n" not in str(error.value)


def test_damaged_idx_files_get_a_sentence(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for damaged in (b"", whole[:50], gzip.compress(b"\0\0\x08\x03"), gzip.compress(b"other")):
        file.write_bytes(damaged)
        with pytest.raises(LaminaError, match="cannot be read"):
            fashion_module.read_idx(file)


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_installed_fashion_mnist() -> None:
    start = time.perf_counter()
    test = open_source("sample:fashion-mnist", "val")
    assert test.images.shape == (10_000, 1, 28, 28)  # type: ignore[attr-defined]
    assert set(Counter(test.labels).values()) == {1000}
    assert time.perf_counter() - start < 30
