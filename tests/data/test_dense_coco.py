"""Annotations in the COCO format against masks that the test draws itself."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lamina.core.errors import LaminaError
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.class_counts import check_counts, count_objects
from lamina.data.dense.coco import CocoObjects, open_coco
from lamina.data.dense.open import open_maps, open_objects
from lamina.data.dense.sources import ObjectSource
from lamina.data.options import Decoding

HEIGHT, WIDTH = 20, 30
IMAGE = {"id": 10, "file_name": "0.png", "height": HEIGHT, "width": WIDTH}
codec = pytest.mark.skipif(find_spec("faster_coco_eval") is None, reason="faster-coco-eval is not installed")


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray[Any, Any]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def runs(mask: np.ndarray[Any, Any]) -> list[int]:
    """Run lengths down the columns, beginning with what is not covered."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes.tolist(), len(flat)]).tolist()
    return lengths if not flat[0] else [0, *lengths]


def compressed(counts: list[int]) -> str:
    """COCO's text of run lengths: differences to the one before last, 5 bits and a mark that more follow."""
    text = ""
    for k, count in enumerate(counts):
        left = count - counts[k - 2] if k > 2 else count
        more = True
        while more:
            bits = left & 0x1F
            left >>= 5
            more = left != (-1 if bits & 0x10 else 0)
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def write(
    root: Path,
    annotations: list[dict[str, Any]],
    part: str = "train2017",
    images: int = 2,
    instead: dict[str, Any] | None = None,
) -> Path:
    """A COCO root of one part, its images numbered from 10; what is not said of an annotation is filled in."""
    (root / part).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    rows = []
    for k in range(images):
        name = f"{k}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (k, 0, 0)).save(root / part / name)
        rows.append({"id": 10 + k, "file_name": name, "height": HEIGHT, "width": WIDTH})
    filled = [
        {"id": k, "image_id": 10, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 0, **each}
        for k, each in enumerate(annotations)
    ]
    categories = [{"id": 90, "name": "last"}, {"id": 7, "name": "first"}, {"id": 44, "name": "middle"}]
    content = {"images": rows, "annotations": filled, "categories": categories}
    content |= instead or {}
    file = root / "annotations" / f"instances_{part}.json"
    file.write_text(json.dumps(content))
    return file


def opened(
    root: Path, annotations: list[dict[str, Any]], instead: dict[str, Any] | None = None
) -> CocoObjects:
    return open_coco(write(root, annotations, instead=instead), root / "train2017")


# --- what is read ---------------------------------------------------------------------------------------


@codec
def test_polygons_and_run_lengths_give_the_mask_that_was_drawn(tmp_path: Path) -> None:
    first, second = rectangle(3, 4, 13, 9), rectangle(20, 0, 30, 20)
    both = first | second
    polygon = [3, 4, 13, 4, 13, 9, 3, 9]
    shapes = [
        [polygon],
        [polygon, [20, 0, 30, 0, 30, 20, 20, 20]],
        {"size": [HEIGHT, WIDTH], "counts": runs(both)},
        {"size": [HEIGHT, WIDTH], "counts": compressed(runs(both))},
        {"size": [HEIGHT, WIDTH], "counts": runs(rectangle(0, 0, 2, 20))},
    ]
    source = opened(tmp_path, [{"segmentation": shape} for shape in shapes])
    assert isinstance(source, ObjectSource)
    found = source.read_objects(0)
    for mask, want in zip(found.masks, [first, both, both, both, rectangle(0, 0, 2, 20)], strict=True):
        assert np.array_equal(mask, want)
    assert source.has_masks


@codec
def test_a_triangle_covers_half_of_its_box(tmp_path: Path) -> None:
    found = opened(tmp_path, [{"segmentation": [[0, 0, 20, 0, 0, 20]]}]).read_objects(0)
    mask = found.masks[0].numpy()
    y, x = np.indices(mask.shape)
    off = np.abs(x + y + 1 - 20)  # pixel centres on the long side are a matter of taste
    assert np.array_equal(mask[off > 1], (x + y + 1 < 20)[off > 1])


def test_boxes_are_clipped_corners_and_what_is_left_of_none_is_dropped(tmp_path: Path) -> None:
    boxes = [
        [3, 4, 10.5, 5],
        [-4, -2, 10, 10],
        [25, 15, 100, 100],
        [3, 3, 0, 5],
        [3, 3, -4, 5],
        [40, 3, 5, 5],
    ]
    source = opened(tmp_path, [{"bbox": box} for box in [*boxes, [0, 0, float("nan"), 3]]])
    found = source.read_objects(0)
    assert found.boxes.tolist() == [[3, 4, 13.5, 9], [0, 0, 6, 8], [25, 15, 30, 20]]
    assert found.boxes.dtype == torch.float32
    assert source.left_out.total() == 4


def test_without_segmentations_masks_are_boxes_rounded_outwards(tmp_path: Path) -> None:
    source = opened(tmp_path, [{"bbox": [3.2, 4, 10.5, 5]}, {"bbox": [0, 0, 2, 2], "segmentation": []}])
    assert not source.has_masks
    masks = source.read_objects(0).masks
    assert np.array_equal(masks[0], rectangle(3, 4, 14, 9))
    assert np.array_equal(masks[1], rectangle(0, 0, 2, 2))


def test_labels_count_categories_by_ascending_id(tmp_path: Path) -> None:
    source = opened(tmp_path, [{"category_id": number} for number in (90, 7, 44, 7)])
    assert source.classes == ("first", "middle", "last")
    assert source.read_objects(0).labels.tolist() == [2, 0, 1, 0]
    counts = count_objects(source)
    assert (counts.total, counts.images, counts.seen) == ((2, 1, 1), (1, 1, 1), 2)


def test_crowds_are_marked_and_not_counted(tmp_path: Path) -> None:
    source = opened(tmp_path, [{"iscrowd": 1}, {}])
    assert source.read_objects(0).crowd.tolist() == [True, False]
    assert count_objects(source).total == (1, 0, 0)


def test_images_with_objects_are_told_without_reading_them(tmp_path: Path) -> None:
    for found, shows in (
        ([{"iscrowd": 1}, {}], [0]),
        ([{"iscrowd": 1}], []),
        ([{"image_id": 11}], [1]),
        ([{"bbox": [90, 90, 5, 5]}], []),
    ):
        source = opened(tmp_path, found)
        source.images.path = None  # nothing can be read by it
        assert [i for i in range(len(source.images)) if source.has_objects(i)] == shows
        source = opened(tmp_path, found)
        read = [i for i in range(2) if bool((~source.read_objects(i).crowd).any())]
        assert read == shows


def test_images_without_annotations_stay(tmp_path: Path) -> None:
    source = opened(tmp_path, [{"image_id": 11}])
    assert len(source.images) == 2
    empty = source.read_objects(0)
    assert [tuple(tensor.shape) for tensor in empty] == [(0, 4), (0,), (0, HEIGHT, WIDTH), (0,)]
    assert empty.masks.dtype == empty.crowd.dtype == torch.bool
    assert len(source.read_objects(1).labels) == 1
    assert [int(source.images.read(i)[0, 0, 0]) for i in range(2)] == [0, 1]


# --- labels that do not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"segmentation": [[0, 0, 5, 5]]}, "fewer than three corners"),
        ({"segmentation": [[0, 0, 5, 0, 5, 5, 1]]}, "odd number"),
        ({"segmentation": [[0, 0, float("nan"), 0, 5, 5]]}, "no list of numbers"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "far outside"),
        ({"segmentation": [["0", 0, 5, 0, 5, 5]]}, "no list of numbers"),
        ({"segmentation": [3]}, "no list of numbers"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [0, 600]}}, "another size"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 6000]}}, "do not cover"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 5]}}, "do not cover"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3, -5, 602]}}, "do not cover"),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "neither polygons nor run lengths"),
        ({"segmentation": {"counts": [600]}}, "another size"),
        ({"segmentation": 5}, "neither polygons nor run lengths"),
        ({"segmentation": "text"}, "neither polygons nor run lengths"),
        ({"image_id": 4711}, "images that are not listed"),
        ({"category_id": None}, "categories that are not listed"),
        ({"bbox": [1, 2, 3]}, "a box of four numbers"),
        ({"bbox": None}, "a box of four numbers"),
        ({"bbox": [99, 99, 5, 5]}, "without a box in their image"),
    ],
    ids=str,
)
@codec
def test_an_odd_annotation_is_left_out_and_counted(tmp_path: Path, odd: dict[str, Any], reason: str) -> None:
    good = {"segmentation": [[3, 4, 13, 4, 13, 9, 3, 9]]}
    source = opened(tmp_path, [good, {**good, **odd}, {**good, "image_id": 11}])
    for i in range(2):
        assert np.array_equal(source.read_objects(i).masks, rectangle(3, 4, 13, 9)[None])
    assert (source.left_out.total(), source.has_masks) == (1, True)
    (said,) = source.left_out
    assert reason in said


@codec
def test_a_piece_without_area_is_no_part_of_a_mask(tmp_path: Path) -> None:
    source = opened(tmp_path, [{"segmentation": [[3, 4, 13, 4, 13, 9, 3, 9], [20, 1, 22, 1]]}])
    assert np.array_equal(source.read_objects(0).masks[0], rectangle(3, 4, 13, 9))
    assert source.left_out.total() == 0


@codec
def test_one_annotation_without_a_mask_does_not_cost_all_others_theirs(tmp_path: Path) -> None:
    masked = {"segmentation": [[3, 4, 13, 4, 13, 9, 3, 9]]}
    source = opened(tmp_path, [*[masked] * 99, {}])
    assert (source.has_masks, source.left_out.total(), len(source.read_objects(0).boxes)) == (True, 1, 99)
    assert not opened(tmp_path, [*[masked] * 9, {}]).has_masks  # one in ten is how the data are


@codec
def test_compressed_run_lengths_that_are_damaged_make_their_image_unreadable(tmp_path: Path) -> None:
    shape = {"size": [HEIGHT, WIDTH], "counts": "zzzz~~"}
    source = opened(tmp_path, [{"segmentation": shape}, {"image_id": 11}])
    with pytest.raises(Unreadable) as error:
        source.read_objects(0)
    assert error.value.reason == Reason.LABELS
    assert "\n" not in str(error.value)
    assert len(source.read_objects(1).labels) == 1


def test_names_that_are_given_twice(tmp_path: Path) -> None:
    names = [{"id": 7, "name": "first"}, {"id": 7, "name": "again"}, {"id": 7, "name": "first"}]
    source = opened(tmp_path, [{"category_id": 7}], {"categories": names})
    assert source.classes == ("first",)
    assert source.images.notes == ("category 7 is called 'again' too; 'first' is taken",)
    twice = opened(tmp_path, [{}], {"images": [IMAGE, IMAGE]})
    assert len(twice.images) == len(twice.read_objects(0).labels) == 1
    with pytest.raises(LaminaError, match="two images have the id 10"):
        opened(tmp_path, [{}], {"images": [IMAGE, {**IMAGE, "file_name": "1.png"}]})


def test_a_missing_image_costs_itself_alone(tmp_path: Path) -> None:
    write(tmp_path, [{}, {"image_id": 11}])
    (tmp_path / "train2017" / "0.png").unlink()
    source = open_objects(tmp_path, "train")
    with pytest.raises(Unreadable) as error:
        source.read_objects(0)
    assert error.value.reason == Reason.MISSING
    assert len(source.read_objects(1).labels) == 1


def test_an_image_of_another_size_does_not_fit(tmp_path: Path) -> None:
    source = opened(tmp_path, [{}])
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "train2017" / "0.png")
    for read in (source.read_objects, source.images.read):
        with pytest.raises(Unreadable, match="30 x 21 px, annotated as 30 x 20") as error:
            read(0)
        assert error.value.reason == Reason.LABELS


def test_a_turned_photograph_fits_as_it_was_annotated(tmp_path: Path) -> None:
    source = opened(tmp_path, [{}])
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (WIDTH, HEIGHT))
    stored.save(tmp_path / "train2017" / "0.png", exif=exif)
    with pytest.raises(Unreadable, match="turned by EXIF"):
        source.read_objects(0)
    as_stored = Decoding(exif_orientation=False)
    assert source.read_objects(0, as_stored).masks.shape[1:] == source.images.read(0, as_stored).shape[1:]
    stored.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "train2017" / "0.png", exif=exif)
    assert source.read_objects(0).masks.shape[1:] == source.images.read(0).shape[1:]


# --- opening --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "val"), [("train2017", "val2017"), ("Train", "Test")])
def test_parts_are_told_by_their_names(tmp_path: Path, train: str, val: str) -> None:
    write(tmp_path, [{}], train)
    write(tmp_path, [{}, {}], val, images=1)
    write(tmp_path, [{}, {}], "testing", images=1)  # of val and test, val is held out
    assert [len(open_objects(tmp_path, part).images) for part in ("train", "val")] == [2, 1]
    (tmp_path / "annotations" / f"instances_{train}.json").rename(
        tmp_path / "annotations" / "instances_training.json"
    )
    assert len(open_objects(tmp_path, "train").images) == 2  # whatever the images' folder is called


def test_a_root_is_opened_by_its_parts(tmp_path: Path) -> None:
    write(tmp_path, [{}], "train2017")
    write(tmp_path, [{}, {}], "val2017", images=1)
    assert len(open_objects(tmp_path, "train").images) == 2
    val = open_objects(str(tmp_path), "val")
    assert len(val.read_objects(0).labels) == 2
    pair = (tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017")
    assert len(open_objects(pair, "train").images) == 1  # a pair is what it is
    with pytest.raises(LaminaError, match="no masks of classes"):
        open_maps(tmp_path, "train")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": [], "annotations": []}, "lists no images"),
        ({"categories": [{"id": 1, "name": "other"}]}, "1 of categories that are not listed"),
        ({"images": [{**IMAGE, "id": 3}]}, "1 of images that are not listed"),
        ({"images": [{"id": 10, "file_name": "0.png"}]}, "it lacks 'height'"),
        (
            {"images": [{**IMAGE, "file_name": "9.png"}]},
            "9.png, which is not there",
        ),
        ({"annotations": [{"id": 3, "image_id": 10, "category_id": 7}]}, "1 without a box of four numbers"),
        ({"annotations": [{"image_id": 10, "category_id": 7, "bbox": [1, 2]}]}, "not in the COCO format"),
        ({"images": [{**IMAGE, "height": 1 << 40}]}, "not in the COCO format"),
        ({"annotations": 5}, "not in the COCO format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_not_in_the_format_get_a_line(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(LaminaError, match=said) as error:
        opened(tmp_path, [{}], changed)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="no annotations/instances_train"):
        open_objects(tmp_path, "train")
    with pytest.raises(LaminaError, match="there is no folder"):
        open_objects(tmp_path / "nothing", "train")
    with pytest.raises(LaminaError, match="sample:photos has no objects; take sample:doom"):
        open_objects("sample:photos", "train")
    file = write(tmp_path, [{}])
    with pytest.raises(LaminaError, match="there is no folder"):
        open_coco(file, tmp_path / "images")
    with pytest.raises(LaminaError, match="cannot read the annotations"):
        open_coco(tmp_path / "none.json", tmp_path)
    for text in ("{", "[" * 200_000):
        file.write_text(text)
        with pytest.raises(LaminaError, match="is no JSON"):
            open_coco(file, tmp_path / "train2017")
    write(tmp_path, [{}])
    write(tmp_path, [{}], "train2014")
    with pytest.raises(LaminaError, match="several annotations for train"):
        open_objects(tmp_path, "train")


def test_masks_without_the_library_get_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.data.dense.coco.find_spec", lambda name: None)
    with pytest.raises(LaminaError, match=r"pip install 'lamina\[dense\]'"):
        opened(tmp_path, [{"segmentation": [[0, 0, 5, 0, 5, 5]]}])
    assert len(opened(tmp_path, [{}]).read_objects(0).boxes) == 1  # boxes alone need none


def test_parts_that_cannot_be_learned_from_are_told(tmp_path: Path) -> None:
    train, val, empty = (
        count_objects(opened(tmp_path / str(k), [{"category_id": c} for c in categories]))
        for k, categories in enumerate([(7, 44), (7, 90), ()])
    )
    odd = check_counts(train, val, fewest=1)
    assert len(odd) == 2
    assert "in validation alone, 'last'" in odd[0]
    assert "in training alone, 'middle'" in odd[1]
    assert check_counts(train, train, fewest=1) == ()
    for pair in ((empty, val), (train, empty)):
        with pytest.raises(LaminaError, match="nothing is labelled"):
            check_counts(*pair, fewest=1)


def test_many_annotations_are_kept_small(tmp_path: Path) -> None:
    source = opened(tmp_path, [{"image_id": 10 + k % 2} for k in range(2000)])
    assert source._kept.text.values.nbytes < 2000 * 120
    assert len(source.read_objects(1).labels) == 1000
