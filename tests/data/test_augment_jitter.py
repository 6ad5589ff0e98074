"""Colour jitter: torchvision's functions by numbers drawn beforehand, and a recipe's own crop of BEiT."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from lamina.core.errors import LaminaError
from lamina.data.augment.hue import shift_hue
from lamina.data.augment.jitter import jitter
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.data.options import DataOptions

IMAGE = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_numbers_mean_strengths_and_an_order():
    """0.75 of the way from 1 - 0.4 to 1 + 0.4 is 1.2; the first order is brightness, contrast, saturation, hue."""
    changed = jitter(IMAGE, (0.4, 0.4, 0.4, 0.1), [0.75, 0.5, 0.25, 1.0, 0.0])
    expected = F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(IMAGE, 1.2), 1.0), 0.8)
    assert torch.equal(changed, F.adjust_hue(expected, 0.1))
    backwards = jitter(IMAGE, (0.4, 0.4, 0.4, 0.1), [0.75, 0.5, 0.25, 1.0, 0.9999])
    expected = F.adjust_contrast(F.adjust_saturation(F.adjust_hue(IMAGE, 0.1), 0.8), 1.0)
    assert torch.equal(backwards, F.adjust_brightness(expected, 1.2))


def test_no_strength_no_change_and_other_channels_are_refused():
    assert torch.equal(jitter(IMAGE, (0, 0, 0, 0), [0.9] * 5), IMAGE)
    with pytest.raises(LaminaError, match="1 or 3 channels"):
        jitter(torch.rand(4, 8, 8), (0.4, 0, 0, 0), [0.5] * 5)


def test_training_crops_are_jittered_alike_by_any_worker():
    source = open_source("sample:photos?crop=16&most=4")
    plain, *jittered = (
        next(iter(TrainLoader(source, options, 0, 8, image_size=(16, 16)).batches(0, 1))).images
        for options in (
            DataOptions(workers=0),
            DataOptions(workers=0, jitter=(0.4, 0.4, 0.4, 0.0)),
            DataOptions(workers=2, jitter=(0.4, 0.4, 0.4, 0.0)),
        )
    )
    assert torch.equal(*jittered)
    assert not torch.equal(plain, jittered[0])


@pytest.mark.parametrize("amount", [0.0, 0.5, -0.5, 1e-9, -1e-9, 1 / 6, -1 / 3, 0.0999, -0.07])
def test_a_shift_of_the_hue_is_that_of_torchvision_to_the_bit(amount):
    levels = torch.arange(0, 256, 5, dtype=torch.uint8)  # grey, black, white and pure colours among them
    colours = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 52, -1)
    noise = torch.randint(
        0, 256, (3, 300, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for image in (colours, noise, noise[:, ::2, 3:90], noise / 255, noise[:1]):
        before = image.clone()
        assert torch.equal(shift_hue(image, amount), F.adjust_hue(image, amount))
        assert torch.equal(image, before)
