"""Pixel targets: MAE's normalisation written out, and the low-pass against closed forms."""

import math

import pytest
import torch

from lamina.core.errors import LaminaError
from lamina.core.patches import patchify
from lamina.targets.pixels import Pixels, ellipse, low_pass

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def wave(height: int, width: int, fy: int, fx: int) -> torch.Tensor:
    """A cosine of fy and fx cycles per image."""
    y = torch.arange(height, dtype=torch.float64)[:, None] / height
    x = torch.arange(width, dtype=torch.float64)[None] / width
    return torch.cos(2 * math.pi * (fy * y + fx * x) + 0.3)[None, None]


@pytest.mark.parametrize("size", [(24, 24), (24, 36), (25, 30), (21, 21)])
@pytest.mark.parametrize("cutoff", [0.25, 40 / 112, 0.8])
def test_low_pass_keeps_or_removes_each_wave(size, cutoff):
    """A single cosine is an eigenfunction: it passes whole, or not at all."""
    for fy in range(-3, size[0] // 2, 2):
        for fx in range(0, size[1] // 2, 3):
            image = wave(*size, fy, fx)
            radius = math.hypot(2 * fy / size[0], 2 * fx / size[1])
            if abs(radius - cutoff) < 1e-9:
                continue
            expected = image if radius < cutoff else torch.zeros_like(image)
            torch.testing.assert_close(low_pass(image, cutoff), expected, atol=1e-10, rtol=0)


def test_low_pass_at_the_published_size_keeps_a_circle_of_radius_40():
    """Bins of the full spectrum of a 224 px image within 40 of DC, DC included: 5,025 by counting."""
    full = sum(y * y + x * x <= 1600 for y in range(-112, 112) for x in range(-112, 112))
    assert full == 5025
    half = ellipse((224, 224), 40 / 112)
    # A real FFT stores each bin off the first column once, its mirror image not at all.
    assert int(half[:, 0].sum() + 2 * half[:, 1:].sum()) == full


def test_low_pass_leaves_float32_and_the_mean():
    images = torch.rand(2, 3, 32, 32)
    low = low_pass(images, 0.3)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.mean((-1, -2)), images.mean((-1, -2)))
    torch.testing.assert_close(low_pass(low, 0.3), low, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cutoff", [None, 40 / 112])
@pytest.mark.parametrize(("dtype", "levels"), [(torch.uint8, 256), (torch.uint16, 65536), (torch.uint16, 40)])
def test_stored_images_lose_nothing_to_single_precision(dtype, levels, cutoff):
    """Against the same in float64, for the least contrast that 16 bits can hold too: 40 of 65,536 levels."""
    generator = torch.Generator().manual_seed(0)
    first = (torch.iinfo(dtype).max + 1 - levels) // 2
    stored = (torch.randint(0, levels, (2, 3, 16, 24), generator=generator) + first).to(dtype)
    target, _ = Pixels((8, 8), MEAN, STD, low_pass=cutoff)(stored)
    exact, _ = Pixels((8, 8), MEAN, STD, low_pass=cutoff).double()(stored.double() / torch.iinfo(dtype).max)
    torch.testing.assert_close(target.double(), exact, rtol=0, atol=3e-4 if levels == 40 else 2e-5)


def test_norm_pix_is_maes_formula():
    images = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    target, scores = Pixels((8, 8), MEAN, STD).double()(images)
    assert scores is None
    mean, std = (torch.tensor(v, dtype=torch.float32).double() for v in (MEAN, STD))
    for n, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        patch = images[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        values = ((patch - mean[:, None, None]) / std[:, None, None]).permute(1, 2, 0).flatten()
        expected = (values - values.mean()) / (values.var(unbiased=True) + 1e-6).sqrt()
        torch.testing.assert_close(target[0, n], expected)


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("stored", [True, False])
def test_to_pixels_undoes_the_target(norm_pix, stored):
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    images = images if stored else images.float() / 255
    pixels = Pixels((4, 4), MEAN, STD, norm_pix)
    where = torch.tensor([[0, 5, 9], [1, 2, 15]])
    target, _ = pixels(images)
    values = target.gather(1, where[..., None].expand(-1, -1, 48))
    unit = images.float() / 255 if stored else images
    expected = patchify(unit, (4, 4)).gather(1, where[..., None].expand(-1, -1, 48))
    torch.testing.assert_close(pixels.to_pixels(values, where, images), expected, atol=1e-5, rtol=0)


def test_low_passed_target_shows_the_low_passed_image():
    images = torch.rand(1, 3, 16, 16)
    pixels = Pixels((4, 4), MEAN, STD, True, 0.4)
    where = torch.arange(16)[None]
    shown = pixels.to_pixels(pixels(images)[0], where, images)
    torch.testing.assert_close(shown, patchify(low_pass(images, 0.4), (4, 4)), atol=1e-5, rtol=0)


def test_refuses_a_cutoff_that_keeps_nothing():
    with pytest.raises(LaminaError, match="positive"):
        Pixels((4, 4), MEAN, STD, True, 0.0)
