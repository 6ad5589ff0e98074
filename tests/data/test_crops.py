"""Crops against torchvision: its pixels for the same box, and its boxes in distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop
from torchvision.transforms.v2 import functional as F

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, uniform
from lamina.data.augment.crops import CenterCrop, RandomResizedCrop, SimpleResizedCrop, covering, make_crop
from lamina.data.options import DataOptions

BICUBIC = InterpolationMode.BICUBIC


def images() -> list[torch.Tensor]:
    torch.manual_seed(0)
    eight = torch.randint(0, 256, (3, 70, 93), dtype=torch.uint8)
    return [eight, eight.float() / 255, torch.rand(7, 50, 41), torch.randint(0, 256, (1, 33, 80)).byte()]


def draws(n: int, per_sample: int) -> list[list[float]]:
    return uniform(sample_keys(0, 0, torch.arange(n)), per_sample, Purpose.CROP).tolist()


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_random_resized_crop_is_torchvisions_for_the_same_box(size: tuple[int, int]) -> None:
    crop = RandomResizedCrop(size)
    for image in images():
        for numbers in draws(5, crop.n_draws):
            box = crop.box(*image.shape[1:], numbers)
            want = F.resized_crop(image, *box, list(size), interpolation=BICUBIC, antialias=True)
            want = want.clamp(0, 1) if want.is_floating_point() else want
            got = crop(image, numbers)
            assert got.dtype == image.dtype
            assert torch.equal(got, want)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (30, 200), (400, 90)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    crop, n = RandomResizedCrop((224, 224)), 2000
    ours = np.array([crop.box(height, width, numbers) for numbers in draws(n, crop.n_draws)], dtype=float)
    torch.manual_seed(0)
    blank = torch.empty(1, height, width)
    theirs = [TorchvisionCrop.get_params(blank, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
    for column, reference in zip(ours.T, np.array(theirs, dtype=float).T, strict=True):
        assert stats.ks_2samp(column, reference, method="asymp").pvalue > 1e-3


def test_a_box_that_never_fits_falls_back_to_the_centre() -> None:
    crop = RandomResizedCrop((8, 8))
    full = [0.999] * crop.n_draws  # the whole area at the widest ratio never fits a tall strip
    for height, width in ((100, 10), (10, 100), (1, 10000), (10000, 1), (1, 1)):
        low = TorchvisionCrop.get_params(torch.empty(1, height, width), [1, 1], [0.75, 0.7501])
        got = RandomResizedCrop((8, 8), (1.0, 1.0), (0.75, 0.7501)).box(height, width, full)
        assert got == low
        assert crop(torch.zeros(3, height, width, dtype=torch.uint8), full).shape == (3, 8, 8)


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_simple_resized_crop_is_resize_pad_crop(size: tuple[int, int]) -> None:
    crop = SimpleResizedCrop(size)
    for image in images():
        height, width = covering(*image.shape[1:], size)
        resized = F.resize(image, [height, width], interpolation=BICUBIC, antialias=True)
        resized = resized.clamp(0, 1) if resized.is_floating_point() else resized
        padded = torch.from_numpy(np.pad(resized.numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect"))
        for numbers in draws(5, crop.n_draws):
            top = int(numbers[0] * (height + 8 - size[0] + 1))
            left = int(numbers[1] * (width + 8 - size[1] + 1))
            want = padded[:, top : top + size[0], left : left + size[1]]
            assert torch.equal(crop(image, numbers), want)


def test_simple_resized_crop_reaches_every_shift() -> None:
    crop = SimpleResizedCrop((16, 16))
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    found = {bytes(crop(image, numbers).flatten().tolist()) for numbers in draws(1500, 2)}
    assert len(found) == 81  # 9 x 9 shifts of a square image


@pytest.mark.parametrize(("height", "width"), [(70, 93), (93, 70), (64, 64), (301, 17)])
def test_covering_a_square_is_torchvisions_short_side(height: int, width: int) -> None:
    want = F.resize(torch.zeros(1, height, width), [48], interpolation=BICUBIC).shape[1:]
    assert covering(height, width, (48, 48)) == tuple(want)


def test_center_crop_is_the_usual_evaluation() -> None:
    image = images()[0]
    resized = F.resize(image, [64], interpolation=BICUBIC, antialias=True)
    assert torch.equal(CenterCrop((56, 56))(image), F.center_crop(resized, [56, 56]))
    square = torch.randint(0, 256, (3, 56, 56), dtype=torch.uint8)
    assert torch.equal(CenterCrop((56, 56), share=1.0)(square), square)


@pytest.mark.parametrize("crop", [CenterCrop((16, 16)), SimpleResizedCrop((16, 24))])
@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 30000), (3, 30000, 1), (1, 2, 3)])
def test_extreme_shapes_cost_little_memory(
    crop: CenterCrop | SimpleResizedCrop, shape: tuple[int, int, int]
) -> None:
    image = torch.full(shape, 77, dtype=torch.uint8)
    assert torch.equal(crop(image, [0.5] * crop.n_draws), torch.full((shape[0], *crop.size), 77).byte())


def test_floats_stay_in_range() -> None:
    checker = (torch.arange(64)[:, None] + torch.arange(64)).remainder(8).ge(4).float()[None]
    for crop in (CenterCrop((100, 100)), SimpleResizedCrop((100, 100)), RandomResizedCrop((100, 100))):
        result = crop(checker, [0.3] * crop.n_draws)
        assert result.min() >= 0
        assert result.max() <= 1


def test_options_name_the_crop_and_its_size() -> None:
    assert make_crop(DataOptions(crop_scale=(0.5, 1)), (8, 16)) == RandomResizedCrop((8, 16), (0.5, 1))
    assert make_crop(DataOptions(crop="simple_resized"), (8, 16)) == SimpleResizedCrop((8, 16))
    assert make_crop(DataOptions(crop="center", crop_px=(9, 9)), (8, 16)) == CenterCrop((9, 9))
    with pytest.raises(LaminaError, match="crop_padding_px"):
        make_crop(DataOptions(crop="simple_resized", crop_padding_px=8), (8, 16))
    with pytest.raises(LaminaError, match=r"data\.crop_scale"):
        DataOptions(crop_scale=(1.0, 0.2))
