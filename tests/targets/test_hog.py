"""HOG against scikit-image, scipy's Sobel in a transcription of the definition, and closed forms."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.feature import hog

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.targets.hog import HOG


def cells_of(target, grid, channels, bins, cells):
    """(B, N, K) as (B, C, bins, rows of cells, columns of cells)."""
    tiles = target.reshape(len(target), *grid, channels, bins, *cells)
    return tiles.permute(0, 3, 4, 1, 5, 2, 6).flatten(5).flatten(3, 4)


def transcribed(image, bins, cell, gaussian):
    """The definition for one channel (H, W): scipy's gradients, a loop over pixels."""
    gx, gy = (ndimage.sobel(image, axis=axis, mode="mirror") for axis in (1, 0))
    height, width = image.shape
    histogram = np.zeros((bins, height // cell, width // cell))
    for y in range(height):
        for x in range(width):
            weight = 1.0
            if gaussian is not None:
                offsets = [(at % gaussian) - (gaussian - 1) / 2 for at in (y, x)]
                weight = math.exp(-sum(o**2 for o in offsets) / (2 * (gaussian // 2) ** 2))
            half_turns = math.atan2(gx[y, x], gy[y, x]) / math.pi
            into = math.floor(half_turns * bins) % bins
            histogram[into, y // cell, x // cell] += weight * math.hypot(gx[y, x], gy[y, x])
    return histogram / np.maximum(np.sqrt((histogram**2).sum(0)), 1e-12)


@pytest.mark.parametrize(
    ("patch", "channels", "bins", "cell", "gaussian", "size"),
    [
        ((16, 16), 3, 9, 8, 16, (32, 48)),
        ((16, 8), 1, 9, 8, None, (16, 24)),
        ((8, 8), 2, 6, 4, 16, (24, 40)),  # a window over two patches, cut at the image's end
    ],
)
def test_follows_the_definition(patch, channels, bins, cell, gaussian, size):
    images = torch.rand(2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target, scores = HOG(patch, channels, bins, cell, gaussian)(images)
    assert scores is None
    grid, cells = (size[0] // patch[0], size[1] // patch[1]), (patch[0] // cell, patch[1] // cell)
    ours = cells_of(target, grid, channels, bins, cells)
    for b in range(2):
        for c in range(channels):
            theirs = transcribed(images[b, c].numpy(), bins, cell, gaussian)
            np.testing.assert_allclose(ours[b, c].numpy(), theirs, atol=1e-9)


def exact_bin(gx, gy, bins):
    """floor(bins * angle / pi) of whole numbers: boundaries by their tangents, to 50 digits where irrational."""
    if gx < 0 or (gx == 0 and gy < 0):
        gx, gy = -gx, -gy
    if gx == 0:
        return 0
    if gy == 0:
        return bins // 2  # the angle is half of a half-turn
    if abs(gx) == abs(gy):  # a quarter or three quarters of one
        return (bins if gy > 0 else 3 * bins) // 4
    with mpmath.workdps(50):
        return int(mpmath.floor(mpmath.atan2(gx, gy) * bins / mpmath.pi))


def exact_cells(image, bins, cell):
    """Whole-number gradients and exact bins, on Python's integers; lengths by numpy at the end."""
    padded = np.pad(image.astype(int), 1, mode="reflect").tolist()
    height, width = image.shape
    cells = np.zeros((bins, height // cell, width // cell))
    for y in range(height):
        for x in range(width):
            a, b, c = (padded[y + i][x : x + 3] for i in range(3))
            gx = (a[2] + 2 * b[2] + c[2]) - (a[0] + 2 * b[0] + c[0])
            gy = (c[0] + 2 * c[1] + c[2]) - (a[0] + 2 * a[1] + a[2])
            cells[exact_bin(gx, gy, bins), y // cell, x // cell] += math.hypot(gx, gy)
    return cells / np.maximum(np.sqrt((cells**2).sum(0)), 1e-12)


@pytest.mark.parametrize(("dtype", "levels"), [(torch.uint8, 6), (torch.uint8, 256), (torch.uint16, 65536)])
@pytest.mark.parametrize("bins", [9, 8, 6])
def test_gradients_of_stored_images_are_exact(dtype, levels, bins):
    """Against whole numbers and 50 digits: where few levels make many gradients that lie on a boundary of
    bins, none may go to the other side; stored, as floats on [0, 1], and of a few levels apart."""
    generator = np.random.default_rng(levels)
    scale = (torch.iinfo(dtype).max) // (levels - 1)
    image = generator.integers(0, levels, (16, 16)) * scale
    image[:8, :8] = image[0, 0] + scale * np.arange(8)[:, None] % levels  # rows alone: exactly vertical
    stored = torch.from_numpy(image % (torch.iinfo(dtype).max + 1)).to(dtype)[None, None]
    expected = exact_cells(stored[0, 0].numpy(), bins, 4)
    for images in (stored, unit_float(stored), stored.double() / torch.iinfo(dtype).max):
        target, _ = HOG((16, 16), 1, bins, 4, None)(images)
        np.testing.assert_allclose(
            cells_of(target, (1, 1), 1, bins, (4, 4))[0, 0].numpy(), expected, atol=1e-6
        )


def test_agrees_with_scikit_image():
    """On f(row) + g(column) the Sobel gradient is four times the central one that scikit-image takes; it
    counts angles from the other axis, which a transposed image does too. At the edges it has no gradient."""
    generator = np.random.default_rng(3)
    image = generator.normal(size=(48, 1)) + generator.normal(size=(1, 64))
    theirs = hog(image, 9, (8, 8), (1, 1), block_norm="L2", feature_vector=False)[:, :, 0, 0]  # (6, 8, 9)
    transposed = torch.from_numpy(image.T.copy())[None, None]
    target, _ = HOG((8, 8), 1, gaussian=None)(transposed)
    ours = target.reshape(8, 6, 9).transpose(0, 1).numpy()
    np.testing.assert_allclose(ours[1:-1, 1:-1], theirs[1:-1, 1:-1], atol=1e-6)


@pytest.mark.parametrize("degrees", [5, 35, 77, 101, 155, 205, 301])
def test_a_ramp_is_one_bin(degrees):
    """A ramp that rises towards one direction: all of it in the bin of that direction, from the vertical."""
    angle = math.radians(degrees)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramp = (columns * math.sin(angle) + rows * math.cos(angle)).double() / 100
    target, _ = HOG((8, 8), 1)(ramp[None, None])
    inner = target.reshape(4, 4, 9)[1:-1, 1:-1]
    expected = torch.zeros(9, dtype=torch.float64)
    expected[int(degrees % 180 // 20)] = 1
    torch.testing.assert_close(inner, expected.expand(2, 2, 9))


def test_brightness_and_contrast_drop_out():
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([0.2, 3.0, 0.7], dtype=torch.float64).view(3, 1, 1)
    target = HOG((16, 16))
    torch.testing.assert_close(target(images)[0], target(images * scale + 0.4)[0])


def test_bytes_and_floats_are_the_same_image():
    images = torch.randint(
        0, 256, (2, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    target = HOG((16, 16))
    of_bytes, _ = target(images)
    assert of_bytes.shape == (2, 2, 108)
    assert target.width == 108
    assert of_bytes.dtype == torch.float32
    assert torch.equal(of_bytes, target(images.float() / 255)[0])


def test_a_patch_depends_on_itself_and_one_pixel_around():
    images = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    changed = images.clone()
    changed[..., 18:30, 18:30] = 0
    target = HOG((16, 16))
    differs = (target(images)[0] != target(changed)[0]).any(-1)
    assert differs.tolist() == [[i == 4 for i in range(9)]]


def test_a_flat_image_has_no_orientation_and_no_nan():
    target, _ = HOG((16, 16))(torch.full((1, 3, 32, 32), 0.3))
    assert target.isfinite().all()
    assert HOG((16, 16))(torch.zeros(1, 3, 32, 32))[0].abs().max() == 0


def test_autocast_changes_nothing():
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    target = HOG((16, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = target(images)
    assert torch.equal(inside, target(images)[0])


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: HOG((14, 14)), "cannot be tiled by HOG cells of 8 px"),
        (lambda: HOG((16, 16), bins=0), "1 or more"),
        (lambda: HOG((16, 16))(torch.rand(1, 1, 32, 32)), "built for 3 channels"),
        (lambda: HOG((16, 16))(torch.rand(1, 3, 32, 40)), "cannot be cut"),
        (lambda: HOG((16, 16))(torch.zeros(1, 3, 32, 32, dtype=torch.int64)), "uint8"),
    ],
)
def test_refuses_with_a_sentence(act, says):
    with pytest.raises(LaminaError, match=says):
        act()
