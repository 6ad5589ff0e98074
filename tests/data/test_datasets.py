"""Datasets as torch has them: the same batches as from files, exact on resume, and what is none is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset
from torch.utils.data import Subset as TorchSubset
from torchvision.datasets import ImageFolder

import lamina
from helpers.options import TINY_NETWORK, as_read
from helpers.training import check_resumes
from lamina.core.errors import LaminaError
from lamina.data.datasets import DatasetSource
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import held_out, open_source
from lamina.data.options import DataOptions, Decoding
from lamina.data.sources import images_digest

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 30, 3), np.uint8)


class Items(Dataset[Any]):
    """What is given, by number; an exception is raised."""

    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


class Loud(Dataset[Any]):
    """Its images change each time."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.rand(3, 8, 8)


class Endless(IterableDataset[Any]):
    def __iter__(self):
        return iter(PIXELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    for i, pixels in enumerate(PIXELS):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / "ab"[i % 2] / f"{i:02}.png")
    return root


@pytest.mark.parametrize(
    "item",
    [
        Image.fromarray(PIXELS[0]),
        PIXELS[0],
        np.moveaxis(PIXELS[0], -1, 0),
        torch.from_numpy(PIXELS[0]).permute(2, 0, 1),
        (Image.fromarray(PIXELS[0]), 3),
        {"image": PIXELS[0], "label": 1},
        torch.from_numpy(PIXELS[0]).permute(2, 0, 1) / 255,
    ],
    ids=["pillow", "array", "channels first", "tensor", "with a label", "mapping", "floats"],
)
def test_every_form_of_an_image(item):
    image = open_source(Items([item])).read(0)
    expected = torch.from_numpy(PIXELS[0]).permute(2, 0, 1)
    assert torch.equal(
        image if image.dtype == torch.uint8 else (image * 255).round().to(torch.uint8), expected
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_modes_of_pillow_are_what_the_same_image_is_in_a_file(mode, tmp_path):
    grey = Image.fromarray(PIXELS[0, ..., 0])
    if mode == "I;16":
        image = Image.fromarray(PIXELS[0, ..., 0].astype(np.uint16) * 200)
    elif mode == "F":
        image = Image.fromarray(PIXELS[0, ..., 0].astype(np.float32) / 255)
    else:
        image = (grey if mode in ("1", "L", "LA") else Image.fromarray(PIXELS[0])).convert(mode)
    file = tmp_path / ("a.tif" if mode in ("CMYK", "F") else "a.png")
    image.save(file)
    for in_chans in (None, 1, 3):
        found = DatasetSource(Items([image])).read(0, Decoding(in_chans))
        assert torch.equal(found, open_source(str(file)).read(0, Decoding(in_chans)))


def test_labels_and_names_of_torchvision(folder):
    own, of_files = open_source(ImageFolder(str(folder))), open_source(str(folder))
    assert (own.labels, own.class_names) == (of_files.labels, of_files.class_names)
    assert all(torch.equal(own.read(i), of_files.read(i)) for i in range(len(own)))
    half = open_source(TorchSubset(ImageFolder(str(folder)), [0, 5, 19]))
    assert half.labels == [0, 0, 1]
    assert [len(open_source(ImageFolder(str(folder)), split)) for split in ("train", "val")] == [16, 4]
    assert held_out(ImageFolder(str(folder))) == "all"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_files(workers, folder):
    def batches(data: Any) -> list[torch.Tensor]:
        loader = TrainLoader(
            open_source(data), DataOptions(workers=workers), 3, 4, image_size=(16, 16), in_chans=3
        )
        return [batch.images for batch in loader.batches(2, 8)]

    assert all(map(torch.equal, batches(ImageFolder(str(folder))), batches(str(folder))))


def test_pre_training_evaluates_and_resumes(folder, tmp_path):
    data = ImageFolder(str(folder))
    settings = {"image_size": 16, "patch_size": 4, "batch_size": 4, "workers": 0, "max_steps": 4}
    fixed = TINY_NETWORK | {"train.keep_checkpoints": 9, "train.checkpoint_every_steps": 1}
    lamina.pretrain(
        data, tmp_path / "run", "mae-small", **settings, options=as_read("mae-small", fixed, None)
    )
    assert "a ImageFolder of 20 images" in (tmp_path / "run" / "recipe.yaml").read_text()
    check_resumes(tmp_path / "run", 4, lambda run: lamina.pretrain(data, run, resume=True), at=(2,))
    with pytest.raises(LaminaError, match="20 images, and the 19 of now"):
        lamina.pretrain(TorchSubset(data, range(19)), tmp_path / "run", resume=True)


def test_a_source_of_ones_own_is_taken_as_it_is(folder):
    source = open_source(str(folder))
    assert open_source(source) is source


def test_other_pixels_are_other_images():
    one, same = (Items([Image.fromarray(p) for p in PIXELS]) for _ in range(2))
    other = Items([Image.fromarray(p) for p in PIXELS[::-1]])
    assert images_digest(open_source(one)) == images_digest(open_source(same))
    assert images_digest(open_source(one)) != images_digest(open_source(other))


def test_an_item_that_fails_is_one_unreadable_image():
    source = open_source(Items([PIXELS[0], OSError("the disk\nis gone"), "text", PIXELS[1] - 300.0]))
    for i, reason in ((1, Reason.BROKEN), (2, Reason.PIXEL_TYPE), (3, Reason.PIXEL_TYPE)):
        with pytest.raises(Unreadable) as error:
            source.read(i)
        assert error.value.reason == reason
        assert "\n" not in str(error.value)


def test_random_images_are_said():
    assert "changes its images at random" in open_source(Loud()).notes[0]
    assert not open_source(Items([PIXELS[0]])).notes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Endless(), "no numbered items"),
        (Items([]), "has no items"),
        (Items(["text"]), "no image that can be used"),
        (Items([torch.randn(3, 8, 8)]), "not normalised"),
        (Items([PIXELS[0]], targets=[-1]), "below 0"),
    ],
)
def test_what_is_no_dataset_of_images_is_refused_in_one_line(data, words):
    with pytest.raises(LaminaError, match=words) as error:
        open_source(data)
    assert "\n" not in str(error.value)
