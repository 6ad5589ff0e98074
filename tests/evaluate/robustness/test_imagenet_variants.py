"""ImageNet-C, -A, -R and -Sketch: folders as published, and their classes among a classifier's."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image

from lamina.core.errors import LaminaError
from lamina.evaluate.robustness.corruptions.kinds import KINDS, SEVERITIES
from lamina.evaluate.robustness.imagenet_variants import (
    class_subset,
    imagenet_c_kinds,
    imagenet_wnids,
    open_imagenet_c,
    open_variant,
)

A, B = "n01440764", "n01443537"


def put(folder, *classes):
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4, 3), k % 256, np.uint8)).save(folder / name / "ILSVRC2012_val_1.JPEG")


def listed(name):
    """What timm ships beside its own validation script."""
    return (files("timm.data") / "_info" / name).read_text().split()


@pytest.mark.parametrize("family", ["", "weather"])
def test_imagenet_c_as_published_with_and_without_families(tmp_path, family):
    for severity in SEVERITIES:
        put(tmp_path / family / "fog" / str(severity), A, B)
        put(tmp_path / "snow" / str(severity), A, B)
    assert imagenet_c_kinds(tmp_path) == ("snow", "fog")
    source = open_imagenet_c(tmp_path, "fog", 3)
    assert source.class_names == (A, B)
    assert source.labels == [0, 1]
    assert source.read(1).shape == (3, 4, 4)


def test_imagenet_c_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(LaminaError, match="no folder of ImageNet-C"):
        imagenet_c_kinds(tmp_path)
    put(tmp_path / "fog" / "1", A, B)
    with pytest.raises(LaminaError, match="fog without severity 2"):
        imagenet_c_kinds(tmp_path)
    with pytest.raises(LaminaError, match=r"fog/2; unpack"):
        open_imagenet_c(tmp_path, "fog", 2)
    put(tmp_path / "fog" / "2", A)
    with pytest.raises(LaminaError, match="no classes, or one alone"):
        open_imagenet_c(tmp_path, "fog", 2)
    assert "frost" in KINDS  # the folders' names are the corruptions'


def test_variants_have_as_many_classes_as_were_published(tmp_path):
    wnids = listed("imagenet_a_synsets.txt")
    put(tmp_path, *wnids[1:])
    (tmp_path / "README.txt").write_text("about")
    with pytest.raises(LaminaError, match="199 classes where imagenet-a has 200"):
        open_variant(tmp_path, "imagenet-a")
    put(tmp_path, wnids[0])
    source = open_variant(tmp_path, "imagenet-a")
    assert source.class_names == tuple(sorted(wnids))
    assert len(source) == 200
    with pytest.raises(LaminaError, match="there is no"):
        open_variant(tmp_path / "elsewhere", "imagenet-r")


@pytest.mark.parametrize("name", ["a", "r"])
def test_subsets_are_those_that_timm_lists(name):
    classes = sorted(listed(f"imagenet_{name}_synsets.txt"))
    wnids = imagenet_wnids()
    found = class_subset(wnids, classes)
    assert sorted(found.tolist()) == sorted(int(i) for i in listed(f"imagenet_{name}_indices.txt"))
    assert [wnids[i] for i in found] == classes


def test_a_class_outside_the_subset_cannot_be_chosen():
    logits = torch.tensor([[9.0, 1.0, 2.0, 8.0], [0.0, 5.0, 3.0, 9.0]])
    subset = class_subset(["a", "b", "c", "d"], ["c", "b"])
    assert subset.tolist() == [2, 1]
    assert logits[:, subset].argmax(1).tolist() == [0, 1]  # c and b, counted as the images' labels are


def test_unknown_and_doubled_classes_are_one_line():
    with pytest.raises(LaminaError, match="lacks 2 of the images' 3 classes, such as 'x'") as error:
        class_subset(["a", "b"], ["b", "x", "y"])
    assert "\n" not in str(error.value)
    with pytest.raises(LaminaError, match="one name"):
        class_subset(["a", "b", "a"], ["b"])
    with pytest.raises(LaminaError, match="no ImageNet of 7 classes"):
        imagenet_wnids(7)
    assert len(imagenet_wnids(21841)) == 21841
