"""Folders of mask files against the numbers that the test wrote into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.image_files import packed, png
from lamina.core.errors import LaminaError
from lamina.data.decode.decode import open_regular
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.class_counts import check_counts, count_pixels
from lamina.data.dense.mask_classes import read_numbers
from lamina.data.dense.mask_folder import MaskOptions, open_masks
from lamina.data.dense.open import open_maps
from lamina.data.dense.sources import IGNORE, MapSource
from lamina.data.options import Decoding

HEIGHT, WIDTH = 6, 8


def numbers(seed: int, most: int) -> np.ndarray[Any, Any]:
    found = np.random.default_rng(seed).integers(0, most + 1, (HEIGHT, WIDTH)).astype(np.uint8)
    found[0, :2] = 0, most  # both ends are there
    return found


def put(
    root: Path, part: str, name: str, mask: Image.Image | np.ndarray[Any, Any], nested: bool = False
) -> Path:
    """A picture and its mask, as ADE20K has them, or below the part's folder; gives the mask's path."""
    images, masks = (
        (f"{part}/images", f"{part}/masks") if nested else (f"images/{part}", f"annotations/{part}")
    )
    image, file = root / images / f"{name}.jpg", root / masks / f"{name}.png"
    for path in (image, file):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(image)
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(file)
    return file


def palette(mask: np.ndarray[Any, Any]) -> Image.Image:
    """The numbers as indices of a palette of other colours."""
    made = Image.fromarray(mask, "L").convert("P")
    made.putdata(mask.flatten().tolist())
    made.putpalette(np.random.default_rng(9).integers(0, 256, 768).astype(np.uint8).tobytes())
    return made


# --- what is read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey", "palette", "16-bit", "1-bit"])
@pytest.mark.parametrize("nested", [False, True])
def test_numbers_come_back_as_they_were_written(tmp_path: Path, kind: str, nested: bool) -> None:
    want = numbers(0, 1 if kind == "1-bit" else 5)
    made = {
        "grey": lambda: Image.fromarray(want),
        "palette": lambda: palette(want),
        "16-bit": lambda: Image.fromarray(want.astype(np.uint16)),
        "1-bit": lambda: Image.fromarray(want.astype(bool)),
    }[kind]()
    put(tmp_path, "train" if nested else "training", "a", made, nested)
    source = open_masks(str(tmp_path), "train")
    assert isinstance(source, MapSource)
    found = source.read_map(0)
    assert found.dtype == torch.uint8
    assert np.array_equal(found, want)
    assert source.classes == tuple(str(k) for k in range(int(want.max()) + 1))
    assert source.images.read(0).shape[1:] == found.shape


def test_ade20k_counts_from_one_and_zero_is_nothing(tmp_path: Path) -> None:
    written = numbers(1, 150)
    written[1, 0] = 255
    put(tmp_path, "training", "a", written)
    rows = "\n".join(f"{k}\t0.1\t10\t1\t1\tname {k}, synonym" for k in range(1, 151))
    (tmp_path / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tStuff\tName\n{rows}\n")
    source = open_maps(tmp_path, "train")
    assert len(source.classes) == 150
    assert source.classes[:2] == ("name 1, synonym", "name 2, synonym")
    found = source.read_map(0).numpy()
    nothing = (written == 0) | (written == 255)
    assert (found[nothing] == IGNORE).all()
    assert np.array_equal(found[~nothing], written[~nothing] - 1)


def test_reduce_zero_label_is_the_user_s_to_say(tmp_path: Path) -> None:
    put(tmp_path, "training", "a", numbers(2, 3))
    (tmp_path / "classes.txt").write_text("nothing\nroad\nsky\ntree\n")
    assert open_masks(str(tmp_path), "train").read_map(0).max() == 3
    (tmp_path / "classes.txt").write_text("road\nsky\ntree\n")
    reduced = open_masks(str(tmp_path), "train", MaskOptions(reduce_zero_label=True))
    assert reduced.classes == ("road", "sky", "tree")
    found = reduced.read_map(0).numpy()
    assert np.array_equal(found, np.where(numbers(2, 3) == 0, 255, numbers(2, 3).astype(int) - 1))
    (tmp_path / "classes.txt").unlink()
    assert open_masks(str(tmp_path), "train", MaskOptions(reduce_zero_label=True)).classes == ("1", "2", "3")


def test_255_is_nothing_and_makes_no_class(tmp_path: Path) -> None:
    written = numbers(3, 2)
    written[2] = 255
    put(tmp_path, "training", "a", written)
    source = open_masks(str(tmp_path), "train")
    assert source.classes == ("0", "1", "2")
    assert np.array_equal(source.read_map(0), written)
    counts = count_pixels(source)
    assert counts.total == tuple(int((written == k).sum()) for k in range(3))
    assert sum(counts.total) == HEIGHT * (WIDTH) - WIDTH


def test_masks_belong_to_images_by_path(tmp_path: Path) -> None:
    for name, value in (("b", 1), ("sub/a", 2), ("a", 3)):
        put(tmp_path, "training", name, np.full((HEIGHT, WIDTH), value, np.uint8))
    put(tmp_path, "training", "0", np.full((HEIGHT, WIDTH), 4, np.uint8))
    (tmp_path / "images" / "training" / "0.jpg").unlink()  # a mask without an image stands for nothing
    source = open_masks(str(tmp_path), "train")
    found = {source.images.name(i): int(source.read_map(i)[0, 0]) for i in range(len(source.images))}
    assert found == {"a.jpg": 3, "b.jpg": 1, "sub/a.jpg": 2}


def test_classes_are_numbered_by_training_masks_alone(tmp_path: Path) -> None:
    put(tmp_path, "training", "a", numbers(4, 2))
    put(tmp_path, "validation", "a", numbers(4, 2))
    put(tmp_path, "validation", "b", numbers(5, 4))
    val = open_masks(str(tmp_path), "val")
    assert val.classes == ("0", "1", "2")
    val.read_map(0)
    with pytest.raises(Unreadable, match="the mask has a 4, there are 3 classes"):
        val.read_map(1)
    assert count_pixels(val).unreadable == 1


# --- labels that do not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Image.new("RGB", (WIDTH, HEIGHT)), r"the mask is a colour picture \(RGB\)"),
        (lambda: Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16)), "the mask has a 300"),
        (lambda: Image.new("L", (WIDTH, HEIGHT + 1)), "the mask is 8 x 7 px, the image 8 x 6"),
        (lambda: Image.new("L", (HEIGHT, WIDTH)), "the mask is 6 x 8 px, the image 8 x 6"),
        (lambda: Image.fromarray(numbers(0, 7)), "the mask has a 7, there are 2 classes"),
    ],
    ids=["colour", "16 bits", "size", "turned", "range"],
)
def test_a_mask_that_does_not_fit_is_unreadable(tmp_path: Path, made: Any, said: str) -> None:
    put(tmp_path, "training", "a", made())
    put(tmp_path, "training", "b", numbers(0, 1))
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    source = open_masks(str(tmp_path), "train")
    with pytest.raises(Unreadable, match=said) as error:
        source.read_map(0)
    assert error.value.reason == Reason.LABELS
    assert np.array_equal(source.read_map(1), numbers(0, 1))


def test_broken_files_have_their_reason(tmp_path: Path) -> None:
    file = put(tmp_path, "training", "a", numbers(0, 1))
    put(tmp_path, "training", "b", numbers(0, 1))
    source = open_masks(str(tmp_path), "train")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(Unreadable) as error:
        source.read_map(0)
    assert error.value.reason == Reason.BROKEN
    assert len(open_masks(str(tmp_path), "train").classes) == 2  # the others tell
    file.unlink()
    with pytest.raises(Unreadable) as error:
        source.read_map(0)
    assert error.value.reason == Reason.MISSING


def test_a_photograph_is_turned_and_its_mask_is_not(tmp_path: Path) -> None:
    put(tmp_path, "training", "a", np.zeros((WIDTH, HEIGHT), np.uint8))  # drawn on what viewers show
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "training" / "a.jpg", exif=exif)
    source = open_masks(str(tmp_path), "train")
    assert source.read_map(0).shape == source.images.read(0).shape[1:] == (WIDTH, HEIGHT)
    with pytest.raises(Unreadable, match="the image 8 x 6"):
        source.read_map(0, Decoding(exif_orientation=False))


# --- opening --------------------------------------------------------------------------------------------


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="no images/train and annotations/train, or train/images"):
        open_maps(tmp_path, "train")
    with pytest.raises(LaminaError, match="there is no folder"):
        open_maps(tmp_path / "nothing", "val")
    with pytest.raises(
        LaminaError, match="sample:fashion-mnist has no class for each pixel; take sample:doom"
    ):
        open_maps("sample:fashion-mnist", "val")
    put(tmp_path, "training", "a", numbers(0, 1))
    put(tmp_path, "training", "b", numbers(0, 1)).unlink()
    source = open_maps(tmp_path, "train")  # one in two: it is left out
    assert [source.images.name(i) for i in range(len(source.images))] == ["a.jpg"]
    assert "1 of 2 images are left out, since they have no mask" in source.images.notes[0]
    put(tmp_path, "training", "c", numbers(0, 1)).unlink()
    with pytest.raises(LaminaError, match=r"2 of 3 images have no mask; the first lacks .*b\.png") as error:
        open_maps(tmp_path, "train")
    assert "\n" not in str(error.value)
    with pytest.raises(LaminaError, match="no images/val"):
        open_maps(tmp_path, "val")


@pytest.mark.parametrize("listed", [False, True])
def test_masks_that_are_no_numbers_of_classes_are_called_what_they_are(tmp_path: Path, listed: bool) -> None:
    if listed:
        (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfbackground\nthing\n")  # with a byte order mark
    put(tmp_path, "training", "a", Image.new("RGB", (WIDTH, HEIGHT), (128, 0, 0)))
    with pytest.raises(LaminaError, match=r"can be used: .*colour picture \(RGB\)"):
        open_maps(tmp_path, "train")
    binary = np.where(numbers(0, 1) == 1, 255, 0).astype(np.uint8)
    assert set(binary.flat) == {0, 255}
    put(tmp_path, "training", "a", binary)
    with pytest.raises(LaminaError, match=r"255 and 0 alone.*write 1 in place of 255"):
        open_maps(tmp_path, "train")
    put(tmp_path, "training", "b", numbers(0, 1))
    assert open_maps(tmp_path, "train").classes == (("background", "thing") if listed else ("0", "1"))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("Images/Train", "Masks/Train"),
        ("Train/Images", "Train/Labels"),
        ("images/train", "annotations/Train"),
    ],
)
def test_names_of_folders_count_in_any_case(tmp_path: Path, images: str, masks: str) -> None:
    file = put(tmp_path / "made", "training", "a", numbers(0, 1))
    for folder, source in ((images, tmp_path / "made" / "images" / "training" / "a.jpg"), (masks, file)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        source.rename(tmp_path / "data" / folder / source.name)
    assert len(open_maps(tmp_path / "data", "train").images) == 1


def test_classes_that_cannot_be_told(tmp_path: Path) -> None:
    put(tmp_path, "training", "a", np.full((HEIGHT, WIDTH), 255, np.uint8))
    with pytest.raises(LaminaError, match=r"no classes\.txt, and no training mask"):
        open_maps(tmp_path, "train")
    for text in ("", "name\n" * 256):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(LaminaError, match="1 to 255 are possible"):
            open_maps(tmp_path, "train")


def test_two_images_of_one_mask_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "training", "a", numbers(0, 1))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "training" / "a.png")
    with pytest.raises(LaminaError, match="would share a mask"):
        open_maps(tmp_path, "train")


def test_one_class_is_too_few(tmp_path: Path) -> None:
    put(tmp_path, "training", "a", np.ones((HEIGHT, WIDTH), np.uint8))
    put(tmp_path, "validation", "a", numbers(0, 1))
    train, val = (count_pixels(open_maps(tmp_path, part)) for part in ("train", "val"))
    with pytest.raises(LaminaError, match="training part holds one class alone, '1'"):
        check_counts(train, val, fewest=2)
    put(tmp_path, "training", "b", numbers(0, 1))
    assert check_counts(count_pixels(open_maps(tmp_path, "train")), val, fewest=2) == ()


def test_counting_a_few_maps_spreads_them(tmp_path: Path) -> None:
    for k in range(10):
        put(tmp_path, "training", f"{k}", np.full((HEIGHT, WIDTH), k, np.uint8))
    counts = count_pixels(open_maps(tmp_path, "train"), most=5)
    assert (counts.seen, counts.present) == (5, ("0", "2", "4", "6", "8"))
    assert counts.shares == pytest.approx([0.2, 0] * 5)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_masks_of_few_bits_hold_the_numbers_that_are_stored(tmp_path: Path, bits: int) -> None:
    """Pillow multiplies grey of 2 and 4 bits by 85 and 17; classes are not brightness."""
    row = np.array([[0, 1, 2**bits - 1, 1]])
    (tmp_path / "m.png").write_bytes(png((4, 1, bits, 0), b"\0" + packed(row, bits)))
    assert read_numbers(open_regular(str(tmp_path / "m.png"))).tolist() == row.tolist()
